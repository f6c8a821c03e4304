//! How many connections the system can carry: measured at start, so that it never has to fail
//! later.
//!
//! Running out of threads or descriptors is an error that can be handled. Running out of memory
//! mappings is not: a thread that starts but can't map its signal stack aborts the process. So the
//! server stays below every limit that it can read.

use std::fs;
use std::path::Path;
use std::thread;

use rlimit::Resource;

/// Threads of a client. A request has one.
const THREADS_PER_CLIENT: u64 = 2;
/// Memory mappings of a thread: its stack, its signal stack, and a guard for each.
const MAPPINGS_PER_THREAD: u64 = 4;
/// What the process needs for other things than connections, and other processes under the same
/// limits.
const FILES_RESERVED: u64 = 48;
const THREADS_RESERVED: u64 = 64;
/// Mappings of libraries, about 60, and of the allocator's large blocks.
const MAPPINGS_RESERVED: u64 = 300;
/// Mappings of glibc's allocator: up to eight arenas a processor, two for each.
const MAPPINGS_RESERVED_PER_PROCESSOR: u64 = 16;
/// Places for requests, which are connections that are not clients, or not yet: at least
/// `REQUESTS_MIN`, one more for every `CLIENTS_PER_REQUEST` clients, at most `REQUESTS_MAX`.
///
/// A newcomer needs one for a moment. An attacker must fill all of them within that moment to keep
/// a newcomer out.
const REQUESTS_MIN: u64 = 32;
const CLIENTS_PER_REQUEST: u64 = 8;
const REQUESTS_MAX: u64 = 256;

/// The maximum number of connections that the system carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceiling {
    /// Clients of the chat; at least one.
    pub clients: usize,
    /// Requests at the same time, in addition to the clients.
    pub requests: usize,
    /// The name of the limit that is reached first.
    pub limit: &'static str,
}

/// Computes the ceiling from the limits of process, cgroup and kernel, and from `chosen`, the
/// operator's own. Limits that can't be read, as on systems without them, don't count.
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

/// Returns how many clients fit together with their requests, if a client takes `per_client` of a
/// resource and a request takes one.
fn clients(available: u64, per_client: u64) -> u64 {
    // With as many requests as so many clients allow, or with the maximum of them: whichever leaves
    // space for more clients.
    let by_clients = available.saturating_sub(REQUESTS_MIN).saturating_mul(CLIENTS_PER_REQUEST);
    let by_requests = available.saturating_sub(REQUESTS_MAX);
    (by_clients / (per_client * CLIENTS_PER_REQUEST + 1)).max(by_requests / per_client)
}

fn own_pids_max() -> Option<u64> {
    pids_max(&fs::read_to_string("/proc/self/cgroup").ok()?, "/sys/fs/cgroup".as_ref())
}

/// Returns the smallest `pids.max` of the cgroups in `memberships` and of their ancestors.
///
/// `memberships` is the text of `/proc/self/cgroup`. Both versions of cgroups count; in version 1
/// each controller has a folder of its own under `root`.
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
        // In a container the path may be the host's, and the mount begins below it. The ancestors
        // lead there.
        let folder = mount.join(path.trim_start_matches('/'));
        let folders = folder.ancestors().take_while(|folder| folder.starts_with(&mount));
        // A file that contains `max` sets no limit.
        folders.filter_map(|folder| number(&folder.join("pids.max"))).min()
    };
    memberships.lines().filter_map(smallest).min()
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
