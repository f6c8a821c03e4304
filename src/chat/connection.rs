//! An accepted socket and its id.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

/// Number of a connection, and of the client that it may become. Never used twice, so a late event
/// can't reach the wrong client.
pub type ClientId = u64;

/// An accepted connection, shared by its threads and by the server, which may have to cut it.
///
/// It is one file descriptor: `&TcpStream` reads and writes, so nothing needs a clone of the
/// socket.
pub struct Connection {
    /// Its number.
    pub id: ClientId,
    /// The other end of the socket.
    pub peer: SocketAddr,
    /// The client behind the peer, if the peer is a trusted proxy.
    pub forwarded: OnceLock<IpAddr>,
    /// The socket.
    pub stream: TcpStream,
    /// True once it is a WebSocket connection, which the hub will close.
    pub upgraded: AtomicBool,
}

impl Connection {
    /// Wraps a socket that was just accepted.
    pub fn new(id: ClientId, peer: SocketAddr, stream: TcpStream) -> Connection {
        let (forwarded, upgraded) = (OnceLock::new(), AtomicBool::new(false));
        Connection { id, peer, forwarded, stream, upgraded }
    }

    /// Returns the client's address for the log: the one that a trusted proxy names, or the peer's.
    pub fn address(&self) -> String {
        self.forwarded.get().map_or_else(|| self.peer.to_string(), IpAddr::to_string)
    }
}
