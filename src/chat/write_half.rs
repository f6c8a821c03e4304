//! One writer at a time on a socket, and how writers help their neighbours. The only code that
//! writes to a chat socket.
//!
//! # Writers help their neighbours
//!
//! A message to a thousand members is a thousand writes of a few microseconds each, and waking a
//! thousand writers would cost more than the writes. So after the hub has queued a room's frames,
//! it starts a sweep: it wakes a few writers, at most one for each processor. Each of them writes
//! its own client's queue, and then takes further members of the room in turn until all were
//! visited. Everybody else sleeps on.
//!
//! - One writer at a time on a socket: the lock `Line::writing`. A helper only tries it. If it
//!   fails, or if the socket takes no more, the helper wakes the line's own writer to finish. So no
//!   entry is left lying, and a slow client costs nobody but its own thread, the only one that ever
//!   blocks on its socket.
//! - Entries are taken and written under that lock, so each client's order holds, whoever writes.
//! - A writer that is about to block on its socket, or to end, first says so
//!   (`Line::unavailable`) and then helps once more with what is wanted. The hub first asks for
//!   help and then looks for available writers. So in whatever order these four steps happen,
//!   either the hub sees that it must wake another, or the writer sees the sweep.
//! - A writer that was woken takes sweeps until none is left. So while an earlier sweep waits for a
//!   writer that was available, a further one need not wake anybody: a turn with something for
//!   fifty rooms does not wake fifty writers.
//!
//! # Why not `recv`
//!
//! crossbeam spins and yields before it sleeps, which costs more than a write. A writer takes what
//! is there with `try_recv` and parks, and whoever needs it unparks it. An early `unpark` makes the
//! next `park` return at once, so no wake-up is lost.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::net::TcpStream;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use socket2::SockRef;

use super::connection::Connection;
use super::frames::Frames;
use crate::protocol::close::CloseReason;
use crate::system::metrics::WriteTally;

/// How fast a client must take what is written to it: it is carried at that speed, as long as its
/// queue holds what is behind. A modem of 56 kbit/s is faster.
pub const LEAST_BYTES_PER_SECOND: u64 = 4 * 1024;
/// Entries handed to the system in one call.
const WRITE_ENTRIES_MAX: usize = 16;
/// Sweeps that may wait for helpers; one sweep takes as many places as it wants helpers. If there
/// were ever more, the hub would wake everybody in the room.
const SWEEPS_MAX: usize = 64;
/// Members for which it is worth waking one more helper.
const HELPER_MEMBERS: usize = 64;

/// The writer's end of a client's queue.
pub struct WriterEnd {
    line: Arc<Line>,
    sweeps: SweepQueue,
    /// When a connection that is being closed must have taken everything queued.
    last_call: Option<Instant>,
}

impl WriterEnd {
    /// Creates the writer's end of `line`. Its writer helps with what is in `sweeps`.
    pub fn new(line: Arc<Line>, sweeps: SweepQueue) -> WriterEnd {
        WriterEnd { line, sweeps, last_call: None }
    }

    /// Writes everything queued, then helps where help is wanted.
    ///
    /// # Errors
    /// What the socket says, and [`ErrorKind::TimedOut`] if a full socket takes less than
    /// [`LEAST_BYTES_PER_SECOND`] for `timeout`. Once the connection is being closed, `timeout` is
    /// for all that is left.
    pub fn write_queued(&mut self, stream: &TcpStream, timeout: Duration) -> io::Result<Status> {
        let mut tally = WriteTally::default();
        let status = loop {
            // A statement of its own, so that the lock is released at its end.
            let written = self.line.lock().write_queue(&self.line, stream, &mut tally)?;
            match written {
                Written::All(status) => break status,
                Written::Partly => self.wait_for_socket(stream, timeout)?,
            }
        };
        if self.sweeps.help() == Help::More {
            // More sweeps wait. Unpark, so that the next `wait` returns at once, after the ping.
            thread::current().unpark();
        }
        Ok(status)
    }

    /// Writes one frame that does not come from the queue, behind everything taken from it.
    ///
    /// # Errors
    /// As [`write_queued`](WriterEnd::write_queued).
    pub fn write(
        &mut self,
        stream: &TcpStream,
        frame: Frames,
        timeout: Duration,
    ) -> io::Result<()> {
        self.line.lock().entries.push_back(frame);
        self.write_queued(stream, timeout).map(drop)
    }

    /// Writes the close frame, behind everything taken from the queue. Nothing is written after it.
    ///
    /// # Errors
    /// As [`write_queued`](WriterEnd::write_queued).
    pub fn write_last(
        &mut self,
        stream: &TcpStream,
        frame: Frames,
        timeout: Duration,
    ) -> io::Result<()> {
        self.line.lock().closing = true;
        self.write(stream, frame, timeout)
    }

    /// Blocks until the socket takes what it was too full for. Only a client's own writer does
    /// this.
    fn wait_for_socket(&mut self, stream: &TcpStream, timeout: Duration) -> io::Result<()> {
        self.become_unavailable();
        let now = Instant::now();
        let (deadline, window) = match self.reason() {
            None => (now + timeout, Some(timeout)),
            Some(_) => (*self.last_call.get_or_insert(now + timeout), None),
        };
        self.line.lock().write_by(stream, deadline, window)?;
        self.line.unavailable.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Marks this writer as busy, so that the hub wakes others. It first finishes the sweeps for
    /// which it was already woken.
    pub fn become_unavailable(&self) {
        self.line.unavailable.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        while self.sweeps.help() == Help::More && !self.sweeps.hand_over() {}
    }

    /// Sleeps until something is queued, help is wanted, the hub closes the outbox, the reader
    /// ends, or `timeout` has passed. May also return for no reason.
    pub fn wait(&self, timeout: Duration) {
        thread::park_timeout(timeout);
    }

    /// Names the connection to which the writer and its helpers write.
    pub fn set_connection(&mut self, connection: &Arc<Connection>) {
        self.line.lock().connection = Some(connection.clone());
    }

    /// Puts frames before everything queued. They take no space in the queue.
    pub fn put_first(&mut self, frames: Frames) {
        self.line.lock().entries.push_front(frames);
    }

    /// Takes what is queued without writing it, for tests of the hub.
    pub fn take(&mut self) -> (Vec<Frames>, Status) {
        let mut writing = self.line.lock();
        let mut taken = Vec::new();
        loop {
            let status = writing.take(&self.line);
            taken.extend(writing.entries.drain(..));
            if let Some(status) = status {
                return (taken, status);
            }
        }
    }

    /// Returns why the connection ends, once any thread knows.
    pub fn reason(&self) -> Option<CloseReason> {
        self.line.reason()
    }

    /// Notes why the connection ends, unless that is known already.
    pub fn set_reason(&self, reason: CloseReason) {
        self.line.set_reason(reason);
    }

    /// True if the reader asks to close without waiting for the hub.
    pub fn close_requested(&self) -> bool {
        self.line.close_requested.load(Ordering::Acquire)
    }

    /// Ends all writing to the socket, by helpers too.
    pub fn release_socket(&self) {
        let mut writing = self.line.lock();
        writing.connection = None;
        writing.entries.clear();
        self.line.ended.store(true, Ordering::SeqCst);
    }

    /// Takes and drops what is queued, until the hub closes the outbox.
    ///
    /// A client that has gone stays a member while messages that it sent still wait in its backlog.
    /// Its queue must not fill up in that time, or the hub would take it for too slow.
    pub fn discard_until_closed(&self) {
        loop {
            match self.line.queue.try_recv() {
                Ok(frames) => {
                    self.line.taken.fetch_add(frames.total_len() as u64, Ordering::Relaxed);
                }
                Err(TryRecvError::Empty) => thread::park(),
                Err(TryRecvError::Disconnected) => return,
            }
        }
    }

    /// True if the reader has seen the end of the stream.
    pub fn reader_done(&self) -> bool {
        self.line.reader_done.load(Ordering::Acquire)
    }
}

impl Drop for WriterEnd {
    fn drop(&mut self) {
        self.release_socket();
        // A writer that ends normally did this before, but not one that panics. Last, since helping
        // may panic.
        self.become_unavailable();
    }
}

/// What the three ends of one client's queue share, and helpers use.
pub struct Line {
    queue: Receiver<Frames>,
    /// Bytes taken from `queue` so far. Only the thread that holds `writing` adds to it, or the
    /// writer once nobody else can.
    taken: AtomicU64,
    /// Control frames from the reader.
    pub(super) replies: Mutex<VecDeque<Frames>>,
    /// True if `replies` is worth a look. It is mostly empty, and a look costs as much as an entry.
    pub(super) replies_queued: AtomicBool,
    /// Whoever holds it may take entries and write to the socket.
    writing: Mutex<Writing>,
    /// The thread that writes. Set before anything is queued.
    pub(super) writer: OnceLock<Thread>,
    /// The writer can't help with a sweep: it blocks on its own socket, or is about to end.
    unavailable: AtomicBool,
    /// Nothing is written to the socket any more.
    pub(super) ended: AtomicBool,
    /// Why the connection ends, from whoever found out first.
    reason: OnceLock<CloseReason>,
    /// The reader has seen the end of the stream: there is no reason left to linger.
    pub(super) reader_done: AtomicBool,
    /// The reader wants the close frame to be sent now, although the client is still a member.
    pub(super) close_requested: AtomicBool,
    /// The hub has closed the outbox: the client is not a member any more.
    pub(super) outbox_closed: AtomicBool,
}

impl Line {
    /// Creates the line of a queue whose entries come out of `queue`.
    pub fn new(queue: Receiver<Frames>) -> Line {
        Line {
            queue,
            taken: AtomicU64::new(0),
            replies: Mutex::default(),
            replies_queued: AtomicBool::new(false),
            writing: Mutex::default(),
            writer: OnceLock::new(),
            unavailable: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            reason: OnceLock::new(),
            reader_done: AtomicBool::new(false),
            close_requested: AtomicBool::new(false),
            outbox_closed: AtomicBool::new(false),
        }
    }

    /// Returns how many bytes were taken from the queue so far.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Returns why the connection ends, once any thread knows.
    pub fn reason(&self) -> Option<CloseReason> {
        self.reason.get().copied()
    }

    /// Notes why the connection ends, unless that is known already.
    pub fn set_reason(&self, reason: CloseReason) {
        let _ = self.reason.set(reason);
    }

    /// Wakes the client's own writer.
    pub fn wake_writer(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    /// Writes what is queued, as a helper: without ever waiting for anything.
    fn help(&self, tally: &mut WriteTally) {
        if !self.try_write(tally) {
            self.wake_writer();
        }
    }

    /// Writes what is queued, and returns true if the socket took all of it. False if another
    /// thread is writing.
    fn try_write(&self, tally: &mut WriteTally) -> bool {
        let Ok(mut writing) = self.writing.try_lock() else { return false };
        let Some(connection) = writing.connection.take() else { return false };
        let written = writing.write_queue(self, &connection.stream, tally);
        writing.connection = Some(connection);
        matches!(written, Ok(Written::All(_)))
    }

    /// Locks the control frames from the reader.
    pub(super) fn lock_replies(&self) -> MutexGuard<'_, VecDeque<Frames>> {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Writing> {
        // A helper that panicked leaves exactly what was not written.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the hub still does with its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// More entries may come.
    Open,
    /// The hub has closed the outbox, and everything it queued was taken.
    Closed,
}

/// The result of a write that does not block.
enum Written {
    /// Everything that was queued.
    All(Status),
    /// As much as the socket takes for now.
    Partly,
}

/// What was taken from the queue and is not written yet, and where it goes.
#[derive(Default)]
struct Writing {
    /// Where helpers write to, as long as there is a writer. A sweep that nobody is left to run may
    /// keep the line until the next sweep, and must not keep the socket and its place.
    connection: Option<Arc<Connection>>,
    entries: VecDeque<Frames>,
    /// Bytes of the first entry that are written.
    offset: usize,
    /// The close frame was added, and nothing may follow it (RFC 6455, 5.5.1).
    closing: bool,
}

impl Writing {
    /// Writes everything queued, as far as the socket takes it at once.
    ///
    /// What is queued while it writes is left to the thread that queues it: that thread gets it
    /// written, if only by waking the line's writer because this lock is held.
    fn write_queue(
        &mut self,
        line: &Line,
        stream: &TcpStream,
        tally: &mut WriteTally,
    ) -> io::Result<Written> {
        loop {
            let taken = self.take(line);
            while !self.entries.is_empty() {
                match self.write_some(stream, libc::MSG_DONTWAIT, tally) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        return Ok(Written::Partly);
                    }
                    Err(error) => return Err(error),
                }
            }
            if let Some(status) = taken {
                return Ok(Written::All(status));
            }
        }
    }

    /// Takes from the queues what one call can write, control frames first. `None` if there may be
    /// more.
    fn take(&mut self, line: &Line) -> Option<Status> {
        if self.closing {
            return Some(Status::Closed);
        }
        // However often helpers try a full socket, only so much is taken as one call can write.
        if self.entries.len() < WRITE_ENTRIES_MAX && line.replies_queued.load(Ordering::Acquire) {
            line.replies_queued.store(false, Ordering::SeqCst);
            // If the reader adds more in the meantime, it also wakes the writer for them.
            self.entries.extend(line.lock_replies().drain(..));
        }
        while self.entries.len() < WRITE_ENTRIES_MAX {
            match line.queue.try_recv() {
                Ok(frames) => {
                    let taken = line.taken.load(Ordering::Relaxed) + frames.total_len() as u64;
                    line.taken.store(taken, Ordering::Relaxed);
                    if frames.rest().is_empty() {
                        self.entries.push_back(frames);
                    } else {
                        self.entries.push_back(frames.clone());
                        self.entries.extend(frames.rest().iter().cloned());
                    }
                }
                Err(TryRecvError::Empty) => return Some(Status::Open),
                Err(TryRecvError::Disconnected) => return Some(Status::Closed),
            }
        }
        None
    }

    /// Writes what was taken, and waits for the socket until `deadline`.
    ///
    /// The socket's own timeout starts again at each call, so a client that takes a byte now and
    /// then could hold its writer forever. So the deadline is for all of it. If `window` is given,
    /// the deadline moves on by it as long as the client takes [`LEAST_BYTES_PER_SECOND`].
    fn write_by(
        &mut self,
        stream: &TcpStream,
        mut deadline: Instant,
        window: Option<Duration>,
    ) -> io::Result<()> {
        let mut tally = WriteTally::default();
        let mut bytes = 0;
        while !self.entries.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                match window.filter(|window| is_fast_enough(bytes, *window)) {
                    Some(window) => (deadline, bytes) = (Instant::now() + window, 0),
                    None => return Err(ErrorKind::TimedOut.into()),
                }
                continue;
            }
            stream.set_write_timeout(Some(left))?;
            match self.write_some(stream, 0, &mut tally) {
                // The deadline has passed.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => bytes += result?,
            }
        }
        Ok(())
    }

    /// Writes with one system call, and drops what is written. Returns how many bytes that was.
    fn write_some(
        &mut self,
        stream: &TcpStream,
        flags: libc::c_int,
        tally: &mut WriteTally,
    ) -> io::Result<usize> {
        let socket = SockRef::from(stream);
        let sent = if let (1, Some(only)) = (self.entries.len(), self.entries.front()) {
            // Most calls have one entry, and the system is faster with one piece.
            socket.send_with_flags(&only[self.offset..], flags)
        } else {
            let mut slices = [IoSlice::new(&[]); WRITE_ENTRIES_MAX];
            let mut offset = self.offset;
            for (slice, frames) in slices.iter_mut().zip(&self.entries) {
                *slice = IoSlice::new(&frames[std::mem::take(&mut offset)..]);
            }
            socket.send_vectored_with_flags(
                &slices[..self.entries.len().min(WRITE_ENTRIES_MAX)],
                flags,
            )
        };
        let written = match sent {
            Ok(written) => written,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(0),
            Err(error) => return Err(error),
        };
        tally.wrote(written);
        let mut whole = 0;
        let mut offset = self.offset + written;
        while let Some(entry) = self.entries.get(whole).filter(|entry| offset >= entry.len()) {
            offset -= entry.len();
            whole += 1;
        }
        self.offset = offset;
        // Drained before the clock is read: should that panic, nothing is written twice.
        let whole = self.entries.drain(..whole);
        let now = Instant::now();
        for queued in whole.filter_map(|entry| entry.queued()) {
            tally.waited(now.saturating_duration_since(queued));
        }
        Ok(written)
    }
}

/// True if a client that took so many bytes in `window` reads fast enough to stay.
fn is_fast_enough(bytes: usize, window: Duration) -> bool {
    bytes as f64 >= LEAST_BYTES_PER_SECOND as f64 * window.as_secs_f64()
}

/// One pass over the members of a room, to write their queues.
struct Sweep {
    roster: Arc<[Arc<Line>]>,
    /// Where it starts: at another member each time.
    first: usize,
    /// Members visited so far.
    taken: AtomicUsize,
    /// See [`SweepQueue`].
    unfinished: Arc<AtomicUsize>,
}

impl Drop for Sweep {
    fn drop(&mut self) {
        self.unfinished.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Sweep {
    /// Visits members until all were visited, by this thread or another.
    fn run(&self) {
        let _wake = WakeOnPanic(self);
        let mut tally = WriteTally::default();
        loop {
            let number = self.taken.fetch_add(1, Ordering::Relaxed);
            if number >= self.roster.len() {
                return;
            }
            self.roster[(self.first + number) % self.roster.len()].help(&mut tally);
        }
    }
}

/// If a helper panics, wakes every writer to write its own line. The rest of the sweep would
/// otherwise wait for the next one.
struct WakeOnPanic<'a>(&'a Sweep);

impl Drop for WakeOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.roster.iter().for_each(|line| line.wake_writer());
        }
    }
}

/// The result of helping: done, or more sweeps wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Help {
    Done,
    More,
}

/// Sweeps that wait for helpers: the hub asks here for help, and the writers offer it.
#[derive(Clone)]
pub struct SweepQueue {
    wanted: Sender<Arc<Sweep>>,
    offered: Receiver<Arc<Sweep>>,
    processors: usize,
    /// Sweeps that may still be running.
    unfinished: Arc<AtomicUsize>,
    /// True if each sweep wakes other writers than the last one.
    rotate: bool,
    /// True if the newest sweep found no available writer, so that perhaps nobody takes what waits.
    /// Only the hub reads and writes this.
    unattended: Arc<AtomicBool>,
}

impl SweepQueue {
    /// Creates an empty queue, with helpers chosen for the processors of this machine.
    ///
    /// - One helper for each processor while nothing else is being written, to finish soon.
    ///   Otherwise one for every second processor: the hub, the readers and the rest of the machine
    ///   have work too. On two processors, with 20 messages a second to a thousand members, a
    ///   second helper cut the 99th percentile of the latency by a third. In a flood it cost a
    ///   sixth to two fifths of the throughput.
    /// - The same helpers each time: what they need is in their processor's cache, and the system
    ///   leaves them where they ran. On two processors that made a large room up to a quarter
    ///   faster. On a single one, the system takes the processor from whoever used it most, and a
    ///   fresh helper may finish: changing them was faster by a third.
    pub fn new() -> SweepQueue {
        let (wanted, offered) = bounded(SWEEPS_MAX);
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        SweepQueue {
            wanted,
            offered,
            processors,
            unfinished: Arc::default(),
            rotate: processors == 1,
            unattended: Arc::default(),
        }
    }

    /// Gets everything queued for `roster` written, starting with member `first`. Never blocks.
    pub fn start(&self, roster: &Arc<[Arc<Line>]>, first: usize) {
        match &**roster {
            [] => return,
            [line] => return line.wake_writer(),
            _ => {}
        }
        let quiet = self.unfinished.fetch_add(1, Ordering::Relaxed) == 0;
        let helpers = if quiet { self.processors } else { self.processors.div_ceil(2) };
        let helpers = helpers.min(roster.len().div_ceil(HELPER_MEMBERS));
        let sweep = Arc::new(Sweep {
            roster: roster.clone(),
            first,
            taken: AtomicUsize::new(0),
            unfinished: self.unfinished.clone(),
        });
        let mut queued = usize::from(self.wanted.try_send(sweep.clone()).is_ok());
        // For each sweep ahead of this one a writer is on its way, and takes this one too.
        let ahead = if self.unattended.load(Ordering::Relaxed) {
            0
        } else {
            self.wanted.len().saturating_sub(queued)
        };
        if queued > 0 && ahead >= helpers {
            return;
        }
        queued +=
            (queued..helpers).take_while(|_| self.wanted.try_send(sweep.clone()).is_ok()).count();
        let woken = self.wake(roster, first, queued.saturating_sub(ahead));
        self.unattended.store(woken == 0, Ordering::Relaxed);
        if woken == 0 {
            roster.iter().for_each(|line| line.wake_writer());
        }
    }

    /// Wakes up to `writers` available writers of a roster. Returns how many.
    fn wake(&self, roster: &[Arc<Line>], first: usize, writers: usize) -> usize {
        // Pairs with the fence in `become_unavailable`: ask first, look second.
        fence(Ordering::SeqCst);
        let (before, from) = roster.split_at(if self.rotate { first % roster.len() } else { 0 });
        let available =
            from.iter().chain(before).filter(|line| !line.unavailable.load(Ordering::SeqCst));
        available.take(writers).map(|line| line.wake_writer()).count()
    }

    /// Runs the sweeps that wait, up to [`SWEEPS_MAX`] of them: the hub may ask for more without
    /// end.
    fn help(&self) -> Help {
        for _ in 0..SWEEPS_MAX {
            match self.offered.try_recv() {
                Ok(sweep) => sweep.run(),
                Err(_) => return Help::Done,
            }
        }
        Help::More
    }

    /// Wakes another writer for the sweeps that are left. Returns true if none is left for this
    /// one.
    fn hand_over(&self) -> bool {
        let Ok(sweep) = self.offered.try_recv() else { return true };
        let woken = self.wake(&sweep.roster, sweep.first, 1);
        sweep.run();
        woken > 0
    }
}

impl Default for SweepQueue {
    fn default() -> SweepQueue {
        SweepQueue::new()
    }
}
