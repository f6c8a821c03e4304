//! tungstenite's view of the socket: it reads bytes and paces them, and hands replies to the
//! writer.
//!
//! tungstenite can't be split: its `read` also writes pongs and replies to a close. Two framers on
//! one socket would interleave their bytes. So [`ReadHalf`] reads from the socket, and what
//! tungstenite writes goes whole into the [`ReaderEnd`], to the one thread that writes.

use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use tungstenite::protocol::frame::FrameHeader;

use super::allowance::Allowance;
use super::outbox::ReaderEnd;
use crate::config::Config;
use crate::system::metrics::METRICS;

/// Frames without a message that together cost as much as a message: pings, and fragments.
/// Libraries that fragment at all make larger pieces.
pub const FRAMES_PER_MESSAGE: usize = 1024;
/// Longest header of a frame from a client (RFC 6455, 5.2).
const HEADER_BYTES_MAX: usize = 14;

/// The socket as tungstenite sees it.
pub struct ReadHalf<'a> {
    stream: &'a TcpStream,
    replies: &'a ReaderEnd,
    /// The pace of floods of frames that make no message. Made for the first flood: most clients
    /// never need it.
    allowance: Option<Box<Allowance>>,
    /// Messages a second, and at once.
    rate: (u32, u32),
    frames: FrameCounter,
    /// Frames received since the last message.
    frames_unpaid: usize,
    /// How long the client may be silent.
    silence_max: Duration,
    /// While the reader polls: when something was received.
    received: Option<Instant>,
}

impl<'a> ReadHalf<'a> {
    /// Wraps a socket from which `leftover` was read before.
    pub fn new(
        stream: &'a TcpStream,
        replies: &'a ReaderEnd,
        leftover: &[u8],
        config: &Config,
    ) -> ReadHalf<'a> {
        let mut frames = FrameCounter::default();
        ReadHalf {
            stream,
            replies,
            allowance: None,
            rate: (config.message_rate, config.message_burst),
            frames_unpaid: frames.count(leftover),
            frames,
            silence_max: config.ping_timeout,
            received: None,
        }
    }

    /// Notes that the frames so far made a message, which has a pace of its own.
    pub fn message_complete(&mut self) {
        self.frames_unpaid = 0;
    }

    /// Lets the next read wait for `wait` only. `None` ends the polling.
    ///
    /// # Errors
    /// If the socket has gone: only that refuses a timeout.
    pub fn poll(&mut self, wait: Option<Duration>) -> io::Result<()> {
        match (wait, self.received) {
            (None, None) => return Ok(()),
            (None, Some(_)) => self.received = None,
            (Some(_), None) => self.received = Some(Instant::now()),
            (Some(_), Some(_)) => {}
        }
        self.stream.set_read_timeout(Some(wait.unwrap_or(self.silence_max)))
    }

    /// True if a read that timed out only ended a poll, and the client was not silent for too long.
    pub fn is_polling(&self) -> bool {
        self.received.is_some_and(|received| received.elapsed() < self.silence_max)
    }

    /// Slows down a client that floods with frames which make no message: empty fragments, which
    /// could come forever and never exceed the limit of a message, and pings.
    fn pay_for_frames(&mut self) {
        self.frames_unpaid -= FRAMES_PER_MESSAGE;
        if self.allowance.is_none() {
            let (per_second, burst) = self.rate;
            self.allowance = Allowance::full(per_second, burst, Instant::now()).map(Box::new);
        }
        let Some(allowance) = &mut self.allowance else { return };
        while let Err(wait) = allowance.take(1, Instant::now()) {
            thread::sleep(wait);
        }
    }
}

impl Read for ReadHalf<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.frames_unpaid >= FRAMES_PER_MESSAGE {
            self.pay_for_frames();
            if self.replies.over() {
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
                    if bytes > 0 && self.received.is_some() {
                        self.received = Some(Instant::now());
                    }
                    return result;
                }
            }
        }
    }
}

impl Write for ReadHalf<'_> {
    /// Takes one whole control frame: tungstenite's write buffer is set to hold none.
    fn write(&mut self, frame: &[u8]) -> io::Result<usize> {
        self.replies.send(frame.to_vec().into());
        Ok(frame.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Counts the frames of a stream, read in pieces of any size. tungstenite does not tell: it joins a
/// message's fragments without returning in between.
#[derive(Default)]
pub struct FrameCounter {
    /// What was received of the next frame's header.
    header: Vec<u8>,
    /// What is missing of the last frame's payload.
    payload_bytes_left: u64,
}

impl FrameCounter {
    /// Counts the headers that `bytes` complete. They follow the bytes of the last call.
    pub fn count(&mut self, mut bytes: &[u8]) -> usize {
        let mut frames = 0;
        loop {
            let skipped = usize::try_from(self.payload_bytes_left)
                .map_or(bytes.len(), |left| left.min(bytes.len()));
            self.payload_bytes_left -= skipped as u64;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return frames;
            }
            let had = self.header.len();
            self.header.extend(bytes.iter().take(HEADER_BYTES_MAX - had));
            let mut header = Cursor::new(&self.header);
            // An incomplete header has used up all bytes. An invalid one ends the connection.
            let Ok(Some((_, length))) = FrameHeader::parse(&mut header) else { return frames };
            bytes = &bytes[header.position() as usize - had..];
            self.header.clear();
            self.payload_bytes_left = length;
            frames += 1;
        }
    }
}
