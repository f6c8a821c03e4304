//! How many connections the system can carry: measured at start, so that it never has to fail
//! later.
//!
//! Running out of threads or descriptors is an error that can be handled. Running out of memory is
//! not: an allocation that fails aborts the process, and so does a thread that starts but can't map
//! its signal stack. So the server stays below every limit that it can read, and leaves a part of
//! the memory for what the clients say.
//!
//! Limits that don't count: `RLIMIT_STACK`, since every thread names the size of its stack;
//! `RLIMIT_MEMLOCK` and `RLIMIT_RSS`, since the server locks no memory and Linux ignores the
//! latter; swap, since a chat that waits for a disk is as good as gone.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::{env, fs, io, thread};

use rlimit::Resource;

/// Stack of a connection's reader, the largest of its threads.
pub const STACK_BYTES_MAX: usize = 256 * 1024;

/// Threads of a client. A request has one.
const THREADS_PER_CLIENT: u64 = 2;
/// Memory mappings of a thread: its stack, its signal stack, and a guard for each.
const MAPPINGS_PER_THREAD: u64 = 4;
/// Address space of a thread: the largest stack, since glibc gives a writer the old stack of a
/// reader; up to 12 KiB of signal stack; two guards; and its part of what an idle client allocates.
const ADDRESS_BYTES_PER_THREAD: u64 = STACK_BYTES_MAX as u64 + 32 * 1024;
/// Memory of a thread of an idle client, the kernel's part included: half of what "Sizing" in the
/// book shows for a client.
const MEMORY_BYTES_PER_THREAD: u64 = 36 * 1024;
/// The part of memory and address space that is left for what clients say: their queues, and what
/// rooms remember.
const MESSAGES_PART: u64 = 4;
/// What the process needs for other things than connections, and other processes under the same
/// limits.
const FILES_RESERVED: u64 = 48;
const THREADS_RESERVED: u64 = 64;
/// Mappings of libraries, about 60, and of the allocator's large blocks.
const MAPPINGS_RESERVED: u64 = 300;
/// Stacks of the threads that serve everyone: seven of 2 MiB.
const ADDRESS_BYTES_RESERVED: u64 = 16 << 20;
/// glibc's allocator makes up to so many arenas a processor. Each but the first reserves address
/// space, and has two mappings.
const ARENAS_PER_PROCESSOR: u64 = 8;
const ADDRESS_BYTES_PER_ARENA: u64 = 64 << 20;
const MAPPINGS_PER_ARENA: u64 = 2;
/// The variable by which glibc makes fewer arenas (mallopt(3)).
const ARENAS_VARIABLE: &str = "MALLOC_ARENA_MAX";
/// The name of the limit on address space.
const ADDRESS_SPACE: &str = "RLIMIT_AS";
/// `vm.overcommit_memory` where the system promises no more memory than it has.
const OVERCOMMIT_NEVER: u64 = 2;
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
///
/// # Errors
/// If a limit does not even suffice for one client and the requests, and reaching it would abort
/// the process.
pub fn ceiling(chosen: Option<usize>) -> io::Result<Ceiling> {
    ceiling_below("/".as_ref(), chosen)
}

/// Computes the ceiling, with the files of `/proc` and `/sys` below `root`.
///
/// # Errors
/// See [`ceiling`].
pub fn ceiling_below(root: &Path, chosen: Option<usize>) -> io::Result<Ceiling> {
    let system = System::below(root);
    let aborting = system.limits_that_abort();
    if let Some((name, _)) = aborting.iter().find(|(_, clients)| *clients == Some(0)) {
        let problem = format!("{name} leaves no memory for a client: raise it");
        return Err(io::Error::new(io::ErrorKind::OutOfMemory, problem));
    }
    let chosen = ("--max-connections", chosen.map(|clients| clients as u64));
    let all = [chosen].into_iter().chain(system.limits_that_refuse()).chain(aborting);
    let known = all.filter_map(|(name, clients)| Some((name, clients?)));
    let (limit, clients) = known.min_by_key(|known| known.1).unwrap_or(("nothing", u64::MAX));
    let clients = clients.max(1);
    let requests = REQUESTS_MIN.saturating_add(clients / CLIENTS_PER_REQUEST).min(REQUESTS_MAX);
    let places = |places| usize::try_from(places).unwrap_or(usize::MAX);
    Ok(Ceiling { clients: places(clients), requests: places(requests), limit })
}

/// A limit's name, and how many clients it allows, if it can be read.
type Limit = (&'static str, Option<u64>);

/// Where the limits of process, cgroup and kernel are read.
struct System<'a> {
    root: &'a Path,
    /// The text of `/proc/self/cgroup`.
    memberships: String,
}

impl System<'_> {
    fn below(root: &Path) -> System<'_> {
        let memberships = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        System { root, memberships }
    }

    /// Limits beyond which the system refuses a thread or a descriptor, or reclaims memory.
    fn limits_that_refuse(&self) -> [Limit; 9] {
        let files = |limit: Option<u64>| limit.map(by_files);
        let threads = |limit: Option<u64>| limit.map(by_threads);
        let memory_files = ["memory.max", "memory.high", "memory.limit_in_bytes"];
        let machine = self.kibibytes("proc/meminfo", "MemTotal:");
        [
            ("RLIMIT_NOFILE", files(resource(Resource::NOFILE))),
            ("fs.nr_open", files(self.kernel("fs/nr_open"))),
            ("fs.file-max", files(self.kernel("fs/file-max"))),
            ("RLIMIT_NPROC", threads(resource(Resource::NPROC))),
            ("kernel.threads-max", threads(self.kernel("kernel/threads-max"))),
            ("kernel.pid_max", threads(self.kernel("kernel/pid_max"))),
            ("the cgroup's pids.max", threads(self.cgroup("pids", &["pids.max"]))),
            ("the cgroup's memory limit", self.cgroup("memory", &memory_files).map(by_memory)),
            ("the machine's memory", machine.map(by_memory)),
        ]
    }

    /// Limits beyond which a thread that starts, or an allocation, aborts the process.
    fn limits_that_abort(&self) -> [Limit; 4] {
        let arenas = self.arenas();
        let left = |limit: Option<u64>, used: Option<u64>| Some(limit?.saturating_sub(used?));
        let own = |field| self.kibibytes("proc/self/status", field);
        let space = left(resource(Resource::AS), own("VmSize:"))
            .map(|bytes| bytes.saturating_sub(ADDRESS_BYTES_PER_ARENA * (arenas - 1)));
        let data = left(resource(Resource::DATA), own("VmData:"));
        let machine = |field| self.kibibytes("proc/meminfo", field);
        // In another mode the system promises more than it has, whatever `CommitLimit` says.
        let is_strict = self.kernel("vm/overcommit_memory") == Some(OVERCOMMIT_NEVER);
        let promised =
            left(machine("CommitLimit:"), machine("Committed_AS:")).filter(|_| is_strict);
        let mappings = self.kernel("vm/max_map_count");
        [
            ("vm.max_map_count", mappings.map(|count| by_mappings(count, arenas))),
            (ADDRESS_SPACE, space.map(by_address_space)),
            ("RLIMIT_DATA", data.map(by_address_space)),
            ("the system's CommitLimit", promised.map(by_address_space)),
        ]
    }

    /// Returns the maximum number of arenas that glibc makes; at least 1.
    fn arenas(&self) -> u64 {
        let chosen = env::var(ARENAS_VARIABLE).ok().and_then(|number| number.parse().ok());
        match chosen {
            Some(0_u32) | None => ARENAS_PER_PROCESSOR * self.processors(),
            Some(arenas) => arenas.into(),
        }
    }

    /// Returns the number of processors that the process may run on. glibc does not know of a
    /// cgroup's quota, which [`thread::available_parallelism`] counts.
    fn processors(&self) -> u64 {
        let mask = self.field("proc/self/status", "Cpus_allowed:").unwrap_or_default();
        match mask.chars().filter_map(|digit| digit.to_digit(16)).map(u32::count_ones).sum() {
            0 => thread::available_parallelism().map_or(1, |processors| processors.get() as u64),
            allowed => allowed.into(),
        }
    }

    fn kernel(&self, name: &str) -> Option<u64> {
        number(&self.root.join("proc/sys").join(name))
    }

    fn cgroup(&self, controller: &str, files: &[&str]) -> Option<u64> {
        cgroup_limit(&self.memberships, &self.root.join("sys/fs/cgroup"), controller, files)
    }

    /// Reads a field that counts in KiB, and returns it in bytes.
    fn kibibytes(&self, file: &str, field: &str) -> Option<u64> {
        let kib: u64 = self.field(file, field)?.strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib.saturating_mul(1024))
    }

    fn field(&self, file: &str, field: &str) -> Option<String> {
        let text = fs::read_to_string(self.root.join(file)).ok()?;
        Some(text.lines().find_map(|line| line.strip_prefix(field))?.trim().to_owned())
    }
}

fn resource(resource: Resource) -> Option<u64> {
    resource.get_soft().ok()
}

/// Starts this program again with a single arena, if address space is what limits its clients.
///
/// Every further arena takes the address space of more than 100 clients. glibc reads the number of
/// them from the environment, before `main`. Returns if there is no need, or if that fails: then
/// the arenas are counted.
pub fn restart_with_one_arena(chosen: Option<usize>) {
    let is_enough = ceiling(chosen).is_ok_and(|ceiling| ceiling.limit != ADDRESS_SPACE);
    if is_enough || env::var_os(ARENAS_VARIABLE).is_some() {
        return;
    }
    let mut args = env::args_os();
    if let (Ok(program), Some(name)) = (env::current_exe(), args.next()) {
        // The process stays the same, with its id, its descriptors and its ignored signals.
        let _ = Command::new(program).arg0(name).args(args).env(ARENAS_VARIABLE, "1").exec();
    }
}

fn by_files(files: u64) -> u64 {
    clients(files.saturating_sub(FILES_RESERVED), 1)
}

fn by_threads(threads: u64) -> u64 {
    clients(threads.saturating_sub(THREADS_RESERVED), THREADS_PER_CLIENT)
}

fn by_mappings(mappings: u64, arenas: u64) -> u64 {
    let reserved = MAPPINGS_RESERVED + MAPPINGS_PER_ARENA * arenas;
    clients(mappings.saturating_sub(reserved) / MAPPINGS_PER_THREAD, THREADS_PER_CLIENT)
}

/// `bytes` is what the process does not use yet.
fn by_address_space(bytes: u64) -> u64 {
    let bytes = bytes.saturating_sub(ADDRESS_BYTES_RESERVED);
    clients((bytes - bytes / MESSAGES_PART) / ADDRESS_BYTES_PER_THREAD, THREADS_PER_CLIENT)
}

fn by_memory(bytes: u64) -> u64 {
    clients((bytes - bytes / MESSAGES_PART) / MEMORY_BYTES_PER_THREAD, THREADS_PER_CLIENT)
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

/// Returns the smallest number in `files` of the cgroups in `memberships` and of their ancestors.
///
/// `memberships` is the text of `/proc/self/cgroup`. Both versions of cgroups count; in version 1
/// each controller has a folder of its own under `root`.
pub fn cgroup_limit(
    memberships: &str,
    root: &Path,
    controller: &str,
    files: &[&str],
) -> Option<u64> {
    let smallest = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let mount = match controllers {
            "" => root.to_owned(),
            controllers => {
                root.join(controllers.split(',').find(|&mounted| mounted == controller)?)
            }
        };
        // In a container the path may be the host's, and the mount begins below it. The ancestors
        // lead there.
        let folder = mount.join(path.trim_start_matches('/'));
        let folders = folder.ancestors().take_while(|folder| folder.starts_with(&mount));
        // A file that contains `max` sets no limit.
        let numbers =
            folders.flat_map(|folder| files.iter().filter_map(|file| number(&folder.join(file))));
        numbers.min()
    };
    memberships.lines().filter_map(smallest).min()
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
