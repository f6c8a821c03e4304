//! How text is broken into the rows of a terminal.

use parlour::terminal::rows::break_rows;
use proptest::prelude::*;
use rustyline::GraphemeClusterMode;

const INDENT: &str = "      ";

fn rows(text: &str, columns: usize) -> Vec<String> {
    let (rows, widest) = break_rows(text, columns);
    let rows: Vec<String> = rows.lines().map(str::to_owned).collect();
    assert!(rows.iter().all(|row| columns_of(row) <= widest), "{widest}: {rows:?}");
    rows
}

/// Columns by a terminal that knows no grapheme clusters. Those that do need fewer.
fn columns_of(row: &str) -> usize {
    let width = |c: char| usize::from(GraphemeClusterMode::WcWidth.width(&c.to_string()));
    unpainted(row).chars().map(width).sum()
}

fn unpainted(row: &str) -> String {
    row.split('\x1b').fold(String::new(), |text, part| match part.split_once('m') {
        Some((style, rest)) if style.starts_with('[') => text + rest,
        _ => text + part,
    })
}

#[test]
fn only_the_first_row_begins_in_the_first_column() {
    let text = "12:00 Mallory: one two three\n12:00 Alice: four";
    assert_eq!(rows(text, 80), ["12:00 Mallory: one two three", "      12:00 Alice: four"]);
    assert_eq!(
        rows(text, 20),
        ["12:00 Mallory: one ", "      two three", "      12:00 Alice: ", "      four"]
    );
    assert_eq!(rows("one\n\ntwo", 80), ["one", INDENT, "      two"]);
}

#[test]
fn a_word_is_broken_if_it_is_longer_than_half_a_row() {
    let address = "https://example.org/a/long/address";
    assert_eq!(
        rows(&format!("Bob: {address}"), 20),
        ["Bob: https://example", "      .org/a/long/ad", "      dress"]
    );
    // Chinese has no spaces, and a break between any two characters.
    assert_eq!(rows("Bob: 一二三四五六七八九", 20), ["Bob: 一二三四五六七", "      八九"]);
    assert_eq!(rows("Bob: 一二三四五六 abc", 20), ["Bob: 一二三四五六 ", "      abc"]);
}

#[test]
fn a_row_is_never_broken_within_what_people_see_as_one_character() {
    let whole = ["e\u{301}", "👩\u{200D}🚀", "👋🏿", "🇨🇳", "각"];
    for cluster in whole {
        for before in 0..40 {
            let rows = rows(&format!("{}{cluster}", "x".repeat(before)), 20);
            assert!(rows.last().is_some_and(|row| row.ends_with(cluster)), "{rows:?}");
        }
    }
}

#[test]
fn colours_take_no_columns() {
    let painted = "\x1b[2m12:00\x1b[0m \x1b[1;31mMallory\x1b[0m: one two";
    assert_eq!(
        rows(painted, 20),
        ["\x1b[2m12:00\x1b[0m \x1b[1;31mMallory\x1b[0m: one ", "      two"]
    );
}

#[test]
fn a_terminal_that_is_too_narrow_shows_the_beginnings_of_rows() {
    assert_eq!(rows("one two three four five", 0), ["one two three four ", "      five"]);
}

/// Text as `to_printable` leaves it, with much that terminals show in more or less than a column.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-z]{1,30}",
        " {1,4}",
        Just("\n".to_owned()),
        "[一-龠]{1,20}",
        "[\u{1F1E6}-\u{1F1FF}…—❤\u{FE0F}👩\u{200D}🚀\u{301}\u{200C}ᄀ각]{1,80}",
        Just("\x1b[2mdim\x1b[0m".to_owned()),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn every_row_fits_and_nothing_is_lost(text in text(), columns in 20usize..90) {
        let rows = rows(&text, columns);
        for (number, row) in rows.iter().enumerate() {
            prop_assert!(columns_of(row) <= columns, "{row:?}");
            prop_assert!(number == 0 || row.starts_with(INDENT), "{row:?}");
        }
        let solid = |text: &str| text.replace([' ', '\n'], "");
        prop_assert_eq!(solid(&rows.concat()), solid(&text));
    }
}
