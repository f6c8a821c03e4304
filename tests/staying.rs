//! `parlour chat` where the line, the server or its user end at a bad moment.

use serde_json::json;
use tungstenite::Message;

use crate::support::pipe::Pipe;
use crate::support::scripted::{accept, close, next_text, scripted_server, welcome};

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
