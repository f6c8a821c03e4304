//! What a client knows of its room, and what it has sent without a receipt. No socket, no terminal, no clock: what happens
//! is told to it, and it tells what to show and what to send.

use std::collections::{BTreeMap, VecDeque};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::heard::Heard;
use crate::protocol::fold::fold;
use crate::protocol::message;

/// Random digits that keep one client's refs apart from another's, and from those of its last run.
const REF_PREFIX_DIGITS: usize = 8;
/// Names that are told when somebody comes in; `/who` tells all.
const NAMES_TOLD_MAX: usize = 12;
/// Characters of a message that are repeated where something became of it.
const QUOTED_CHARS_MAX: usize = 60;

/// Something to show.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// By a member, to everyone.
    Public { user: String, content: String, ts: message::Timestamp },
    /// By one member to another, one of whom is this client.
    Private { user: String, to: String, content: String, ts: message::Timestamp },
    /// Somebody came.
    Joined { user: String, ts: message::Timestamp },
    /// Somebody went.
    Left { user: String, ts: message::Timestamp },
    /// This client has come in.
    Entered(String),
    /// By this program.
    Note(String),
    /// A message of this client that was not delivered.
    Failed { content: String, why: String },
}

/// What follows from something that was heard.
#[derive(Debug, Default)]
pub struct Turn {
    /// To be shown, in this order.
    pub said: Vec<Said>,
    /// To be sent, in this order.
    pub send: Vec<String>,
    /// Somebody came or went.
    pub members_changed: bool,
}

/// A message without a receipt.
struct Pending {
    receipt: String,
    to: Option<String>,
    content: String,
    /// It may have reached the server.
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
    receipt: &'a str,
}

impl Pending {
    /// The message as JSON.
    fn transmit(&mut self) -> String {
        self.sent = true;
        let kind = if self.to.is_some() { "private" } else { "public" };
        let Pending { receipt, to, content, .. } = self;
        serde_json::to_string(&Outgoing { kind, to: to.as_deref(), content, receipt })
            .expect("strings always serialise")
    }
}

/// One member's view of a room, over any number of connections.
pub struct Conversation {
    name: Option<String>,
    room: String,
    /// From the last welcome: the secret, and the life of the room.
    joined: Option<(String, String)>,
    /// The newest public message that has been shown.
    seq: u64,
    /// Messages of the history that are still to come on this connection; `None` before its welcome.
    to_come: Option<u64>,
    /// Names, by the form in which they are compared.
    members: BTreeMap<String, String>,
    pending: VecDeque<Pending>,
    /// The room may have forgotten public messages of this client together with its history, since the last time that this
    /// was up to date.
    public_forgotten: bool,
    /// The server may have forgotten private ones together with the session.
    private_forgotten: bool,
    ref_prefix: String,
    refs: u64,
}

impl Conversation {
    /// Not begun yet. `random` makes its refs its own.
    pub fn new(name: Option<String>, room: String, random: u32) -> Conversation {
        Conversation {
            name,
            room,
            joined: None,
            seq: 0,
            to_come: None,
            members: BTreeMap::new(),
            pending: VecDeque::new(),
            public_forgotten: false,
            private_forgotten: false,
            ref_prefix: format!("{random:0REF_PREFIX_DIGITS$x}"),
            refs: 0,
        }
    }

    /// The query of the next connection.
    pub fn query(&self) -> String {
        let seq = self.seq.to_string();
        let mut parameters = vec![("room", self.room.as_str())];
        parameters.extend(self.name.as_deref().map(|name| ("name", name)));
        if let Some((session, epoch)) = &self.joined {
            parameters.extend([("session", session.as_str()), ("epoch", epoch), ("since", &seq)]);
        }
        let encoded = parameters
            .iter()
            .map(|(key, value)| format!("{key}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
        encoded.collect::<Vec<_>>().join("&")
    }

    /// The name that the server knows this client by.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// Whether there has been a welcome.
    pub fn joined(&self) -> bool {
        self.joined.is_some()
    }

    /// Whether the present connection is not in the room yet.
    pub fn pending_welcome(&self) -> bool {
        self.to_come.is_none()
    }

    /// Whether the history is in, so that messages may go out.
    pub fn caught_up(&self) -> bool {
        self.to_come == Some(0)
    }

    /// Messages without a receipt.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The names of the members.
    pub fn members(&self) -> impl Iterator<Item = &str> {
        self.members.values().map(String::as_str)
    }

    /// Who is here, in words.
    pub fn who(&self) -> String {
        self.names(usize::MAX)
    }

    /// Takes a message to be sent, to one member or to everyone. `None` if it has to wait.
    pub fn say(&mut self, to: Option<String>, content: String) -> Option<String> {
        self.refs += 1;
        let receipt = format!("{}-{}", self.ref_prefix, self.refs);
        let mut pending = Pending { receipt, to, content, sent: false };
        let text = self.caught_up().then(|| pending.transmit());
        self.pending.push_back(pending);
        text
    }

    /// The connection has ended.
    pub fn cut(&mut self) {
        self.to_come = None;
    }

    /// Gives up the oldest message that was sent: the one that the server closed the connection over.
    pub fn fail_oldest(&mut self, why: &str) -> Option<Said> {
        let at = self.pending.iter().position(|pending| pending.sent)?;
        self.pending.remove(at).map(|pending| failed(&pending, why))
    }

    /// Takes a message of the server.
    pub fn hear(&mut self, heard: Heard) -> Turn {
        let mut turn = Turn::default();
        match heard {
            Heard::Welcome { user, room, users, epoch, seq, history, session } => {
                turn.members_changed = true;
                self.members = users.into_iter().map(|name| (fold(&name), name)).collect();
                (self.name, self.room) = (Some(user), room);
                match &self.joined {
                    Some((known_session, known_epoch)) => {
                        if *known_epoch != epoch {
                            self.seq = 0;
                            turn.note("the room has started anew: what was said before is no longer on the server");
                        } else if self.seq.saturating_add(history) < seq {
                            self.public_forgotten = true;
                            turn.note("some messages are older than the room's history and can't be shown");
                        }
                        // Only a server that knows the session knows which private messages have arrived.
                        self.private_forgotten |= *known_session != session;
                        turn.note("connected again");
                    }
                    None => {
                        let names = self.names(NAMES_TOLD_MAX);
                        let Conversation { name, room, .. } = &self;
                        let name = name.as_deref().unwrap_or_default();
                        turn.said.push(Said::Entered(format!(
                            "you are {name} in {room}; {names}; /help lists the commands"
                        )));
                    }
                }
                self.joined = Some((session, epoch));
                self.to_come = Some(history);
                self.catch_up(&mut turn);
            }
            Heard::Public { user, content, seq, receipt, ts } => {
                self.settle(&user, receipt.as_deref());
                if seq > self.seq {
                    self.seq = seq;
                    turn.said.push(Said::Public { user, content, ts });
                }
                if let Some(to_come @ 1..) = self.to_come {
                    self.to_come = Some(to_come - 1);
                    self.catch_up(&mut turn);
                }
            }
            Heard::Private { user, to, content, receipt, ts } => {
                self.settle(&user, receipt.as_deref());
                turn.said.push(Said::Private { user, to, content, ts });
            }
            Heard::Join { user, ts } => {
                // One's own, after the history, is no news.
                if self.members.insert(fold(&user), user.clone()).is_none() {
                    turn.members_changed = true;
                    turn.said.push(Said::Joined { user, ts });
                }
            }
            Heard::Leave { user, ts } => {
                turn.members_changed = true;
                self.members.remove(&fold(&user));
                turn.said.push(Said::Left { user, ts });
            }
            Heard::Error { content, receipt } => {
                let at = self
                    .pending
                    .iter()
                    .position(|pending| Some(&pending.receipt) == receipt.as_ref());
                match at.and_then(|at| self.pending.remove(at)) {
                    Some(pending) => turn.said.push(failed(&pending, &content)),
                    None => turn.note(&content),
                }
            }
            Heard::Other => {}
        }
        turn
    }

    fn names(&self, most: usize) -> String {
        let mut names: Vec<_> = self.members().take(most).collect();
        let more = self.members.len().saturating_sub(most);
        let more = (more > 0).then(|| format!("and {more} more"));
        names.extend(more.as_deref());
        format!("{} here: {}", self.members.len(), names.join(", "))
    }

    /// A receipt has come.
    fn settle(&mut self, user: &str, receipt: Option<&str>) {
        if Some(user) == self.name.as_deref() {
            self.pending.retain(|pending| Some(pending.receipt.as_str()) != receipt);
        }
    }

    /// Once the history is in, what has no receipt goes out again. The server says nothing twice that it has not forgotten.
    fn catch_up(&mut self, turn: &mut Turn) {
        if self.caught_up() {
            self.give_up_uncertain(turn);
            turn.send.extend(self.pending.iter_mut().map(Pending::transmit));
        }
    }

    /// Gives up what would be said twice if it had arrived.
    fn give_up_uncertain(&mut self, turn: &mut Turn) {
        let public = std::mem::take(&mut self.public_forgotten);
        let private = std::mem::take(&mut self.private_forgotten);
        let is_uncertain =
            |pending: &Pending| pending.sent && if pending.to.is_some() { private } else { public };
        let (uncertain, kept) = self.pending.drain(..).partition(is_uncertain);
        self.pending = kept;
        let uncertain: VecDeque<Pending> = uncertain;
        turn.said.extend(
            uncertain.iter().map(|pending| failed(pending, "it is not certain that this arrived")),
        );
    }
}

impl Turn {
    fn note(&mut self, note: &str) {
        self.said.push(Said::Note(note.to_owned()));
    }
}

fn failed(pending: &Pending, why: &str) -> Said {
    let quoted: String = pending.content.chars().take(QUOTED_CHARS_MAX).collect();
    let more = if quoted.len() < pending.content.len() { "…" } else { "" };
    Said::Failed { content: format!("{quoted}{more}"), why: why.to_owned() }
}
