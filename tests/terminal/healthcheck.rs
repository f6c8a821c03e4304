//! `parlour healthcheck`.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::support::program::command;
use crate::support::scripted::scripted_server;
use crate::support::{DEADLINE, TestServer};

/// Runs the command. Returns the exit status and what it wrote to standard error.
fn check(arguments: &[&str], listen: &str) -> (Option<i32>, String) {
    let output = command(&[&["healthcheck"], arguments].concat())
        .env("PARLOUR_LISTEN", listen)
        .output()
        .unwrap();
    assert!(output.stdout.is_empty());
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[track_caller]
fn assert_fails(url: &str, part: &str) {
    let (status, errors) = check(&[url], "127.0.0.1:1");
    assert_eq!((status, errors.lines().count()), (Some(1), 1), "{errors}");
    assert!(errors.contains(part), "{part:?} in {errors}");
}

#[test]
fn a_server_that_answers_is_well() {
    let server = TestServer::start(&[]);
    let (url, port) = (format!("http://{}", server.address), server.address.port());
    for (arguments, listen) in [
        (&[url.as_str()][..], "nonsense"),
        (&[&format!("{url}/healthz")], "127.0.0.1:1"),
        (&[], &server.address.to_string()),
        (&[], &format!("0.0.0.0:{port}")),
        (&[], &format!("localhost:{port}")),
    ] {
        assert_eq!(check(arguments, listen), (Some(0), String::new()), "{arguments:?} {listen}");
    }
    assert_fails(&format!("{url}/nowhere"), "404");
}

#[test]
fn a_server_that_does_not_answer_in_http_is_not_well() {
    assert_fails("https://127.0.0.1/", "TLS");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_fails(&free.to_string(), "refused");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_fails(&silent.local_addr().unwrap().to_string(), "does not answer within 2s");
    for response in ["220 mail.example.org ESMTP\r\n", "HTTP/2.0 200 OK\r\n\r\n", "ok\r\n\r\n"] {
        assert_answer_fails(response.as_bytes(), "does not speak HTTP");
    }
}

/// Checks a server that sends `response` and closes its side.
fn assert_answer_fails(response: &[u8], part: &str) {
    let response = response.to_vec();
    let (address, server) = scripted_server(move |listener| {
        let (mut stream, _) = listener.accept().unwrap();
        // The check may end before it has read everything.
        let _ = stream.write_all(&response);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    assert_fails(&address.to_string(), part);
    server.join().unwrap();
}

#[test]
fn half_a_response_is_not_health() {
    for response in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
    ] {
        assert_answer_fails(response.as_bytes(), "before the head of its response is complete");
    }
    for response in ["HTTP/1.1 200 OK\r\nno header\r\n\r\n", "HTTP/1.1 20x OK\r\n\r\n"] {
        assert_answer_fails(response.as_bytes(), "does not speak HTTP");
    }
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(1 << 20));
    assert_answer_fails(endless.as_bytes(), "too long");
    assert_answer_fails(b"HTTP/1.0 503 Service Unavailable\r\n\r\n", "answers 503");
}

#[test]
fn two_seconds_are_for_the_whole_response() {
    let (address, server) = scripted_server(|listener| {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nX: ").unwrap();
        // Until the check has ended.
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    });
    assert_fails(&address.to_string(), "does not answer within 2s");
    server.join().unwrap();
}

#[test]
fn a_complete_head_is_enough() {
    let (checked, end) = channel();
    let (address, server) = scripted_server(move |listener| {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n").unwrap();
        // It keeps the connection open.
        end.recv_timeout(DEADLINE).expect("the check to end");
    });
    assert_eq!(check(&[&address.to_string()], "127.0.0.1:1"), (Some(0), String::new()));
    checked.send(()).unwrap();
    server.join().unwrap();
}
