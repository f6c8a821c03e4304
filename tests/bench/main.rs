//! `make bench`: measures a chat room as its clients see it, and prints a table.
//!
//! One thread plays all clients. Each content begins with a stamp: `@@` and the time in 19 digits
//! of nanoseconds. A delivery is found by its stamp, whatever a server writes around it, so other
//! servers can be measured with the same load.

mod load;
mod server;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use load::{Load, Mode};
use server::{Peer, Server};

/// Time measured for each workload, after a warm-up.
const MEASURED: Duration = Duration::from_secs(2);
const WARM_UP: Duration = Duration::from_millis(500);
/// Length of each content.
const CONTENT_BYTES: usize = 64;

#[derive(Parser)]
#[command(about = "Measures a chat room as its clients see it")]
struct Options {
    /// Measure the server that is already running here, instead of starting one
    #[arg(long, value_name = "ADDRESS:PORT")]
    addr: Option<String>,
    /// Also measure the rooms of tests/peers whose tools are installed
    #[arg(long)]
    peers: bool,
    /// Number of clients in the large workloads
    #[arg(long, default_value_t = 1000)]
    clients: usize,
    /// Set by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Err(error) = rlimit::increase_nofile_limit(rlimit::INFINITY) {
        eprintln!("can't raise the limit on open files: {error}");
    }
    let mut peers = match &options.addr {
        Some(address) => vec![Peer::Running(address.clone())],
        None => vec![Peer::Parlour],
    };
    if options.peers {
        peers.extend(Peer::found());
    }
    println!("{}; load and server share it\n", machine());
    let many = options.clients;
    let workloads = [
        (format!("{many} in a room, 64 in flight"), many, 1, Mode::Window(64)),
        (format!("{many} in a room, 16 in flight"), many, 1, Mode::Window(16)),
        (format!("{many} in a room, 1 in flight"), many, 1, Mode::Window(1)),
        (format!("{many} in a room, 20 messages/s"), many, 1, Mode::Rate(20)),
        (format!("{many} in a room, 100 messages/s"), many, 1, Mode::Rate(100)),
        (
            format!("{} rooms of 20, 16 in flight each", many / 20),
            many,
            many / 20,
            Mode::Window(16),
        ),
        ("a room of 2, 1 in flight".to_owned(), 2, 1, Mode::Window(1)),
    ];
    let mut failed = false;
    println!(
        "| server | workload | deliveries/s | CPU µs each | p50 ms | p99 ms | p99.9 ms | KiB a client |"
    );
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (name, clients, rooms, mode) in workloads {
        for peer in &peers {
            let measured = Server::start(peer).and_then(|server| {
                let load = Load { clients, rooms, mode, content_bytes: CONTENT_BYTES };
                load.run(&server, WARM_UP, MEASURED).map(|figures| (server, figures))
            });
            match measured {
                Ok((_, figures)) => println!("| {} | {name} | {figures} |", peer.name()),
                Err(error) => {
                    failed = true;
                    println!("| {} | {name} | {error} |", peer.name());
                }
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Returns the machine's processors and system, as far as they are known.
fn machine() -> String {
    let cpu_info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu_info.lines().find(|line| line.starts_with("model name") || line.starts_with("Model"));
    let model = model
        .and_then(|line| line.split_once(':'))
        .map_or("an unknown processor", |(_, name)| name.trim());
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{processors} × {model}, {} {}", std::env::consts::OS, release.trim())
}
