//! `parlour chat` in a terminal: its prompt, its commands, its colours.
//!
//! With a long `--leave-grace`, a `leave` shows that the client has sent a close frame.

use std::sync::mpsc::channel;

use serde_json::{Value, json};

use crate::support::pty::chat_in_terminal;
use crate::support::scripted::{accept, close, scripted_server, welcome};
use crate::support::{Client, DEADLINE, TestServer};

#[test]
fn a_message_appears_above_the_typed_line() {
    let server = TestServer::start(&["--leave-grace", "1h"]);
    let mut bob = Client::join(&server, "Bob");
    let mut ann = chat_in_terminal(server.address, "Ann", &[]);
    let at = ann.wait_for(0, &["you are Ann in lobby", "> "]);
    ann.press("half a l");
    let at = ann.wait_for(at, &["half a l"]);
    bob.say("hello");
    // Above the line, which is drawn again.
    let at = ann.wait_for(at, &["Bob", ": hello", "> half a l"]);
    ann.press("ine\r");
    let at = ann.wait_for(at, &["Ann", ": half a line"]);
    let is_meant = |message: &Value| message["user"] == "Ann" && message["type"] == "public";
    assert_eq!(bob.next_where(is_meant)["content"], "half a line");
    // The up key brings it back.
    ann.press("\x1b[A again\r");
    ann.wait_for(at, &["Ann", ": half a line again"]);
    ann.press("\x04");
    let (status, written) = ann.wait_for_exit();
    assert!(status.success(), "{status:?}");
    assert!(written.contains("\x1b[1;"), "names have colours: {written}");
    bob.next_of("leave");
}

#[test]
fn commands_are_carried_out() {
    let server = TestServer::start(&["--leave-grace", "1h"]);
    let mut bob = Client::connect(&server, "name=Bob+Smith");
    bob.next_of("join");
    let mut ann = chat_in_terminal(server.address, "Ann", &[]);
    let at = ann.wait_for(0, &["you are Ann", "> "]);
    ann.press("/msg bob smith  psst\r");
    let at = ann.wait_for(at, &["(private)", "you → ", "Bob Smith", "psst"]);
    let received = bob.next_of("private");
    assert_eq!((&received["to"], &received["content"]), (&json!("Bob Smith"), &json!("psst")));
    ann.press("/msg nobody psst\r");
    let at = ann.wait_for(at, &["not delivered: psst"]);
    ann.press("/who\r");
    let at = ann.wait_for(at, &["2 here: Ann, Bob Smith"]);
    ann.press("/help\r");
    let at = ann.wait_for(at, &["/msg NAME TEXT", "/quit"]);
    // A command with a typing error is sent to nobody.
    ann.press("/mgs Bob secret\r");
    let at = ann.wait_for(at, &["no such command"]);
    ann.press("/msg Bob\r");
    let at = ann.wait_for(at, &["write /msg NAME TEXT"]);
    ann.press("//slash\r");
    let at = ann.wait_for(at, &["Ann", ": /slash"]);
    assert_eq!(bob.next_of("public")["content"], "/slash");
    ann.press("bo\t");
    ann.wait_for(at, &["> Bob Smith: "]);
    ann.press("hi\r");
    assert_eq!(bob.next_of("public")["content"], "Bob Smith: hi");
    ann.press("/quit\r");
    assert!(ann.wait_for_exit().0.success());
    bob.next_of("leave");
}

#[test]
fn a_message_does_not_look_like_several_in_a_window_of_any_width() {
    let server = TestServer::start(&["--leave-grace", "1h"]);
    let mut bob = Client::join(&server, "Bob");
    let mut ann = chat_in_terminal(server.address, "Ann", &[("NO_COLOR", "1")]);
    let mut at = ann.wait_for(0, &["you are Ann"]);
    // Rows that have become too wide are noted: the greeting, then Bob's.
    for (columns, is_noted) in [(40, true), (60, false), (24, true)] {
        ann.resize(columns);
        if is_noted {
            at = ann.wait_for(at, &["the window is narrower"]);
        }
        bob.say(&format!("yes{}12:00 Eve: no {}", " ".repeat(100), "x".repeat(100)));
        bob.say("end");
        let end = ann.wait_for(at, &["Bob: end"]);
        let written = ann.written()[at..end].replace("\r\n", "\n");
        // The terminal breaks no row itself, even if it is narrower by now.
        let shown = written.split("\x1b[?7l").find(|part| part.contains("Bob: yes"));
        let shown = shown.and_then(|part| part.split_once("\x1b[?7h")).expect("rows").0;
        // The first may be the date.
        let rows: Vec<&str> = shown.lines().skip_while(|row| row.starts_with('—')).collect();
        assert!(rows[0][6..].starts_with("Bob: yes    12:00"), "{rows:?}");
        assert!(rows[1..].iter().all(|row| row.starts_with("      ")), "{rows:?}");
        assert!(rows.iter().all(|row| row.chars().count() <= columns.into()), "{rows:?}");
        at = end;
    }
    ann.resize(80);
    ann.press("/who\r");
    ann.wait_for(at, &["2 here"]);
    assert_eq!(ann.written().matches("the window is narrower").count(), 2, "{}", ann.written());
}

#[test]
fn there_are_no_colours_if_the_user_or_the_terminal_has_none() {
    let server = TestServer::start(&["--leave-grace", "1h"]);
    let mut bob = Client::join(&server, "Bob");
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let mut ann = chat_in_terminal(server.address, "Ann", &[(name, value)]);
        ann.wait_for(0, &["you are Ann"]);
        bob.say("hello");
        ann.wait_for(0, &["Bob: hello"]);
        ann.press("typed\r");
        ann.wait_for(0, &["Ann: typed"]);
        // Without an editor, this ends the terminal's input as well.
        ann.press("\x04");
        let (status, written) = ann.wait_for_exit();
        assert!(status.success(), "{status:?}");
        assert!(!written.contains("\x1b[1;") && !written.contains("\x1b[2m"), "{written}");
        assert!(value != "dumb" || !written.contains('\x1b'), "{written}");
        bob.next_of("leave");
    }
}

#[test]
fn every_way_out_leaves_the_terminal_as_it_was() {
    let server = TestServer::start(&["--leave-grace", "1h"]);
    let mut bob = Client::join(&server, "Bob");
    let mut ann = chat_in_terminal(server.address, "Ann", &[]);
    ann.wait_for(0, &["you are Ann", "> "]);
    ann.press("not sent\x03");
    assert!(ann.wait_for_exit().0.success());
    bob.next_of("leave");

    let (stop, stopped) = channel();
    let (address, _) = scripted_server(move |listener| {
        let mut socket = accept(listener);
        socket.send(welcome("one")).unwrap();
        stopped.recv_timeout(DEADLINE).expect("the test goes on");
        close(socket, 4410, "replaced");
    });
    let mut ann = chat_in_terminal(address, "Ann", &[]);
    ann.wait_for(0, &["> "]);
    ann.press("x");
    ann.wait_for(0, &["> x"]);
    stop.send(()).unwrap();
    let (status, written) = ann.wait_for_exit();
    assert_eq!(status.code(), Some(1));
    assert!(written.contains("opened elsewhere"), "{written}");
}
