//! A connection to the server. A thread connects and reads; only the owner of [`WriteHalf`] writes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use tungstenite::client::client_with_config;
use tungstenite::error::Error;
use tungstenite::handshake::HandshakeError;
use tungstenite::http::Response;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::{Message, Utf8Bytes, WebSocket};

use crate::protocol::address::Address;
use crate::terminal::printable::{shorten, to_printable};
use crate::terminal::received::{Excess, MESSAGE_BYTES_MAX};

/// Quiet periods in a row that a connection survives.
const QUIET_PERIODS_MAX: u32 = 1;
/// Time for the server to take what is written. One that slows a client down takes a little now and
/// then.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Events that wait to be handled: few, since each may hold a message of `MESSAGE_BYTES_MAX`. When
/// there are more, TCP makes the server wait.
const EVENTS_MAX: usize = 4;
/// Characters to show of what the server answers instead of an upgrade, or of an error about it.
/// tungstenite reads up to 64 KiB and 124 headers of an answer.
const ANSWER_CHARS_MAX: usize = 200;

/// How long to wait for the server. A server that sends a byte now and then does not prolong it.
#[derive(Clone, Copy)]
pub struct Timeouts {
    /// Time to connect to each address of the server, and time for its whole answer to the upgrade.
    pub answer: Duration,
    /// A server that sends no whole message for this long gets a ping, whatever its own ping
    /// interval is.
    pub quiet: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts { answer: Duration::from_secs(10), quiet: Duration::from_secs(45) }
    }
}

/// What happens on a connection.
pub enum ConnectionEvent {
    /// It is open.
    Opened(WriteHalf),
    /// A text message arrived.
    Text(Utf8Bytes),
    /// tungstenite wants a frame written: the reply to a ping or to a close.
    Reply(Vec<u8>),
    /// Nothing has arrived for a while.
    Quiet,
    /// The server closed it, with a code and a reason.
    Closed(u16, String),
    /// The server sent more than any server of parlour. The last event.
    Exceeded(Excess),
    /// It could not be opened, or it broke, and why. The last event.
    Lost(String),
}

/// Starts the thread that connects and reads, and returns its events. Dropping both the receiver
/// and the [`WriteHalf`] ends the connection.
///
/// # Errors
/// Returns the system's error if there can't be another thread.
pub fn connect(
    address: Address,
    query: &str,
    timeouts: Timeouts,
) -> io::Result<Receiver<ConnectionEvent>> {
    let (sender, events) = bounded(EVENTS_MAX);
    let url = format!("ws://{}{}?{query}", address.authority, address.path);
    // Not joined: it may still wait for the server when the program ends.
    thread::Builder::new().name("reader".to_owned()).spawn(move || {
        let last = read_pump(&address, &url, timeouts, &sender);
        // The receiver may have gone.
        let _ = sender.send(last);
    })?;
    Ok(events)
}

/// Connects, and sends events until the connection ends. Returns the last event.
fn read_pump(
    address: &Address,
    url: &str,
    timeouts: Timeouts,
    sender: &Sender<ConnectionEvent>,
) -> ConnectionEvent {
    let mut socket = match open(address, url, timeouts.answer, sender) {
        Ok(socket) => socket,
        Err(why) => return ConnectionEvent::Lost(why),
    };
    let mut quiet_periods = 0;
    loop {
        socket.get_mut().deadline = Instant::now() + timeouts.quiet;
        let received = socket.read();
        quiet_periods = if received.is_ok() { 0 } else { quiet_periods + 1 };
        let event = match received {
            Ok(Message::Text(text)) => ConnectionEvent::Text(text),
            Ok(Message::Close(frame)) => {
                // The reply comes first.
                let _ = socket.flush();
                closed(frame)
            }
            Ok(_) => continue,
            Err(Error::Io(error)) if is_timeout(&error) && quiet_periods <= QUIET_PERIODS_MAX => {
                ConnectionEvent::Quiet
            }
            Err(error) => return broken(error),
        };
        if sender.send(event).is_err() {
            return ConnectionEvent::Lost(String::new());
        }
    }
}

/// Connects and upgrades to WebSocket, or returns why that failed.
fn open(
    address: &Address,
    url: &str,
    timeout: Duration,
    sender: &Sender<ConnectionEvent>,
) -> Result<WebSocket<ReadHalf>, String> {
    let stream = address.connect(timeout).map_err(|error| error.to_string())?;
    stream
        .set_nodelay(true)
        .and_then(|()| stream.set_write_timeout(Some(WRITE_TIMEOUT)))
        .map_err(|error| error.to_string())?;
    let stream = Arc::new(stream);
    let deadline = Instant::now() + timeout;
    let read_half = ReadHalf { stream: stream.clone(), deadline, replies: None };
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let mut socket = match client_with_config(url, read_half, Some(config)) {
        Ok((socket, _)) => socket,
        Err(HandshakeError::Interrupted(_)) => return Err("no answer came in time".into()),
        Err(HandshakeError::Failure(Error::Http(response))) => return Err(refusal(&response)),
        Err(HandshakeError::Failure(error)) => return Err(describe(&error.to_string())),
    };
    socket.get_mut().replies = Some(sender.clone());
    let _ = sender.send(ConnectionEvent::Opened(WriteHalf { stream }));
    Ok(socket)
}

/// Returns the last event of a connection that ended with `error`.
fn broken(error: Error) -> ConnectionEvent {
    let why = match error {
        Error::Capacity(_) => {
            let excess = Excess::over(MESSAGE_BYTES_MAX, "bytes in a message");
            return ConnectionEvent::Exceeded(excess);
        }
        Error::Io(error) if is_timeout(&error) => "the server does not answer any more".into(),
        Error::Io(error) => error.to_string(),
        error => describe(&error.to_string()),
    };
    ConnectionEvent::Lost(why)
}

/// Describes an answer that is not an upgrade.
fn refusal(response: &Response<Option<Vec<u8>>>) -> String {
    let body = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    let text = describe(body.lines().next().unwrap_or_default());
    format!("the server answers {}: {text}", response.status())
}

/// Returns words of the server, or with such in them, as they may be shown.
fn describe(words: &str) -> String {
    to_printable(&shorten(words, ANSWER_CHARS_MAX))
}

fn closed(frame: Option<CloseFrame>) -> ConnectionEvent {
    match frame {
        Some(CloseFrame { code, reason }) => {
            ConnectionEvent::Closed(code.into(), reason.to_string())
        }
        None => ConnectionEvent::Closed(CloseCode::Status.into(), String::new()),
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// The half of a connection that writes. Dropping it ends the connection, which is of no use after
/// an error either.
pub struct WriteHalf {
    stream: Arc<TcpStream>,
}

impl WriteHalf {
    /// Sends a text message. Blocks up to `WRITE_TIMEOUT` for each part that the socket takes.
    ///
    /// # Errors
    /// Returns the error of the socket.
    pub fn send_text(&self, text: String) -> io::Result<()> {
        self.send_frame(Frame::message(text, OpCode::Data(Data::Text), true))
    }

    /// Sends a ping, which makes the server send something.
    ///
    /// # Errors
    /// See [`send_text`](WriteHalf::send_text).
    pub fn send_ping(&self) -> io::Result<()> {
        self.send_frame(Frame::ping(Vec::new()))
    }

    /// Sends a close frame: this member leaves the room for good.
    ///
    /// # Errors
    /// See [`send_text`](WriteHalf::send_text).
    pub fn send_close(&self) -> io::Result<()> {
        self.send_frame(Frame::close(Some(CloseFrame {
            code: CloseCode::Normal,
            reason: Utf8Bytes::default(),
        })))
    }

    /// Sends a frame that tungstenite has encoded.
    ///
    /// # Errors
    /// See [`send_text`](WriteHalf::send_text).
    pub fn send_encoded(&self, frame: &[u8]) -> io::Result<()> {
        (&*self.stream).write_all(frame)
    }

    fn send_frame(&self, mut frame: Frame) -> io::Result<()> {
        // A client masks its frames with bytes that nobody can predict (RFC 6455, 5.3).
        frame.header_mut().mask = Some(getrandom::u32().map_err(io::Error::other)?.to_ne_bytes());
        let mut bytes = Vec::new();
        frame.format(&mut bytes).map_err(io::Error::other)?;
        self.send_encoded(&bytes)
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// tungstenite's view of the socket. It reads from the socket itself. What it writes becomes an
/// event, so that no frame lands in the middle of another.
struct ReadHalf {
    stream: Arc<TcpStream>,
    /// When to stop waiting for the rest of what is being read.
    deadline: Instant,
    /// `None` until the upgrade is done, which tungstenite writes to the socket.
    replies: Option<Sender<ConnectionEvent>>,
}

impl Read for ReadHalf {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // A signal interrupts a read that has a timeout (signal(7)). The connection must survive a
        // window that changes its size.
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            match (&*self.stream).read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl Write for ReadHalf {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.replies {
            Some(replies) => {
                let _ = replies.send(ConnectionEvent::Reply(bytes.to_vec()));
                Ok(bytes.len())
            }
            None => (&*self.stream).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
