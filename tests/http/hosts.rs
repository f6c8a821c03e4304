//! Which names a server answers to, so that no page of a stranger reads it under a name of its own.

use std::net::SocketAddr;

use parlour::config::AllowedHost;
use parlour::http::host::served_by;

use crate::support::TestServer;
use crate::support::program::{Program, command};
use crate::support::raw::{ask, exchange, upgrade};

/// Returns the status of `/healthz`, requested by the name `host`.
fn status_by(address: SocketAddr, host: &str) -> u16 {
    ask(address, &format!("GET /healthz HTTP/1.1\nHost: {host}")).0
}

#[test]
fn a_server_on_loopback_answers_to_names_of_loopback_and_to_no_other() {
    let server = TestServer::start(&[]);
    for host in [
        "localhost",
        "LocalHost:8080",
        "localhost.",
        "localhost:",
        "chat.localhost:80",
        "127.0.0.1:8080",
        "127.255.1.9",
        "[::1]:8080",
        "[0:0::0:1]",
        "[::ffff:127.0.0.1]",
        "",
    ] {
        assert_eq!(status_by(server.address, host), 200, "{host:?}");
    }
    assert_eq!(ask(server.address, "GET /healthz HTTP/1.0").0, 200, "without a host");
    let own = server.address.port();
    for host in [
        "evil.example",
        &format!("evil.example:{own}"),
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evillocalhost",
        "%6cocalhost",
        "192.168.1.5",
        "0.0.0.0",
        "128.0.0.1",
        "[::]",
        "[::2]:8080",
        "localhost..",
    ] {
        assert_eq!(status_by(server.address, host), 421, "{host:?}");
    }
}

#[test]
fn a_strangers_name_is_refused_whatever_it_asks_for_unless_that_is_malformed() {
    let server = TestServer::start(&[]);
    for line in [
        "GET / HTTP/1.1",
        "GET /ws HTTP/1.1",
        "GET /nowhere HTTP/1.1",
        "POST / HTTP/1.1",
        "BREW / HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET / HTTP/1.0",
        // The target counts, and not the header (RFC 9112, 3.2.2).
        "GET http://evil.example/ HTTP/1.1\nHost: localhost\nX:",
    ] {
        let host = if line.contains("Host") { " x" } else { "\nHost: evil.example" };
        let (status, response) = ask(server.address, &format!("{line}{host}"));
        assert_eq!(status, 421, "{line}");
        assert!(response.contains("--allow-host"), "{response}");
    }
    let page = "Host: evil.example\r\nOrigin: http://evil.example";
    let request = upgrade("").replace("Host: localhost", page);
    assert!(exchange(server.address, request.as_bytes()).starts_with("HTTP/1.1 421 "));
    let twice = "GET / HTTP/1.1\nHost: evil.example\nHost: evil.example";
    assert_eq!(ask(server.address, twice).0, 400);
    let by_target = "GET http://localhost:1/healthz HTTP/1.1\nHost: evil.example";
    assert_eq!(ask(server.address, by_target).0, 200);
}

#[test]
fn a_page_is_compared_with_the_host_of_an_absolute_target() {
    let server = TestServer::start(&["--allow-host=chat.example"]);
    let response = |target: &str, host: &str| {
        let page = format!("Host: {host}\r\nOrigin: http://chat.example");
        let request = upgrade("").replace("/ws?", target).replace("Host: localhost", &page);
        // Another version of WebSocket ends the connection after the check of the origin.
        exchange(server.address, request.replace("Version: 13", "Version: 8").as_bytes())
    };
    assert!(response("http://chat.example/ws?", "localhost").starts_with("HTTP/1.1 426 "));
    assert!(response("http://localhost/ws?", "chat.example").starts_with("HTTP/1.1 403 "));
}

#[test]
fn an_owner_admits_names() {
    let server = TestServer::start(&[
        "--allow-host=Chat.Example,192.168.1.5",
        "--allow-host",
        "2001:DB8::0:1",
        "--allow-host=[2001:db8::2]",
    ]);
    for (host, status) in [
        ("chat.example", 200),
        ("CHAT.example.:8080", 200),
        ("192.168.1.5:80", 200),
        ("[2001:db8::1]:80", 200),
        ("[2001:db8:0::2]", 200),
        ("localhost", 200),
        ("www.chat.example", 421),
        ("192.168.1.6", 421),
        ("[2001:db8::3]", 421),
    ] {
        assert_eq!(status_by(server.address, host), status, "{host:?}");
    }
    let any = TestServer::start(&["--allow-host=*"]);
    assert_eq!(status_by(any.address, "evil.example"), 200);
}

#[test]
fn a_trusted_proxy_asks_by_any_name() {
    let server = TestServer::start(&["--trusted-proxy=127.0.0.0/8"]);
    assert_eq!(status_by(server.address, "chat.example"), 200);
    let other = TestServer::start(&["--trusted-proxy=10.0.0.0/8"]);
    let request = "GET / HTTP/1.1\nHost: chat.example\nX-Forwarded-For: 10.0.0.1";
    assert_eq!(ask(other.address, request).0, 421);
}

#[test]
fn a_server_that_others_can_reach_answers_to_every_name() {
    let server = TestServer::start(&["--listen", "0.0.0.0:0"]);
    let address = SocketAddr::from(([127, 0, 0, 1], server.address.port()));
    assert_eq!(status_by(address, "whatever.example"), 200);
}

#[test]
fn each_listener_goes_by_its_own_address() {
    let scrape = "GET /metrics HTTP/1.1\nHost: evil.example";
    for (listen, metrics, page_status, scrape_status) in [
        ("--listen=0.0.0.0:0", "--metrics-listen=127.0.0.1:0", 200, 421),
        ("--listen=127.0.0.1:0", "--metrics-listen=0.0.0.0:0", 421, 200),
    ] {
        let program = Program::start(&mut command(&[listen, metrics]));
        let at = |address: SocketAddr| SocketAddr::from(([127, 0, 0, 1], address.port()));
        let metrics = at(program.metrics.expect("it says where"));
        assert_eq!(status_by(at(program.address), "evil.example"), page_status);
        assert_eq!(ask(metrics, scrape).0, scrape_status);
        program.stop();
    }
    let options = ["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", "--allow-host=my.host"];
    let program = Program::start(&mut command(&options));
    let metrics = program.metrics.expect("it says where");
    assert_eq!(ask(metrics, "GET /metrics HTTP/1.1\nHost: my.host:9090").0, 200);
    assert_eq!(ask(metrics, "GET /metrics HTTP/1.0").0, 200);
    assert_eq!(ask(metrics, scrape).0, 421);
    let log = program.stop();
    assert!(log.contains("refused: 421 unknown_host (GET \"/metrics\"): the host"), "{log}");
}

#[test]
fn the_log_quotes_the_name_and_says_which_option_admits_it() {
    let program = Program::start(&mut command(&["--listen=127.0.0.1:0"]));
    assert_eq!(status_by(program.address, "evil.example:1"), 421);
    assert_eq!(status_by(program.address, &"e".repeat(4000)), 421);
    let log = program.stop();
    let line = "refused: 421 unknown_host (GET \"/healthz\"): the host \"evil.example:1\" is not a \
                name of loopback; if it is yours, --allow-host admits it";
    assert!(log.contains(line), "{log}");
    assert!(log.lines().all(|line| line.len() < 500), "{log}");
}

#[test]
fn a_listener_answers_to_the_name_that_its_owner_chose() {
    let loopback = || Ok("127.0.1.1:8080".parse().expect("an address"));
    let only = |name: &str| AllowedHost::Only(name.to_owned());
    for (listen, names) in [
        ("VM:8080", vec![only("vm")]),
        ("chat.example", vec![only("chat.example")]),
        ("127.0.1.1:8080", vec![only("127.0.1.1")]),
        ("[::1]:0", vec![only("[::1]")]),
        (":8080", vec![]),
        ("8080", vec![only("127.0.0.1")]),
    ] {
        let served = served_by(loopback(), listen, &[]);
        assert!(names.iter().all(|name| served.contains(name)), "{listen}: {served:?}");
        assert!(!served.contains(&AllowedHost::Any), "{listen}: {served:?}");
    }
    let elsewhere = Ok("192.0.2.1:8080".parse().expect("an address"));
    assert_eq!(served_by(elsewhere, "vm:8080", &[]), [AllowedHost::Any]);
}
