//! The words that server and client share: messages, close codes, refusals, names, frames.
//!
//! This folder imports nothing else of parlour, so that every other folder may import it. It holds
//! no sockets and no state: everything here is a value, or turns one value into another.
//!
//! In reading order:
//!
//! - [`message`]: the JSON messages in both directions.
//! - [`close`]: why a chat connection ends, with its close code.
//! - [`refusal`]: why an HTTP request is refused, with its status.
//! - [`name`]: the rules for the names of members and rooms.
//! - [`fold`]: when two names are the same, and when they look alike.
//! - [`visible`]: what can be seen of a text.
//! - [`frame`]: WebSocket frames as the server sends them.
//! - [`session`]: the secret by which a client that comes back is known.
//! - [`address`]: server addresses as people write them.

pub mod address;
pub mod close;
pub mod fold;
pub mod frame;
pub mod message;
pub mod name;
pub mod refusal;
pub mod session;
pub mod visible;
