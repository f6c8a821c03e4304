//! What a room remembers: its last public messages, and which messages it knows by their `ref`.
//!
//! A `ref` is an idempotency key: a client that is not sure whether a message arrived sends it
//! again with the same one, and the room confirms it instead of delivering it twice.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::frames::Frames;
use super::inbox::Resume;
use super::members::Identity;
use crate::protocol::session::Session;

/// A `ref`, and the session it belongs to.
pub type Reference = (Session, Arc<str>);

/// A message's number among those of its kind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// The `seq` of a public message.
    Public(u64),
    /// A count of the private messages with a `ref`.
    Private(u64),
}

/// The history of one room.
pub struct History {
    /// Names one life of the room: `seq` starts again when it changes.
    epoch: String,
    /// Number of the newest public message.
    seq: u64,
    /// The last public messages.
    messages: VecDeque<PublicMessage>,
    /// Memory that their frames occupy.
    bytes: usize,
    /// Messages that are known by their `ref`.
    known: HashMap<Reference, Known>,
    /// The private ones among them; as many as `messages` may have.
    private: VecDeque<(Arc<Identity>, Reference)>,
    /// Number of the newest private message with a `ref`.
    private_seq: u64,
}

struct PublicMessage {
    /// Shared with every client that gets it again.
    frame: Frames,
    author: Arc<Identity>,
    reference: Option<Reference>,
}

/// What the room remembers of a message with a `ref`.
#[derive(Clone, Copy)]
struct Known {
    number: Number,
    /// Of its recipient and content. A client that uses a `ref` for something else sends a new
    /// message.
    digest: u64,
}

impl History {
    /// Creates an empty history.
    pub fn new(epoch: String) -> History {
        History {
            epoch,
            seq: 0,
            messages: VecDeque::new(),
            bytes: 0,
            known: HashMap::new(),
            private: VecDeque::new(),
            private_seq: 0,
        }
    }

    /// Names one life of the room: `seq` starts again when it changes.
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// Returns the number of the newest public message; 0 if there was none.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Returns how many public messages the room remembers.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// True if the room remembers no public message.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Returns how many of the newest public messages fit in `bytes_max` together.
    pub fn fitting(&self, bytes_max: usize) -> usize {
        let mut bytes = 0;
        let newest_first = self.messages.iter().rev();
        let fits = |message: &&PublicMessage| {
            bytes += message.frame.len();
            bytes <= bytes_max
        };
        newest_first.take_while(fits).count()
    }

    /// Returns the memory that the frames of the remembered messages occupy.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds public message number `seq() + 1`, and forgets the oldest if there are more than
    /// `messages_max`.
    pub fn add_public(
        &mut self,
        author: Arc<Identity>,
        content: &str,
        reference: Option<Reference>,
        frame: Vec<u8>,
        messages_max: usize,
    ) {
        self.seq += 1;
        if let Some(reference) = &reference {
            let known = Known { number: Number::Public(self.seq), digest: digest(None, content) };
            self.known.insert(reference.clone(), known);
        }
        let frame = Frames::untimed(frame);
        self.bytes += frame.memory();
        self.messages.push_back(PublicMessage { frame, author, reference });
        if self.messages.len() > messages_max {
            self.forget_oldest();
        }
    }

    /// Adds private message [`next_private`](History::next_private) to the member whose name folds
    /// to `to`. Forgets the oldest if there are more than `messages_max`.
    pub fn add_private(
        &mut self,
        author: Arc<Identity>,
        to: &str,
        content: &str,
        reference: Reference,
        messages_max: usize,
    ) {
        let number = self.next_private();
        self.private_seq += 1;
        let known = Known { number, digest: digest(Some(to), content) };
        self.known.insert(reference.clone(), known);
        self.private.push_back((author, reference));
        if self.private.len() > messages_max
            && let Some((_, oldest)) = self.private.pop_front()
        {
            self.forget(&oldest, Number::Private(self.private_seq - messages_max as u64));
        }
    }

    /// Returns the number that the next private message with a `ref` gets.
    pub fn next_private(&self) -> Number {
        Number::Private(self.private_seq + 1)
    }

    /// Returns the `seq` of the public message with this `ref` and content, if the room knows it.
    pub fn find_public(&self, reference: Option<&Reference>, content: &str) -> Option<u64> {
        let known = self.known.get(reference?)?;
        match known.number {
            Number::Public(seq) if known.digest == digest(None, content) => Some(seq),
            _ => None,
        }
    }

    /// True if the room knows a private message with this `ref`, recipient and content.
    pub fn has_private(&self, reference: Option<&Reference>, to: &str, content: &str) -> bool {
        let known = reference.and_then(|reference| self.known.get(reference));
        known.is_some_and(|known| {
            matches!(known.number, Number::Private(_)) && known.digest == digest(Some(to), content)
        })
    }

    /// Forgets a `ref`, unless it belongs to a later message by now.
    pub fn forget(&mut self, reference: &Reference, number: Number) {
        if self.known.get(reference).is_some_and(|known| known.number == number) {
            self.known.remove(reference);
        }
    }

    /// Forgets the older half of the public messages, or the only one.
    pub fn forget_older_half(&mut self) {
        (0..self.messages.len().div_ceil(2)).for_each(|_| self.forget_oldest());
    }

    fn forget_oldest(&mut self) {
        let Some(PublicMessage { frame, reference, .. }) = self.messages.pop_front() else {
            return;
        };
        self.bytes -= frame.memory();
        if let Some(reference) = reference {
            self.forget(&reference, Number::Public(self.seq - self.messages.len() as u64));
        }
    }

    /// True if the room remembers a message that was sent under this name and session.
    pub fn has_author(&self, key: &str, session: Session) -> bool {
        let public = self.messages.iter().map(|message| &message.author);
        let private = self.private.iter().map(|(author, _)| author);
        public.chain(private).any(|author| author.session == session && &*author.name.key == key)
    }

    /// Returns how many public messages a client missed; `None` if the room has forgotten some.
    pub fn missed(&self, resume: &Resume) -> Option<usize> {
        let missed = usize::try_from(self.seq.checked_sub(resume.since)?).ok()?;
        (resume.epoch == self.epoch && missed <= self.messages.len()).then_some(missed)
    }

    /// Returns the last `messages` public messages, oldest first, each with its `seq`.
    pub fn last(&self, messages: usize) -> impl Iterator<Item = (u64, &Frames)> {
        let seqs = self.seq - messages as u64 + 1..;
        let first = self.messages.len() - messages;
        seqs.zip(self.messages.range(first..).map(|message| &message.frame))
    }

    /// Returns the frame of public message `seq`, if the room remembers it.
    pub fn frame(&self, seq: u64) -> Option<&Frames> {
        let age = usize::try_from(self.seq.checked_sub(seq)?).ok()?;
        self.messages.iter().rev().nth(age).map(|message| &message.frame)
    }
}

/// Tells one message of a client from another, by its recipient (`None` for everyone) and content.
/// The keys are not secret: a client that finds two messages with one digest fools itself.
fn digest(to: Option<&str>, content: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (to, content).hash(&mut hasher);
    hasher.finish()
}
