//! The end of the server: everybody is told, what was said is delivered, and every thread is joined.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;

use crate::support::raw::RawClient;
use crate::support::{Client, TestServer, assert_has};

#[test]
fn everyone_is_told_1001_and_newcomers_are_refused() {
    let mut server = TestServer::start(&[]);
    let mut clients: Vec<Client> = (0..10).map(|i| Client::join(&server, &format!("c{i}"))).collect();
    server.stop();
    for client in &mut clients {
        assert_eq!(client.closed(), (1001, "server_shutdown".to_owned()));
    }
    server.ended().expect("a clean end");
    TcpStream::connect(server.address).expect_err("nobody listens any more");
}

#[test]
fn what_is_queued_is_delivered_before_the_goodbye() {
    let mut server = TestServer::start(&["--queue", "1024"]);
    let mut talker = Client::join(&server, "talker");
    let mut listener = Client::join(&server, "listener");
    for number in 0..300 {
        talker.say(&number.to_string());
    }
    talker.next_where(|message| message["content"] == "299");
    server.stop();
    for number in 0..300 {
        assert_has(&listener.next_of("public"), json!({"content": number.to_string()}));
    }
    assert_eq!(listener.closed().0, 1001);
    assert_eq!(talker.closed().0, 1001);
    server.ended().expect("a clean end");
}

#[test]
fn a_stalled_client_cannot_hold_it() {
    let mut server = TestServer::start(&["--shutdown-timeout", "2s", "--write-timeout", "60s", "--queue", "8"]);
    let mut talker = Client::join(&server, "talker");
    let mut stalled = RawClient::connect(&server, "name=stalled");
    stalled.next_of("join");
    let content = "x".repeat(4000);
    loop {
        talker.say(&content);
        if talker.next_where(|message| message["type"] != "join")["type"] == "leave" {
            break;
        }
    }
    server.stop();
    server.ended().expect("a clean end within the timeout");
}

#[test]
fn a_client_that_does_not_answer_the_close_cannot_hold_it() {
    let mut server = TestServer::start(&[]);
    let mut silent = RawClient::connect(&server, "name=silent");
    silent.next_of("join");
    server.stop();
    server.ended().expect("a clean end within the timeout");
    assert_eq!(silent.closed(), (1001, "server_shutdown".to_owned()));
}

#[test]
fn connections_without_a_request_are_told_503() {
    let mut server = TestServer::start(&[]);
    let mut waiting = TcpStream::connect(server.address).unwrap();
    waiting.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
    // Once a later connection has been served, the earlier one has been accepted.
    Client::join(&server, "later").close();
    server.stop();
    let mut response = String::new();
    waiting.read_to_string(&mut response).expect("a clean end");
    assert!(response.starts_with("HTTP/1.1 503 ") && response.to_lowercase().contains("retry-after: "), "{response}");
    server.ended().expect("a clean end within the timeout");
}
