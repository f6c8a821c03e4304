//! More clients than fit, and a system that runs out of descriptors or threads: no client is
//! dropped, newcomers are refused or wait, and places become free again.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use parlour::system::limits::{Ceiling, ceiling, ceiling_below, cgroup_limit};
use rlimit::Resource;
use serde_json::json;

use crate::support::program::{
    Program, assert_logged_rarely, command, forget_own_variables, wrapper,
};
use crate::support::raw::{RawClient, exchange, public, upgrade};
use crate::support::{Client, DEADLINE, TestServer, assert_has, eventually, is_root};

/// The program's threads that serve everyone: accept loop, hub, reaper, signals, log.
const COMMON_THREADS: u64 = 5;

/// Requests an upgrade. Returns the response head in lower case.
fn response_head(address: SocketAddr) -> String {
    response_to(address, "room=newcomers").0
}

/// Requests an upgrade with this query. Returns the response head in lower case, and the
/// connection.
fn response_to(address: SocketAddr, query: &str) -> (String, TcpStream) {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.write_all(upgrade(query).as_bytes()).expect("the server reads");
    let mut response = Vec::new();
    let mut chunk = [0; 512];
    while !response.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        let n = stream.read(&mut chunk).expect("a response, not a reset");
        assert_ne!(n, 0, "{}", String::from_utf8_lossy(&response));
        response.extend(&chunk[..n]);
    }
    (String::from_utf8_lossy(&response).to_lowercase(), stream)
}

#[test]
fn a_client_above_the_ceiling_is_refused_with_503() {
    let server = TestServer::start(&["--max-connections", "3"]);
    let mut members: Vec<Client> =
        (0..3).map(|number| Client::join(&server, &format!("m{number}"))).collect();
    for _ in 0..50 {
        let response = response_head(server.address);
        assert!(
            response.starts_with("http/1.1 503 ") && response.contains("\r\nretry-after: "),
            "{response}"
        );
    }
    members[0].say("still here");
    for member in &mut members {
        assert_has(&member.next_of("public"), json!({"content": "still here"}));
    }
    members.pop().expect("a member").close();
    eventually("a place becoming free", || {
        response_head(server.address).starts_with("http/1.1 101 ").then_some(())
    });
}

#[test]
fn the_ceiling_is_the_smallest_of_the_systems_limits() {
    let ceiling = |chosen| ceiling(chosen).expect("memory for a client");
    let by_system = ceiling(None);
    assert!(by_system.clients >= 1 && by_system.limit != "--max-connections", "{by_system:?}");
    assert_eq!(ceiling(Some(1)), Ceiling { clients: 1, requests: 32, limit: "--max-connections" });
    assert_eq!(ceiling(Some(80)).requests, 42);
    assert_eq!(ceiling(Some(usize::MAX)), by_system);
}

#[test]
fn a_cgroup_of_either_version_and_its_parents_set_a_limit() {
    let root = std::env::temp_dir().join(format!("parlour-cgroups-{}", std::process::id()));
    let limit = |folder: &str, max: &str| {
        fs::create_dir_all(root.join(folder)).unwrap();
        fs::write(root.join(folder).join("pids.max"), max).unwrap();
    };
    limit("system.slice", "300\n");
    limit("system.slice/parlour.service", "max\n");
    limit("pids", "200\n");
    limit("pids/inner", "250\n");
    let cases = [
        ("0::/\n", None),
        ("0::/system.slice/parlour.service\n", Some(300)),
        ("0::/nowhere\n", None),
        ("4:memory:/system.slice\n1:name=systemd:/\n0::/\n", None),
        ("8:pids:/inner\n0::/\n", Some(200)),
        ("8:cpu,pids:/docker/1234\n0::/system.slice\n", Some(200)),
        ("nonsense\n\n", None),
    ];
    for (memberships, expected) in cases {
        let found = cgroup_limit(memberships, &root, "pids", &["pids.max"]);
        assert_eq!(found, expected, "{memberships:?}");
    }
    fs::remove_dir_all(&root).unwrap();
}

#[test]
fn a_503_names_what_is_full_the_chat_or_the_places_for_requests() {
    // 32 places for requests.
    let server = TestServer::start(&["--max-connections=1", "--handshake-timeout=1h"]);
    let body = |response: String| response.split_once("\r\n\r\n").expect("a body").1.to_owned();
    let _member = Client::join(&server, "Ann");
    let refused = exchange(server.address, upgrade("").as_bytes());
    assert_eq!(body(refused), "the chat is full; try again later\n");
    let silent = (0..33).map(|_| TcpStream::connect(server.address).expect("it listens"));
    let mut silent: Vec<TcpStream> = silent.collect();
    silent[0].set_read_timeout(Some(DEADLINE)).unwrap();
    let mut cut = String::new();
    silent[0].read_to_string(&mut cut).expect("a clean end");
    assert_eq!(body(cut), "too many requests at the same time; try again in a moment\n");
}

#[test]
fn every_limit_of_kernel_and_cgroup_counts_and_one_that_aborts_is_no_start() {
    const MEMORY: &str = "MemTotal: 65536 kB\nCommitLimit: 65536 kB\nCommitted_AS: 1024 kB\n";
    let root = std::env::temp_dir().join(format!("parlour-limits-{}", std::process::id()));
    let ceiling_with = |files: &[(&str, &str)]| {
        let _ = fs::remove_dir_all(&root);
        for (file, text) in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        ceiling_below(&root, Some(100_000))
    };
    let v2 = ("proc/self/cgroup", "0::/a/b\n");
    let v1 = ("proc/self/cgroup", "4:memory:/a\n0::/\n");
    let strict = ("proc/sys/vm/overcommit_memory", "2\n");
    type Files<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Files, &str, usize); 11] = [
        (&[("proc/sys/fs/nr_open", "1048\n")], "fs.nr_open", 860),
        (&[("proc/sys/fs/file-max", "1048\n")], "fs.file-max", 860),
        (&[("proc/sys/kernel/threads-max", "1064\n")], "kernel.threads-max", 455),
        (&[("proc/sys/kernel/pid_max", "1064\n")], "kernel.pid_max", 455),
        (&[v2, ("sys/fs/cgroup/a/pids.max", "1064\n")], "the cgroup's pids.max", 455),
        (&[("proc/meminfo", MEMORY)], "the machine's memory", 627),
        (&[v2, ("sys/fs/cgroup/a/memory.max", "67108864\n")], "the cgroup's memory limit", 627),
        (&[v2, ("sys/fs/cgroup/a/b/memory.high", "67108864\n")], "the cgroup's memory limit", 627),
        (
            &[v1, ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "67108864\n")],
            "the cgroup's memory limit",
            627,
        ),
        // A quarter of 47 MiB is left free, and 288 KiB a thread is much more than 36 KiB.
        (&[strict, ("proc/meminfo", MEMORY)], "the system's CommitLimit", 43),
        // With little memory at all, it tries with one client.
        (&[("proc/meminfo", "MemTotal: 1024 kB\n")], "the machine's memory", 1),
    ];
    for (files, limit, clients) in cases {
        let found = ceiling_with(files).expect("memory for a client");
        assert_eq!((found.limit, found.clients), (limit, clients), "{files:?}");
    }
    let mappings = ceiling_with(&[("proc/sys/vm/max_map_count", "10000\n")]).expect("a client");
    assert!(mappings.limit == "vm.max_map_count" && mappings.clients > 500, "{mappings:?}");
    for (files, limit) in [
        (&[("proc/sys/vm/max_map_count", "300\n")][..], "vm.max_map_count"),
        (&[strict, ("proc/meminfo", &MEMORY.replace("65536", "9999"))], "CommitLimit"),
    ] {
        let problem = ceiling_with(files).expect_err("too little").to_string();
        assert!(problem.contains(limit) && problem.contains("raise it"), "{problem}");
    }
    fs::remove_dir_all(&root).unwrap();
}

/// The program under a limit of prlimit(1), such as `--as=N`.
fn limited(limit: &str, options: &[&str]) -> Command {
    let mut command = wrapper("prlimit");
    command.args([limit, env!("CARGO_BIN_EXE_parlour"), "--listen=127.0.0.1:0"]).args(options);
    command.stderr(std::process::Stdio::piped());
    command
}

/// The numbers of clients and of requests that a program promises, and the limit that it names.
fn promised(program: &Program) -> (usize, usize, String) {
    let line = eventually("the ceiling", || {
        let log = program.logged();
        let (_, rest) = log.split_once("at most ")?;
        rest.split_once('\n').map(|(line, _)| line.to_owned())
    });
    let words: Vec<&str> = line.split(' ').collect();
    let number = |word: &str| word.parse().expect("a number");
    (number(words[0]), number(words[3]), words[words.len() - 1].to_owned())
}

#[test]
fn under_a_limit_on_address_space_or_data_as_many_come_in_as_it_promises_and_nothing_aborts() {
    for (limit, name) in [("--as=250000000", "RLIMIT_AS"), ("--data=60000000", "RLIMIT_DATA")] {
        let program = Program::start(&mut limited(limit, &["--handshake-timeout=1h"]));
        let (clients, requests, named) = promised(&program);
        assert!(named == name && clients >= 10, "{clients} by {named}");
        for round in 0..3 {
            let page = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
            let join = |number: usize| {
                // Readers whose stacks are free again, for writers to take.
                assert!(exchange(program.address, page).starts_with("HTTP/1.1 200 "));
                let query = format!("name=m{number}&room={round}-{}", number / 10);
                eventually("a place", || {
                    let response = response_to(program.address, &query);
                    response.0.starts_with("http/1.1 101 ").then_some(response.1)
                })
            };
            let members: Vec<TcpStream> = (0..clients).map(join).collect();
            let silent = (0..requests + 20).map(|_| TcpStream::connect(program.address));
            let silent: Vec<TcpStream> = silent.map(|stream| stream.expect("it listens")).collect();
            for _ in 0..50 {
                assert!(response_head(program.address).starts_with("http/1.1 503 "));
            }
            drop((members, silent));
        }
        program.signal("TERM");
        let (status, log) = program.ended();
        assert!(status.success(), "{log}");
        assert!(log.contains("refused: 503 server_full"), "{log}");
        assert!(!log.contains("no thread"), "the ceiling was low enough: {log}");
    }
}

#[test]
fn a_limit_that_leaves_no_memory_for_a_client_is_named_at_the_start() {
    for (limit, name) in [("--as=30000000", "RLIMIT_AS"), ("--data=20000000", "RLIMIT_DATA")] {
        let mut program = limited(limit, &[]).spawn().expect("prlimit, of util-linux");
        let mut told = String::new();
        let mut stderr = BufReader::new(program.stderr.take().expect("piped"));
        stderr.read_line(&mut told).expect("text");
        let ends = told == format!("parlour: {name} leaves no memory for a client: raise it\n");
        if !ends {
            program.kill().expect("a child");
        }
        let status = program.wait().expect("a child");
        assert!(ends && status.code() == Some(1), "{status} {told}");
    }
}

#[test]
fn few_descriptors_lower_the_ceiling() {
    // The shell's `ulimit` sets the soft and the hard limit.
    let mut command = wrapper("sh");
    command.args([
        "-c",
        "ulimit -n 120; exec \"$0\" --listen 127.0.0.1:0",
        env!("CARGO_BIN_EXE_parlour"),
    ]);
    let program = Program::start(command.stderr(Stdio::piped()));
    let join = |number: usize| {
        let mut client = RawClient::connect_to(program.address, &format!("name=m{number}"));
        client.next_of("join");
        client
    };
    let mut members: Vec<RawClient> = (0..35).map(join).collect();
    let refused =
        (0..200).filter(|_| response_head(program.address).starts_with("http/1.1 503 ")).count();
    assert_eq!(refused, 200);
    members[0].send(&public("all here"));
    for member in &mut members {
        assert_has(&member.next_of("public"), json!({"content": "all here"}));
    }
    members.truncate(10);
    eventually("a place becoming free", || {
        response_head(program.address).starts_with("http/1.1 101 ").then_some(())
    });
    let log = program.stop();
    let ceiling = "at most 35 clients and 36 requests at a time, limited by RLIMIT_NOFILE";
    assert!(log.contains(ceiling), "{log}");
}

/// Changes a soft limit of a program, as the user who runs it: even root may lack the right to do
/// that for others.
fn set_soft(program: &Program, resource: &str, soft: u64) {
    let options = [format!("--pid={}", program.id()), format!("--{resource}={soft}:")];
    let owner = fs::metadata(format!("/proc/{}", program.id())).expect("the program runs");
    let status = Command::new("prlimit").args(&options).uid(owner.uid()).gid(owner.gid()).status();
    assert!(status.expect("prlimit, of util-linux").success());
}

/// Sends a public message, and waits until it has come back.
fn send_and_receive(client: &mut RawClient, content: &str) {
    client.send(&public(content));
    assert_has(&client.next_of("public"), json!({"content": content}));
}

#[test]
fn without_descriptors_only_newcomers_wait() {
    let program = Program::start(&mut command(&["--listen=127.0.0.1:0", "--message-rate=0"]));
    let mut ann = RawClient::connect_to(program.address, "name=Ann");
    let start = Instant::now();
    set_soft(&program, "nofile", 1);
    let newcomer = |number: usize| {
        let mut stream = TcpStream::connect(program.address).expect("the system accepts it");
        stream
            .write_all(upgrade(&format!("name=n{number}")).as_bytes())
            .expect("a socket takes that much");
        stream
    };
    let newcomers: Vec<TcpStream> = (0..5).map(newcomer).collect();
    let warning = "can't accept a connection: Too many open files";
    eventually("the second warning", || {
        (program.logged().matches(warning).count() > 1).then_some(())
    });
    assert_logged_rarely(&program, warning, start);
    send_and_receive(&mut ann, "still here");
    set_soft(&program, "nofile", Resource::NOFILE.get_soft().expect("Linux"));
    for mut newcomer in newcomers {
        newcomer.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut response = [0; 12];
        newcomer.read_exact(&mut response).expect("a response before the deadline");
        assert_eq!(&response, b"HTTP/1.1 101");
    }
    program.stop();
}

#[test]
fn without_threads_newcomers_are_refused_with_503_and_nobody_else_notices() {
    if !is_root("a limit on threads of another user") {
        return;
    }
    // The limit does not bind root, and counts all threads of a user. So this takes a user without
    // others.
    let user = 100_000 + std::process::id();
    let copy = std::env::temp_dir().join(format!("parlour-{user}"));
    fs::copy(env!("CARGO_BIN_EXE_parlour"), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(&copy);
    forget_own_variables(&mut command);
    command.args(["--listen=127.0.0.1:0", "--message-rate=0"]).stderr(Stdio::piped());
    let program = Program::start(command.uid(user).gid(user));
    fs::remove_file(&copy).unwrap();
    let mut ann = RawClient::connect_to(program.address, "name=Ann");
    ann.next_of("join");
    let threads = || {
        fs::read_dir(format!("/proc/{}/task", program.id())).expect("the program runs").count()
            as u64
    };

    let start = Instant::now();
    set_soft(&program, "nproc", 1);
    let warning = "no thread for a connection: Resource temporarily unavailable";
    eventually("the second warning", || {
        let response = response_head(program.address);
        assert!(
            response.starts_with("http/1.1 503 ") && response.contains("\r\nretry-after: "),
            "{response}"
        );
        (program.logged().matches(warning).count() > 1).then_some(())
    });
    assert_logged_rarely(&program, warning, start);
    send_and_receive(&mut ann, "still here");

    // Enough for a thread that reads, but not for one that writes. Each time, the place becomes
    // free again.
    for number in 0..50 {
        let at_rest = eventually("the end of the last newcomer's thread", || {
            let threads = threads();
            (threads == 2 + COMMON_THREADS).then_some(threads)
        });
        set_soft(&program, "nproc", at_rest + 1);
        assert!(response_head(program.address).starts_with("http/1.1 503 "), "{number}");
    }
    assert!(
        program
            .logged()
            .contains("no thread to write to a client: Resource temporarily unavailable")
    );
    set_soft(&program, "nproc", Resource::NPROC.get_soft().expect("Linux"));
    RawClient::connect_to(program.address, "name=Bob").next_of("join");
    assert_has(&ann.next_of("join"), json!({"user": "Bob"}));
    program.signal("TERM");
    let (status, log) = program.ended();
    assert!(status.success(), "{log}");
}
