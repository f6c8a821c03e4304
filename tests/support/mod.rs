//! What the tests share: servers, clients, and waiting with a deadline.

pub mod browser;
pub mod model;
pub mod namespace;
pub mod pipe;
pub mod program;
pub mod proxy;
pub mod pty;
pub mod random;
pub mod raw;
pub mod resumer;
pub mod scripted;
pub mod steps;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parlour::config::Config;
use parlour::server::{RunError, Server, StopHandle};
use serde_json::{Value, json};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message, WebSocket};

/// How long a test waits for something before it fails.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Reads `options` as the command line does. Unless they say otherwise: a free port, no limit on
/// messages, and no grace for a member whose connection breaks.
pub fn config(options: &[&str]) -> Config {
    let mut arguments = vec!["parlour"];
    for (option, value) in
        [("--listen", "127.0.0.1:0"), ("--message-rate", "0"), ("--leave-grace", "0")]
    {
        if !options.contains(&option) {
            arguments.extend([option, value]);
        }
    }
    Config::read(arguments.iter().chain(options)).expect("valid options")
}

/// A server in this process. Dropping it stops it, and fails the test if it does not stop well.
pub struct TestServer {
    pub address: SocketAddr,
    stop: StopHandle,
    running: Option<JoinHandle<Result<(), RunError>>>,
}

impl TestServer {
    pub fn start(options: &[&str]) -> TestServer {
        let server = Server::bind(config(options)).expect("a free port");
        let address = server.local_addr().expect("a bound server has an address");
        let stop = server.stop_handle();
        TestServer { address, stop, running: Some(thread::spawn(|| server.run())) }
    }

    /// Tells the server to stop, and returns at once.
    pub fn stop(&self) {
        self.stop.stop();
    }

    /// Waits until the stopped server has ended. Returns how it ended.
    pub fn ended(&mut self) -> Result<(), RunError> {
        let running = self.running.take().expect("only one caller waits for the end");
        eventually("the server's end", || running.is_finished().then_some(()));
        running.join().expect("the accept loop does not panic")
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop();
        if let Some(running) = self.running.take() {
            let ended = running.join();
            if !thread::panicking() {
                ended.expect("the accept loop does not panic").expect("the server stops in time");
            }
        }
    }
}

/// A chat client on tungstenite.
pub struct Client {
    socket: WebSocket<TcpStream>,
}

impl Client {
    /// Connects to `/ws` with `query`. Nothing that the server sends is read yet.
    pub fn connect(server: &TestServer, query: &str) -> Client {
        let stream = TcpStream::connect(server.address).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let url = format!("ws://{}/ws?{query}", server.address);
        let (socket, _) = tungstenite::client(url, stream).expect("an upgrade");
        Client { socket }
    }

    /// Joins the lobby as `name`, and reads up to its own join notice.
    pub fn join(server: &TestServer, name: &str) -> Client {
        Client::join_room(server, name, "lobby")
    }

    /// Joins `room` as `name`, and reads up to its own join notice.
    pub fn join_room(server: &TestServer, name: &str, room: &str) -> Client {
        let mut client = Client::connect(server, &format!("name={name}&room={room}"));
        client.next_where(|message| message["type"] == "join" && message["user"] == name);
        client
    }

    pub fn send(&mut self, message: Value) {
        self.send_text(&message.to_string());
    }

    pub fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).expect("the connection is open");
    }

    pub fn say(&mut self, content: &str) {
        self.send(json!({"type": "public", "content": content}));
    }

    pub fn whisper(&mut self, to: &str, content: &str) {
        self.send(json!({"type": "private", "to": to, "content": content}));
    }

    /// Returns the next message.
    pub fn next(&mut self) -> Value {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    return serde_json::from_str(&text).expect("each frame is one JSON object");
                }
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                // A signal came, as after Ctrl-Z and `fg`.
                Err(Error::Io(error)) if error.kind() == ErrorKind::Interrupted => {}
                other => panic!("expected a text before the deadline, not {other:?}"),
            }
        }
    }

    /// Returns the next message that `wanted` accepts. Skips others.
    pub fn next_where(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.next();
            if wanted(&message) {
                return message;
            }
        }
    }

    /// Returns the next message of type `kind`. Skips others.
    pub fn next_of(&mut self, kind: &str) -> Value {
        self.next_where(|message| message["type"] == kind)
    }

    /// Closes the connection, and returns the code that the server replies with.
    pub fn close(mut self) -> u16 {
        self.socket.close(None).expect("the connection is open");
        self.closed().0
    }

    /// Reads until the server closes the connection. Returns the code and the reason.
    pub fn closed(&mut self) -> (u16, String) {
        loop {
            match self.socket.read() {
                Ok(Message::Close(Some(frame))) => {
                    return (frame.code.into(), frame.reason.to_string());
                }
                Ok(Message::Close(None)) => return (CloseCode::Status.into(), String::new()),
                Ok(_) => {}
                Err(error) => panic!("expected a close frame, not {error}"),
            }
        }
    }

    pub fn stream(&self) -> &TcpStream {
        self.socket.get_ref()
    }
}

/// Calls `probe` until it returns something. Fails the test if that takes too long.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "{what} did not happen in time");
        thread::sleep(Duration::from_millis(5));
    }
}

/// True if the test runs as root, which `what` needs. Otherwise says so, or fails the test where no
/// test may be left out.
pub fn is_root(what: &str) -> bool {
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    assert!(root || std::env::var_os("PARLOUR_REQUIRE_ROOT").is_none(), "{what} needs root");
    if !root {
        eprintln!("LEFT OUT: {what} needs root");
    }
    root
}

/// Asserts that `message` has each field of `expected`, with the same value.
#[track_caller]
pub fn assert_has(message: &Value, expected: Value) {
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&message[key], value, "{key} of {message}");
    }
}

/// True if this system has IPv6. Says so if not.
pub fn has_ipv6() -> bool {
    let found = std::net::TcpListener::bind("[::1]:0").is_ok();
    if !found {
        eprintln!("LEFT OUT: there is no IPv6");
    }
    found
}
