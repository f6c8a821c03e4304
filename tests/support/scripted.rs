//! A server that follows a test's script, for clients that have to cope with it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use serde_json::{Value, json};
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};

use super::DEADLINE;

/// Starts a server that handles its clients as `script` does.
pub fn scripted_server(
    script: impl FnOnce(&TcpListener) + Send + 'static,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (address, thread::spawn(move || script(&listener)))
}

/// Accepts the next client.
pub fn accept(listener: &TcpListener) -> WebSocket<TcpStream> {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    tungstenite::accept(stream).unwrap()
}

/// Returns the welcome for Ann from a server that has just started. `session` is its epoch as well.
pub fn welcome(session: &str) -> Message {
    let welcome = json!({"type": "welcome", "user": "Ann", "room": "r", "users": ["Ann"],
        "epoch": session, "seq": 0, "history": 0, "recovered": false, "session": session, "ts": 1});
    Message::text(welcome.to_string())
}

/// Waits for the next message, which must be text.
pub fn next_text(socket: &mut WebSocket<TcpStream>) -> Value {
    match socket.read().expect("a message before the deadline") {
        Message::Text(text) => serde_json::from_str(&text).expect("each message is JSON"),
        other => panic!("expected a text message, not {other:?}"),
    }
}

/// Closes with `code`, and waits until the client has closed the connection.
pub fn close(mut socket: WebSocket<TcpStream>, code: u16, reason: &'static str) {
    let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
    socket.close(Some(frame)).unwrap();
    while socket.read().is_ok() {}
}
