//! The queue between the hub and a client's writer, and the only code that writes to a chat socket.
//!
//! A queue has three ends. The hub holds the [`Outbox`]; dropping it closes the client. The client's reader holds the
//! [`Controls`], through which it answers pings. The client's writer holds the [`Mail`] and sleeps while it is empty.
//!
//! # Writers help their neighbours
//!
//! A message to a thousand members is a thousand writes of a few microseconds, and waking a thousand writers would cost
//! more than the writes. So after queueing a room's frames the hub starts a sweep: it wakes a few writers, at most one for
//! each processor, and each of them writes not only its own client's queue but takes further members of the room
//! in turn until all have been visited. Everybody else sleeps on.
//!
//! - One writer at a time on a socket: the lock `Line::writing`. A helper only tries it. If it fails, or if the
//!   socket takes no more, the helper wakes the line's own writer to see to it: no entry is left lying, and a slow client
//!   costs nobody but its own thread, the only one that ever blocks on its socket.
//! - Entries are taken and written under that lock, so each client's order holds, whoever writes.
//! - A writer that is about to block on its socket, or to end, first says so (`Line::unavailable`) and then once more
//!   helps with what is wanted. The hub first asks for help and then looks for available writers. So in whatever order
//!   these four steps happen, either the hub sees that it must wake another, or the writer sees the sweep.
//! - Whoever has been woken takes sweeps until none is left. So while an earlier one waits to be taken, by somebody who was
//!   available, a further one need not wake anybody: a turn that had something for fifty rooms does not wake fifty writers.
//!
//! # Why not `recv`
//!
//! crossbeam spins and yields before it sleeps, which costs more than a write. A writer takes what is there with
//! `try_recv` and parks; whoever wants it unparks it. A token left by an early `unpark` makes the next `park` return at
//! once, so no wake-up is lost.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::net::TcpStream;
use std::num::NonZero;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use socket2::SockRef;

use crate::chat::client::Connection;
use crate::protocol::message::CloseReason;
use crate::system::metrics::WriteTally;

/// One or more whole frames, shared by all who get them. A single pointer, since each client's queue has room for many.
#[derive(Clone, Debug)]
pub struct Frames(Arc<Entry>);

#[derive(Debug)]
struct Entry {
    bytes: Vec<u8>,
    /// When it was queued, unless it waited for its client elsewhere.
    queued: Option<Instant>,
}

impl Frames {
    /// Frames that are made now and queued later, so that how long they wait can't be told.
    pub fn made_before(bytes: Vec<u8>) -> Frames {
        Frames(Arc::new(Entry { bytes, queued: None }))
    }
}

impl From<Vec<u8>> for Frames {
    /// Frames that are queued at once.
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

/// Entries that a newcomer is greeted with: the welcome and the history.
const GREETING_ENTRIES: usize = 2;
/// Control frames from the reader that wait for the writer. Pings beyond this many are answered as fast as the client
/// takes the answers: its reader waits.
const CONTROLS_MAX: usize = 16;
/// Entries handed to the system in one call.
const WRITE_ENTRIES_MAX: usize = 16;
/// Places for sweeps that wait for helpers, one for each helper of a sweep. Were there ever more, the hub would wake everybody
/// in the room.
const SWEEPS_MAX: usize = 64;
/// Members for which it is worth waking one helper more.
const HELPER_MEMBERS: usize = 64;

/// Makes the queue of one client, with room for a greeting and `entries` entries from the hub, of `bytes` bytes in all.
///
/// Not inlined, so that its stack is free again for what follows.
#[inline(never)]
pub fn channel(entries: usize, bytes: u64, sweeps: &Sweeps) -> (Outbox, Controls, Mail) {
    let (queue_in, queue_out) = bounded(entries + GREETING_ENTRIES);
    let line = Arc::new(Line {
        queue: queue_out,
        taken: AtomicU64::new(0),
        controls: OnceLock::new(),
        controls_queued: AtomicBool::new(false),
        writing: Mutex::default(),
        writer: OnceLock::new(),
        unavailable: AtomicBool::new(false),
        ended: AtomicBool::new(false),
        reason: OnceLock::new(),
        reader_done: AtomicBool::new(false),
    });
    (
        Outbox {
            queue: Some(queue_in),
            bytes_max: bytes,
            queued: 0,
            granted: bytes,
            line: line.clone(),
        },
        Controls { queue: OnceCell::new(), line: line.clone() },
        Mail { line, sweeps: sweeps.clone(), last_call: None },
    )
}

/// The hub's end. Dropping it ends the connection once the queue has been written.
pub struct Outbox {
    /// `None` only while being dropped.
    queue: Option<Sender<Frames>>,
    /// Bytes that may wait.
    bytes_max: u64,
    /// Bytes queued so far.
    queued: u64,
    /// What `queued` may become before it is time to look how much has been taken meanwhile.
    granted: u64,
    line: Arc<Line>,
}

/// An entry was not queued: the client is too slow, and misses something now.
#[derive(Debug, PartialEq, Eq)]
pub struct QueueFull;

impl Outbox {
    /// Queues frames. Never blocks. To have them written is another matter: [`Outbox::wake_writer`], or a sweep.
    ///
    /// # Errors
    /// [`QueueFull`] when there is no room for one entry more, or for so many bytes; however many they are, there is where
    /// nothing waits.
    pub fn queue(&mut self, frames: Frames) -> Result<(), QueueFull> {
        let queued = self.queued + frames.len() as u64;
        if queued > self.granted {
            let taken = self.line.taken.load(Ordering::Relaxed);
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

    /// Queues a part of the greeting, for which a fresh queue has room, however long it is. The writer takes it at once.
    pub fn greet(&mut self, frames: Frames) {
        self.granted = self.granted.saturating_add(frames.len() as u64);
        let fits = self.queue(frames).is_ok();
        debug_assert!(fits, "a fresh queue has room for a greeting");
    }

    /// Ends the connection for `reason`: what is queued goes out, then the close frame.
    pub fn close(self, reason: CloseReason) {
        // Somebody who saw the reason earlier has told it already.
        let _ = self.line.reason.set(reason);
    }

    /// Wakes the writer to see what has been queued.
    pub fn wake_writer(&self) {
        self.line.wake_writer();
    }

    /// The line, for a roster.
    pub fn line(&self) -> Arc<Line> {
        self.line.clone()
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        // The writer sees the end of the queue only if the sender is gone before it wakes.
        self.queue = None;
        self.line.wake_writer();
    }
}

/// The reader's end, for whole control frames. Dropping it tells the writer that the reader has seen the end.
pub struct Controls {
    /// Made for the first frame: most clients never ping.
    queue: OnceCell<Sender<Frames>>,
    line: Arc<Line>,
}

impl Controls {
    /// Names the thread that writes. To be called before the outbox is given away.
    pub fn set_writer(&self, writer: Thread) {
        let _ = self.line.writer.set(writer);
    }

    /// Queues a control frame. Blocks while too many are waiting, so a flood of pings is read no faster than it is
    /// answered.
    pub fn send(&self, frame: Frames) {
        let queue = self.queue.get_or_init(|| {
            let (queue, queued) = bounded(CONTROLS_MAX);
            let _ = self.line.controls.set(queued);
            queue
        });
        // Without a writer there is no connection left to answer on. One that ends meanwhile makes room.
        if !self.line.ended.load(Ordering::SeqCst) && queue.send(frame).is_ok() {
            self.line.controls_queued.store(true, Ordering::SeqCst);
            self.line.wake_writer();
        }
    }

    /// Whether the connection is being closed, or nobody writes to it any more: what still comes in need not be read.
    pub fn over(&self) -> bool {
        self.line.ended.load(Ordering::SeqCst) || self.line.reason.get().is_some()
    }

    /// Why the connection ended, as far as anybody knows.
    pub fn reason(&self) -> Option<CloseReason> {
        self.line.reason.get().copied()
    }
}

impl Drop for Controls {
    fn drop(&mut self) {
        self.line.reader_done.store(true, Ordering::Release);
        self.line.wake_writer();
    }
}

/// What the ends of one client's queue share, and helpers use.
pub struct Line {
    queue: Receiver<Frames>,
    /// Bytes taken from `queue` so far. Only whoever holds `writing` adds to it.
    taken: AtomicU64,
    controls: OnceLock<Receiver<Frames>>,
    /// Whether to look into `controls`, which are mostly empty: a look costs as much as taking an entry.
    controls_queued: AtomicBool,
    /// Whoever holds it may take entries and write to the socket.
    writing: Mutex<Writing>,
    /// Set once the thread has been spawned and before anything is queued.
    writer: OnceLock<Thread>,
    /// The writer can't help with a sweep: it blocks on its own socket, or ends.
    unavailable: AtomicBool,
    /// The writer has ended.
    ended: AtomicBool,
    /// Why the connection ends, from whoever found out first.
    reason: OnceLock<CloseReason>,
    /// The reader has seen the end of the stream: nothing is left to linger for.
    reader_done: AtomicBool,
}

impl Line {
    fn wake_writer(&self) {
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

    /// Writes what is queued, if nobody else does and the socket takes all of it at once. Says whether that was so.
    fn try_write(&self, tally: &mut WriteTally) -> bool {
        let Ok(mut writing) = self.writing.try_lock() else { return false };
        let Some(connection) = writing.connection.take() else { return false };
        let written = writing.write_queue(self, &connection.stream, tally);
        writing.connection = Some(connection);
        matches!(written, Ok(Written::All(_)))
    }

    fn lock(&self) -> MutexGuard<'_, Writing> {
        // A helper that panicked leaves behind exactly what has not been written.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
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

/// How far writing without waiting has come.
enum Written {
    /// Everything that was queued.
    All(Status),
    /// As much as the socket takes for now.
    Some,
}

/// What has been taken from the queue and not been written yet, and to where.
#[derive(Default)]
struct Writing {
    /// Where helpers write to, as long as there is a writer. A sweep that nobody is left to run may keep the line until the
    /// next one comes, and must not keep the socket and its place.
    connection: Option<Arc<Connection>>,
    entries: VecDeque<Frames>,
    /// Bytes of the first entry that have been written.
    offset: usize,
    /// The close frame has been taken, and nothing may follow it (RFC 6455, 5.5.1).
    closing: bool,
}

impl Writing {
    /// Writes everything that is queued, as far as the socket takes it at once.
    ///
    /// It does not look again for what is queued while it writes: whoever queues that sees to it that it is written, if
    /// only by waking the line's writer because this lock is held.
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
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        return Ok(Written::Some);
                    }
                    Err(error) => return Err(error),
                }
            }
            if let Some(status) = taken {
                return Ok(Written::All(status));
            }
        }
    }

    /// Takes from the queues what one call can write, control frames first. `None` if there may be more.
    fn take(&mut self, line: &Line) -> Option<Status> {
        // However often helpers look in on a full socket, no more is taken than waits to be written.
        if self.entries.len() < WRITE_ENTRIES_MAX
            && line.controls_queued.load(Ordering::Acquire)
            && let Some(controls) = line.controls.get()
        {
            line.controls_queued.store(false, Ordering::SeqCst);
            // If the reader adds more meanwhile, it also wakes the writer for them.
            let frames = controls.try_iter().take(CONTROLS_MAX);
            match self.closing {
                true => frames.for_each(drop),
                false => self.entries.extend(frames),
            }
        }
        while self.entries.len() < WRITE_ENTRIES_MAX {
            match line.queue.try_recv() {
                Ok(frames) => {
                    let taken = line.taken.load(Ordering::Relaxed);
                    line.taken.store(taken + frames.len() as u64, Ordering::Relaxed);
                    self.entries.push_back(frames);
                }
                Err(TryRecvError::Empty) => return Some(Status::Open),
                Err(TryRecvError::Disconnected) => return Some(Status::Closed),
            }
        }
        None
    }

    /// Writes what has been taken, and waits for the socket until `deadline`.
    ///
    /// The socket's own timeout counts anew at each call, so a client that takes a byte now and then could hold its
    /// writer for ever. The deadline is for all of it.
    fn write_by(&mut self, stream: &TcpStream, deadline: Instant) -> io::Result<()> {
        let mut tally = WriteTally::default();
        while !self.entries.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            stream.set_write_timeout(Some(left))?;
            match self.write_some(stream, 0, &mut tally) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(ErrorKind::TimedOut.into());
                }
                result => result?,
            }
        }
        Ok(())
    }

    /// One call's worth of writing; what has been written is forgotten.
    fn write_some(
        &mut self,
        stream: &TcpStream,
        flags: libc::c_int,
        tally: &mut WriteTally,
    ) -> io::Result<()> {
        let socket = SockRef::from(stream);
        let sent = if let (1, Some(only)) = (self.entries.len(), self.entries.front()) {
            // Most calls have one entry, and the system is quicker about one piece.
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
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
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
        // Begun before the clock is read: should that panic, nothing is written twice.
        let whole = self.entries.drain(..whole);
        let now = Instant::now();
        for queued in whole.filter_map(|entry| entry.0.queued) {
            tally.waited(now.saturating_duration_since(queued));
        }
        Ok(())
    }
}

/// The writer's end.
pub struct Mail {
    line: Arc<Line>,
    sweeps: Sweeps,
    /// When a closed connection must have taken all that was queued.
    last_call: Option<Instant>,
}

impl Mail {
    /// Writes everything that is queued, then helps where help is wanted.
    ///
    /// # Errors
    /// What the socket says, and [`ErrorKind::TimedOut`] when a full socket has not taken what was being written within
    /// `timeout`; after the hub has closed the outbox, `timeout` counts once for all that is left.
    pub fn write_queued(&mut self, stream: &TcpStream, timeout: Duration) -> io::Result<Status> {
        let mut tally = WriteTally::default();
        let status = loop {
            // A statement of its own, so that the lock is free again at its end.
            let written = self.line.lock().write_queue(&self.line, stream, &mut tally)?;
            match written {
                Written::All(status) => break status,
                Written::Some => self.wait_for_socket(stream, timeout)?,
            }
        };
        if self.sweeps.help() == Left::Some {
            // Not now: this writer's own client is waiting for its ping.
            thread::current().unpark();
        }
        Ok(status)
    }

    /// Writes one frame that does not come from the queue, behind all that has been taken from it.
    ///
    /// # Errors
    /// As [`write_queued`](Mail::write_queued).
    pub fn write(
        &mut self,
        stream: &TcpStream,
        frame: Frames,
        timeout: Duration,
    ) -> io::Result<()> {
        self.line.lock().entries.push_back(frame);
        self.write_queued(stream, timeout).map(drop)
    }

    /// Writes the close frame, behind all that has been taken from the queue. Nothing is written after it.
    ///
    /// # Errors
    /// As [`write_queued`](Mail::write_queued).
    pub fn write_last(
        &mut self,
        stream: &TcpStream,
        frame: Frames,
        timeout: Duration,
    ) -> io::Result<()> {
        self.line.lock().closing = true;
        self.write(stream, frame, timeout)
    }

    /// Blocks until the socket has taken what it was too full for. Only a client's own writer does that.
    fn wait_for_socket(&mut self, stream: &TcpStream, timeout: Duration) -> io::Result<()> {
        self.become_unavailable();
        let deadline = match self.reason() {
            None => Instant::now() + timeout,
            Some(_) => *self.last_call.get_or_insert_with(|| Instant::now() + timeout),
        };
        self.line.lock().write_by(stream, deadline)?;
        self.line.unavailable.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Tells the hub to wake others instead of this writer. What it was woken for before it said so, it still does.
    pub fn become_unavailable(&self) {
        self.line.unavailable.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        while self.sweeps.help() == Left::Some && !self.sweeps.hand_over() {}
    }

    /// Sleeps until something is queued, help is wanted, the hub closes the outbox, the reader ends, or `timeout` is
    /// over. May also return for no reason.
    pub fn wait(&self, timeout: Duration) {
        thread::park_timeout(timeout);
    }

    /// Names the connection to which helpers write.
    pub fn set_connection(&mut self, connection: &Arc<Connection>) {
        self.line.lock().connection = Some(connection.clone());
    }

    /// Puts frames before everything that is queued, and takes no room from it.
    pub fn put_first(&mut self, frames: Frames) {
        self.line.lock().entries.push_front(frames);
    }

    /// Takes what is queued without writing it.
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

    /// Why the connection ends, once somebody knows.
    pub fn reason(&self) -> Option<CloseReason> {
        self.line.reason.get().copied()
    }

    /// Notes why the connection ends, unless that is known already.
    pub fn set_reason(&self, reason: CloseReason) {
        let _ = self.line.reason.set(reason);
    }

    /// Whether the reader has seen the end of the stream.
    pub fn reader_done(&self) -> bool {
        self.line.reader_done.load(Ordering::Acquire)
    }
}

impl Drop for Mail {
    fn drop(&mut self) {
        self.line.lock().connection = None;
        self.line.ended.store(true, Ordering::SeqCst);
        // A reader that waits for room gets it, and sees at its next frame that nobody writes any more.
        if let Some(controls) = self.line.controls.get() {
            controls.try_iter().for_each(drop);
        }
        // Said before also by a writer that ends in good order, but not by one that panics. Last, since helping may panic.
        self.become_unavailable();
    }
}

/// The members of a room whose queues are to be written, and how far that has come.
struct Sweep {
    roster: Arc<[Arc<Line>]>,
    /// Where it begins, another member each time.
    first: usize,
    /// Members taken on so far.
    taken: AtomicUsize,
    /// As in [`Sweeps`].
    unfinished: Arc<AtomicUsize>,
}

impl Drop for Sweep {
    fn drop(&mut self) {
        self.unfinished.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Sweep {
    /// Takes on members until all have been taken on, by this thread or another.
    fn run(&self) {
        let _rest = RestOnPanic(self);
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

/// If a helper panics, each writer sees to its own line: the rest of the sweep would otherwise wait for the next one.
struct RestOnPanic<'a>(&'a Sweep);

impl Drop for RestOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.roster.iter().for_each(|line| line.wake_writer());
        }
    }
}

/// Whether a helper has left some of what is wanted to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    Some,
}

/// Where the hub asks for help and the writers offer it.
#[derive(Clone)]
pub struct Sweeps {
    wanted: Sender<Arc<Sweep>>,
    offered: Receiver<Arc<Sweep>>,
    processors: usize,
    /// Sweeps that somebody may still be at.
    unfinished: Arc<AtomicUsize>,
    /// Each sweep wakes others than the last.
    rotate: bool,
    /// Perhaps nobody is on the way to what is wanted: for the newest sweep no writer was found that could be counted on. Only
    /// the hub reads and writes this.
    unattended: Arc<AtomicBool>,
}

impl Sweeps {
    /// Chooses helpers for the processors that there are.
    ///
    /// - One for each, to be done soon, while nothing else is being written. Otherwise one for every second: the hub, the
    ///   readers and the rest of the machine have work too. On two processors, with 20 messages a second to a thousand
    ///   members, a second helper cut the 99th percentile of the latency by a third; in a flood it cost a sixth to two
    ///   fifths of the throughput.
    /// - The same ones each time: what they need is in their processor's cache, and the system leaves them where they ran.
    ///   On two processors that made a large room up to a quarter faster. But where there is only one, the system takes it
    ///   from whoever used it most, and a helper that has just begun may finish: changing them was faster by a third.
    pub fn new() -> Sweeps {
        let (wanted, offered) = bounded(SWEEPS_MAX);
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        Sweeps {
            wanted,
            offered,
            processors,
            unfinished: Arc::default(),
            rotate: processors == 1,
            unattended: Arc::default(),
        }
    }

    /// Has written what has been queued for the members of `roster`, beginning with number `first`. Never blocks.
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
        // For each that is still before it somebody is on the way, who takes this one too.
        let ahead = match self.unattended.load(Ordering::Relaxed) {
            true => 0,
            false => self.wanted.len().saturating_sub(queued),
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

    /// Wakes so many writers of a roster, or fewer if no more are available. Returns how many.
    fn wake(&self, roster: &[Arc<Line>], first: usize, writers: usize) -> usize {
        // Together with the one in `become_unavailable`: asked first, looked second.
        fence(Ordering::SeqCst);
        let (before, from) = roster.split_at(if self.rotate { first % roster.len() } else { 0 });
        let available =
            from.iter().chain(before).filter(|line| !line.unavailable.load(Ordering::SeqCst));
        available.take(writers).map(|line| line.wake_writer()).count()
    }

    /// Does what is wanted, but only so much of it at a time: the hub may want more without end.
    fn help(&self) -> Left {
        for _ in 0..SWEEPS_MAX {
            match self.offered.try_recv() {
                Ok(sweep) => sweep.run(),
                Err(_) => return Left::Nothing,
            }
        }
        Left::Some
    }

    /// Finds somebody else for what is left. Says whether nothing is left for this writer.
    fn hand_over(&self) -> bool {
        let Ok(sweep) = self.offered.try_recv() else { return true };
        let woken = self.wake(&sweep.roster, sweep.first, 1);
        sweep.run();
        woken > 0
    }
}

impl Default for Sweeps {
    fn default() -> Sweeps {
        Sweeps::new()
    }
}
