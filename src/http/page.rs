//! The chat page: files that are built into the binary, each also in compressed form.

use tungstenite::Bytes;
use tungstenite::http::StatusCode;
use tungstenite::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};

use super::request::any_item;
use super::response::{self, Response};

/// Lets the page run its own scripts and styles, connect to its own server, and show the icon that
/// it draws. Nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
pub struct Asset {
    path: &'static str,
    content_type: &'static str,
    plain: &'static [u8],
    gzip: &'static [u8],
}

/// A file in `src/web`, which the build has compressed. A macro, since `include_bytes!` takes only
/// literals.
macro_rules! asset {
    ($file:literal, $media_type:literal) => {
        Asset {
            path: concat!("/", $file),
            content_type: concat!($media_type, "; charset=utf-8"),
            plain: include_bytes!(concat!("../web/", $file)),
            gzip: include_bytes!(concat!(env!("OUT_DIR"), "/", $file, ".gz")),
        }
    };
}

/// The page's files. The list stands nowhere else: the build compresses the whole folder.
static ASSETS: [Asset; 6] = [
    Asset { path: "/", ..asset!("index.html", "text/html") },
    asset!("style.css", "text/css"),
    asset!("app.js", "text/javascript"),
    asset!("checked.js", "text/javascript"),
    asset!("conversation.js", "text/javascript"),
    asset!("texts.js", "text/javascript"),
];

/// Returns the file that `path` names.
pub fn find(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

impl Asset {
    /// Responds with the file, compressed if the client accepts that, or with `304` if the client
    /// has it already.
    pub fn response(&self, request: &HeaderMap) -> Response {
        // A weak tag matches nothing here (RFC 9110, 13.1.1).
        if request.contains_key(IF_MATCH) && !any_item(request, &IF_MATCH, |item| item == "*") {
            let line = "the file has another tag";
            return response::text(StatusCode::PRECONDITION_FAILED, line);
        }
        let etag = self.etag();
        let gzip = accepts_gzip(request);
        // Compared without the mark of a weak tag (RFC 9110, 13.1.2).
        let known = any_item(request, &IF_NONE_MATCH, |item| {
            item == "*" || item.strip_prefix("W/").unwrap_or(item) == etag
        });
        let body = match (known, gzip) {
            (true, _) => &[],
            (false, true) => self.gzip,
            (false, false) => self.plain,
        };
        let mut response = Response::new(Bytes::from_static(body));
        if known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let headers = response.headers_mut();
        let mut set = |name: HeaderName, value: &'static str| {
            headers.insert(name, HeaderValue::from_static(value))
        };
        set(CONTENT_TYPE, self.content_type);
        set(CONTENT_SECURITY_POLICY, POLICY);
        set(X_CONTENT_TYPE_OPTIONS, "nosniff");
        set(REFERRER_POLICY, "no-referrer");
        // The page changes with the server, so a browser asks each time. Mostly the reply is 304.
        set(CACHE_CONTROL, "no-cache");
        set(VARY, "accept-encoding");
        if gzip {
            set(CONTENT_ENCODING, "gzip");
        }
        // Weak, since both encodings share it.
        let etag = HeaderValue::try_from(format!("W/{etag}"));
        headers.insert(ETAG, etag.expect("hexadecimal digits and quotes"));
        response
    }

    /// The tag that the plain and the compressed file share, without the mark of a weak one.
    fn etag(&self) -> String {
        format!("\"{:016x}\"", fnv1a(self.plain))
    }
}

/// True if the client takes gzip, unless with a weight of zero (RFC 9110, 12.4.2).
fn accepts_gzip(request: &HeaderMap) -> bool {
    any_item(request, &ACCEPT_ENCODING, |item| {
        let mut parts = item.split(';').map(str::trim);
        parts.next() == Some("gzip")
            && !parts.any(|weight| weight.trim_end_matches(['0', '.']) == "q=")
    })
}

/// Hashes a file for its tag. It need not resist attacks: nobody gains from a collision.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}
