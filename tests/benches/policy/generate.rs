//! A network of 1,000 peers and a policy for it as people write them, of any length. The same
//! numbers come out of every run.

use std::{fmt::Write as _, net::Ipv4Addr, sync::Arc};

use flowd::{flows::Identity, policy::World};

/// The interface on which `BPF_PROG_TEST_RUN` pretends that packets arrive: the loopback device.
const LOOPBACK: u32 = 1;

const PEERS: usize = 1_000;
const USERS: usize = 400;
const GROUPS: usize = 100;
const GROUPS_OF_A_PEER: usize = 3;
const HOSTS: usize = 5_000;
const SUBNETS: usize = 500;
const RESOURCES: usize = 200;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 8, 255, 254);
const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 53);

const TCP: u8 = 6;
const UDP: u8 = 17;
const PORTS: [u16; 12] = [22, 25, 80, 443, 465, 993, 3306, 3389, 5432, 6443, 8080, 9100];

/// Numbers that are random enough, and the same in every run (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }
}

/// Who or what is at one end of a rule.
#[derive(Clone, Debug)]
enum Party {
    Any,
    Gateway,
    Peer(usize),
    User(usize),
    Group(usize),
    Resource(usize),
    Net(Ipv4Addr, u8),
}

/// What a packet is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) src: Ipv4Addr,
    pub(crate) dst: Ipv4Addr,
    /// UDP or TCP.
    pub(crate) protocol: u8,
    pub(crate) port: u16,
}

/// One rule of the policy.
struct Rule {
    from: Party,
    to: Party,
    protocol: u8,
    port: u16,
}

/// Peers, and what is behind the gateway.
pub(crate) struct Network {
    groups_of: Vec<[usize; GROUPS_OF_A_PEER]>,
    hosts: Vec<Ipv4Addr>,
    subnets: Vec<Ipv4Addr>,
    resources: Vec<Vec<Ipv4Addr>>,
}

/// A policy and packets that meet it.
pub(crate) struct Generated<'n> {
    network: &'n Network,
    pub(crate) text: String,
    rules: usize,
    allowing: Vec<Rule>,
}

impl Network {
    pub(crate) fn new(random: &mut Random) -> Self {
        let groups_of = (0..PEERS).map(|_| [(); GROUPS_OF_A_PEER].map(|()| random.below(GROUPS)));
        let groups_of = groups_of.collect();
        let mut host = || {
            let [a, b, c] = [16 + random.below(16), random.below(256), 1 + random.below(254)];
            Ipv4Addr::new(10, a as u8, b as u8, c as u8)
        };
        let hosts: Vec<Ipv4Addr> = (0..HOSTS).map(|_| host()).collect();
        let subnets = (0..SUBNETS).map(|_| host());
        let subnets = subnets.map(|host| Ipv4Addr::from_bits(host.to_bits() & !0xff)).collect();
        let mut resources = vec![Vec::new(); RESOURCES];
        for hosts_of_it in &mut resources {
            hosts_of_it.extend((0..1 + random.below(4)).map(|_| random.of(&hosts)));
        }
        Self { groups_of, hosts, subnets, resources }
    }

    pub(crate) fn identities(&self) -> Vec<Identity> {
        let peers = self.groups_of.iter().enumerate();
        peers
            .map(|(peer, groups)| Identity {
                public_key: format!("{:A<43}=", format!("peer{peer:04}")),
                name: format!("peer-{peer:04}"),
                user: Some(user(peer % USERS)),
                device: None,
                groups: groups.iter().map(|group| format!("group-{group:02}")).collect(),
                endpoint: None,
            })
            .collect()
    }

    pub(crate) fn world(&self) -> World {
        let mut world = World::default();
        let routes = world.routes.entry(LOOPBACK).or_default();
        for (identity, peer) in self.identities().into_iter().zip(0_usize..) {
            let id = peer as u32 + 1;
            for net in [format!("{}/32", address(peer)), format!("fd00:8::{id:x}/128")] {
                routes.insert(&net.parse().expect("an address and its length"), id);
            }
            world.identities.insert(id, Arc::new(identity));
        }
        world.gateway.insert(GATEWAY.into());
        world
    }

    /// A policy of so many rules.
    pub(crate) fn policy(&self, rules: usize, random: &mut Random) -> Generated<'_> {
        let mut generated = Generated {
            network: self,
            text: "mode = \"observe\"\ndefault = \"deny\"\n\n[resources]\n".to_owned(),
            rules: 0,
            allowing: Vec::new(),
        };
        for (resource, hosts) in self.resources.iter().enumerate() {
            let hosts: Vec<_> = hosts.iter().map(|host| format!("\"{host}\"")).collect();
            let line = format!("net-{resource:03} = [{}]\n", hosts.join(", "));
            generated.text.push_str(&line);
        }
        let tenth = Party::Net(Ipv4Addr::new(10, 0, 0, 0), 8);
        generated.rule("allow", &Party::Group(1), &tenth, "protocols = [\"icmp:8\"]");
        generated.allow(Party::Any, Party::Net(RESOLVER, 32), UDP, &[(53, 53)]);
        generated.rule("allow", &Party::Group(0), &Party::Any, "");
        for _ in 3..rules {
            let (from, to) = (self.source(random), self.destination(random));
            let ranges: Vec<_> = (0..1 + random.below(3)).map(|_| ports(random)).collect();
            let protocol = if random.below(5) == 0 { UDP } else { TCP };
            if random.below(50) == 0 {
                generated.rule("deny", &from, &to, &services(protocol, &ranges));
            } else {
                generated.allow(from, to, protocol, &ranges);
            }
        }
        generated
    }

    fn source(&self, random: &mut Random) -> Party {
        match random.below(100) {
            0..40 => Party::Peer(random.below(PEERS)),
            40..65 => Party::Group(2 + random.below(GROUPS - 2)),
            65..85 => Party::User(random.below(USERS)),
            85..99 => Party::Net(address(random.below(PEERS / 8) * 8), 29),
            _ => Party::Any,
        }
    }

    fn destination(&self, random: &mut Random) -> Party {
        match random.below(100) {
            0..50 => Party::Net(random.of(&self.hosts), 32),
            50..70 => Party::Net(random.of(&self.subnets), 24),
            70..88 => Party::Resource(random.below(RESOURCES)),
            88..94 => Party::Peer(random.below(PEERS)),
            94..97 => Party::Group(2 + random.below(GROUPS - 2)),
            _ => Party::Gateway,
        }
    }

    /// An address of a party.
    fn address(&self, party: &Party, random: &mut Random) -> Ipv4Addr {
        match party {
            Party::Any => address(random.below(PEERS)),
            Party::Gateway => GATEWAY,
            Party::Peer(peer) => address(*peer),
            Party::User(user) => address(user + USERS * random.below(2)),
            Party::Group(group) => {
                let in_it = |peer: &usize| self.groups_of[*peer].contains(group);
                let start = random.below(PEERS);
                let member = (start..PEERS).chain(0..start).find(in_it);
                address(member.unwrap_or(start))
            }
            Party::Resource(resource) => random.of(&self.resources[*resource]),
            Party::Net(net, bits) => {
                let host = random.below(1 << (32 - bits)) as u32;
                Ipv4Addr::from_bits(net.to_bits() + host)
            }
        }
    }
}

impl Generated<'_> {
    fn allow(&mut self, from: Party, to: Party, protocol: u8, ranges: &[(u16, u16)]) {
        self.rule("allow", &from, &to, &services(protocol, ranges));
        let (port, _) = ranges[0];
        self.allowing.push(Rule { from, to, protocol, port });
    }

    fn rule(&mut self, action: &str, from: &Party, to: &Party, services: &str) {
        let number = self.rules;
        self.rules += 1;
        writeln!(
            self.text,
            "\n[[rules]]\nid = \"rule-{number}\"\naction = \"{action}\"\nfrom = [\"{}\"]\n\
             to = [\"{}\"]\n{services}",
            from.word(),
            to.word(),
        )
        .expect("a string takes what is written to it");
    }

    /// A packet that a rule allows, unless one before it denies it.
    pub(crate) fn allowed(&self, random: &mut Random) -> Packet {
        let Rule { from, to, protocol, port } = &self.allowing[random.below(self.allowing.len())];
        let src = self.network.address(from, random);
        let dst = self.network.address(to, random);
        Packet { src, dst, protocol: *protocol, port: *port }
    }

    /// A packet from a peer to a host that the policy speaks of, which few rules allow.
    pub(crate) fn stray(&self, random: &mut Random) -> Packet {
        let src = address(random.below(PEERS));
        let dst = random.of(&self.network.hosts);
        Packet { src, dst, protocol: TCP, port: random.of(&PORTS) + 1 }
    }
}

impl Party {
    fn word(&self) -> String {
        match self {
            Self::Any => "any".to_owned(),
            Self::Gateway => "gateway".to_owned(),
            Self::Peer(peer) => format!("peer-{peer:04}"),
            Self::User(number) => format!("user:{}", user(*number)),
            Self::Group(group) => format!("group:group-{group:02}"),
            Self::Resource(resource) => format!("resource:net-{resource:03}"),
            Self::Net(host, 32) => host.to_string(),
            Self::Net(net, bits) => format!("{net}/{bits}"),
        }
    }
}

/// The address of a peer.
fn address(peer: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 8, 0, 0).to_bits() + peer as u32 + 8)
}

fn user(number: usize) -> String {
    format!("user-{number:03}@example.com")
}

fn ports(random: &mut Random) -> (u16, u16) {
    let first = random.of(&PORTS);
    match random.below(4) {
        0 => (8_000 + random.below(50) as u16, 8_100 + random.below(100) as u16),
        _ => (first, first),
    }
}

fn services(protocol: u8, ranges: &[(u16, u16)]) -> String {
    let protocol = if protocol == UDP { "udp" } else { "tcp" };
    let ranges: Vec<_> = ranges.iter().map(|(first, last)| format!("\"{first}-{last}\"")).collect();
    format!("protocols = [\"{protocol}\"]\nports = [{}]", ranges.join(", "))
}
