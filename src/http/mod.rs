//! A connection before it is a client of the chat: one request in, one response out.
//!
//! May import `chat`, `system`, `protocol` and `config`. In reading order:
//!
//! - [`routes`]: which path is answered by what, on the connection's reader thread.
//! - [`admission`]: who gets a place on the server, and who gives way.
//! - [`addresses`]: what each address has, and may do.
//! - [`request`]: reads one request head.
//! - [`request_line`]: the first line of a request, and what the log shows of it.
//! - [`rules`]: the rules for a request beyond its syntax.
//! - [`response`]: builds and sends one response.
//! - [`upgrade`]: the upgrade to a WebSocket connection, and what its query asks for.
//! - [`host`]: which names the server answers to.
//! - [`origin`]: which pages may open a chat.
//! - [`proxy`]: the client behind a trusted proxy.
//! - [`page`]: the files of the chat page.
//! - [`scrape`]: `/metrics`, on a listener of its own.
//!
//! # What always holds
//!
//! - A connection carries one request. There is no keep-alive, no pipelining and no request body:
//!   whoever wants more opens another connection, and each is admitted on its own.
//! - Nothing is read without a byte limit and a deadline.
//! - A refusal has one name for the response, the log and the metric
//!   ([`Refusal`](crate::protocol::refusal::Refusal)).
//! - TLS is absent. A proxy in front does it better.

pub mod addresses;
pub mod admission;
pub mod host;
pub mod origin;
pub mod page;
pub mod proxy;
pub mod request;
pub mod request_line;
pub mod response;
pub mod routes;
pub mod rules;
pub mod scrape;
pub mod upgrade;
