//! How connections end: the close codes of `src/book/protocol.md`, each as a close frame and a
//! clean end of the stream.

use std::net::Shutdown;

use parlour::protocol::message::frame_bytes_max;
use serde_json::json;

use crate::support::raw::{
    BINARY, CLOSE, FIN, PING, PONG, RawClient, TEXT, header, masked, public,
};
use crate::support::{Client, TestServer, assert_has};

/// Lets a member send `bytes`, and checks that the others see it leave. Returns the close code and
/// the reason that it receives.
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
fn a_client_that_closes_receives_1000() {
    assert_eq!(close_of(&masked(FIN | CLOSE, b""), &[]), code(1000, ""));
    assert_eq!(close_of(&masked(FIN | CLOSE, &[0x03, 0xe9, b'x']), &[]), code(1000, ""));
    assert_eq!(close_of(&masked(FIN | CLOSE, &1002u16.to_be_bytes()), &[]), code(1000, ""));
    let server = TestServer::start(&[]);
    assert_eq!(Client::join(&server, "polite").close(), 1000);
}

#[test]
fn a_client_that_breaks_the_protocol_is_closed_with_1002() {
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
        ("close code that is not defined", masked(FIN | CLOSE, &2999u16.to_be_bytes())),
        ("close code out of range", masked(FIN | CLOSE, &999u16.to_be_bytes())),
    ];
    for (what, bytes) in cases {
        assert_eq!(close_of(&bytes, &[]), code(1002, ""), "{what}");
    }
}

#[test]
fn a_client_that_sends_a_binary_message_is_closed_with_1003() {
    assert_eq!(close_of(&masked(FIN | BINARY, b"x"), &[]), code(1003, "binary"));
}

#[test]
fn a_client_that_sends_invalid_utf_8_is_closed_with_1007() {
    assert_eq!(close_of(&masked(FIN | TEXT, b"{\"type\":\"\xff\"}"), &[]), code(1007, ""));
    let cases: [(&str, Vec<u8>); 6] = [
        ("a surrogate", masked(FIN | TEXT, b"\xed\xa0\x80")),
        ("an overlong form", masked(FIN | TEXT, b"\xc0\xaf")),
        ("a character cut off by the end", masked(FIN | TEXT, b"\xe4\xbd")),
        (
            "a character cut off by the end of the last fragment",
            [masked(TEXT, b"\xe4"), masked(FIN, b"\xbd")].concat(),
        ),
        // These messages have no end: the connection ends at the first wrong byte.
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
fn fragments_may_end_anywhere_even_within_a_character() {
    let server = TestServer::start(&[]);
    let mut client = RawClient::connect(&server, "name=fragments");
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
fn a_client_that_sends_too_long_a_message_is_closed_with_1009() {
    let limit = ["--max-message-bytes", "100"];
    // Only the header is sent. There is not enough memory to wait for the longer ones.
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
    assert_eq!(close_of(&public(&content), &limit), code(1009, "too_big"));
    // Fragments that are each small enough.
    let mut fragments = masked(TEXT, &[b' '; 1000]);
    for _ in 0..3 {
        fragments.extend(masked(0, &[b' '; 1000]));
    }
    assert_eq!(close_of(&fragments, &limit), code(1009, "too_big"));
    // The header of a later fragment, which together with the first is too long.
    let mut fragments = masked(TEXT, &[b' '; 1000]);
    fragments.extend(header(0, frame_bytes_max(100) as u64 + 1));
    assert_eq!(close_of(&fragments, &limit), code(1009, "too_big"));
}

#[test]
fn frames_after_a_close_frame_are_ignored() {
    let server = TestServer::start(&[]);
    let mut watcher = Client::join(&server, "watcher");
    let mut client = RawClient::connect(&server, "name=leaver");
    client.next_of("join");
    let late = public("too late");
    let close = masked(FIN | CLOSE, &1000u16.to_be_bytes());
    client.send(
        &[close.clone(), late, masked(FIN | PING, b""), close, masked(FIN | 0x3, b"")].concat(),
    );
    assert_eq!(client.closed(), code(1000, ""));
    watcher.next_where(|message| {
        assert_ne!(message["type"], "public", "{message}");
        message["type"] == "leave"
    });
}

#[test]
fn a_client_that_stops_within_a_frame_is_closed_with_4408() {
    let server = TestServer::start(&["--ping-interval", "50ms", "--ping-timeout", "400ms"]);
    let frame = public("x");
    let halves =
        [frame[..1].to_vec(), frame[..4].to_vec(), frame[..20].to_vec(), masked(TEXT, b"{\"type")];
    for half in halves {
        let mut client = RawClient::connect(&server, "name=half");
        client.next_of("join");
        client.send(&half);
        assert_eq!(client.closed(), code(4408, "ping_timeout"), "{half:?}");
    }
}

#[test]
fn a_silent_client_is_closed_with_4408_and_its_name_becomes_free() {
    let server = TestServer::start(&["--ping-interval", "50ms", "--ping-timeout", "400ms"]);
    let mut watcher = Client::join(&server, "watcher");
    // It reads the pings, and replies to none of them.
    let mut silent = RawClient::connect(&server, "name=silent");
    assert_eq!(silent.control(), (FIN | PING, Vec::new()));
    // While the watcher reads, tungstenite replies to its pings.
    assert_has(&watcher.next_of("leave"), json!({"user": "silent"}));
    assert_eq!(silent.closed(), code(4408, "ping_timeout"));
    Client::join(&server, "silent");
    watcher.say("still alive");
    assert_has(&watcher.next_of("public"), json!({"user": "watcher"}));
}

#[test]
fn a_pong_has_the_payload_of_its_ping() {
    let server = TestServer::start(&[]);
    let mut client = RawClient::connect(&server, "name=pinger");
    for number in 0..50u8 {
        client.send(&masked(FIN | PING, &[number; 125]));
        assert_eq!(client.control(), (FIN | PONG, vec![number; 125]));
    }
}

#[test]
fn the_newest_ping_of_a_flood_gets_its_pong_even_if_pongs_are_read_late() {
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
fn a_client_that_ends_its_stream_without_a_close_frame_receives_none() {
    let server = TestServer::start(&[]);
    let mut watcher = Client::join(&server, "watcher");
    let mut client = RawClient::connect(&server, "name=half");
    client.next_of("join");
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.frame(), None, "1006 must not be sent");
    assert_has(&watcher.next_of("leave"), json!({"user": "half"}));
}

#[test]
fn a_client_that_still_sends_receives_its_close_frame() {
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
fn any_frame_is_a_sign_of_life() {
    let server = TestServer::start(&["--ping-interval", "100ms", "--ping-timeout", "600ms"]);
    // Neither replies to pings: one sends unrequested pongs, the other messages.
    let mut ponging = RawClient::connect(&server, "name=ponging");
    let mut talking = RawClient::connect(&server, "name=talking");
    let mut pings = 0;
    while pings < 15 {
        if ponging.control() == (FIN | PING, Vec::new()) {
            pings += 1;
            ponging.send(&masked(FIN | PONG, b"unrequested"));
            talking.send(&public("x"));
        }
    }
    talking.send(&masked(FIN | CLOSE, b""));
    assert_eq!(talking.closed(), code(1000, ""));
}

#[test]
fn a_connection_that_breaks_without_a_close_frame_is_a_leave() {
    let server = TestServer::start(&[]);
    let mut watcher = Client::join(&server, "watcher");
    let client = Client::join(&server, "cut");
    client.stream().shutdown(Shutdown::Both).unwrap();
    assert_has(&watcher.next_of("leave"), json!({"user": "cut"}));
}

#[test]
fn messages_before_a_close_frame_are_delivered() {
    let server = TestServer::start(&[]);
    let mut client = RawClient::connect(&server, "name=hasty");
    let mut bytes = Vec::new();
    for number in 0..100 {
        bytes.extend(public(&number.to_string()));
    }
    bytes.extend(masked(FIN | CLOSE, b""));
    client.send(&bytes);
    for number in 0..100 {
        assert_eq!(client.next_of("public")["content"], number.to_string());
    }
    assert_eq!(client.closed(), code(1000, ""));
}
