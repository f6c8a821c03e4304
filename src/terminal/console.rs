//! The terminal, or the pipes in its place: what is typed, and the way to what is shown.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use nix::sys::termios::{SetArg, Termios, tcsetattr};

use super::editor::{Names, Screen, edit_lines};

/// Longest line of a pipe, as long as the longest content that a server can be set to take.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// Lines read ahead from a pipe.
const LINES_AHEAD: usize = 16;
/// How long the end waits for the last texts.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// Ends bracketed paste, which rustyline begins, and clears what stands from the prompt on.
const LEAVE_PROMPT: &str = "\x1b[?2004l\r\x1b[J";

/// What comes from who types, or from a pipe.
pub enum Input {
    /// A line, without its end.
    Line(String),
    /// There will be no more.
    End,
    /// What came can't be sent.
    Broken(String),
}

/// Where texts go, and lines come from.
pub struct Terminal {
    /// What is typed.
    pub input: Receiver<Input>,
    /// Whether a person types: commands are understood then. A pipe's lines are sent as they are.
    pub interactive: bool,
    /// Whether standard output is a terminal that has colours, and nobody asked for none (no-color.org).
    pub colours: bool,
    screen: Option<Screen>,
}

impl Terminal {
    /// Finds out what there is, and begins to read.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(names: &Names) -> io::Result<Terminal> {
        let interactive = io::stdin().is_terminal();
        let seen = io::stdout().is_terminal();
        let set = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty());
        let capable = set("TERM").is_some_and(|term| term != "dumb");
        let colours = seen && capable && set("NO_COLOR").is_none();
        if interactive && seen && capable {
            let (input, screen) = edit_lines(names.clone())?;
            return Ok(Terminal { input, interactive, colours, screen: Some(screen) });
        }
        let (lines, input) = bounded(LINES_AHEAD);
        spawn("input", move || read_lines(&lines))?;
        Ok(Terminal { input, interactive, colours, screen: None })
    }

    /// Whether standard output is looked at by a person.
    pub fn seen(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Shows whole lines.
    ///
    /// # Errors
    /// What standard output says.
    pub fn print(&self, text: String) -> io::Result<()> {
        match &self.screen {
            Some(screen) => screen.texts.send(text).map_err(io::Error::other),
            None => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
            }
        }
    }

    /// Whether what this program itself has to say goes where messages go, or to standard error.
    pub fn has_screen(&self) -> bool {
        self.screen.is_some()
    }

    /// Shows what is still to be shown, and leaves the terminal as it was found.
    pub fn close(self) {
        if let Some(screen) = self.screen {
            drop(screen.texts);
            let _ = screen.shown.recv_timeout(CLOSE_TIMEOUT);
            restore(&screen.mode);
        }
    }

    /// Leaves the terminal as it was found, from wherever, for an end at once.
    pub fn restorer(&self) -> impl Fn() + Send + 'static {
        let mode = self.screen.as_ref().map(|screen| screen.mode.clone());
        move || mode.iter().for_each(restore)
    }
}

/// The editor may be waiting for a key in the mode that it needs, and stays there.
fn restore(mode: &Termios) {
    let mut stdout = io::stdout();
    // Nothing can be done about a terminal that is gone.
    let _ = stdout.write_all(LEAVE_PROMPT.as_bytes()).and_then(|()| stdout.flush());
    let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, mode);
}

pub(super) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // Not joined: it may be waiting for a key when the program ends.
    thread::Builder::new().name(name.to_owned()).spawn(body).map(drop)
}

/// Reads lines until the input ends.
fn read_lines(lines: &Sender<Input>) {
    let mut stdin = io::stdin().lock();
    for number in 1u64.. {
        let mut line = Vec::new();
        // One more than allowed tells a line that is too long from one that just fits.
        let read = stdin.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line);
        let input = match read {
            Ok(0) => Input::End,
            Ok(_) => match line_of(line) {
                Ok(line) => Input::Line(line),
                Err(problem) => Input::Broken(format!("line {number} of the input {problem}")),
            },
            Err(error) => Input::Broken(format!("can't read standard input: {error}")),
        };
        let last = !matches!(input, Input::Line(_));
        if lines.send(input).is_err() {
            return;
        }
        if last {
            drop(stdin);
            return hear_end(lines);
        }
    }
}

/// After the end of a terminal's input, hears whether it is ended once more. A pipe ends once.
pub(super) fn hear_end(lines: &Sender<Input>) {
    let mut stdin = io::stdin().lock();
    let mut line = Vec::new();
    // A terminal that is gone, where all reads find the end, is none any more.
    while stdin.is_terminal() {
        line.clear();
        let input = match stdin.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) => Input::End,
            Ok(_) => continue,
            Err(_) => return,
        };
        if lines.send(input).is_err() {
            return;
        }
    }
}

/// The text of a line as it was read.
fn line_of(mut line: Vec<u8>) -> Result<String, &'static str> {
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 > LINE_BYTES_MAX {
        return Err("is longer than any server takes");
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| "is not UTF-8")
}
