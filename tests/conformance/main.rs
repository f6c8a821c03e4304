//! The cases of the Autobahn test suite, run against parlour's pumps: `make conformance`.
//!
//! kosoku runs them, a WebSocket client that is installed from PyPI into `target/`. A case must be
//! OK, or NON-STRICT if `non-strict.txt` lists it. Cases without a judgement (INFORMATIONAL) pass.

mod echo;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::{fs, io, thread};

use parlour::chat::connection::Connection;
use parlour::chat::write_half::SweepQueue;
use parlour::http::{request, upgrade};
use serde_json::Value;

const KOSOKU: &str = "kosoku==0.1.0";
/// How many cases there are, without those of compression (12 and 13), which parlour does not
/// offer.
const CASES: usize = 301;
/// The cases that may be NON-STRICT, each with its number and the reason.
const NON_STRICT: &str = include_str!("non-strict.txt");

type Outcome<T> = Result<T, String>;

fn main() -> ExitCode {
    match run() {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<String> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("conformance");
    let kosoku = install(&folder.join("venv"))?;
    let listener = TcpListener::bind("127.0.0.1:0")
        .map_err(|error| format!("no port for the echo: {error}"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?.to_string();
    thread::spawn(move || listen(&listener).expect("the echo accepts"));

    let reports = folder.join("reports");
    // A report of an earlier run must not be taken for one of this run.
    let _ = fs::remove_dir_all(&reports);
    let mut command = Command::new(&kosoku);
    command.args(["-x", "12.*", "-x", "13.*", "-o"]).arg(&reports).arg(&address);
    // kosoku's status counts NON-STRICT as passed, so only the report decides.
    let status =
        command.status().map_err(|error| format!("can't run {}: {error}", kosoku.display()))?;
    let index = reports.join("index.json");
    let index = fs::read_to_string(&index)
        .map_err(|error| format!("{status}, no {}: {error}", index.display()))?;
    judge(&index).map_err(|problem| format!("{problem}\nthe reports are in {}", reports.display()))
}

/// Serves an echo to every connection, until the process ends.
fn listen(listener: &TcpListener) -> io::Result<()> {
    let (config, sweeps) = (Arc::new(echo::config()), SweepQueue::new());
    for id in 1.. {
        let (stream, peer) = listener.accept()?;
        stream.set_nodelay(true)?;
        let connection = Arc::new(Connection::new(id, peer, stream));
        let (config, sweeps) = (config.clone(), sweeps.clone());
        thread::spawn(move || {
            let head = request::read_head(&connection.stream, config.handshake_timeout);
            let (request, leftover) = head.expect("a request head");
            let upgrade = upgrade::upgrade(request, leftover).expect("an upgrade");
            echo::serve(&connection, upgrade, &config, &sweeps).expect("a thread for the writer");
        });
    }
    Ok(())
}

/// Returns the path of kosoku. Installs it if need be.
fn install(venv: &Path) -> Outcome<PathBuf> {
    let (python, kosoku) = (venv.join("bin/python"), venv.join("bin/kosoku"));
    if !kosoku.exists() {
        let task = "make a virtual environment (Debian: apt-get install python3-venv)";
        succeed(Command::new("python3").args(["-m", "venv", "--clear"]).arg(venv), task)?;
        let task = "install kosoku from PyPI, which needs the network once";
        succeed(Command::new(python).args(["-m", "pip", "install", "--quiet", KOSOKU]), task)?;
    }
    Ok(kosoku)
}

/// Runs a command, which must succeed in its `task`.
fn succeed(command: &mut Command, task: &str) -> Outcome<()> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("can't {task}: {command:?} ended with {status}")),
        Err(error) => Err(format!("can't {task}: {command:?}: {error}")),
    }
}

/// Compares the report with `non-strict.txt`, in both directions. Returns a summary.
fn judge(index: &str) -> Outcome<String> {
    let index: Value =
        serde_json::from_str(index).map_err(|error| format!("the report is not JSON: {error}"))?;
    let cases: Vec<(&String, &Value)> = index
        .as_object()
        .into_iter()
        .flat_map(|agents| agents.values())
        .flat_map(|cases| cases.as_object().into_iter().flatten())
        .collect();
    let mut expected: BTreeMap<&str, &str> = BTreeMap::new();
    for line in NON_STRICT.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (case, reason) = line
            .split_once(' ')
            .ok_or_else(|| format!("{line:?} in non-strict.txt gives no reason"))?;
        expected.insert(case, reason);
    }
    let mut problems = Vec::new();
    if cases.len() != CASES {
        problems.push(format!("{} cases were run, not {CASES}", cases.len()));
    }
    let (mut ok, mut informational) = (0, 0);
    for (case, report) in cases {
        let (behavior, close) = (report["behavior"].as_str(), report["behaviorClose"].as_str());
        let listed = expected.remove(case.as_str()).is_some();
        match behavior {
            _ if !matches!(close, Some("OK" | "INFORMATIONAL")) => {
                problems.push(format!("{case} was closed wrongly: {}", report["behaviorClose"]));
            }
            Some("NON-STRICT") if listed => {}
            _ if listed => problems
                .push(format!("{case} is {}, and non-strict.txt lists it", report["behavior"])),
            Some("OK") => ok += 1,
            Some("INFORMATIONAL") => informational += 1,
            _ => problems.push(format!("{case} is {}", report["behavior"])),
        }
    }
    problems
        .extend(expected.keys().map(|case| format!("{case} is in non-strict.txt and was not run")));
    if !problems.is_empty() {
        return Err(problems.join("\n"));
    }
    Ok(format!(
        "{CASES} cases: {ok} OK, {informational} informational, {} non-strict for a known reason",
        CASES - ok - informational
    ))
}
