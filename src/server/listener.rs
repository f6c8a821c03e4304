//! Binds an address, or says what to do instead; accepts connections until the server stops.

use std::io::{self, PipeReader};
use std::iter;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use log::{info, warn};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::config::Config;
use crate::protocol::address::{Address, PORT_DEFAULT};
use crate::system::systemd;

/// Connections that the system completes before we accept them: a class opens the page at once.
const BACKLOG: i32 = 1024;
/// What systemd calls the socket for metrics (`FileDescriptorName=`).
const METRICS_SOCKET: &str = "metrics";

/// A listening socket, from which connections come until the server stops.
///
/// It is not shut down at the end, only closed. Shutting it down would wake a blocked accept too,
/// but if the socket is systemd's, it would be dead for the next server as well.
pub struct Listener {
    socket: TcpListener,
    stopping: Arc<AtomicBool>,
    /// Readable as soon as `stopping` is set. Nobody reads from it.
    wake: Arc<PipeReader>,
}

impl Listener {
    /// Begins to accept from `socket`, until `stopping` is set and something is written to the
    /// other end of `wake`.
    ///
    /// # Errors
    /// What the socket says.
    pub fn new(
        socket: TcpListener,
        stopping: Arc<AtomicBool>,
        wake: Arc<PipeReader>,
    ) -> io::Result<Listener> {
        // Another process may share the socket and take a connection that `poll` has seen.
        socket.set_nonblocking(true)?;
        Ok(Listener { socket, stopping, wake })
    }

    /// Returns the address that it is bound to.
    ///
    /// # Errors
    /// What the socket says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Waits for each connection in turn. The end of this iterator is the end of the server.
    ///
    /// An error is not the end: when somebody leaves, there may be a descriptor for the next.
    pub fn connections(&self) -> impl Iterator<Item = io::Result<(TcpStream, SocketAddr)>> {
        iter::from_fn(|| self.accept())
    }

    fn accept(&self) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        loop {
            let [wake, connection] = [self.wake.as_fd(), self.socket.as_fd()];
            let mut awaited = [wake, connection].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            let waited = poll(&mut awaited, PollTimeout::NONE);
            if self.stopping.load(Ordering::SeqCst) {
                return None;
            }
            match (self.socket.accept(), waited) {
                // On some systems, a connection does not block if its listener does not.
                (Ok((stream, peer)), _) => {
                    return Some(stream.set_nonblocking(false).map(|()| (stream, peer)));
                }
                (Err(error), _) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Some(Err(error));
                }
                (Err(_), Ok(_) | Err(Errno::EINTR)) => {}
                (Err(_), Err(error)) => return Some(Err(error.into())),
            }
        }
    }
}

/// Opens the server's socket, and that for the metrics. A socket that systemd passes takes the
/// place of the option.
///
/// # Errors
/// Says which socket can't be used or which address can't be bound, and what to do about it.
pub fn sockets(config: &Config) -> io::Result<(TcpListener, Option<TcpListener>)> {
    let (metrics, chat): (Vec<_>, Vec<_>) =
        systemd::sockets()?.into_iter().partition(|(name, _)| name == METRICS_SOCKET);
    let (listen, metrics_listen) = (config.prefix("listen"), config.prefix("metrics-listen"));
    let chat = match inherited(chat, &listen)? {
        Some(socket) => socket,
        None => bind(&listen, &config.listen)?,
    };
    let metrics = match (inherited(metrics, &metrics_listen)?, &config.metrics_listen) {
        (None, Some(address)) => Some(bind(&metrics_listen, address)?),
        (socket, _) => socket,
    };
    Ok((chat, metrics))
}

/// Returns the one socket that systemd has passed for a purpose, if any. `prefix` belongs to the
/// option of which it takes the place.
fn inherited(
    mut sockets: Vec<(String, TcpListener)>,
    prefix: &str,
) -> io::Result<Option<TcpListener>> {
    let unusable = |problem| io::Error::new(io::ErrorKind::InvalidInput, problem);
    if sockets.len() > 1 {
        return Err(unusable(format!(
            "systemd passed {} sockets where one is needed; ListenStream=[::]:{PORT_DEFAULT} \
             alone accepts IPv6 and IPv4",
            sockets.len(),
        )));
    }
    let Some((name, socket)) = sockets.pop() else { return Ok(None) };
    if !SockRef::from(&socket).is_listener().unwrap_or(false) || socket.local_addr().is_err() {
        return Err(unusable(format!(
            "systemd passed the socket {name}, on which no TCP connection can be accepted; \
             its unit needs ListenStream= with a port, and Accept=no"
        )));
    }
    let option = prefix.trim_end_matches([' ', '=']);
    info!("systemd passed the socket {name}, which takes the place of {option}");
    Ok(Some(socket))
}

/// Binds `text`, an address as people write it. `prefix` is what stands before it where it was
/// set, for errors: `--listen `, or `PARLOUR_LISTEN=`.
///
/// # Errors
/// Which address could not be bound, why, and what to do about it.
fn bind(prefix: &str, text: &str) -> io::Result<TcpListener> {
    let address = Address::parse_listen(text).map_err(|problem| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{prefix}{text}: {problem}"))
    })?;
    listen(prefix, text, &address).map_err(|error| {
        let advice = advice(prefix, &address, &error);
        io::Error::new(error.kind(), format!("{prefix}{text}: {error}; {advice}"))
    })
}

/// Listens on the first of the addresses that this machine has.
fn listen(prefix: &str, text: &str, address: &Address) -> io::Result<TcpListener> {
    let addresses = address.resolve()?;
    let mut result = Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "no such address"));
    for &address in &addresses {
        result = listen_on(address);
        if !result.as_ref().is_err_and(is_absent) {
            break;
        }
    }
    if let Ok(socket) = &result {
        log_choice(prefix, text, socket.local_addr()?, &addresses);
    }
    result
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::]` accepts IPv4 too.
        socket.set_only_v6(false)?;
    }
    // A restarted server need not wait until the last one's connections leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// True if this machine lacks the address, or its whole family.
fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32)
}

/// Logs which of several addresses it is.
fn log_choice(prefix: &str, text: &str, chosen: SocketAddr, addresses: &[SocketAddr]) {
    let others: Vec<String> = addresses
        .iter()
        .filter(|address| address.ip() != chosen.ip())
        .map(|address| address.ip().to_string())
        .collect();
    if chosen.ip().is_unspecified() {
        if chosen.is_ipv4() && !others.is_empty() {
            warn!("{prefix}{text}: this machine has no IPv6, so only IPv4 is served");
        }
    } else if !others.is_empty() {
        let (chosen, others) = (chosen.ip(), others.join(", "));
        info!("{prefix}{text} has several addresses: parlour listens on {chosen}, not on {others}");
    }
}

/// Says what to do about an address that can't be bound.
fn advice(prefix: &str, address: &Address, error: &io::Error) -> String {
    let port = address.port;
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let other = address.with_port(port.checked_add(1).unwrap_or(port - 1));
            format!(
                "another program has this port, perhaps a parlour that is running already \
                 (ss -ltnp 'sport = :{port}' shows which): stop it, or use another port: \
                 {prefix}{other}"
            )
        }
        io::ErrorKind::PermissionDenied => {
            let other = address.with_port(PORT_DEFAULT);
            format!(
                "port {port} is reserved for the administrator: use {prefix}{other}, and put \
                 a proxy in front of it"
            )
        }
        _ if is_absent(error) => {
            format!(
                "this machine has no such address; {prefix}0.0.0.0:{port} listens on every one \
                 that it has"
            )
        }
        _ => format!("write it like {prefix}127.0.0.1:{PORT_DEFAULT}"),
    }
}
