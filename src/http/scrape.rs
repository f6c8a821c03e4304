//! `GET /metrics` on a listener of its own, `--metrics-listen`, for Prometheus and its like.

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use log::{Level, debug, info};
use tungstenite::http::header::{CONTENT_TYPE, HeaderValue};
use tungstenite::http::{Method, StatusCode};

use super::request::{self, Request};
use super::request_line::RequestLine;
use super::response::{self, Response};
use super::{host, rules};
use crate::config::{AllowedHost, Config};
use crate::protocol::refusal::Refusal;
use crate::system::metrics::METRICS;
use crate::system::{limits, logging};

/// Maximum number of scrapers at a time. One more takes the place of another.
const SCRAPERS_MAX: usize = 8;
/// Time a scraper has for its request, and again to take the response.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(2);
/// Stack of a scraper's thread, the same as of a reader.
const SCRAPER_STACK_BYTES: usize = limits::STACK_BYTES_MAX;
/// Pause after a failed `accept`.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The methods that `/metrics` takes.
const METHODS: &str = "GET, HEAD, OPTIONS";
/// The text format (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
const TEXT_FORMAT: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// A connection to the listener.
struct Scraper {
    stream: TcpStream,
    peer: SocketAddr,
    /// True once its request has been read.
    replying: AtomicBool,
    config: Arc<Config>,
    hosts: Arc<[AllowedHost]>,
}

/// The scrapers that have a thread, the oldest first. Weak: a thread alone keeps its socket open.
type Running = VecDeque<(Weak<Scraper>, JoinHandle<()>)>;

/// Serves scrapers, each on a thread of its own, until there are no more `connections`. A scraper
/// never waits for those that say nothing.
///
/// Its last threads may outlive it, by the timeouts. `hosts` are the names that the listener
/// answers to, apart from those of loopback.
pub fn serve(
    connections: impl Iterator<Item = io::Result<(TcpStream, SocketAddr)>>,
    hosts: Vec<AllowedHost>,
    config: &Arc<Config>,
) {
    let hosts: Arc<[AllowedHost]> = hosts.into();
    let mut running = Running::new();
    for accepted in connections {
        match accepted {
            Ok((stream, peer)) => {
                let (config, hosts) = (config.clone(), hosts.clone());
                let replying = AtomicBool::new(false);
                make_room(&mut running);
                running.extend(start(Scraper { stream, peer, replying, config, hosts }));
            }
            Err(error) => {
                logging::warn_of_failure("can't accept a scraper", &error);
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

/// Ends a scraper if there is no place for one more: the oldest that has said nothing, or else the
/// oldest of all.
fn make_room(running: &mut Running) {
    running.retain(|(_, thread)| !thread.is_finished());
    if running.len() < SCRAPERS_MAX {
        return;
    }
    let is_silent = |scraper: &Weak<Scraper>| {
        scraper.upgrade().is_some_and(|scraper| !scraper.replying.load(Ordering::Relaxed))
    };
    let oldest = running.iter().position(|(scraper, _)| is_silent(scraper)).unwrap_or(0);
    let Some((scraper, thread)) = running.remove(oldest) else { return };
    if let Some(scraper) = scraper.upgrade() {
        debug!("scraper {} cut", scraper.peer);
        let _ = scraper.stream.shutdown(Shutdown::Both);
    }
    // It waits for nothing but its socket. If it panicked, the log has it.
    let _ = thread.join();
}

/// Starts the thread that serves a scraper. If the system has none, serves it on this one: that is
/// when somebody watches.
fn start(scraper: Scraper) -> Option<(Weak<Scraper>, JoinHandle<()>)> {
    let scraper = Arc::new(scraper);
    let weak = Arc::downgrade(&scraper);
    let thread = {
        let scraper = scraper.clone();
        thread::Builder::new()
            .name("scraper".to_owned())
            .stack_size(SCRAPER_STACK_BYTES)
            .spawn(move || scraper.serve())
    };
    match thread {
        Ok(thread) => Some((weak, thread)),
        Err(error) => {
            logging::warn_of_failure("no thread for a scraper", &error);
            scraper.serve();
            None
        }
    }
}

impl Scraper {
    fn serve(&self) {
        if let Err(problem) = self.reply() {
            debug!("scraper {}: {problem}", self.peer);
        }
    }

    fn reply(&self) -> io::Result<()> {
        let head = request::read_head(&self.stream, SCRAPE_TIMEOUT);
        self.replying.store(true, Ordering::Relaxed);
        let (response, line) = match head {
            Ok((request, _)) => (self.respond_to(&request), RequestLine::of(&request)),
            Err(bad) => match bad.error.response() {
                Some(response) => (response, bad.line),
                None => return Ok(()),
            },
        };
        if let Some(refusal) = Refusal::of(&response)
            && let Some(more) = logging::due(Level::Info, refusal.name())
        {
            let reason = response::reason(&response);
            info!("scraper {} refused: {refusal} ({line}): {reason}{more}", self.peer);
        }
        response::send(&self.stream, &response::to_bytes(response, line.is_head), SCRAPE_TIMEOUT)
    }

    fn respond_to(&self, request: &Request) -> Response {
        let (peer, headers) = (self.peer.ip().to_canonical(), request.headers());
        if !host::is_served(peer, headers, &self.hosts, &self.config.trusted_proxy) {
            return host::misdirected(headers);
        }
        match (request.uri().path(), request.method()) {
            (_, method) if !rules::is_known(method) => response::unknown_method(),
            ("/metrics", &Method::GET | &Method::HEAD) => {
                let mut response = Response::new(METRICS.to_text().into());
                response.headers_mut().insert(CONTENT_TYPE, TEXT_FORMAT);
                response
            }
            ("/metrics" | "*", &Method::OPTIONS) => response::options(METHODS),
            ("/metrics", _) => response::not_allowed(METHODS),
            _ => response::text(StatusCode::NOT_FOUND, "nothing here; the metrics are at /metrics"),
        }
    }
}
