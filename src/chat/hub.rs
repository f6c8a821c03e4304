//! The hub: one thread that owns every room and member, and never waits for any of them.
//! [`Hub::run`] turns readiness into an [`Event`], and [`Hub::handle`] decides. `handle` does no
//! I/O, and decides by the time that it is given. So the tests drive it without a thread or a
//! socket.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, at, never, select};
use prometheus::local::LocalHistogram;

use super::connection::ClientId;
use super::inbox::{Event, INBOX_EVENTS, JoinRequest, Newcomer, Nickname, Timed};
use super::returning::Returning;
use super::room::{Room, Seat};
use super::write_half::SweepQueue;
use crate::config::Config;
use crate::protocol::close::CloseReason;
use crate::protocol::message::{self, Timestamp};
use crate::protocol::name::Name;
use crate::system::metrics::METRICS;

/// Maximum number of events handled before their messages are sent, except at a stop.
const TURN_EVENTS_MAX: usize = 256;
/// When the rooms' memory is full, history is trimmed until one part in this many is free.
const HISTORY_SPARE: usize = 8;
/// How long notices of joins and leaves wait in a crowd.
const NOTICE_DELAY: Duration = Duration::from_millis(100);
/// Maximum number of absent members: each takes memory without a connection.
const ABSENCES_MAX: usize = 8192;

/// All state of the chat.
pub struct Hub {
    config: Arc<Config>,
    sweeps: SweepQueue,
    rooms: HashMap<Arc<str>, RoomEntry>,
    /// The room of each client. This is the one list of who is connected.
    clients: HashMap<ClientId, Arc<str>>,
    /// Rooms without members, the one empty longest first.
    empty: BTreeMap<u64, Arc<str>>,
    /// Rooms with something to send at the end of the turn.
    dirty: Vec<Arc<str>>,
    /// Crowded rooms whose notices wait until they are due.
    waiting: Vec<Arc<str>>,
    /// Absent members, by the number of their absence: the longest absent first.
    absences: BTreeMap<u64, AbsenceDue>,
    /// Clients that come back behind a backlog.
    returning: Returning,
    /// Number of the newest absence.
    absence_last: u64,
    /// How often a room was created or became empty. It orders `empty`, and makes epochs differ.
    lives: u64,
    /// Random for each run of the server, the first part of every epoch.
    run_id: u64,
    /// Bytes of history in all rooms together.
    history_bytes: usize,
    stopping: bool,
    /// Counted here, and added to the metric at the end of each turn.
    queueing: LocalHistogram,
}

/// A room, and what the hub notes about it.
struct RoomEntry {
    room: Room,
    /// The room's place in [`Hub::empty`]; `None` while it has members.
    empty_since: Option<u64>,
    /// The room is in [`Hub::dirty`].
    dirty: bool,
    /// The room's notices have waited long enough.
    notices_due: bool,
}

/// When a member whose connection broke leaves for good.
struct AbsenceDue {
    room: Arc<str>,
    /// The key of its name.
    key: Arc<str>,
    at: Instant,
}

/// The time of a turn.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// By the calendar, for messages.
    pub ts: Timestamp,
    /// By a clock that nobody sets, for deadlines.
    pub at: Instant,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Now {
        Now { ts: message::now(), at: Instant::now() }
    }
}

impl Hub {
    /// Creates a hub without rooms. `run_id` must differ from one run of the server to the next.
    pub fn new(config: Arc<Config>, sweeps: SweepQueue, run_id: u64) -> Hub {
        Hub {
            config,
            sweeps,
            rooms: HashMap::new(),
            clients: HashMap::new(),
            empty: BTreeMap::new(),
            dirty: Vec::new(),
            waiting: Vec::new(),
            absences: BTreeMap::new(),
            returning: Returning::default(),
            absence_last: 0,
            lives: 0,
            run_id,
            history_bytes: 0,
            stopping: false,
            queueing: METRICS.queueing_seconds.local(),
        }
    }

    /// Handles events until every sender of the inbox is dropped. `stop` comes once, by a message
    /// or by being dropped.
    pub fn run(mut self, inbox: &Receiver<Timed>, mut stop: Receiver<()>) {
        let (mut ticker, mut ticking) = (never(), false);
        loop {
            if !ticking && !self.waiting.is_empty() {
                (ticker, ticking) = (after(NOTICE_DELAY), true);
            }
            let absence = self.absences.first_key_value().map_or_else(never, |(_, due)| at(due.at));
            let event = select! {
                recv(inbox) -> event => match event {
                    Ok(event) => event,
                    Err(_) => return,
                },
                recv(ticker) -> _ => {
                    (ticker, ticking) = (never(), false);
                    Timed::now(Event::NoticesDue)
                }
                recv(absence) -> _ => Timed::now(Event::AbsencesDue),
                recv(stop) -> _ => {
                    stop = never();
                    // What was sent already is delivered before everybody is closed.
                    self.turn(inbox.try_iter().take(INBOX_EVENTS));
                    Timed::now(Event::Stop)
                }
            };
            METRICS.inbox_events.set(inbox.len() as i64);
            self.turn(std::iter::once(event).chain(inbox.try_iter().take(TURN_EVENTS_MAX - 1)));
        }
    }

    /// Handles what has piled up, then queues all of it as one entry for each member. It never
    /// waits for more: a single event is sent at once.
    fn turn(&mut self, events: impl Iterator<Item = Timed>) {
        let now = Now::read();
        let mut messages = Vec::new();
        for Timed { event, sent } in events {
            if matches!(event, Event::Publish { .. } | Event::Whisper { .. }) {
                messages.push(sent);
            }
            self.handle(event, now);
        }
        self.flush(now);
        let queued = Instant::now();
        for sent in messages {
            self.queueing.observe(queued.saturating_duration_since(sent).as_secs_f64());
        }
        self.queueing.flush();
        METRICS.clients.set(self.clients.len() as i64);
        METRICS.absent_members.set(self.absences.len() as i64);
        METRICS.rooms.set(self.rooms.len() as i64);
        METRICS.history_bytes.set(self.history_bytes as i64);
    }

    /// Decides about one event. What members get for it waits for [`flush`](Hub::flush).
    pub fn handle(&mut self, event: Event, now: Now) {
        // Events of a client that waits to come back are kept until it may join.
        let Some(event) = self.returning.hold(event) else { return };
        match event {
            Event::Register(newcomer) => self.register(newcomer, now),
            Event::Unregister { id, reason } => {
                self.remove(id, reason, now);
                self.caught_up(id, now);
            }
            Event::Publish { id, content, reference } => {
                let history_max = self.config.history;
                // A copy, since `with_room` borrows all of `self`.
                let mut history_bytes = self.history_bytes;
                self.with_room(id, |room| {
                    history_bytes -= room.history().bytes();
                    room.publish(id, &content, reference, history_max, now.ts);
                    history_bytes += room.history().bytes();
                });
                self.history_bytes = history_bytes;
                self.limit_history();
            }
            Event::Whisper { id, to, content, reference } => {
                let history_max = self.config.history;
                self.with_room(id, |room| {
                    room.whisper(id, &to, &content, reference, history_max, now.ts);
                });
            }
            Event::Invalid { id, reply } => {
                self.with_room(id, |room| room.reply_error(id, &reply, now.ts));
            }
            Event::Slowed { id } => self.returning.slowed(id),
            Event::CaughtUp { id } => self.caught_up(id, now),
            Event::NoticesDue => {
                for key in std::mem::take(&mut self.waiting) {
                    let Some(entry) = self.rooms.get_mut(&key) else { continue };
                    entry.notices_due = true;
                    mark_dirty(&mut self.dirty, &key, entry);
                }
            }
            Event::AbsencesDue => {
                while let Some(first) =
                    self.absences.first_entry().filter(|first| first.get().at <= now.at)
                {
                    let (number, absence) = first.remove_entry();
                    self.end_absence(number, &absence, now);
                }
            }
            // The asker may have given up waiting.
            Event::Health(reply) => {
                let _ = reply.try_send(());
            }
            Event::Stop => self.stop(),
        }
    }

    /// Sends what the turn has gathered.
    ///
    /// A member whose queue is full leaves. The others are notified, which may fill another queue.
    /// So this goes on until nothing is left to send.
    pub fn flush(&mut self, now: Now) {
        while let Some(name) = self.dirty.pop() {
            let Some(entry) = self.rooms.get_mut(&name) else { continue };
            entry.dirty = false;
            let overflowed = entry.room.flush(std::mem::take(&mut entry.notices_due));
            if entry.room.has_waiting() && !self.waiting.contains(&name) {
                self.waiting.push(name);
            }
            METRICS.evictions.inc_by(overflowed.len() as u64);
            for id in overflowed {
                self.remove(id, CloseReason::TooSlow, now);
            }
        }
    }

    fn register(&mut self, newcomer: Newcomer, now: Now) {
        if self.stopping {
            return newcomer.outbox.close(CloseReason::ServerShutdown);
        }
        if let Some(older) = self.older_with_backlog(&newcomer.request) {
            // The older client stays a member until its backlog is handed over. Nothing more is
            // read from it.
            self.rooms[&*newcomer.request.room].room.stop_reading(older);
            return self.returning.wait(newcomer, older);
        }
        let Newcomer { id, outbox, request } = newcomer;
        let Some(key) = self.find_or_create(&request.room, now) else {
            return outbox.refuse(CloseReason::RoomLimit, CloseReason::RoomLimit.advice());
        };
        let entry = self.rooms.get_mut(&key).expect("find_or_create returns the key of a room");
        let room = &mut entry.room;
        let name = match &request.name {
            Nickname::Chosen(name) => name.clone(),
            Nickname::Guest(start) => free_guest_name(room, *start),
        };
        match request.claim.and_then(|claim| room.vacate(&name, claim)) {
            Some(vacated) => {
                match vacated.seat {
                    Seat::Connected(id) => {
                        self.clients.remove(&id);
                    }
                    Seat::Absent(number) => {
                        self.absences.remove(&number);
                    }
                }
                room.rejoin(id, vacated, outbox, request.resume.as_ref(), now.ts);
            }
            None => {
                if let Some(member) = room.occupant(&name) {
                    let advice = name.taken_by(&member.name);
                    return outbox.refuse(CloseReason::NameTaken, Some(&advice));
                }
                room.join(id, name, outbox, &request, now.ts);
            }
        }
        if let Some(order) = entry.empty_since.take() {
            self.empty.remove(&order);
        }
        mark_dirty(&mut self.dirty, &key, entry);
        self.clients.insert(id, key);
    }

    /// Returns the connection of the same session that still has a backlog, if there is one.
    fn older_with_backlog(&self, request: &JoinRequest) -> Option<ClientId> {
        let (Nickname::Chosen(name), Some(claim)) = (&request.name, request.claim) else {
            return None;
        };
        let room = &self.rooms.get(&*request.room)?.room;
        room.connected(name, claim).filter(|&older| self.returning.has_backlog(older))
    }

    /// Notes that nothing waits any more of what this client sent.
    fn caught_up(&mut self, id: ClientId, now: Now) {
        if let Some((newcomer, events)) = self.returning.caught_up(id) {
            self.register(newcomer, now);
            for event in events {
                self.handle(event, now);
            }
        }
    }

    /// Removes a client that leaves, for whatever reason. Does nothing for one that has gone
    /// already. Only a client that is replaced by its own return goes in `register`.
    ///
    /// A client that did not close its connection itself may be back in a moment: it stays a member
    /// until its absence is due.
    fn remove(&mut self, id: ClientId, reason: CloseReason, now: Now) {
        let Some(key) = self.clients.remove(&id) else {
            // It may be waiting to come back.
            self.returning.leave(id, reason);
            return;
        };
        if reason == CloseReason::ClientClosed || self.config.leave_grace.is_zero() {
            self.room(&key).leave(id, reason, now.ts);
            return self.after_leave(&key);
        }
        self.absence_last += 1;
        let number = self.absence_last;
        let name = self.room(&key).disconnect(id, reason, number);
        let at = now.at + self.config.leave_grace;
        self.absences.insert(number, AbsenceDue { room: key, key: name, at });
        if self.absences.len() > ABSENCES_MAX
            && let Some((number, absence)) = self.absences.pop_first()
        {
            self.end_absence(number, &absence, now);
        }
    }

    /// Lets an absent member leave for good.
    fn end_absence(&mut self, number: u64, absence: &AbsenceDue, now: Now) {
        self.room(&absence.room).end_absence(&absence.key, number, now.ts);
        self.after_leave(&absence.room);
    }

    /// Notes that a member has left this room, perhaps the last one.
    fn after_leave(&mut self, key: &Arc<str>) {
        let entry = self.rooms.get_mut(key).expect("a room exists as long as its members");
        if entry.room.is_empty() {
            self.lives += 1;
            entry.empty_since = Some(self.lives);
            self.empty.insert(self.lives, key.clone());
        }
        mark_dirty(&mut self.dirty, key, entry);
    }

    /// Returns the key of the room called `name`, and creates the room if need be. For that, the
    /// room that has been empty longest gives way, or else one whose members are all absent. `None`
    /// if all rooms are in use.
    fn find_or_create(&mut self, name: &str, now: Now) -> Option<Arc<str>> {
        if let Some((key, _)) = self.rooms.get_key_value(name) {
            return Some(key.clone());
        }
        if self.rooms.len() >= self.config.max_rooms {
            if self.empty.is_empty() {
                self.give_up_deserted(now);
            }
            let (_, oldest) = self.empty.pop_first()?;
            let removed = self.rooms.remove(&oldest);
            self.history_bytes -= removed.map_or(0, |entry| entry.room.history().bytes());
        }
        self.lives += 1;
        let key: Arc<str> = name.into();
        let epoch = format!("{:016x}-{}", self.run_id, self.lives);
        let room = Room::new(key.clone(), epoch, self.sweeps.clone());
        // It is empty until its first member has joined.
        let empty_since = Some(self.lives);
        self.empty.insert(self.lives, key.clone());
        let entry = RoomEntry { room, empty_since, dirty: false, notices_due: false };
        self.rooms.insert(key.clone(), entry);
        Some(key)
    }

    /// Drops a room whose members are all disconnected, the longest disconnected first. Otherwise
    /// whoever opens rooms and disconnects at once would keep others out of new ones.
    fn give_up_deserted(&mut self, now: Now) {
        let is_deserted =
            |key: &Arc<str>| self.rooms.get(key).is_some_and(|entry| entry.room.is_deserted());
        let rooms = self.absences.values().map(|absence| &absence.room);
        let Some(key) = rooms.into_iter().find(|key| is_deserted(key)).cloned() else { return };
        let absences: Vec<(u64, AbsenceDue)> =
            self.absences.extract_if(.., |_, absence| absence.room == key).collect();
        for (number, absence) in absences {
            self.end_absence(number, &absence, now);
        }
    }

    fn room(&mut self, key: &Arc<str>) -> &mut Room {
        &mut self.rooms.get_mut(key).expect("a room exists as long as its members").room
    }

    /// Lets a client that is still connected act on its room.
    fn with_room(&mut self, id: ClientId, act: impl FnOnce(&mut Room)) {
        let Some(key) = self.clients.get(&id) else { return };
        let entry = self.rooms.get_mut(key).expect("a room exists as long as its members");
        act(&mut entry.room);
        mark_dirty(&mut self.dirty, key, entry);
    }

    /// When the limit is passed, trims history until one part in [`HISTORY_SPARE`] of it is free.
    ///
    /// The rooms that remember most forget first, so whoever floods many rooms takes nothing from
    /// those that say little.
    fn limit_history(&mut self) {
        let bytes_max = self.config.history_bytes;
        while self.history_bytes > bytes_max {
            let mut rooms: Vec<&mut Room> =
                self.rooms.values_mut().map(|entry| &mut entry.room).collect();
            rooms.sort_unstable_by_key(|room| Reverse(room.history().bytes()));
            for room in rooms {
                let before = room.history().bytes();
                room.forget_older_half();
                self.history_bytes -= before - room.history().bytes();
                // With nothing to spare, the next message would sort all rooms again.
                if self.history_bytes <= bytes_max - bytes_max / HISTORY_SPARE {
                    break;
                }
            }
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
        for entry in self.rooms.values_mut() {
            entry.room.close(CloseReason::ServerShutdown);
        }
        self.returning.close(CloseReason::ServerShutdown);
        self.clients.clear();
        self.absences.clear();
        self.dirty.clear();
    }
}

/// Notes that a room has something to flush.
fn mark_dirty(dirty: &mut Vec<Arc<str>>, key: &Arc<str>, entry: &mut RoomEntry) {
    if !std::mem::replace(&mut entry.dirty, true) {
        dirty.push(key.clone());
    }
}

/// Returns a guest name that is free in the room. There are more guest names than clients.
fn free_guest_name(room: &Room, start: u32) -> Name {
    (start..=u32::MAX)
        .chain(0..start)
        .map(Name::guest)
        .find(|name| room.occupant(name).is_none())
        .expect("fewer members than guest names")
}
