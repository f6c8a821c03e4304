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
    /// Further frames that follow `bytes`.
    rest: Vec<Frames>,
    /// When it was queued. `None` if it was made earlier than that.
    queued: Option<Instant>,
}

impl Frames {
    /// Wraps frames that are made now and queued later, so that their time in a queue is unknown.
    pub fn untimed(bytes: Vec<u8>) -> Frames {
        Frames(Arc::new(Entry { bytes, rest: Vec::new(), queued: None }))
    }

    /// Puts a frame in front of others, which stay shared and are not copied. `rest` must not have
    /// a rest of its own.
    pub fn with_rest(bytes: Vec<u8>, rest: Vec<Frames>) -> Frames {
        Frames(Arc::new(Entry { bytes, rest, queued: Some(Instant::now()) }))
    }

    /// Returns the frames that follow these bytes.
    pub fn rest(&self) -> &[Frames] {
        &self.0.rest
    }

    /// Returns the length of all frames, in bytes.
    pub fn total_len(&self) -> usize {
        self.len() + self.rest().iter().map(|frames| frames.len()).sum::<usize>()
    }

    /// Returns the memory that the bytes occupy, without the rest.
    pub fn memory(&self) -> usize {
        self.0.bytes.capacity()
    }

    /// Returns when they were queued, if that is known.
    pub fn queued(&self) -> Option<Instant> {
        self.0.queued
    }
}

impl From<Vec<u8>> for Frames {
    /// Wraps frames that are queued at once.
    fn from(bytes: Vec<u8>) -> Frames {
        Frames::with_rest(bytes, Vec::new())
    }
}

impl Deref for Frames {
    type Target = [u8];

    /// The bytes without [`rest`](Frames::rest).
    fn deref(&self) -> &[u8] {
        &self.0.bytes
    }
}
