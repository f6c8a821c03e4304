//! parlour: a chat room served by operating-system threads and channels, the way Go serves one with
//! goroutines.
//!
//! # A message's way
//!
//! ```text
//!  accept loop ──▶ reader thread ──▶ request head ──▶ page, /healthz, 404 …
//!                       │ /ws
//!                       ▼
//!  socket ──▶ read_pump ──Event──▶ inbox ──▶ HUB ──try_send──▶ outbox ──▶ write_pump ──▶ socket
//!                  └───────────────────── pongs ──────────────────▲
//! ```
//!
//! Each chat client has two threads, `read_pump` and `write_pump`. One hub thread owns all rooms
//! and members. A few threads serve everyone: the accept loop; the reaper, which joins threads that
//! have ended; one for scrapers with `--metrics-listen`; under systemd one for its watchdog; and in
//! the program one that waits for signals and one that writes the log.
//!
//! # The folders, by a connection's way
//!
//! | folder | what it is for | may import |
//! | --- | --- | --- |
//! | [`server`] | starts and stops every thread | `http`, `chat`, `system` |
//! | [`http`] | a connection before it is a client | `chat`, `system` |
//! | [`chat`] | clients, rooms, and the hub between them | `system` |
//! | [`system`] | the machine beneath: limits, log, metrics | |
//! | [`protocol`] | the words of both sides | |
//! | [`terminal`] | `parlour chat` and `parlour healthcheck` | [`cli`] |
//!
//! All may import [`protocol`] and [`config`], which import nothing. No import runs upwards, and no
//! two files import each other; a test holds this.
//!
//! # Where to begin reading
//!
//! Who knows Go's chat example begins with [`chat`] and its [`client`](chat::client), then reads
//! [`inbox`](chat::inbox), [`hub`](chat::hub) and [`outbox`](chat::outbox). That folder can be read
//! alone. Who wants to see the program start and stop begins with [`server`].
//!
//! # What always holds
//!
//! - Only the hub knows who is in which room. No lock guards chat state, because it is not shared.
//! - The hub never waits for a client: a full queue ends that client's connection with a reason.
//! - A client is removed in one place, and one thread at a time writes to its socket.
//! - Channels form no circle: readers → hub → writers. So nothing waits in a circle, and a stop
//!   flows with the data.
//! - There is no async runtime, no event loop, no thread pool.

pub mod server;

pub mod http;

pub mod chat;

pub mod protocol;

pub mod system;

pub mod terminal;

pub mod book;

pub mod cli;
pub mod config;
