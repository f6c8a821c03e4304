//! Who may come in, and who must go for it.
//!
//! A connection begins as a request, and most stay one: a page, a refusal, somebody who connects and says nothing. An upgrade
//! makes it a client. Each kind has places of its own, so that no number of requests keeps clients out, nor the other way
//! round, and both together are what the system can carry.
//!
//! The counts stand under a lock that is held for no longer than it takes to look at them. Nothing of the chat is in here.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr, Shutdown};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use log::{debug, warn};

use crate::chat::client::{ClientId, Connection};
use crate::http::routes;
use crate::system::limits::Ceiling;
use crate::system::logging;
use crate::system::metrics::METRICS;

/// How long the accept loop waits for a connection that has been cut to be gone, with its thread. Ten thousand times as
/// long as it takes, unless the machine is out of breath; then a newcomer is better told so.
const CUT_WAIT: Duration = Duration::from_millis(250);

/// The places of a server.
pub struct Admission {
    ceiling: Ceiling,
    /// Connections at most from one address; 0 for no limit.
    per_address_max: usize,
    state: Mutex<State>,
    /// Told when a request has gone or has become a client.
    request_gone: Condvar,
}

#[derive(Default)]
struct State {
    clients: usize,
    /// Requests, counted until their thread has ended, so those that have been cut too.
    requests: usize,
    /// The requests that may be cut, by the order of their numbers oldest first.
    open: BTreeMap<ClientId, Open>,
    /// Connections of each address that has any, as [`counted_as`] sees it.
    addresses: HashMap<IpAddr, usize>,
}

/// A request that may be cut.
struct Open {
    /// Where it comes from, as [`counted_as`] sees it; for all clients of a proxy, the proxy.
    peer: IpAddr,
    /// Weak, since a connection holds its place, and is over when nobody serves it.
    connection: Weak<Connection>,
    /// Its head is complete, and it is being answered.
    answering: bool,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The address has `--max-connections-per-ip` already.
    AddressFull,
    /// All places are taken.
    Full,
    /// The connection was cut to make room for another, and nothing more may be written to it.
    Cut,
}

impl Admission {
    /// Places as the system allows, all free.
    pub fn new(ceiling: Ceiling, per_address_max: usize) -> Arc<Admission> {
        Arc::new(Admission {
            ceiling,
            per_address_max,
            state: Mutex::default(),
            request_gone: Condvar::new(),
        })
    }

    /// A place for a connection that has just been accepted, counted for `address` if there is one. To be called by the
    /// accept loop alone.
    ///
    /// Where all places for requests are taken, one of them gives way; to turn newcomers away instead would let whoever
    /// fills the places once keep everybody out. It is one of the address that has most, so that an attacker needs as many
    /// addresses as there are places to push out others, and of those the oldest, which has had the most time to speak. Where
    /// all have as many, or all come through a proxy, that is the oldest of all, and a newcomer gets through unless an
    /// attacker fills all places within the moment that it needs to say what it wants.
    ///
    /// # Errors
    /// [`Refused::AddressFull`], or [`Refused::Full`] where what was cut does not end.
    pub fn enter(
        self: &Arc<Admission>,
        id: ClientId,
        address: Option<IpAddr>,
    ) -> Result<Place, Refused> {
        let mut state = self.lock();
        let counted = address.map(counted_as);
        // Whoever is to be refused must not push out another.
        if counted.is_some_and(|address| !state.has_room_for(address, self.per_address_max)) {
            return Err(Refused::AddressFull);
        }
        if state.requests >= self.ceiling.requests {
            let victim = state.take_victim();
            drop(state);
            if let Some(victim) = victim {
                cut(&victim);
            }
            let full = |state: &mut State| state.requests >= self.ceiling.requests;
            let waited = self.request_gone.wait_timeout_while(self.lock(), CUT_WAIT, full);
            let (freed, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() {
                return Err(Refused::Full);
            }
            state = freed;
        }
        state.requests += 1;
        METRICS.connections.inc();
        drop(state);
        let place = Place {
            admission: self.clone(),
            id,
            is_client: AtomicBool::new(false),
            address: OnceLock::new(),
        };
        match address {
            // Dropping the place gives it back.
            Some(address) => place.count(address).map(|()| place),
            None => Ok(place),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; if it did, the counts would still be counts.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_room_for(&self, address: IpAddr, max: usize) -> bool {
        max == 0 || self.addresses.get(&address).is_none_or(|&connections| connections < max)
    }

    /// The oldest request of the address that has most of them.
    fn take_victim(&mut self) -> Option<Open> {
        let mut crowds = HashMap::new();
        for (&id, open) in &self.open {
            // Its first request in the order of numbers is its oldest.
            let (requests, _) = crowds.entry(open.peer).or_insert((0, Reverse(id)));
            *requests += 1;
        }
        let (_, Reverse(oldest)) = crowds.into_values().max()?;
        self.open.remove(&oldest)
    }
}

/// Ends a request whose place another gets. A client that was still to send its head learns why, if its socket takes that
/// at once.
fn cut(open: &Open) {
    let Some(connection) = open.connection.upgrade() else { return };
    debug!("connection {} from {} cut", connection.id, connection.address());
    if logging::is_due("cut", None) {
        warn!(
            "all places for requests are taken; cutting the oldest, that from {} among them",
            connection.address()
        );
    }
    if !open.answering {
        routes::turn_away(&connection.stream, routes::unavailable(routes::FULL));
    }
    let _ = connection.stream.shutdown(Shutdown::Both);
}

/// What counts as one address: an IPv4 address, or the /64 that even one home has of IPv6.
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        v4 => v4,
    }
}

/// The place of one connection, given back when the connection is dropped: its threads have ended then, and its
/// descriptor is closed.
pub struct Place {
    admission: Arc<Admission>,
    id: ClientId,
    is_client: AtomicBool,
    /// The address it counts for, once that is known.
    address: OnceLock<IpAddr>,
}

impl Place {
    /// From now on the connection may be cut.
    pub fn offer(&self, connection: &Arc<Connection>) {
        let peer = counted_as(connection.peer.ip());
        let open = Open { peer, connection: Arc::downgrade(connection), answering: false };
        self.admission.lock().open.insert(self.id, open);
    }

    /// The head has been read, or never will be, and whoever asks is about to answer.
    ///
    /// # Errors
    /// [`Refused::Cut`]: nothing more may be written.
    pub fn answer(&self) -> Result<(), Refused> {
        match self.admission.lock().open.get_mut(&self.id) {
            Some(open) => open.answering = true,
            None => return Err(Refused::Cut),
        }
        Ok(())
    }

    /// Counts the connection for `address`, for which there has been none so far.
    ///
    /// # Errors
    /// [`Refused::AddressFull`].
    pub fn count(&self, address: IpAddr) -> Result<(), Refused> {
        let address = counted_as(address);
        let mut state = self.admission.lock();
        if !state.has_room_for(address, self.admission.per_address_max) {
            return Err(Refused::AddressFull);
        }
        if self.address.set(address).is_ok() {
            *state.addresses.entry(address).or_default() += 1;
        }
        Ok(())
    }

    /// Changes the request's place for a client's, and can't be cut from then on.
    ///
    /// # Errors
    /// [`Refused::Full`], or [`Refused::Cut`]: nothing more may be written then.
    pub fn become_client(&self) -> Result<(), Refused> {
        let mut state = self.admission.lock();
        if !state.open.contains_key(&self.id) {
            return Err(Refused::Cut);
        }
        if state.clients >= self.admission.ceiling.clients {
            return Err(Refused::Full);
        }
        state.open.remove(&self.id);
        state.requests -= 1;
        state.clients += 1;
        self.is_client.store(true, Ordering::Relaxed);
        self.admission.request_gone.notify_one();
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.admission.lock();
        match self.is_client.load(Ordering::Relaxed) {
            true => state.clients -= 1,
            false => {
                state.open.remove(&self.id);
                state.requests -= 1;
                self.admission.request_gone.notify_one();
            }
        }
        if let Some(address) = self.address.get()
            && let Some(connections) = state.addresses.get_mut(address)
        {
            *connections -= 1;
            if *connections == 0 {
                state.addresses.remove(address);
            }
        }
        METRICS.connections.dec();
    }
}
