//! The compiled policy in the kernel against the interpreter on the host.
//!
//! Random policies over a small world, in which prefixes overlap, peers share users and groups, one
//! peer carries the default route and two interfaces have the same addresses; random packets that
//! meet their rules. The interpreter looks at one rule after the other, and knows of no tables.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    ops::RangeInclusive,
    sync::Arc,
};

use flowd::{
    dataplane::{Dataplane, LinkHeader},
    flows::{Identity, Routes, Verdict},
    policy::{Group, Limits, Mode, Policy, Rule, Selector, Service, Services, World, compile},
};
use flowd_common::{
    counter::Direction,
    flow::{FlowKey, FlowValue},
    policy::Outcome,
};
use flowd_tests::wireguard::{Backend, backend};
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

/// `BPF_PROG_TEST_RUN` pretends that packets cross the loopback device.
const LOOPBACK: u32 = 1;
/// Another interface, whose peers are residents only.
const OTHER: u32 = 7;
const PACKETS: usize = 256;
const LIMITS: Limits = Limits { endpoints: 1 << 20, pairs: 1 << 20, intervals: 1 << 20 };

/// Emulated machines are slow; there, this is about the older kernels' verifiers and maps.
fn policies() -> usize {
    match backend() {
        Backend::Userspace => 420,
        Backend::Kernel => 12,
    }
}

/// Name, user, groups, interface, allowed-ips.
type PeerRow =
    (&'static str, Option<&'static str>, &'static [&'static str], u32, &'static [&'static str]);

const PEERS: [PeerRow; 6] = [
    ("alice", Some("al@example.com"), &["ops"], LOOPBACK, &["10.8.0.2/32", "fd08::2/128"]),
    ("alice-phone", Some("al@example.com"), &[], LOOPBACK, &["10.8.0.3/32", "fd08::3/128"]),
    ("bob", Some("bob@example.com"), &["dev"], LOOPBACK, &["10.8.0.4/31", "fd08::4/127"]),
    ("site", None, &["dev", "ops"], LOOPBACK, &["10.8.0.0/29", "fd08::/125", "0.0.0.0/0"]),
    ("far", None, &["ops"], OTHER, &["10.8.0.6/32", "10.9.0.2/32", "fd09::2/128"]),
    ("exit", Some("bob@example.com"), &[], OTHER, &["0.0.0.0/0", "::/0", "10.8.0.2/32"]),
];

fn world() -> World {
    let mut world = World::default();
    for (id, (name, user, groups, ifindex, nets)) in (1..).zip(PEERS) {
        let identity = Identity {
            public_key: format!("{name:A<43}="),
            name: name.to_owned(),
            user: user.map(str::to_owned),
            device: None,
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            endpoint: None,
        };
        world.identities.insert(id, Arc::new(identity));
        let routes: &mut Routes = world.routes.entry(ifindex).or_default();
        nets.iter().for_each(|net| routes.insert(&net.parse().unwrap(), id));
    }
    world.gateway = ["10.8.0.1", "fd08::1", "10.0.0.1"].map(|ip| ip.parse().unwrap()).into();
    world
}

fn selector() -> impl Strategy<Value = Selector> {
    let nets = [
        "0.0.0.0/0",
        "::/0",
        "10.0.0.0/8",
        "10.8.0.0/30",
        "10.8.0.2/32",
        "10.9.0.0/16",
        "10.0.0.0/29",
        "10.0.0.5/32",
        "fd08::/126",
        "fd08::2/128",
        "fd00::/16",
        "fd00::/8",
        "::/1",
        "10.0.0.4/31",
    ];
    let of = |names: &[&str]| {
        prop::sample::select(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())
    };
    prop_oneof![
        1 => Just(Selector::Any),
        1 => Just(Selector::Gateway),
        4 => prop::sample::select(nets.to_vec()).prop_map(|net| Selector::Net(net.parse().unwrap())),
        1 => of(&["db", "nets"]).prop_map(Selector::Resource),
        3 => of(&["alice", "bob", "site", "far", "exit", "nobody"]).prop_map(Selector::Peer),
        1 => of(&["al@example.com", "bob@example.com"]).prop_map(Selector::User),
        2 => of(&["ops", "dev", "team", "empty"]).prop_map(Selector::Group),
    ]
}

fn range() -> impl Strategy<Value = RangeInclusive<u32>> {
    let protocol = prop::sample::select(vec![1_u8, 6, 17, 47, 58, 132]);
    let port = prop::sample::select(vec![0_u16, 3, 8, 22, 53, 80, 81, 128, 443, 65_535]);
    prop_oneof![
        1 => protocol.clone().prop_map(Services::protocol),
        3 => (protocol, port.clone(), port).prop_map(|(protocol, a, b)| {
            Service::new(protocol, a.min(b)).0..=Service::new(protocol, a.max(b)).0
        }),
    ]
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop::sample::select(vec![Verdict::Allow, Verdict::Deny])
}

fn policy() -> impl Strategy<Value = Policy> {
    let selectors = || prop::collection::vec(selector(), 1..4);
    let services = prop_oneof![
        1 => Just(Services::any()),
        3 => prop::collection::vec(range(), 1..4).prop_map(Services::of),
    ];
    let rule = (verdict(), selectors(), selectors(), services);
    let mode = prop::sample::select(vec![Mode::Observe, Mode::Enforce]);
    (mode, verdict(), prop::collection::vec(rule, 0..24)).prop_map(|(mode, default, rules)| {
        let rules = rules.into_iter().zip(1..).map(|((action, from, to, services), line)| Rule {
            id: format!("rule-{line}").into(),
            action,
            from,
            to,
            services,
            line,
        });
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let team = Group {
            peers: names(&["alice-phone"]),
            users: names(&["bob@example.com"]),
            groups: names(&["ops"]),
        };
        let nets = |nets: &[&str]| nets.iter().map(|net| net.parse().unwrap()).collect();
        Policy {
            mode,
            default,
            groups: BTreeMap::from([("team".to_owned(), team)]),
            resources: BTreeMap::from([
                ("db".to_owned(), nets(&["10.0.0.5/32", "fd00:5::5/128"])),
                ("nets".to_owned(), nets(&["10.0.0.0/30", "10.9.0.0/24", "fd09::/16"])),
            ]),
            rules: rules.collect(),
        }
    })
}

fn ip() -> impl Strategy<Value = u8> {
    0_u8..12
}

/// A packet with ports or an ICMP type that rules speak of: direction, the bytes.
fn packet() -> impl Strategy<Value = (Direction, Vec<u8>)> {
    let protocol = prop::sample::select(vec![1_u8, 6, 6, 17, 17, 47, 58, 132]);
    let port = || prop::sample::select(vec![22_u16, 53, 80, 82, 443, 65_535, 1_000]);
    let flags = prop::sample::select(vec![0x02_u8, 0x12, 0x10, 0x04]);
    let kind = prop::sample::select(vec![8_u8, 0, 128, 129, 3, 13]);
    (any::<bool>(), any::<bool>(), ip(), ip(), protocol, port(), port(), flags, kind, any::<u16>())
        .prop_map(|(ingress, v4, src, dst, protocol, sport, dport, flags, kind, salt)| {
            let mut transport = match protocol {
                1 | 58 => {
                    let [high, low] = salt.to_be_bytes();
                    vec![kind, 0, 0, 0, high, low, 0, 1]
                }
                _ => [sport.to_be_bytes(), dport.to_be_bytes()].concat(),
            };
            if protocol == 6 {
                transport.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 1, 0, 0, 0, 0, 0]);
            }
            transport.resize(transport.len().max(8), 0);
            let bytes = if v4 {
                ipv4(src, dst, protocol, &transport)
            } else {
                ipv6(src, dst, protocol, &transport)
            };
            (if ingress { Direction::Ingress } else { Direction::Egress }, bytes)
        })
}

/// Twelve addresses around those of peers, gateway and rules.
fn v4(index: u8) -> [u8; 4] {
    match index {
        0..=7 => [10, 8, 0, index],
        8 => [10, 0, 0, 5],
        9 => [10, 0, 0, 1],
        10 => [10, 9, 0, 2],
        _ => [9, 9, 9, 9],
    }
}

fn v6(index: u8) -> [u8; 16] {
    let mut addr = [0_u8; 16];
    let head: [u8; 4] = match index {
        0..=7 => [0xfd, 8, 0, 0],
        8 => [0xfd, 0, 0, 5],
        10 => [0xfd, 9, 0, 0],
        _ => [0x20, 1, 0xd, 0xb8],
    };
    addr[..4].copy_from_slice(&head);
    addr[15] = match index {
        8 => 5,
        10 => 2,
        other => other,
    };
    addr
}

fn ipv4(src: u8, dst: u8, protocol: u8, transport: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend(((20 + transport.len()) as u16).to_be_bytes());
    packet.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
    packet.extend(v4(src));
    packet.extend(v4(dst));
    packet.extend(transport);
    [&[0; 12], [8, 0].as_slice(), &packet].concat()
}

fn ipv6(src: u8, dst: u8, protocol: u8, transport: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((transport.len() as u16).to_be_bytes());
    packet.extend([protocol, 64]);
    packet.extend(v6(src));
    packet.extend(v6(dst));
    packet.extend(transport);
    [&[0; 12], [0x86, 0xdd].as_slice(), &packet].concat()
}

/// What the policy says of a flow, rule by rule: the rule, counted from 1, and the outcome.
fn expected(policy: &Policy, world: &World, key: &FlowKey, value: &FlowValue) -> (u32, Outcome) {
    let (peer, remote) = (Ipv6Addr::from(key.peer), Ipv6Addr::from(key.remote));
    let (near, far) = (world.near(key.ifindex, peer), world.far(key.ifindex, remote));
    let service = |port: u16| match key.protocol {
        1 | 58 => Service::new(
            key.protocol,
            match (key.protocol, value.icmp_type) {
                (1, 0) => 8,
                (58, 129) => 128,
                (_, other) => u16::from(other),
            },
        ),
        6 | 17 | 132 => Service::new(key.protocol, port),
        other => Service::new(other, 0),
    };
    let from_peer = policy.decide(&near, &far, service(key.remote_port));
    let from_remote = policy.decide(&far, &near, service(key.peer_port));
    let decision = match value.initiator {
        1 => from_peer,
        2 => from_remote,
        _ if policy.verdict(from_peer) == Verdict::Deny
            && policy.verdict(from_remote) == Verdict::Allow =>
        {
            from_remote
        }
        _ => from_peer,
    };
    let outcome = match (policy.verdict(decision), policy.mode) {
        (Verdict::Allow, _) => Outcome::Allowed,
        (Verdict::Deny, Mode::Observe) => Outcome::Passed,
        (Verdict::Deny, Mode::Enforce) => Outcome::Dropped,
    };
    (decision.map_or(0, |position| position as u32 + 1), outcome)
}

#[test]
fn the_kernel_decides_as_the_interpreter_does() {
    let world = world();
    let mut dataplane = Dataplane::load(4_096, LinkHeader::Ethernet, None).unwrap();
    dataplane.make_counters(LOOPBACK).unwrap();
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let (policy, packet) = (policy(), packet());
    let (mut judged, mut outcomes) = (0_usize, HashMap::<Outcome, usize>::new());
    let mut apart_before = 0;
    for _ in 0..policies() {
        let policy = policy.new_tree(&mut runner).unwrap().current();
        let compiled = compile(&policy, &world, &LIMITS).unwrap();
        let head = dataplane.install(&compiled).unwrap();
        let mut keys = Vec::new();
        let mut dropped = 0;
        for _ in 0..PACKETS {
            let (direction, frame) = packet.new_tree(&mut runner).unwrap().current();
            let (action, _) = dataplane.test_run(direction, &frame, 1).unwrap();
            assert!(action == -1 || action == 2, "{action}");
            dropped += u64::from(action == 2);
            judged += 1;
        }
        let mut really_dropped = 0;
        dataplane
            .for_each_flow(|key, value| {
                let (rule, outcome) = expected(&policy, &world, key, value);
                assert_eq!(
                    (value.judgement.epoch(), value.judgement.rule(), value.judgement.outcome()),
                    (head.epoch(), rule, outcome),
                    "{key:?} {value:?}\n{policy:#?}"
                );
                if outcome == Outcome::Dropped {
                    really_dropped += value.rx_packets + value.tx_packets;
                }
                *outcomes.entry(outcome).or_default() += 1;
                keys.push(*key);
            })
            .unwrap();
        // Packets that their flow does not speak for.
        let buckets = dataplane.overflow().unwrap().into_iter();
        let denied = buckets.filter(|(bucket, _)| bucket.outcome == Outcome::Dropped as u8);
        let apart = denied.map(|(_, tally)| tally.packets).sum::<u64>();
        assert_eq!(dropped, really_dropped + apart - apart_before, "{policy:#?}");
        apart_before = apart;
        dataplane.delete(&keys, |_| {}).unwrap();
    }
    println!("{judged} packets, {outcomes:?} flows");
    assert!(outcomes.len() == 3, "the policies were too alike");
}

#[test]
fn addresses_of_nobody_have_no_peer() {
    let world = world();
    let ip: IpAddr = "fd08::7".parse().unwrap();
    assert!(world.near(LOOPBACK, "fd20::1".parse().unwrap()).peer.is_none());
    assert_eq!(world.near(LOOPBACK, "fd08::7".parse().unwrap()).ip, ip);
}
