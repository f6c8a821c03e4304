//! What clients and server say to each other: the JSON messages, the rules for names, and why a connection ends.

use std::borrow::Cow;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Longest nickname, in Unicode scalar values.
pub const NAME_CHARS_MAX: usize = 32;
/// Longest room name, in bytes, which are ASCII.
pub const ROOM_BYTES_MAX: usize = 64;
/// Longest `ref`, in bytes of UTF-8.
pub const REF_BYTES_MAX: usize = 64;
/// Room of a client that names none.
pub const ROOM_DEFAULT: &str = "lobby";
/// What JSON can make of one byte of a string at worst: `\u0001`.
const JSON_ESCAPE_BYTES_MAX: usize = 6;
/// Allowance for everything in a client's message but its content: keys, `to` and `ref`, fully escaped.
const JSON_OVERHEAD_BYTES_MAX: usize = 1536;

/// Header of a server frame with a payload of 126 to 65,535 bytes (RFC 6455, 5.2).
const HEADER_BYTES_USUAL: usize = 4;
/// Header of the longest server frame.
const HEADER_BYTES_MAX: usize = 10;
/// Allowance for a message of ordinary length.
const FRAME_BYTES_USUAL: usize = 256;

/// Milliseconds since the Unix epoch, the `ts` of every message.
pub type Timestamp = u64;

/// Longest WebSocket message a client may send, so that any content of `content_bytes_max` bytes fits however it is escaped.
pub const fn frame_bytes_max(content_bytes_max: usize) -> usize {
    content_bytes_max * JSON_ESCAPE_BYTES_MAX + JSON_OVERHEAD_BYTES_MAX
}

/// A message from a client that keeps the rules.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// To everyone in the room.
    Public { content: String, receipt: Option<String> },
    /// To the member called `to`, and to the sender.
    Private { to: String, content: String, receipt: Option<String> },
}

/// A message from a client that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The client is told, and stays.
    Error(Complaint),
    /// The content is over `--max-message-bytes`, which ends the connection.
    TooBig,
}

/// An error to be told to the client that caused it.
#[derive(Debug, PartialEq, Eq)]
pub struct Complaint {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub content: Cow<'static, str>,
    /// The `ref` of the message it is about, where that could be read.
    pub receipt: Option<String>,
}

/// `code` of an error on an open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// Not JSON.
    BadJson,
    /// JSON, but a field is missing or of the wrong type.
    BadRequest,
    /// `type` is neither `public` nor `private`.
    UnknownType,
    /// `content` is empty or only white space.
    EmptyContent,
    /// `to` names nobody in the room.
    NoSuchUser,
}

impl ErrorCode {
    /// Every one.
    pub const ALL: [ErrorCode; 5] = [
        ErrorCode::BadJson,
        ErrorCode::BadRequest,
        ErrorCode::UnknownType,
        ErrorCode::EmptyContent,
        ErrorCode::NoSuchUser,
    ];

    /// The code as it stands in the JSON.
    pub fn name(self) -> &'static str {
        match self {
            ErrorCode::BadJson => "bad_json",
            ErrorCode::BadRequest => "bad_request",
            ErrorCode::UnknownType => "unknown_type",
            ErrorCode::EmptyContent => "empty_content",
            ErrorCode::NoSuchUser => "no_such_user",
        }
    }
}

/// The fields of a client's message, none looked into yet. Unknown ones are ignored, `null` is as good as absent.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    to: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow, rename = "ref")]
    receipt: Option<&'a RawValue>,
}

impl Request {
    /// Reads a text message from a client.
    ///
    /// No recursion, whatever the nesting: an ignored or raw value is skipped by serde_json in a loop, so a client
    /// thread's small stack is safe.
    ///
    /// # Errors
    /// [`Rejection`] says which rule the text breaks.
    pub fn parse<'a>(text: &'a str, content_bytes_max: usize) -> Result<Request, Rejection> {
        // serde would take an array for the fields in their order.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(malformed(text, "a message is a JSON object", None));
        }
        let fields: Fields = serde_json::from_str(text)
            .map_err(|error| malformed(text, &error.to_string(), None))?;
        let receipt = fields.receipt.map(|raw| string(raw, "ref", None)).transpose()?;
        let receipt = receipt.as_deref();
        if receipt.is_some_and(|receipt| receipt.len() > REF_BYTES_MAX) {
            return Err(complain(
                ErrorCode::BadRequest,
                format!("ref is over {REF_BYTES_MAX} bytes"),
                None,
            ));
        }
        let required = |field: Option<&'a RawValue>, name| match field {
            Some(raw) => string(raw, name, receipt),
            None => Err(complain(ErrorCode::BadRequest, format!("{name} is missing"), receipt)),
        };
        let private = match &*required(fields.kind, "type")? {
            "public" => false,
            "private" => true,
            _ => {
                return Err(complain(ErrorCode::UnknownType, "type is public or private", receipt));
            }
        };
        let to = private.then(|| required(fields.to, "to")).transpose()?;
        let content = required(fields.content, "content")?;
        if content.len() > content_bytes_max {
            return Err(Rejection::TooBig);
        }
        if content.trim().is_empty() {
            return Err(complain(ErrorCode::EmptyContent, "content is empty", receipt));
        }
        // The text lies in the read buffer, which is used again: what outlives it is copied here, once.
        let (content, receipt) = (content.into_owned(), receipt.map(str::to_owned));
        Ok(match to {
            Some(to) => Request::Private { to: to.into_owned(), content, receipt },
            None => Request::Public { content, receipt },
        })
    }
}

/// A string, borrowed where nothing in it is escaped.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The string that `raw` must be.
fn string<'a>(
    raw: &'a RawValue,
    name: &str,
    receipt: Option<&str>,
) -> Result<Cow<'a, str>, Rejection> {
    // By its beginning: of a number that it can't hold, serde_json would not say that it is no string.
    if !raw.get().starts_with('"') {
        return Err(complain(ErrorCode::BadRequest, format!("{name} is not a string"), receipt));
    }
    serde_json::from_str(raw.get())
        .map(|Text(text)| text)
        .map_err(|error| complain(ErrorCode::BadJson, format!("{name}: {error}"), receipt))
}

/// An error about a text that is not JSON, or JSON that is not a message.
fn malformed(text: &str, problem: &str, receipt: Option<&str>) -> Rejection {
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => complain(ErrorCode::BadRequest, problem.to_owned(), receipt),
        Err(error) => complain(ErrorCode::BadJson, error.to_string(), receipt),
    }
}

fn complain(
    code: ErrorCode,
    content: impl Into<Cow<'static, str>>,
    receipt: Option<&str>,
) -> Rejection {
    Rejection::Error(Complaint {
        code,
        content: content.into(),
        receipt: receipt.map(str::to_owned),
    })
}

/// A message from the server, as it stands in the JSON.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage<'a> {
    /// The first message on a connection; `history` public messages follow at once.
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
    /// To everyone in the room; `seq` counts them without gaps.
    Public {
        user: &'a str,
        content: &'a str,
        room: &'a str,
        seq: u64,
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        receipt: Option<&'a str>,
        ts: Timestamp,
    },
    /// To one member and the sender.
    Private {
        user: &'a str,
        to: &'a str,
        content: &'a str,
        room: &'a str,
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        receipt: Option<&'a str>,
        ts: Timestamp,
    },
    /// Somebody came.
    Join { user: &'a str, content: &'a str, room: &'a str, ts: Timestamp },
    /// Somebody went.
    Leave { user: &'a str, content: &'a str, room: &'a str, ts: Timestamp },
    /// Something the client sent could not be done.
    Error {
        code: &'a str,
        content: &'a str,
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        receipt: Option<&'a str>,
        ts: Timestamp,
    },
}

impl ServerMessage<'_> {
    /// The message as one WebSocket text frame. Server frames carry no mask (RFC 6455, 5.1), so every recipient gets the
    /// same bytes and a message is framed once.
    pub fn to_frame(&self) -> Vec<u8> {
        // The length stands before what it counts. Room is left for the header that most messages need, and the rest
        // moves only where it is another.
        let mut frame = Vec::with_capacity(FRAME_BYTES_USUAL);
        frame.extend_from_slice(&[0; HEADER_BYTES_USUAL]);
        serde_json::to_writer(&mut frame, self)
            .expect("strings, numbers and lists of them always serialise");
        let length = (frame.len() - HEADER_BYTES_USUAL) as u64;
        let mut room = [0; HEADER_BYTES_MAX];
        let mut left = &mut room[..];
        write_header(OpCode::Data(Data::Text), length, &mut left);
        let unused = left.len();
        let header = &room[..HEADER_BYTES_MAX - unused];
        match header.len() == HEADER_BYTES_USUAL {
            true => frame[..HEADER_BYTES_USUAL].copy_from_slice(header),
            false => drop(frame.splice(..HEADER_BYTES_USUAL, header.iter().copied())),
        }
        frame
    }
}

/// An empty ping (RFC 6455, 5.5.2).
pub fn ping_frame() -> Vec<u8> {
    control_frame(Control::Ping, &[])
}

/// A control frame.
fn control_frame(opcode: Control, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_BYTES_MAX + payload.len());
    write_header(OpCode::Control(opcode), payload.len() as u64, &mut frame);
    frame.extend_from_slice(payload);
    frame
}

/// `out` must have room for the longest header.
fn write_header(opcode: OpCode, length: u64, out: &mut impl Write) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    header.format(length, out).expect("there is room for it");
}

/// Every way a connection can end, with one name for the close frame's reason and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client closed it.
    ClientClosed,
    /// The client closed it with another code than 1000: it goes away, as browsers do when a page is left or loaded anew.
    ClientGone,
    /// The server stops.
    ServerShutdown,
    /// The client broke the WebSocket protocol.
    ProtocolError,
    /// A binary message: the chat is text.
    Binary,
    /// A text message that is not UTF-8.
    InvalidUtf8,
    /// The line broke without a close frame; never sent.
    ConnectionLost,
    /// A message over the size limit.
    TooBig,
    /// A thread of this client failed: a bug.
    InternalError,
    /// The client reads more slowly than its room talks.
    TooSlow,
    /// The nickname breaks the rules.
    InvalidName,
    /// The room's name breaks the rules.
    InvalidRoom,
    /// Nothing came for `--ping-timeout`.
    PingTimeout,
    /// Another member has the name.
    NameTaken,
    /// The same session has connected again.
    Replaced,
    /// The server keeps no more rooms.
    RoomLimit,
}

impl CloseReason {
    /// Every one.
    pub const ALL: [CloseReason; 16] = [
        CloseReason::ClientClosed,
        CloseReason::ClientGone,
        CloseReason::ServerShutdown,
        CloseReason::ProtocolError,
        CloseReason::Binary,
        CloseReason::InvalidUtf8,
        CloseReason::ConnectionLost,
        CloseReason::TooBig,
        CloseReason::InternalError,
        CloseReason::TooSlow,
        CloseReason::InvalidName,
        CloseReason::InvalidRoom,
        CloseReason::PingTimeout,
        CloseReason::NameTaken,
        CloseReason::Replaced,
        CloseReason::RoomLimit,
    ];

    /// The status code (RFC 6455, 7.4; 4000 and up are this protocol's own).
    pub fn code(self) -> u16 {
        match self {
            CloseReason::ClientClosed => 1000,
            CloseReason::ClientGone | CloseReason::ServerShutdown => 1001,
            CloseReason::ProtocolError => 1002,
            CloseReason::Binary => 1003,
            CloseReason::ConnectionLost => 1006,
            CloseReason::InvalidUtf8 => 1007,
            CloseReason::TooBig => 1009,
            CloseReason::InternalError => 1011,
            CloseReason::TooSlow => 1013,
            CloseReason::InvalidName | CloseReason::InvalidRoom => 4400,
            CloseReason::PingTimeout => 4408,
            CloseReason::NameTaken => 4409,
            CloseReason::Replaced => 4410,
            CloseReason::RoomLimit => 4503,
        }
    }

    /// The name, for the log.
    pub fn name(self) -> &'static str {
        match self {
            CloseReason::ClientClosed => "client_closed",
            CloseReason::ClientGone => "client_gone",
            CloseReason::ServerShutdown => "server_shutdown",
            CloseReason::ProtocolError => "protocol_error",
            CloseReason::Binary => "binary",
            CloseReason::ConnectionLost => "connection_lost",
            CloseReason::InvalidUtf8 => "invalid_utf8",
            CloseReason::TooBig => "too_big",
            CloseReason::InternalError => "internal_error",
            CloseReason::TooSlow => "too_slow",
            CloseReason::InvalidName => "invalid_name",
            CloseReason::InvalidRoom => "invalid_room",
            CloseReason::PingTimeout => "ping_timeout",
            CloseReason::NameTaken => "name_taken",
            CloseReason::Replaced => "replaced",
            CloseReason::RoomLimit => "room_limit",
        }
    }

    /// What a refused newcomer is told, where it can mend it.
    pub fn advice(self) -> Option<&'static str> {
        match self {
            CloseReason::InvalidName => {
                Some("a name has 1 to 32 characters, none of them invisible or a control character")
            }
            CloseReason::InvalidRoom => {
                Some("a room's name has 1 to 64 of the characters a-z, A-Z, 0-9, _ and -")
            }
            CloseReason::NameTaken => Some("somebody in this room has that name: choose another"),
            CloseReason::RoomLimit => Some("the server keeps no more rooms: join one that exists"),
            _ => None,
        }
    }

    /// The close frame. The three answers to what the client itself did carry no reason text.
    pub fn to_frame(self) -> Vec<u8> {
        let reason = match self {
            // A close is answered as one.
            CloseReason::ClientGone => return CloseReason::ClientClosed.to_frame(),
            CloseReason::ClientClosed | CloseReason::ProtocolError | CloseReason::InvalidUtf8 => "",
            _ => self.name(),
        };
        let mut payload = self.code().to_be_bytes().to_vec();
        payload.extend_from_slice(reason.as_bytes());
        control_frame(Control::Close, &payload)
    }
}

/// Takes a nickname as the client gave it, trimmed.
///
/// # Errors
/// [`CloseReason::InvalidName`] for one that is empty, too long, or could pass for another by what can't be seen.
pub fn parse_name(text: &str) -> Result<String, CloseReason> {
    let name = text.trim();
    let long = name.chars().nth(NAME_CHARS_MAX).is_some();
    match long || name.chars().any(is_unseen) || fold_case(name).is_empty() {
        true => Err(CloseReason::InvalidName),
        false => Ok(name.to_owned()),
    }
}

/// Takes a room's name.
///
/// # Errors
/// [`CloseReason::InvalidRoom`] for other than 1–64 of `a-z A-Z 0-9 _ -`.
pub fn parse_room(text: &str) -> Result<String, CloseReason> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    match (1..=ROOM_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed) {
        true => Ok(text.to_owned()),
        false => Err(CloseReason::InvalidRoom),
    }
}

/// Characters that show nothing or turn the text around: control characters, line separators, Unicode's
/// Default_Ignorable_Code_Point (DerivedCoreProperties.txt) but for the emoji style, interlinear marks, and the empty
/// Braille pattern.
pub fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}'..='\u{1160}' | '\u{17B4}'..='\u{17B5}'
            | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
            | '\u{2800}' | '\u{3164}' | '\u{FE00}'..='\u{FE0E}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}'
            | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
}

/// Asks for the coloured form of the character before it. Phones add it to many emoji, so names may have it, but it does
/// not tell one name from another.
const EMOJI_STYLE: char = '\u{FE0F}';

/// `name` with case folded, the form in which names are compared. Down, up and down again, since several letters of one
/// case may share one of the other (ς and σ, ẞ, ß and ss).
pub fn fold_case(name: &str) -> String {
    name.chars()
        .filter(|&c| c != EMOJI_STYLE)
        .flat_map(char::to_lowercase)
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .collect()
}

/// The time on every message.
pub fn now() -> Timestamp {
    // A clock before 1970 is wrong anyway; zero says so without ending the chat.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as Timestamp)
}
