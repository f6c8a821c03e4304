//! Which characters may reach a terminal. No text from the network gets there as more than text.

use crate::protocol::visible::is_invisible;

/// Longest run of blanks, in columns. A tab is as wide. Longer runs are cut: they could fill a row
/// up to its edge, so that what follows looks like a row of its own.
const BLANKS_MAX: usize = 4;

/// True if a terminal shows `c` as text and does nothing else with it.
///
/// Control characters are not printable, C0 or C1, so no escape sequence is. Neither is a character
/// that is invisible or turns the text around, except those that join letters or emoji.
pub fn is_printable(c: char) -> bool {
    !is_invisible(c) || is_invisible_joiner(c)
}

/// True if `c` belongs to the character before it, and shows nothing of its own.
fn is_invisible_joiner(c: char) -> bool {
    matches!(c, '\u{200C}' | '\u{200D}' | '\u{FE00}'..='\u{FE0F}')
}

/// Returns `text` on one line: with an escape such as `\n` or `\u{1b}` for each character that is
/// not printable, and with up to `BLANKS_MAX` spaces for each run of white space.
pub fn to_printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    // Spaces at the end of `printable`.
    let mut blanks = 0;
    for c in text.chars() {
        if c == '\t' || (c.is_whitespace() && is_printable(c)) {
            let wanted = blanks + if c == '\t' { BLANKS_MAX } else { 1 };
            while blanks < wanted.min(BLANKS_MAX) {
                printable.push(' ');
                blanks += 1;
            }
        } else if blanks == 0 || !is_invisible_joiner(c) {
            blanks = 0;
            if is_printable(c) {
                printable.push(c);
            } else {
                printable.extend(c.escape_default());
            }
        }
        // Behind a blank, a joiner joins nothing. It would only hide that the run goes on.
    }
    printable
}

/// Returns `text`, cut after `chars_max` characters, with an ellipsis for the rest.
pub fn shorten(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
