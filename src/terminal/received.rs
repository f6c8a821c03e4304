//! What the server sends, parsed from JSON. The sending side is
//! [`ServerMessage`](crate::protocol::message::ServerMessage).
//!
//! The server may mean harm. So every field has a bound, under which all that a server of parlour
//! can be set to send fits, and parsing allocates no more than the text is long. Beyond a bound
//! nothing is kept: [`Excess`] ends the chat.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::protocol::message::{CONTENT_BYTES_MAX, Timestamp};
use crate::protocol::name::{FOLDED_CHARS_MAX, NAME_CHARS_MAX};
use crate::terminal::printable::{is_printable, shorten};

/// Longest text message to accept, in bytes. The longest content is 6 MiB if every byte of it is
/// escaped; a welcome with [`MEMBERS_MAX`] of the longest names is about as long.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Most members of a room to know. A server needs two threads for each.
pub const MEMBERS_MAX: usize = 50_000;
/// Longest session or epoch. They go back to the server in the address of the next connection.
pub const TOKEN_BYTES_MAX: usize = 64;
/// Characters to keep of the server's words for an error.
pub const ERROR_CHARS_MAX: usize = 500;

/// A message from the server. Fields that the terminal does not need are left out.
#[derive(Debug)]
pub enum Received {
    /// The first message on each connection.
    Welcome(Welcome),
    /// A member's message to everyone.
    Public { user: String, content: String, seq: u64, reference: Option<String>, ts: Timestamp },
    /// A member's message to one other. Its sender receives a copy.
    Private { user: String, to: String, content: String, reference: Option<String>, ts: Timestamp },
    /// A member joined the room.
    Join { user: String, ts: Timestamp },
    /// A member left the room.
    Leave { user: String, ts: Timestamp },
    /// The server could not do something, such as deliver the message with this reference.
    Error { code: String, content: String, reference: Option<String> },
    /// A message that only a later version of the server has.
    Unknown,
}

/// What a connection begins with.
#[derive(Debug)]
pub struct Welcome {
    /// The name that this client has in the room.
    pub user: String,
    pub room: String,
    /// The names of all members.
    pub users: Vec<String>,
    /// Changes when the room starts again and its numbers begin again.
    pub epoch: String,
    /// The number of the newest public message.
    pub seq: u64,
    /// Public messages that follow from the room's history.
    pub history: u64,
    /// The secret that lets this client return to its place.
    pub session: String,
}

/// More than any server of parlour sends: what it sent too much of, as in "it sent …".
#[derive(Debug, PartialEq, Eq)]
pub struct Excess(String);

impl Excess {
    /// For more than `max` of `what`.
    pub fn over(max: usize, what: &str) -> Excess {
        Excess(format!("more than {max} {what}"))
    }

    /// Checks that the server sent up to `max` of `what`.
    ///
    /// # Errors
    /// If it sent more.
    pub fn check(sent: usize, max: usize, what: &str) -> Result<(), Excess> {
        if sent > max { Err(Excess::over(max, what)) } else { Ok(()) }
    }
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Received {
    /// Parses a text message. Returns `None` if it is not one that a server sends.
    ///
    /// # Errors
    /// [`Excess`] if it goes beyond a bound.
    pub fn parse(text: &str) -> Result<Option<Received>, Excess> {
        let Some(received) = serde_json::from_str(text).ok().and_then(|fields| read(&fields))
        else {
            return Ok(None);
        };
        match &received {
            Received::Public { content, .. } | Received::Private { content, .. } => {
                Excess::check(content.len(), CONTENT_BYTES_MAX, "bytes in a message")?;
            }
            Received::Welcome(Welcome { users, epoch, session, room, .. }) => {
                Excess::check(users.len(), MEMBERS_MAX, "members")?;
                for token in [epoch, session] {
                    Excess::check(token.len(), TOKEN_BYTES_MAX, "bytes in a field of its welcome")?;
                }
                // This goes back to the server as well.
                let room_chars = room.chars().count();
                Excess::check(room_chars, FOLDED_CHARS_MAX, "characters in the name of its room")?;
            }
            _ => {}
        }
        Ok(Some(received))
    }
}

/// The fields of any message, still unparsed and not copied. Unknown fields are ignored; `null`
/// counts as absent.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    user: Option<&'a RawValue>,
    #[serde(borrow)]
    to: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    seq: Option<&'a RawValue>,
    #[serde(borrow, rename = "ref")]
    reference: Option<&'a RawValue>,
    #[serde(borrow)]
    ts: Option<&'a RawValue>,
    #[serde(borrow)]
    room: Option<&'a RawValue>,
    #[serde(borrow)]
    users: Option<&'a RawValue>,
    #[serde(borrow)]
    epoch: Option<&'a RawValue>,
    #[serde(borrow)]
    history: Option<&'a RawValue>,
    #[serde(borrow)]
    session: Option<&'a RawValue>,
    #[serde(borrow)]
    code: Option<&'a RawValue>,
}

/// Parses the fields that the message's type has. `None` if one is missing or of another type.
fn read(fields: &Fields) -> Option<Received> {
    let kind: String = parse(fields.kind)?;
    let reference = || match fields.reference {
        Some(raw) => parse(Some(raw)).map(Some),
        None => Some(None),
    };
    Some(match kind.as_str() {
        "welcome" => Received::Welcome(Welcome {
            user: name(fields.user)?,
            room: parse(fields.room)?,
            users: parse::<Names>(fields.users)?.0,
            epoch: parse(fields.epoch)?,
            seq: parse(fields.seq)?,
            history: parse(fields.history)?,
            session: parse(fields.session)?,
        }),
        "public" => Received::Public {
            user: name(fields.user)?,
            content: parse(fields.content)?,
            seq: parse(fields.seq)?,
            reference: reference()?,
            ts: parse(fields.ts)?,
        },
        "private" => Received::Private {
            user: name(fields.user)?,
            to: name(fields.to)?,
            content: parse(fields.content)?,
            reference: reference()?,
            ts: parse(fields.ts)?,
        },
        "join" => Received::Join { user: name(fields.user)?, ts: parse(fields.ts)? },
        "leave" => Received::Leave { user: name(fields.user)?, ts: parse(fields.ts)? },
        "error" => Received::Error {
            code: parse(fields.code)?,
            content: shorten(&parse::<String>(fields.content)?, ERROR_CHARS_MAX),
            reference: reference()?,
        },
        _ => Received::Unknown,
    })
}

fn parse<'a, T: Deserialize<'a>>(field: Option<&'a RawValue>) -> Option<T> {
    serde_json::from_str(field?.get()).ok()
}

/// Parses a member's name, and cuts what no server allows in one.
fn name(field: Option<&RawValue>) -> Option<String> {
    parse::<String>(field).map(|name| shorten(&name, NAME_CHARS_MAX))
}

/// The names of a room's members. If there are more than [`MEMBERS_MAX`], one more than that.
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Names, D::Error> {
        deserializer.deserialize_seq(NamesVisitor)
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = Names;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of names")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Names, A::Error> {
        let mut names = Vec::new();
        while names.len() <= MEMBERS_MAX
            && let Some(name) = list.next_element::<String>()?
        {
            names.push(shorten(&name, NAME_CHARS_MAX));
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Names(names))
    }
}

/// Returns the JSON object in `text` on one line, otherwise as it was received. `None` if `text` is
/// not a JSON object.
///
/// Characters that are not printable are escaped, which in JSON means the same.
pub fn one_line(text: &str) -> Option<Cow<'_, str>> {
    let text = text.trim_ascii();
    if !text.starts_with('{') || serde_json::from_str::<IgnoredAny>(text).is_err() {
        return None;
    }
    if text.chars().all(is_printable) {
        return Some(text.into());
    }
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if is_printable(c) => line.push(c),
            // JSON allows these unescaped only between tokens.
            '\n' | '\r' | '\t' => line.push(' '),
            c => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    line.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    Some(line.into())
}
