//! How fast something may happen: a rate, and a burst after a pause.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is allowed of one thing, such as a client's messages or an address's joins.
///
/// This is the generic cell rate algorithm of ITU-T I.371, with time in place of cells: each unit
/// takes up an interval of time, and a burst is how far one may be ahead.
#[derive(Clone, Debug)]
pub struct Allowance {
    /// Time that each unit takes up.
    interval: Duration,
    /// Time by which one may be ahead.
    slack: Duration,
    /// When everything taken so far is paid for.
    paid_until: Instant,
}

impl Allowance {
    /// Starts an allowance of `per_second` units, of which `burst` (at least 1) may be taken at
    /// once from the start. `None` without a limit, for `per_second` 0.
    pub fn full(per_second: u32, burst: u32, now: Instant) -> Option<Allowance> {
        let interval = Duration::from_secs(1).checked_div(per_second)?;
        let slack = interval * (burst.max(1) - 1);
        Some(Allowance { interval, slack, paid_until: now })
    }

    /// Starts an allowance like [`full`](Allowance::full), but with nothing saved: one unit at
    /// once, then at the rate, until a pause has filled it.
    pub fn empty(per_second: u32, burst: u32, now: Instant) -> Option<Allowance> {
        let mut allowance = Allowance::full(per_second, burst, now)?;
        allowance.paid_until += allowance.slack;
        Some(allowance)
    }

    /// Takes so many units. If one may be taken, all may: the rest is owed, and lengthens the wait
    /// for the next.
    ///
    /// # Errors
    /// How long to wait until a unit may be taken. Nothing is taken then.
    pub fn take(&mut self, units: u32, now: Instant) -> Result<(), Duration> {
        let wait = self.wait(now);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.paid_until = self.paid_until.max(now) + self.interval * units;
        Ok(())
    }

    /// Returns how long to wait until one unit may be taken; zero if it may be taken now.
    pub fn wait(&self, now: Instant) -> Duration {
        self.paid_until.saturating_duration_since(now + self.slack)
    }

    /// Returns how long a pause must last until it is full; zero if it is.
    pub fn until_full(&self, now: Instant) -> Duration {
        self.paid_until.saturating_duration_since(now)
    }
}

/// An allowance that several connections take from, such as all clients of one address.
#[derive(Clone, Debug)]
pub struct SharedAllowance(Arc<Mutex<Allowance>>);

impl SharedAllowance {
    /// Shares `allowance` among the clones of what is returned.
    pub fn new(allowance: Allowance) -> SharedAllowance {
        SharedAllowance(Arc::new(Mutex::new(allowance)))
    }

    /// Takes units, like [`Allowance::take`]. Never waits for longer than another thread takes to
    /// do the same.
    ///
    /// # Errors
    /// How long to wait until a unit may be taken. Nothing is taken then.
    pub fn take(&self, units: u32, now: Instant) -> Result<(), Duration> {
        self.lock().take(units, now)
    }

    /// Returns how long a pause must last until it is full; zero if it is.
    pub fn until_full(&self, now: Instant) -> Duration {
        self.lock().until_full(now)
    }

    fn lock(&self) -> MutexGuard<'_, Allowance> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
