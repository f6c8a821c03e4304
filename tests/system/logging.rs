//! How fast the log grows, whatever visitors do.

use std::time::{Duration, Instant};

use parlour::system::logging::Kind;

use crate::support::eventually;
use crate::support::program::{Program, command};
use crate::support::raw::{CLOSE, FIN, RawClient, exchange, masked};

/// Lines of one kind in a second.
const LINES_MAX: usize = 5;

#[test]
fn a_kind_has_so_many_lines_a_second_and_the_next_one_counts_the_others() {
    let mut kind = Kind::default();
    let start = Instant::now();
    let mut at = |millis| {
        let due = kind.due(2, start + Duration::from_millis(millis));
        due.map(|more| more.to_string())
    };
    let nothing_left_out = Some(String::new());
    assert_eq!([at(0), at(900)], [nothing_left_out.clone(), nothing_left_out.clone()]);
    assert_eq!([at(901), at(999), at(999)], [None, None, None]);
    assert_eq!(at(1000), Some(" (and 3 more like it)".to_owned()));
    assert_eq!([at(1999), at(1999)], [nothing_left_out.clone(), None]);
    assert_eq!(at(60_000), Some(" (and 1 more like it)".to_owned()));
    assert_eq!(at(60_001), nothing_left_out);
}

/// The lines of `log` that have `part`, and how many others they count.
fn counted(log: &str, part: &str) -> (usize, usize) {
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(part)).collect();
    let more = lines.iter().filter_map(|line| {
        line.split_once(" (and ")?.1.strip_suffix(" more like it)")?.parse::<usize>().ok()
    });
    (lines.len(), more.sum())
}

/// What was never counted by another line of the kind, from the end of the log.
fn left_over(log: &str, kind: &str) -> usize {
    let list = log.split_once("left out of the log since the last line of each kind: ");
    let counts = list.map_or("", |(_, list)| list.lines().next().expect("a line")).split(", ");
    counts
        .filter_map(|count| count.strip_prefix(kind)?.strip_prefix(' ')?.parse::<usize>().ok())
        .sum()
}

#[test]
fn visitors_write_a_few_lines_a_second_and_every_one_is_counted() {
    const VISITS: usize = 100;
    let program = Program::start(&mut command(&["--listen=127.0.0.1:0", "--leave-grace=0"]));
    let start = Instant::now();
    for number in 0..VISITS {
        let mut client = RawClient::connect_to(program.address, &format!("name=n{number}"));
        client.send(&masked(FIN | CLOSE, &1000u16.to_be_bytes()));
        assert_eq!(client.closed().0, 1000);
        let request = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert!(exchange(program.address, request).starts_with("HTTP/1.1 404 "));
    }
    let elapsed = start.elapsed();
    eventually("a line that counts others", || {
        RawClient::connect_to(program.address, "name=%FF").closed();
        program.logged().contains(" more like it)").then_some(())
    });
    program.signal("TERM");
    let (status, log) = program.ended();
    assert!(status.success(), "{log}");
    let lines_max = LINES_MAX * (elapsed.as_secs() as usize + 2);
    for (part, kind) in [
        ("asks to join lobby", "join"),
        ("gone: 1000 client_closed", "client_closed"),
        ("refused: 404 not_found", "not_found"),
    ] {
        let (lines, more) = counted(&log, part);
        assert!((1..=lines_max).contains(&lines), "{lines} in {elapsed:?}: {log}");
        assert_eq!(lines + more + left_over(&log, kind), VISITS, "{part} in {log}");
    }
}
