//! When two names are the same, and when they look alike, by Unicode's tables.

use unicode_normalization::UnicodeNormalization;

use super::visible::is_ignorable;

/// Bytes that one folded character takes, however it is written. Three characters of four bytes
/// are one in some scripts.
const WRITTEN_BYTES_MAX: usize = 12;
/// Turkish ı, whose capital is that of i too. Unicode's case folding leaves it as it is.
const DOTLESS_I: char = 'ı';

/// Folds `text`: two texts that fold to the same are the same name.
///
/// This is NFKC_Casefold, which forgets case, width, style and what is ignorable. Besides, white
/// space becomes single spaces between words, as in RFC 8266, and Cherokee, which Unicode folds to
/// its capitals, becomes lower case like everything else.
pub fn fold(text: &str) -> String {
    let letters = letters(text, usize::MAX).expect("no text is longer");
    compose(&letters)
}

/// Folds `text`, unless that makes more than `chars_max` characters: then it returns `None`.
///
/// However long the text is, hardly any time is spent on it. One that is mostly ignorable may be
/// too long although what it folds to is not.
pub fn fold_within(text: &str, chars_max: usize) -> Option<String> {
    let bytes_max = chars_max * WRITTEN_BYTES_MAX;
    let letters = (text.len() <= bytes_max).then(|| letters(text, bytes_max))??;
    Some(compose(&letters)).filter(|folded| folded.chars().nth(chars_max).is_none())
}

/// Returns what names that look like `text` have in common: the skeleton of UTS #39, folded.
///
/// The skeleton comes first, since case makes a difference to the eye: `I` looks like `l`, `i` does
/// not. It comes once more for what looks different only in capitals or in another width: `M` does
/// not look like `rn`, but is the same as `m`, which does.
pub fn skeleton(text: &str) -> String {
    let look = |text: &str| fold(&unicode_security::skeleton(text).collect::<String>());
    look(&look(text))
}

/// Takes letters apart and folds their case. `None` if that makes more than `bytes_max`.
///
/// Not inlined, so that its stack and that of `compose` don't add up: a client's thread has little.
#[inline(never)]
fn letters(text: &str, bytes_max: usize) -> Option<String> {
    let mut letters = String::new();
    for c in text.chars().filter(|&c| !is_ignorable(c)).nfkd() {
        if c == DOTLESS_I {
            letters.push(c);
        } else {
            // Several letters of one case may share one of the other: ς and σ; ẞ, ß and ss.
            let upper = c.to_lowercase().flat_map(char::to_uppercase);
            letters.extend(upper.flat_map(char::to_lowercase));
        }
        if letters.len() > bytes_max {
            return None;
        }
    }
    Some(letters)
}

/// Puts letters together, and one space between words. Not inlined, like `letters`.
#[inline(never)]
fn compose(letters: &str) -> String {
    let mut composed = String::new();
    for word in letters.nfkc().collect::<String>().split_whitespace() {
        if !composed.is_empty() {
            composed.push(' ');
        }
        composed.push_str(word);
    }
    composed
}
