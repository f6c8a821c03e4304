//! What an address may do, by a clock of the test's own: joins, messages at once, and for how long
//! it is remembered.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parlour::chat::allowance::SharedAllowance;
use parlour::chat::connection::Connection;
use parlour::http::addresses::{Addresses, GONE_MAX, Network};
use parlour::http::admission::{Admission, NoPlace};
use parlour::system::limits::Ceiling;

use crate::support::config;

fn network(address: &str) -> Network {
    Network::of(address.parse().expect("an address"))
}

fn addresses(options: &[&str]) -> Addresses {
    Addresses::new(&config(options))
}

/// Connects, asks to join, and goes.
fn visit(
    addresses: &mut Addresses,
    network: Network,
    now: Instant,
) -> Result<Option<SharedAllowance>, Duration> {
    addresses.enter(network);
    let joined = addresses.join(network, now);
    addresses.leave(network, now);
    joined
}

/// Number of visits until one is refused.
fn visits(addresses: &mut Addresses, network: Network, now: Instant) -> usize {
    (0..1000).take_while(|_| visit(addresses, network, now).is_ok()).count()
}

#[test]
fn an_address_joins_as_fast_as_it_may_and_a_reconnect_gains_nothing() {
    let mut addresses = addresses(&["--max-connections-per-ip=30", "--join-rate=5"]);
    let (one, now) = (network("192.0.2.1"), Instant::now());
    assert_eq!(visits(&mut addresses, one, now), 30, "a class that comes in together");
    let wait = Duration::from_millis(200);
    assert_eq!(visit(&mut addresses, one, now).err(), Some(wait));
    assert_eq!(visits(&mut addresses, network("192.0.2.2"), now), 30, "somebody else");
    let later = now + Duration::from_secs(2);
    assert_eq!(visits(&mut addresses, one, later), 10, "5 a second");
    let rested = later + Duration::from_secs(6);
    assert_eq!(visits(&mut addresses, one, rested), 30, "the class once more");
}

#[test]
fn without_a_limit_on_connections_a_class_joins_at_once_and_without_a_rate_anybody() {
    let (one, now) = (network("192.0.2.1"), Instant::now());
    let mut unlimited = addresses(&["--max-connections-per-ip=0"]);
    assert_eq!(visits(&mut unlimited, one, now), 64);
    assert_eq!(visits(&mut addresses(&["--join-rate=0"]), one, now), 1000);
    let huge = format!("--max-connections-per-ip={}", usize::MAX);
    assert_eq!(visits(&mut addresses(&[&huge, "--join-rate=1"]), one, now), 1000);
}

#[test]
fn an_address_is_forgotten_when_its_allowances_are_full_and_not_before() {
    let mut addresses = addresses(&["--message-rate", "5", "--message-burst=20"]);
    let (one, now) = (network("192.0.2.1"), Instant::now());
    addresses.enter(one);
    addresses.leave(one, now);
    assert_eq!(addresses.remembered(), 0, "it did nothing");
    visit(&mut addresses, one, now).expect("the first join");
    assert_eq!(addresses.remembered(), 1);
    let later = now + Duration::from_secs(1);
    addresses.enter(one);
    addresses.leave(one, later);
    assert_eq!(addresses.remembered(), 0, "its join is long ago");
    // What it has said counts as well.
    let burst = visit(&mut addresses, one, later).expect("a join").expect("a limit");
    (0..20).for_each(|number| burst.take(1, later).unwrap_or_else(|_| panic!("{number}")));
    let later = later + Duration::from_secs(3);
    addresses.enter(one);
    addresses.leave(one, later);
    assert_eq!(addresses.remembered(), 1);
}

#[test]
fn all_clients_of_an_address_say_from_one_bucket_what_they_say_at_once() {
    let options = ["--message-rate", "5", "--message-burst=3"];
    let mut addresses = addresses(&options);
    let (one, now) = (network("2001:db8::1"), Instant::now());
    addresses.enter(one);
    let mut burst = || addresses.join(one, now).expect("a join").expect("a limit");
    let (first, second) = (burst(), burst());
    assert!([&first, &second, &first].iter().all(|burst| burst.take(1, now).is_ok()));
    assert!(second.take(1, now).is_err() && first.take(1, now).is_err());
    addresses.leave(one, now);
    let other = network("2001:db8:0:1::1");
    let of = |addresses: &mut Addresses, network| visit(addresses, network, now).unwrap().unwrap();
    assert!(of(&mut addresses, network("2001:db8::2")).take(1, now).is_err(), "the same network");
    assert!(of(&mut addresses, other).take(1, now).is_ok(), "another one");
    assert!(visit(&mut self::addresses(&[]), one, now).unwrap().is_none(), "--message-rate 0");
}

#[test]
fn of_too_many_addresses_those_are_forgotten_who_gain_least() {
    let mut addresses = addresses(&["--max-connections-per-ip=4", "--join-rate=1"]);
    let now = Instant::now();
    let (present, busy) = (network("192.0.2.1"), network("192.0.2.2"));
    addresses.enter(present);
    addresses.join(present, now).expect("a join");
    assert_eq!(visits(&mut addresses, busy, now), 4);
    for number in 0..GONE_MAX as u32 * 3 {
        let other = Network::of(Ipv4Addr::from_bits(10 << 24 | number).into());
        visit(&mut addresses, other, now).expect("the first join");
        assert!(addresses.remembered() <= GONE_MAX + 1, "{number}");
    }
    assert!(visit(&mut addresses, busy, now).is_err());
    (0..3).for_each(|_| assert!(addresses.join(present, now).is_ok()));
    assert!(addresses.join(present, now).is_err());
    addresses.leave(present, now);
    // Later nobody is owed anything, and the next who goes takes all with it.
    let later = now + Duration::from_secs(5);
    for number in 0..GONE_MAX as u32 {
        let other = Network::of(Ipv4Addr::from_bits(11 << 24 | number).into());
        visit(&mut addresses, other, later).expect("the first join");
    }
    assert!(addresses.remembered() <= GONE_MAX);
}

#[test]
fn an_ipv6_network_is_written_with_its_length() {
    for (address, written) in [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
    ] {
        assert_eq!(network(address).to_string(), written);
    }
}

#[test]
fn whoever_is_counted_gets_the_bucket_of_its_address_with_its_place() {
    let ceiling = Ceiling { clients: 10, requests: 10, limit: "none" };
    let options = ["--message-rate", "5", "--message-burst=2", "--max-connections-per-ip=3"];
    let options = [&options[..], &["--join-rate=1"]].concat();
    let admission = Admission::new(ceiling, &config(&options));
    let become_client = |id, address: Option<IpAddr>| {
        let place = admission.enter(id, address)?;
        let (end, _) = UnixStream::pair().expect("a pair of sockets");
        let stream = TcpStream::from(OwnedFd::from(end));
        let peer = SocketAddr::new(address.unwrap_or(Ipv4Addr::LOCALHOST.into()), 1);
        let connection = Arc::new(Connection::new(id, peer, stream));
        place.offer(&connection);
        place.become_client()
    };
    let address = Some(IpAddr::from([192, 0, 2, 1]));
    let bucket = |id| become_client(id, address).expect("a place").expect("a bucket");
    let (buckets, now) = ([bucket(1), bucket(2), bucket(3)], Instant::now());
    assert_eq!(buckets.map(|bucket| bucket.take(1, now).is_ok()), [true, true, false]);
    assert!(become_client(4, None).expect("a place").is_none(), "nobody counts this one");
    let refused = (5..100).find_map(|id| become_client(id, address).err());
    assert!(matches!(refused, Some(NoPlace::JoiningTooFast(..))), "{refused:?}");
}
