//! A client that survives broken connections as the protocol says: it comes back with its session,
//! asks for what it missed, and sends again what was not confirmed. It checks all that it receives.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::DEADLINE;

/// Maximum number of messages that are sent and not confirmed.
const UNCONFIRMED_MAX: usize = 4;
/// How long it first waits for something that should come. Each timeout doubles this.
const TIMEOUT_FIRST: Duration = Duration::from_millis(100);
const TIMEOUT_MAX: Duration = Duration::from_secs(4);
/// How long it waits after a refusal before it tries again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// A member whose connection may break.
pub struct Resumer {
    address: SocketAddr,
    pub name: String,
    room: String,
    session: Option<String>,
    epoch: Option<String>,
    /// The room's public messages so far, in order and without a gap.
    pub received: Vec<Value>,
    /// Private messages to it, and how many public ones it had received before each.
    pub private: Vec<(usize, Value)>,
    /// The contents of all join and leave notices.
    pub notices: Vec<String>,
    to_send: VecDeque<Value>,
    unconfirmed: VecDeque<Value>,
    /// How many messages have a `ref` so far.
    references: usize,
    timeout: Duration,
    /// The timeout on the first connection, and after any message.
    timeout_first: Duration,
    /// How many connections it has made.
    pub connections: usize,
    /// All that went over the wire, for people to read.
    pub wire: Vec<String>,
}

/// How a connection ended.
enum End {
    /// All that it waited for has come.
    Done,
    /// The connection broke, or something that should have come did not.
    Broken(String),
}

impl Resumer {
    pub fn new(address: SocketAddr, name: &str, room: &str) -> Resumer {
        Resumer {
            address,
            name: name.to_owned(),
            room: room.to_owned(),
            session: None,
            epoch: None,
            received: Vec::new(),
            private: Vec::new(),
            notices: Vec::new(),
            to_send: VecDeque::new(),
            unconfirmed: VecDeque::new(),
            references: 0,
            timeout: TIMEOUT_FIRST,
            timeout_first: TIMEOUT_FIRST,
            connections: 0,
            wire: Vec::new(),
        }
    }

    /// Lets it wait until the deadline instead of hanging up early, since hanging up may lose a
    /// private message on its way. For a connection that does not break.
    pub fn patient(mut self) -> Resumer {
        (self.timeout, self.timeout_first) = (DEADLINE, DEADLINE);
        self
    }

    /// Queues a public message, which is sent while it runs.
    pub fn say(&mut self, content: &str) {
        self.send(json!({"type": "public", "content": content}));
    }

    /// Queues a private message, which is sent while it runs.
    pub fn whisper(&mut self, to: &str, content: &str) {
        self.send(json!({"type": "private", "to": to, "content": content}));
    }

    fn send(&mut self, mut message: Value) {
        self.references += 1;
        message["ref"] = json!(format!("{}-{}", self.name, self.references));
        self.to_send.push_back(message);
    }

    /// Connects as often as it takes, until it has received this many public messages and private
    /// messages to it, and all of its own are confirmed.
    pub fn run_until(&mut self, public: usize, private: usize) {
        let deadline = Instant::now() + DEADLINE;
        while let End::Broken(why) = self.run_connection(public, private) {
            self.wire.push(format!("-- {why}"));
            assert!(
                Instant::now() < deadline,
                "{} has {} of {public} messages",
                self.name,
                self.received.len()
            );
        }
        self.timeout = self.timeout_first;
    }

    fn done(&self, public: usize, private: usize) -> bool {
        let has_received = self.received.len() >= public && self.private.len() >= private;
        // Its own join comes before any other notice.
        has_received
            && !self.notices.is_empty()
            && self.to_send.is_empty()
            && self.unconfirmed.is_empty()
    }

    /// Connects once, and sends and receives until everything is done or the connection breaks.
    fn run_connection(&mut self, public: usize, private: usize) -> End {
        let mut socket = match self.connect() {
            Ok(socket) => socket,
            Err(error) => return self.timed_out(format!("no connection: {error}")),
        };
        let mut to_come = match self.read(&mut socket) {
            Ok(welcome) if welcome["type"] == "welcome" => self.welcomed(&welcome),
            Ok(refusal) => {
                thread::sleep(RETRY_PAUSE);
                return self.timed_out(format!("refused: {}", refusal["code"]));
            }
            Err(end) => return end,
        };
        // Nothing is sent before the history is there, since it may confirm messages.
        while to_come > 0 {
            match self.read(&mut socket) {
                Ok(message) => {
                    to_come -= usize::from(message["type"] == "public");
                    self.receive(message);
                }
                Err(end) => return end,
            }
        }
        for message in self.unconfirmed.clone() {
            if let Err(end) = self.write(&mut socket, &message) {
                return end;
            }
        }
        while !self.done(public, private) {
            while self.unconfirmed.len() < UNCONFIRMED_MAX
                && let Some(message) = self.to_send.pop_front()
            {
                self.unconfirmed.push_back(message.clone());
                if let Err(end) = self.write(&mut socket, &message) {
                    return end;
                }
            }
            match self.read(&mut socket) {
                Ok(message) => self.receive(message),
                Err(end) => return end,
            }
        }
        // It hangs up without a close frame, so the server keeps its place for the next time.
        End::Done
    }

    fn connect(&mut self) -> Result<WebSocket<TcpStream>, String> {
        self.connections += 1;
        let mut query = format!("name={}&room={}", self.name, self.room);
        if let (Some(session), Some(epoch)) = (&self.session, &self.epoch) {
            query += &format!("&session={session}&epoch={epoch}&since={}", self.received.len());
        }
        self.wire.push(format!("> GET /ws?{query}"));
        let stream = TcpStream::connect(self.address).map_err(|error| error.to_string())?;
        // Without a session, hanging up would lock its name until the grace ends.
        let timeout = if self.session.is_some() { self.timeout } else { DEADLINE };
        stream.set_read_timeout(Some(timeout)).map_err(|error| error.to_string())?;
        let url = format!("ws://{}/ws?{query}", self.address);
        tungstenite::client(url, stream)
            .map(|(socket, _)| socket)
            .map_err(|error| error.to_string())
    }

    /// Checks a welcome, and returns how many public messages follow.
    fn welcomed(&mut self, welcome: &Value) -> usize {
        let (seq, history) = (number(welcome, "seq"), number(welcome, "history"));
        if let Some(session) = &self.session {
            assert_eq!(welcome["session"], **session, "the same member as before");
            assert_eq!(welcome["recovered"], true, "the history is long enough");
            assert_eq!(seq - history, self.received.len(), "nothing missed, nothing twice");
        }
        assert_eq!(
            welcome["epoch"],
            **self.epoch.get_or_insert_with(|| text(welcome, "epoch")),
            "the same epoch as before"
        );
        self.session = Some(text(welcome, "session"));
        history
    }

    fn receive(&mut self, message: Value) {
        self.timeout = self.timeout_first;
        match &*text(&message, "type") {
            "public" => {
                assert_eq!(
                    number(&message, "seq"),
                    self.received.len() + 1,
                    "{} receives each message once",
                    self.name
                );
                self.confirm(&message);
                self.received.push(message);
            }
            "private" => {
                self.confirm(&message);
                if message["to"] == *self.name {
                    self.private.push((self.received.len(), message));
                }
            }
            "join" | "leave" => self.notices.push(text(&message, "content")),
            _ => panic!("{} receives {message}", self.name),
        }
    }

    /// Takes a message of its own from the unconfirmed ones, of which it must be the oldest of its
    /// type. Of two types, a later one may be confirmed first: a missed public message follows the
    /// welcome, a missed private one is confirmed when it is sent again.
    fn confirm(&mut self, message: &Value) {
        if message["user"] == *self.name
            && let Some(at) = self.unconfirmed.iter().position(|sent| sent["ref"] == message["ref"])
        {
            let earlier = self.unconfirmed.range(..at).find(|sent| sent["type"] == message["type"]);
            assert_eq!(earlier, None, "the messages of {} keep their order", self.name);
            self.unconfirmed.remove(at);
        }
    }

    fn write(&mut self, socket: &mut WebSocket<TcpStream>, message: &Value) -> Result<(), End> {
        self.wire.push(format!("> {message}"));
        socket
            .send(Message::text(message.to_string()))
            .map_err(|error| End::Broken(error.to_string()))
    }

    fn read(&mut self, socket: &mut WebSocket<TcpStream>) -> Result<Value, End> {
        loop {
            match socket.read() {
                Ok(Message::Text(text)) => {
                    self.wire.push(format!("< {text}"));
                    return Ok(serde_json::from_str(&text).expect("each frame is one JSON object"));
                }
                Ok(Message::Close(frame)) => return Err(End::Broken(format!("closed: {frame:?}"))),
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(self.timed_out("nothing came in time".to_owned()));
                }
                Err(error) => return Err(End::Broken(error.to_string())),
            }
        }
    }

    /// Waits longer on the next connection.
    fn timed_out(&mut self, why: String) -> End {
        self.timeout = (2 * self.timeout).min(TIMEOUT_MAX);
        End::Broken(why)
    }
}

fn text(message: &Value, key: &str) -> String {
    message[key].as_str().unwrap_or_else(|| panic!("{key} in {message}")).to_owned()
}

fn number(message: &Value, key: &str) -> usize {
    message[key].as_u64().unwrap_or_else(|| panic!("{key} in {message}")) as usize
}

impl Drop for Resumer {
    /// Prints what went over the wire if the test fails.
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}:\n{}", self.name, self.wire.join("\n"));
        }
    }
}
