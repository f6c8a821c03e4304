//! A client that is nobody's library: requests and frames by hand, byte by byte where a test wants
//! it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::{DEADLINE, TestServer};

pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xA;
pub const FIN: u8 = 0x80;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame as a client must send it: `first` is FIN, the reserved bits and the opcode.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, payload.len() as u64);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The header of a masked frame that announces `length` bytes.
pub fn header(first: u8, length: u64) -> Vec<u8> {
    let mut header = vec![first];
    match length {
        0..=125 => header.push(0x80 | length as u8),
        126..=0xFFFF => {
            header.push(0x80 | 126);
            header.extend((length as u16).to_be_bytes());
        }
        _ => {
            header.push(0x80 | 127);
            header.extend(length.to_be_bytes());
        }
    }
    header.extend(MASK);
    header
}

/// The frames that stand in `bytes`, each its first byte and its payload; the rest is left.
pub fn frames(bytes: &mut Vec<u8>) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((header, length)) = unmasked_header(bytes) {
        if bytes.len() < header + length {
            break;
        }
        frames.push((bytes[0], bytes[header..header + length].to_vec()));
        bytes.drain(..header + length);
    }
    frames
}

/// Length of the header that `bytes` begin with, and of the payload that it announces.
fn unmasked_header(bytes: &[u8]) -> Option<(usize, usize)> {
    let second = *bytes.get(1)?;
    assert_eq!(second & 0x80, 0, "a server must not mask (RFC 6455, 5.1)");
    let number = |range: std::ops::Range<usize>| {
        Some(bytes.get(range)?.iter().fold(0, |number, &byte| number << 8 | usize::from(byte)))
    };
    match second {
        126 => Some((4, number(2..4)?)),
        127 => Some((10, number(2..10)?)),
        length => Some((2, length.into())),
    }
}

/// Sends `request` and returns everything that comes until the server closes, which is text.
pub fn exchange(address: SocketAddr, request: &[u8]) -> String {
    String::from_utf8(exchange_bytes(address, request)).expect("text")
}

/// Sends `request` and returns everything that comes until the server closes.
pub fn exchange_bytes(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(request).expect("the server reads");
    let mut response = Vec::new();
    stream.read_to_end(&mut response).expect("a clean end before the deadline");
    response
}

/// The status and, in lower case, the whole response to a request head of these lines, which get
/// their ends here.
pub fn answer(address: SocketAddr, lines: &str) -> (u16, String) {
    let response = exchange(address, format!("{}\r\n\r\n", lines.replace('\n', "\r\n")).as_bytes());
    let status = response.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.unwrap_or_else(|| panic!("{response:?}")), response.to_lowercase())
}

/// The head of an upgrade as RFC 6455 prints it.
pub fn upgrade(query: &str) -> String {
    format!(
        "GET /ws?{query} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// An upgraded connection.
pub struct RawClient {
    pub stream: TcpStream,
    received: Vec<u8>,
}

impl RawClient {
    pub fn connect(server: &TestServer, query: &str) -> RawClient {
        RawClient::connect_to(server.address, query)
    }

    pub fn connect_to(address: SocketAddr, query: &str) -> RawClient {
        let mut stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(upgrade(query).as_bytes()).unwrap();
        let mut received = Vec::new();
        let end = loop {
            if let Some(at) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            let mut chunk = [0; 512];
            let n = stream.read(&mut chunk).expect("a response before the deadline");
            assert_ne!(n, 0, "closed in the middle of the response");
            received.extend(&chunk[..n]);
        };
        let head: Vec<u8> = received.drain(..end).collect();
        let head = String::from_utf8(head).expect("text");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(
            head.to_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
            "{head}"
        );
        RawClient { stream, received }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the connection is open");
    }

    /// The next frame: its first byte and its payload. `None` at a clean end of the stream.
    pub fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((header, length)) = unmasked_header(&self.received)
                && self.received.len() >= header + length
            {
                let first = self.received[0];
                let payload = self.received[header..header + length].to_vec();
                self.received.drain(..header + length);
                return Some((first, payload));
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(n) => self.received.extend(&chunk[..n]),
                // As after a Ctrl-Z and fg.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    panic!("no frame before the deadline")
                }
                Err(error) => panic!("the connection did not end cleanly: {error}"),
            }
        }
    }

    /// The next text message of type `kind`; others are skipped.
    pub fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let (first, payload) = self.frame().expect("the connection is open");
            if first == FIN | TEXT {
                let message: Value = serde_json::from_slice(&payload).expect("JSON");
                if message["type"] == kind {
                    return message;
                }
            }
        }
    }

    /// The next frame that is no text.
    pub fn control(&mut self) -> (u8, Vec<u8>) {
        loop {
            let frame = self.frame().expect("the connection is open");
            if frame.0 != FIN | TEXT {
                return frame;
            }
        }
    }

    /// Reads on until the server's close frame and the clean end behind it: the code and the
    /// reason.
    pub fn closed(&mut self) -> (u16, String) {
        let payload = loop {
            let (first, payload) = self.control();
            if first == FIN | CLOSE {
                break payload;
            }
        };
        assert_eq!(self.frame(), None, "nothing follows a close frame");
        let code = u16::from_be_bytes([payload[0], payload[1]]);
        (code, String::from_utf8(payload[2..].to_vec()).expect("text"))
    }
}
