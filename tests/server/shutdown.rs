//! The server's end: every client is notified, all messages are delivered, and every thread is
//! joined.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::json;

use crate::support::raw::{CLOSE, FIN, RawClient, frames, public, upgrade};
use crate::support::{Client, DEADLINE, TestServer, assert_has, eventually};

#[test]
fn every_client_is_closed_with_1001_and_newcomers_are_refused() {
    let mut server = TestServer::start(&[]);
    let mut clients: Vec<Client> =
        (0..10).map(|i| Client::join(&server, &format!("c{i}"))).collect();
    server.stop();
    for client in &mut clients {
        assert_eq!(client.closed(), (1001, "server_shutdown".to_owned()));
    }
    server.ended().expect("a clean end");
    TcpStream::connect(server.address).expect_err("the listener is closed");
}

#[test]
fn queued_messages_are_delivered_before_the_close_frame() {
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
fn a_client_that_does_not_read_does_not_delay_a_stop() {
    let mut server =
        TestServer::start(&["--shutdown-timeout", "2s", "--write-timeout", "60s", "--queue", "8"]);
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
fn a_client_that_does_not_reply_to_the_close_does_not_delay_a_stop() {
    let mut server = TestServer::start(&[]);
    let mut silent = RawClient::connect(&server, "name=silent");
    silent.next_of("join");
    server.stop();
    server.ended().expect("a clean end within the timeout");
    assert_eq!(silent.closed(), (1001, "server_shutdown".to_owned()));
}

#[test]
fn a_connection_without_a_request_receives_503() {
    let mut server = TestServer::start(&[]);
    let mut waiting = TcpStream::connect(server.address).unwrap();
    waiting.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
    // When a later connection was served, the earlier one was accepted.
    Client::join(&server, "later").close();
    server.stop();
    let mut response = String::new();
    waiting.read_to_string(&mut response).expect("a clean end");
    assert!(
        response.starts_with("HTTP/1.1 503 ") && response.to_lowercase().contains("retry-after: "),
        "{response}"
    );
    server.ended().expect("a clean end within the timeout");
}

/// How a newcomer's connection ended.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It joined, and left again.
    Left,
    /// It was notified that the server stops: by a close frame, or by a response.
    Notified,
    /// The server never accepted it, and the system closed it.
    NotAccepted,
}

/// Joins. Leaves at once, or stays until the end if the server stops in the meantime.
fn join(address: SocketAddr, stopping: &AtomicBool) -> Outcome {
    let Ok(mut stream) = TcpStream::connect(address) else { return Outcome::NotAccepted };
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut received = vec![0; 4096];
    if stream.write_all(upgrade("").as_bytes()).is_err() {
        return Outcome::NotAccepted;
    }
    match stream.read(&mut received) {
        Ok(length) => received.truncate(length),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => return Outcome::NotAccepted,
        Err(error) => panic!("expected a response or a reset, not {error}"),
    }
    if !stopping.load(Ordering::SeqCst) {
        return Outcome::Left;
    }
    stream.read_to_end(&mut received).expect("a clean end after a response");
    if received.starts_with(b"HTTP/1.1 503 ") {
        return Outcome::Notified;
    }
    let head =
        received.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a whole head") + 4;
    let mut rest = received.split_off(head);
    let (first, payload) = frames(&mut rest).pop().expect("a close frame");
    assert_eq!((first, &payload[..]), (FIN | CLOSE, &b"\x03\xe9server_shutdown"[..]));
    assert!(rest.is_empty(), "nothing follows a close frame");
    Outcome::Notified
}

#[test]
fn a_stop_under_full_load_closes_all_that_read_with_1001_in_time() {
    let mut server = TestServer::start(&["--shutdown-timeout=3s", "--write-timeout=1h"]);
    // These never read: they are dropped while their writers block.
    let mut talker = Client::join_room(&server, "talker", "stalled");
    let stalled: Vec<RawClient> = (0..5)
        .map(|number| RawClient::connect(&server, &format!("room=stalled&name=s{number}")))
        .collect();
    let content = "x".repeat(4000);
    let mut dropped = 0;
    while dropped < stalled.len() {
        talker.say(&content);
        dropped += usize::from(talker.next()["type"] == "leave");
    }

    let (received, joined, stopping) =
        (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for number in 0..20 {
            let mut member = RawClient::connect(&server, &format!("name=m{number}"));
            let received = &received;
            scope.spawn(move || {
                let mut stream = member.stream.try_clone().unwrap();
                let message = public("on and on");
                let own = format!(r#"{{"type":"public","user":"m{number}","#);
                // Each has a few in flight, so that all are busy and none falls behind.
                let _ = stream.write_all(&message.repeat(4));
                loop {
                    let (first, payload) =
                        member.frame().expect("a close frame comes before the end");
                    if first == FIN | CLOSE {
                        assert_eq!(payload, b"\x03\xe9server_shutdown");
                        assert_eq!(member.frame(), None, "nothing follows a close frame");
                        return;
                    }
                    received.fetch_add(1, Ordering::Relaxed);
                    if payload.starts_with(own.as_bytes()) {
                        // The server may have stopped reading.
                        let _ = stream.write_all(&message);
                    }
                }
            });
        }
        let newcomers: Vec<_> = (0..8)
            .map(|_| {
                let (joined, stopping, address) = (&joined, &stopping, server.address);
                scope.spawn(move || {
                    loop {
                        let outcome = join(address, stopping);
                        if outcome != Outcome::Left {
                            return outcome;
                        }
                        joined.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let at_work =
            || received.load(Ordering::Relaxed) > 20_000 && joined.load(Ordering::Relaxed) > 100;
        eventually("the load", || at_work().then_some(()));
        stopping.store(true, Ordering::SeqCst);
        server.stop();
        server.ended().expect("a clean end within the timeout");
        for newcomer in newcomers {
            assert_ne!(newcomer.join().expect("the newcomer does not panic"), Outcome::Left);
        }
    });
}
