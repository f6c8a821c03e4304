//! How the entries of a conversation read as text.

use parlour::terminal::conversation::Entry;
use parlour::terminal::transcript::Transcript;

/// Returns the text of `entry` for Ann in a terminal, without colours and times.
fn text(entry: Entry) -> String {
    Transcript::new(false, false).lines(&entry, "Ann", Some(80))
}

/// Returns the line of `entry` for a program.
fn line(entry: Entry) -> String {
    Transcript::new(false, false).lines(&entry, "Ann", None)
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
fn a_program_reads_one_line_for_each_entry() {
    assert_eq!(line(public("Bob", "one\r\ntwo\n* Bob left")), "Bob: one\\r\\ntwo\\n* Bob left\n");
    assert_eq!(line(public("Bob\n* Eve", "x")), "Bob\\n* Eve: x\n");
    let long = "word ".repeat(1000);
    assert_eq!(line(public("Bob", &long)), format!("Bob: {long}\n"));
}

#[test]
fn a_run_of_blanks_is_short_whatever_it_consists_of() {
    let blanks = [
        " ",
        "\t",
        "\u{A0}",
        "\u{1680}",
        "\u{2003}",
        "\u{202F}",
        "\u{205F}",
        "\u{3000}",
        " \u{200D}",
        "\u{3000}\u{200C}\u{FE0F}",
    ];
    for blank in blanks {
        for show in [text, line] {
            let content = format!("no{}12:00 Alice: yes", blank.repeat(60));
            assert_eq!(show(public("Bob", &content)), "Bob: no    12:00 Alice: yes\n", "{blank:?}");
        }
        let name = format!("Bob{}Alice", blank.repeat(60));
        assert_eq!(text(public(&name, "x")), "Bob    Alice: x\n", "{blank:?}");
    }
    // A few are kept, as in a program's text.
    assert_eq!(text(public("Bob", "if x:\n\ty")), "Bob: if x:\n          y\n");
    // Other blanks are shown.
    assert_eq!(text(public("Bob", "\u{2800}\u{B}\u{3164}")), "Bob: \\u{2800}\\u{b}\\u{3164}\n");
    assert_eq!(text(public("Bob", "one\n \n\n\n\ntwo")), "Bob: one\n       \n      two\n");
}

#[test]
fn a_long_entry_of_any_kind_is_broken_into_indented_rows() {
    let long = "12:00 Alice: yes ".repeat(20);
    let entries = [
        public("Bob", &long),
        public(&long, "x"),
        Entry::Private { user: "Bob".into(), to: long.clone(), content: long.clone(), ts: 1 },
        Entry::Joined { user: long.clone(), ts: 1 },
        Entry::Greeting(long.clone()),
        Entry::Note(long.clone()),
        Entry::Undelivered { content: long.clone(), why: long.clone() },
    ];
    for entry in entries {
        let shown = text(entry);
        assert!(shown.lines().count() > 4, "{shown}");
        assert!(shown.lines().skip(1).all(|row| row.starts_with("      ")), "{shown}");
        assert!(shown.lines().all(|row| row.chars().count() <= 80), "{shown}");
    }
}

#[test]
fn the_widest_row_is_known_until_it_is_forgotten() {
    let mut transcript = Transcript::new(false, false);
    transcript.lines(&public("Bob", "hello there"), "Ann", Some(80));
    transcript.lines(&public("Bob", "hi"), "Ann", Some(80));
    assert_eq!(transcript.widest_row(), "Bob: hello there".len());
    transcript.forget_widest_row();
    transcript.lines(&public("Bob", "hi"), "Ann", Some(80));
    assert_eq!(transcript.widest_row(), "Bob: hi".len());
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
