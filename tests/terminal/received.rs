//! What of the server's messages is kept, and which of them end the chat.

use parlour::config::Config;
use parlour::protocol::message::{CONTENT_BYTES_MAX, ServerMessage};
use parlour::terminal::received::{MEMBERS_MAX, MESSAGE_BYTES_MAX, Received, Welcome};
use serde_json::{Value, json};

fn parse(message: &Value) -> Option<Received> {
    Received::parse(&message.to_string()).expect("within all bounds")
}

fn excess(message: &Value) -> String {
    Received::parse(&message.to_string()).expect_err("beyond a bound").to_string()
}

fn welcome(fields: Value) -> Value {
    let mut welcome = json!({"type": "welcome", "user": "Ann", "room": "r", "users": ["Ann"],
        "epoch": "e", "seq": 0, "history": 0, "recovered": false, "session": "s", "ts": 1});
    welcome.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    welcome
}

fn public(content: &str) -> Value {
    json!({"type": "public", "user": "Bob", "content": content, "seq": 1, "ts": 1})
}

#[test]
fn the_most_that_a_server_sends_is_within_all_bounds() {
    let read = |bytes: usize| Config::read(["parlour", "--max-message-bytes", &bytes.to_string()]);
    assert!(read(CONTENT_BYTES_MAX).is_ok() && read(CONTENT_BYTES_MAX + 1).is_err());
    let (name, room) = ("\u{1F600}".repeat(32), "\u{10000}".repeat(64));
    let public = ServerMessage::Public {
        user: &name,
        content: &"\u{1}".repeat(CONTENT_BYTES_MAX),
        room: &room,
        seq: u64::MAX,
        reference: Some(&"\u{1}".repeat(64)),
        ts: u64::MAX,
    };
    let users = vec![name.as_str(); MEMBERS_MAX];
    let welcome = ServerMessage::Welcome {
        user: &name,
        room: &room,
        users: &users,
        epoch: "0123456789abcdef-18446744073709551615",
        seq: u64::MAX,
        history: usize::MAX,
        recovered: false,
        session: &"0".repeat(32),
        ts: u64::MAX,
    };
    for message in [public, welcome] {
        let json = serde_json::to_string(&message).unwrap();
        assert!(json.len() <= MESSAGE_BYTES_MAX, "{}", json.len());
        match Received::parse(&json).expect("within all bounds") {
            Some(Received::Public { user, content, .. }) => {
                assert_eq!((user, content.len()), (name.clone(), CONTENT_BYTES_MAX));
            }
            Some(Received::Welcome(Welcome { users, .. })) => {
                assert!(users.len() == MEMBERS_MAX && users.iter().all(|user| *user == name));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn more_than_that_ends_the_chat() {
    let long = "x".repeat(65);
    for field in ["session", "epoch"] {
        assert!(excess(&welcome(json!({field: long}))).contains("64 bytes"), "{field}");
    }
    assert!(excess(&welcome(json!({"room": long}))).contains("64 characters"));
    let crowd = vec!["x"; MEMBERS_MAX + 1];
    assert!(excess(&welcome(json!({"users": crowd}))).contains("members"));
    let content = "x".repeat(CONTENT_BYTES_MAX + 1);
    assert!(excess(&public(&content)).contains("bytes in a message"));
}

#[test]
fn names_and_errors_are_cut() {
    let name = "n".repeat(40_000);
    let cut = format!("{}…", "n".repeat(32));
    let Some(Received::Welcome(Welcome { user, users, .. })) =
        parse(&welcome(json!({"user": name, "users": [name, "Bob"]})))
    else {
        panic!("a welcome");
    };
    assert_eq!((user, users), (cut.clone(), vec![cut.clone(), "Bob".into()]));
    for kind in ["join", "leave", "public", "private"] {
        let message = json!({"type": kind, "user": name, "to": name, "content": "", "seq": 1,
            "ts": 1});
        let received = format!("{:?}", parse(&message).expect("a message"));
        assert!(received.contains(&cut) && received.len() < 250, "{received}");
    }
    let error = json!({"type": "error", "code": "x", "content": "e".repeat(40_000), "ts": 1});
    let Some(Received::Error { content, .. }) = parse(&error) else { panic!("an error") };
    assert_eq!(content, format!("{}…", "e".repeat(500)));
}

#[test]
fn a_message_without_its_fields_is_ignored() {
    for kind in ["welcome", "public", "private", "join", "leave", "error"] {
        assert!(parse(&json!({"type": kind})).is_none(), "{kind}");
        let wrong = json!({"type": kind, "user": 1, "to": {}, "content": [], "seq": "1",
            "ref": 2, "ts": -1, "room": null, "users": "Ann", "epoch": 3, "history": 0.5,
            "session": false, "code": 4});
        assert!(parse(&wrong).is_none(), "{kind}");
    }
    for message in [json!(null), json!(7), json!({}), json!({"type": 7}), json!([[[]]])] {
        assert!(parse(&message).is_none(), "{message}");
    }
    // What is not needed may be anything, however deep.
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let text = format!(r#"{{"type":"join","user":"Bob","ts":1,"users":{deep},"new":{deep}}}"#);
    assert!(matches!(Received::parse(&text), Ok(Some(Received::Join { .. }))));
}
