//! Coming back: what was missed, one's own place, and what was sent without a receipt. The hub
//! alone, then real sockets.

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

/// A hub whose clock the test turns.
struct Stage {
    hub: Hub,
    now: Now,
}

/// One connection, and all it has heard.
struct Line {
    id: ClientId,
    mail: WriterEnd,
    heard: Vec<Value>,
}

impl Stage {
    fn new(options: &[&str]) -> Stage {
        let mut all = vec!["--leave-grace", "5s"];
        all.extend(options);
        let hub = Hub::new(Arc::new(config(&all)), SweepQueue::new(), 1);
        Stage { hub, now: Now { ts: 1_700_000_000_000, at: Instant::now() } }
    }

    fn handle(&mut self, event: Event) {
        self.hub.handle(event, self.now);
    }

    fn flush(&mut self) {
        self.hub.flush(self.now);
    }

    fn join(&mut self, id: ClientId, name: &str) -> Line {
        self.join_again(id, name, None, None)
    }

    fn join_again(
        &mut self,
        id: ClientId,
        name: &str,
        claim: Option<&str>,
        resume: Option<(&str, u64)>,
    ) -> Line {
        self.join_room(id, name, "r", claim, resume)
    }

    fn join_room(
        &mut self,
        id: ClientId,
        name: &str,
        room: &str,
        claim: Option<&str>,
        resume: Option<(&str, u64)>,
    ) -> Line {
        let (outbox, _controls, mail) = outbox::channel(64, u64::MAX, &SweepQueue::new());
        let request = JoinRequest {
            name: Nickname::Chosen(Name::parse(name).unwrap()),
            room: room.to_owned(),
            session: Session::random().unwrap(),
            claim: claim.map(|hex| Session::parse(hex).unwrap()),
            resume: resume.map(|(epoch, since)| Resume { epoch: epoch.to_owned(), since }),
        };
        self.handle(Event::Register(Newcomer { id, outbox, request: request.into() }));
        Line { id, mail, heard: Vec::new() }
    }

    fn say(&mut self, line: &Line, content: &str, reference: Option<&str>) {
        let reference = reference.map(str::to_owned);
        self.handle(Event::Publish { id: line.id, content: content.to_owned(), reference });
    }

    fn whisper(&mut self, line: &Line, to: &str, content: &str, reference: &str) {
        let to = Recipient::parse(to.to_owned()).unwrap();
        let (content, reference) = (content.to_owned(), Some(reference.to_owned()));
        self.handle(Event::Whisper { id: line.id, to, content, reference });
    }

    fn cut(&mut self, line: &Line) {
        self.handle(Event::Unregister { id: line.id, reason: CloseReason::ConnectionLost });
    }

    /// Lets time pass, and what is due happen.
    fn wait(&mut self, time: Duration) {
        self.now.at += time;
        self.handle(Event::AbsencesDue);
        self.flush();
    }
}

impl Line {
    /// What has been queued since the last look, as `type content` (or the user for what has none).
    fn hear(&mut self) -> Vec<String> {
        let from = self.heard.len();
        for entry in self.mail.take().0 {
            let frames = raw::frames(&mut entry.to_vec());
            self.heard.extend(
                frames.iter().map(|(_, payload)| serde_json::from_slice::<Value>(payload).unwrap()),
            );
        }
        self.heard[from..].iter().map(told).collect()
    }

    /// A field of the welcome.
    fn welcome(&self, field: &str) -> &Value {
        assert_eq!(self.heard[0]["type"], "welcome");
        &self.heard[0][field]
    }

    fn session(&self) -> &str {
        self.welcome("session").as_str().unwrap()
    }

    fn epoch(&self) -> &str {
        self.welcome("epoch").as_str().unwrap()
    }
}

fn told(message: &Value) -> String {
    let word = |key: &str| message[key].as_str().unwrap_or_default();
    match word("type") {
        kind @ ("welcome" | "join" | "leave") => format!("{kind} {}", word("user")),
        "error" => format!("error {} {}", word("code"), word("ref")),
        kind => format!("{kind} {}", word("content")),
    }
}

/// Ann and Bob in a room, the turn over and everything heard.
fn ann_and_bob(stage: &mut Stage) -> (Line, Line) {
    let (mut ann, mut bob) = (stage.join(1, "Ann"), stage.join(2, "Bob"));
    stage.flush();
    ann.hear();
    bob.hear();
    (ann, bob)
}

#[test]
fn what_was_missed_follows_once_and_in_order() {
    let mut stage = Stage::new(&["--history", "5"]);
    let (ann, bob) = ann_and_bob(&mut stage);
    for n in 1..=7 {
        stage.say(&ann, &n.to_string(), None);
        stage.flush();
    }
    // 3 to 7 are known still.
    for (since, recovered, missed) in [
        (7, true, &[][..]),
        (6, true, &["public 7"]),
        (3, true, &["public 4", "public 5", "public 6", "public 7"]),
        (2, true, &["public 3", "public 4", "public 5", "public 6", "public 7"]),
        (1, false, &["public 3", "public 4", "public 5", "public 6", "public 7"]),
        (8, false, &["public 3", "public 4", "public 5", "public 6", "public 7"]),
        (u64::MAX, false, &["public 3", "public 4", "public 5", "public 6", "public 7"]),
    ] {
        let mut again = stage.join_again(3, "Bob", Some(bob.session()), Some((bob.epoch(), since)));
        stage.flush();
        assert_eq!(again.hear(), [&["welcome Bob"], missed].concat(), "since {since}");
        assert_eq!(again.welcome("recovered"), recovered);
        assert_eq!(again.welcome("history"), missed.len());
        assert_eq!(again.welcome("seq"), 7);
        assert_eq!(again.session(), bob.session());
    }
    let mut elsewhere = stage.join_again(4, "Bob", Some(bob.session()), Some(("another life", 6)));
    stage.flush();
    elsewhere.hear();
    assert_eq!(
        (elsewhere.welcome("recovered"), elsewhere.welcome("history")),
        (&false.into(), &5.into())
    );
}

#[test]
fn a_line_that_has_never_seen_a_message_recovers_too() {
    let mut stage = Stage::new(&["--history", "3"]);
    let (ann, bob) = ann_and_bob(&mut stage);
    let mut id = 10;
    for said in 0..=3 {
        for _ in 0..2 {
            id += 1;
            let mut again =
                stage.join_again(id, "Bob", Some(bob.session()), Some((bob.epoch(), 0)));
            stage.flush();
            assert_eq!(again.hear().len(), 1 + said);
            assert_eq!(again.welcome("recovered"), true);
        }
        stage.say(&ann, "one more", None);
        stage.flush();
    }
}

#[test]
fn messages_at_the_seam_come_once() {
    let mut stage = Stage::new(&[]);
    let (ann, bob) = ann_and_bob(&mut stage);
    stage.say(&ann, "1", None);
    stage.flush();
    stage.cut(&bob);
    stage.say(&ann, "2", None);
    let mut again = stage.join_again(3, "Bob", Some(bob.session()), Some((bob.epoch(), 1)));
    stage.say(&ann, "3", None);
    stage.flush();
    assert_eq!(again.hear(), ["welcome Bob", "public 2", "public 3"]);
}

#[test]
fn a_session_takes_its_place_from_a_line_that_seems_alive() {
    let mut stage = Stage::new(&[]);
    let (mut ann, mut bob) = ann_and_bob(&mut stage);
    ann.hear();
    stage.say(&ann, "before", None);
    let mut again = stage.join_again(3, "bob", Some(bob.session()), None);
    stage.say(&bob, "from the old line", None);
    stage.cut(&bob);
    stage.say(&again, "after", None);
    stage.flush();
    assert_eq!(bob.hear(), ["public before"]);
    assert_eq!(bob.mail.reason(), Some(CloseReason::Replaced));
    assert_eq!(ann.hear(), ["public before", "public after"], "no leave, no join");
    assert_eq!(
        again.hear(),
        ["welcome Bob", "public before", "public after"],
        "and its name as it was shown"
    );
}

#[test]
fn a_name_is_taken_as_long_as_its_owner_may_come_back_and_never_by_itself() {
    let mut stage = Stage::new(&[]);
    let (mut ann, mut bob) = ann_and_bob(&mut stage);
    // The second has a Cyrillic capital; both are Bob's.
    let alike = ["BOB", "\u{412}ob"];
    let mut id = 10;
    for is_absent in [false, true] {
        if is_absent {
            stage.cut(&bob);
        }
        for name in alike {
            id += 1;
            let mut other = stage.join(id, name);
            stage.flush();
            assert_eq!(other.hear(), ["error name_taken "], "{name}");
        }
        for name in alike {
            if is_absent {
                stage.cut(&bob);
            }
            id += 1;
            let mut again = stage.join_again(id, name, Some(bob.session()), None);
            stage.flush();
            assert_eq!(again.hear(), ["welcome Bob"], "{name}");
            assert_eq!(again.session(), bob.session());
            bob = again;
        }
    }
    assert_eq!(ann.hear(), [""; 0], "nobody has seen Bob leave or come back");
    stage.cut(&bob);
    stage.wait(GRACE);
    assert_eq!(ann.hear(), ["leave Bob"]);
    let mut other = stage.join(100, alike[1]);
    stage.flush();
    assert_eq!(other.hear(), ["welcome \u{412}ob", "join \u{412}ob"]);
    // Now it is the other way round.
    let mut late = stage.join_again(101, "Bob", Some(bob.session()), None);
    stage.flush();
    assert_eq!(late.hear(), ["error name_taken "]);
}

#[test]
fn a_wrong_session_is_a_newcomer() {
    let mut stage = Stage::new(&[]);
    let (mut ann, bob) = ann_and_bob(&mut stage);
    let wrong = Session::random().unwrap().to_hex();
    for claim in [None, Some(wrong.as_str()), Some(ann.session())] {
        let mut thief = stage.join_again(3, "BOB", claim, Some((bob.epoch(), 0)));
        stage.flush();
        assert_eq!(thief.hear(), ["error name_taken "]);
        assert_eq!(thief.mail.reason(), Some(CloseReason::NameTaken));
    }
    stage.cut(&bob);
    let mut thief = stage.join_again(4, "Bob", Some(&wrong), None);
    stage.flush();
    assert_eq!(thief.hear(), ["error name_taken "], "nor from one who is absent");
    let mut eve = stage.join_again(5, "Eve", Some(&wrong), None);
    stage.flush();
    assert_eq!(eve.hear(), ["welcome Eve", "join Eve"]);
    assert_ne!(eve.session(), wrong, "a secret of one's own making is none");
    assert_ne!(eve.session(), ann.session());
    assert_eq!(ann.hear(), ["join Eve"]);
}

#[test]
fn a_short_absence_is_no_event() {
    let mut stage = Stage::new(&[]);
    let (mut ann, bob) = ann_and_bob(&mut stage);
    stage.cut(&bob);
    stage.wait(GRACE - Duration::from_millis(1));
    let mut eve = stage.join(3, "Eve");
    stage.flush();
    eve.hear();
    assert_eq!(eve.welcome("users"), &serde_json::json!(["Ann", "Bob", "Eve"]));
    let mut again = stage.join_again(4, "Bob", Some(bob.session()), None);
    stage.wait(2 * GRACE);
    assert_eq!(again.hear(), ["welcome Bob"]);
    assert_eq!(ann.hear(), ["join Eve"]);

    // The next absence has a time of its own.
    stage.cut(&again);
    stage.wait(GRACE - Duration::from_millis(1));
    assert!(ann.hear().is_empty());
    stage.wait(Duration::from_millis(1));
    assert_eq!(ann.hear(), ["leave Bob"]);
    assert_eq!(eve.hear(), ["leave Bob"]);
    let mut new = stage.join_again(5, "Bob", Some(bob.session()), None);
    stage.flush();
    assert_eq!(new.hear(), ["welcome Bob", "join Bob"]);
    assert_ne!(new.session(), bob.session(), "who has said nothing is forgotten");
}

#[test]
fn who_closes_the_line_has_left() {
    let mut stage = Stage::new(&[]);
    let (mut ann, bob) = ann_and_bob(&mut stage);
    stage.handle(Event::Unregister { id: bob.id, reason: CloseReason::ClientClosed });
    stage.flush();
    assert_eq!(ann.hear(), ["leave Bob"]);
}

#[test]
fn without_a_grace_everybody_leaves_at_once() {
    let mut stage =
        Stage { hub: Hub::new(Arc::new(config(&[])), SweepQueue::new(), 1), ..Stage::new(&[]) };
    let (mut ann, bob) = ann_and_bob(&mut stage);
    stage.cut(&bob);
    stage.flush();
    assert_eq!(ann.hear(), ["leave Bob"]);
}

#[test]
fn a_room_of_absent_members_lives_while_an_empty_one_can_give_way() {
    let mut stage = Stage::new(&["--max-rooms", "2"]);
    let mut ann = stage.join(1, "Ann");
    stage.flush();
    ann.hear();
    stage.cut(&ann);
    let bob = stage.join_room(2, "Bob", "other", None, None);
    stage.handle(Event::Unregister { id: bob.id, reason: CloseReason::ClientClosed });
    let cid = stage.join_room(3, "Cid", "another", None, None);
    assert_eq!(cid.mail.reason(), None);
    let mut back = stage.join_room(4, "Ann", "r", Some(ann.session()), Some((ann.epoch(), 0)));
    stage.flush();
    assert_eq!(back.hear(), ["welcome Ann"]);
    assert_eq!((back.session(), back.epoch()), (ann.session(), ann.epoch()));
}

#[test]
fn private_messages_wait_in_their_place() {
    let mut stage = Stage::new(&[]);
    let (mut ann, bob) = ann_and_bob(&mut stage);
    stage.cut(&bob);
    stage.say(&ann, "1", None);
    stage.whisper(&ann, "bob", "2", "r2");
    stage.flush();
    stage.whisper(&ann, "BOB", "3", "r3");
    stage.say(&ann, "4", None);
    stage.whisper(&ann, "Bob", "5", "r5");
    stage.flush();
    assert_eq!(ann.hear(), ["public 1", "private 2", "private 3", "public 4", "private 5"]);
    let mut again = stage.join_again(3, "Bob", Some(bob.session()), Some((bob.epoch(), 0)));
    stage.wait(2 * GRACE);
    assert_eq!(
        again.hear(),
        ["welcome Bob", "public 1", "private 2", "private 3", "public 4", "private 5"]
    );
    assert_eq!(again.welcome("history"), 2, "the public ones are counted");
    assert!(ann.hear().is_empty());
}

#[test]
fn private_messages_to_one_who_does_not_return_come_back() {
    let mut stage = Stage::new(&[]);
    let (mut ann, bob) = ann_and_bob(&mut stage);
    stage.cut(&bob);
    for n in 0..40 {
        stage.whisper(&ann, "Bob", "psst", &n.to_string());
    }
    stage.flush();
    let heard = ann.hear();
    assert_eq!(heard.iter().filter(|line| *line == "private psst").count(), 32);
    assert_eq!(
        heard[32..],
        (32..40).map(|n| format!("error no_such_user {n}")).collect::<Vec<_>>()
    );
    // The sender hears of it on its next connection too.
    let mut ann = stage.join_again(3, "Ann", Some(ann.session()), None);
    stage.wait(GRACE);
    let expected: Vec<_> = (0..32).map(|n| format!("error no_such_user {n}")).collect();
    assert_eq!(
        ann.hear(),
        [&["welcome Ann".to_owned(), "leave Bob".to_owned()], &expected[..]].concat()
    );
    // Sent again, it is a new message.
    let mut bob = stage.join(4, "Bob");
    stage.whisper(&ann, "Bob", "psst", "0");
    stage.flush();
    assert_eq!(bob.hear(), ["welcome Bob", "join Bob", "private psst"]);
}

#[test]
fn a_sender_who_is_absent_too_hears_on_return() {
    let mut stage = Stage::new(&[]);
    let (ann, bob) = ann_and_bob(&mut stage);
    stage.cut(&bob);
    stage.whisper(&ann, "Bob", "psst", "r");
    stage.wait(GRACE / 2);
    stage.cut(&ann);
    stage.wait(GRACE / 2);
    let mut ann = stage.join_again(3, "Ann", Some(ann.session()), None);
    stage.flush();
    assert_eq!(ann.hear(), ["welcome Ann", "error no_such_user r"]);
}

#[test]
fn a_message_sent_again_is_not_said_twice() {
    let mut stage = Stage::new(&["--history", "2"]);
    let (mut ann, mut bob) = ann_and_bob(&mut stage);
    stage.say(&ann, "hello", Some("r"));
    stage.cut(&ann);
    stage.flush();
    let mut again = stage.join_again(3, "Ann", Some(ann.session()), Some((ann.epoch(), 1)));
    stage.say(&again, "hello", Some("r"));
    // Another's ref is another.
    stage.say(&bob, "hello", Some("r"));
    stage.flush();
    assert_eq!(again.hear(), ["welcome Ann", "public hello", "public hello"]);
    assert_eq!([&again.heard[1]["seq"], &again.heard[2]["seq"]], [1, 2]);
    assert_eq!(
        again.heard[1],
        {
            ann.hear();
            ann.heard.last().unwrap().clone()
        },
        "the receipt is the message itself"
    );
    assert_eq!(bob.hear(), ["public hello", "public hello"]);
    assert_eq!(bob.heard.last().unwrap()["user"], "Bob");

    // As far back as the history reaches: now it holds 2 and 3.
    stage.say(&bob, "more", None);
    stage.say(&again, "hello", Some("r"));
    stage.flush();
    assert_eq!(bob.hear(), ["public more", "public hello"]);
    assert_eq!(bob.heard.last().unwrap()["seq"], 4);
}

#[test]
fn a_private_message_sent_again_does_not_arrive_twice() {
    let mut stage = Stage::new(&["--history", "2"]);
    let (mut ann, mut bob) = ann_and_bob(&mut stage);
    stage.whisper(&ann, "Bob", "psst", "r");
    stage.whisper(&ann, "Bob", "psst", "r");
    stage.flush();
    assert_eq!(ann.hear(), ["private psst", "private psst"]);
    assert_eq!(bob.hear(), ["private psst"]);
    // Also when its reader has gone: it was read.
    stage.handle(Event::Unregister { id: bob.id, reason: CloseReason::ClientClosed });
    stage.whisper(&ann, "Bob", "psst", "r");
    stage.flush();
    assert_eq!(ann.hear(), ["leave Bob", "private psst"]);
    // Two later ones push it out of memory.
    stage.whisper(&ann, "Ann", "x", "s");
    stage.whisper(&ann, "Ann", "x", "t");
    stage.whisper(&ann, "Bob", "psst", "r");
    stage.flush();
    assert_eq!(ann.hear(), ["private x", "private x", "error no_such_user r"]);
}

#[test]
fn a_ref_used_for_something_else_swallows_nothing() {
    let mut stage = Stage::new(&["--history", "2"]);
    let (mut ann, mut bob) = ann_and_bob(&mut stage);
    stage.say(&ann, "1", Some("r"));
    stage.say(&ann, "2", Some("r"));
    stage.whisper(&ann, "Bob", "2", "r");
    stage.whisper(&ann, "Bob", "3", "r");
    stage.whisper(&ann, "Ann", "3", "r");
    stage.say(&ann, "3", Some("r"));
    stage.flush();
    assert_eq!(bob.hear(), ["public 1", "public 2", "private 2", "private 3", "public 3"]);
    assert_eq!(
        ann.hear(),
        ["public 1", "public 2", "private 2", "private 3", "private 3", "public 3"]
    );
    // What pushes the first of them out of memory does not take the last along.
    stage.say(&ann, "3", Some("r"));
    stage.say(&bob, "4", None);
    stage.say(&ann, "3", Some("r"));
    stage.flush();
    assert_eq!(bob.hear(), ["public 4"]);
}

#[test]
fn a_session_lives_as_long_as_its_words() {
    let mut stage = Stage::new(&["--history", "1"]);
    let (ann, mut bob) = ann_and_bob(&mut stage);
    stage.say(&ann, "hello", Some("r"));
    stage.cut(&ann);
    stage.wait(GRACE);
    // Under another name it is not hers.
    let mut eve = stage.join_again(3, "Eve", Some(ann.session()), None);
    let mut again = stage.join_again(4, "Ann", Some(ann.session()), None);
    stage.say(&again, "hello", Some("r"));
    stage.flush();
    again.hear();
    eve.hear();
    assert_eq!(again.session(), ann.session());
    assert_ne!(eve.session(), ann.session());
    assert_eq!(bob.hear(), ["public hello", "leave Ann", "join Eve", "join Ann"]);
}

#[test]
fn absences_are_bounded() {
    let mut stage = Stage::new(&[]);
    let mut watcher = stage.join_room(0, "watcher", "r1", None, None);
    for id in 1..=8193 {
        let line = stage.join_room(id, &format!("m{id}"), &format!("r{}", id % 512), None, None);
        stage.cut(&line);
    }
    stage.handle(Event::NoticesDue);
    stage.flush();
    let left: Vec<_> =
        watcher.hear().into_iter().filter(|line| line.starts_with("leave")).collect();
    assert_eq!(left, ["leave m1"]);
}

#[test]
fn who_comes_back_is_welcomed_at_once_however_quiet_the_room() {
    let server = TestServer::start(&["--leave-grace", "1h"]);
    let mut line = RawClient::connect(&server, "name=Ann");
    let welcome = line.next_of("welcome");
    let word = |key: &str| welcome[key].as_str().unwrap().to_owned();
    let query = format!("name=Ann&session={}&epoch={}&since=0", word("session"), word("epoch"));
    // The writer of a connection is asleep by the time that the hub gives it something, or it is
    // not.
    for _ in 0..20 {
        drop(line);
        line = RawClient::connect(&server, &query);
        assert_eq!(line.next_of("welcome")["recovered"], true);
    }
}
