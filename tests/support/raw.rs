//! Requests and frames made by hand, for what no WebSocket library would send.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use super::{DEADLINE, TestServer};

pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xA;
pub const FIN: u8 = 0x80;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Returns a frame as a client must send it. `first` has FIN, the reserved bits and the opcode.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, payload.len() as u64);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Returns a text frame with `message`.
pub fn text(message: &Value) -> Vec<u8> {
    masked(FIN | TEXT, message.to_string().as_bytes())
}

/// Returns a text frame with a public message.
pub fn public(content: &str) -> Vec<u8> {
    text(&json!({"type": "public", "content": content}))
}

/// Returns the header of a masked frame of `length` bytes.
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

/// Takes all whole frames from `bytes`: of each, its first byte and its payload.
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

/// Returns the length of the header that `bytes` begin with, and of its payload.
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

/// Sends `request`, and returns what comes until the server closes, which must be text.
pub fn exchange(address: SocketAddr, request: &[u8]) -> String {
    String::from_utf8(exchange_bytes(address, request)).expect("text")
}

/// Sends `request`, and returns what comes until the server closes.
pub fn exchange_bytes(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(request).expect("the server reads");
    let mut response = Vec::new();
    stream.read_to_end(&mut response).expect("a clean end before the deadline");
    response
}

/// Sends a request head of these lines. Returns the status, and the whole response in lower case.
pub fn ask(address: SocketAddr, lines: &str) -> (u16, String) {
    let response = exchange(address, format!("{}\r\n\r\n", lines.replace('\n', "\r\n")).as_bytes());
    let status = response.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.unwrap_or_else(|| panic!("{response:?}")), response.to_lowercase())
}

/// Requests `path`, and returns the response with its head.
pub fn get(address: SocketAddr, path: &str) -> String {
    exchange(address, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
}

/// Returns the head of an upgrade, with the key that RFC 6455 has as its example.
pub fn upgrade(query: &str) -> String {
    format!(
        "GET /ws?{query} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// A chat client that sends and receives whole frames, whatever is in them.
pub struct RawClient {
    pub stream: TcpStream,
    received: Vec<u8>,
}

impl RawClient {
    /// Connects to `/ws` with `query`, and reads the response head.
    pub fn connect(server: &TestServer, query: &str) -> RawClient {
        RawClient::connect_to(server.address, query)
    }

    /// Does the same for a server that is known by its address.
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

    /// Returns the next frame: its first byte and its payload. `None` at a clean end of the stream.
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
                // A signal came, as after Ctrl-Z and `fg`.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    panic!("no frame before the deadline")
                }
                Err(error) => panic!("the connection did not end cleanly: {error}"),
            }
        }
    }

    /// Returns the next message of type `kind`. Skips others.
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

    /// Sends long public messages until somebody in the room leaves.
    pub fn talk_until_leave(&mut self) {
        let message = public(&"x".repeat(4000));
        loop {
            self.send(&message);
            let (_, received) = self.frame().expect("the connection is open");
            if received.starts_with(br#"{"type":"leave""#) {
                return;
            }
        }
    }

    /// Returns the next frame that is not a text. Skips texts.
    pub fn control(&mut self) -> (u8, Vec<u8>) {
        loop {
            let frame = self.frame().expect("the connection is open");
            if frame.0 != FIN | TEXT {
                return frame;
            }
        }
    }

    /// Reads until the server closes the connection, and the stream ends. Returns the code and the
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
