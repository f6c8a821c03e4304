//! Why a chat connection ends: one name for the close frame's reason, the log and the metric.

use tungstenite::protocol::frame::coding::Control;

use super::frame::control_frame;

/// Every way in which a chat connection can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client closed it with 1000, or without a code: the member leaves.
    ClientClosed,
    /// The client closed it with a code other than 1000, as browsers do when a page is left or
    /// reloaded: the client may come back.
    ClientGone,
    /// The server stops.
    ServerShutdown,
    /// The client broke the WebSocket protocol.
    ProtocolError,
    /// A binary message: the chat is text.
    Binary,
    /// A text message that is not UTF-8.
    InvalidUtf8,
    /// The connection broke without a close frame. Never sent (RFC 6455, 7.4.1).
    ConnectionLost,
    /// A message over `--max-message-bytes`.
    TooBig,
    /// A thread of this client panicked, which is a bug.
    InternalError,
    /// The client reads more slowly than its room talks.
    TooSlow,
    /// The member's name breaks [the rules](super::name).
    InvalidName,
    /// The room's name breaks [the rules](super::name).
    InvalidRoom,
    /// Nothing was received for `--ping-timeout`.
    PingTimeout,
    /// Another member has the name, or one that looks like it.
    NameTaken,
    /// The same session connected again, and this is its older connection.
    Replaced,
    /// All `--max-rooms` rooms are in use.
    RoomLimit,
}

impl CloseReason {
    /// All reasons, for tables and metrics.
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

    /// The close code (RFC 6455, 7.4; codes from 4000 are this protocol's own).
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

    /// The name in the log, the metric and, for most reasons, the close frame.
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

    /// What a refused client can do about it, if anything. Who has a name that is taken, only the
    /// hub knows: see [`Name::taken_by`](super::name::Name::taken_by).
    pub fn advice(self) -> Option<&'static str> {
        match self {
            CloseReason::InvalidName => Some(
                "a name has 1 to 32 characters, none of them invisible, with up to 4 marks on each",
            ),
            CloseReason::InvalidRoom => Some(
                "a room's name has 1 to 64 letters or digits of any script, _ and -, no spaces",
            ),
            CloseReason::RoomLimit => Some("the server keeps no more rooms: join one that exists"),
            _ => None,
        }
    }

    /// Builds the close frame. The three that reply to an act of the client carry no reason text.
    pub fn to_frame(self) -> Vec<u8> {
        let reason = match self {
            // The reply to a close is a normal close (RFC 6455, 5.5.1).
            CloseReason::ClientGone => return CloseReason::ClientClosed.to_frame(),
            CloseReason::ClientClosed | CloseReason::ProtocolError | CloseReason::InvalidUtf8 => "",
            _ => self.name(),
        };
        let mut payload = self.code().to_be_bytes().to_vec();
        payload.extend_from_slice(reason.as_bytes());
        control_frame(Control::Close, &payload)
    }
}
