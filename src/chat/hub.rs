//! The hub: one thread that owns every room and member, and never waits for any of them.
//!
//! [`Hub::run`] turns readiness into an [`Event`]; [`Hub::handle`] decides. `handle` does no I/O and reads no clock, so
//! the tests drive it without a thread or a socket.
//!
//! All events come through one inbox. Go's three channels are unbuffered, so each client's events keep their order;
//! with three buffered ones `select!` would pick at random, and a message could be handled before its sender's
//! registration.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, at, never, select};
use prometheus::local::LocalHistogram;

use crate::chat::client::{ClientId, refuse};
use crate::chat::outbox::{Outbox, Sweeps};
use crate::chat::room::{Resume, Room, Seat};
use crate::config::Config;
use crate::protocol::message::{self, CloseReason, Complaint, Timestamp};
use crate::protocol::session::Session;
use crate::system::metrics::METRICS;

/// Events the inbox holds before readers wait, and with them, by TCP, their clients.
pub const INBOX_EVENTS: usize = 1024;
/// Events handled before what they caused is sent on, at most.
const TURN_EVENTS_MAX: usize = 256;
/// Rooms that must forget, forget until this part of what they may remember is free.
const HISTORY_SPARE: usize = 8;
/// How long a crowd waits to be told who came and went.
const NOTICE_DELAY: Duration = Duration::from_millis(100);
/// Members whose connection broke and who have not been missed yet, at most: each is memory without a connection.
const ABSENCES_MAX: usize = 8192;
/// Four letters or digits make this many guest names.
const GUEST_NAMES: u32 = 36 * 36 * 36 * 36;

/// What happens to the hub.
pub enum Event {
    /// A client has connected.
    Register(Newcomer),
    /// A client has gone, or must go.
    Unregister { id: ClientId, reason: CloseReason },
    /// A message to the whole room.
    Publish { id: ClientId, content: String, receipt: Option<String> },
    /// A message to one member.
    Whisper { id: ClientId, to: String, content: String, receipt: Option<String> },
    /// Something the client sent could not be read. It passes through the hub to keep its place among the answers.
    Complain { id: ClientId, complaint: Complaint },
    /// The notices that have waited are due.
    NoticesDue,
    /// Somebody has been absent for `--leave-grace`.
    AbsencesDue,
    /// Somebody asks whether the hub is alive; dropping the sender unused would say no.
    Health(Sender<()>),
    /// The server stops: everybody is sent away, and newcomers are refused.
    Stop,
}

/// An event on its way to the hub.
pub struct Posted {
    event: Event,
    at: Instant,
}

impl Posted {
    /// Posts an event now.
    pub fn now(event: Event) -> Posted {
        Posted { event, at: Instant::now() }
    }
}

/// A client that wants to join a room.
pub struct Newcomer {
    /// Its number, never used before.
    pub id: ClientId,
    /// The way to it.
    pub outbox: Outbox,
    /// What it wants. Boxed: an event in the inbox is as large as the largest, and most are messages.
    pub joining: Box<Joining>,
}

/// Who wants to join which room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joining {
    /// The name it wants.
    pub name: Nickname,
    /// The room, whose name keeps the rules.
    pub room: String,
    /// A new secret, for its session if it does not continue one.
    pub session: Session,
    /// The session it says it continues.
    pub claim: Option<Session>,
    /// What it says it has seen of the room's public messages.
    pub resume: Option<Resume>,
}

/// When something happens.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// By the calendar, for the messages.
    pub ts: Timestamp,
    /// By a clock that nobody sets, for deadlines.
    pub at: Instant,
}

impl Moment {
    /// This moment.
    pub fn now() -> Moment {
        Moment { ts: message::now(), at: Instant::now() }
    }
}

/// A member whose connection broke.
struct Absence {
    room: Arc<str>,
    /// Its name, with case folded.
    key: String,
    /// When the others are told that it left.
    due: Instant,
}

/// The name a newcomer wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nickname {
    /// Its own choice, which keeps the rules.
    Chosen(String),
    /// Any `guest-xxxx`; the number, from the system's random source, is where the search for a free one begins.
    Guest(u32),
}

impl fmt::Display for Nickname {
    /// For the log: a chosen name quoted, with whatever could upset a terminal escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Nickname::Chosen(name) => write!(f, "{name:?}"),
            Nickname::Guest(_) => f.write_str("a guest"),
        }
    }
}

/// All state of the chat.
pub struct Hub {
    config: Arc<Config>,
    sweeps: Sweeps,
    rooms: HashMap<Arc<str>, Room>,
    /// The room each client is in. The one list of who is connected.
    clients: HashMap<ClientId, Arc<str>>,
    /// Rooms without members, the one empty longest first.
    empty: BTreeMap<u64, Arc<str>>,
    /// Rooms with something to send at the end of the turn.
    dirty: Vec<Arc<str>>,
    /// Crowded rooms whose notices wait to be due.
    waiting: Vec<Arc<str>>,
    /// Members whose connection broke, by their number in the order in which it did.
    absences: BTreeMap<u64, Absence>,
    /// Number of the next absence.
    absence_next: u64,
    /// Times that a room has been created or become empty: orders `empty`, and tells one life of a room from the next.
    lives: u64,
    /// Random for each run of the server, the first part of every epoch.
    run_id: u64,
    /// Memory that the frames of the public messages occupy which all rooms remember.
    history_bytes: usize,
    stopping: bool,
    /// Counted here, and added to what is shown at the end of each turn.
    queueing: LocalHistogram,
}

impl Hub {
    /// A hub without rooms. `run_id` must differ from one run of the server to the next.
    pub fn new(config: Arc<Config>, sweeps: Sweeps, run_id: u64) -> Hub {
        Hub {
            config,
            sweeps,
            rooms: HashMap::new(),
            clients: HashMap::new(),
            empty: BTreeMap::new(),
            dirty: Vec::new(),
            waiting: Vec::new(),
            absences: BTreeMap::new(),
            absence_next: 0,
            lives: 0,
            run_id,
            history_bytes: 0,
            stopping: false,
            queueing: METRICS.queueing_seconds.local(),
        }
    }

    /// Handles events until every sender of the inbox is gone. `stop` comes once, by a message or by being dropped.
    pub fn run(mut self, inbox: &Receiver<Posted>, mut stop: Receiver<()>) {
        let (mut ticker, mut ticking) = (never(), false);
        loop {
            if !ticking && !self.waiting.is_empty() {
                (ticker, ticking) = (after(NOTICE_DELAY), true);
            }
            let absence =
                self.absences.first_key_value().map_or_else(never, |(_, first)| at(first.due));
            let event = select! {
                recv(inbox) -> event => match event {
                    Ok(event) => event,
                    Err(_) => return,
                },
                recv(ticker) -> _ => {
                    (ticker, ticking) = (never(), false);
                    Posted::now(Event::NoticesDue)
                }
                recv(absence) -> _ => Posted::now(Event::AbsencesDue),
                recv(stop) -> _ => {
                    stop = never();
                    // What has been said already is delivered before the goodbye.
                    self.turn(inbox.try_iter().take(INBOX_EVENTS));
                    Posted::now(Event::Stop)
                }
            };
            METRICS.inbox_events.set(inbox.len() as i64);
            self.turn(std::iter::once(event).chain(inbox.try_iter().take(TURN_EVENTS_MAX - 1)));
        }
    }

    /// Handles what has piled up, then sends each member all of it as one entry. It never waits for more: one event
    /// alone goes out at once.
    fn turn(&mut self, events: impl Iterator<Item = Posted>) {
        let now = Moment::now();
        let mut messages = Vec::new();
        for Posted { event, at } in events {
            if matches!(event, Event::Publish { .. } | Event::Whisper { .. }) {
                messages.push(at);
            }
            self.handle(event, now);
        }
        self.flush(now);
        let queued = Instant::now();
        for at in messages {
            self.queueing.observe(queued.saturating_duration_since(at).as_secs_f64());
        }
        self.queueing.flush();
        METRICS.clients.set(self.clients.len() as i64);
        METRICS.absent_members.set(self.absences.len() as i64);
        METRICS.rooms.set(self.rooms.len() as i64);
        METRICS.history_bytes.set(self.history_bytes as i64);
    }

    /// Decides about one event. What the rooms are to hear waits for [`flush`](Hub::flush).
    pub fn handle(&mut self, event: Event, now: Moment) {
        match event {
            Event::Register(newcomer) => self.register(newcomer, now),
            Event::Unregister { id, reason } => self.remove(id, reason, now),
            Event::Publish { id, content, receipt } => {
                let history_max = self.config.history;
                let mut history_bytes = self.history_bytes;
                self.with_room(id, |room| {
                    history_bytes -= room.history_bytes();
                    room.publish(id, &content, receipt, history_max, now.ts);
                    history_bytes += room.history_bytes();
                });
                self.history_bytes = history_bytes;
                self.limit_history();
            }
            Event::Whisper { id, to, content, receipt } => {
                let history_max = self.config.history;
                self.with_room(id, |room| {
                    room.whisper(id, &to, &content, receipt, history_max, now.ts)
                });
            }
            Event::Complain { id, complaint } => {
                self.with_room(id, |room| room.complain(id, &complaint, now.ts));
            }
            Event::NoticesDue => {
                for key in std::mem::take(&mut self.waiting) {
                    let Some(room) = self.rooms.get_mut(&key) else { continue };
                    room.notices_due = true;
                    mark_dirty(&mut self.dirty, &key, room);
                }
            }
            Event::AbsencesDue => {
                while let Some(first) =
                    self.absences.first_entry().filter(|first| first.get().due <= now.at)
                {
                    let (number, absence) = first.remove_entry();
                    self.end_absence(number, &absence, now);
                }
            }
            // The asker may have given up waiting.
            Event::Health(answer) => drop(answer.try_send(())),
            Event::Stop => self.stop(),
        }
    }

    /// Sends what the turn has gathered. A member whose queue is full goes, which the others are told, which may fill
    /// another's queue: so until nothing is left.
    pub fn flush(&mut self, now: Moment) {
        while let Some(name) = self.dirty.pop() {
            let Some(room) = self.rooms.get_mut(&name) else { continue };
            let overflowed = room.flush();
            if room.has_waiting() && !self.waiting.contains(&name) {
                self.waiting.push(name);
            }
            METRICS.evictions.inc_by(overflowed.len() as u64);
            for id in overflowed {
                self.remove(id, CloseReason::TooSlow, now);
            }
        }
    }

    fn register(&mut self, newcomer: Newcomer, now: Moment) {
        let Newcomer { id, outbox, joining } = newcomer;
        if self.stopping {
            return outbox.close(CloseReason::ServerShutdown);
        }
        let Some(key) = self.find_or_create(&joining.room, now) else {
            return refuse(outbox, CloseReason::RoomLimit);
        };
        let room = self.rooms.get_mut(&key).expect("find_or_create gives the key of a room");
        let name = match &joining.name {
            Nickname::Chosen(name) => name.clone(),
            Nickname::Guest(start) => free_guest_name(room, *start),
        };
        match joining.claim.and_then(|claim| room.vacate(&name, claim)) {
            Some(vacated) => {
                match vacated.seat {
                    Seat::Here(id) => drop(self.clients.remove(&id)),
                    Seat::Away(number) => drop(self.absences.remove(&number)),
                }
                room.rejoin(id, vacated, outbox, joining.resume.as_ref(), now.ts);
            }
            None if room.has(&name) => return refuse(outbox, CloseReason::NameTaken),
            None => room.join(id, name, outbox, &joining, now.ts),
        }
        if let Some(order) = room.empty_since.take() {
            self.empty.remove(&order);
        }
        mark_dirty(&mut self.dirty, &key, room);
        self.clients.insert(id, key);
    }

    /// The one place that removes a client. Does nothing for one that has gone already.
    ///
    /// One that did not close its connection itself may be back in a moment: it stays a member until its absence is due.
    fn remove(&mut self, id: ClientId, reason: CloseReason, now: Moment) {
        let Some(key) = self.clients.remove(&id) else { return };
        let room = self.rooms.get_mut(&key).expect("a client's room exists as long as the client");
        if reason == CloseReason::ClientClosed || self.config.leave_grace.is_zero() {
            room.leave(id, reason, now.ts);
            self.left(&key);
        } else {
            self.absence_next += 1;
            let name = room.absent(id, reason, self.absence_next);
            let absence = Absence { room: key, key: name, due: now.at + self.config.leave_grace };
            self.absences.insert(self.absence_next, absence);
            if self.absences.len() > ABSENCES_MAX
                && let Some((number, absence)) = self.absences.pop_first()
            {
                self.end_absence(number, &absence, now);
            }
        }
    }

    /// The room hears that a member which is absent has left.
    fn end_absence(&mut self, number: u64, absence: &Absence, now: Moment) {
        let room = self
            .rooms
            .get_mut(&absence.room)
            .expect("a room exists as long as somebody is absent from it");
        room.end_absence(&absence.key, number, now.ts);
        self.left(&absence.room);
    }

    /// Somebody has left this room, which may have been the last.
    fn left(&mut self, key: &Arc<str>) {
        let room = self.rooms.get_mut(key).expect("somebody has just left it");
        if room.is_empty() {
            self.lives += 1;
            room.empty_since = Some(self.lives);
            self.empty.insert(self.lives, key.clone());
        }
        mark_dirty(&mut self.dirty, key, room);
    }

    /// The key of the room called `name`. Makes it if need be, at the cost of the room that has been empty longest, or else of
    /// one where everybody is absent; `None` when all are in use.
    fn find_or_create(&mut self, name: &str, now: Moment) -> Option<Arc<str>> {
        if let Some((key, _)) = self.rooms.get_key_value(name) {
            return Some(key.clone());
        }
        if self.rooms.len() >= self.config.max_rooms {
            if self.empty.is_empty() {
                self.give_up_deserted(now);
            }
            let (_, oldest) = self.empty.pop_first()?;
            self.history_bytes -= self.rooms.remove(&oldest).map_or(0, |room| room.history_bytes());
        }
        self.lives += 1;
        let key: Arc<str> = name.into();
        let epoch = format!("{:016x}-{}", self.run_id, self.lives);
        let mut room = Room::new(key.clone(), epoch, self.sweeps.clone());
        // Until somebody has joined it.
        room.empty_since = Some(self.lives);
        self.empty.insert(self.lives, key.clone());
        self.rooms.insert(key.clone(), room);
        Some(key)
    }

    /// Empties the room that only those keep who are absent, and first of whom has been so for longest. Otherwise whoever
    /// opens rooms and drops the line at once would keep others out of new ones.
    fn give_up_deserted(&mut self, now: Moment) {
        let is_deserted = |key: &Arc<str>| self.rooms.get(key).is_some_and(Room::is_deserted);
        let Some(key) = self
            .absences
            .values()
            .map(|absence| &absence.room)
            .find(|key| is_deserted(key))
            .cloned()
        else {
            return;
        };
        let absences: Vec<(u64, Absence)> =
            self.absences.extract_if(.., |_, absence| absence.room == key).collect();
        for (number, absence) in absences {
            self.end_absence(number, &absence, now);
        }
    }

    /// Lets a client that is still connected act on its room.
    fn with_room(&mut self, id: ClientId, act: impl FnOnce(&mut Room)) {
        let Some(key) = self.clients.get(&id) else { return };
        let room = self.rooms.get_mut(key).expect("a client's room exists as long as the client");
        act(room);
        mark_dirty(&mut self.dirty, key, room);
    }

    /// Has rooms forget, those that remember most first, if all together remember more than they may. So whoever floods many
    /// rooms takes nothing from those that say little.
    fn limit_history(&mut self) {
        let bytes_max = self.config.history_bytes;
        while self.history_bytes > bytes_max {
            let mut rooms: Vec<&mut Room> = self.rooms.values_mut().collect();
            rooms.sort_unstable_by_key(|room| Reverse(room.history_bytes()));
            for room in rooms {
                let before = room.history_bytes();
                room.forget_older_half();
                self.history_bytes -= before - room.history_bytes();
                // With something to spare, or the next message would have all rooms sorted again.
                if self.history_bytes <= bytes_max - bytes_max / HISTORY_SPARE {
                    break;
                }
            }
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
        for room in self.rooms.values_mut() {
            room.close(CloseReason::ServerShutdown);
        }
        self.clients.clear();
        self.absences.clear();
        self.dirty.clear();
    }
}

/// Notes that `room` has something to flush.
fn mark_dirty(dirty: &mut Vec<Arc<str>>, key: &Arc<str>, room: &mut Room) {
    if !std::mem::replace(&mut room.dirty, true) {
        dirty.push(key.clone());
    }
}

/// A guest name nobody in the room has. There are more such names than clients a server can carry.
fn free_guest_name(room: &Room, start: u32) -> String {
    (start..=u32::MAX)
        .chain(0..start)
        .map(guest_name)
        .find(|name| !room.has(name))
        .expect("fewer members than guest names")
}

/// `guest-` and four of `0-9a-z`.
fn guest_name(number: u32) -> String {
    let mut rest = number % GUEST_NAMES;
    let mut digits = [0; 4];
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[rest as usize % 36];
        rest /= 36;
    }
    format!("guest-{}", digits.map(char::from).iter().collect::<String>())
}
