//! `parlour chat` with pipes for standard input and output.
//!
//! With a long `--leave-grace`, a `leave` shows that the client has sent a close frame.

use std::net::TcpListener;
use std::process::{ExitStatus, Stdio};

use serde_json::Value;

use crate::support::pipe::Pipe;
use crate::support::program::command;
use crate::support::raw::{FIN, RawClient, TEXT};
use crate::support::{Client, TestServer};

#[test]
fn two_pipes_chat_and_close_their_connections() {
    let server = TestServer::start(&["--leave-grace", "1h"]);
    let mut watcher = Client::join(&server, "watcher");
    let mut ann = Pipe::start(server.address, &["--name", "Ann"]);
    watcher.next_where(|message| message["type"] == "join" && message["user"] == "Ann");
    let mut bob = Pipe::start(server.address, &["--name", "Bob Smith"]);
    ann.next_line_with("* Bob Smith joined");
    ann.write_line("hello");
    assert_eq!(bob.next_line_with("hello"), "Ann: hello");
    // A slash means nothing here, spaces are kept, and blank lines are skipped.
    bob.write_bytes(b"\n \n/quit  \r\n");
    assert_eq!(ann.next_line_with("quit"), "Bob Smith: /quit  ");
    watcher.whisper("Ann", "psst");
    assert_eq!(ann.next_line_with("psst"), "(private) watcher → you: psst");
    // The last line needs no line end.
    ann.write_bytes(b"last");
    for pipe in [ann, bob] {
        let (status, _, errors) = pipe.finish();
        assert!(status.success() && errors.is_empty(), "{status:?} {errors}");
    }
    watcher.next_where(|message| message["content"] == "last");
    watcher.next_where(|message| message["type"] == "leave" && message["user"] == "Ann");
    watcher.next_where(|message| message["type"] == "leave" && message["user"] == "Bob Smith");
}

#[test]
fn json_prints_every_message_as_it_arrived() {
    let server = TestServer::start(&[]);
    let mut ann = Pipe::start(server.address, &["--name", "Ann", "--json", "--room", "r"]);
    ann.next_json_where("type", "join");
    let mut raw = RawClient::connect(&server, "name=Raw&room=r");
    ann.next_json_where("user", "Raw");
    let content = r#"quotes "\" and 张三 😀"#;
    ann.write_line(content);
    let line = ann.next_line();
    let frame = loop {
        let (first, payload) = raw.frame().expect("the connection is open");
        if first == FIN | TEXT && payload.starts_with(br#"{"type":"public""#) {
            break payload;
        }
    };
    assert_eq!(line.as_bytes(), frame);
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["content"], content);
    assert!(ann.finish().0.success());
}

#[test]
fn a_long_pipe_is_slowed_down_and_arrives_completely() {
    let server = TestServer::start(&["--message-rate", "1000", "--message-burst", "5"]);
    let mut watcher = Client::join(&server, "watcher");
    let mut pipe = Pipe::start(server.address, &[]);
    let lines: Vec<String> = (1..=300).map(|n| n.to_string()).collect();
    pipe.write_line(&lines.join("\n\n"));
    let (status, output, errors) = pipe.finish();
    assert!(status.success() && errors.is_empty(), "{status:?} {errors}");
    for line in &lines {
        assert_eq!(watcher.next_of("public")["content"], *line);
    }
    // It waited for each confirmation.
    let own = output.iter().filter_map(|line| line.split_once(": "));
    assert_eq!(own.map(|(_, content)| content).collect::<Vec<_>>(), lines);
}

/// Checks an exit status, and that the errors are one line that contains `parts`.
#[track_caller]
fn assert_one_line(status: ExitStatus, code: i32, errors: &str, parts: &[&str]) {
    assert_eq!((status.code(), errors.lines().count()), (Some(code), 1), "{errors}");
    for part in parts {
        assert!(errors.contains(part), "{part:?} in {errors}");
    }
}

#[test]
fn a_failure_ends_with_an_exit_status_and_one_line() {
    let server = TestServer::start(&["--max-message-bytes", "100"]);
    let _ann = Client::join(&server, "Ann");
    let fails = |pipe: Pipe, parts: &[&str]| {
        let (status, _, errors) = pipe.finish();
        assert_one_line(status, 1, &errors, parts);
    };
    fails(Pipe::start(server.address, &["--name", "ann"]), &["that name is taken by Ann"]);
    let mut long = Pipe::start(server.address, &[]);
    long.write_line(&format!("short\n{}\nnever sent", "x".repeat(101)));
    fails(long, &["not delivered: xxx", "longer"]);
    let mut latin = Pipe::start(server.address, &[]);
    latin.write_bytes(b"fine\ncaf\xe9\n");
    fails(latin, &["line 2", "UTF-8"]);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    fails(Pipe::start(free, &[]), &[&free.to_string(), "refused"]);
    let elsewhere =
        command(&["chat", &format!("http://{}/elsewhere", server.address)]).output().unwrap();
    assert_eq!(elsewhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&elsewhere.stderr).contains("404"));
}

#[test]
fn a_wrong_command_line_has_an_exit_status_of_its_own_and_one_line() {
    let fails = |options: &[&str], parts: &[&str]| {
        let output = command(&[&["chat"], options].concat()).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_one_line(output.status, 2, &errors, parts);
    };
    fails(&["wss://example.org"], &["TLS", "ssh -L", "parlour chat --help"]);
    fails(&["https://example.org/"], &["TLS"]);
    fails(&["ftp://example.org/"], &["ws://"]);
    fails(&["ws://127.0.0.1:99999"], &["ws://127.0.0.1:99999", "port"]);
    fails(&["--name", "a\u{200b}b"], &["--name", "invisible"]);
    fails(&["--name", &"x".repeat(33)], &["1 to 32"]);
    fails(&["--room", "a b"], &["--room", "letters or digits of any script"]);
}

#[test]
fn the_address_of_a_page_names_the_room() {
    let server = TestServer::start(&[]);
    let url = format!("http://{}/?room=rust", server.address);
    let output = command(&["chat", &url, "--json"]).output().unwrap();
    assert!(output.status.success());
    let welcome = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(welcome.lines().next().unwrap()).unwrap()["room"],
        "rust"
    );
}

#[test]
fn a_signal_or_a_closed_output_closes_the_connection() {
    let server = TestServer::start(&["--leave-grace", "1h"]);
    let mut watcher = Client::join(&server, "watcher");
    for (signal, status) in [("TERM", 128 + 15), ("INT", 128 + 2), ("HUP", 128 + 1)] {
        let mut ann = Pipe::start(server.address, &["--name", "Ann"]);
        ann.write_line("hello");
        ann.next_line_with("Ann: hello");
        ann.signal(signal);
        let (exit, ..) = ann.wait_for_exit();
        assert_eq!(exit.code(), Some(status));
        watcher.next_where(|message| message["type"] == "leave" && message["user"] == "Ann");
    }
    let url = format!("ws://{}", server.address);
    let mut deaf =
        command(&["chat", &url, "--name", "deaf"]).stdin(Stdio::piped()).spawn().unwrap();
    drop(deaf.stdout.take());
    watcher.next_where(|message| message["type"] == "leave" && message["user"] == "deaf");
    assert_eq!(deaf.wait().unwrap().code(), Some(1));
}
