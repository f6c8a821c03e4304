//! How many connections the system can carry, found out before it has to say no in the middle of something.
//!
//! Running out of threads or descriptors is an error that can be answered. Running out of memory mappings is not: a thread
//! that starts but can't map its signal stack aborts the process. So the server stays below every limit it can read.

use std::fs;
use std::path::{Path, PathBuf};

use rlimit::Resource;

/// Threads that serve one chat client.
const THREADS_PER_CLIENT: u64 = 2;
/// Mappings of one thread: its stack, a guard, its signal stack, a guard.
const MAPPINGS_PER_THREAD: u64 = 4;
/// What the process needs beside its clients, and others under the same limits.
const FILES_RESERVED: u64 = 48;
const THREADS_RESERVED: u64 = 64;
const MAPPINGS_RESERVED: u64 = 1200;

/// The most connections the system carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ceiling {
    /// Connections, at least one.
    pub connections: usize,
    /// The name of the limit that sets it.
    pub limit: &'static str,
}

/// Works out the ceiling from the limits of process, cgroup and kernel. `chosen` lowers it. Limits that can't be read, as
/// on systems without them, don't count.
pub fn ceiling(chosen: Option<usize>) -> Ceiling {
    let resource = |resource: Resource| resource.get_soft().ok();
    let by_threads = |threads: u64| threads.saturating_sub(THREADS_RESERVED) / THREADS_PER_CLIENT;
    let limits = [
        ("--max-connections", chosen.map(|connections| connections as u64)),
        ("RLIMIT_NOFILE", resource(Resource::NOFILE).map(|files| files.saturating_sub(FILES_RESERVED))),
        ("RLIMIT_NPROC", resource(Resource::NPROC).map(by_threads)),
        ("kernel.threads-max", number("/proc/sys/kernel/threads-max").map(by_threads)),
        ("kernel.pid_max", number("/proc/sys/kernel/pid_max").map(by_threads)),
        ("the cgroup's pids.max", cgroup_pids_max().map(by_threads)),
        ("vm.max_map_count", number("/proc/sys/vm/max_map_count").map(by_mappings)),
    ];
    let known = limits.into_iter().filter_map(|(limit, connections)| Some((connections?, limit)));
    let (connections, limit) = known.min().unwrap_or((u64::MAX, "nothing"));
    Ceiling { connections: usize::try_from(connections.max(1)).unwrap_or(usize::MAX), limit }
}

fn by_mappings(mappings: u64) -> u64 {
    mappings.saturating_sub(MAPPINGS_RESERVED) / (THREADS_PER_CLIENT * MAPPINGS_PER_THREAD)
}

fn number(path: impl AsRef<Path>) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The smallest `pids.max` of this process's cgroup (version 2) and those above it.
fn cgroup_pids_max() -> Option<u64> {
    let memberships = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = memberships.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let folder = PathBuf::from("/sys/fs/cgroup").join(own);
    folder.ancestors().take_while(|folder| folder.starts_with("/sys/fs/cgroup")).filter_map(pids_max).min()
}

/// `max` stands for no limit.
fn pids_max(folder: &Path) -> Option<u64> {
    number(folder.join("pids.max"))
}
