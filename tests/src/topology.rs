//! Gateways with peers, built as drawn.
//!
//! ```text
//!  peer0 ┌────────────────┐         ┌────────────────────── gateway ┐
//!        │ wg0 10.8.0.2   │ tunnel  │ wg0 10.8.0.1/24, fd08::1/64   │
//!        │     fd08::2    │═════════│                               │
//!        │ eth0 172.31.0.2│─────────│ u0  172.31.0.1/24             │
//!        └────────────────┘  veth   │                               │
//!  peer1 ┌────────────────┐         │                               │      lan ┌────────────────┐
//!        │ wg0 10.8.0.3   │═════════│ (wg0)                         │          │                │
//!        │ eth0 172.31.1.2│─────────│ u1  172.31.1.1/24             │          │ eth0 10.20.0.2 │
//!        └────────────────┘         │             lan 10.20.0.1/24  │──────────│      fd20::2   │
//!  peer2 ┌────────────────┐         │                  fd20::1/64   │   veth   └────────────────┘
//!        │ wg0 10.9.0.2   │═════════│ wg1 10.9.0.1/24, fd09::1/64   │
//!        │ eth0 172.31.2.2│─────────│ u2  172.31.2.1/24             │
//!        └────────────────┘         └───────────────────────────────┘
//! ```
//!
//! The gateway forwards. Every peer routes everything inside through its tunnel; the underlay is
//! on link.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    namespace::Namespace,
    traffic::udp,
    wireguard::{self, Keys, WgLink},
};

/// A gateway, its peers, perhaps a network behind it.
///
/// Fields drop in order: interfaces before the namespaces that hold them.
#[derive(Debug)]
pub struct Topology {
    /// The gateway's WireGuard interfaces.
    pub interfaces: Vec<Interface>,
    /// All peers, interface by interface.
    pub peers: Vec<Peer>,
    /// Behind the gateway, if [`Topology::add_lan`] was called.
    pub lan: Option<Namespace>,
    /// Where flowd runs.
    pub gateway: Namespace,
}

/// One of the gateway's WireGuard interfaces.
#[derive(Debug)]
pub struct Interface {
    /// `None` while a test has it removed.
    pub link: Option<WgLink>,
    /// Its name.
    pub name: String,
    /// Its key, which survives re-creation.
    pub keys: Keys,
    /// Its number in the drawing.
    index: u8,
}

/// One peer in a namespace of its own.
#[derive(Debug)]
pub struct Peer {
    /// Its `wg0`.
    pub link: WgLink,
    /// Its namespace.
    pub namespace: Namespace,
    /// `peer0`, `peer1`, …
    pub name: String,
    /// Its key.
    pub keys: Keys,
    /// The gateway's interface that has it.
    pub interface: String,
    /// Inside.
    pub v4: Ipv4Addr,
    /// Inside.
    pub v6: Ipv6Addr,
}

/// The LAN host's addresses.
pub const LAN_V4: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 2);
/// The LAN host's addresses.
pub const LAN_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 2);

impl Topology {
    /// One interface `wg0` with `peers` peers, tunnels established.
    pub fn new(peers: u8) -> Self {
        Self::with(&[("wg0", peers)])
    }

    /// Interfaces with so many peers each, tunnels established.
    pub fn with(plan: &[(&str, u8)]) -> Self {
        Self::with_keys(plan, Keys::new)
    }

    /// The same with keys that are known already: an interface's, its peers', the next's.
    pub fn with_keys(plan: &[(&str, u8)], mut next_keys: impl FnMut() -> Keys) -> Self {
        let gateway = Namespace::new("gateway");
        gateway.sysctl("net/ipv4/ip_forward", "1");
        gateway.sysctl("net/ipv6/conf/all/forwarding", "1");
        let mut topology = Self { interfaces: Vec::new(), peers: Vec::new(), lan: None, gateway };
        for ((name, peers), index) in plan.iter().zip(0..) {
            let interface =
                Interface { link: None, name: (*name).to_owned(), keys: next_keys(), index };
            topology.interfaces.push(interface);
            topology.raise(name);
            for host in 0..*peers {
                topology.add_peer(name, host, next_keys());
            }
        }
        topology.warm_up_all();
        topology
    }

    /// The interface called `name`.
    pub fn interface(&self, name: &str) -> &Interface {
        self.interfaces.iter().find(|interface| interface.name == name).expect("it was planned")
    }

    /// The gateway's address inside the tunnel of `peer`.
    pub fn gateway_v4(&self, peer: &Peer) -> IpAddr {
        gateway_v4(self.interface(&peer.interface).index).into()
    }

    /// The gateway's address inside the tunnel of `peer`.
    pub fn gateway_v6(&self, peer: &Peer) -> IpAddr {
        gateway_v6(self.interface(&peer.interface).index).into()
    }

    /// Makes a planned interface of the gateway, with the peers it has so far.
    pub fn raise(&mut self, name: &str) {
        let interface = self
            .interfaces
            .iter_mut()
            .find(|interface| interface.name == name)
            .expect("it was planned");
        let (gateway, index) = (&self.gateway, interface.index);
        let link = WgLink::create(gateway, name, &interface.keys, port(index));
        gateway.ip(&format!("addr add {}/24 dev {name}", gateway_v4(index)));
        gateway.ip(&format!("addr add {}/64 dev {name} nodad", gateway_v6(index)));
        interface.link = Some(link);
        for peer in self.peers.iter().filter(|peer| peer.interface == name) {
            self.admit(peer, &peer.allowed_ips());
        }
    }

    /// Takes an interface of the gateway away.
    pub fn lower(&mut self, name: &str) {
        let interface = self.interfaces.iter_mut().find(|interface| interface.name == name);
        let link = interface.and_then(|interface| interface.link.take()).expect("it is there");
        link.remove(&self.gateway);
    }

    /// Tells the gateway about `peer`, with these allowed addresses.
    pub fn admit(&self, peer: &Peer, allowed_ips: &str) {
        wireguard::set_peer(&self.gateway, &peer.interface, &peer.keys.public, allowed_ips, None);
    }

    /// Makes the gateway forget `peer`.
    pub fn dismiss(&self, peer: &Peer) {
        wireguard::remove_peer(&self.gateway, &peer.interface, &peer.keys.public);
    }

    /// One datagram each way, after which the handshake is done.
    pub fn warm_up(&self, peer: &Peer) {
        let gateway = self.gateway_v4(peer);
        let near = (&peer.namespace, peer.v4.into());
        udp::Pair::new(near, (&self.gateway, gateway)).exchange(&[1]);
    }

    /// Makes `peer` start a new session: the gateway has forgotten the old one, and WireGuard itself
    /// would notice only after 15 seconds.
    pub fn reconnect(&self, peer: &Peer) {
        let interface = self.interface(&peer.interface);
        let key = &interface.keys.public;
        let number = peer.name.trim_start_matches("peer");
        let endpoint = format!("172.31.{number}.1:{}", port(interface.index));
        wireguard::remove_peer(&peer.namespace, "wg0", key);
        let everything = "0.0.0.0/0,::/0";
        wireguard::set_peer(&peer.namespace, "wg0", key, everything, Some(&endpoint));
        self.warm_up(peer);
    }

    /// [`Topology::warm_up`] for every peer.
    pub fn warm_up_all(&self) {
        self.peers.iter().for_each(|peer| self.warm_up(peer));
    }

    /// Adds the network behind the gateway, offloads on, so that super-packets get to the tunnel.
    pub fn add_lan(&mut self) -> &Namespace {
        let lan = Namespace::new("lan");
        self.gateway.ip(&format!("link add lan type veth peer name eth0 netns {}", lan.path()));
        self.gateway.ip("addr add 10.20.0.1/24 dev lan");
        self.gateway.ip("addr add fd20::1/64 dev lan nodad");
        self.gateway.ip("link set lan up");
        lan.ip(&format!("addr add {LAN_V4}/24 dev eth0"));
        lan.ip(&format!("addr add {LAN_V6}/64 dev eth0 nodad"));
        lan.ip("link set eth0 up");
        lan.ip("route add default via 10.20.0.1");
        lan.ip("-6 route add default via fd20::1");
        self.lan.insert(lan)
    }

    fn add_peer(&mut self, interface: &str, host: u8, keys: Keys) {
        let number = self.peers.len();
        let Interface { keys: gateway_keys, index, .. } = self.interface(interface);
        let (gateway_key, index) = (gateway_keys.public.clone(), *index);
        let namespace = Namespace::new(&format!("peer{number}"));
        let gateway = &self.gateway;
        gateway
            .ip(&format!("link add u{number} type veth peer name eth0 netns {}", namespace.path()));
        gateway.ip(&format!("addr add 172.31.{number}.1/24 dev u{number}"));
        gateway.ip(&format!("link set u{number} up"));
        namespace.ip(&format!("addr add 172.31.{number}.2/24 dev eth0"));
        namespace.ip("link set eth0 up");

        let v4 = Ipv4Addr::new(10, 8 + index, 0, 2 + host);
        let v6 = Ipv6Addr::new(0xfd08 + u16::from(index), 0, 0, 0, 0, 0, 0, 2 + u16::from(host));
        let link = WgLink::create(&namespace, "wg0", &keys, 51820);
        namespace.ip(&format!("addr add {v4}/32 dev wg0"));
        namespace.ip(&format!("addr add {v6}/128 dev wg0 nodad"));
        let endpoint = format!("172.31.{number}.1:{}", port(index));
        wireguard::set_peer(&namespace, "wg0", &gateway_key, "0.0.0.0/0,::/0", Some(&endpoint));
        namespace.ip("route add default dev wg0");
        namespace.ip("-6 route add default dev wg0");
        let peer = Peer {
            link,
            namespace,
            name: format!("peer{number}"),
            keys,
            interface: interface.to_owned(),
            v4,
            v6,
        };
        self.admit(&peer, &peer.allowed_ips());
        self.peers.push(peer);
    }
}

impl Peer {
    /// Its two addresses as prefixes.
    pub fn allowed_ips(&self) -> String {
        format!("{}/32,{}/128", self.v4, self.v6)
    }
}

fn gateway_v4(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 8 + index, 0, 1)
}

fn gateway_v6(index: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd08 + u16::from(index), 0, 0, 0, 0, 0, 0, 1)
}

fn port(index: u8) -> u16 {
    51820 + u16::from(index)
}
