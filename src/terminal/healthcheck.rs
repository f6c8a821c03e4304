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
/// Longest head of a response: its status and its headers. parlour and a proxy in front of it send
/// far less.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Maximum number of headers in it.
const HEADERS_MAX: usize = 64;
/// The path that the server answers only if its hub does.
const PATH: &str = "/healthz";
/// What is wrong with a head that never ends, and with one that ends early.
const TOO_LONG: &str = "the head of its response is too long";
const CUT_SHORT: &str = "it closes the connection before the head of its response is complete";
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

/// Sends the request and returns the status of the response, once its head is complete.
fn probe(address: &Address) -> io::Result<u16> {
    let mut stream = address.connect(CONNECT_TIMEOUT)?;
    let Address { authority, path, .. } = address;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n")?;
    let mut buffer = [0; HEAD_BYTES_MAX];
    let mut received = 0;
    loop {
        match stream.read(&mut buffer[received..])? {
            0 if received == buffer.len() => return Err(io::Error::other(TOO_LONG)),
            0 => return Err(io::Error::other(CUT_SHORT)),
            n => received += n,
        }
        if let Some(status) = parse_status(&buffer[..received])? {
            return Ok(status);
        }
    }
}

/// Returns the status of the response that begins with `received`. `None` if its head is not
/// complete.
///
/// # Errors
/// If it is not a response of HTTP/1.0 or 1.1.
fn parse_status(received: &[u8]) -> io::Result<Option<u16>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(received) {
        Ok(parsed) => Ok(response.code.filter(|_| parsed.is_complete())),
        Err(_) => Err(io::Error::other("the server there does not speak HTTP")),
    }
}
