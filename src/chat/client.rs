//! One chat client: two threads, as in Go.
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
use log::{info, warn};
use tungstenite::error::{CapacityError, Error, ProtocolError};
use tungstenite::http::StatusCode;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Message, Role, WebSocket, WebSocketConfig};

use super::connection::{ClientId, Connection};
use super::inbox::{Event, JoinRequest, Newcomer, Timed};
use super::outbox::{self, Outbox, ReaderEnd};
use super::read_half::ReadHalf;
use super::write_half::{Status, SweepQueue, WriterEnd};
use crate::config::Config;
use crate::protocol::close::CloseReason;
use crate::protocol::frame::ping_frame;
use crate::protocol::message::{BadMessage, Request, frame_bytes_max};
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
    /// The way to the hub.
    pub inbox: Sender<Timed>,
    /// Where writers help each other.
    pub sweeps: SweepQueue,
    /// True once the server was told to stop.
    pub stopping: Arc<AtomicBool>,
}

impl Shared {
    /// True once the server was told to stop.
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
}

/// Serves a chat client until it has gone, on this thread and one more.
///
/// # Errors
/// If the system has no thread for the writer. Then nothing was sent.
pub fn serve_ws(connection: &Arc<Connection>, upgrade: Upgrade, shared: &Shared) -> io::Result<()> {
    let Shared { config, inbox, sweeps, .. } = shared;
    let Upgrade { response, leftover, join } = upgrade;
    with_writer(connection, response, config, sweeps, |outbox, replies| match join {
        Ok(request) => {
            let mut client = Client::register(connection, request, outbox, inbox);
            client.reason = read_pump(connection, leftover, replies, config, |message| {
                client.send(event(connection.id, &message, config)?);
                Ok(())
            });
            client.reason
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

/// Reads messages and hands them to `handle`, until that, the client or the socket ends it. Returns
/// why it ended.
///
/// Not inlined, so that its stack and that of making the queue don't add up. A page of the stack,
/// once touched, stays with the client.
#[inline(never)]
pub fn read_pump(
    connection: &Connection,
    leftover: Vec<u8>,
    replies: &ReaderEnd,
    config: &Config,
    mut handle: impl FnMut(Message) -> Result<(), CloseReason>,
) -> CloseReason {
    let bytes_max = Some(frame_bytes_max(config.max_message_bytes));
    let limits = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_frame_size(bytes_max)
        .max_message_size(bytes_max);
    let half = ReadHalf::new(&connection.stream, replies, &leftover, config);
    let mut socket = WebSocket::from_partially_read(half, leftover, Role::Server, Some(limits));
    loop {
        let message = socket.read();
        socket.get_mut().pay_for_message();
        // A socket that was shut down still returns what it received before. Nobody waits for that.
        if replies.over() {
            return CloseReason::ConnectionLost;
        }
        match message {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                if let Err(reason) = handle(message) {
                    return reason;
                }
            }
            // Any frame is a sign of life. tungstenite replies to pings at the next read.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            Ok(Message::Close(frame)) => return reason_of_close(frame),
            Err(error) => return reason_of_error(&error),
        }
    }
}

/// Writes what the hub queues, pings the client, and sends the close frame.
fn write_pump(mut writer: WriterEnd, connection: &Connection, config: &Config) {
    // However this thread ends, the reader must not be left waiting for the socket.
    let _cut = CutOnDrop(&connection.stream);
    let written = write_until_closed(&mut writer, &connection.stream, config);
    writer.become_unavailable();
    if let Err(error) = written {
        writer.set_reason(match error.kind() {
            ErrorKind::TimedOut => CloseReason::TooSlow,
            _ => CloseReason::ConnectionLost,
        });
        return;
    }
    // A clean close (RFC 6455, 7.1.1): send, shut down the write half, let the reader see the
    // other side's end.
    let _ = connection.stream.shutdown(Shutdown::Write);
    let deadline = Instant::now() + LINGER;
    while !writer.reader_done() {
        match deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => break,
            left => writer.wait(left),
        }
    }
}

/// Returns once the hub has closed the outbox and the close frame is written.
fn write_until_closed(
    writer: &mut WriterEnd,
    stream: &TcpStream,
    config: &Config,
) -> io::Result<()> {
    let mut next_ping = Instant::now() + config.ping_interval;
    while writer.write_queued(stream, config.write_timeout)? == Status::Open {
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
fn event(id: ClientId, message: &Message, config: &Config) -> Result<Event, CloseReason> {
    let Message::Text(text) = message else { return Err(CloseReason::Binary) };
    match Request::parse(text, config.max_message_bytes) {
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
        Error::Io(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            CloseReason::PingTimeout
        }
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
        inbox: &Sender<Timed>,
    ) -> Client {
        let (id, JoinRequest { name, room, .. }) = (connection.id, &*request);
        info!("client {id} from {} asks to join {room} as {name}", connection.address());
        let client = Client { id, inbox: inbox.clone(), reason: CloseReason::InternalError };
        client.send(Event::Register(Newcomer { id, outbox, request }));
        client
    }

    /// Sends an event to the hub. Waits while the inbox is full, and so does the client, by TCP.
    fn send(&self, event: Event) {
        if self.inbox.send(Timed::now(event)).is_err() {
            // The hub has ended. It dropped the outbox, and the writer closes the connection.
            warn!("client {}: the hub has ended", self.id);
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
