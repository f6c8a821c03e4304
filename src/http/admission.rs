//! Who gets a place on the server, and who gives way.
//!
//! A connection begins as a request, and most stay one: a page, a refusal, somebody who connects
//! and sends nothing. An upgrade makes it a client. Each kind has places of its own, so requests
//! can't keep clients out, nor clients requests. Both together are what the system can carry.
//!
//! The counts are behind a lock, which is held only to read and change them. No chat state is here.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Shutdown};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use log::{Level, debug, warn};

use super::addresses::{Addresses, Network};
use super::response::{self, Response, unavailable};
use crate::chat::allowance::SharedAllowance;
use crate::chat::connection::{ClientId, Connection};
use crate::config::Config;
use crate::protocol::refusal::Refusal;
use crate::system::limits::Ceiling;
use crate::system::logging;
use crate::system::metrics::METRICS;

/// How long the accept loop waits until a connection that it cut has ended, with its thread. It
/// takes a ten-thousandth of this, unless the machine is overloaded; then a newcomer should be told
/// so.
const CUT_WAIT: Duration = Duration::from_millis(250);

/// The places of a server.
pub struct Admission {
    ceiling: Ceiling,
    state: Mutex<State>,
    /// Notified when a request has ended or become a client.
    request_ended: Condvar,
}

struct State {
    clients: usize,
    /// Requests whose place has not been given back, those that were cut included.
    requests: usize,
    /// The requests that may be cut. Ids grow, so the first is the oldest.
    open: BTreeMap<ClientId, Open>,
    addresses: Addresses,
}

/// A request that may be cut.
struct Open {
    /// Where it comes from. For all clients of a proxy, the proxy.
    peer: Network,
    /// Weak: whoever may be cut must not be kept alive by it.
    connection: Weak<Connection>,
    /// Its head is complete, and the response is being sent.
    replying: bool,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// The address has `--max-connections-per-ip` already.
    AddressFull(Network),
    /// The address is over `--join-rate`, and may ask again after this time.
    JoiningTooFast(Network, Duration),
    /// All places for clients are taken.
    ClientsFull,
    /// All places for requests are taken.
    RequestsFull,
    /// The connection was cut to make room for another. Nothing more may be written to it.
    Cut,
}

impl Admission {
    /// Creates the places that the system allows, all free.
    pub fn new(ceiling: Ceiling, config: &Config) -> Arc<Admission> {
        let addresses = Addresses::new(config);
        let state = State { clients: 0, requests: 0, open: BTreeMap::new(), addresses };
        let (state, request_ended) = (Mutex::new(state), Condvar::new());
        Arc::new(Admission { ceiling, state, request_ended })
    }

    /// Gives a place to a connection that was just accepted, and counts it for `address`, if known.
    ///
    /// If all places for requests are taken, a request gives way. Turning newcomers away instead
    /// would let whoever fills the places once keep everybody out. The request that gives way is
    /// the oldest of the address that has most: it has had the most time to speak, and an attacker
    /// needs as many addresses as there are places to push out others. If all addresses have
    /// equally many, or all come through one proxy, it is the oldest of all. A newcomer then gets
    /// through unless an attacker fills all places within the moment that the newcomer needs for
    /// its head.
    ///
    /// Only the accept loop may call this.
    ///
    /// # Errors
    /// [`NoPlace::AddressFull`], or [`NoPlace::RequestsFull`] if the request that was cut does not
    /// end.
    pub fn enter(
        self: &Arc<Admission>,
        id: ClientId,
        address: Option<IpAddr>,
    ) -> Result<Place, NoPlace> {
        let mut state = self.lock();
        // A newcomer that is refused must not push out another.
        if let Some(network) = address.map(Network::of)
            && !state.addresses.admits(network)
        {
            return Err(NoPlace::AddressFull(network));
        }
        if state.requests >= self.ceiling.requests {
            state = self.free_a_place(state)?;
        }
        state.requests += 1;
        METRICS.connections.inc();
        drop(state);
        let place = Place {
            admission: self.clone(),
            id,
            is_client: AtomicBool::new(false),
            counted_for: OnceLock::new(),
        };
        match address {
            // If it is over the limit, dropping the place gives it back.
            Some(address) => place.count(address).map(|()| place),
            None => Ok(place),
        }
    }

    /// Cuts a request, and waits until its place is free.
    fn free_a_place<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
    ) -> Result<MutexGuard<'a, State>, NoPlace> {
        let victim = state.take_victim();
        drop(state);
        if let Some(victim) = victim {
            cut(&victim);
        }
        let full = |state: &mut State| state.requests >= self.ceiling.requests;
        let waited = self.request_ended.wait_timeout_while(self.lock(), CUT_WAIT, full);
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() { Err(NoPlace::RequestsFull) } else { Ok(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock. If it did, the counts would still be right.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes out the oldest request of the address that has most of them.
    fn take_victim(&mut self) -> Option<Open> {
        let mut crowds = HashMap::new();
        for (&id, open) in &self.open {
            // The first request of an address, by id, is its oldest.
            let (requests, _) = crowds.entry(open.peer).or_insert((0, Reverse(id)));
            *requests += 1;
        }
        let (_, Reverse(oldest)) = crowds.into_values().max()?;
        self.open.remove(&oldest)
    }
}

/// Ends a request to give its place to another. A client whose head is still missing learns why, if
/// its socket takes the response at once.
fn cut(open: &Open) {
    let Some(connection) = open.connection.upgrade() else { return };
    debug!("connection {} from {} cut", connection.id, connection.address());
    if let Some(more) = logging::due(Level::Warn, "cut") {
        warn!(
            "all places for requests are taken; cutting the oldest, among them that from {}{more}",
            connection.address()
        );
    }
    if !open.replying {
        response::turn_away(&connection.stream, NoPlace::RequestsFull.response());
    }
    let _ = connection.stream.shutdown(Shutdown::Both);
}

impl NoPlace {
    /// Builds the response to a connection that gets no place.
    pub fn response(self) -> Response {
        match self {
            NoPlace::AddressFull(network) => {
                let line = format!("too many connections from {network}");
                let refusal = Refusal::TooManyFromAddress;
                response::refusal(refusal, line, response::RETRY_AFTER_DEFAULT)
            }
            NoPlace::JoiningTooFast(network, wait) => {
                let line = format!("{network} joins too often; wait a moment");
                response::refusal(Refusal::JoiningTooFast, line, wait)
            }
            NoPlace::ClientsFull => unavailable(Refusal::ServerFull),
            NoPlace::RequestsFull | NoPlace::Cut => unavailable(Refusal::RequestsFull),
        }
    }
}

/// The place of one connection. Dropping it gives the place back.
///
/// The reaper drops it last, when the connection's threads have ended and its socket is closed: so
/// the places in use are never fewer than the descriptors and threads in use.
pub struct Place {
    admission: Arc<Admission>,
    id: ClientId,
    is_client: AtomicBool,
    /// The network for which the connection is counted, once that is known.
    counted_for: OnceLock<Network>,
}

impl Place {
    /// Offers the connection to be cut, until it becomes a client.
    pub fn offer(&self, connection: &Arc<Connection>) {
        let peer = Network::of(connection.peer.ip());
        let open = Open { peer, connection: Arc::downgrade(connection), replying: false };
        self.admission.lock().open.insert(self.id, open);
    }

    /// Notes that the response is about to be sent: a request that is cut gets no other one.
    ///
    /// # Errors
    /// [`NoPlace::Cut`]: nothing more may be written.
    pub fn begin_reply(&self) -> Result<(), NoPlace> {
        match self.admission.lock().open.get_mut(&self.id) {
            Some(open) => open.replying = true,
            None => return Err(NoPlace::Cut),
        }
        Ok(())
    }

    /// Counts the connection for `address`. Until now it was counted for none.
    ///
    /// # Errors
    /// [`NoPlace::AddressFull`].
    pub fn count(&self, address: IpAddr) -> Result<(), NoPlace> {
        let network = Network::of(address);
        let mut state = self.admission.lock();
        if !state.addresses.admits(network) {
            return Err(NoPlace::AddressFull(network));
        }
        if self.counted_for.set(network).is_ok() {
            state.addresses.enter(network);
        }
        Ok(())
    }

    /// Exchanges the request's place for a client's, which can't be cut. Returns what all clients
    /// of its address may send at once; `None` if the connection is not counted.
    ///
    /// # Errors
    /// [`NoPlace::ClientsFull`], [`NoPlace::JoiningTooFast`], or [`NoPlace::Cut`]: then nothing
    /// more may be written.
    pub fn become_client(&self) -> Result<Option<SharedAllowance>, NoPlace> {
        let mut state = self.admission.lock();
        if !state.open.contains_key(&self.id) {
            return Err(NoPlace::Cut);
        }
        if state.clients >= self.admission.ceiling.clients {
            return Err(NoPlace::ClientsFull);
        }
        let burst = match self.counted_for.get() {
            Some(&network) => state
                .addresses
                .join(network, Instant::now())
                .map_err(|wait| NoPlace::JoiningTooFast(network, wait))?,
            None => None,
        };
        state.open.remove(&self.id);
        state.requests -= 1;
        state.clients += 1;
        self.is_client.store(true, Ordering::Relaxed);
        self.admission.request_ended.notify_one();
        Ok(burst)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.admission.lock();
        if self.is_client.load(Ordering::Relaxed) {
            state.clients -= 1;
        } else {
            state.open.remove(&self.id);
            state.requests -= 1;
            self.admission.request_ended.notify_one();
        }
        if let Some(&network) = self.counted_for.get() {
            state.addresses.leave(network, Instant::now());
        }
        METRICS.connections.dec();
    }
}
