//! The chat.

pub mod client;
pub mod frames;
pub mod hub;
pub mod outbox;
pub mod room;
