//! A room: its members, its history, and how a turn's messages reach everyone in one entry.
//!
//! During a turn the frames for everyone gather in `pending`; in a crowd, notices of comings and goings stay there until
//! something is said or they are due. What is for one member alone (a newcomer's welcome, a private
//! message, an error) gathers in that member's `own`, behind a copy of what `pending` held by then, so that nothing
//! overtakes anything; `seen` remembers how much that was. At the end of the turn each member gets one entry.
//!
//! A member whose connection broke moves from `members` to `absent`. To the others it is still there; if it comes back
//! with its session before the hub ends the absence, nobody hears of it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::chat::client::ClientId;
use crate::chat::hub::Joining;
use crate::chat::outbox::{Frames, Line, Outbox, Sweeps};
use crate::protocol::message::{
    CloseReason, Complaint, ErrorCode, ServerMessage, Timestamp, fold_case,
};
use crate::protocol::session::Session;
use crate::system::metrics::METRICS;

/// Bytes that gather before they are sent on: an entry holds at most as much for everyone and as much for its member
/// alone, or one message that is larger.
pub const PENDING_BYTES_MAX: usize = 16 * 1024;

/// Members from which on a room is a crowd, where comings and goings are told together now and then. Told at once, a
/// thousand people who come within seconds would cost a million writes.
const CROWD_MEMBERS: usize = 100;

/// Private messages that wait for an absent member, and their bytes.
const KEPT_MESSAGES_MAX: usize = 32;
const KEPT_BYTES_MAX: usize = 16 * 1024;

/// What a client that comes back has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The life of the room in which it was.
    pub epoch: String,
    /// Number of the last public message it has.
    pub since: u64,
}

/// Who somebody is, over all connections of one session.
struct Identity {
    /// The name as it is shown.
    name: Arc<str>,
    /// The name with case folded.
    key: String,
    session: Session,
}

/// A `ref`, and the session it belongs to.
type Receipt = (Session, Arc<str>);

/// What the room remembers of a message with a `ref`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Known {
    message: Numbered,
    /// Of what was said: a client that uses a `ref` for something else says something new.
    digest: u64,
}

/// A message's number among those of its kind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Numbered {
    Public(u64),
    Private(u64),
}

/// A public message, as the room remembers it.
struct Said {
    frame: Vec<u8>,
    author: Arc<Identity>,
    receipt: Option<Receipt>,
}

/// A client in a room.
struct Member {
    identity: Arc<Identity>,
    outbox: Outbox,
    /// What the turn has for this member alone, in its place among what it has for everyone.
    own: Vec<u8>,
    /// How much of the turn's `pending` stands in `own` already, or is not for this member.
    seen: usize,
    /// Its queue was full: it has missed something, must not be sent anything more, and goes at the end of the turn.
    overflowed: bool,
}

/// A member whose connection broke.
struct Absent {
    identity: Arc<Identity>,
    /// The hub's number of this absence.
    number: u64,
    /// Private messages to it.
    kept: Vec<Kept>,
}

/// A private message that waits.
struct Kept {
    frame: Vec<u8>,
    /// Number of the newest public message when it came: its place among those.
    after: u64,
    /// Who hears if it can't be delivered; nobody about what is itself such an error.
    sender: Option<Sender>,
}

/// Who sent a private message that waits, and as what the room knows it, if it has a `ref`.
type Sender = (Arc<Identity>, Option<(Receipt, Numbered)>);

impl Absent {
    /// Keeps a message. Says whether there was room.
    fn keep(&mut self, message: Kept) -> bool {
        let bytes: usize = self.kept.iter().map(|kept| kept.frame.len()).sum();
        let fits =
            self.kept.len() < KEPT_MESSAGES_MAX && bytes + message.frame.len() <= KEPT_BYTES_MAX;
        // One always does, whatever --max-message-bytes is.
        if fits || self.kept.is_empty() {
            self.kept.push(message);
            return true;
        }
        false
    }
}

/// Where somebody was when its session came back.
pub enum Seat {
    /// Still connected, it seemed, as this client.
    Here(ClientId),
    /// Absent, and not missed yet.
    Away(u64),
}

/// A place that waits for its owner.
pub struct Vacated {
    /// What it was.
    pub seat: Seat,
    identity: Arc<Identity>,
    kept: Vec<Kept>,
}

impl Member {
    fn new(identity: Arc<Identity>, outbox: Outbox) -> Member {
        Member { identity, outbox, own: Vec::new(), seen: 0, overflowed: false }
    }

    /// Queues all there is for this member, `pending` being what there is for everyone. Says whether it has overflowed.
    fn queue(&mut self, pending: &Frames) -> bool {
        let seen = std::mem::take(&mut self.seen);
        if self.own.is_empty() && seen == 0 {
            return self.queue_entry(pending.clone());
        }
        self.own.extend_from_slice(&pending[seen..]);
        self.queue_own()
    }

    /// Queues what there is for this member alone. Says whether it has overflowed.
    fn queue_own(&mut self) -> bool {
        let own = std::mem::take(&mut self.own);
        self.queue_entry(own.into())
    }

    /// An entry that did not fit must not be followed by anything.
    fn queue_entry(&mut self, entry: Frames) -> bool {
        if entry.is_empty() || self.overflowed {
            return false;
        }
        self.overflowed = self.outbox.queue(entry).is_err();
        self.overflowed
    }
}

/// One room. Knows nothing of the others.
pub struct Room {
    name: Arc<str>,
    /// One life of the room: `seq` starts anew when it changes.
    epoch: String,
    /// Number of the newest public message.
    seq: u64,
    /// The last public messages.
    history: VecDeque<Said>,
    /// Memory that their frames occupy.
    history_bytes: usize,
    /// Their frames in one piece for newcomers; made when needed, forgotten when they change.
    history_frames: Option<Frames>,
    /// The messages whose `ref` is known. What comes again is not said again.
    receipts: HashMap<Receipt, Known>,
    /// The private ones among them, as many at most as the history holds public ones.
    whispers: VecDeque<(Arc<Identity>, Receipt)>,
    /// Number of the newest private message with a `ref`.
    whisper_seq: u64,
    members: HashMap<ClientId, Member>,
    /// Those whose connection broke, by their name with case folded.
    absent: HashMap<String, Absent>,
    /// The members' lines, for sweeps; made when needed, forgotten when somebody joins or leaves.
    roster: Option<Arc<[Arc<Line>]>>,
    /// Where the next sweep begins.
    sweep_first: usize,
    sweeps: Sweeps,
    /// Who has which name, by the name with case folded; without those who are absent.
    by_name: HashMap<String, ClientId>,
    /// The names as they are shown, sorted; those who are absent are among them.
    names: BTreeSet<Arc<str>>,
    /// The frames for everyone that have not been sent.
    pending: Vec<u8>,
    /// Public messages among them.
    pending_messages: u64,
    /// Nothing in `pending` is more than a notice, and a crowd can wait for those until they are due.
    only_notices: bool,
    /// The time has come to send what has waited.
    pub notices_due: bool,
    /// Members with something of their own in this turn.
    told: Vec<ClientId>,
    /// Members that overflowed in this turn.
    overflowed: Vec<ClientId>,
    /// The hub knows that this turn has something for [`flush`](Room::flush).
    pub dirty: bool,
    /// Its place in the hub's order of empty rooms; `None` while somebody is here.
    pub empty_since: Option<u64>,
}

impl Room {
    /// An empty room with a life of its own.
    pub fn new(name: Arc<str>, epoch: String, sweeps: Sweeps) -> Room {
        Room {
            name,
            epoch,
            seq: 0,
            history: VecDeque::new(),
            history_bytes: 0,
            history_frames: None,
            receipts: HashMap::new(),
            whispers: VecDeque::new(),
            whisper_seq: 0,
            members: HashMap::new(),
            absent: HashMap::new(),
            roster: None,
            sweep_first: 0,
            sweeps,
            by_name: HashMap::new(),
            names: BTreeSet::new(),
            pending: Vec::new(),
            pending_messages: 0,
            only_notices: true,
            notices_due: false,
            told: Vec::new(),
            overflowed: Vec::new(),
            dirty: false,
            empty_since: None,
        }
    }

    /// Whether nobody is here, and nobody absent.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.absent.is_empty()
    }

    /// Whether nobody is here, but somebody absent.
    pub fn is_deserted(&self) -> bool {
        self.members.is_empty() && !self.absent.is_empty()
    }

    /// Whether a member has this name, whatever its case.
    pub fn has(&self, name: &str) -> bool {
        let key = fold_case(name);
        self.by_name.contains_key(&key) || self.absent.contains_key(&key)
    }

    /// Lets a newcomer in, whose name must be free: it gets the welcome and the history, and everyone the notice.
    ///
    /// Its session is a new one, unless the room remembers that it had the one it claims.
    pub fn join(
        &mut self,
        id: ClientId,
        name: String,
        outbox: Outbox,
        joining: &Joining,
        now: Timestamp,
    ) {
        let key = fold_case(&name);
        let continued = joining.claim.filter(|&claim| self.remembers(&key, claim));
        let name: Arc<str> = name.into();
        self.names.insert(name.clone());
        let identity =
            Identity { name: name.clone(), key, session: continued.unwrap_or(joining.session) };
        self.seat(id, identity.into(), outbox, joining.resume.as_ref(), &[], now);

        let content = format!("{name} joined");
        let notice =
            ServerMessage::Join { user: &name, content: &content, room: &self.name, ts: now }
                .to_frame();
        self.announce(&notice);
        // Its own it gets at once, also in a crowd.
        self.member(id).seen = self.pending.len();
        self.tell(id, &notice);
    }

    /// Whether somebody of this name and session has said something that the room still knows.
    fn remembers(&self, key: &str, session: Session) -> bool {
        let authors = self
            .history
            .iter()
            .map(|said| &said.author)
            .chain(self.whispers.iter().map(|(author, _)| author));
        authors.into_iter().any(|author| author.session == session && author.key == key)
    }

    /// Frees the place of the member called `name` for its own return, if `session` is its session. An older connection of
    /// it is closed.
    pub fn vacate(&mut self, name: &str, session: Session) -> Option<Vacated> {
        let key = fold_case(name);
        if self.absent.get(&key).is_some_and(|absent| absent.identity.session == session) {
            let Absent { identity, number, kept } = self.absent.remove(&key)?;
            return Some(Vacated { seat: Seat::Away(number), identity, kept });
        }
        let id = *self.by_name.get(&key)?;
        if self.member(id).identity.session != session {
            return None;
        }
        let identity = self.disconnect(id, CloseReason::Replaced)?;
        Some(Vacated { seat: Seat::Here(id), identity, kept: Vec::new() })
    }

    /// Gives somebody its place back. Nobody else hears of it.
    pub fn rejoin(
        &mut self,
        id: ClientId,
        vacated: Vacated,
        outbox: Outbox,
        resume: Option<&Resume>,
        now: Timestamp,
    ) {
        self.seat(id, vacated.identity, outbox, resume, &vacated.kept, now);
        // With nothing new for anybody, only this has its welcome written.
        self.told.push(id);
    }

    /// Makes a client a member: it gets the welcome, what it has missed, and what was kept for it.
    fn seat(
        &mut self,
        id: ClientId,
        identity: Arc<Identity>,
        mut outbox: Outbox,
        resume: Option<&Resume>,
        kept: &[Kept],
        now: Timestamp,
    ) {
        let users: Vec<&str> = self.names.iter().map(|name| &**name).collect();
        let recovered = resume.and_then(|resume| self.missed(resume));
        let missed = recovered.unwrap_or(self.history.len());
        let welcome = ServerMessage::Welcome {
            user: &identity.name,
            room: &self.name,
            users: &users,
            epoch: &self.epoch,
            seq: self.seq,
            history: missed,
            recovered: recovered.is_some(),
            session: &identity.session.to_hex(),
            ts: now,
        }
        .to_frame();
        let history = match missed == self.history.len() && kept.is_empty() {
            true => self.history_frames().clone(),
            false => self.missed_frames(missed, kept).into(),
        };
        outbox.greet(welcome.into());
        if !history.is_empty() {
            outbox.greet(history);
        }
        self.by_name.insert(identity.key.clone(), id);
        let mut member = Member::new(identity, outbox);
        // What has gathered in this turn is in the history, or happened before the newcomer came.
        member.seen = self.pending.len();
        self.members.insert(id, member);
        self.roster = None;
    }

    /// How many public messages somebody has missed; `None` if the room does not know all of them any more.
    fn missed(&self, resume: &Resume) -> Option<usize> {
        let missed = usize::try_from(self.seq.checked_sub(resume.since)?).ok()?;
        (resume.epoch == self.epoch && missed <= self.history.len()).then_some(missed)
    }

    /// The whole history.
    fn history_frames(&mut self) -> &Frames {
        self.history_frames.get_or_insert_with(|| {
            let bytes = self.history.iter().map(|said| said.frame.len()).sum();
            let mut frames = Vec::with_capacity(bytes);
            self.history.iter().for_each(|said| frames.extend_from_slice(&said.frame));
            Frames::made_before(frames)
        })
    }

    /// The last `missed` public messages, and among them in its place each private one that was kept.
    fn missed_frames(&self, missed: usize, kept: &[Kept]) -> Vec<u8> {
        let mut frames = Vec::new();
        let mut kept = kept.iter().peekable();
        let first = self.history.len() - missed;
        for (said, seq) in self.history.range(first..).zip(self.seq - missed as u64 + 1..) {
            while let Some(kept) = kept.next_if(|kept| kept.after < seq) {
                frames.extend_from_slice(&kept.frame);
            }
            frames.extend_from_slice(&said.frame);
        }
        kept.for_each(|kept| frames.extend_from_slice(&kept.frame));
        frames
    }

    /// Takes a member out, closes its outbox for `reason`, and tells the others.
    pub fn leave(&mut self, id: ClientId, reason: CloseReason, now: Timestamp) {
        if let Some(identity) = self.disconnect(id, reason) {
            self.announce_leave(&identity.name, now);
        }
    }

    /// Closes a member's outbox for `reason`, but keeps its place as absence `number`. Returns its name with case folded.
    pub fn absent(&mut self, id: ClientId, reason: CloseReason, number: u64) -> String {
        let identity = self.disconnect(id, reason).expect("the hub names members only");
        let key = identity.key.clone();
        self.absent.insert(key.clone(), Absent { identity, number, kept: Vec::new() });
        key
    }

    /// Ends absence `number`: the others hear that the member has left, and those who wrote to it that it won't read that.
    pub fn end_absence(&mut self, key: &str, number: u64, now: Timestamp) {
        debug_assert_eq!(
            self.absent.get(key).map(|absent| absent.number),
            Some(number),
            "the hub knows who is absent"
        );
        let Some(Absent { identity, kept, .. }) = self.absent.remove(key) else { return };
        self.announce_leave(&identity.name, now);
        for (sender, receipt) in kept.into_iter().filter_map(|kept| kept.sender) {
            // Sent again, it is sent anew.
            if let Some((receipt, message)) = &receipt {
                self.forget(receipt, *message);
            }
            let receipt = receipt.as_ref().map(|((_, receipt), _)| &**receipt);
            let content = "the one it was for has left before it could be delivered";
            let error = ServerMessage::Error {
                code: ErrorCode::NoSuchUser.name(),
                content,
                receipt,
                ts: now,
            };
            self.tell_identity(&sender, error.to_frame());
        }
    }

    /// Takes a member's connection away. What the turn has for it goes out before the close frame.
    fn disconnect(&mut self, id: ClientId, reason: CloseReason) -> Option<Arc<Identity>> {
        let mut member = self.members.remove(&id)?;
        self.roster = None;
        self.by_name.remove(&member.identity.key);
        member.queue(&self.pending.clone().into());
        member.outbox.close(reason);
        Some(member.identity)
    }

    fn announce_leave(&mut self, name: &Arc<str>, now: Timestamp) {
        self.names.remove(name);
        let content = format!("{name} left");
        let notice =
            ServerMessage::Leave { user: name, content: &content, room: &self.name, ts: now }
                .to_frame();
        self.announce(&notice);
    }

    /// A message from member `id` to everyone, kept as one of the last `history_max`. One that the room has already, by its
    /// `ref`, is only confirmed.
    pub fn publish(
        &mut self,
        id: ClientId,
        content: &str,
        receipt: Option<String>,
        history_max: usize,
        now: Timestamp,
    ) {
        let author = self.member(id).identity.clone();
        let receipt: Option<Receipt> = receipt.map(|receipt| (author.session, Arc::from(receipt)));
        if let Some(&Known { message: Numbered::Public(seq), digest: known }) =
            receipt.as_ref().and_then(|receipt| self.receipts.get(receipt))
            && known == digest(None, content)
        {
            return self.confirm(id, seq);
        }
        self.seq += 1;
        let frame = ServerMessage::Public {
            user: &author.name,
            content,
            room: &self.name,
            seq: self.seq,
            receipt: receipt.as_ref().map(|(_, receipt)| &**receipt),
            ts: now,
        }
        .to_frame();
        self.announce(&frame);
        self.pending_messages += 1;
        METRICS.public_messages.inc();
        self.only_notices = false;
        self.history_frames = None;
        if let Some(receipt) = &receipt {
            let known =
                Known { message: Numbered::Public(self.seq), digest: digest(None, content) };
            self.receipts.insert(receipt.clone(), known);
        }
        self.history_bytes += frame.capacity();
        self.history.push_back(Said { frame, author, receipt });
        if self.history.len() > history_max {
            self.forget_oldest();
        }
    }

    /// Memory that the frames of the public messages occupy which the room remembers.
    pub fn history_bytes(&self) -> usize {
        self.history_bytes
    }

    /// Forgets the older half of the public messages, or the only one.
    pub fn forget_older_half(&mut self) {
        (0..self.history.len().div_ceil(2)).for_each(|_| self.forget_oldest());
    }

    /// Forgets the oldest public message.
    fn forget_oldest(&mut self) {
        let Some(Said { frame, receipt, .. }) = self.history.pop_front() else { return };
        self.history_bytes -= frame.capacity();
        self.history_frames = None;
        if let Some(receipt) = receipt {
            self.forget(&receipt, Numbered::Public(self.seq - self.history.len() as u64));
        }
    }

    /// Forgets a receipt, unless its `ref` belongs to a later message by now.
    fn forget(&mut self, receipt: &Receipt, message: Numbered) {
        if self.receipts.get(receipt).is_some_and(|known| known.message == message) {
            self.receipts.remove(receipt);
        }
    }

    /// Gives member `id` once more the receipt of its public message number `seq`: the message.
    fn confirm(&mut self, id: ClientId, seq: u64) {
        let age = (self.seq - seq) as usize;
        if let Some(frame) = self.history.iter().rev().nth(age).map(|said| said.frame.clone()) {
            self.tell(id, &frame);
        }
    }

    /// A message from member `id` to the member called `to`. One that has arrived already, by its `ref`, is only confirmed.
    pub fn whisper(
        &mut self,
        id: ClientId,
        to: &str,
        content: &str,
        receipt: Option<String>,
        history_max: usize,
        now: Timestamp,
    ) {
        let sender = self.member(id).identity.clone();
        let receipt: Option<Receipt> = receipt.map(|receipt| (sender.session, Arc::from(receipt)));
        let shown = receipt.as_ref().map(|(_, receipt)| receipt.clone());
        let key = fold_case(to);
        let digest = digest(Some(&key), content);
        let known = receipt.as_ref().and_then(|receipt| self.receipts.get(receipt));
        let arrived = known.is_some_and(|known| {
            matches!(known.message, Numbered::Private(_)) && known.digest == digest
        });
        let target = self.by_name.get(&key).copied();
        let identity = match target {
            Some(target) => Some(self.member(target).identity.clone()),
            None => self.absent.get(&key).map(|absent| absent.identity.clone()),
        };
        let Some(to) = identity.as_ref().map(|identity| &*identity.name).or(arrived.then_some(to))
        else {
            return self.no_such_user(id, "nobody here has that name", shown.as_deref(), now);
        };
        let frame = ServerMessage::Private {
            user: &sender.name,
            to,
            content,
            room: &self.name,
            receipt: shown.as_deref(),
            ts: now,
        }
        .to_frame();
        if arrived {
            return self.tell(id, &frame);
        }
        match (target, self.absent.get_mut(&key)) {
            (Some(target), _) if target != id => self.tell(target, &frame),
            (None, Some(absent)) => {
                let message = Numbered::Private(self.whisper_seq + 1);
                let sender =
                    Some((sender.clone(), receipt.clone().map(|receipt| (receipt, message))));
                if !absent.keep(Kept { frame: frame.clone(), after: self.seq, sender }) {
                    let problem = "its connection is lost, and no more messages can wait for it";
                    return self.no_such_user(id, problem, shown.as_deref(), now);
                }
            }
            _ => {}
        }
        self.tell(id, &frame);
        METRICS.private_messages.inc();
        METRICS.deliveries.inc_by(if target.is_some_and(|target| target != id) { 2 } else { 1 });
        if let Some(receipt) = receipt {
            self.whisper_seq += 1;
            self.receipts.insert(
                receipt.clone(),
                Known { message: Numbered::Private(self.whisper_seq), digest },
            );
            self.whispers.push_back((sender, receipt));
            if self.whispers.len() > history_max
                && let Some((_, receipt)) = self.whispers.pop_front()
            {
                self.forget(&receipt, Numbered::Private(self.whisper_seq - history_max as u64));
            }
        }
    }

    fn no_such_user(&mut self, id: ClientId, problem: &str, receipt: Option<&str>, now: Timestamp) {
        let code = ErrorCode::NoSuchUser.name();
        self.tell(
            id,
            &ServerMessage::Error { code, content: problem, receipt, ts: now }.to_frame(),
        );
    }

    /// Tells member `id` what was wrong with something it sent.
    pub fn complain(&mut self, id: ClientId, complaint: &Complaint, now: Timestamp) {
        let Complaint { code, content, receipt } = complaint;
        let receipt = receipt.as_deref();
        self.tell(
            id,
            &ServerMessage::Error { code: code.name(), content, receipt, ts: now }.to_frame(),
        );
    }

    /// Sends what the turn has gathered, and names the members whose queues did not take it, who must go.
    pub fn flush(&mut self) -> Vec<ClientId> {
        self.dirty = false;
        let due = std::mem::take(&mut self.notices_due);
        if self.only_notices && !due && self.members.len() >= CROWD_MEMBERS {
            self.send_told();
        } else {
            self.send_pending();
        }
        std::mem::take(&mut self.overflowed)
    }

    /// Whether notices wait until they are due.
    pub fn has_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Sends everyone away for `reason`, after what the turn has gathered.
    pub fn close(&mut self, reason: CloseReason) {
        self.send_pending();
        self.roster = None;
        self.absent.clear();
        for (_, member) in self.members.drain() {
            member.outbox.close(if member.overflowed { CloseReason::TooSlow } else { reason });
        }
    }

    /// Adds a frame to what everyone gets at the end of the turn.
    fn announce(&mut self, frame: &[u8]) {
        if self.pending.len() + frame.len() > PENDING_BYTES_MAX {
            self.send_pending();
        }
        self.pending.extend_from_slice(frame);
    }

    /// Adds a frame to what member `id` alone gets at the end of the turn.
    fn tell(&mut self, id: ClientId, frame: &[u8]) {
        let Some(member) = self.members.get_mut(&id) else { return };
        if member.own.len() + frame.len() > PENDING_BYTES_MAX && member.queue_own() {
            self.overflowed.push(id);
        }
        if member.own.is_empty() {
            self.told.push(id);
        }
        member.own.extend_from_slice(&self.pending[member.seen..]);
        member.own.extend_from_slice(frame);
        member.seen = self.pending.len();
    }

    /// The same for somebody who may have come back as another client, or be absent. Whoever has left is not told.
    fn tell_identity(&mut self, identity: &Identity, frame: Vec<u8>) {
        if let Some(&id) = self.by_name.get(&identity.key) {
            if self.member(id).identity.session == identity.session {
                self.tell(id, &frame);
            }
        } else if let Some(absent) =
            self.absent.get_mut(&identity.key).filter(|a| a.identity.session == identity.session)
        {
            absent.keep(Kept { frame, after: self.seq, sender: None });
        }
    }

    /// Queues what there is for single members, and has it written.
    fn send_told(&mut self) {
        for id in std::mem::take(&mut self.told) {
            let Some(member) = self.members.get_mut(&id) else { continue };
            if member.queue_own() {
                self.overflowed.push(id);
            }
            member.outbox.wake_writer();
        }
    }

    /// Queues all there is, one entry for each member, and has it written.
    fn send_pending(&mut self) {
        if self.pending.is_empty() {
            return self.send_told();
        }
        self.told.clear();
        self.only_notices = true;
        let pending: Frames = std::mem::take(&mut self.pending).into();
        METRICS
            .deliveries
            .inc_by(std::mem::take(&mut self.pending_messages) * self.members.len() as u64);
        for (&id, member) in &mut self.members {
            if member.queue(&pending) {
                self.overflowed.push(id);
            }
        }
        let roster = self
            .roster
            .get_or_insert_with(|| self.members.values().map(|m| m.outbox.line()).collect());
        self.sweeps.start(roster, self.sweep_first);
        self.sweep_first = self.sweep_first.wrapping_add(1);
    }

    fn member(&mut self, id: ClientId) -> &mut Member {
        self.members.get_mut(&id).expect("the hub names members only")
    }
}

/// Tells one message of a client from another, by whom it is for (`None` for everyone) and what it says. The keys are no
/// secret: a client that finds two messages alike fools itself.
fn digest(to: Option<&str>, content: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (to, content).hash(&mut hasher);
    hasher.finish()
}
