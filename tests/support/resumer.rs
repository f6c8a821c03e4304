//! A client that does what the protocol asks of one whose line may break: it comes back with its
//! session, asks for what it has missed, and sends again what it has no receipt for. It checks
//! everything it is told.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::DEADLINE;

/// Messages on their way without a receipt, at most.
const UNCONFIRMED_MAX: usize = 4;
/// How long to wait for something that should come, at first. Each time in vain doubles it.
const PATIENCE: Duration = Duration::from_millis(100);
const PATIENCE_MAX: Duration = Duration::from_secs(4);
/// How long one who was refused waits before it asks again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// One person at a line that may break.
pub struct Resumer {
    address: SocketAddr,
    pub name: String,
    room: String,
    session: Option<String>,
    epoch: Option<String>,
    /// The room's public messages so far, in their order and without a gap.
    pub heard: Vec<Value>,
    /// Private ones to it, and how many public ones it had heard before each.
    pub whispers: Vec<(usize, Value)>,
    /// Joins and leaves.
    pub notices: Vec<String>,
    to_send: VecDeque<Value>,
    unconfirmed: VecDeque<Value>,
    /// Messages so far, for `ref`.
    refs: usize,
    patience: Duration,
    /// Patience at first, and after something has come.
    patience_first: Duration,
    /// Connections begun.
    pub connections: usize,
    /// Everything that went over the wire, for people to read.
    pub wire: Vec<String>,
}

/// Why a conversation ended.
enum End {
    /// What was wanted is there.
    Done,
    /// The line broke, or nothing came that should have.
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
            heard: Vec::new(),
            whispers: Vec::new(),
            notices: Vec::new(),
            to_send: VecDeque::new(),
            unconfirmed: VecDeque::new(),
            refs: 0,
            patience: PATIENCE,
            patience_first: PATIENCE,
            connections: 0,
            wire: Vec::new(),
        }
    }

    /// On a line that does not break: it never hangs up because nothing comes, whereby it might
    /// lose a private message that was on its way.
    pub fn on_a_good_line(mut self) -> Resumer {
        (self.patience, self.patience_first) = (DEADLINE, DEADLINE);
        self
    }

    /// Wants to say something to everyone.
    pub fn say(&mut self, content: &str) {
        self.send(json!({"type": "public", "content": content}));
    }

    /// Wants to say something to one member.
    pub fn whisper(&mut self, to: &str, content: &str) {
        self.send(json!({"type": "private", "to": to, "content": content}));
    }

    fn send(&mut self, mut message: Value) {
        self.refs += 1;
        message["ref"] = json!(format!("{}-{}", self.name, self.refs));
        self.to_send.push_back(message);
    }

    /// Connects, as often as it takes, until it has as many messages, public ones and private ones
    /// to it, and a receipt for each of its own.
    pub fn run_until(&mut self, public: usize, private: usize) {
        let deadline = Instant::now() + DEADLINE;
        while let End::Broken(why) = self.converse(public, private) {
            self.wire.push(format!("-- {why}"));
            assert!(
                Instant::now() < deadline,
                "{} has {} of {public} messages",
                self.name,
                self.heard.len()
            );
        }
        self.patience = self.patience_first;
    }

    fn done(&self, public: usize, private: usize) -> bool {
        let has_heard = self.heard.len() >= public && self.whispers.len() >= private;
        // Its own join comes first of all, once.
        has_heard
            && !self.notices.is_empty()
            && self.to_send.is_empty()
            && self.unconfirmed.is_empty()
    }

    /// One connection's life.
    fn converse(&mut self, public: usize, private: usize) -> End {
        let mut socket = match self.connect() {
            Ok(socket) => socket,
            Err(error) => return self.impatient(format!("no connection: {error}")),
        };
        let mut to_come = match self.read(&mut socket) {
            Ok(welcome) if welcome["type"] == "welcome" => self.welcomed(&welcome),
            Ok(refusal) => {
                thread::sleep(RETRY_PAUSE);
                return self.impatient(format!("refused: {}", refusal["code"]));
            }
            Err(end) => return end,
        };
        // While the history comes nothing is sent: it may hold the receipts.
        while to_come > 0 {
            match self.read(&mut socket) {
                Ok(message) => {
                    to_come -= usize::from(message["type"] == "public");
                    self.hear(message);
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
                Ok(message) => self.hear(message),
                Err(end) => return end,
            }
        }
        // Hung up like a phone in a tunnel, without a word: its place is kept for the next time.
        End::Done
    }

    fn connect(&mut self) -> Result<WebSocket<TcpStream>, String> {
        self.connections += 1;
        let mut query = format!("name={}&room={}", self.name, self.room);
        if let (Some(session), Some(epoch)) = (&self.session, &self.epoch) {
            query += &format!("&session={session}&epoch={epoch}&since={}", self.heard.len());
        }
        self.wire.push(format!("> GET /ws?{query}"));
        let stream = TcpStream::connect(self.address).map_err(|error| error.to_string())?;
        // Who hangs up without a session locks itself out until the grace ends.
        let patience = if self.session.is_some() { self.patience } else { DEADLINE };
        stream.set_read_timeout(Some(patience)).map_err(|error| error.to_string())?;
        let url = format!("ws://{}/ws?{query}", self.address);
        tungstenite::client(url, stream)
            .map(|(socket, _)| socket)
            .map_err(|error| error.to_string())
    }

    /// Checks a welcome, and returns how many public messages follow.
    fn welcomed(&mut self, welcome: &Value) -> usize {
        let (seq, history) = (number(welcome, "seq"), number(welcome, "history"));
        if let Some(session) = &self.session {
            assert_eq!(welcome["session"], **session, "it is still the same member");
            assert_eq!(welcome["recovered"], true, "the history is long enough");
            assert_eq!(seq - history, self.heard.len(), "what follows begins where it stopped");
        }
        assert_eq!(
            welcome["epoch"],
            **self.epoch.get_or_insert_with(|| text(welcome, "epoch")),
            "the same life"
        );
        self.session = Some(text(welcome, "session"));
        history
    }

    fn hear(&mut self, message: Value) {
        self.patience = self.patience_first;
        match &*text(&message, "type") {
            "public" => {
                assert_eq!(
                    number(&message, "seq"),
                    self.heard.len() + 1,
                    "{} hears no gap and no double",
                    self.name
                );
                self.confirm(&message);
                self.heard.push(message);
            }
            "private" => {
                self.confirm(&message);
                if message["to"] == *self.name {
                    self.whispers.push((self.heard.len(), message));
                }
            }
            "join" | "leave" => self.notices.push(text(&message, "content")),
            _ => panic!("{} did nothing wrong: {message}", self.name),
        }
    }

    /// A public message that was missed may be the receipt of a later message than a private one,
    /// which was not.
    fn confirm(&mut self, message: &Value) {
        if message["user"] == *self.name
            && let Some(at) = self.unconfirmed.iter().position(|sent| sent["ref"] == message["ref"])
        {
            let earlier = self.unconfirmed.range(..at).find(|sent| sent["type"] == message["type"]);
            assert_eq!(earlier, None, "{}'s messages keep their order", self.name);
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
                Ok(Message::Text(said)) => {
                    self.wire.push(format!("< {said}"));
                    return Ok(serde_json::from_str(&said).expect("each frame is one JSON object"));
                }
                Ok(Message::Close(frame)) => return Err(End::Broken(format!("closed: {frame:?}"))),
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(self.impatient("nothing comes any more".to_owned()));
                }
                Err(error) => return Err(End::Broken(error.to_string())),
            }
        }
    }

    fn impatient(&mut self, why: String) -> End {
        self.patience = (2 * self.patience).min(PATIENCE_MAX);
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
    /// Shows a failing test's conversation.
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}:\n{}", self.name, self.wire.join("\n"));
        }
    }
}
