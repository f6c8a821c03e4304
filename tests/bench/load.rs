//! The load: many clients on one thread, by epoll or its equivalent.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use memchr::memmem::Finder;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::server::Server;

/// Length of a stamp: `@@`, 19 digits, `@`.
const STAMP_BYTES: usize = 22;
/// One client in this many measures latencies, as well as every sender.
const SAMPLED: usize = 16;
/// When nothing has come for this long, all greetings were received.
const QUIET: Duration = Duration::from_millis(300);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How many clients send in a load with a rate.
const RATE_SENDERS: usize = 20;

/// How messages are sent.
#[derive(Clone, Copy)]
pub enum Mode {
    /// In each room, one sender has this many messages in flight: it sends another when one comes
    /// back.
    Window(u64),
    /// This many messages a second in all, even if earlier ones have not come back.
    Rate(u32),
}

/// A workload.
pub struct Load {
    pub clients: usize,
    pub rooms: usize,
    pub mode: Mode,
    pub content_bytes: usize,
}

/// What was measured.
pub struct Figures {
    deliveries_per_second: f64,
    cpu_us_each: f64,
    latencies_ns: Vec<u64>,
    kib_per_client: f64,
    closed: usize,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |quantile: f64| match self.latencies_ns.len() {
            0 => f64::NAN,
            n => self.latencies_ns[((n - 1) as f64 * quantile) as usize] as f64 / 1e6,
        };
        write!(
            f,
            "{:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0}",
            self.deliveries_per_second,
            self.cpu_us_each,
            ms(0.5),
            ms(0.99),
            ms(0.999),
            self.kib_per_client
        )?;
        if self.closed > 0 {
            write!(f, " ({} clients were dropped)", self.closed)?;
        }
        Ok(())
    }
}

struct Client {
    socket: TcpStream,
    sends: bool,
    /// The end of the last read, in which a stamp may begin.
    rest: Vec<u8>,
    unsent: Vec<u8>,
    sent: u64,
    received: u64,
    next_send: Instant,
}

impl Load {
    /// Connects, reads the greetings, and sends for `warm_up` and then for `measured`. Only the
    /// latter counts.
    ///
    /// # Errors
    /// If a client can't connect, or the system can't wait for events.
    pub fn run(
        &self,
        server: &Server,
        warm_up: Duration,
        measured: Duration,
    ) -> io::Result<Figures> {
        let memory_before = server.resident_kib();
        let mut poll = Poll::new()?;
        let mut clients = self.connect(server, &poll)?;
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 256 * 1024];
        let mut quiet_since = Instant::now();
        while quiet_since.elapsed() < QUIET {
            wait(&mut poll, &mut events, QUIET)?;
            for event in &events {
                while clients[event.token().0].socket.read(&mut buffer).is_ok_and(|n| n > 0) {
                    quiet_since = Instant::now();
                }
            }
        }
        let kib_per_client =
            server.resident_kib().saturating_sub(memory_before) as f64 / self.clients as f64;

        let period = match self.mode {
            Mode::Rate(rate) => {
                Some(Duration::from_secs(1) * RATE_SENDERS.min(self.clients) as u32 / rate)
            }
            Mode::Window(_) => None,
        };
        let begin = Instant::now();
        for (number, client) in clients.iter_mut().filter(|client| client.sends).enumerate() {
            // Spread over the period, as with people.
            client.next_send =
                begin + period.unwrap_or_default() / RATE_SENDERS as u32 * number as u32;
        }
        let stamp = Finder::new(b"@@");
        let mut figures = Figures {
            deliveries_per_second: 0.0,
            cpu_us_each: 0.0,
            latencies_ns: Vec::new(),
            kib_per_client,
            closed: 0,
        };
        let mut delivered = 0;
        let mut counted_from = None;
        let senders: Vec<usize> =
            (0..clients.len()).filter(|&number| clients[number].sends).collect();
        loop {
            let now = Instant::now();
            if counted_from.is_none() && now >= begin + warm_up {
                counted_from = Some((now, server.cpu_seconds()));
                delivered = 0;
                figures.latencies_ns.clear();
            }
            if now >= begin + warm_up + measured {
                break;
            }
            let mut patience = Duration::from_millis(50);
            for &number in &senders {
                let client = &mut clients[number];
                self.send_what_is_due(client, period, begin, now);
                if period.is_some() {
                    patience = patience.min(client.next_send.saturating_duration_since(now));
                }
            }
            wait(&mut poll, &mut events, patience)?;
            for event in &events {
                let number = event.token().0;
                let client = &mut clients[number];
                let sampled = client.sends || number % SAMPLED == 0;
                loop {
                    match client.socket.read(&mut buffer) {
                        Ok(0) => {
                            figures.closed += 1;
                            break;
                        }
                        Ok(n) => {
                            let latencies = sampled.then_some(&mut figures.latencies_ns);
                            delivered += receive(client, &buffer[..n], &stamp, begin, latencies);
                        }
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(_) => {
                            figures.closed += 1;
                            break;
                        }
                    }
                }
            }
        }
        let (from, cpu_before) = counted_from.unwrap_or((begin, 0.0));
        figures.deliveries_per_second = delivered as f64 / from.elapsed().as_secs_f64();
        figures.cpu_us_each =
            (server.cpu_seconds() - cpu_before) * 1e6 / (delivered as f64).max(1.0);
        figures.latencies_ns.sort_unstable();
        Ok(figures)
    }

    fn connect(&self, server: &Server, poll: &Poll) -> io::Result<Vec<Client>> {
        let mut clients = Vec::with_capacity(self.clients);
        for number in 0..self.clients {
            let room = number % self.rooms;
            let mut socket = upgrade(&server.address, number, room)?;
            poll.registry().register(&mut socket, Token(number), Interest::READABLE)?;
            let sends = match self.mode {
                Mode::Window(_) => number < self.rooms,
                Mode::Rate(_) => number < RATE_SENDERS,
            };
            clients.push(Client {
                socket,
                sends,
                rest: Vec::new(),
                unsent: Vec::new(),
                sent: 0,
                received: 0,
                next_send: Instant::now(),
            });
        }
        Ok(clients)
    }

    fn send_what_is_due(
        &self,
        client: &mut Client,
        period: Option<Duration>,
        begin: Instant,
        now: Instant,
    ) {
        let due = |client: &Client| match self.mode {
            Mode::Window(window) => client.sent < client.received + window,
            Mode::Rate(_) => client.next_send <= now,
        };
        while due(client) {
            let padding = "x".repeat(self.content_bytes - STAMP_BYTES);
            let stamp = begin.elapsed().as_nanos();
            let text = format!(r#"{{"type":"public","content":"@@{stamp:019}@{padding}"}}"#);
            client.unsent.extend(masked_text_frame(text.as_bytes()));
            client.sent += 1;
            client.next_send += period.unwrap_or_default();
        }
        while !client.unsent.is_empty() {
            match client.socket.write(&client.unsent) {
                Ok(n) => {
                    client.unsent.drain(..n);
                }
                Err(_) => break,
            }
        }
    }
}

/// Returns how many stamps are in `bytes`, and adds their ages to `latencies`.
fn receive(
    client: &mut Client,
    bytes: &[u8],
    stamp: &Finder,
    begin: Instant,
    mut latencies: Option<&mut Vec<u64>>,
) -> u64 {
    client.rest.extend_from_slice(bytes);
    let now = begin.elapsed().as_nanos() as u64;
    let mut delivered = 0;
    let mut at = 0;
    while let Some(found) = stamp.find(&client.rest[at..]) {
        let from = at + found;
        let Some(digits) = client.rest.get(from + 2..from + STAMP_BYTES - 1) else { break };
        if let Some(latencies) = &mut latencies {
            let sent = digits
                .iter()
                .fold(0, |number, digit| number * 10 + u64::from(digit.wrapping_sub(b'0')));
            latencies.push(now.saturating_sub(sent));
        }
        delivered += 1;
        at = from + STAMP_BYTES;
    }
    client.received += delivered;
    // The last bytes may be the beginning of another stamp.
    let keep = client.rest.len().saturating_sub(STAMP_BYTES - 1).max(at);
    client.rest.drain(..keep);
    delivered
}

/// Connects and upgrades. What follows the response head stays in the socket.
fn upgrade(address: &str, number: usize, room: usize) -> io::Result<TcpStream> {
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
    write!(
        stream,
        "GET /ws?name=u{number}&room=r{room} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    if !head.starts_with(b"HTTP/1.1 101") {
        return Err(io::Error::other(
            String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned(),
        ));
    }
    stream.set_nonblocking(true)?;
    Ok(TcpStream::from_std(stream))
}

/// Returns a text frame with a mask of zeros, which leaves the payload as it is.
fn masked_text_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

fn wait(poll: &mut Poll, events: &mut Events, patience: Duration) -> io::Result<()> {
    match poll.poll(events, Some(patience)) {
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
        result => result,
    }
}
