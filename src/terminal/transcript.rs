//! The transcript: how each entry of a conversation reads as lines of text.
//!
//! Nobody can make one kind of entry look like another, with or without colours. Only a public
//! message begins with a name. All others begin with a mark, and a name that begins like a mark
//! stands in quotes. In a terminal, only the first row of an entry begins in the first column; a
//! program reads one line for each entry.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::cli::PROGRAM;
use crate::protocol::fold::fold;
use crate::protocol::message;
use crate::terminal::conversation::Entry;
use crate::terminal::printable::to_printable;
use crate::terminal::rows::break_rows;

/// Colours for names: parameters of ECMA-48's SGR, and the bright ones that terminals added later.
/// Without black and white, one of which is the background.
const NAME_COLOURS: [u8; 12] = [31, 32, 33, 34, 35, 36, 91, 92, 93, 94, 95, 96];
const BOLD: &str = "1";
const DIM: &str = "2";
/// What a private message calls this client.
const YOU: &str = "you";
/// The constants of FNV-1a with 32 bits.
const FNV_BASIS: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

/// Writes entries as text.
pub struct Transcript {
    /// True to show names in colours.
    colours: bool,
    /// True to begin lines with the time. A program that reads them has a clock of its own.
    times: bool,
    zone: TimeZone,
    /// The day of the newest line with a time.
    day: Option<Date>,
    /// See [`widest_row`](Transcript::widest_row).
    widest_row: usize,
}

impl Transcript {
    /// Begins an empty transcript, with the machine's time zone.
    pub fn new(colours: bool, times: bool) -> Transcript {
        Transcript { colours, times, zone: TimeZone::system(), day: None, widest_row: 0 }
    }

    /// Columns of the widest row. If the window gets narrower than that, the terminal breaks the
    /// row itself.
    pub fn widest_row(&self) -> usize {
        self.widest_row
    }

    /// Counts only the rows that follow.
    pub fn forget_widest_row(&mut self) {
        self.widest_row = 0;
    }

    /// Returns the lines for `entry`, each with its end. `me` is this client's name. `columns` are
    /// those of the terminal; without them, a program reads the lines, and there is one.
    pub fn lines(&mut self, entry: &Entry, me: &str, columns: Option<usize>) -> String {
        let body = |content: &str| body(content, columns.is_some());
        let (ts, text) = match entry {
            Entry::Public { user, content, ts } => {
                (*ts, format!("{}: {}", self.name(user), body(content)))
            }
            Entry::Private { user, to, content, ts } => {
                let name = |name: &str| if name == me { YOU.to_owned() } else { self.name(name) };
                let mark = self.paint("(private)", DIM);
                (*ts, format!("{mark} {} → {}: {}", name(user), name(to), body(content)))
            }
            Entry::Joined { user, ts } => {
                (*ts, self.paint(&format!("* {} joined", distinct(user)), DIM))
            }
            Entry::Left { user, ts } => {
                (*ts, self.paint(&format!("* {} left", distinct(user)), DIM))
            }
            Entry::Greeting(note) | Entry::Note(note) => {
                return self.end(&self.note(&body(note)), columns);
            }
            Entry::Undelivered { content, why } => {
                return self.end(&self.note(&undelivered(content, why)), columns);
            }
        };
        let (date, time) = if self.times { self.time(ts) } else { Default::default() };
        let date = date.map(|date| self.end(&date, columns)).unwrap_or_default();
        date + &self.end(&format!("{time}{text}"), columns)
    }

    fn note(&self, note: &str) -> String {
        self.paint(&format!("· {note}"), DIM)
    }

    /// Returns `text` as whole lines.
    fn end(&mut self, text: &str, columns: Option<usize>) -> String {
        let Some(columns) = columns else { return format!("{text}\n") };
        let (rows, widest) = break_rows(text, columns);
        self.widest_row = self.widest_row.max(widest);
        rows
    }

    /// Returns the time of day to begin a line with, and the date if it differs from the one
    /// before. Empty for a time that no calendar has.
    fn time(&mut self, ts: message::Timestamp) -> (Option<String>, String) {
        let Some(at) = i64::try_from(ts).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok())
        else {
            return Default::default();
        };
        let at = at.to_zoned(self.zone.clone());
        let is_new_day = self.day.replace(at.date()) != Some(at.date());
        let date = || self.paint(&at.strftime("— %A, %-d %B %Y —").to_string(), DIM);
        let time = self.paint(&at.strftime("%H:%M").to_string(), DIM);
        (is_new_day.then(date), format!("{time} "))
    }

    /// Returns `name` in its colour, which is the same for everybody.
    fn name(&self, name: &str) -> String {
        let hash = fold(name)
            .bytes()
            .fold(FNV_BASIS, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(FNV_PRIME));
        // FNV mixes a short name's low bits least.
        let colour = NAME_COLOURS[(hash ^ hash >> 16) as usize % NAME_COLOURS.len()];
        self.paint(&distinct(name), &format!("{BOLD};{colour}"))
    }

    /// Returns `text` in `style`, the parameters of an SGR sequence, if there are colours.
    fn paint(&self, text: &str, style: &str) -> String {
        if self.colours { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Returns the words for a message that was not delivered.
pub fn undelivered(content: &str, why: &str) -> String {
    format!("not delivered: {} ({})", to_printable(content), to_printable(why))
}

/// Returns `name` as it stands in a line: in quotes if it could otherwise pass for something else,
/// such as a private message, a note, or another name with a message.
fn distinct(name: &str) -> String {
    let is_reserved = [YOU, PROGRAM].contains(&fold(name).as_str());
    let begins_like_mark = !name.starts_with(char::is_alphanumeric);
    if is_reserved || begins_like_mark || name.contains(is_like_delimiter) {
        let escaped = name.replace('\\', r"\\").replace('"', r#"\""#);
        return format!("\"{}\"", to_printable(&escaped));
    }
    to_printable(name)
}

/// True for what may follow a name in a line, a colon or an arrow, and for all that look like one.
fn is_like_delimiter(c: char) -> bool {
    matches!(c,
        ':' | '\u{2D0}' | '\u{2236}' | '\u{A789}' | '\u{FE13}' | '\u{FE55}' | '\u{FF1A}'
            | '\u{2190}'..='\u{21FF}' | '\u{2794}'..='\u{27BF}' | '\u{27F0}'..='\u{27FF}'
            | '\u{2900}'..='\u{297F}' | '\u{2B00}'..='\u{2B11}' | '\u{2B30}'..='\u{2B4F}'
            | '\u{2B5A}'..='\u{2BBF}' | '\u{FFE9}'..='\u{FFEC}')
}

/// Returns `content` as it is shown: on several lines only if `has_rows`.
fn body(content: &str, has_rows: bool) -> String {
    if !has_rows {
        return to_printable(content);
    }
    let mut lines: Vec<String> = content.lines().map(to_printable).collect();
    // Blank lines say no more than one, but could move everything else out of sight.
    let is_blank = |line: &str| line.trim().is_empty();
    lines.dedup_by(|line, before| is_blank(line) && is_blank(before));
    lines.join("\n")
}
