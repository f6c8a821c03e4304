//! Messages that a client sent faster than it may: they wait here, and none is lost.
//!
//! Reading more slowly instead would leave pings and the close unread behind the messages. So the
//! reader reads on and hands the messages over at the allowed pace. Only a full backlog stops the
//! reading.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::allowance::{Allowance, SharedAllowance};
use super::inbox::BACKLOG_BYTES_MAX;
use crate::config::Config;
use crate::system::metrics::METRICS;

/// Bytes of a message that cost one unit of the allowance: a message of 25 KiB costs as much as 25
/// short ones.
const BYTES_PER_UNIT: usize = 1024;
/// Longest time between two looks whether the server stops or the connection is over, while
/// messages wait.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The messages of one client that wait until they may be handed over.
pub struct Backlog<'a, T> {
    allowance: Option<Allowance>,
    /// What new clients of this address may send at once.
    shared: Option<SharedAllowance>,
    waiting: VecDeque<(T, usize)>,
    /// Bytes of the messages in `waiting`, their places included.
    bytes: usize,
    /// Held while something waits.
    waits: Option<Waits<'a>>,
    backlogs: &'a Backlogs,
}

impl<'a, T> Backlog<'a, T> {
    /// Creates an empty backlog, counted in `backlogs` while something is in it.
    ///
    /// What a new client sends at once comes from `shared`, which all clients of its address have
    /// in common. Otherwise whoever connects again would have a full allowance each time.
    ///
    /// On the heap and not inlined: what a reader has on its stack stays with each idle client.
    #[inline(never)]
    pub fn new(
        config: &Config,
        shared: Option<SharedAllowance>,
        backlogs: &'a Backlogs,
    ) -> Box<Backlog<'a, T>> {
        let start = if shared.is_some() { Allowance::empty } else { Allowance::full };
        let allowance = start(config.message_rate, config.message_burst, Instant::now());
        let waiting = VecDeque::new();
        Box::new(Backlog { allowance, shared, waiting, bytes: 0, waits: None, backlogs })
    }

    /// Returns a message that may be handed over at once. Otherwise keeps it, behind the others.
    /// `bytes` is its size.
    pub fn admit(&mut self, message: T, bytes: usize) -> Option<T> {
        if self.waiting.is_empty() && self.may_hand_over(bytes) {
            return Some(message);
        }
        self.bytes += bytes + size_of::<(T, usize)>();
        self.waiting.push_back((message, bytes));
        self.waits.get_or_insert_with(|| self.backlogs.enter());
        METRICS.delayed_messages.inc();
        None
    }

    /// Returns the oldest message if it may be handed over by now.
    pub fn next_due(&mut self) -> Option<T> {
        let (_, bytes) = self.waiting.front()?;
        if !self.may_hand_over(*bytes) {
            return None;
        }
        let (message, bytes) = self.waiting.pop_front()?;
        self.bytes -= bytes + size_of::<(T, usize)>();
        Some(message)
    }

    /// Notes that everything was handed over. A stop waits until then.
    pub fn caught_up(&mut self) {
        self.waits = None;
        self.waiting = VecDeque::new();
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// True if so much waits that nothing more should be read.
    pub fn is_full(&self) -> bool {
        self.bytes >= BACKLOG_BYTES_MAX
    }

    /// Returns how long to wait before the next look; more than zero.
    pub fn wait(&self) -> Duration {
        let due = self.allowance.as_ref().map_or(Duration::ZERO, |a| a.wait(Instant::now()));
        // A socket takes no timeout of zero.
        due.clamp(Duration::from_millis(1), POLL_INTERVAL)
    }

    /// Takes a message of so many bytes from an allowance, if one has something left. A stop lifts
    /// the limit.
    fn may_hand_over(&mut self, bytes: usize) -> bool {
        let Some(allowance) = &mut self.allowance else { return true };
        let units = u32::try_from(bytes.div_ceil(BYTES_PER_UNIT).max(1)).unwrap_or(u32::MAX);
        let now = Instant::now();
        allowance.take(units, now).is_ok()
            || self.shared.as_ref().is_some_and(|shared| shared.take(units, now).is_ok())
            || self.backlogs.stopping()
    }
}

/// How many clients have a backlog, so that a stop can wait for what they sent.
#[derive(Default)]
pub struct Backlogs {
    stopping: Arc<AtomicBool>,
    clients: Mutex<usize>,
    changed: Condvar,
}

impl Backlogs {
    /// Creates the count. From the moment that `stopping` is set, no message waits any more.
    pub fn new(stopping: Arc<AtomicBool>) -> Backlogs {
        Backlogs { stopping, clients: Mutex::default(), changed: Condvar::new() }
    }

    /// Waits until no backlog is left, or until `deadline`. `stopping` must be set.
    pub fn wait_until_empty(&self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        // If it takes longer, the messages are lost with their clients' connections.
        let _ = self.changed.wait_timeout_while(self.lock(), left, |clients| *clients > 0);
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Counts a backlog. It is counted before its client looks for a stop again, and a stop sets
    /// `stopping` before it looks at the count: so one of the two sees the other.
    fn enter(&self) -> Waits<'_> {
        *self.lock() += 1;
        Waits(self)
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A backlog that is counted until this is dropped, by a panic too.
struct Waits<'a>(&'a Backlogs);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
        self.0.changed.notify_all();
    }
}
