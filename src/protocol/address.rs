//! Addresses: where a server is as people write it, and how to connect to it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use tungstenite::http::Uri;

/// Port of an `http` or `ws` address that names none.
const PORT_DEFAULT: u16 = 80;

/// The parts of a `ws://` or `http://` address. Both schemes lead to the same chat, so a chat can
/// be named by the address of its page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Host and port as they were written; without a port if none was.
    pub authority: String,
    /// The path; `/` if none was written.
    pub path: String,
    /// Everything after the `?`.
    pub query: String,
    host_and_port: String,
}

impl Address {
    /// Parses an address, or a host and port without a scheme.
    ///
    /// # Errors
    /// Says what is wrong with it. For an address with TLS, says what to use instead.
    pub fn parse(text: &str) -> Result<Address, String> {
        let uri: Uri = format!("ws://{}", without_scheme(text)?)
            .parse()
            .map_err(|error| format!("{error}"))?;
        let (Some(authority), Some(host)) =
            (uri.authority(), uri.host().filter(|host| !host.is_empty()))
        else {
            return Err("it names no host".into());
        };
        if authority.as_str().contains('@') {
            return Err("it must not contain a user or a password".into());
        }
        let port = match uri.port() {
            Some(port) => port.as_u16(),
            // There is a colon, but no valid port behind it.
            None if authority.as_str() != host => {
                return Err("its port is not a number from 0 to 65535".into());
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

    /// Connects to the first of the host's addresses that accepts. `timeout` applies to each.
    ///
    /// # Errors
    /// Returns the error of the address tried last.
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

/// Returns what follows the scheme of an address, which may have none.
fn without_scheme(text: &str) -> Result<&str, String> {
    let Some((scheme, rest)) = text.split_once("://") else { return Ok(text) };
    match scheme.to_ascii_lowercase().as_str() {
        "ws" | "http" => Ok(rest),
        "wss" | "https" => Err(format!(
            "{scheme}:// needs TLS, which this client does not support; \
             use ws://127.0.0.1:8080 on the server's machine, \
             elsewhere a tunnel: ssh -L 8080:127.0.0.1:8080 HOST"
        )),
        _ => Err("an address begins with ws:// or http://".into()),
    }
}

/// Returns the address at which this machine reaches a server that listens on `listen`: loopback
/// if that stands for all addresses, as `0.0.0.0` and `[::]` do.
pub fn reachable(mut listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        listen.set_ip(if listen.is_ipv4() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        });
    }
    listen
}
