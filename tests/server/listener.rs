//! Where a server listens: on addresses of real networks.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use parlour::cli::{FAILURE, USAGE};

use crate::support::namespace::{in_own_network, ip};
use crate::support::program::{Program, command};
use crate::support::raw::exchange;

const HEALTHZ: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Switches IPv6 off in this process's network.
const DISABLE_IPV6: &str = "/proc/sys/net/ipv6/conf/all/disable_ipv6";

/// Runs the program to its end. Returns its exit status and its errors.
fn run(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.output().expect("the program runs");
    (status.code(), String::from_utf8(stderr).expect("text"))
}

/// True if this system has IPv6. Says so if not.
fn has_ipv6() -> bool {
    let found = TcpListener::bind("[::1]:0").is_ok();
    if !found {
        eprintln!("LEFT OUT: there is no IPv6");
    }
    found
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
    in_own_network(
        "server::listener::clients_find_the_server_by_the_text_that_it_listens_on",
        || {
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
        },
    );
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
    in_own_network(
        "server::listener::an_address_that_appears_late_is_served_by_a_later_start",
        || {
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
        },
    );
    // After a wrong option, which stays wrong, systemd does not.
    let (status, errors) = run(&mut command(&["--listen", "192.0.2.7:90000"]));
    assert_eq!(status, Some(USAGE.into()), "{errors}");
}
