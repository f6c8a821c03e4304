//! One chat client: two threads, as in Go. `read_pump` is the only one that reads from the socket, `write_pump` the
//! only one that waits for it to take what is written.
//!
//! The two end together, whoever notices first. The reader leaves through `Registration`, whose `Drop` tells the hub;
//! the hub drops the outbox; the writer writes what is left and the close frame. A writer that fails shuts the socket
//! down, which the reader sees as the end of the stream.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use log::{info, warn};
use tungstenite::error::{CapacityError, Error};
use tungstenite::http::StatusCode;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{Message, Role, WebSocket, WebSocketConfig};

use crate::chat::frames::FrameCounter;
use crate::chat::hub::{Event, Joining, Newcomer, Posted};
use crate::chat::outbox::{self, Controls, Mail, Outbox, Status, Sweeps};
use crate::config::Config;
use crate::http::admission::Place;
use crate::protocol::message::{self, CloseReason, Rejection, Request};
use crate::server::Shared;
use crate::system::metrics::METRICS;

/// Bytes read at a time; tungstenite allocates the buffer at once, so it counts for each idle client.
const READ_BUFFER_BYTES: usize = 1024;
/// Fragments of a message that together cost as much as another message. Libraries that cut at all cut larger pieces.
pub const FRAGMENTS_PER_MESSAGE: usize = 1024;
/// How long a closed connection waits for the other side to close too, so that it sees the close frame and not a reset.
const LINGER: Duration = Duration::from_secs(1);
/// Stack of a writer; it formats nothing and calls nothing deep.
const WRITER_STACK_BYTES: usize = 128 * 1024;

/// Number of a connection, never used again.
pub type ClientId = u64;

/// An accepted connection, shared by its threads and the server that may have to cut it. One file descriptor: `&TcpStream`
/// reads and writes.
pub struct Connection {
    /// Its number.
    pub id: ClientId,
    /// The other side of the socket.
    pub peer: SocketAddr,
    /// The client for which the other side speaks, where that is a trusted proxy.
    pub forwarded: OnceLock<IpAddr>,
    /// The socket.
    pub stream: TcpStream,
    /// It has become a WebSocket, and the hub will close it.
    pub upgraded: AtomicBool,
    /// Its place on the server, given back when the socket is closed.
    pub place: Place,
}

impl Connection {
    /// A connection that has just been accepted.
    pub fn new(id: ClientId, peer: SocketAddr, stream: TcpStream, place: Place) -> Connection {
        Connection {
            id,
            peer,
            forwarded: OnceLock::new(),
            stream,
            upgraded: AtomicBool::new(false),
            place,
        }
    }

    /// The client's address for the log: the one that a trusted proxy names, or the socket's.
    pub fn address(&self) -> String {
        self.forwarded.get().map_or_else(|| self.peer.to_string(), IpAddr::to_string)
    }
}

/// An accepted upgrade.
pub struct Upgrade {
    /// The `101` response.
    pub response: Vec<u8>,
    /// Bytes that came after the request head.
    pub leftover: Vec<u8>,
    /// Who wants to join which room, or what is wrong with the names. Boxed, for the sake of the reader's stack.
    pub joining: Result<Box<Joining>, CloseReason>,
}

/// Serves a chat client until it has gone, on this thread and one more.
///
/// # Errors
/// Gives the reason when the system has no thread for the writer; nothing has been sent then.
pub fn serve_ws(connection: &Arc<Connection>, upgrade: Upgrade, shared: &Shared) -> io::Result<()> {
    let Shared { config, inbox, sweeps, .. } = shared;
    let Upgrade { response, leftover, joining } = upgrade;
    with_writer(connection, response, config, sweeps, |outbox, controls| match joining {
        Ok(joining) => {
            let mut registration = Registration::new(connection, joining, outbox, inbox);
            registration.reason = read_pump(connection, leftover, controls, config, |message| {
                registration.send(event(connection.id, &message, config)?);
                Ok(())
            });
            registration.reason
        }
        Err(reason) => {
            refuse(outbox, reason);
            reason
        }
    })
}

/// Answers an upgrade, and serves the connection from then on: `read` on this thread, which says why it ended, and
/// `write_pump` on one more, which ends when the outbox is dropped.
///
/// # Errors
/// Gives the reason when the system has no thread for the writer; nothing has been sent then.
pub fn with_writer(
    connection: &Arc<Connection>,
    response: Vec<u8>,
    config: &Arc<Config>,
    sweeps: &Sweeps,
    read: impl FnOnce(Outbox, &Controls) -> CloseReason,
) -> io::Result<()> {
    if connection.stream.set_read_timeout(Some(config.ping_timeout)).is_err() {
        // Only a socket that is gone refuses a timeout.
        return Ok(());
    }
    let (outbox, controls, mut mail) =
        outbox::channel(config.queue, config.queue_bytes_max(), sweeps);
    mail.put_first(response.into());
    mail.set_connection(connection);
    let writer = spawn_writer(mail, connection.clone(), config.clone())?;
    controls.set_writer(writer.thread().clone());
    METRICS.http_responses.with_label_values(&[StatusCode::SWITCHING_PROTOCOLS.as_str()]).inc();
    // Locals are dropped last to first, also by a panic: the hub hears of it, the writer ends, then it is joined, and the
    // end is told.
    let mut farewell = Farewell { connection, reason: CloseReason::InternalError };
    let writer = JoinOnDrop(Some(writer));
    let controls = controls;

    let reason = read(outbox, &controls);
    read_to_end(&connection.stream);
    // Whoever saw the end first knows why: the hub that evicted it, or the reader whose socket broke.
    farewell.reason = controls.reason().unwrap_or(reason);
    drop(controls);
    drop(writer);
    drop(farewell);
    Ok(())
}

/// Reads messages and hands them to `take`, until that, the client or the socket ends it. Returns why.
///
/// Not inlined, so that its stack and that of making the queue don't add up: a page once touched stays with the client.
#[inline(never)]
pub fn read_pump(
    connection: &Connection,
    leftover: Vec<u8>,
    controls: &Controls,
    config: &Config,
    mut take: impl FnMut(Message) -> Result<(), CloseReason>,
) -> CloseReason {
    let bytes_max = Some(message::frame_bytes_max(config.max_message_bytes));
    let limits = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_frame_size(bytes_max)
        .max_message_size(bytes_max);
    let mut half = ReadHalf {
        stream: &connection.stream,
        controls,
        allowance: Allowance::new(config.message_rate, config.message_burst),
        frames: FrameCounter::default(),
        frames_unpaid: 0,
    };
    half.frames_unpaid += half.frames.count(&leftover);
    let mut socket = WebSocket::from_partially_read(half, leftover, Role::Server, Some(limits));
    loop {
        let message = socket.read();
        socket.get_mut().pay_for_message();
        // A socket that has been shut down still gives what it received before, which nobody waits for any more.
        if controls.over() {
            return CloseReason::ConnectionLost;
        }
        match message {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                if let Err(reason) = take(message) {
                    return reason;
                }
            }
            // Any frame is a sign of life, and tungstenite answers pings at the next read.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            // What tungstenite puts in place of a code that must not be sent (RFC 6455, 7.4.1).
            Ok(Message::Close(Some(frame)))
                if frame.code == CloseCode::Protocol && frame.reason == "Protocol violation" =>
            {
                return CloseReason::ProtocolError;
            }
            Ok(Message::Close(Some(frame))) if frame.code != CloseCode::Normal => {
                return CloseReason::ClientGone;
            }
            Ok(Message::Close(_)) => return CloseReason::ClientClosed,
            Err(error) => return close_reason(&error),
        }
    }
}

/// How fast a client may send (the generic cell rate algorithm of ITU-T I.371, with time for cells).
struct Allowance {
    /// Time that each message takes up.
    interval: Duration,
    /// Time that a client may be ahead by.
    slack: Duration,
    /// When all messages so far have been paid for.
    paid_until: Instant,
}

impl Allowance {
    /// `None` without a limit.
    fn new(per_second: u32, burst: u32) -> Option<Allowance> {
        let interval = Duration::from_secs(1).checked_div(per_second)?;
        Some(Allowance { interval, slack: interval * (burst - 1), paid_until: Instant::now() })
    }

    /// Counts a message that came at `now`, and says how long to wait before the next may come.
    fn wait_for_next(&mut self, now: Instant) -> Duration {
        self.paid_until = self.paid_until.max(now) + self.interval;
        self.paid_until.saturating_duration_since(now + self.interval + self.slack)
    }
}

/// What a message asks of the hub.
fn event(id: ClientId, message: &Message, config: &Config) -> Result<Event, CloseReason> {
    let Message::Text(text) = message else { return Err(CloseReason::Binary) };
    match Request::parse(text, config.max_message_bytes) {
        Ok(Request::Public { content, receipt }) => Ok(Event::Publish { id, content, receipt }),
        Ok(Request::Private { to, content, receipt }) => {
            Ok(Event::Whisper { id, to, content, receipt })
        }
        Err(Rejection::Error(complaint)) => Ok(Event::Complain { id, complaint }),
        Err(Rejection::TooBig) => Err(CloseReason::TooBig),
    }
}

fn close_reason(error: &Error) -> CloseReason {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => CloseReason::TooBig,
        Error::Utf8(_) => CloseReason::InvalidUtf8,
        // The end of the stream without a close frame, which tungstenite counts as a broken protocol.
        Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            CloseReason::ConnectionLost
        }
        Error::Protocol(_) => CloseReason::ProtocolError,
        // The read timeout is the heartbeat's.
        Error::Io(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            CloseReason::PingTimeout
        }
        _ => CloseReason::ConnectionLost,
    }
}

/// Writes what the hub queues, pings the client, and says goodbye.
fn write_pump(mut mail: Mail, connection: &Connection, config: &Config) {
    // However this thread ends, the reader must not be left waiting on the socket.
    let _cut = CutOnDrop(&connection.stream);
    let written = write_until_closed(&mut mail, &connection.stream, config);
    mail.become_unavailable();
    if let Err(error) = written {
        mail.set_reason(match error.kind() {
            ErrorKind::TimedOut => CloseReason::TooSlow,
            _ => CloseReason::ConnectionLost,
        });
        return;
    }
    // Closing by the book (RFC 6455, 7.1.1): send, shut down the write half, let the reader see the other side's end.
    let _ = connection.stream.shutdown(Shutdown::Write);
    let deadline = Instant::now() + LINGER;
    while !mail.reader_done() {
        match deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => break,
            left => mail.wait(left),
        }
    }
}

/// Ends well once the hub has closed the outbox and the close frame is out.
fn write_until_closed(mail: &mut Mail, stream: &TcpStream, config: &Config) -> io::Result<()> {
    let mut next_ping = Instant::now() + config.ping_interval;
    while mail.write_queued(stream, config.write_timeout)? == Status::Open {
        let now = Instant::now();
        if next_ping <= now {
            mail.write(stream, message::ping_frame().into(), config.write_timeout)?;
            next_ping = now + config.ping_interval;
        }
        mail.wait(next_ping - now);
    }
    match mail.reason() {
        // There is nobody left to tell, and this code must not be sent (RFC 6455, 7.4.1).
        Some(CloseReason::ConnectionLost) => Ok(()),
        Some(reason) => mail.write_last(stream, reason.to_frame().into(), config.write_timeout),
        // Without a reason the hub itself has failed.
        None => mail.write_last(
            stream,
            CloseReason::InternalError.to_frame().into(),
            config.write_timeout,
        ),
    }
}

/// Not inlined, like `read_pump`.
#[inline(never)]
fn spawn_writer(
    mail: Mail,
    connection: Arc<Connection>,
    config: Arc<Config>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name(format!("writer {}", connection.id))
        .stack_size(WRITER_STACK_BYTES)
        .spawn(move || write_pump(mail, &connection, &config))
}

/// Tells a newcomer what it can mend, and closes.
///
/// Not inlined, like `read_pump`.
#[inline(never)]
pub fn refuse(mut outbox: Outbox, reason: CloseReason) {
    if let Some(advice) = reason.advice() {
        let error = message::ServerMessage::Error {
            code: reason.name(),
            content: advice,
            receipt: None,
            ts: message::now(),
        };
        outbox.greet(error.to_frame().into());
    }
    outbox.close(reason);
}

/// Reads away what still comes. The writer, which lingers only so long, bounds it.
fn read_to_end(mut stream: &TcpStream) {
    let mut buffer = vec![0; READ_BUFFER_BYTES];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
}

/// The client's place in the hub. Its `Drop` is the one way out, taken by a panic too.
struct Registration {
    id: ClientId,
    inbox: Sender<Posted>,
    reason: CloseReason,
}

impl Registration {
    /// Not inlined, like `read_pump`: they share the same page of the stack.
    #[inline(never)]
    fn new(
        connection: &Connection,
        joining: Box<Joining>,
        outbox: Outbox,
        inbox: &Sender<Posted>,
    ) -> Registration {
        let (id, Joining { name, room, .. }) = (connection.id, &*joining);
        info!("client {id} from {} asks to join {room} as {name}", connection.address());
        let registration =
            Registration { id, inbox: inbox.clone(), reason: CloseReason::InternalError };
        registration.send(Event::Register(Newcomer { id, outbox, joining }));
        registration
    }

    /// Waits while the hub's inbox is full, and so does the client, by TCP.
    fn send(&self, event: Event) {
        if self.inbox.send(Posted::now(event)).is_err() {
            // The hub has ended; it dropped the outbox, and the writer says goodbye.
            warn!("client {}: the hub has ended", self.id);
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.send(Event::Unregister { id: self.id, reason: self.reason });
    }
}

/// tungstenite's view of the socket. It reads, and its answers to pings go through the outbox: two framers on one socket
/// would interleave their bytes.
struct ReadHalf<'a> {
    stream: &'a TcpStream,
    controls: &'a Controls,
    allowance: Option<Allowance>,
    frames: FrameCounter,
    /// Frames that have come since the last message, and not been paid for.
    frames_unpaid: usize,
}

impl ReadHalf<'_> {
    /// A message costs one, however many fragments it came in, unless there were too many of them.
    fn pay_for_message(&mut self) {
        self.frames_unpaid = 0;
        self.pay();
    }

    /// Whoever sends too fast is read more slowly. What waits in the socket slows it down, by TCP, and nothing is lost.
    fn pay(&mut self) {
        if let Some(allowance) = &mut self.allowance {
            thread::sleep(allowance.wait_for_next(Instant::now()));
        }
    }
}

impl Read for ReadHalf<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Empty fragments could come for ever, and never make a message or one over the limit.
        if self.frames_unpaid >= FRAGMENTS_PER_MESSAGE {
            self.frames_unpaid -= FRAGMENTS_PER_MESSAGE;
            self.pay();
            if self.controls.over() {
                return Ok(0);
            }
        }
        // With a timeout set, a signal interrupts a read even under SA_RESTART (signal(7)).
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => {
                    let bytes = *result.as_ref().unwrap_or(&0);
                    METRICS.received_bytes.inc_by(bytes as u64);
                    self.frames_unpaid += self.frames.count(&buffer[..bytes]);
                    return result;
                }
            }
        }
    }
}

impl Write for ReadHalf<'_> {
    /// Takes a whole control frame: tungstenite writes each at once, since its write buffer is set to hold none.
    fn write(&mut self, frame: &[u8]) -> io::Result<usize> {
        self.controls.send(frame.to_vec().into());
        Ok(frame.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Tells log and metrics how a connection ended, a panic included.
struct Farewell<'a> {
    connection: &'a Connection,
    reason: CloseReason,
}

impl Drop for Farewell<'_> {
    /// Not inlined, like `read_pump`.
    #[inline(never)]
    fn drop(&mut self) {
        let Farewell { connection, reason } = self;
        METRICS.disconnects_for(*reason).inc();
        info!(
            "client {} from {} gone: {} {}",
            connection.id,
            connection.address(),
            reason.code(),
            reason.name()
        );
    }
}

struct CutOnDrop<'a>(&'a TcpStream);

impl Drop for CutOnDrop<'_> {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

struct JoinOnDrop(Option<JoinHandle<()>>);

impl Drop for JoinOnDrop {
    fn drop(&mut self) {
        if self.0.take().is_some_and(|thread| thread.join().is_err()) {
            warn!("a writer panicked; only its client is gone");
        }
    }
}
