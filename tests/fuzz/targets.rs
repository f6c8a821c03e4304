//! The fuzz targets, each with what must hold for any input. `make fuzz` lets libFuzzer choose the
//! input. `make test` takes the files in `corpus`.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parlour::chat::client::Upgrade;
use parlour::chat::connection::Connection;
use parlour::chat::inbox::Nickname;
use parlour::chat::write_half::SweepQueue;
use parlour::config::Config;
use parlour::http::request::{HEAD_BYTES_MAX, HEADERS_MAX, HeadError, parse_head};
use parlour::http::upgrade::{join_request, upgrade};
use parlour::protocol::close::CloseReason;
use parlour::protocol::fold::fold;
use parlour::protocol::message::{BadMessage, REFERENCE_BYTES_MAX, Request};
use parlour::protocol::name::{FOLDED_CHARS_MAX, NAME_CHARS_MAX, Name, parse_room};
use parlour::protocol::visible::{can_be_seen, is_legible};

use crate::echo;

/// Parses a request head, then the request as an upgrade.
pub fn head(data: &[u8]) {
    match parse_head(data) {
        Ok((request, length)) => {
            assert!(length <= data.len() && length <= HEAD_BYTES_MAX);
            assert!(request.headers().len() <= HEADERS_MAX);
            match upgrade(request, data[length..].to_vec()) {
                Ok(upgrade) => assert!(upgrade.response.ends_with(b"\r\n\r\n")),
                Err(response) => assert!(response.status().is_client_error()),
            }
        }
        Err(error) => assert_eq!(error.response().is_none(), error == HeadError::Closed),
    }
}

/// Parses the query of an upgrade.
pub fn query(data: &[u8]) {
    let query = String::from_utf8_lossy(data);
    match join_request(&query) {
        Ok(request) => {
            assert!((1..=FOLDED_CHARS_MAX).contains(&request.room.chars().count()));
            assert_eq!(fold(&request.room), request.room);
            assert_eq!(parse_room(&request.room), Ok(request.room));
            if let Nickname::Chosen(name) = request.name {
                let Name { shown, key, skeleton } = &name;
                assert!((1..=NAME_CHARS_MAX).contains(&shown.chars().count()));
                assert!(is_legible(shown) && can_be_seen(shown));
                assert!((1..=FOLDED_CHARS_MAX).contains(&key.chars().count()));
                assert!(!skeleton.is_empty());
                assert_eq!(fold(key), **key);
                assert_eq!(Name::parse(shown), Ok(name));
            }
        }
        Err(reason) => {
            assert!(matches!(reason, CloseReason::InvalidName | CloseReason::InvalidRoom))
        }
    }
}

/// Parses a text message.
pub fn json(data: &[u8]) {
    /// So small that inputs exceed it.
    const CONTENT_BYTES_MAX: usize = 100;
    let text = String::from_utf8_lossy(data);
    let parsed = Request::parse(&text, CONTENT_BYTES_MAX);
    let value = serde_json::from_str::<serde_json::Value>(&text);
    let (kind, to, content, reference) = match parsed {
        Ok(Request::Public { content, reference }) => ("public", None, content, reference),
        Ok(Request::Private { to, content, reference }) => {
            ("private", Some(to), content, reference)
        }
        Err(BadMessage::TooBig) => return,
        Err(BadMessage::Error(reply)) => {
            assert!(!reply.content.is_empty());
            assert!(reply.reference.is_none_or(|reference| reference.len() <= REFERENCE_BYTES_MAX));
            return;
        }
    };
    assert!(can_be_seen(&content) && content.len() <= CONTENT_BYTES_MAX);
    assert!(to.as_ref().is_none_or(|to| to.key.chars().count() <= FOLDED_CHARS_MAX));
    // Another parser reads the same, unless it rejects a number or a depth in fields that parlour
    // ignores.
    if let Ok(value) = value {
        assert_eq!(value["type"], kind);
        assert_eq!(value["content"], content);
        assert_eq!(value["ref"].as_str(), reference.as_deref());
        assert!(to.is_none_or(|to| value["to"] == to.typed));
    }
}

/// Passes what a client sends through both pumps, with an echo in between. The first byte says how
/// many bytes came together with the request head.
pub fn frames(data: &[u8]) {
    static OPTIONS: LazyLock<(Arc<Config>, SweepQueue)> =
        LazyLock::new(|| (Arc::new(echo::config()), SweepQueue::new()));
    /// The socket takes this much at once, and the echo is not longer.
    const INPUT_BYTES_MAX: usize = 32 * 1024;
    let Some((&first, data)) = data.split_first() else { return };
    let data = &data[..data.len().min(INPUT_BYTES_MAX)];
    let (with_head, later) = data.split_at(data.len().min(first.into()));

    // The pumps use nothing of a TCP socket that a Unix socket does not have, too.
    let (mut client, server) = UnixStream::pair().expect("a pair of sockets");
    let stream = TcpStream::from(OwnedFd::from(server));
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let connection = Arc::new(Connection::new(1, peer, stream));
    let upgrade = Upgrade {
        response: Vec::new(),
        leftover: with_head.to_vec(),
        join: Err(CloseReason::InternalError),
        shared_burst: None,
    };
    client.write_all(later).expect("the socket takes it at once");
    client.shutdown(Shutdown::Write).expect("an open socket");
    client.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket takes a timeout");
    let (config, sweeps) = &*OPTIONS;
    echo::serve(&connection, upgrade, config, sweeps).expect("a thread for the writer");
    let mut echoed = Vec::new();
    client.read_to_end(&mut echoed).expect("an end");
    check_echo(&echoed);
}

/// Asserts that `echoed` has whole frames as a server may send them, with a close frame only at
/// the end.
fn check_echo(mut echoed: &[u8]) {
    while let [first, second, rest @ ..] = echoed {
        let (length, rest) = match (second, rest) {
            (126, [a, b, rest @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), rest),
            (0..=125, rest) => (usize::from(*second), rest),
            _ => panic!("a mask, or a length that no echo has: {second}"),
        };
        let (payload, rest) = rest.split_at_checked(length).expect("a whole frame");
        match first {
            0x81 => assert!(std::str::from_utf8(payload).is_ok(), "text"),
            0x82 | 0x8A => {}
            0x88 => {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                assert!(matches!(code, 1000 | 1002 | 1007 | 1009), "{code}");
                assert!(rest.is_empty(), "nothing follows a close frame");
            }
            _ => panic!("not a frame of an echo: {first:#x}"),
        }
        echoed = rest;
    }
    assert!(echoed.is_empty(), "a whole frame");
}
