//! Takes sockets from systemd (sd_listen_fds(3)), and notifies it (sd_notify(3)): the server
//! listens, the hub replies, the server stops.
//!
//! That the hub replies is sent as often as the unit's `WatchdogSec` asks for. Without systemd,
//! which names its socket in `NOTIFY_SOCKET`, nothing is sent and no thread is started.

use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// Takes the sockets that systemd has opened for this process, each with its name. There are none
/// without a socket unit, and none from the second call on.
///
/// systemd keeps them open too, so connections wait in them while no server runs.
///
/// # Errors
/// If the variables that name them are wrong.
pub fn sockets() -> io::Result<Vec<(String, TcpListener)>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        // Each descriptor has one owner.
        return Ok(Vec::new());
    }
    let sockets = sd_listen_fds::get().map_err(|error| {
        let problem = format!("{error}: LISTEN_PID and LISTEN_FDS must be numbers");
        io::Error::new(io::ErrorKind::InvalidInput, problem)
    })?;
    let named = sockets.into_iter().map(|(name, fd)| {
        // The name that sd_listen_fds_with_names(3) has for it, too.
        (name.unwrap_or_else(|| "unknown".to_owned()), fd.into())
    });
    Ok(named.collect())
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
