//! Memory is bounded: after any amount of coming and going, talk, attacks and refusals it is what
//! it was before.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use serde_json::json;

use crate::support::eventually;
use crate::support::program::{Program, command};
use crate::support::raw::{CLOSE, FIN, PING, RawClient, TEXT, exchange, header, masked, upgrade};

/// Rounds until the allocator has found its size, rounds in which it must keep it, and the last of
/// them, which are compared.
const ROUNDS_BEFORE: usize = 6;
const ROUNDS: usize = 8;
const ROUNDS_COMPARED: usize = 3;
/// Clients of a round that come at the same time, and how often.
const CROWD: usize = 20;
const CROWDS: usize = 8;
/// Clients that there is room for.
const PLACES: usize = 40;
/// What an allocator's size goes up and down by: half a kilobyte for each client of the rounds
/// between.
const NOISE_KIB: u64 = 512;

/// What the process occupies.
#[derive(Debug)]
struct Footprint {
    memory_kib: u64,
    threads: usize,
    files: usize,
}

fn footprint(program: &Program) -> Footprint {
    let process = format!("/proc/{}", program.id());
    let count =
        |what: &str| fs::read_dir(format!("{process}/{what}")).expect("a process of ours").count();
    let status = fs::read_to_string(format!("{process}/status")).expect("a process of ours");
    let memory =
        status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
    let memory_kib = memory.expect("a size").trim().parse().expect("a number");
    Footprint { memory_kib, threads: count("task"), files: count("fd") }
}

/// A client that joins, talks and goes, in one of the ways that there are.
fn visit(program: &Program, round: usize, crowd: usize, number: usize) {
    // More rooms than are kept, and names that come again.
    let room = (round * CROWDS + crowd) % 12;
    let mut client =
        RawClient::connect_to(program.address, &format!("room=r{room}&name=m{number}"));
    client.next_of("join");
    let public =
        json!({"type": "public", "content": "x".repeat(1000), "ref": format!("{round} {number}")});
    client.send(&masked(FIN | TEXT, public.to_string().as_bytes()));
    client.next_of("public");
    let private = json!({"type": "private", "to": format!("m{}", (number + 1) % CROWD), "content": "psst", "ref": "p"});
    client.send(&masked(FIN | TEXT, private.to_string().as_bytes()));
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

/// A client that does not read, in the same room with one who talks until it has been dropped.
fn evict(program: &Program) {
    let mut talker = RawClient::connect_to(program.address, "room=full&name=talker");
    let _stalled = RawClient::connect_to(program.address, "room=full&name=stalled");
    let message = masked(
        FIN | TEXT,
        json!({"type": "public", "content": "x".repeat(4000)}).to_string().as_bytes(),
    );
    loop {
        talker.send(&message);
        let (_, heard) = talker.frame().expect("the talker stays");
        if heard.starts_with(br#"{"type":"leave""#) {
            return;
        }
    }
}

/// Whatever is refused: requests, names, clients beyond the last place, and those that never say
/// what they want.
fn refuse(program: &Program) {
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
    let knock = || {
        let mut client = TcpStream::connect(program.address).expect("it listens");
        client.write_all(upgrade("").as_bytes()).unwrap();
        let mut start = [0; 12];
        client.read_exact(&mut start).expect("an answer");
        (&start == b"HTTP/1.1 101").then_some(client)
    };
    // Those that have just been refused give their places back a moment later: then all fit, and
    // not one more.
    eventually("every place taken", || {
        members.extend(knock());
        (members.len() == PLACES).then_some(())
    });
    assert!(knock().is_none(), "more than {PLACES}");
    // Requests that never come, more than there are places for.
    let silent: Vec<TcpStream> =
        (0..60).map(|_| TcpStream::connect(program.address).expect("it listens")).collect();
    for mut stream in silent {
        let _ = stream.write_all(b"GET /ws?na");
        let _ = stream.shutdown(Shutdown::Write);
    }
    // Asked last, so that all before have been accepted, and none is cut to make room for somebody
    // of the next round.
    assert!(ask("GET /healthz HTTP/1.1\r\nHost: localhost").ends_with("ok\n"));
}

/// Waits until every thread and every file is gone that was not there when nobody was.
fn at_rest(program: &Program, idle: &Footprint) -> Footprint {
    eventually("the end of every thread and descriptor", || {
        let now = footprint(program);
        (now.threads <= idle.threads && now.files <= idle.files).then_some(now)
    })
}

#[test]
fn a_long_run_of_everything_ends_with_the_memory_threads_and_files_it_began_with() {
    let places = format!("--max-connections={PLACES}");
    let options =
        ["--queue=64", "--history=20", "--max-rooms=8", "--leave-grace=20ms", "--message-rate=0"];
    let mut command = command(&[&["--listen=127.0.0.1:0", &places], &options[..]].concat());
    // With an arena for each thread of many processors, some would be met for the first time in the
    // last round. And what a slow client's queue held is given back to the system when it is freed,
    // wherever in an arena it would have lain.
    let program =
        Program::start(command.env("MALLOC_ARENA_MAX", "2").env("MALLOC_MMAP_THRESHOLD_", "4096"));
    // The start itself, and what is made when first needed, is no part of it.
    refuse(&program);
    let idle = eventually("its start", || Some(footprint(&program)).filter(|now| now.threads < 10));
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
        refuse(&program);
        let now = at_rest(&program, &idle);
        sizes.push(now.memory_kib);
    }
    let before = sizes[..ROUNDS_BEFORE].iter().max().expect("some rounds");
    let after = sizes[sizes.len() - ROUNDS_COMPARED..].iter().min().expect("some rounds");
    assert!(*after <= before + NOISE_KIB, "{sizes:?} KiB in rounds after {idle:?}");
}
