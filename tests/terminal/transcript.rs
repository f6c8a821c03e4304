//! How the entries of a conversation read as text.

use parlour::terminal::conversation::Entry;
use parlour::terminal::transcript::Transcript;

/// Returns the text of `entry` for Ann, without colours and times.
fn text(entry: Entry) -> String {
    Transcript::new(false, false).lines(&entry, "Ann")
}

fn public(user: &str, content: &str) -> Entry {
    Entry::Public { user: user.into(), content: content.into(), ts: 1 }
}

fn private(user: &str, to: &str) -> Entry {
    Entry::Private { user: user.into(), to: to.into(), content: "hi".into(), ts: 1 }
}

#[test]
fn each_kind_of_entry_begins_in_its_own_way() {
    assert_eq!(text(private("Bob", "Ann")), "(private) Bob → you: hi\n");
    assert_eq!(text(private("Ann", "Bob")), "(private) you → Bob: hi\n");
    assert_eq!(text(Entry::Left { user: "Bob".into(), ts: 1 }), "* Bob left\n");
    assert_eq!(text(Entry::Note("hi".into())), "· hi\n");
    assert_eq!(text(public("Bob", "hi\n* Bob left")), "Bob: hi\n      * Bob left\n");
}

#[test]
fn a_name_that_could_pass_for_more_stands_in_quotes() {
    let plain = [
        "Bob",
        "Bob Smith",
        "O'Neil (2nd)",
        "guest-1a2b",
        "张三",
        "İpek",
        "9lives",
        "Ann 😀",
        "yours",
    ];
    for name in plain {
        assert_eq!(text(public(name, "hi")), format!("{name}: hi\n"));
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
        assert_eq!(text(public(name, "hi")), format!("\"{name}\": hi\n"));
        assert_eq!(text(private(name, "Ann")), format!("(private) \"{name}\" → you: hi\n"));
        let joined = Entry::Joined { user: name.into(), ts: 1 };
        assert_eq!(text(joined), format!("* \"{name}\" joined\n"));
    }
    // A quote in the name does not end the quotes early.
    assert_eq!(text(public(r#"*\": x"#, "hi")), format!("{}: hi\n", r#""*\\\": x""#));
}
