//! What is no request, or not quite one: it is refused at once, and the log says why in one line.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use crate::support::program::{Program, command};
use crate::support::raw::{ask, exchange, upgrade};
use crate::support::{DEADLINE, TestServer};

#[test]
fn a_request_is_refused_for_each_rule_that_it_breaks() {
    let server = TestServer::start(&[]);
    let cases = [
        // RFC 9112, 2.2: white space in front of the first header.
        ("GET / HTTP/1.1\n Host: localhost", "white space"),
        // RFC 9112, 3: the request line.
        ("GET  / HTTP/1.1\nHost: localhost", "first line"),
        ("GET / x HTTP/1.1\nHost: localhost", "first line"),
        ("GET / http/1.1\nHost: localhost", "first line"),
        ("GET / HTTP/1\nHost: localhost", "first line"),
        ("GET /", "first line"),
        (" GET / HTTP/1.1\nHost: localhost", "begins with"),
        ("G\u{e9}T / HTTP/1.1\nHost: localhost", "begins with"),
        // RFC 9112, 3.2: the form of the target.
        ("GET * HTTP/1.1\nHost: localhost", "target"),
        ("GET localhost:80 HTTP/1.1\nHost: localhost", "target"),
        ("GET healthz HTTP/1.1\nHost: localhost", "target"),
        ("GET /#top HTTP/1.1\nHost: localhost", "target"),
        ("GET https://localhost/ HTTP/1.1\nHost: localhost", "target"),
        ("GET http://me@localhost/ HTTP/1.1\nHost: localhost", "target"),
        ("GET http:///healthz HTTP/1.1\nHost: localhost", ""),
        // RFC 9112, 3.2: the host.
        ("GET / HTTP/1.1", "host"),
        ("GET / HTTP/1.1\nHost: localhost\nHost: localhost", "host"),
        ("GET / HTTP/1.0\nHost: localhost\nHost: localhost", "host"),
        ("GET / HTTP/1.0\nHost: a b", "\"a b\""),
        ("GET / HTTP/1.1\nHost: a/b", "host"),
        ("GET / HTTP/1.1\nHost: me@localhost", "host"),
        ("GET / HTTP/1.1\nHost: localhost:http", "host"),
        ("GET / HTTP/1.1\nHost: [::1", "host"),
        ("GET / HTTP/1.1\nHost: ::1", "host"),
        ("GET / HTTP/1.1\nHost: [fe80::1%25eth0]", "host"),
        ("GET / HTTP/1.1\nHost: %4", "host"),
        ("GET / HTTP/1.1\nHost: <x>", "host"),
        ("GET / HTTP/1.1\nHost: :80", "host"),
        ("GET / HTTP/1.1\nHost: b\u{fc}cher.example", "host"),
        ("GET http://localhost/ HTTP/1.1", "host"),
        ("GET http://localhost/ HTTP/1.1\nHost: a b", "host"),
        // RFC 9112, 5.1 and 5.2: white space where none may be.
        ("GET / HTTP/1.1\nHost : localhost", "white space"),
        ("GET / HTTP/1.1\nHost: localhost\nA: b\n c", "white space"),
        ("GET / HTTP/1.1\nHost: localhost\nA: b\n\tc: d", "white space"),
        // RFC 9110, 5.1 and 5.5: names and values.
        ("GET / HTTP/1.1\nHost: localhost\nA(b): c", "header name"),
        ("GET / HTTP/1.1\nHost: localhost\n: c", "header name"),
        ("GET / HTTP/1.1\nHost: localhost\nA: b\0c", "header value"),
        ("GET / HTTP/1.1\nHost: localhost\nA: b\rc", ""),
        ("GET /\rx HTTP/1.1\nHost: localhost", ""),
        // RFC 9112, 6.1 and 6.3: where the request ends.
        ("GET / HTTP/1.1\nHost: localhost\nContent-Length: many", "content-length"),
        ("GET / HTTP/1.1\nHost: localhost\nContent-Length: +1", "content-length"),
        ("GET / HTTP/1.1\nHost: localhost\nContent-Length:", "content-length"),
        ("GET / HTTP/1.1\nHost: localhost\nContent-Length: 1, 2", "content-length"),
        ("GET / HTTP/1.1\nHost: localhost\nContent-Length: 1\nContent-Length: 2", "content-length"),
        ("GET / HTTP/1.1\nHost: localhost\nContent-Length: \u{e9}", "content-length"),
        ("GET / HTTP/1.1\nHost: localhost\nTransfer-Encoding: gzip", "transfer-encoding"),
        ("GET / HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked, gzip", "transfer-encoding"),
        ("GET / HTTP/1.0\nTransfer-Encoding: chunked", "transfer-encoding"),
        (
            "GET / HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked\nContent-Length: 1",
            "transfer-encoding",
        ),
    ];
    for (lines, part) in cases {
        let (status, response) = ask(server.address, lines);
        assert_eq!(status, 400, "{lines:?}: {response}");
        let (_, body) = response.split_once("\r\n\r\n").expect("a body");
        assert!(body.starts_with("not a request: ") && body.contains(part), "{lines:?}: {body}");
        assert_eq!(body.lines().count(), 1, "{body}");
    }
}

#[test]
fn what_looks_odd_and_is_allowed_is_answered() {
    let server = TestServer::start(&[]);
    for lines in [
        // RFC 9112, 2.2: an empty line in front.
        "\nGET / HTTP/1.1\nHost: localhost",
        "GET / HTTP/1.1\nhOST:localhost\t \nA:",
        "GET http://localhost HTTP/1.1\nHost: elsewhere.example",
        "GET HTTP://LOCALHOST:80/?x HTTP/1.1\nHost:",
        "GET / HTTP/1.1\nHost: localhost\nContent-Length: 2, 2\nContent-Length: 2",
        "GET / HTTP/1.1\nHost: localhost\nTransfer-Encoding: gzip, Chunked",
        // RFC 9110, 10.1.1: the response is final, so nobody goes on waiting.
        "GET / HTTP/1.1\nHost: localhost\nExpect: 100-continue\nContent-Length: 1",
        "GET / HTTP/1.1\nHost: localhost\nExpect: miracles",
    ] {
        let (status, response) = ask(server.address, lines);
        assert_eq!(status, 200, "{lines:?}: {response}");
        assert!(response.contains("\r\nconnection: close\r\n"), "{response}");
    }
}

#[test]
fn other_versions_of_http_are_505() {
    let server = TestServer::start(&[]);
    for line in [
        "GET / HTTP/0.9",
        "GET / HTTP/2.0",
        "GET / HTTP/9.9",
        // How HTTP/2 begins without TLS.
        "PRI * HTTP/2.0\n\nSM",
    ] {
        let (status, response) = ask(server.address, line);
        assert!(status == 505 && response.contains("http/1.1"), "{line:?}: {response}");
    }
}

#[test]
fn a_target_too_long_is_414_and_the_rest_too_large_431() {
    let server = TestServer::start(&[]);
    let long = "x".repeat(9000);
    for (lines, status) in [
        (format!("GET /{long} HTTP/1.1\nHost: localhost"), 414),
        (format!("GET /?{long}{long}"), 414),
        (format!("GET /{} HTTP/1.1\nHost: localhost\nA: {long}", "x".repeat(7000)), 431),
        // RFC 9112, 3: a request line of 8,000 bytes should be taken.
        (format!("GET /{} HTTP/1.1\nHost: localhost", "x".repeat(7986)), 404),
        (format!("{long}{long}"), 431),
    ] {
        assert_eq!(ask(server.address, &lines).0, status, "{}", &lines[..20]);
    }
}

/// Sends `bytes`, and returns what comes back while this side stays open.
fn reply_to(server: &TestServer, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).expect("the server listens");
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(bytes).expect("the server reads");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a reply before the deadline");
    response
}

#[test]
fn another_protocol_is_answered_and_explained_at_its_first_bytes() {
    // Far longer than the deadline of the test.
    let server = TestServer::start(&["--handshake-timeout=1h"]);
    let proxy_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\x12\x34\0\x50";
    let cases: [(&[u8], &str); 13] = [
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", "TLS"),
        (b"\x16", "TLS"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\nGET / HTTP/1.1\r\n\r\n", "PROXY protocol"),
        (b"PROXY UNKNOWN\r\n", "PROXY protocol"),
        (proxy_2, "PROXY protocol"),
        (b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\x03\0\0\0", "\\x03\\x00"),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", "\\x04\\xd2"),
        (b"EHLO mail.example\r\n", "first line"),
        (b"*1\r\n$4\r\nPING\r\n", "first line"),
        (b"AMQP\0\0\x09\x01", "AMQP\\x00"),
        (b"\xff\xfd\x18", "\\xff"),
        (b"{\"type\":\"public\"}", "begins with"),
    ];
    for (bytes, part) in cases {
        let response = reply_to(&server, bytes);
        assert!(response.starts_with("HTTP/1.1 400 "), "{}: {response}", bytes.escape_ascii());
        let (_, body) = response.split_once("\r\n\r\n").expect("a body");
        assert!(body.contains(part) && body.is_ascii(), "{}: {body}", bytes.escape_ascii());
    }
    assert!(reply_to(&server, b"PRI * HTTP/2.0\r\n").starts_with("HTTP/1.1 505 "));
}

#[test]
fn every_refusal_is_one_line_of_the_log_that_says_who_asked_for_what_and_why() {
    let program = Program::start(&mut command(&["--listen=127.0.0.1:0", "--handshake-timeout=1s"]));
    let valid = upgrade("session=s3cr3t");
    let without_upgrade = valid.replace("keep-alive, Upgrade", "close").replace("websocket", "h2c");
    let long = "x".repeat(4000);
    let requests = [
        (
            "GET /a/b?session=s3cr3t HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "404 not_found (GET \"/a/b\"): nothing",
        ),
        (
            "GET http://localhost/c?session=s3cr3t HTTP/1.0\r\n\r\n",
            "404 not_found (GET \"/c\"): nothing",
        ),
        (
            "POST / HTTP/1.0\r\n\r\n",
            "405 method_not_allowed (POST \"/\"): this path takes GET, HEAD, OPTIONS",
        ),
        ("BREW /pot HTTP/1.0\r\n\r\n", "501 unknown_method (BREW \"/pot\"): "),
        (
            "GET /d?session=s3cr3t HTTP/1.1\r\n\r\n",
            "400 bad_request (GET \"/d\"): not a request: it needs",
        ),
        ("GET /e?session=s3cr3t HTTP/2.0\r\n\r\n", "505 http_version (GET \"/e\"): this server"),
        (
            &without_upgrade,
            "400 bad_request (GET \"/ws\"): not a WebSocket upgrade: No \"Connection",
        ),
        (
            &valid.replace("Version: 13", "Version: 7"),
            "426 websocket_version (GET \"/ws\"): the Web",
        ),
        (
            &valid.replace("Host:", "Origin: http://x\r\nHost:"),
            "403 forbidden_origin (GET \"/ws\"): a page",
        ),
        (&format!("GET /{long}{long}{long}"), "414 target_too_long (GET \"/xxx"),
        (
            &format!("GET /f HTTP/1.0\r\nA: {long}{long}{long}"),
            "431 head_too_large (GET \"/f\"): the",
        ),
        (&format!("{long} /g HTTP/1.0\r\n\r\n"), "501 unknown_method (xxxxxxxxxxxxxxxx \"/g\"): "),
        ("\x16\x03\x01", "400 bad_request (no request line): not a request: a TLS hello"),
        (
            "GET\t/?session=s3cr3t HTTP/1.1\r\n\r\n",
            "400 bad_request (no request line): not a request: it begins",
        ),
        (
            "GET /\x1b[31m\u{202e}\" HTTP/1.1\r\nHost: localhost\r\n\r\n",
            r#"400 bad_request (GET "/\x1b[31m\xe2\x80\xae\""): not"#,
        ),
        ("", "408 head_timeout (no request line): the request did not"),
        ("GET /h?session=s3cr3t", "408 head_timeout (GET \"/h\"): the request did not"),
    ];
    for (request, _) in requests {
        assert!(exchange(program.address, request.as_bytes()).starts_with("HTTP/1.1 "));
    }
    let log = program.stop();
    let refusals: Vec<&str> = log.lines().filter(|line| line.contains("connection ")).collect();
    assert_eq!(refusals.len(), requests.len(), "{log}");
    for (line, (_, expected)) in refusals.iter().zip(requests) {
        let (start, reason) = line.split_once(" refused: ").expect("a refusal");
        assert!(start.contains(" from 127.0.0.1:"), "{line}");
        assert!(reason.starts_with(expected), "{reason:?} and not {expected:?}");
    }
    assert!(!log.contains("s3cr3t"), "{log}");
    assert!(!log.contains('\x1b') && !log.contains('\u{202e}'), "{log}");
    assert!(log.lines().all(|line| line.len() < 500), "{log}");
}

#[test]
fn a_client_that_ends_in_the_middle_of_its_head_is_no_refusal() {
    let program = Program::start(&mut command(&["--listen=127.0.0.1:0"]));
    let mut stream = TcpStream::connect(program.address).expect("the server listens");
    stream.write_all(b"GET / HTTP/1.1\r\nHost").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).expect("a clean end");
    assert!(response.is_empty(), "{}", response.escape_ascii());
    program.signal("TERM");
    let (status, log) = program.ended();
    assert!(status.success() && !log.contains("refused"), "{log}");
}
