//! Just enough HTTP/1.1 for a chat server: one request head, read under a byte cap and a deadline, and one response, after
//! which the connection is closed.

pub mod admission;
pub mod origin;
pub mod page;
pub mod proxy;
pub mod routes;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use tungstenite::Bytes;
use tungstenite::handshake::server::write_response;
use tungstenite::http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue,
    X_CONTENT_TYPE_OPTIONS,
};
use tungstenite::http::{self, Method, StatusCode, Version};

/// Longest request head. Browsers send about 600 bytes, and cookies of other sites on the same host.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Most header lines in a head.
pub const HEADERS_MAX: usize = 64;
/// Most bytes of a header's value in the log.
const QUOTED_BYTES_MAX: usize = 128;
/// Bytes read at a time.
const READ_BYTES: usize = 1024;
/// How long, and for how many bytes, a refused client may go on sending before it is cut off. Cut off at once, it would
/// see a reset in place of the response.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 64 * 1024;

/// A request head.
pub type Request = http::Request<()>;
/// A response with its body.
pub type Response = http::Response<Bytes>;

/// Why there is no request head.
#[derive(Debug, PartialEq, Eq)]
pub enum HeadError {
    /// The client hung up first.
    Closed,
    /// The deadline is over.
    TimedOut,
    /// Over [`HEAD_BYTES_MAX`] or [`HEADERS_MAX`].
    TooLarge,
    /// Not a request, and why.
    Malformed(String),
}

/// Reads a request head and whatever came right behind it, all within `timeout`, however it trickles.
///
/// # Errors
/// [`HeadError`] says what was wrong; each but `Closed` has a [`response`](HeadError::response).
pub fn read_head(
    stream: &TcpStream,
    timeout: Duration,
) -> Result<(Box<Request>, Vec<u8>), HeadError> {
    let deadline = Instant::now() + timeout;
    let mut bytes = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(HeadError::TimedOut);
        }
        // Only a socket that is gone refuses a timeout that is not zero.
        stream.set_read_timeout(Some(left)).map_err(|_| HeadError::Closed)?;
        let had = bytes.len();
        bytes.resize(had + READ_BYTES, 0);
        let mut socket = stream;
        let read = socket.read(&mut bytes[had..]);
        bytes.truncate(had + read.as_ref().map_or(0, |&n| n));
        match read {
            Ok(0) => return Err(HeadError::Closed),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(HeadError::TimedOut),
            Err(_) => return Err(HeadError::Closed),
        }
        // The head is parsed once, when its blank line is there, which may straddle two reads.
        if ends_head(&bytes[had.saturating_sub(3)..]) {
            return parse_head(bytes);
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(HeadError::TooLarge);
        }
    }
}

/// Whether there is an empty line. A lone LF counts as a line's end (RFC 9112, 2.2).
fn ends_head(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| pair == b"\n\n")
        || bytes.windows(3).any(|triple| triple == b"\n\r\n")
}

/// Parses a whole request head and gives back what stands behind it.
///
/// # Errors
/// [`HeadError::Malformed`] or [`HeadError::TooLarge`].
pub fn parse_head(mut bytes: Vec<u8>) -> Result<(Box<Request>, Vec<u8>), HeadError> {
    // Not on the stack, whose every page once touched stays with the client.
    let mut headers = vec![httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let length = match head.parse(&bytes) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD_BYTES_MAX => length,
        Ok(httparse::Status::Complete(_)) | Err(httparse::Error::TooManyHeaders) => {
            return Err(HeadError::TooLarge);
        }
        Ok(httparse::Status::Partial) => return Err(malformed("the head is not complete")),
        Err(error) => return Err(malformed(error)),
    };
    // On the heap, like the headers: a request is large, and each move of it would take as much stack again.
    let mut request = Box::new(Request::new(()));
    *request.method_mut() =
        Method::from_bytes(head.method.unwrap_or_default().as_bytes()).map_err(malformed)?;
    *request.uri_mut() = head.path.unwrap_or_default().parse().map_err(malformed)?;
    *request.version_mut() =
        if head.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    for header in head.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(malformed)?;
        request
            .headers_mut()
            .append(name, HeaderValue::from_bytes(header.value).map_err(malformed)?);
    }
    // RFC 9112, 3.2.
    if request.version() == Version::HTTP_11 && request.headers().get_all(HOST).iter().count() != 1
    {
        return Err(malformed("HTTP/1.1 takes exactly one Host header"));
    }
    Ok((request, bytes.split_off(length)))
}

fn malformed(problem: impl ToString) -> HeadError {
    HeadError::Malformed(problem.to_string())
}

impl HeadError {
    /// What the client is told.
    pub fn response(&self) -> Option<Response> {
        match self {
            HeadError::Closed => None,
            HeadError::TimedOut => Some(text(
                StatusCode::REQUEST_TIMEOUT,
                "the request did not arrive in time".to_owned(),
            )),
            HeadError::TooLarge => Some(text(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "the request head is too large".to_owned(),
            )),
            HeadError::Malformed(problem) => {
                Some(text(StatusCode::BAD_REQUEST, format!("not a request: {problem}")))
            }
        }
    }
}

/// Whether `wanted` holds for an item of a header that is a list (RFC 9110, 5.6.1).
pub fn any_item(headers: &HeaderMap, name: &HeaderName, wanted: impl Fn(&str) -> bool) -> bool {
    let lists = headers.get_all(name);
    lists
        .iter()
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','))
        .any(|item| wanted(item.trim()))
}

/// A header's value for the log: escaped, and not longer than people read.
pub fn quoted(value: &HeaderValue) -> String {
    let bytes = value.as_bytes();
    match bytes.get(..QUOTED_BYTES_MAX) {
        Some(start) => format!("\"{}…\"", start.escape_ascii()),
        None => format!("\"{}\"", bytes.escape_ascii()),
    }
}

/// A response of one line of text.
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

/// `405`: the path takes other methods.
pub fn not_allowed(methods: &'static str) -> Response {
    with_header(
        text(StatusCode::METHOD_NOT_ALLOWED, format!("this path takes {methods}")),
        ALLOW,
        methods,
    )
}

/// The same response with one more header.
pub fn with_header(mut response: Response, name: HeaderName, value: &'static str) -> Response {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

/// The response as bytes, without its body where the request was `HEAD`.
pub fn to_bytes(mut response: Response, head_only: bool) -> Bytes {
    // A 304 would give the length of the body that it leaves out (RFC 9110, 8.6), or none, which is simpler.
    if response.status() != StatusCode::NOT_MODIFIED {
        let length = response.body().len().into();
        response.headers_mut().insert(CONTENT_LENGTH, length);
    }
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    let mut bytes = Vec::new();
    write_response(&mut bytes, &response)
        .expect("a Vec takes every write, and our headers are text");
    if !head_only {
        bytes.extend_from_slice(response.body());
    }
    bytes.into()
}

/// Sends the response within `timeout` and closes: the write half, then, once the client has seen the end or the linger
/// is over, all. Who doesn't hang up keeps this thread for so long, and no newcomer out: its place is given away first
/// (`admission`).
///
/// # Errors
/// What the socket says; the client is gone then, or too slow.
pub fn respond(mut stream: &TcpStream, mut response: &[u8], timeout: Duration) -> io::Result<()> {
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
    stream.shutdown(Shutdown::Write)?;
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
