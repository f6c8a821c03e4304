//! How connections end: each close code of PROTOCOL.md, seen as a frame and a clean end of the
//! stream.

use std::net::Shutdown;

use parlour::protocol::message::frame_bytes_max;
use serde_json::json;

use crate::support::raw::{BINARY, CLOSE, FIN, PING, PONG, RawClient, TEXT, header, masked};
use crate::support::{Client, TestServer, assert_has};

/// What the server answers to a member that sends these bytes, and that the others see it leave.
fn close_of(bytes: &[u8], options: &[&str]) -> (u16, String) {
    let server = TestServer::start(options);
    let mut watcher = Client::join(&server, "watcher");
    let mut client = RawClient::connect(&server, "name=bad");
    client.next_of("join");
    client.send(bytes);
    let closed = client.closed();
    assert_has(&watcher.next_of("leave"), json!({"user": "bad"}));
    closed
}

fn code(code: u16, reason: &str) -> (u16, String) {
    (code, reason.to_owned())
}

#[test]
fn the_clients_own_close_is_answered_with_1000() {
    assert_eq!(close_of(&masked(FIN | CLOSE, b""), &[]), code(1000, ""));
    assert_eq!(close_of(&masked(FIN | CLOSE, &[0x03, 0xe9, b'x']), &[]), code(1000, ""));
    assert_eq!(close_of(&masked(FIN | CLOSE, &1002u16.to_be_bytes()), &[]), code(1000, ""));
    let server = TestServer::start(&[]);
    assert_eq!(Client::join(&server, "polite").close(), 1000);
}

#[test]
fn a_broken_protocol_is_1002() {
    let hello = br#"{"type":"public","content":"x"}"#;
    let mut unmasked = vec![FIN | TEXT, hello.len() as u8];
    unmasked.extend(hello);
    let cases = [
        ("unmasked", unmasked),
        ("unmasked control frame", vec![FIN | PING, 0]),
        ("first reserved bit", masked(FIN | 0x40 | TEXT, hello)),
        ("second reserved bit", masked(FIN | 0x20 | TEXT, hello)),
        ("third reserved bit", masked(FIN | 0x10 | PING, b"")),
        ("reserved opcode, by its header alone", header(FIN | 0x3, 1000)),
        ("last reserved opcode", masked(FIN | 0x7, hello)),
        ("reserved control opcode, by its header alone", header(FIN | 0xB, 100)),
        ("last reserved control opcode", masked(FIN | 0xF, b"")),
        ("fragmented ping", masked(PING, b"")),
        ("fragmented pong", masked(PONG, b"")),
        ("fragmented close", masked(CLOSE, b"")),
        ("ping too long", masked(FIN | PING, &[b'x'; 126])),
        ("pong too long", masked(FIN | PONG, &[b'x'; 4000])),
        ("close too long", masked(FIN | CLOSE, &[0x03; 126])),
        ("continuation of nothing", masked(FIN, hello)),
        ("fragment of nothing", masked(0, hello)),
        (
            "message in the middle of another",
            [masked(TEXT, b"{"), masked(FIN | TEXT, hello)].concat(),
        ),
        ("close of one byte", masked(FIN | CLOSE, b"\x03")),
        ("close code that must not be sent", masked(FIN | CLOSE, &1005u16.to_be_bytes())),
        ("close code that nobody has defined", masked(FIN | CLOSE, &2999u16.to_be_bytes())),
        ("close code out of range", masked(FIN | CLOSE, &999u16.to_be_bytes())),
    ];
    for (what, bytes) in cases {
        assert_eq!(close_of(&bytes, &[]), code(1002, ""), "{what}");
    }
}

#[test]
fn a_binary_message_is_1003() {
    assert_eq!(close_of(&masked(FIN | BINARY, b"x"), &[]), code(1003, "binary"));
}

#[test]
fn text_that_is_not_utf_8_is_1007() {
    assert_eq!(close_of(&masked(FIN | TEXT, b"{\"type\":\"\xff\"}"), &[]), code(1007, ""));
    let cases: [(&str, Vec<u8>); 6] = [
        ("a surrogate", masked(FIN | TEXT, b"\xed\xa0\x80")),
        ("an overlong form", masked(FIN | TEXT, b"\xc0\xaf")),
        ("a character cut off by the end", masked(FIN | TEXT, b"\xe4\xbd")),
        (
            "a character cut off by the end of the last fragment",
            [masked(TEXT, b"\xe4"), masked(FIN, b"\xbd")].concat(),
        ),
        // Of these the message's end never comes: they end as soon as they are wrong.
        ("in the first fragment", masked(TEXT, b"{\xff")),
        (
            "split over fragments",
            [masked(TEXT, b"\xf4"), masked(0, b""), masked(0, b"\x90")].concat(),
        ),
    ];
    for (what, bytes) in cases {
        assert_eq!(close_of(&bytes, &[]), code(1007, ""), "{what}");
    }
    assert_eq!(
        close_of(&masked(FIN | CLOSE, b"\x03\xe8\xff"), &[]),
        code(1007, ""),
        "in a close frame"
    );
}

#[test]
fn a_message_may_be_cut_anywhere_even_within_a_character() {
    let server = TestServer::start(&[]);
    let mut client = RawClient::connect(&server, "name=cutter");
    let text = json!({"type": "public", "content": "\u{1F600} 你好"}).to_string().into_bytes();
    client.send(&masked(TEXT, b""));
    for byte in text {
        client.send(&masked(0, &[byte]));
        client.send(&masked(FIN | PONG, b"between fragments"));
    }
    client.send(&masked(FIN, b""));
    assert_eq!(client.next_of("public")["content"], "\u{1F600} 你好");
}

#[test]
fn a_message_over_the_limit_is_1009_by_its_header_alone() {
    let limit = ["--max-message-bytes", "100"];
    // No more than its header ever comes, nor could a buffer for the longer ones be had.
    for length in [frame_bytes_max(100) as u64 + 1, 1 << 40, 1 << 62, u64::MAX] {
        for first in [FIN | TEXT, TEXT, FIN | BINARY, FIN | PING] {
            assert_eq!(
                close_of(&header(first, length), &limit),
                code(1009, "too_big"),
                "{first:#x} {length}"
            );
        }
    }
    let content = "x".repeat(101);
    let text = json!({"type": "public", "content": content}).to_string();
    assert_eq!(close_of(&masked(FIN | TEXT, text.as_bytes()), &limit), code(1009, "too_big"));
    // In fragments that are each small enough.
    let mut fragments = masked(TEXT, &[b' '; 1000]);
    for _ in 0..3 {
        fragments.extend(masked(0, &[b' '; 1000]));
    }
    assert_eq!(close_of(&fragments, &limit), code(1009, "too_big"));
    // In one fragment after another, by the header of the one that goes over.
    let mut fragments = masked(TEXT, &[b' '; 1000]);
    fragments.extend(header(0, frame_bytes_max(100) as u64 + 1));
    assert_eq!(close_of(&fragments, &limit), code(1009, "too_big"));
}

#[test]
fn what_follows_a_close_frame_is_not_heard() {
    let server = TestServer::start(&[]);
    let mut watcher = Client::join(&server, "watcher");
    let mut client = RawClient::connect(&server, "name=leaver");
    client.next_of("join");
    let said = masked(FIN | TEXT, br#"{"type":"public","content":"too late"}"#);
    let close = masked(FIN | CLOSE, &1000u16.to_be_bytes());
    client.send(
        &[close.clone(), said, masked(FIN | PING, b""), close, masked(FIN | 0x3, b"")].concat(),
    );
    assert_eq!(client.closed(), code(1000, ""));
    watcher.next_where(|message| {
        assert_ne!(message["type"], "public", "{message}");
        message["type"] == "leave"
    });
}

#[test]
fn half_a_frame_and_then_silence_is_4408() {
    let server = TestServer::start(&["--ping-interval", "50ms", "--ping-timeout", "400ms"]);
    let said = masked(FIN | TEXT, br#"{"type":"public","content":"x"}"#);
    let halves =
        [said[..1].to_vec(), said[..4].to_vec(), said[..20].to_vec(), masked(TEXT, b"{\"type")];
    for half in halves {
        let mut client = RawClient::connect(&server, "name=half");
        client.next_of("join");
        client.send(&half);
        assert_eq!(client.closed(), code(4408, "ping_timeout"), "{half:?}");
    }
}

#[test]
fn a_client_that_says_nothing_for_the_ping_timeout_is_4408_and_its_name_comes_free() {
    let server = TestServer::start(&["--ping-interval", "50ms", "--ping-timeout", "400ms"]);
    let mut watcher = Client::join(&server, "watcher");
    // It reads, and so do its pings come, but it answers none: as if its cable were pulled.
    let mut silent = RawClient::connect(&server, "name=silent");
    assert_eq!(silent.control(), (FIN | PING, Vec::new()));
    // The watcher reads all the while, by which tungstenite answers its pings.
    assert_has(&watcher.next_of("leave"), json!({"user": "silent"}));
    assert_eq!(silent.closed(), code(4408, "ping_timeout"));
    Client::join(&server, "silent");
    watcher.say("still alive");
    assert_has(&watcher.next_of("public"), json!({"user": "watcher"}));
}

#[test]
fn pings_are_answered_with_what_they_carry() {
    let server = TestServer::start(&[]);
    let mut client = RawClient::connect(&server, "name=pinger");
    for number in 0..50u8 {
        client.send(&masked(FIN | PING, &[number; 125]));
        assert_eq!(client.control(), (FIN | PONG, vec![number; 125]));
    }
}

#[test]
fn of_a_flood_of_pings_the_newest_is_answered_even_if_the_answers_are_read_late() {
    const PINGS: u32 = 100_000;
    let server = TestServer::start(&["--ping-interval", "1h", "--ping-timeout", "2h"]);
    let mut client = RawClient::connect(&server, "name=pinger");
    client.next_of("join");
    let ping = |number: u32| masked(FIN | PING, &number.to_be_bytes());
    // No answer is read before all are sent: a server that waited for that would be stuck.
    client.send(&(0..PINGS).flat_map(ping).collect::<Vec<u8>>());
    let mut last = None;
    while last != Some(PINGS - 1) {
        let (opcode, payload) = client.control();
        assert_eq!(opcode, FIN | PONG);
        let number = u32::from_be_bytes(payload.try_into().expect("four bytes"));
        assert!(last < Some(number), "{number} after {last:?}");
        last = Some(number);
    }
}

#[test]
fn a_client_that_ends_its_half_without_a_close_frame_gets_none() {
    let server = TestServer::start(&[]);
    let mut watcher = Client::join(&server, "watcher");
    let mut client = RawClient::connect(&server, "name=half");
    client.next_of("join");
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.frame(), None, "1006 must not be sent");
    assert_has(&watcher.next_of("leave"), json!({"user": "half"}));
}

#[test]
fn a_close_is_seen_by_a_client_that_still_sends() {
    let server = TestServer::start(&[]);
    let mut client = RawClient::connect(&server, "name=busy");
    client.next_of("join");
    let mut bytes = masked(FIN | BINARY, b"x");
    for _ in 0..100 {
        bytes.extend(masked(FIN | TEXT, &[b'x'; 4000]));
    }
    client.send(&bytes);
    assert_eq!(client.closed(), code(1003, "binary"));
}

#[test]
fn any_frame_counts_as_life() {
    let server = TestServer::start(&["--ping-interval", "100ms", "--ping-timeout", "600ms"]);
    // Neither answers a ping; one sends pongs of its own accord, the other data.
    let mut ponging = RawClient::connect(&server, "name=ponging");
    let mut talking = RawClient::connect(&server, "name=talking");
    let mut pings = 0;
    while pings < 15 {
        if ponging.control() == (FIN | PING, Vec::new()) {
            pings += 1;
            ponging.send(&masked(FIN | PONG, b"unasked"));
            talking.send(&masked(FIN | TEXT, br#"{"type":"public","content":"x"}"#));
        }
    }
    talking.send(&masked(FIN | CLOSE, b""));
    assert_eq!(talking.closed(), code(1000, ""));
}

#[test]
fn a_line_that_breaks_without_a_close_frame_is_a_leave() {
    let server = TestServer::start(&[]);
    let mut watcher = Client::join(&server, "watcher");
    let client = Client::join(&server, "cut");
    client.stream().shutdown(Shutdown::Both).unwrap();
    assert_has(&watcher.next_of("leave"), json!({"user": "cut"}));
}

#[test]
fn what_was_sent_before_a_close_is_delivered_before_it() {
    let server = TestServer::start(&[]);
    let mut client = RawClient::connect(&server, "name=hasty");
    let mut bytes = Vec::new();
    for number in 0..100 {
        let text = json!({"type": "public", "content": number.to_string()}).to_string();
        bytes.extend(masked(FIN | TEXT, text.as_bytes()));
    }
    bytes.extend(masked(FIN | CLOSE, b""));
    client.send(&bytes);
    for number in 0..100 {
        assert_eq!(client.next_of("public")["content"], number.to_string());
    }
    assert_eq!(client.closed(), code(1000, ""));
}
