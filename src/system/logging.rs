//! The log goes to standard error through a thread of its own. A reader of it that stalls would otherwise stop every thread
//! that has something to say, and with them the server.

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

/// Lines that wait to be written. Beyond them lines are dropped, and counted.
const LINES_MAX: usize = 1024;
/// How long the end of the process waits for the last lines.
const FINISH_TIMEOUT: Duration = Duration::from_millis(250);
/// How often that is looked at.
const FINISH_POLL: Duration = Duration::from_millis(5);
/// How often the same trouble is told.
const TROUBLE_INTERVAL: Duration = Duration::from_secs(1);

/// The running log.
pub struct Running {
    lines: Sender<Vec<u8>>,
    thread: JoinHandle<()>,
}

/// Starts the log: `RUST_LOG` decides what is in it, `info` by default.
///
/// # Errors
/// What the system says when there is no thread for it.
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
    // A second call finds a logger set, and leaves it in its place.
    let _ = log::set_boxed_logger(Box::new(OwnLog(logger)));
    // A panic is told in the log too: told to a standard error that nobody reads, it would hold its thread for ever.
    panic::set_hook(Box::new(|panic| error!("{panic}")));
    Ok(Running { lines, thread })
}

impl Running {
    /// Waits until what has been logged is written, unless nobody reads it.
    pub fn finish(self) {
        // An empty line is the end.
        let deadline = Instant::now() + FINISH_TIMEOUT;
        if self.lines.send_deadline(Vec::new(), deadline).is_ok() {
            while !self.thread.is_finished() && Instant::now() < deadline {
                thread::sleep(FINISH_POLL);
            }
        }
    }
}

/// Warns that the system refused something, once in a while for each kind of failure, however often it happens: a system
/// that is short of something refuses it many times a second.
pub fn warn_of_failure(what: &'static str, error: &io::Error) {
    if is_due(what, error.raw_os_error()) {
        warn!("{what}: {error}");
    }
}

/// Whether it is time to tell of some trouble again, which is one of a kind by its name and number. An attacker decides how
/// often it happens, and not how fast the log grows.
pub fn is_due(what: &'static str, number: Option<i32>) -> bool {
    static TOLD: Mutex<BTreeMap<(&str, Option<i32>), Instant>> = Mutex::new(BTreeMap::new());
    let now = Instant::now();
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let due = told.get(&(what, number)).is_none_or(|&at| now >= at + TROUBLE_INTERVAL);
    if due {
        told.insert((what, number), now);
    }
    due
}

fn write_lines(lines: &Receiver<Vec<u8>>, dropped: &AtomicU64, format: LogFormat) {
    let mut stderr = io::stderr();
    for line in lines.iter().take_while(|line| !line.is_empty()) {
        let missing = dropped.swap(0, Ordering::Relaxed);
        if missing > 0 {
            let told = format!("{missing} lines of the log were dropped: nobody read them in time");
            let _ = match format {
                LogFormat::Text => writeln!(stderr, "[{told}]"),
                LogFormat::Json => stderr.write_all(&json_line(Level::Warn, module_path!(), &told)),
            };
        }
        // A closed standard error is nobody's fault, and no reason to end.
        let _ = stderr.write_all(&line);
    }
}

/// A line of the log for a collector. JSON escapes line ends, so it is one line whatever the message holds.
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

/// Where env_logger writes each line.
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

/// env_logger without tungstenite, which logs what people say.
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
