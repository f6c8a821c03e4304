//! What the server counts, in Prometheus' text format. Names keep its conventions: base units, `_total` on what only grows.
//!
//! There is one set for the process, as is usual with Prometheus. The counters are atomic: whoever sees something counts it,
//! and nobody waits.

use std::net::{TcpListener, TcpStream};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use log::debug;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, local::LocalHistogram,
};
use tungstenite::http::header::{CONTENT_TYPE, HeaderValue};
use tungstenite::http::{Method, StatusCode};

use crate::http::{self, Response};
use crate::protocol::message::CloseReason;
use crate::protocol::refusal::Refusal;
use crate::system::logging;
use crate::system::process::Process;

/// Bounds of the histograms' buckets, in seconds: from a quiet room on a fast machine to a stall that people notice.
const BUCKETS_SECONDS: [f64; 13] =
    [0.000_01, 0.000_03, 0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];
/// Time a scraper has for its request, and again to take the response. One is served at a time.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a failed `accept` is waited out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The text format (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
const TEXT_FORMAT: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// All that is counted.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// See the help text of each.
#[expect(missing_docs, reason = "the help texts say it")]
pub struct Metrics {
    registry: Registry,
    process: Option<Process>,
    pub clients: IntGauge,
    pub absent_members: IntGauge,
    pub rooms: IntGauge,
    pub history_bytes: IntGauge,
    pub inbox_events: IntGauge,
    pub connections: IntGauge,
    pub connections_max: IntGaugeVec,
    pub connections_accepted: IntCounter,
    pub http_responses: IntCounterVec,
    pub refusals: IntCounterVec,
    pub disconnects: IntCounterVec,
    pub evictions: IntCounter,
    pub public_messages: IntCounter,
    pub private_messages: IntCounter,
    pub deliveries: IntCounter,
    pub received_bytes: IntCounter,
    pub sent_bytes: IntCounter,
    pub queueing_seconds: Histogram,
    pub write_delay_seconds: Histogram,
}

impl Metrics {
    fn new() -> Metrics {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| registered(&registry, IntGauge::new(name, help));
        let counter = |name: &str, help: &str| registered(&registry, IntCounter::new(name, help));
        let counters = |name: &str, help: &str, labels: &[&str]| {
            registered(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauges = |name: &str, help: &str, label: &str| {
            registered(&registry, IntGaugeVec::new(Opts::new(name, help), &[label]))
        };
        let seconds = |name: &str, help: &str| {
            let options = HistogramOpts::new(name, help).buckets(BUCKETS_SECONDS.to_vec());
            registered(&registry, Histogram::with_opts(options))
        };
        let messages =
            counters("parlour_messages_total", "Messages that the hub has taken.", &["type"]);
        let metrics = Metrics {
            clients: gauge("parlour_clients", "Clients that are members of a room."),
            absent_members: gauge(
                "parlour_absent_members",
                "Members whose connection broke and who may come back.",
            ),
            rooms: gauge("parlour_rooms", "Rooms kept, empty ones included."),
            history_bytes: gauge(
                "parlour_history_bytes",
                "Memory that the messages occupy which the rooms remember.",
            ),
            inbox_events: gauge(
                "parlour_inbox_events",
                "Events that waited for the hub when it last looked.",
            ),
            connections: gauge("parlour_connections", "Open connections, of the chat and of HTTP."),
            connections_max: gauges(
                "parlour_connections_max",
                "Clients of the chat at most, and the limit that sets it.",
                "limit",
            ),
            connections_accepted: counter(
                "parlour_connections_accepted_total",
                "Connections accepted.",
            ),
            http_responses: counters(
                "parlour_http_responses_total",
                "Responses by status; 101 is a client of the chat.",
                &["status"],
            ),
            refusals: counters(
                "parlour_refusals_total",
                "Requests refused, by reason.",
                &["reason"],
            ),
            disconnects: counters(
                "parlour_disconnects_total",
                "Ends of chat connections, by close code and reason.",
                &["code", "reason"],
            ),
            evictions: counter(
                "parlour_evictions_total",
                "Clients dropped because their queue was full.",
            ),
            public_messages: messages.with_label_values(&["public"]),
            private_messages: messages.with_label_values(&["private"]),
            deliveries: counter(
                "parlour_deliveries_total",
                "Copies of messages queued for clients.",
            ),
            received_bytes: counter(
                "parlour_received_bytes_total",
                "Bytes read from chat connections.",
            ),
            sent_bytes: counter("parlour_sent_bytes_total", "Bytes written to chat connections."),
            queueing_seconds: seconds(
                "parlour_message_queueing_seconds",
                "Time from a message's arrival until it was queued for its last recipient.",
            ),
            write_delay_seconds: seconds(
                "parlour_write_delay_seconds",
                "Time that what was queued for a client waited until it had been written.",
            ),
            process: Process::register(&registry),
            registry: registry.clone(),
        };
        gauges("parlour_build_info", "The version, in a label.", "version")
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        // A series that begins with its first event hides that event from a rate.
        for reason in CloseReason::ALL {
            metrics.disconnects_for(reason);
        }
        for refusal in Refusal::ALL {
            metrics.refusals.with_label_values(&[refusal.name()]);
        }
        metrics
    }

    /// Counts a response that is about to be sent.
    pub fn count_response(&self, response: &Response) {
        self.http_responses.with_label_values(&[response.status().as_str()]).inc();
        if let Some(refusal) = Refusal::of(response) {
            self.refusals.with_label_values(&[refusal.name()]).inc();
        }
    }

    /// The counter for connections that end for `reason`.
    pub fn disconnects_for(&self, reason: CloseReason) -> IntCounter {
        self.disconnects.with_label_values(&[&*reason.code().to_string(), reason.name()])
    }

    /// Everything, as text.
    pub fn to_text(&self) -> String {
        if let Some(process) = &self.process {
            process.update();
        }
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .expect("a String takes every write")
    }
}

/// What a writer has written in one go. Counted when it is dropped: counted at each write, it would have all writers wait for
/// the same few words of memory.
#[derive(Default)]
pub struct WriteTally {
    bytes: u64,
    delays: Option<LocalHistogram>,
}

impl WriteTally {
    /// So many bytes have been written.
    pub fn wrote(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Something has been written that waited so long.
    pub fn waited(&mut self, delay: Duration) {
        self.delays
            .get_or_insert_with(|| METRICS.write_delay_seconds.local())
            .observe(delay.as_secs_f64());
    }
}

impl Drop for WriteTally {
    fn drop(&mut self) {
        // The delays count themselves.
        METRICS.sent_bytes.inc_by(self.bytes);
    }
}

/// Adds a metric to the registry.
pub fn registered<M: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<M>,
) -> M {
    let metric = metric.expect("names and labels keep Prometheus' rules");
    registry.register(Box::new(metric.clone())).expect("each name is used once");
    metric
}

/// Answers scrapers, one at a time, until the listener is shut down after `stopping` has been set.
pub fn serve(listener: &TcpListener, stopping: &AtomicBool) {
    loop {
        let accepted = listener.accept();
        if stopping.load(Ordering::SeqCst) {
            return;
        }
        match accepted {
            Ok((stream, peer)) => {
                if let Err(problem) = answer(&stream) {
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

fn answer(stream: &TcpStream) -> std::io::Result<()> {
    let (response, head_only) = match http::read_head(stream, SCRAPE_TIMEOUT) {
        Ok((request, _)) => {
            (respond(request.uri().path(), request.method()), request.method() == Method::HEAD)
        }
        Err(error) => match error.response() {
            Some(response) => (response, false),
            None => return Ok(()),
        },
    };
    http::respond(stream, &http::to_bytes(response, head_only), SCRAPE_TIMEOUT)
}

fn respond(path: &str, method: &Method) -> Response {
    match (path, method) {
        ("/metrics", &Method::GET | &Method::HEAD) => {
            let mut response = Response::new(METRICS.to_text().into());
            response.headers_mut().insert(CONTENT_TYPE, TEXT_FORMAT);
            response
        }
        ("/metrics", _) => http::not_allowed("GET, HEAD"),
        _ => http::text(StatusCode::NOT_FOUND, "nothing here; the metrics are at /metrics"),
    }
}
