//! Which characters may reach a terminal. No text from the network gets there as more than text.

use crate::protocol::name::is_invisible;

/// True if a terminal shows `c` as text and does nothing else with it.
///
/// Control characters are not printable, C0 or C1, so no escape sequence is. Neither is a character
/// that is invisible or turns the text around, except those that join letters or emoji.
pub fn is_printable(c: char) -> bool {
    !is_invisible(c) || matches!(c, '\u{200C}' | '\u{200D}' | '\u{FE00}'..='\u{FE0E}')
}

/// Returns `text` on one line, with an escape such as `\u{1b}` for each character that is not
/// printable.
pub fn to_printable(text: &str) -> String {
    text.chars()
        .map(|c| if is_printable(c) { c.to_string() } else { c.escape_unicode().to_string() })
        .collect()
}

/// Returns `text`, cut after `chars_max` characters, with an ellipsis for the rest.
pub fn shorten(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
