//! Which path is answered by what.
//!
//! A connection carries one request. It ends with a response, unless it asks for the chat: then the
//! reader thread goes on in [`client::serve_ws`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::Sender;
use log::{Level, debug, info};
use tungstenite::http::header::{HOST, ORIGIN};
use tungstenite::http::{Method, StatusCode};

use super::admission::{NoPlace, Place};
use super::request::{self, Request};
use super::response::{self, Response, unavailable};
use super::{origin, page, proxy, upgrade};
use crate::chat::client::{self, Shared};
use crate::chat::connection::Connection;
use crate::chat::inbox::{self, Timed};
use crate::config::Config;
use crate::protocol::refusal::Refusal;
use crate::system::logging;
use crate::system::metrics::METRICS;

/// Replies to the one request of a connection, and serves the chat if that is what it asks for.
pub fn serve(connection: &Arc<Connection>, place: &Place, shared: &Shared) {
    let Some((request, leftover)) = reply(connection, place, shared) else { return };
    let mut upgrade = match upgrade::upgrade(request, leftover) {
        Ok(upgrade) => upgrade,
        Err(response) => return respond(connection, *response, false, shared),
    };
    match place.become_client() {
        Ok(burst) => upgrade.shared_burst = burst,
        // The client sees the end of the stream.
        Err(NoPlace::Cut) => return,
        Err(reason) => return respond(connection, reason.response(), false, shared),
    }
    // Stored before `stopping` is read again, and a stop sets `stopping` before it reads this. So
    // either the hub closes the client, or it is turned away here.
    connection.upgraded.store(true, Ordering::SeqCst);
    if shared.stopping() {
        return respond(connection, unavailable(Refusal::ServerStopping), false, shared);
    }
    if let Err(error) = client::serve_ws(connection, upgrade, shared) {
        logging::warn_of_failure("no thread to write to a client", &error);
        respond(connection, unavailable(Refusal::NoThread), false, shared);
    }
}

/// Replies to the request and returns `None`, or returns a request for the chat.
///
/// Not inlined, like `upgrade`, so that its stack is free again for what follows. A page of the
/// stack, once touched, stays with the client for days.
#[inline(never)]
fn reply(
    connection: &Connection,
    place: &Place,
    shared: &Shared,
) -> Option<(Box<Request>, Vec<u8>)> {
    let head = request::read_head(&connection.stream, shared.config.handshake_timeout);
    if place.begin_reply().is_err() {
        // Whoever cut this connection has told the log and the client.
        return None;
    }
    let response = match head {
        Ok((request, leftover)) => {
            let head_only = request.method() == Method::HEAD;
            match route(connection, place, &request, shared) {
                Route::Chat => return Some((request, leftover)),
                Route::Response(response) => {
                    respond(connection, response, head_only, shared);
                    return None;
                }
            }
        }
        Err(_) if shared.stopping() => unavailable(Refusal::ServerStopping),
        Err(error) => match error.response() {
            Some(response) => response,
            None => {
                let Connection { id, .. } = connection;
                debug!("connection {id} from {} closed without a request", connection.address());
                return None;
            }
        },
    };
    respond(connection, response, false, shared);
    None
}

/// What a request leads to.
enum Route {
    /// To an upgrade. The chat goes on from there.
    Chat,
    /// To this response, which ends the connection.
    Response(Response),
}

fn route(connection: &Connection, place: &Place, request: &Request, shared: &Shared) -> Route {
    let config = &shared.config;
    if let Err(reason) = identify(connection, place, request, config) {
        return Route::Response(reason.response());
    }
    Route::Response(match (request.uri().path(), request.method()) {
        _ if shared.stopping() => unavailable(Refusal::ServerStopping),
        ("/ws", &Method::GET) if origin::is_allowed(request.headers(), &config.allow_origin) => {
            return Route::Chat;
        }
        ("/ws", &Method::GET) => {
            log_origin(connection, request);
            response::text(StatusCode::FORBIDDEN, "pages of this origin may not chat here")
        }
        ("/ws", _) => response::not_allowed("GET"),
        ("/healthz", &Method::GET | &Method::HEAD) => health(&shared.inbox),
        ("/healthz", _) => response::not_allowed("GET, HEAD"),
        (path, method) => match page::find(path) {
            Some(asset) if matches!(*method, Method::GET | Method::HEAD) => {
                asset.response(request.headers())
            }
            Some(_) => response::not_allowed("GET, HEAD"),
            None => response::text(StatusCode::NOT_FOUND, "nothing here; the chat is at /"),
        },
    })
}

/// Finds the client for which a trusted proxy asks, and counts it. Others were counted when they
/// were accepted.
fn identify(
    connection: &Connection,
    place: &Place,
    request: &Request,
    config: &Config,
) -> Result<(), NoPlace> {
    let peer = connection.peer.ip();
    if !proxy::is_trusted(peer, &config.trusted_proxy) {
        return Ok(());
    }
    let caller = proxy::caller_behind(peer, request.headers(), &config.trusted_proxy);
    let _ = connection.forwarded.set(caller.address);
    if caller.counted { place.count(caller.address) } else { Ok(()) }
}

/// Logs what an operator needs to decide whether the page is one of theirs.
fn log_origin(connection: &Connection, request: &Request) {
    let quoted = |name| {
        request.headers().get_all(name).iter().map(request::quoted).collect::<Vec<_>>().join(", ")
    };
    if let Some(more) = logging::due(Level::Info, "origin") {
        info!(
            "connection {} from {} has the origin {} and the host {}; \
             if that page may chat here, --allow-origin says so{more}",
            connection.id,
            connection.address(),
            quoted(ORIGIN),
            quoted(HOST),
        );
    }
}

/// Sends a response, which ends the connection. Logs it at `info` if it is a refusal.
fn respond(connection: &Connection, response: Response, head_only: bool, shared: &Shared) {
    let Connection { id, stream, .. } = connection;
    let address = connection.address();
    METRICS.count_response(&response);
    match Refusal::of(&response) {
        None => debug!("connection {id} from {address}: {}", response.status()),
        Some(refusal) => {
            if let Some(more) = logging::due(Level::Info, refusal.name()) {
                let line = response::line(&response);
                info!("connection {id} from {address} refused: {refusal}: {line}{more}");
            }
        }
    }
    let bytes = response::to_bytes(response, head_only);
    if let Err(error) = response::send(stream, &bytes, shared.config.write_timeout) {
        debug!("connection {id} from {address} gone before its response: {error}");
    }
}

/// Builds `200` if the hub replies in time, else `503`.
pub fn health(inbox: &Sender<Timed>) -> Response {
    if inbox::hub_replies(inbox) {
        response::text(StatusCode::OK, "ok")
    } else {
        unavailable(Refusal::HubSilent)
    }
}
