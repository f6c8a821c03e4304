//! Why an HTTP request is refused: one name for the log and the metric.

use tungstenite::http::{Response, StatusCode};

/// Every reason for which a request is refused.
///
/// Most follow from the response's status. Those for a `429` or a `503` are attached to the
/// response as an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request or the upgrade is not valid.
    BadRequest,
    /// A page of another site asks for the chat, and `--allow-origin` does not name it.
    ForbiddenOrigin,
    /// There is nothing at this path.
    NotFound,
    /// The path accepts other methods; `Allow` lists them.
    MethodNotAllowed,
    /// The head was not received within `--handshake-timeout`.
    HeadTimeout,
    /// `If-Match` asks for a file of the page that is not there.
    PreconditionFailed,
    /// The target of the request is longer than a head may be.
    TargetTooLong,
    /// A server on loopback was asked by a name that `--allow-host` does not list.
    UnknownHost,
    /// The client speaks another version of WebSocket than 13.
    WebSocketVersion,
    /// This address has `--max-connections-per-ip` connections already.
    TooManyFromAddress,
    /// This address has asked to join more often than `--join-rate` allows.
    JoiningTooFast,
    /// The head has too many bytes or lines.
    HeadTooLarge,
    /// Nothing here takes this method, not even elsewhere.
    UnknownMethod,
    /// All places for clients are taken.
    ServerFull,
    /// All places for requests are taken.
    RequestsFull,
    /// The system has no thread for the connection.
    NoThread,
    /// The server stops.
    ServerStopping,
    /// The hub did not answer `/healthz` in time.
    HubSilent,
    /// The client speaks another version of HTTP than 1.1 and 1.0.
    HttpVersion,
}

impl Refusal {
    /// All reasons, for tables and metrics.
    pub const ALL: [Refusal; 19] = [
        Refusal::BadRequest,
        Refusal::ForbiddenOrigin,
        Refusal::NotFound,
        Refusal::MethodNotAllowed,
        Refusal::HeadTimeout,
        Refusal::PreconditionFailed,
        Refusal::TargetTooLong,
        Refusal::UnknownHost,
        Refusal::WebSocketVersion,
        Refusal::TooManyFromAddress,
        Refusal::JoiningTooFast,
        Refusal::HeadTooLarge,
        Refusal::UnknownMethod,
        Refusal::ServerFull,
        Refusal::RequestsFull,
        Refusal::NoThread,
        Refusal::ServerStopping,
        Refusal::HubSilent,
        Refusal::HttpVersion,
    ];

    /// The status of the response. It alone identifies the reason, unless it is `429` or `503`.
    pub fn status(self) -> StatusCode {
        match self {
            Refusal::BadRequest => StatusCode::BAD_REQUEST,
            Refusal::ForbiddenOrigin => StatusCode::FORBIDDEN,
            Refusal::NotFound => StatusCode::NOT_FOUND,
            Refusal::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::HeadTimeout => StatusCode::REQUEST_TIMEOUT,
            Refusal::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Refusal::TargetTooLong => StatusCode::URI_TOO_LONG,
            Refusal::UnknownHost => StatusCode::MISDIRECTED_REQUEST,
            Refusal::WebSocketVersion => StatusCode::UPGRADE_REQUIRED,
            Refusal::TooManyFromAddress | Refusal::JoiningTooFast => StatusCode::TOO_MANY_REQUESTS,
            Refusal::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Refusal::UnknownMethod => StatusCode::NOT_IMPLEMENTED,
            Refusal::ServerFull
            | Refusal::RequestsFull
            | Refusal::NoThread
            | Refusal::ServerStopping
            | Refusal::HubSilent => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::HttpVersion => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }

    /// The name in the log and the metric.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::BadRequest => "bad_request",
            Refusal::ForbiddenOrigin => "forbidden_origin",
            Refusal::NotFound => "not_found",
            Refusal::MethodNotAllowed => "method_not_allowed",
            Refusal::HeadTimeout => "head_timeout",
            Refusal::PreconditionFailed => "precondition_failed",
            Refusal::TargetTooLong => "target_too_long",
            Refusal::UnknownHost => "unknown_host",
            Refusal::WebSocketVersion => "websocket_version",
            Refusal::TooManyFromAddress => "too_many_from_address",
            Refusal::JoiningTooFast => "joining_too_fast",
            Refusal::HeadTooLarge => "head_too_large",
            Refusal::UnknownMethod => "unknown_method",
            Refusal::ServerFull => "server_full",
            Refusal::RequestsFull => "requests_full",
            Refusal::NoThread => "no_thread",
            Refusal::ServerStopping => "server_stopping",
            Refusal::HubSilent => "hub_silent",
            Refusal::HttpVersion => "http_version",
        }
    }

    /// Returns why `response` refuses a request, or `None` if it does not.
    pub fn of<Body>(response: &Response<Body>) -> Option<Refusal> {
        let attached = response.extensions().get().copied();
        attached.or_else(|| {
            Refusal::ALL.into_iter().find(|refusal| refusal.status() == response.status())
        })
    }
}

impl std::fmt::Display for Refusal {
    /// Writes the status and the name, as the log shows them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status().as_str(), self.name())
    }
}
