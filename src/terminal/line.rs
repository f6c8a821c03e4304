//! One connection to the server. A thread connects and reads; whoever holds the [`Writer`] is the only one that writes.

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

use super::printable::to_printable;
use crate::protocol::address::Address;

/// Time to connect, for each address of the server, and for its answer to the upgrade.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that is silent for so long is asked for a sign of life, whatever its own ping interval is.
const QUIET_TIMEOUT: Duration = Duration::from_secs(45);
/// So often it may be silent; the next time the line is dead.
const QUIET_MAX: u32 = 1;
/// Time for what is written to be taken. A server that slows a client down takes something now and then.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// What has been read and not yet been handled. Beyond it the server waits, by TCP.
const INCOMING_MAX: usize = 256;
/// What is said of a refusal at most.
const REFUSAL_CHARS_MAX: usize = 200;

/// What comes from a connection.
pub enum Incoming {
    /// It is open.
    Open(Writer),
    /// A message.
    Text(Utf8Bytes),
    /// A frame that tungstenite wants to be written: the answer to a ping or a close.
    Control(Vec<u8>),
    /// Nothing has come for a while.
    Quiet,
    /// The server closed it, with a code and a reason.
    Closed(u16, String),
    /// It could not be opened, or it broke. The last to come.
    Lost(String),
}

/// Begins to connect. What becomes of it comes through the channel; whoever drops that and the writer ends the connection.
///
/// # Errors
/// What the system says when there is no thread for it.
pub fn connect(address: Address, query: &str) -> io::Result<Receiver<Incoming>> {
    let (incoming, read) = bounded(INCOMING_MAX);
    let url = format!("ws://{}{}?{query}", address.authority, address.path);
    thread::Builder::new().name("reader".to_owned()).spawn(move || {
        let why = read_pump(&address, &url, &incoming);
        // Nobody may be there any more.
        let _ = incoming.send(Incoming::Lost(why));
    })?;
    Ok(read)
}

/// Connects, and hands on what comes until the connection ends. Returns why.
fn read_pump(address: &Address, url: &str, incoming: &Sender<Incoming>) -> String {
    let mut socket = match open(address, url, incoming) {
        Ok(socket) => socket,
        Err(why) => return why,
    };
    let mut quiet = 0;
    loop {
        let told = match socket.read() {
            Ok(Message::Text(text)) => incoming.send(Incoming::Text(text)),
            Ok(Message::Close(frame)) => {
                // The answer to it goes first.
                let _ = socket.flush();
                let (code, reason) = frame
                    .map_or((CloseCode::Status.into(), String::new()), |frame| {
                        (frame.code.into(), frame.reason.to_string())
                    });
                incoming.send(Incoming::Closed(code, reason))
            }
            Ok(_) => Ok(()),
            Err(Error::Io(error)) if timed_out(&error) => {
                quiet += 1;
                if quiet > QUIET_MAX {
                    return "the server has fallen silent".into();
                }
                if incoming.send(Incoming::Quiet).is_err() {
                    return String::new();
                }
                continue;
            }
            Err(Error::Io(error)) => return error.to_string(),
            Err(error) => return to_printable(&error.to_string()),
        };
        quiet = 0;
        if told.is_err() {
            return String::new();
        }
    }
}

fn open(
    address: &Address,
    url: &str,
    incoming: &Sender<Incoming>,
) -> Result<WebSocket<ReadHalf>, String> {
    let stream = address.connect(CONNECT_TIMEOUT).map_err(|error| error.to_string())?;
    let set = stream.set_nodelay(true).and_then(|()| stream.set_write_timeout(Some(WRITE_TIMEOUT)));
    set.and_then(|()| stream.set_read_timeout(Some(CONNECT_TIMEOUT)))
        .map_err(|error| error.to_string())?;
    let stream = Arc::new(stream);
    let half = ReadHalf { stream: stream.clone(), incoming: None };
    let mut socket = match tungstenite::client(url, half) {
        Ok((socket, _)) => socket,
        Err(HandshakeError::Interrupted(_)) => return Err("no answer came in time".into()),
        Err(HandshakeError::Failure(Error::Http(response))) => return Err(refusal(&response)),
        Err(HandshakeError::Failure(error)) => return Err(to_printable(&error.to_string())),
    };
    stream.set_read_timeout(Some(QUIET_TIMEOUT)).map_err(|error| error.to_string())?;
    socket.get_mut().incoming = Some(incoming.clone());
    let _ = incoming.send(Incoming::Open(Writer { stream }));
    Ok(socket)
}

/// What an answer says that is no upgrade.
fn refusal(response: &Response<Option<Vec<u8>>>) -> String {
    let text = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    let first: String =
        text.lines().next().unwrap_or_default().chars().take(REFUSAL_CHARS_MAX).collect();
    format!("it answers {}: {}", response.status(), to_printable(&first))
}

fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// The side of a connection that writes. Dropped, it ends the connection.
pub struct Writer {
    stream: Arc<TcpStream>,
}

impl Writer {
    /// Sends a text message.
    ///
    /// # Errors
    /// What the socket says; the connection is of no more use then. The same holds for the other methods.
    pub fn text(&self, text: String) -> io::Result<()> {
        self.frame(Frame::message(text, OpCode::Data(Data::Text), true))
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// See [`text`](Writer::text).
    pub fn ping(&self) -> io::Result<()> {
        self.frame(Frame::ping(Vec::new()))
    }

    /// Says goodbye: this member leaves.
    ///
    /// # Errors
    /// See [`text`](Writer::text).
    pub fn close(&self) -> io::Result<()> {
        self.frame(Frame::close(Some(CloseFrame {
            code: CloseCode::Normal,
            reason: Utf8Bytes::default(),
        })))
    }

    /// Sends a frame that is complete.
    ///
    /// # Errors
    /// See [`text`](Writer::text).
    pub fn bytes(&self, frame: &[u8]) -> io::Result<()> {
        (&*self.stream).write_all(frame)
    }

    fn frame(&self, mut frame: Frame) -> io::Result<()> {
        // A client masks with bytes nobody can foresee (RFC 6455, 5.3).
        frame.header_mut().mask = Some(getrandom::u32().map_err(io::Error::other)?.to_ne_bytes());
        let mut bytes = Vec::new();
        frame.format(&mut bytes).map_err(io::Error::other)?;
        self.bytes(&bytes)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// tungstenite's view of the socket. It reads, and what it would write goes to the writer, once there is one.
struct ReadHalf {
    stream: Arc<TcpStream>,
    incoming: Option<Sender<Incoming>>,
}

impl Read for ReadHalf {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // With a timeout set, a signal interrupts a read (signal(7)): a window that changes its size is no reason to end.
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
        match &self.incoming {
            Some(incoming) => {
                let _ = incoming.send(Incoming::Control(bytes.to_vec()));
                Ok(bytes.len())
            }
            None => (&*self.stream).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
