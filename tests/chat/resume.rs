//! Coming back after a broken connection: the messages missed, the place in the room, and messages
//! that were not confirmed. Most tests use the hub alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parlour::chat::connection::ClientId;
use parlour::chat::hub::{Hub, Now};
use parlour::chat::inbox::{Event, JoinRequest, Newcomer, Nickname, Resume};
use parlour::chat::outbox;
use parlour::chat::write_half::{SweepQueue, WriterEnd};
use parlour::protocol::close::CloseReason;
use parlour::protocol::name::{Name, Recipient};
use parlour::protocol::session::Session;
use serde_json::Value;

use crate::support::raw::RawClient;
use crate::support::{TestServer, config, raw};

const GRACE: Duration = Duration::from_secs(5);

/// A hub with a clock that the test moves.
struct TestHub {
    hub: Hub,
    now: Now,
}

/// A connection, and all that it has received.
struct Connection {
    id: ClientId,
    writer_end: WriterEnd,
    received: Vec<Value>,
}

impl TestHub {
    fn new(options: &[&str]) -> TestHub {
        let mut all = vec!["--leave-grace", "5s"];
        all.extend(options);
        let hub = Hub::new(Arc::new(config(&all)), SweepQueue::new(), 1);
        TestHub { hub, now: Now { ts: 1_700_000_000_000, at: Instant::now() } }
    }

    fn handle(&mut self, event: Event) {
        self.hub.handle(event, self.now);
    }

    fn flush(&mut self) {
        self.hub.flush(self.now);
    }

    fn join(&mut self, id: ClientId, name: &str) -> Connection {
        self.join_again(id, name, None, None)
    }

    fn join_again(
        &mut self,
        id: ClientId,
        name: &str,
        claim: Option<&str>,
        resume: Option<(&str, u64)>,
    ) -> Connection {
        self.join_room(id, name, "r", claim, resume)
    }

    fn join_room(
        &mut self,
        id: ClientId,
        name: &str,
        room: &str,
        claim: Option<&str>,
        resume: Option<(&str, u64)>,
    ) -> Connection {
        let (outbox, _reader_end, writer_end) = outbox::channel(64, u64::MAX, &SweepQueue::new());
        let request = JoinRequest {
            name: Nickname::Chosen(Name::parse(name).unwrap()),
            room: room.to_owned(),
            session: Session::random().unwrap(),
            claim: claim.map(|hex| Session::parse(hex).unwrap()),
            resume: resume.map(|(epoch, since)| Resume { epoch: epoch.to_owned(), since }),
        };
        self.handle(Event::Register(Newcomer { id, outbox, request: request.into() }));
        Connection { id, writer_end, received: Vec::new() }
    }

    fn publish(&mut self, connection: &Connection, content: &str, reference: Option<&str>) {
        let reference = reference.map(str::to_owned);
        self.handle(Event::Publish { id: connection.id, content: content.to_owned(), reference });
    }

    fn whisper(&mut self, connection: &Connection, to: &str, content: &str, reference: &str) {
        let to = Recipient::parse(to.to_owned()).unwrap();
        let (content, reference) = (content.to_owned(), Some(reference.to_owned()));
        self.handle(Event::Whisper { id: connection.id, to, content, reference });
    }

    /// Breaks the connection.
    fn cut(&mut self, connection: &Connection) {
        self.handle(Event::Unregister { id: connection.id, reason: CloseReason::ConnectionLost });
    }

    /// Lets time pass, and ends the absences that are due.
    fn wait(&mut self, time: Duration) {
        self.now.at += time;
        self.handle(Event::AbsencesDue);
        self.flush();
    }
}

impl Connection {
    /// Takes what is queued. Returns each message as its type and content, or as its type and user.
    fn receive(&mut self) -> Vec<String> {
        let from = self.received.len();
        for entry in self.writer_end.take().0 {
            let frames = raw::frames(&mut entry.to_vec());
            self.received.extend(
                frames.iter().map(|(_, payload)| serde_json::from_slice::<Value>(payload).unwrap()),
            );
        }
        self.received[from..].iter().map(summary).collect()
    }

    /// Returns a field of the welcome.
    fn welcome(&self, field: &str) -> &Value {
        assert_eq!(self.received[0]["type"], "welcome");
        &self.received[0][field]
    }

    fn session(&self) -> &str {
        self.welcome("session").as_str().unwrap()
    }

    fn epoch(&self) -> &str {
        self.welcome("epoch").as_str().unwrap()
    }
}

fn summary(message: &Value) -> String {
    let word = |key: &str| message[key].as_str().unwrap_or_default();
    match word("type") {
        kind @ ("welcome" | "join" | "leave") => format!("{kind} {}", word("user")),
        "error" => format!("error {} {}", word("code"), word("ref")),
        kind => format!("{kind} {}", word("content")),
    }
}

/// Lets Ann and Bob join, and reads what they receive for that.
fn ann_and_bob(hub: &mut TestHub) -> (Connection, Connection) {
    let (mut ann, mut bob) = (hub.join(1, "Ann"), hub.join(2, "Bob"));
    hub.flush();
    ann.receive();
    bob.receive();
    (ann, bob)
}

#[test]
fn missed_messages_follow_once_and_in_order() {
    let mut hub = TestHub::new(&["--history", "5"]);
    let (ann, bob) = ann_and_bob(&mut hub);
    for n in 1..=7 {
        hub.publish(&ann, &n.to_string(), None);
        hub.flush();
    }
    // The room remembers 3 to 7.
    for (since, recovered, missed) in [
        (7, true, &[][..]),
        (6, true, &["public 7"]),
        (3, true, &["public 4", "public 5", "public 6", "public 7"]),
        (2, true, &["public 3", "public 4", "public 5", "public 6", "public 7"]),
        (1, false, &["public 3", "public 4", "public 5", "public 6", "public 7"]),
        (8, false, &["public 3", "public 4", "public 5", "public 6", "public 7"]),
        (u64::MAX, false, &["public 3", "public 4", "public 5", "public 6", "public 7"]),
    ] {
        let mut again = hub.join_again(3, "Bob", Some(bob.session()), Some((bob.epoch(), since)));
        hub.flush();
        assert_eq!(again.receive(), [&["welcome Bob"], missed].concat(), "since {since}");
        assert_eq!(again.welcome("recovered"), recovered);
        assert_eq!(again.welcome("history"), missed.len());
        assert_eq!(again.welcome("seq"), 7);
        assert_eq!(again.session(), bob.session());
    }
    let mut elsewhere = hub.join_again(4, "Bob", Some(bob.session()), Some(("another epoch", 6)));
    hub.flush();
    elsewhere.receive();
    assert_eq!(
        (elsewhere.welcome("recovered"), elsewhere.welcome("history")),
        (&false.into(), &5.into())
    );
}

#[test]
fn a_client_that_has_received_no_message_recovers_too() {
    let mut hub = TestHub::new(&["--history", "3"]);
    let (ann, bob) = ann_and_bob(&mut hub);
    let mut id = 10;
    for sent in 0..=3 {
        for _ in 0..2 {
            id += 1;
            let mut again = hub.join_again(id, "Bob", Some(bob.session()), Some((bob.epoch(), 0)));
            hub.flush();
            assert_eq!(again.receive().len(), 1 + sent);
            assert_eq!(again.welcome("recovered"), true);
        }
        hub.publish(&ann, "one more", None);
        hub.flush();
    }
}

#[test]
fn messages_within_the_turn_of_a_return_come_once() {
    let mut hub = TestHub::new(&[]);
    let (ann, bob) = ann_and_bob(&mut hub);
    hub.publish(&ann, "1", None);
    hub.flush();
    hub.cut(&bob);
    hub.publish(&ann, "2", None);
    let mut again = hub.join_again(3, "Bob", Some(bob.session()), Some((bob.epoch(), 1)));
    hub.publish(&ann, "3", None);
    hub.flush();
    assert_eq!(again.receive(), ["welcome Bob", "public 2", "public 3"]);
}

#[test]
fn a_session_takes_its_place_from_a_connection_that_seems_alive() {
    let mut hub = TestHub::new(&[]);
    let (mut ann, mut bob) = ann_and_bob(&mut hub);
    ann.receive();
    hub.publish(&ann, "before", None);
    let mut again = hub.join_again(3, "bob", Some(bob.session()), None);
    hub.publish(&bob, "from the old connection", None);
    hub.cut(&bob);
    hub.publish(&again, "after", None);
    hub.flush();
    assert_eq!(bob.receive(), ["public before"]);
    assert_eq!(bob.writer_end.reason(), Some(CloseReason::Replaced));
    assert_eq!(ann.receive(), ["public before", "public after"], "no leave, no join");
    assert_eq!(
        again.receive(),
        ["welcome Bob", "public before", "public after"],
        "the name as it was first shown"
    );
}

#[test]
fn a_name_is_taken_as_long_as_its_owner_may_come_back_and_never_by_itself() {
    let mut hub = TestHub::new(&[]);
    let (mut ann, mut bob) = ann_and_bob(&mut hub);
    // The second has a Cyrillic capital; both are Bob's.
    let alike = ["BOB", "\u{412}ob"];
    let mut id = 10;
    for is_absent in [false, true] {
        if is_absent {
            hub.cut(&bob);
        }
        for name in alike {
            id += 1;
            let mut other = hub.join(id, name);
            hub.flush();
            assert_eq!(other.receive(), ["error name_taken "], "{name}");
        }
        for name in alike {
            if is_absent {
                hub.cut(&bob);
            }
            id += 1;
            let mut again = hub.join_again(id, name, Some(bob.session()), None);
            hub.flush();
            assert_eq!(again.receive(), ["welcome Bob"], "{name}");
            assert_eq!(again.session(), bob.session());
            bob = again;
        }
    }
    assert_eq!(ann.receive(), [""; 0], "nobody was notified of Bob");
    hub.cut(&bob);
    hub.wait(GRACE);
    assert_eq!(ann.receive(), ["leave Bob"]);
    let mut other = hub.join(100, alike[1]);
    hub.flush();
    assert_eq!(other.receive(), ["welcome \u{412}ob", "join \u{412}ob"]);
    // Now the name is the other one's.
    let mut late = hub.join_again(101, "Bob", Some(bob.session()), None);
    hub.flush();
    assert_eq!(late.receive(), ["error name_taken "]);
}

#[test]
fn a_wrong_session_is_a_newcomer() {
    let mut hub = TestHub::new(&[]);
    let (mut ann, bob) = ann_and_bob(&mut hub);
    let wrong = Session::random().unwrap().to_hex();
    for claim in [None, Some(wrong.as_str()), Some(ann.session())] {
        let mut thief = hub.join_again(3, "BOB", claim, Some((bob.epoch(), 0)));
        hub.flush();
        assert_eq!(thief.receive(), ["error name_taken "]);
        assert_eq!(thief.writer_end.reason(), Some(CloseReason::NameTaken));
    }
    hub.cut(&bob);
    let mut thief = hub.join_again(4, "Bob", Some(&wrong), None);
    hub.flush();
    assert_eq!(thief.receive(), ["error name_taken "], "not even while Bob is absent");
    let mut eve = hub.join_again(5, "Eve", Some(&wrong), None);
    hub.flush();
    assert_eq!(eve.receive(), ["welcome Eve", "join Eve"]);
    assert_ne!(eve.session(), wrong, "a session that nobody was given is ignored");
    assert_ne!(eve.session(), ann.session());
    assert_eq!(ann.receive(), ["join Eve"]);
}

#[test]
fn nobody_notices_a_short_absence() {
    let mut hub = TestHub::new(&[]);
    let (mut ann, bob) = ann_and_bob(&mut hub);
    hub.cut(&bob);
    hub.wait(GRACE - Duration::from_millis(1));
    let mut eve = hub.join(3, "Eve");
    hub.flush();
    eve.receive();
    assert_eq!(eve.welcome("users"), &serde_json::json!(["Ann", "Bob", "Eve"]));
    let mut again = hub.join_again(4, "Bob", Some(bob.session()), None);
    hub.wait(2 * GRACE);
    assert_eq!(again.receive(), ["welcome Bob"]);
    assert_eq!(ann.receive(), ["join Eve"]);

    // The next absence has a grace of its own.
    hub.cut(&again);
    hub.wait(GRACE - Duration::from_millis(1));
    assert!(ann.receive().is_empty());
    hub.wait(Duration::from_millis(1));
    assert_eq!(ann.receive(), ["leave Bob"]);
    assert_eq!(eve.receive(), ["leave Bob"]);
    let mut new = hub.join_again(5, "Bob", Some(bob.session()), None);
    hub.flush();
    assert_eq!(new.receive(), ["welcome Bob", "join Bob"]);
    assert_ne!(new.session(), bob.session(), "the room forgets a member without messages");
}

#[test]
fn a_member_that_closes_its_connection_leaves_at_once() {
    let mut hub = TestHub::new(&[]);
    let (mut ann, bob) = ann_and_bob(&mut hub);
    hub.handle(Event::Unregister { id: bob.id, reason: CloseReason::ClientClosed });
    hub.flush();
    assert_eq!(ann.receive(), ["leave Bob"]);
}

#[test]
fn a_member_whose_connection_breaks_leaves_at_once_without_a_grace() {
    let mut hub =
        TestHub { hub: Hub::new(Arc::new(config(&[])), SweepQueue::new(), 1), ..TestHub::new(&[]) };
    let (mut ann, bob) = ann_and_bob(&mut hub);
    hub.cut(&bob);
    hub.flush();
    assert_eq!(ann.receive(), ["leave Bob"]);
}

#[test]
fn an_empty_room_gives_way_before_a_room_of_absent_members() {
    let mut hub = TestHub::new(&["--max-rooms", "2"]);
    let mut ann = hub.join(1, "Ann");
    hub.flush();
    ann.receive();
    hub.cut(&ann);
    let bob = hub.join_room(2, "Bob", "other", None, None);
    hub.handle(Event::Unregister { id: bob.id, reason: CloseReason::ClientClosed });
    let cid = hub.join_room(3, "Cid", "another", None, None);
    assert_eq!(cid.writer_end.reason(), None);
    let mut back = hub.join_room(4, "Ann", "r", Some(ann.session()), Some((ann.epoch(), 0)));
    hub.flush();
    assert_eq!(back.receive(), ["welcome Ann"]);
    assert_eq!((back.session(), back.epoch()), (ann.session(), ann.epoch()));
}

#[test]
fn private_messages_to_an_absent_member_keep_their_place() {
    let mut hub = TestHub::new(&[]);
    let (mut ann, bob) = ann_and_bob(&mut hub);
    hub.cut(&bob);
    hub.publish(&ann, "1", None);
    hub.whisper(&ann, "bob", "2", "r2");
    hub.flush();
    hub.whisper(&ann, "BOB", "3", "r3");
    hub.publish(&ann, "4", None);
    hub.whisper(&ann, "Bob", "5", "r5");
    hub.flush();
    assert_eq!(ann.receive(), ["public 1", "private 2", "private 3", "public 4", "private 5"]);
    let mut again = hub.join_again(3, "Bob", Some(bob.session()), Some((bob.epoch(), 0)));
    hub.wait(2 * GRACE);
    assert_eq!(
        again.receive(),
        ["welcome Bob", "public 1", "private 2", "private 3", "public 4", "private 5"]
    );
    assert_eq!(again.welcome("history"), 2, "only the public ones count");
    assert!(ann.receive().is_empty());
}

#[test]
fn private_messages_to_a_member_that_does_not_return_fail() {
    let mut hub = TestHub::new(&[]);
    let (mut ann, bob) = ann_and_bob(&mut hub);
    hub.cut(&bob);
    for n in 0..40 {
        hub.whisper(&ann, "Bob", "psst", &n.to_string());
    }
    hub.flush();
    let received = ann.receive();
    assert_eq!(received.iter().filter(|message| *message == "private psst").count(), 32);
    assert_eq!(
        received[32..],
        (32..40).map(|n| format!("error no_such_user {n}")).collect::<Vec<_>>()
    );
    // The sender is notified on its next connection too.
    let mut ann = hub.join_again(3, "Ann", Some(ann.session()), None);
    hub.wait(GRACE);
    let expected: Vec<_> = (0..32).map(|n| format!("error no_such_user {n}")).collect();
    assert_eq!(
        ann.receive(),
        [&["welcome Ann".to_owned(), "leave Bob".to_owned()], &expected[..]].concat()
    );
    // If it is sent again, it is a new message.
    let mut bob = hub.join(4, "Bob");
    hub.whisper(&ann, "Bob", "psst", "0");
    hub.flush();
    assert_eq!(bob.receive(), ["welcome Bob", "join Bob", "private psst"]);
}

#[test]
fn an_absent_sender_is_notified_when_it_returns() {
    let mut hub = TestHub::new(&[]);
    let (ann, bob) = ann_and_bob(&mut hub);
    hub.cut(&bob);
    hub.whisper(&ann, "Bob", "psst", "r");
    hub.wait(GRACE / 2);
    hub.cut(&ann);
    hub.wait(GRACE / 2);
    let mut ann = hub.join_again(3, "Ann", Some(ann.session()), None);
    hub.flush();
    assert_eq!(ann.receive(), ["welcome Ann", "error no_such_user r"]);
}

#[test]
fn a_public_message_sent_again_is_not_delivered_twice() {
    let mut hub = TestHub::new(&["--history", "2"]);
    let (mut ann, mut bob) = ann_and_bob(&mut hub);
    hub.publish(&ann, "hello", Some("r"));
    hub.cut(&ann);
    hub.flush();
    let mut again = hub.join_again(3, "Ann", Some(ann.session()), Some((ann.epoch(), 1)));
    hub.publish(&again, "hello", Some("r"));
    // The same `ref` of another member is another one.
    hub.publish(&bob, "hello", Some("r"));
    hub.flush();
    assert_eq!(again.receive(), ["welcome Ann", "public hello", "public hello"]);
    assert_eq!([&again.received[1]["seq"], &again.received[2]["seq"]], [1, 2]);
    ann.receive();
    assert_eq!(again.received.get(1), ann.received.last(), "the receipt is the message itself");
    assert_eq!(bob.receive(), ["public hello", "public hello"]);
    assert_eq!(bob.received.last().unwrap()["user"], "Bob");

    // A message older than the history is new: the history holds 2 and 3.
    hub.publish(&bob, "more", None);
    hub.publish(&again, "hello", Some("r"));
    hub.flush();
    assert_eq!(bob.receive(), ["public more", "public hello"]);
    assert_eq!(bob.received.last().unwrap()["seq"], 4);
}

#[test]
fn a_private_message_sent_again_is_not_delivered_twice() {
    let mut hub = TestHub::new(&["--history", "2"]);
    let (mut ann, mut bob) = ann_and_bob(&mut hub);
    hub.whisper(&ann, "Bob", "psst", "r");
    hub.whisper(&ann, "Bob", "psst", "r");
    hub.flush();
    assert_eq!(ann.receive(), ["private psst", "private psst"]);
    assert_eq!(bob.receive(), ["private psst"]);
    // Not even if its recipient has left: it was delivered.
    hub.handle(Event::Unregister { id: bob.id, reason: CloseReason::ClientClosed });
    hub.whisper(&ann, "Bob", "psst", "r");
    hub.flush();
    assert_eq!(ann.receive(), ["leave Bob", "private psst"]);
    // After two later ones, the room has forgotten it.
    hub.whisper(&ann, "Ann", "x", "s");
    hub.whisper(&ann, "Ann", "x", "t");
    hub.whisper(&ann, "Bob", "psst", "r");
    hub.flush();
    assert_eq!(ann.receive(), ["private x", "private x", "error no_such_user r"]);
}

#[test]
fn a_ref_used_again_for_another_message_loses_nothing() {
    let mut hub = TestHub::new(&["--history", "2"]);
    let (mut ann, mut bob) = ann_and_bob(&mut hub);
    hub.publish(&ann, "1", Some("r"));
    hub.publish(&ann, "2", Some("r"));
    hub.whisper(&ann, "Bob", "2", "r");
    hub.whisper(&ann, "Bob", "3", "r");
    hub.whisper(&ann, "Ann", "3", "r");
    hub.publish(&ann, "3", Some("r"));
    hub.flush();
    assert_eq!(bob.receive(), ["public 1", "public 2", "private 2", "private 3", "public 3"]);
    assert_eq!(
        ann.receive(),
        ["public 1", "public 2", "private 2", "private 3", "private 3", "public 3"]
    );
    // When the room forgets the first of them, it still knows the last.
    hub.publish(&ann, "3", Some("r"));
    hub.publish(&bob, "4", None);
    hub.publish(&ann, "3", Some("r"));
    hub.flush();
    assert_eq!(bob.receive(), ["public 4"]);
}

#[test]
fn a_session_is_known_as_long_as_its_messages() {
    let mut hub = TestHub::new(&["--history", "1"]);
    let (ann, mut bob) = ann_and_bob(&mut hub);
    hub.publish(&ann, "hello", Some("r"));
    hub.cut(&ann);
    hub.wait(GRACE);
    // Under another name, it is not known.
    let mut eve = hub.join_again(3, "Eve", Some(ann.session()), None);
    let mut again = hub.join_again(4, "Ann", Some(ann.session()), None);
    hub.publish(&again, "hello", Some("r"));
    hub.flush();
    again.receive();
    eve.receive();
    assert_eq!(again.session(), ann.session());
    assert_ne!(eve.session(), ann.session());
    assert_eq!(bob.receive(), ["public hello", "leave Ann", "join Eve", "join Ann"]);
}

#[test]
fn the_number_of_absent_members_is_bounded() {
    let mut hub = TestHub::new(&[]);
    let mut watcher = hub.join_room(0, "watcher", "r1", None, None);
    for id in 1..=8193 {
        let member = hub.join_room(id, &format!("m{id}"), &format!("r{}", id % 512), None, None);
        hub.cut(&member);
    }
    hub.handle(Event::NoticesDue);
    hub.flush();
    let left: Vec<_> =
        watcher.receive().into_iter().filter(|message| message.starts_with("leave")).collect();
    assert_eq!(left, ["leave m1"]);
}

#[test]
fn a_member_that_returns_to_a_quiet_room_is_welcomed_at_once() {
    let server = TestServer::start(&["--leave-grace", "1h"]);
    let mut client = RawClient::connect(&server, "name=Ann");
    let welcome = client.next_of("welcome");
    let field = |key: &str| welcome[key].as_str().unwrap().to_owned();
    let query = format!("name=Ann&session={}&epoch={}&since=0", field("session"), field("epoch"));
    // Several times, since the writer of a new connection may be asleep or not when the hub queues
    // the welcome.
    for _ in 0..20 {
        drop(client);
        client = RawClient::connect(&server, &query);
        assert_eq!(client.next_of("welcome")["recovered"], true);
    }
}
