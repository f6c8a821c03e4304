//! The book: chapters in Markdown, to be read in the repository as well as here.
//!
//! The chapters link to each other's files, which this documentation does not have. Markdown takes
//! the first definition of a link. So the definitions in front of a chapter here replace those at
//! its end.

/// For people who chat: the page, and `parlour chat` for terminals and scripts.
///
/// [protocol]: crate::book::protocol
/// [names]: crate::book::protocol#names
/// [received]: crate::book::protocol#messages-you-receive
#[doc = include_str!("chatting.md")]
pub mod chatting {}

/// For people who write a client: connecting, messages, codes, reconnecting.
///
/// [metrics]: crate::book::operating#metrics
/// [proxy]: crate::book::operating#behind-a-proxy
#[doc = include_str!("protocol.md")]
pub mod protocol {}

/// For people who run parlour for others: options, log, metrics, proxies, memory.
///
/// [closes]: crate::book::protocol#close-codes
/// [reconnecting]: crate::book::protocol#reconnecting
/// [responses]: crate::book::protocol#http-responses
#[doc = include_str!("operating.md")]
pub mod operating {}

/// For people who compare: throughput, latency, memory and threads, measured.
///
/// [sizing]: crate::book::operating#sizing
/// [write_half]: crate::chat::write_half
#[doc = include_str!("performance.md")]
pub mod performance {}
