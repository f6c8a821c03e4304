//! The client behind a trusted proxy. Elsewhere the client is the peer itself.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use tungstenite::http::HeaderMap;

/// The header to which each proxy appends the address of its own peer.
pub const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The client for which a trusted proxy asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its address, as far as it is known.
    pub address: IpAddr,
    /// True if it counts against `--max-connections-per-ip`.
    pub counted: bool,
}

/// True if `address` is a proxy named by `--trusted-proxy`.
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// True if connections from `address` are counted. Those from loopback are not, which are this
/// host's own, nor those of trusted proxies, which carry many clients.
pub fn is_counted(address: IpAddr, trusted: &[IpNet]) -> bool {
    !address.is_loopback() && !is_trusted(address, trusted)
}

/// Finds the caller behind the trusted proxy `peer`: the right-most address of `X-Forwarded-For`
/// that is not a trusted proxy's. What is to the left of it may be the client's own invention.
///
/// If all are trusted, or there are none, the caller is the farthest proxy, which asks for itself.
/// An entry that is not an address ends the search at the proxy that passed it on, and that one is
/// counted. Otherwise nonsense would be a way around the limit, behind a proxy that passes on what
/// clients send.
pub fn caller_behind(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Caller {
    let mut nearest = peer;
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let entries =
        lines.flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b',')).map(<[u8]>::trim_ascii);
    // Empty items of a list are ignored (RFC 9110, 5.6.1).
    for entry in entries.filter(|entry| !entry.is_empty()) {
        match parse_entry(entry) {
            Some(address) if is_trusted(address, trusted) => nearest = address,
            Some(address) => return Caller { address, counted: is_counted(address, trusted) },
            None => return Caller { address: nearest, counted: true },
        }
    }
    Caller { address: nearest, counted: false }
}

/// Parses an address, with or without the port that some proxies add, IPv6 with or without
/// brackets.
fn parse_entry(entry: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(entry).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare
        .parse()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))?;
    Some(address.to_canonical())
}
