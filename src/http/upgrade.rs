//! The upgrade of a request to a WebSocket connection, and what its query asks for.

use percent_encoding::percent_decode_str;
use tungstenite::error::{Error, ProtocolError};
use tungstenite::handshake::server::{create_response, write_response};
use tungstenite::http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HeaderMap, HeaderValue, ORIGIN, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use tungstenite::http::{self, StatusCode};

use super::request::{Request, any_item};
use super::response::{self, Response};
use crate::chat::client::Upgrade;
use crate::chat::inbox::{JoinRequest, Nickname, Resume};
use crate::protocol::close::CloseReason;
use crate::protocol::name::{self, Name};
use crate::protocol::session::Session;

/// What to do about a proxy that passes on the request and not its upgrade.
const PROXY_REMEDY: &str = "a proxy in front must pass on the upgrade, as nginx does by \
                            proxy_http_version 1.1, proxy_set_header Upgrade $http_upgrade and \
                            proxy_set_header Connection upgrade (see the book: Operating, Behind \
                            a proxy)";

/// Length of a `101` response, about.
const RESPONSE_BYTES: usize = 160;

/// True if a WebSocket client sent these headers, though a proxy may have taken the upgrade away.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    headers.contains_key(SEC_WEBSOCKET_KEY)
        || headers.contains_key(SEC_WEBSOCKET_VERSION)
        || any_item(headers, &UPGRADE, |item| item.eq_ignore_ascii_case("websocket"))
}

/// Accepts an upgrade request (RFC 6455, 4.2.1), and parses who wants to join which room. What its
/// address may send at once is not known here.
///
/// A bad name is no reason to refuse the upgrade: the client gets that as a message and a close
/// code afterwards, since a page can't read the status of a failed upgrade.
///
/// Not inlined, so that its stack is free again while the client is served.
///
/// # Errors
/// The response to a request that is not a valid upgrade.
#[inline(never)]
pub fn upgrade(mut request: Box<Request>, leftover: Vec<u8>) -> Result<Upgrade, Box<Response>> {
    let response = accept(&mut request)?;
    let join = join_request(request.uri().query().unwrap_or_default()).map(Box::new);
    Ok(Upgrade { response, leftover, join, shared_burst: None })
}

/// Returns the `101` response to a valid upgrade.
///
/// Not inlined, nor are its three steps, so that their stacks and that of parsing the query don't
/// add up.
#[inline(never)]
fn accept(request: &mut Request) -> Result<Vec<u8>, Box<Response>> {
    simplify_upgrade(request)?;
    let accepted = switch_protocols(request)?;
    Ok(encode(&accepted))
}

#[inline(never)]
fn switch_protocols(request: &Request) -> Result<Box<http::Response<()>>, Box<Response>> {
    match create_response(request) {
        Ok(accepted) => Ok(Box::new(accepted)),
        Err(error) => Err(refusal(request, error)),
    }
}

#[inline(never)]
fn encode(accepted: &http::Response<()>) -> Vec<u8> {
    // Long enough from the start: to grow it would take stack, deep down.
    let mut response = Vec::with_capacity(RESPONSE_BYTES);
    write_response(&mut response, accepted)
        .expect("a Vec takes every write, and these headers are text");
    response
}

/// Reduces a request's lists (RFC 9110, 5.6.1) to what tungstenite looks for.
///
/// It reads one line of each header, and accepts no other protocol next to its own.
#[inline(never)]
fn simplify_upgrade(request: &mut Request) -> Result<(), Box<Response>> {
    let headers = request.headers_mut();
    for (name, token) in [(CONNECTION, "upgrade"), (UPGRADE, "websocket")] {
        if any_item(headers, &name, |item| item.eq_ignore_ascii_case(token)) {
            headers.insert(name, HeaderValue::from_static(token));
        }
    }
    let more_than_one = |name| headers.get_all(name).iter().nth(1).is_some();
    if more_than_one(SEC_WEBSOCKET_KEY) || more_than_one(SEC_WEBSOCKET_VERSION) {
        return Err(not_upgrade("its key and its version must be there once".into()));
    }
    // A body would be read as frames. `Expect` announces one.
    if headers.contains_key(TRANSFER_ENCODING)
        || headers.contains_key(EXPECT)
        || headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0")
    {
        return Err(not_upgrade("it has a body".into()));
    }
    Ok(())
}

/// Builds the response to a request that tungstenite does not accept. Names the remedy if a proxy
/// seems to be the cause.
#[inline(never)]
fn refusal(request: &Request, error: Error) -> Box<Response> {
    let headers = request.headers();
    let from_browser = is_wanted(headers) || headers.contains_key(ORIGIN);
    let problem = match error {
        // tungstenite reports this too if there is no version at all: then it is not an upgrade.
        Error::Protocol(ProtocolError::MissingSecWebSocketVersionHeader)
            if headers.contains_key(SEC_WEBSOCKET_VERSION) =>
        {
            return other_version();
        }
        Error::Protocol(problem) => problem.to_string(),
        error => error.to_string(),
    };
    not_upgrade(if from_browser { format!("{problem}; {PROXY_REMEDY}") } else { problem })
}

fn not_upgrade(problem: String) -> Box<Response> {
    Box::new(response::text(StatusCode::BAD_REQUEST, format!("not a WebSocket upgrade: {problem}")))
}

/// Builds the `426` to another version of WebSocket than ours (RFC 6455, 4.4, and RFC 9110,
/// 15.5.22).
fn other_version() -> Box<Response> {
    let response = response::text(StatusCode::UPGRADE_REQUIRED, "the WebSocket version is 13");
    let response = response::with_header(response, SEC_WEBSOCKET_VERSION, "13");
    Box::new(response::with_header(response, UPGRADE, "websocket"))
}

/// Parses the query of an upgrade.
///
/// What it says of an earlier connection is ignored if it can't be parsed: the client is a newcomer
/// then.
///
/// Not inlined, like `accept`.
///
/// # Errors
/// [`CloseReason::InvalidName`] or [`CloseReason::InvalidRoom`].
#[inline(never)]
pub fn join_request(query: &str) -> Result<JoinRequest, CloseReason> {
    let name = match parameter(query, "name") {
        Some(name) => {
            let chosen = name.ok_or(CloseReason::InvalidName)?;
            Nickname::Chosen(Name::parse(&chosen)?)
        }
        // Without random numbers the hub tries the guest names in order.
        None => Nickname::Guest(getrandom::u32().unwrap_or_default()),
    };
    let room = match parameter(query, "room") {
        Some(room) => name::parse_room(&room.ok_or(CloseReason::InvalidRoom)?)?,
        None => name::ROOM_DEFAULT.to_owned(),
    };
    let given = |key| parameter(query, key).flatten();
    let since = given("since").and_then(|since| since.parse().ok());
    let resume = given("epoch").zip(since).map(|(epoch, since)| Resume { epoch, since });
    let claim = given("session").and_then(|hex| Session::parse(&hex));
    let session = Session::random().map_err(|_| CloseReason::InternalError)?;
    Ok(JoinRequest { name, room, session, claim, resume })
}

/// Returns the first parameter called `key`, decoded; the inner `None` if it is not UTF-8.
fn parameter(query: &str, key: &str) -> Option<Option<String>> {
    let value = query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name == key).then_some(value)
    })?;
    let spaced = value.replace('+', " ");
    Some(percent_decode_str(&spaced).decode_utf8().ok().map(|text| text.into_owned()))
}
