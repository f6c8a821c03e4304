//! All tests, in one binary: real sockets on port 0, the hub alone, and the program itself.

mod support;

mod chat;
mod closing;
mod conversation;
mod http;
mod hub;
mod joining;
mod limits;
mod metrics;
mod page;
mod process;
mod resume;
mod shutdown;
mod slow;
mod sweeps;
mod terminal;
