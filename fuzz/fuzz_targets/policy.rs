//! The text of a policy: refused in lines that a terminal may show, or compiled into tables that
//! decide as its rules do.
//!
//! What is asked of both lies at the borders of what the policy says: the first and last address of
//! its prefixes, the first and last port of its ranges, and those beyond.

#![no_main]

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, LazyLock},
};

use flowd::{
    flows::{Identity, Routes, Verdict},
    policy::{
        Checked, HostTables, Known, Limits, Mode, Policy, Problem, Selector, Service, World,
        compile, parse,
    },
};
use flowd_common::{
    addr::Addr,
    flow::FlowKey,
    packet::has_ports,
    policy::{Head, Judgement, Outcome, Wanted, judge, service},
};
use ipnet::IpNet;
use libfuzzer_sys::fuzz_target;

const HERE: u32 = 1;
/// Another interface, whose peers are residents only.
const OTHER: u32 = 7;
const EPOCH: u32 = 3;
const LIMITS: Limits = Limits { endpoints: 1 << 14, pairs: 1 << 14, intervals: 1 << 14 };
/// Flows that are judged for a policy, and what they are put together from.
const FLOWS: usize = 256;
const ADDRESSES: usize = 64;
const SERVICES: usize = 64;

/// Name, user, groups, interface, allowed-ips.
type PeerRow =
    (&'static str, Option<&'static str>, &'static [&'static str], u32, &'static [&'static str]);

/// Prefixes overlap, names of peers, users and groups are shared, one peer carries the default
/// route, and two interfaces have the same addresses.
const PEERS: [PeerRow; 7] = [
    ("alice-laptop", Some("alice@example.com"), &["ops"], HERE, &["10.8.0.2/32", "fd08::2/128"]),
    ("bob-phone", Some("bob@example.com"), &["help-desk"], HERE, &["10.8.0.4/31", "fd08::4/127"]),
    ("site", None, &["ops", "dev"], HERE, &["10.8.0.0/29", "fd08::/125", "0.0.0.0/0"]),
    ("twin", Some("bob@example.com"), &[], HERE, &["10.8.0.6/32"]),
    ("twin", None, &["dev"], OTHER, &["10.8.0.6/32", "10.9.0.2/32"]),
    ("exit", Some("alice@example.com"), &[], OTHER, &["0.0.0.0/0", "::/0", "10.8.0.2/32"]),
    ("10", None, &["all"], OTHER, &["fd09::2/128"]),
];
const GATEWAY: [&str; 3] = ["10.8.0.1", "10.0.0.1", "fd08::1"];
const STRANGERS: [&str; 5] = ["10.0.5.10", "9.9.9.9", "10.9.0.3", "2001:db8::1", "fd00:5::10"];

static WORLD: LazyLock<World> = LazyLock::new(world);

fuzz_target!(|text: &str| {
    let identities: Vec<_> = WORLD.identities.values().map(|peer| (**peer).clone()).collect();
    let Checked { policy, warnings } = match parse(text, Some(&Known { identities: &identities })) {
        Ok(checked) => checked,
        Err(problems) => {
            assert!(!problems.is_empty(), "refused for no reason");
            return problems.iter().for_each(|problem| readable(problem, text));
        }
    };
    warnings.iter().for_each(|warning| readable(warning, text));
    let stored = parse(text, None).expect("what is right for known peers is right for any");
    assert_eq!(stored.policy, policy);
    // Too large for these limits is an answer too.
    let Ok(compiled) = compile(&policy, &WORLD, &LIMITS) else { return };
    let head = Head::new(EPOCH, compiled.flags);
    let tables = HostTables::from(compiled);
    let shadowed = shadowed(&warnings);
    for Flow { key, icmp_type } in flows(&policy) {
        let (near, far) = (
            WORLD.near(key.ifindex, Ipv6Addr::from(key.peer)),
            WORLD.far(key.ifindex, Ipv6Addr::from(key.remote)),
        );
        let asked = |port| Service(service(key.protocol, port, icmp_type));
        let of_peer = policy.decide(&near, &far, asked(key.remote_port));
        let of_remote = policy.decide(&far, &near, asked(key.peer_port));
        let opinion = judge(&tables, head, &key, icmp_type, Wanted::BOTH);
        assert_eq!(opinion.of_peer, judgement(&policy, of_peer), "{key:?} {icmp_type}");
        assert_eq!(opinion.of_remote, judgement(&policy, of_remote), "{key:?} {icmp_type}");
        for rule in [of_peer, of_remote].into_iter().flatten() {
            let line = policy.rules[rule].line;
            assert!(!shadowed.contains(&line), "the rule on line {line} decides: {key:?}");
        }
    }
});

fn world() -> World {
    let mut world = World::default();
    for (id, (name, user, groups, ifindex, nets)) in (1..).zip(PEERS) {
        let identity = Identity {
            public_key: format!("{:A<43}=", format!("{name}{id}").replace('-', "")),
            name: name.to_owned(),
            user: user.map(str::to_owned),
            device: None,
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            endpoint: None,
        };
        world.identities.insert(id, Arc::new(identity));
        let routes: &mut Routes = world.routes.entry(ifindex).or_default();
        nets.iter().for_each(|net| routes.insert(&net.parse().expect("a prefix"), id));
    }
    world.gateway = GATEWAY.map(|ip| ip.parse().expect("an address")).into();
    world
}

fn readable(problem: &Problem, text: &str) {
    let Problem { line, column, text: told } = problem;
    assert!((1..=1 + text.matches('\n').count()).contains(line), "{problem:?}");
    assert!((1..=1 + text.len()).contains(column), "{problem:?}");
    assert!(!told.is_empty() && !told.contains(char::is_control), "{problem:?}");
}

/// The lines of the rules that are said to decide nothing.
fn shadowed(warnings: &[Problem]) -> BTreeSet<usize> {
    let lines = warnings.iter().filter_map(|warning| {
        let (rule, _) = warning.text.split_once(") never decides: rule ")?;
        rule.rsplit_once("(line ")?.1.parse().ok()
    });
    lines.collect()
}

/// What the tables must say.
fn judgement(policy: &Policy, decision: Option<usize>) -> Judgement {
    let outcome = match (policy.verdict(decision), policy.mode) {
        (Verdict::Allow, _) => Outcome::Allowed,
        (Verdict::Deny, Mode::Observe) => Outcome::Passed,
        (Verdict::Deny, Mode::Enforce) => Outcome::Dropped,
    };
    Judgement::new(EPOCH, decision.map_or(0, |rule| rule as u32 + 1), outcome)
}

struct Flow {
    key: FlowKey,
    icmp_type: u8,
}

/// Flows between the addresses and for the services that the policy may tell apart.
fn flows(policy: &Policy) -> impl Iterator<Item = Flow> {
    let (addresses, services) = (addresses(policy), services(policy));
    let mut dice = Dice(1);
    (0..FLOWS).map(move |_| {
        let [peer, remote] = [(); 2].map(|()| addresses[dice.below(addresses.len())]);
        let [to_peer, to_remote] = [(); 2].map(|()| services[dice.below(services.len())]);
        let protocol = to_remote.protocol();
        let port = |service: Service| match has_ports(protocol) {
            true => service.port_or_type(),
            false => 0,
        };
        let key = FlowKey {
            peer: Addr::from(peer),
            remote: Addr::from(remote),
            peer_port: port(to_peer),
            remote_port: port(to_remote),
            ifindex: [HERE, OTHER][dice.below(2)],
            protocol,
            ..FlowKey::default()
        };
        Flow { key, icmp_type: to_remote.port_or_type() as u8 }
    })
}

/// The addresses of peers, gateway and strangers, and those at the borders of the policy's prefixes.
fn addresses(policy: &Policy) -> Vec<Ipv6Addr> {
    let of_peers = PEERS.iter().flat_map(|(.., nets)| nets.iter());
    let of_peers = of_peers.map(|net| net.parse::<IpNet>().expect("a prefix").addr());
    let others = GATEWAY.iter().chain(&STRANGERS).map(|ip| ip.parse().expect("an address"));
    let of_rules = policy.rules.iter().flat_map(|rule| rule.from.iter().chain(&rule.to));
    let of_rules = of_rules.filter_map(|selector| match selector {
        Selector::Net(net) => Some(net),
        _ => None,
    });
    let nets = of_rules.chain(policy.resources.values().flatten());
    let of_policy = nets.flat_map(|net| {
        let (first, last) = (mapped(net.network()).to_bits(), mapped(net.broadcast()).to_bits());
        [first.wrapping_sub(1), first, last, last.wrapping_add(1)].map(Ipv6Addr::from)
    });
    let mut addresses: Vec<_> = of_policy.chain(of_peers.chain(others).map(mapped)).collect();
    addresses.truncate(ADDRESSES);
    addresses
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// Some services, and those at the borders of the policy's ranges.
fn services(policy: &Policy) -> Vec<Service> {
    let some = [(6, 22), (6, 443), (17, 53), (1, 8), (58, 128), (47, 0)];
    let some = some.into_iter().map(|(protocol, low)| Service::new(protocol, low));
    let ranges = policy.rules.iter().flat_map(|rule| rule.services.ranges());
    let of_policy = ranges.flat_map(|range| {
        let (first, last) = (*range.start(), *range.end());
        [first.saturating_sub(1), first, last, (last + 1).min(Service::LAST)].map(Service)
    });
    let mut services: Vec<_> = some.chain(of_policy).collect();
    services.truncate(SERVICES);
    services
}

/// A linear congruential generator: an input always asks the same.
struct Dice(u64);

impl Dice {
    fn below(&mut self, faces: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % faces
    }
}
