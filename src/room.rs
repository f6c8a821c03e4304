//! A room: its members, its history, and how a turn's messages reach everyone in one entry.
//!
//! During a turn the frames for everyone gather in `pending`. A member that must be told something of its own in the
//! middle of a turn (a newcomer's welcome, a private message, an error) first gets its own copy of what has gathered so
//! far, so that nothing overtakes anything; its `seen` remembers how much that was.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use tungstenite::Bytes;

use crate::client::ClientId;
use crate::message::{CloseReason, Complaint, ErrorCode, ServerMessage, Timestamp, fold_case};
use crate::outbox::Outbox;

/// Bytes that gather in a turn before they are sent on, roughly: the largest entry is this and one message.
const PENDING_BYTES_MAX: usize = 16 * 1024;

/// A client in a room.
pub struct Member {
    name: Arc<str>,
    outbox: Outbox,
    /// How much of the turn's `pending` it has been sent already.
    seen: usize,
    /// Its queue was full: it has missed something, must not be sent anything more, and goes at the end of the turn.
    overflowed: bool,
}

impl Member {
    /// A newcomer by its name and the way to it.
    pub fn new(name: String, outbox: Outbox) -> Member {
        Member { name: name.into(), outbox, seen: 0, overflowed: false }
    }

    /// Queues an entry, unless an earlier one did not fit: a gap must not be followed by anything.
    fn send(&mut self, id: ClientId, frames: Bytes, overflowed: &mut Vec<ClientId>) {
        if !self.overflowed && self.outbox.try_send(frames).is_err() {
            self.overflowed = true;
            overflowed.push(id);
        }
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
    history: VecDeque<Bytes>,
    members: HashMap<ClientId, Member>,
    /// Who has which name, by the name with case folded.
    by_name: HashMap<String, ClientId>,
    /// The names as they are shown, sorted.
    names: BTreeMap<Arc<str>, ClientId>,
    /// The turn's frames for everyone.
    pending: Vec<u8>,
    /// Members that overflowed in this turn.
    overflowed: Vec<ClientId>,
    /// The hub knows that this turn has something for [`flush`](Room::flush).
    pub dirty: bool,
    /// Its place in the hub's order of empty rooms; `None` while somebody is here.
    pub empty_since: Option<u64>,
}

impl Room {
    /// An empty room with a life of its own.
    pub fn new(name: Arc<str>, epoch: String) -> Room {
        Room {
            name,
            epoch,
            seq: 0,
            history: VecDeque::new(),
            members: HashMap::new(),
            by_name: HashMap::new(),
            names: BTreeMap::new(),
            pending: Vec::new(),
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
    pub fn join(&mut self, id: ClientId, member: Member, now: Timestamp) {
        let name = member.name.clone();
        self.by_name.insert(fold_case(&name), id);
        self.names.insert(name.clone(), id);
        self.members.insert(id, member);

        let users: Vec<&str> = self.names.keys().map(|name| &**name).collect();
        let mut greeting = Vec::new();
        ServerMessage::Welcome {
            user: &name,
            room: &self.name,
            users: &users,
            epoch: &self.epoch,
            seq: self.seq,
            history: self.history.len(),
            recovered: false,
            ts: now,
        }
        .write_frame(&mut greeting);
        for frame in &self.history {
            greeting.extend_from_slice(frame);
        }
        // What has gathered in this turn is in the history, or happened before the newcomer came.
        self.member(id).seen = self.pending.len();
        self.send_to(id, greeting.into());

        let content = format!("{name} joined");
        self.announce(
            &ServerMessage::Join { user: &name, content: &content, room: &self.name.clone(), ts: now }.to_frame(),
        );
    }

    /// Takes a member out, closes its outbox for `reason`, and tells the others.
    pub fn leave(&mut self, id: ClientId, reason: CloseReason, now: Timestamp) {
        let Some(member) = self.members.remove(&id) else { return };
        self.by_name.remove(&fold_case(&member.name));
        self.names.remove(&member.name);
        let unseen = &self.pending[member.seen..];
        if !unseen.is_empty() && !member.overflowed {
            // A member that goes by itself may still see the receipt of its last words.
            let _ = member.outbox.try_send(Bytes::copy_from_slice(unseen));
        }
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
        self.send_to(id, frame.clone());
        if target != id {
            self.send_to(target, frame);
        }
    }

    /// Tells member `id` what was wrong with something it sent.
    pub fn complain(&mut self, id: ClientId, complaint: &Complaint, now: Timestamp) {
        let Complaint { code, content, receipt } = complaint;
        let receipt = receipt.as_deref();
        self.send_to(id, ServerMessage::Error { code: code.name(), content, receipt, ts: now }.to_frame());
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

    fn send_pending(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let frames = Bytes::from(std::mem::take(&mut self.pending));
        for (&id, member) in &mut self.members {
            let unseen = frames.slice(std::mem::take(&mut member.seen)..);
            if !unseen.is_empty() {
                member.send(id, unseen, &mut self.overflowed);
            }
        }
    }

    /// Sends one member a frame of its own, behind what the turn has gathered for everyone.
    fn send_to(&mut self, id: ClientId, frame: Bytes) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let unseen = &self.pending[member.seen..];
        let entry = if unseen.is_empty() { frame } else { [unseen, &frame].concat().into() };
        member.seen = self.pending.len();
        member.send(id, entry, &mut self.overflowed);
    }

    fn member(&mut self, id: ClientId) -> &mut Member {
        self.members.get_mut(&id).expect("the hub names members only")
    }
}
