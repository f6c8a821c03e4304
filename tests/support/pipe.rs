//! `parlour chat` as a program uses it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

use super::{DEADLINE, eventually};
use crate::support::program::command;

/// A running client, its input and output pipes.
pub struct Pipe {
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<String>,
    errors: Option<JoinHandle<String>>,
}

impl Pipe {
    pub fn start(address: SocketAddr, options: &[&str]) -> Pipe {
        let url = format!("ws://{address}");
        let options = [&["chat", url.as_str()], options].concat();
        let mut child =
            command(&options).stdin(Stdio::piped()).spawn().expect("the program starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut stderr = child.stderr.take().expect("piped");
        let (lines, output) = channel();
        thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
        });
        let errors = thread::spawn(move || {
            let mut errors = String::new();
            stderr.read_to_string(&mut errors).expect("text");
            errors
        });
        let input = child.stdin.take();
        Pipe { child, input, output, errors: Some(errors) }
    }

    pub fn say(&mut self, line: &str) {
        self.write(format!("{line}\n").as_bytes());
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.input.as_mut().expect("an open input").write_all(bytes).expect("it reads");
    }

    /// The next line of the output.
    pub fn next(&mut self) -> String {
        self.output.recv_timeout(DEADLINE).unwrap_or_else(|_| {
            let _ = self.child.kill();
            let errors = self.errors.take().map(|errors| errors.join().expect("text"));
            panic!("no line before the deadline; it said {errors:?}")
        })
    }

    /// Reads on to a line that holds `part`.
    pub fn next_with(&mut self, part: &str) -> String {
        loop {
            let line = self.next();
            if line.contains(part) {
                return line;
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the input, and waits for the end: the status, the rest of the output, and what was said to standard error.
    pub fn ended(mut self) -> (ExitStatus, Vec<String>, String) {
        drop(self.input.take());
        self.wait()
    }

    /// Waits for an end that comes while the input is open. Gives the same.
    pub fn wait(mut self) -> (ExitStatus, Vec<String>, String) {
        let status = eventually("its end", || self.child.try_wait().expect("a child"));
        let errors = self.errors.take().expect("it ends once").join().expect("text");
        (status, self.output.iter().collect(), errors)
    }
}

impl Drop for Pipe {
    /// A test that fails leaves nothing running.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
