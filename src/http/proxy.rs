//! Who is at the other end: the peer itself, or, where the peer is a proxy named by `--trusted-proxy`, the client for which
//! it speaks.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use tungstenite::http::HeaderMap;

/// The header in which each proxy adds the address that it was spoken to from, at the right.
pub const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// Who is behind a trusted proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address, as well as it is known.
    pub address: IpAddr,
    /// Whether it counts against `--max-connections-per-ip`.
    pub counted: bool,
}

/// Whether `address` is a proxy whose word counts.
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// Whether connections from `address` count: this host's own, and those of trusted proxies, which are many clients, don't.
pub fn is_counted(address: IpAddr, trusted: &[IpNet]) -> bool {
    !address.is_loopback() && !is_trusted(address, trusted)
}

/// The client for which the trusted proxy `peer` speaks: the right-most address of `X-Forwarded-For` that is not a trusted
/// proxy's. What stands to the left of it may be the client's own invention.
///
/// Where all are trusted, or there are none, it is the proxy farthest away, which asks for itself. An entry that is no
/// address ends the walk at the proxy that passed it on, and that one is counted: otherwise nonsense would be a way round
/// the limit, behind a proxy that hands on what clients say.
pub fn client_behind(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Client {
    let mut nearest = peer;
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let entries =
        lines.flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b',')).map(<[u8]>::trim_ascii);
    // Empty items of a list are to be ignored (RFC 9110, 5.6.1).
    for entry in entries.filter(|entry| !entry.is_empty()) {
        match parse_entry(entry) {
            Some(address) if is_trusted(address, trusted) => nearest = address,
            Some(address) => return Client { address, counted: is_counted(address, trusted) },
            None => return Client { address: nearest, counted: true },
        }
    }
    Client { address: nearest, counted: false }
}

/// An address, with or without the port that some proxies add, IPv6 with or without brackets.
fn parse_entry(entry: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(entry).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare
        .parse()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))?;
    Some(address.to_canonical())
}
