//! The lines that a user types: messages and commands.

use crate::protocol::fold::{fold, fold_within};
use crate::protocol::name::{FOLDED_CHARS_MAX, NAME_CHARS_MAX};

/// The answer to `/help`.
pub const HELP: &str = "Enter sends what you typed to everyone.
/msg NAME TEXT sends TEXT to one member privately.
/who lists who is here.
/quit leaves; so do Ctrl-D and Ctrl-C.
//TEXT sends text that begins with a slash.
Tab completes names; the arrow keys bring back what you typed before.";

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum TypedLine {
    /// Nothing: the line is blank.
    Blank,
    /// A message to everyone.
    Public(String),
    /// A message to one member.
    Private { to: String, content: String },
    /// `/who`
    Who,
    /// `/help`
    Help,
    /// `/quit`
    Quit,
    /// A command that can't be carried out, and why. It is never sent as a message: it may have
    /// been meant for one member only.
    Invalid(&'static str),
}

impl TypedLine {
    /// Parses a line. `members` are the names of all members of the room.
    pub fn parse<'a>(line: &str, members: impl Iterator<Item = &'a str>) -> TypedLine {
        let line = line.trim_end();
        let Some(command) = line.strip_prefix('/') else {
            return if line.is_empty() {
                TypedLine::Blank
            } else {
                TypedLine::Public(line.to_owned())
            };
        };
        if command.starts_with('/') {
            return TypedLine::Public(command.to_owned());
        }
        let (word, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        match word {
            "msg" => match split_recipient(rest.trim_start(), members) {
                Some((to, content)) => TypedLine::Private { to, content },
                None => TypedLine::Invalid("write /msg NAME TEXT"),
            },
            "who" => TypedLine::Who,
            "help" => TypedLine::Help,
            "quit" => TypedLine::Quit,
            _ => TypedLine::Invalid(
                "there is no such command; \
                 /help lists the commands, and //TEXT sends text that begins with a slash",
            ),
        }
    }
}

/// Splits what follows `/msg` into the recipient's name and the text.
///
/// Names may contain spaces, so the longest name that matches is taken. If none does, the first
/// word is: the server replies that nobody has that name.
fn split_recipient<'a>(
    rest: &str,
    members: impl Iterator<Item = &'a str>,
) -> Option<(String, String)> {
    let members: Vec<String> = members.map(fold).collect();
    let is_member = |end: &usize| {
        fold_within(&rest[..*end], FOLDED_CHARS_MAX).is_some_and(|name| members.contains(&name))
    };
    let ends = rest.match_indices(char::is_whitespace).map(|(end, _)| end);
    let longest = ends.take(NAME_CHARS_MAX).filter(is_member).max();
    let end = longest.or_else(|| rest.find(char::is_whitespace))?;
    let (to, content) = rest.split_at(end);
    let (to, content) = (to.trim_end(), content.trim_start());
    (!to.is_empty() && !content.is_empty()).then(|| (to.to_owned(), content.to_owned()))
}
