//! Requests that don't become a chat: responses, refusals, and heads that trickle.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::support::raw::{RawClient, ask, exchange, public, upgrade};
use crate::support::{DEADLINE, TestServer};

#[test]
fn each_path_and_method_has_its_response() {
    let server = TestServer::start(&[]);
    let cases = [
        ("GET / HTTP/1.1\nHost: localhost", 200, "parlour"),
        ("GET / HTTP/1.0", 200, "parlour"),
        ("GET /healthz HTTP/1.1\nHost: localhost", 200, "\r\n\r\nok\n"),
        ("GET http://localhost/healthz HTTP/1.1\nHost: localhost", 200, "\r\n\r\nok\n"),
        ("GET /ws/ HTTP/1.1\nHost: localhost", 404, "the chat is at /\n"),
        ("GET /no HTTP/1.1\nHost: localhost\nUpgrade: websocket", 404, "the chat is at /ws\n"),
        ("GET /metrics HTTP/1.1\nHost: localhost", 404, ""),
        ("GET /no HTTP/1.1\nHost: localhost", 404, ""),
        ("POST /no HTTP/1.1\nHost: localhost", 404, ""),
        ("POST / HTTP/1.1\nHost: localhost", 405, "allow: get, head, options\r\n"),
        ("DELETE /healthz HTTP/1.1\nHost: localhost", 405, "allow: get, head, options\r\n"),
        ("POST /ws HTTP/1.1\nHost: localhost", 405, "allow: get, options\r\n"),
        ("GET /ws HTTP/1.1\nHost: localhost", 400, "upgrade"),
        ("BREW / HTTP/1.1\nHost: localhost", 501, "method"),
        ("get /no HTTP/1.1\nHost: localhost", 501, "method"),
        ("CONNECT localhost:80 HTTP/1.1\nHost: localhost", 501, "method"),
        ("GET / HTTP/1.1", 400, "host"),
        ("GET / HTTP/1.1\nHost: localhost\nHost: y", 400, "host"),
        ("GET / HTTP/3.7\nHost: localhost", 505, "http/1.1;"),
        ("nonsense", 400, ""),
        ("GET / HTTP/1.1\nHost: localhost\nbroken header", 400, ""),
    ];
    for (lines, status, part) in cases {
        let (got, response) = ask(server.address, lines);
        assert_eq!(got, status, "{lines:?}: {response}");
        assert!(response.contains(part), "{lines:?}: {response}");
        assert!(response.contains("connection: close\r\n"), "{lines:?}: {response}");
    }
}

#[test]
fn options_are_what_a_load_balancer_asks_for_by_default() {
    let server = TestServer::start(&[]);
    for (lines, methods) in [
        // The default of HAProxy's `option httpchk`.
        ("OPTIONS / HTTP/1.0", "get, head, options"),
        ("OPTIONS / HTTP/1.1\nHost: localhost", "get, head, options"),
        ("OPTIONS * HTTP/1.1\nHost: localhost", "get, head, options"),
        ("OPTIONS /healthz HTTP/1.0", "get, head, options"),
        ("OPTIONS /app.js HTTP/1.0", "get, head, options"),
        ("OPTIONS /ws HTTP/1.0", "get, options"),
    ] {
        let (status, response) = ask(server.address, lines);
        assert_eq!(status, 204, "{lines}");
        assert!(response.contains(&format!("\r\nallow: {methods}\r\n")), "{response}");
        assert!(
            !response.contains("content-length") && response.ends_with("\r\n\r\n"),
            "{response}"
        );
    }
    assert_eq!(ask(server.address, "OPTIONS /nowhere HTTP/1.0").0, 404);
}

#[test]
fn every_response_is_dated() {
    let server = TestServer::start(&[]);
    let seconds = || jiff::Timestamp::now().as_second();
    for path in ["/", "/healthz", "/nowhere", "/ws", "*"] {
        let before = seconds();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let response = exchange(server.address, request.as_bytes());
        let date = response.lines().find_map(|line| line.strip_prefix("date: ")).expect("a date");
        // The one form that may be sent (RFC 9110, 5.6.7).
        let parsed = jiff::fmt::strtime::parse("%a, %d %b %Y %H:%M:%S GMT", date).expect(date);
        let time = parsed.to_datetime().expect(date).to_zoned(jiff::tz::TimeZone::UTC).expect(date);
        let time = time.timestamp().as_second();
        assert!((before..=seconds()).contains(&time), "{date}");
    }
}

#[test]
fn the_address_of_the_page_is_that_of_the_chat_for_whoever_asks_for_an_upgrade() {
    let server = TestServer::start(&[]);
    let start_of_response = |request: &str| {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).expect("a response before the deadline");
        String::from_utf8(start.to_vec()).unwrap()
    };
    let mut watcher = RawClient::connect(&server, "name=watcher&room=rust");
    watcher.next_of("join");
    let at_root = upgrade("name=ann&room=rust").replace("/ws?", "/?");
    assert_eq!(start_of_response(&at_root), "HTTP/1.1 101");
    assert_eq!(watcher.next_of("join")["user"], "ann");
    let elsewhere = at_root.replace("Host:", "Origin: http://elsewhere.example\r\nHost:");
    assert_eq!(start_of_response(&elsewhere), "HTTP/1.1 403");
    // What curl and others ask for on the way to HTTP/2 is no reason to keep the page from them.
    let (status, page) = ask(
        server.address,
        "GET / HTTP/1.1\nHost: localhost\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\n\
         HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
    );
    assert!(status == 200 && page.contains("<html"), "{page}");
    // An upgrade by HTTP/1.0 is none (RFC 9110, 7.8).
    let (status, _) = ask(server.address, "GET / HTTP/1.0\nConnection: upgrade\nUpgrade: h2c");
    assert_eq!(status, 200);
}

#[test]
fn a_request_whose_upgrade_a_proxy_took_is_told_what_the_proxy_must_do() {
    let server = TestServer::start(&[]);
    let valid = upgrade("name=x").replace("\r\n", "\n");
    let valid = valid.trim_end();
    let without_upgrade =
        valid.replace("keep-alive, Upgrade", "close").replace("Upgrade: websocket\n", "");
    let by_http_10 = valid.replace("HTTP/1.1", "HTTP/1.0");
    let without_key = valid.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n", "");
    let with_origin_alone = "GET /ws HTTP/1.1\nHost: localhost\nOrigin: http://localhost";
    for lines in [&without_upgrade, &by_http_10, &without_key, with_origin_alone] {
        let (status, response) = ask(server.address, lines);
        assert_eq!(status, 400, "{lines}");
        assert!(response.contains("proxy_set_header upgrade $http_upgrade"), "{response}");
    }
    let (_, by_hand) = ask(server.address, "GET /ws HTTP/1.1\nHost: localhost");
    assert!(!by_hand.contains("proxy"), "{by_hand}");
}

#[test]
fn a_response_to_head_has_headers_and_no_body() {
    let server = TestServer::start(&[]);
    let (status, response) = ask(server.address, "HEAD /healthz HTTP/1.1\nHost: localhost");
    assert_eq!(status, 200);
    assert!(
        response.contains("content-length: 3\r\n") && response.ends_with("\r\n\r\n"),
        "{response:?}"
    );
    // A refusal has none either, though the head is broken.
    for (lines, refused) in [
        ("HEAD /no HTTP/1.1\nHost: localhost", 404),
        ("HEAD / HTTP/1.1", 400),
        ("HEAD / HTTP/2.0", 505),
        ("HEAD / HTTP/1.1\nHost: elsewhere.example", 421),
    ] {
        let (status, response) = ask(server.address, lines);
        assert!(status == refused && response.ends_with("\r\n\r\n"), "{response:?}");
    }
}

#[test]
fn a_bad_upgrade_is_refused_with_an_http_status() {
    let server = TestServer::start(&[]);
    let valid = upgrade("name=x").trim_end().replace("\r\n", "\n");
    let without = |name: &str| {
        valid.lines().filter(|line| !line.starts_with(name)).collect::<Vec<_>>().join("\n")
    };
    for line in ["Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"] {
        assert_eq!(ask(server.address, &without(line)).0, 400, "without {line}");
    }
    let with = |from: &str, to: &str| valid.replace(from, to);
    assert_eq!(ask(server.address, &with("HTTP/1.1", "HTTP/1.0")).0, 400);
    let (status, response) = ask(server.address, &with("Version: 13", "Version: 8"));
    assert_eq!(status, 426);
    for line in
        ["sec-websocket-version: 13", "upgrade: websocket", "connection: close, upgrade", "date: "]
    {
        assert!(response.contains(&format!("\r\n{line}")), "{response}");
    }
    assert_eq!(ask(server.address, &with("dGhlIHNhbXBsZSBub25jZQ==", "short")).0, 400);
}

#[test]
fn a_client_that_still_sends_receives_its_refusal() {
    let server = TestServer::start(&[]);
    let mut request =
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\n".to_vec();
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
    // It announces a body (RFC 9110, 10.1.1).
    assert_eq!(status("Host:", "Expect: 100-continue\r\nHost:"), "HTTP/1.1 400");
    assert_eq!(status("Host:", "Sec-WebSocket-Version: 8\r\nHost:"), "HTTP/1.1 400");
    assert_eq!(
        status("Host:", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nHost:"),
        "HTTP/1.1 400"
    );
}

#[test]
fn a_head_that_is_too_large_is_refused_with_431() {
    let server = TestServer::start(&[]);
    let long = format!("GET / HTTP/1.1\nHost: localhost\nCookie: {}", "c".repeat(9000));
    assert_eq!(ask(server.address, &long).0, 431);
    let many = format!("GET / HTTP/1.1\nHost: localhost{}", "\nA: b".repeat(100));
    assert_eq!(ask(server.address, &many).0, 431);
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
    for byte in b"GET /healthz HTTP/1.1\nHost: localhost\n\n" {
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
