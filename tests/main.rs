//! All tests, in one binary: real sockets on port 0, the hub alone, and the program itself.

mod support;

#[path = "conformance/echo.rs"]
mod echo;
#[path = "fuzz/targets.rs"]
mod targets;

mod admission;
mod chat;
mod closing;
mod conversation;
mod corpus;
mod frames;
mod http;
mod hub;
mod joining;
mod json;
mod limits;
mod lines;
mod memory;
mod metrics;
mod network;
mod notify;
mod package;
mod page;
mod panics;
mod process;
mod properties;
mod proxy;
mod readme;
mod resume;
mod returning;
mod shutdown;
mod slow;
mod staying;
mod sweeps;
mod terminal;
