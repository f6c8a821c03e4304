//! A line that breaks where a test wants it: a TCP proxy in front of the server.

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

/// What befalls a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Both sides see the end of the stream.
    Cut,
    /// Both sides see a reset, which also takes what they have not read yet.
    Reset,
    /// Nothing arrives any more in this direction, and nobody is told. The other direction works,
    /// until the one who waits hangs up; the other side does not hear of that either.
    Stall,
    /// What follows comes later.
    Delay(Duration),
}

/// What befalls one connection, and after how many bytes of each direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// From the client to the server, in the order of the bytes.
    pub up: Vec<(usize, Fault)>,
    /// From the server to the client, in the order of the bytes.
    pub down: Vec<(usize, Fault)>,
}

impl Plan {
    /// A fault on the way from the client to the server.
    pub fn up(bytes: usize, fault: Fault) -> Plan {
        Plan { up: vec![(bytes, fault)], down: Vec::new() }
    }

    /// A fault on the way from the server to the client.
    pub fn down(bytes: usize, fault: Fault) -> Plan {
        Plan { up: Vec::new(), down: vec![(bytes, fault)] }
    }
}

/// A proxy. Its connections follow the plans it has been given, one each; without a plan nothing
/// befalls them.
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
    /// Faults that have happened.
    faults: AtomicUsize,
}

/// The two halves of a line.
struct Link {
    client: TcpStream,
    server: TcpStream,
    /// The server must not hear that the client has hung up.
    stalled: AtomicBool,
    /// Nothing of the server's arrives any more.
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
                // Tells the other side nothing, but ends the other direction's read. The last one
                // to drop the link resets it.
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

    /// What befalls the connections to come, in their order.
    pub fn plan(&self, plans: impl IntoIterator<Item = Plan>) {
        self.shared.plans.lock().unwrap().extend(plans);
    }

    /// Cuts every line that is open now.
    pub fn cut_all(&self) {
        for link in self.shared.open.lock().unwrap().drain(..) {
            link.end(Fault::Reset);
            self.shared.faults.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Stalls every line that is open now, on the way from the server to the client.
    pub fn stall_all(&self) {
        for link in self.shared.open.lock().unwrap().iter() {
            link.stalled.store(true, Ordering::SeqCst);
            link.muted.store(true, Ordering::SeqCst);
            self.shared.faults.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Faults that have happened so far.
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
        // A server that is gone is a line that does not come about.
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
    let (mut from, mut to) = match upward {
        true => (&link.client, &link.server),
        false => (&link.server, &link.client),
    };
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
    // A stalled line looks alive to the server until the server itself ends it.
    if !upward || !link.stalled.load(Ordering::SeqCst) {
        link.end(Fault::Cut);
        shared.open.lock().unwrap().retain(|other| !Arc::ptr_eq(other, link));
    }
}
