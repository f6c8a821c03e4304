//! Notifies systemd (sd_notify(3)): the server listens, the hub replies, the server stops.
//!
//! That the hub replies is sent as often as the unit's `WatchdogSec` asks for. Without systemd,
//! which names its socket in `NOTIFY_SOCKET`, nothing is sent and no thread is started.

use std::io;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use log::warn;
use sd_notify::NotifyState;

/// Signs of life within the time that systemd waits for one.
const SIGNS_PER_TIMEOUT: u32 = 2;

/// Proof that systemd knows the server to be ready. Dropping it notifies systemd that the server
/// stops, and ends the watchdog's thread.
pub struct Ready {
    /// Dropped, it ends the watchdog's thread.
    _watchdog: Option<Sender<()>>,
}

/// Notifies systemd that the server listens, and starts the watchdog's thread if the unit has one.
///
/// `hub_replies` is called in that thread, and must return within a second or so.
///
/// # Errors
/// If the system has no thread for the watchdog.
pub fn ready(hub_replies: impl Fn() -> bool + Send + 'static) -> io::Result<Ready> {
    let timeout = sd_notify::watchdog_enabled().filter(|timeout| !timeout.is_zero());
    let watchdog =
        timeout.map(|timeout| watch(timeout / SIGNS_PER_TIMEOUT, hub_replies)).transpose()?;
    notify(NotifyState::Ready);
    Ok(Ready { _watchdog: watchdog })
}

/// Starts the watchdog's thread, which ends when the returned sender is dropped.
fn watch(
    interval: Duration,
    hub_replies: impl Fn() -> bool + Send + 'static,
) -> io::Result<Sender<()>> {
    let (watchdog, ended) = bounded(0);
    thread::Builder::new()
        .name("watchdog".to_owned())
        .spawn(move || feed(interval, &ended, hub_replies, || notify(NotifyState::Watchdog)))?;
    Ok(watchdog)
}

impl Drop for Ready {
    fn drop(&mut self) {
        notify(NotifyState::Stopping);
    }
}

/// Calls `sign` once each `interval` in which the hub replies, until the sender of `ended` is
/// dropped.
///
/// `hub_replies` holds a sender of the hub's inbox. It is dropped with this call, since the hub
/// ends with its last sender.
pub fn feed(
    interval: Duration,
    ended: &Receiver<()>,
    hub_replies: impl Fn() -> bool,
    sign: impl Fn(),
) {
    while ended.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        if hub_replies() {
            sign();
        } else {
            warn!("the hub does not reply, so systemd gets no sign of life");
        }
    }
}

/// Does nothing where there is no systemd.
fn notify(state: NotifyState) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(&state)) {
        warn!("can't notify systemd of {state}: {error}");
    }
}
