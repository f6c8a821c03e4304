//! Clients that read slowly or send too fast: how it affects them, and nobody else.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use parlour::chat::inbox::BACKLOG_BYTES_MAX;
use parlour::chat::read_half::FRAMES_PER_MESSAGE;
use serde_json::json;

use crate::support::raw::{CLOSE, FIN, PING, PONG, RawClient, TEXT, masked, public};
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
fn a_client_that_reads_slowly_but_steadily_is_carried() {
    const MESSAGES: usize = 30;
    const CONTENT_BYTES: usize = 1 << 20;
    // One write takes longer than the timeout: the client reads 8 MB a second, or less.
    let server = TestServer::start(&[
        "--write-timeout=2s",
        "--max-message-bytes=1048576",
        "--queue-bytes=67108864",
    ]);
    let mut talker = Client::join(&server, "talker");
    let slow = RawClient::connect(&server, "name=slow");
    talker.next_of("join");
    let talking = thread::spawn(move || {
        let content = "x".repeat(CONTENT_BYTES);
        for _ in 0..MESSAGES {
            talker.say(&content);
            talker.next_of("public");
        }
        talker
    });
    let mut stream = slow.stream;
    let (mut chunk, mut received) = (vec![0; 400_000], 0);
    while received < MESSAGES * CONTENT_BYTES {
        match stream.read(&mut chunk).expect("the connection is open") {
            0 => panic!("the connection ended after {received} bytes"),
            bytes => received += bytes,
        }
        thread::sleep(Duration::from_millis(50));
    }
    let mut talker = talking.join().expect("everything was sent");
    // It is still a member.
    stream.write_all(&public("still here")).unwrap();
    assert_has(&talker.next_of("public"), json!({"user": "slow", "content": "still here"}));
}

/// Numbered public messages, as one client sends them.
fn numbered(numbers: std::ops::Range<usize>) -> Vec<u8> {
    numbers.flat_map(|number| public(&number.to_string())).collect()
}

/// Receives public messages with these numbers, in order. Returns the first and last `ts`.
fn receive_numbered(watcher: &mut Client, numbers: std::ops::Range<usize>) -> (u64, u64) {
    let stamps: Vec<u64> = numbers
        .map(|number| {
            let message = watcher.next_of("public");
            assert_eq!(message["content"], number.to_string());
            message["ts"].as_u64().expect("a number")
        })
        .collect();
    (stamps[0], stamps[stamps.len() - 1])
}

#[test]
fn a_client_that_sends_too_fast_is_slowed_down_notified_once_and_loses_nothing() {
    let server = TestServer::start(&["--message-rate", "50", "--message-burst", "5"]);
    let mut watcher = Client::join(&server, "watcher");
    let mut flood = RawClient::connect(&server, "name=flood");
    flood.next_of("join");
    flood.send(&numbered(0..30));
    let (first, last) = receive_numbered(&mut watcher, 0..30);
    // By the server's own clock: 5 of them at once, the rest 20 ms apart.
    assert!(last - first >= 480, "{} ms", last - first);
    // A second time, after it has caught up.
    flood.send(&numbered(30..60));
    receive_numbered(&mut watcher, 30..60);
    flood.send(&masked(FIN | TEXT, b"{}"));
    let mut codes = Vec::new();
    while codes.last().is_none_or(|code| code != "bad_request") {
        codes.push(flood.next_of("error")["code"].as_str().expect("text").to_owned());
    }
    assert_eq!(codes, ["slowed_down", "bad_request"]);
}

#[test]
fn a_long_message_costs_as_much_as_its_kibibytes() {
    let options = ["--message-rate", "10", "--message-burst", "20", "--max-message-bytes", "20000"];
    let server = TestServer::start(&options);
    let mut watcher = Client::join(&server, "watcher");
    let flood = RawClient::connect(&server, "name=flood");
    let long = public(&"x".repeat(20_000 - 100));
    (&flood.stream).write_all(&long.repeat(3)).unwrap();
    let stamps = [(); 3].map(|()| watcher.next_of("public")["ts"].as_u64().unwrap());
    // The first has all of the burst. Each costs 20 units of 100 ms.
    assert!(stamps[2] - stamps[0] >= 2000, "{stamps:?}");
}

#[test]
fn pings_and_the_close_are_answered_at_once_however_much_waits() {
    let server = TestServer::start(&["--message-rate", "100", "--message-burst", "5"]);
    let mut watcher = Client::join(&server, "watcher");
    let mut flood = RawClient::connect(&server, "name=flood");
    flood.next_of("join");
    let mut bytes = numbered(0..300);
    bytes.extend(masked(FIN | PING, b"now"));
    bytes.extend(masked(FIN | CLOSE, &1000u16.to_be_bytes()));
    flood.send(&bytes);
    let mut received = 0;
    loop {
        match flood.frame().expect("a pong and a close before the end") {
            (opcode, payload) if opcode == FIN | PONG => assert_eq!(payload, b"now"),
            (opcode, payload) if opcode == FIN | CLOSE => {
                assert_eq!(payload[..2], 1000u16.to_be_bytes());
                break;
            }
            _ => received += 1,
        }
    }
    assert!(received < 100, "{received} messages came before the close");
    assert_eq!(flood.frame(), None, "nothing follows a close frame");
    drop(flood);
    // All of it is delivered, and then the member leaves.
    receive_numbered(&mut watcher, 0..300);
    assert_has(&watcher.next(), json!({"type": "leave", "user": "flood"}));
}

#[test]
fn what_was_received_before_a_connection_broke_is_delivered() {
    let server = TestServer::start(&["--message-rate", "100", "--message-burst", "5"]);
    let mut watcher = Client::join(&server, "watcher");
    let mut flood = RawClient::connect(&server, "name=flood");
    flood.next_of("join");
    flood.send(&numbered(0..300));
    flood.send(&masked(FIN | PING, b"read"));
    assert_eq!(flood.control(), (FIN | PONG, b"read".to_vec()));
    // Closed with unread data, a socket sends a reset.
    drop(flood);
    receive_numbered(&mut watcher, 0..300);
    assert_has(&watcher.next(), json!({"type": "leave", "user": "flood"}));
    Client::join(&server, "flood");
}

#[test]
fn a_session_that_returns_comes_in_behind_what_it_sent_before() {
    let server = TestServer::start(&[
        "--message-rate",
        "100",
        "--message-burst",
        "5",
        "--leave-grace",
        "1h",
    ]);
    let mut watcher = Client::join(&server, "watcher");
    for broken in [true, false] {
        let mut flood = RawClient::connect(&server, "name=flood");
        let session = flood.next_of("welcome")["session"].as_str().expect("text").to_owned();
        flood.next_of("join");
        flood.send(&numbered(0..100));
        flood.send(&masked(FIN | PING, b"read"));
        assert_eq!(flood.control(), (FIN | PONG, b"read".to_vec()));
        let old = (!broken).then_some(flood);
        // Another one that gives up waiting changes nothing.
        let mut impatient = RawClient::connect(&server, &format!("name=flood&session={session}"));
        // Its pong shows that the hub knows it. Otherwise the next one might overtake it.
        impatient.send(&masked(FIN | PING, b"known"));
        assert_eq!(impatient.control(), (FIN | PONG, b"known".to_vec()));
        drop(impatient);
        let mut back = RawClient::connect(&server, &format!("name=flood&session={session}"));
        back.send(&numbered(100..101));
        receive_numbered(&mut watcher, 0..101);
        assert_eq!(back.next_of("welcome")["session"], session);
        if let Some(mut old) = old {
            assert_eq!(old.closed(), (4410, "replaced".to_owned()));
        }
        back.send(&masked(FIN | CLOSE, &1000u16.to_be_bytes()));
        assert_has(&watcher.next_of("leave"), json!({"user": "flood"}));
    }
}

#[test]
fn only_a_full_backlog_stops_the_reading_and_nothing_is_lost() {
    let server = TestServer::start(&["--message-rate", "1000", "--message-burst", "1"]);
    let mut watcher = Client::join(&server, "watcher");
    let mut flood = RawClient::connect(&server, "name=flood");
    flood.next_of("join");
    // Twice as much as the backlog holds, in messages of two kilobytes.
    let content = "x".repeat(2000);
    let message = json!({"type": "public", "content": content}).to_string();
    let messages = 2 * BACKLOG_BYTES_MAX / message.len();
    flood.send(&masked(FIN | TEXT, message.as_bytes()).repeat(messages));
    flood.send(&masked(FIN | PING, b"late"));
    // The ping is behind more than the backlog holds, so at least half of the messages come first.
    let mut received = 0;
    loop {
        match flood.frame().expect("a pong before the end") {
            (opcode, _) if opcode == FIN | PONG => break,
            _ => received += 1,
        }
    }
    assert!(received >= messages / 3, "{received} of {messages}");
    for _ in 0..messages {
        assert_eq!(watcher.next_of("public")["content"], content);
    }
}

/// Returns empty fragments of one message, as many as cost the sender `messages` messages.
fn empty_fragments(messages: usize) -> Vec<u8> {
    masked(0, b"").repeat(messages * FRAMES_PER_MESSAGE)
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

#[test]
fn a_stop_delivers_at_once_what_waits() {
    let mut server = TestServer::start(&["--message-rate", "5"]);
    let mut watcher = Client::join(&server, "watcher");
    let mut flood = RawClient::connect(&server, "name=flood");
    flood.next_of("join");
    // At the allowed rate this takes a minute.
    flood.send(&numbered(0..300));
    flood.send(&masked(FIN | PING, b"read"));
    while flood.control().1 != b"read" {}
    server.stop();
    receive_numbered(&mut watcher, 0..300);
    assert_eq!(watcher.closed(), (1001, "server_shutdown".to_owned()));
    assert_eq!(flood.closed(), (1001, "server_shutdown".to_owned()));
    server.ended().expect("a clean end within the timeout");
}
