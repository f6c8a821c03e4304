//! Which names a server answers to.
//!
//! A page may read everything of its own origin, and that is a name. Whoever owns a name can let it
//! point to 127.0.0.1 for a moment (DNS rebinding). So any page could read a server that only this
//! machine can reach, through the browser of somebody who works on it. The name gives such a page
//! away, since the browser sends it in `Host`. Therefore a server that listens on loopback alone
//! answers only to names of loopback, and to those of `--allow-host`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use tungstenite::http::header::HOST;
use tungstenite::http::{HeaderMap, StatusCode};

use super::proxy;
use super::request_line::quoted;
use super::response::{self, Response};
use super::rules::host_name;
use crate::config::{AllowedHost, normal_host};
use crate::protocol::address::Address;

/// Returns the names that a listener answers to, apart from those of loopback: `allowed`, and the
/// name by which its owner chose it, in `listen`. Or every name if other machines can reach its
/// `address`.
pub fn served_by(
    address: io::Result<SocketAddr>,
    listen: &str,
    allowed: &[AllowedHost],
) -> Vec<AllowedHost> {
    if address.is_ok_and(|address| !address.ip().to_canonical().is_loopback()) {
        return vec![AllowedHost::Any];
    }
    let own = Address::parse_listen(listen).ok().and_then(|address| {
        let host = address.authority.rsplit_once(':').map_or(&*address.authority, |(host, _)| host);
        normal_host(host).map(AllowedHost::Only)
    });
    allowed.iter().cloned().chain(own).collect()
}

/// True if a request of `peer` with these headers may be answered: it asks by a name of loopback,
/// by one of `served`, or by none, which no browser does. Or it comes from a trusted proxy.
pub fn is_served(
    peer: IpAddr,
    headers: &HeaderMap,
    served: &[AllowedHost],
    trusted: &[IpNet],
) -> bool {
    let Some(host) = headers.get(HOST).filter(|host| !host.is_empty()) else { return true };
    if served.contains(&AllowedHost::Any) || proxy::is_trusted(peer, trusted) {
        return true;
    }
    let name = host.to_str().ok().and_then(host_name);
    name.is_some_and(|name| is_loopback(&name) || served.contains(&AllowedHost::Only(name)))
}

/// Builds the `421` to a request that [`is_served`] rejects.
pub fn misdirected(headers: &HeaderMap) -> Response {
    let remedy =
        "if it is yours, --allow-host admits it; if a proxy asks, --trusted-proxy names it";
    let line = format!("this server does not answer to the name in Host; {remedy}");
    let host = headers.get(HOST).map(|host| quoted(host.as_bytes())).unwrap_or_default();
    let reason = format!("the host {host} is not a name of loopback; {remedy}");
    response::logged_as(response::text(StatusCode::MISDIRECTED_REQUEST, line), reason)
}

/// True if `name`, as [`host_name`] returns it, always means this machine.
fn is_loopback(name: &str) -> bool {
    let v6 = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
        || v6.is_some_and(|v6| {
            v6.parse().is_ok_and(|address: Ipv6Addr| address.to_canonical().is_loopback())
        })
}
