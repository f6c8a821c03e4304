//! More clients than fit: nobody who is in is dropped, the others are told, and places come free again.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use parlour::limits::ceiling;
use serde_json::json;

use crate::process::Program;
use crate::support::raw::{FIN, RawClient, TEXT, masked, upgrade};
use crate::support::{Client, TestServer, assert_has, eventually};

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
    let mut members: Vec<Client> = (0..3).map(|number| Client::join(&server, &format!("m{number}"))).collect();
    for _ in 0..50 {
        let response = knock(server.address);
        assert!(response.starts_with("http/1.1 503 ") && response.contains("\r\nretry-after: "), "{response}");
    }
    members[0].say("still here");
    for member in &mut members {
        assert_has(&member.next_of("public"), json!({"content": "still here"}));
    }
    members.pop().expect("a member").close();
    eventually("a place coming free", || knock(server.address).starts_with("http/1.1 101 ").then_some(()));
}

#[test]
fn the_ceiling_is_the_smallest_of_the_systems_limits() {
    let by_system = ceiling(None);
    assert!(by_system.connections >= 1 && by_system.limit != "--max-connections", "{by_system:?}");
    assert_eq!(ceiling(Some(1)).limit, "--max-connections");
    assert_eq!(ceiling(Some(usize::MAX)), by_system);
}

#[test]
fn few_descriptors_are_a_low_ceiling_and_no_trouble() {
    // As a shell would start it, soft and hard limit alike.
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 80; exec \"$0\" --listen 127.0.0.1:0", env!("CARGO_BIN_EXE_parlour")]);
    let program = Program::start(command.stderr(std::process::Stdio::piped()));
    let join = |number: usize| {
        let mut client = RawClient::connect_to(program.address, &format!("name=m{number}"));
        client.next_of("join");
        client
    };
    let mut members: Vec<RawClient> = (0..32).map(join).collect();
    let refused = (0..200).filter(|_| knock(program.address).starts_with("http/1.1 503 ")).count();
    assert_eq!(refused, 200);
    members[0].send(&masked(FIN | TEXT, br#"{"type":"public","content":"all here"}"#));
    for member in &mut members {
        assert_has(&member.next_of("public"), json!({"content": "all here"}));
    }
    members.truncate(10);
    eventually("a place coming free", || knock(program.address).starts_with("http/1.1 101 ").then_some(()));
    program.signal("TERM");
    let (status, log) = program.ended();
    assert!(status.success() && log.contains("room for 32 connections, by RLIMIT_NOFILE"), "{log}");
}
