//! The program as a process of its own: its address, its log, its signals, its end.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::eventually;

/// The program with `options`, and with none of the variables that this process has for its own.
pub fn command(options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_parlour"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PARLOUR_") {
            command.env_remove(name);
        }
    }
    command
        .args(options)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A running server.
pub struct Program {
    child: Child,
    pub address: SocketAddr,
    /// Where `--metrics-listen` listens.
    pub metrics: Option<SocketAddr>,
    log: Arc<Mutex<String>>,
    logging: Option<JoinHandle<()>>,
}

impl Drop for Program {
    /// A test that fails leaves nothing running.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    pub fn start(command: &mut Command) -> Program {
        let mut child = command.spawn().expect("the program starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut log = String::new();
        let address = loop {
            assert_ne!(stderr.read_line(&mut log).expect("text"), 0, "it ended: {log}");
            if let Some(address) = address_after("listening on http://", &log) {
                break address;
            }
        };
        let metrics = address_after("metrics on http://", &log);
        let log = Arc::new(Mutex::new(log));
        let logging = {
            let log = log.clone();
            thread::spawn(move || {
                stderr
                    .lines()
                    .for_each(|line| *log.lock().unwrap() += &(line.expect("text") + "\n"))
            })
        };
        Program { child, address, metrics, log, logging: Some(logging) }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn logged(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.expect("kill").success());
    }

    pub fn ended(mut self) -> (ExitStatus, String) {
        let status = eventually("its end", || self.child.try_wait().expect("a child"));
        self.logging.take().expect("it ends once").join().expect("a log");
        (status, self.logged())
    }
}

/// The address that follows `words` in the log.
fn address_after(words: &str, log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once(words)?;
    Some(rest.split('/').next()?.parse().expect("an address"))
}

/// The log has `line` not more often than once a second since `start`.
pub fn assert_told_seldom(program: &Program, line: &str, start: Instant) {
    let log = program.logged();
    let (lines, elapsed) = (log.matches(line).count() as u64, start.elapsed());
    assert!(lines >= 1 && lines <= elapsed.as_secs() + 1, "{lines} in {elapsed:?}: {log}");
}
