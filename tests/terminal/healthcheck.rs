//! `parlour healthcheck`.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::thread;

use crate::support::TestServer;
use crate::support::program::command;

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
    let mail = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mail.local_addr().unwrap();
    let mail_server = thread::spawn(move || {
        let (mut stream, _) = mail.accept().unwrap();
        stream.write_all(b"220 mail.example.org ESMTP\r\n").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    assert_fails(&address.to_string(), "does not speak HTTP");
    mail_server.join().unwrap();
}
