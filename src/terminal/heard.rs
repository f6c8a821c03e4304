//! What the server says, read from its JSON. The same messages as [`ServerMessage`](crate::protocol::message::ServerMessage) writes.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::printable::is_printable;

/// A message from the server. Fields that nothing here needs are left out, those of later versions are ignored.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Heard {
    /// The first on each connection; `history` public messages follow.
    Welcome {
        user: String,
        room: String,
        users: Vec<String>,
        epoch: String,
        seq: u64,
        history: u64,
        session: String,
    },
    /// To everyone.
    Public {
        user: String,
        content: String,
        seq: u64,
        #[serde(rename = "ref")]
        receipt: Option<String>,
        ts: u64,
    },
    /// To one member, and a copy to who wrote it.
    Private {
        user: String,
        to: String,
        content: String,
        #[serde(rename = "ref")]
        receipt: Option<String>,
        ts: u64,
    },
    /// Somebody came.
    Join { user: String, ts: u64 },
    /// Somebody went.
    Leave { user: String, ts: u64 },
    /// Something could not be done.
    Error {
        content: String,
        #[serde(rename = "ref")]
        receipt: Option<String>,
    },
    /// What a later version of the server may say.
    #[serde(other)]
    Other,
}

impl Heard {
    /// Reads a text message. `None` for what is not one of the server's.
    pub fn parse(text: &str) -> Option<Heard> {
        serde_json::from_str(text).ok()
    }
}

/// The JSON object in `text` on one line, as it came. What would reach a terminal as more than text is escaped, which in
/// JSON says the same. `None` if it is no JSON object.
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
            // Raw in JSON, these stand between tokens.
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
