//! `parlour chat`, as a pipe and in a terminal, and `parlour healthcheck`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::support::pipe::Pipe;
use crate::support::program::command;
use crate::support::proxy::Proxy;
use crate::support::pty::terminal;
use crate::support::raw::{FIN, RawClient, TEXT};
use crate::support::scripted::{accept, close, scripted_server, welcome};
use crate::support::{Client, DEADLINE, TestServer};

/// A server on which who leaves without a goodbye stays in the room for an hour.
fn patient_server() -> TestServer {
    TestServer::start(&["--leave-grace", "1h"])
}

/// Reads on to a line of JSON whose `key` is `value`.
fn json_where(pipe: &mut Pipe, key: &str, value: &str) -> Value {
    loop {
        let message: Value = serde_json::from_str(&pipe.next()).expect("each line is JSON");
        if message[key] == value {
            return message;
        }
    }
}

// ------------------------------------------------------------------------------------------------------------- pipes

#[test]
fn two_pipes_talk_and_leave_with_a_goodbye() {
    let server = patient_server();
    let mut watcher = Client::join(&server, "watcher");
    let mut ann = Pipe::start(server.address, &["--name", "Ann"]);
    watcher.next_where(|message| message["type"] == "join" && message["user"] == "Ann");
    let mut bob = Pipe::start(server.address, &["--name", "Bob Smith"]);
    ann.next_with("* Bob Smith joined");
    ann.say("hello");
    assert_eq!(bob.next_with("hello"), "Ann: hello");
    // A slash is nothing special here, nor is what stands around the words; an empty line is no message.
    bob.write(b"\n \n/quit  \r\n");
    assert_eq!(ann.next_with("quit"), "Bob Smith: /quit  ");
    watcher.whisper("Ann", "psst");
    assert_eq!(ann.next_with("psst"), "(private) watcher → you: psst");
    // The last line needs no end.
    ann.write(b"last");
    for pipe in [ann, bob] {
        let (status, _, errors) = pipe.ended();
        assert!(status.success() && errors.is_empty(), "{status:?} {errors}");
    }
    watcher.next_where(|message| message["content"] == "last");
    watcher.next_where(|message| message["type"] == "leave" && message["user"] == "Ann");
    watcher.next_where(|message| message["type"] == "leave" && message["user"] == "Bob Smith");
}

#[test]
fn json_is_every_message_as_it_came() {
    let server = TestServer::start(&[]);
    let mut ann = Pipe::start(server.address, &["--name", "Ann", "--json", "--room", "r"]);
    json_where(&mut ann, "type", "join");
    let mut raw = RawClient::connect(&server, "name=Raw&room=r");
    json_where(&mut ann, "user", "Raw");
    let content = r#"quotes "\" and 张三 😀"#;
    ann.say(content);
    let line = ann.next();
    let frame = loop {
        let (first, payload) = raw.frame().expect("the connection is open");
        if first == FIN | TEXT && payload.starts_with(br#"{"type":"public""#) {
            break payload;
        }
    };
    assert_eq!(line.as_bytes(), frame);
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["content"], content);
    assert!(ann.ended().0.success());
}

#[test]
fn a_long_pipe_is_slowed_down_and_arrives_whole() {
    let server = TestServer::start(&["--message-rate", "1000", "--message-burst", "5"]);
    let mut watcher = Client::join(&server, "watcher");
    let mut pipe = Pipe::start(server.address, &[]);
    let lines: Vec<String> = (1..=300).map(|n| n.to_string()).collect();
    pipe.say(&lines.join("\n\n"));
    let (status, output, errors) = pipe.ended();
    assert!(status.success() && errors.is_empty(), "{status:?} {errors}");
    for line in &lines {
        assert_eq!(watcher.next_of("public")["content"], *line);
    }
    // It waited for each receipt.
    let own = output.iter().filter_map(|line| line.split_once(": "));
    assert_eq!(own.map(|(_, content)| content).collect::<Vec<_>>(), lines);
}

#[test]
fn a_cut_line_is_taken_up_again_and_nothing_is_lost_or_said_twice() {
    let server = patient_server();
    let proxy = Proxy::start(server.address);
    let mut watcher = Client::join(&server, "watcher");
    let mut ann = Pipe::start(proxy.address, &["--name", "Ann", "--json"]);
    json_where(&mut ann, "type", "join");
    ann.say("one");
    json_where(&mut ann, "content", "one");
    // What is said now arrives, and its receipt does not.
    proxy.stall_all();
    ann.say("two");
    watcher.next_where(|message| message["content"] == "two");
    watcher.say("missed");
    watcher.next_where(|message| message["content"] == "missed");
    proxy.cut_all();
    ann.say("three");
    assert_eq!(json_where(&mut ann, "type", "welcome")["recovered"], true);
    for content in ["two", "missed", "three"] {
        assert_eq!(json_where(&mut ann, "type", "public")["content"], content);
    }
    let (status, rest, errors) = ann.ended();
    assert!(status.success() && rest.is_empty(), "{status:?} {rest:?}");
    assert!(errors.contains("reconnecting") && errors.contains("connected again"), "{errors}");
    // Nobody saw it leave until it did.
    let kinds = |message: Value| {
        (message["type"].clone(), message["user"].clone(), message["content"].clone())
    };
    assert_eq!(kinds(watcher.next()), (json!("public"), json!("Ann"), json!("three")));
    assert_eq!(watcher.next()["type"], "leave");
}

#[test]
fn a_room_that_has_started_anew_is_told() {
    let mut server = TestServer::start(&[]);
    let address = server.address.to_string();
    let mut ann = Pipe::start(server.address, &["--name", "Ann"]);
    ann.say("before");
    ann.next_with("Ann: before");
    server.stop();
    server.ended().expect("a clean end");
    let _again = TestServer::start(&["--listen", &address]);
    ann.say("hello");
    ann.next_with("Ann: hello");
    let (status, _, errors) = ann.ended();
    assert!(status.success(), "{status:?}");
    for part in ["the server stops", "reconnecting", "started anew"] {
        assert!(errors.contains(part), "{part:?} in {errors}");
    }
}

#[test]
fn whoever_is_replaced_stops() {
    let server = TestServer::start(&[]);
    let mut ann = Pipe::start(server.address, &["--name", "Ann", "--json"]);
    let welcome = json_where(&mut ann, "type", "welcome");
    let session = welcome["session"].as_str().unwrap();
    let _elsewhere = Client::connect(&server, &format!("name=Ann&session={session}"));
    let (status, _, errors) = ann.wait();
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains("opened elsewhere"), "{errors}");
}

#[test]
fn what_can_not_be_said_ends_with_a_status_and_why() {
    let server = TestServer::start(&["--max-message-bytes", "100"]);
    let _ann = Client::join(&server, "Ann");
    let one_line = |pipe: Pipe, parts: &[&str]| {
        let (status, _, errors) = pipe.ended();
        assert_eq!((status.code(), errors.lines().count()), (Some(1), 1), "{errors}");
        for part in parts {
            assert!(errors.contains(part), "{part:?} in {errors}");
        }
    };
    one_line(Pipe::start(server.address, &["--name", "ann"]), &["that name is taken by Ann"]);
    let mut long = Pipe::start(server.address, &[]);
    long.say(&format!("short\n{}\nnever sent", "x".repeat(101)));
    one_line(long, &["not delivered: xxx", "longer"]);
    let mut latin = Pipe::start(server.address, &[]);
    latin.write(b"fine\ncaf\xe9\n");
    one_line(latin, &["line 2", "UTF-8"]);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    one_line(Pipe::start(free, &[]), &[&free.to_string(), "refused"]);

    let usage = |options: &[&str], parts: &[&str]| {
        let output = command(&[&["chat"], options].concat()).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), errors.lines().count()), (Some(2), 1), "{errors}");
        for part in parts {
            assert!(errors.contains(part), "{part:?} in {errors}");
        }
    };
    usage(&["wss://example.org"], &["TLS", "ssh -L", "parlour chat --help"]);
    usage(&["https://example.org/"], &["TLS"]);
    usage(&["ftp://example.org/"], &["ws://"]);
    usage(&["ws://127.0.0.1:99999"], &["ws://127.0.0.1:99999", "port"]);
    usage(&["--name", "a\u{200b}b"], &["--name", "invisible"]);
    usage(&["--name", &"x".repeat(33)], &["1 to 32"]);
    usage(&["--room", "a b"], &["--room", "letters or digits of any script"]);
    let elsewhere =
        command(&["chat", &format!("http://{}/elsewhere", server.address)]).output().unwrap();
    assert_eq!(elsewhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&elsewhere.stderr).contains("404"));
}

#[test]
fn a_page_address_names_the_room() {
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
fn a_signal_and_a_closed_output_end_with_a_goodbye() {
    let server = patient_server();
    let mut watcher = Client::join(&server, "watcher");
    for (signal, status) in [("TERM", 128 + 15), ("INT", 128 + 2), ("HUP", 128 + 1)] {
        let mut ann = Pipe::start(server.address, &["--name", "Ann"]);
        ann.say("hello");
        ann.next_with("Ann: hello");
        assert!(
            Command::new("kill")
                .args([&format!("-{signal}"), &ann.pid().to_string()])
                .status()
                .unwrap()
                .success()
        );
        let (ended, ..) = ann.wait();
        assert_eq!(ended.code(), Some(status));
        watcher.next_where(|message| message["type"] == "leave" && message["user"] == "Ann");
    }
    let url = format!("ws://{}", server.address);
    let mut deaf =
        command(&["chat", &url, "--name", "deaf"]).stdin(Stdio::piped()).spawn().unwrap();
    drop(deaf.stdout.take());
    watcher.next_where(|message| message["type"] == "leave" && message["user"] == "deaf");
    assert_eq!(deaf.wait().unwrap().code(), Some(1));
}

// ---------------------------------------------------------------------------------------------- a server not to trust

/// What no terminal may get: escape sequences, C0, C1, and what turns text around, raw or as JSON escapes it.
const HOSTILE: &str = "\u{1b}[31mred\u{7}\u{8}\u{0}\u{7f}\u{9b}2J\u{90}\u{202e}abc\u{2066}\u{200f}\u{2028}\u{feff}\u{e0041}";

fn harmful(c: char) -> bool {
    c != '\n' && (c.is_control() || "\u{202e}\u{2066}\u{200f}\u{2028}\u{feff}\u{e0041}".contains(c))
}

/// A server that says `messages` to its one client, and hands on what comes from it.
fn hostile_server(messages: Vec<String>) -> (SocketAddr, Receiver<Message>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = channel();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut socket: WebSocket<TcpStream> = tungstenite::accept(stream).unwrap();
        for message in messages {
            socket.send(Message::text(message)).unwrap();
        }
        while let Ok(message) = socket.read() {
            let _ = tell.send(message);
        }
    });
    (address, told)
}

fn hostile_messages() -> Vec<String> {
    let ts = 1_700_000_000_000u64;
    let welcome = json!({"type": "welcome", "user": HOSTILE, "room": HOSTILE, "users": [HOSTILE], "epoch": "e", "seq": 0,
        "history": 0, "recovered": false, "session": "s", "ts": ts});
    let public = json!({"type": "public", "user": format!("{HOSTILE}\nfake"), "content": format!("{HOSTILE}\r\nBob: fake\ttab"),
        "room": "r", "seq": 1, "ts": u64::MAX, "later": HOSTILE});
    let private = json!({"type": "private", "user": HOSTILE, "to": "x\u{1b}c", "content": HOSTILE, "room": "r", "ts": ts});
    let join = json!({"type": "join", "user": format!("J{HOSTILE}"), "content": "", "room": "r", "ts": ts});
    let leave = json!({"type": "leave", "user": HOSTILE, "content": "", "room": "r", "ts": ts});
    let error = json!({"type": "error", "code": "x", "content": HOSTILE, "ts": ts});
    let mut messages: Vec<String> =
        [&welcome, &public, &private, &join, &leave, &error].map(Value::to_string).into();
    messages.extend([
        "\u{1b}[2J".to_owned(),
        "{\"type\":\"new\",\n\"x\":\"\u{9b}\"}".to_owned(),
        "[]".to_owned(),
    ]);
    messages.push(
        json!({"type": "public", "user": "E", "content": "end", "room": "r", "seq": 2, "ts": ts})
            .to_string(),
    );
    messages
}

#[test]
fn control_characters_from_the_network_reach_nobody() {
    for options in [&[][..], &["--json"]] {
        let (address, told) = hostile_server(hostile_messages());
        let mut pipe = Pipe::start(address, options);
        let mut lines = vec![pipe.next()];
        while !lines.last().unwrap().contains("end") {
            lines.push(pipe.next());
        }
        pipe.say("heard");
        let sent = told.recv_timeout(DEADLINE).expect("a message");
        assert!(sent.to_text().unwrap().contains("heard"), "{sent:?}");
        drop(told);
        for line in &lines {
            assert!(!line.contains(harmful), "{line:?}");
        }
        match options.is_empty() {
            true => {
                assert!(
                    lines.iter().any(|line| line.contains("\\u{1b}[31mred\\u{7}")),
                    "{lines:?}"
                );
                assert!(
                    lines
                        .iter()
                        .all(|line| !line.starts_with("Bob: fake") && !line.starts_with("fake")),
                    "{lines:?}"
                );
            }
            false => {
                assert_eq!(lines.len(), hostile_messages().len() - 2, "{lines:?}");
                let read =
                    |line: &str| serde_json::from_str::<Value>(line).expect("each line is JSON");
                assert_eq!(read(&lines[1]), read(&hostile_messages()[1]), "escaped, and the same");
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------------- a terminal

#[test]
fn in_a_terminal_a_message_leaves_the_typed_line_whole() {
    let server = patient_server();
    let mut bob = Client::join(&server, "Bob");
    let mut ann = terminal(server.address, "Ann", &[]);
    let at = ann.wait_for(0, &["you are Ann in lobby", "> "]);
    ann.press("half a l");
    let at = ann.wait_for(at, &["half a l"]);
    bob.say("hello");
    // Above the line, which is drawn again.
    let at = ann.wait_for(at, &["Bob", ": hello", "> half a l"]);
    ann.press("ine\r");
    let at = ann.wait_for(at, &["Ann", ": half a line"]);
    assert_eq!(
        bob.next_where(|message| message["user"] == "Ann" && message["type"] == "public")["content"],
        "half a line"
    );
    // The key up finds it again.
    ann.press("\x1b[A again\r");
    ann.wait_for(at, &["Ann", ": half a line again"]);
    ann.press("\x04");
    let (status, written) = ann.ended();
    assert!(status.success(), "{status:?}");
    assert!(written.contains("\x1b[1;"), "names have colours: {written}");
    bob.next_of("leave");
}

#[test]
fn commands_in_a_terminal() {
    let server = patient_server();
    let mut bob = Client::connect(&server, "name=Bob+Smith");
    bob.next_of("join");
    let mut ann = terminal(server.address, "Ann", &[]);
    let at = ann.wait_for(0, &["you are Ann", "> "]);
    ann.press("/msg bob smith  psst\r");
    let at = ann.wait_for(at, &["(private)", "you → ", "Bob Smith", "psst"]);
    let heard = bob.next_of("private");
    assert_eq!((&heard["to"], &heard["content"]), (&json!("Bob Smith"), &json!("psst")));
    ann.press("/msg nobody psst\r");
    let at = ann.wait_for(at, &["not delivered: psst"]);
    ann.press("/who\r");
    let at = ann.wait_for(at, &["2 here: Ann, Bob Smith"]);
    ann.press("/help\r");
    let at = ann.wait_for(at, &["/msg NAME TEXT", "/quit"]);
    // What was meant as a command is said to nobody.
    ann.press("/mgs Bob secret\r");
    let at = ann.wait_for(at, &["no such command"]);
    ann.press("/msg Bob\r");
    let at = ann.wait_for(at, &["write /msg NAME TEXT"]);
    ann.press("//slash\r");
    let at = ann.wait_for(at, &["Ann", ": /slash"]);
    assert_eq!(bob.next_of("public")["content"], "/slash");
    ann.press("bo\t");
    ann.wait_for(at, &["> Bob Smith: "]);
    ann.press("hi\r");
    assert_eq!(bob.next_of("public")["content"], "Bob Smith: hi");
    ann.press("/quit\r");
    assert!(ann.ended().0.success());
    bob.next_of("leave");
}

#[test]
fn no_colours_where_nobody_wants_or_has_them() {
    let server = patient_server();
    let mut bob = Client::join(&server, "Bob");
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let mut ann = terminal(server.address, "Ann", &[(name, value)]);
        ann.wait_for(0, &["you are Ann"]);
        bob.say("hello");
        ann.wait_for(0, &["Bob: hello"]);
        ann.press("typed\r");
        ann.wait_for(0, &["Ann: typed"]);
        // A terminal whose line is not edited takes this as the end of the input, too.
        ann.press("\x04");
        let (status, written) = ann.ended();
        assert!(status.success(), "{status:?}");
        assert!(!written.contains("\x1b[1;") && !written.contains("\x1b[2m"), "{written}");
        assert!(value != "dumb" || !written.contains('\x1b'), "{written}");
        bob.next_of("leave");
    }
}

#[test]
fn every_way_out_leaves_the_terminal_as_it_was() {
    let server = patient_server();
    let mut bob = Client::join(&server, "Bob");
    let mut ann = terminal(server.address, "Ann", &[]);
    ann.wait_for(0, &["you are Ann", "> "]);
    ann.press("not sent\x03");
    assert!(ann.ended().0.success());
    bob.next_of("leave");

    let (tell, told) = channel();
    let (address, _) = scripted_server(move |listener| {
        let mut socket = accept(listener);
        socket.send(welcome("one")).unwrap();
        told.recv_timeout(DEADLINE).expect("a word");
        close(socket, 4410, "replaced");
    });
    let mut ann = terminal(address, "Ann", &[]);
    ann.wait_for(0, &["> "]);
    ann.press("x");
    ann.wait_for(0, &["> x"]);
    tell.send(()).unwrap();
    let (status, written) = ann.ended();
    assert_eq!(status.code(), Some(1));
    assert!(written.contains("opened elsewhere"), "{written}");
}

// --------------------------------------------------------------------------------------------------------- healthcheck

#[test]
fn a_healthcheck_tells_by_its_status() {
    let check = |arguments: &[&str], listen: &str| {
        let output = command(&[&["healthcheck"], arguments].concat())
            .env("PARLOUR_LISTEN", listen)
            .output()
            .unwrap();
        assert!(output.stdout.is_empty());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let server = TestServer::start(&[]);
    let (well, port) = (format!("http://{}", server.address), server.address.port());
    for (arguments, listen) in [
        (&[well.as_str()][..], "nonsense"),
        (&[&format!("{well}/healthz")], "127.0.0.1:1"),
        (&[], &server.address.to_string()),
        (&[], &format!("0.0.0.0:{port}")),
        (&[], &format!("localhost:{port}")),
    ] {
        assert_eq!(check(arguments, listen), (Some(0), String::new()), "{arguments:?} {listen}");
    }

    let fails = |url: &str, part: &str| {
        let (status, errors) = check(&[url], "127.0.0.1:1");
        assert_eq!((status, errors.lines().count()), (Some(1), 1), "{errors}");
        assert!(errors.contains(part), "{part:?} in {errors}");
    };
    fails(&format!("{well}/nowhere"), "404");
    fails("https://127.0.0.1/", "TLS");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    fails(&free.to_string(), "refused");
    // One that accepts and says nothing, and one that says something else.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    fails(&silent.local_addr().unwrap().to_string(), "does not answer within 2s");
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let talker = thread::spawn(move || {
        let (mut stream, _) = other.accept().unwrap();
        stream.write_all(b"220 mail.example.org ESMTP\r\n").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    fails(&address.to_string(), "does not speak HTTP");
    talker.join().unwrap();
}
