//! Admission: connections per address, behind proxies, from other pages, and while others connect
//! without sending a request.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Instant;

use parlour::http::origin;
use parlour::http::proxy::{Caller, caller_behind};
use serde_json::json;
use socket2::{Domain, Socket, Type};
use tungstenite::http::HeaderMap;
use tungstenite::http::header::{HOST, ORIGIN};

use crate::support::namespace::{in_own_network, ip};
use crate::support::program::{Program, assert_contains, assert_logged_rarely, command};
use crate::support::raw::{exchange, get, upgrade};
use crate::support::{Client, DEADLINE, TestServer, assert_has, config, eventually};

/// Requests an upgrade with additional header lines, each with its CRLF. Returns the status, and
/// the connection, which stays open.
fn ask(stream: TcpStream, lines: &str) -> (u16, TcpStream) {
    let mut stream = stream;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
        .write_all(upgrade("").replace("Host:", &format!("{lines}Host:")).as_bytes())
        .expect("the server reads");
    let mut start = [0; 12];
    stream.read_exact(&mut start).expect("a response before the deadline");
    let status =
        start.strip_prefix(b"HTTP/1.1 ").and_then(|code| str::from_utf8(code).ok()?.parse().ok());
    (status.unwrap_or_else(|| panic!("{}", start.escape_ascii())), stream)
}

fn connect(server: &TestServer) -> TcpStream {
    TcpStream::connect(server.address).expect("the server listens")
}

/// Requests an upgrade through a proxy, for the address `client`.
fn ask_for(server: &TestServer, client: &str) -> (u16, TcpStream) {
    ask(connect(server), &format!("X-Forwarded-For: {client}\r\n"))
}

#[test]
fn connections_from_an_address_behind_a_trusted_proxy_are_limited() {
    let server = TestServer::start(&["--trusted-proxy=127.0.0.0/8", "--max-connections-per-ip=2"]);
    let (first, one) = ask_for(&server, "203.0.113.7");
    let (second, _two) = ask_for(&server, "203.0.113.7");
    assert_eq!((first, second), (101, 101));
    for _ in 0..20 {
        let refused = exchange(
            server.address,
            b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n",
        );
        assert!(
            refused.starts_with("HTTP/1.1 429 ")
                && refused.to_lowercase().contains("\r\nretry-after: ")
        );
        assert_eq!(
            refused.split_once("\r\n\r\n").expect("a body").1.lines().count(),
            1,
            "{refused}"
        );
    }
    // However the address is written, and whatever the client itself adds, to the left of it.
    for same in [
        "203.0.113.7:4711",
        "::ffff:203.0.113.7",
        "198.51.100.1, 203.0.113.7",
        "nonsense, 203.0.113.7",
        "198.51.100.9,203.0.113.7,127.0.0.9, ",
        "198.51.100.1\r\nx-forwarded-for: 203.0.113.7",
        "203.0.113.7\r\nX-Forwarded-For: 127.0.0.2",
    ] {
        assert_eq!(ask_for(&server, same).0, 429, "{same}");
    }
    assert_eq!(ask_for(&server, "203.0.113.8").0, 101);
    drop(one);
    eventually("a place becoming free", || {
        (ask_for(&server, "203.0.113.7").0 == 101).then_some(())
    });
    // The proxy's own requests are not counted, nor are those of clients on this host.
    let unnamed: Vec<_> = (0..10).map(|_| ask(connect(&server), "")).collect();
    let own: Vec<_> = (0..10).map(|_| ask_for(&server, "::1")).collect();
    assert!(unnamed.iter().chain(&own).all(|(status, _)| *status == 101));
}

#[test]
fn all_ipv6_addresses_of_a_64_count_as_one() {
    let server = TestServer::start(&["--trusted-proxy=127.0.0.1", "--max-connections-per-ip=1"]);
    let (status, _first) = ask_for(&server, "2001:db8:0:1::1");
    assert_eq!(status, 101);
    for same in ["2001:DB8:0:1:ffff::2", "[2001:db8:0:1::3]", "[2001:db8:0:1::3]:443"] {
        assert_eq!(ask_for(&server, same).0, 429, "{same}");
    }
    assert_eq!(ask_for(&server, "2001:db8:0:2::1").0, 101);
}

#[test]
fn the_caller_is_the_last_address_that_is_not_a_trusted_proxy() {
    let trusted = config(&["--trusted-proxy=127.0.0.1,10.0.0.0/8", "--trusted-proxy", "fd00::/8"])
        .trusted_proxy;
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let cases: [(&[&str], &str, bool); 16] = [
        (&[], "127.0.0.1", false),
        (&["203.0.113.7"], "203.0.113.7", true),
        (&["198.51.100.1, 203.0.113.7"], "203.0.113.7", true),
        (&["198.51.100.1", "203.0.113.7 , 10.1.2.3", "fd00::1"], "203.0.113.7", true),
        (&["203.0.113.7,, ,"], "203.0.113.7", true),
        (&[" "], "127.0.0.1", false),
        // All are trusted: the farthest has asked for itself.
        (&["10.0.0.2, 10.0.0.1"], "10.0.0.2", false),
        (&["::ffff:10.0.0.2"], "10.0.0.2", false),
        (&["127.0.0.2"], "127.0.0.2", false),
        // Not an address: the caller is counted as the proxy that passed it on.
        (&["unknown"], "127.0.0.1", true),
        (&["203.0.113.7, _hidden, 10.0.0.1"], "10.0.0.1", true),
        (&["203.0.113.7 198.51.100.1"], "127.0.0.1", true),
        (&["203.0.113.7/32"], "127.0.0.1", true),
        (&["fe80::1%eth0"], "127.0.0.1", true),
        (&["\u{7f51}"], "127.0.0.1", true),
        (&["[203.0.113.7"], "127.0.0.1", true),
    ];
    for (lines, client, counted) in cases {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", line.as_bytes().try_into().unwrap());
        }
        let expected = Caller { address: address(client), counted };
        assert_eq!(caller_behind(address("127.0.0.1"), &headers, &trusted), expected, "{lines:?}");
    }
}

#[test]
fn a_header_without_an_address_does_not_evade_the_limit() {
    let server = TestServer::start(&["--trusted-proxy=127.0.0.1", "--max-connections-per-ip=3"]);
    let asked: Vec<_> =
        (0..10).map(|number| ask_for(&server, &format!("garbage{number}"))).collect();
    assert_eq!(asked.iter().filter(|(status, _)| *status == 101).count(), 3);
    assert_eq!(asked.iter().filter(|(status, _)| *status == 429).count(), 7);
}

#[test]
fn without_a_limit_nobody_is_counted() {
    let server = TestServer::start(&[
        "--trusted-proxy=127.0.0.1",
        "--max-connections-per-ip=0",
        "--join-rate=0",
    ]);
    let open: Vec<_> = (0..100).map(|_| ask_for(&server, "203.0.113.7")).collect();
    assert!(open.iter().all(|(status, _)| *status == 101));
}

/// Joins for `client` and leaves, or returns the status and all that follows it.
fn join_and_leave(address: SocketAddr, client: &str) -> Result<(), (u16, String)> {
    let stream = TcpStream::connect(address).expect("the server listens");
    let (status, mut stream) = ask(stream, &format!("X-Forwarded-For: {client}\r\n"));
    if status == 101 {
        return Ok(());
    }
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("text");
    Err((status, rest))
}

#[test]
fn an_address_that_joins_and_leaves_all_the_time_is_told_429_and_when_to_come_back() {
    const RATE: u64 = 2;
    const BURST: u64 = 3;
    let limits = [format!("--join-rate={RATE}"), format!("--max-connections-per-ip={BURST}")];
    let options = ["--listen=127.0.0.1:0", "--trusted-proxy=127.0.0.1", &limits[0], &limits[1]];
    let program = Program::start(&mut command(&options));
    let start = Instant::now();
    let (mut joined, mut refused) = (0, 0);
    while refused < 20 {
        match join_and_leave(program.address, "2001:db8::1") {
            Ok(()) => joined += 1,
            Err((429, rest))
                if rest.ends_with("2001:db8::/64 joins too often; wait a moment\n") =>
            {
                assert!(rest.to_lowercase().contains("\r\nretry-after: 1\r\n"), "{rest}");
                refused += 1;
            }
            // Until those that have left are gone.
            Err((status, rest)) => {
                let full = rest.contains("too many connections from 2001:db8::/64");
                assert!(status == 429 && full && start.elapsed() < DEADLINE, "{status} {rest}");
            }
        }
    }
    let elapsed = start.elapsed();
    let joined_max = BURST + RATE * (elapsed.as_secs() + 1);
    assert!((1..=joined_max).contains(&joined), "{joined} in {elapsed:?}");
    // The page is no join, another address is another, and this host's own are not counted.
    let page = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 2001:db8::1\r\n\r\n";
    eventually("a free connection", || {
        exchange(program.address, page).starts_with("HTTP/1.1 200 ").then_some(())
    });
    assert_eq!(join_and_leave(program.address, "2001:db8:0:1::1"), Ok(()));
    for _ in 0..20 {
        assert_eq!(join_and_leave(program.address, "127.0.0.1"), Ok(()));
    }
    eventually("its next join", || join_and_leave(program.address, "2001:db8::2").ok());
    program.signal("TERM");
    let (status, log) = program.ended();
    let told = "refused: 429 joining_too_fast (GET \"/ws\"): 2001:db8::/64 joins too often";
    assert!(status.success() && log.contains(told), "{log}");
}

/// Adds addresses to the loopback interface of this process's own network.
fn add_addresses(addresses: &[&str]) {
    for address in addresses {
        // Without `nodad`, the system first asks the network whether an IPv6 address is taken.
        let nodad = if address.contains(':') { " nodad" } else { "" };
        ip(&format!("address add {address} dev lo{nodad}"));
    }
}

/// Two addresses of each version.
const ADDRESSES: [&str; 4] = ["192.0.2.1/32", "192.0.2.2/32", "2001:db8::1/128", "2001:db8::2/128"];

fn connect_from(source: &str, server: SocketAddr) -> TcpStream {
    eventually("a connection", || {
        let socket =
            Socket::new(Domain::for_address(server), Type::STREAM, None).expect("a socket");
        socket
            .bind(&SocketAddr::new(source.parse().expect("an address"), 0).into())
            .expect("an address of ours");
        match socket.connect(&server.into()) {
            Ok(()) => Some(socket.into()),
            // The kernel adds the routes to new addresses a little later.
            Err(error) if error.kind() == ErrorKind::NetworkUnreachable => None,
            Err(error) => panic!("from {source}: {error}"),
        }
    })
}

#[test]
fn a_direct_client_is_counted_whatever_its_headers_say() {
    in_own_network(|| {
        add_addresses(&ADDRESSES);
        add_addresses(&["192.0.2.9/32", "2001:db8:9::9/128"]);
        {
            let few = [
                "--max-connections-per-ip=3",
                "--trusted-proxy=192.0.2.2",
                "--handshake-timeout=1h",
            ];
            let server = TestServer::start(&[&["--listen", "[::]:0"], &few[..]].concat());
            let port = server.address.port();
            let v4 = SocketAddr::new("192.0.2.9".parse().unwrap(), port);
            let v6 = SocketAddr::new("2001:db8:9::9".parse().unwrap(), port);
            let silent: Vec<_> = (0..3).map(|_| connect_from("192.0.2.1", v4)).collect();
            for forged in ["198.51.100.1", "127.0.0.1", "192.0.2.2"] {
                let lines = format!("X-Forwarded-For: {forged}\r\n");
                assert_eq!(ask(connect_from("192.0.2.1", v4), &lines).0, 429, "{forged}");
            }
            // Refusals don't count: it is let in as soon as one of the three has gone.
            drop(silent);
            eventually("a place coming free", || {
                (ask(connect_from("192.0.2.1", v4), "").0 == 101).then_some(())
            });

            let _first = connect_from("2001:db8::1", v6);
            let _others = [connect_from("2001:db8::2", v6), connect_from("2001:db8::2", v6)];
            let (status, mut refused) = ask(connect_from("2001:db8::1", v6), "");
            let mut rest = String::new();
            refused.read_to_string(&mut rest).expect("text");
            let named = rest.ends_with("too many connections from 2001:db8::/64\n");
            assert!(status == 429 && named, "{rest}");
            // Behind the proxy are many clients, and clients on this host are no attackers.
            let proxied: Vec<_> = (0..10)
                .map(|number| {
                    ask(
                        connect_from("192.0.2.2", v4),
                        &format!("X-Forwarded-For: 203.0.113.{number}\r\n"),
                    )
                })
                .collect();
            let loopback = SocketAddr::new("127.0.0.1".parse().unwrap(), port);
            let own = [("127.0.0.2", loopback), ("192.0.2.9", v4), ("2001:db8:9::9", v6)];
            let own = own.into_iter().cycle().take(30);
            let own: Vec<_> = own.map(|(from, to)| ask(connect_from(from, to), "")).collect();
            assert!(proxied.iter().chain(&own).all(|(status, _)| *status == 101));
        }
    });
}

#[test]
fn the_log_has_the_clients_address_and_not_the_proxys() {
    let options =
        ["--listen=127.0.0.1:0", "--trusted-proxy=127.0.0.1", "--max-connections-per-ip=1"];
    let program = Program::start(command(&options).env("RUST_LOG", "debug"));
    let connect = || TcpStream::connect(program.address).expect("the server listens");
    let (_, client) = ask(connect(), "X-Forwarded-For: 203.0.113.7\r\n");
    assert_eq!(ask(connect(), "X-Forwarded-For: 203.0.113.7\r\n").0, 429);
    assert_eq!(ask(connect(), "X-Forwarded-For: 203.0.113.8\r\nOrigin: http://evil\r\n").0, 403);
    drop(client);
    eventually("its end", || program.logged().contains("gone: ").then_some(()));
    let log = program.stop();
    let parts = [
        "from 203.0.113.7 asks to join lobby",
        "from 203.0.113.7 refused: 429 too_many_from_address",
        "from 203.0.113.8 refused: 403 forbidden_origin (GET \"/ws\"): a page has the origin",
        "from 203.0.113.7 gone: 1006",
    ];
    assert_contains(&log, &parts);
    assert!(!log.contains("from 127.0.0.1"), "{log}");
}

#[test]
fn an_origin_must_be_the_hosts_own_or_allowed() {
    let allowed = [
        "--allow-origin=https://Friend.example:443,app://local",
        "--allow-origin",
        "http://other.example:81",
    ];
    let cases = [
        ("http://chat.example", "chat.example", true),
        ("https://chat.example", "chat.example", true),
        ("https://chat.example", "Chat.Example:443", true),
        ("http://CHAT.example:80", "chat.example", true),
        ("http://chat.example:8080", "chat.example:8080", true),
        ("http://[::1]:8080", "[::1]:8080", true),
        ("http://[::1]", "[::1]:80", true),
        ("http://127.0.0.1:8080", "127.0.0.1:8080", true),
        ("http://chat.example", "chat.example:443", false),
        ("https://chat.example", "chat.example:80", false),
        ("http://chat.example:8080", "chat.example", false),
        ("http://chat.example", "chat.example:8080", false),
        ("http://chat.example.evil.example", "chat.example", false),
        ("http://evil.example", "chat.example", false),
        ("http://chat.example@evil.example", "chat.example", false),
        ("http://a@b", "a@b", false),
        ("http://", "", false),
        ("ftp://chat.example", "chat.example", false),
        ("chat.example", "chat.example", false),
        ("http://chat.example/", "chat.example", false),
        ("http://chat.example:+80", "chat.example", false),
        ("http://chat.example:65616", "chat.example", false),
        ("http://localhost:8080", "127.0.0.1:8080", false),
        ("null", "chat.example", false),
        ("", "", false),
        ("*", "chat.example", false),
        ("\u{fc}ber.example", "chat.example", false),
        ("https://friend.example", "chat.example", true),
        ("https://friend.example:443", "chat.example", true),
        ("http://friend.example", "chat.example", false),
        ("https://sub.friend.example", "chat.example", false),
        ("https://friend.example:444", "chat.example", false),
        ("http://other.example:81", "chat.example", true),
        ("http://other.example", "chat.example", false),
        ("app://local", "chat.example", true),
    ];
    let own_and_allowed = config(&allowed).allow_origin;
    let with_null = config(&["--allow-origin", "null"]).allow_origin;
    let any = config(&["--allow-origin", "*"]).allow_origin;
    for (origin, host, expected) in cases {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, origin.as_bytes().try_into().unwrap());
        headers.insert(HOST, host.as_bytes().try_into().unwrap());
        assert_eq!(
            origin::is_allowed(&headers, &own_and_allowed),
            expected,
            "{origin:?} at {host:?}"
        );
        assert!(origin::is_allowed(&headers, &any), "{origin:?} at {host:?}");
        if origin == "null" {
            assert!(origin::is_allowed(&headers, &with_null));
        }
        // No browser sends two.
        headers.append(ORIGIN, "http://chat.example".try_into().unwrap());
        assert!(!origin::is_allowed(&headers, &own_and_allowed), "{origin:?} twice");
        headers.remove(ORIGIN);
        assert!(origin::is_allowed(&headers, &own_and_allowed), "no browser");
    }
    let mut headers = HeaderMap::new();
    headers.insert(ORIGIN, "http://chat.example".try_into().unwrap());
    assert!(!origin::is_allowed(&headers, &[]), "HTTP/1.0 without a host");
}

#[test]
fn a_page_of_another_site_is_refused_with_403_and_the_log_says_what_to_do() {
    let program = Program::start(
        command(&["--listen=127.0.0.1:0"]).env("PARLOUR_ALLOW_ORIGIN", "http://a,http://b"),
    );
    let connect = || TcpStream::connect(program.address).expect("the server listens");
    for (origin, status) in [
        ("http://localhost", 101),
        ("http://b", 101),
        ("http://evil\u{e9}\"", 403),
        ("null", 403),
        ("http://c", 403),
    ] {
        assert_eq!(ask(connect(), &format!("Origin: {origin}\r\n")).0, status, "{origin:?}");
    }
    assert_eq!(ask(connect(), &format!("Origin: http://{}\r\n", "e".repeat(4000))).0, 403);
    // Only the chat checks the origin. Of other responses, browsers decide what a page may read.
    for path in ["/", "/healthz"] {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil\r\n\r\n");
        assert!(exchange(program.address, request.as_bytes()).starts_with("HTTP/1.1 200 "));
    }
    let log = program.stop();
    let parts = [
        r#"has the origin "http://evil\xc3\xa9\"" and the host "localhost"; if that page may chat here, --allow-origin"#,
        r#"has the origin "null" and the host "localhost""#,
    ];
    assert_contains(&log, &parts);
    assert!(log.is_ascii() || !log.contains('\u{e9}'), "{log}");
    assert!(log.lines().all(|line| line.len() < 500), "{log}");
}

/// True if the server keeps this connection open, and has sent nothing.
fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn connections_without_a_request_give_way_to_others() {
    // 33 places for requests.
    let server = TestServer::start(&["--max-connections=12", "--handshake-timeout=1h"]);
    let mut members = vec![Client::join(&server, "first")];
    let mut silent = Vec::new();
    for number in 0..500 {
        let mut stream = connect(&server);
        let head: &[u8] = if number % 2 == 0 { b"GET /ws?name=x HTTP/1.1\r\nHost: " } else { b"" };
        stream.write_all(head).expect("a socket takes that much");
        silent.push(stream);
        if number % 50 == 49 {
            let name = format!("m{number}");
            members.push(Client::join(&server, &name));
            members[0].say(&name);
            for member in &mut members {
                assert_has(&member.next_of("public"), json!({"content": name}));
            }
        }
    }
    // When this last one has its response, all before it were accepted. It takes a place, too.
    assert!(get(server.address, "/healthz").ends_with("ok\n"));
    let kept = silent.split_off(500 - 32);
    assert!(kept.iter().all(is_open), "the newest are kept");
    for (number, mut cut) in silent.into_iter().enumerate() {
        cut.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut start = [0; 12];
        cut.read_exact(&mut start).unwrap_or_else(|error| panic!("{number}: {error}"));
        assert_eq!(&start, b"HTTP/1.1 503", "{number}");
    }
    // One of those that were kept can still make its request.
    let (status, _) = ask(kept.into_iter().next_back().expect("32 of them"), "");
    assert_eq!(status, 101);
}

#[test]
fn a_flood_of_connections_is_logged_once_a_second() {
    let program = Program::start(&mut command(&["--listen=127.0.0.1:0", "--max-connections=1"]));
    let start = Instant::now();
    let silent: Vec<_> = (0..500)
        .map(|_| TcpStream::connect(program.address).expect("the server listens"))
        .collect();
    assert!(get(program.address, "/healthz").ends_with("ok\n"));
    drop(silent);
    program.signal("TERM");
    eventually("the end", || program.logged().contains("stopped").then_some(()));
    assert_logged_rarely(&program, "cutting the oldest, among them that from 127.0.0.1:", start);
    assert!(!program.logged().contains(" cut\n"));
}

#[test]
fn an_address_with_too_many_connections_loses_its_own() {
    in_own_network(|| {
        add_addresses(&ADDRESSES);
        // 33 places for requests.
        let many = ["--max-connections=8", "--max-connections-per-ip=0", "--handshake-timeout=1h"];
        let server = TestServer::start(&[&["--listen", "[::]:0"], &many[..]].concat());
        let at = |host: &str| SocketAddr::new(host.parse().unwrap(), server.address.port());
        let slow = connect_from("192.0.2.1", at("192.0.2.1"));
        let others: Vec<_> = (0..20).map(|_| connect_from("192.0.2.2", at("192.0.2.1"))).collect();
        let sources = ["2001:db8::1", "2001:db8::2"];
        let crowd: Vec<_> =
            (0..200).map(|n| connect_from(sources[n % 2], at("2001:db8::1"))).collect();
        // When this last one has its response, all before it were accepted.
        assert_eq!(ask(connect_from("2001:db8::1", at("2001:db8::1")), "").0, 101);
        assert_eq!(crowd.iter().filter(|stream| is_open(stream)).count(), 16);
        assert_eq!(others.iter().filter(|stream| is_open(stream)).count(), 15);
        assert_eq!(ask(slow, "").0, 101);
    });
}

#[test]
fn responses_are_whole_even_if_clients_keep_their_connections_open() {
    // Clients that don't hang up after their response hold all 33 places, until the oldest lose
    // them.
    let server = TestServer::start(&["--max-connections=8"]);
    let ask = |_| {
        let mut stream = connect(&server);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut response = vec![0];
        // The first byte shows that the response is being sent. Only then the next client asks.
        stream.read_exact(&mut response).expect("a response");
        (stream, response)
    };
    let responses: Vec<String> = (0..200)
        .map(ask)
        .collect::<Vec<_>>()
        .into_iter()
        .map(|(mut stream, mut response)| {
            stream.read_to_end(&mut response).expect("a clean end");
            String::from_utf8(response).expect("text")
        })
        .collect();
    let first = &responses[0];
    assert!(first.starts_with("HTTP/1.1 200 ") && first.trim_end().ends_with("</html>"));
    // They may take more than a second, and then they have different dates.
    let undated = |response: &str| {
        response.lines().filter(|line| !line.starts_with("date: ")).collect::<Vec<_>>().join("\n")
    };
    assert!(responses.iter().all(|response| undated(response) == undated(first)));
}

#[test]
fn a_place_is_free_as_soon_as_its_client_has_gone_even_if_it_may_come_back() {
    let server = TestServer::start(&["--max-connections=1", "--leave-grace", "1h"]);
    for name in ["Ann", "Bob", "Cid"] {
        let (status, stream) = eventually("the place", || {
            let (status, stream) = ask(connect(&server), "");
            (status == 101).then_some((status, stream))
        });
        assert_eq!(status, 101, "{name}");
        assert_eq!(ask(connect(&server), "").0, 503, "{name}");
        drop(stream);
    }
}
