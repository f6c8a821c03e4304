//! Addresses as people write them: where a server listens, and how to reach one.
//!
//! A text has the same meaning for `--listen`, `parlour healthcheck` and `parlour chat`:
//!
//! | text | meaning |
//! | --- | --- |
//! | `127.0.0.1:8080`, `chat.example:8080`, `[::1]:8080` | a host and a port |
//! | `::1:8080` | `[::1]:8080`, since the port stands behind the last colon |
//! | `[fe80::1%eth0]:8080` | a link-local address, with the name or number of its interface |
//! | `:8080`, `[::]:8080`, `:::8080` | all addresses of this machine, IPv6 and IPv4 |
//! | `0.0.0.0:8080` | all IPv4 addresses of this machine |
//! | `8080` | port 8080 of `127.0.0.1` |
//! | `localhost`, `[::1]` | port 8080 of that host |
//! | `http://chat.example/?room=rust` | port 80, as in a browser; a server can't listen on it |

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream, ToSocketAddrs};
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use tungstenite::http::uri::PathAndQuery;

/// Port of an address that names none.
pub const PORT_DEFAULT: u16 = 8080;
/// Port of an address with a scheme that names none.
const HTTP_PORT: u16 = 80;
/// The same for a scheme with TLS.
const HTTPS_PORT: u16 = 443;

/// The parts of an address. The schemes `ws` and `http` lead to the same chat, so a chat can be
/// named by the address of its page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Host and port as a `Host` header names them, which is without an interface.
    pub authority: String,
    /// The path; `/` if none was written.
    pub path: String,
    /// Everything after the `?`.
    pub query: String,
    /// The port. To listen on 0 is to listen on any free one.
    pub port: u16,
    host: Host,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    /// All addresses of this machine.
    All,
    /// An IPv6 address, and the interface on whose link it is valid.
    V6(Ipv6Addr, Option<String>),
    /// A name or an IPv4 address.
    Name(String),
}

impl Address {
    /// Parses the address of a server to connect to.
    ///
    /// # Errors
    /// Says what is wrong with it. For an address with TLS, says what to use instead.
    pub fn parse(text: &str) -> Result<Address, String> {
        let (scheme, rest) = split_scheme(text);
        let address = match scheme.as_deref() {
            None => without_scheme(rest)?,
            Some("ws" | "http") => with_scheme(rest, HTTP_PORT)?,
            Some(scheme @ ("wss" | "https")) => {
                return Err(format!(
                    "{scheme}:// needs TLS, which this client does not support; \
                     use ws://127.0.0.1:8080 on the server's machine, \
                     elsewhere a tunnel: ssh -L 8080:127.0.0.1:8080 HOST"
                ));
            }
            Some(_) => return Err("an address begins with ws:// or http://".into()),
        };
        if address.port == 0 {
            return Err("port 0 stands for any free one; the server's log names the port".into());
        }
        Ok(address)
    }

    /// Parses the address that a server listens on.
    ///
    /// # Errors
    /// Says what is wrong with it. If it is an address for a browser, says what to write instead.
    pub fn parse_listen(text: &str) -> Result<Address, String> {
        let (scheme, rest) = split_scheme(text);
        let (address, why) = match scheme.as_deref() {
            None => (without_scheme(rest)?, ""),
            Some("wss" | "https") => (
                with_scheme(rest, HTTPS_PORT)?,
                ", and put a proxy in front of it, since parlour itself has no TLS",
            ),
            Some(_) => (with_scheme(rest, HTTP_PORT)?, ""),
        };
        if scheme.is_some() || address.path != "/" || !address.query.is_empty() {
            let right = address.with_port(address.port);
            return Err(format!("a server listens on a host and a port; write {right}{why}"));
        }
        Ok(address)
    }

    /// Returns the same host with `port`, as a text that can be parsed again.
    pub fn with_port(&self, port: u16) -> String {
        match &self.host {
            Host::All => format!("[::]:{port}"),
            Host::V6(ip, None) => format!("[{ip}]:{port}"),
            Host::V6(ip, Some(interface)) => format!("[{ip}%{interface}]:{port}"),
            Host::Name(name) => format!("{name}:{port}"),
        }
    }

    /// Looks up the addresses to listen on. The first that this machine has is the right one.
    ///
    /// # Errors
    /// Returns the resolver's error, or that there is no such interface.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match &self.host {
            // IPv4 alone only where there is no IPv6.
            Host::All => Ok(vec![
                (Ipv6Addr::UNSPECIFIED, self.port).into(),
                (Ipv4Addr::UNSPECIFIED, self.port).into(),
            ]),
            Host::V6(ip, interface) => {
                let scope = interface.as_deref().map(interface_number).transpose()?;
                Ok(vec![SocketAddrV6::new(*ip, self.port, 0, scope.unwrap_or_default()).into()])
            }
            Host::Name(name) => Ok((name.as_str(), self.port).to_socket_addrs()?.collect()),
        }
    }

    /// Connects to the first of the host's addresses that accepts. `timeout` applies to each.
    ///
    /// # Errors
    /// Returns the error of the address tried last.
    pub fn connect(&self, timeout: Duration) -> io::Result<TcpStream> {
        let mut result = Err(io::Error::new(io::ErrorKind::NotFound, "this host has no address"));
        for address in self.resolve()? {
            result = TcpStream::connect_timeout(&reachable(address), timeout);
            if result.is_ok() {
                break;
            }
        }
        result
    }
}

/// Splits off the scheme, in lower case. Spaces around an address mean nothing.
fn split_scheme(text: &str) -> (Option<String>, &str) {
    match text.trim().split_once("://") {
        Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
        None => (None, text.trim()),
    }
}

/// Parses an address without a scheme, in which all but the port or the host may be missing.
fn without_scheme(text: &str) -> Result<Address, String> {
    let (authority, rest) = split_authority(text);
    let (host, port) = match authority.strip_prefix(':') {
        Some(port) if is_number(port) => (Host::All, Some(port)),
        _ if is_number(authority) => (Host::Name(Ipv4Addr::LOCALHOST.to_string()), Some(authority)),
        _ => host_and_port(authority)?,
    };
    let port = port.map_or(Ok(PORT_DEFAULT), parse_port)?;
    address(host, port, true, rest)
}

/// Parses what follows the scheme of an address. `port` is the scheme's.
fn with_scheme(text: &str, port: u16) -> Result<Address, String> {
    let (authority, rest) = split_authority(text);
    let (host, written) = host_and_port(authority)?;
    let host = match host {
        // In an address with a scheme, %25 stands for the % (RFC 6874).
        Host::V6(ip, Some(interface)) => match interface.strip_prefix("25") {
            Some(decoded) if !decoded.is_empty() => Host::V6(ip, Some(decoded.to_owned())),
            _ => Host::V6(ip, Some(interface)),
        },
        host => host,
    };
    let port = written.map_or(Ok(port), parse_port)?;
    address(host, port, written.is_some(), rest)
}

fn split_authority(text: &str) -> (&str, &str) {
    text.split_at(text.find(['/', '?', '#']).unwrap_or(text.len()))
}

/// Splits an authority (RFC 3986, 3.2). An IPv6 address may stand without brackets.
fn host_and_port(text: &str) -> Result<(Host, Option<&str>), String> {
    if text.contains('@') {
        return Err("it must not contain a user or a password".into());
    }
    if let Some(text) = text.strip_prefix('[') {
        let (ip, rest) = text.split_once(']').ok_or("its bracket is not closed")?;
        let host = ipv6(ip)?.ok_or("only an IPv6 address stands in brackets")?;
        return match rest.strip_prefix(':') {
            None if !rest.is_empty() => Err("a colon and a port must follow the bracket".into()),
            port => Ok((host, port)),
        };
    }
    match text.rsplit_once(':') {
        Some((ip, port)) if ip.contains(':') => match (ipv6(ip)?, ipv6(text)?) {
            (Some(host), whole) if is_number(port) || whole.is_none() => Ok((host, Some(port))),
            (_, Some(host)) => Ok((host, None)),
            _ => Err("an IPv6 address must be in brackets, like [::1]:8080".into()),
        },
        Some((name, port)) => Ok((host_name(name)?, Some(port))),
        None => Ok((host_name(text)?, None)),
    }
}

fn host_name(text: &str) -> Result<Host, String> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    match text {
        "" => Err("it names no host".into()),
        name if name.chars().all(in_name) => Ok(Host::Name(name.to_owned())),
        name => Err(format!("{name:?} can't be the name of a host")),
    }
}

/// Parses an IPv6 address, which may have an interface. `None` if it is something else.
fn ipv6(text: &str) -> Result<Option<Host>, String> {
    let (ip, interface) = match text.split_once('%') {
        Some((ip, interface)) => (ip, Some(interface).filter(|name| !name.is_empty())),
        None => (text, None),
    };
    match (ip.parse::<Ipv6Addr>(), interface) {
        (Err(_), _) => Ok(None),
        (Ok(ip), None) if ip.is_unspecified() => Ok(Some(Host::All)),
        (Ok(ip), None) if ip.is_unicast_link_local() => Err(format!(
            "{ip} exists on every link; name the interface, like [{ip}%eth0]:{PORT_DEFAULT}"
        )),
        (Ok(ip), interface) => Ok(Some(Host::V6(ip, interface.map(str::to_owned)))),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn parse_port(text: &str) -> Result<u16, String> {
    // `parse` alone would accept a plus sign.
    let port = text.parse().ok().filter(|_| is_number(text));
    port.ok_or_else(|| format!("its port must be a number from 0 to {}", u16::MAX))
}

/// Puts an address together. `with_port` is false for a port that a `Host` header leaves out;
/// `rest` is the path and the query.
fn address(host: Host, port: u16, with_port: bool, rest: &str) -> Result<Address, String> {
    let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    let rest: PathAndQuery = rest.parse().map_err(|error| format!("{error}"))?;
    let name = match &host {
        // Browsers and servers know this name for a machine's own addresses.
        Host::All => "localhost".to_owned(),
        Host::Name(name) if name.parse() == Ok(Ipv4Addr::UNSPECIFIED) => "localhost".to_owned(),
        Host::Name(name) => name.clone(),
        Host::V6(ip, _) => format!("[{ip}]"),
    };
    Ok(Address {
        authority: if with_port { format!("{name}:{port}") } else { name },
        path: rest.path().to_owned(),
        query: rest.query().unwrap_or_default().to_owned(),
        port,
        host,
    })
}

/// Returns the number of an interface of this machine, which may also be what was written.
fn interface_number(name: &str) -> io::Result<u32> {
    name.parse().or_else(|_| if_nametoindex(name)).map_err(|_| {
        io::Error::new(io::ErrorKind::AddrNotAvailable, format!("no interface {name}"))
    })
}

/// Returns the address at which this machine reaches a server that listens on `listen`: loopback
/// if that stands for all addresses.
fn reachable(mut listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        listen.set_ip(if listen.is_ipv4() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        });
    }
    listen
}
