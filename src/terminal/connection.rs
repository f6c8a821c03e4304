//! A connection to the server. A thread connects and reads; only the owner of [`WriteHalf`] writes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use tungstenite::error::Error;
use tungstenite::handshake::HandshakeError;
use tungstenite::http::Response;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::{Message, Utf8Bytes, WebSocket};

use crate::protocol::address::Address;
use crate::terminal::printable::to_printable;

/// Time to connect to each address of the server, and time for its answer to the upgrade.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that sends nothing for this long gets a ping, whatever its own ping interval is.
const QUIET_TIMEOUT: Duration = Duration::from_secs(45);
/// Quiet periods in a row that a connection survives.
const QUIET_PERIODS_MAX: u32 = 1;
/// Time for the server to take what is written. One that slows a client down takes a little now and
/// then.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Events that wait to be handled. When there are more, TCP makes the server wait.
const EVENTS_MAX: usize = 256;
/// Characters to show of an answer that refuses the upgrade.
const REFUSAL_CHARS_MAX: usize = 200;

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
    /// It could not be opened, or it broke, and why. The last event.
    Lost(String),
}

/// Starts the thread that connects and reads, and returns its events. Dropping both the receiver
/// and the [`WriteHalf`] ends the connection.
///
/// # Errors
/// Returns the system's error if there can't be another thread.
pub fn connect(address: Address, query: &str) -> io::Result<Receiver<ConnectionEvent>> {
    let (sender, events) = bounded(EVENTS_MAX);
    let url = format!("ws://{}{}?{query}", address.authority, address.path);
    // Not joined: it may still wait for the server when the program ends.
    thread::Builder::new().name("reader".to_owned()).spawn(move || {
        let why = read_pump(&address, &url, &sender);
        // The receiver may have gone.
        let _ = sender.send(ConnectionEvent::Lost(why));
    })?;
    Ok(events)
}

/// Connects, and sends events until the connection ends. Returns why it ended.
fn read_pump(address: &Address, url: &str, sender: &Sender<ConnectionEvent>) -> String {
    let mut socket = match open(address, url, sender) {
        Ok(socket) => socket,
        Err(why) => return why,
    };
    let mut quiet_periods = 0;
    loop {
        let event = match socket.read() {
            Ok(message) => {
                quiet_periods = 0;
                match message {
                    Message::Text(text) => ConnectionEvent::Text(text),
                    Message::Close(frame) => {
                        // The reply comes first.
                        let _ = socket.flush();
                        closed(frame)
                    }
                    _ => continue,
                }
            }
            Err(Error::Io(error)) if is_timeout(&error) => {
                quiet_periods += 1;
                if quiet_periods > QUIET_PERIODS_MAX {
                    return "the server does not answer any more".into();
                }
                ConnectionEvent::Quiet
            }
            Err(Error::Io(error)) => return error.to_string(),
            Err(error) => return to_printable(&error.to_string()),
        };
        if sender.send(event).is_err() {
            return String::new();
        }
    }
}

/// Connects and upgrades to WebSocket, or returns why that failed.
fn open(
    address: &Address,
    url: &str,
    sender: &Sender<ConnectionEvent>,
) -> Result<WebSocket<ReadHalf>, String> {
    let stream = address.connect(CONNECT_TIMEOUT).map_err(|error| error.to_string())?;
    stream
        .set_nodelay(true)
        .and_then(|()| stream.set_write_timeout(Some(WRITE_TIMEOUT)))
        .and_then(|()| stream.set_read_timeout(Some(CONNECT_TIMEOUT)))
        .map_err(|error| error.to_string())?;
    let stream = Arc::new(stream);
    let read_half = ReadHalf { stream: stream.clone(), replies: None };
    let mut socket = match tungstenite::client(url, read_half) {
        Ok((socket, _)) => socket,
        Err(HandshakeError::Interrupted(_)) => return Err("no answer came in time".into()),
        Err(HandshakeError::Failure(Error::Http(response))) => return Err(refusal(&response)),
        Err(HandshakeError::Failure(error)) => return Err(to_printable(&error.to_string())),
    };
    stream.set_read_timeout(Some(QUIET_TIMEOUT)).map_err(|error| error.to_string())?;
    socket.get_mut().replies = Some(sender.clone());
    let _ = sender.send(ConnectionEvent::Opened(WriteHalf { stream }));
    Ok(socket)
}

/// Describes an answer that is not an upgrade.
fn refusal(response: &Response<Option<Vec<u8>>>) -> String {
    let body = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    let text: String =
        body.lines().next().unwrap_or_default().chars().take(REFUSAL_CHARS_MAX).collect();
    format!("the server answers {}: {}", response.status(), to_printable(&text))
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
    /// `None` until the upgrade is done, which tungstenite writes to the socket.
    replies: Option<Sender<ConnectionEvent>>,
}

impl Read for ReadHalf {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // A signal interrupts a read that has a timeout (signal(7)). The connection must survive a
        // window that changes its size.
        loop {
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
