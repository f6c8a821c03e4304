//! The connected members of a room, and what a turn has for each of them, in one entry.
//!
//! During a turn, frames for everyone gather in `pending`. In a crowd, notices of joins and leaves
//! stay there until somebody says something or they are due. What is for one member alone (a
//! private message, an error) gathers in that member's `own`, behind a copy of what `pending` held
//! by then, so that nothing overtakes anything. `covered` remembers how much of `pending` that was.
//! At the end of the turn each member gets one entry.

use std::collections::HashMap;
use std::sync::Arc;

use super::connection::ClientId;
use super::frames::Frames;
use super::outbox::{ENTRY_BYTES_MAX, Outbox};
use super::write_half::{Line, SweepQueue};
use crate::protocol::close::CloseReason;
use crate::protocol::name::Name;
use crate::protocol::session::Session;
use crate::system::metrics::METRICS;

/// Members from which on a room is a crowd, where notices of joins and leaves are sent together,
/// now and then. Sent at once, a thousand people who come within seconds would cost a million
/// writes.
const CROWD_MEMBERS: usize = 100;

/// Who somebody is, over all connections of one session.
pub struct Identity {
    /// The name, and the forms by which it is compared.
    pub name: Name,
    /// The secret by which the room recognises this member.
    pub session: Session,
}

/// The members of one room that are connected.
pub struct Members {
    by_id: HashMap<ClientId, Member>,
    /// Who has which name, by its key.
    by_key: HashMap<Arc<str>, ClientId>,
    /// Frames for everyone that are not queued yet.
    pending: Vec<u8>,
    /// Public messages among them.
    pending_messages: u64,
    /// True if `pending` holds only notices, for which a crowd can wait.
    only_notices: bool,
    /// Members with something of their own in this turn.
    with_own: Vec<ClientId>,
    /// Members whose queue was full in this turn.
    overflowed: Vec<ClientId>,
    /// The members' lines, for sweeps. Made when needed, dropped when a member joins or leaves.
    roster: Option<Arc<[Arc<Line>]>>,
    /// Where the next sweep starts.
    sweep_first: usize,
    sweeps: SweepQueue,
}

/// One connected member.
struct Member {
    identity: Arc<Identity>,
    outbox: Outbox,
    /// What the turn has for this member alone, in its place among the frames for everyone.
    own: Vec<u8>,
    /// How much of `pending` is in `own` already, or is not for this member.
    covered: usize,
    /// Its queue was full: it has missed something, gets nothing more, and leaves at the end of the
    /// turn.
    overflowed: bool,
}

impl Members {
    /// Creates an empty list. Its sweeps go through `sweeps`.
    pub fn new(sweeps: SweepQueue) -> Members {
        Members {
            by_id: HashMap::new(),
            by_key: HashMap::new(),
            pending: Vec::new(),
            pending_messages: 0,
            only_notices: true,
            with_own: Vec::new(),
            overflowed: Vec::new(),
            roster: None,
            sweep_first: 0,
            sweeps,
        }
    }

    /// True if no member is connected.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Returns the member whose name has this key.
    pub fn find(&self, key: &str) -> Option<ClientId> {
        self.by_key.get(key).copied()
    }

    /// Returns who member `id` is.
    pub fn identity(&self, id: ClientId) -> &Arc<Identity> {
        &self.by_id.get(&id).expect("the hub names members only").identity
    }

    /// Adds a member, which gets nothing of what the turn has gathered so far.
    pub fn insert(&mut self, id: ClientId, identity: Arc<Identity>, outbox: Outbox) {
        self.by_key.insert(identity.name.key.clone(), id);
        // What has gathered is in the history, or happened before this member joined.
        let covered = self.pending.len();
        let member = Member { identity, outbox, own: Vec::new(), covered, overflowed: false };
        self.by_id.insert(id, member);
        self.roster = None;
    }

    /// Removes a member and closes its connection for `reason`. What the turn has for it is written
    /// before the close frame.
    pub fn remove(&mut self, id: ClientId, reason: CloseReason) -> Option<Arc<Identity>> {
        let mut member = self.by_id.remove(&id)?;
        self.roster = None;
        self.by_key.remove(&member.identity.name.key);
        member.queue(&self.pending.clone().into());
        member.outbox.close(reason);
        Some(member.identity)
    }

    /// Ends the reading from member `id`, which has come back on another connection.
    pub fn stop_reading(&self, id: ClientId) {
        if let Some(member) = self.by_id.get(&id) {
            member.outbox.stop_reading();
        }
    }

    /// Adds a public message to what everyone gets in this turn.
    pub fn publish(&mut self, frame: &[u8]) {
        self.announce(frame);
        self.pending_messages += 1;
        self.only_notices = false;
    }

    /// Adds a notice to what everyone gets in this turn, or later in a crowd.
    pub fn announce(&mut self, frame: &[u8]) {
        if self.pending.len() + frame.len() > ENTRY_BYTES_MAX {
            self.queue_pending();
        }
        self.pending.extend_from_slice(frame);
    }

    /// Announces member `id` itself, which gets the notice in this turn, even in a crowd.
    pub fn announce_member(&mut self, id: ClientId, frame: &[u8]) {
        self.announce(frame);
        if let Some(member) = self.by_id.get_mut(&id) {
            member.covered = self.pending.len();
        }
        self.send_to(id, frame);
    }

    /// Adds a frame to what member `id` alone gets in this turn.
    pub fn send_to(&mut self, id: ClientId, frame: &[u8]) {
        let Some(member) = self.by_id.get_mut(&id) else { return };
        if member.own.len() + frame.len() > ENTRY_BYTES_MAX && member.queue_own() {
            self.overflowed.push(id);
        }
        if member.own.is_empty() {
            self.with_own.push(id);
        }
        member.own.extend_from_slice(&self.pending[member.covered..]);
        member.own.extend_from_slice(frame);
        member.covered = self.pending.len();
    }

    /// Gets the greeting of member `id` written in this turn, even if the turn has nothing else.
    pub fn write_greeting(&mut self, id: ClientId) {
        self.with_own.push(id);
    }

    /// Queues what the turn has gathered and gets it written. Returns the members whose queue was
    /// full, which must leave.
    ///
    /// In a crowd, notices alone wait until they are due.
    pub fn flush(&mut self, notices_due: bool) -> Vec<ClientId> {
        if self.only_notices && !notices_due && self.by_id.len() >= CROWD_MEMBERS {
            self.queue_own();
        } else {
            self.queue_pending();
        }
        std::mem::take(&mut self.overflowed)
    }

    /// True if notices wait until they are due.
    pub fn has_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Closes every connection for `reason`, after what the turn has gathered.
    pub fn close(&mut self, reason: CloseReason) {
        self.queue_pending();
        self.roster = None;
        for (_, member) in self.by_id.drain() {
            let reason = if member.overflowed { CloseReason::TooSlow } else { reason };
            member.outbox.close(reason);
        }
    }

    /// Queues what there is for single members, and gets it written.
    fn queue_own(&mut self) {
        for id in std::mem::take(&mut self.with_own) {
            let Some(member) = self.by_id.get_mut(&id) else { continue };
            if member.queue_own() {
                self.overflowed.push(id);
            }
            member.outbox.wake_writer();
        }
    }

    /// Queues everything there is, one entry for each member, and gets it written.
    fn queue_pending(&mut self) {
        if self.pending.is_empty() {
            return self.queue_own();
        }
        self.with_own.clear();
        self.only_notices = true;
        let pending: Frames = std::mem::take(&mut self.pending).into();
        let messages = std::mem::take(&mut self.pending_messages);
        METRICS.deliveries.inc_by(messages * self.by_id.len() as u64);
        for (&id, member) in &mut self.by_id {
            if member.queue(&pending) {
                self.overflowed.push(id);
            }
        }
        let roster = self.roster.get_or_insert_with(|| {
            self.by_id.values().map(|member| member.outbox.line()).collect()
        });
        self.sweeps.start(roster, self.sweep_first);
        self.sweep_first = self.sweep_first.wrapping_add(1);
    }
}

impl Member {
    /// Queues all there is for this member; `pending` is what there is for everyone. Returns true
    /// if its queue was full.
    fn queue(&mut self, pending: &Frames) -> bool {
        let covered = std::mem::take(&mut self.covered);
        if self.own.is_empty() && covered == 0 {
            return self.queue_entry(pending.clone());
        }
        self.own.extend_from_slice(&pending[covered..]);
        self.queue_own()
    }

    /// Queues what there is for this member alone. Returns true if its queue was full.
    fn queue_own(&mut self) -> bool {
        let own = std::mem::take(&mut self.own);
        self.queue_entry(own.into())
    }

    /// Queues an entry. Nothing may follow one that did not fit.
    fn queue_entry(&mut self, entry: Frames) -> bool {
        if entry.is_empty() || self.overflowed {
            return false;
        }
        self.overflowed = self.outbox.queue(entry).is_err();
        self.overflowed
    }
}
