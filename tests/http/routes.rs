//! Requests that don't become a chat: responses, refusals, and heads that trickle.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::support::raw::{RawClient, exchange, public, upgrade};
use crate::support::{DEADLINE, TestServer};

/// Sends a request head of these lines. Returns the status, and the whole response in lower case.
fn ask(server: &TestServer, lines: &str) -> (u16, String) {
    let response =
        exchange(server.address, format!("{}\r\n\r\n", lines.replace('\n', "\r\n")).as_bytes());
    let status = response
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or_else(|| panic!("{response:?}"));
    (status, response.to_lowercase())
}

#[test]
fn each_path_and_method_has_its_response() {
    let server = TestServer::start(&[]);
    let cases = [
        ("GET / HTTP/1.1\nHost: x", 200, "parlour"),
        ("GET / HTTP/1.0", 200, "parlour"),
        ("GET /healthz HTTP/1.1\nHost: x", 200, "\r\n\r\nok\n"),
        ("GET http://x/healthz HTTP/1.1\nHost: x", 200, "\r\n\r\nok\n"),
        ("GET /metrics HTTP/1.1\nHost: x", 404, ""),
        ("GET /no HTTP/1.1\nHost: x", 404, ""),
        ("POST /no HTTP/1.1\nHost: x", 404, ""),
        ("POST / HTTP/1.1\nHost: x", 405, "allow: get, head\r\n"),
        ("DELETE /healthz HTTP/1.1\nHost: x", 405, "allow: get, head\r\n"),
        ("POST /ws HTTP/1.1\nHost: x", 405, "allow: get\r\n"),
        ("GET /ws HTTP/1.1\nHost: x", 400, "upgrade"),
        ("GET / HTTP/1.1", 400, "host"),
        ("GET / HTTP/1.1\nHost: x\nHost: y", 400, "host"),
        ("GET / HTTP/3.7\nHost: x", 400, ""),
        ("nonsense", 400, ""),
        ("GET / HTTP/1.1\nHost: x\nbroken header", 400, ""),
    ];
    for (lines, status, part) in cases {
        let (got, response) = ask(&server, lines);
        assert_eq!(got, status, "{lines:?}: {response}");
        assert!(response.contains(part), "{lines:?}: {response}");
        assert!(response.contains("connection: close\r\n"), "{lines:?}: {response}");
    }
}

#[test]
fn a_response_to_head_has_headers_and_no_body() {
    let server = TestServer::start(&[]);
    let (status, response) = ask(&server, "HEAD /healthz HTTP/1.1\nHost: x");
    assert_eq!(status, 200);
    assert!(
        response.contains("content-length: 3\r\n") && response.ends_with("\r\n\r\n"),
        "{response:?}"
    );
}

#[test]
fn a_bad_upgrade_is_refused_with_an_http_status() {
    let server = TestServer::start(&[]);
    let valid = upgrade("name=x").trim_end().replace("\r\n", "\n");
    let without = |name: &str| {
        valid.lines().filter(|line| !line.starts_with(name)).collect::<Vec<_>>().join("\n")
    };
    for line in ["Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"] {
        assert_eq!(ask(&server, &without(line)).0, 400, "without {line}");
    }
    let with = |from: &str, to: &str| valid.replace(from, to);
    assert_eq!(ask(&server, &with("HTTP/1.1", "HTTP/1.0")).0, 400);
    let (status, response) = ask(&server, &with("Version: 13", "Version: 8"));
    assert_eq!(status, 426);
    assert!(response.contains("sec-websocket-version: 13\r\n"), "{response}");
    assert_eq!(ask(&server, &with("dGhlIHNhbXBsZSBub25jZQ==", "short")).0, 400);
}

#[test]
fn a_client_that_still_sends_receives_its_refusal() {
    let server = TestServer::start(&[]);
    let mut request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n".to_vec();
    request.resize(50_000, b'x');
    assert!(exchange(server.address, &request).starts_with("HTTP/1.1 405 "));
}

#[test]
fn an_upgrade_may_be_written_in_every_valid_way() {
    let server = TestServer::start(&[]);
    let valid = upgrade("room=spelling");
    let status = |from: &str, to: &str| {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(valid.replace(from, to).as_bytes()).unwrap();
        let mut response = [0; 12];
        stream.read_exact(&mut response).expect("a response before the deadline");
        String::from_utf8(response.to_vec()).unwrap()
    };
    let lists = "Connection: keep-alive, Upgrade";
    assert_eq!(status(lists, "Connection: keep-alive\r\nconnection: UPGRADE"), "HTTP/1.1 101");
    assert_eq!(status(lists, "Connection: keep-alive,\tUpgrade"), "HTTP/1.1 101");
    assert_eq!(status("Upgrade: websocket", "Upgrade: h2c, WebSocket"), "HTTP/1.1 101");
    assert_eq!(status("Host:", "Content-Length: 0\r\nHost:"), "HTTP/1.1 101");
    assert_eq!(status("Host:", "Content-Length: 5\r\nHost:"), "HTTP/1.1 400");
    assert_eq!(status("Host:", "Transfer-Encoding: chunked\r\nHost:"), "HTTP/1.1 400");
    assert_eq!(status("Host:", "Sec-WebSocket-Version: 8\r\nHost:"), "HTTP/1.1 400");
    assert_eq!(
        status("Host:", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nHost:"),
        "HTTP/1.1 400"
    );
}

#[test]
fn a_head_that_is_too_large_is_refused_with_431() {
    let server = TestServer::start(&[]);
    let long = format!("GET / HTTP/1.1\nHost: x\nCookie: {}", "c".repeat(9000));
    assert_eq!(ask(&server, &long).0, 431);
    let many = format!("GET / HTTP/1.1\nHost: x{}", "\nA: b".repeat(100));
    assert_eq!(ask(&server, &many).0, 431);
    // A head without an end.
    let endless = exchange(server.address, &[b'a'; 20_000]);
    assert!(endless.starts_with("HTTP/1.1 431 "), "{endless}");
}

#[test]
fn a_head_that_takes_too_long_is_refused_with_408() {
    let server = TestServer::start(&["--handshake-timeout", "300ms"]);
    assert!(exchange(server.address, b"GET / HT").starts_with("HTTP/1.1 408 "));
    assert!(exchange(server.address, b"").starts_with("HTTP/1.1 408 "));

    let mut trickle = TcpStream::connect(server.address).unwrap();
    let mut sender = trickle.try_clone().unwrap();
    let feeding = thread::spawn(move || {
        while sender.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    trickle.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut response = [0; 12];
    trickle.read_exact(&mut response).expect("a response before the deadline");
    assert_eq!(&response, b"HTTP/1.1 408");
    feeding.join().unwrap();
}

#[test]
fn a_head_may_come_in_pieces_with_bare_newlines_and_with_frames_after_it() {
    let server = TestServer::start(&[]);
    let mut stream = TcpStream::connect(server.address).unwrap();
    for byte in b"GET /healthz HTTP/1.1\nHost: x\n\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.ends_with("ok\n"), "{response}");

    let mut head_and_frame = upgrade("name=eager").into_bytes();
    head_and_frame.extend(public("early"));
    let mut watcher = RawClient::connect(&server, "name=watcher");
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(&head_and_frame).unwrap();
    assert_eq!(watcher.next_of("public")["content"], "early");
}
