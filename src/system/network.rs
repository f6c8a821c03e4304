//! The addresses of this machine, for the log: what to open when it listens on all of them.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// Maximum number of addresses returned. A machine with many networks would fill the log.
const ADDRESSES_MAX: usize = 4;

/// Returns addresses under which other machines may reach this one: IPv4 first, and IPv6 if
/// `with_ipv6`. Loopback and link-local addresses are left out. Empty if the system does not say.
pub fn own_addresses(with_ipv6: bool) -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    let up = interfaces.filter(|interface| {
        interface.flags.contains(InterfaceFlags::IFF_UP)
            && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)
    });
    let addresses = up.filter_map(|interface| {
        let address = interface.address?;
        match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) if !v4.ip().is_link_local() => Some(IpAddr::V4(v4.ip())),
            (_, Some(v6)) if with_ipv6 && !v6.ip().is_unicast_link_local() => {
                Some(IpAddr::V6(v6.ip()))
            }
            _ => None,
        }
    });
    let mut addresses: Vec<IpAddr> = addresses.collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses.truncate(ADDRESSES_MAX);
    addresses
}
