//! One response out, after which the connection is closed.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use tungstenite::Bytes;
use tungstenite::handshake::server::write_response;
use tungstenite::http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderName, HeaderValue, RETRY_AFTER,
    UPGRADE, X_CONTENT_TYPE_OPTIONS,
};
use tungstenite::http::{self, StatusCode};

use crate::protocol::refusal::Refusal;
use crate::system::metrics::METRICS;

/// How long, and for how many bytes, a client may go on sending after its response, before it is
/// cut off. Cut off at once, it would see a reset in place of the response.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 64 * 1024;
/// Bytes read at a time in the meantime.
const READ_BYTES: usize = 1024;
/// `Retry-After` where nobody knows when the answer changes.
pub const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(5);

/// A response with its body.
pub type Response = http::Response<Bytes>;

/// What the log says about a refusal in place of the response's body.
#[derive(Clone)]
struct LogReason(String);

/// Builds a response whose body is one line of text.
pub fn text(status: StatusCode, line: impl Into<String>) -> Response {
    let mut body = line.into();
    body.push('\n');
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Builds the response to `OPTIONS`: the path accepts `methods`.
pub fn options(methods: &'static str) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    with_header(response, ALLOW, methods)
}

/// Builds a `501`: no path here takes the method.
pub fn unknown_method() -> Response {
    text(StatusCode::NOT_IMPLEMENTED, "this server does not know the method")
}

/// Builds a `405`: the path accepts only `methods`.
pub fn not_allowed(methods: &'static str) -> Response {
    with_header(
        text(StatusCode::METHOD_NOT_ALLOWED, format!("this path takes {methods}")),
        ALLOW,
        methods,
    )
}

/// Builds a `503`: the client may try again later. `reason` must be one of the reasons for it.
pub fn unavailable(reason: Refusal) -> Response {
    let line = match reason {
        Refusal::ServerStopping => "the server is stopping",
        Refusal::HubSilent => "the hub does not answer",
        Refusal::RequestsFull => "too many requests at the same time; try again in a moment",
        Refusal::NoThread => "the system has no thread for another connection; try again later",
        _ => "the chat is full; try again later",
    };
    refusal(reason, line, RETRY_AFTER_DEFAULT)
}

/// Builds a refusal that may turn into another answer after `wait`, with one line of text.
pub fn refusal(reason: Refusal, line: impl Into<String>, wait: Duration) -> Response {
    let mut response = text(reason.status(), line);
    response.extensions_mut().insert(reason);
    // In whole seconds (RFC 9110, 10.2.3), rounded up: asked earlier, it would be refused again.
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    response.headers_mut().insert(RETRY_AFTER, seconds.max(1).into());
    response
}

/// Adds a header to a response, in place of one of the same name.
pub fn with_header(mut response: Response, name: HeaderName, value: &'static str) -> Response {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

/// Has the log say `reason` in place of the response's body.
pub fn logged_as(mut response: Response, reason: String) -> Response {
    response.extensions_mut().insert(LogReason(reason));
    response
}

/// Returns the reason for a refusal, in words for the log. It is one line.
pub fn reason(response: &Response) -> &str {
    match response.extensions().get() {
        Some(LogReason(reason)) => reason,
        None => str::from_utf8(response.body()).unwrap_or_default().trim_end(),
    }
}

/// Encodes a response, without its body if the request was `HEAD`.
pub fn to_bytes(mut response: Response, head_only: bool) -> Bytes {
    // A 204 has no length, and a 304 would give that of the body that it leaves out, or none, which
    // is simpler (RFC 9110, 8.6).
    if !matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        let length = response.body().len().into();
        response.headers_mut().insert(CONTENT_LENGTH, length);
    }
    let headers = response.headers_mut();
    // Who offers an upgrade names it here too (RFC 9110, 7.8).
    let connection = if headers.contains_key(UPGRADE) { "close, upgrade" } else { "close" };
    headers.insert(CONNECTION, HeaderValue::from_static(connection));
    if let Some(date) = date() {
        headers.insert(DATE, date);
    }
    let mut bytes = Vec::new();
    write_response(&mut bytes, &response)
        .expect("a Vec takes every write, and our headers are text");
    if !head_only {
        bytes.extend_from_slice(response.body());
    }
    bytes.into()
}

/// Returns the time as HTTP writes it (RFC 9110, 5.6.7). `None` if the clock is beyond year 9999.
fn date() -> Option<HeaderValue> {
    let now = Timestamp::try_from(SystemTime::now()).ok()?;
    let text = DateTimePrinter::new().timestamp_to_rfc9110_string(&now).ok()?;
    HeaderValue::try_from(text).ok()
}

/// Sends an encoded response within `timeout`, then closes the connection.
///
/// It closes the write half first, and the rest once the client has seen the end or `LINGER` has
/// passed. A client that stays keeps this thread for that long, but keeps no newcomer out: its
/// place is given away first (see [`admission`](super::admission)).
///
/// # Errors
/// What the socket says: the client has gone, or takes the response too slowly.
pub fn send(mut stream: &TcpStream, mut response: &[u8], timeout: Duration) -> io::Result<()> {
    let deadline = Instant::now() + timeout;
    while !response.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        // For each call, so that a client that takes a byte now and then gains nothing by it.
        stream.set_write_timeout(Some(left))?;
        match stream.write(response) {
            Ok(written) => response = &response[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    // A client that has gone by now may have taken the response with it.
    if stream.shutdown(Shutdown::Write).is_err() {
        return Ok(());
    }
    let deadline = Instant::now() + LINGER;
    let mut chunk = vec![0; READ_BYTES];
    let mut bytes_left = LINGER_BYTES_MAX;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || bytes_left == 0 {
            return Ok(());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => bytes_left = bytes_left.saturating_sub(n),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Ok(()),
        }
    }
}

/// Refuses a connection without waiting for anything.
pub fn turn_away(mut stream: &TcpStream, response: Response) {
    METRICS.count_response(&response);
    let response = to_bytes(response, false);
    // If this fails the client learns less, and the server loses nothing.
    let _ = stream.set_nonblocking(true).and_then(|()| stream.write_all(&response));
    let _ = stream.shutdown(Shutdown::Write);
}
