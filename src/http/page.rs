//! The chat page: three files built into the binary, each also compressed by the build.

use tungstenite::Bytes;
use tungstenite::http::StatusCode;
use tungstenite::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};

use super::request::any_item;
use super::response::{self, Response};

/// The page may run its own script and style, connect to its own server, and show the icon it
/// draws; nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
pub struct Asset {
    path: &'static str,
    content_type: &'static str,
    plain: &'static [u8],
    gzip: &'static [u8],
}

const ASSETS: [Asset; 3] = [
    Asset {
        path: "/",
        content_type: "text/html; charset=utf-8",
        plain: include_bytes!("../web/index.html"),
        gzip: include_bytes!(concat!(env!("OUT_DIR"), "/index.html.gz")),
    },
    Asset {
        path: "/style.css",
        content_type: "text/css; charset=utf-8",
        plain: include_bytes!("../web/style.css"),
        gzip: include_bytes!(concat!(env!("OUT_DIR"), "/style.css.gz")),
    },
    Asset {
        path: "/app.js",
        content_type: "text/javascript; charset=utf-8",
        plain: include_bytes!("../web/app.js"),
        gzip: include_bytes!(concat!(env!("OUT_DIR"), "/app.js.gz")),
    },
];

/// The file at `path`.
pub fn find(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

impl Asset {
    /// The file, in the encoding that the client takes, or `304` if it has it already.
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
        // The page changes with the server, so a browser asks each time, and is mostly answered
        // 304.
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

    /// The tag of both encodings, without the mark of a weak one.
    fn etag(&self) -> String {
        format!("\"{:016x}\"", fnv1a(self.plain))
    }
}

fn accepts_gzip(request: &HeaderMap) -> bool {
    any_item(request, &ACCEPT_ENCODING, |item| {
        let mut parts = item.split(';').map(str::trim);
        parts.next() == Some("gzip")
            && !parts.any(|weight| weight.trim_end_matches(['0', '.']) == "q=")
    })
}

/// A hash that changes with the file; nobody gains by a collision.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}
