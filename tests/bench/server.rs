//! The servers to measure: starting them, reading their use of the system, stopping them.

use std::io::{self, BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers");
/// Where Debian's golang-github-gorilla-websocket-dev puts Go sources.
const DEBIAN_GO_PATH: &str = "/usr/share/gocode";
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A server that can be measured.
pub enum Peer {
    /// The binary of this build.
    Parlour,
    /// The same room in Go with gorilla/websocket, built to this path.
    Go(PathBuf),
    /// The same room on Bun, whose WebSocket server is uWebSockets, by this program.
    Bun(PathBuf),
    /// The server that listens on this address.
    Running(String),
}

impl Peer {
    /// Returns the rooms of tests/peers whose tools are installed. Says why others are left out.
    pub fn found() -> Vec<Peer> {
        let mut found = Vec::new();
        match build_go() {
            Ok(binary) => found.push(Peer::Go(binary)),
            Err(problem) => eprintln!("without Go: {problem}"),
        }
        let bun = std::env::var_os("BUN").map_or_else(|| PathBuf::from("bun"), PathBuf::from);
        match Command::new(&bun)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
        {
            Ok(status) if status.success() => found.push(Peer::Bun(bun)),
            _ => eprintln!("without Bun: no program called bun (or set BUN=/path/to/bun)"),
        }
        found
    }

    pub fn name(&self) -> &str {
        match self {
            Peer::Parlour => "parlour",
            Peer::Go(_) => "Go, gorilla",
            Peer::Bun(_) => "Bun",
            Peer::Running(address) => address,
        }
    }
}

fn build_go() -> Result<PathBuf, String> {
    let binary = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("go-chat");
    let mut go = Command::new("go");
    go.args(["build", "-o"]).arg(&binary).arg("chat.go").current_dir(Path::new(PEERS).join("go"));
    if Path::new(DEBIAN_GO_PATH).join("src/github.com/gorilla/websocket").exists() {
        go.env("GO111MODULE", "off").env("GOPATH", DEBIAN_GO_PATH);
    }
    match go.output() {
        Ok(output) if output.status.success() => Ok(binary),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("no program called go: {error}")),
    }
}

/// A server that is being measured. Dropping it ends it.
pub struct Server {
    pub address: String,
    process: Option<Child>,
}

impl Server {
    pub fn start(peer: &Peer) -> io::Result<Server> {
        let mut command = match peer {
            Peer::Running(address) => {
                return Ok(Server { address: address.clone(), process: None });
            }
            Peer::Parlour => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_parlour"));
                command
                    .args(["--listen", "127.0.0.1:0", "--message-rate", "0"])
                    .env("RUST_LOG", "info")
                    .stderr(Stdio::piped());
                let mut process = command.stdout(Stdio::null()).spawn()?;
                return match announced_address(&mut process) {
                    Ok(address) => Ok(Server { address, process: Some(process) }),
                    Err(error) => process.kill().and(Err(error)),
                };
            }
            Peer::Go(binary) => Command::new(binary),
            Peer::Bun(bun) => {
                let mut command = Command::new(bun);
                command.arg(Path::new(PEERS).join("bun.js"));
                command
            }
        };
        // The others need a port, so they get one that was free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let process = command.arg(&address).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let server = Server { address, process: Some(process) };
        let start = Instant::now();
        while TcpStream::connect(&server.address).is_err() {
            if start.elapsed() > START_TIMEOUT {
                return Err(io::Error::other("the server did not start"));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// Returns user and system time of all its threads, in seconds; zero if unknown.
    pub fn cpu_seconds(&self) -> f64 {
        const TICKS_PER_SECOND: f64 = 100.0; // USER_HZ, the same on every Linux
        let stat = self.proc_file("stat");
        let Some((_, fields)) = stat.rsplit_once(") ") else { return 0.0 };
        let ticks: f64 =
            fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        ticks / TICKS_PER_SECOND
    }

    /// Returns its resident memory in KiB; zero if unknown.
    pub fn resident_kib(&self) -> u64 {
        let status = self.proc_file("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|rest| rest.split_whitespace().next())
            .and_then(|kib| kib.parse().ok())
            .unwrap_or(0)
    }

    fn proc_file(&self, name: &str) -> String {
        let path = self.process.as_ref().map(|process| format!("/proc/{}/{name}", process.id()));
        path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()
    }
}

/// Reads the log up to the line with the address. A thread discards the rest.
fn announced_address(process: &mut Child) -> io::Result<String> {
    let stderr = process.stderr.take().ok_or_else(|| io::Error::other("no standard error"))?;
    let mut lines = BufReader::new(stderr).lines();
    while let Some(line) = lines.next() {
        if let Some((_, rest)) = line?.split_once("listening on http://") {
            thread::spawn(move || lines.for_each(drop));
            return Ok(rest.trim_end_matches('/').to_owned());
        }
    }
    Err(io::Error::other("the server ended at once"))
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
