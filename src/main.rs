//! The binary: options, log, signals, exit status.

use std::io::Write;
use std::process::{ExitCode, exit};
use std::thread;

use log::{error, info, warn};
use parlour::config::Config;
use parlour::logging;
use parlour::server::{Server, StopHandle};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Exit status of a start or an end that went wrong.
const FAILURE: u8 = 1;
/// Exit status of a command line that can't be understood.
const USAGE: u8 = 2;
/// A second signal ends the process with this and the signal's number, as a shell would report it.
const SIGNAL_BASE: i32 = 128;

fn main() -> ExitCode {
    let config = match Config::read(std::env::args_os()) {
        Ok(config) => config,
        // `--help` and `--version`.
        Err(told) if !told.use_stderr() => {
            return match write!(std::io::stdout(), "{told}") {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(FAILURE, &error.to_string()),
            };
        }
        Err(error) => return fail(USAGE, &one_line(&error.to_string())),
    };
    let log = match logging::start() {
        Ok(log) => log,
        Err(error) => return fail(FAILURE, &format!("can't start the log: {error}")),
    };
    if let Err(error) = rlimit::increase_nofile_limit(rlimit::INFINITY) {
        warn!("can't raise the limit on open files, each of which may be a client: {error}");
    }
    let status = serve(config);
    log.finish();
    status
}

fn serve(config: Config) -> ExitCode {
    let server = match Server::bind(config) {
        Ok(server) => server,
        Err(error) => return fail(FAILURE, &error.to_string()),
    };
    if let Err(error) = stop_on_signals(server.stop_handle()) {
        return fail(FAILURE, &format!("can't wait for signals: {error}"));
    }
    if let Ok(Some(address)) = server.metrics_addr() {
        info!("metrics on http://{address}/metrics");
    }
    match server.local_addr() {
        Ok(address) => info!("listening on http://{address}/"),
        Err(error) => return fail(FAILURE, &error.to_string()),
    }
    match server.run() {
        Ok(()) => {
            info!("stopped");
            ExitCode::SUCCESS
        }
        // By the log, since a standard error that nobody reads must not hold the process.
        Err(error) => {
            error!("{error}");
            ExitCode::from(FAILURE)
        }
    }
}

fn fail(status: u8, problem: &str) -> ExitCode {
    // Where nobody can read it, the status still tells.
    let _ = writeln!(std::io::stderr(), "parlour: {problem}");
    ExitCode::from(status)
}

/// clap's error without its usage lines.
fn one_line(message: &str) -> String {
    let said = message.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let parts: Vec<&str> = said.filter(|line| !line.is_empty() && !line.starts_with("For more")).collect();
    format!("{}; parlour --help explains every option", parts.join("; ").trim_start_matches("error: "))
}

/// The first signal stops the server, the second ends the process at once.
fn stop_on_signals(server: StopHandle) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut stopping = false;
        for signal in signals.forever() {
            if stopping {
                exit(SIGNAL_BASE + signal);
            }
            stopping = true;
            server.stop();
            info!("stopping; a second signal ends the process at once");
        }
    })?;
    Ok(())
}
