//! Threads that panic: a client's takes that client with it, the hub the process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::program::{Program, command};
use crate::support::raw::{FIN, RawClient, TEXT, masked};
use crate::support::{assert_has, eventually};

/// A server one of whose threads panics when it next looks at the clock after [`Fault::strike`].
struct Fault {
    program: Program,
    file: PathBuf,
}

impl Fault {
    /// `thread` is the thread's name, in which clients are numbered from 1 as they connect.
    fn in_thread(thread: &str) -> Fault {
        Fault::after(0, thread, "--leave-grace=0")
    }

    /// It spares so many looks.
    fn after(spares: u32, thread: &str, leave_grace: &str) -> Fault {
        let library = Path::new(env!("CARGO_BIN_EXE_parlour"))
            .with_file_name("examples")
            .join("libclock_fault.so");
        assert!(
            library.exists(),
            "{} is missing, which `cargo test` builds only without a filter: cargo build --examples",
            library.display()
        );
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("fault in {thread}"));
        let _ = fs::remove_file(&file);
        let mut command =
            command(&["--listen=127.0.0.1:0", leave_grace, "--metrics-listen=127.0.0.1:0"]);
        command.env("LD_PRELOAD", library).env("FAULT_THREAD", thread).env("FAULT_FILE", &file);
        command.env("FAULT_SPARES", spares.to_string());
        Fault { program: Program::start(&mut command), file }
    }

    fn join(&self, query: &str) -> RawClient {
        let mut client = RawClient::connect_to(self.program.address, query);
        client.next_of("join");
        client
    }

    fn strike(&self) {
        File::create(&self.file).expect("target/tmp is there");
    }

    /// The server carries on as if nothing had been, and stops in good order. Returns its log.
    fn end(self) -> String {
        self.join("name=newcomer").send(&say("hello"));
        self.program.signal("TERM");
        let (status, log) = self.program.ended();
        assert!(status.success(), "{status:?} {log}");
        log
    }
}

fn say(content: &str) -> Vec<u8> {
    masked(FIN | TEXT, json!({"type": "public", "content": content}).to_string().as_bytes())
}

#[test]
fn a_reader_that_panics_ends_its_client_alone_with_1011_and_its_name_comes_free() {
    let fault = Fault::in_thread("reader 2");
    let mut watcher = fault.join("name=watcher");
    let mut victim = fault.join("name=victim");
    fault.strike();
    victim.send(&say("and now?"));
    assert_eq!(victim.closed(), (1011, "internal_error".to_owned()));
    assert_has(&watcher.next_of("leave"), json!({"user": "victim"}));
    fault.join("name=victim").send(&say("back again"));
    assert_has(&watcher.next_of("public"), json!({"user": "victim", "content": "back again"}));
    let metrics = fault.program.metrics.expect("its listener");
    let counted = r#"parlour_disconnects_total{code="1011",reason="internal_error"} 1"#;
    eventually("the count of the panic", || {
        crate::support::raw::exchange(metrics, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .contains(counted)
            .then_some(())
    });
    let log = fault.end();
    assert!(log.contains("the reader of client 2 panicked; only that client is gone"), "{log}");
    assert!(log.contains("gone: 1011 internal_error"), "{log}");
}

#[test]
fn a_writer_that_panics_ends_its_client_alone_and_its_name_comes_free() {
    let fault = Fault::in_thread("writer 2");
    let mut elsewhere = fault.join("name=x&room=elsewhere");
    let mut victim = fault.join("name=victim");
    fault.strike();
    victim.send(&say("and now?"));
    eventually("the victim's name coming free", || {
        let mut next = RawClient::connect_to(fault.program.address, "name=victim");
        let (_, first) = next.frame().expect("a welcome or an error");
        first.starts_with(br#"{"type":"welcome""#).then_some(())
    });
    elsewhere.send(&say("still here"));
    assert_has(&elsewhere.next_of("public"), json!({"user": "x", "content": "still here"}));
    let log = fault.end();
    assert!(log.contains("a writer panicked; only its client is gone"), "{log}");
}

#[test]
fn what_a_helper_that_panics_has_not_written_is_written_without_it() {
    // Who helps is chance, as the order of a room's members is; in three attempts of four the
    // victim does not.
    for _ in 0..60 {
        // The first look comes when it has written to its own client, the second in the middle of
        // helping. Nothing else is to be said then that would wake a writer.
        let fault = Fault::after(1, "writer 1", "--leave-grace=1h");
        let _victim = fault.join("name=victim");
        let mut others = ["a", "b", "c"].map(|name| fault.join(&format!("name={name}")));
        fault.strike();
        others[0].send(&say("heard by all"));
        for member in &mut others {
            assert_has(&member.next_of("public"), json!({"content": "heard by all"}));
        }
        if !fault.file.exists() {
            return;
        }
    }
    panic!("the victim never helped");
}

#[test]
fn a_hub_that_panics_ends_the_process_with_a_message_and_a_non_zero_status() {
    let fault = Fault::in_thread("hub");
    let mut client = fault.join("name=x");
    let _idle = fault.join("name=y");
    fault.strike();
    client.send(&say("and now?"));
    let (status, log) = fault.program.ended();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.contains("panicked at") && log.contains("the hub has died, which is a bug"),
        "{log}"
    );
}
