//! The queue between the hub and a client's writer, and the only code that writes to a chat socket.
//!
//! A queue has three ends. The hub holds the [`Outbox`]; dropping it closes the client. The client's reader holds the
//! [`Controls`], through which it answers pings. The client's writer holds the [`Mail`] and sleeps while it is empty.
//!
//! The writer does not block in `recv`: crossbeam spins and yields before it sleeps, which costs more than the write
//! itself when many clients wait. It takes what is there with `try_recv` and parks; whoever queues something unparks
//! it. A token left by an early `unpark` makes the next `park` return at once, so no wake-up is lost.

use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use tungstenite::Bytes;

use crate::message::CloseReason;

/// Control frames from the reader that wait for the writer. Pings beyond this many are answered as fast as the client
/// takes the answers: its reader waits.
const CONTROLS_MAX: usize = 16;

/// Makes the queue of one client, with room for `entries` entries from the hub.
pub fn channel(entries: usize) -> (Outbox, Controls, Mail) {
    let (queue_in, queue_out) = bounded(entries);
    let (controls_in, controls_out) = bounded(CONTROLS_MAX);
    let state = Arc::new(State::default());
    (
        Outbox { queue: Some(queue_in), state: state.clone() },
        Controls { queue: controls_in, state: state.clone() },
        Mail { queue: queue_out, controls: controls_out, state, batch: Vec::new(), last_call: None },
    )
}

/// What the three ends share.
#[derive(Default)]
struct State {
    /// Why the connection ends, from whoever found out first.
    reason: OnceLock<CloseReason>,
    /// The thread to unpark, known once it has been spawned and before anything is queued.
    writer: OnceLock<Thread>,
    /// The reader has seen the end of the stream: nothing is left to linger for.
    reader_done: AtomicBool,
}

impl State {
    fn wake_writer(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }
}

/// The hub's end. Dropping it ends the connection once the queue has been written.
pub struct Outbox {
    /// `None` only while being dropped.
    queue: Option<Sender<Bytes>>,
    state: Arc<State>,
}

/// An entry was not queued: the client is too slow, or its writer has ended. Either way it misses something now.
#[derive(Debug, PartialEq, Eq)]
pub struct NotQueued;

impl Outbox {
    /// Queues `frames`, one or more whole frames, and wakes the writer. Never blocks.
    ///
    /// # Errors
    /// [`NotQueued`] when the queue is full or the writer has ended.
    pub fn try_send(&self, frames: Bytes) -> Result<(), NotQueued> {
        let Some(queue) = &self.queue else { return Err(NotQueued) };
        queue.try_send(frames).map_err(|_| NotQueued)?;
        self.state.wake_writer();
        Ok(())
    }

    /// Ends the connection for `reason`: what is queued goes out, then the close frame.
    pub fn close(self, reason: CloseReason) {
        // Somebody who saw the reason earlier has told it already.
        let _ = self.state.reason.set(reason);
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        // The writer sees the end of the queue only if the sender is gone before it wakes.
        self.queue = None;
        self.state.wake_writer();
    }
}

/// The reader's end, for whole control frames. Dropping it tells the writer that the reader has seen the end.
pub struct Controls {
    queue: Sender<Bytes>,
    state: Arc<State>,
}

impl Controls {
    /// Names the thread that the ends of this queue wake. To be called before the outbox is given away.
    pub fn set_writer(&self, writer: Thread) {
        let _ = self.state.writer.set(writer);
    }

    /// Queues a control frame. Blocks while too many are waiting, so a flood of pings is read no faster than it is
    /// answered.
    pub fn send(&self, frame: Bytes) {
        // Without a writer there is no connection left to answer on.
        if self.queue.send(frame).is_ok() {
            self.state.wake_writer();
        }
    }

    /// Why the connection ended, as far as anybody knows.
    pub fn reason(&self) -> Option<CloseReason> {
        self.state.reason.get().copied()
    }
}

impl Drop for Controls {
    fn drop(&mut self) {
        self.state.reader_done.store(true, Ordering::Release);
        self.state.wake_writer();
    }
}

/// Whether the hub still holds its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// More may come.
    Open,
    /// The hub has closed the outbox, and everything it queued has been taken.
    Closed,
}

/// The writer's end.
pub struct Mail {
    queue: Receiver<Bytes>,
    controls: Receiver<Bytes>,
    state: Arc<State>,
    /// Taken from the queues and being written; kept for its capacity.
    batch: Vec<Bytes>,
    /// When a closed connection must have taken all that was queued.
    last_call: Option<Instant>,
}

impl Mail {
    /// Takes everything that is queued, control frames first.
    pub fn take(&mut self, batch: &mut Vec<Bytes>) -> Status {
        batch.extend(self.controls.try_iter());
        loop {
            match self.queue.try_recv() {
                Ok(frames) => batch.push(frames),
                Err(TryRecvError::Empty) => return Status::Open,
                Err(TryRecvError::Disconnected) => return Status::Closed,
            }
        }
    }

    /// Writes everything that is queued, in one system call where the socket takes it.
    ///
    /// # Errors
    /// What the socket says, and [`ErrorKind::TimedOut`] when the client has not taken the batch within `timeout`;
    /// after the hub has closed the outbox, `timeout` counts once for all that is left.
    pub fn write_queued(&mut self, stream: &TcpStream, timeout: Duration) -> io::Result<Status> {
        let mut batch = std::mem::take(&mut self.batch);
        let status = self.take(&mut batch);
        let written = self.write_batch(stream, &batch, timeout);
        batch.clear();
        self.batch = batch;
        written.map(|()| status)
    }

    /// Writes one frame that does not come from the queue.
    ///
    /// # Errors
    /// As [`write_queued`](Mail::write_queued).
    pub fn write(&mut self, stream: &TcpStream, frame: Bytes, timeout: Duration) -> io::Result<()> {
        self.write_batch(stream, &[frame], timeout)
    }

    /// The socket's own timeout counts anew at each call, so a client that takes a byte now and then could hold the
    /// writer for ever. The deadline is for the whole batch.
    fn write_batch(&mut self, stream: &TcpStream, batch: &[Bytes], timeout: Duration) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let deadline = match self.reason() {
            None => Instant::now() + timeout,
            Some(_) => *self.last_call.get_or_insert_with(|| Instant::now() + timeout),
        };
        let mut slices: Vec<IoSlice> = batch.iter().map(|frames| IoSlice::new(frames)).collect();
        let mut rest = &mut slices[..];
        let mut socket = stream;
        let mut shortened = false;
        loop {
            match socket.write_vectored(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
                Err(error) => return Err(error),
            }
            if rest.is_empty() {
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            stream.set_write_timeout(Some(left))?;
            shortened = true;
        }
        if shortened {
            stream.set_write_timeout(Some(timeout))?;
        }
        Ok(())
    }

    /// Sleeps until something is queued, the hub closes the outbox, the reader ends, or `timeout` is over. May also
    /// return for no reason.
    pub fn wait(&self, timeout: Duration) {
        thread::park_timeout(timeout);
    }

    /// Why the connection ends, once somebody knows.
    pub fn reason(&self) -> Option<CloseReason> {
        self.state.reason.get().copied()
    }

    /// Notes why the connection ends, unless that is known already.
    pub fn set_reason(&self, reason: CloseReason) {
        let _ = self.state.reason.set(reason);
    }

    /// Whether the reader has seen the end of the stream.
    pub fn reader_done(&self) -> bool {
        self.state.reader_done.load(Ordering::Acquire)
    }
}
