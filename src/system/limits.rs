//! How many connections the system can carry, found out before it has to say no in the middle of something.
//!
//! Running out of threads or descriptors is an error that can be answered. Running out of memory mappings is not: a thread
//! that starts but can't map its signal stack aborts the process. So the server stays below every limit it can read.

use std::fs;
use std::path::Path;
use std::thread;

use rlimit::Resource;

/// Threads that serve one client of the chat; a request has one.
const THREADS_PER_CLIENT: u64 = 2;
/// Mappings of one thread: its stack, a guard, its signal stack, a guard.
const MAPPINGS_PER_THREAD: u64 = 4;
/// What the process needs beside its connections, and others under the same limits.
const FILES_RESERVED: u64 = 48;
const THREADS_RESERVED: u64 = 64;
/// Libraries, which take about 60, and what the allocator maps for large blocks.
const MAPPINGS_RESERVED: u64 = 300;
/// glibc's allocator gives threads up to eight arenas a processor, each two mappings.
const MAPPINGS_RESERVED_PER_PROCESSOR: u64 = 16;
/// Places for requests, which are connections that are no clients (yet): some, and one more for so many clients, up to so
/// many. Newcomers need them for a moment each; an attacker must fill all of them within that moment to keep a newcomer out.
const REQUESTS_MIN: u64 = 32;
const CLIENTS_PER_REQUEST: u64 = 8;
const REQUESTS_MAX: u64 = 256;

/// The most connections the system carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceiling {
    /// Clients of the chat, at least one.
    pub clients: usize,
    /// Requests at the same time, beside the clients.
    pub requests: usize,
    /// The name of the limit that sets it.
    pub limit: &'static str,
}

/// Works out the ceiling from the limits of process, cgroup and kernel. `chosen` lowers it. Limits that can't be read, as
/// on systems without them, don't count.
pub fn ceiling(chosen: Option<usize>) -> Ceiling {
    let resource = |resource: Resource| resource.get_soft().ok();
    let limits = [
        ("--max-connections", chosen.map(|clients| clients as u64)),
        ("RLIMIT_NOFILE", resource(Resource::NOFILE).map(by_files)),
        ("RLIMIT_NPROC", resource(Resource::NPROC).map(by_threads)),
        ("kernel.threads-max", number("/proc/sys/kernel/threads-max".as_ref()).map(by_threads)),
        ("kernel.pid_max", number("/proc/sys/kernel/pid_max".as_ref()).map(by_threads)),
        ("the cgroup's pids.max", own_pids_max().map(by_threads)),
        ("vm.max_map_count", number("/proc/sys/vm/max_map_count".as_ref()).map(by_mappings)),
    ];
    let known = limits.into_iter().filter_map(|(limit, clients)| Some((clients?, limit)));
    let (clients, limit) = known.min().unwrap_or((u64::MAX, "nothing"));
    let clients = clients.max(1);
    let requests = REQUESTS_MIN.saturating_add(clients / CLIENTS_PER_REQUEST).min(REQUESTS_MAX);
    let places = |places| usize::try_from(places).unwrap_or(usize::MAX);
    Ceiling { clients: places(clients), requests: places(requests), limit }
}

fn by_files(files: u64) -> u64 {
    clients(files.saturating_sub(FILES_RESERVED), 1)
}

fn by_threads(threads: u64) -> u64 {
    clients(threads.saturating_sub(THREADS_RESERVED), THREADS_PER_CLIENT)
}

fn by_mappings(mappings: u64) -> u64 {
    let processors =
        thread::available_parallelism().map_or(1, |processors| processors.get() as u64);
    let reserved = MAPPINGS_RESERVED + MAPPINGS_RESERVED_PER_PROCESSOR * processors;
    clients(mappings.saturating_sub(reserved) / MAPPINGS_PER_THREAD, THREADS_PER_CLIENT)
}

/// The clients that fit with their requests where a client takes `per_client` of a resource and a request one.
fn clients(available: u64, per_client: u64) -> u64 {
    // With as many requests as the clients give them, or with as many as there may be, whichever leaves more.
    let by_clients = available.saturating_sub(REQUESTS_MIN).saturating_mul(CLIENTS_PER_REQUEST);
    let by_requests = available.saturating_sub(REQUESTS_MAX);
    (by_clients / (per_client * CLIENTS_PER_REQUEST + 1)).max(by_requests / per_client)
}

fn own_pids_max() -> Option<u64> {
    pids_max(&fs::read_to_string("/proc/self/cgroup").ok()?, "/sys/fs/cgroup".as_ref())
}

/// The smallest `pids.max` of the cgroups in `memberships`, which is `/proc/self/cgroup`, and of those above them, in
/// version 2 and in version 1, where each controller has a folder of its own under `root`.
pub fn pids_max(memberships: &str, root: &Path) -> Option<u64> {
    let smallest = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let mount = match controllers {
            "" => root.to_owned(),
            controllers => {
                root.join(controllers.split(',').find(|&controller| controller == "pids")?)
            }
        };
        // In a container the path may be the host's, and what is mounted begins below it. The ancestors lead there.
        let folder = mount.join(path.trim_start_matches('/'));
        let folders = folder.ancestors().take_while(|folder| folder.starts_with(&mount));
        // A file that says `max` sets no limit.
        folders.filter_map(|folder| number(&folder.join("pids.max"))).min()
    };
    memberships.lines().filter_map(smallest).min()
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
