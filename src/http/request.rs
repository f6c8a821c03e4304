//! One request head in, read under a byte limit and a deadline (RFC 9112).

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tungstenite::http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use tungstenite::http::{self, Method, StatusCode, Version};

use super::response::{Response, text};

/// Longest request head. Browsers send about 600 bytes, plus cookies of other sites on the host.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Maximum number of header lines in a head.
pub const HEADERS_MAX: usize = 64;
/// Longest part of a header's value that is written to the log.
const QUOTED_BYTES_MAX: usize = 128;
/// Bytes read at a time.
const READ_BYTES: usize = 1024;

/// A request head. A request with a body is never read beyond its head.
pub type Request = http::Request<()>;

/// Why there is no request head.
#[derive(Debug, PartialEq, Eq)]
pub enum HeadError {
    /// The client closed the connection first.
    Closed,
    /// The deadline has passed.
    TimedOut,
    /// The head is over [`HEAD_BYTES_MAX`] or [`HEADERS_MAX`].
    TooLarge,
    /// What was received is not a request. The text says why.
    Malformed(String),
}

/// Reads a request head, and returns it with the bytes that followed it.
///
/// `timeout` is for the whole head, however slowly it trickles.
///
/// # Errors
/// [`HeadError`] says what was wrong. All except `Closed` have a
/// [`response`](HeadError::response).
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

/// True if `bytes` contain an empty line. A lone LF ends a line, too (RFC 9112, 2.2).
fn ends_head(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| pair == b"\n\n")
        || bytes.windows(3).any(|triple| triple == b"\n\r\n")
}

/// Parses a whole request head, and returns it with the bytes that followed it.
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
    // On the heap, like the headers: a request is large, and each move of it would take as much
    // stack again.
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
    /// Builds the response to a head that could not be read.
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

/// True if `wanted` holds for an item of the list in header `name` (RFC 9110, 5.6.1).
pub fn any_item(headers: &HeaderMap, name: &HeaderName, wanted: impl Fn(&str) -> bool) -> bool {
    let lists = headers.get_all(name);
    lists
        .iter()
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','))
        .any(|item| wanted(item.trim()))
}

/// Quotes a header's value for the log: escaped and shortened.
pub fn quoted(value: &HeaderValue) -> String {
    let bytes = value.as_bytes();
    match bytes.get(..QUOTED_BYTES_MAX) {
        Some(start) => format!("\"{}…\"", start.escape_ascii()),
        None => format!("\"{}\"", bytes.escape_ascii()),
    }
}
