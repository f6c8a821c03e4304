//! What a person types.

use crate::protocol::fold::{fold, fold_within};
use crate::protocol::name::{FOLDED_CHARS_MAX, NAME_CHARS_MAX};

/// What `/help` says.
pub const HELP: &str = "Enter sends what you wrote to everyone.
/msg NAME TEXT   writes to one member privately
/who             tells who is here
/quit            leaves, as do Ctrl-D and Ctrl-C
//TEXT           sends what begins with a slash
Tab completes names; the arrow keys find what you wrote before.";

/// A typed line, understood.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    /// Nothing.
    Nothing,
    /// To everyone.
    Public(String),
    /// To one member.
    Private { to: String, content: String },
    /// `/who`
    Who,
    /// `/help`
    Help,
    /// `/quit`
    Quit,
    /// A command that can't be carried out, and why. It is not said to everyone: it may have been meant for one.
    Unclear(&'static str),
}

impl Typed {
    /// Reads a line. `members` are the names of those in the room.
    pub fn parse<'a>(line: &str, members: impl Iterator<Item = &'a str>) -> Typed {
        let line = line.trim_end();
        let Some(command) = line.strip_prefix('/') else {
            return if line.trim().is_empty() {
                Typed::Nothing
            } else {
                Typed::Public(line.to_owned())
            };
        };
        if command.starts_with('/') {
            return Typed::Public(command.to_owned());
        }
        let (word, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        match word {
            "msg" => match split_recipient(rest.trim_start(), members) {
                Some((to, content)) => Typed::Private { to, content },
                None => Typed::Unclear("write /msg NAME TEXT"),
            },
            "who" => Typed::Who,
            "help" => Typed::Help,
            "quit" => Typed::Quit,
            _ => Typed::Unclear(
                "there is no such command; /help lists them, and //TEXT sends what begins with a slash",
            ),
        }
    }
}

/// The name at the beginning of what follows `/msg`, and the rest. Names may contain spaces, so the longest that fits; where
/// none does, the first word, about which the server complains.
fn split_recipient<'a>(
    rest: &str,
    members: impl Iterator<Item = &'a str>,
) -> Option<(String, String)> {
    let members: Vec<String> = members.map(fold).collect();
    let fits = |end: &usize| {
        fold_within(&rest[..*end], FOLDED_CHARS_MAX).is_some_and(|name| members.contains(&name))
    };
    let spaces = rest.match_indices(char::is_whitespace).map(|(end, _)| end);
    let end = spaces.take(NAME_CHARS_MAX).filter(fits).max();
    let end = end.or_else(|| rest.find(char::is_whitespace))?;
    let (to, content) = rest.split_at(end);
    let (to, content) = (to.trim_end(), content.trim_start());
    (!to.is_empty() && !content.is_empty()).then(|| (to.to_owned(), content.to_owned()))
}
