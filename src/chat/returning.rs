//! Clients that come back while messages of their older connection still wait in its backlog.
//!
//! They join when the backlog is handed over. So a member's messages keep their order over all its
//! connections, and none is lost.

use std::collections::{HashMap, HashSet};

use super::connection::ClientId;
use super::inbox::{BACKLOG_BYTES_MAX, Event, Newcomer};
use crate::protocol::close::CloseReason;

/// Who has a backlog, and who waits behind it.
#[derive(Default)]
pub struct Returning {
    /// Clients whose reader has a backlog.
    slowed: HashSet<ClientId>,
    /// Who waits, by the id of the older connection.
    waiting: HashMap<ClientId, Waiting>,
    /// The older connection behind which each of them waits.
    behind: HashMap<ClientId, ClientId>,
}

/// One client that waits.
struct Waiting {
    newcomer: Newcomer,
    /// What it has sent in the meantime.
    events: Vec<Event>,
    /// Memory that these take.
    bytes: usize,
}

impl Returning {
    /// Notes that client `id` has a backlog.
    pub fn slowed(&mut self, id: ClientId) {
        self.slowed.insert(id);
    }

    /// True if client `id` has a backlog.
    pub fn has_backlog(&self, id: ClientId) -> bool {
        self.slowed.contains(&id)
    }

    /// Lets `newcomer` wait until the backlog of its older connection is handed over. Another one
    /// that waited there is closed.
    pub fn wait(&mut self, newcomer: Newcomer, older: ClientId) {
        self.behind.insert(newcomer.id, older);
        let waiting = Waiting { newcomer, events: Vec::new(), bytes: 0 };
        if let Some(Waiting { newcomer, .. }) = self.waiting.insert(older, waiting) {
            self.behind.remove(&newcomer.id);
            newcomer.outbox.close(CloseReason::Replaced);
        }
    }

    /// Holds an event of a client that waits. Returns any other event.
    ///
    /// A client that sends more than a backlog holds is closed.
    pub fn hold(&mut self, event: Event) -> Option<Event> {
        if self.behind.is_empty() {
            return Some(event);
        }
        let (id, bytes) = match &event {
            Event::Publish { id, content, .. } => (id, content.len()),
            Event::Whisper { id, to, content, .. } => {
                (id, to.typed.len() + to.key.len() + content.len())
            }
            Event::Invalid { id, .. } | Event::Slowed { id } | Event::CaughtUp { id } => (id, 0),
            _ => return Some(event),
        };
        let Some(older) = self.behind.get(id).copied() else { return Some(event) };
        let waiting = self.waiting.get_mut(&older)?;
        waiting.bytes += bytes + size_of::<Event>();
        waiting.events.push(event);
        if waiting.bytes > BACKLOG_BYTES_MAX
            && let Some(Waiting { newcomer, .. }) = self.waiting.remove(&older)
        {
            self.behind.remove(&newcomer.id);
            newcomer.outbox.close(CloseReason::TooSlow);
        }
        None
    }

    /// Notes that client `id` has no backlog any more. Returns the client that waited behind it,
    /// and what it has sent.
    pub fn caught_up(&mut self, id: ClientId) -> Option<(Newcomer, Vec<Event>)> {
        if !self.slowed.remove(&id) {
            return None;
        }
        let Waiting { newcomer, events, .. } = self.waiting.remove(&id)?;
        self.behind.remove(&newcomer.id);
        Some((newcomer, events))
    }

    /// Closes client `id` for `reason`, if it waits.
    pub fn leave(&mut self, id: ClientId, reason: CloseReason) {
        let older = self.behind.remove(&id);
        if let Some(waiting) = older.and_then(|older| self.waiting.remove(&older)) {
            waiting.newcomer.outbox.close(reason);
        }
    }

    /// Closes every client that waits, for `reason`.
    pub fn close(&mut self, reason: CloseReason) {
        self.behind.clear();
        for (_, waiting) in self.waiting.drain() {
            waiting.newcomer.outbox.close(reason);
        }
    }
}
