//! What the process costs, read from Linux' `/proc`, and what it keeps to itself.

use std::{fs, io};

use rlimit::Resource;

/// Clock ticks a second in `/proc/self/stat` (proc(5)), the same on every architecture in use.
const TICKS_PER_SECOND: f64 = 100.0;
/// Fields behind the program's name in `/proc/self/stat` that count processor time: utime, stime.
const CPU_FIELDS: std::ops::Range<usize> = 11..13;
/// The field there that has the start, in ticks since the system's: starttime.
const START_FIELD: usize = 19;
const KIB: i64 = 1024;

/// What the process uses at the moment.
pub struct Usage {
    /// Start of the process, in seconds since 1970 by the clock as it is now.
    pub start_time_seconds: f64,
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
        let fields = stat_fields(&stat)?;
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
        let system_stat = fs::read_to_string("/proc/stat").ok()?;
        Some(Usage {
            start_time_seconds: start_time_seconds(&stat, &system_stat)?,
            cpu_seconds: ticks / TICKS_PER_SECOND,
            resident_bytes: number("VmRSS:")? * KIB,
            threads: number("Threads:")?,
            open_files: open_files as i64,
        })
    }
}

/// Keeps the memory of the process off the disk, and out of reach of other programs of its user: it
/// holds sessions and private messages. No core is dumped, and no debugger can attach.
///
/// # Errors
/// If the system refuses one of the two.
pub fn keep_memory_private() -> io::Result<()> {
    Resource::CORE.set(0, 0)?;
    forbid_dumps()
}

#[cfg(target_os = "linux")]
fn forbid_dumps() -> io::Result<()> {
    Ok(nix::sys::prctl::set_dumpable(false)?)
}

#[cfg(not(target_os = "linux"))]
fn forbid_dumps() -> io::Result<()> {
    Ok(())
}

/// Returns the start of a process, in seconds since 1970, from its `stat` file and the system's.
///
/// The system's start moves when somebody sets the clock, and so this does. A clock read at the
/// start would stay wrong on a machine that gets the time from the network after its boot.
pub fn start_time_seconds(stat: &str, system_stat: &str) -> Option<f64> {
    let ticks: f64 = stat_fields(stat)?.get(START_FIELD)?.parse().ok()?;
    let boot = system_stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(boot.trim().parse::<f64>().ok()? + ticks / TICKS_PER_SECOND)
}

/// Returns the fields of `/proc/self/stat` behind the program's name, which is in parentheses and
/// may hold anything.
fn stat_fields(stat: &str) -> Option<Vec<&str>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace().collect())
}
