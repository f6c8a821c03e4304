//! The program itself: its start, its options, its signals, its log.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};

use crate::support::namespace::{in_own_network, ip};
use crate::support::program::{Program, command};
use crate::support::raw::{FIN, RawClient, TEXT, exchange, exchange_bytes, masked};
use crate::support::{config, eventually, pty};

fn run(options: &[&str]) -> Output {
    command(options).output().expect("the program runs")
}

#[track_caller]
fn assert_one_line(output: &Output, parts: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && output.status.code().is_some(), "{:?}", output.status);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{part:?} in {stderr}");
    }
}

#[test]
fn a_bad_start_is_one_clear_line_and_a_non_zero_status() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let port = taken.local_addr().unwrap().port();
    let next = format!("--listen 127.0.0.1:{}", port.checked_add(1).unwrap_or(port - 1));
    assert_one_line(
        &run(&["--listen", &address]),
        &["--listen", &address, "in use", &format!(":{port}'"), &next],
    );
    assert_one_line(
        &run(&["--metrics-listen", &address, "--listen", "127.0.0.1:0"]),
        &[&format!("--metrics-{}", &next[2..])],
    );
    assert_one_line(&run(&["--listen", "nonsense"]), &["--listen 127.0.0.1:8080"]);
    assert_one_line(
        &run(&["--listen", "192.0.2.1:80"]),
        &["no such address", "--listen 0.0.0.0:80"],
    );
    assert_one_line(&run(&["caht"]), &["caht", "'chat'"]);
    assert_one_line(&run(&["chat", "--nmae", "x"]), &["--nmae", "--name", "parlour chat --help"]);
    assert_one_line(&run(&["--queue", "5", "chat"]), &["--queue", "chat"]);
    assert_one_line(&run(&["--log-format", "yaml"]), &["yaml", "text, json"]);
    assert_one_line(&run(&["--quue", "5"]), &["--quue", "--queue"]);
    assert_one_line(&run(&["--queue", "0"]), &["--queue", "1..="]);
    assert_one_line(&run(&["--queue", "many"]), &["--queue", "many"]);
    assert_one_line(&run(&["--ping-interval", "30"]), &["--ping-interval", "30s"]);
    assert_one_line(&run(&["--write-timeout", "0s"]), &["--write-timeout", "zero"]);
    assert_one_line(&run(&["--ping-interval", "900000000years"]), &["--ping-interval"]);
    assert_one_line(&run(&["--ping-timeout", "30s"]), &["--ping-timeout", "--ping-interval"]);
    assert_one_line(&run(&["--trusted-proxy", "10.0.0.0/33"]), &["--trusted-proxy", "10.0.0.0/8"]);
    assert_one_line(
        &run(&["--trusted-proxy", "::ffff:10.0.0.0/104"]),
        &["--trusted-proxy", "IPv4"],
    );
    assert_one_line(
        &run(&["--allow-origin", "chat.example"]),
        &["--allow-origin", "https://chat.example"],
    );
    assert_one_line(
        &run(&["--allow-origin", "https://chat.example/"]),
        &["--allow-origin", "without a path"],
    );
    for name in [
        "chat.example:8080",
        "http://chat.example",
        "b\u{fc}cher.example",
        "*.chat.example",
        "",
        "[::1",
    ] {
        assert_one_line(&run(&["--allow-host", name]), &["--allow-host", "like chat.example"]);
    }
    assert_one_line(&run(&["extra"]), &["extra"]);
    let output = command(&[]).env("PARLOUR_QUEUE", "none").output().unwrap();
    assert_one_line(&output, &["none", "--queue"]);
}

#[test]
fn help_explains_every_option_with_its_default_and_variable() {
    let output = run(&["--help"]);
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    let defaults = [
        ("listen", "127.0.0.1:8080"),
        ("max-connections-per-ip", "64"),
        ("history", "100"),
        ("queue", "256"),
        ("max-message-bytes", "4096"),
        ("message-rate", "5"),
        ("message-burst", "20"),
        ("max-rooms", "1000"),
        ("ping-interval", "30s"),
        ("ping-timeout", "75s"),
        ("handshake-timeout", "10s"),
        ("write-timeout", "10s"),
        ("shutdown-timeout", "5s"),
        ("log-format", "text"),
    ];
    for (option, default) in defaults {
        let at = help.find(&format!("--{option} ")).unwrap_or_else(|| panic!("{option} in {help}"));
        let entry = &help[at..];
        let variable = format!("[env: PARLOUR_{}=", option.to_uppercase().replace('-', "_"));
        assert!(
            entry.contains(&variable) && entry.contains(&format!("[default: {default}]")),
            "{option} in {help}"
        );
    }
    for option in
        ["metrics-listen", "max-connections", "trusted-proxy", "allow-origin", "allow-host"]
    {
        let variable = format!("[env: PARLOUR_{}=", option.to_uppercase().replace('-', "_"));
        assert!(
            help.contains(&format!("--{option} ")) && help.contains(&variable),
            "{option} in {help}"
        );
    }
}

#[test]
fn a_flag_wins_over_the_environment_and_the_environment_over_the_default() {
    let program = Program::start(
        command(&[]).env("PARLOUR_LISTEN", "127.0.0.1:0").env("PARLOUR_HISTORY", "5"),
    );
    assert_ne!(program.address.port(), 8080);
    program.signal("TERM");
    assert!(program.ended().0.success());
    assert_eq!(config(&["--history", "7"]).history, 7);
}

#[test]
fn ipv6_is_served_and_ipv4_with_it() {
    let program = Program::start(&mut command(&["--listen", "[::]:0"]));
    for host in ["[::1]", "127.0.0.1"] {
        let address: SocketAddr = format!("{host}:{}", program.address.port()).parse().unwrap();
        assert!(
            exchange(address, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .ends_with("ok\n")
        );
    }
    program.signal("TERM");
    assert!(program.ended().0.success());
}

#[test]
fn a_server_on_all_addresses_logs_one_that_others_can_open() {
    in_own_network("program::a_server_on_all_addresses_logs_one_that_others_can_open", || {
        ip("link add lan type veth peer name other");
        ip("addr add 192.0.2.7/24 dev lan");
        ip("link set lan up");
        ip("link set other up");
        let program = Program::start(&mut command(&["--listen=0.0.0.0:0"]));
        let port = program.address.port();
        eventually("the address of lan", || {
            let line = format!("other machines reach it at http://192.0.2.7:{port}/");
            program.logged().contains(&line).then_some(())
        });
        let local = Program::start(&mut command(&["--listen=127.0.0.1:0"]));
        local.signal("TERM");
        assert!(!local.ended().1.contains("other machines"));
    });
}

#[test]
fn sigint_and_sigterm_stop_it_with_status_0() {
    for signal in ["INT", "TERM"] {
        let program = Program::start(&mut command(&["--listen", "127.0.0.1:0"]));
        let mut client = std::net::TcpStream::connect(program.address).unwrap();
        client.write_all(crate::support::raw::upgrade("name=x").as_bytes()).unwrap();
        let mut received = vec![0; 12];
        client.read_exact(&mut received).expect("an upgrade");
        assert_eq!(received, b"HTTP/1.1 101");
        program.signal(signal);
        client.read_to_end(&mut received).expect("a clean end");
        assert!(
            received.ends_with(b"\x03\xe9server_shutdown"),
            "{}",
            String::from_utf8_lossy(&received)
        );
        drop(client);
        let (status, log) = program.ended();
        assert!(status.success() && log.contains("stopped"), "{status:?} {log}");
    }
}

#[test]
fn a_restart_delivers_what_was_said_and_takes_the_rest_again() {
    let say = |client: &mut RawClient, content: &str| {
        let message = serde_json::json!({"type": "public", "content": content, "ref": content});
        client.send(&masked(FIN | TEXT, message.to_string().as_bytes()));
    };
    let old = Program::start(&mut command(&["--listen", "127.0.0.1:0"]));
    let address = old.address;
    let mut ann = RawClient::connect_to(address, "name=Ann");
    let welcome = ann.next_of("welcome");
    let mut bob = RawClient::connect_to(address, "name=Bob");
    bob.next_of("join");
    for content in ["one", "two", "three"] {
        say(&mut ann, content);
    }
    assert_eq!(ann.next_of("public")["ref"], "one");
    old.signal("TERM");
    // Whatever the old server took reaches both alike, before the goodbye.
    let heard = |client: &mut RawClient| {
        let mut contents = Vec::new();
        while let Some((first, payload)) = client.frame() {
            let message = serde_json::from_slice::<serde_json::Value>(&payload).unwrap_or_default();
            if message["type"] == "public" {
                contents.push(message["content"].as_str().expect("text").to_owned());
            }
            if first == FIN | crate::support::raw::CLOSE {
                assert_eq!(payload, b"\x03\xe9server_shutdown");
            }
        }
        contents
    };
    let receipts = heard(&mut ann);
    assert_eq!(heard(&mut bob)[1..], receipts);
    drop((ann, bob));
    assert!(old.ended().0.success());

    let new = Program::start(&mut command(&["--listen", &address.to_string()]));
    let query = |field: &str| welcome[field].as_str().expect("text").to_owned();
    let mut bob = RawClient::connect_to(new.address, "name=Bob");
    bob.next_of("join");
    let again = format!("name=Ann&session={}&epoch={}&since=1", query("session"), query("epoch"));
    let mut ann = RawClient::connect_to(new.address, &again);
    // It tells honestly that it knows nothing of what was.
    let begun = ann.next_of("welcome");
    assert_eq!((&begun["recovered"], &begun["history"]), (&false.into(), &0.into()));
    assert_ne!(begun["epoch"], welcome["epoch"]);
    let missing = ["two", "three"]
        .into_iter()
        .filter(|content| !receipts.iter().any(|reference| reference == content));
    for content in missing.chain(["four"]) {
        say(&mut ann, content);
        assert_eq!(bob.next_of("public")["content"], content);
    }
    new.signal("TERM");
    assert!(new.ended().0.success());
}

#[test]
fn a_second_signal_ends_it_at_once_with_a_non_zero_status() {
    let options = [
        "--listen",
        "127.0.0.1:0",
        "--shutdown-timeout=1h",
        "--write-timeout=1h",
        "--queue=2",
        "--message-rate=0",
        "--leave-grace=0",
    ];
    let program = Program::start(&mut command(&options));
    // Somebody who reads nothing keeps the first stop waiting.
    let mut talker = RawClient::connect_to(program.address, "name=talker");
    let _deaf = RawClient::connect_to(program.address, "name=deaf");
    let text = format!(r#"{{"type":"public","content":"{}"}}"#, "x".repeat(4000));
    loop {
        talker.send(&masked(FIN | TEXT, text.as_bytes()));
        let (_, heard) = talker.frame().expect("the connection is open");
        if heard.starts_with(br#"{"type":"leave""#) {
            break;
        }
    }
    program.signal("TERM");
    eventually("the listener's end", || {
        std::net::TcpStream::connect(program.address).is_err().then_some(())
    });
    program.signal("TERM");
    let (status, _) = program.ended();
    assert_eq!(status.code(), Some(128 + 15));
}

#[test]
fn the_log_tells_of_comings_goings_and_refusals_and_never_what_was_said() {
    let options =
        ["--listen", "127.0.0.1:0", "--queue=8", "--write-timeout=200ms", "--message-rate=0"];
    let program = Program::start(command(&options).env("RUST_LOG", "trace"));
    let claim = "5e55105e55105e55105e55105e55105e";
    let query = format!("name=%E5%BC%A0%E4%B8%89&session={claim}&epoch=x&since=1");
    let mut request = crate::support::raw::upgrade(&query).into_bytes();
    request.extend(masked(FIN | TEXT, br#"{"type":"public","content":"a secret thing"}"#));
    request.extend(masked(FIN | 0x8, &[0x03, 0xe8, b's', b'e', b'c', b'r', b'e', b't']));
    let heard = exchange_bytes(program.address, &request);
    let heard = String::from_utf8_lossy(&heard);
    let (_, session) = heard.split_once(r#""session":""#).expect("a welcome");
    exchange(program.address, b"GET /\x1b[31m HTTP/1.1\r\nHost: localhost\r\n\r\n");
    exchange(program.address, b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n");
    exchange_bytes(program.address, &crate::support::raw::upgrade("room=no+room").into_bytes());
    // Somebody who talks, and reads nothing of it.
    let mut deaf = std::net::TcpStream::connect(program.address).unwrap();
    deaf.write_all(crate::support::raw::upgrade("name=deaf").as_bytes()).unwrap();
    let text = format!(r#"{{"type":"public","content":"{}"}}"#, "x".repeat(4000));
    while deaf.write_all(&masked(FIN | TEXT, text.as_bytes())).is_ok() {}
    program.signal("TERM");
    let (_, log) = program.ended();
    for part in [
        "gone: 4400 invalid_room",
        "gone: 1013 too_slow",
        "asks to join lobby as \"张三\"",
        "gone: 1000 client_closed",
        "refused: 404",
        "refused: 400",
    ] {
        assert!(log.contains(part), "{part:?} in {log}");
    }
    for secret in ["secret", claim, &session[..claim.len()]] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
    assert!(!log.contains('\x1b'), "{log}");
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let mut command = command(&["--listen", "127.0.0.1:0"]);
    let mut child = command.spawn().expect("the program starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    stderr.read_line(&mut line).expect("text");
    let address =
        line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
    let address: SocketAddr = address.parse().expect("an address");
    // A pipe holds 64 KiB; each of these is a line of more than 50 bytes. From here on nobody
    // reads.
    for _ in 0..3000 {
        exchange(address, b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    RawClient::connect_to(address, "name=x").next_of("join");
    assert!(Command::new("kill").arg(child.id().to_string()).status().expect("kill").success());
    let status = eventually("its end", || child.try_wait().expect("a child"));
    assert!(status.success(), "{status:?}");
}

#[test]
fn where_nothing_can_be_said_the_status_still_tells() {
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux");
    let status = |options: &[&str]| {
        command(options).stdout(full()).stderr(full()).status().expect("it runs").code()
    };
    assert_eq!(status(&["--bogus"]), Some(2));
    assert_eq!(status(&["--listen", "nonsense"]), Some(1));
    assert_eq!(status(&["--help"]), Some(1));
}

#[test]
fn the_log_is_json_for_a_collector() {
    let options = ["--listen", "127.0.0.1:0", "--log-format", "json"];
    let program = Program::start(&mut command(&options));
    exchange_bytes(
        program.address,
        &crate::support::raw::upgrade("name=a%22b&room=no+room").into_bytes(),
    );
    let second = run(&["--listen", &program.address.to_string(), "--log-format", "json"]);
    program.signal("TERM");
    let (status, log) = program.ended();
    assert!(status.success());
    let failed = String::from_utf8(second.stderr).unwrap();
    assert_eq!((second.status.code(), failed.lines().count()), (Some(1), 1), "{failed}");
    for line in log.lines().chain(failed.lines()) {
        let entry: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
        assert!(entry["ts"].as_u64().is_some_and(|ts| ts > 1_700_000_000_000), "{line}");
        assert!(["INFO", "WARN", "ERROR"].contains(&entry["level"].as_str().unwrap()), "{line}");
        assert!(entry["target"].as_str().unwrap().starts_with("parlour"), "{line}");
        assert!(entry["message"].is_string() && entry.as_object().unwrap().len() == 4, "{line}");
    }
    assert!(log.contains(r#""message":"stopped""#) && log.contains("4400 invalid_room"), "{log}");
}

#[test]
fn sighup_is_nothing_to_a_service() {
    // A session of its own has no terminal.
    let server = command(&["--listen", "127.0.0.1:0"]);
    let mut service = Command::new("setsid");
    service.arg(server.get_program()).args(server.get_args());
    service.env_remove("RUST_LOG").stdin(Stdio::null()).stderr(Stdio::piped());
    let program = Program::start(&mut service);
    program.signal("HUP");
    program.signal("HUP");
    assert!(
        exchange(program.address, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .ends_with("ok\n")
    );
    program.signal("TERM");
    let (status, log) = program.ended();
    assert!(
        status.success() && log.contains("SIGHUP") && log.contains("stopped"),
        "{status:?} {log}"
    );
}

/// A server that has `terminal` as its own, started by a shell that first says `before`.
fn in_a_terminal(terminal: OwnedFd, before: &str) -> Program {
    let server = command(&["--listen", "127.0.0.1:0"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!(r#"{before}; exec setsid -c "$0" "$@""#)]);
    shell.arg(server.get_program()).args(server.get_args());
    shell.env_remove("RUST_LOG").stdin(terminal).stderr(Stdio::piped());
    Program::start(&mut shell)
}

#[test]
fn a_terminal_that_closes_stops_its_server_unless_it_was_told_otherwise() {
    let (typist, terminal) = pty::open();
    let program = in_a_terminal(terminal, ":");
    drop(typist);
    let (status, log) = program.ended();
    assert!(status.success() && log.contains("stopped"), "{status:?} {log}");

    // What nohup does.
    let (typist, terminal) = pty::open();
    let program = in_a_terminal(terminal, "trap '' HUP");
    drop(typist);
    program.signal("HUP");
    assert!(
        exchange(program.address, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .ends_with("ok\n")
    );
    program.signal("TERM");
    let (status, log) = program.ended();
    assert!(status.success() && log.contains("stopped"), "{status:?} {log}");
}
