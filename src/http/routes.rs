//! Which path is answered by what.
//!
//! A connection carries one request. It ends with a response, unless it asks for the chat: then the
//! reader thread goes on in [`client::serve_ws`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::Sender;
use log::{Level, debug, info};
use tungstenite::http::{Method, StatusCode};

use super::admission::{NoPlace, Place};
use super::page::{self, Asset};
use super::request::{self, BadHead, Request};
use super::request_line::RequestLine;
use super::response::{self, Response, unavailable};
use super::{host, origin, proxy, rules, upgrade};
use crate::chat::client::{self, Shared, Upgrade};
use crate::chat::connection::Connection;
use crate::chat::inbox::{self, Timed};
use crate::config::Config;
use crate::protocol::refusal::Refusal;
use crate::system::logging;
use crate::system::metrics::METRICS;

/// Replies to the one request of a connection, and serves the chat if that is what it asks for.
pub fn serve(connection: &Arc<Connection>, place: &Place, shared: &Shared) {
    let Some(upgrade) = take_upgrade(connection, place, shared) else { return };
    if let Err(error) = client::serve_ws(connection, upgrade, shared) {
        logging::warn_of_failure("no thread to write to a client", &error);
        let response = || unavailable(Refusal::NoThread);
        refuse::<()>(connection, response, &RequestLine::for_chat(), shared);
    }
}

/// Replies to the request and returns `None`, or returns the upgrade that makes the connection a
/// client.
///
/// Not inlined, like `upgrade` and `refuse`, so that its stack is free again for what follows. A
/// page of the stack, once touched, stays with the client for days.
#[inline(never)]
fn take_upgrade(connection: &Connection, place: &Place, shared: &Shared) -> Option<Upgrade> {
    let (request, leftover) = reply(connection, place, shared)?;
    let line = RequestLine::of(&request);
    let mut upgrade = match upgrade::upgrade(request, leftover) {
        Ok(upgrade) => upgrade,
        Err(response) => return refuse(connection, || *response, &line, shared),
    };
    match place.become_client() {
        Ok(burst) => upgrade.shared_burst = burst,
        // The client sees the end of the stream.
        Err(NoPlace::Cut) => return None,
        Err(reason) => return refuse(connection, || reason.response(), &line, shared),
    }
    // Stored before `stopping` is read again, and a stop sets `stopping` before it reads this. So
    // either the hub closes the client, or it is turned away here.
    connection.upgraded.store(true, Ordering::SeqCst);
    if shared.stopping() {
        return refuse(connection, || unavailable(Refusal::ServerStopping), &line, shared);
    }
    Some(upgrade)
}

/// Sends a response in place of an upgrade.
#[inline(never)]
fn refuse<T>(
    connection: &Connection,
    response: impl FnOnce() -> Response,
    line: &RequestLine,
    shared: &Shared,
) -> Option<T> {
    respond(connection, response(), line, shared);
    None
}

/// Replies to the request and returns `None`, or returns a request for the chat.
///
/// Not inlined, nor are the two that reply: their stacks and that of reading the head don't add up.
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
    match head {
        Ok((request, leftover)) => {
            wants_chat(connection, place, &request, shared).then_some((request, leftover))
        }
        Err(bad) => {
            reply_to_bad_head(connection, &bad, shared);
            None
        }
    }
}

#[inline(never)]
fn reply_to_bad_head(connection: &Connection, bad: &BadHead, shared: &Shared) {
    let response = if shared.stopping() {
        Some(unavailable(Refusal::ServerStopping))
    } else {
        bad.error.response()
    };
    match response {
        Some(response) => respond(connection, response, &bad.line, shared),
        None => {
            let Connection { id, .. } = connection;
            debug!("connection {id} from {} closed without a request", connection.address());
        }
    }
}

/// Returns true for a request for the chat. Replies to every other one.
#[inline(never)]
fn wants_chat(connection: &Connection, place: &Place, request: &Request, shared: &Shared) -> bool {
    match route(connection, place, request, shared) {
        Route::Chat => true,
        Route::Response(response) => {
            respond(connection, response, &RequestLine::of(request), shared);
            false
        }
    }
}

/// What a request leads to.
enum Route {
    /// To an upgrade. The chat goes on from there.
    Chat,
    /// To this response, which ends the connection.
    Response(Response),
}

fn route(connection: &Connection, place: &Place, request: &Request, shared: &Shared) -> Route {
    let Shared { config, hosts, .. } = shared;
    let headers = request.headers();
    if !host::is_served(connection.peer.ip(), headers, hosts, &config.trusted_proxy) {
        return Route::Response(host::misdirected(headers));
    }
    if let Err(reason) = identify(connection, place, request, config) {
        return Route::Response(reason.response());
    }
    let method = request.method();
    Route::Response(match (Resource::find(request), method) {
        _ if shared.stopping() => unavailable(Refusal::ServerStopping),
        _ if !rules::is_known(method) => response::unknown_method(),
        (Some(resource), &Method::OPTIONS) => response::options(resource.methods()),
        (Some(Resource::Chat), &Method::GET)
            if origin::is_allowed(headers, &config.allow_origin) =>
        {
            return Route::Chat;
        }
        (Some(Resource::Chat), &Method::GET) => origin::forbidden(headers),
        (Some(Resource::Health), &Method::GET | &Method::HEAD) => health(&shared.inbox),
        (Some(Resource::Page(asset)), &Method::GET | &Method::HEAD) => asset.response(headers),
        (Some(resource), _) => response::not_allowed(resource.methods()),
        (None, _) if upgrade::is_wanted(headers) => nothing_here("the chat is at /ws"),
        (None, _) => nothing_here("the chat is at /"),
    })
}

/// What is at a path.
enum Resource {
    Chat,
    Health,
    Page(&'static Asset),
    /// The server as a whole, about which `OPTIONS *` asks.
    Server,
}

impl Resource {
    fn find(request: &Request) -> Option<Resource> {
        match request.uri().path() {
            "/ws" => Some(Resource::Chat),
            // The address of the page is also that of the chat, for all who ask for an upgrade.
            "/" if upgrade::is_wanted(request.headers()) => Some(Resource::Chat),
            "/healthz" => Some(Resource::Health),
            "*" => Some(Resource::Server),
            path => page::find(path).map(Resource::Page),
        }
    }

    /// The methods that it takes, for `Allow`.
    fn methods(&self) -> &'static str {
        match self {
            Resource::Chat => "GET, OPTIONS",
            Resource::Health | Resource::Page(_) | Resource::Server => "GET, HEAD, OPTIONS",
        }
    }
}

fn nothing_here(hint: &str) -> Response {
    response::text(StatusCode::NOT_FOUND, format!("nothing here; {hint}"))
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

/// Sends a response, which ends the connection. Logs it at `info` if it is a refusal.
fn respond(connection: &Connection, response: Response, line: &RequestLine, shared: &Shared) {
    let Connection { id, stream, .. } = connection;
    let address = connection.address();
    METRICS.count_response(&response);
    match Refusal::of(&response) {
        None => debug!("connection {id} from {address}: {} ({line})", response.status().as_str()),
        Some(refusal) => {
            if let Some(more) = logging::due(Level::Info, refusal.name()) {
                let reason = response::reason(&response);
                info!("connection {id} from {address} refused: {refusal} ({line}): {reason}{more}");
            }
        }
    }
    let bytes = response::to_bytes(response, line.is_head);
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
