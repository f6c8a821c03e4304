//! The accept loop, and the life of every thread: who starts it, who joins it, and how all of them stop.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{
    Receiver, RecvTimeoutError, Sender, after, at, bounded, never, select, unbounded,
};
use log::{debug, error, info, warn};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::chat::client::{ClientId, Connection};
use crate::chat::hub::{Hub, INBOX_EVENTS, Posted};
use crate::chat::outbox::Sweeps;
use crate::config::Config;
use crate::http::admission::{Admission, Refused};
use crate::http::proxy;
use crate::http::routes;
use crate::protocol::address::reachable;
use crate::protocol::refusal::Refusal;
use crate::system::limits::{self, Ceiling};
use crate::system::logging;
use crate::system::metrics::{self, METRICS};
use crate::system::systemd;

/// Connections the system completes before we accept them: a class that opens the page at once.
const BACKLOG: i32 = 1024;
/// How long a failed `accept` is waited out; running out of descriptors passes when somebody leaves.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Stack of a reader, which also parses the request head.
const READER_STACK_BYTES: usize = 256 * 1024;
/// How long a refused connection stays open. Closed at once, with its request unread, it would be reset, and the client
/// might not see the response.
const TURNED_AWAY_LINGER: Duration = Duration::from_millis(500);
/// How many of them, since each holds a descriptor.
const TURNED_AWAY_MAX: usize = 16;
/// Of `--shutdown-timeout`, the part after which sockets that are still open are cut, so that their threads end in time.
const CUT_AFTER: f64 = 0.8;

/// A bound server, not yet serving.
pub struct Server {
    config: Arc<Config>,
    listener: Arc<TcpListener>,
    metrics_listener: Option<Arc<TcpListener>>,
    stopping: Arc<AtomicBool>,
    ceiling: Ceiling,
    run_id: u64,
}

/// What every connection's threads use.
pub struct Shared {
    /// The options.
    pub config: Arc<Config>,
    /// The way to the hub.
    pub inbox: Sender<Posted>,
    /// Where writers help each other.
    pub sweeps: Sweeps,
    /// Who may come in.
    admission: Arc<Admission>,
    stopping: Arc<AtomicBool>,
}

impl Shared {
    /// Whether the server has been told to stop.
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}

/// Stops a server from another thread.
#[derive(Clone)]
pub struct StopHandle {
    /// Weak, so that the server alone decides when the sockets are closed.
    listeners: Vec<Weak<TcpListener>>,
    stopping: Arc<AtomicBool>,
}

/// Why a server did not end well.
#[derive(Debug)]
pub enum RunError {
    /// A thread could not be started.
    Spawn(io::Error),
    /// The hub panicked: a bug, told in the log. Nothing works without it.
    HubDied,
    /// Threads outlived `--shutdown-timeout`.
    TimedOut,
}

impl std::fmt::Display for RunError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RunError::Spawn(error) => write!(f, "can't start a thread: {error}"),
            RunError::HubDied => {
                f.write_str("the hub has died, which is a bug; please report what the log says")
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
    /// Says which address could not be bound, and why.
    pub fn bind(config: Config) -> io::Result<Server> {
        let ceiling = limits::ceiling(config.max_connections);
        let bind = |option, address: &str| match listen(address) {
            Ok(listener) => Ok(Arc::new(listener)),
            Err(error) => {
                let problem =
                    format!("{option} {address}: {error}; {}", advice(option, address, &error));
                Err(io::Error::new(error.kind(), problem))
            }
        };
        let listener = bind("--listen", &config.listen)?;
        let metrics_listener = config
            .metrics_listen
            .as_ref()
            .map(|address| bind("--metrics-listen", address))
            .transpose()?;
        let run_id = getrandom::u64().map_err(io::Error::other)?;
        Ok(Server {
            config: Arc::new(config),
            listener,
            metrics_listener,
            stopping: Arc::new(AtomicBool::new(false)),
            ceiling,
            run_id,
        })
    }

    /// The address it listens on, with the port that the system chose for port 0.
    ///
    /// # Errors
    /// What the socket says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The address that answers `/metrics`, if there is one.
    ///
    /// # Errors
    /// What the socket says.
    pub fn metrics_addr(&self) -> io::Result<Option<SocketAddr>> {
        self.metrics_listener.as_ref().map(|listener| listener.local_addr()).transpose()
    }

    /// A handle that stops it.
    pub fn stop_handle(&self) -> StopHandle {
        let listeners =
            [Some(&self.listener), self.metrics_listener.as_ref()].into_iter().flatten();
        StopHandle {
            listeners: listeners.map(Arc::downgrade).collect(),
            stopping: self.stopping.clone(),
        }
    }

    /// Serves until stopped, then sends everybody away and joins every thread.
    ///
    /// # Errors
    /// See [`RunError`]. Threads may be left behind then, so the process should end.
    pub fn run(self) -> Result<(), RunError> {
        let (inbox, events) = bounded(INBOX_EVENTS);
        let (stop_hub, hub_stopped) = bounded(1);
        let sweeps = Sweeps::new();
        let hub = Hub::new(self.config.clone(), sweeps.clone(), self.run_id);
        let guard = StopOnDrop(self.stop_handle());
        let hub = spawn("hub", move || {
            // If the hub dies, so does the server: one that accepts and says nothing is worse than none.
            let _guard = guard;
            hub.run(&events, hub_stopped);
        })?;
        let (tell, told) = unbounded();
        let (reaped, all_reaped) = bounded::<()>(0);
        let reaper = spawn("reaper", move || {
            // Dropped at the end: the sign that every thread has been joined.
            let _reaped = reaped;
            reap(&told);
        })?;

        let Ceiling { clients, requests, limit } = self.ceiling;
        info!("room for {clients} clients and {requests} requests at a time, by {limit}");
        METRICS.connections_max.with_label_values(&[limit]).set(clients as i64);
        let shared = Arc::new(Shared {
            config: self.config.clone(),
            inbox,
            sweeps,
            admission: Admission::new(self.ceiling, self.config.max_connections_per_ip),
            stopping: self.stopping.clone(),
        });
        if let Some(listener) = self.metrics_listener {
            let stopping = self.stopping.clone();
            // Not joined: a scraper that is slow to read must not hold up the end.
            spawn("metrics", move || metrics::serve(&listener, &stopping))?;
        }
        let told_systemd = systemd::ready(&shared.inbox).map_err(RunError::Spawn)?;
        accept_loop(&self.listener, &shared, &tell);
        drop(told_systemd);

        let deadline = Instant::now() + self.config.shutdown_timeout;
        let cut_at = Instant::now() + self.config.shutdown_timeout.mul_f64(CUT_AFTER);
        // From the listener on, everything ends by the end of what feeds it: no more connections, the hub drops the
        // outboxes, writers say goodbye, readers see the end, the reaper joins them, and the inbox has no sender left.
        drop(self.listener);
        if stop_hub.send(()).is_err() {
            return Err(RunError::HubDied);
        }
        drop(shared);
        let _ = tell.send(Tell::Stop { cut_at });
        drop(tell);
        if all_reaped.recv_deadline(deadline) == Err(RecvTimeoutError::Timeout) {
            return Err(RunError::TimedOut);
        }
        for thread in [reaper, hub] {
            thread.join().map_err(|_| RunError::HubDied)?;
        }
        Ok(())
    }
}

/// Takes connections until the server is told to stop. Never ends by itself.
fn accept_loop(listener: &TcpListener, shared: &Arc<Shared>, tell: &Sender<Tell>) {
    for id in 1.. {
        let accepted = listener.accept();
        if shared.stopping() {
            if let Ok((stream, _)) = accepted {
                routes::turn_away(&stream, routes::unavailable(routes::STOPPING));
            }
            return;
        }
        match accepted {
            Ok((stream, peer)) => {
                METRICS.connections_accepted.inc();
                admit(id, stream, peer, shared, tell);
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

/// Gives a connection its reader thread, or turns it away.
fn admit(
    id: ClientId,
    stream: TcpStream,
    peer: SocketAddr,
    shared: &Arc<Shared>,
    tell: &Sender<Tell>,
) {
    // A listener that takes both versions shows IPv4 as a part of IPv6.
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let counted = proxy::is_counted(peer.ip(), &shared.config.trusted_proxy).then_some(peer.ip());
    let place = match shared.admission.enter(id, counted) {
        Ok(place) => place,
        Err(refused) => {
            let response = routes::no_place(refused);
            if let Some(refusal) = Refusal::of(&response) {
                debug!("connection {id} from {peer} refused: {refusal}");
                if logging::is_due("refused", Some(response.status().as_u16().into())) {
                    warn!("refusing connections, that from {peer} among them: {refusal}");
                }
            }
            routes::turn_away(&stream, response);
            let _ = tell.send(Tell::TurnedAway(stream));
            return;
        }
    };
    // A chat message is small and wants to go at once.
    if let Err(error) = stream.set_nodelay(true) {
        debug!("connection {id} from {peer} gone: {error}");
        return;
    }
    let connection = Arc::new(Connection::new(id, peer, stream, place));
    connection.place.offer(&connection);
    let thread = {
        let (connection, shared, tell) = (connection.clone(), shared.clone(), tell.clone());
        let body = move || {
            let _ended = EndedOnDrop(id, tell);
            routes::serve(&connection, &shared);
        };
        thread::Builder::new()
            .name(format!("reader {id}"))
            .stack_size(READER_STACK_BYTES)
            .spawn(body)
    };
    match thread {
        Ok(thread) => {
            let _ = tell.send(Tell::Started(connection, thread));
        }
        Err(error) => {
            // Told at once, not waited out like a failed `accept`: each newcomer that waited would hold up all others.
            logging::warn_of_failure("no thread for a connection", &error);
            routes::turn_away(&connection.stream, routes::no_place(Refused::Full));
            if let Some(connection) = Arc::into_inner(connection) {
                let _ = tell.send(Tell::TurnedAway(connection.stream));
            }
        }
    }
}

impl StopHandle {
    /// Tells the server to stop. Returns at once; [`Server::run`] returns when it has.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        for listener in self.listeners.iter().filter_map(Weak::upgrade) {
            // On Linux this ends a blocked accept. Elsewhere a connection of our own does.
            if SockRef::from(&*listener).shutdown(Shutdown::Both).is_err()
                && let Ok(address) = listener.local_addr()
            {
                let _ = TcpStream::connect_timeout(&reachable(address), ACCEPT_PAUSE);
            }
        }
    }
}

/// What the reaper is told.
enum Tell {
    /// A connection has its thread.
    Started(Arc<Connection>, JoinHandle<()>),
    /// A connection's thread is about to end.
    Ended(ClientId),
    /// A connection has been refused, and is to be closed when its client has had time to read why.
    TurnedAway(TcpStream),
    /// No more will start: requests that have not come yet never will, and at `cut_at` every socket is shut down.
    Stop { cut_at: Instant },
}

/// Joins each connection's thread as it ends, so that no stack outlives its client and no panic goes unseen. Returns
/// when the accept loop and every connection have ended.
fn reap(told: &Receiver<Tell>) {
    let mut live: HashMap<ClientId, (Arc<Connection>, JoinHandle<()>)> = HashMap::new();
    // Threads so short that their end is told before their start.
    let mut early: HashSet<ClientId> = HashSet::new();
    let mut cut = never();
    let mut turned_away: VecDeque<(Instant, TcpStream)> = VecDeque::new();
    loop {
        let close_next =
            turned_away.front().map_or_else(never, |(since, _)| at(*since + TURNED_AWAY_LINGER));
        select! {
            recv(close_next) -> _ => drop(turned_away.pop_front()),
            recv(told) -> tell => match tell {
                Ok(Tell::Started(connection, thread)) => match early.remove(&connection.id) {
                    true => join(connection.id, thread),
                    false => drop(live.insert(connection.id, (connection, thread))),
                },
                Ok(Tell::Ended(id)) => match live.remove(&id) {
                    Some((_, thread)) => join(id, thread),
                    None => drop(early.insert(id)),
                },
                Ok(Tell::TurnedAway(stream)) => {
                    turned_away.push_back((Instant::now(), stream));
                    if turned_away.len() > TURNED_AWAY_MAX {
                        turned_away.pop_front();
                    }
                }
                Ok(Tell::Stop { cut_at }) => {
                    cut = after(cut_at.saturating_duration_since(Instant::now()));
                    for (connection, _) in live.values() {
                        if !connection.upgraded.load(Ordering::SeqCst) {
                            let _ = connection.stream.shutdown(Shutdown::Read);
                        }
                    }
                }
                Err(_) => return,
            },
            recv(cut) -> _ => {
                info!("cutting {} connections that did not end in time", live.len());
                for (connection, _) in live.values() {
                    let _ = connection.stream.shutdown(Shutdown::Both);
                }
            }
        }
    }
}

fn join(id: ClientId, thread: JoinHandle<()>) {
    if thread.join().is_err() {
        error!("the reader of client {id} panicked; only that client is gone");
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, RunError> {
    thread::Builder::new().name(name.to_owned()).spawn(body).map_err(RunError::Spawn)
}

/// What to do about an address that can't be listened on.
fn advice(option: &str, address: &str, error: &io::Error) -> String {
    let parts =
        address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match (error.kind(), parts) {
        (io::ErrorKind::AddrInUse, Some((host, port))) => {
            let other = port.checked_add(1).unwrap_or(port - 1);
            format!(
                "another program has this port, perhaps a parlour that runs already (ss -ltnp 'sport = :{port}' tells which): \
                 stop it, or take another port: {option} {host}:{other}"
            )
        }
        (io::ErrorKind::PermissionDenied, Some((host, port))) => {
            format!(
                "port {port} is the administrator's: take {option} {host}:8080, say, and put a proxy before it"
            )
        }
        (io::ErrorKind::AddrNotAvailable, Some((_, port))) => {
            format!(
                "this machine has no such address; {option} 0.0.0.0:{port} listens on all that it has"
            )
        }
        _ => format!("write it like {option} 127.0.0.1:8080"),
    }
}

/// A listener on the first address that `text` resolves to and that can be bound. `[::]` takes IPv4 too.
fn listen(text: &str) -> io::Result<TcpListener> {
    let mut result = Err(io::Error::new(io::ErrorKind::InvalidInput, "no such address"));
    for address in text.to_socket_addrs()? {
        result = listen_on(address);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A restarted server need not wait for the last one's connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

struct EndedOnDrop(ClientId, Sender<Tell>);

impl Drop for EndedOnDrop {
    fn drop(&mut self) {
        // The reaper outlives every connection: it ends when the last of these senders is gone.
        let _ = self.1.send(Tell::Ended(self.0));
    }
}

struct StopOnDrop(StopHandle);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}
