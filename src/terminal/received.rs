//! What the server sends, parsed from JSON. The sending side is
//! [`ServerMessage`](crate::protocol::message::ServerMessage).

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::protocol::message::Timestamp;
use crate::terminal::printable::is_printable;

/// A message from the server. Fields that the terminal does not need are left out.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Received {
    /// The first message on each connection.
    Welcome(Welcome),
    /// A member's message to everyone.
    Public {
        user: String,
        content: String,
        seq: u64,
        #[serde(rename = "ref")]
        reference: Option<String>,
        ts: Timestamp,
    },
    /// A member's message to one other. Its sender receives a copy.
    Private {
        user: String,
        to: String,
        content: String,
        #[serde(rename = "ref")]
        reference: Option<String>,
        ts: Timestamp,
    },
    /// A member joined the room.
    Join { user: String, ts: Timestamp },
    /// A member left the room.
    Leave { user: String, ts: Timestamp },
    /// The server could not do something, such as deliver the message with this reference.
    Error {
        code: String,
        content: String,
        #[serde(rename = "ref")]
        reference: Option<String>,
    },
    /// A message that only a later version of the server has.
    #[serde(other)]
    Unknown,
}

/// What a connection begins with.
#[derive(Debug, Deserialize)]
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

impl Received {
    /// Parses a text message. Returns `None` if it is not one that a server sends.
    pub fn parse(text: &str) -> Option<Received> {
        serde_json::from_str(text).ok()
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
