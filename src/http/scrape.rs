//! `GET /metrics` on a listener of its own, `--metrics-listen`, for Prometheus and its like.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use log::debug;
use tungstenite::http::header::{CONTENT_TYPE, HeaderValue};
use tungstenite::http::{Method, StatusCode};

use super::request;
use super::response::{self, Response};
use crate::system::logging;
use crate::system::metrics::METRICS;

/// Time a scraper has for its request, and again to take the response. One is served at a time.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a failed `accept`.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The text format (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
const TEXT_FORMAT: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Serves scrapers one at a time, until there are no more `connections`.
pub fn serve(connections: impl Iterator<Item = io::Result<(TcpStream, SocketAddr)>>) {
    for accepted in connections {
        match accepted {
            Ok((stream, peer)) => {
                if let Err(problem) = reply(&stream) {
                    debug!("scraper {peer}: {problem}");
                }
            }
            Err(error) => {
                logging::warn_of_failure("can't accept a scraper", &error);
                std::thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

fn reply(stream: &TcpStream) -> io::Result<()> {
    let (response, head_only) = match request::read_head(stream, SCRAPE_TIMEOUT) {
        Ok((request, _)) => {
            (respond_to(request.uri().path(), request.method()), request.method() == Method::HEAD)
        }
        Err(error) => match error.response() {
            Some(response) => (response, false),
            None => return Ok(()),
        },
    };
    response::send(stream, &response::to_bytes(response, head_only), SCRAPE_TIMEOUT)
}

fn respond_to(path: &str, method: &Method) -> Response {
    match (path, method) {
        ("/metrics", &Method::GET | &Method::HEAD) => {
            let mut response = Response::new(METRICS.to_text().into());
            response.headers_mut().insert(CONTENT_TYPE, TEXT_FORMAT);
            response
        }
        ("/metrics", _) => response::not_allowed("GET, HEAD"),
        _ => response::text(StatusCode::NOT_FOUND, "nothing here; the metrics are at /metrics"),
    }
}
