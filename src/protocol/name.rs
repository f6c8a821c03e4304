//! The rules for the names of members and rooms.

use std::sync::Arc;

use unicode_normalization::char::is_combining_mark;

use super::close::CloseReason;
use super::fold::{fold_within, skeleton};
use super::visible::is_legible;

/// Longest name of a member as it is typed, in Unicode scalar values.
pub const NAME_CHARS_MAX: usize = 32;
/// Longest name of a member or a room as it is folded, in Unicode scalar values. A few characters
/// fold to many: U+FDFA is a sentence of 18.
pub const FOLDED_CHARS_MAX: usize = 64;
/// Room of a client that names none.
pub const ROOM_DEFAULT: &str = "lobby";
/// Last characters of guest names. No two of them look alike: 0, 1 and m are left out, which look
/// like o, l and rn.
const GUEST_DIGITS: &[u8; 33] = b"23456789abcdefghijklnopqrstuvwxyz";

/// The name of a member, and the forms in which it is compared with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The name as its owner typed it.
    pub shown: Arc<str>,
    /// Its folded form: names with one key are the same.
    pub key: Arc<str>,
    /// Its folded skeleton: names with one skeleton look alike.
    pub skeleton: Arc<str>,
}

impl Name {
    /// Trims and checks a member's name.
    ///
    /// # Errors
    /// [`CloseReason::InvalidName`] if it is empty, longer than [`NAME_CHARS_MAX`] or, folded,
    /// [`FOLDED_CHARS_MAX`], or [not legible](is_legible).
    pub fn parse(text: &str) -> Result<Name, CloseReason> {
        let name = text.trim();
        let is_too_long = name.chars().nth(NAME_CHARS_MAX).is_some();
        if name.is_empty() || is_too_long || !is_legible(name) {
            return Err(CloseReason::InvalidName);
        }
        let key = fold_within(name, FOLDED_CHARS_MAX).ok_or(CloseReason::InvalidName)?;
        let shown: Arc<str> = name.into();
        // Most names are written in one of these forms already: one copy is enough.
        let share = |form: String, of: &Arc<str>| {
            if *form == **of { of.clone() } else { form.into() }
        };
        let key = share(key, &shown);
        let skeleton = share(skeleton(&shown), &key);
        Ok(Name { shown, key, skeleton })
    }

    /// Returns a guest's name: `guest-` and four letters or digits, which spell `number`.
    ///
    /// It is its own key and skeleton.
    pub fn guest(number: u32) -> Name {
        let mut rest = number as usize;
        let mut digits = [0; 4];
        for digit in digits.iter_mut().rev() {
            *digit = GUEST_DIGITS[rest % GUEST_DIGITS.len()];
            rest /= GUEST_DIGITS.len();
        }
        let digits: String = digits.map(char::from).iter().collect();
        let shown: Arc<str> = format!("guest-{digits}").into();
        Name { key: shown.clone(), skeleton: shown.clone(), shown }
    }

    /// Says why this name is not free: somebody else is called `other`.
    pub fn taken_by(&self, other: &Name) -> String {
        let shown = &other.shown;
        if self.key == other.key {
            format!("that name is taken by {shown}: choose another")
        } else {
            format!("that name looks like {shown}'s: choose another")
        }
    }
}

/// Whom a private message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The name as the sender typed it.
    pub typed: String,
    /// Its folded form, which is the [key](Name::key) of the member who is meant.
    pub key: String,
}

impl Recipient {
    /// Folds a name. `None` if it is longer than any name can be, however it is written.
    pub fn parse(typed: String) -> Option<Recipient> {
        let key = fold_within(&typed, FOLDED_CHARS_MAX)?;
        Some(Recipient { typed, key })
    }
}

/// Checks and folds a room's name. The folded form is the room.
///
/// # Errors
/// [`CloseReason::InvalidRoom`] unless it is 1 to [`FOLDED_CHARS_MAX`] letters, marks, digits, `_`
/// and `-`, and [legible](is_legible).
pub fn parse_room(text: &str) -> Result<String, CloseReason> {
    let is_allowed =
        |c: char| c.is_alphanumeric() || is_combining_mark(c) || matches!(c, '_' | '-');
    fold_within(text, FOLDED_CHARS_MAX)
        .filter(|room| !room.is_empty() && room.chars().all(is_allowed))
        .filter(|room| is_legible(text.trim()) && is_legible(room))
        .ok_or(CloseReason::InvalidRoom)
}
