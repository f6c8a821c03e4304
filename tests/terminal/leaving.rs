//! `parlour chat` where the line, the server or its user end at a bad moment.

use std::process::Command;
use std::sync::mpsc::channel;

use serde_json::json;
use tungstenite::Message;

use crate::support::pipe::Pipe;
use crate::support::pty::{Pty, terminal};
use crate::support::scripted::{accept, close, next_text, scripted_server, welcome};
use crate::support::{Client, DEADLINE, TestServer};

#[test]
fn a_name_taken_by_oneself_is_waited_for() {
    let (address, server) = scripted_server(|listener| {
        accept(listener).send(welcome("one")).unwrap();
        // It has started anew. Its first welcome gets lost, and the session with it.
        drop(accept(listener));
        close(accept(listener), 4409, "name_taken");
        let mut socket = accept(listener);
        socket.send(welcome("two")).unwrap();
        let sent = next_text(&mut socket);
        let receipt = json!({"type": "public", "user": "Ann", "content": sent["content"], "room": "r", "seq": 1,
            "ref": sent["ref"], "ts": 1});
        socket.send(Message::text(receipt.to_string())).unwrap();
        while socket.read().is_ok() {}
    });
    let mut ann = Pipe::start(address, &["--name", "Ann"]);
    ann.say("hello");
    assert_eq!(ann.next(), "Ann: hello");
    let (status, _, errors) = ann.ended();
    assert!(status.success() && errors.contains("the name is still taken"), "{status:?} {errors}");
    server.join().unwrap();
}

#[test]
fn a_name_taken_by_another_ends_a_return() {
    let (address, server) = scripted_server(|listener| {
        accept(listener).send(welcome("one")).unwrap();
        close(accept(listener), 4409, "name_taken");
    });
    let (status, _, errors) = Pipe::start(address, &["--name", "Ann"]).wait();
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains("does not let you in: name_taken"), "{errors}");
    server.join().unwrap();
}

/// What the editor begins each line with.
const LINE_BEGINS: &str = "\x1b[?2004h";

/// Types `lines`, and waits until all have been read. Between two of them, a key such as Ctrl-D means something else.
fn paste(pty: &mut Pty, lines: &[impl AsRef<str>]) {
    pty.wait_for(0, &["you are", "> "]);
    lines.iter().for_each(|line| pty.press(&format!("{}\r", line.as_ref())));
    pty.wait_for(0, &[&vec![LINE_BEGINS; lines.len() + 1][..], &["> "]].concat());
}

#[test]
fn who_leaves_after_many_lines_waits_until_they_are_read() {
    // Three seconds' worth of lines.
    let server =
        TestServer::start(&["--message-rate", "20", "--message-burst", "1", "--leave-grace", "1h"]);
    let mut watcher = Client::join(&server, "watcher");
    let mut ann = terminal(server.address, "Ann", &[]);
    let lines: Vec<String> = (1..=60).map(|n| format!("line {n}")).collect();
    paste(&mut ann, &lines);
    ann.press("\x04");
    let (status, written) = ann.ended();
    assert!(status.success(), "{status:?} {written}");
    for line in lines {
        assert_eq!(watcher.next_of("public")["content"], line);
    }
    watcher.next_of("leave");
}

#[test]
fn who_asks_twice_leaves_at_once_and_hears_what_has_no_receipt() {
    let server = TestServer::start(&["--message-rate", "1", "--message-burst", "1"]);
    let mut watcher = Client::join(&server, "watcher");
    // After a Ctrl-D or Ctrl-C no line is edited any more, and the terminal makes a signal of a second Ctrl-C.
    let signal = None;
    for (first, second) in [
        ("\x04", Some("\x04")),
        ("\x03", signal),
        ("/quit\r", Some("\x03")),
        ("/quit\r", Some("/quit\r")),
    ] {
        let mut ann = terminal(server.address, "Ann", &[]);
        paste(&mut ann, &["x"; 20]);
        ann.press(first);
        let at = ann.wait_for(0, &["Ctrl-C leaves at once"]);
        if first.starts_with("/quit") {
            ann.press("more\r");
            ann.wait_for(at, &["not sent any more"]);
        }
        match second {
            Some(keys) => ann.press(keys),
            None => assert!(
                Command::new("kill")
                    .args(["-INT", &ann.pid().to_string()])
                    .status()
                    .unwrap()
                    .success()
            ),
        }
        let (status, written) = ann.ended();
        assert!(
            !status.success() && written.contains("which may not have arrived"),
            "{status:?} {written}"
        );
        let mut said = 0;
        while watcher.next()["type"] != "leave" {
            said += 1;
        }
        assert!(said < 20, "it did not wait for the rest");
    }
}

#[test]
fn a_line_that_breaks_after_the_goodbye_is_told() {
    let (address, server) = scripted_server(|listener| {
        let mut socket = accept(listener);
        socket.send(welcome("one")).unwrap();
        assert_eq!(next_text(&mut socket)["content"], "hello");
        while !socket.read().expect("a goodbye").is_close() {}
    });
    let mut ann = terminal(address, "Ann", &[]);
    paste(&mut ann, &["hello"]);
    ann.press("\x04");
    let (status, written) = ann.ended();
    assert_eq!(status.code(), Some(1));
    assert!(written.contains("no receipt came for 1 of your messages"), "{written}");
    server.join().unwrap();
}

#[test]
fn what_waits_for_the_welcome_is_not_lost_quietly() {
    let (tell, told) = channel();
    let (address, server) = scripted_server(move |listener| {
        let mut socket = accept(listener);
        // Shows that the connection is open; the welcome does not come.
        let early = json!({"type": "public", "user": "Bob", "content": "early", "room": "r", "seq": 1, "ts": 1});
        socket.send(Message::text(early.to_string())).unwrap();
        told.recv_timeout(DEADLINE).expect("a word");
    });
    let mut ann = terminal(address, "Ann", &[]);
    ann.wait_for(0, &["early", "> "]);
    ann.press("hello\r/quit\r");
    let (status, written) = ann.ended();
    assert_eq!(status.code(), Some(1));
    assert!(written.contains("1 of your messages could not be sent"), "{written}");
    tell.send(()).unwrap();
    server.join().unwrap();
}
