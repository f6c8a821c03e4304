//! The log, written to standard error by a thread of its own.
//!
//! A terminal or collector that stops reading would otherwise block every thread that logs, and
//! with them the server.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::panic::{self, Location};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fmt, mem};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use env_logger::{Logger, Target};
use log::{Level, LevelFilter, Log, Metadata, Record, error, info, warn};
use serde::Serialize;

use crate::config::LogFormat;
use crate::protocol::message;

/// Maximum number of lines that wait to be written. Further ones are dropped and counted.
const LINES_MAX: usize = 1024;
/// How long the end of the process waits until the last lines are written.
const FINISH_TIMEOUT: Duration = Duration::from_millis(250);
/// How often it checks that.
const FINISH_POLL: Duration = Duration::from_millis(5);
/// Lines of one kind that are written in each [`REPEAT_INTERVAL`]: events, of which the log of a
/// small room should show each, and troubles, of which one line says enough.
const EVENTS_MAX: u64 = 5;
const TROUBLES_MAX: u64 = 1;
const REPEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Every kind of line that was due so far, by level, name and number.
static KINDS: Mutex<BTreeMap<(Level, &str, i64), Kind>> = Mutex::new(BTreeMap::new());

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
    panic::set_hook(Box::new(|panic| {
        let line = panic.location().map_or(0, Location::line);
        if let Some(more) = due_of(Level::Error, "panic", i64::from(line)) {
            error!("{panic}{more}");
        }
    }));
    Ok(Running { lines, thread })
}

impl Running {
    /// Waits until everything logged is written, or for `FINISH_TIMEOUT` if nobody reads it. Adds
    /// what was left out.
    pub fn finish(self) {
        log_left_out();
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
    let number = error.raw_os_error().unwrap_or_default();
    if let Some(more) = due_of(Level::Warn, what, i64::from(number)) {
        warn!("{what}: {error}{more}");
    }
}

/// Returns what a line of this kind ends with, or `None` if it must be left out. A visitor decides
/// how often something happens, but not how fast the log grows.
///
/// Whoever writes a line at `info` or above that a visitor can cause asks here first. With `debug`,
/// nothing is left out.
pub fn due(level: Level, kind: &'static str) -> Option<LeftOut> {
    due_of(level, kind, 0)
}

/// Returns what [`due`] returns, for one of the kinds of a name that have each a number.
fn due_of(level: Level, name: &'static str, number: i64) -> Option<LeftOut> {
    if log::max_level() >= LevelFilter::Debug {
        return Some(LeftOut(0));
    }
    let lines_max = if level <= Level::Warn { TROUBLES_MAX } else { EVENTS_MAX };
    let mut kinds = KINDS.lock().unwrap_or_else(PoisonError::into_inner);
    kinds.entry((level, name, number)).or_default().due(lines_max, Instant::now())
}

/// Logs how many lines were left out for which no further one of their kind came.
fn log_left_out() {
    let left_out = left_out();
    if !left_out.is_empty() {
        info!("left out of the log since the last line of each kind: {}", left_out.join(", "));
    }
}

/// Returns each kind's name with the number of its lines left out.
fn left_out() -> Vec<String> {
    let kinds = KINDS.lock().unwrap_or_else(PoisonError::into_inner);
    let left_out = kinds.iter().filter(|(_, kind)| kind.left_out > 0);
    left_out.map(|((_, name, _), kind)| format!("{name} {}", kind.left_out)).collect()
}

/// How many lines of a kind were left out since the last one. As text, it is the end of the next
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut(u64);

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { Ok(()) } else { write!(f, " (and {} more like it)", self.0) }
    }
}

/// The lines of one kind.
#[derive(Default)]
pub struct Kind {
    /// When the current interval began, and how many lines were written in it.
    since: Option<Instant>,
    written: u64,
    left_out: u64,
}

impl Kind {
    /// Returns what [`due`](fn@due) returns, if `lines_max` lines may be written in an interval.
    pub fn due(&mut self, lines_max: u64, now: Instant) -> Option<LeftOut> {
        if self.since.is_none_or(|since| now >= since + REPEAT_INTERVAL) {
            (self.since, self.written) = (Some(now), 0);
        }
        if self.written == lines_max {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(LeftOut(mem::take(&mut self.left_out)))
    }
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
