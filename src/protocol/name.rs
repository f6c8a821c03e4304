//! The rules for the names of members and rooms.

use super::close::CloseReason;

/// Longest name of a member, in Unicode scalar values.
pub const NAME_CHARS_MAX: usize = 32;
/// Longest name of a room, in bytes, which are ASCII.
pub const ROOM_BYTES_MAX: usize = 64;
/// Room of a client that names none.
pub const ROOM_DEFAULT: &str = "lobby";

/// Asks for the coloured form of the character before it. Phones add it to many emoji, so names
/// may contain it, but it does not make two names different.
const EMOJI_STYLE: char = '\u{FE0F}';

/// Trims and checks a member's name.
///
/// # Errors
/// [`CloseReason::InvalidName`] if it is empty, too long, or contains an invisible character, by
/// which it could pass for another name.
pub fn parse_name(text: &str) -> Result<String, CloseReason> {
    let name = text.trim();
    let too_long = name.chars().nth(NAME_CHARS_MAX).is_some();
    if too_long || name.chars().any(is_invisible) || fold_case(name).is_empty() {
        return Err(CloseReason::InvalidName);
    }
    Ok(name.to_owned())
}

/// Checks a room's name.
///
/// # Errors
/// [`CloseReason::InvalidRoom`] unless it is 1 to [`ROOM_BYTES_MAX`] of `a-z A-Z 0-9 _ -`.
pub fn parse_room(text: &str) -> Result<String, CloseReason> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !(1..=ROOM_BYTES_MAX).contains(&text.len()) || !text.bytes().all(allowed) {
        return Err(CloseReason::InvalidRoom);
    }
    Ok(text.to_owned())
}

/// True for characters that show nothing or reverse the text around them.
///
/// These are control characters, line separators, interlinear marks, the empty Braille pattern, and
/// Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt) except the emoji style.
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}'..='\u{1160}' | '\u{17B4}'..='\u{17B5}'
            | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{2800}' | '\u{3164}' | '\u{FE00}'..='\u{FE0E}'
            | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}' | '\u{1BCA0}'..='\u{1BCA3}'
            | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
}

/// Folds `name` to the form in which names are compared.
///
/// Lower case, upper case and lower case again, since several letters of one case may share one of
/// the other (ς and σ, ẞ, ß and ss).
pub fn fold_case(name: &str) -> String {
    name.chars()
        .filter(|&c| c != EMOJI_STYLE)
        .flat_map(char::to_lowercase)
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .collect()
}
