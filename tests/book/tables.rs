//! The book's tables, and the service's defaults, have what the code has: options, codes, names.

use clap::CommandFactory;
use parlour::config::Config;
use parlour::http::response;
use parlour::protocol::close::CloseReason;
use parlour::protocol::message::{CONTENT_BYTES_MAX, ErrorCode};
use parlour::protocol::name::{FOLDED_CHARS_MAX, NAME_CHARS_MAX};
use parlour::protocol::refusal::Refusal;
use parlour::terminal::connection::Timeouts;
use parlour::terminal::received::{
    ERROR_CHARS_MAX, MEMBERS_MAX, MESSAGE_BYTES_MAX, TOKEN_BYTES_MAX,
};

const CHATTING: &str = include_str!("../../src/book/chatting.md");
const OPERATING: &str = include_str!("../../src/book/operating.md");
const PERFORMANCE: &str = include_str!("../../src/book/performance.md");
const PROTOCOL: &str = include_str!("../../src/book/protocol.md");
const README: &str = include_str!("../../README.md");
const SERVICE_DEFAULTS: &str = include_str!("../../src/debian/parlour.default");

/// The rows of the table in `page` whose first column is headed `heading`. Cells are without the
/// marks of code.
pub fn table(page: &str, heading: &str) -> Vec<Vec<String>> {
    let head = format!("| {heading} |");
    let mut tables = page.lines().skip_while(|line| !line.starts_with(&head));
    assert!(
        tables.next().is_some() && tables.next().is_some_and(|line| line.starts_with("| --- |")),
        "{head}"
    );
    let rows = tables.take_while(|line| line.starts_with('|'));
    let cells = |row: &str| {
        row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect()
    };
    rows.map(cells).collect()
}

/// Each option's name, as in a flag, and its default.
fn options() -> Vec<(String, Option<String>)> {
    let command = Config::command();
    let named = command.get_arguments().filter_map(|argument| {
        let name = argument.get_long()?.to_owned();
        let default = argument
            .get_default_values()
            .first()
            .map(|value| value.to_str().expect("text").to_owned());
        Some((name, default))
    });
    named.collect()
}

fn sorted<T: Ord>(list: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut list: Vec<T> = list.into_iter().collect();
    list.sort();
    list
}

#[test]
fn every_option_has_its_row_with_its_default_and_nothing_else_has() {
    // For an option without a default, the table has words for people.
    let words = ["none", "what the system allows"];
    let told = table(OPERATING, "option").into_iter().map(|row| {
        let default = Some(row[1].clone()).filter(|default| !words.contains(&default.as_str()));
        (row[0].trim_start_matches("--").to_owned(), default)
    });
    assert_eq!(sorted(told), sorted(options()));
}

#[test]
fn every_option_is_an_environment_variable_of_its_name() {
    for argument in Config::command().get_arguments() {
        let Some(name) = argument.get_long() else { continue };
        let variable = format!("PARLOUR_{}", name.to_uppercase().replace('-', "_"));
        assert_eq!(
            argument.get_env().and_then(|variable| variable.to_str()),
            Some(&*variable),
            "--{name}"
        );
    }
}

#[test]
fn the_service_names_every_option_with_its_default() {
    let lines =
        SERVICE_DEFAULTS.lines().filter_map(|line| line.strip_prefix("#PARLOUR_")?.split_once('='));
    let told: Vec<(String, String)> = lines
        .map(|(name, value)| (name.to_lowercase().replace('_', "-"), value.to_owned()))
        .collect();
    assert_eq!(
        sorted(told.iter().map(|(name, _)| name.clone())),
        sorted(options().into_iter().map(|(name, _)| name))
    );
    for (name, default) in options() {
        let value = &told.iter().find(|(told, _)| *told == name).expect("the names are the same").1;
        assert!(default.is_none_or(|default| default == *value), "--{name} {value}");
    }
    // Every line works as it is.
    let flags: Vec<String> = told.iter().map(|(name, value)| format!("--{name}={value}")).collect();
    Config::read(std::iter::once("parlour").chain(flags.iter().map(String::as_str)))
        .expect("options that go together");
    // Nothing is set until an owner takes a # away.
    assert!(SERVICE_DEFAULTS.lines().all(|line| line.is_empty() || line.starts_with('#')));
}

#[test]
fn every_close_code_has_its_row_and_its_name_is_what_is_sent() {
    let told = table(PROTOCOL, "close code")
        .into_iter()
        .map(|row| (row[0].parse().expect("a number"), row[1].clone()));
    let meant = CloseReason::ALL.map(|reason| {
        // Two bytes of header and two of code stand before the text.
        let text = String::from_utf8(reason.to_frame()[4..].to_vec()).expect("text");
        let said = reason != CloseReason::ConnectionLost && !text.is_empty();
        assert!(!said || text == reason.name(), "{reason:?} says {text}");
        (
            reason.code(),
            if said { reason.name().to_owned() } else { format!("({})", reason.name()) },
        )
    });
    assert_eq!(sorted(told), sorted(meant));
}

#[test]
fn every_error_code_has_its_row() {
    let told = table(PROTOCOL, "error code").into_iter().map(|row| row[0].clone());
    assert_eq!(sorted(told), sorted(ErrorCode::ALL.map(|code| code.name().to_owned())));
}

#[test]
fn every_refusal_has_its_row_and_is_told_from_the_others() {
    let told = table(PROTOCOL, "status")
        .into_iter()
        .map(|row| (row[0].parse().expect("a number"), row[1].clone()));
    let meant = Refusal::ALL.map(|refusal| (refusal.status().as_u16(), refusal.name().to_owned()));
    assert_eq!(sorted(told), sorted(meant));
    for refusal in Refusal::ALL {
        let response = match refusal.status().as_u16() {
            429 => response::refusal(refusal, "no", response::RETRY_AFTER_DEFAULT),
            503 => response::unavailable(refusal),
            _ => response::text(refusal.status(), "no"),
        };
        assert_eq!(Refusal::of(&response), Some(refusal));
    }
    assert_eq!(Refusal::of(&response::text(tungstenite::http::StatusCode::OK, "yes")), None);
}

#[test]
fn the_first_page_has_rows_of_the_chapter_on_performance() {
    let measured = table(PERFORMANCE, "64-byte contents");
    let shown = table(README, "parlour / Go / Bun");
    assert!(!shown.is_empty());
    for row in shown {
        assert!(measured.contains(&row), "{row:?}");
    }
}

#[test]
fn the_bounds_for_a_server_are_those_of_the_client() {
    let told: Vec<String> =
        table(CHATTING, "what the server sends").into_iter().map(|row| row[1].clone()).collect();
    let mebibytes = |bytes: usize| format!("{} MiB", bytes >> 20);
    let meant = [
        mebibytes(MESSAGE_BYTES_MAX),
        format!("{}, the most that --max-message-bytes can be", mebibytes(CONTENT_BYTES_MAX)),
        format!("{},{:03}", MEMBERS_MAX / 1000, MEMBERS_MAX % 1000),
        format!("{FOLDED_CHARS_MAX} characters"),
        format!("{TOKEN_BYTES_MAX} bytes"),
    ];
    assert_eq!(told, meant);
    let Timeouts { answer, quiet } = Timeouts::default();
    let prose = CHATTING.replace('\n', " ");
    for part in [
        format!("cut after {NAME_CHARS_MAX} characters"),
        format!("errors after {ERROR_CHARS_MAX}"),
        format!("{} seconds for its whole answer", answer.as_secs()),
        // A ping may bring an answer in the middle of this time.
        format!("{} seconds for each message", 2 * quiet.as_secs()),
    ] {
        assert!(prose.contains(&part), "{part}");
    }
}
