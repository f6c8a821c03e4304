//! What can be seen of a text, by Unicode's tables.
//!
//! A message may hold anything, as long as something in it can be seen. A name must be seen as a
//! whole: whatever is invisible could make it pass for another name.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::{canonical_combining_class, is_combining_mark};
use unicode_properties::{GeneralCategory, UnicodeEmoji, UnicodeGeneralCategory};
use unicode_script::{Script, UnicodeScript};
use unicode_security::skeleton;

/// Marks that may stand on one another, as UTS #39 (5.4) has it. A Vietnamese letter has up to 2,
/// a Thai one 2, a Hebrew one with its cantillation and a Burmese one 4.
const MARKS_MAX: usize = 4;
/// Canonical_Combining_Class of a virama, which joins consonants.
const VIRAMA: u8 = 9;
const ZERO_WIDTH_NON_JOINER: char = '\u{200C}';
const ZERO_WIDTH_JOINER: char = '\u{200D}';
/// Asks for the coloured form of the character before it. Phones add it to many emoji.
const EMOJI_STYLE: char = '\u{FE0F}';
const BLACK_FLAG: char = '\u{1F3F4}';
const CANCEL_TAG: char = '\u{E007F}';

/// True if there is something to see in `text`.
pub fn can_be_seen(text: &str) -> bool {
    text.chars().any(|c| !c.is_whitespace() && !is_invisible(c))
}

/// True if everybody can see what `text` consists of.
///
/// It has no invisible characters, except those that scripts and emoji need in their place, and no
/// characters that look different to everyone or are not in Unicode yet. Each mark stands on
/// something.
pub fn is_legible(text: &str) -> bool {
    let is_known = |c: char| {
        !matches!(c.general_category(), GeneralCategory::Unassigned | GeneralCategory::PrivateUse)
    };
    let is_in_place = |(at, c): (usize, char)| {
        !is_invisible(c) || is_needed(&text[..at], c, &text[at + c.len_utf8()..])
    };
    text.chars().all(is_known) && text.char_indices().all(is_in_place) && marks_stand(text)
}

/// True for characters that show nothing or reverse the text around them.
///
/// These are control characters, line separators, the characters that Unicode calls ignorable, and
/// some that it doesn't: notes for other programs (U+FFF9 to U+FFFC, U+13430 to U+1343F), and the
/// letters, marks and symbols that are blank.
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{2028}'..='\u{2029}' | '\u{2800}' | '\u{FFF9}'..='\u{FFFC}'
            | '\u{13430}'..='\u{1343F}' | '\u{13441}'..='\u{13442}' | '\u{16FE4}' | '\u{1D159}')
        || is_ignorable(c)
}

/// True for Default_Ignorable_Code_Point, which UTS #39 leaves out of a skeleton, and nothing else.
pub fn is_ignorable(c: char) -> bool {
    !c.is_ascii() && skeleton(c.encode_utf8(&mut [0; 4])).next().is_none()
}

/// True if the invisible character `c` has a purpose between `before` and `after`.
///
/// These are the joiners of RFC 5892 (appendix A), and more of them where people type them: before
/// a virama, as in Bengali and Kannada, and behind Arabic letters that would not join anyway. Then
/// the joiners, styles and flags of emoji (UTS #51), and variations of letters without case, such
/// as those of Han and Mongolian. None of them makes two names differ.
fn is_needed(before: &str, c: char, after: &str) -> bool {
    let (previous, next) = (before.chars().next_back(), after.chars().next());
    let is_virama = |c: Option<char>| c.is_some_and(|c| canonical_combining_class(c) == VIRAMA);
    match c {
        ZERO_WIDTH_NON_JOINER => is_virama(previous) || divides_word(before, after),
        ZERO_WIDTH_JOINER => {
            let emoji = before.strip_suffix(EMOJI_STYLE).unwrap_or(before).chars().next_back();
            let is_emoji = |c: Option<char>| c.is_some_and(|c| !c.is_ascii() && c.is_emoji_char());
            is_virama(previous) || is_virama(next) || is_emoji(emoji) && is_emoji(next)
        }
        '\u{FE00}'..='\u{FE0F}' | '\u{E0100}'..='\u{E01EF}' => previous.is_some_and(|base| {
            base.is_emoji_char() || base.general_category() == GeneralCategory::OtherLetter
        }),
        '\u{180B}'..='\u{180F}' => previous.is_some_and(|c| c.script() == Script::Mongolian),
        _ => belongs_to_flag(before, c, after),
    }
}

/// True if `before` ends and `after` begins with a letter of one script, in which letters join.
fn divides_word(before: &str, after: &str) -> bool {
    use Script::{Adlam, Arabic, Hanifi_Rohingya, Mandaic, Mongolian, Nko, Syriac};
    // Vowels and other marks are between the letter and the joiner.
    let last = before.chars().rev().find(|&c| is_invisible(c) || !is_combining_mark(c));
    let script = |c: Option<char>| c.filter(|c| c.is_alphabetic()).map(|c| c.script());
    script(last) == script(after.chars().next())
        && matches!(
            script(last),
            Some(Adlam | Arabic | Hanifi_Rohingya | Mandaic | Mongolian | Nko | Syriac)
        )
}

/// True if the tag `c` belongs to the flag of a part of a country: a black flag, the tags that
/// spell the part, such as `gbeng`, and the end of the tags.
fn belongs_to_flag(before: &str, c: char, after: &str) -> bool {
    let is_letter = |c: char| matches!(c, '\u{E0030}'..='\u{E0039}' | '\u{E0061}'..='\u{E007A}');
    let flag = before.trim_end_matches(is_letter);
    let is_in_place = if c == CANCEL_TAG {
        flag.len() < before.len()
    } else {
        is_letter(c) && after.trim_start_matches(is_letter).starts_with(CANCEL_TAG)
    };
    is_in_place && flag.ends_with(BLACK_FLAG)
}

/// True if each mark in `text` stands on something that can be seen, no mark on its like, and not
/// too many on one another.
fn marks_stand(text: &str) -> bool {
    let (mut previous, mut has_base, mut stacked) = (None, false, 0);
    text.nfd().filter(|&c| !is_invisible(c)).all(|c| {
        let is_like = previous.replace(c) == Some(c);
        match c.general_category() {
            GeneralCategory::NonspacingMark | GeneralCategory::EnclosingMark => {
                stacked += 1;
                has_base && stacked <= MARKS_MAX && !is_like
            }
            GeneralCategory::SpacingMark => {
                stacked = 0;
                has_base
            }
            _ => {
                (has_base, stacked) = (!c.is_whitespace(), 0);
                true
            }
        }
    })
}
