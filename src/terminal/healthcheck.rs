//! `parlour healthcheck`: asks a server whether it is well, for monitors on a machine without curl.

use std::io::{self, Read, Write};
use std::thread;
use std::time::Duration;

use crossbeam_channel::bounded;

use crate::protocol::address::Address;

/// Time for the whole check, looking up the name included. The server waits one second for its hub.
const DEADLINE: Duration = Duration::from_secs(2);
/// Time to connect to each address of the server, so that there is time left for a second one.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(900);
/// Bytes to read of a response. Its first line, which has the status, is far shorter.
const RESPONSE_BYTES_MAX: u64 = 4096;
/// Headers to read of a response, more than parlour sends.
const HEADERS_MAX: usize = 32;
/// The path that the server answers only if its hub does.
const PATH: &str = "/healthz";
/// The status of a server that is well.
const OK: u16 = 200;

/// Asks the server at `url`; without it, the server on this machine that listens on `listen`, the
/// value of `PARLOUR_LISTEN`.
///
/// # Errors
/// Says which address gives no answer or a wrong one, and which.
pub fn run(url: Option<&str>, listen: &str) -> Result<(), String> {
    let (text, prefix) = url.map_or((listen, "PARLOUR_LISTEN="), |url| (url, ""));
    let mut address =
        Address::parse(text).map_err(|problem| format!("{prefix}{text}: {problem}"))?;
    if address.path == "/" {
        PATH.clone_into(&mut address.path);
    }
    let url = format!("http://{}{}", address.authority, address.path);
    let (sender, result) = bounded(1);
    // Looking up a name has no timeout, so it is waited for here. The thread ends with the process.
    thread::Builder::new()
        .name("probe".to_owned())
        .spawn(move || {
            let _ = sender.send(probe(&address));
        })
        .map_err(|error| format!("can't start a thread: {error}"))?;
    match result.recv_timeout(DEADLINE) {
        Ok(Ok(OK)) => Ok(()),
        Ok(Ok(status)) => Err(format!("{url} answers {status}")),
        Ok(Err(error)) => Err(format!("{url}: {error}")),
        Err(_) => {
            Err(format!("{url} does not answer within {}", humantime::format_duration(DEADLINE)))
        }
    }
}

/// Sends the request and returns the status of the response.
fn probe(address: &Address) -> io::Result<u16> {
    let mut stream = address.connect(CONNECT_TIMEOUT)?;
    let Address { authority, path, .. } = address;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n")?;
    let mut received = Vec::new();
    stream.take(RESPONSE_BYTES_MAX).read_to_end(&mut received)?;
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(&received);
    match (parsed, response.code) {
        (Ok(_), Some(status)) => Ok(status),
        _ => Err(io::Error::other("the server there does not speak HTTP")),
    }
}
