//! Where a server listens: on addresses of real networks, and on sockets that systemd opens.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use parlour::cli::{FAILURE, USAGE};

use crate::support::namespace::{in_own_network, ip};
use crate::support::program::{Program, command, wrapper};
use crate::support::raw::{RawClient, exchange};
use crate::support::{DEADLINE, eventually, has_ipv6};

const HEALTHZ: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Switches IPv6 off in this process's network.
const DISABLE_IPV6: &str = "/proc/sys/net/ipv6/conf/all/disable_ipv6";

/// Runs the program to its end. Returns its exit status and its errors.
fn run(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.output().expect("the program runs");
    (status.code(), String::from_utf8(stderr).expect("text"))
}

/// Asserts that `healthcheck` and `chat` find a server that listens on `text`.
#[track_caller]
fn assert_found(text: &str) {
    let server = Program::start(&mut command(&["--listen", text]));
    let healthy = (Some(0), String::new());
    assert_eq!(run(command(&["healthcheck"]).env("PARLOUR_LISTEN", text)), healthy, "{text}");
    assert_eq!(run(&mut command(&["healthcheck", text])), healthy, "{text}");
    let (status, errors) = run(&mut command(&["chat", text]));
    assert_eq!(status, Some(0), "{text}: {errors}");
    server.signal("TERM");
    let (status, log) = server.ended();
    assert!(status.success(), "{text}: {log}");
}

#[test]
fn clients_find_the_server_by_the_text_that_it_listens_on() {
    in_own_network(|| {
        ip("link add lan type veth peer name other");
        ip("link set lan up");
        ip("link set other up");
        if has_ipv6() {
            ip("addr add fe80::7/64 dev lan nodad");
        }
        let ipv6 = ["[::1]", "::1:9000", "[fe80::7%lan]:9000", "fe80::7%lan"];
        ipv6.into_iter().filter(|_| has_ipv6()).for_each(assert_found);
        for disabled in ["0", "1"] {
            if has_ipv6() {
                std::fs::write(DISABLE_IPV6, disabled).expect("root may switch it");
            }
            for text in ["127.0.0.1:9000", "9000", ":9000", "[::]:9000", ":::9000", "0.0.0.0"] {
                assert_found(text);
            }
        }
    });
}

/// Returns a command that runs the program as if the system had no IPv6.
fn without_ipv6(options: &[&str]) -> Command {
    let library = Path::new(env!("CARGO_BIN_EXE_parlour"))
        .with_file_name("examples")
        .join("libipv6_fault.so");
    assert!(
        library.exists(),
        "{} is missing, which `cargo test` builds only without a filter: cargo build --examples",
        library.display()
    );
    let mut command = command(options);
    command.env("LD_PRELOAD", library);
    command
}

#[test]
fn without_ipv6_all_addresses_are_the_ipv4_ones() {
    for text in ["[::]:0", ":0"] {
        let server = Program::start(&mut without_ipv6(&["--listen", text]));
        assert!(server.address.is_ipv4() && server.address.ip().is_unspecified());
        let listen = format!("[::]:{}", server.address.port());
        let checked = run(without_ipv6(&["healthcheck"]).env("PARLOUR_LISTEN", listen));
        assert_eq!(checked, (Some(0), String::new()));
        server.signal("TERM");
        let (status, log) = server.ended();
        assert!(status.success() && log.contains("has no IPv6, so only IPv4"), "{log}");
    }
    let (status, errors) = run(&mut without_ipv6(&["--listen=[::1]:9000"]));
    assert_eq!(status, Some(FAILURE.into()));
    assert!(errors.contains("no such address; --listen 0.0.0.0:9000"), "{errors}");
}

#[test]
fn a_name_stands_for_the_first_of_its_addresses_on_this_machine() {
    let found = ("localhost", 0).to_socket_addrs().expect("a name of this machine");
    let found: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    let first = found.iter().find(|ip| ip.is_ipv4() || has_ipv6()).expect("an address");
    let server = Program::start(&mut command(&["--listen=localhost:0"]));
    assert_eq!(server.address.ip(), *first);
    server.signal("TERM");
    let (status, log) = server.ended();
    assert!(status.success());
    let choice = format!("has several addresses: parlour listens on {first}, not on ");
    assert_eq!(log.contains(&choice), found.iter().any(|ip| ip != first), "{log}");
    // It does not stand for another because a port of the first is taken.
    let taken = TcpListener::bind((*first, 0)).expect("a free port");
    let text = format!("localhost:{}", taken.local_addr().unwrap().port());
    let (status, errors) = run(&mut command(&["--listen", &text]));
    assert_eq!(status, Some(FAILURE.into()));
    assert!(errors.contains(&format!("--listen {text}: ")) && errors.contains("use"), "{errors}");
}

#[test]
fn ipv4_does_not_serve_alone_because_the_port_is_taken() {
    let Some(taken) = has_ipv6().then(|| TcpListener::bind("[::1]:0").expect("a port")) else {
        return;
    };
    let text = format!(":{}", taken.local_addr().unwrap().port());
    let (status, errors) = run(&mut command(&["--listen", &text]));
    assert_eq!(status, Some(FAILURE.into()));
    assert!(errors.contains(&format!("--listen {text}: ")) && errors.contains("use"), "{errors}");
}

#[test]
fn an_address_that_appears_late_is_served_by_a_later_start() {
    in_own_network(|| {
        let options = ["--listen", "192.0.2.7:9000"];
        let (status, errors) = run(&mut command(&options));
        // After this status, systemd starts it again, as often as it takes.
        assert_eq!((status, errors.lines().count()), (Some(FAILURE.into()), 1), "{errors}");
        assert!(errors.contains("this machine has no such address"), "{errors}");
        ip("link add lan type veth peer name other");
        ip("addr add 192.0.2.7/24 dev lan");
        ip("link set lan up");
        let server = Program::start(&mut command(&options));
        assert!(exchange(server.address, HEALTHZ).ends_with("ok\n"));
        server.signal("TERM");
        assert!(server.ended().0.success());
    });
    // After a wrong option, which stays wrong, systemd does not.
    let (status, errors) = run(&mut command(&["--listen", "192.0.2.7:90000"]));
    assert_eq!(status, Some(USAGE.into()), "{errors}");
}

/// Returns a command that runs the program as systemd does with a socket unit: `socket` is its
/// descriptor 3, `second` the next, and `names` are their names.
fn activated(
    options: &[&str],
    socket: impl Into<OwnedFd>,
    second: Option<OwnedFd>,
    names: &str,
) -> Command {
    let count = if second.is_some() { 2 } else { 1 };
    let script = "export LISTEN_PID=$$; exec \"$0\" \"$@\" 3<&0 4<&1 </dev/null >/dev/null";
    let server = command(options);
    let mut shell = wrapper("sh");
    shell.args(["-c", script]).arg(server.get_program()).args(server.get_args());
    shell.env("LISTEN_FDS", count.to_string()).env("LISTEN_FDNAMES", names).env_remove("RUST_LOG");
    shell.stdin(socket.into()).stderr(Stdio::piped());
    match second {
        Some(second) => shell.stdout(second),
        None => shell.stdout(Stdio::null()),
    };
    shell
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

#[test]
fn a_systemd_socket_outlives_its_servers_and_refuses_nobody() {
    let (socket, address) = listener();
    let start = || {
        let socket = socket.try_clone().expect("a descriptor");
        Program::start(&mut activated(&["--listen=192.0.2.7:1"], socket, None, "parlour.socket"))
    };
    for _ in 0..3 {
        let server = start();
        assert_eq!(server.address, address);
        let mut member = RawClient::connect_to(address, "name=Ann");
        member.next_of("join");
        server.signal("TERM");
        assert_eq!(member.closed(), (1001, "server_shutdown".to_owned()));
        let (status, log) = server.ended();
        assert!(status.success() && log.contains("stopped"), "{log}");
        assert!(log.contains("the socket parlour.socket, which takes the place of --listen\n"));
        // No server runs now.
        let mut early = TcpStream::connect(address).expect("systemd's socket is open");
        early.set_read_timeout(Some(DEADLINE)).unwrap();
        early.write_all(HEALTHZ).unwrap();
        let server = start();
        let mut response = String::new();
        early.read_to_string(&mut response).expect("a response before the deadline");
        assert!(response.ends_with("ok\n"), "{response}");
        server.signal("TERM");
        assert!(server.ended().0.success());
    }
}

#[test]
fn a_connection_made_while_a_server_stops_waits_for_the_next() {
    let (socket, address) = listener();
    let start = |options: &[&str]| {
        let socket = socket.try_clone().expect("a descriptor");
        Program::start(&mut activated(options, socket, None, "parlour.socket"))
    };
    let server = start(&["--shutdown-timeout=1h", "--write-timeout=1h"]);
    // A client that does not reply to the close frame keeps the first server running.
    let mut silent = RawClient::connect_to(address, "name=silent");
    silent.next_of("join");
    server.signal("TERM");
    silent.closed();
    let mut early = TcpStream::connect(address).expect("systemd's socket is open");
    early.set_read_timeout(Some(DEADLINE)).unwrap();
    early.write_all(HEALTHZ).unwrap();
    drop(silent);
    assert!(server.ended().0.success());
    let server = start(&[]);
    let mut response = String::new();
    early.read_to_string(&mut response).expect("a response before the deadline");
    assert!(response.ends_with("ok\n"), "{response}");
    server.signal("TERM");
    assert!(server.ended().0.success());
}

#[test]
fn a_systemd_socket_named_metrics_serves_the_metrics() {
    let ((chat, address), (metrics, metrics_address)) = (listener(), listener());
    let ask = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    // In whichever order they come.
    let first = activated(
        &["--metrics-listen=192.0.2.7:1"],
        chat.try_clone().unwrap(),
        Some(metrics.try_clone().unwrap().into()),
        "parlour.socket:metrics",
    );
    let second = activated(&[], metrics, Some(chat.into()), "metrics:connection");
    for mut command in [first, second] {
        let server = Program::start(&mut command);
        assert_eq!((server.address, server.metrics), (address, Some(metrics_address)));
        assert!(exchange(address, HEALTHZ).ends_with("ok\n"));
        assert!(exchange(metrics_address, ask).contains("process_start_time_seconds"));
        server.signal("TERM");
        assert!(server.ended().0.success());
    }
    // Without another socket, the chat listens where its option says.
    let (metrics, metrics_address) = listener();
    let server = Program::start(&mut activated(&["--listen=0"], metrics, None, "metrics"));
    assert_eq!(server.metrics, Some(metrics_address));
    assert!(exchange(server.address, HEALTHZ).ends_with("ok\n"));
    server.signal("TERM");
    assert!(server.ended().0.success());
}

#[test]
fn an_unusable_systemd_socket_is_one_clear_error() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("{}.listener", std::process::id()));
    let unix = UnixListener::bind(&path).expect("a free path");
    std::fs::remove_file(&path).expect("it was made");
    let (one, address) = listener();
    let accepted = TcpStream::connect(address).unwrap();
    let (two, _) = listener();
    for (mut command, part) in [
        (activated(&[], unix, None, "a.socket"), "a.socket, on which no TCP connection"),
        (activated(&[], accepted, None, "connection"), "Accept=no"),
        (
            activated(&[], one.try_clone().unwrap(), Some(two.into()), "a.socket:a.socket"),
            "ListenStream=[::]:8080",
        ),
        (
            {
                let mut command = activated(&[], one, None, "a.socket");
                command.env("LISTEN_FDS", "many");
                command
            },
            "LISTEN_FDS must be numbers",
        ),
    ] {
        let (status, errors) = run(&mut command);
        assert_eq!((status, errors.lines().count()), (Some(FAILURE.into()), 1), "{errors}");
        assert!(errors.contains(part), "{part:?} in {errors}");
    }
}

#[test]
fn systemd_sockets_of_another_process_are_ignored() {
    let mut command = command(&["--listen=127.0.0.1:0"]);
    let server = Program::start(command.env("LISTEN_PID", "1").env("LISTEN_FDS", "1"));
    eventually("the hub", || exchange(server.address, HEALTHZ).ends_with("ok\n").then_some(()));
    server.signal("TERM");
    assert!(server.ended().0.success());
}
