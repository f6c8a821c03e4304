//! Which path is answered by what.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use log::{debug, info};
use percent_encoding::percent_decode_str;
use tungstenite::error::{Error, ProtocolError};
use tungstenite::handshake::server::{create_response, write_response};
use tungstenite::http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, ORIGIN, RETRY_AFTER, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use tungstenite::http::{Method, StatusCode};

use crate::chat::client::{self, Connection, Upgrade};
use crate::chat::hub::{Event, Joining, Nickname, Posted};
use crate::chat::room::Resume;
use crate::config::Config;
use crate::http::admission::Refused;
use crate::http::origin;
use crate::http::page;
use crate::http::proxy;
use crate::http::{self, Request, Response};
use crate::protocol::message::{self, CloseReason};
use crate::protocol::refusal::Refusal;
use crate::protocol::session::Session;
use crate::server::Shared;
use crate::system::logging;
use crate::system::metrics::METRICS;

/// How long the hub has to answer whoever asks after its health.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);
/// Why a server turns a client away.
pub const STOPPING: Refusal = Refusal::ServerStopping;
/// Why a server turns a client away.
pub const FULL: Refusal = Refusal::ServerFull;
/// `Retry-After` of a refusal that may be another answer later.
const RETRY_AFTER_SECONDS: &str = "5";

/// Answers the one request of a connection, and serves the chat if that is what it asks for.
pub fn serve(connection: &Arc<Connection>, shared: &Shared) {
    let Some((request, leftover)) = answer(connection, shared) else { return };
    let upgrade = match upgrade(request, leftover) {
        Ok(upgrade) => upgrade,
        Err(response) => return refuse(connection, *response, false, shared),
    };
    match connection.place.become_client() {
        Ok(()) => {}
        // It sees the end of the stream.
        Err(Refused::Cut) => return,
        Err(refused) => return refuse(connection, no_place(refused), false, shared),
    }
    // Stored before `stopping` is asked again, while a stop is told before this is looked at: either way the hub closes
    // the client, or it is turned away here.
    connection.upgraded.store(true, Ordering::SeqCst);
    if shared.stopping() {
        return refuse(connection, unavailable(STOPPING), false, shared);
    }
    if let Err(error) = client::serve_ws(connection, upgrade, shared) {
        logging::warn_of_failure("no thread to write to a client", &error);
        refuse(connection, unavailable(FULL), false, shared);
    }
}

/// Answers the request, unless it is one for the chat.
///
/// Not inlined, like `upgrade`, so that its stack is free again for what follows: a page of it once touched stays with the
/// client for days.
#[inline(never)]
fn answer(connection: &Connection, shared: &Shared) -> Option<(Box<Request>, Vec<u8>)> {
    let Shared { config, inbox, .. } = shared;
    let head = http::read_head(&connection.stream, config.handshake_timeout);
    if connection.place.answer().is_err() {
        // Whoever cut it has said so, to the client too.
        return None;
    }
    let (request, leftover) = match head {
        Ok(head) => head,
        Err(error) => {
            match if shared.stopping() { Some(unavailable(STOPPING)) } else { error.response() } {
                Some(response) => refuse(connection, response, false, shared),
                None => {
                    debug!(
                        "connection {} from {} closed without a request",
                        connection.id,
                        connection.address()
                    );
                }
            }
            return None;
        }
    };
    if let Err(refused) = identify(connection, &request, config) {
        refuse(connection, no_place(refused), false, shared);
        return None;
    }
    let head_only = request.method() == Method::HEAD;
    let response = match (request.uri().path(), request.method()) {
        _ if shared.stopping() => unavailable(STOPPING),
        ("/ws", &Method::GET) if origin::is_allowed(request.headers(), &config.allow_origin) => {
            return Some((request, leftover));
        }
        ("/ws", &Method::GET) => {
            tell_of_origin(connection, &request);
            http::text(StatusCode::FORBIDDEN, "pages of this origin may not chat here")
        }
        ("/ws", _) => http::not_allowed("GET"),
        ("/healthz", &Method::GET | &Method::HEAD) => health(inbox),
        ("/healthz", _) => http::not_allowed("GET, HEAD"),
        (path, method) => match page::find(path) {
            Some(asset) if method == Method::GET || head_only => asset.response(request.headers()),
            Some(_) => http::not_allowed("GET, HEAD"),
            None => http::text(StatusCode::NOT_FOUND, "nothing here; the chat is at /"),
        },
    };
    refuse(connection, response, head_only, shared);
    None
}

/// Finds out for whom a trusted proxy speaks, and counts that client. Others have been counted when they were accepted.
fn identify(connection: &Connection, request: &Request, config: &Config) -> Result<(), Refused> {
    let peer = connection.peer.ip();
    if !proxy::is_trusted(peer, &config.trusted_proxy) {
        return Ok(());
    }
    let client = proxy::client_behind(peer, request.headers(), &config.trusted_proxy);
    let _ = connection.forwarded.set(client.address);
    if client.counted { connection.place.count(client.address) } else { Ok(()) }
}

/// Says in the log what whoever runs the server needs to decide whether that page is one of theirs.
fn tell_of_origin(connection: &Connection, request: &Request) {
    let quoted = |name| {
        request.headers().get_all(name).iter().map(http::quoted).collect::<Vec<_>>().join(", ")
    };
    info!(
        "connection {} from {} has the origin {} and the host {}; if that page may chat here, --allow-origin says so",
        connection.id,
        connection.address(),
        quoted(ORIGIN),
        quoted(HOST),
    );
}

/// Sends a response that ends the connection, and logs it unless it is a success.
fn refuse(connection: &Connection, response: Response, head_only: bool, shared: &Shared) {
    let Connection { id, stream, .. } = connection;
    let address = connection.address();
    METRICS.count_response(&response);
    match Refusal::of(&response) {
        None => debug!("connection {id} from {address}: {}", response.status()),
        Some(refusal) => info!("connection {id} from {address} refused: {refusal}"),
    }
    if let Err(error) =
        http::respond(stream, &http::to_bytes(response, head_only), shared.config.write_timeout)
    {
        debug!("connection {id} from {address} gone before its response: {error}");
    }
}

/// `503`: the client may try again later.
pub fn unavailable(why: Refusal) -> Response {
    let line = match why {
        Refusal::ServerStopping => "the server is stopping",
        Refusal::HubSilent => "the hub does not answer",
        _ => "the server is full",
    };
    let mut response = http::text(StatusCode::SERVICE_UNAVAILABLE, line);
    response.extensions_mut().insert(why);
    http::with_header(response, RETRY_AFTER, RETRY_AFTER_SECONDS)
}

/// What a connection is told that there is no place for.
pub fn no_place(refused: Refused) -> Response {
    match refused {
        Refused::AddressFull => {
            let response =
                http::text(StatusCode::TOO_MANY_REQUESTS, "too many connections from this address");
            http::with_header(response, RETRY_AFTER, RETRY_AFTER_SECONDS)
        }
        Refused::Full | Refused::Cut => unavailable(FULL),
    }
}

/// Refuses a connection without waiting for anything.
pub fn turn_away(mut stream: &TcpStream, response: Response) {
    METRICS.count_response(&response);
    let response = http::to_bytes(response, false);
    // The client learns less if this fails, and the server loses nothing.
    let _ = stream.set_nonblocking(true).and_then(|()| stream.write_all(&response));
    let _ = stream.shutdown(Shutdown::Write);
}

/// `200` while the hub answers in time.
pub fn health(inbox: &Sender<Posted>) -> Response {
    match hub_answers(inbox) {
        true => http::text(StatusCode::OK, "ok"),
        false => unavailable(Refusal::HubSilent),
    }
}

/// Whether the hub answers in time.
pub fn hub_answers(inbox: &Sender<Posted>) -> bool {
    let (answer, answered) = bounded(1);
    let deadline = Instant::now() + HEALTH_TIMEOUT;
    let asked = inbox.send_deadline(Posted::now(Event::Health(answer)), deadline);
    asked.is_ok() && answered.recv_deadline(deadline).is_ok()
}

/// Takes an upgrade request (RFC 6455, 4.2.1) and what it says of name and room.
///
/// What is wrong with the names is told after the upgrade: a page can't read the status of a failed one.
#[inline(never)]
pub fn upgrade(mut request: Box<Request>, leftover: Vec<u8>) -> Result<Upgrade, Box<Response>> {
    simplify_upgrade(&mut request)?;
    let accepted = create_response(&request).map_err(|error| match error {
        // Also said of an upgrade that names no version at all, which is no upgrade.
        Error::Protocol(ProtocolError::MissingSecWebSocketVersionHeader)
            if request.headers().contains_key(SEC_WEBSOCKET_VERSION) =>
        {
            let response = http::text(StatusCode::UPGRADE_REQUIRED, "the WebSocket version is 13");
            Box::new(http::with_header(response, SEC_WEBSOCKET_VERSION, "13"))
        }
        error => not_upgrade(error),
    })?;
    let mut response = Vec::new();
    write_response(&mut response, &accepted)
        .expect("a Vec takes every write, and these headers are text");
    let joining = joining(request.uri().query().unwrap_or_default()).map(Box::new);
    Ok(Upgrade { response, leftover, joining })
}

/// Cuts a request's lists (RFC 9110, 5.6.1) down to what tungstenite looks for: it reads one line of each header, and no
/// other protocol beside its own.
fn simplify_upgrade(request: &mut Request) -> Result<(), Box<Response>> {
    let headers = request.headers_mut();
    for (name, token) in [(CONNECTION, "upgrade"), (UPGRADE, "websocket")] {
        if http::any_item(headers, &name, |item| item.eq_ignore_ascii_case(token)) {
            headers.insert(name, HeaderValue::from_static(token));
        }
    }
    let more_than_one = |name| headers.get_all(name).iter().nth(1).is_some();
    if more_than_one(SEC_WEBSOCKET_KEY) || more_than_one(SEC_WEBSOCKET_VERSION) {
        return Err(not_upgrade("its key and its version stand there once"));
    }
    // What follows the head would be read as frames.
    if headers.contains_key(TRANSFER_ENCODING)
        || headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0")
    {
        return Err(not_upgrade("it has a body"));
    }
    Ok(())
}

fn not_upgrade(problem: impl std::fmt::Display) -> Box<Response> {
    Box::new(http::text(StatusCode::BAD_REQUEST, format!("not a WebSocket upgrade: {problem}")))
}

/// What a query asks for. What it says of an earlier connection counts for nothing if it can't be read: the client is a
/// newcomer then.
///
/// # Errors
/// [`CloseReason::InvalidName`] or [`CloseReason::InvalidRoom`].
pub fn joining(query: &str) -> Result<Joining, CloseReason> {
    let name = match parameter(query, "name") {
        Some(name) => {
            Nickname::Chosen(message::parse_name(&name.ok_or(CloseReason::InvalidName)?)?)
        }
        // Without random numbers the hub tries the names in their order.
        None => Nickname::Guest(getrandom::u32().unwrap_or_default()),
    };
    let room = match parameter(query, "room") {
        Some(room) => message::parse_room(&room.ok_or(CloseReason::InvalidRoom)?)?,
        None => message::ROOM_DEFAULT.to_owned(),
    };
    let said = |key| parameter(query, key).flatten();
    let since = said("since").and_then(|since| since.parse().ok());
    let resume = said("epoch").zip(since).map(|(epoch, since)| Resume { epoch, since });
    let claim = said("session").and_then(|hex| Session::parse(&hex));
    let session = Session::random().map_err(|_| CloseReason::InternalError)?;
    Ok(Joining { name, room, session, claim, resume })
}

/// The first parameter called `key`, decoded; the inner `None` if it is not UTF-8.
fn parameter(query: &str, key: &str) -> Option<Option<String>> {
    let value = query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name == key).then_some(value)
    })?;
    let spaced = value.replace('+', " ");
    Some(percent_decode_str(&spaced).decode_utf8().ok().map(|text| text.into_owned()))
}
