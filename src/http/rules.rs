//! The rules for a request beyond its syntax (RFC 9112, 3.2 and 6).

use tungstenite::http::header::{CONTENT_LENGTH, HOST, HeaderName, TRANSFER_ENCODING};
use tungstenite::http::{Method, Request, Uri, Version};

use super::request_line::quoted;
use crate::config::normal_host;

/// The methods that HTTP itself defines (RFC 9110, 9.3, and PATCH), except `CONNECT`, which is for
/// proxies.
const KNOWN_METHODS: [Method; 8] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];

/// Checks a request whose target was `target`.
///
/// # Errors
/// Says which rule it breaks.
pub fn check(target: &str, request: &Request<()>) -> Result<(), String> {
    check_target(target, request.method(), request.uri())?;
    check_host(request)?;
    check_framing(request)
}

/// Checks that the target has a form that goes with the method (RFC 9112, 3.2).
fn check_target(target: &str, method: &Method, uri: &Uri) -> Result<(), String> {
    let valid = match (uri.scheme_str(), uri.authority()) {
        (None, None) => target.starts_with('/') || (target == "*" && *method == Method::OPTIONS),
        (None, Some(_)) => *method == Method::CONNECT,
        (Some(scheme), Some(host)) => {
            scheme.eq_ignore_ascii_case("http") && host_name(host.as_str()).is_some()
        }
        (Some(_), None) => false,
    };
    if valid && !target.contains('#') {
        Ok(())
    } else {
        Err("its target is neither a path nor an http:// address".into())
    }
}

/// Checks that a request names its host, and once (RFC 9112, 3.2).
fn check_host(request: &Request<()>) -> Result<(), String> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    if another.is_some() || (host.is_none() && request.version() == Version::HTTP_11) {
        return Err("it needs exactly one Host header".into());
    }
    match host {
        // An empty one names no host.
        Some(host) if !host.is_empty() && host.to_str().ok().and_then(host_name).is_none() => {
            Err(format!("the Host header is not a host: {}", quoted(host.as_bytes())))
        }
        _ => Ok(()),
    }
}

/// Checks that a proxy in front can't take another place for the end of the request (RFC 9112, 6.1
/// and 6.3). Nothing here reads that far.
fn check_framing(request: &Request<()>) -> Result<(), String> {
    let items = |name: HeaderName| {
        let lists = request.headers().get_all(name).iter();
        lists.flat_map(|list| list.as_bytes().split(|&byte| byte == b',')).map(<[u8]>::trim_ascii)
    };
    let lengths: Vec<&[u8]> = items(CONTENT_LENGTH).collect();
    let is_number = |item: &&[u8]| !item.is_empty() && item.iter().all(u8::is_ascii_digit);
    if !lengths.iter().all(is_number) || lengths.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err("its Content-Length is not one number".into());
    }
    let Some(coding) = items(TRANSFER_ENCODING).next_back() else { return Ok(()) };
    let alone = lengths.is_empty() && request.version() == Version::HTTP_11;
    if alone && coding.eq_ignore_ascii_case(b"chunked") {
        Ok(())
    } else {
        Err("its Transfer-Encoding does not tell where it ends".into())
    }
}

/// True for a method that a path takes or does not allow, false for one that no path knows.
pub fn is_known(method: &Method) -> bool {
    KNOWN_METHODS.contains(method)
}

/// Returns the name in a `Host` header, without the port. `None` if it is not a host (RFC 9110,
/// 7.2).
pub fn host_name(field: &str) -> Option<String> {
    let (host, port) = match field.rsplit_once(':') {
        // A colon within brackets is part of an IPv6 address.
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (field, ""),
    };
    normal_host(host).filter(|_| port.bytes().all(|byte| byte.is_ascii_digit()))
}
