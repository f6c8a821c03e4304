//! More clients than fit, and a system that runs short: nobody who is in is dropped, the others are
//! told, and places come free again.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Instant;

use parlour::system::limits::{Ceiling, ceiling, pids_max};
use rlimit::Resource;
use serde_json::json;

use crate::support::program::{Program, assert_told_seldom, command};
use crate::support::raw::{FIN, RawClient, TEXT, masked, upgrade};
use crate::support::{Client, TestServer, assert_has, eventually, is_root};

/// The threads of a program that serve everyone: accept loop, hub, reaper, signals, log.
const THREADS_FOR_ALL: u64 = 5;

/// The status line and headers that a newcomer gets, in lower case.
fn knock(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.write_all(upgrade("room=knock").as_bytes()).expect("the server reads");
    let mut response = Vec::new();
    let mut chunk = [0; 512];
    while !response.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        let n = stream.read(&mut chunk).expect("a response and no reset");
        assert_ne!(n, 0, "{}", String::from_utf8_lossy(&response));
        response.extend(&chunk[..n]);
    }
    String::from_utf8_lossy(&response).to_lowercase()
}

#[test]
fn above_the_ceiling_a_client_is_told_503_and_below_it_comes_in() {
    let server = TestServer::start(&["--max-connections", "3"]);
    let mut members: Vec<Client> =
        (0..3).map(|number| Client::join(&server, &format!("m{number}"))).collect();
    for _ in 0..50 {
        let response = knock(server.address);
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
    eventually("a place coming free", || {
        knock(server.address).starts_with("http/1.1 101 ").then_some(())
    });
}

#[test]
fn the_ceiling_is_the_smallest_of_the_systems_limits() {
    let by_system = ceiling(None);
    assert!(by_system.clients >= 1 && by_system.limit != "--max-connections", "{by_system:?}");
    assert_eq!(ceiling(Some(1)), Ceiling { clients: 1, requests: 32, limit: "--max-connections" });
    assert_eq!(ceiling(Some(80)).requests, 42);
    assert_eq!(ceiling(Some(usize::MAX)), by_system);
}

#[test]
fn a_cgroup_of_either_version_sets_a_limit_and_so_do_those_above_it() {
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
        assert_eq!(pids_max(memberships, &root), expected, "{memberships:?}");
    }
    fs::remove_dir_all(&root).unwrap();
}

#[test]
fn few_descriptors_are_a_low_ceiling_and_no_trouble() {
    // As a shell would start it, soft and hard limit alike.
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "ulimit -n 120; exec \"$0\" --listen 127.0.0.1:0",
        env!("CARGO_BIN_EXE_parlour"),
    ]);
    let program = Program::start(command.stderr(std::process::Stdio::piped()));
    let join = |number: usize| {
        let mut client = RawClient::connect_to(program.address, &format!("name=m{number}"));
        client.next_of("join");
        client
    };
    let mut members: Vec<RawClient> = (0..35).map(join).collect();
    let refused = (0..200).filter(|_| knock(program.address).starts_with("http/1.1 503 ")).count();
    assert_eq!(refused, 200);
    members[0].send(&masked(FIN | TEXT, br#"{"type":"public","content":"all here"}"#));
    for member in &mut members {
        assert_has(&member.next_of("public"), json!({"content": "all here"}));
    }
    members.truncate(10);
    eventually("a place coming free", || {
        knock(program.address).starts_with("http/1.1 101 ").then_some(())
    });
    program.signal("TERM");
    let (status, log) = program.ended();
    let told = "at most 35 clients and 36 requests at a time, limited by RLIMIT_NOFILE";
    assert!(status.success() && log.contains(told), "{log}");
}

/// Changes a soft limit of a program, as the user whose it is: not every root may do so for others.
fn set_soft(program: &Program, resource: &str, soft: u64) {
    let options = [format!("--pid={}", program.id()), format!("--{resource}={soft}:")];
    let whose = fs::metadata(format!("/proc/{}", program.id())).expect("it runs");
    let status = Command::new("prlimit").args(&options).uid(whose.uid()).gid(whose.gid()).status();
    assert!(status.expect("prlimit, of util-linux").success());
}

fn say_to_oneself(client: &mut RawClient, content: &str) {
    client.send(&masked(
        FIN | TEXT,
        json!({"type": "public", "content": content}).to_string().as_bytes(),
    ));
    assert_has(&client.next_of("public"), json!({"content": content}));
}

#[test]
fn without_descriptors_newcomers_wait_and_nobody_else_does() {
    let program = Program::start(&mut command(&["--listen=127.0.0.1:0", "--message-rate=0"]));
    let mut ann = RawClient::connect_to(program.address, "name=Ann");
    let start = Instant::now();
    set_soft(&program, "nofile", 1);
    let newcomer = |number: usize| {
        let mut stream = TcpStream::connect(program.address).expect("the system completes it");
        stream
            .write_all(upgrade(&format!("name=n{number}")).as_bytes())
            .expect("a socket takes that much");
        stream
    };
    let newcomers: Vec<TcpStream> = (0..5).map(newcomer).collect();
    let line = "can't accept a connection: Too many open files";
    eventually("the second warning", || (program.logged().matches(line).count() > 1).then_some(()));
    assert_told_seldom(&program, line, start);
    say_to_oneself(&mut ann, "as if nothing were");
    set_soft(&program, "nofile", Resource::NOFILE.get_soft().expect("Linux"));
    for mut newcomer in newcomers {
        newcomer.set_read_timeout(Some(crate::support::DEADLINE)).unwrap();
        let mut response = [0; 12];
        newcomer.read_exact(&mut response).expect("a response before the deadline");
        assert_eq!(&response, b"HTTP/1.1 101");
    }
    program.signal("TERM");
    let (status, log) = program.ended();
    assert!(status.success(), "{log}");
}

#[test]
fn without_threads_newcomers_are_told_503_and_nobody_else_is_troubled() {
    if !is_root("a limit on threads of another user") {
        return;
    }
    // The limit doesn't bind root, counts all of a user's threads, and so takes a user who has no
    // others.
    let user = 100_000 + std::process::id();
    let copy = std::env::temp_dir().join(format!("parlour-{user}"));
    fs::copy(env!("CARGO_BIN_EXE_parlour"), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(&copy);
    command.args(["--listen=127.0.0.1:0", "--message-rate=0"]).stderr(std::process::Stdio::piped());
    let program = Program::start(command.uid(user).gid(user));
    fs::remove_file(&copy).unwrap();
    let mut ann = RawClient::connect_to(program.address, "name=Ann");
    ann.next_of("join");
    let threads =
        || fs::read_dir(format!("/proc/{}/task", program.id())).expect("it runs").count() as u64;

    let start = Instant::now();
    set_soft(&program, "nproc", 1);
    let line = "no thread for a connection: Resource temporarily unavailable";
    eventually("the second warning", || {
        let response = knock(program.address);
        assert!(
            response.starts_with("http/1.1 503 ") && response.contains("\r\nretry-after: "),
            "{response}"
        );
        (program.logged().matches(line).count() > 1).then_some(())
    });
    assert_told_seldom(&program, line, start);
    say_to_oneself(&mut ann, "as if nothing were");

    // A thread to read, and none to write. The refused clients' places are free again.
    for number in 0..50 {
        let at_rest = eventually("those before being gone", || {
            let threads = threads();
            (threads == 2 + THREADS_FOR_ALL).then_some(threads)
        });
        set_soft(&program, "nproc", at_rest + 1);
        assert!(knock(program.address).starts_with("http/1.1 503 "), "{number}");
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
