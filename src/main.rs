//! The program: command line, log, signals, exit status.

use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::process::{ExitCode, exit};
use std::thread;

use log::{error, info, warn};
use parlour::cli::{Command, FAILURE, Options, PROGRAM, SIGNAL_BASE, USAGE};
use parlour::config::{self, Config, LogFormat};
use parlour::server::{Server, StopHandle};
use parlour::system::{limits, logging, network, process};
use parlour::terminal;
use parlour::terminal::healthcheck;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

fn main() -> ExitCode {
    let Options { config, command } = match Options::read(std::env::args_os()) {
        Ok(options) => options,
        // `--help` and `--version`.
        Err(text) if !text.use_stderr() => {
            return match write!(std::io::stdout(), "{text}") {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(FAILURE, &error.to_string()),
            };
        }
        Err(error) => {
            return fail(
                USAGE,
                &one_line(&error.to_string(), &Options::help_for(std::env::args_os())),
            );
        }
    };
    match command {
        None => run_server(config),
        Some(Command::Chat(options)) => match terminal::run(&options) {
            Ok(status) => ExitCode::from(status),
            Err(problem) => fail(FAILURE, &problem),
        },
        Some(Command::Healthcheck { url }) => {
            match healthcheck::run(url.as_deref(), &config.listen) {
                Ok(()) => ExitCode::SUCCESS,
                Err(problem) => fail(FAILURE, &problem),
            }
        }
    }
}

fn run_server(config: Config) -> ExitCode {
    let raised = rlimit::increase_nofile_limit(rlimit::INFINITY);
    limits::restart_with_one_arena(config.max_connections);
    let log = match logging::start(config.log_format) {
        Ok(log) => log,
        Err(error) => return fail(FAILURE, &format!("can't start the log: {error}")),
    };
    if let Err(error) = process::keep_memory_private() {
        warn!("can't keep the memory of this process private: {error}");
    }
    if let Err(error) = raised {
        warn!("can't raise the limit on open files, each of which may be a client: {error}");
    }
    warn_of_unknown_variables();
    let json = config.log_format == LogFormat::Json;
    let status = match start(config) {
        Ok(server) => serve(server),
        // A collector gets its objects whatever happens.
        Err(problem) if json => {
            error!("{problem}");
            ExitCode::from(FAILURE)
        }
        Err(problem) => fail(FAILURE, &problem),
    };
    log.finish();
    status
}

/// Logs variables that may be mistyped options, in one line however many there are.
fn warn_of_unknown_variables() {
    let unknown = config::unknown_variables();
    let unknown = unknown.into_iter().map(|(name, nearest)| {
        let meant = nearest.map(|nearest| format!(" (did you mean {nearest}?)"));
        format!("{}{}", name.escape_debug(), meant.unwrap_or_default())
    });
    let unknown: Vec<String> = unknown.collect();
    if !unknown.is_empty() {
        warn!("no option has such a variable: {}; {PROGRAM} --help lists all", unknown.join(", "));
    }
}

/// Binds a server that stops when a signal asks it to, and logs its addresses.
fn start(config: Config) -> Result<Server, String> {
    let server = Server::bind(config).map_err(|error| error.to_string())?;
    stop_on_signals(server.stop_handle())
        .map_err(|error| format!("can't wait for signals: {error}"))?;
    if let Ok(Some(address)) = server.metrics_addr() {
        info!("metrics on http://{address}/metrics");
    }
    let address = server.local_addr().map_err(|error| error.to_string())?;
    info!("listening on http://{address}/");
    if address.ip().is_unspecified() {
        for ip in network::own_addresses(address.ip().is_ipv6()) {
            info!("other machines reach it at http://{}/", SocketAddr::new(ip, address.port()));
        }
    }
    Ok(server)
}

fn serve(server: Server) -> ExitCode {
    match server.run() {
        Ok(()) => {
            info!("stopped");
            ExitCode::SUCCESS
        }
        // Through the log, since a standard error that nobody reads must not block the process.
        Err(error) => {
            error!("{error}");
            ExitCode::from(FAILURE)
        }
    }
}

fn fail(status: u8, problem: &str) -> ExitCode {
    // If nobody can read it, the exit status still says that it failed.
    let _ = writeln!(std::io::stderr(), "{PROGRAM}: {problem}");
    ExitCode::from(status)
}

/// Shortens clap's error to one line: without usage, with the command that gives help.
fn one_line(message: &str, help: &str) -> String {
    let lines = message.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let parts: Vec<&str> =
        lines.filter(|line| !line.is_empty() && !line.starts_with("For more")).collect();
    format!("{}; {help} explains every option", parts.join("; ").trim_start_matches("error: "))
}

/// Starts the thread that waits for signals. The first one stops the server, the second ends the
/// process at once.
///
/// SIGHUP means that the terminal has gone in which the server was started, and stops it as well.
/// It may come twice, from the kernel and from the shell, so it never counts as the second. Without
/// a terminal, as a service, it asks other servers to reload their configuration or reopen their
/// log. There is neither here, so nothing happens. If it was ignored from the start, as under
/// nohup, it stays ignored.
fn stop_on_signals(server: StopHandle) -> std::io::Result<()> {
    let mut caught = vec![SIGINT, SIGTERM];
    if !ignored(SIGHUP) {
        caught.push(SIGHUP);
    }
    let in_terminal = File::open("/dev/tty").is_ok();
    let mut signals = Signals::new(caught)?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut stopping = false;
        for signal in signals.forever() {
            match signal {
                SIGHUP if !in_terminal => info!("SIGHUP: there is nothing to reload or reopen"),
                SIGHUP if stopping => {}
                _ if stopping => exit(i32::from(SIGNAL_BASE) + signal),
                _ => {
                    stopping = true;
                    server.stop();
                    info!("stopping; a second signal ends the process at once");
                }
            }
        }
    })?;
    Ok(())
}

/// True if this process was started with `signal` ignored. False where the system can't say, as on
/// systems other than Linux.
fn ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default();
    mask >> (signal - 1) & 1 == 1
}
