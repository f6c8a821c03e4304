//! The chat: clients, rooms, and the hub between them. Compare it with gorilla's `examples/chat`.
//!
//! May import `system`, `protocol` and `config`. **Client and hub never import each other.** They
//! meet only in [`inbox`] and [`outbox`], as in Go they meet only in channels.
//!
//! In reading order:
//!
//! - [`client`]: `serve_ws`, `read_pump` and `write_pump`, the two threads of a client.
//! - [`inbox`]: client to hub: the [`Event`](inbox::Event)s.
//! - [`hub`]: the one thread that owns all rooms: `run`, `handle`.
//! - [`room`]: who is here, who is away, and what they do.
//! - [`history`]: what a room remembers.
//! - [`members`]: the connected members, and their output of one turn.
//! - [`returning`]: who comes back while messages of an older connection still wait.
//! - [`outbox`]: hub to client: a bounded queue and its ends.
//! - [`write_half`]: one writer at a time on a socket, and how writers help their neighbours.
//! - [`read_half`]: the socket as tungstenite sees it; counting frames and pacing.
//! - [`backlog`]: messages that a client sent faster than it may.
//! - [`allowance`]: how fast a client may send.
//! - [`frames`]: encoded frames, shared by everyone who gets them.
//! - [`connection`]: an accepted socket and its id.
//!
//! # What always holds
//!
//! - Only the hub knows who is in which room. No lock guards chat state, because it is not shared.
//! - The hub never waits for a client: it queues with `try_send`, and a full queue ends that
//!   client's connection.
//! - Exactly one place removes a client that leaves: `Hub::remove`. One that is replaced by its own
//!   return goes in `Hub::register`.
//! - One thread at a time writes to a socket: its writer, or another that helps, under the line's
//!   lock in [`write_half`].
//! - A client's events keep their order, since all of them come through one inbox.
//! - Channels form no circle: readers → hub → writers. So nothing waits in a circle, and a stop
//!   flows with the data.
//!
//! Some functions are not inlined: stack that a thread has once touched stays allocated, and an
//! idle client should not pay for what its reader did once.
//!
//! # A first reading
//!
//! `client`, `inbox`, `hub`, `members` and `outbox` are Go's chat. The loop over all clients is
//! `Members::queue_pending`. Leave out at first: absences, crowds, backlogs, returning, sweeps.
//!
//! # Words
//!
//! - **turn**: what the hub does between two waits: it handles the events that have piled up, then
//!   flushes.
//! - **entry**: what a turn queues for one member: one or more whole frames. A turn with much to
//!   send makes several.
//! - **line**: what the ends of one client's queue share, in [`write_half`].
//! - **roster**: the lines of a room's members at one time.
//! - **sweep**: one pass over a roster, to write what is queued. Writers share the work.
//! - **epoch**, **seq**: one life of a room, and the number of a public message in it.
//! - **session**, **claim**: the secret that a welcome gives, and one that a newcomer shows to get
//!   its place back.
//! - **crowd**, **notice**: a room so large that notices of joins and leaves are sent together.
//! - **backlog**: what a client sent faster than it may.
//! - **reference**: a message's `ref`, by which the room recognises it when it is sent again.
//! - **absence**, **grace**: a member whose connection broke is absent for a grace period, in which
//!   it can come back unnoticed.

pub mod allowance;
pub mod backlog;
pub mod client;
pub mod connection;
pub mod frames;
pub mod history;
pub mod hub;
pub mod inbox;
pub mod members;
pub mod outbox;
pub mod read_half;
pub mod returning;
pub mod room;
pub mod write_half;
