//! What the protocol promises, under any sequence of events: the hub beside a model of it.

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

use crate::support::model::{Asks, Id, Model, Secret, hex};
use crate::support::steps::{
    Claim, ENDS, NAMES, PEOPLE, QUEUE_ENOUGH, ROOMS, Rules, Seen, Step, rules, step, words,
};
use crate::support::{config, raw};

/// Cases, unless `PROPTEST_CASES` says otherwise. They are the same each time unless
/// `PROPTEST_RNG_SEED` does.
const CASES_USUAL: u32 = 250;
const STEPS_MAX: usize = 160;

#[test]
fn the_hub_does_what_the_model_does() {
    let is_set = |name| std::env::var_os(name).is_some();
    let mut config = Config { failure_persistence: None, ..Config::default() };
    if !is_set("PROPTEST_CASES") {
        config.cases = CASES_USUAL;
    }
    if !is_set("PROPTEST_RNG_SEED") {
        config.rng_seed = RngSeed::Fixed(1);
    }
    let cases = (rules(), prop::collection::vec(step(), 0..STEPS_MAX));
    let result = TestRunner::new(config).run(&cases, |(rules, steps)| {
        play(&rules, &steps);
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}

/// Plays a case on the hub and the model, and compares all that everybody hears.
fn play(rules: &Rules, steps: &[Step]) {
    let mut stage = Stage::new(rules);
    for step in steps {
        stage.step(step);
    }
    stage.step(&Step::Flush);
    for id in 0..stage.lines.len() {
        stage.read(id);
    }
}

/// What a person knows, from what it has read.
#[derive(Clone, Debug, Default)]
struct Memory {
    /// Its newest connection.
    line: Option<Id>,
    room: String,
    name: String,
    secret: Option<Secret>,
    life: Option<u64>,
    seq: u64,
    sent: Option<Sent>,
}

/// A message of somebody's.
#[derive(Clone, Debug)]
struct Sent {
    to: Option<String>,
    content: String,
    reference: Option<String>,
}

/// A connection, and what has been read from it.
struct Line {
    who: usize,
    mail: WriterEnd,
    /// Its queue is larger than anything that could be said.
    roomy: bool,
    /// What is read from here on its person does not get.
    silent: bool,
    since: Option<u64>,
    read: usize,
    /// Number of the next public message, if it is not a receipt for an old one.
    next: u64,
    /// Messages of the greeting that have not been read.
    greeting: u64,
    /// Who has left before its eyes.
    gone: Vec<String>,
}

struct Stage {
    hub: Hub,
    model: Model,
    start: Instant,
    people: Vec<Memory>,
    lines: Vec<Line>,
    /// The epoch that each life of a room has.
    epochs: HashMap<u64, String>,
    /// Each public message as it first went out, by life and number.
    frames: HashMap<(u64, u64), Vec<u8>>,
    /// Something has happened in this turn.
    turning: bool,
}

impl Stage {
    fn new(rules: &Rules) -> Stage {
        let (history, grace, rooms) = (rules.history, rules.grace, rules.rooms);
        let options = [
            ("--history", history.to_string()),
            ("--max-rooms", rooms.to_string()),
            ("--leave-grace", format!("{grace}ms")),
        ];
        let options: Vec<&str> =
            options.iter().flat_map(|(name, value)| [*name, &**value]).collect();
        Stage {
            hub: Hub::new(Arc::new(config(&options)), SweepQueue::new(), 7),
            model: Model::new(history, grace, rooms),
            start: Instant::now(),
            people: vec![Memory::default(); PEOPLE],
            lines: Vec::new(),
            epochs: HashMap::new(),
            frames: HashMap::new(),
            turning: false,
        }
    }

    fn handle(&mut self, event: Event) {
        self.turning = true;
        self.hub.handle(event, self.moment());
    }

    fn moment(&self) -> Now {
        Now { ts: self.model.now, at: self.start + Duration::from_millis(self.model.now) }
    }

    fn step(&mut self, step: &Step) {
        match step {
            &Step::Join { who, again, name, room, ref claim, ref seen, queue } => {
                if !again || self.people[who].line.is_none() {
                    let fresh = Memory {
                        room: ROOMS[room].to_owned(),
                        name: NAMES[name.unwrap_or(who)].to_owned(),
                        ..Memory::default()
                    };
                    let Memory { secret, life, seq, sent, .. } = self.people[who].clone();
                    // What it knows of elsewhere it may still claim here.
                    self.people[who] = Memory { secret, life, seq, sent, ..fresh };
                }
                self.join(who, claim, seen, queue);
            }
            &Step::Say { who, content, reference } => {
                let reference = reference.map(|number| number.to_string());
                self.send(who, Sent { to: None, content: words(content), reference });
            }
            &Step::Whisper { who, to, content, reference } => {
                let reference = reference.map(|number| number.to_string());
                self.send(
                    who,
                    Sent { to: Some(NAMES[to].to_owned()), content: words(content), reference },
                );
            }
            &Step::Again { who } => {
                if let Some(sent) = self.people[who].sent.clone() {
                    self.send(who, sent);
                }
            }
            &Step::Complain { who, reference } => {
                let Some(id) = self.people[who].line else { return };
                let reference = reference.map(|number| number.to_string());
                self.model.complain(id, &reference);
                let reply = ErrorReply { code: ErrorCode::BadJson, content: "".into(), reference };
                self.handle(Event::Invalid { id: id as u64, reply });
            }
            &Step::End { who, how } => {
                let Some(id) = self.people[who].line else { return };
                self.model.end(id, ENDS[how]);
                self.handle(Event::Unregister { id: id as u64, reason: ENDS[how] });
            }
            &Step::Read { who } => {
                if let Some(id) = self.people[who].line {
                    self.read(id);
                }
            }
            &Step::Silence { who } => {
                if let Some(id) = self.people[who].line {
                    self.lines[id].silent = true;
                }
            }
            Step::Flush => self.flush(),
            &Step::Wait(time) => {
                // A turn's events have one time.
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
        let Some(id) = self.people[who].line else { return };
        self.people[who].sent = Some(sent.clone());
        let Sent { to, content, reference } = sent;
        match to {
            None => {
                self.model.say(id, &content, &reference);
                self.handle(Event::Publish { id: id as u64, content, reference });
            }
            Some(to) => {
                self.model.whisper(id, &to, &content, &reference);
                let to = Recipient::parse(to).unwrap();
                self.handle(Event::Whisper { id: id as u64, to, content, reference });
            }
        }
    }

    fn join(&mut self, who: usize, claim: &Claim, seen: &Seen, queue: usize) {
        let id = self.lines.len();
        let memory = self.people[who].clone();
        // Two rooms that lose their last members in one turn do so in an order that only the hub
        // knows.
        let queue = if memory.room == ROOMS[0] { queue } else { QUEUE_ENOUGH };
        let (outbox, _controls, mail) = outbox::channel(queue, u64::MAX, &SweepQueue::new());
        let claim = match claim {
            Claim::Own => memory.secret,
            Claim::Of(other) => self.people[*other].secret,
            Claim::Wrong => Some(Secret::MAX),
            Claim::None => None,
        };
        let resume = memory.life.and_then(|life| match seen {
            Seen::Truth => Some((life, memory.seq)),
            Seen::Less(by) => Some((life, memory.seq.saturating_sub(*by))),
            Seen::More(by) => Some((life, memory.seq + by)),
            Seen::OtherLife => Some((0, memory.seq)),
            Seen::Nothing => None,
        });
        let asks =
            Asks { name: memory.name, room: memory.room, fresh: id as Secret + 1, claim, resume };
        self.model.join(&asks);
        let session = |secret| Session::parse(&hex(secret)).unwrap();
        let epoch = |life| self.epochs.get(&life).cloned().unwrap_or_else(|| "another".to_owned());
        let request = JoinRequest {
            name: Nickname::Chosen(Name::parse(&asks.name).unwrap()),
            room: asks.room,
            session: session(asks.fresh),
            claim: claim.map(session),
            resume: resume.map(|(life, since)| Resume { epoch: epoch(life), since }),
        };
        self.lines.push(Line {
            who,
            mail,
            roomy: queue == QUEUE_ENOUGH,
            silent: false,
            since: resume.map(|(_, since)| since),
            read: 0,
            next: 0,
            greeting: 0,
            gone: Vec::new(),
        });
        self.people[who].line = Some(id);
        self.handle(Event::Register(Newcomer { id: id as u64, outbox, request: request.into() }));
    }

    /// Ends the turn. Whose queue was full the hub alone knows, so the model follows it.
    fn flush(&mut self) {
        self.hub.flush(self.moment());
        let is_slow = |id: &Id| self.lines[*id].mail.reason() == Some(CloseReason::TooSlow);
        let evicted: Vec<Id> = (0..self.lines.len())
            .filter(|id| self.model.ears[*id].closed.is_none())
            .filter(is_slow)
            .collect();
        assert!(
            !evicted.iter().any(|id| self.lines[*id].roomy),
            "a queue with room is not too slow"
        );
        self.model.evict(&evicted);
        self.turning = false;
    }

    /// Reads what has come on a connection, which must be what the model says.
    fn read(&mut self, id: Id) {
        let (entries, status) = self.lines[id].mail.take();
        for entry in entries {
            let mut bytes = entry.to_vec();
            for (_, payload) in raw::frames(&mut bytes) {
                self.hear(id, &payload);
            }
            assert!(bytes.is_empty(), "an entry holds whole frames");
        }
        let (line, ear) = (&self.lines[id], &self.model.ears[id]);
        let lag = ear.due.len() - line.read;
        match ear.closed {
            None => assert!(
                lag == 0 || self.turning,
                "{lag} messages have not been delivered: {:?}",
                ear.due.last()
            ),
            Some(_) if line.mail.reason() == Some(CloseReason::TooSlow) => assert!(!line.roomy),
            Some(reason) => {
                assert_eq!((line.mail.reason(), status), (Some(reason), Status::Closed));
                assert!(
                    lag == 0 || !line.roomy,
                    "{lag} messages got lost on the way out: {:?}",
                    ear.due.last()
                );
            }
        }
    }

    fn hear(&mut self, id: Id, payload: &[u8]) {
        let mut message: Value = serde_json::from_slice(payload).unwrap();
        let (line, ear) = (&mut self.lines[id], &mut self.model.ears[id]);
        if message["type"] == "error" {
            // Told to people, in words of its own; and a refusal has its own time.
            message.as_object_mut().unwrap().remove("content");
            if ear.due.first().is_some_and(|due| due.get("ts").is_none()) {
                message.as_object_mut().unwrap().remove("ts");
            }
        }
        settle_order(&mut ear.due[line.read..], &message);
        let due =
            ear.due.get(line.read).unwrap_or_else(|| panic!("nothing more was due: {message}"));
        line.read += 1;
        if message["type"] == "welcome" {
            let life = due["epoch"].as_u64().unwrap();
            let epoch = message["epoch"].as_str().unwrap();
            let known = self.epochs.entry(life).or_insert_with(|| epoch.to_owned());
            assert_eq!(known, epoch, "a life has one epoch");
            assert_eq!(
                self.epochs.values().filter(|other| *other == epoch).count(),
                1,
                "and no other life has it"
            );
            message["epoch"] = life.into();
        }
        assert_eq!(&message, due);
        self.check_promises(id, &message, payload);
        if !self.lines[id].silent {
            self.learn(id, &message);
        }
    }

    /// What the protocol promises of a connection, whatever the model says.
    fn check_promises(&mut self, id: Id, message: &Value, payload: &[u8]) {
        let line = &mut self.lines[id];
        let number = |key: &str| message[key].as_u64().unwrap();
        let user = message["user"].as_str().unwrap_or_default();
        let greeting = line.greeting > 0;
        match message["type"].as_str().unwrap() {
            "welcome" => {
                line.next = number("seq") - number("history") + 1;
                line.greeting = number("history");
                if message["recovered"] == true {
                    assert_eq!(
                        Some(line.next),
                        line.since.map(|since| since + 1),
                        "it goes on where it stopped"
                    );
                }
            }
            "public" if number("seq") < line.next => {
                assert_eq!(
                    user, self.model.ears[id].due[0]["user"],
                    "nobody else's message comes twice"
                );
            }
            "public" => {
                assert_eq!(number("seq"), line.next, "no gap");
                line.next += 1;
                line.greeting = line.greeting.saturating_sub(1);
                assert!(
                    greeting || !line.gone.iter().any(|gone| gone == user),
                    "{user} has left and says something"
                );
            }
            "leave" => line.gone.push(user.to_owned()),
            "join" => line.gone.retain(|gone| gone != user),
            _ => {}
        }
        if message["type"] == "public" {
            let life = self.model.ears[id].due[0]["epoch"].as_u64().unwrap();
            let first =
                self.frames.entry((life, number("seq"))).or_insert_with(|| payload.to_vec());
            assert_eq!(first, payload, "byte for byte as it first went out");
        }
    }

    fn learn(&mut self, id: Id, message: &Value) {
        let memory = &mut self.people[self.lines[id].who];
        if memory.line != Some(id) {
            return;
        }
        match message["type"].as_str().unwrap() {
            "welcome" => {
                memory.secret =
                    Secret::from_str_radix(message["session"].as_str().unwrap(), 16).ok();
                memory.life = message["epoch"].as_u64();
                memory.seq =
                    message["seq"].as_u64().unwrap() - message["history"].as_u64().unwrap();
                memory.name = message["user"].as_str().unwrap().to_owned();
            }
            "public" => memory.seq = memory.seq.max(message["seq"].as_u64().unwrap()),
            _ => {}
        }
    }
}

/// Several members whose queues are full leave in any order, and with each what was not delivered
/// to it comes back: brings forward what came, if it was due in this row.
fn settle_order(due: &mut [Value], came: &Value) {
    let is_parting = |message: &Value| {
        message["type"] == "leave" || message["code"] == ErrorCode::NoSuchUser.name()
    };
    let row = due.iter().take_while(|message| is_parting(message)).count();
    if let Some(at) = due[..row].iter().position(|message| message == came) {
        due[..=at].rotate_right(1);
    }
}
