//! Which pages may open a chat here. A browser lets every page connect to every WebSocket and only says whose page it is, in
//! `Origin`; without this check any page could talk as whoever reads it (RFC 6455, 10.2).

use tungstenite::http::HeaderMap;
use tungstenite::http::header::{HOST, ORIGIN};

/// What a browser says for a page without an origin: a local file, a sandboxed frame.
const NULL: &str = "null";

/// A value of `--allow-origin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// `*`
    Any,
    /// This one, in lower case and without a default port, or `null`.
    Only(String),
}

impl Allowed {
    /// Takes `*`, `null`, or an origin as a browser sends it.
    ///
    /// # Errors
    /// Says how to write it.
    pub fn parse(text: &str) -> Result<Allowed, String> {
        match text {
            "*" => Ok(Allowed::Any),
            NULL => Ok(Allowed::Only(NULL.to_owned())),
            text => normal(text).map(Allowed::Only).ok_or_else(|| {
                "write it like https://chat.example, with its port, without a path".into()
            }),
        }
    }
}

/// Whether a request of these headers may open a chat: it comes from no browser, from our own page, or from a page that is
/// allowed.
pub fn is_allowed(headers: &HeaderMap, allowed: &[Allowed]) -> bool {
    let mut origins = headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else { return true };
    if allowed.contains(&Allowed::Any) {
        return true;
    }
    // No browser sends two, and no rule says which one would count.
    if origins.next().is_some() {
        return false;
    }
    let Ok(origin) = origin.to_str() else { return false };
    let Some(origin) = normal(origin) else {
        return origin == NULL && allowed.contains(&Allowed::Only(NULL.to_owned()));
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    host.is_some_and(|host| is_same(&origin, host)) || allowed.contains(&Allowed::Only(origin))
}

/// Whether a page of this origin was loaded from `host`. A host without a port has the default one of the origin's scheme:
/// a proxy that speaks TLS for us is asked by `https`, and asks us by `http`.
fn is_same(origin: &str, host: &str) -> bool {
    let scheme = origin.split_once("://").map_or("", |(scheme, _)| scheme);
    matches!(scheme, "http" | "https")
        && normal(&format!("{scheme}://{host}")).as_deref() == Some(origin)
}

/// Scheme, host and port in lower case, without a port that is the scheme's default. `None` if it is no origin.
fn normal(origin: &str) -> Option<String> {
    let origin = origin.to_ascii_lowercase();
    let (scheme, rest) = origin.split_once("://")?;
    let (host, port) = match rest.rsplit_once(':') {
        // A colon within brackets is part of an IPv6 address.
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (rest, ""),
    };
    let in_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let in_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~[]:".contains(&byte);
    let valid = !scheme.is_empty()
        && scheme.bytes().all(in_scheme)
        && !host.is_empty()
        && host.bytes().all(in_host)
        && port.bytes().all(|byte| byte.is_ascii_digit());
    let default = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    let port: Option<u16> = if port.is_empty() { None } else { Some(port.parse().ok()?) };
    match port.filter(|_| port != default) {
        _ if !valid => None,
        Some(port) => Some(format!("{scheme}://{host}:{port}")),
        None => Some(format!("{scheme}://{host}")),
    }
}
