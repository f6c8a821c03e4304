//! Reads the lines of standard input where no prompt is edited: in a pipe or a plain terminal.

use std::io::{self, BufRead, IsTerminal, Read};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::protocol::message::CONTENT_BYTES_MAX;

/// Bytes of the longest line.
const LINE_BYTES_MAX: u64 = CONTENT_BYTES_MAX as u64;
/// Lines to read ahead.
const LINES_AHEAD: usize = 16;

/// What the user or a pipe put in.
pub enum Input {
    /// A line, without its line end.
    Line(String),
    /// The end of the input. In a terminal the user may end it again.
    End,
    /// Input that can't be read or can't be sent, and why. No line follows.
    Failed(String),
}

/// Starts the thread that reads standard input.
///
/// # Errors
/// Returns the system's error if there can't be another thread.
pub fn read_stdin() -> io::Result<Receiver<Input>> {
    let (sender, input) = bounded(LINES_AHEAD);
    // Not joined: it may still wait for input when the program ends.
    thread::Builder::new().name("input".to_owned()).spawn(move || input_pump(&sender))?;
    Ok(input)
}

/// Sends lines until the input ends.
fn input_pump(sender: &Sender<Input>) {
    for number in 1u64.. {
        let input = read_line(number);
        let is_last = !matches!(input, Input::Line(_));
        if sender.send(input).is_err() {
            return;
        }
        if is_last {
            return watch_for_ends(sender);
        }
    }
}

fn read_line(number: u64) -> Input {
    let mut line = Vec::new();
    // One byte over the maximum, to tell a line that is too long from one that just fits.
    match io::stdin().lock().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line) {
        Ok(0) => Input::End,
        Ok(_) => match to_text(line) {
            Ok(text) => Input::Line(text),
            Err(problem) => Input::Failed(format!("line {number} of the input {problem}")),
        },
        Err(error) => Input::Failed(format!("can't read standard input: {error}")),
    }
}

/// Removes the line end.
fn to_text(mut line: Vec<u8>) -> Result<String, &'static str> {
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 > LINE_BYTES_MAX {
        return Err("is longer than any server accepts");
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| "is not UTF-8")
}

/// After the end of the input, reports each time that the user of a terminal ends it again. A pipe
/// ends once.
pub fn watch_for_ends(sender: &Sender<Input>) {
    let mut stdin = io::stdin().lock();
    let mut line = Vec::new();
    // A terminal that has closed reads as an endless end, but is not a terminal any more.
    while stdin.is_terminal() {
        line.clear();
        let input = match stdin.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) => Input::End,
            Ok(_) => continue,
            Err(_) => return,
        };
        if sender.send(input).is_err() {
            return;
        }
    }
}
