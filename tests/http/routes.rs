//! Requests that are no chat: answers, refusals, and heads that trickle.

use std::io::Write;
use std::net::TcpStream;

use crate::support::TestServer;
use crate::support::raw::{RawClient, exchange, upgrade};

/// The status and, in lower case, the whole response to a request head of these lines.
fn answer(server: &TestServer, lines: &str) -> (u16, String) {
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
fn paths_and_methods() {
    let server = TestServer::start(&[]);
    let cases = [
        ("GET / HTTP/1.1\nHost: localhost", 200, "parlour"),
        ("GET / HTTP/1.0", 200, "parlour"),
        ("GET /healthz HTTP/1.1\nHost: localhost", 200, "\r\n\r\nok\n"),
        ("GET http://localhost/healthz HTTP/1.1\nHost: localhost", 200, "\r\n\r\nok\n"),
        ("GET /metrics HTTP/1.1\nHost: localhost", 404, ""),
        ("GET /no HTTP/1.1\nHost: localhost", 404, ""),
        ("POST /no HTTP/1.1\nHost: localhost", 404, ""),
        ("POST / HTTP/1.1\nHost: localhost", 405, "allow: get, head\r\n"),
        ("DELETE /healthz HTTP/1.1\nHost: localhost", 405, "allow: get, head\r\n"),
        ("POST /ws HTTP/1.1\nHost: localhost", 405, "allow: get\r\n"),
        ("GET /ws HTTP/1.1\nHost: localhost", 400, "upgrade"),
        ("GET / HTTP/1.1", 400, "host"),
        ("GET / HTTP/1.1\nHost: localhost\nHost: y", 400, "host"),
        ("GET / HTTP/3.7\nHost: localhost", 400, ""),
        ("nonsense", 400, ""),
        ("GET / HTTP/1.1\nHost: localhost\nbroken header", 400, ""),
    ];
    for (lines, status, part) in cases {
        let (got, response) = answer(&server, lines);
        assert_eq!(got, status, "{lines:?}: {response}");
        assert!(response.contains(part), "{lines:?}: {response}");
        assert!(response.contains("connection: close\r\n"), "{lines:?}: {response}");
    }
}

#[test]
fn head_has_the_headers_and_no_body() {
    let server = TestServer::start(&[]);
    let (status, response) = answer(&server, "HEAD /healthz HTTP/1.1\nHost: localhost");
    assert_eq!(status, 200);
    assert!(
        response.contains("content-length: 3\r\n") && response.ends_with("\r\n\r\n"),
        "{response:?}"
    );
}

#[test]
fn a_bad_upgrade_is_refused_before_it() {
    let server = TestServer::start(&[]);
    let valid = upgrade("name=x");
    let without = |line: &str| {
        valid
            .lines()
            .filter(|l| !l.starts_with(line))
            .collect::<Vec<_>>()
            .join("\n")
            .trim_end()
            .to_owned()
    };
    for line in ["Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"] {
        assert_eq!(answer(&server, &without(line)).0, 400, "without {line}");
    }
    assert_eq!(
        answer(
            &server,
            valid.trim_end().replace("\r\n", "\n").replace("HTTP/1.1", "HTTP/1.0").as_str()
        )
        .0,
        400
    );
    let version_8 = valid.trim_end().replace("\r\n", "\n").replace("Version: 13", "Version: 8");
    let (status, response) = answer(&server, &version_8);
    assert_eq!(status, 426);
    assert!(response.contains("sec-websocket-version: 13\r\n"), "{response}");
    let bad_key =
        valid.trim_end().replace("\r\n", "\n").replace("dGhlIHNhbXBsZSBub25jZQ==", "short");
    assert_eq!(answer(&server, &bad_key).0, 400);
}

#[test]
fn a_refusal_is_seen_by_a_client_that_still_sends() {
    let server = TestServer::start(&[]);
    let mut request =
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\n".to_vec();
    request.resize(50_000, b'x');
    assert!(exchange(server.address, &request).starts_with("HTTP/1.1 405 "));
}

#[test]
fn an_upgrade_may_be_spelled_in_every_legal_way_and_in_no_other() {
    let server = TestServer::start(&[]);
    let valid = upgrade("room=spelling");
    let connected = |from: &str, to: &str| {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(valid.replace(from, to).as_bytes()).unwrap();
        let mut response = [0; 12];
        std::io::Read::read_exact(&mut stream, &mut response)
            .expect("an answer before the deadline");
        String::from_utf8(response.to_vec()).unwrap()
    };
    let lists = "Connection: keep-alive, Upgrade";
    assert_eq!(connected(lists, "Connection: keep-alive\r\nconnection: UPGRADE"), "HTTP/1.1 101");
    assert_eq!(connected(lists, "Connection: keep-alive,\tUpgrade"), "HTTP/1.1 101");
    assert_eq!(connected("Upgrade: websocket", "Upgrade: h2c, WebSocket"), "HTTP/1.1 101");
    assert_eq!(connected("Host:", "Content-Length: 0\r\nHost:"), "HTTP/1.1 101");
    assert_eq!(connected("Host:", "Content-Length: 5\r\nHost:"), "HTTP/1.1 400");
    assert_eq!(connected("Host:", "Transfer-Encoding: chunked\r\nHost:"), "HTTP/1.1 400");
    assert_eq!(connected("Host:", "Sec-WebSocket-Version: 8\r\nHost:"), "HTTP/1.1 400");
    assert_eq!(
        connected("Host:", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nHost:"),
        "HTTP/1.1 400"
    );
}

#[test]
fn a_head_too_large_is_431() {
    let server = TestServer::start(&[]);
    let long = format!("GET / HTTP/1.1\nHost: localhost\nCookie: {}", "c".repeat(9000));
    assert_eq!(answer(&server, &long).0, 431);
    let many = format!("GET / HTTP/1.1\nHost: localhost{}", "\nA: b".repeat(100));
    assert_eq!(answer(&server, &many).0, 431);
    // Without an end, too.
    let endless = exchange(server.address, &[b'a'; 20_000]);
    assert!(endless.starts_with("HTTP/1.1 431 "), "{endless}");
}

#[test]
fn a_head_that_does_not_come_in_time_is_408_however_it_trickles() {
    let server = TestServer::start(&["--handshake-timeout", "300ms"]);
    assert!(exchange(server.address, b"GET / HT").starts_with("HTTP/1.1 408 "));
    assert!(exchange(server.address, b"").starts_with("HTTP/1.1 408 "));

    let mut trickle = TcpStream::connect(server.address).unwrap();
    let mut sender = trickle.try_clone().unwrap();
    let feeding = std::thread::spawn(move || {
        while sender.write_all(b"x").is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    trickle.set_read_timeout(Some(crate::support::DEADLINE)).unwrap();
    let mut response = [0; 12];
    std::io::Read::read_exact(&mut trickle, &mut response).expect("an answer before the deadline");
    assert_eq!(&response, b"HTTP/1.1 408");
    feeding.join().unwrap();
}

#[test]
fn a_head_may_come_in_pieces_with_frames_behind_it_and_bare_newlines() {
    let server = TestServer::start(&[]);
    let mut stream = TcpStream::connect(server.address).unwrap();
    for byte in b"GET /healthz HTTP/1.1\nHost: localhost\n\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut response = String::new();
    std::io::Read::read_to_string(&mut stream, &mut response).unwrap();
    assert!(response.ends_with("ok\n"), "{response}");

    let mut head_and_frame = upgrade("name=eager").into_bytes();
    let text = br#"{"type":"public","content":"early"}"#;
    head_and_frame.extend(crate::support::raw::masked(0x81, text));
    let mut eager = RawClient::connect(&server, "name=watcher");
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(&head_and_frame).unwrap();
    assert_eq!(eager.next_of("public")["content"], "early");
}
