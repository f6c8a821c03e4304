//! How long to wait before connecting again.

use std::time::Duration;

/// Longest wait after a connection that was steady. Each further attempt doubles it.
const FIRST_WAIT_MAX: Duration = Duration::from_millis(500);
/// Longest wait of all.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// A connection that lasts this long is steady.
const STEADY: Duration = Duration::from_secs(10);

/// Attempts to connect, and the growing waits between them.
#[derive(Default)]
pub struct Backoff {
    /// Since the last steady connection.
    attempts: u32,
}

impl Backoff {
    /// Counts an attempt that is about to begin.
    pub fn count_attempt(&mut self) {
        self.attempts += 1;
    }

    /// Returns how long to wait after an attempt whose connection lasted for `lasted`.
    ///
    /// Half of the wait is random, so that the members of a room do not all return at once.
    pub fn wait_after(&mut self, lasted: Duration) -> Duration {
        if lasted >= STEADY {
            self.attempts = 0;
        }
        let doublings = self.attempts.min(u32::BITS - 2);
        let longest = FIRST_WAIT_MAX.saturating_mul(1 << doublings).min(WAIT_MAX);
        let random = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
        longest.mul_f64(0.5 + random / 2.0)
    }
}
