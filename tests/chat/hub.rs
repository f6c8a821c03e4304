//! The hub's decisions, through `handle` alone: without threads, sockets or a clock.

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
    let (outbox, _reader_end, writer_end) = outbox::channel(queue, QUEUE_BYTES, &SweepQueue::new());
    let request = JoinRequest {
        name,
        room: room.to_owned(),
        session: Session::random().unwrap(),
        claim: None,
        resume: None,
    };
    hub.handle(Event::Register(Newcomer { id, outbox, request: request.into() }), now());
    writer_end
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

/// Lets members join the room "r", with ids from 1, and reads what they receive for that.
fn room_of<const N: usize>(names: [&str; N]) -> (Hub, [WriterEnd; N]) {
    let mut hub = hub(&[]);
    let mut id = 0;
    let mut members = names.map(|name| {
        id += 1;
        register(&mut hub, id, name, "r")
    });
    hub.flush(now());
    members.iter_mut().for_each(|member| {
        entries(member);
    });
    (hub, members)
}

/// Takes what is queued: the messages of each entry, and whether more may come.
fn entries(writer_end: &mut WriterEnd) -> (Vec<Vec<Value>>, Status) {
    let (taken, status) = writer_end.take();
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

/// Takes what is queued, as the content of each message, or as the type and user of any other.
fn received(writer_end: &mut WriterEnd) -> Vec<String> {
    let (entries, _) = entries(writer_end);
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
    let (mut hub, [mut ann, mut bob]) = room_of(["Ann", "Bob"]);
    for content in ["one", "two", "three"] {
        publish(&mut hub, 1, content);
    }
    assert!(entries(&mut bob).0.is_empty(), "nothing is sent before the turn ends");
    hub.flush(now());
    for writer_end in [&mut ann, &mut bob] {
        let (entries, _) = entries(writer_end);
        assert_eq!(entries.len(), 1);
        let seqs: Vec<_> =
            entries[0].iter().map(|message| message["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, [1, 2, 3]);
    }
}

#[test]
fn a_newcomer_within_a_turn_receives_each_message_once() {
    let mut hub = hub(&[]);
    let mut ann = register(&mut hub, 1, "Ann", "r");
    publish(&mut hub, 1, "before");
    let mut bob = register(&mut hub, 2, "Bob", "r");
    publish(&mut hub, 1, "after");
    hub.flush(now());
    assert_eq!(received(&mut ann), ["welcome Ann", "join Ann", "before", "join Bob", "after"]);
    assert_eq!(received(&mut bob), ["welcome Bob", "before", "join Bob", "after"]);
}

#[test]
fn private_messages_keep_their_place_among_public_ones() {
    let (mut hub, [mut ann, mut bob, mut eve]) = room_of(["Ann", "Bob", "Eve"]);
    publish(&mut hub, 1, "1");
    whisper(&mut hub, 1, "Bob", "2");
    publish(&mut hub, 3, "3");
    whisper(&mut hub, 1, "Bob", "4");
    whisper(&mut hub, 1, "nobody", "x");
    hub.flush(now());
    assert_eq!(received(&mut ann), ["1", "2", "3", "4", "error"]);
    assert_eq!(received(&mut bob), ["1", "2", "3", "4"]);
    assert_eq!(received(&mut eve), ["1", "3"]);
}

#[test]
fn all_private_messages_of_a_turn_are_one_entry() {
    let mut hub = hub(&[]);
    let mut ann = register(&mut hub, 1, "Ann", "r");
    let mut bob = register_with_queue(&mut hub, 2, chosen("Bob"), "r", 1);
    hub.flush(now());
    received(&mut ann);
    received(&mut bob);
    // Far more than the queue has space for, if each took an entry of its own.
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
    assert_eq!(received(&mut ann).len(), 101);
}

#[test]
fn a_member_whose_queue_is_full_is_dropped_with_1013_without_a_gap() {
    let mut hub = hub(&[]);
    let mut ann = register(&mut hub, 1, "Ann", "r");
    let mut slow = register_with_queue(&mut hub, 2, chosen("slow"), "r", 2);
    hub.flush(now());
    received(&mut ann);
    let (greeting, _) = entries(&mut slow);
    assert_eq!(
        greeting.iter().map(Vec::len).collect::<Vec<_>>(),
        [1, 1],
        "the welcome, and its own join"
    );
    for content in ["1", "2", "3", "4", "5", "6"] {
        publish(&mut hub, 1, content);
        hub.flush(now());
    }
    // The queue has space for two, and for a greeting, which was read already.
    assert_eq!(received(&mut ann), ["1", "2", "3", "4", "leave slow", "5", "6"]);
    let (entries, status) = entries(&mut slow);
    assert_eq!(
        entries.concat().iter().map(|m| m["seq"].as_u64()).collect::<Vec<_>>(),
        [1, 2, 3].map(Some)
    );
    assert_eq!((status, slow.reason()), (Status::Closed, Some(CloseReason::TooSlow)));
}

#[test]
fn a_queue_is_bounded_in_bytes_but_takes_any_single_entry() {
    let (mut outbox, _reader_end, mut writer_end) = outbox::channel(16, 100, &SweepQueue::new());
    let entry = |bytes| Frames::from(vec![b'x'; bytes]);
    outbox.greet(entry(1000));
    assert_eq!(outbox.queue(entry(100)), Ok(()), "a greeting does not count");
    assert_eq!(outbox.queue(entry(1)), Err(QueueFull));
    assert_eq!(writer_end.take().0.len(), 2);
    assert_eq!(outbox.queue(entry(101)), Ok(()), "an empty queue takes any entry");
    assert_eq!(outbox.queue(entry(1)), Err(QueueFull));
    for _ in 0..100 {
        writer_end.take();
        assert_eq!(outbox.queue(entry(60)), Ok(()), "what was taken does not count");
    }
}

#[test]
fn a_greeting_shares_the_history_and_has_only_the_newest_half_mebibyte_of_it() {
    let mut hub = hub(&["--max-message-bytes", "65536"]);
    let mut ann = register(&mut hub, 1, "Ann", "r");
    for number in 0..20 {
        publish(&mut hub, 1, &format!("{number} {}", "x".repeat(60_000)));
        hub.flush(now());
        ann.take();
    }
    let mut greet = |id: ClientId, name: &str| {
        let (entries, _) = register(&mut hub, id, name, "r").take();
        hub.flush(now());
        entries
    };
    let (bob, cid) = (greet(2, "Bob"), greet(3, "Cid"));
    // The welcome and eight messages; a ninth would be over the limit.
    assert_eq!((bob.len(), cid.len()), (9, 9));
    for (one, other) in bob[1..].iter().zip(&cid[1..]) {
        assert!(std::ptr::eq(one.as_ptr(), other.as_ptr()), "the same bytes in memory");
    }
    let text = String::from_utf8_lossy(&bob[1]).into_owned();
    assert!(text.contains("\"content\":\"12 x"), "the newest of twenty");
    let welcome = String::from_utf8_lossy(&bob[0]).into_owned();
    assert!(welcome.contains("\"seq\":20,\"history\":8,\"recovered\":false"), "{welcome}");
}

#[test]
fn the_room_that_remembers_most_forgets_first() {
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
    let mut greeting = |id, name, room| received(&mut register(&mut hub, id, name, room));
    assert_eq!(greeting(3, "Cid", "quiet"), ["welcome Cid", "1", "2", "3"]);
    let loud = greeting(4, "Dan", "loud");
    assert!((5..20).contains(&loud.len()), "{loud:?}");
    let newest: Vec<String> = (1..=40).map(|number: u32| number.to_string()).collect();
    assert_eq!(loud[1..], newest[newest.len() + 1 - loud.len()..]);
}

#[test]
fn the_leaves_of_many_full_queues_are_one_entry() {
    let mut hub = hub(&[]);
    let mut ann = register(&mut hub, 1, "Ann", "r");
    // Each queue has space for its greeting, the turn's join notices and one more entry.
    let slow: Vec<WriterEnd> = (2..50)
        .map(|id| register_with_queue(&mut hub, id, chosen(&format!("s{id}")), "r", 2))
        .collect();
    hub.flush(now());
    received(&mut ann);
    for content in ["x", "y"] {
        publish(&mut hub, 1, content);
        hub.flush(now());
    }
    let (entries, _) = entries(&mut ann);
    assert_eq!(
        entries.iter().map(Vec::len).collect::<Vec<_>>(),
        [1, 1, 48],
        "the two messages, then all leaves"
    );
    assert!(slow.iter().all(|writer_end| writer_end.reason() == Some(CloseReason::TooSlow)));
}

#[test]
fn a_leave_follows_the_members_last_message() {
    let (mut hub, [mut ann, mut bob]) = room_of(["Ann", "Bob"]);
    publish(&mut hub, 2, "last message");
    hub.handle(Event::Unregister { id: 2, reason: CloseReason::ClientClosed }, now());
    publish(&mut hub, 2, "after it has left");
    hub.handle(Event::Unregister { id: 2, reason: CloseReason::ConnectionLost }, now());
    hub.flush(now());
    assert_eq!(received(&mut ann), ["last message", "leave Bob"]);
    assert_eq!(received(&mut bob), ["last message"]);
    assert_eq!(bob.reason(), Some(CloseReason::ClientClosed));
}

#[test]
fn a_refused_newcomer_receives_an_error_and_nobody_else_notices() {
    let mut hub = hub(&["--max-rooms", "1"]);
    let mut ann = register(&mut hub, 1, "Ann", "r");
    let mut taken = register(&mut hub, 2, "ANN", "r");
    let mut no_room = register(&mut hub, 3, "Bob", "elsewhere");
    publish(&mut hub, 2, "from somebody who is not a member");
    hub.handle(Event::Unregister { id: 2, reason: CloseReason::ConnectionLost }, now());
    hub.flush(now());
    assert_eq!(received(&mut ann), ["welcome Ann", "join Ann"]);
    for (writer_end, reason) in
        [(&mut taken, CloseReason::NameTaken), (&mut no_room, CloseReason::RoomLimit)]
    {
        let (entries, status) = entries(writer_end);
        assert_has(&entries[0][0], json!({"type": "error", "code": reason.name()}));
        assert_eq!((status, writer_end.reason()), (Status::Closed, Some(reason)));
    }
}

#[test]
fn a_room_whose_members_are_all_absent_gives_way() {
    let mut hub = hub(&["--max-rooms", "2", "--leave-grace", "1h"]);
    let _ann = register(&mut hub, 1, "Ann", "lively");
    for (id, name) in [(2, "Bob"), (3, "Eve")] {
        let _gone = register(&mut hub, id, name, "deserted");
        hub.handle(Event::Unregister { id, reason: CloseReason::ConnectionLost }, now());
    }
    let mut cid = register(&mut hub, 4, "Cid", "new");
    let mut dan = register(&mut hub, 5, "Dan", "newer");
    hub.flush(now());
    assert_eq!(received(&mut cid), ["welcome Cid", "join Cid"]);
    assert_eq!(
        (received(&mut dan), dan.reason()),
        (vec!["error".to_owned()], Some(CloseReason::RoomLimit))
    );
}

#[test]
fn a_guest_whose_name_is_taken_gets_the_next_one() {
    let mut hub = hub(&[]);
    let mut names = Vec::new();
    let writer_ends: Vec<WriterEnd> = [32, 32, 32, u32::MAX, u32::MAX]
        .into_iter()
        .enumerate()
        .map(|(i, start)| {
            register_with_queue(&mut hub, i as ClientId, Nickname::Guest(start), "r", 64)
        })
        .collect();
    hub.flush(now());
    for mut writer_end in writer_ends {
        names.push(entries(&mut writer_end).0[0][0]["user"].as_str().unwrap().to_owned());
    }
    assert_eq!(names[..3], ["guest-222z", "guest-2232", "guest-2233"]);
    assert_ne!(names[3], names[4]);
}

#[test]
fn a_guest_gets_no_name_that_is_taken_or_looks_like_one() {
    let mut hub = hub(&[]);
    // The second looks like guest-2223: its first letter is the phonetic alphabet's.
    for (id, name) in [(1, "GUEST-2222"), (2, "\u{261}uest-2223")] {
        register(&mut hub, id, name, "r");
    }
    let mut guest = register_with_queue(&mut hub, 3, Nickname::Guest(0), "r", 16);
    hub.flush(now());
    assert_eq!(received(&mut guest), ["welcome guest-2224", "join guest-2224"]);
}

#[test]
fn a_stop_delivers_the_turn_closes_everyone_and_refuses_newcomers() {
    let mut hub = hub(&[]);
    let mut ann = register(&mut hub, 1, "Ann", "r");
    publish(&mut hub, 1, "last");
    hub.handle(Event::Stop, now());
    let mut late = register(&mut hub, 2, "late", "r");
    hub.flush(now());
    assert_eq!(received(&mut ann), ["welcome Ann", "join Ann", "last"]);
    assert_eq!(entries(&mut ann).1, Status::Closed);
    for writer_end in [&ann, &late] {
        assert_eq!(writer_end.reason(), Some(CloseReason::ServerShutdown));
    }
    assert_eq!(received(&mut late), [""; 0]);
}

/// Lets a crowd of 200 join, each member in a turn of its own. Its own join notice comes at once.
fn crowd(hub: &mut Hub) -> Vec<WriterEnd> {
    let join = |id| {
        let name = chosen(&format!("m{id}"));
        let mut member = register_with_queue(hub, id, name, "r", 256);
        hub.flush(now());
        assert_eq!(received(&mut member), [format!("welcome m{id}"), format!("join m{id}")]);
        member
    };
    (1..=200).map(join).collect()
}

#[test]
fn notices_of_a_crowd_are_collected_in_one_entry() {
    let mut hub = hub(&[]);
    let mut members = crowd(&mut hub);
    hub.handle(Event::NoticesDue, now());
    hub.flush(now());
    // The room became a crowd with its hundredth member.
    let (entries, _) = entries(&mut members[0]);
    assert_eq!(entries.iter().map(Vec::len).sum::<usize>(), 199);
    assert_eq!(entries.last().map(Vec::len), Some(101));
    assert_eq!(received(&mut members[150]).len(), 200 - 151);
}

#[test]
fn notices_of_a_crowd_keep_their_place_among_messages() {
    let mut hub = hub(&[]);
    let mut members = crowd(&mut hub);
    hub.handle(Event::NoticesDue, now());
    hub.flush(now());
    members.iter_mut().for_each(|member| {
        received(member);
    });

    // A private message takes the notices before it along, for its two members.
    let mut late = register(&mut hub, 201, "late", "r");
    hub.flush(now());
    assert_eq!(received(&mut late), ["welcome late", "join late"]);
    whisper(&mut hub, 2, "m1", "psst");
    hub.flush(now());
    assert_eq!(received(&mut members[0]), ["join late", "psst"]);
    assert_eq!(received(&mut members[2]), [""; 0]);
    // A public message takes them along for everybody.
    hub.handle(Event::Unregister { id: 201, reason: CloseReason::ClientClosed }, now());
    publish(&mut hub, 2, "hello");
    hub.flush(now());
    assert_eq!(received(&mut members[0]), ["leave late", "hello"]);
    assert_eq!(received(&mut members[2]), ["join late", "leave late", "hello"]);
    // So it does if the notices alone fill an entry.
    let many: Vec<WriterEnd> =
        (300..500).map(|id| register(&mut hub, id, &format!("m{id}"), "r")).collect();
    publish(&mut hub, 2, "at once");
    hub.flush(now());
    assert_eq!(received(&mut members[2]).last().map(String::as_str), Some("at once"));
    drop(many);
    assert_eq!(late.reason(), Some(CloseReason::ClientClosed));
}

#[test]
fn a_frame_of_any_length_has_the_right_header() {
    let mut hub = hub(&["--max-message-bytes", "100000"]);
    let mut ann = register(&mut hub, 1, "Ann", "r");
    for length in [1, 20, 30, 40, 125, 126, 65_400, 65_500, 70_000] {
        publish(&mut hub, 1, &"x".repeat(length));
    }
    hub.flush(now());
    // Decoding checks each length.
    assert_eq!(received(&mut ann).last().map(String::len), Some(70_000));
}

#[test]
fn a_member_that_missed_something_is_closed_with_1013_at_a_stop() {
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
fn messages_in_the_inbox_are_delivered_before_a_stop() {
    let (hub, [mut ann]) = room_of(["Ann"]);
    let (inbox, events) = bounded(1024);
    for number in 0..600 {
        let content = number.to_string();
        inbox.send(Timed::now(Event::Publish { id: 1, content, reference: None })).unwrap();
    }
    let (stop, stopped) = bounded(1);
    stop.send(()).unwrap();
    drop(inbox);
    hub.run(&events, stopped);
    assert_eq!(received(&mut ann), (0..600).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(ann.reason(), Some(CloseReason::ServerShutdown));
}

#[test]
fn every_message_has_a_time_and_every_run_its_own_epochs() {
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
fn a_hub_that_does_not_reply_is_not_healthy() {
    let (inbox, events) = bounded(1);
    assert_eq!(parlour::http::routes::health(&inbox).status(), 503);
    drop(events);
    assert_eq!(parlour::http::routes::health(&inbox).status(), 503);
}

#[test]
fn the_hub_replies_to_a_health_check() {
    let (reply, replied) = bounded(1);
    hub(&[]).handle(Event::Health(reply), now());
    assert_eq!(replied.try_recv(), Ok(()));
}

#[test]
fn a_long_turn_is_split_into_bounded_entries() {
    let (mut hub, [mut ann]) = room_of(["Ann"]);
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
fn an_entry_may_hold_as_much_again_for_its_member_alone() {
    let mut hub = hub(&[]);
    let mut ann = register_with_queue(&mut hub, 1, chosen("Ann"), "r", 256);
    let _bob = register_with_queue(&mut hub, 2, chosen("Bob"), "r", 256);
    hub.flush(now());
    entries(&mut ann);
    let content = "x".repeat(1000);
    for number in 0..200 {
        // Alternately 15 private ones and 15 public ones, so that there is much of both.
        if number % 30 < 15 {
            whisper(&mut hub, 2, "Ann", &content);
        } else {
            publish(&mut hub, 2, &content);
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
fn no_server_message_is_longer_than_the_longest_of_a_client() {
    const CONTENT_BYTES_MAX: usize = 1000;
    let mut hub = hub(&["--max-message-bytes=1000"]);
    let (ann, bob) = ("\u{10000}".repeat(32), "\u{10001}".repeat(32));
    // Four bytes each.
    let room = "\u{10000}".repeat(64);
    let mut writer_end = register(&mut hub, 1, &ann, &room);
    let _bob = register(&mut hub, 2, &bob, &room);
    hub.flush(now());
    entries(&mut writer_end);
    // In JSON, each of these bytes takes six.
    let (content, reference) = ("\u{1}".repeat(CONTENT_BYTES_MAX), Some("\u{1}".repeat(64)));
    hub.handle(
        Event::Publish { id: 1, content: content.clone(), reference: reference.clone() },
        now(),
    );
    hub.flush(now());
    hub.handle(Event::Whisper { id: 1, to: recipient(&bob), content, reference }, now());
    hub.flush(now());
    let (taken, _) = writer_end.take();
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
