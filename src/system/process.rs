//! What the process costs, as Linux tells it, under the names that Prometheus' own clients give it. Elsewhere these metrics
//! are absent.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{Counter, Gauge, IntGauge, Registry};

use crate::system::metrics::registered;

/// Ticks of a second in /proc/self/stat (proc(5)), the same on every architecture that is not long gone.
const TICKS_PER_SECOND: f64 = 100.0;
/// Of /proc/self/stat, the fields behind the program's name that count processor time: utime and stime.
const CPU_FIELDS: std::ops::Range<usize> = 11..13;
const KIB: i64 = 1024;

/// The process's metrics.
pub struct Process {
    cpu_seconds: Counter,
    resident_bytes: IntGauge,
    threads: IntGauge,
    open_files: IntGauge,
}

impl Process {
    /// Adds them to the registry, if the system tells what they need.
    pub fn register(registry: &Registry) -> Option<Process> {
        Usage::read()?;
        let gauge = |name: &str, help: &str| registered(registry, IntGauge::new(name, help));
        let start = Gauge::new(
            "process_start_time_seconds",
            "Start of the process, in seconds since 1970.",
        );
        // A clock before 1970 is wrong anyway.
        registered(registry, start).set(
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()),
        );
        Some(Process {
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

    /// Reads them anew.
    pub fn update(&self) {
        let Some(usage) = Usage::read() else { return };
        // Two scrapes at a time do not happen, so nothing is counted twice.
        self.cpu_seconds.inc_by((usage.cpu_seconds - self.cpu_seconds.get()).max(0.0));
        self.resident_bytes.set(usage.resident_bytes);
        self.threads.set(usage.threads);
        self.open_files.set(usage.open_files);
    }
}

struct Usage {
    cpu_seconds: f64,
    resident_bytes: i64,
    threads: i64,
    open_files: i64,
}

impl Usage {
    fn read() -> Option<Usage> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name, in parentheses, may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = fields
            .get(CPU_FIELDS)?
            .iter()
            .map(|ticks| ticks.parse::<f64>())
            .sum::<Result<f64, _>>()
            .ok()?;
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let number = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name))?;
            value.split_whitespace().next()?.parse::<i64>().ok()
        };
        // Without the descriptor that looks.
        let open_files = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
        Some(Usage {
            cpu_seconds: ticks / TICKS_PER_SECOND,
            resident_bytes: number("VmRSS:")? * KIB,
            threads: number("Threads:")?,
            open_files: open_files as i64,
        })
    }
}
