//! What is fuzzed, and what must hold whatever comes. `make fuzz` lets libFuzzer choose the input;
//! `make test` takes the files in `corpus`.

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

/// A request head, and what a request for an upgrade is made of.
pub fn head(data: &[u8]) {
    match parse_head(data.to_vec()) {
        Ok((request, rest)) => {
            assert!(data.ends_with(&rest) && data.len() - rest.len() <= HEAD_BYTES_MAX);
            assert!(request.headers().len() <= HEADERS_MAX);
            match upgrade(request, rest) {
                Ok(upgrade) => assert!(upgrade.response.ends_with(b"\r\n\r\n")),
                Err(response) => assert!(response.status().is_client_error()),
            }
        }
        Err(error) => assert_eq!(error.response().is_none(), error == HeadError::Closed),
    }
}

/// The query of an upgrade.
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

/// A text message.
pub fn json(data: &[u8]) {
    /// Short enough to be passed.
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
    // Another parser understands the same, where it does not give up at numbers and depths that
    // ours ignores.
    if let Ok(value) = value {
        assert_eq!(value["type"], kind);
        assert_eq!(value["content"], content);
        assert_eq!(value["ref"].as_str(), reference.as_deref());
        assert!(to.is_none_or(|to| value["to"] == to.typed));
    }
}

/// What a client sends after its upgrade, through both pumps, with an echo behind them. Its first
/// byte says how much of it came with the head.
pub fn frames(data: &[u8]) {
    static OPTIONS: LazyLock<(Arc<Config>, SweepQueue)> =
        LazyLock::new(|| (Arc::new(echo::config()), SweepQueue::new()));
    /// The socket takes as many at once, and what comes back is no longer.
    const INPUT_BYTES_MAX: usize = 32 * 1024;
    let Some((&first, data)) = data.split_first() else { return };
    let data = &data[..data.len().min(INPUT_BYTES_MAX)];
    let (with_head, later) = data.split_at(data.len().min(first.into()));

    // A socket is a socket: the pumps ask nothing of it that one without a network can't do.
    let (mut client, server) = UnixStream::pair().expect("a pair of sockets");
    let stream = TcpStream::from(OwnedFd::from(server));
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let connection = Arc::new(Connection::new(1, peer, stream));
    let upgrade = Upgrade {
        response: Vec::new(),
        leftover: with_head.to_vec(),
        join: Err(CloseReason::InternalError),
    };
    client.write_all(later).expect("room for it");
    client.shutdown(Shutdown::Write).expect("an open socket");
    client.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket takes a timeout");
    let (config, sweeps) = &*OPTIONS;
    echo::serve(&connection, upgrade, config, sweeps).expect("a thread for the writer");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect("an end");
    check_answer(&answer);
}

/// Whole frames as a server may send them, of which only the last closes.
fn check_answer(mut answer: &[u8]) {
    while let [first, second, rest @ ..] = answer {
        let (length, rest) = match (second, rest) {
            (126, [a, b, rest @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), rest),
            (0..=125, rest) => (usize::from(*second), rest),
            _ => panic!("a mask, or a length that nothing here can have: {second}"),
        };
        let (payload, rest) = rest.split_at_checked(length).expect("a whole frame");
        match first {
            0x81 => drop(std::str::from_utf8(payload).expect("text")),
            0x82 | 0x8A => {}
            0x88 => {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                assert!(matches!(code, 1000 | 1002 | 1007 | 1009), "{code}");
                assert!(rest.is_empty(), "nothing follows a close frame");
            }
            _ => panic!("no frame of an echo: {first:#x}"),
        }
        answer = rest;
    }
    assert!(answer.is_empty(), "a whole frame");
}
