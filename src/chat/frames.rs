//! Encoded WebSocket frames, shared by everyone who gets them.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

/// One or more whole frames, encoded once for all recipients. It is the entry of a client's queue:
/// a single pointer, since each queue has space for many.
#[derive(Clone, Debug)]
pub struct Frames(Arc<Entry>);

#[derive(Debug)]
struct Entry {
    bytes: Vec<u8>,
    /// When it was queued. `None` if it was made earlier than that.
    queued: Option<Instant>,
}

impl Frames {
    /// Wraps frames that are made now and queued later, so that their time in a queue is unknown.
    pub fn made_before(bytes: Vec<u8>) -> Frames {
        Frames(Arc::new(Entry { bytes, queued: None }))
    }

    /// Returns when they were queued, if that is known.
    pub fn queued(&self) -> Option<Instant> {
        self.0.queued
    }
}

impl From<Vec<u8>> for Frames {
    /// Wraps frames that are queued at once.
    fn from(bytes: Vec<u8>) -> Frames {
        Frames(Arc::new(Entry { bytes, queued: Some(Instant::now()) }))
    }
}

impl Deref for Frames {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.bytes
    }
}
