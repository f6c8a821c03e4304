//! The protocol's promises under any sequence of events: the hub, compared with a model of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parlour::chat::hub::{Hub, Now};
use parlour::chat::inbox::{Event, JoinRequest, Newcomer, Nickname, Resume};
use parlour::chat::outbox;
use parlour::chat::write_half::{Status, SweepQueue, WriterEnd};
use parlour::protocol::close::CloseReason;
use parlour::protocol::message::{ErrorCode, ErrorReply};
use parlour::protocol::name::{Name, Recipient};
use parlour::protocol::session::Session;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use serde_json::Value;

use crate::support::model::{Id, Join, Model, Secret, hex};
use crate::support::steps::{
    CaseOptions, Claim, ENDS, NAMES, PEOPLE, QUEUE_AMPLE, ROOMS, Since, Step, case_options,
    content_of, step,
};
use crate::support::{config, raw};

/// Number of cases, unless `PROPTEST_CASES` has another. They are always the same, unless
/// `PROPTEST_RNG_SEED` has a seed.
const CASES_DEFAULT: u32 = 250;
const STEPS_MAX: usize = 160;

#[test]
fn the_hub_does_what_the_model_does() {
    let is_set = |name| std::env::var_os(name).is_some();
    let mut config = Config { failure_persistence: None, ..Config::default() };
    if !is_set("PROPTEST_CASES") {
        config.cases = CASES_DEFAULT;
    }
    if !is_set("PROPTEST_RNG_SEED") {
        config.rng_seed = RngSeed::Fixed(1);
    }
    let cases = (case_options(), prop::collection::vec(step(), 0..STEPS_MAX));
    let result = TestRunner::new(config).run(&cases, |(options, steps)| {
        play(&options, &steps);
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}

/// Plays a case on the hub and the model, and compares all that every connection receives.
fn play(options: &CaseOptions, steps: &[Step]) {
    let mut harness = Harness::new(options);
    for step in steps {
        harness.step(step);
    }
    harness.step(&Step::Flush);
    for id in 0..harness.connections.len() {
        harness.read(id);
    }
}

/// What a person knows from what it has received.
#[derive(Clone, Debug, Default)]
struct Person {
    /// Its newest connection.
    connection: Option<Id>,
    room: String,
    name: String,
    secret: Option<Secret>,
    life: Option<u64>,
    seq: u64,
    sent: Option<Sent>,
}

/// A message that a person sends.
#[derive(Clone, Debug)]
struct Sent {
    to: Option<String>,
    content: String,
    reference: Option<String>,
}

/// A connection, and what was received on it.
struct Connection {
    /// The number of its person.
    who: usize,
    writer_end: WriterEnd,
    /// Its queue can't become full.
    ample: bool,
    /// Its person does not receive what is read from here on.
    stalled: bool,
    since: Option<u64>,
    /// How many messages were received.
    received: usize,
    /// `seq` of the next public message that is not a receipt for an old one.
    next: u64,
    /// How many public messages of the greeting are still to come.
    greeting: u64,
    /// Who has left, by the notices received.
    left: Vec<String>,
}

struct Harness {
    hub: Hub,
    model: Model,
    start: Instant,
    people: Vec<Person>,
    connections: Vec<Connection>,
    /// The epoch that each life of a room has.
    epochs: HashMap<u64, String>,
    /// Each public message as it was first received, by life and `seq`.
    frames: HashMap<(u64, u64), Vec<u8>>,
    /// The turn has begun, and is not flushed.
    in_turn: bool,
}

impl Harness {
    fn new(options: &CaseOptions) -> Harness {
        let &CaseOptions { history, grace, rooms } = options;
        let options = [
            ("--history", history.to_string()),
            ("--max-rooms", rooms.to_string()),
            ("--leave-grace", format!("{grace}ms")),
        ];
        let options: Vec<&str> =
            options.iter().flat_map(|(name, value)| [*name, &**value]).collect();
        Harness {
            hub: Hub::new(Arc::new(config(&options)), SweepQueue::new(), 7),
            model: Model::new(history, grace, rooms),
            start: Instant::now(),
            people: vec![Person::default(); PEOPLE],
            connections: Vec::new(),
            epochs: HashMap::new(),
            frames: HashMap::new(),
            in_turn: false,
        }
    }

    fn handle(&mut self, event: Event) {
        self.in_turn = true;
        self.hub.handle(event, self.now());
    }

    fn now(&self) -> Now {
        Now { ts: self.model.now, at: self.start + Duration::from_millis(self.model.now) }
    }

    fn step(&mut self, step: &Step) {
        match step {
            &Step::Join { who, again, name, room, ref claim, ref since, queue } => {
                let person = &mut self.people[who];
                if !again || person.connection.is_none() {
                    // What it knows of another room, it may still claim here.
                    person.connection = None;
                    person.room = ROOMS[room].to_owned();
                    person.name = NAMES[name.unwrap_or(who)].to_owned();
                }
                self.join(who, claim, since, queue);
            }
            &Step::Publish { who, content, reference } => {
                let reference = reference.map(|number| number.to_string());
                self.send(who, Sent { to: None, content: content_of(content), reference });
            }
            &Step::Whisper { who, to, content, reference } => {
                let (to, content) = (Some(NAMES[to].to_owned()), content_of(content));
                let reference = reference.map(|number| number.to_string());
                self.send(who, Sent { to, content, reference });
            }
            &Step::Repeat { who } => {
                if let Some(sent) = self.people[who].sent.clone() {
                    self.send(who, sent);
                }
            }
            &Step::Invalid { who, reference } => {
                let Some(id) = self.people[who].connection else { return };
                let reference = reference.map(|number| number.to_string());
                self.model.reply_error(id, &reference);
                let reply = ErrorReply { code: ErrorCode::BadJson, content: "".into(), reference };
                self.handle(Event::Invalid { id: id as u64, reply });
            }
            &Step::End { who, how } => {
                let Some(id) = self.people[who].connection else { return };
                self.model.end(id, ENDS[how]);
                self.handle(Event::Unregister { id: id as u64, reason: ENDS[how] });
            }
            &Step::Read { who } => {
                if let Some(id) = self.people[who].connection {
                    self.read(id);
                }
            }
            &Step::Stall { who } => {
                if let Some(id) = self.people[who].connection {
                    self.connections[id].stalled = true;
                }
            }
            Step::Flush => self.flush(),
            &Step::Wait(time) => {
                // All events of a turn have the same time.
                self.flush();
                self.model.wait(time);
                self.handle(Event::AbsencesDue);
            }
            Step::NoticesDue => self.handle(Event::NoticesDue),
            Step::Stop => {
                self.flush();
                self.model.stop();
                self.handle(Event::Stop);
            }
        }
    }

    fn send(&mut self, who: usize, sent: Sent) {
        let Some(id) = self.people[who].connection else { return };
        self.people[who].sent = Some(sent.clone());
        let Sent { to, content, reference } = sent;
        match to {
            None => {
                self.model.publish(id, &content, &reference);
                self.handle(Event::Publish { id: id as u64, content, reference });
            }
            Some(to) => {
                self.model.whisper(id, &to, &content, &reference);
                let to = Recipient::parse(to).unwrap();
                self.handle(Event::Whisper { id: id as u64, to, content, reference });
            }
        }
    }

    fn join(&mut self, who: usize, claim: &Claim, since: &Since, queue: usize) {
        let id = self.connections.len();
        let person = self.people[who].clone();
        // If full queues emptied two rooms in one turn, the model would not know which came first.
        let queue = if person.room == ROOMS[0] { queue } else { QUEUE_AMPLE };
        let (outbox, _reader_end, writer_end) =
            outbox::channel(queue, u64::MAX, &SweepQueue::new());
        let claim = match claim {
            Claim::Own => person.secret,
            Claim::Of(other) => self.people[*other].secret,
            Claim::Wrong => Some(Secret::MAX),
            Claim::None => None,
        };
        let resume = person.life.and_then(|life| match since {
            Since::True => Some((life, person.seq)),
            Since::Earlier(by) => Some((life, person.seq.saturating_sub(*by))),
            Since::Later(by) => Some((life, person.seq + by)),
            Since::OtherEpoch => Some((0, person.seq)),
            Since::None => None,
        });
        let join =
            Join { name: person.name, room: person.room, fresh: id as Secret + 1, claim, resume };
        self.model.join(&join);
        let session = |secret| Session::parse(&hex(secret)).unwrap();
        let epoch = |life| self.epochs.get(&life).cloned().unwrap_or_else(|| "another".to_owned());
        let request = JoinRequest {
            name: Nickname::Chosen(Name::parse(&join.name).unwrap()),
            room: join.room,
            session: session(join.fresh),
            claim: claim.map(session),
            resume: resume.map(|(life, since)| Resume { epoch: epoch(life), since }),
        };
        self.connections.push(Connection {
            who,
            writer_end,
            ample: queue == QUEUE_AMPLE,
            stalled: false,
            since: resume.map(|(_, since)| since),
            received: 0,
            next: 0,
            greeting: 0,
            left: Vec::new(),
        });
        self.people[who].connection = Some(id);
        self.handle(Event::Register(Newcomer { id: id as u64, outbox, request: request.into() }));
    }

    /// Ends the turn. Only the hub knows whose queues were full, so the model follows it.
    fn flush(&mut self) {
        self.hub.flush(self.now());
        let is_slow =
            |id: &Id| self.connections[*id].writer_end.reason() == Some(CloseReason::TooSlow);
        let evicted: Vec<Id> = (0..self.connections.len())
            .filter(|id| self.model.expected[*id].closed.is_none())
            .filter(is_slow)
            .collect();
        assert!(
            !evicted.iter().any(|id| self.connections[*id].ample),
            "a client whose queue has space is not too slow"
        );
        self.model.evict(&evicted);
        self.in_turn = false;
    }

    /// Receives what is queued for a connection, and compares it with the model.
    fn read(&mut self, id: Id) {
        let (entries, status) = self.connections[id].writer_end.take();
        for entry in entries {
            let mut bytes = entry.to_vec();
            for (_, payload) in raw::frames(&mut bytes) {
                self.receive(id, &payload);
            }
            assert!(bytes.is_empty(), "an entry holds whole frames");
        }
        let (connection, expected) = (&self.connections[id], &self.model.expected[id]);
        let missing = expected.messages.len() - connection.received;
        let last = expected.messages.last();
        let reason = connection.writer_end.reason();
        match expected.closed {
            None => {
                assert!(missing == 0 || self.in_turn, "{missing} messages are missing: {last:?}");
            }
            Some(_) if reason == Some(CloseReason::TooSlow) => assert!(!connection.ample),
            Some(expected) => {
                assert_eq!((reason, status), (Some(expected), Status::Closed));
                assert!(
                    missing == 0 || !connection.ample,
                    "{missing} messages are missing before the end: {last:?}"
                );
            }
        }
    }

    fn receive(&mut self, id: Id, payload: &[u8]) {
        let mut message: Value = serde_json::from_slice(payload).unwrap();
        let connection = &mut self.connections[id];
        let expected = &mut self.model.expected[id].messages;
        if message["type"] == "error" {
            // The model does not know the text, nor the time of a refusal.
            message.as_object_mut().unwrap().remove("content");
            if expected.first().is_some_and(|first| first.get("ts").is_none()) {
                message.as_object_mut().unwrap().remove("ts");
            }
        }
        settle_order(&mut expected[connection.received..], &message);
        let due = expected
            .get(connection.received)
            .unwrap_or_else(|| panic!("no message was expected: {message}"));
        connection.received += 1;
        if message["type"] == "welcome" {
            let life = due["epoch"].as_u64().unwrap();
            let epoch = message["epoch"].as_str().unwrap();
            let known = self.epochs.entry(life).or_insert_with(|| epoch.to_owned());
            assert_eq!(known, epoch, "a life has one epoch");
            assert_eq!(
                self.epochs.values().filter(|other| *other == epoch).count(),
                1,
                "no other life has this epoch"
            );
            message["epoch"] = life.into();
        }
        assert_eq!(&message, due);
        self.check_promises(id, &message, payload);
        if !self.connections[id].stalled {
            self.learn(id, &message);
        }
    }

    /// Checks what the protocol promises about each connection, whatever the model says.
    fn check_promises(&mut self, id: Id, message: &Value, payload: &[u8]) {
        let connection = &mut self.connections[id];
        let number = |key: &str| message[key].as_u64().unwrap();
        let user = message["user"].as_str().unwrap_or_default();
        let in_greeting = connection.greeting > 0;
        match message["type"].as_str().unwrap() {
            "welcome" => {
                connection.next = number("seq") - number("history") + 1;
                connection.greeting = number("history");
                if message["recovered"] == true {
                    assert_eq!(
                        Some(connection.next),
                        connection.since.map(|since| since + 1),
                        "it continues where it stopped"
                    );
                }
            }
            "public" if number("seq") < connection.next => {
                assert_eq!(
                    user, self.model.expected[id].messages[0]["user"],
                    "only its own messages may come twice, as receipts"
                );
            }
            "public" => {
                assert_eq!(number("seq"), connection.next, "no gap");
                connection.next += 1;
                connection.greeting = connection.greeting.saturating_sub(1);
                assert!(
                    in_greeting || !connection.left.iter().any(|left| left == user),
                    "{user} has left, and sends a message"
                );
            }
            "leave" => connection.left.push(user.to_owned()),
            "join" => connection.left.retain(|left| left != user),
            _ => {}
        }
        if message["type"] == "public" {
            let life = self.model.expected[id].messages[0]["epoch"].as_u64().unwrap();
            let first =
                self.frames.entry((life, number("seq"))).or_insert_with(|| payload.to_vec());
            assert_eq!(first, payload, "the same bytes for everyone");
        }
    }

    /// Notes what the person of a connection knows from `message`.
    fn learn(&mut self, id: Id, message: &Value) {
        let person = &mut self.people[self.connections[id].who];
        if person.connection != Some(id) {
            return;
        }
        let number = |key: &str| message[key].as_u64();
        match message["type"].as_str().unwrap() {
            "welcome" => {
                let session = message["session"].as_str().unwrap();
                person.secret = Secret::from_str_radix(session, 16).ok();
                person.life = number("epoch");
                person.seq = number("seq").unwrap() - number("history").unwrap();
                person.name = message["user"].as_str().unwrap().to_owned();
            }
            "public" => person.seq = person.seq.max(number("seq").unwrap()),
            _ => {}
        }
    }
}

/// Moves `received` to the front of `expected`, if only notices stand before it whose order is
/// open: members whose queues are full in one turn leave in any order, each followed by what was
/// not delivered to it.
fn settle_order(expected: &mut [Value], received: &Value) {
    let is_open = |message: &Value| {
        message["type"] == "leave" || message["code"] == ErrorCode::NoSuchUser.name()
    };
    let open = expected.iter().take_while(|message| is_open(message)).count();
    if let Some(at) = expected[..open].iter().position(|message| message == received) {
        expected[..=at].rotate_right(1);
    }
}
