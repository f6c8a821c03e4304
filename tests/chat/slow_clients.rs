//! Clients that read slowly or send too fast: how it affects them, and nobody else.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use parlour::chat::read_half::FRAGMENTS_PER_MESSAGE;
use serde_json::json;

use crate::support::raw::{CLOSE, FIN, PING, RawClient, TEXT, masked, public};
use crate::support::{Client, DEADLINE, TestServer, assert_has};

/// Lets `talker` talk until it receives that `name` has left.
fn talk_until_gone(talker: &mut Client, name: &str) {
    let content = "x".repeat(4000);
    loop {
        talker.say(&content);
        loop {
            let message = talker.next();
            if message["type"] == "leave" {
                assert_has(&message, json!({"user": name}));
                return;
            }
            if message["type"] == "public" {
                break;
            }
        }
    }
}

#[test]
fn a_client_that_does_not_read_is_dropped_and_the_room_goes_on() {
    let server = TestServer::start(&["--queue", "4", "--write-timeout", "500ms"]);
    let mut talker = Client::join(&server, "talker");
    let _stalled = Client::join(&server, "stalled");
    talk_until_gone(&mut talker, "stalled");
    Client::join(&server, "stalled");
    talker.say("still here");
    talker.next_where(|message| message["content"] == "still here");
}

#[test]
fn a_burst_of_private_messages_drops_nobody_that_reads() {
    let server = TestServer::start(&[]);
    let mut ann = Client::join(&server, "Ann");
    let mut bob = Client::join(&server, "Bob");
    let mut sender = tungstenite::WebSocket::from_raw_socket(
        ann.stream().try_clone().unwrap(),
        tungstenite::protocol::Role::Client,
        None,
    );
    let sending = thread::spawn(move || {
        for number in 0..5000 {
            let text =
                json!({"type": "private", "to": "Bob", "content": number.to_string()}).to_string();
            sender.send(tungstenite::Message::text(text)).unwrap();
        }
    });
    let reading = thread::spawn(move || {
        for number in 0..5000 {
            assert_eq!(ann.next_of("private")["content"], number.to_string());
        }
    });
    for number in 0..5000 {
        assert_eq!(bob.next_of("private")["content"], number.to_string());
    }
    sending.join().unwrap();
    reading.join().unwrap();
}

#[test]
fn the_smallest_queue_is_enough_to_join() {
    let server = TestServer::start(&["--queue", "1", "--queue-bytes", "0"]);
    for round in 0..50 {
        let mut client = Client::join(&server, &format!("c{round}"));
        client.say("x");
        client.next_of("public");
        assert_eq!(client.close(), 1000);
    }
}

/// Lets a client be dropped for not reading, then reads to the end. Returns how many public
/// messages it received.
fn messages_until_1013(options: &[&str]) -> u64 {
    let server = TestServer::start(&[&["--write-timeout", "20s"], options].concat());
    let mut talker = Client::join(&server, "talker");
    let mut slow = RawClient::connect(&server, "name=slow");
    slow.next_of("join");
    talk_until_gone(&mut talker, "slow");
    let mut seq = 0;
    let closed = loop {
        let (first, payload) = slow.frame().expect("a close frame comes before the end");
        if first == FIN | CLOSE {
            break payload;
        }
        let message: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        if message["type"] == "public" {
            seq += 1;
            assert_eq!(message["seq"], seq, "no gap before the end");
        }
    };
    assert_eq!(closed, [&1013u16.to_be_bytes()[..], b"too_slow"].concat());
    seq
}

#[test]
fn a_client_dropped_with_1013_can_still_read_all_messages_before_it() {
    assert!(messages_until_1013(&["--queue", "4"]) > 4);
}

#[test]
fn a_queue_is_full_in_bytes_long_before_it_is_full_in_entries() {
    // The system's buffers take a few thousand messages of 4,000 bytes.
    assert!(messages_until_1013(&["--queue", "65536", "--queue-bytes", "20000"]) < 20_000);
}

#[test]
fn a_client_that_trickles_does_not_hold_its_writer_beyond_the_write_timeout() {
    // The shutdown's timeout is no help here: only the writer's own ends the connection.
    let mut server =
        TestServer::start(&["--queue", "4", "--write-timeout", "1s", "--shutdown-timeout", "1h"]);
    let mut talker = Client::join(&server, "talker");
    let trickle = Client::join(&server, "trickle");
    let mut stream = trickle.stream().try_clone().unwrap();
    let reading = thread::spawn(move || {
        let mut chunk = [0; 1000];
        while stream.read(&mut chunk).is_ok_and(|n| n > 0) {
            thread::sleep(Duration::from_millis(50));
        }
    });
    talk_until_gone(&mut talker, "trickle");
    drop(talker);
    server.stop();
    server.ended().expect("every thread joined, including the writer");
    trickle.stream().shutdown(Shutdown::Both).unwrap();
    reading.join().unwrap();
}

#[test]
fn a_client_that_sends_too_fast_is_read_slowly_and_loses_nothing() {
    let server = TestServer::start(&["--message-rate", "50", "--message-burst", "5"]);
    let mut watcher = Client::join(&server, "watcher");
    let mut flood = RawClient::connect(&server, "name=flood");
    flood.next_of("join");
    let mut bytes = Vec::new();
    for number in 0..30 {
        bytes.extend(public(&number.to_string()));
        bytes.extend(masked(FIN | PING, b""));
    }
    flood.send(&bytes);
    let mut stamps = Vec::new();
    for number in 0..30 {
        let message = watcher.next_of("public");
        assert_eq!(message["content"], number.to_string());
        stamps.push(message["ts"].as_u64().unwrap());
    }
    // By the server's clock: of 29 messages and as many pings, 5 at once and the rest 20 ms apart.
    assert!(stamps[29] - stamps[0] >= 1000, "{stamps:?}");
}

/// Returns empty fragments of one message, as many as cost the sender `messages` messages.
fn empty_fragments(messages: usize) -> Vec<u8> {
    masked(0, b"").repeat(messages * FRAGMENTS_PER_MESSAGE)
}

#[test]
fn a_message_of_many_fragments_is_read_as_slowly_as_many_messages() {
    let server = TestServer::start(&["--message-rate", "100", "--message-burst", "1"]);
    let mut watcher = Client::join(&server, "watcher");
    let flood = RawClient::connect(&server, "name=flood");
    let mut stream = flood.stream.try_clone().unwrap();
    let flooding = thread::spawn(move || {
        let mut send = |bytes: &[u8]| stream.write_all(bytes).expect("the connection is open");
        send(&public("1"));
        send(&masked(TEXT, br#"{"type":"public","content":"2""#));
        send(&empty_fragments(100));
        send(&masked(FIN, b"}"));
    });
    let before = watcher.next_of("public");
    watcher.say("3");
    assert_has(&watcher.next_of("public"), json!({"user": "watcher", "content": "3"}));
    let after = watcher.next_of("public");
    flooding.join().unwrap();
    assert_has(&after, json!({"user": "flood", "content": "2"}));
    let took = after["ts"].as_u64().unwrap() - before["ts"].as_u64().unwrap();
    // By the server's clock: 100 times 10 ms, apart from fragments that came in one read with a
    // message.
    assert!(took >= 950, "{took} ms");
}

#[test]
fn a_flood_of_empty_fragments_does_not_delay_a_stop() {
    let mut server = TestServer::start(&["--message-rate", "1", "--message-burst", "1"]);
    let mut flood = RawClient::connect(&server, "name=flood");
    flood.next_of("join");
    let mut stream = flood.stream.try_clone().unwrap();
    let (sender, full) = std::sync::mpsc::channel();
    let flooding = thread::spawn(move || {
        stream.write_all(&masked(TEXT, b"{")).unwrap();
        let fragments = empty_fragments(100);
        let _ = stream.set_write_timeout(Some(Duration::from_millis(200)));
        // First until the buffers are full, since the server reads so slowly. Then until the
        // connection ends.
        while stream.write_all(&fragments).is_ok() {}
        sender.send(()).unwrap();
        let has_ended = |error: io::Error| error.kind() != ErrorKind::WouldBlock;
        while !stream.write(&fragments).is_err_and(has_ended) {}
    });
    full.recv_timeout(DEADLINE).expect("the flood is read slowly");
    server.stop();
    assert_eq!(flood.closed(), (1001, "server_shutdown".to_owned()));
    server.ended().expect("a clean end within the timeout");
    // While its window is shut, TCP does not report the end, and the thread would try for minutes.
    let _ = flood.stream.shutdown(Shutdown::Both);
    flooding.join().unwrap();
}

#[test]
fn a_client_that_pings_and_never_reads_leaves_no_thread() {
    let mut server = TestServer::start(&["--write-timeout", "500ms", "--shutdown-timeout", "1h"]);
    let mut watcher = Client::join(&server, "watcher");
    let pinger = RawClient::connect(&server, "name=pinger");
    let mut stream = pinger.stream.try_clone().unwrap();
    let pinging =
        thread::spawn(move || while stream.write_all(&masked(FIN | PING, &[b'x'; 125])).is_ok() {});
    assert_has(&watcher.next_of("leave"), json!({"user": "pinger"}));
    pinging.join().unwrap();
    drop(watcher);
    server.stop();
    server.ended().expect("every thread joined");
}

/// Sends so many messages at once that reading them takes a minute at the rate of these tests.
fn flood(client: &mut RawClient) {
    client.next_of("join");
    client.send(&public("x").repeat(300));
}

#[test]
fn a_client_with_many_unread_messages_does_not_delay_a_stop() {
    let mut server = TestServer::start(&["--message-rate", "5"]);
    let mut client = RawClient::connect(&server, "name=flood");
    flood(&mut client);
    client.next_of("public");
    server.stop();
    server.ended().expect("a clean end within the timeout");
    assert_eq!(client.closed(), (1001, "server_shutdown".to_owned()));
}

#[test]
fn a_client_that_resets_with_many_unread_messages_is_gone_at_once() {
    let server = TestServer::start(&["--message-rate", "5", "--ping-interval", "100ms"]);
    let mut watcher = Client::join(&server, "watcher");
    let mut client = RawClient::connect(&server, "name=flood");
    flood(&mut client);
    watcher.next_of("public");
    // A socket that is closed with unread data sends a reset, which fails the next write to it.
    drop(client);
    assert_has(&watcher.next_of("leave"), json!({"user": "flood"}));
    Client::join(&server, "flood");
}
