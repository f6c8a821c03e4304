//! The client's conversation with a room, without a socket.

use parlour::terminal::conversation::{Conversation, Effects, Entry};
use parlour::terminal::received::Received;
use serde_json::{Value, json};

/// The reason for giving up a message that was sent.
const UNCERTAIN: &str = "the server did not confirm it; it may have arrived all the same";

fn receive(conversation: &mut Conversation, message: Value) -> Effects {
    let received = Received::parse(&message.to_string()).expect("within all bounds");
    conversation.receive(received.expect("a message of the server"))
}

fn welcome(
    conversation: &mut Conversation,
    epoch: &str,
    session: &str,
    seq: u64,
    history: u64,
) -> Effects {
    let message = json!({"type": "welcome", "user": "Ann", "room": "r", "users": ["Ann", "Bob"],
        "epoch": epoch, "seq": seq, "history": history, "recovered": true, "session": session,
        "ts": 1});
    receive(conversation, message)
}

fn public(seq: u64, user: &str, reference: &str) -> Value {
    json!({"type": "public", "user": user, "content": "x", "room": "r", "seq": seq,
        "ref": reference, "ts": 1})
}

fn conversation() -> Conversation {
    Conversation::new(Some("Ann".into()), "r".into(), 0xabc)
}

fn notes(effects: &Effects) -> Vec<&str> {
    let mut notes = Vec::new();
    for entry in &effects.to_show {
        if let Entry::Note(note) = entry {
            notes.push(note.as_str());
        }
    }
    notes
}

fn undelivered(effects: &Effects) -> Vec<(&str, &str)> {
    let mut undelivered = Vec::new();
    for entry in &effects.to_show {
        if let Entry::Undelivered { content, why } = entry {
            undelivered.push((content.as_str(), why.as_str()));
        }
    }
    undelivered
}

fn references(messages: &[String]) -> Vec<String> {
    let reference = |json: &String| {
        serde_json::from_str::<Value>(json).unwrap()["ref"].as_str().unwrap().to_owned()
    };
    messages.iter().map(reference).collect()
}

#[test]
fn a_message_written_early_waits_for_the_history() {
    let mut ann = conversation();
    assert_eq!(ann.query(), "room=r&name=Ann");
    assert_eq!(ann.post(None, "early".into()), None);
    assert!(welcome(&mut ann, "e", "s", 2, 2).to_send.is_empty());
    assert!(receive(&mut ann, public(1, "Bob", "b")).to_send.is_empty());
    let effects = receive(&mut ann, public(2, "Bob", "b"));
    assert_eq!(references(&effects.to_send), ["00000abc-1"]);
    assert!(ann.post(Some("Bob".into()), "late".into()).is_some());
    assert_eq!(ann.query(), "room=r&name=Ann&session=s&epoch=e&since=2");
}

#[test]
fn an_unconfirmed_message_is_sent_again_with_its_reference() {
    let mut ann = conversation();
    welcome(&mut ann, "e", "s", 0, 0);
    for content in ["1", "2", "3"] {
        ann.post(None, content.into());
    }
    ann.post(Some("Bob".into()), "4".into());
    // Another member's message with the same reference confirms nothing.
    receive(&mut ann, public(1, "Bob", "00000abc-2"));
    receive(&mut ann, public(2, "Ann", "00000abc-1"));
    ann.disconnect();
    assert_eq!(ann.post(None, "5".into()), None);
    assert!(welcome(&mut ann, "e", "s", 3, 1).to_send.is_empty());
    // This one had arrived before the connection broke.
    let effects = receive(&mut ann, public(3, "Ann", "00000abc-2"));
    assert_eq!(references(&effects.to_send), ["00000abc-3", "00000abc-4", "00000abc-5"]);
    // The second copy of a message confirms it, and is not shown again.
    assert_eq!(receive(&mut ann, public(3, "Ann", "00000abc-3")).to_show, []);
    assert_eq!(ann.unconfirmed(), 2);
}

#[test]
fn a_private_message_is_not_sent_twice_if_its_session_is_forgotten() {
    let mut ann = conversation();
    welcome(&mut ann, "e", "s", 0, 0);
    ann.post(Some("Bob".into()), "sent".into());
    ann.disconnect();
    ann.post(Some("Bob".into()), "kept".into());
    // It stays forgotten if the connection breaks again before the history has arrived.
    assert!(welcome(&mut ann, "e", "another", 1, 1).to_send.is_empty());
    ann.disconnect();
    let effects = welcome(&mut ann, "e", "another", 0, 0);
    assert_eq!(undelivered(&effects), [("sent", UNCERTAIN)]);
    assert_eq!(references(&effects.to_send), ["00000abc-2"]);
}

#[test]
fn a_public_message_is_not_sent_twice_if_the_room_may_have_forgotten_it() {
    let mut ann = conversation();
    welcome(&mut ann, "e", "s", 0, 0);
    for content in ["old", "recent", "lost"] {
        ann.post(None, content.into());
    }
    ann.post(Some("Bob".into()), "private".into());
    ann.disconnect();
    ann.post(None, "kept".into());
    // The history has the last two of four messages, which may confirm some.
    let effects = welcome(&mut ann, "e", "s", 4, 2);
    assert!(effects.to_send.is_empty() && undelivered(&effects).is_empty(), "{effects:?}");
    receive(&mut ann, public(3, "Ann", "00000abc-2"));
    let effects = receive(&mut ann, public(4, "Bob", "b"));
    assert_eq!(undelivered(&effects), [("old", UNCERTAIN), ("lost", UNCERTAIN)]);
    assert_eq!(references(&effects.to_send), ["00000abc-4", "00000abc-5"]);
    // Without a gap everything is sent again.
    ann.disconnect();
    assert_eq!(
        references(&welcome(&mut ann, "e", "s", 4, 0).to_send),
        ["00000abc-4", "00000abc-5"]
    );
}

#[test]
fn a_room_without_history_forgets_at_once() {
    let mut ann = conversation();
    welcome(&mut ann, "e", "s", 0, 0);
    ann.post(None, "arrived".into());
    ann.disconnect();
    let effects = welcome(&mut ann, "e", "s", 1, 0);
    assert!(effects.to_send.is_empty() && undelivered(&effects)[0].0 == "arrived", "{effects:?}");
}

#[test]
fn a_gap_or_a_new_start_is_noted() {
    let mut ann = conversation();
    welcome(&mut ann, "e", "s", 1, 1);
    receive(&mut ann, public(1, "Bob", "b"));
    ann.disconnect();
    assert_eq!(notes(&welcome(&mut ann, "e", "s", 3, 2)), ["connected again"]);
    ann.disconnect();
    assert!(notes(&welcome(&mut ann, "e", "s", 9, 2))[0].contains("older than the room's history"));
    ann.disconnect();
    assert!(notes(&welcome(&mut ann, "f", "s", 1, 1))[0].contains("started again"));
    // Its numbers begin again as well.
    assert_eq!(receive(&mut ann, public(1, "Bob", "b")).to_show.len(), 1);
}

#[test]
fn an_error_names_its_message() {
    let mut ann = conversation();
    welcome(&mut ann, "e", "s", 0, 0);
    ann.post(Some("Eve".into()), "psst".into());
    let error = json!({"type": "error", "code": "no_such_user", "content": "gone",
        "ref": "00000abc-1", "ts": 1});
    let effects = receive(&mut ann, error.clone());
    assert_eq!(
        effects.to_show,
        [Entry::Undelivered { content: "psst".into(), why: "gone".into() }]
    );
    assert_eq!(ann.unconfirmed(), 0);
    // About a message that is confirmed already, only the server's words are shown.
    assert_eq!(notes(&receive(&mut ann, error)), ["gone"]);
    assert!(matches!(
        Received::parse(r#"{"type":"of a later version"}"#),
        Ok(Some(Received::Unknown))
    ));
}
