//! The log, written to standard error by a thread of its own.
//!
//! A terminal or collector that stops reading would otherwise block every thread that logs, and
//! with them the server.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use env_logger::{Logger, Target};
use log::{Level, LevelFilter, Log, Metadata, Record, error, warn};
use serde::Serialize;

use crate::config::LogFormat;
use crate::protocol::message;

/// Maximum number of lines that wait to be written. Further ones are dropped and counted.
const LINES_MAX: usize = 1024;
/// How long the end of the process waits until the last lines are written.
const FINISH_TIMEOUT: Duration = Duration::from_millis(250);
/// How often it checks that.
const FINISH_POLL: Duration = Duration::from_millis(5);
/// How often the same kind of event is logged.
const REPEAT_INTERVAL: Duration = Duration::from_secs(1);

/// The running log, by which the end of the process waits for its last lines.
pub struct Running {
    lines: Sender<Vec<u8>>,
    thread: JoinHandle<()>,
}

/// Starts the log. `RUST_LOG` sets its level and targets; the default is `info`.
///
/// # Errors
/// If the system has no thread for it.
pub fn start(format: LogFormat) -> io::Result<Running> {
    let (lines, written) = bounded(LINES_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let thread = {
        let dropped = dropped.clone();
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_lines(&written, &dropped, format))?
    };
    let mut builder = env_logger::Builder::new();
    builder.filter_level(LevelFilter::Info).parse_default_env();
    builder.target(Target::Pipe(Box::new(Queue { lines: lines.clone(), dropped })));
    if format == LogFormat::Json {
        builder.format(|line, record| {
            line.write_all(&json_line(record.level(), record.target(), &record.args().to_string()))
        });
    }
    let logger = builder.build();
    log::set_max_level(logger.filter());
    // A second call finds a logger set, and keeps that one.
    let _ = log::set_boxed_logger(Box::new(OwnLog(logger)));
    // A panic goes through the log too: a standard error that nobody reads would block its thread.
    panic::set_hook(Box::new(|panic| error!("{panic}")));
    Ok(Running { lines, thread })
}

impl Running {
    /// Waits until everything logged is written, or for `FINISH_TIMEOUT` if nobody reads it.
    pub fn finish(self) {
        // An empty line ends the thread.
        let deadline = Instant::now() + FINISH_TIMEOUT;
        if self.lines.send_deadline(Vec::new(), deadline).is_ok() {
            while !self.thread.is_finished() && Instant::now() < deadline {
                thread::sleep(FINISH_POLL);
            }
        }
    }
}

/// Warns that the system refused something, once a second for each kind of failure.
///
/// A system that is short of something refuses it many times a second.
pub fn warn_of_failure(what: &'static str, error: &io::Error) {
    if is_due(what, error.raw_os_error()) {
        warn!("{what}: {error}");
    }
}

/// True if an event of this kind was not logged within the last second. A kind is a name and a
/// number. An attacker decides how often it happens, but not how fast the log grows.
pub fn is_due(what: &'static str, number: Option<i32>) -> bool {
    static LOGGED: Mutex<BTreeMap<(&str, Option<i32>), Instant>> = Mutex::new(BTreeMap::new());
    let now = Instant::now();
    let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    let due = logged.get(&(what, number)).is_none_or(|&at| now >= at + REPEAT_INTERVAL);
    if due {
        logged.insert((what, number), now);
    }
    due
}

fn write_lines(lines: &Receiver<Vec<u8>>, dropped: &AtomicU64, format: LogFormat) {
    let mut stderr = io::stderr();
    for line in lines.iter().take_while(|line| !line.is_empty()) {
        let missing = dropped.swap(0, Ordering::Relaxed);
        if missing > 0 {
            let notice =
                format!("{missing} lines of the log were dropped: nobody read them in time");
            let _ = match format {
                LogFormat::Text => writeln!(stderr, "[{notice}]"),
                LogFormat::Json => {
                    stderr.write_all(&json_line(Level::Warn, module_path!(), &notice))
                }
            };
        }
        // A closed standard error is no reason to end.
        let _ = stderr.write_all(&line);
    }
}

/// Formats a line of the log for a collector. JSON escapes line ends, so it is always one line.
fn json_line(level: Level, target: &str, message: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Line<'a> {
        ts: message::Timestamp,
        level: &'a str,
        target: &'a str,
        message: &'a str,
    }
    let line = Line { ts: message::now(), level: level.as_str(), target, message };
    let mut bytes = serde_json::to_vec(&line).expect("numbers and strings always serialise");
    bytes.push(b'\n');
    bytes
}

/// What env_logger writes its lines to.
struct Queue {
    lines: Sender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.lines.try_send(line.to_vec()) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// env_logger without tungstenite's messages, which contain what people say.
struct OwnLog(Logger);

impl Log for OwnLog {
    fn enabled(&self, metadata: &Metadata) -> bool {
        !metadata.target().starts_with("tungstenite") && self.0.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}
