//! What systemd is told of the server (sd_notify(3)): that it listens, that it stops, and in between, as often as the
//! unit's `WatchdogSec` asks for, that the hub answers. Without systemd, which names its socket in `NOTIFY_SOCKET`, nothing
//! is said and no thread is started.

use std::io;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use log::warn;
use sd_notify::NotifyState;

use crate::chat::hub::Posted;
use crate::http::routes;

/// A sign of life comes twice within the time that systemd waits for one.
const SIGNS_PER_TIMEOUT: u32 = 2;

/// systemd has been told that the server is ready. Dropping it tells that the server stops.
pub struct Ready {
    /// Dropped, it ends the watchdog's thread.
    _watched: Option<Sender<()>>,
}

/// Tells systemd that the server listens, and begins to feed the watchdog if there is one.
///
/// # Errors
/// What the system says when it has no thread for the watchdog.
pub fn ready(inbox: &Sender<Posted>) -> io::Result<Ready> {
    let timeout = sd_notify::watchdog_enabled().filter(|timeout| !timeout.is_zero());
    let watched =
        timeout.map(|timeout| watch(timeout / SIGNS_PER_TIMEOUT, inbox.clone())).transpose()?;
    tell(NotifyState::Ready);
    Ok(Ready { _watched: watched })
}

/// Starts the watchdog's thread, which ends with what is returned.
fn watch(interval: Duration, inbox: Sender<Posted>) -> io::Result<Sender<()>> {
    let (watched, over) = bounded(0);
    thread::Builder::new()
        .name("watchdog".to_owned())
        .spawn(move || feed(interval, &over, &inbox, || tell(NotifyState::Watchdog)))?;
    Ok(watched)
}

impl Drop for Ready {
    fn drop(&mut self) {
        tell(NotifyState::Stopping);
    }
}

/// Gives a sign of life each `interval` in which the hub answers, until the sender of `over` is gone. The inbox goes with it:
/// the hub ends with the last sender.
pub fn feed(interval: Duration, over: &Receiver<()>, inbox: &Sender<Posted>, sign: impl Fn()) {
    while over.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        match routes::hub_answers(inbox) {
            true => sign(),
            false => warn!("the hub does not answer, so systemd gets no sign of life"),
        }
    }
}

/// Does nothing where there is no systemd.
fn tell(state: NotifyState) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(&state)) {
        warn!("can't tell systemd {state}: {error}");
    }
}
