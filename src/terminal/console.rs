//! The terminal, or the pipes in its place: where lines come from and where text goes.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crossbeam_channel::Receiver;
use nix::sys::termios::{SetArg, Termios, tcsetattr};
use rustyline::Editor;
use rustyline::config::Config;
use rustyline::history::MemHistory;

use crate::terminal::editor::{Completions, Screen, edit_lines};
use crate::terminal::input::{Input, read_stdin};

/// Time to wait at the end until the last text is on the screen.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// Ends bracketed paste, which rustyline begins, and clears the screen from the prompt on.
const LEAVE_PROMPT: &str = "\x1b[?2004l\r\x1b[J";
/// Keeps the terminal from breaking rows by itself (DECAWM), and lets it do so again.
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

/// Standard input and output.
pub struct Console {
    /// What is typed, or comes through a pipe.
    pub input: Receiver<Input>,
    /// True if a user types: then lines may be commands. Lines of a pipe are sent as they are.
    pub interactive: bool,
    /// True if standard output is a terminal, so that a person reads it.
    pub output_is_terminal: bool,
    /// True if it is one that escape sequences control.
    understands_sequences: bool,
    /// True if standard output has colours, and `NO_COLOR` (no-color.org) does not forbid them.
    pub colours: bool,
    /// The edited prompt, and the text above it. `None` in a pipe or a plain terminal.
    screen: Option<Screen>,
    /// Edits nothing. It knows the size of the terminal, for which std has no function.
    ruler: Editor<(), MemHistory>,
}

impl Console {
    /// Finds out what standard input and output are, and starts to read.
    ///
    /// # Errors
    /// Returns the error of the system or the editor.
    pub fn open(completions: &Completions) -> io::Result<Console> {
        let interactive = io::stdin().is_terminal();
        let output_is_terminal = io::stdout().is_terminal();
        let set = |variable: &str| env::var_os(variable).filter(|value| !value.is_empty());
        let understands_sequences =
            output_is_terminal && set("TERM").is_some_and(|term| term != "dumb");
        let colours = understands_sequences && set("NO_COLOR").is_none();
        let (input, screen) = if interactive && understands_sequences {
            let (input, screen) = edit_lines(completions.clone())?;
            (input, Some(screen))
        } else {
            (read_stdin()?, None)
        };
        let config = Config::default();
        let history = MemHistory::with_config(&config);
        let ruler = Editor::with_history(config, history).map_err(io::Error::other)?;
        Ok(Console {
            input,
            interactive,
            output_is_terminal,
            understands_sequences,
            colours,
            screen,
            ruler,
        })
    }

    /// Returns the columns of the terminal. `None` if standard output is not one.
    pub fn columns(&mut self) -> Option<usize> {
        self.ruler.dimensions().map(|(columns, _)| columns.into())
    }

    /// Shows rows that fit into the terminal's columns. Where a terminal takes more columns for a
    /// character than is known of it, or is narrower by now, the end of a row is not shown.
    ///
    /// # Errors
    /// Returns the error of standard output.
    pub fn print_rows(&self, rows: &str) -> io::Result<()> {
        if self.understands_sequences {
            // The editor expects a line end last.
            self.print(&format!("{NO_WRAP}{}{WRAP}\n", rows.trim_end_matches('\n')))
        } else {
            self.print(rows)
        }
    }

    /// Shows whole lines.
    ///
    /// # Errors
    /// Returns the error of standard output.
    pub fn print(&self, lines: &str) -> io::Result<()> {
        match &self.screen {
            Some(screen) => screen.lines.send(lines),
            None => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(lines.as_bytes())?;
                stdout.flush()
            }
        }
    }

    /// True if notes of this program appear among the messages. Otherwise a program may be reading
    /// those, and notes go to standard error.
    pub fn has_screen(&self) -> bool {
        self.screen.is_some()
    }

    /// Shows what is still waiting, and leaves the terminal as it was found.
    pub fn close(self) {
        if let Some(Screen { lines, all_shown, mode_before }) = self.screen {
            drop(lines);
            let _ = all_shown.recv_timeout(CLOSE_TIMEOUT);
            restore(&mode_before);
        }
    }

    /// Returns a function with which another thread can leave the terminal as it was found.
    pub fn restorer(&self) -> impl Fn() + Send + 'static {
        let mode_before = self.screen.as_ref().map(|screen| screen.mode_before.clone());
        move || mode_before.iter().for_each(restore)
    }
}

/// Does what the editor can't do, which may still wait for a key in a mode of its own.
fn restore(mode_before: &Termios) {
    let mut stdout = io::stdout();
    // Nothing can be done about a terminal that has closed.
    let _ = stdout.write_all(LEAVE_PROMPT.as_bytes()).and_then(|()| stdout.flush());
    let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, mode_before);
}
