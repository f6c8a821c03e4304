//! parlour: a chat room served by operating-system threads and channels, the way Go serves one with goroutines.
//!
//! ```text
//!   accept loop ──▶ reader thread ──▶ request head ──▶ page, /healthz, 404 …
//!                        │ /ws
//!                        ▼
//!   socket ──▶ read_pump ──Event──▶ inbox ──▶ HUB ──frames, try_send──▶ outbox ──▶ write_pump ──▶ socket
//!                   └───────────────────── pongs ───────────────────────▲
//! ```
//!
//! Each chat client has two threads, `read_pump` and `write_pump`; one hub thread owns all rooms and
//! members. A few threads serve everyone: the accept loop, the reaper, which joins threads that have ended, with
//! `--metrics-listen` one for scrapers, under systemd one for its watchdog, and in the binary one that waits for signals and
//! one that writes the log.
//!
//! # What always holds
//!
//! - Only the hub knows who is in which room. No lock guards chat state, because nothing of it is shared.
//! - The hub never waits for a client: a full queue ends that client's connection with a reason.
//! - A client is removed in one place, `Hub::remove`, and one thread at a time writes to its
//!   socket: its writer, or another that helps, under the line's lock in `outbox`.
//! - All events come through one inbox, so what a client does keeps its order.
//! - Channels form no cycle: readers → hub → writers. So nothing waits in a circle, and shutdown flows with the data.
//! - Client numbers are never used again, so a late event can't hit the wrong client.
//! - There is no async runtime, no event loop, no thread pool.
//!
//! `parlour chat`, the client, keeps the pattern: a thread that reads the socket, one that reads the terminal, and one that
//! selects over what they send and writes.
//!
//! # The modules, in reading order: the server, then its client

pub mod server;

pub mod http;

pub mod chat;

pub mod protocol;

pub mod system;

pub mod terminal;

pub mod cli;
pub mod config;
