//! Memory is bounded: after clients that come and go, talk, attack and are refused, it is what it
//! was before.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use serde_json::json;

use crate::support::eventually;
use crate::support::program::{Program, command};
use crate::support::raw::{
    self, CLOSE, FIN, PING, RawClient, TEXT, exchange, header, masked, text,
};

/// Rounds until the allocator has found its size.
const ROUNDS_BEFORE: usize = 6;
/// Rounds in which it must keep that size.
const ROUNDS: usize = 8;
/// The last of them, of which the smallest size counts.
const ROUNDS_COMPARED: usize = 3;
/// Clients that come at the same time.
const CROWD: usize = 20;
/// Crowds in a round.
const CROWDS: usize = 8;
/// Maximum number of clients.
const PLACES: usize = 40;
/// By how much the allocator's size varies: half a kilobyte for each client of the later rounds.
const NOISE_KIB: u64 = 512;

/// What the server's process occupies.
#[derive(Debug)]
struct Footprint {
    memory_kib: u64,
    threads: usize,
    files: usize,
}

fn footprint(program: &Program) -> Footprint {
    let process = format!("/proc/{}", program.id());
    let threads = fs::read_dir(format!("{process}/task")).expect("the program runs").count();
    let status = fs::read_to_string(format!("{process}/status")).expect("the program runs");
    let memory =
        status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
    let memory_kib = memory.expect("a size").trim().parse().expect("a number");
    // Asked of the program itself: nobody but root may look at its descriptors.
    let metrics = program.metrics.expect("a listener for scrapers");
    let metrics = exchange(metrics, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let files = metrics.lines().find_map(|line| line.strip_prefix("process_open_fds "));
    let files = files.expect("the metric").parse().expect("a number");
    Footprint { memory_kib, threads, files }
}

/// Joins, talks and leaves in one of eight ways.
fn visit(program: &Program, round: usize, crowd: usize, number: usize) {
    // There are more rooms than the server keeps, and the same names in each.
    let room = (round * CROWDS + crowd) % 12;
    let mut client =
        RawClient::connect_to(program.address, &format!("room=r{room}&name=m{number}"));
    client.next_of("join");
    let message =
        json!({"type": "public", "content": "x".repeat(1000), "ref": format!("{round} {number}")});
    client.send(&text(&message));
    client.next_of("public");
    let to = format!("m{}", (number + 1) % CROWD);
    client.send(&text(&json!({"type": "private", "to": to, "content": "psst", "ref": "p"})));
    match number % 8 {
        0 => client.send(&masked(FIN | CLOSE, &1000u16.to_be_bytes())),
        1 => client.send(&masked(FIN | TEXT, b"{nonsense")),
        2 => client.send(&masked(FIN | TEXT, b"\xff")),
        3 => client.send(&header(FIN | TEXT, 1 << 40)),
        // Half a message, and half a frame.
        4 => client.send(&masked(TEXT, &[b' '; 20_000])),
        5 => client.send(&header(FIN | TEXT, 20_000)),
        6 => client.send(&masked(FIN | PING, b"x").repeat(100)),
        _ => {}
    }
}

/// Lets one client talk until another in its room, which does not read, is dropped.
fn evict(program: &Program) {
    let mut talker = RawClient::connect_to(program.address, "room=full&name=talker");
    let _stalled = RawClient::connect_to(program.address, "room=full&name=stalled");
    talker.talk_until_leave();
}

/// Makes the server refuse requests, names, clients above the maximum, and connections without a
/// request.
fn provoke_refusals(program: &Program) {
    let ask = |request: &str| exchange(program.address, format!("{request}\r\n\r\n").as_bytes());
    assert!(ask("GET /nowhere HTTP/1.1\r\nHost: localhost").starts_with("HTTP/1.1 404 "));
    assert!(ask("GET /ws HTTP/1.1\r\nHost: localhost").starts_with("HTTP/1.1 400 "));
    assert!(
        ask(&format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(10_000))).starts_with("HTTP/1.1 431 ")
    );
    let mut first = RawClient::connect_to(program.address, "name=taken");
    first.next_of("join");
    let mut members = vec![first.stream.try_clone().unwrap()];
    for (query, code) in [("name=taken", 4409u16), ("name=%FF", 4400), ("room=%20", 4400)] {
        assert_eq!(RawClient::connect_to(program.address, query).closed().0, code);
    }
    let upgrade = || {
        let mut client = TcpStream::connect(program.address).expect("it listens");
        client.write_all(raw::upgrade("").as_bytes()).unwrap();
        let mut start = [0; 12];
        client.read_exact(&mut start).expect("a response");
        (&start == b"HTTP/1.1 101").then_some(client)
    };
    // The clients refused before give their places back a moment later. Then all fit, and not one
    // more.
    eventually("every place taken", || {
        members.extend(upgrade());
        (members.len() == PLACES).then_some(())
    });
    assert!(upgrade().is_none(), "more than {PLACES}");
    // Requests that never come, more of them than there are places.
    let silent: Vec<TcpStream> =
        (0..60).map(|_| TcpStream::connect(program.address).expect("it listens")).collect();
    for mut stream in silent {
        let _ = stream.write_all(b"GET /ws?na");
        let _ = stream.shutdown(Shutdown::Write);
    }
    // When this last one has its response, all before it were accepted, and none of them is cut to
    // make room for the next round.
    assert!(ask("GET /healthz HTTP/1.1\r\nHost: localhost").ends_with("ok\n"));
}

/// Waits until there are no more threads and descriptors than in `idle`.
fn at_rest(program: &Program, idle: &Footprint) -> Footprint {
    eventually("the end of every thread and descriptor", || {
        let now = footprint(program);
        (now.threads <= idle.threads && now.files <= idle.files).then_some(now)
    })
}

#[test]
fn memory_threads_and_files_do_not_grow_in_a_long_run() {
    let places = format!("--max-connections={PLACES}");
    let options =
        ["--queue=64", "--history=20", "--max-rooms=8", "--leave-grace=20ms", "--message-rate=0"];
    let listen = ["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", &places];
    let mut command = command(&[&listen[..], &options[..]].concat());
    // With an arena for each processor, some might be used for the first time in the last round.
    // And what a slow client's queue held must go back to the system when it is freed, wherever in
    // an arena it would have been.
    let program =
        Program::start(command.env("MALLOC_ARENA_MAX", "2").env("MALLOC_MMAP_THRESHOLD_", "4096"));
    // What is allocated at the start, or when it is first needed, does not count.
    provoke_refusals(&program);
    // A thread may have ended before the reaper closes its connection.
    let idle = eventually("the server at rest", || {
        Some(footprint(&program)).filter(|now| now.threads < 10 && now.files < 20)
    });
    let mut sizes = Vec::new();
    for round in 0..ROUNDS_BEFORE + ROUNDS {
        for crowd in 0..CROWDS {
            thread::scope(|scope| {
                for number in 0..CROWD {
                    let program = &program;
                    scope.spawn(move || visit(program, round, crowd, number));
                }
            });
            at_rest(&program, &idle);
        }
        if round % 2 == 0 {
            evict(&program);
        }
        provoke_refusals(&program);
        let now = at_rest(&program, &idle);
        sizes.push(now.memory_kib);
    }
    let before = sizes[..ROUNDS_BEFORE].iter().max().expect("some rounds");
    let after = sizes[sizes.len() - ROUNDS_COMPARED..].iter().min().expect("some rounds");
    assert!(*after <= before + NOISE_KIB, "{sizes:?} KiB in rounds after {idle:?}");
}
