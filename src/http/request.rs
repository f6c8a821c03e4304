//! One request head in, read under a byte limit and a deadline (RFC 9112).

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tungstenite::http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use tungstenite::http::{self, Method, StatusCode, Version};

use super::request_line::{RequestLine, first_line, is_token, quoted, without_query};
use super::response::{Response, text};
use super::rules;

/// Longest request head. Browsers send about 600 bytes, plus cookies of other sites on the host.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Maximum number of header lines in a head.
pub const HEADERS_MAX: usize = 64;
/// Bytes read at a time.
const READ_BYTES: usize = 1024;
/// How clients of other protocols begin, and what to do about it.
const OTHER_PROTOCOLS: [(&[u8], &str); 4] = [
    (b"\x16", "a TLS hello; use http:// or ws://, or put a proxy with TLS in front"),
    (b"SSH-", "an SSH client; its server has another port"),
    (b"PROXY ", PROXY_PROTOCOL),
    (b"\r\n\r\n\0\r\nQUIT\n", PROXY_PROTOCOL),
];
const PROXY_PROTOCOL: &str =
    "the PROXY protocol; turn it off in the proxy, which must send X-Forwarded-For instead";

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
    /// The target alone is over [`HEAD_BYTES_MAX`].
    TargetTooLong,
    /// The version is neither HTTP/1.1 nor HTTP/1.0.
    Version,
    /// What was received is not a request. The text says why.
    Malformed(String),
}

/// A head that could not be read.
#[derive(Debug)]
pub struct BadHead {
    /// Why.
    pub error: HeadError,
    /// What it asks for, as far as it was received.
    pub line: RequestLine,
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
) -> Result<(Box<Request>, Vec<u8>), BadHead> {
    let mut bytes = Vec::new();
    let head = receive_head(stream, timeout, &mut bytes).and_then(|()| parse_head(&bytes));
    match head {
        Ok((request, length)) => Ok((request, bytes.split_off(length))),
        Err(error) => Err(BadHead { error, line: RequestLine::at_start_of(&bytes) }),
    }
}

/// Reads into `bytes` until they contain a whole head, or can't become one.
fn receive_head(
    mut stream: &TcpStream,
    timeout: Duration,
    bytes: &mut Vec<u8>,
) -> Result<(), HeadError> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(HeadError::TimedOut);
        }
        // Only a socket that is gone refuses a timeout that is not zero.
        stream.set_read_timeout(Some(left)).map_err(|_| HeadError::Closed)?;
        let had = bytes.len();
        bytes.resize(had + READ_BYTES, 0);
        let read = stream.read(&mut bytes[had..]);
        bytes.truncate(had + read.as_ref().map_or(0, |&n| n));
        match read {
            Ok(0) => return Err(HeadError::Closed),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(HeadError::TimedOut),
            Err(_) => return Err(HeadError::Closed),
        }
        // Who speaks another protocol may wait for a reply to its first bytes.
        check_start(bytes)?;
        // The head is parsed once, when its blank line is there, which may straddle two reads.
        if ends_head(&bytes[had.saturating_sub(3)..]) {
            return Ok(());
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(too_large(bytes));
        }
    }
}

/// True if `bytes` contain an empty line. A lone LF ends a line, too (RFC 9112, 2.2).
fn ends_head(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| pair == b"\n\n")
        || bytes.windows(3).any(|triple| triple == b"\n\r\n")
}

/// Checks that `bytes` may be the start of a request, as far as they go.
fn check_start(bytes: &[u8]) -> Result<(), HeadError> {
    if let Some((_, what)) = OTHER_PROTOCOLS.iter().find(|(start, _)| bytes.starts_with(start)) {
        return Err(malformed(what));
    }
    let (line, complete) = first_line(bytes);
    let method_end = line.iter().position(|byte| !is_token(byte));
    if method_end.is_some_and(|end| end == 0 || line[end] != b' ') {
        return Err(malformed(format!("it begins with {}", quoted(without_query(line)))));
    }
    if !complete {
        return Ok(());
    }
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    match words[..] {
        [_, [_, ..], b"HTTP/1.1" | b"HTTP/1.0"] => Ok(()),
        [_, [_, ..], [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(HeadError::Version)
        }
        _ => Err(malformed("its first line is not a method, a target and HTTP/1.1")),
    }
}

/// Says what is too large about a head: the target, or the rest.
fn too_large(bytes: &[u8]) -> HeadError {
    let (line, _) = first_line(bytes);
    if line.len() > HEAD_BYTES_MAX && line.contains(&b' ') {
        HeadError::TargetTooLong
    } else {
        HeadError::TooLarge
    }
}

/// Parses a request head, and returns it with its length.
///
/// The host in an absolute target takes the place of the `Host` header (RFC 9112, 3.2.2).
///
/// # Errors
/// Any [`HeadError`] that is not about time.
pub fn parse_head(bytes: &[u8]) -> Result<(Box<Request>, usize), HeadError> {
    check_start(bytes)?;
    // Not on the stack, whose every page once touched stays with the client.
    let mut headers = vec![httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD_BYTES_MAX => length,
        Ok(httparse::Status::Complete(_)) => return Err(too_large(bytes)),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge),
        Ok(httparse::Status::Partial) => return Err(malformed("the head is not complete")),
        Err(error) => return Err(malformed(explain(error, bytes))),
    };
    // On the heap, like the headers: a request is large, and each move of it would take as much
    // stack again.
    let mut request = Box::new(Request::new(()));
    *request.method_mut() =
        Method::from_bytes(head.method.unwrap_or_default().as_bytes()).map_err(malformed)?;
    let target = head.path.unwrap_or_default();
    *request.uri_mut() = target.parse().map_err(malformed)?;
    *request.version_mut() =
        if head.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    for header in head.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(malformed)?;
        request
            .headers_mut()
            .append(name, HeaderValue::from_bytes(header.value).map_err(malformed)?);
    }
    rules::check(target, &request).map_err(HeadError::Malformed)?;
    if let Some(authority) = request.uri().authority() {
        let host = HeaderValue::from_str(authority.as_str()).map_err(malformed)?;
        request.headers_mut().insert(HOST, host);
    }
    Ok((request, length))
}

/// Says which rule a head breaks.
fn explain(error: httparse::Error, bytes: &[u8]) -> String {
    let mut lines = bytes.split(|&byte| byte == b'\n').skip(1);
    let has_blank = |line: &[u8]| {
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
        name.iter().any(|byte| matches!(byte, b' ' | b'\t'))
    };
    match error {
        // Folded lines among them (RFC 9112, 5.1 and 5.2).
        httparse::Error::HeaderName if lines.any(has_blank) => {
            "white space in a header's name or in front of it, or in front of its colon".to_owned()
        }
        error => error.to_string(),
    }
}

fn malformed(problem: impl ToString) -> HeadError {
    HeadError::Malformed(problem.to_string())
}

impl HeadError {
    /// Builds the response to a head that could not be read.
    pub fn response(&self) -> Option<Response> {
        let (status, line) = match self {
            HeadError::Closed => return None,
            HeadError::TimedOut => {
                (StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time")
            }
            HeadError::TooLarge => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the request head is too large")
            }
            HeadError::TargetTooLong => {
                (StatusCode::URI_TOO_LONG, "the target of the request is too long")
            }
            HeadError::Version => (
                StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                "this server speaks HTTP/1.1; a proxy in front can speak others",
            ),
            HeadError::Malformed(problem) => {
                return Some(text(StatusCode::BAD_REQUEST, format!("not a request: {problem}")));
            }
        };
        Some(text(status, line))
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
