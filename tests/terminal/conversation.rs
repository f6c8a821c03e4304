//! What the terminal client makes of what it hears and of what is typed, without a socket.

use parlour::protocol::address::Address;
use parlour::terminal::command::Typed;
use parlour::terminal::conversation::{Conversation, Said, Turn};
use parlour::terminal::heard::Heard;
use parlour::terminal::show::Show;
use serde_json::{Value, json};

fn hear(conversation: &mut Conversation, message: Value) -> Turn {
    conversation.hear(Heard::parse(&message.to_string()).expect("a message of the server"))
}

fn welcome(
    conversation: &mut Conversation,
    epoch: &str,
    session: &str,
    seq: u64,
    history: u64,
) -> Turn {
    let message = json!({"type": "welcome", "user": "Ann", "room": "r", "users": ["Ann", "Bob"], "epoch": epoch, "seq": seq,
        "history": history, "recovered": true, "session": session, "ts": 1});
    hear(conversation, message)
}

fn public(seq: u64, user: &str, receipt: &str) -> Value {
    json!({"type": "public", "user": user, "content": "x", "room": "r", "seq": seq, "ref": receipt, "ts": 1})
}

fn new() -> Conversation {
    Conversation::new(Some("Ann".into()), "r".into(), 0xabc)
}

fn notes(turn: &Turn) -> Vec<&str> {
    let mut notes = Vec::new();
    for said in &turn.said {
        if let Said::Note(note) = said {
            notes.push(note.as_str());
        }
    }
    notes
}

fn failed(turn: &Turn) -> Vec<(&str, &str)> {
    let mut failed = Vec::new();
    for said in &turn.said {
        if let Said::Failed { content, why } = said {
            failed.push((content.as_str(), why.as_str()));
        }
    }
    failed
}

fn refs(sent: &[String]) -> Vec<String> {
    let receipt = |text: &String| {
        serde_json::from_str::<Value>(text).unwrap()["ref"].as_str().unwrap().to_owned()
    };
    sent.iter().map(receipt).collect()
}

#[test]
fn what_is_written_early_waits_for_the_history() {
    let mut ann = new();
    assert_eq!(ann.query(), "room=r&name=Ann");
    assert_eq!(ann.say(None, "early".into()), None);
    assert!(welcome(&mut ann, "e", "s", 2, 2).send.is_empty());
    assert!(hear(&mut ann, public(1, "Bob", "b")).send.is_empty());
    let turn = hear(&mut ann, public(2, "Bob", "b"));
    assert_eq!(refs(&turn.send), ["00000abc-1"]);
    assert!(ann.say(Some("Bob".into()), "late".into()).is_some());
    assert_eq!(ann.query(), "room=r&name=Ann&session=s&epoch=e&since=2");
}

#[test]
fn what_has_no_receipt_goes_out_again_with_its_ref() {
    let mut ann = new();
    welcome(&mut ann, "e", "s", 0, 0);
    for content in ["1", "2", "3"] {
        ann.say(None, content.into());
    }
    ann.say(Some("Bob".into()), "4".into());
    // Another's message with the same ref is no receipt.
    hear(&mut ann, public(1, "Bob", "00000abc-2"));
    hear(&mut ann, public(2, "Ann", "00000abc-1"));
    ann.cut();
    assert_eq!(ann.say(None, "5".into()), None);
    assert!(welcome(&mut ann, "e", "s", 3, 1).send.is_empty());
    // This one had arrived.
    let turn = hear(&mut ann, public(3, "Ann", "00000abc-2"));
    assert_eq!(refs(&turn.send), ["00000abc-3", "00000abc-4", "00000abc-5"]);
    // A receipt for something shown before is not shown again.
    assert_eq!(hear(&mut ann, public(3, "Ann", "00000abc-3")).said, []);
    assert_eq!(ann.pending(), 2);
}

#[test]
fn a_private_message_of_a_session_that_is_forgotten_is_not_sent_twice() {
    let mut ann = new();
    welcome(&mut ann, "e", "s", 0, 0);
    ann.say(Some("Bob".into()), "sent".into());
    ann.cut();
    ann.say(Some("Bob".into()), "kept".into());
    // It stays forgotten when the line breaks again before the history is in.
    assert!(welcome(&mut ann, "e", "another", 1, 1).send.is_empty());
    ann.cut();
    let turn = welcome(&mut ann, "e", "another", 0, 0);
    assert_eq!(failed(&turn), [("sent", "it is not certain that this arrived")]);
    assert_eq!(refs(&turn.send), ["00000abc-2"]);
}

#[test]
fn a_public_message_that_the_room_may_have_forgotten_is_not_said_twice() {
    let mut ann = new();
    welcome(&mut ann, "e", "s", 0, 0);
    for content in ["old", "recent", "lost"] {
        ann.say(None, content.into());
    }
    ann.say(Some("Bob".into()), "private".into());
    ann.cut();
    ann.say(None, "kept".into());
    // Two of four are left of the history, and may hold receipts.
    let turn = welcome(&mut ann, "e", "s", 4, 2);
    assert!(turn.send.is_empty() && failed(&turn).is_empty(), "{turn:?}");
    hear(&mut ann, public(3, "Ann", "00000abc-2"));
    let turn = hear(&mut ann, public(4, "Bob", "b"));
    let uncertain = "it is not certain that this arrived";
    assert_eq!(failed(&turn), [("old", uncertain), ("lost", uncertain)]);
    assert_eq!(refs(&turn.send), ["00000abc-4", "00000abc-5"]);
    // Without a gap everything goes out again.
    ann.cut();
    assert_eq!(refs(&welcome(&mut ann, "e", "s", 4, 0).send), ["00000abc-4", "00000abc-5"]);
}

#[test]
fn a_room_without_history_forgets_at_once() {
    let mut ann = new();
    welcome(&mut ann, "e", "s", 0, 0);
    ann.say(None, "arrived".into());
    ann.cut();
    let turn = welcome(&mut ann, "e", "s", 1, 0);
    assert!(turn.send.is_empty() && failed(&turn)[0].0 == "arrived", "{turn:?}");
}

#[test]
fn what_is_missing_is_said() {
    let mut ann = new();
    welcome(&mut ann, "e", "s", 1, 1);
    hear(&mut ann, public(1, "Bob", "b"));
    ann.cut();
    assert_eq!(notes(&welcome(&mut ann, "e", "s", 3, 2)), ["connected again"]);
    ann.cut();
    assert!(notes(&welcome(&mut ann, "e", "s", 9, 2))[0].contains("older than the room's history"));
    ann.cut();
    assert!(notes(&welcome(&mut ann, "f", "s", 1, 1))[0].contains("started anew"));
    // Its numbers begin anew as well.
    assert_eq!(hear(&mut ann, public(1, "Bob", "b")).said.len(), 1);
}

#[test]
fn an_error_names_the_message_it_is_about() {
    let mut ann = new();
    welcome(&mut ann, "e", "s", 0, 0);
    ann.say(Some("Eve".into()), "psst".into());
    let error = json!({"type": "error", "code": "no_such_user", "content": "gone", "ref": "00000abc-1", "ts": 1});
    let turn = hear(&mut ann, error.clone());
    assert_eq!(turn.said, [Said::Failed { content: "psst".into(), why: "gone".into() }]);
    assert_eq!(ann.pending(), 0);
    // Of one whose receipt has come already, only what the server says.
    assert_eq!(notes(&hear(&mut ann, error)), ["gone"]);
    assert!(matches!(Heard::parse(r#"{"type":"of a later version"}"#), Some(Heard::Other)));
}

#[test]
fn nothing_passes_for_what_it_is_not() {
    let mut show = Show::new(false, false);
    let mut line = |said: Said| show.lines(&said, "Ann");
    let public = |user: &str, content: &str| Said::Public {
        user: user.into(),
        content: content.into(),
        ts: 1,
    };
    let private = |user: &str, to: &str, content: &str| Said::Private {
        user: user.into(),
        to: to.into(),
        content: content.into(),
        ts: 1,
    };
    assert_eq!(line(private("Bob", "Ann", "hi")), "(private) Bob → you: hi\n");
    assert_eq!(line(private("Ann", "Bob", "hi")), "(private) you → Bob: hi\n");
    assert_eq!(line(Said::Left { user: "Bob".into(), ts: 1 }), "* Bob left\n");
    assert_eq!(line(Said::Note("hi".into())), "· hi\n");
    assert_eq!(line(public("Bob", "hi\n* Bob left")), "Bob: hi\n      * Bob left\n");
    for plain in [
        "Bob",
        "Bob Smith",
        "O'Neil (2nd)",
        "guest-1a2b",
        "张三",
        "İpek",
        "9lives",
        "Ann 😀",
        "yours",
    ] {
        assert_eq!(line(public(plain, "hi")), format!("{plain}: hi\n"));
    }
    let forged = [
        "(private) Bob → you",
        "(private) Bob",
        "Bob → you (private)",
        "Bob ⟶ you",
        "* Bob left",
        "· you",
        "— Monday",
        "Bob: hi",
        "Bob：hi",
        "Parlour",
        "YOU",
        "😀",
    ];
    for name in forged {
        assert_eq!(line(public(name, "hi")), format!("\"{name}\": hi\n"));
        assert_eq!(line(private(name, "Ann", "hi")), format!("(private) \"{name}\" → you: hi\n"));
        assert_eq!(
            line(Said::Joined { user: name.into(), ts: 1 }),
            format!("* \"{name}\" joined\n")
        );
    }
    // What stands in quotes does not end early.
    assert_eq!(line(public(r#"*\": x"#, "hi")), format!("{}: hi\n", r#""*\\\": x""#));
}

#[test]
fn typed_lines() {
    let typed = |line: &str| Typed::parse(line, ["Bob", "Bob Smith", "İpek", "ann"].into_iter());
    let private =
        |to: &str, content: &str| Typed::Private { to: to.into(), content: content.into() };
    assert_eq!(typed("  indented  "), Typed::Public("  indented".into()));
    assert_eq!(typed(" \t"), Typed::Nothing);
    assert_eq!(typed("//msg Bob"), Typed::Public("/msg Bob".into()));
    assert_eq!(typed("/msg bob smith  hello there "), private("bob smith", "hello there"));
    assert_eq!(typed("/msg Bob Smithers hello"), private("Bob", "Smithers hello"));
    assert_eq!(typed("/msg Eve hello"), private("Eve", "hello"));
    assert_eq!(typed("/msg İpek x"), private("İpek", "x"));
    // The same names, written in another way.
    assert_eq!(typed("/msg BOB  \u{A0}smith hi"), private("BOB  \u{A0}smith", "hi"));
    assert_eq!(typed("/msg i\u{307}PEK x"), private("i\u{307}PEK", "x"));
    for unclear in
        ["/msg", "/msg Bob", "/msg Bob ", "/mgs Bob secret", "/", "/ msg Bob x", "/quitting"]
    {
        assert!(matches!(typed(unclear), Typed::Unclear(_)), "{unclear}");
    }
    assert_eq!(
        (typed("/quit"), typed("/who"), typed("/help ")),
        (Typed::Quit, Typed::Who, Typed::Help)
    );
}

#[test]
fn addresses() {
    let parts = |text: &str| {
        Address::parse(text).map(|address| (address.authority, address.path, address.query))
    };
    let whole = |authority: &str, path: &str, query: &str| {
        Ok((authority.into(), path.into(), query.into()))
    };
    assert_eq!(parts("ws://example.org"), whole("example.org", "/", ""));
    assert_eq!(
        parts("HTTP://example.org:81/a/?room=b#c"),
        whole("example.org:81", "/a/", "room=b")
    );
    assert_eq!(parts("localhost:8080"), whole("localhost:8080", "/", ""));
    assert_eq!(parts("[::1]:8080/x"), whole("[::1]:8080", "/x", ""));
    for bad in [
        "",
        "ws://",
        "ws://:80",
        "ws://a:b",
        "ws://a:99999",
        "ws://a:",
        "ws://me:pw@a",
        "ftp://a",
        "wss://a",
        "a b",
    ] {
        assert!(parts(bad).is_err(), "{bad}");
    }
}
