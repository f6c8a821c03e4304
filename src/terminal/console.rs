//! The terminal, or the pipes in its place: what is typed, and the way to what is shown.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crossbeam_channel::Receiver;
use nix::sys::termios::{SetArg, Termios, tcsetattr};

use super::editor::{Names, Screen, edit_lines};
use super::input::{Input, read_stdin};

/// How long the end waits for the last texts.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// Ends bracketed paste, which rustyline begins, and clears what stands from the prompt on.
const LEAVE_PROMPT: &str = "\x1b[?2004l\r\x1b[J";

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
        Ok(Terminal { input: read_stdin()?, interactive, colours, screen: None })
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
