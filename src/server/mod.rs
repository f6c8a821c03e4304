//! Starts and stops every thread: the accept loop, the hub, the reaper, and a reader for each
//! connection.
//!
//! May import `http`, `chat`, `system`, `protocol` and `config`. In reading order: this
//! file, then [`reaper`], which joins the threads, and [`listener`], which binds addresses and
//! accepts connections.
//!
//! # What always holds
//!
//! - Every thread that serves a connection is joined, by a panic too.
//! - A place is given back only after its connection's threads have ended and its socket is closed.
//! - A stop flows with the data: no more connections, then readers hand over their backlogs, then
//!   the hub drops the outboxes, writers write what is left and close, readers see the end, the
//!   reaper joins them, and the hub's inbox has no sender left. Nothing waits in a circle, and a
//!   deadline is over all of it.
//! - A server whose hub has died stops: one that accepts and never replies is worse than none.

pub mod listener;
pub mod reaper;

use std::fmt;
use std::io::{self, PipeWriter, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded, unbounded};
use log::{Level, debug, info, warn};

use crate::chat::backlog::Backlogs;
use crate::chat::client::Shared;
use crate::chat::connection::{ClientId, Connection};
use crate::chat::hub::Hub;
use crate::chat::inbox::{self, INBOX_EVENTS};
use crate::chat::write_half::SweepQueue;
use crate::config::Config;
use crate::http::admission::{Admission, NoPlace, Place};
use crate::http::response::{self, turn_away, unavailable};
use crate::http::{host, proxy, routes, scrape};
use crate::protocol::refusal::Refusal;
use crate::system::limits::{self, Ceiling};
use crate::system::metrics::METRICS;
use crate::system::{logging, systemd};
use listener::Listener;
use reaper::{EndedOnDrop, Event, Reaper, Served};

/// Pause after a failed `accept`. Running out of descriptors passes when somebody leaves.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Stack of a reader, which also parses the request head.
const READER_STACK_BYTES: usize = limits::STACK_BYTES_MAX;
/// The part of `--shutdown-timeout` in which readers may hand over what waits in their backlogs.
const HAND_OVER_BY: f64 = 0.4;
/// The part of `--shutdown-timeout` after which sockets that are still open are cut, so that their
/// threads end in time.
const CUT_AFTER: f64 = 0.8;

/// A bound server that does not serve yet.
pub struct Server {
    config: Arc<Config>,
    listener: Listener,
    metrics_listener: Option<Listener>,
    stop: StopHandle,
    ceiling: Ceiling,
    run_id: u64,
}

/// Stops a server from another thread.
#[derive(Clone)]
pub struct StopHandle {
    stopping: Arc<AtomicBool>,
    /// Wakes the threads that wait for connections.
    waker: Arc<PipeWriter>,
}

/// Why a server did not end well.
#[derive(Debug)]
pub enum RunError {
    /// A thread could not be started.
    Spawn(io::Error),
    /// The hub panicked, which is a bug. The log has the panic. Nothing works without the hub.
    HubDied,
    /// Threads were still running after `--shutdown-timeout`.
    TimedOut,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Spawn(error) => write!(f, "can't start a thread: {error}"),
            RunError::HubDied => {
                f.write_str("the hub has died, which is a bug; please report it with the log")
            }
            RunError::TimedOut => f.write_str("some threads did not end within --shutdown-timeout"),
        }
    }
}

impl std::error::Error for RunError {}

impl Server {
    /// Binds the listener. From here on the system accepts connections.
    ///
    /// # Errors
    /// Which address could not be bound, why, and what to do about it. Or which limit of the system
    /// leaves no memory for a client.
    pub fn bind(config: Config) -> io::Result<Server> {
        let ceiling = limits::ceiling(config.max_connections)?;
        let (listener, metrics_listener) = listener::sockets(&config)?;
        let (wake, waker) = io::pipe()?;
        let (wake, stopping) = (Arc::new(wake), Arc::new(AtomicBool::new(false)));
        let listen = |socket| Listener::new(socket, stopping.clone(), wake.clone());
        let listener = listen(listener)?;
        let metrics_listener = metrics_listener.map(listen).transpose()?;
        let run_id = getrandom::u64().map_err(io::Error::other)?;
        let stop = StopHandle { stopping, waker: Arc::new(waker) };
        let config = Arc::new(config);
        Ok(Server { config, listener, metrics_listener, stop, ceiling, run_id })
    }

    /// Returns the address it listens on, with the port that the system chose for port 0.
    ///
    /// # Errors
    /// What the socket says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Returns the address that serves `/metrics`, if there is one.
    ///
    /// # Errors
    /// What the socket says.
    pub fn metrics_addr(&self) -> io::Result<Option<SocketAddr>> {
        self.metrics_listener.as_ref().map(|listener| listener.local_addr()).transpose()
    }

    /// Returns a handle that stops it.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// Serves until stopped, then closes every connection and joins every thread.
    ///
    /// # Errors
    /// See [`RunError`]. Threads may be left then, so the process should end.
    pub fn run(self) -> Result<(), RunError> {
        let (inbox, events) = bounded(INBOX_EVENTS);
        let (stop_hub, hub_stopped) = bounded(1);
        let sweeps = SweepQueue::new();
        let hub = Hub::new(self.config.clone(), sweeps.clone(), self.run_id);
        let guard = StopOnDrop(self.stop_handle());
        let hub = spawn("hub", move || {
            // If the hub dies, the server stops.
            let _guard = guard;
            hub.run(&events, hub_stopped);
        })?;
        let (reaper, reaper_events) = unbounded();
        let (reaped, all_reaped) = bounded::<()>(0);
        let reaper_thread = spawn("reaper", move || {
            // Dropped at the end: the sign that every thread was joined.
            let _reaped = reaped;
            Reaper::default().run(&reaper_events);
        })?;
        let Ceiling { clients, requests, limit } = self.ceiling;
        info!("at most {clients} clients and {requests} requests at a time, limited by {limit}");
        METRICS.connections_max.with_label_values(&[limit]).set(clients as i64);
        if let Some(listener) = self.metrics_listener {
            let config = self.config.clone();
            let listen = config.metrics_listen.as_deref().unwrap_or_default();
            let hosts = host::served_by(listener.local_addr(), listen, &config.allow_host);
            // Not joined: a scraper that is slow to read must not delay the end.
            spawn("metrics", move || scrape::serve(listener.connections(), hosts, &config))?;
        }
        let (config, stopping) = (self.config.clone(), self.stop.stopping);
        let hosts = host::served_by(self.listener.local_addr(), &config.listen, &config.allow_host);
        let backlogs = Backlogs::new(stopping.clone());
        let shared = Arc::new(Shared { config, hosts, inbox, sweeps, stopping, backlogs });
        let ready = {
            let inbox = shared.inbox.clone();
            systemd::ready(move || inbox::hub_replies(&inbox)).map_err(RunError::Spawn)?
        };
        let admission = Admission::new(self.ceiling, &self.config);
        accept_loop(&self.listener, &admission, &shared, &reaper);
        drop(ready);

        let stopped = Instant::now();
        let timeout = self.config.shutdown_timeout;
        let (deadline, cut_at) = (stopped + timeout, stopped + timeout.mul_f64(CUT_AFTER));
        drop(self.listener);
        shared.backlogs.wait_until_empty(stopped + timeout.mul_f64(HAND_OVER_BY));
        if stop_hub.send(()).is_err() {
            return Err(RunError::HubDied);
        }
        drop(shared);
        let _ = reaper.send(Event::Stop { cut_at });
        drop(reaper);
        if all_reaped.recv_deadline(deadline) == Err(RecvTimeoutError::Timeout) {
            return Err(RunError::TimedOut);
        }
        for thread in [reaper_thread, hub] {
            thread.join().map_err(|_| RunError::HubDied)?;
        }
        Ok(())
    }
}

/// Accepts connections until the server is told to stop. It never ends by itself.
fn accept_loop(
    listener: &Listener,
    admission: &Arc<Admission>,
    shared: &Arc<Shared>,
    reaper: &Sender<Event>,
) {
    for (id, accepted) in (1..).zip(listener.connections()) {
        match accepted {
            Ok((stream, peer)) => {
                METRICS.connections_accepted.inc();
                admit(id, stream, peer, admission, shared, reaper);
            }
            Err(error) => {
                logging::warn_of_failure("can't accept a connection", &error);
                // A client that hung up while it waited is no reason to let others wait.
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }
}

/// Gives a connection its place and its reader thread, or turns it away.
fn admit(
    id: ClientId,
    stream: TcpStream,
    peer: SocketAddr,
    admission: &Arc<Admission>,
    shared: &Arc<Shared>,
    reaper: &Sender<Event>,
) {
    // A listener for both IP versions shows IPv4 as a part of IPv6.
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let is_counted =
        !is_own(&stream, peer.ip()) && proxy::is_counted(peer.ip(), &shared.config.trusted_proxy);
    let place = match admission.enter(id, is_counted.then_some(peer.ip())) {
        Ok(place) => Arc::new(place),
        Err(reason) => return refuse(id, stream, peer, reason, reaper),
    };
    // A chat message is small and must be sent at once.
    if let Err(error) = stream.set_nodelay(true) {
        debug!("connection {id} from {peer} gone: {error}");
        return;
    }
    let connection = Arc::new(Connection::new(id, peer, stream));
    place.offer(&connection);
    match start_reader(&connection, &place, shared, reaper) {
        Ok(reader) => {
            let _ = reaper.send(Event::Started(Served { connection, place, reader }));
        }
        Err(error) => {
            // Refused at once, not delayed like a failed `accept`: a newcomer that waited here
            // would hold up all others.
            logging::warn_of_failure("no thread for a connection", &error);
            turn_away(&connection.stream, unavailable(Refusal::NoThread));
            if let Some(connection) = Arc::into_inner(connection) {
                let _ = reaper.send(Event::TurnedAway(connection.stream));
            }
        }
    }
}

fn start_reader(
    connection: &Arc<Connection>,
    place: &Arc<Place>,
    shared: &Arc<Shared>,
    reaper: &Sender<Event>,
) -> io::Result<JoinHandle<()>> {
    let id = connection.id;
    let (connection, place, shared) = (connection.clone(), place.clone(), shared.clone());
    let reaper = reaper.clone();
    let body = move || {
        let _ended = EndedOnDrop { id, reaper };
        routes::serve(&connection, &place, &shared);
    };
    thread::Builder::new().name(format!("reader {id}")).stack_size(READER_STACK_BYTES).spawn(body)
}

/// True if a connection comes from the very address that it goes to: then it is this host's own.
fn is_own(stream: &TcpStream, peer: IpAddr) -> bool {
    stream.local_addr().is_ok_and(|own| own.ip().to_canonical() == peer)
}

/// Turns away a connection for which there is no place.
fn refuse(
    id: ClientId,
    stream: TcpStream,
    peer: SocketAddr,
    reason: NoPlace,
    reaper: &Sender<Event>,
) {
    let response = reason.response();
    if let Some(refusal) = Refusal::of(&response)
        && let Some(more) = logging::due(Level::Warn, refusal.name())
    {
        let reason = response::reason(&response);
        warn!("connection {id} from {peer} refused: {refusal}: {reason}{more}");
    }
    turn_away(&stream, response);
    let _ = reaper.send(Event::TurnedAway(stream));
}

impl StopHandle {
    /// Tells the server to stop. Returns at once; [`Server::run`] returns when it has stopped.
    pub fn stop(&self) {
        if !self.stopping.swap(true, Ordering::SeqCst) {
            // An empty pipe always takes a byte.
            let _ = (&*self.waker).write_all(&[0]);
        }
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, RunError> {
    thread::Builder::new().name(name.to_owned()).spawn(body).map_err(RunError::Spawn)
}

/// Stops the server when the hub's thread ends, by a panic too.
struct StopOnDrop(StopHandle);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}
