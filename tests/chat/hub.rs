//! The hub's decisions, through `handle` alone: no thread, no socket, no clock.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::bounded;
use parlour::chat::connection::ClientId;
use parlour::chat::frames::Frames;
use parlour::chat::hub::{Hub, Now};
use parlour::chat::inbox::{Event, JoinRequest, Newcomer, Nickname, Timed};
use parlour::chat::outbox;
use parlour::chat::outbox::QueueFull;
use parlour::chat::write_half::{Status, SweepQueue, WriterEnd};
use parlour::protocol::close::CloseReason;
use parlour::protocol::message::frame_bytes_max;
use parlour::protocol::name::{Name, Recipient};
use parlour::protocol::session::Session;
use serde_json::{Value, json};

use crate::support::{assert_has, config, raw};

const NOW: u64 = 1_700_000_000_000;
const RUN_ID: u64 = 0xfeed;
const QUEUE_BYTES: u64 = 1 << 20;

fn now() -> Now {
    Now { ts: NOW, at: Instant::now() }
}

fn hub(options: &[&str]) -> Hub {
    Hub::new(Arc::new(config(options)), SweepQueue::new(), RUN_ID)
}

fn register(hub: &mut Hub, id: ClientId, name: &str, room: &str) -> WriterEnd {
    register_with_queue(hub, id, chosen(name), room, 16)
}

fn chosen(name: &str) -> Nickname {
    Nickname::Chosen(Name::parse(name).expect("a valid name"))
}

fn recipient(name: &str) -> Recipient {
    Recipient::parse(name.to_owned()).expect("no longer than a name can be")
}

fn register_with_queue(
    hub: &mut Hub,
    id: ClientId,
    name: Nickname,
    room: &str,
    queue: usize,
) -> WriterEnd {
    let (outbox, _controls, mail) = outbox::channel(queue, QUEUE_BYTES, &SweepQueue::new());
    let request = JoinRequest {
        name,
        room: room.to_owned(),
        session: Session::random().unwrap(),
        claim: None,
        resume: None,
    };
    hub.handle(Event::Register(Newcomer { id, outbox, request: request.into() }), now());
    mail
}

fn publish(hub: &mut Hub, id: ClientId, content: &str) {
    hub.handle(Event::Publish { id, content: content.to_owned(), reference: None }, now());
}

fn whisper(hub: &mut Hub, id: ClientId, to: &str, content: &str) {
    hub.handle(
        Event::Whisper { id, to: recipient(to), content: content.to_owned(), reference: None },
        now(),
    );
}

/// The messages in each queued entry, and whether more may come.
fn entries(mail: &mut WriterEnd) -> (Vec<Vec<Value>>, Status) {
    let (taken, status) = mail.take();
    let decode = |entry: &Frames| {
        let mut bytes = entry.to_vec();
        let messages = raw::frames(&mut bytes)
            .iter()
            .map(|(_, payload)| serde_json::from_slice(payload).unwrap())
            .collect();
        assert!(bytes.is_empty(), "an entry holds whole frames");
        messages
    };
    (taken.iter().map(decode).collect(), status)
}

/// Type and content (or user) of every message queued, in order.
fn heard(mail: &mut WriterEnd) -> Vec<String> {
    let (entries, _) = entries(mail);
    let word = |message: &Value, key: &str| message[key].as_str().unwrap_or_default().to_owned();
    entries
        .iter()
        .flatten()
        .map(|message| match &*word(message, "type") {
            "public" | "private" => word(message, "content"),
            kind => format!("{kind} {}", word(message, "user")).trim_end().to_owned(),
        })
        .collect()
}

#[test]
fn a_turn_is_one_entry_for_each_member() {
    let mut hub = hub(&[]);
    let mut ann = register(&mut hub, 1, "Ann", "r");
    let mut bob = register(&mut hub, 2, "Bob", "r");
    hub.flush(now());
    entries(&mut ann);
    entries(&mut bob);
    for content in ["one", "two", "three"] {
        publish(&mut hub, 1, content);
    }
    assert!(entries(&mut bob).0.is_empty(), "nothing goes out before the turn ends");
    hub.flush(now());
    for mail in [&mut ann, &mut bob] {
        let (entries, _) = entries(mail);
        assert_eq!(entries.len(), 1);
        assert_eq!(
            entries[0].iter().map(|message| message["seq"].as_u64().unwrap()).collect::<Vec<_>>(),
            [1, 2, 3]
        );
    }
}

#[test]
fn a_newcomer_in_the_middle_of_a_turn_hears_each_message_once() {
    let mut hub = hub(&[]);
    let mut ann = register(&mut hub, 1, "Ann", "r");
    publish(&mut hub, 1, "before");
    let mut bob = register(&mut hub, 2, "Bob", "r");
    publish(&mut hub, 1, "after");
    hub.flush(now());
    assert_eq!(heard(&mut ann), ["welcome Ann", "join Ann", "before", "join Bob", "after"]);
    assert_eq!(heard(&mut bob), ["welcome Bob", "before", "join Bob", "after"]);
}

#[test]
fn a_private_message_overtakes_nothing() {
    let mut hub = hub(&[]);
    let mut ann = register(&mut hub, 1, "Ann", "r");
    let mut bob = register(&mut hub, 2, "Bob", "r");
    let mut eve = register(&mut hub, 3, "Eve", "r");
    hub.flush(now());
    for mail in [&mut ann, &mut bob, &mut eve] {
        heard(mail);
    }
    publish(&mut hub, 1, "1");
    whisper(&mut hub, 1, "Bob", "2");
    publish(&mut hub, 3, "3");
    whisper(&mut hub, 1, "Bob", "4");
    whisper(&mut hub, 1, "nobody", "x");
    hub.flush(now());
    assert_eq!(heard(&mut ann), ["1", "2", "3", "4", "error"]);
    assert_eq!(heard(&mut bob), ["1", "2", "3", "4"]);
    assert_eq!(heard(&mut eve), ["1", "3"]);
}

#[test]
fn whatever_a_turn_has_for_a_member_is_one_entry() {
    let mut hub = hub(&[]);
    let mut ann = register(&mut hub, 1, "Ann", "r");
    let mut bob = register_with_queue(&mut hub, 2, chosen("Bob"), "r", 1);
    hub.flush(now());
    heard(&mut ann);
    heard(&mut bob);
    // More than any queue has room for, if each took an entry of its own.
    for number in 0..50 {
        whisper(&mut hub, 1, "Bob", &number.to_string());
        whisper(&mut hub, 1, "Nobody", "x");
    }
    publish(&mut hub, 1, "end");
    hub.flush(now());
    let (entries, status) = entries(&mut bob);
    assert_eq!(
        (entries.iter().map(Vec::len).collect::<Vec<_>>(), status),
        (vec![51], Status::Open)
    );
    assert_eq!(heard(&mut ann).len(), 101);
}

#[test]
fn a_member_whose_queue_is_full_goes_with_1013_and_sees_no_gap() {
    let mut hub = hub(&[]);
    let mut ann = register(&mut hub, 1, "Ann", "r");
    let mut slow = register_with_queue(&mut hub, 2, chosen("slow"), "r", 2);
    hub.flush(now());
    heard(&mut ann);
    let (greeting, _) = entries(&mut slow);
    assert_eq!(
        greeting.iter().map(Vec::len).collect::<Vec<_>>(),
        [1, 1],
        "welcome, and its own join"
    );
    for content in ["1", "2", "3", "4", "5", "6"] {
        publish(&mut hub, 1, content);
        hub.flush(now());
    }
    // With room for two, and for a greeting, which it has taken already.
    assert_eq!(heard(&mut ann), ["1", "2", "3", "4", "5", "leave slow", "6"]);
    let (entries, status) = entries(&mut slow);
    assert_eq!(
        entries.concat().iter().map(|m| m["seq"].as_u64()).collect::<Vec<_>>(),
        [1, 2, 3, 4].map(Some)
    );
    assert_eq!((status, slow.reason()), (Status::Closed, Some(CloseReason::TooSlow)));
}

#[test]
fn a_queue_has_room_for_so_many_bytes_or_any_one_entry() {
    let (mut outbox, _controls, mut mail) = outbox::channel(16, 100, &SweepQueue::new());
    let entry = |bytes| Frames::from(vec![b'x'; bytes]);
    outbox.greet(entry(1000));
    assert_eq!(outbox.queue(entry(100)), Ok(()), "the greeting takes no room");
    assert_eq!(outbox.queue(entry(1)), Err(QueueFull));
    assert_eq!(mail.take().0.len(), 2);
    assert_eq!(outbox.queue(entry(101)), Ok(()), "alone, any entry fits");
    assert_eq!(outbox.queue(entry(1)), Err(QueueFull));
    for _ in 0..100 {
        mail.take();
        assert_eq!(outbox.queue(entry(60)), Ok(()), "what has been taken counts no more");
    }
}

#[test]
fn the_room_that_remembers_most_forgets_before_others() {
    let mut hub = hub(&["--history-bytes", "4000"]);
    let _ann = register(&mut hub, 1, "Ann", "quiet");
    let _bob = register(&mut hub, 2, "Bob", "loud");
    for number in 1..=3 {
        publish(&mut hub, 1, &number.to_string());
    }
    // Far more than 4,000 bytes.
    for number in 1..=40 {
        publish(&mut hub, 2, &number.to_string());
    }
    hub.flush(now());
    let mut greeting = |id, name, room| heard(&mut register(&mut hub, id, name, room));
    assert_eq!(greeting(3, "Cid", "quiet"), ["welcome Cid", "1", "2", "3"]);
    let loud = greeting(4, "Dan", "loud");
    assert!((5..20).contains(&loud.len()), "{loud:?}");
    let newest: Vec<String> = (1..=40).map(|number: u32| number.to_string()).collect();
    assert_eq!(loud[1..], newest[newest.len() + 1 - loud.len()..]);
}

#[test]
fn many_full_queues_at_once_are_many_leaves_in_one_entry() {
    let mut hub = hub(&[]);
    let mut ann = register(&mut hub, 1, "Ann", "r");
    // A greeting, the turn's join notices, one more entry, since there is no history yet, and then
    // nothing fits.
    let slow: Vec<WriterEnd> = (2..50)
        .map(|id| register_with_queue(&mut hub, id, chosen(&format!("s{id}")), "r", 1))
        .collect();
    hub.flush(now());
    heard(&mut ann);
    for content in ["x", "y"] {
        publish(&mut hub, 1, content);
        hub.flush(now());
    }
    let (entries, _) = entries(&mut ann);
    assert_eq!(
        entries.iter().map(Vec::len).collect::<Vec<_>>(),
        [1, 1, 48],
        "the messages, then all the leaves"
    );
    assert!(slow.iter().all(|mail| mail.reason() == Some(CloseReason::TooSlow)));
}

#[test]
fn a_leave_comes_after_the_members_last_message_and_the_member_hears_what_it_said() {
    let mut hub = hub(&[]);
    let mut ann = register(&mut hub, 1, "Ann", "r");
    let mut bob = register(&mut hub, 2, "Bob", "r");
    hub.flush(now());
    heard(&mut ann);
    heard(&mut bob);
    publish(&mut hub, 2, "last words");
    hub.handle(Event::Unregister { id: 2, reason: CloseReason::ClientClosed }, now());
    publish(&mut hub, 2, "from beyond");
    hub.handle(Event::Unregister { id: 2, reason: CloseReason::ConnectionLost }, now());
    hub.flush(now());
    assert_eq!(heard(&mut ann), ["last words", "leave Bob"]);
    assert_eq!(heard(&mut bob), ["last words"]);
    assert_eq!(bob.reason(), Some(CloseReason::ClientClosed));
}

#[test]
fn a_refused_newcomer_is_told_and_nobody_hears_of_it() {
    let mut hub = hub(&["--max-rooms", "1"]);
    let mut ann = register(&mut hub, 1, "Ann", "r");
    let mut taken = register(&mut hub, 2, "ANN", "r");
    let mut no_room = register(&mut hub, 3, "Bob", "elsewhere");
    publish(&mut hub, 2, "from a stranger");
    hub.handle(Event::Unregister { id: 2, reason: CloseReason::ConnectionLost }, now());
    hub.flush(now());
    assert_eq!(heard(&mut ann), ["welcome Ann", "join Ann"]);
    for (mail, reason) in
        [(&mut taken, CloseReason::NameTaken), (&mut no_room, CloseReason::RoomLimit)]
    {
        let (entries, status) = entries(mail);
        assert_has(&entries[0][0], json!({"type": "error", "code": reason.name()}));
        assert_eq!((status, mail.reason()), (Status::Closed, Some(reason)));
    }
}

#[test]
fn a_room_of_absent_members_alone_gives_way_before_a_newcomer_is_refused() {
    let mut hub = hub(&["--max-rooms", "2", "--leave-grace", "1h"]);
    let _ann = register(&mut hub, 1, "Ann", "lively");
    for (id, name) in [(2, "Bob"), (3, "Eve")] {
        let _gone = register(&mut hub, id, name, "deserted");
        hub.handle(Event::Unregister { id, reason: CloseReason::ConnectionLost }, now());
    }
    let mut cid = register(&mut hub, 4, "Cid", "new");
    let mut dan = register(&mut hub, 5, "Dan", "newer");
    hub.flush(now());
    assert_eq!(heard(&mut cid), ["welcome Cid", "join Cid"]);
    assert_eq!(
        (heard(&mut dan), dan.reason()),
        (vec!["error".to_owned()], Some(CloseReason::RoomLimit))
    );
}

#[test]
fn a_guest_whose_name_is_taken_gets_the_next() {
    let mut hub = hub(&[]);
    let mut names = Vec::new();
    let mails: Vec<WriterEnd> = [32, 32, 32, u32::MAX, u32::MAX]
        .into_iter()
        .enumerate()
        .map(|(i, start)| {
            register_with_queue(&mut hub, i as ClientId, Nickname::Guest(start), "r", 64)
        })
        .collect();
    hub.flush(now());
    for mut mail in mails {
        names.push(entries(&mut mail).0[0][0]["user"].as_str().unwrap().to_owned());
    }
    assert_eq!(names[..3], ["guest-222z", "guest-2232", "guest-2233"]);
    assert_ne!(names[3], names[4]);
}

#[test]
fn a_guest_gets_no_name_that_somebody_chose_or_that_looks_like_it() {
    let mut hub = hub(&[]);
    // The second looks like guest-2223: its first letter is the phonetic alphabet's.
    for (id, name) in [(1, "GUEST-2222"), (2, "\u{261}uest-2223")] {
        register(&mut hub, id, name, "r");
    }
    let mut guest = register_with_queue(&mut hub, 3, Nickname::Guest(0), "r", 16);
    hub.flush(now());
    assert_eq!(heard(&mut guest), ["welcome guest-2224", "join guest-2224"]);
}

#[test]
fn stopping_delivers_the_turn_then_closes_all_and_refuses_newcomers() {
    let mut hub = hub(&[]);
    let mut ann = register(&mut hub, 1, "Ann", "r");
    publish(&mut hub, 1, "last");
    hub.handle(Event::Stop, now());
    let mut late = register(&mut hub, 2, "late", "r");
    hub.flush(now());
    assert_eq!(heard(&mut ann), ["welcome Ann", "join Ann", "last"]);
    assert_eq!(entries(&mut ann).1, Status::Closed);
    for mail in [&ann, &late] {
        assert_eq!(mail.reason(), Some(CloseReason::ServerShutdown));
    }
    assert_eq!(heard(&mut late), [""; 0]);
}

#[test]
fn a_crowd_is_told_of_comings_and_goings_together_and_in_their_place() {
    let mut hub = hub(&[]);
    let mut mails: Vec<WriterEnd> = (1..=200)
        .map(|id| {
            let mut mail = register_with_queue(&mut hub, id, chosen(&format!("m{id}")), "r", 256);
            hub.flush(now());
            let heard = heard(&mut mail);
            assert_eq!(heard, [format!("welcome m{id}"), format!("join m{id}")], "its own at once");
            mail
        })
        .collect();
    hub.handle(Event::NoticesDue, now());
    hub.flush(now());
    // The last hundred came to a crowd: one entry tells of all of them.
    let (entries, _) = entries(&mut mails[0]);
    assert_eq!(entries.iter().map(Vec::len).sum::<usize>(), 199);
    assert_eq!(entries.last().map(Vec::len), Some(101));
    assert_eq!(heard(&mut mails[150]).len(), 200 - 151);

    mails.iter_mut().for_each(|mail| drop(heard(mail)));

    // What is said takes the notices before it along; what is told to one member alone overtakes
    // none.
    let mut late = register(&mut hub, 201, "late", "r");
    hub.flush(now());
    assert_eq!(heard(&mut late), ["welcome late", "join late"]);
    whisper(&mut hub, 2, "m1", "psst");
    hub.flush(now());
    assert_eq!(heard(&mut mails[0]), ["join late", "psst"]);
    assert_eq!(heard(&mut mails[2]), [""; 0]);
    hub.handle(Event::Unregister { id: 201, reason: CloseReason::ClientClosed }, now());
    publish(&mut hub, 2, "hello");
    hub.flush(now());
    assert_eq!(heard(&mut mails[0]), ["leave late", "hello"]);
    assert_eq!(heard(&mut mails[2]), ["join late", "leave late", "hello"]);
    // Also where what waits is so much that the message begins an entry of its own.
    let many: Vec<WriterEnd> =
        (300..500).map(|id| register(&mut hub, id, &format!("m{id}"), "r")).collect();
    publish(&mut hub, 2, "at once");
    hub.flush(now());
    assert_eq!(heard(&mut mails[2]).last().map(String::as_str), Some("at once"));
    drop(many);
    assert_eq!(late.reason(), Some(CloseReason::ClientClosed));
}

#[test]
fn frames_of_every_length_have_their_header() {
    let mut hub = hub(&["--max-message-bytes", "100000"]);
    let mut ann = register(&mut hub, 1, "Ann", "r");
    for length in [1, 20, 30, 40, 125, 126, 65_400, 65_500, 70_000] {
        publish(&mut hub, 1, &"x".repeat(length));
    }
    hub.flush(now());
    // Decoding checks each length.
    assert_eq!(heard(&mut ann).last().map(String::len), Some(70_000));
}

#[test]
fn stopping_tells_a_member_that_missed_something_so() {
    let mut hub = hub(&[]);
    let _ann = register(&mut hub, 1, "Ann", "r");
    let slow = register_with_queue(&mut hub, 2, chosen("slow"), "r", 1);
    hub.flush(now());
    publish(&mut hub, 1, "fits");
    hub.flush(now());
    publish(&mut hub, 1, "does not fit");
    hub.handle(Event::Stop, now());
    assert_eq!(slow.reason(), Some(CloseReason::TooSlow));
}

#[test]
fn what_waits_in_the_inbox_is_delivered_before_a_stop() {
    let mut hub = hub(&[]);
    let mut ann = register(&mut hub, 1, "Ann", "r");
    hub.flush(now());
    heard(&mut ann);
    let (inbox, events) = bounded(1024);
    for number in 0..600 {
        inbox
            .send(Timed::now(Event::Publish {
                id: 1,
                content: number.to_string(),
                reference: None,
            }))
            .unwrap();
    }
    let (stop, stopped) = bounded(1);
    stop.send(()).unwrap();
    drop(inbox);
    hub.run(&events, stopped);
    assert_eq!(heard(&mut ann), (0..600).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(ann.reason(), Some(CloseReason::ServerShutdown));
}

#[test]
fn every_message_has_the_time_and_each_life_of_a_room_its_epoch() {
    let mut epochs = Vec::new();
    for run_id in [1, 2] {
        let mut hub = Hub::new(Arc::new(config(&[])), SweepQueue::new(), run_id);
        let mut ann = register(&mut hub, 1, "Ann", "r");
        let _bob = register(&mut hub, 2, "Bob", "r");
        whisper(&mut hub, 1, "Bob", "x");
        whisper(&mut hub, 1, "Nobody", "x");
        publish(&mut hub, 1, "x");
        hub.handle(Event::Unregister { id: 2, reason: CloseReason::ConnectionLost }, now());
        hub.flush(now());
        let messages = entries(&mut ann).0.concat();
        let kinds: Vec<&str> =
            messages.iter().map(|message| message["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["welcome", "join", "join", "private", "error", "public", "leave"]);
        assert!(messages.iter().all(|message| message["ts"] == NOW), "{messages:?}");
        epochs.push(messages[0]["epoch"].clone());
    }
    assert_ne!(epochs[0], epochs[1]);
}

#[test]
fn a_hub_that_does_not_answer_is_not_healthy() {
    let (inbox, events) = bounded(1);
    assert_eq!(parlour::http::routes::health(&inbox).status(), 503);
    drop(events);
    assert_eq!(parlour::http::routes::health(&inbox).status(), 503);
}

#[test]
fn health_is_answered() {
    let (ask, answered) = bounded(1);
    hub(&[]).handle(Event::Health(ask), now());
    assert_eq!(answered.try_recv(), Ok(()));
}

#[test]
fn a_long_turn_is_cut_into_entries_of_bounded_size() {
    let mut hub = hub(&[]);
    let mut ann = register(&mut hub, 1, "Ann", "r");
    hub.flush(now());
    entries(&mut ann);
    for _ in 0..20 {
        publish(&mut hub, 1, &"x".repeat(4000));
    }
    hub.flush(now());
    let (taken, _) = ann.take();
    assert!(
        taken.len() > 1 && taken.iter().all(|entry| entry.len() <= 16 * 1024),
        "{:?}",
        taken.iter().map(|e| e.len()).collect::<Vec<_>>()
    );
}

#[test]
fn an_entry_of_a_members_own_holds_as_much_again_and_no_more() {
    let mut hub = hub(&[]);
    let mut ann = register_with_queue(&mut hub, 1, chosen("Ann"), "r", 256);
    let _bob = register_with_queue(&mut hub, 2, chosen("Bob"), "r", 256);
    hub.flush(now());
    entries(&mut ann);
    let content = "x".repeat(1000);
    for number in 0..200 {
        // In stretches, so that much of both kinds comes together.
        match number % 30 < 15 {
            true => whisper(&mut hub, 2, "Ann", &content),
            false => publish(&mut hub, 2, &content),
        }
    }
    hub.flush(now());
    let (taken, _) = ann.take();
    let sizes: Vec<usize> = taken.iter().map(|entry| entry.len()).collect();
    assert!(
        sizes.iter().any(|&size| size > 16 * 1024) && sizes.iter().all(|&size| size <= 32 * 1024),
        "{sizes:?}"
    );
}

#[test]
fn no_message_is_longer_than_the_longest_a_client_may_send() {
    const CONTENT_BYTES_MAX: usize = 1000;
    let mut hub = hub(&["--max-message-bytes=1000"]);
    let (ann, bob) = ("\u{10000}".repeat(32), "\u{10001}".repeat(32));
    // Four bytes each.
    let room = "\u{10000}".repeat(64);
    let mut mail = register(&mut hub, 1, &ann, &room);
    let _bob = register(&mut hub, 2, &bob, &room);
    hub.flush(now());
    entries(&mut mail);
    // Six bytes each in JSON.
    let (content, reference) = ("\u{1}".repeat(CONTENT_BYTES_MAX), Some("\u{1}".repeat(64)));
    hub.handle(
        Event::Publish { id: 1, content: content.clone(), reference: reference.clone() },
        now(),
    );
    hub.flush(now());
    hub.handle(Event::Whisper { id: 1, to: recipient(&bob), content, reference }, now());
    hub.flush(now());
    let (taken, _) = mail.take();
    assert_eq!(taken.len(), 2);
    for entry in taken {
        let longest = frame_bytes_max(CONTENT_BYTES_MAX);
        assert!(
            (6 * CONTENT_BYTES_MAX..=longest).contains(&entry.len()),
            "{} of {longest}",
            entry.len()
        );
    }
}
