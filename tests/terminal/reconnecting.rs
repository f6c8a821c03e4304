//! `parlour chat` after its connection was closed or broke.

use serde_json::{Value, json};
use tungstenite::Message;

use crate::support::pipe::Pipe;
use crate::support::proxy::Proxy;
use crate::support::scripted::{accept, close, next_text, scripted_server, welcome};
use crate::support::{Client, TestServer};

#[test]
fn after_a_broken_connection_nothing_is_lost_or_repeated() {
    let server = TestServer::start(&["--leave-grace", "1h"]);
    let proxy = Proxy::start(server.address);
    let mut watcher = Client::join(&server, "watcher");
    let mut ann = Pipe::start(proxy.address, &["--name", "Ann", "--json"]);
    ann.next_json_where("type", "join");
    ann.write_line("one");
    ann.next_json_where("content", "one");
    // The next message arrives, and its confirmation does not.
    proxy.stall_all();
    ann.write_line("two");
    watcher.next_where(|message| message["content"] == "two");
    watcher.say("missed");
    watcher.next_where(|message| message["content"] == "missed");
    proxy.cut_all();
    ann.write_line("three");
    assert_eq!(ann.next_json_where("type", "welcome")["recovered"], true);
    for content in ["two", "missed", "three"] {
        assert_eq!(ann.next_json_where("type", "public")["content"], content);
    }
    let (status, rest, errors) = ann.finish();
    assert!(status.success() && rest.is_empty(), "{status:?} {rest:?}");
    assert!(errors.contains("reconnecting") && errors.contains("connected again"), "{errors}");
    // Nobody saw it leave before it did.
    let kinds = |message: Value| {
        (message["type"].clone(), message["user"].clone(), message["content"].clone())
    };
    assert_eq!(kinds(watcher.next()), (json!("public"), json!("Ann"), json!("three")));
    assert_eq!(watcher.next()["type"], "leave");
}

#[test]
fn a_room_that_started_again_is_noted() {
    let mut server = TestServer::start(&[]);
    let address = server.address.to_string();
    let mut ann = Pipe::start(server.address, &["--name", "Ann"]);
    ann.write_line("before");
    ann.next_line_with("Ann: before");
    server.stop();
    server.ended().expect("a clean end");
    let _again = TestServer::start(&["--listen", &address]);
    ann.write_line("hello");
    ann.next_line_with("Ann: hello");
    let (status, _, errors) = ann.finish();
    assert!(status.success(), "{status:?}");
    for part in ["the server is stopping", "reconnecting", "started again"] {
        assert!(errors.contains(part), "{part:?} in {errors}");
    }
}

#[test]
fn a_client_that_is_replaced_ends() {
    let server = TestServer::start(&[]);
    let mut ann = Pipe::start(server.address, &["--name", "Ann", "--json"]);
    let welcome = ann.next_json_where("type", "welcome");
    let session = welcome["session"].as_str().unwrap();
    let _elsewhere = Client::connect(&server, &format!("name=Ann&session={session}"));
    let (status, _, errors) = ann.wait_for_exit();
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains("opened elsewhere"), "{errors}");
}

#[test]
fn a_returning_client_waits_for_its_own_name() {
    let (address, server) = scripted_server(|listener| {
        accept(listener).send(welcome("one")).unwrap();
        // The server starts again. Its first welcome is lost, and the session with it.
        drop(accept(listener));
        close(accept(listener), 4409, "name_taken");
        let mut socket = accept(listener);
        socket.send(welcome("two")).unwrap();
        let sent = next_text(&mut socket);
        let copy = json!({"type": "public", "user": "Ann", "content": sent["content"],
            "room": "r", "seq": 1, "ref": sent["ref"], "ts": 1});
        socket.send(Message::text(copy.to_string())).unwrap();
        while socket.read().is_ok() {}
    });
    let mut ann = Pipe::start(address, &["--name", "Ann"]);
    ann.write_line("hello");
    assert_eq!(ann.next_line(), "Ann: hello");
    let (status, _, errors) = ann.finish();
    assert!(status.success() && errors.contains("the name is still taken"), "{status:?} {errors}");
    server.join().unwrap();
}

#[test]
fn a_returning_client_ends_if_another_has_its_name() {
    let (address, server) = scripted_server(|listener| {
        accept(listener).send(welcome("one")).unwrap();
        close(accept(listener), 4409, "name_taken");
    });
    let (status, _, errors) = Pipe::start(address, &["--name", "Ann"]).wait_for_exit();
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains("does not let you in: name_taken"), "{errors}");
    server.join().unwrap();
}
