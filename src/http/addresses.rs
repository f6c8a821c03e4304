//! What each address has, and may do: connections, joins, and what its new clients send at once.
//!
//! Whoever connects again must not find these allowances full again. So an address is remembered
//! after its last connection has ended, until its allowances are full.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::chat::allowance::{Allowance, SharedAllowance};
use crate::config::Config;

/// Length of the prefix that is one address in IPv6: every home and every host has a network of
/// its own.
const IPV6_PREFIX_BITS: u8 = 64;
/// Maximum number of addresses without a connection that are remembered. Each takes up to 256
/// bytes.
pub const GONE_MAX: usize = 4096;
/// When there are more, the part of them that is forgotten at once, so that the next one does not
/// need to search again.
const GONE_SPARE: usize = 4;
/// Joins that an address may ask for at once where `--max-connections-per-ip` sets no limit: the
/// default of that option.
const JOIN_BURST_DEFAULT: usize = 64;

/// What counts as one address: an IPv4 address, or an IPv6 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network(IpAddr);

impl Network {
    /// Returns the network that `address` counts for.
    pub fn of(address: IpAddr) -> Network {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let mask = u128::MAX << (Ipv6Addr::BITS - u32::from(IPV6_PREFIX_BITS));
                Network(Ipv6Addr::from_bits(address.to_bits() & mask).into())
            }
            v4 => Network(v4),
        }
    }
}

impl fmt::Display for Network {
    /// Writes an IPv6 network with its prefix length, so that nobody looks for that one host.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(address) => write!(f, "{address}/{IPV6_PREFIX_BITS}"),
        }
    }
}

/// The addresses that are counted.
pub struct Addresses {
    /// Maximum number of connections of each; 0 for no limit.
    connections_max: usize,
    /// Joins a second, and at once.
    joins: (u32, u32),
    /// Messages a second, and at once.
    messages: (u32, u32),
    records: HashMap<Network, Record>,
    /// Number of records without a connection.
    gone: usize,
}

/// What is known of one address. An allowance that it has not used yet is `None`.
#[derive(Default)]
struct Record {
    connections: usize,
    joins: Option<Allowance>,
    burst: Option<SharedAllowance>,
}

impl Record {
    /// Returns how long it takes until all is as if the address had never been here.
    fn until_full(&self, now: Instant) -> Duration {
        let joins = self.joins.as_ref().map(|joins| joins.until_full(now));
        let burst = self.burst.as_ref().map(|burst| burst.until_full(now));
        joins.max(burst).unwrap_or_default()
    }
}

impl Addresses {
    /// Starts to count, with the limits that the options set.
    pub fn new(config: &Config) -> Addresses {
        let connections_max = config.max_connections_per_ip;
        // As many as may be here at the same time come at the same time: a class that opens the
        // page, or that comes back after a restart.
        let burst = if connections_max == 0 { JOIN_BURST_DEFAULT } else { connections_max };
        Addresses {
            connections_max,
            joins: (config.join_rate, u32::try_from(burst).unwrap_or(u32::MAX)),
            messages: (config.message_rate, config.message_burst),
            records: HashMap::new(),
            gone: 0,
        }
    }

    /// True if `network` may have another connection.
    pub fn admits(&self, network: Network) -> bool {
        let connections = self.records.get(&network).map_or(0, |record| record.connections);
        self.connections_max == 0 || connections < self.connections_max
    }

    /// Counts a connection.
    pub fn enter(&mut self, network: Network) {
        let known = self.records.contains_key(&network);
        let record = self.records.entry(network).or_default();
        if known && record.connections == 0 {
            self.gone -= 1;
        }
        record.connections += 1;
    }

    /// Takes back what [`enter`](Addresses::enter) counted.
    pub fn leave(&mut self, network: Network, now: Instant) {
        let Some(record) = self.records.get_mut(&network) else { return };
        record.connections -= 1;
        if record.connections > 0 {
            return;
        }
        if record.until_full(now).is_zero() {
            self.records.remove(&network);
            return;
        }
        self.gone += 1;
        if self.gone > GONE_MAX {
            self.forget(now);
        }
    }

    /// Takes one join from the allowance of `network`, which must have a connection. Returns what
    /// its clients may send at once, if there is a limit.
    ///
    /// # Errors
    /// How long to wait until it may join. Nothing is taken then.
    pub fn join(
        &mut self,
        network: Network,
        now: Instant,
    ) -> Result<Option<SharedAllowance>, Duration> {
        let ((join_rate, join_burst), (rate, burst)) = (self.joins, self.messages);
        let Some(record) = self.records.get_mut(&network) else { return Ok(None) };
        if record.joins.is_none() {
            record.joins = Allowance::full(join_rate, join_burst, now);
        }
        if let Some(joins) = &mut record.joins {
            joins.take(1, now)?;
        }
        if record.burst.is_none() {
            record.burst = Allowance::full(rate, burst, now).map(SharedAllowance::new);
        }
        Ok(record.burst.clone())
    }

    /// Forgets addresses without a connection: those whose allowances are full, then those that are
    /// nearest to it, who gain least.
    fn forget(&mut self, now: Instant) {
        self.records
            .retain(|_, record| record.connections > 0 || !record.until_full(now).is_zero());
        let gone = self.records.iter().filter(|(_, record)| record.connections == 0);
        let mut gone: Vec<(Duration, Network)> =
            gone.map(|(&network, record)| (record.until_full(now), network)).collect();
        gone.sort_unstable();
        let surplus = gone.len().saturating_sub(GONE_MAX - GONE_MAX / GONE_SPARE);
        for (_, network) in &gone[..surplus] {
            self.records.remove(network);
        }
        self.gone = gone.len() - surplus;
    }

    /// Returns how many addresses are remembered, those without a connection included.
    pub fn remembered(&self) -> usize {
        self.records.len()
    }
}
