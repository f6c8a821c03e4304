//! The program: its start, its options, its signals and its log.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};

use clap::CommandFactory;
use parlour::config::Config;
use serde_json::{Value, json};

use crate::support::namespace::{in_own_network, ip};
use crate::support::program::{Program, assert_contains, command, wrapper};
use crate::support::raw::{
    CLOSE, FIN, RawClient, exchange, exchange_bytes, get, masked, public, text, upgrade,
};
use crate::support::{TestServer, assert_has, config, eventually, has_ipv6, pty};

fn run(options: &[&str]) -> Output {
    command(options).output().expect("the program runs")
}

/// Asserts that the program failed, with one line that contains each of `parts`.
#[track_caller]
fn assert_one_line(output: &Output, parts: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && output.status.code().is_some(), "{:?}", output.status);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert_contains(&stderr, parts);
}

#[test]
fn a_bad_start_is_one_clear_line_and_an_error_status() {
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
    assert_one_line(&output, &["none", "--queue", "PARLOUR_QUEUE"]);
}

#[test]
fn an_error_names_the_variable_or_the_flag_that_set_the_value() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let with = |name: &str, value: &str| {
        command(&["--listen=127.0.0.1:0"]).env(name, value).output().expect("the program runs")
    };
    for (name, value, part) in [
        ("PARLOUR_TRUSTED_PROXY", "127.0.0.1, nobody", "'nobody' for 'PARLOUR_TRUSTED_PROXY ("),
        ("PARLOUR_ALLOW_ORIGIN", "chat.example", "for 'PARLOUR_ALLOW_ORIGIN (--allow-origin "),
        ("PARLOUR_LOG_FORMAT", "yaml", "for 'PARLOUR_LOG_FORMAT (--log-format "),
        ("PARLOUR_PING_TIMEOUT", "3s", "PARLOUR_PING_TIMEOUT=3s must be longer than --ping-inter"),
        ("PARLOUR_PING_INTERVAL", "2m", "--ping-timeout 1m 15s must be longer than PARLOUR_PING_"),
        ("PARLOUR_METRICS_LISTEN", "http://[::]:80", "PARLOUR_METRICS_LISTEN=http://[::]:80: "),
        ("PARLOUR_METRICS_LISTEN", &address, &format!("PARLOUR_METRICS_LISTEN={address}: ")),
    ] {
        let output = with(name, value);
        assert_one_line(&output, &[part]);
        let flags = String::from_utf8_lossy(&output.stderr).contains("--metrics-listen");
        assert!(!flags, "{name} {value}");
    }
    let not_text = command(&[]).env("PARLOUR_QUEUE", OsStr::from_bytes(b"\xff")).output().unwrap();
    assert_one_line(&not_text, &["PARLOUR_QUEUE is not valid UTF-8"]);
    // A variable that a flag overrides is not read.
    let overridden = command(&["--listen", &address]).env("PARLOUR_LISTEN", "a:b").output();
    assert_one_line(&overridden.unwrap(), &[&format!("--listen {address}: ")]);
}

#[test]
fn an_empty_variable_is_an_unset_one_whatever_the_option() {
    let mut command = command(&["--listen=127.0.0.1:0"]);
    for argument in Config::command().get_arguments() {
        if let Some(variable) = argument.get_env().filter(|&name| name != "PARLOUR_LISTEN") {
            command.env(variable, "");
        }
    }
    let program = Program::start(command.env("PARLOUR_TRUSTED_PROXY", " , ").env("RUST_LOG", ""));
    program.signal("TERM");
    let (status, log) = program.ended();
    assert!(status.success() && log.contains("stopped") && !log.contains("variable"), "{log}");
}

#[test]
fn a_wrong_variable_of_the_server_does_not_stop_a_command_without_use_for_it() {
    let server = TestServer::start(&[]);
    let address = server.address.to_string();
    for name in ["chat", "healthcheck"] {
        let output = command(&[name, &address]).env("PARLOUR_QUEUE", "none").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let output = command(&["healthcheck"]).env("PARLOUR_LISTEN", "127.0.0.1:0").output().unwrap();
    assert_one_line(&output, &["PARLOUR_LISTEN=127.0.0.1:0: ", "the server's log names the port"]);
}

#[test]
fn a_list_may_have_spaces_and_end_in_a_comma() {
    let networks = |list: &str| {
        let parsed = config(&["--trusted-proxy", list]).trusted_proxy;
        assert_eq!(config(&[&format!("--trusted-proxy={list}")]).trusted_proxy, parsed, "{list}");
        parsed.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let two = ["127.0.0.1/32", "10.0.0.0/8"];
    for list in [
        "127.0.0.1,10.0.0.0/8",
        "127.0.0.1, 10.0.0.0/8",
        " 127.0.0.1 ,,10.0.0.0/8,",
        "127.0.0.1,\t10.0.0.0/8 , ",
    ] {
        assert_eq!(networks(list), two, "{list}");
    }
    let origins = config(&["--allow-origin", "https://a.example, *,", "--allow-origin=null ,"]);
    assert_eq!(origins.allow_origin.len(), 3);
    let options = ["--listen=127.0.0.1:0", "--max-connections-per-ip=1"];
    let program =
        Program::start(command(&options).env("PARLOUR_TRUSTED_PROXY", "10.0.0.0/8, 127.0.0.1,"));
    let ask = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n";
    let _member = forwarded(program.address, "192.0.2.7");
    assert!(exchange(program.address, ask).starts_with("HTTP/1.1 429 "));
    program.signal("TERM");
    assert!(program.ended().0.success());
}

/// A client whose connection a proxy on this host hands on for `address`.
fn forwarded(server: SocketAddr, address: &str) -> std::net::TcpStream {
    let mut stream = std::net::TcpStream::connect(server).expect("the server listens");
    let request = crate::support::raw::upgrade("name=x");
    let request = request.replace("Host:", &format!("X-Forwarded-For: {address}\r\nHost:"));
    stream.write_all(request.as_bytes()).expect("the server reads");
    stream.read_exact(&mut [0; 12]).expect("a response");
    stream
}

#[test]
fn one_line_warns_of_unknown_variables_and_names_the_nearest_ones() {
    let mut command = command(&["--listen=127.0.0.1:0"]);
    command.env("PARLOUR_MAX_CONNECTION", "5").env("PARLOUR_METRICS", "1").env("PARLOUR_ZZ\n", "1");
    command.env("PARLOUR_EMPTY", "").env("XPARLOUR_QUEUE", "5").env("PARLOUR_HISTORY", "5");
    let program = Program::start(&mut command);
    program.signal("TERM");
    let (status, log) = program.ended();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("variable")).collect();
    assert!(status.success() && warnings.len() == 1, "{log}");
    for part in [
        "PARLOUR_MAX_CONNECTION (did you mean PARLOUR_MAX_CONNECTIONS?)",
        "PARLOUR_METRICS (did you mean PARLOUR_METRICS_LISTEN?)",
        "PARLOUR_ZZ\\n",
    ] {
        assert!(warnings[0].contains(part), "{part} in {log}");
    }
    for other in ["PARLOUR_EMPTY", "PARLOUR_QUEUE", "PARLOUR_HISTORY"] {
        assert!(!log.contains(other), "{other} in {log}");
    }
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
fn a_flag_overrides_the_environment_and_the_environment_the_default() {
    let program = Program::start(
        command(&[]).env("PARLOUR_LISTEN", "127.0.0.1:0").env("PARLOUR_HISTORY", "5"),
    );
    assert_ne!(program.address.port(), 8080);
    program.stop();
    assert_eq!(config(&["--history", "7"]).history, 7);
}

#[test]
fn a_server_on_all_ipv6_addresses_also_serves_ipv4() {
    let program = Program::start(&mut command(&["--listen", "[::]:0"]));
    for host in ["[::1]", "127.0.0.1"] {
        if host == "[::1]" && !has_ipv6() {
            continue;
        }
        let address: SocketAddr = format!("{host}:{}", program.address.port()).parse().unwrap();
        assert!(get(address, "/healthz").ends_with("ok\n"));
    }
    program.stop();
}

#[test]
fn a_crash_leaves_no_core_with_what_people_wrote() {
    let folder = std::env::temp_dir().join(format!("parlour-core-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut server = command(&["--listen=127.0.0.1:0"]);
    // The system would allow it.
    let program = Program::start(server.current_dir(&folder));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", program.id())).expect("Linux");
    let core = limits.lines().find(|line| line.starts_with("Max core file size"));
    let words: Vec<&str> = core.expect("a limit of cores").split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{words:?}");
    program.signal("ABRT");
    let (status, _) = program.ended();
    assert!(!status.success() && !status.core_dumped(), "{status:?}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "no core");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_server_on_all_addresses_logs_one_for_other_machines() {
    in_own_network(|| {
        ip("link add lan type veth peer name other");
        ip("addr add 192.0.2.7/24 dev lan");
        ip("link set lan up");
        ip("link set other up");
        let program = Program::start(&mut command(&["--listen=0.0.0.0:0"]));
        let port = program.address.port();
        eventually("the address of lan", || {
            let text = format!("other machines reach it at http://192.0.2.7:{port}/");
            program.logged().contains(&text).then_some(())
        });
        let local = Program::start(&mut command(&["--listen=127.0.0.1:0"]));
        assert!(!local.stop().contains("other machines"));
    });
}

#[test]
fn sigint_and_sigterm_stop_the_server_with_status_0() {
    for signal in ["INT", "TERM"] {
        let program = Program::start(&mut command(&["--listen", "127.0.0.1:0"]));
        let mut client = TcpStream::connect(program.address).unwrap();
        client.write_all(upgrade("name=x").as_bytes()).unwrap();
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
fn a_restart_loses_no_message_of_clients_that_come_back() {
    let send = |client: &mut RawClient, content: &str| {
        client.send(&text(&json!({"type": "public", "content": content, "ref": content})));
    };
    let old = Program::start(&mut command(&["--listen", "127.0.0.1:0"]));
    let address = old.address;
    let mut ann = RawClient::connect_to(address, "name=Ann");
    let welcome = ann.next_of("welcome");
    let mut bob = RawClient::connect_to(address, "name=Bob");
    bob.next_of("join");
    for content in ["one", "two", "three"] {
        send(&mut ann, content);
    }
    assert_eq!(ann.next_of("public")["ref"], "one");
    old.signal("TERM");
    // Whatever the old server accepted reaches both clients, before the close frame.
    let read_to_end = |client: &mut RawClient| {
        let mut contents = Vec::new();
        while let Some((first, payload)) = client.frame() {
            let message = serde_json::from_slice::<Value>(&payload).unwrap_or_default();
            if message["type"] == "public" {
                contents.push(message["content"].as_str().expect("text").to_owned());
            }
            if first == FIN | CLOSE {
                assert_eq!(payload, b"\x03\xe9server_shutdown");
            }
        }
        contents
    };
    let receipts = read_to_end(&mut ann);
    assert_eq!(read_to_end(&mut bob)[1..], receipts);
    drop((ann, bob));
    assert!(old.ended().0.success());

    let new = Program::start(&mut command(&["--listen", &address.to_string()]));
    let field = |name: &str| welcome[name].as_str().expect("text").to_owned();
    let mut bob = RawClient::connect_to(new.address, "name=Bob");
    bob.next_of("join");
    let again = format!("name=Ann&session={}&epoch={}&since=1", field("session"), field("epoch"));
    let mut ann = RawClient::connect_to(new.address, &again);
    // The new server knows nothing of the old one's messages, and says so.
    let new_welcome = ann.next_of("welcome");
    assert_has(&new_welcome, json!({"recovered": false, "history": 0}));
    assert_ne!(new_welcome["epoch"], welcome["epoch"]);
    let missing = ["two", "three"]
        .into_iter()
        .filter(|content| !receipts.iter().any(|reference| reference == content));
    for content in missing.chain(["four"]) {
        send(&mut ann, content);
        assert_eq!(bob.next_of("public")["content"], content);
    }
    new.stop();
}

#[test]
fn a_second_signal_ends_the_server_at_once_with_an_error_status() {
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
    // A client that does not read keeps the first stop waiting.
    let mut talker = RawClient::connect_to(program.address, "name=talker");
    let _slow = RawClient::connect_to(program.address, "name=slow");
    talker.talk_until_leave();
    program.signal("TERM");
    eventually("the listener's end", || TcpStream::connect(program.address).is_err().then_some(()));
    program.signal("TERM");
    let (status, _) = program.ended();
    assert_eq!(status.code(), Some(128 + 15));
}

#[test]
fn the_log_has_connections_and_refusals_and_never_messages_or_sessions() {
    let options =
        ["--listen", "127.0.0.1:0", "--queue=8", "--write-timeout=200ms", "--message-rate=0"];
    let program = Program::start(command(&options).env("RUST_LOG", "trace"));
    let claim = "5e55105e55105e55105e55105e55105e";
    let query = format!("name=%E5%BC%A0%E4%B8%89&session={claim}&epoch=x&since=1");
    let mut request = upgrade(&query).into_bytes();
    request.extend(public("a secret thing"));
    request.extend(masked(FIN | CLOSE, b"\x03\xe8secret"));
    let received = exchange_bytes(program.address, &request);
    let received = String::from_utf8_lossy(&received);
    let (_, session) = received.split_once(r#""session":""#).expect("a welcome");
    get(program.address, "/\x1b[31m");
    get(program.address, "/nowhere");
    exchange_bytes(program.address, upgrade("room=no+room").as_bytes());
    // A client that sends much and reads nothing.
    let mut slow = TcpStream::connect(program.address).unwrap();
    slow.write_all(upgrade("name=slow").as_bytes()).unwrap();
    let message = public(&"x".repeat(4000));
    while slow.write_all(&message).is_ok() {}
    let log = program.stop();
    let parts = [
        "gone: 4400 invalid_room",
        "gone: 1013 too_slow",
        "asks to join lobby as \"张三\"",
        "gone: 1000 client_closed",
        "refused: 404",
        "refused: 400",
    ];
    assert_contains(&log, &parts);
    for secret in ["secret", claim, &session[..claim.len()]] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
    assert!(!log.contains('\x1b'), "{log}");
}

#[test]
fn a_log_that_nobody_reads_does_not_block_the_server() {
    let mut command = command(&["--listen", "127.0.0.1:0"]);
    let mut child = command.spawn().expect("the program starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    stderr.read_line(&mut line).expect("text");
    let address =
        line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
    let address: SocketAddr = address.parse().expect("an address");
    // From here on nobody reads. A pipe holds 64 KiB, and each request logs more than 50 bytes.
    for _ in 0..3000 {
        get(address, "/nowhere");
    }
    RawClient::connect_to(address, "name=x").next_of("join");
    assert!(Command::new("kill").arg(child.id().to_string()).status().expect("kill").success());
    let status = eventually("the server's end", || child.try_wait().expect("a child"));
    assert!(status.success(), "{status:?}");
}

#[test]
fn the_status_shows_a_failure_even_if_nothing_can_be_printed() {
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux");
    let status = |options: &[&str]| {
        command(options).stdout(full()).stderr(full()).status().expect("the program runs").code()
    };
    assert_eq!(status(&["--bogus"]), Some(2));
    assert_eq!(status(&["--listen", "nonsense"]), Some(1));
    assert_eq!(status(&["--help"]), Some(1));
}

#[test]
fn the_log_is_json_for_a_collector() {
    let options = ["--listen", "127.0.0.1:0", "--log-format", "json"];
    let program = Program::start(&mut command(&options));
    exchange_bytes(program.address, upgrade("name=a%22b&room=no+room").as_bytes());
    let second = run(&["--listen", &program.address.to_string(), "--log-format", "json"]);
    let log = program.stop();
    let failed = String::from_utf8(second.stderr).unwrap();
    assert_eq!((second.status.code(), failed.lines().count()), (Some(1), 1), "{failed}");
    for line in log.lines().chain(failed.lines()) {
        let entry: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
        assert!(entry["ts"].as_u64().is_some_and(|ts| ts > 1_700_000_000_000), "{line}");
        assert!(["INFO", "WARN", "ERROR"].contains(&entry["level"].as_str().unwrap()), "{line}");
        assert!(entry["target"].as_str().unwrap().starts_with("parlour"), "{line}");
        assert!(entry["message"].is_string() && entry.as_object().unwrap().len() == 4, "{line}");
    }
    assert!(log.contains(r#""message":"stopped""#) && log.contains("4400 invalid_room"), "{log}");
}

#[test]
fn a_service_ignores_sighup() {
    // A new session has no terminal.
    let server = command(&["--listen", "127.0.0.1:0"]);
    let mut service = wrapper("setsid");
    service.arg(server.get_program()).args(server.get_args());
    service.stdin(Stdio::null()).stderr(Stdio::piped());
    let program = Program::start(&mut service);
    program.signal("HUP");
    program.signal("HUP");
    assert!(get(program.address, "/healthz").ends_with("ok\n"));
    assert_contains(&program.stop(), &["SIGHUP", "stopped"]);
}

/// Starts a server with `terminal` as its controlling terminal, from a shell that first runs
/// `before`.
fn in_a_terminal(terminal: OwnedFd, before: &str) -> Program {
    let server = command(&["--listen", "127.0.0.1:0"]);
    let mut shell = wrapper("sh");
    shell.args(["-c", &format!(r#"{before}; exec setsid -c "$0" "$@""#)]);
    shell.arg(server.get_program()).args(server.get_args());
    shell.stdin(terminal).stderr(Stdio::piped());
    Program::start(&mut shell)
}

#[test]
fn a_terminal_that_closes_stops_its_server_unless_sighup_is_ignored() {
    let (typist, terminal) = pty::open();
    let program = in_a_terminal(terminal, ":");
    drop(typist);
    let (status, log) = program.ended();
    assert!(status.success() && log.contains("stopped"), "{status:?} {log}");

    // As under nohup.
    let (typist, terminal) = pty::open();
    let program = in_a_terminal(terminal, "trap '' HUP");
    drop(typist);
    program.signal("HUP");
    assert!(get(program.address, "/healthz").ends_with("ok\n"));
    program.signal("TERM");
    let (status, log) = program.ended();
    assert!(status.success() && log.contains("stopped"), "{status:?} {log}");
}
