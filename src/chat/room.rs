//! A room: who is here, who is away, and what they do.
//!
//! A member whose connection broke moves from `members` to `absent`. To the others it is still
//! there. If it comes back with its session before the hub ends the absence, nobody notices.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::connection::ClientId;
use super::frames::Frames;
use super::history::{History, Number, Reference};
use super::inbox::{JoinRequest, Resume};
use super::members::{Identity, Members};
use super::outbox::Outbox;
use super::write_half::SweepQueue;
use crate::protocol::close::CloseReason;
use crate::protocol::message::{ErrorCode, ErrorReply, NOBODY, ServerMessage, Timestamp};
use crate::protocol::name::{Name, Recipient};
use crate::protocol::session::Session;
use crate::system::metrics::METRICS;

/// Longest history in a greeting, in bytes: the newest messages that fit. A client that reads 500
/// kbit/s takes it within ten seconds.
const GREETING_BYTES_MAX: usize = 512 * 1024;
/// Private messages kept for an absent member, and their bytes.
const KEPT_MESSAGES_MAX: usize = 32;
const KEPT_BYTES_MAX: usize = 16 * 1024;

/// One room. It knows nothing of the others.
pub struct Room {
    name: Arc<str>,
    history: History,
    /// The members that are connected.
    members: Members,
    /// The members whose connection broke, by the key of their name.
    absent: HashMap<Arc<str>, AbsentMember>,
    /// The names of all members as they are shown, sorted.
    names: BTreeSet<Arc<str>>,
    /// All members, by the skeleton of their name. No two of them look alike.
    by_skeleton: HashMap<Arc<str>, Arc<Identity>>,
}

/// A member whose connection broke.
struct AbsentMember {
    identity: Arc<Identity>,
    /// The hub's number of this absence.
    number: u64,
    /// Private messages to it.
    kept: Vec<KeptMessage>,
}

/// A private message to an absent member.
struct KeptMessage {
    frame: Frames,
    /// The newest public `seq` when it was sent: its place among those.
    after: u64,
    /// Whom to notify if it can't be delivered; `None` if it is itself such a notice.
    sender: Option<SentBy>,
}

/// The sender of a kept message.
struct SentBy {
    identity: Arc<Identity>,
    /// How the room knows the message, if it has a `ref`.
    reference: Option<(Reference, Number)>,
}

impl AbsentMember {
    /// Keeps a message. Returns false if too much waits already.
    fn keep(&mut self, message: KeptMessage) -> bool {
        let bytes: usize = self.kept.iter().map(|kept| kept.frame.len()).sum();
        let fits =
            self.kept.len() < KEPT_MESSAGES_MAX && bytes + message.frame.len() <= KEPT_BYTES_MAX;
        // One always fits, whatever --max-message-bytes is.
        if !fits && !self.kept.is_empty() {
            return false;
        }
        self.kept.push(message);
        true
    }
}

/// Where a member was when its session came back.
pub enum Seat {
    /// Still connected, it seemed, as this client.
    Connected(ClientId),
    /// Absent, with this number of the hub's.
    Absent(u64),
}

/// A place that its owner takes back.
pub struct Vacated {
    /// Where the owner was until now.
    pub seat: Seat,
    identity: Arc<Identity>,
    kept: Vec<KeptMessage>,
}

impl Room {
    /// Creates an empty room. `epoch` must differ from that of any earlier life of it.
    pub fn new(name: Arc<str>, epoch: String, sweeps: SweepQueue) -> Room {
        Room {
            name,
            history: History::new(epoch),
            members: Members::new(sweeps),
            absent: HashMap::new(),
            names: BTreeSet::new(),
            by_skeleton: HashMap::new(),
        }
    }

    /// True if the room has no member, neither connected nor absent.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.absent.is_empty()
    }

    /// True if all members are absent, and there is one.
    pub fn is_deserted(&self) -> bool {
        self.members.is_empty() && !self.absent.is_empty()
    }

    /// Returns the member that has this name, or else the one whose name looks like it.
    pub fn occupant(&self, name: &Name) -> Option<&Arc<Identity>> {
        self.member(&name.key).or_else(|| self.by_skeleton.get(&name.skeleton))
    }

    /// Returns the member whose name has this key, connected or absent.
    fn member(&self, key: &str) -> Option<&Arc<Identity>> {
        let connected = self.members.find(key).map(|id| self.members.identity(id));
        connected.or_else(|| self.absent.get(key).map(|absent| &absent.identity))
    }

    /// What the room remembers.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Forgets the older half of the public messages, or the only one.
    pub fn forget_older_half(&mut self) {
        self.history.forget_older_half();
    }

    /// Lets a newcomer in under a name that is free. It gets the welcome and the history, and
    /// everyone the notice.
    ///
    /// It gets a new session, unless the room remembers a message of the session it claims.
    pub fn join(
        &mut self,
        id: ClientId,
        name: Name,
        outbox: Outbox,
        request: &JoinRequest,
        now: Timestamp,
    ) {
        let continued = request.claim.filter(|&claim| self.history.has_author(&name.key, claim));
        let session = continued.unwrap_or(request.session);
        let identity = Arc::new(Identity { name, session });
        let Name { shown: name, skeleton, .. } = &identity.name;
        self.names.insert(name.clone());
        self.by_skeleton.insert(skeleton.clone(), identity.clone());
        self.greet(id, identity.clone(), outbox, request.resume.as_ref(), &[], now);

        let content = format!("{name} joined");
        let notice =
            ServerMessage::Join { user: name, content: &content, room: &self.name, ts: now };
        self.members.announce_member(id, &notice.to_frame());
    }

    /// Frees the place of the member that [occupies](Room::occupant) `name` for its own return, if
    /// `session` is its session. An older connection of it is closed.
    pub fn vacate(&mut self, name: &Name, session: Session) -> Option<Vacated> {
        let key = &self.occupant(name).filter(|member| member.session == session)?.name.key.clone();
        if let Some(AbsentMember { identity, number, kept }) = self.absent.remove(key) {
            return Some(Vacated { seat: Seat::Absent(number), identity, kept });
        }
        let id = self.members.find(key)?;
        let identity = self.members.remove(id, CloseReason::Replaced)?;
        Some(Vacated { seat: Seat::Connected(id), identity, kept: Vec::new() })
    }

    /// Returns the connection of the member that [occupies](Room::occupant) `name`, if it has one
    /// and `session` is its session.
    pub fn connected(&self, name: &Name, session: Session) -> Option<ClientId> {
        let member = self.occupant(name).filter(|member| member.session == session)?;
        self.members.find(&member.name.key)
    }

    /// Ends the reading from member `id`, which has come back on another connection.
    pub fn stop_reading(&self, id: ClientId) {
        self.members.stop_reading(id);
    }

    /// Gives a member its place back. Nobody else is notified.
    pub fn rejoin(
        &mut self,
        id: ClientId,
        vacated: Vacated,
        outbox: Outbox,
        resume: Option<&Resume>,
        now: Timestamp,
    ) {
        self.greet(id, vacated.identity, outbox, resume, &vacated.kept, now);
        self.members.write_greeting(id);
    }

    /// Makes a client a member, and sends it the welcome, what it missed, and what was kept for it.
    fn greet(
        &mut self,
        id: ClientId,
        identity: Arc<Identity>,
        mut outbox: Outbox,
        resume: Option<&Resume>,
        kept: &[KeptMessage],
        now: Timestamp,
    ) {
        let users: Vec<&str> = self.names.iter().map(|name| &**name).collect();
        let fitting = self.history.fitting(GREETING_BYTES_MAX);
        let recovered = resume
            .and_then(|resume| self.history.missed(resume))
            .filter(|&missed| missed <= fitting);
        let missed = recovered.unwrap_or(fitting);
        let welcome = ServerMessage::Welcome {
            user: &identity.name.shown,
            room: &self.name,
            users: &users,
            epoch: self.history.epoch(),
            seq: self.history.seq(),
            history: missed,
            recovered: recovered.is_some(),
            session: &identity.session.to_hex(),
            ts: now,
        }
        .to_frame();
        outbox.greet(Frames::with_rest(welcome, self.missed_frames(missed, kept)));
        self.members.insert(id, identity, outbox);
    }

    /// Returns the last `missed` public messages and the kept private ones, each in its place. They
    /// are shared, not copied.
    fn missed_frames(&self, missed: usize, kept: &[KeptMessage]) -> Vec<Frames> {
        let mut frames = Vec::with_capacity(missed + kept.len());
        let mut kept = kept.iter().peekable();
        for (seq, frame) in self.history.last(missed) {
            while let Some(kept) = kept.next_if(|kept| kept.after < seq) {
                frames.push(kept.frame.clone());
            }
            frames.push(frame.clone());
        }
        frames.extend(kept.map(|kept| kept.frame.clone()));
        frames
    }

    /// Removes a member, closes its connection for `reason`, and notifies the others.
    pub fn leave(&mut self, id: ClientId, reason: CloseReason, now: Timestamp) {
        if let Some(identity) = self.members.remove(id, reason) {
            self.announce_leave(&identity.name, now);
        }
    }

    /// Closes a member's connection for `reason`, but keeps its place as absence `number`. Returns
    /// the key of its name.
    pub fn disconnect(&mut self, id: ClientId, reason: CloseReason, number: u64) -> Arc<str> {
        let identity = self.members.remove(id, reason).expect("the hub names members only");
        let key = identity.name.key.clone();
        self.absent.insert(key.clone(), AbsentMember { identity, number, kept: Vec::new() });
        key
    }

    /// Ends absence `number`: notifies the others that the member has left, and the senders of kept
    /// messages that it will not read them.
    pub fn end_absence(&mut self, key: &str, number: u64, now: Timestamp) {
        let known = self.absent.get(key).map(|absent| absent.number);
        debug_assert_eq!(known, Some(number), "the hub knows who is absent");
        let Some(AbsentMember { identity, kept, .. }) = self.absent.remove(key) else { return };
        self.announce_leave(&identity.name, now);
        for SentBy { identity, reference } in kept.into_iter().filter_map(|kept| kept.sender) {
            // If it is sent again, it is a new message.
            if let Some((reference, number)) = &reference {
                self.history.forget(reference, *number);
            }
            let reference = reference.as_ref().map(|((_, reference), _)| &**reference);
            let content = "the one it was for has left before it could be delivered";
            let code = ErrorCode::NoSuchUser.name();
            let error = ServerMessage::Error { code, content, reference, ts: now };
            self.notify(&identity, error.to_frame());
        }
    }

    fn announce_leave(&mut self, name: &Name, now: Timestamp) {
        self.names.remove(&name.shown);
        self.by_skeleton.remove(&name.skeleton);
        let name = &name.shown;
        let content = format!("{name} left");
        let notice =
            ServerMessage::Leave { user: name, content: &content, room: &self.name, ts: now };
        self.members.announce(&notice.to_frame());
    }

    /// Sends a message from member `id` to everyone, and keeps it as one of the last `history_max`.
    /// A message that the room has already, by its `ref`, is only confirmed.
    pub fn publish(
        &mut self,
        id: ClientId,
        content: &str,
        reference: Option<String>,
        history_max: usize,
        now: Timestamp,
    ) {
        let author = self.members.identity(id).clone();
        let reference = reference.map(|reference| (author.session, Arc::from(reference)));
        if let Some(seq) = self.history.find_public(reference.as_ref(), content) {
            return self.confirm(id, seq);
        }
        let frame = ServerMessage::Public {
            user: &author.name.shown,
            content,
            room: &self.name,
            seq: self.history.seq() + 1,
            reference: shown(reference.as_ref()),
            ts: now,
        }
        .to_frame();
        self.members.publish(&frame);
        METRICS.public_messages.inc();
        self.history.add_public(author, content, reference, frame, history_max);
    }

    /// Sends member `id` its own public message `seq` once more, as the confirmation.
    fn confirm(&mut self, id: ClientId, seq: u64) {
        if let Some(frame) = self.history.frame(seq) {
            self.members.send_to(id, frame);
        }
    }

    /// Sends a message from member `id` to the member called `to`. A message that has arrived
    /// already, by its `ref`, is only confirmed.
    pub fn whisper(
        &mut self,
        id: ClientId,
        to: &Recipient,
        content: &str,
        reference: Option<String>,
        history_max: usize,
        now: Timestamp,
    ) {
        let Recipient { typed, key } = to;
        let sender = self.members.identity(id).clone();
        let reference = reference.map(|reference| (sender.session, Arc::from(reference)));
        let arrived = self.history.has_private(reference.as_ref(), key, content);
        let recipient = self.members.find(key);
        let identity = self.member(key);
        let name = identity.map(|identity| &*identity.name.shown).or(arrived.then_some(typed));
        let Some(to) = name else {
            return self.no_such_user(id, NOBODY, shown(reference.as_ref()), now);
        };
        let frame = ServerMessage::Private {
            user: &sender.name.shown,
            to,
            content,
            room: &self.name,
            reference: shown(reference.as_ref()),
            ts: now,
        }
        .to_frame();
        if arrived {
            return self.members.send_to(id, &frame);
        }
        match recipient {
            Some(recipient) if recipient != id => self.members.send_to(recipient, &frame),
            Some(_) => {}
            None if self.keep(key, &sender, reference.as_ref(), &frame) => {}
            None => {
                let problem = "its connection is lost, and no more messages can wait for it";
                return self.no_such_user(id, problem, shown(reference.as_ref()), now);
            }
        }
        self.members.send_to(id, &frame);
        METRICS.private_messages.inc();
        let copies = if recipient.is_some_and(|recipient| recipient != id) { 2 } else { 1 };
        METRICS.deliveries.inc_by(copies);
        if let Some(reference) = reference {
            self.history.add_private(sender, key, content, reference, history_max);
        }
    }

    /// Keeps a private message for the absent member whose name has this key. Returns false if
    /// too much waits for it already.
    fn keep(
        &mut self,
        key: &str,
        sender: &Arc<Identity>,
        reference: Option<&Reference>,
        frame: &[u8],
    ) -> bool {
        let Some(absent) = self.absent.get_mut(key) else { return false };
        let number = self.history.next_private();
        let reference = reference.map(|reference| (reference.clone(), number));
        let sender = Some(SentBy { identity: sender.clone(), reference });
        let frame = Frames::untimed(frame.to_vec());
        absent.keep(KeptMessage { frame, after: self.history.seq(), sender })
    }

    fn no_such_user(
        &mut self,
        id: ClientId,
        problem: &str,
        reference: Option<&str>,
        now: Timestamp,
    ) {
        let code = ErrorCode::NoSuchUser.name();
        let error = ServerMessage::Error { code, content: problem, reference, ts: now };
        self.members.send_to(id, &error.to_frame());
    }

    /// Sends member `id` the error about something invalid that it sent.
    pub fn reply_error(&mut self, id: ClientId, reply: &ErrorReply, now: Timestamp) {
        let ErrorReply { code, content, reference } = reply;
        let reference = reference.as_deref();
        let error = ServerMessage::Error { code: code.name(), content, reference, ts: now };
        self.members.send_to(id, &error.to_frame());
    }

    /// Sends `frame` to somebody who may have come back as another client, or be absent. Whoever
    /// has left gets nothing.
    fn notify(&mut self, identity: &Identity, frame: Vec<u8>) {
        if let Some(id) = self.members.find(&identity.name.key) {
            if self.members.identity(id).session == identity.session {
                self.members.send_to(id, &frame);
            }
        } else if let Some(absent) = self.absent.get_mut(&identity.name.key)
            && absent.identity.session == identity.session
        {
            let frame = Frames::untimed(frame);
            absent.keep(KeptMessage { frame, after: self.history.seq(), sender: None });
        }
    }

    /// Queues what the turn has gathered. Returns the members whose queue was full, which must
    /// leave.
    pub fn flush(&mut self, notices_due: bool) -> Vec<ClientId> {
        self.members.flush(notices_due)
    }

    /// True if notices wait until they are due.
    pub fn has_waiting(&self) -> bool {
        self.members.has_waiting()
    }

    /// Closes every connection for `reason`, after what the turn has gathered.
    pub fn close(&mut self, reason: CloseReason) {
        self.absent.clear();
        self.members.close(reason);
    }
}

/// The `ref` as clients see it, without the session.
fn shown(reference: Option<&Reference>) -> Option<&str> {
    reference.map(|(_, reference)| &**reference)
}
