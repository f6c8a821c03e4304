//! Threads that panic: one of a client ends that client, and the hub ends the process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::program::{Program, command};
use crate::support::raw::{FIN, RawClient, TEXT, get, public};
use crate::support::{assert_has, eventually};

/// A server with a thread that panics at its next look at the clock after
/// [`trigger`](FaultyServer::trigger). `tests/faults/clock.rs` makes that look fail.
struct FaultyServer {
    program: Program,
    file: PathBuf,
}

impl FaultyServer {
    /// Starts a server. `thread` is the thread's name, which has the client's number: the first to
    /// connect is 1.
    fn in_thread(thread: &str) -> FaultyServer {
        FaultyServer::after(0, thread, "--leave-grace=0")
    }

    /// Starts a server whose thread panics only after `spares` more looks.
    fn after(spares: u32, thread: &str, leave_grace: &str) -> FaultyServer {
        let library = Path::new(env!("CARGO_BIN_EXE_parlour"))
            .with_file_name("examples")
            .join("libclock_fault.so");
        assert!(
            library.exists(),
            "{} is missing: run `cargo build --examples`, or `cargo test` without a target",
            library.display()
        );
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("fault in {thread}"));
        let _ = fs::remove_file(&file);
        let mut command =
            command(&["--listen=127.0.0.1:0", leave_grace, "--metrics-listen=127.0.0.1:0"]);
        command.env("LD_PRELOAD", library).env("FAULT_THREAD", thread).env("FAULT_FILE", &file);
        command.env("FAULT_SPARES", spares.to_string());
        FaultyServer { program: Program::start(&mut command), file }
    }

    fn join(&self, query: &str) -> RawClient {
        let mut client = RawClient::connect_to(self.program.address, query);
        client.next_of("join");
        client
    }

    fn trigger(&self) {
        File::create(&self.file).expect("target/tmp is there");
    }

    /// Checks that the server still works, and stops it. Returns its log.
    fn end(self) -> String {
        self.join("name=newcomer").send(&public("hello"));
        self.program.stop()
    }
}

#[test]
fn a_reader_that_panics_ends_its_client_alone_with_1011_and_its_name_becomes_free() {
    let server = FaultyServer::in_thread("reader 2");
    let mut watcher = server.join("name=watcher");
    let mut victim = server.join("name=victim");
    server.trigger();
    victim.send(&public("and now?"));
    assert_eq!(victim.closed(), (1011, "internal_error".to_owned()));
    assert_has(&watcher.next_of("leave"), json!({"user": "victim"}));
    server.join("name=victim").send(&public("back again"));
    assert_has(&watcher.next_of("public"), json!({"user": "victim", "content": "back again"}));
    let metrics = server.program.metrics.expect("a listener for scrapers");
    let counted = r#"parlour_disconnects_total{code="1011",reason="internal_error"} 1"#;
    eventually("the count of the panic", || {
        get(metrics, "/metrics").contains(counted).then_some(())
    });
    let log = server.end();
    assert!(log.contains("the reader of client 2 panicked; only that client is gone"), "{log}");
    assert!(log.contains("gone: 1011 internal_error"), "{log}");
}

#[test]
fn a_writer_that_panics_ends_its_client_alone_and_its_name_becomes_free() {
    let server = FaultyServer::in_thread("writer 2");
    let mut elsewhere = server.join("name=x&room=elsewhere");
    let mut victim = server.join("name=victim");
    server.trigger();
    victim.send(&public("and now?"));
    eventually("the victim's name becoming free", || {
        let mut next = RawClient::connect_to(server.program.address, "name=victim");
        let (_, first) = next.frame().expect("a welcome or an error");
        first.starts_with(br#"{"type":"welcome""#).then_some(())
    });
    elsewhere.send(&public("still here"));
    assert_has(&elsewhere.next_of("public"), json!({"user": "x", "content": "still here"}));
    let log = server.end();
    assert!(log.contains("a writer panicked; only its client is gone"), "{log}");
}

/// Reads up to the message for everyone. False if the connection ends before it.
fn receives_the_message(member: &mut RawClient) -> bool {
    while let Some((opcode, payload)) = member.frame() {
        if opcode == FIN | TEXT && payload.starts_with(br#"{"type":"public""#) {
            let message = serde_json::from_slice(&payload).expect("JSON");
            assert_has(&message, json!({"content": "for everyone"}));
            return true;
        }
    }
    false
}

#[test]
fn what_a_panicking_helper_leaves_is_still_written() {
    // Chance decides which writer helps. In three attempts of four, it is not the victim's.
    for _ in 0..60 {
        // Its first look comes after it has written to its own client, the second while it helps.
        // By then, no other message must wake a writer: so the victim does not leave.
        let server = FaultyServer::after(1, "writer 1", "--leave-grace=1h");
        let _victim = server.join("name=victim");
        let mut others = ["a", "b", "c"].map(|name| server.join(&format!("name={name}")));
        server.trigger();
        others[0].send(&public("for everyone"));
        if !others.iter_mut().all(receives_the_message) {
            // The look at the clock was that of a park, in which a panic ends the process. This
            // attempt shows nothing.
            let (_, log) = server.program.ended();
            assert!(log.contains("error occurred while synchronizing threads"), "{log}");
            continue;
        }
        if !server.file.exists() {
            return;
        }
    }
    panic!("the victim never helped");
}

#[test]
fn a_hub_that_panics_ends_the_process_with_a_message_and_a_non_zero_status() {
    let server = FaultyServer::in_thread("hub");
    let mut client = server.join("name=x");
    let _idle = server.join("name=y");
    server.trigger();
    client.send(&public("and now?"));
    let (status, log) = server.program.ended();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.contains("panicked at") && log.contains("the hub has died, which is a bug"),
        "{log}"
    );
}
