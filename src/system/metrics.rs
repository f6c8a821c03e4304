//! What the server counts, in Prometheus' text format.
//!
//! Names follow Prometheus' conventions: base units, and `_total` on what only grows. There is one
//! set for the process. The counters are atomic: whoever sees an event counts it, and nobody waits.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::local::LocalHistogram;
use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};
use tungstenite::http::Response;

use super::process::Usage;
use crate::protocol::close::CloseReason;
use crate::protocol::refusal::Refusal;

/// Bounds of the histograms' buckets, in seconds: from a quiet room on a fast machine to a stall
/// that people notice.
const BUCKETS_SECONDS: [f64; 13] =
    [0.000_01, 0.000_03, 0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];
/// Every metric of the process.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// The metrics that the server's threads change. The help text of each says what it counts.
#[expect(missing_docs, reason = "each metric has a help text, and the book a table of them")]
pub struct Metrics {
    registry: Registry,
    process: Option<ProcessMetrics>,
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
    pub delayed_messages: IntCounter,
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
            delayed_messages: counter(
                "parlour_delayed_messages_total",
                "Messages that waited because their client sent faster than it may.",
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
            process: ProcessMetrics::register(&registry),
            registry: registry.clone(),
        };
        gauges("parlour_build_info", "The version, in a label.", "version")
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        // A series that starts with its first event hides that event from `rate()`.
        for reason in CloseReason::ALL {
            metrics.disconnects_for(reason);
        }
        for refusal in Refusal::ALL {
            metrics.refusals.with_label_values(&[refusal.name()]);
        }
        metrics
    }

    /// Counts a response that is about to be sent.
    pub fn count_response<Body>(&self, response: &Response<Body>) {
        self.http_responses.with_label_values(&[response.status().as_str()]).inc();
        if let Some(refusal) = Refusal::of(response) {
            self.refusals.with_label_values(&[refusal.name()]).inc();
        }
    }

    /// Returns the counter of connections that end for `reason`.
    pub fn disconnects_for(&self, reason: CloseReason) -> IntCounter {
        self.disconnects.with_label_values(&[&*reason.code().to_string(), reason.name()])
    }

    /// Formats every metric as text, those of the process read again.
    pub fn to_text(&self) -> String {
        if let Some(process) = &self.process {
            process.update();
        }
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .expect("a String takes every write")
    }
}

/// What a writer writes in one go. It is added to the metrics when dropped: added at each write,
/// all writers would compete for the same few words of memory.
#[derive(Default)]
pub struct WriteTally {
    bytes: u64,
    delays: Option<LocalHistogram>,
}

impl WriteTally {
    /// Counts bytes written to a socket.
    pub fn wrote(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Counts an entry that waited for `delay` until it was written.
    pub fn waited(&mut self, delay: Duration) {
        self.delays
            .get_or_insert_with(|| METRICS.write_delay_seconds.local())
            .observe(delay.as_secs_f64());
    }
}

impl Drop for WriteTally {
    fn drop(&mut self) {
        // The delays are added when `delays` is dropped.
        METRICS.sent_bytes.inc_by(self.bytes);
    }
}

fn registered<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<M>,
) -> M {
    let metric = metric.expect("names and labels follow Prometheus' rules");
    registry.register(Box::new(metric.clone())).expect("each name is used once");
    metric
}

/// What the process costs, under the names that Prometheus' own clients use. Absent where the
/// system is not Linux.
struct ProcessMetrics {
    start_time_seconds: Gauge,
    cpu_seconds: Counter,
    resident_bytes: IntGauge,
    threads: IntGauge,
    open_files: IntGauge,
}

impl ProcessMetrics {
    fn register(registry: &Registry) -> Option<ProcessMetrics> {
        Usage::read()?;
        let gauge = |name: &str, help: &str| registered(registry, IntGauge::new(name, help));
        Some(ProcessMetrics {
            start_time_seconds: registered(
                registry,
                Gauge::new(
                    "process_start_time_seconds",
                    "Start of the process, in seconds since 1970.",
                ),
            ),
            cpu_seconds: registered(
                registry,
                Counter::new(
                    "process_cpu_seconds_total",
                    "Processor time used, in user and system mode.",
                ),
            ),
            resident_bytes: gauge(
                "process_resident_memory_bytes",
                "Memory that the process occupies.",
            ),
            threads: gauge("process_threads", "Threads of the process."),
            open_files: gauge("process_open_fds", "Open file descriptors."),
        })
    }

    fn update(&self) {
        // One scraper at a time, so that nothing is counted twice.
        static UPDATING: Mutex<()> = Mutex::new(());
        let _updating = UPDATING.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(usage) = Usage::read() else { return };
        self.start_time_seconds.set(usage.start_time_seconds);
        self.cpu_seconds.inc_by((usage.cpu_seconds - self.cpu_seconds.get()).max(0.0));
        self.resident_bytes.set(usage.resident_bytes);
        self.threads.set(usage.threads);
        self.open_files.set(usage.open_files);
    }
}
