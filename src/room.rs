//! A room: its members, its history, and how a turn's messages reach everyone in one entry.
//!
//! During a turn the frames for everyone gather in `pending`; in a crowd, notices of comings and goings stay there until
//! something is said or they are due. What is for one member alone (a newcomer's welcome, a private
//! message, an error) gathers in that member's `own`, behind a copy of what `pending` held by then, so that nothing
//! overtakes anything; `seen` remembers how much that was. At the end of the turn each member gets one entry.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use crate::client::ClientId;
use crate::message::{CloseReason, Complaint, ErrorCode, ServerMessage, Timestamp, fold_case};
use crate::outbox::{Frames, Line, Outbox, Sweeps};

/// Bytes that gather before they are sent on: an entry holds at most as much for everyone and as much for its member
/// alone, or one message that is larger.
const PENDING_BYTES_MAX: usize = 16 * 1024;

/// Members from which on a room is a crowd, where comings and goings are told together now and then. Told at once, a
/// thousand people who come within seconds would cost a million writes.
const CROWD_MEMBERS: usize = 100;

/// A client in a room.
pub struct Member {
    name: Arc<str>,
    outbox: Outbox,
    /// What the turn has for this member alone, in its place among what it has for everyone.
    own: Vec<u8>,
    /// How much of the turn's `pending` stands in `own` already, or is not for this member.
    seen: usize,
    /// Its queue was full: it has missed something, must not be sent anything more, and goes at the end of the turn.
    overflowed: bool,
}

impl Member {
    /// A newcomer by its name and the way to it.
    pub fn new(name: String, outbox: Outbox) -> Member {
        Member { name: name.into(), outbox, own: Vec::new(), seen: 0, overflowed: false }
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
    /// The last public messages, each a frame as it first went out.
    history: VecDeque<Vec<u8>>,
    /// The same in one piece for newcomers; made when needed, forgotten when it changes.
    history_frames: Option<Frames>,
    members: HashMap<ClientId, Member>,
    /// The members' lines, for sweeps; made when needed, forgotten when somebody joins or leaves.
    roster: Option<Arc<[Arc<Line>]>>,
    /// Where the next sweep begins.
    sweep_first: usize,
    sweeps: Sweeps,
    /// Who has which name, by the name with case folded.
    by_name: HashMap<String, ClientId>,
    /// The names as they are shown, sorted.
    names: BTreeMap<Arc<str>, ClientId>,
    /// The frames for everyone that have not been sent.
    pending: Vec<u8>,
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
            history_frames: None,
            members: HashMap::new(),
            roster: None,
            sweep_first: 0,
            sweeps,
            by_name: HashMap::new(),
            names: BTreeMap::new(),
            pending: Vec::new(),
            only_notices: true,
            notices_due: false,
            told: Vec::new(),
            overflowed: Vec::new(),
            dirty: false,
            empty_since: None,
        }
    }

    /// Whether nobody is here.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether a member has this name, whatever its case.
    pub fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(&fold_case(name))
    }

    /// Lets a newcomer in, whose name must be free: it gets the welcome and the history, and everyone the notice.
    pub fn join(&mut self, id: ClientId, mut member: Member, now: Timestamp) {
        let name = member.name.clone();
        self.by_name.insert(fold_case(&name), id);
        self.names.insert(name.clone(), id);
        let users: Vec<&str> = self.names.keys().map(|name| &**name).collect();
        let welcome = ServerMessage::Welcome {
            user: &name,
            room: &self.name,
            users: &users,
            epoch: &self.epoch,
            seq: self.seq,
            history: self.history.len(),
            recovered: false,
            ts: now,
        }
        .to_frame();
        let history = self.history_frames.get_or_insert_with(|| self.history.make_contiguous().concat().into());
        // A fresh queue has room for both.
        let _ = member.outbox.queue(welcome.into());
        if !history.is_empty() {
            let _ = member.outbox.queue(history.clone());
        }
        // What has gathered in this turn is in the history, or happened before the newcomer came.
        member.seen = self.pending.len();
        self.members.insert(id, member);
        self.roster = None;

        let content = format!("{name} joined");
        let notice = ServerMessage::Join { user: &name, content: &content, room: &self.name, ts: now }.to_frame();
        self.announce(&notice);
        // Its own it gets at once, also in a crowd.
        self.member(id).seen = self.pending.len();
        self.tell(id, &notice);
    }

    /// Takes a member out, closes its outbox for `reason`, and tells the others.
    pub fn leave(&mut self, id: ClientId, reason: CloseReason, now: Timestamp) {
        let Some(mut member) = self.members.remove(&id) else { return };
        self.roster = None;
        self.by_name.remove(&fold_case(&member.name));
        self.names.remove(&member.name);
        // A member that goes by itself may still see the receipt of its last words.
        member.queue(&self.pending.clone().into());
        member.outbox.close(reason);
        let name = member.name;
        let content = format!("{name} left");
        let notice = ServerMessage::Leave { user: &name, content: &content, room: &self.name, ts: now }.to_frame();
        self.announce(&notice);
    }

    /// A message from member `id` to everyone, kept as one of the last `history_max`.
    pub fn publish(&mut self, id: ClientId, content: &str, receipt: Option<&str>, history_max: usize, now: Timestamp) {
        self.seq += 1;
        let user = self.member(id).name.clone();
        let frame = ServerMessage::Public { user: &user, content, room: &self.name, seq: self.seq, receipt, ts: now }
            .to_frame();
        self.announce(&frame);
        self.only_notices = false;
        self.history_frames = None;
        self.history.push_back(frame);
        if self.history.len() > history_max {
            self.history.pop_front();
        }
    }

    /// A message from member `id` to the member called `to`.
    pub fn whisper(&mut self, id: ClientId, to: &str, content: &str, receipt: Option<&str>, now: Timestamp) {
        let Some(&target) = self.by_name.get(&fold_case(to)) else {
            let complaint = Complaint {
                code: ErrorCode::NoSuchUser,
                content: "nobody here has that name".into(),
                receipt: receipt.map(str::to_owned),
            };
            return self.complain(id, &complaint, now);
        };
        let (user, to) = (self.member(id).name.clone(), self.member(target).name.clone());
        let frame =
            ServerMessage::Private { user: &user, to: &to, content, room: &self.name, receipt, ts: now }.to_frame();
        self.tell(id, &frame);
        if target != id {
            self.tell(target, &frame);
        }
    }

    /// Tells member `id` what was wrong with something it sent.
    pub fn complain(&mut self, id: ClientId, complaint: &Complaint, now: Timestamp) {
        let Complaint { code, content, receipt } = complaint;
        let receipt = receipt.as_deref();
        self.tell(id, &ServerMessage::Error { code: code.name(), content, receipt, ts: now }.to_frame());
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
        for (&id, member) in &mut self.members {
            if member.queue(&pending) {
                self.overflowed.push(id);
            }
        }
        let roster = self.roster.get_or_insert_with(|| self.members.values().map(|m| m.outbox.line()).collect());
        self.sweeps.start(roster, self.sweep_first);
        self.sweep_first = self.sweep_first.wrapping_add(1);
    }

    fn member(&mut self, id: ClientId) -> &mut Member {
        self.members.get_mut(&id).expect("the hub names members only")
    }
}
