//! A room: its members, its history, and how a turn's messages reach everyone in one entry.
//!
//! During a turn the frames for everyone gather in `pending`. What is for one member alone (a newcomer's welcome, a private
//! message, an error) gathers in that member's `own`, behind a copy of what `pending` held by then, so that nothing
//! overtakes anything; `seen` remembers how much that was. At the end of the turn each member gets one entry.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use crate::client::ClientId;
use crate::message::{CloseReason, Complaint, ErrorCode, ServerMessage, Timestamp, fold_case};
use crate::outbox::{Frames, Line, Outbox, Sweeps};

/// Bytes that gather in a turn before they are sent on, roughly: the largest entry is this and one message.
const PENDING_BYTES_MAX: usize = 16 * 1024;

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

    /// Queues what the turn has for this member, `pending` being what it has for everyone; an entry before that did not
    /// fit must not be followed by anything. Says whether the member has overflowed by it.
    fn queue(&mut self, pending: &Frames) -> bool {
        let seen = std::mem::take(&mut self.seen);
        let entry = match (self.own.is_empty(), seen) {
            (true, 0) => pending.clone(),
            _ => {
                let mut own = std::mem::take(&mut self.own);
                own.extend_from_slice(&pending[seen..]);
                own.into()
            }
        };
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
    /// The turn's frames for everyone.
    pending: Vec<u8>,
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
        self.announce(
            &ServerMessage::Join { user: &name, content: &content, room: &self.name.clone(), ts: now }.to_frame(),
        );
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
        self.announce(
            &ServerMessage::Leave { user: &name, content: &content, room: &self.name.clone(), ts: now }.to_frame(),
        );
    }

    /// A message from member `id` to everyone, kept as one of the last `history_max`.
    pub fn publish(&mut self, id: ClientId, content: &str, receipt: Option<&str>, history_max: usize, now: Timestamp) {
        self.seq += 1;
        let user = self.member(id).name.clone();
        let frame = ServerMessage::Public { user: &user, content, room: &self.name, seq: self.seq, receipt, ts: now }
            .to_frame();
        self.announce(&frame);
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

    /// Sends everyone what the turn has gathered, and names the members whose queues did not take it, who must go.
    pub fn flush(&mut self) -> Vec<ClientId> {
        self.dirty = false;
        self.send_pending();
        std::mem::take(&mut self.overflowed)
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
        self.pending.extend_from_slice(frame);
        if self.pending.len() >= PENDING_BYTES_MAX {
            self.send_pending();
        }
    }

    /// Adds a frame to what member `id` alone gets at the end of the turn.
    fn tell(&mut self, id: ClientId, frame: &[u8]) {
        let Some(member) = self.members.get_mut(&id) else { return };
        if member.own.is_empty() {
            self.told.push(id);
        }
        member.own.extend_from_slice(&self.pending[member.seen..]);
        member.own.extend_from_slice(frame);
        member.seen = self.pending.len();
        if member.own.len() >= PENDING_BYTES_MAX {
            self.send_pending();
        }
    }

    /// Queues what has gathered, one entry for each member it concerns, and has it written.
    fn send_pending(&mut self) {
        let told = std::mem::take(&mut self.told);
        let pending: Frames = std::mem::take(&mut self.pending).into();
        if pending.is_empty() {
            for id in told {
                let Some(member) = self.members.get_mut(&id) else { continue };
                if member.queue(&pending) {
                    self.overflowed.push(id);
                }
                member.outbox.wake_writer();
            }
            return;
        }
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
