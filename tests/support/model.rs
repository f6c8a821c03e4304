//! A model of the chat as the protocol describes it, without turns, queues or threads: each event
//! adds to what each connection must receive.

use std::collections::{BTreeMap, HashMap};

use parlour::protocol::close::CloseReason;
use parlour::protocol::fold::{fold, skeleton};
use serde_json::{Value, json};

/// Maximum number of private messages that wait for an absent member.
const KEPT_MAX: usize = 32;
/// Maximum of their bytes. The model does not count as exactly as the hub: its messages are either
/// short, or a good part of this.
const KEPT_BYTES_MAX: usize = 16 * 1024;

/// A connection's number.
pub type Id = usize;
/// A session, as a number.
pub type Secret = u64;

/// What a connection asks for when it joins.
#[derive(Clone, Debug)]
pub struct Join {
    pub name: String,
    pub room: String,
    /// The session it gets, unless it continues an earlier one.
    pub fresh: Secret,
    pub claim: Option<Secret>,
    /// The life of the room, and the last number received in it.
    pub resume: Option<(u64, u64)>,
}

/// What one connection must receive, and how it ends.
#[derive(Debug, Default)]
pub struct Expected {
    /// Every message, in order. `epoch` is the number of the room's life.
    pub messages: Vec<Value>,
    pub closed: Option<CloseReason>,
    room: Option<String>,
    key: String,
}

/// Where a member is.
enum Seat {
    Connected(Id),
    Absent { number: u64, due: u64, kept: Vec<KeptMessage> },
}

struct Member {
    name: String,
    secret: Secret,
    seat: Seat,
}

/// A private message that waits for an absent member.
struct KeptMessage {
    message: Value,
    /// The number of the last public message before it.
    after: u64,
    /// Whom to notify if it can't be delivered; `None` if it is itself such a notice.
    sender: Option<Sender>,
}

/// Who sent a private message that waits.
struct Sender {
    author: Author,
    reference: Option<String>,
    /// Number of the message among those with a `ref`.
    number: u64,
}

/// Who wrote a message: the name with case folded, and the session.
#[derive(Clone, PartialEq)]
struct Author {
    key: String,
    secret: Secret,
}

/// What a `ref` stands for.
#[derive(Clone, PartialEq)]
struct Known {
    /// The recipient of a private message.
    to: Option<String>,
    content: String,
    number: u64,
}

struct Room {
    /// The number of this life of the room.
    life: u64,
    /// All public messages of this life.
    public: Vec<(Value, Author)>,
    /// The authors of all private messages with a `ref`.
    private: Vec<Author>,
    known: HashMap<(Secret, String), Known>,
    members: BTreeMap<String, Member>,
    empty_since: Option<u64>,
}

/// The whole chat.
pub struct Model {
    pub history: usize,
    pub grace: u64,
    pub rooms_max: usize,
    /// Milliseconds since the beginning, which is also the time in the messages.
    pub now: u64,
    /// By the connections' numbers.
    pub expected: Vec<Expected>,
    rooms: BTreeMap<String, Room>,
    lives: u64,
    absences: u64,
    stopped: bool,
}

impl Room {
    fn seq(&self) -> u64 {
        self.public.len() as u64
    }

    /// Returns the key of the member that has this name, or else of one whose name looks like it.
    fn occupant(&self, name: &str) -> Option<String> {
        let key = fold(name);
        if self.members.contains_key(&key) {
            return Some(key);
        }
        let is_alike = |(_, member): &(_, &Member)| skeleton(&member.name) == skeleton(name);
        self.members.iter().find(is_alike).map(|(key, _)| key.clone())
    }

    /// True if the room remembers a message of this author.
    fn has_author(&self, author: &Author, history: usize) -> bool {
        let mut public = self.public.iter().rev().take(history).map(|(_, author)| author);
        let mut private = self.private.iter().rev().take(history);
        public.any(|other| other == author) || private.any(|other| other == author)
    }

    /// Returns what `reference` stands for, if the room still remembers it.
    fn known(&self, secret: Secret, reference: &Option<String>, history: usize) -> Option<&Known> {
        let known = self.known.get(&(secret, reference.clone()?))?;
        let newest = if known.to.is_some() { self.private.len() as u64 } else { self.seq() };
        (known.number + history as u64 > newest).then_some(known)
    }

    /// Returns how many messages `resume` has missed, if the room remembers them all.
    fn missed(&self, resume: Option<(u64, u64)>, history: usize) -> Option<u64> {
        let (life, since) = resume?;
        let missed = self.seq().checked_sub(since)?;
        (life == self.life && missed <= history as u64).then_some(missed)
    }
}

impl Model {
    pub fn new(history: usize, grace: u64, rooms_max: usize) -> Model {
        Model {
            history,
            grace,
            rooms_max,
            now: 0,
            expected: Vec::new(),
            rooms: BTreeMap::new(),
            lives: 0,
            absences: 0,
            stopped: false,
        }
    }

    /// Adds a connection.
    pub fn join(&mut self, join: &Join) {
        let id = self.expected.len();
        self.expected.push(Expected::default());
        if self.stopped {
            self.expected[id].closed = Some(CloseReason::ServerShutdown);
            return;
        }
        if !self.find_or_create(&join.room) {
            return self.refuse(id, CloseReason::RoomLimit);
        }
        let room = self.rooms.get_mut(&join.room).unwrap();
        let occupant = room.occupant(&join.name);
        let is_own = |occupant: &String| Some(room.members[occupant].secret) == join.claim;
        let own = occupant.as_ref().is_some_and(is_own);
        if !own && occupant.is_some() {
            return self.refuse(id, CloseReason::NameTaken);
        }
        let key = occupant.unwrap_or_else(|| fold(&join.name));
        room.empty_since = None;
        let mut kept = Vec::new();
        if own {
            let seat = &mut room.members.get_mut(&key).unwrap().seat;
            match std::mem::replace(seat, Seat::Connected(id)) {
                Seat::Connected(old) => {
                    self.expected[old].room = None;
                    self.expected[old].closed = Some(CloseReason::Replaced);
                }
                Seat::Absent { kept: messages, .. } => kept = messages,
            }
        } else {
            let is_author = |&secret: &Secret| {
                room.has_author(&Author { key: key.clone(), secret }, self.history)
            };
            let secret = join.claim.filter(is_author).unwrap_or(join.fresh);
            let member = Member { name: join.name.clone(), secret, seat: Seat::Connected(id) };
            room.members.insert(key.clone(), member);
        }
        self.greet(id, join, key, kept);
        if !own {
            let (user, room) = (&join.name, &join.room);
            let content = format!("{user} joined");
            let notice = json!({
                "type": "join", "user": user, "content": content, "room": room, "ts": self.now,
            });
            self.send_to_all(room, &notice);
        }
    }

    /// Sends the welcome and what follows it: public messages, with the kept ones in their places.
    fn greet(&mut self, id: Id, join: &Join, key: String, kept: Vec<KeptMessage>) {
        let room = &self.rooms[&join.room];
        let member = &room.members[&key];
        let missed = room.missed(join.resume, self.history);
        let following = missed.unwrap_or(room.seq().min(self.history as u64));
        let mut users: Vec<&str> = room.members.values().map(|member| &*member.name).collect();
        users.sort_unstable();
        let expected = &mut self.expected[id];
        (expected.room, expected.key) = (Some(join.room.clone()), key);
        expected.messages.push(json!({
            "type": "welcome", "user": member.name, "room": join.room, "users": users,
            "epoch": room.life, "seq": room.seq(), "history": following,
            "recovered": missed.is_some(), "session": hex(member.secret), "ts": self.now,
        }));
        let mut kept = kept.into_iter().peekable();
        for (message, _) in &room.public[room.public.len() - following as usize..] {
            let seq = message["seq"].as_u64().unwrap();
            while let Some(kept) = kept.next_if(|kept| kept.after < seq) {
                expected.messages.push(kept.message);
            }
            expected.messages.push(message.clone());
        }
        expected.messages.extend(kept.map(|kept| kept.message));
    }

    fn refuse(&mut self, id: Id, reason: CloseReason) {
        self.expected[id].closed = Some(reason);
        // A refusal has a time of its own, which the model does not know.
        self.expected[id].messages.push(json!({"type": "error", "code": reason.name()}));
    }

    /// Creates the room if need be. False if there can't be another room.
    fn find_or_create(&mut self, name: &str) -> bool {
        if self.rooms.contains_key(name) {
            return true;
        }
        if self.rooms.len() >= self.rooms_max {
            if self.rooms.values().all(|room| room.empty_since.is_none()) {
                self.give_up_deserted();
            }
            let empty = self
                .rooms
                .iter()
                .filter_map(|(name, room)| Some((room.empty_since?, name.clone())))
                .min();
            let Some((_, oldest)) = empty else { return false };
            self.rooms.remove(&oldest);
        }
        self.lives += 1;
        let room = Room {
            life: self.lives,
            public: Vec::new(),
            private: Vec::new(),
            known: HashMap::new(),
            members: BTreeMap::new(),
            empty_since: Some(self.lives),
        };
        self.rooms.insert(name.to_owned(), room);
        true
    }

    pub fn publish(&mut self, id: Id, content: &str, reference: &Option<String>) {
        let Some(name) = self.expected[id].room.clone() else { return };
        let key = self.expected[id].key.clone();
        let room = self.rooms.get_mut(&name).unwrap();
        let member = &room.members[&key];
        let secret = member.secret;
        if let Some(known) = room.known(secret, reference, self.history)
            && known.to.is_none()
            && known.content == content
        {
            let again = room.public[known.number as usize - 1].0.clone();
            return self.expected[id].messages.push(again);
        }
        let number = room.seq() + 1;
        let mut message = json!({
            "type": "public", "user": member.name, "content": content, "room": name,
            "seq": number, "ts": self.now,
        });
        add_reference(&mut message, reference);
        if let Some(reference) = reference {
            let known = Known { to: None, content: content.to_owned(), number };
            room.known.insert((secret, reference.clone()), known);
        }
        room.public.push((message.clone(), Author { key, secret }));
        self.send_to_all(&name, &message);
    }

    pub fn whisper(&mut self, id: Id, to: &str, content: &str, reference: &Option<String>) {
        let Some(name) = self.expected[id].room.clone() else { return };
        let key = self.expected[id].key.clone();
        let room = self.rooms.get_mut(&name).unwrap();
        let (user, secret) = (room.members[&key].name.clone(), room.members[&key].secret);
        let author = Author { key, secret };
        let target = fold(to);
        let known = Known { to: Some(target.clone()), content: content.to_owned(), number: 0 };
        let arrived = room
            .known(secret, reference, self.history)
            .is_some_and(|it| Known { number: 0, ..it.clone() } == known);
        let error = no_such_user(reference, self.now);
        let member = room.members.get_mut(&target);
        let Some(shown) =
            member.as_ref().map(|member| member.name.clone()).or(arrived.then(|| to.to_owned()))
        else {
            return self.expected[id].messages.push(error);
        };
        let mut message = json!({
            "type": "private", "user": user, "to": shown, "content": content, "room": name,
            "ts": self.now,
        });
        add_reference(&mut message, reference);
        let (number, after) = (room.private.len() as u64 + 1, room.public.len() as u64);
        match member.map(|member| &mut member.seat) {
            _ if arrived => return self.expected[id].messages.push(message),
            Some(Seat::Absent { kept, .. }) => {
                let reference = reference.clone();
                let sender = Some(Sender { author: author.clone(), reference, number });
                if !keep(kept, KeptMessage { message: message.clone(), after, sender }) {
                    return self.expected[id].messages.push(error);
                }
            }
            Some(Seat::Connected(other)) if *other != id => {
                self.expected[*other].messages.push(message.clone());
            }
            _ => {}
        }
        self.expected[id].messages.push(message);
        if let Some(reference) = reference {
            room.private.push(author);
            room.known.insert((secret, reference.clone()), Known { number, ..known });
        }
    }

    /// Replies to something that is not JSON.
    pub fn reply_error(&mut self, id: Id, reference: &Option<String>) {
        if self.expected[id].room.is_some() {
            let mut error = json!({"type": "error", "code": "bad_json", "ts": self.now});
            add_reference(&mut error, reference);
            self.expected[id].messages.push(error);
        }
    }

    /// Ends a connection. Its member leaves, or is absent for the grace.
    pub fn end(&mut self, id: Id, reason: CloseReason) {
        let Some(name) = self.expected[id].room.take() else { return };
        self.expected[id].closed = Some(reason);
        let key = self.expected[id].key.clone();
        let members = &mut self.rooms.get_mut(&name).unwrap().members;
        if reason == CloseReason::ClientClosed || self.grace == 0 {
            let member = members.remove(&key).unwrap();
            let notice = self.leave_notice(&name, &member.name);
            self.send_to_all(&name, &notice);
            self.note_empty(&name);
        } else {
            self.absences += 1;
            let due = self.now + self.grace;
            let seat = Seat::Absent { number: self.absences, due, kept: Vec::new() };
            members.get_mut(&key).unwrap().seat = seat;
        }
    }

    /// Drops the connections whose queues were full at the end of a turn.
    ///
    /// The model does not know which of them goes first. So each may still receive the leave notice
    /// of any other.
    pub fn evict(&mut self, ids: &[Id]) {
        let gone: Vec<_> = ids
            .iter()
            .map(|&id| (id, self.expected[id].messages.len(), self.expected[id].room.clone()))
            .collect();
        let mut leaves = Vec::new();
        for (id, _, room) in &gone {
            let room = room.as_ref().expect("a connection that lives is in a room");
            let member = &self.rooms[room].members[&self.expected[*id].key];
            leaves.push((*id, self.leave_notice(room, &member.name)));
            self.end(*id, CloseReason::TooSlow);
        }
        if self.grace > 0 {
            return;
        }
        for (id, before, room) in gone {
            let others = leaves
                .iter()
                .filter(|(other, leave)| *other != id && room.as_deref() == leave["room"].as_str());
            self.expected[id].messages.truncate(before);
            self.expected[id].messages.extend(others.map(|(_, leave)| leave.clone()));
        }
    }

    fn leave_notice(&self, room: &str, user: &str) -> Value {
        let content = format!("{user} left");
        json!({"type": "leave", "user": user, "content": content, "room": room, "ts": self.now})
    }

    /// Lets time pass.
    pub fn wait(&mut self, time: u64) {
        self.now += time;
        while let Some((_, name, key)) = self.first_overdue() {
            self.end_absence(&name, &key);
        }
    }

    fn end_absence(&mut self, name: &str, key: &str) {
        let room = self.rooms.get_mut(name).unwrap();
        let member = room.members.remove(key).unwrap();
        let notice = self.leave_notice(name, &member.name);
        self.send_to_all(name, &notice);
        let Seat::Absent { kept, .. } = member.seat else { unreachable!() };
        for sender in kept.into_iter().filter_map(|kept| kept.sender) {
            self.notify_undelivered(name, &sender);
        }
        self.note_empty(name);
    }

    /// Drops the members of a room in which all are absent. Of several such rooms, takes the one
    /// with the oldest absence.
    fn give_up_deserted(&mut self) {
        let mut deserted = Vec::new();
        for (name, room) in &self.rooms {
            let absences = room.members.iter().map(|(key, member)| match member.seat {
                Seat::Absent { number, .. } => Some((number, key.clone())),
                Seat::Connected(_) => None,
            });
            let Some(mut absences) =
                absences.collect::<Option<Vec<_>>>().filter(|all| !all.is_empty())
            else {
                continue;
            };
            absences.sort_unstable();
            deserted.push((absences, name.clone()));
        }
        if let Some((absences, name)) = deserted.into_iter().min() {
            absences.iter().for_each(|(_, key)| self.end_absence(&name, key));
        }
    }

    fn first_overdue(&self) -> Option<(u64, String, String)> {
        let all = self
            .rooms
            .iter()
            .flat_map(|(name, room)| room.members.iter().map(move |member| (name, member)));
        let overdue = all.filter_map(|(name, (key, member))| match member.seat {
            Seat::Absent { number, due, .. } if due <= self.now => {
                Some((number, name.clone(), key.clone()))
            }
            _ => None,
        });
        overdue.min()
    }

    fn notify_undelivered(&mut self, name: &str, sender: &Sender) {
        let Sender { author, reference, number } = sender;
        let room = self.rooms.get_mut(name).unwrap();
        if let Some(reference) = reference {
            let known = (author.secret, reference.clone());
            // By now, its `ref` may stand for another message.
            if room
                .known
                .get(&known)
                .is_some_and(|known| known.to.is_some() && known.number == *number)
            {
                room.known.remove(&known);
            }
        }
        let message = no_such_user(reference, self.now);
        let after = room.seq();
        let member = room.members.get_mut(&author.key);
        match member.filter(|member| member.secret == author.secret).map(|member| &mut member.seat)
        {
            Some(Seat::Connected(id)) => self.expected[*id].messages.push(message),
            Some(Seat::Absent { kept, .. }) => {
                keep(kept, KeptMessage { message, after, sender: None });
            }
            None => {}
        }
    }

    pub fn stop(&mut self) {
        self.stopped = true;
        for expected in self.expected.iter_mut().filter(|expected| expected.room.is_some()) {
            expected.room = None;
            expected.closed = Some(CloseReason::ServerShutdown);
        }
        self.rooms.clear();
    }

    fn note_empty(&mut self, name: &str) {
        let room = self.rooms.get_mut(name).unwrap();
        if room.members.is_empty() {
            self.lives += 1;
            room.empty_since = Some(self.lives);
        }
    }

    fn send_to_all(&mut self, room: &str, message: &Value) {
        for member in self.rooms[room].members.values() {
            if let Seat::Connected(id) = member.seat {
                self.expected[id].messages.push(message.clone());
            }
        }
    }
}

/// Keeps a message for an absent member. False if there is no space for it.
fn keep(kept: &mut Vec<KeptMessage>, message: KeptMessage) -> bool {
    let bytes: usize =
        kept.iter().chain([&message]).map(|kept| kept.message.to_string().len()).sum();
    let fits = kept.is_empty() || kept.len() < KEPT_MAX && bytes <= KEPT_BYTES_MAX;
    if fits {
        kept.push(message);
    }
    fits
}

/// Returns a secret as the wire shows it.
pub fn hex(secret: Secret) -> String {
    format!("{secret:032x}")
}

fn no_such_user(reference: &Option<String>, now: u64) -> Value {
    let mut error = json!({"type": "error", "code": "no_such_user", "ts": now});
    add_reference(&mut error, reference);
    error
}

fn add_reference(message: &mut Value, reference: &Option<String>) {
    if let Some(reference) = reference {
        message["ref"] = json!(reference);
    }
}
