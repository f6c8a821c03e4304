//! All tests, in one binary: with real sockets on free ports, with the hub alone, and with the
//! program as a process.

mod support;

#[path = "conformance/echo.rs"]
mod echo;
#[path = "fuzz/targets.rs"]
mod targets;

mod chat {
    mod broken_connections;
    mod close_codes;
    mod hub;
    mod hub_properties;
    mod messages;
    mod names_and_rooms;
    mod network;
    mod panics;
    mod read_half;
    mod resume;
    mod slow_clients;
    mod sweeps;
}
mod server {
    mod capacity;
    mod listener;
    mod memory;
    mod shutdown;
}
mod http {
    mod addresses;
    mod admission;
    mod hosts;
    mod malformed;
    mod nginx;
    mod routes;
}
mod protocol {
    mod address;
    mod bad_messages;
    mod names;
}
mod system {
    mod logging;
    mod metrics;
    mod systemd;
}
mod terminal {
    mod conversation;
    mod healthcheck;
    mod leaving;
    mod pipe;
    mod prints;
    mod prompt;
    mod received;
    mod reconnecting;
    mod rows;
    mod transcript;
    mod typed_line;
    mod untrusted_server;
}
mod web {
    mod checked;
    mod conversation;
    mod page;
    mod reconnecting;
    mod untrusted;
}
mod book {
    mod links;
    mod names;
    mod tables;
}
mod debian {
    mod package;
}
mod fuzz_corpus;
mod house;
mod program;
