//! The words of both sides.

pub mod address;
pub mod message;
pub mod refusal;
pub mod session;
