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
    for room in ["", "a+b", "caf%C3%A9", "a.b", "%FF", &"r".repeat(65)] {
        assert_eq!(
            refused(&server, &format!("room={room}")),
            (4400, "invalid_room".to_owned()),
            "{room}"
        );
    }
    for room in ["a", "A-z_0", &"r".repeat(64)] {
        assert_has(
            &Client::connect(&server, &format!("room={room}")).next(),
            json!({"type": "welcome", "room": room}),
        );
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
    let _odysseus = Client::connect(&server, "name=%CE%9F%CE%94%CE%A5%CE%A3");
    assert_eq!(refused(&server, "name=%CE%BF%CE%B4%CF%85%CF%82").0, 4409);
    let _street = Client::connect(&server, "name=STRA%E1%BA%9EE");
    assert_eq!(refused(&server, "name=stra%C3%9Fe").0, 4409);
    // A sun, with and without the mark that shows it in colour.
    let _sun = Client::connect(&server, "name=%E2%98%80%EF%B8%8F");
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
