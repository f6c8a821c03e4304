//! Client to hub: what happens to the hub. All but its own clock and stop comes through the inbox.
//!
//! There is one inbox, a bounded channel, for everything that a client does. Go's chat has three
//! unbuffered channels, on which each client's events keep their order. With three buffered ones
//! `select!` would pick at random, and a message could be handled before its sender's registration.
//!
//! Clients send [`Event::Register`], [`Event::Unregister`] and what is between them. Whoever checks
//! the hub's health sends [`Event::Health`]. The hub itself makes the events of its clock.

use std::fmt;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};

use super::connection::ClientId;
use super::outbox::Outbox;
use crate::protocol::close::CloseReason;
use crate::protocol::message::ErrorReply;
use crate::protocol::name::{Name, Recipient};
use crate::protocol::session::Session;

/// Events that the inbox holds before readers wait, and with them, by TCP, their clients.
pub const INBOX_EVENTS: usize = 1024;
/// Maximum bytes of one client's waiting messages: in its backlog, and in the hub while the client
/// waits to come back. The last message may exceed it.
pub const BACKLOG_BYTES_MAX: usize = 64 * 1024;
/// How long the hub has to reply to a health check.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);

/// What happens to the hub. `reference` is a message's `ref`.
pub enum Event {
    /// A client wants to join a room.
    Register(Newcomer),
    /// A client has gone, or must go.
    Unregister { id: ClientId, reason: CloseReason },
    /// A message to the whole room.
    Publish { id: ClientId, content: String, reference: Option<String> },
    /// A message to one member.
    Whisper { id: ClientId, to: Recipient, content: String, reference: Option<String> },
    /// The client sent something invalid. The reply passes through the hub, so that it keeps its
    /// place among the others.
    Invalid { id: ClientId, reply: ErrorReply },
    /// The client sends faster than it may: further messages wait in its backlog.
    Slowed { id: ClientId },
    /// The client's backlog is handed over.
    CaughtUp { id: ClientId },
    /// Notices that waited in crowded rooms are due.
    NoticesDue,
    /// A member has been disconnected for `--leave-grace`.
    AbsencesDue,
    /// Somebody checks whether the hub is alive. A sender that is dropped unused means no.
    Health(Sender<()>),
    /// The server stops: every client is closed, and newcomers are refused.
    Stop,
}

/// An event on its way to the hub, and when it was sent.
pub struct Timed {
    /// The event.
    pub event: Event,
    /// When it was sent, for the metric of how long messages take.
    pub sent: Instant,
}

impl Timed {
    /// Notes that `event` is sent now.
    pub fn now(event: Event) -> Timed {
        Timed { event, sent: Instant::now() }
    }
}

/// A client that wants to join a room.
pub struct Newcomer {
    /// The client's id.
    pub id: ClientId,
    /// The way back to the client.
    pub outbox: Outbox,
    /// What it asks for. Boxed: an event is as large as its largest variant, and most are messages.
    pub request: Box<JoinRequest>,
}

/// Who wants to join which room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// The name it asks for.
    pub name: Nickname,
    /// The room's name, which is valid and folded.
    pub room: String,
    /// The session it gets, unless it continues an earlier one.
    pub session: Session,
    /// The session that it claims to continue.
    pub claim: Option<Session>,
    /// What it says it has received of the room's public messages.
    pub resume: Option<Resume>,
}

/// The name that a newcomer asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nickname {
    /// This one.
    Chosen(Name),
    /// Any free guest name. The search starts at this number, which is random.
    Guest(u32),
}

impl fmt::Display for Nickname {
    /// Writes the name for the log: quoted, with whatever could upset a terminal escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Nickname::Chosen(name) => write!(f, "{:?}", name.shown),
            Nickname::Guest(_) => f.write_str("a guest"),
        }
    }
}

/// What a client that comes back has received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The room's epoch at that time.
    pub epoch: String,
    /// The `seq` of the last public message that it has.
    pub since: u64,
}

/// True if the hub replies within a second.
pub fn hub_replies(inbox: &Sender<Timed>) -> bool {
    let (reply, replied) = bounded(1);
    let deadline = Instant::now() + HEALTH_TIMEOUT;
    let asked = inbox.send_deadline(Timed::now(Event::Health(reply)), deadline);
    asked.is_ok() && replied.recv_deadline(deadline).is_ok()
}
