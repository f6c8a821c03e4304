//! Binds an address, or says what to do instead.

use std::io;
use std::net::{SocketAddr, TcpListener};

use log::{info, warn};
use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::protocol::address::{Address, PORT_DEFAULT};

/// Connections that the system completes before we accept them: a class opens the page at once.
const BACKLOG: i32 = 1024;

/// Binds `text`, an address as people write it. `prefix` is what stands before it where it was
/// set, for errors: `--listen `, or `PARLOUR_LISTEN=`.
///
/// # Errors
/// Which address could not be bound, why, and what to do about it.
pub fn bind(prefix: &str, text: &str) -> io::Result<TcpListener> {
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
