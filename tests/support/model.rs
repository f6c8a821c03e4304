//! The chat as the protocol tells it, without turns, queues or threads: each event adds to what
//! each connection must hear.

use std::collections::{BTreeMap, HashMap};

use parlour::protocol::close::CloseReason;
use parlour::protocol::fold::{fold, skeleton};
use serde_json::{Value, json};

/// Private messages that wait for an absent member.
const KEPT_MAX: usize = 32;
/// And their bytes; the model does not count them to the last, and its messages are short, or a
/// good part of this.
const KEPT_BYTES_MAX: usize = 16 * 1024;

/// A connection's number.
pub type Id = usize;
/// A session, by its number.
pub type Secret = u64;

/// What somebody who joins asks for.
#[derive(Clone, Debug)]
pub struct Asks {
    pub name: String,
    pub room: String,
    /// The secret to be given to a newcomer.
    pub fresh: Secret,
    pub claim: Option<Secret>,
    /// The life of the room and the last number seen in it.
    pub resume: Option<(u64, u64)>,
}

/// What one connection must hear, and whether it lives.
#[derive(Debug, Default)]
pub struct Ear {
    /// Every message, in order; `epoch` is the number of the room's life.
    pub due: Vec<Value>,
    pub closed: Option<CloseReason>,
    room: Option<String>,
    key: String,
}

/// Where a member is.
enum Place {
    Here(Id),
    Away { number: u64, due: u64, kept: Vec<Kept> },
}

struct Member {
    name: String,
    secret: Secret,
    place: Place,
}

struct Kept {
    message: Value,
    after: u64,
    sender: Option<Sender>,
}

/// Who sent a message that waits.
struct Sender {
    key: String,
    secret: Secret,
    reference: Option<String>,
    /// Number of the message, if it has a `ref`.
    number: u64,
}

/// What a `ref` stands for: a message's kind (whom it is for, if private), content and number.
#[derive(Clone, PartialEq)]
struct Known {
    to: Option<String>,
    content: String,
    number: u64,
}

struct Room {
    life: u64,
    /// All public messages of this life, with key and secret of their authors.
    said: Vec<(Value, String, Secret)>,
    /// Key and secret of the authors of all private messages with a `ref`.
    whispered: Vec<(String, Secret)>,
    known: HashMap<(Secret, String), Known>,
    members: BTreeMap<String, Member>,
    empty_since: Option<u64>,
}

/// The whole chat.
pub struct Model {
    pub history: usize,
    pub grace: u64,
    pub rooms_max: usize,
    /// Milliseconds since the beginning, also the time on the messages.
    pub now: u64,
    pub ears: Vec<Ear>,
    rooms: BTreeMap<String, Room>,
    lives: u64,
    absences: u64,
    stopped: bool,
}

impl Room {
    fn seq(&self) -> u64 {
        self.said.len() as u64
    }

    /// Key of the member that has this name, or one that looks like it.
    fn occupant(&self, name: &str) -> Option<String> {
        let key = fold(name);
        let alike = |(_, member): &(_, &Member)| skeleton(&member.name) == skeleton(name);
        match self.members.contains_key(&key) {
            true => Some(key),
            false => self.members.iter().find(alike).map(|(key, _)| key.clone()),
        }
    }

    fn remembers(&self, key: &str, secret: Secret, history: usize) -> bool {
        let said =
            self.said.iter().rev().take(history).any(|(_, by, its)| by == key && *its == secret);
        said || self
            .whispered
            .iter()
            .rev()
            .take(history)
            .any(|(by, its)| by == key && *its == secret)
    }

    /// What `receipt` stands for, if that is recent enough.
    fn known(&self, secret: Secret, reference: &Option<String>, history: usize) -> Option<&Known> {
        let known = self.known.get(&(secret, reference.clone()?))?;
        let newest = if known.to.is_some() { self.whispered.len() as u64 } else { self.seq() };
        (known.number + history as u64 > newest).then_some(known)
    }
}

impl Model {
    pub fn new(history: usize, grace: u64, rooms_max: usize) -> Model {
        let rooms = BTreeMap::new();
        Model {
            history,
            grace,
            rooms_max,
            now: 0,
            ears: Vec::new(),
            rooms,
            lives: 0,
            absences: 0,
            stopped: false,
        }
    }

    /// A new connection.
    pub fn join(&mut self, asks: &Asks) {
        let id = self.ears.len();
        self.ears.push(Ear::default());
        if self.stopped {
            self.ears[id].closed = Some(CloseReason::ServerShutdown);
            return;
        }
        if !self.make_room(&asks.room) {
            return self.refuse(id, CloseReason::RoomLimit);
        }
        let history = self.history;
        let room = self.rooms.get_mut(&asks.room).unwrap();
        let key = fold(&asks.name);
        let occupant = room.occupant(&asks.name);
        let own = occupant
            .as_ref()
            .is_some_and(|occupant| Some(room.members[occupant].secret) == asks.claim);
        let key = match occupant {
            Some(_) if !own => return self.refuse(id, CloseReason::NameTaken),
            Some(occupant) => occupant,
            None => key,
        };
        room.empty_since = None;
        let mut kept = Vec::new();
        if own {
            match std::mem::replace(&mut room.members.get_mut(&key).unwrap().place, Place::Here(id))
            {
                Place::Here(old) => {
                    self.ears[old].room = None;
                    self.ears[old].closed = Some(CloseReason::Replaced);
                }
                Place::Away { kept: its, .. } => kept = its,
            }
        } else {
            let secret = asks
                .claim
                .filter(|&claim| room.remembers(&key, claim, history))
                .unwrap_or(asks.fresh);
            room.members.insert(
                key.clone(),
                Member { name: asks.name.clone(), secret, place: Place::Here(id) },
            );
        }
        let member = &room.members[&key];
        let missed = asks
            .resume
            .and_then(|(life, since)| room.seq().checked_sub(since).filter(|_| life == room.life));
        let missed = missed.filter(|&missed| missed <= history as u64);
        let following = missed.unwrap_or(room.seq().min(history as u64));
        let mut users: Vec<&str> = room.members.values().map(|member| &*member.name).collect();
        users.sort_unstable();
        let ear = &mut self.ears[id];
        (ear.room, ear.key) = (Some(asks.room.clone()), key);
        ear.due.push(json!({
            "type": "welcome", "user": member.name, "room": asks.room, "users": users, "epoch": room.life, "seq": room.seq(),
            "history": following, "recovered": missed.is_some(), "session": hex(member.secret), "ts": self.now,
        }));
        let mut kept = kept.into_iter().peekable();
        for (message, _, _) in &room.said[room.said.len() - following as usize..] {
            while let Some(kept) =
                kept.next_if(|kept| kept.after < message["seq"].as_u64().unwrap())
            {
                ear.due.push(kept.message);
            }
            ear.due.push(message.clone());
        }
        ear.due.extend(kept.map(|kept| kept.message));
        if !own {
            let content = format!("{} joined", asks.name);
            let notice = json!({"type": "join", "user": asks.name, "content": content, "room": asks.room, "ts": self.now});
            self.tell_all(&asks.room, &notice);
        }
    }

    fn refuse(&mut self, id: Id, reason: CloseReason) {
        self.ears[id].closed = Some(reason);
        // Its time is its own.
        self.ears[id].due.push(json!({"type": "error", "code": reason.name()}));
    }

    /// Whether there is such a room now.
    fn make_room(&mut self, name: &str) -> bool {
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
            said: Vec::new(),
            whispered: Vec::new(),
            known: HashMap::new(),
            members: BTreeMap::new(),
            empty_since: Some(self.lives),
        };
        self.rooms.insert(name.to_owned(), room);
        true
    }

    pub fn say(&mut self, id: Id, content: &str, reference: &Option<String>) {
        let Some(name) = self.ears[id].room.clone() else { return };
        let key = self.ears[id].key.clone();
        let room = self.rooms.get_mut(&name).unwrap();
        let member = &room.members[&key];
        let secret = member.secret;
        if let Some(known) = room.known(secret, reference, self.history)
            && known.to.is_none()
            && known.content == content
        {
            let again = room.said[known.number as usize - 1].0.clone();
            return self.ears[id].due.push(again);
        }
        let number = room.seq() + 1;
        let mut message = json!({
            "type": "public", "user": member.name, "content": content, "room": name, "seq": number, "ts": self.now,
        });
        note(&mut message, reference);
        if let Some(reference) = reference {
            let known = Known { to: None, content: content.to_owned(), number };
            room.known.insert((secret, reference.clone()), known);
        }
        room.said.push((message.clone(), key, secret));
        self.tell_all(&name, &message);
    }

    pub fn whisper(&mut self, id: Id, to: &str, content: &str, reference: &Option<String>) {
        let Some(name) = self.ears[id].room.clone() else { return };
        let key = self.ears[id].key.clone();
        let room = self.rooms.get_mut(&name).unwrap();
        let (sender, secret) = (room.members[&key].name.clone(), room.members[&key].secret);
        let target = fold(to);
        let known = Known { to: Some(target.clone()), content: content.to_owned(), number: 0 };
        let arrived = room
            .known(secret, reference, self.history)
            .is_some_and(|it| Known { number: 0, ..it.clone() } == known);
        let mut error = json!({"type": "error", "code": "no_such_user", "ts": self.now});
        note(&mut error, reference);
        let member = room.members.get_mut(&target);
        let Some(shown) =
            member.as_ref().map(|member| member.name.clone()).or(arrived.then(|| to.to_owned()))
        else {
            return self.ears[id].due.push(error);
        };
        let mut message = json!({
            "type": "private", "user": sender, "to": shown, "content": content, "room": name, "ts": self.now,
        });
        note(&mut message, reference);
        let (seq, after) = (room.whispered.len() as u64 + 1, room.said.len() as u64);
        match member.map(|member| &mut member.place) {
            _ if arrived => return self.ears[id].due.push(message),
            Some(Place::Away { kept, .. }) => {
                let sender = Some(Sender {
                    key: key.clone(),
                    secret,
                    reference: reference.clone(),
                    number: seq,
                });
                if !keep(kept, Kept { message: message.clone(), after, sender }) {
                    return self.ears[id].due.push(error);
                }
            }
            Some(Place::Here(other)) if *other != id => self.ears[*other].due.push(message.clone()),
            _ => {}
        }
        self.ears[id].due.push(message);
        if let Some(reference) = reference {
            room.whispered.push((key, secret));
            room.known.insert((secret, reference.clone()), Known { number: seq, ..known });
        }
    }

    pub fn complain(&mut self, id: Id, reference: &Option<String>) {
        if self.ears[id].room.is_some() {
            let mut error = json!({"type": "error", "code": "bad_json", "ts": self.now});
            note(&mut error, reference);
            self.ears[id].due.push(error);
        }
    }

    /// The connection has ended.
    pub fn end(&mut self, id: Id, reason: CloseReason) {
        let Some(name) = self.ears[id].room.take() else { return };
        self.ears[id].closed = Some(reason);
        let key = self.ears[id].key.clone();
        let members = &mut self.rooms.get_mut(&name).unwrap().members;
        if reason == CloseReason::ClientClosed || self.grace == 0 {
            let member = members.remove(&key).unwrap();
            let notice = self.leave_notice(&name, &member.name);
            self.tell_all(&name, &notice);
            self.note_empty(&name);
        } else {
            self.absences += 1;
            let place =
                Place::Away { number: self.absences, due: self.now + self.grace, kept: Vec::new() };
            members.get_mut(&key).unwrap().place = place;
        }
    }

    /// The queues of these were full at the end of a turn. Who of them goes first is open, and so
    /// is whether one that is told at once hears of another before it goes itself.
    pub fn evict(&mut self, ids: &[Id]) {
        let gone: Vec<_> = ids
            .iter()
            .map(|&id| (id, self.ears[id].due.len(), self.ears[id].room.clone()))
            .collect();
        let mut leaves = Vec::new();
        for (id, _, room) in &gone {
            let room = room.as_ref().expect("a connection that lives is in a room");
            leaves.push((
                *id,
                self.leave_notice(room, &self.rooms[room].members[&self.ears[*id].key].name),
            ));
            self.end(*id, CloseReason::TooSlow);
        }
        if self.grace > 0 {
            return;
        }
        for (id, heard, room) in gone {
            let others = leaves
                .iter()
                .filter(|(other, leave)| *other != id && room.as_deref() == leave["room"].as_str());
            self.ears[id].due.truncate(heard);
            self.ears[id].due.extend(others.map(|(_, leave)| leave.clone()));
        }
    }

    fn leave_notice(&self, room: &str, user: &str) -> Value {
        let content = format!("{user} left");
        json!({"type": "leave", "user": user, "content": content, "room": room, "ts": self.now})
    }

    /// Time passes.
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
        self.tell_all(name, &notice);
        let Place::Away { kept, .. } = member.place else { unreachable!() };
        for sender in kept.into_iter().filter_map(|kept| kept.sender) {
            self.not_delivered(name, &sender);
        }
        self.note_empty(name);
    }

    /// Empties the room of those of which all members are absent whose first absence is oldest.
    fn give_up_deserted(&mut self) {
        let mut deserted = Vec::new();
        for (name, room) in &self.rooms {
            let absences = room.members.iter().map(|(key, member)| match member.place {
                Place::Away { number, .. } => Some((number, key.clone())),
                Place::Here(_) => None,
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
        let overdue = all.filter_map(|(name, (key, member))| match member.place {
            Place::Away { number, due, .. } if due <= self.now => {
                Some((number, name.clone(), key.clone()))
            }
            _ => None,
        });
        overdue.min()
    }

    fn not_delivered(
        &mut self,
        name: &str,
        Sender { key: by, secret, reference, number }: &Sender,
    ) {
        let room = self.rooms.get_mut(name).unwrap();
        if let Some(reference) = reference {
            let known = (*secret, reference.clone());
            // By now its `ref` may stand for another message.
            if room
                .known
                .get(&known)
                .is_some_and(|known| known.to.is_some() && known.number == *number)
            {
                room.known.remove(&known);
            }
        }
        let mut message = json!({"type": "error", "code": "no_such_user", "ts": self.now});
        note(&mut message, reference);
        let after = room.seq();
        match room
            .members
            .get_mut(by)
            .filter(|member| member.secret == *secret)
            .map(|member| &mut member.place)
        {
            Some(Place::Here(id)) => self.ears[*id].due.push(message),
            Some(Place::Away { kept, .. }) => {
                keep(kept, Kept { message, after, sender: None });
            }
            None => {}
        }
    }

    pub fn stop(&mut self) {
        self.stopped = true;
        for ear in self.ears.iter_mut().filter(|ear| ear.room.is_some()) {
            ear.room = None;
            ear.closed = Some(CloseReason::ServerShutdown);
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

    fn tell_all(&mut self, room: &str, message: &Value) {
        for member in self.rooms[room].members.values() {
            if let Place::Here(id) = member.place {
                self.ears[id].due.push(message.clone());
            }
        }
    }
}

/// Keeps a message for one who is away, if there is room.
fn keep(kept: &mut Vec<Kept>, message: Kept) -> bool {
    let bytes: usize =
        kept.iter().chain([&message]).map(|kept| kept.message.to_string().len()).sum();
    let fits = kept.is_empty() || kept.len() < KEPT_MAX && bytes <= KEPT_BYTES_MAX;
    if fits {
        kept.push(message);
    }
    fits
}

/// A secret as the wire shows it.
pub fn hex(secret: Secret) -> String {
    format!("{secret:032x}")
}

fn note(message: &mut Value, reference: &Option<String>) {
    if let Some(reference) = reference {
        message["ref"] = json!(reference);
    }
}
