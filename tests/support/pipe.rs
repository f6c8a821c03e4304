//! `parlour chat` with pipes, as scripts and bots use it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use super::{DEADLINE, eventually};
use crate::support::program::command;

/// A running client, and the pipes of its input, output and errors.
pub struct Pipe {
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<String>,
    errors: Option<JoinHandle<String>>,
}

impl Pipe {
    /// Starts a client of the server at `address`.
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

    pub fn write_line(&mut self, line: &str) {
        self.write_bytes(format!("{line}\n").as_bytes());
    }

    pub fn write_bytes(&mut self, bytes: &[u8]) {
        self.input.as_mut().expect("an open input").write_all(bytes).expect("it reads");
    }

    /// Waits for the next line of the output.
    pub fn next_line(&mut self) -> String {
        self.output.recv_timeout(DEADLINE).unwrap_or_else(|_| {
            let _ = self.child.kill();
            let errors = self.errors.take().map(|errors| errors.join().expect("text"));
            panic!("no line before the deadline; its errors: {errors:?}")
        })
    }

    /// Skips lines up to one that contains `part`.
    pub fn next_line_with(&mut self, part: &str) -> String {
        loop {
            let line = self.next_line();
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Skips lines up to one whose JSON has `value` for `key`.
    pub fn next_json_where(&mut self, key: &str, value: &str) -> Value {
        loop {
            let message: Value =
                serde_json::from_str(&self.next_line()).expect("each line is JSON");
            if message[key] == value {
                return message;
            }
        }
    }

    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.expect("kill").success());
    }

    /// Ends the input and waits for the exit. Returns the status, the rest of the output, and the
    /// errors.
    pub fn finish(mut self) -> (ExitStatus, Vec<String>, String) {
        self.input = None;
        self.wait_for_exit()
    }

    /// Waits for an exit while the input is open. Returns the same.
    pub fn wait_for_exit(mut self) -> (ExitStatus, Vec<String>, String) {
        let status = eventually("its exit", || self.child.try_wait().expect("a child"));
        let errors = self.errors.take().expect("it exits once").join().expect("text");
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
