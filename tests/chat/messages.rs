//! The messages of `src/book/protocol.md`, on real sockets.

use serde_json::json;

use crate::support::raw::{RawClient, text};
use crate::support::{Client, TestServer, assert_has};

#[test]
fn a_welcome_comes_first_and_lists_all_members_sorted() {
    let server = TestServer::start(&[]);
    let _bob = Client::join(&server, "bob");
    let _zoe = Client::join(&server, "Zoe");
    let mut ann = Client::connect(&server, "name=ann");
    let welcome = ann.next();
    assert_has(
        &welcome,
        json!({"type": "welcome", "user": "ann", "room": "lobby", "users": ["Zoe", "ann", "bob"],
               "seq": 0, "history": 0, "recovered": false}),
    );
    assert!(welcome["epoch"].as_str().is_some_and(|epoch| !epoch.is_empty()));
    assert!(
        welcome["ts"].as_u64().is_some_and(|ts| ts > 1_700_000_000_000),
        "milliseconds: {welcome}"
    );
}

#[test]
fn joins_and_leaves_reach_everyone() {
    let server = TestServer::start(&[]);
    let mut ann = Client::connect(&server, "name=Ann");
    assert_eq!(ann.next()["type"], "welcome");
    assert_has(
        &ann.next(),
        json!({"type": "join", "user": "Ann", "content": "Ann joined", "room": "lobby"}),
    );
    let mut bob = Client::join(&server, "Bob");
    assert_has(&ann.next(), json!({"type": "join", "user": "Bob", "content": "Bob joined"}));
    bob.say("bye");
    bob.close();
    assert_has(&ann.next(), json!({"type": "public", "user": "Bob", "content": "bye"}));
    let leave = ann.next();
    assert_has(
        &leave,
        json!({"type": "leave", "user": "Bob", "content": "Bob left", "room": "lobby"}),
    );
    assert!(leave["ts"].is_u64());
}

#[test]
fn a_public_message_reaches_everyone_with_its_sender_and_number() {
    let server = TestServer::start(&[]);
    let mut ann = Client::join(&server, "Ann");
    let mut bob = Client::join(&server, "Bob");
    let content = " a <b> \u{1F600}\n";
    let message = json!({"type": "public", "user": "Mallory", "content": content, "unknown": [1]});
    ann.send(message);
    for client in [&mut ann, &mut bob] {
        let message = client.next_of("public");
        let expected = json!({"user": "Ann", "content": content, "room": "lobby", "seq": 1});
        assert_has(&message, expected);
        assert!(message["ts"].is_u64() && message.get("ref").is_none(), "{message}");
    }
    bob.say("two");
    assert_has(&ann.next_of("public"), json!({"user": "Bob", "seq": 2}));
}

#[test]
fn a_private_message_reaches_its_sender_and_recipient_only() {
    let server = TestServer::start(&[]);
    let mut ann = Client::join(&server, "Ann");
    let mut bob = Client::join(&server, "Bob");
    let mut eve = Client::join(&server, "Eve");
    ann.send(json!({"type": "private", "to": "bob", "content": "psst", "ref": "p1"}));
    for client in [&mut ann, &mut bob] {
        let expected =
            json!({"user": "Ann", "to": "Bob", "content": "psst", "room": "lobby", "ref": "p1"});
        assert_has(&client.next_of("private"), expected);
    }
    ann.say("aloud");
    assert_eq!(eve.next()["type"], "public", "the next message that Eve receives");
    // No history has it.
    let mut late = Client::connect(&server, "name=late");
    assert_has(&late.next(), json!({"type": "welcome", "history": 1}));
    assert_eq!(late.next()["type"], "public");
    assert_eq!(late.next()["type"], "join");
}

#[test]
fn a_private_message_to_oneself_comes_once() {
    let server = TestServer::start(&[]);
    let mut ann = Client::join(&server, "Ann");
    ann.whisper("Ann", "note");
    ann.say("end");
    assert_eq!(ann.next()["type"], "private");
    assert_eq!(ann.next()["type"], "public");
}

#[test]
fn the_messages_of_one_sender_keep_their_order() {
    let server = TestServer::start(&[]);
    let mut ann = Client::join(&server, "Ann");
    let mut bob = Client::join(&server, "Bob");
    for number in 0..200 {
        if number % 3 == 0 {
            ann.whisper("Bob", &number.to_string());
        } else {
            ann.say(&number.to_string());
        }
    }
    for number in 0..200 {
        assert_eq!(bob.next()["content"], number.to_string());
    }
}

#[test]
fn a_newcomer_receives_the_history_byte_for_byte_oldest_first() {
    let server = TestServer::start(&["--history", "3"]);
    let mut live = RawClient::connect(&server, "name=Ann");
    let mut originals = Vec::new();
    for content in ["one", "two", "three", "four"] {
        live.send(&text(&json!({"type": "public", "content": content, "ref": content})));
    }
    while originals.len() < 4 {
        let (_, payload) = live.frame().expect("open");
        if payload.starts_with(br#"{"type":"public""#) {
            originals.push(payload);
        }
    }
    let mut late = RawClient::connect(&server, "name=late");
    let (_, welcome) = late.frame().unwrap();
    assert!(String::from_utf8(welcome).unwrap().contains(r#""seq":4,"history":3"#));
    for original in &originals[1..] {
        assert_eq!(&late.frame().unwrap().1, original);
    }
    assert_has(
        &serde_json::from_slice(&late.frame().unwrap().1).unwrap(),
        json!({"type": "join", "user": "late"}),
    );
}

#[test]
fn history_may_be_off() {
    let server = TestServer::start(&["--history", "0"]);
    let mut ann = Client::join(&server, "Ann");
    ann.say("gone");
    ann.next_of("public");
    let mut late = Client::connect(&server, "name=late");
    assert_has(&late.next(), json!({"history": 0, "seq": 1}));
    assert_eq!(late.next()["type"], "join");
}

#[test]
fn no_message_reaches_another_room() {
    let server = TestServer::start(&[]);
    let mut ann = Client::join_room(&server, "Ann", "one");
    let mut other = Client::join_room(&server, "Ann", "two");
    ann.say("in one");
    assert_has(&ann.next(), json!({"type": "public", "room": "one", "seq": 1}));
    other.say("in two");
    assert_has(&other.next(), json!({"type": "public", "room": "two", "seq": 1}));
    other.whisper("nobody", "x");
    assert_has(&other.next(), json!({"type": "error", "code": "no_such_user"}));
}

#[test]
fn a_ref_comes_back_on_its_message_or_error() {
    let server = TestServer::start(&[]);
    let mut ann = Client::join(&server, "Ann");
    ann.send(json!({"type": "public", "content": "x", "ref": "a1"}));
    assert_has(&ann.next(), json!({"type": "public", "ref": "a1"}));
    ann.send(json!({"type": "private", "to": "ghost", "content": "x", "ref": "a2"}));
    assert_has(&ann.next(), json!({"type": "error", "code": "no_such_user", "ref": "a2"}));
    ann.send(json!({"type": "public", "content": 5, "ref": "a3"}));
    assert_has(&ann.next(), json!({"type": "error", "code": "bad_request", "ref": "a3"}));
    let longest = "r".repeat(64);
    ann.send(json!({"type": "public", "content": "x", "ref": longest}));
    assert_has(&ann.next(), json!({"type": "public", "ref": longest}));
    ann.send(json!({"type": "public", "content": "x", "ref": "r".repeat(65)}));
    assert_has(&ann.next(), json!({"type": "error", "code": "bad_request"}));
}

#[test]
fn each_bad_message_has_its_error_code_and_the_connection_stays_open() {
    let server = TestServer::start(&[]);
    let mut ann = Client::join(&server, "Ann");
    let deep = "[".repeat(1000);
    let cases = [
        ("nonsense", "bad_json"),
        ("", "bad_json"),
        (r#"{"type":"public","content":"x"} {}"#, "bad_json"),
        (r#"{"type":5,"content"}"#, "bad_json"),
        (r#"{"type":"public","content":"\ud800"}"#, "bad_json"),
        (deep.as_str(), "bad_json"),
        ("[]", "bad_request"),
        (r#"["public","x","y","z"]"#, "bad_request"),
        ("17", "bad_request"),
        ("{}", "bad_request"),
        (r#"{"type":"public"}"#, "bad_request"),
        (r#"{"type":"public","content":{"a":1e999}}"#, "bad_request"),
        (r#"{"type":"public","content":"x","content":"y"}"#, "bad_request"),
        (r#"{"type":"private","content":"x"}"#, "bad_request"),
        (r#"{"type":"private","to":7,"content":"x"}"#, "bad_request"),
        (r#"{"type":["public"],"content":"x"}"#, "bad_request"),
        (r#"{"type":"public","content":"x","ref":7}"#, "bad_request"),
        (r#"{"type":"shout","content":"x"}"#, "unknown_type"),
        (r#"{"type":"welcome"}"#, "unknown_type"),
        (r#"{"type":"public","content":""}"#, "empty_content"),
        (r#"{"type":"public","content":" \t\n\u2003"}"#, "empty_content"),
        (r#"{"type":"public","content":"\u2800 \u200d\u3164\ufe0f"}"#, "empty_content"),
        (r#"{"type":"private","to":"","content":"x"}"#, "no_such_user"),
    ];
    for (text, code) in cases {
        ann.send_text(text);
        let error = ann.next();
        assert_has(&error, json!({"type": "error", "code": code}));
        assert!(
            error["content"].as_str().is_some_and(|content| !content.is_empty())
                && error["ts"].is_u64(),
            "{error}"
        );
    }
    ann.say("still here");
    assert_eq!(ann.next()["type"], "public");
}

#[test]
fn escapes_do_not_count_towards_the_longest_content() {
    let server = TestServer::start(&["--max-message-bytes", "100"]);
    let mut ann = Client::join(&server, "Ann");
    // Control characters, and one that can be seen.
    let escaped = r"\u0001".repeat(99) + r"\u0078";
    ann.send_text(&format!(r#"{{"type":"public","content":"{escaped}"}}"#));
    assert_eq!(ann.next()["content"], "\u{1}".repeat(99) + "x");
}

#[test]
fn fifty_clients_receive_everything_once_and_in_order() {
    let server = TestServer::start(&[]);
    let mut clients: Vec<Client> =
        (0..50).map(|i| Client::join(&server, &format!("c{i}"))).collect();
    for round in 0..4 {
        for client in &mut clients {
            client.say(&round.to_string());
        }
    }
    for client in &mut clients {
        for seq in 1..=200 {
            assert_eq!(client.next_of("public")["seq"], seq);
        }
    }
}
