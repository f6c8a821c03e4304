//! All tests, in one binary: real sockets on port 0, the hub alone, and the program itself.

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
    mod memory;
    mod shutdown;
}
mod http {
    mod admission;
    mod nginx;
    mod routes;
}
mod protocol {
    mod bad_messages;
    mod names;
}
mod system {
    mod metrics;
    mod systemd;
}
mod terminal {
    mod conversation;
    mod leaving;
    mod program;
}
mod web {
    mod page;
    mod reconnecting;
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
mod program;
