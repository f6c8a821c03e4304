//! How messages look in a terminal. Nothing from the network gets there as more than text.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::conversation::Said;
use crate::protocol::fold::fold;
use crate::protocol::message;
use crate::protocol::visible::is_invisible;

/// Colours for names (ECMA-48 SGR, and the bright ones that every terminal since has). Black and white are left out: one of
/// them is the background.
const NAME_COLOURS: [u8; 12] = [31, 32, 33, 34, 35, 36, 91, 92, 93, 94, 95, 96];
const DIM: &str = "2";
/// What stands before each further line of a content, so that none passes for a message of its own.
const INDENT: &str = "      ";
/// Whom the lines are for.
const YOU: &str = "you";
/// What this program's own lines on standard error begin with.
pub const PROGRAM: &str = "parlour";
/// FNV-1a, 32 bits.
const FNV_BASIS: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

/// Turns what is said into lines.
pub struct Show {
    /// Whether names have colours.
    pub colours: bool,
    /// Whether the time stands before each line; a program that reads it has a clock.
    pub times: bool,
    zone: TimeZone,
    /// Day of the last line.
    day: Option<Date>,
}

impl Show {
    /// Nothing shown yet.
    pub fn new(colours: bool, times: bool) -> Show {
        Show { colours, times, zone: TimeZone::system(), day: None }
    }

    /// The lines for `said`, with a line end; `me` is whom they are for.
    ///
    /// A public message begins with a name; everything else with a mark that no name begins with as it is shown. So nobody
    /// can pass one for the other, colours or none.
    pub fn lines(&mut self, said: &Said, me: &str) -> String {
        let name = |name: &str| if name == me { YOU.to_owned() } else { self.name(name) };
        let (ts, text) = match said {
            Said::Public { user, content, ts } => {
                (*ts, format!("{}: {}", self.name(user), body(content)))
            }
            Said::Private { user, to, content, ts } => {
                let between = format!("{} → {}", name(user), name(to));
                (*ts, format!("{} {between}: {}", self.paint("(private)", DIM), body(content)))
            }
            Said::Joined { user, ts } => {
                (*ts, self.paint(&format!("* {} joined", shown_name(user)), DIM))
            }
            Said::Left { user, ts } => {
                (*ts, self.paint(&format!("* {} left", shown_name(user)), DIM))
            }
            Said::Entered(note) | Said::Note(note) => return self.note(note),
            Said::Failed { content, why } => return self.note(&undelivered(content, why)),
        };
        match self.times {
            true => format!("{}{text}\n", self.clock(ts)),
            false => format!("{text}\n"),
        }
    }

    /// The lines for something of this program's own.
    fn note(&self, note: &str) -> String {
        format!("{}\n", self.paint(&format!("· {}", body(note)), DIM))
    }

    /// The time of day, after a line for the day where it is another than before. Nothing for a time that no calendar has.
    fn clock(&mut self, ts: message::Timestamp) -> String {
        let Some(at) = i64::try_from(ts).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok())
        else {
            return String::new();
        };
        let at = at.to_zoned(self.zone.clone());
        let time = self.paint(&at.strftime("%H:%M").to_string(), DIM);
        let new_day = self.day.replace(at.date()) != Some(at.date());
        match new_day {
            true => format!(
                "{}\n{time} ",
                self.paint(&at.strftime("— %A, %-d %B %Y —").to_string(), DIM)
            ),
            false => format!("{time} "),
        }
    }

    fn name(&self, name: &str) -> String {
        let hash = fold(name)
            .bytes()
            .fold(FNV_BASIS, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(FNV_PRIME));
        // The low bits of FNV differ least between short names.
        let colour = NAME_COLOURS[(hash ^ hash >> 16) as usize % NAME_COLOURS.len()];
        self.paint(&shown_name(name), &format!("1;{colour}"))
    }

    /// `text` in `style` (the parameters of SGR), if there are colours.
    fn paint(&self, text: &str, style: &str) -> String {
        match self.colours {
            true => format!("\x1b[{style}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

/// Whether a character may reach a terminal as it is. No control characters (C0, C1, so no escape sequence either), nothing
/// that turns text around or hides in it, but for what joins letters and emoji.
pub fn may_stand(c: char) -> bool {
    !is_invisible(c) || matches!(c, '\u{200C}' | '\u{200D}' | '\u{FE00}'..='\u{FE0F}')
}

/// `name` as it stands in a line: in quotes if without them it could pass for something else, such as the beginning of a
/// private message, a notice, or another's name and words.
fn shown_name(name: &str) -> String {
    let own_word = [YOU, PROGRAM].contains(&fold(name).as_str());
    let like_mark = !name.starts_with(char::is_alphanumeric);
    if own_word || like_mark || name.contains(is_delimiter) {
        return format!("\"{}\"", clean(&name.replace('\\', r"\\").replace('"', r#"\""#)));
    }
    clean(name)
}

/// What ends a name in a line, and its look-alikes: colons and arrows.
fn is_delimiter(c: char) -> bool {
    matches!(c,
        ':' | '\u{2D0}' | '\u{2236}' | '\u{A789}' | '\u{FE13}' | '\u{FE55}' | '\u{FF1A}'
            | '\u{2190}'..='\u{21FF}' | '\u{2794}'..='\u{27BF}' | '\u{27F0}'..='\u{27FF}' | '\u{2900}'..='\u{297F}'
            | '\u{2B00}'..='\u{2B11}' | '\u{2B30}'..='\u{2B4F}' | '\u{2B5A}'..='\u{2BBF}' | '\u{FFE9}'..='\u{FFEC}')
}

/// A message that was not delivered, in words.
pub fn undelivered(content: &str, why: &str) -> String {
    format!("not delivered: {} ({})", clean(content), clean(why))
}

/// `text` on one line, with everything visible.
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if may_stand(c) { c.to_string() } else { c.escape_unicode().to_string() })
        .collect()
}

/// A content: its lines below each other, each with everything visible.
fn body(content: &str) -> String {
    let lines: Vec<String> =
        content.lines().map(|line| clean(&line.replace('\t', "    "))).collect();
    lines.join(&format!("\n{INDENT}"))
}
