//! Which pages may open a chat.
//!
//! A browser lets every page connect to every WebSocket server, and only says whose page it is, in
//! `Origin`. Without this check any page could chat in the name of its reader (RFC 6455, 10.2).

use tungstenite::http::header::{HOST, ORIGIN};
use tungstenite::http::{HeaderMap, StatusCode};

use super::request_line::quoted;
use super::response::{self, Response};
use crate::config::{AllowedOrigin, NULL_ORIGIN, normal_origin};

/// True if a request with these headers may open a chat: it does not come from a browser, or it
/// comes from our own page or an allowed one.
pub fn is_allowed(headers: &HeaderMap, allowed: &[AllowedOrigin]) -> bool {
    let mut origins = headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else { return true };
    if allowed.contains(&AllowedOrigin::Any) {
        return true;
    }
    // No browser sends two, and no rule says which would count.
    if origins.next().is_some() {
        return false;
    }
    let Ok(origin) = origin.to_str() else { return false };
    let Some(origin) = normal_origin(origin) else {
        return origin == NULL_ORIGIN
            && allowed.contains(&AllowedOrigin::Only(NULL_ORIGIN.to_owned()));
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    host.is_some_and(|host| is_same(&origin, host))
        || allowed.contains(&AllowedOrigin::Only(origin))
}

/// Builds the `403` to a request that [`is_allowed`] rejects. The log gets what an operator needs
/// to decide whether the page is one of theirs.
pub fn forbidden(headers: &HeaderMap) -> Response {
    let values = |name| {
        let values = headers.get_all(name).iter().map(|value| quoted(value.as_bytes()));
        values.collect::<Vec<_>>().join(", ")
    };
    let reason = format!(
        "a page has the origin {} and the host {}; if that page may chat here, --allow-origin says \
         so",
        values(ORIGIN),
        values(HOST),
    );
    let line = "pages of this origin may not chat here";
    response::logged_as(response::text(StatusCode::FORBIDDEN, line), reason)
}

/// True if a page of this origin was loaded from `host`.
///
/// A host without a port has the default port of the origin's scheme: a proxy that speaks TLS for
/// us is asked by `https`, and asks us by `http`.
fn is_same(origin: &str, host: &str) -> bool {
    let scheme = origin.split_once("://").map_or("", |(scheme, _)| scheme);
    matches!(scheme, "http" | "https")
        && normal_origin(&format!("{scheme}://{host}")).as_deref() == Some(origin)
}
