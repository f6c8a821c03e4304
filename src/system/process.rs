//! What the process costs, read from Linux' `/proc`.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// Clock ticks a second in `/proc/self/stat` (proc(5)), the same on every architecture in use.
const TICKS_PER_SECOND: f64 = 100.0;
/// Fields behind the program's name in `/proc/self/stat` that count processor time: utime, stime.
const CPU_FIELDS: std::ops::Range<usize> = 11..13;
const KIB: i64 = 1024;

/// What the process uses at the moment.
pub struct Usage {
    /// Processor time since the start, in user and system mode.
    pub cpu_seconds: f64,
    /// Resident memory, without the kernel's part.
    pub resident_bytes: i64,
    /// Threads that run or sleep.
    pub threads: i64,
    /// Open file descriptors.
    pub open_files: i64,
}

impl Usage {
    /// Reads the process's usage. `None` where there is no `/proc`.
    pub fn read() -> Option<Usage> {
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
        // Without the descriptor by which the folder is read.
        let open_files = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
        Some(Usage {
            cpu_seconds: ticks / TICKS_PER_SECOND,
            resident_bytes: number("VmRSS:")? * KIB,
            threads: number("Threads:")?,
            open_files: open_files as i64,
        })
    }
}

/// Returns the current time as the start of the process, in seconds since 1970.
pub fn start_time_seconds() -> f64 {
    // A clock before 1970 is wrong anyway.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
