//! What this client knows of its room, and which of its messages are not confirmed yet.
//!
//! There is no socket, no terminal and no clock in here. Each method takes what happened, and
//! returns what to show and what to send.
//!
//! Every message carries a reference that no other has, in its field `ref`. It is an idempotency
//! key: the server does not repeat a message whose reference it knows. So after a broken connection
//! everything unconfirmed can be sent again, unless the server may have forgotten its reference.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use crate::protocol::fold::fold;
use crate::protocol::message::Timestamp;
use crate::terminal::printable::shorten;
use crate::terminal::received::{Received, Welcome};

/// Random digits that begin each reference: another client, or this one's next run, has others.
const REFERENCE_PREFIX_DIGITS: usize = 8;
/// Names to list when this client enters. `/who` lists all.
const NAMES_LISTED_MAX: usize = 12;
/// Characters to quote of a message that was not delivered.
const QUOTED_CHARS_MAX: usize = 60;
/// Why a message that was sent is given up.
const UNCERTAIN: &str = "the server did not confirm it; it may have arrived all the same";

/// One entry of the transcript.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    /// A member's message to everyone.
    Public { user: String, content: String, ts: Timestamp },
    /// A message between this client and one other member.
    Private { user: String, to: String, content: String, ts: Timestamp },
    /// A member joined the room.
    Joined { user: String, ts: Timestamp },
    /// A member left the room.
    Left { user: String, ts: Timestamp },
    /// This client entered the room for the first time: a greeting.
    Greeting(String),
    /// Something that this program has to say.
    Note(String),
    /// The beginning of a message of this client that did not arrive, or may not have.
    Undelivered { content: String, why: String },
}

/// What follows from a message of the server.
#[derive(Debug, Default)]
pub struct Effects {
    /// Entries to show, in this order.
    pub to_show: Vec<Entry>,
    /// Messages to send, in this order.
    pub to_send: Vec<String>,
    /// True if a member joined or left.
    pub members_changed: bool,
}

/// A message that the server has not confirmed by sending it back.
struct Unconfirmed {
    reference: String,
    to: Option<String>,
    content: String,
    /// True if it may have reached the server.
    sent: bool,
}

/// A message to the server.
#[derive(Serialize)]
struct Outgoing<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'a str>,
    content: &'a str,
    #[serde(rename = "ref")]
    reference: &'a str,
}

/// What the server knows a member by when it returns.
struct Membership {
    session: String,
    epoch: String,
}

/// One member's view of a room, over any number of connections.
pub struct Conversation {
    name: Option<String>,
    room: String,
    /// From the last welcome.
    membership: Option<Membership>,
    /// The number of the newest public message that was shown.
    newest_shown: u64,
    /// Messages of the room's history that this connection still has to deliver; `None` before its
    /// welcome.
    history_left: Option<u64>,
    /// Names, by the form in which they are compared.
    members: BTreeMap<String, String>,
    /// In the order in which they were written.
    unconfirmed: VecDeque<Unconfirmed>,
    /// True if the room's history has a gap since the last time that this client was up to date:
    /// the references of its public messages may be forgotten.
    public_forgotten: bool,
    /// True if the server does not know the session any more, nor the references of private
    /// messages.
    private_forgotten: bool,
    reference_prefix: String,
    references_used: u64,
}

impl Conversation {
    /// Begins a conversation that is not connected yet. `random` makes its references its own.
    pub fn new(name: Option<String>, room: String, random: u32) -> Conversation {
        Conversation {
            name,
            room,
            membership: None,
            newest_shown: 0,
            history_left: None,
            members: BTreeMap::new(),
            unconfirmed: VecDeque::new(),
            public_forgotten: false,
            private_forgotten: false,
            reference_prefix: format!("{random:0REFERENCE_PREFIX_DIGITS$x}"),
            references_used: 0,
        }
    }

    /// Takes a message of the server, and returns what follows from it.
    pub fn receive(&mut self, message: Received) -> Effects {
        let mut effects = Effects::default();
        match message {
            Received::Welcome(welcome) => self.enter(welcome, &mut effects),
            Received::Public { user, content, seq, reference, ts } => {
                self.confirm(&user, reference.as_deref());
                if seq > self.newest_shown {
                    self.newest_shown = seq;
                    effects.to_show.push(Entry::Public { user, content, ts });
                }
                self.count_down_history(&mut effects);
            }
            Received::Private { user, to, content, reference, ts } => {
                self.confirm(&user, reference.as_deref());
                effects.to_show.push(Entry::Private { user, to, content, ts });
            }
            Received::Join { user, ts } => {
                // This client's own adds nothing to the welcome.
                if self.members.insert(fold(&user), user.clone()).is_none() {
                    effects.members_changed = true;
                    effects.to_show.push(Entry::Joined { user, ts });
                }
            }
            Received::Leave { user, ts } => {
                self.members.remove(&fold(&user));
                effects.members_changed = true;
                effects.to_show.push(Entry::Left { user, ts });
            }
            Received::Error { content, reference, .. } => {
                effects.to_show.push(self.fail(reference.as_deref(), content));
            }
            Received::Unknown => {}
        }
        effects
    }

    /// Takes a message that the user wrote, to one member or to everyone. Returns its JSON, or
    /// `None` if it has to wait until this client has received the room's history.
    pub fn post(&mut self, to: Option<String>, content: String) -> Option<String> {
        self.references_used += 1;
        let reference = format!("{}-{}", self.reference_prefix, self.references_used);
        let mut message = Unconfirmed { reference, to, content, sent: false };
        let json = self.is_up_to_date().then(|| message.send());
        self.unconfirmed.push_back(message);
        json
    }

    /// Notes that the connection has ended.
    pub fn disconnect(&mut self) {
        self.history_left = None;
    }

    /// Gives up the oldest message that was sent: the one over which the server closed the
    /// connection.
    pub fn fail_oldest(&mut self, why: &str) -> Option<Entry> {
        let index = self.unconfirmed.iter().position(|message| message.sent)?;
        self.unconfirmed.remove(index).map(|message| message.undelivered(why))
    }

    /// Returns the query of the next connection's URL.
    pub fn query(&self) -> String {
        let newest_shown = self.newest_shown.to_string();
        let mut parameters = vec![("room", self.room.as_str())];
        parameters.extend(self.name.as_deref().map(|name| ("name", name)));
        if let Some(Membership { session, epoch }) = &self.membership {
            parameters.extend([
                ("session", session.as_str()),
                ("epoch", epoch),
                ("since", &newest_shown),
            ]);
        }
        let encoded = parameters
            .iter()
            .map(|(key, value)| format!("{key}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
        encoded.collect::<Vec<_>>().join("&")
    }

    /// The name that this client has in the room; empty before the first welcome if the server is
    /// to choose it.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// True if any connection has had a welcome.
    pub fn has_joined(&self) -> bool {
        self.membership.is_some()
    }

    /// True if the current connection has had no welcome yet.
    pub fn awaits_welcome(&self) -> bool {
        self.history_left.is_none()
    }

    /// True if the room's history has been received, so that messages may be sent.
    pub fn is_up_to_date(&self) -> bool {
        self.history_left == Some(0)
    }

    /// How many messages the server has not confirmed.
    pub fn unconfirmed(&self) -> usize {
        self.unconfirmed.len()
    }

    /// How many members the room has.
    pub fn members_count(&self) -> usize {
        self.members.len()
    }

    /// The names of the members.
    pub fn members(&self) -> impl Iterator<Item = &str> {
        self.members.values().map(String::as_str)
    }

    /// Returns a sentence with the number of the members and the first `names_max` of their names.
    pub fn describe_members(&self, names_max: usize) -> String {
        let mut names: Vec<_> = self.members().take(names_max).collect();
        let omitted = self.members_count().saturating_sub(names_max);
        let omitted = (omitted > 0).then(|| format!("and {omitted} more"));
        names.extend(omitted.as_deref());
        format!("{} here: {}", self.members_count(), names.join(", "))
    }

    fn enter(&mut self, welcome: Welcome, effects: &mut Effects) {
        self.find_losses(&welcome, effects);
        let Welcome { user, room, users, epoch, history, session, .. } = welcome;
        self.members = users.into_iter().map(|name| (fold(&name), name)).collect();
        effects.members_changed = true;
        (self.name, self.room) = (Some(user), room);
        match self.membership.replace(Membership { session, epoch }) {
            Some(_) => effects.note("connected again"),
            None => effects.to_show.push(Entry::Greeting(self.greeting())),
        }
        self.history_left = Some(history);
        self.send_unconfirmed(effects);
    }

    /// Compares a welcome with the one before, to find out what the server has forgotten since.
    fn find_losses(&mut self, welcome: &Welcome, effects: &mut Effects) {
        let Some(before) = &self.membership else { return };
        // The server keeps with a session which private messages have arrived.
        self.private_forgotten |= before.session != welcome.session;
        if before.epoch != welcome.epoch {
            self.newest_shown = 0;
            effects
                .note("the room started again: its earlier messages are no longer on the server");
        } else if self.newest_shown.saturating_add(welcome.history) < welcome.seq {
            self.public_forgotten = true;
            effects.note(
                "some messages you missed are older than the room's history and can't be shown",
            );
        }
    }

    fn greeting(&self) -> String {
        let members = self.describe_members(NAMES_LISTED_MAX);
        format!("you are {} in {}; {members}; /help lists the commands", self.name(), self.room)
    }

    /// Removes the message that `user` and `reference` confirm, if it is one of this client.
    fn confirm(&mut self, user: &str, reference: Option<&str>) {
        if Some(user) == self.name.as_deref() {
            self.unconfirmed.retain(|message| Some(message.reference.as_str()) != reference);
        }
    }

    /// Returns the entry for an error of the server, about the message with `reference` if there is
    /// one.
    fn fail(&mut self, reference: Option<&str>, why: String) -> Entry {
        let is_meant = |message: &Unconfirmed| Some(message.reference.as_str()) == reference;
        let index = self.unconfirmed.iter().position(is_meant);
        match index.and_then(|index| self.unconfirmed.remove(index)) {
            Some(message) => message.undelivered(&why),
            None => Entry::Note(why),
        }
    }

    fn count_down_history(&mut self, effects: &mut Effects) {
        if let Some(left @ 1..) = self.history_left {
            self.history_left = Some(left - 1);
            self.send_unconfirmed(effects);
        }
    }

    /// Sends everything unconfirmed again, once the room's history has been received and may have
    /// confirmed some of it.
    fn send_unconfirmed(&mut self, effects: &mut Effects) {
        if self.is_up_to_date() {
            self.give_up_uncertain(effects);
            effects.to_send.extend(self.unconfirmed.iter_mut().map(Unconfirmed::send));
        }
    }

    /// Gives up messages that would appear twice if they had arrived, because the server has
    /// forgotten their references.
    fn give_up_uncertain(&mut self, effects: &mut Effects) {
        let public = mem::take(&mut self.public_forgotten);
        let private = mem::take(&mut self.private_forgotten);
        let is_uncertain = |message: &Unconfirmed| {
            message.sent && if message.to.is_some() { private } else { public }
        };
        let (uncertain, certain): (VecDeque<_>, VecDeque<_>) =
            self.unconfirmed.drain(..).partition(is_uncertain);
        self.unconfirmed = certain;
        effects.to_show.extend(uncertain.iter().map(|message| message.undelivered(UNCERTAIN)));
    }
}

impl Unconfirmed {
    /// Marks the message as sent, and returns its JSON.
    fn send(&mut self) -> String {
        self.sent = true;
        let kind = if self.to.is_some() { "private" } else { "public" };
        let Unconfirmed { reference, to, content, .. } = self;
        serde_json::to_string(&Outgoing { kind, to: to.as_deref(), content, reference })
            .expect("strings always serialise")
    }

    fn undelivered(&self, why: &str) -> Entry {
        let content = shorten(&self.content, QUOTED_CHARS_MAX);
        Entry::Undelivered { content, why: why.to_owned() }
    }
}

impl Effects {
    fn note(&mut self, note: &str) {
        self.to_show.push(Entry::Note(note.to_owned()));
    }
}
