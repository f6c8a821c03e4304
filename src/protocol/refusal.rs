//! Why a request is refused, with one name for the log and the metric. Most follow from the status; the reasons for a `503`
//! go with the response.

use tungstenite::http::StatusCode;

use crate::http::Response;

/// A reason, and what tells it from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No valid request, or no valid upgrade.
    BadRequest,
    /// A page of another site asks for the chat.
    ForbiddenOrigin,
    /// Nothing has this path.
    NotFound,
    /// The path takes other methods.
    MethodNotAllowed,
    /// The head did not come within `--handshake-timeout`.
    HeadTimeout,
    /// Another version of WebSocket.
    WebSocketVersion,
    /// This address has as many connections as it may.
    TooManyFromAddress,
    /// The head has too many bytes or lines.
    HeadTooLarge,
    /// The system carries no more connections.
    ServerFull,
    /// The server stops.
    ServerStopping,
    /// The hub did not answer `/healthz` in time.
    HubSilent,
}

impl Refusal {
    /// Every one.
    pub const ALL: [Refusal; 11] = [
        Refusal::BadRequest,
        Refusal::ForbiddenOrigin,
        Refusal::NotFound,
        Refusal::MethodNotAllowed,
        Refusal::HeadTimeout,
        Refusal::WebSocketVersion,
        Refusal::TooManyFromAddress,
        Refusal::HeadTooLarge,
        Refusal::ServerFull,
        Refusal::ServerStopping,
        Refusal::HubSilent,
    ];

    /// The response's status.
    pub fn status(self) -> StatusCode {
        match self {
            Refusal::BadRequest => StatusCode::BAD_REQUEST,
            Refusal::ForbiddenOrigin => StatusCode::FORBIDDEN,
            Refusal::NotFound => StatusCode::NOT_FOUND,
            Refusal::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::HeadTimeout => StatusCode::REQUEST_TIMEOUT,
            Refusal::WebSocketVersion => StatusCode::UPGRADE_REQUIRED,
            Refusal::TooManyFromAddress => StatusCode::TOO_MANY_REQUESTS,
            Refusal::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Refusal::ServerFull | Refusal::ServerStopping | Refusal::HubSilent => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// The name, for the log and the metric.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::BadRequest => "bad_request",
            Refusal::ForbiddenOrigin => "forbidden_origin",
            Refusal::NotFound => "not_found",
            Refusal::MethodNotAllowed => "method_not_allowed",
            Refusal::HeadTimeout => "head_timeout",
            Refusal::WebSocketVersion => "websocket_version",
            Refusal::TooManyFromAddress => "too_many_from_address",
            Refusal::HeadTooLarge => "head_too_large",
            Refusal::ServerFull => "server_full",
            Refusal::ServerStopping => "server_stopping",
            Refusal::HubSilent => "hub_silent",
        }
    }

    /// Why a response refuses; `None` if it does not.
    pub fn of(response: &Response) -> Option<Refusal> {
        let told = response.extensions().get().copied();
        told.or_else(|| {
            Refusal::ALL.into_iter().find(|refusal| refusal.status() == response.status())
        })
    }
}

impl std::fmt::Display for Refusal {
    /// For the log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status().as_str(), self.name())
    }
}
