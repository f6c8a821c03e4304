//! `parlour healthcheck`: whether a server answers, for whoever watches it without curl.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crossbeam_channel::bounded;

use crate::protocol::address::{self, Address};

/// Time for everything, name look-up included. The server itself waits one second for its hub.
const DEADLINE: Duration = Duration::from_secs(2);
/// A status line is far shorter.
const RESPONSE_BYTES_MAX: u64 = 4096;
/// Headers of a response, more than parlour's.
const HEADERS_MAX: usize = 32;
/// What answers when the hub does.
const PATH: &str = "/healthz";

/// Asks the server at `url`. Without one, asks the server of this machine that listens on `listen`.
///
/// # Errors
/// Says which address does not answer well, and how.
pub fn run(url: Option<&str>, listen: &str) -> Result<(), String> {
    let text = url.map_or_else(|| reachable(listen), str::to_owned);
    let mut address = Address::parse(&text).map_err(|problem| format!("{text}: {problem}"))?;
    if address.path == "/" {
        PATH.clone_into(&mut address.path);
    }
    let asked = format!("http://{}{}", address.authority, address.path);
    let (answer, answered) = bounded(1);
    // Looking up a name knows no deadline, so the wait is here. The process ends, and the thread with it.
    let probe = move || drop(answer.send(probe(&address)));
    thread::Builder::new()
        .name("probe".to_owned())
        .spawn(probe)
        .map_err(|error| format!("can't start a thread: {error}"))?;
    match answered.recv_timeout(DEADLINE) {
        Ok(Ok(200)) => Ok(()),
        Ok(Ok(status)) => Err(format!("{asked} answers {status}")),
        Ok(Err(error)) => Err(format!("{asked}: {error}")),
        Err(_) => {
            Err(format!("{asked} does not answer within {}", humantime::format_duration(DEADLINE)))
        }
    }
}

/// The status of the response.
fn probe(address: &Address) -> io::Result<u16> {
    let mut stream = address.connect(DEADLINE)?;
    let Address { authority, path, .. } = address;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n")?;
    let mut received = Vec::new();
    stream.take(RESPONSE_BYTES_MAX).read_to_end(&mut received)?;
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(&received);
    match (parsed, response.code) {
        (Ok(_), Some(status)) => Ok(status),
        _ => Err(io::Error::other("what answers does not speak HTTP")),
    }
}

/// The address by which this machine reaches a server that listens on `listen`.
fn reachable(listen: &str) -> String {
    match listen.parse::<SocketAddr>() {
        Ok(address) => address::reachable(address).to_string(),
        Err(_) => listen.to_owned(),
    }
}
