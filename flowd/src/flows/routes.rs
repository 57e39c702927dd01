//! Which peer an address belongs to: the longest allowed prefix of its interface.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv6Addr,
};

use flowd_common::peer::PeerId;
use ipnet::IpNet;

/// Values of prefixes; the longest one around an address counts. IPv4 is held v4-mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefixes<T> {
    /// By prefix length over the mapped address, then by masked address.
    by_length: BTreeMap<u8, HashMap<u128, T>>,
}

impl<T> Default for Prefixes<T> {
    fn default() -> Self {
        Self { by_length: BTreeMap::new() }
    }
}

impl<T> Prefixes<T> {
    /// Sets the value of a prefix of `length` bits.
    pub fn insert(&mut self, addr: Ipv6Addr, length: u8, value: T) {
        self.by_length.entry(length).or_default().insert(masked(addr, length), value);
    }

    /// Sets the value of a prefix of either family.
    pub fn insert_net(&mut self, net: &IpNet, value: T) {
        let (addr, length) = mapped(net);
        self.insert(addr, length, value);
    }

    /// The value of the longest prefix around `addr`, of its own family.
    pub fn around(&self, addr: Ipv6Addr) -> Option<&T> {
        self.longest(addr, default_route(addr))
    }

    /// The value of the longest prefix around `addr` that has at least `shortest` bits.
    pub fn longest(&self, addr: Ipv6Addr, shortest: u8) -> Option<&T> {
        self.by_length
            .range(shortest..)
            .rev()
            .find_map(|(length, values)| values.get(&masked(addr, *length)))
    }

    /// Every prefix with its length, 0 to 128, and its value.
    pub fn iter(&self) -> impl Iterator<Item = (Ipv6Addr, u8, &T)> {
        self.by_length.iter().flat_map(|(length, values)| {
            values.iter().map(|(addr, value)| (Ipv6Addr::from(*addr), *length, value))
        })
    }
}

/// The allowed-ips of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes(Prefixes<PeerId>);

impl Routes {
    /// Gives `net` to `peer`, whoever had it before, as WireGuard does.
    pub fn insert(&mut self, net: &IpNet, peer: PeerId) {
        self.0.insert_net(net, peer);
    }

    /// The peer that owns `addr`.
    pub fn owner(&self, addr: Ipv6Addr) -> Option<PeerId> {
        self.0.around(addr).copied()
    }

    /// The peer that is meant when `addr` is the far end of a flow. A default route says who
    /// carries everything else, not who the far end is, and does not count.
    pub fn resident(&self, addr: Ipv6Addr) -> Option<PeerId> {
        self.0.longest(addr, default_route(addr) + 1).copied()
    }

    /// Every prefix with its length over the mapped address, 0 to 128, and its owner.
    pub fn iter(&self) -> impl Iterator<Item = (Ipv6Addr, u8, PeerId)> {
        self.0.iter().map(|(addr, length, peer)| (addr, length, *peer))
    }
}

/// The length of the default route of the address's family: `::/0` does not own IPv4.
fn default_route(addr: Ipv6Addr) -> u8 {
    if addr.to_ipv4_mapped().is_some() { 96 } else { 0 }
}

fn mapped(net: &IpNet) -> (Ipv6Addr, u8) {
    match net {
        IpNet::V4(net) => (net.network().to_ipv6_mapped(), net.prefix_len() + 96),
        IpNet::V6(net) => (net.network(), net.prefix_len()),
    }
}

fn masked(addr: Ipv6Addr, length: u8) -> u128 {
    let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
    addr.to_bits() & mask
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::{IpNet, PeerId, Routes};

    /// The specification: look at every prefix, keep the longest, the later of equals.
    fn slow_owner(inserted: &[(IpNet, PeerId)], addr: IpAddr) -> Option<PeerId> {
        let mut best: Option<(u8, PeerId)> = None;
        for (net, peer) in inserted {
            if net.contains(&addr) && best.is_none_or(|(length, _)| net.prefix_len() >= length) {
                best = Some((net.prefix_len(), *peer));
            }
        }
        best.map(|(_, peer)| peer)
    }

    fn addr() -> impl Strategy<Value = IpAddr> {
        // A small corner of both families, so that prefixes overlap.
        prop_oneof![
            (0_u8..4, 0_u8..8).prop_map(|(a, b)| IpAddr::V4(Ipv4Addr::new(10, 0, a, b))),
            (0_u16..4, 0_u16..8)
                .prop_map(|(a, b)| IpAddr::V6([0xfd00, 0, 0, 0, 0, 0, a, b].into())),
        ]
    }

    fn net() -> impl Strategy<Value = IpNet> {
        (addr(), 0_u8..=128).prop_map(|(addr, length)| {
            let length = if addr.is_ipv4() { length % 33 } else { length };
            IpNet::new(addr, length).unwrap().trunc()
        })
    }

    proptest! {
        #[test]
        fn the_owner_is_the_slow_twins(
            inserted in prop::collection::vec((net(), 1_u32..6), 0..40),
            addrs in prop::collection::vec(addr(), 1..40),
        ) {
            let mut routes = Routes::default();
            for (net, peer) in &inserted {
                routes.insert(net, *peer);
            }
            for addr in addrs {
                let mapped = match addr {
                    IpAddr::V4(addr) => addr.to_ipv6_mapped(),
                    IpAddr::V6(addr) => addr,
                };
                prop_assert_eq!(routes.owner(mapped), slow_owner(&inserted, addr), "{}", addr);
            }
        }
    }

    #[test]
    fn the_default_route_of_ipv6_does_not_own_ipv4() {
        let mut routes = Routes::default();
        routes.insert(&"::/0".parse().unwrap(), 1);
        assert_eq!(routes.owner("::ffff:10.8.0.2".parse().unwrap()), None);
    }

    #[test]
    fn a_default_route_owns_but_does_not_name() {
        let mut routes = Routes::default();
        routes.insert(&"0.0.0.0/0".parse().unwrap(), 1);
        routes.insert(&"10.8.0.2/32".parse().unwrap(), 2);
        routes.insert(&"::/0".parse().unwrap(), 3);
        let far = "::ffff:9.9.9.9".parse().unwrap();
        assert_eq!((routes.owner(far), routes.resident(far)), (Some(1), None));
        let far = "2001:db8::1".parse().unwrap();
        assert_eq!((routes.owner(far), routes.resident(far)), (Some(3), None));
        let near = "::ffff:10.8.0.2".parse().unwrap();
        assert_eq!((routes.owner(near), routes.resident(near)), (Some(2), Some(2)));
    }
}
