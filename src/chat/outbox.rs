//! Hub to client: a bounded queue and its ends.
//!
//! The queue has three ends. The hub holds the [`Outbox`]: it queues with `try_send`, and dropping
//! it closes the client. The client's reader holds the [`ReaderEnd`], through which it replies to
//! pings. The client's writer holds the [`WriterEnd`], and sleeps while there is nothing to write.
//!
//! A queue is bounded in entries and in bytes. One that is full means that the client reads more
//! slowly than its room talks: the hub drops it, and never waits for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::Thread;

use crossbeam_channel::{Sender, bounded};

use super::frames::Frames;
use super::write_half::{Line, SweepQueue, WriterEnd};
use crate::config::Config;
use crate::protocol::close::CloseReason;
use crate::protocol::message::{ServerMessage, frame_bytes_max, now};

/// Bytes that gather in a turn before they are queued. An entry holds at most this much for
/// everyone and as much for its member alone, or one message that is larger.
pub const ENTRY_BYTES_MAX: usize = 16 * 1024;
/// Number of messages of maximum size for which a queue always has space.
const QUEUE_MESSAGES_MIN: u64 = 8;
/// Control frames from the reader that wait for the writer. More of them push out the oldest: only
/// the newest ping needs an answer (RFC 6455, 5.5.3).
const REPLIES_MAX: usize = 16;
/// Entries with which a newcomer is greeted: the welcome, with the history behind it.
const GREETING_ENTRIES: usize = 1;

/// The hub's end. Dropping it ends the connection once everything queued is written.
pub struct Outbox {
    /// `None` only while it is being dropped.
    queue: Option<Sender<Frames>>,
    /// Bytes that may wait.
    bytes_max: u64,
    /// Bytes queued so far.
    queued: u64,
    /// What `queued` may grow to before the hub looks again how much the writers have taken.
    granted: u64,
    line: Arc<Line>,
}

/// An entry was not queued: the client is too slow, and misses something from now on.
#[derive(Debug, PartialEq, Eq)]
pub struct QueueFull;

/// Makes the queue of one client, with space for a greeting and `entries` entries from the hub, of
/// `bytes` bytes together.
///
/// Not inlined, so that its stack is free again for what follows.
#[inline(never)]
pub fn channel(entries: usize, bytes: u64, sweeps: &SweepQueue) -> (Outbox, ReaderEnd, WriterEnd) {
    let (queue, queued) = bounded(entries + GREETING_ENTRIES);
    let line = Arc::new(Line::new(queued));
    let (bytes_max, granted) = (bytes, bytes);
    (
        Outbox { queue: Some(queue), bytes_max, queued: 0, granted, line: line.clone() },
        ReaderEnd { line: line.clone() },
        WriterEnd::new(line, sweeps.clone()),
    )
}

/// Returns how many bytes may wait for a client: `--queue-bytes`, or what a burst of the longest
/// messages takes if that is more, since nobody can have read those in the meantime.
pub fn bytes_max(config: &Config) -> u64 {
    let longest = frame_bytes_max(config.max_message_bytes).max(ENTRY_BYTES_MAX);
    config.queue_bytes.max(QUEUE_MESSAGES_MIN * longest as u64)
}

impl Outbox {
    /// Queues frames. Never blocks. They are written after [`Outbox::wake_writer`] or in a sweep.
    ///
    /// # Errors
    /// [`QueueFull`] if the queue is full, in entries or in bytes. An empty queue accepts frames of
    /// any size.
    pub fn queue(&mut self, frames: Frames) -> Result<(), QueueFull> {
        let queued = self.queued + frames.total_len() as u64;
        if queued > self.granted {
            let taken = self.line.taken();
            self.granted = taken.saturating_add(self.bytes_max);
            if queued > self.granted && taken < self.queued {
                return Err(QueueFull);
            }
        }
        let Some(queue) = &self.queue else { return Err(QueueFull) };
        queue.try_send(frames).map_err(|_| QueueFull)?;
        self.queued = queued;
        Ok(())
    }

    /// Queues the greeting, for which a new queue has space, however long it is.
    pub fn greet(&mut self, frames: Frames) {
        self.granted = self.granted.saturating_add(frames.total_len() as u64);
        let fits = self.queue(frames).is_ok();
        debug_assert!(fits, "a new queue has space for a greeting");
    }

    /// Ends the connection for `reason`: what is queued is written, then the close frame.
    pub fn close(self, reason: CloseReason) {
        // The first reason counts: another thread may have found one before.
        self.line.set_reason(reason);
        // `self` is dropped here, which closes the queue.
    }

    /// Refuses a newcomer: sends what it can do about it, if anything, then closes.
    ///
    /// Not inlined, so that its stack is free again for what follows.
    #[inline(never)]
    pub fn refuse(mut self, reason: CloseReason, advice: Option<&str>) {
        if let Some(advice) = advice {
            let error = ServerMessage::Error {
                code: reason.name(),
                content: advice,
                reference: None,
                ts: now(),
            };
            self.greet(error.to_frame().into());
        }
        self.close(reason);
    }

    /// Ends the reading from a client that has come back on another connection. It stays a member
    /// until what it sent is handed over.
    pub fn stop_reading(&self) {
        self.line.set_reason(CloseReason::Replaced);
    }

    /// Wakes the client's writer, to write what is queued.
    pub fn wake_writer(&self) {
        self.line.wake_writer();
    }

    /// Returns the line, for a roster.
    pub fn line(&self) -> Arc<Line> {
        self.line.clone()
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        // The writer sees the end of the queue only if the sender is dropped before it wakes.
        self.queue = None;
        self.line.outbox_closed.store(true, Ordering::SeqCst);
        self.line.wake_writer();
    }
}

/// The reader's end, for whole control frames. Dropping it tells the writer that the reader has
/// seen the end of the stream.
pub struct ReaderEnd {
    line: Arc<Line>,
}

impl ReaderEnd {
    /// Names the thread that writes. Must be called before the outbox is given away.
    pub fn set_writer(&self, writer: Thread) {
        let _ = self.line.writer.set(writer);
    }

    /// Queues a control frame. Never blocks: if `REPLIES_MAX` wait, the oldest is dropped.
    pub fn send(&self, frame: Frames) {
        let mut replies = self.line.lock_replies();
        if replies.len() == REPLIES_MAX {
            replies.pop_front();
        }
        replies.push_back(frame);
        drop(replies);
        self.line.replies_queued.store(true, Ordering::SeqCst);
        self.line.wake_writer();
    }

    /// Has the close frame for `reason` sent at once, although the client stays a member until its
    /// backlog is handed over.
    pub fn close(&self, reason: CloseReason) {
        self.line.set_reason(reason);
        self.line.close_requested.store(true, Ordering::Release);
        self.line.wake_writer();
    }

    /// True if the client is not a member any more: nobody would get what it sent.
    pub fn outbox_closed(&self) -> bool {
        self.line.outbox_closed.load(Ordering::SeqCst)
    }

    /// True if the connection is being closed or has no writer any more: what is still received
    /// need not be handled.
    pub fn over(&self) -> bool {
        self.line.ended.load(Ordering::SeqCst) || self.line.reason().is_some()
    }

    /// Returns why the connection ended, if any thread knows.
    pub fn reason(&self) -> Option<CloseReason> {
        self.line.reason()
    }
}

impl Drop for ReaderEnd {
    fn drop(&mut self) {
        self.line.reader_done.store(true, Ordering::Release);
        self.line.wake_writer();
    }
}
