//! The program as a process: its addresses, its log, signals to it, and its end.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::eventually;

/// Returns a command that runs parlour with `options`, and with none of the variables that this
/// process has for its own. It pipes its output to the test.
pub fn command(options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_parlour"));
    forget_own_variables(&mut command);
    command.args(options).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Returns a command that runs `program`, which starts parlour in its turn. parlour gets none of
/// the variables that this process has for its own, and SIGHUP as if the tests did not run under
/// nohup.
pub fn wrapper(program: &str) -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP", program]);
    forget_own_variables(&mut command);
    command
}

/// Removes what would change parlour from the environment of `command`.
pub fn forget_own_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PARLOUR_") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG").env_remove("MALLOC_ARENA_MAX");
}

/// A server in a process of its own.
pub struct Program {
    child: Child,
    pub address: SocketAddr,
    /// Where it listens for scrapers, if it has `--metrics-listen`.
    pub metrics: Option<SocketAddr>,
    log: Arc<Mutex<String>>,
    logging: Option<JoinHandle<()>>,
}

impl Drop for Program {
    /// Kills the process, so that a test that fails leaves nothing running.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    /// Starts the server, and waits until it listens.
    pub fn start(command: &mut Command) -> Program {
        let mut child = command.spawn().expect("the program starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut log = String::new();
        let address = loop {
            assert_ne!(stderr.read_line(&mut log).expect("text"), 0, "the server ended: {log}");
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

    /// Returns the log so far.
    pub fn logged(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.expect("kill").success());
    }

    /// Stops the server with SIGTERM, which must succeed. Returns the log.
    pub fn stop(self) -> String {
        self.signal("TERM");
        let (status, log) = self.ended();
        assert!(status.success(), "{status}: {log}");
        log
    }

    /// Waits until the server has ended. Returns its status and its log.
    pub fn ended(mut self) -> (ExitStatus, String) {
        let status = eventually("the server's end", || self.child.try_wait().expect("a child"));
        self.logging.take().expect("only one caller waits for the end").join().expect("a log");
        (status, self.logged())
    }
}

/// Returns the address that follows `words` in the log.
fn address_after(words: &str, log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once(words)?;
    Some(rest.split('/').next()?.parse().expect("an address"))
}

/// Asserts that the log has `text`, and no more than once a second since `start`.
pub fn assert_logged_rarely(program: &Program, text: &str, start: Instant) {
    let log = program.logged();
    let (times, elapsed) = (log.matches(text).count() as u64, start.elapsed());
    assert!(times >= 1 && times <= elapsed.as_secs() + 1, "{times} in {elapsed:?}: {log}");
}

/// Asserts that `output` contains each of `parts`.
#[track_caller]
pub fn assert_contains(output: &str, parts: &[&str]) {
    for part in parts {
        assert!(output.contains(part), "{part:?} in {output}");
    }
}
