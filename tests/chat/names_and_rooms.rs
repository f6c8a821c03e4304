//! Names and rooms: which are accepted, and which are refused with which close code.

use serde_json::json;

use crate::support::{Client, TestServer, assert_has, eventually};

/// Connects, and returns the close code and the reason. An error with that reason comes first.
fn refused(server: &TestServer, query: &str) -> (u16, String) {
    let mut client = Client::connect(server, query);
    let error = client.next();
    let (code, reason) = client.closed();
    assert_has(&error, json!({"type": "error", "code": reason}));
    (code, reason)
}

#[test]
fn names_of_any_script_are_accepted_as_they_are() {
    let server = TestServer::start(&[]);
    let cases = [
        ("%E5%BC%A0%E4%B8%89", "张三"),
        ("Jos%C3%A9+Luis", "José Luis"),
        ("%20padded%20", "padded"),
        ("%F0%9F%A6%80", "🦀"),
        ("100%25", "100%"),
        ("%D9%85%D8%B1%D8%AD%D8%A8%D8%A7", "مرحبا"),
    ];
    for (query, name) in cases {
        let mut client = Client::connect(&server, &format!("name={query}"));
        assert_has(&client.next(), json!({"type": "welcome", "user": name}));
    }
    let longest = "%E5%BC%A0".repeat(32);
    assert_eq!(Client::connect(&server, &format!("name={longest}")).next()["type"], "welcome");
}

#[test]
fn bad_names_are_refused_with_4400() {
    let server = TestServer::start(&[]);
    let too_long = "%E5%BC%A0".repeat(33);
    let names = [
        "",
        "+",
        "%20%09",
        &too_long,
        "a%00b",
        "a%0Ab",
        "a%E2%80%A8b",
        "a%E2%80%8Bb",
        "%E2%80%AEb",
        "a%EF%BB%BF",
        "a%FF",
        "a%C2%85b",
        "%E2%81%A6x",
    ];
    for name in names {
        assert_eq!(
            refused(&server, &format!("name={name}")),
            (4400, "invalid_name".to_owned()),
            "{name}"
        );
    }
}

#[test]
fn bad_rooms_are_refused_with_4400() {
    let server = TestServer::start(&[]);
    for room in ["", "a+b", "a.b", "%F0%9F%A6%80", "a%E2%80%8Db", "%FF", &"r".repeat(65)] {
        assert_eq!(
            refused(&server, &format!("room={room}")),
            (4400, "invalid_room".to_owned()),
            "{room}"
        );
    }
    let longest = "r".repeat(64);
    for (typed, room) in
        [("a", "a"), ("A-z_0", "a-z_0"), ("caf%C3%A9", "café"), (&longest, &longest)]
    {
        assert_has(
            &Client::connect(&server, &format!("room={typed}")).next(),
            json!({"type": "welcome", "room": room}),
        );
    }
}

#[test]
fn a_room_is_one_however_it_is_written() {
    let server = TestServer::start(&[]);
    let rooms = [
        ("rust", vec!["Rust", "RUST", "%EF%BC%B2ust", "+rust+"]),
        ("café", vec!["CAF%C3%89", "cafe%CC%81"]),
        ("lobby", vec!["Lobby"]),
        // A Persian word with and without its non-joiner.
        ("علیرضا", vec!["%D8%B9%D9%84%DB%8C%E2%80%8C%D8%B1%D8%B6%D8%A7"]),
    ];
    for (room, spellings) in rooms {
        let mut ann = Client::connect(&server, &format!("name=Ann&room={room}"));
        assert_has(&ann.next(), json!({"type": "welcome", "room": room}));
        assert_has(&ann.next(), json!({"type": "join", "user": "Ann", "room": room}));
        for (number, spelling) in spellings.into_iter().enumerate() {
            let name = format!("Ben{number}");
            let mut ben = Client::connect(&server, &format!("name={name}&room={spelling}"));
            assert_has(&ben.next(), json!({"type": "welcome", "room": room}));
            assert_has(&ann.next(), json!({"type": "join", "user": name, "room": room}));
            ben.close();
            assert_has(&ann.next(), json!({"type": "leave", "user": name, "room": room}));
        }
    }
}

#[test]
fn a_refusal_names_the_member_whose_name_it_is_or_looks_like() {
    let server = TestServer::start(&[]);
    let _bob = Client::join(&server, "Bob");
    let cases = [
        ("Bob", "that name is taken by Bob: choose another"),
        ("BOB", "that name is taken by Bob: choose another"),
        ("%EF%BC%A2ob", "that name is taken by Bob: choose another"),
        // A Cyrillic capital, and a digit.
        ("%D0%92ob", "that name looks like Bob's: choose another"),
        ("B0b", "that name looks like Bob's: choose another"),
    ];
    for (name, advice) in cases {
        let mut client = Client::connect(&server, &format!("name={name}"));
        let error = json!({"type": "error", "code": "name_taken", "content": advice});
        assert_has(&client.next(), error);
        assert_eq!(client.closed(), (4409, "name_taken".to_owned()));
    }
    // Nobody there looks like these.
    for name in ["Bobo", "%D0%91%D0%BE%D0%B1"] {
        assert_eq!(Client::connect(&server, &format!("name={name}")).next()["type"], "welcome");
    }
    assert_eq!(Client::connect(&server, "name=B0b&room=other").next()["type"], "welcome");
}

#[test]
fn a_private_message_reaches_the_same_name_and_not_one_that_looks_like_it() {
    let server = TestServer::start(&[]);
    let mut renee = Client::connect(&server, "name=Ren%C3%A9e");
    renee.next_of("welcome");
    let mut zoe = Client::join(&server, "Zoe");
    for to in ["Renée", "RENE\u{301}E", "\u{3000}ren\u{200D}ée ", "Ｒenée"] {
        zoe.send(json!({"type": "private", "to": to, "content": "psst"}));
        for client in [&mut zoe, &mut renee] {
            let private = client.next_of("private");
            assert_has(&private, json!({"user": "Zoe", "to": "Renée", "content": "psst"}));
        }
    }
    // A Cyrillic е; another letter; nothing; and one longer than any name.
    for to in ["Rеnée", "Rende", "", &"Renée".repeat(1000)] {
        zoe.send(json!({"type": "private", "to": to, "content": "psst", "ref": "1"}));
        let error = json!({"type": "error", "code": "no_such_user", "ref": "1"});
        assert_has(&zoe.next(), error);
    }
}

#[test]
fn a_name_belongs_to_one_member_of_a_room_whatever_its_case() {
    let server = TestServer::start(&[]);
    let ann = Client::join(&server, "Ann");
    for name in ["Ann", "ANN", "ann"] {
        assert_eq!(
            refused(&server, &format!("name={name}")),
            (4409, "name_taken".to_owned()),
            "{name}"
        );
    }
    // Σ has two lower-case forms, and ß has none in upper case.
    let mut odysseus = Client::connect(&server, "name=%CE%9F%CE%94%CE%A5%CE%A3");
    odysseus.next_of("welcome");
    assert_eq!(refused(&server, "name=%CE%BF%CE%B4%CF%85%CF%82").0, 4409);
    let mut street = Client::connect(&server, "name=STRA%E1%BA%9EE");
    street.next_of("welcome");
    assert_eq!(refused(&server, "name=stra%C3%9Fe").0, 4409);
    // A sun, with and without the mark that shows it in colour.
    let mut sun = Client::connect(&server, "name=%E2%98%80%EF%B8%8F");
    sun.next_of("welcome");
    assert_eq!(refused(&server, "name=%E2%98%80").0, 4409);
    Client::join_room(&server, "Ann", "elsewhere");
    ann.close();
    eventually("the name becoming free", || {
        (Client::connect(&server, "name=ann").next()["type"] == "welcome").then_some(())
    });
}

#[test]
fn guests_get_a_name_of_four_letters_or_digits() {
    let server = TestServer::start(&[]);
    let names: Vec<String> = (0..20)
        .map(|_| {
            Client::connect(&server, "room=guests").next()["user"]
                .as_str()
                .expect("a name")
                .to_owned()
        })
        .collect();
    for name in &names {
        let suffix = name.strip_prefix("guest-").expect("guest-xxxx");
        assert!(
            suffix.len() == 4
                && suffix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()),
            "{name}"
        );
    }
    let mut sorted = names.clone();
    sorted.sort();
    sorted.dedup();
    let far = |pair: &[String]| pair[0][..8] != pair[1][..8];
    assert!(sorted.windows(2).any(far), "random, not counted up: {names:?}");
}

#[test]
fn the_room_empty_longest_gives_way_and_else_a_newcomer_is_refused() {
    let server = TestServer::start(&["--max-rooms", "2"]);
    let epoch = |room: &str| {
        let mut client = Client::connect(&server, &format!("room={room}"));
        let epoch = client.next()["epoch"].clone();
        client.close();
        epoch
    };
    let (one, two) = (epoch("one"), epoch("two"));
    assert_eq!(epoch("one"), one, "an empty room keeps its epoch");
    let three = epoch("three");
    assert_eq!((epoch("one"), epoch("three")), (one.clone(), three), "two was empty longest");
    assert_ne!(epoch("two"), two, "it was created again");

    let _a = Client::join_room(&server, "a", "full1");
    let _b = Client::join_room(&server, "b", "full2");
    assert_eq!(refused(&server, "room=third"), (4503, "room_limit".to_owned()));
    Client::join_room(&server, "c", "full1");
}
