//! The binary: options, log, signals, exit status.

use std::process::{ExitCode, exit};
use std::thread;

use log::{LevelFilter, Log, Metadata, Record, info};
use parlour::config::Config;
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
            print!("{told}");
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(USAGE, &one_line(&error.to_string())),
    };
    start_log();
    let server = match Server::bind(config) {
        Ok(server) => server,
        Err(error) => return fail(FAILURE, &error.to_string()),
    };
    if let Err(error) = stop_on_signals(server.stop_handle()) {
        return fail(FAILURE, &format!("can't wait for signals: {error}"));
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
        Err(error) => fail(FAILURE, &error.to_string()),
    }
}

fn fail(status: u8, problem: &str) -> ExitCode {
    eprintln!("parlour: {problem}");
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
            info!("stopping; a second signal ends the process at once");
            stopping = true;
            server.stop();
        }
    })?;
    Ok(())
}

/// `RUST_LOG` decides, `info` by default. tungstenite logs what people say, so it is left out whatever `RUST_LOG` says.
fn start_log() {
    let inner = env_logger::Builder::new().filter_level(LevelFilter::Info).parse_default_env().build();
    log::set_max_level(inner.filter());
    log::set_boxed_logger(Box::new(OwnLog(inner))).expect("no logger has been set before");
}

struct OwnLog(env_logger::Logger);

impl Log for OwnLog {
    fn enabled(&self, metadata: &Metadata) -> bool {
        !metadata.target().starts_with("tungstenite") && self.0.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}
