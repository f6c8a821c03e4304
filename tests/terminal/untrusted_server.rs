//! `parlour chat` with a server that wants to control its terminal.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::support::DEADLINE;
use crate::support::pipe::Pipe;

/// What no terminal may get: escape sequences, control characters of C0 and C1, and characters that
/// are invisible or turn the text around.
const HOSTILE: &str = "\u{1b}[31mred\u{7}\u{8}\u{0}\u{7f}\u{9b}2J\u{90}\u{202e}abc\u{2066}\u{200f}\
    \u{2028}\u{feff}\u{e0041}";

fn is_harmful(c: char) -> bool {
    c != '\n' && (c.is_control() || "\u{202e}\u{2066}\u{200f}\u{2028}\u{feff}\u{e0041}".contains(c))
}

/// Starts a server that sends `messages` to its one client, and returns what it receives.
fn hostile_server(messages: Vec<String>) -> (SocketAddr, Receiver<Message>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, received) = channel();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut socket: WebSocket<TcpStream> = tungstenite::accept(stream).unwrap();
        for message in messages {
            socket.send(Message::text(message)).unwrap();
        }
        while let Ok(message) = socket.read() {
            let _ = sender.send(message);
        }
    });
    (address, received)
}

fn hostile_messages() -> Vec<String> {
    let ts = 1_700_000_000_000u64;
    let welcome = json!({"type": "welcome", "user": HOSTILE, "room": HOSTILE, "users": [HOSTILE],
        "epoch": "e", "seq": 0, "history": 0, "recovered": false, "session": "s", "ts": ts});
    let public = json!({"type": "public", "user": format!("{HOSTILE}\nfake"),
        "content": format!("{HOSTILE}\r\nBob: fake\ttab"), "room": "r", "seq": 1, "ts": u64::MAX,
        "later": HOSTILE});
    let private = json!({"type": "private", "user": HOSTILE, "to": "x\u{1b}c", "content": HOSTILE,
        "room": "r", "ts": ts});
    let join = json!({"type": "join", "user": format!("J{HOSTILE}"), "content": "", "room": "r",
        "ts": ts});
    let leave = json!({"type": "leave", "user": HOSTILE, "content": "", "room": "r", "ts": ts});
    let error = json!({"type": "error", "code": "x", "content": HOSTILE, "ts": ts});
    let mut messages: Vec<String> =
        [&welcome, &public, &private, &join, &leave, &error].map(Value::to_string).into();
    messages.extend([
        "\u{1b}[2J".to_owned(),
        "{\"type\":\"new\",\n\"x\":\"\u{9b}\"}".to_owned(),
        "[]".to_owned(),
    ]);
    messages.push(
        json!({"type": "public", "user": "E", "content": "end", "room": "r", "seq": 2, "ts": ts})
            .to_string(),
    );
    messages
}

#[test]
fn control_characters_from_the_network_never_reach_the_output() {
    for options in [&[][..], &["--json"]] {
        let (address, received) = hostile_server(hostile_messages());
        let mut pipe = Pipe::start(address, options);
        let mut lines = vec![pipe.next_line()];
        while !lines.last().unwrap().contains("end") {
            lines.push(pipe.next_line());
        }
        pipe.write_line("after all that");
        let sent = received.recv_timeout(DEADLINE).expect("a message");
        assert!(sent.to_text().unwrap().contains("after all that"), "{sent:?}");
        drop(received);
        for line in &lines {
            assert!(!line.contains(is_harmful), "{line:?}");
        }
        if options.is_empty() {
            assert!(lines.iter().any(|line| line.contains("\\u{1b}[31mred\\u{7}")), "{lines:?}");
            let is_forged =
                |line: &String| line.starts_with("Bob: fake") || line.starts_with("fake");
            assert!(!lines.iter().any(is_forged), "{lines:?}");
        } else {
            assert_eq!(lines.len(), hostile_messages().len() - 2, "{lines:?}");
            let parse = |line: &str| serde_json::from_str::<Value>(line).expect("JSON");
            assert_eq!(parse(&lines[1]), parse(&hostile_messages()[1]), "escaped, and the same");
        }
    }
}
