//! Binds an address, or says what to do instead.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the system completes before we accept them: a class opens the page at once.
const BACKLOG: i32 = 1024;

/// Listens on `address`. `prefix` is what stands before it where it was set, for errors: `--listen `,
/// or `PARLOUR_LISTEN=`.
///
/// # Errors
/// Which address could not be bound, why, and what to do about it.
pub fn bind(prefix: &str, address: &str) -> io::Result<TcpListener> {
    listen(address).map_err(|error| {
        let advice = advice(prefix, address, &error);
        io::Error::new(error.kind(), format!("{prefix}{address}: {error}; {advice}"))
    })
}

/// Listens on the first address that `text` resolves to and that can be bound.
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
        // `[::]` accepts IPv4 too.
        socket.set_only_v6(false)?;
    }
    // A restarted server need not wait until the last one's connections leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Says what to do about an address that can't be bound.
fn advice(prefix: &str, address: &str, error: &io::Error) -> String {
    let parts =
        address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match (error.kind(), parts) {
        (io::ErrorKind::AddrInUse, Some((host, port))) => {
            let other = port.checked_add(1).unwrap_or(port - 1);
            format!(
                "another program has this port, perhaps a parlour that is running already \
                 (ss -ltnp 'sport = :{port}' shows which): stop it, or use another port: \
                 {prefix}{host}:{other}"
            )
        }
        (io::ErrorKind::PermissionDenied, Some((host, port))) => {
            format!(
                "port {port} is reserved for the administrator: use {prefix}{host}:8080, and put \
                 a proxy in front of it"
            )
        }
        (io::ErrorKind::AddrNotAvailable, Some((_, port))) => {
            format!(
                "this machine has no such address; {prefix}0.0.0.0:{port} listens on every one \
                 that it has"
            )
        }
        _ => format!("write it like {prefix}127.0.0.1:8080"),
    }
}
