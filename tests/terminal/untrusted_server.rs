//! `parlour chat` with a server that wants to control its terminal, or use up its memory or time.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use parlour::protocol::address::Address;
use parlour::terminal::connection::{ConnectionEvent, Timeouts, connect};
use parlour::terminal::received::{MEMBERS_MAX, MESSAGE_BYTES_MAX};
use serde_json::{Value, json};
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Message, WebSocket};

use crate::support::DEADLINE;
use crate::support::pipe::Pipe;
use crate::support::program::command;
use crate::support::scripted::{accept, scripted_server, welcome};

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

/// Time for what is not to be waited for.
const BRIEF: Duration = Duration::from_millis(300);
/// What the program may take, whatever the server sends. It starts with some 10 MiB.
const MEMORY_BYTES_MAX: u64 = 100 << 20;

/// Runs `parlour chat` as Ann with a server that sends a welcome and what `attack` sends. Returns
/// the errors of the program, which must end by itself.
fn errors_after(attack: impl FnOnce(&mut WebSocket<TcpStream>) + Send + 'static) -> String {
    let (address, server) = scripted_server(|listener| {
        let mut socket = accept(listener);
        socket.send(welcome("one")).unwrap();
        attack(&mut socket);
        // A second connection would wait here.
        while socket.read().is_ok() {}
    });
    let (status, _, errors) = Pipe::start(address, &["--name", "Ann"]).wait_for_exit();
    assert_eq!((status.code(), errors.lines().count()), (Some(1), 1), "{errors}");
    server.join().unwrap();
    errors
}

fn join(name: &str) -> Message {
    Message::text(json!({"type": "join", "user": name, "ts": 1}).to_string())
}

#[test]
fn a_message_that_is_too_long_ends_the_chat() {
    // A frame that promises a gigabyte, and a message whose frames do not end.
    let errors = errors_after(|socket| {
        let mut header = vec![0x81, 127];
        header.extend((1u64 << 30).to_be_bytes());
        socket.get_mut().write_all(&header).unwrap();
    });
    assert!(errors.contains(&format!("more than {MESSAGE_BYTES_MAX} bytes")), "{errors}");
    let errors = errors_after(|socket| {
        let frame = |opcode| Frame::message(vec![b' '; 1 << 20], OpCode::Data(opcode), false);
        let _ = socket.send(Message::Frame(frame(Data::Text)));
        while socket.send(Message::Frame(frame(Data::Continue))).is_ok() {}
    });
    assert!(errors.contains(&format!("more than {MESSAGE_BYTES_MAX} bytes")), "{errors}");
}

#[test]
fn too_many_members_end_the_chat() {
    let errors = errors_after(|socket| {
        for number in 0..=MEMBERS_MAX {
            // The program may have ended.
            let _ = socket.write(join(&format!("n{number}")));
        }
        let _ = socket.flush();
    });
    assert!(errors.contains(&format!("more than {MEMBERS_MAX} members")), "{errors}");
}

#[test]
fn what_waits_is_bounded() {
    let (sender, sent) = channel();
    let (address, server) = scripted_server(move |listener| {
        let mut socket = accept(listener);
        socket.send(welcome("one")).unwrap();
        socket.get_mut().set_write_timeout(Some(Duration::from_secs(2))).unwrap();
        // The output that nobody reads is full after the first of these.
        let content = json!({"type": "public", "user": "Bob", "content": "x".repeat(1 << 20),
            "seq": 1, "ts": 1});
        let _ = socket.send(Message::text(content.to_string()));
        let long = Message::text(json!({"type": "new", "x": " ".repeat(7 << 20)}).to_string());
        let sent = (0..100).take_while(|_| socket.send(long.clone()).is_ok()).count();
        sender.send(sent).unwrap();
    });
    let url = format!("ws://{address}");
    let mut program =
        command(&["chat", &url, "--name", "Ann"]).stdin(Stdio::piped()).spawn().unwrap();
    // A sender that has been stopped for two seconds waits for the program.
    let sent = sent.recv_timeout(DEADLINE).expect("a server that has to wait");
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    program.kill().unwrap();
    program.wait().unwrap();
    server.join().unwrap();
    assert!(sent < 15, "{sent} of 100 messages of 7 MiB");
    assert!(peak << 10 < MEMORY_BYTES_MAX, "{peak} KiB");
}

#[test]
fn a_response_that_trickles_is_not_waited_for() {
    let (address, server) = scripted_server(|listener| {
        let (mut stream, _) = listener.accept().unwrap();
        trickle(&mut stream, b"HTTP/1.1 101 Switching Protocols\r\nX: ");
    });
    let events = connect_with(address, Timeouts { answer: BRIEF, quiet: DEADLINE });
    let Ok(ConnectionEvent::Lost(why)) = events.recv_timeout(DEADLINE) else { panic!("a loss") };
    assert_eq!(why, "no answer came in time");
    drop(events);
    server.join().unwrap();
}

#[test]
fn a_message_that_trickles_is_not_waited_for() {
    // A frame that is never complete, and one whose fragments never end.
    for beginning in [&[0x81, 126, 0xff, 0xff][..], &[0x01, 1, b'x']] {
        let (address, server) = scripted_server(move |listener| {
            let mut socket = accept(listener);
            socket.get_mut().write_all(beginning).unwrap();
            let rest: &[u8] = if beginning[0] == 0x01 { &[0x00, 0] } else { b"xx" };
            while socket.get_mut().write_all(rest).is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        });
        let events = connect_with(address, Timeouts { answer: DEADLINE, quiet: BRIEF });
        // The half that writes is kept: dropping it ends the connection.
        let Ok(ConnectionEvent::Opened(kept)) = events.recv_timeout(DEADLINE) else {
            panic!("a connection");
        };
        let quiet = events.recv_timeout(DEADLINE);
        assert!(matches!(quiet, Ok(ConnectionEvent::Quiet)));
        let Ok(ConnectionEvent::Lost(why)) = events.recv_timeout(DEADLINE) else {
            panic!("a loss");
        };
        assert_eq!(why, "the server does not answer any more");
        drop((events, kept));
        server.join().unwrap();
    }
}

fn connect_with(
    address: SocketAddr,
    timeouts: Timeouts,
) -> crossbeam_channel::Receiver<ConnectionEvent> {
    let address = Address::parse(&format!("ws://{address}/ws")).unwrap();
    connect(address, "", timeouts).expect("a thread")
}

/// Sends `beginning`, then a byte now and then until the client has gone.
fn trickle(stream: &mut TcpStream, beginning: &[u8]) {
    stream.write_all(beginning).unwrap();
    while stream.write_all(b"x").is_ok() {
        thread::sleep(Duration::from_millis(20));
    }
}
