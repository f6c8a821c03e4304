//! `parlour chat` in a terminal, when its user leaves before every message is confirmed.

use std::sync::mpsc::channel;

use serde_json::json;
use tungstenite::Message;

use crate::support::pty::{Pty, chat_in_terminal};
use crate::support::scripted::{accept, next_text, scripted_server, welcome};
use crate::support::{Client, DEADLINE, TestServer};

/// What rustyline writes at the beginning of each line.
const LINE_BEGIN: &str = "\x1b[?2004h";

/// Types `lines`, and waits until all are read: in the middle of a line, Ctrl-D means something
/// else.
fn paste(pty: &mut Pty, lines: &[impl AsRef<str>]) {
    pty.wait_for(0, &["you are", "> "]);
    lines.iter().for_each(|line| pty.press(&format!("{}\r", line.as_ref())));
    pty.wait_for(0, &[&vec![LINE_BEGIN; lines.len() + 1][..], &["> "]].concat());
}

#[test]
fn leaving_waits_until_the_server_has_read_every_line() {
    // The server takes three seconds to read the lines.
    let server =
        TestServer::start(&["--message-rate", "20", "--message-burst", "1", "--leave-grace", "1h"]);
    let mut watcher = Client::join(&server, "watcher");
    let mut ann = chat_in_terminal(server.address, "Ann", &[]);
    let lines: Vec<String> = (1..=60).map(|n| format!("line {n}")).collect();
    paste(&mut ann, &lines);
    ann.press("\x04");
    let (status, written) = ann.wait_for_exit();
    assert!(status.success(), "{status:?} {written}");
    for line in lines {
        assert_eq!(watcher.next_of("public")["content"], line);
    }
    watcher.next_of("leave");
}

#[test]
fn asking_twice_leaves_at_once_and_says_how_many_are_not_confirmed() {
    // After the first Ctrl-C no line is edited, so the terminal turns a second one into a signal.
    let signal = None;
    for (first, second) in [
        ("\x04", Some("\x04")),
        ("\x03", signal),
        ("/quit\r", Some("\x03")),
        ("/quit\r", Some("/quit\r")),
    ] {
        // At this rate the server needs 20 seconds for the messages.
        let server = TestServer::start(&["--message-rate", "1", "--message-burst", "1"]);
        let mut watcher = Client::join(&server, "watcher");
        let mut ann = chat_in_terminal(server.address, "Ann", &[]);
        paste(&mut ann, &["x"; 20]);
        ann.press(first);
        let at = ann.wait_for(0, &["Ctrl-C leaves at once"]);
        if first.starts_with("/quit") {
            ann.press("more\r");
            ann.wait_for(at, &["this was not sent"]);
        }
        match second {
            Some(keys) => ann.press(keys),
            None => ann.signal("INT"),
        }
        let (status, written) = ann.wait_for_exit();
        assert!(
            !status.success()
                && written.contains("may not have arrived: the server did not confirm"),
            "{status:?} {written}"
        );
        // It did not wait for the rest, and the server has it all the same: a stop delivers it.
        server.stop();
        for _ in 0..20 {
            assert_eq!(watcher.next_of("public")["content"], "x");
        }
    }
}

#[test]
fn a_connection_that_breaks_while_leaving_leaves_a_note() {
    let (leaving, left) = channel();
    let (address, server) = scripted_server(move |listener| {
        let mut socket = accept(listener);
        socket.send(welcome("one")).unwrap();
        assert_eq!(next_text(&mut socket)["content"], "hello");
        left.recv_timeout(DEADLINE).expect("the test goes on");
    });
    let mut ann = chat_in_terminal(address, "Ann", &[]);
    paste(&mut ann, &["hello"]);
    ann.press("\x04");
    let at = ann.wait_for(0, &["Ctrl-C leaves at once"]);
    leaving.send(()).unwrap();
    ann.wait_for(at, &["reconnecting"]);
    ann.press("\x04");
    let (status, written) = ann.wait_for_exit();
    assert_eq!(status.code(), Some(1));
    assert!(written.contains("1 of your messages may not have arrived"), "{written}");
    server.join().unwrap();
}

#[test]
fn a_message_that_waits_for_the_welcome_is_not_lost_silently() {
    let (stop, stopped) = channel();
    let (address, server) = scripted_server(move |listener| {
        let mut socket = accept(listener);
        // This shows that the connection is open. The welcome never comes.
        let early = json!({"type": "public", "user": "Bob", "content": "early", "room": "r",
            "seq": 1, "ts": 1});
        socket.send(Message::text(early.to_string())).unwrap();
        stopped.recv_timeout(DEADLINE).expect("the test goes on");
    });
    let mut ann = chat_in_terminal(address, "Ann", &[]);
    ann.wait_for(0, &["early", "> "]);
    ann.press("hello\r/quit\r");
    let (status, written) = ann.wait_for_exit();
    assert_eq!(status.code(), Some(1));
    assert!(written.contains("1 of your messages could not be sent"), "{written}");
    stop.send(()).unwrap();
    server.join().unwrap();
}
