//! Where a server is, as people write it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use tungstenite::http::Uri;

/// Port of `http` and `ws` where none is named.
const PORT_DEFAULT: u16 = 80;

/// The parts of a `ws://` or `http://` address. The two mean the same here: a chat is found by the
/// address of its page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Host and port, as they stood there.
    pub authority: String,
    /// The path; `/` if there was none.
    pub path: String,
    /// What follows a `?`.
    pub query: String,
    host_and_port: String,
}

impl Address {
    /// Takes an address, or a host and port alone.
    ///
    /// # Errors
    /// Says what is wrong with it, and what to do where it asks for TLS.
    pub fn parse(text: &str) -> Result<Address, String> {
        let rest = match text.split_once("://") {
            Some((scheme, rest))
                if ["ws", "http"].contains(&scheme.to_ascii_lowercase().as_str()) =>
            {
                rest
            }
            Some((scheme, _))
                if ["wss", "https"].contains(&scheme.to_ascii_lowercase().as_str()) =>
            {
                return Err(format!(
                    "{scheme}:// needs TLS, which this client doesn't speak; on the server's machine take its \
                     ws://127.0.0.1:8080, elsewhere a tunnel: ssh -L 8080:127.0.0.1:8080 HOST"
                ));
            }
            Some(_) => return Err("an address begins with ws:// or http://".into()),
            None => text,
        };
        let uri: Uri = format!("ws://{rest}").parse().map_err(|error| format!("{error}"))?;
        let (Some(authority), Some(host)) =
            (uri.authority(), uri.host().filter(|host| !host.is_empty()))
        else {
            return Err("there is no host in it".into());
        };
        if authority.as_str().contains('@') {
            return Err("a user or a password has no place in it".into());
        }
        let port = match uri.port() {
            Some(port) => port.as_u16(),
            // A colon is there, and what follows is no port.
            None if authority.as_str() != host => {
                return Err("its port is no number from 0 to 65535".into());
            }
            None => PORT_DEFAULT,
        };
        Ok(Address {
            authority: authority.to_string(),
            path: uri.path().to_owned(),
            query: uri.query().unwrap_or_default().to_owned(),
            host_and_port: format!("{host}:{port}"),
        })
    }

    /// Connects to the first of the host's addresses that answers, waiting for each at most
    /// `timeout`.
    ///
    /// # Errors
    /// What the last of them said.
    pub fn connect(&self, timeout: Duration) -> io::Result<TcpStream> {
        let mut result = Err(io::Error::new(io::ErrorKind::NotFound, "this host has no address"));
        for address in self.host_and_port.to_socket_addrs()? {
            result = TcpStream::connect_timeout(&address, timeout);
            if result.is_ok() {
                break;
            }
        }
        result
    }
}

/// Returns the address under which this machine reaches a listener on `address`.
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let loopback: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(loopback);
    }
    address
}
