//! One chat client: two threads, as in Go.
//!
//! Go's `Client` is split in three here: the [`Connection`], the hub's [`Outbox`], and the reader's
//! `Client`, which is registered with the hub as long as it exists.
//!
//! [`read_pump`] is the only one that reads from the socket. `write_pump` is the only one that
//! waits for the socket to take what is written. They stand side by side here, as in Go's
//! `client.go`.
//!
//! The two end together, whoever notices the end first. The reader leaves through `Client`, whose
//! `Drop` notifies the hub. The hub drops the outbox. The writer writes what is left and the close
//! frame. A writer that fails shuts the socket down, which the reader sees as the end of the
//! stream.

use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use log::{Level, info, warn};
use tungstenite::error::{CapacityError, Error, ProtocolError};
use tungstenite::http::StatusCode;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Message, Role, WebSocket, WebSocketConfig};

use super::allowance::SharedAllowance;
use super::backlog::{Backlog, Backlogs};
use super::connection::{ClientId, Connection};
use super::inbox::{Event, JoinRequest, Newcomer, Timed};
use super::outbox::{self, Outbox, ReaderEnd};
use super::read_half::ReadHalf;
use super::write_half::{Status, SweepQueue, WriterEnd};
use crate::config::{AllowedHost, Config};
use crate::protocol::close::CloseReason;
use crate::protocol::frame::ping_frame;
use crate::protocol::message::{BadMessage, ErrorReply, Request, frame_bytes_max};
use crate::system::logging;
use crate::system::metrics::METRICS;

/// Bytes read at a time. tungstenite allocates the buffer at once, so it counts for each idle
/// client.
const READ_BUFFER_BYTES: usize = 1024;
/// How long a closed connection waits for the other side to close too, so that the client sees the
/// close frame and not a reset.
const LINGER: Duration = Duration::from_secs(1);
/// Stack of a writer. It formats nothing and calls nothing deep.
const WRITER_STACK_BYTES: usize = 128 * 1024;

/// What the threads of all connections share.
pub struct Shared {
    /// The options.
    pub config: Arc<Config>,
    /// The names that the server answers to, apart from those of loopback.
    pub hosts: Vec<AllowedHost>,
    /// The way to the hub.
    pub inbox: Sender<Timed>,
    /// Where writers help each other.
    pub sweeps: SweepQueue,
    /// True once the server is stopping.
    pub stopping: Arc<AtomicBool>,
    /// Clients that send faster than they may.
    pub backlogs: Backlogs,
}

impl Shared {
    /// True once the server is stopping.
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}

/// An accepted upgrade.
pub struct Upgrade {
    /// The `101` response.
    pub response: Vec<u8>,
    /// Bytes that were received after the request head.
    pub leftover: Vec<u8>,
    /// Who wants to join which room, or what is wrong with the names. Boxed, to keep the reader's
    /// stack small.
    pub join: Result<Box<JoinRequest>, CloseReason>,
    /// What all clients of its address may send at once. `None` if its address is not counted.
    pub shared_burst: Option<SharedAllowance>,
}

/// Serves a chat client until it has gone, on this thread and one more.
///
/// # Errors
/// If the system has no thread for the writer. Then nothing was sent.
pub fn serve_ws(connection: &Arc<Connection>, upgrade: Upgrade, shared: &Shared) -> io::Result<()> {
    let Shared { config, sweeps, backlogs, .. } = shared;
    let Upgrade { response, leftover, join, shared_burst } = upgrade;
    with_writer(connection, response, config, sweeps, |outbox, replies| match join {
        Ok(request) => {
            let mut client = Client::register(connection, request, outbox, shared);
            let backlog = Backlog::new(config, shared_burst, backlogs);
            let parse = |message| event(connection.id, message, config);
            let handle = |incoming| {
                client.handle(incoming);
                Ok(())
            };
            let reason = read_pump(connection, leftover, replies, config, backlog, parse, handle);
            client.reason = reason;
            reason
        }
        Err(reason) => {
            outbox.refuse(reason, reason.advice());
            reason
        }
    })
}

/// Starts `write_pump` on a thread of its own, runs `read` on this one, and joins the two.
///
/// The writer sends the upgrade's `response` first, and ends when the outbox is dropped. `read`
/// returns why it ended.
///
/// # Errors
/// If the system has no thread for the writer. Then nothing was sent.
pub fn with_writer(
    connection: &Arc<Connection>,
    response: Vec<u8>,
    config: &Arc<Config>,
    sweeps: &SweepQueue,
    read: impl FnOnce(Outbox, &ReaderEnd) -> CloseReason,
) -> io::Result<()> {
    if connection.stream.set_read_timeout(Some(config.ping_timeout)).is_err() {
        // Only a socket that has gone refuses a timeout.
        return Ok(());
    }
    let (outbox, replies, mut writer) =
        outbox::channel(config.queue, outbox::bytes_max(config), sweeps);
    writer.put_first(response.into());
    writer.set_connection(connection);
    let thread = spawn_writer(writer, connection.clone(), config.clone())?;
    replies.set_writer(thread.thread().clone());
    METRICS.http_responses.with_label_values(&[StatusCode::SWITCHING_PROTOCOLS.as_str()]).inc();
    // Locals are dropped last to first, by a panic too: the hub is notified (by `Client`, in
    // `read`), then the writer ends, then it is joined, and then the end is reported.
    let mut end = EndReport { connection, reason: CloseReason::InternalError };
    let thread = JoinOnDrop(Some(thread));
    // Moved here, so that a panic drops it before `thread` and `end`.
    let replies = replies;

    let reason = read(outbox, &replies);
    read_to_end(&connection.stream);
    // The first to see the end knows why: the hub that dropped the client, or the reader.
    end.reason = replies.reason().unwrap_or(reason);
    drop(replies);
    drop(thread);
    drop(end);
    Ok(())
}

/// What [`read_pump`] hands on.
pub enum Incoming<T> {
    /// A message, as `parse` returned it.
    Message(T),
    /// The client sends faster than it may: further messages wait in its backlog.
    Slowed,
    /// The backlog is handed over.
    CaughtUp,
}

/// Reads messages, and hands them to `handle` at the allowed pace, until that, the client or the
/// socket ends it. Returns why it ended.
///
/// Generic, so that the conformance test can echo messages without a hub.
///
/// What was received before the end is handed over after it, still at the allowed pace. If that
/// takes time, the close is sent first.
///
/// Not inlined, so that its stack and that of making the queue don't add up. A page of the stack,
/// once touched, stays with the client.
#[inline(never)]
pub fn read_pump<T>(
    connection: &Connection,
    leftover: Vec<u8>,
    replies: &ReaderEnd,
    config: &Config,
    mut backlog: Box<Backlog<T>>,
    parse: impl Fn(Message) -> Result<T, CloseReason>,
    mut handle: impl FnMut(Incoming<T>) -> Result<(), CloseReason>,
) -> CloseReason {
    let half = ReadHalf::new(&connection.stream, replies, &leftover, config);
    let limits = limits(config);
    let mut socket = WebSocket::from_partially_read(half, leftover, Role::Server, Some(limits));
    let reason = loop {
        match read_one(&mut socket, replies, &mut backlog, &parse, &mut handle) {
            Ok(()) => {}
            Err(reason) => break reason,
        }
    };
    hand_over_rest(reason, replies, &mut backlog, handle);
    reason
}

fn limits(config: &Config) -> WebSocketConfig {
    let bytes_max = Some(frame_bytes_max(config.max_message_bytes));
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_frame_size(bytes_max)
        .max_message_size(bytes_max)
}

/// Reads one message, or waits until the next one of the backlog is due.
///
/// # Errors
/// Why the reading ends.
fn read_one<T>(
    socket: &mut WebSocket<ReadHalf>,
    replies: &ReaderEnd,
    backlog: &mut Backlog<T>,
    parse: &impl Fn(Message) -> Result<T, CloseReason>,
    handle: &mut impl FnMut(Incoming<T>) -> Result<(), CloseReason>,
) -> Result<(), CloseReason> {
    if !backlog.is_empty() {
        while let Some(message) = backlog.next_due() {
            handle(Incoming::Message(message))?;
        }
        if backlog.is_empty() {
            handle(Incoming::CaughtUp)?;
            backlog.caught_up();
        }
    }
    let wait = (!backlog.is_empty()).then(|| backlog.wait());
    if backlog.is_full() && !replies.over() {
        if let Some(wait) = wait {
            thread::sleep(wait);
        }
        return Ok(());
    }
    let polls = socket.get_mut().poll(wait);
    let message = polls.map_err(Error::Io).and_then(|()| socket.read());
    // A socket that was shut down still returns what it received before. Nobody waits for that.
    if replies.over() {
        return Err(CloseReason::ConnectionLost);
    }
    match message {
        Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
            socket.get_mut().message_complete();
            let bytes = message.len();
            let caught_up = backlog.is_empty();
            match backlog.admit(parse(message)?, bytes) {
                Some(message) => handle(Incoming::Message(message)),
                None if caught_up => handle(Incoming::Slowed),
                None => Ok(()),
            }
        }
        // Any frame is a sign of life. tungstenite replies to pings at the next read.
        Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => Ok(()),
        Ok(Message::Close(frame)) => Err(reason_of_close(frame)),
        Err(Error::Io(error)) if is_timeout(&error) && socket.get_ref().is_polling() => Ok(()),
        Err(error) => Err(reason_of_error(&error)),
    }
}

/// Hands over what is left in the backlog after the reading has ended for `reason`.
fn hand_over_rest<T>(
    reason: CloseReason,
    replies: &ReaderEnd,
    backlog: &mut Backlog<T>,
    mut handle: impl FnMut(Incoming<T>) -> Result<(), CloseReason>,
) {
    if backlog.is_empty() {
        return;
    }
    // The client need not wait for that.
    replies.close(reason);
    while !backlog.is_empty() && !replies.outbox_closed() {
        let Some(message) = backlog.next_due() else {
            thread::sleep(backlog.wait());
            continue;
        };
        if handle(Incoming::Message(message)).is_err() {
            return;
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Writes what the hub queues, pings the client, and sends the close frame.
fn write_pump(mut writer: WriterEnd, connection: &Connection, config: &Config) {
    // However this thread ends, the reader must not be left waiting for the socket.
    let _cut = CutOnDrop(&connection.stream);
    let written = write_until_closed(&mut writer, &connection.stream, config);
    writer.become_unavailable();
    match written {
        Ok(()) => linger(&writer, &connection.stream),
        Err(error) => writer.set_reason(match error.kind() {
            ErrorKind::TimedOut => CloseReason::TooSlow,
            _ => CloseReason::ConnectionLost,
        }),
    }
    writer.release_socket();
    let _ = connection.stream.shutdown(Shutdown::Both);
    writer.discard_until_closed();
}

/// Ends a clean close (RFC 6455, 7.1.1): after the close frame, shuts down the write half, and lets
/// the reader see the other side's end.
fn linger(writer: &WriterEnd, stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let deadline = Instant::now() + LINGER;
    while !writer.reader_done() {
        match deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => break,
            left => writer.wait(left),
        }
    }
}

/// Returns once the hub has closed the outbox, or the reader asks to close, and the close frame is
/// written.
fn write_until_closed(
    writer: &mut WriterEnd,
    stream: &TcpStream,
    config: &Config,
) -> io::Result<()> {
    let mut next_ping = Instant::now() + config.ping_interval;
    while writer.write_queued(stream, config.write_timeout)? == Status::Open
        && !writer.close_requested()
    {
        let now = Instant::now();
        if next_ping <= now {
            writer.write(stream, ping_frame().into(), config.write_timeout)?;
            next_ping = now + config.ping_interval;
        }
        writer.wait(next_ping - now);
    }
    match writer.reason() {
        // Nobody is left to receive it, and this code must not be sent (RFC 6455, 7.4.1).
        Some(CloseReason::ConnectionLost) => Ok(()),
        Some(reason) => writer.write_last(stream, reason.to_frame().into(), config.write_timeout),
        // Without a reason, the hub itself has failed.
        None => writer.write_last(
            stream,
            CloseReason::InternalError.to_frame().into(),
            config.write_timeout,
        ),
    }
}

/// Returns what a message asks of the hub.
fn event(id: ClientId, message: Message, config: &Config) -> Result<Event, CloseReason> {
    let Message::Text(text) = message else { return Err(CloseReason::Binary) };
    match Request::parse(&text, config.max_message_bytes) {
        Ok(Request::Public { content, reference }) => Ok(Event::Publish { id, content, reference }),
        Ok(Request::Private { to, content, reference }) => {
            Ok(Event::Whisper { id, to, content, reference })
        }
        Err(BadMessage::Error(reply)) => Ok(Event::Invalid { id, reply }),
        Err(BadMessage::TooBig) => Err(CloseReason::TooBig),
    }
}

fn reason_of_close(frame: Option<CloseFrame>) -> CloseReason {
    match frame {
        // What tungstenite puts in place of a code that must not be sent (RFC 6455, 7.4.1).
        Some(frame)
            if frame.code == CloseCode::Protocol && frame.reason == "Protocol violation" =>
        {
            CloseReason::ProtocolError
        }
        Some(frame) if frame.code != CloseCode::Normal => CloseReason::ClientGone,
        _ => CloseReason::ClientClosed,
    }
}

fn reason_of_error(error: &Error) -> CloseReason {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => CloseReason::TooBig,
        Error::Utf8(_) => CloseReason::InvalidUtf8,
        // The end of the stream without a close frame. tungstenite counts it as a broken protocol.
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => CloseReason::ConnectionLost,
        Error::Protocol(_) => CloseReason::ProtocolError,
        // The read timeout is the heartbeat's.
        Error::Io(error) if is_timeout(error) => CloseReason::PingTimeout,
        _ => CloseReason::ConnectionLost,
    }
}

/// Not inlined, like `read_pump`.
#[inline(never)]
fn spawn_writer(
    writer: WriterEnd,
    connection: Arc<Connection>,
    config: Arc<Config>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name(format!("writer {}", connection.id))
        .stack_size(WRITER_STACK_BYTES)
        .spawn(move || write_pump(writer, &connection, &config))
}

/// Reads and drops what is still received. It ends with the writer, which lingers for `LINGER`.
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

/// The reader's side of a client that is registered with the hub.
///
/// Its `Drop` unregisters the client. That is the one way out, taken by a panic too.
struct Client {
    id: ClientId,
    inbox: Sender<Timed>,
    message_rate: u32,
    /// True once the client was notified that it sends too fast.
    is_notified: bool,
    /// Why the client leaves. Until that is known, a drop can only be a panic.
    reason: CloseReason,
}

impl Client {
    /// Registers a client with the hub.
    ///
    /// Not inlined, like `read_pump`: they share a page of the stack.
    #[inline(never)]
    fn register(
        connection: &Connection,
        request: Box<JoinRequest>,
        outbox: Outbox,
        shared: &Shared,
    ) -> Client {
        let (id, JoinRequest { name, room, .. }) = (connection.id, &*request);
        if let Some(more) = logging::due(Level::Info, "join") {
            info!("client {id} from {} asks to join {room} as {name}{more}", connection.address());
        }
        let client = Client {
            id,
            inbox: shared.inbox.clone(),
            message_rate: shared.config.message_rate,
            is_notified: false,
            reason: CloseReason::InternalError,
        };
        client.send(Event::Register(Newcomer { id, outbox, request }));
        client
    }

    /// Sends to the hub what `read_pump` hands on.
    fn handle(&mut self, incoming: Incoming<Event>) {
        let id = self.id;
        match incoming {
            Incoming::Message(event) => self.send(event),
            Incoming::Slowed => {
                self.send(Event::Slowed { id });
                if !std::mem::replace(&mut self.is_notified, true) {
                    let reply = ErrorReply::slowed_down(self.message_rate);
                    self.send(Event::Invalid { id, reply });
                }
            }
            Incoming::CaughtUp => self.send(Event::CaughtUp { id }),
        }
    }

    /// Sends an event to the hub. Blocks while the inbox is full. Then nothing is read, and TCP
    /// slows the client.
    fn send(&self, event: Event) {
        if self.inbox.send(Timed::now(event)).is_err() {
            // The hub has ended. It dropped the outbox, and the writer closes the connection.
            if let Some(more) = logging::due(Level::Warn, "the hub has ended") {
                warn!("client {}: the hub has ended{more}", self.id);
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.send(Event::Unregister { id: self.id, reason: self.reason });
    }
}

/// Logs and counts how a connection ended, a panic included.
struct EndReport<'a> {
    connection: &'a Connection,
    reason: CloseReason,
}

impl Drop for EndReport<'_> {
    /// Not inlined, like `read_pump`.
    #[inline(never)]
    fn drop(&mut self) {
        let EndReport { connection, reason } = self;
        METRICS.disconnects_for(*reason).inc();
        if let Some(more) = logging::due(Level::Info, reason.name()) {
            info!(
                "client {} from {} gone: {} {}{more}",
                connection.id,
                connection.address(),
                reason.code(),
                reason.name()
            );
        }
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
        if self.0.take().is_some_and(|thread| thread.join().is_err())
            && let Some(more) = logging::due(Level::Warn, "writer panicked")
        {
            warn!("a writer panicked; only its client is gone{more}");
        }
    }
}
