//! The metrics, as a monitor reads them.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use parlour::system::process::start_time_seconds;
use serde_json::json;

use crate::support::eventually;
use crate::support::program::{Program, command};
use crate::support::raw::{CLOSE, FIN, RawClient, ask, exchange, get, masked, text, upgrade};

fn program() -> (Program, SocketAddr) {
    let options = ["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", "--message-rate=0"];
    let program = Program::start(&mut command(&options));
    let metrics = program.metrics.expect("a listener for scrapers");
    (program, metrics)
}

fn scrape(address: SocketAddr) -> String {
    let response = get(address, "/metrics");
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    assert!(
        head.starts_with("HTTP/1.1 200 ") && head.contains("text/plain; version=0.0.4"),
        "{head}"
    );
    body.to_owned()
}

/// Returns each series with its value.
fn series(address: SocketAddr) -> BTreeMap<String, f64> {
    let text = scrape(address);
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            line.rsplit_once(' ').map(|(name, n)| (name.to_owned(), n.parse().unwrap())).unwrap()
        })
        .collect()
}

#[test]
fn messages_connections_and_responses_are_counted() {
    let (program, metrics) = program();
    let before = series(metrics);
    assert_eq!(
        before["parlour_disconnects_total{code=\"1013\",reason=\"too_slow\"}"], 0.0,
        "a series is there before its first event"
    );
    let mut ann = RawClient::connect_to(program.address, "name=Ann");
    // The upgrade comes before the place in the room, so Bob waits until Ann has hers.
    ann.next_of("join");
    let mut bob = RawClient::connect_to(program.address, "name=Bob");
    ann.next_of("join");
    for message in [
        json!({"type": "public", "content": "hello"}),
        json!({"type": "private", "to": "Bob", "content": "psst"}),
        json!({"type": "private", "to": "Ann", "content": "to myself"}),
    ] {
        ann.send(&text(&message));
    }
    bob.next_of("private");
    ann.next_of("private");
    ann.next_of("private");
    bob.send(&masked(FIN | CLOSE, &1000_u16.to_be_bytes()));
    ann.next_of("leave");
    get(program.address, "/nowhere");
    exchange(program.address, upgrade("").replace("13", "12").as_bytes());

    // Each event is counted by the thread it happens in, a moment later.
    let now = eventually("the counts", || {
        let now = series(metrics);
        (now["parlour_connections"] == 1.0 && now["parlour_clients"] == 1.0).then_some(now)
    });
    for (name, expected) in [
        ("parlour_messages_total{type=\"public\"}", 1.0),
        ("parlour_messages_total{type=\"private\"}", 2.0),
        ("parlour_deliveries_total", 5.0),
        ("parlour_message_queueing_seconds_count", 3.0),
        ("parlour_rooms", 1.0),
        ("parlour_absent_members", 0.0),
        ("parlour_evictions_total", 0.0),
        ("parlour_connections_accepted_total", 4.0),
        ("parlour_http_responses_total{status=\"101\"}", 2.0),
        ("parlour_http_responses_total{status=\"404\"}", 1.0),
        ("parlour_http_responses_total{status=\"426\"}", 1.0),
        ("parlour_refusals_total{reason=\"not_found\"}", 1.0),
        ("parlour_refusals_total{reason=\"websocket_version\"}", 1.0),
        ("parlour_refusals_total{reason=\"server_full\"}", 0.0),
        ("parlour_disconnects_total{code=\"1000\",reason=\"client_closed\"}", 1.0),
    ] {
        assert_eq!(now[name], expected, "{name}");
    }
    assert!(now["parlour_received_bytes_total"] > 100.0 && now["parlour_sent_bytes_total"] > 500.0);
    assert!(now["parlour_write_delay_seconds_count"] >= 5.0);
    assert!(now.keys().any(|name| name.starts_with("parlour_connections_max{limit=\"")));
    program.stop();
}

#[test]
fn a_full_server_counts_refusals_under_the_name_in_the_log() {
    let options = ["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", "--max-connections=1"];
    let program = Program::start(&mut command(&options));
    let metrics = program.metrics.expect("a listener for scrapers");
    let mut ann = RawClient::connect_to(program.address, "name=Ann");
    ann.next_of("join");
    assert!(exchange(program.address, upgrade("name=Bob").as_bytes()).starts_with("HTTP/1.1 503 "));
    let now = series(metrics);
    assert_eq!(now["parlour_refusals_total{reason=\"server_full\"}"], 1.0);
    assert_eq!(now["parlour_http_responses_total{status=\"503\"}"], 1.0);
    assert_eq!(now["parlour_connections_max{limit=\"--max-connections\"}"], 1.0);
    let log = program.stop();
    assert!(log.contains("refused: 503 server_full"), "{log}");
}

#[test]
fn the_process_has_metrics() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    // The kernel knows the boot to a second, and the start since then to a hundredth of one.
    let earliest = now() - 1.01;
    let (program, metrics) = program();
    let before = series(metrics);
    let start = before["process_start_time_seconds"];
    assert!(earliest < start && start <= now(), "{earliest} {start}");
    assert!(before["process_resident_memory_bytes"] > 1e6);
    let mut ann = RawClient::connect_to(program.address, "name=Ann");
    ann.next_of("join");
    // Its two threads and its descriptor. The scraper before may still have its own.
    let now = eventually("what a client takes, and nothing else", || {
        let now = series(metrics);
        let more = |name: &str| now[name] - before[name];
        (more("process_threads") == 2.0 && more("process_open_fds") == 1.0).then_some(now)
    });
    // Each scrape takes some time of the processor. A tick is a hundredth of a second.
    eventually("a tick", || {
        (series(metrics)["process_cpu_seconds_total"] > now["process_cpu_seconds_total"])
            .then_some(())
    });
    program.stop();
}

#[test]
fn the_start_of_the_process_follows_a_clock_that_is_set() {
    // A program may have any name.
    let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 25 50 0 0 20 0 9 0 12345 1 2";
    let system = |boot: &str| format!("cpu  1 2 3\nintr 5 6\nbtime {boot}\nprocesses 9\n");
    // A clock that knows nothing yet, then the time from the network.
    for (boot, start) in [("0", 123.45), ("1795650000", 1_795_650_123.45)] {
        assert_eq!(start_time_seconds(stat, &system(boot)), Some(start));
    }
    for (stat, system) in [("", system("1")), (stat, String::new()), (stat, system("soon"))] {
        assert_eq!(start_time_seconds(stat, &system), None);
    }
}

#[test]
fn absent_members_and_broken_connections_are_counted() {
    let (program, metrics) = program();
    let mut ann = RawClient::connect_to(program.address, "name=Ann");
    ann.next_of("join");
    drop(ann);
    eventually("the absence", || (series(metrics)["parlour_absent_members"] == 1.0).then_some(()));
    let lost = "parlour_disconnects_total{code=\"1006\",reason=\"connection_lost\"}";
    eventually("the end", || (series(metrics)[lost] == 1.0).then_some(()));
    program.stop();
}

#[test]
fn metrics_have_a_listener_of_their_own() {
    let (program, metrics) = program();
    assert!(get(program.address, "/metrics").starts_with("HTTP/1.1 404 "));
    assert!(get(metrics, "/").starts_with("HTTP/1.1 404 "));
    assert!(
        exchange(metrics, b"POST /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .starts_with("HTTP/1.1 405 ")
    );
    assert!(exchange(metrics, b"nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
    // A connection without a request there does not delay a stop.
    let _silent = std::net::TcpStream::connect(metrics).unwrap();
    program.stop();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = command(&["--listen=127.0.0.1:0", "--metrics-listen", &address]).output().unwrap();
    assert!(
        !output.status.success()
            && String::from_utf8_lossy(&output.stderr).contains("--metrics-listen")
    );
}

#[test]
fn a_scraper_does_not_wait_for_those_who_say_nothing() {
    let (program, metrics) = program();
    let connect = || std::net::TcpStream::connect(metrics).expect("it listens");
    let before = series(metrics)["process_threads"];
    // One after the other they would take minutes.
    let silent: Vec<_> = (0..100).map(|_| connect()).collect();
    let now = series(metrics);
    assert!(now["process_threads"] < before + 8.0, "{now:?}");
    // Nor for those who are slow to say it, nor for those who do not hang up after the response.
    let talking: Vec<_> = (0..100)
        .map(|number| {
            let mut stream = connect();
            let request: &[u8] =
                if number % 2 == 0 { b"GET /metrics HTTP/1.0\r\n\r\n" } else { b"GET /m" };
            stream.write_all(request).expect("it reads");
            stream
        })
        .collect();
    series(metrics);
    // Nobody is left when they have gone.
    drop((silent, talking));
    eventually("the end of their threads", || {
        (series(metrics)["process_threads"] == before).then_some(())
    });
    program.stop();
}

#[test]
fn the_listener_of_the_metrics_explains_itself() {
    let (program, metrics) = program();
    for (lines, status, part) in [
        ("OPTIONS /metrics HTTP/1.0", 204, "\r\nallow: get, head, options\r\n"),
        ("OPTIONS * HTTP/1.0", 204, "\r\nallow: get, head, options\r\n"),
        ("BREW /metrics HTTP/1.0", 501, "\r\ndate: "),
        ("HEAD /metrics HTTP/1.0", 200, "\r\ndate: "),
        ("PUT /metrics HTTP/1.0", 405, "\r\nallow: get, head, options\r\n"),
        ("GET /?secret HTTP/1.0", 404, "at /metrics"),
        ("\u{16}\u{3}\u{1}", 400, "a tls hello"),
    ] {
        let (got, response) = ask(metrics, lines);
        assert!(got == status && response.contains(part), "{lines:?}: {response}");
    }
    let log = program.stop();
    let line = "refused: 404 not_found (GET \"/\"): nothing here";
    assert!(log.contains(line) && !log.contains("secret"), "{log}");
    assert!(
        log.contains("refused: 400 bad_request (no request line): not a request: a TLS"),
        "{log}"
    );
}

#[test]
fn promtool_accepts_the_metrics() {
    let (program, metrics) = program();
    RawClient::connect_to(program.address, "name=Ann").next_of("join");
    let text = scrape(metrics);
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    match promtool {
        Ok(mut promtool) => {
            promtool
                .stdin
                .take()
                .expect("piped")
                .write_all(text.as_bytes())
                .expect("promtool reads");
            let output = promtool.wait_with_output().expect("promtool ends");
            assert!(
                output.status.success() && output.stderr.is_empty(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Err(error) if std::env::var_os("PARLOUR_REQUIRE_PROMTOOL").is_none() => {
            eprintln!("LEFT OUT: no promtool (Debian: apt-get install prometheus): {error}");
        }
        Err(error) => panic!("promtool: {error}"),
    }
    program.stop();
}

#[test]
fn the_book_names_every_metric() {
    let (program, metrics) = program();
    let chapter = include_str!("../../src/book/operating.md");
    // A metric with labels appears with its first event.
    get(program.address, "/");
    let text = scrape(metrics);
    let names: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for name in &names {
        assert!(
            chapter.contains(&format!("`{name}`")) || chapter.contains(&format!("`{name}{{")),
            "{name}"
        );
    }
    let table = chapter
        .lines()
        .filter(|line| line.starts_with("| `parlour_") || line.starts_with("| `process_"));
    let in_book = table.flat_map(|line| {
        line.split('`').filter(|word| word.starts_with("parlour_") || word.starts_with("process_"))
    });
    for name in in_book.map(|name| name.split('{').next().unwrap()) {
        assert!(names.contains(&name), "only the book has {name}");
    }
    program.stop();
}
