//! The JSON messages: requests from clients, and what the server sends.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use super::frame::text_frame;
use super::name::Recipient;
use super::visible::can_be_seen;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Longest content that a server can be set to accept, in bytes of UTF-8.
pub const CONTENT_BYTES_MAX: usize = 1 << 20;
/// Longest `ref`, in bytes of UTF-8.
pub const REFERENCE_BYTES_MAX: usize = 64;
/// Longest JSON escape of one byte of a string: `\u0001`.
const JSON_ESCAPE_BYTES_MAX: usize = 6;
/// Everything in a client's message except its content: keys, `to` and `ref`, fully escaped.
const JSON_OVERHEAD_BYTES_MAX: usize = 1536;

/// The content of the error about a private message to nobody.
pub const NOBODY: &str = "nobody here has that name";

/// Milliseconds since 1970, the `ts` of every message.
pub type Timestamp = u64;

/// Longest WebSocket message that a client may send, in bytes.
///
/// Any content of `content_bytes_max` bytes fits, however it is escaped.
pub const fn frame_bytes_max(content_bytes_max: usize) -> usize {
    content_bytes_max * JSON_ESCAPE_BYTES_MAX + JSON_OVERHEAD_BYTES_MAX
}

/// A valid message from a client.
///
/// `reference` is its `ref`, an idempotency key: a message that is sent again with the same one is
/// not delivered twice.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// To everyone in the room.
    Public { content: String, reference: Option<String> },
    /// To one member, and to the sender.
    Private { to: Recipient, content: String, reference: Option<String> },
}

/// A message from a client that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
pub enum BadMessage {
    /// The client gets an `error` message, and stays connected.
    Error(ErrorReply),
    /// The content is over `--max-message-bytes`, which ends the connection.
    TooBig,
}

/// An `error` message for the client that caused it.
#[derive(Debug, PartialEq, Eq)]
pub struct ErrorReply {
    /// What programs read.
    pub code: ErrorCode,
    /// What people read.
    pub content: Cow<'static, str>,
    /// The `ref` of the message that caused it, if that could be read.
    pub reference: Option<String>,
}

impl ErrorReply {
    /// Builds the notice for a client that sends faster than `per_second` messages a second. It
    /// gets this once on each connection.
    pub fn slowed_down(per_second: u32) -> ErrorReply {
        let content = format!(
            "you send more than {per_second} messages a second: they are delivered at that pace, \
             in order, and none is lost"
        );
        ErrorReply { code: ErrorCode::SlowedDown, content: content.into(), reference: None }
    }
}

/// The `code` of an `error` message on an open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// The text is not JSON.
    BadJson,
    /// The text is JSON, but a field is missing, too long or of the wrong type.
    BadRequest,
    /// `type` is neither `public` nor `private`.
    UnknownType,
    /// There is nothing to see in `content`.
    EmptyContent,
    /// `to` names nobody in the room.
    NoSuchUser,
    /// The client sends faster than it may, and its messages wait.
    SlowedDown,
}

impl ErrorCode {
    /// All codes, for tables.
    pub const ALL: [ErrorCode; 6] = [
        ErrorCode::BadJson,
        ErrorCode::BadRequest,
        ErrorCode::UnknownType,
        ErrorCode::EmptyContent,
        ErrorCode::NoSuchUser,
        ErrorCode::SlowedDown,
    ];

    /// The code as written in the JSON.
    pub fn name(self) -> &'static str {
        match self {
            ErrorCode::BadJson => "bad_json",
            ErrorCode::BadRequest => "bad_request",
            ErrorCode::UnknownType => "unknown_type",
            ErrorCode::EmptyContent => "empty_content",
            ErrorCode::NoSuchUser => "no_such_user",
            ErrorCode::SlowedDown => "slowed_down",
        }
    }
}

/// The fields of a client's message, still unparsed. Unknown fields are ignored; `null` counts as
/// absent.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    to: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow, rename = "ref")]
    reference: Option<&'a RawValue>,
}

impl Request {
    /// Parses a text message from a client.
    ///
    /// It never recurses, however deep the nesting: serde_json skips ignored and raw values in a
    /// loop. So a client thread's small stack is enough.
    ///
    /// # Errors
    /// [`BadMessage`] says which rule the text breaks.
    pub fn parse(text: &str, content_bytes_max: usize) -> Result<Request, BadMessage> {
        let fields = Fields::parse(text)?;
        let reference = fields.reference()?;
        let reference = reference.as_deref();
        let to = match &*required(fields.kind, "type", reference)? {
            "public" => None,
            "private" => Some(required(fields.to, "to", reference)?.into_owned()),
            _ => {
                let problem = "type is public or private";
                return Err(error_reply(ErrorCode::UnknownType, problem, reference));
            }
        };
        let content = required(fields.content, "content", reference)?;
        if content.len() > content_bytes_max {
            return Err(BadMessage::TooBig);
        }
        if !can_be_seen(&content) {
            return Err(error_reply(ErrorCode::EmptyContent, "content is empty", reference));
        }
        // The text is in the read buffer, which is reused: what must outlive it is copied here.
        let (content, reference) = (content.into_owned(), reference.map(str::to_owned));
        let Some(to) = to else { return Ok(Request::Public { content, reference }) };
        let Some(to) = Recipient::parse(to) else {
            return Err(error_reply(ErrorCode::NoSuchUser, NOBODY, reference.as_deref()));
        };
        Ok(Request::Private { to, content, reference })
    }
}

impl<'a> Fields<'a> {
    fn parse(text: &'a str) -> Result<Fields<'a>, BadMessage> {
        // serde would also accept an array with the fields in order.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(malformed(text, "a message is a JSON object"));
        }
        serde_json::from_str(text).map_err(|error| malformed(text, &error.to_string()))
    }

    fn reference(&self) -> Result<Option<Cow<'a, str>>, BadMessage> {
        let reference = self.reference.map(|raw| string(raw, "ref", None)).transpose()?;
        if reference.as_ref().is_some_and(|reference| reference.len() > REFERENCE_BYTES_MAX) {
            let problem = format!("ref is over {REFERENCE_BYTES_MAX} bytes");
            return Err(error_reply(ErrorCode::BadRequest, problem, None));
        }
        Ok(reference)
    }
}

/// Returns the string of the field called `name`, which must not be missing.
fn required<'a>(
    field: Option<&'a RawValue>,
    name: &str,
    reference: Option<&str>,
) -> Result<Cow<'a, str>, BadMessage> {
    match field {
        Some(raw) => string(raw, name, reference),
        None => Err(error_reply(ErrorCode::BadRequest, format!("{name} is missing"), reference)),
    }
}

/// A string, borrowed if nothing in it is escaped.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Parses `raw`, which must be a string.
fn string<'a>(
    raw: &'a RawValue,
    name: &str,
    reference: Option<&str>,
) -> Result<Cow<'a, str>, BadMessage> {
    // Checked by its first byte: for a number out of range, serde_json would report the range.
    if !raw.get().starts_with('"') {
        return Err(error_reply(
            ErrorCode::BadRequest,
            format!("{name} is not a string"),
            reference,
        ));
    }
    serde_json::from_str(raw.get())
        .map(|Text(text)| text)
        .map_err(|error| error_reply(ErrorCode::BadJson, format!("{name}: {error}"), reference))
}

/// Builds the error for a text that is not JSON, or for JSON that is not a message.
fn malformed(text: &str, problem: &str) -> BadMessage {
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => error_reply(ErrorCode::BadRequest, problem.to_owned(), None),
        Err(error) => error_reply(ErrorCode::BadJson, error.to_string(), None),
    }
}

fn error_reply(
    code: ErrorCode,
    content: impl Into<Cow<'static, str>>,
    reference: Option<&str>,
) -> BadMessage {
    BadMessage::Error(ErrorReply {
        code,
        content: content.into(),
        reference: reference.map(str::to_owned),
    })
}

/// A message from the server. Each variant's fields are those of its JSON object.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage<'a> {
    /// The first message on a connection; `history` public messages follow it.
    Welcome {
        user: &'a str,
        room: &'a str,
        users: &'a [&'a str],
        epoch: &'a str,
        seq: u64,
        history: usize,
        recovered: bool,
        session: &'a str,
        ts: Timestamp,
    },
    /// To everyone in the room; `seq` numbers them without gaps.
    Public {
        user: &'a str,
        content: &'a str,
        room: &'a str,
        seq: u64,
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
        ts: Timestamp,
    },
    /// To one member and the sender.
    Private {
        user: &'a str,
        to: &'a str,
        content: &'a str,
        room: &'a str,
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
        ts: Timestamp,
    },
    /// A member joined.
    Join { user: &'a str, content: &'a str, room: &'a str, ts: Timestamp },
    /// A member left.
    Leave { user: &'a str, content: &'a str, room: &'a str, ts: Timestamp },
    /// What the client sent could not be done.
    Error {
        code: &'a str,
        content: &'a str,
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
        ts: Timestamp,
    },
}

impl ServerMessage<'_> {
    /// Builds the message as one WebSocket text frame, header included.
    pub fn to_frame(&self) -> Vec<u8> {
        text_frame(|payload| {
            serde_json::to_writer(payload, self)
                .expect("strings, numbers and lists of them always serialise");
        })
    }
}

/// Returns the current time.
pub fn now() -> Timestamp {
    // A clock before 1970 is wrong anyway; zero says so without ending the chat.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as Timestamp)
}
