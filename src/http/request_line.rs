//! The first line of a request, whole or broken, and what the log shows of it.

use std::fmt;

use tungstenite::http::Request;

/// Longest part of what a client sent that is written to the log.
const QUOTED_BYTES_MAX: usize = 128;
/// The same for a method.
const METHOD_BYTES_MAX: usize = 16;

/// What a request asks for, for the log: method and path, escaped and shortened. A query may hold a
/// session, so it is left out.
#[derive(Debug)]
pub struct RequestLine {
    text: String,
    /// True if the method is `HEAD`: the response must not have a body.
    pub is_head: bool,
}

impl RequestLine {
    /// Takes it from a request.
    pub fn of(request: &Request<()>) -> RequestLine {
        RequestLine::new(request.method().as_str().as_bytes(), request.uri().path().as_bytes())
    }

    /// The usual one of a client of the chat.
    pub fn for_chat() -> RequestLine {
        RequestLine::new(b"GET", b"/ws")
    }

    /// Takes it from the start of a head, which may be broken.
    pub fn at_start_of(bytes: &[u8]) -> RequestLine {
        let (line, _) = first_line(bytes);
        let mut words = line.split(|&byte| byte == b' ');
        match (words.next(), words.next()) {
            (Some(method @ [_, ..]), Some(target)) if method.iter().all(is_token) => {
                RequestLine::new(method, without_query(target))
            }
            _ => RequestLine { text: "no request line".to_owned(), is_head: false },
        }
    }

    fn new(method: &[u8], path: &[u8]) -> RequestLine {
        let method_start = &method[..method.len().min(METHOD_BYTES_MAX)];
        let text = format!("{} {}", method_start.escape_ascii(), quoted(path));
        RequestLine { text, is_head: method == b"HEAD" }
    }
}

impl fmt::Display for RequestLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Returns the first line that is not empty, without its end, and true if the end was received.
pub fn first_line(bytes: &[u8]) -> (&[u8], bool) {
    let is_line_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let start = bytes.iter().position(|byte| !is_line_end(byte)).unwrap_or(bytes.len());
    let bytes = &bytes[start..];
    match bytes.iter().position(|&byte| byte == b'\n') {
        Some(end) => (bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]), true),
        None => (bytes, false),
    }
}

/// True for the bytes that a method is made of (RFC 9110, 5.6.2).
pub fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// Quotes what a client sent: escaped and shortened.
pub fn quoted(bytes: &[u8]) -> String {
    match bytes.get(..QUOTED_BYTES_MAX) {
        Some(start) => format!("\"{}…\"", start.escape_ascii()),
        None => format!("\"{}\"", bytes.escape_ascii()),
    }
}

/// Cuts a target off where its query begins.
pub fn without_query(target: &[u8]) -> &[u8] {
    target.split(|&byte| byte == b'?').next().unwrap_or_default()
}
