//! A TCP proxy in front of the server, which breaks connections where a test wants it.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;

/// Bytes copied at a time.
const CHUNK_BYTES: usize = 4096;

/// What goes wrong with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Both sides see the end of the stream.
    Cut,
    /// Both sides see a reset. What they have not read yet is lost.
    Reset,
    /// Nothing arrives in this direction any more, and neither side notices. The other direction
    /// works until the side that waits hangs up, which the other side does not notice either.
    Stall,
    /// What follows arrives later by this much.
    Delay(Duration),
}

/// The faults of one connection, and after how many bytes in each direction they happen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// From the client to the server, in the order of the bytes.
    pub up: Vec<(usize, Fault)>,
    /// From the server to the client, in the order of the bytes.
    pub down: Vec<(usize, Fault)>,
}

impl Plan {
    /// Plans one fault on the way from the client to the server.
    pub fn up(bytes: usize, fault: Fault) -> Plan {
        Plan { up: vec![(bytes, fault)], down: Vec::new() }
    }

    /// Plans one fault on the way from the server to the client.
    pub fn down(bytes: usize, fault: Fault) -> Plan {
        Plan { up: Vec::new(), down: vec![(bytes, fault)] }
    }
}

/// A running proxy. Each connection follows the next plan. Without a plan, nothing goes wrong.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<State>,
    accepting: Option<JoinHandle<()>>,
}

struct State {
    upstream: SocketAddr,
    plans: Mutex<VecDeque<Plan>>,
    open: Mutex<Vec<Arc<Link>>>,
    stopping: AtomicBool,
    /// How many faults have happened.
    faults: AtomicUsize,
}

/// A connection through the proxy.
struct Link {
    client: TcpStream,
    server: TcpStream,
    /// The server must not notice that the client hangs up.
    stalled: AtomicBool,
    /// Nothing from the server arrives any more.
    muted: AtomicBool,
    ended: AtomicBool,
}

impl Link {
    fn end(&self, fault: Fault) {
        if self.ended.swap(true, Ordering::SeqCst) {
            return;
        }
        for stream in [&self.client, &self.server] {
            let _ = match fault {
                // Sends nothing yet, but ends the read of the other direction. Whichever thread
                // drops the link last resets both streams.
                Fault::Reset => SockRef::from(stream)
                    .set_linger(Some(Duration::ZERO))
                    .and_then(|()| stream.shutdown(Shutdown::Read)),
                _ => stream.shutdown(Shutdown::Both),
            };
        }
    }
}

impl Proxy {
    pub fn start(upstream: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(State {
            upstream,
            plans: Mutex::default(),
            open: Mutex::default(),
            stopping: AtomicBool::new(false),
            faults: AtomicUsize::new(0),
        });
        let accepting = {
            let shared = shared.clone();
            thread::spawn(move || accept(&listener, &shared))
        };
        Proxy { address, shared, accepting: Some(accepting) }
    }

    /// Adds plans for the next connections, in their order.
    pub fn plan(&self, plans: impl IntoIterator<Item = Plan>) {
        self.shared.plans.lock().unwrap().extend(plans);
    }

    /// Resets every connection that is open now.
    pub fn cut_all(&self) {
        for link in self.shared.open.lock().unwrap().drain(..) {
            link.end(Fault::Reset);
            self.shared.faults.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Stalls every connection that is open now, on the way from the server to the client.
    pub fn stall_all(&self) {
        for link in self.shared.open.lock().unwrap().iter() {
            link.stalled.store(true, Ordering::SeqCst);
            link.muted.store(true, Ordering::SeqCst);
            self.shared.faults.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Returns how many faults have happened so far.
    pub fn faults(&self) -> usize {
        self.shared.faults.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the accept loop.
        let _ = TcpStream::connect(self.address);
        let _ = self.accepting.take().map(JoinHandle::join);
        self.cut_all();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<State>) {
    for client in listener.incoming() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = client else { continue };
        let plan = shared.plans.lock().unwrap().pop_front().unwrap_or_default();
        // If the server is gone, the client is hung up on.
        let Ok(server) = TcpStream::connect(shared.upstream) else { continue };
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let [stalled, muted, ended] = [const { AtomicBool::new(false) }; 3];
        let link = Arc::new(Link { client, server, stalled, muted, ended });
        shared.open.lock().unwrap().push(link.clone());
        for (faults, upward) in [(plan.up, true), (plan.down, false)] {
            let (link, shared) = (link.clone(), shared.clone());
            thread::spawn(move || copy(&link, &shared, faults, upward));
        }
    }
}

/// Copies one direction until it ends.
fn copy(link: &Arc<Link>, shared: &State, faults: Vec<(usize, Fault)>, upward: bool) {
    let (mut from, mut to) =
        if upward { (&link.client, &link.server) } else { (&link.server, &link.client) };
    let mut faults = faults.into_iter().peekable();
    let mut copied = 0;
    let mut silent = false;
    let mut chunk = [0; CHUNK_BYTES];
    loop {
        while let Some((_, fault)) = faults.next_if(|(at, _)| *at <= copied) {
            shared.faults.fetch_add(1, Ordering::SeqCst);
            match fault {
                Fault::Cut | Fault::Reset => {
                    link.end(fault);
                    shared.open.lock().unwrap().retain(|other| !Arc::ptr_eq(other, link));
                    return;
                }
                Fault::Stall => {
                    silent = true;
                    link.stalled.store(true, Ordering::SeqCst);
                }
                Fault::Delay(time) => thread::sleep(time),
            }
        }
        let most = faults.peek().map_or(CHUNK_BYTES, |(at, _)| (at - copied).min(CHUNK_BYTES));
        let Ok(n @ 1..) = from.read(&mut chunk[..most]) else { break };
        copied += n;
        silent |= !upward && link.muted.load(Ordering::SeqCst);
        if !silent && to.write_all(&chunk[..n]).is_err() {
            if upward || !link.stalled.load(Ordering::SeqCst) {
                break;
            }
            silent = true;
        }
    }
    // A stalled connection looks alive to the server until the server itself ends it.
    if !upward || !link.stalled.load(Ordering::SeqCst) {
        link.end(Fault::Cut);
        shared.open.lock().unwrap().retain(|other| !Arc::ptr_eq(other, link));
    }
}
