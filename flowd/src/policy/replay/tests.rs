//! Replays against their specification: [`Policy::decide`], record by record.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use proptest::prelude::*;

use super::{Judge, Replayed, Replayer, Turn, judge};
use crate::{
    flows::{Counters, Icmp, Identity, Initiator, Record, Tally, Tuple, Verdict, sample},
    policy::{Endpoint, Group, Mode, Policy, Rule, Selector, Service, Services, parse},
};

/// Whose an end is; `None`: nobody's.
type Peer = Option<Arc<Identity>>;

fn peer(name: &str) -> Peer {
    Some(Arc::new(Identity {
        public_key: format!("{name}-key="),
        name: name.to_owned(),
        user: Some(format!("{name}@example.com")),
        device: None,
        groups: vec![format!("{name}-team")],
        endpoint: None,
    }))
}

/// The only record of a TCP flow that alice opened.
fn record() -> Record {
    Record { peer: peer("alice"), ..sample::record() }
}

fn icmp(r#type: u8) -> Record {
    let tuple = Tuple { protocol: 1, peer_port: 7, remote_port: 0, ..record().tuple };
    Record { tuple, icmp: Some(Icmp { r#type, code: 0 }), ..record() }
}

fn replayed(policy: &str, records: &[Record]) -> Replayed {
    let policy = parse(policy, None).unwrap().policy;
    let gateway = BTreeSet::from(["10.0.0.254".parse().unwrap()]);
    let mut replayer = Replayer::new(&policy, &gateway, 0);
    for record in records {
        replayer.absorb(record);
    }
    replayer.finish()
}

/// A policy that denies everything but one rule's.
fn only(from: &str, to: &str, more: &str) -> String {
    format!(
        "default = \"deny\"\n[[rules]]\nid = \"only\"\naction = \"allow\"\nfrom = [\"{from}\"]\n\
         to = [\"{to}\"]\n{more}\n"
    )
}

#[test]
fn a_record_is_judged_as_its_first_packet_was() {
    let remote = || Record { initiator: Initiator::Remote, ..record() };
    let unknown = || Record { initiator: Initiator::Unknown, ..record() };
    let to_gateway =
        Tuple { remote_addr: Ipv4Addr::new(10, 0, 0, 254).to_ipv6_mapped(), ..record().tuple };
    let to_gateway = || Record { tuple: to_gateway, ..record() };
    let between = || Record { remote_peer: peer("bob"), ..record() };
    let port = |port: u16| format!("ports = [{port}]");
    let echo = "protocols = [\"icmp:8\"]";
    let cases = [
        // record, from, to, more, whether the rule decides
        (record(), "alice", "any", "", true),
        (record(), "alice-key=", "10.0.0.0/24", "", true),
        (record(), "group:alice-team", "any", &port(443), true),
        (record(), "user:alice@example.com", "any", &port(40_000), false),
        (record(), "any", "alice", "", false),
        (record(), "bob", "any", "", false),
        (remote(), "any", "alice", &port(40_000), true),
        (remote(), "any", "alice", &port(443), false),
        (remote(), "10.0.0.1", "10.8.0.2", "", true),
        (remote(), "alice", "any", "", false),
        (unknown(), "alice", "any", &port(443), true),
        (unknown(), "any", "alice", &port(40_000), true),
        (unknown(), "any", "any", &port(22), false),
        (to_gateway(), "any", "gateway", "", true),
        (record(), "any", "gateway", "", false),
        (between(), "any", "peer:bob", "", true),
        (icmp(8), "any", "any", echo, true),
        (icmp(0), "any", "any", echo, true),
        (icmp(13), "any", "any", echo, false),
    ];
    for (record, from, to, more, decides) in cases {
        let told = replayed(&only(from, to, more), std::slice::from_ref(&record));
        let expected = if decides { (1, 0) } else { (0, 1) };
        let got = (told.allowed.flows, told.denied.flows);
        assert_eq!(got, expected, "{:?} {from} {to} {more}", record.initiator);
    }
}

#[test]
fn changes_are_those_of_verdicts_and_the_largest_is_first() {
    let larger = Counters { rx_packets: 9, rx_bytes: 9_000, ..Counters::default() };
    let was_denied = Record {
        verdict: Verdict::Deny,
        rule: Some("old".into()),
        peer: None,
        counters: larger,
        total: larger,
        ..record()
    };
    let by_another_rule = Record { rule: Some("other".into()), peer: peer("bob"), ..record() };
    let second = Record { window_start_ms: 60_000, total: larger, ..record() };
    let records = [record(), was_denied, by_another_rule, second];
    let policy = "
        mode = \"enforce\"
        [[rules]]
        id = \"no-alice\"
        action = \"deny\"
        from = [\"alice\"]
        to = [\"any\"]
        [[rules]]
        id = \"bob\"
        action = \"allow\"
        from = [\"bob\"]
        to = [\"any\"]
    ";
    let turn =
        |peer: Option<&str>, was: (Verdict, Option<&str>), now: (Verdict, Option<&str>)| Turn {
            peer: peer.map(str::to_owned),
            was: was.0,
            was_rule: was.1.map(Into::into),
            would_be: now.0,
            rule: now.1.map(Into::into),
        };
    let (allow, deny) = (Verdict::Allow, Verdict::Deny);
    let expected = Replayed {
        allowed: Tally { flows: 2, packets: 12, bytes: 9_180 },
        denied: Tally { flows: 1, packets: 6, bytes: 360 },
        unjudged: Tally::default(),
        turns: vec![
            (
                turn(None, (deny, Some("old")), (allow, None)),
                Tally { flows: 1, packets: 9, bytes: 9_000 },
            ),
            (
                turn(Some("alice"), (allow, None), (deny, Some("no-alice"))),
                Tally { flows: 1, packets: 6, bytes: 360 },
            ),
        ],
    };
    assert_eq!(replayed(policy, &records), expected);
    let other_mode = replayed("mode = \"enforce\"", &[record()]);
    assert_eq!(other_mode.turns, [], "a mode is no verdict");
}

#[test]
fn what_cannot_be_judged_is_counted_apart() {
    let overflow = Record { tuple: Tuple::NONE, overflow: true, ..record() };
    let cases = [
        // record, policy, whether it can be judged
        (overflow.clone(), "", false),
        (overflow, "default = \"deny\"", false),
        (icmp(3), "", true),
        (icmp(3), "default = \"deny\"", false),
        (Record { verdict: Verdict::Deny, ..icmp(11) }, "default = \"deny\"", false),
        (icmp(8), "default = \"deny\"", true),
        (record(), "default = \"deny\"", true),
    ];
    for (record, policy, can_be) in cases {
        let told = replayed(policy, std::slice::from_ref(&record));
        assert_eq!(told.unjudged.packets, if can_be { 0 } else { 3 }, "{policy} {record:?}");
        assert_eq!(told.allowed.packets + told.denied.packets, 3 - told.unjudged.packets);
        assert_eq!(told.turns.is_empty(), !can_be || policy.is_empty(), "{policy} {record:?}");
    }
}

const NAMES: [&str; 3] = ["a", "b", "c"];
const NETS: [&str; 7] =
    ["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/30", "10.0.0.1/32", "::/0", "fd00::/64", "fd00::1/128"];
/// Of addresses in prefixes, on either side of their limits, and of the gateway.
const ADDRESSES: [&str; 7] =
    ["10.0.0.1", "10.0.0.3", "10.0.0.4", "192.0.2.1", "fd00::1", "fd00::2", "fd01::1"];
const SERVICES: [(u8, u16); 6] = [(6, 22), (6, 23), (17, 22), (1, 8), (58, 128), (47, 0)];

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(&NAMES[..]).prop_map(str::to_owned)
}

fn net() -> impl Strategy<Value = ipnet::IpNet> {
    prop::sample::select(&NETS[..]).prop_map(|net| net.parse().unwrap())
}

fn selector() -> impl Strategy<Value = Selector> {
    prop_oneof![
        1 => Just(Selector::Any),
        1 => Just(Selector::Gateway),
        3 => net().prop_map(Selector::Net),
        2 => name().prop_map(Selector::Resource),
        2 => name().prop_map(Selector::Peer),
        1 => name().prop_map(|name| Selector::Peer(format!("{name}-key="))),
        2 => name().prop_map(Selector::User),
        3 => name().prop_map(Selector::Group),
    ]
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![Just(Verdict::Allow), Just(Verdict::Deny)]
}

fn rule() -> impl Strategy<Value = (Verdict, Vec<Selector>, Vec<Selector>, Services)> {
    let service = prop::sample::select(&SERVICES[..])
        .prop_map(|(protocol, port)| Service::new(protocol, port).0)
        .prop_map(|service| service..=service);
    let services = prop_oneof![
        Just(Services::any()),
        prop::collection::vec(service, 1..3).prop_map(Services::of),
    ];
    let selectors = || prop::collection::vec(selector(), 1..4);
    (verdict(), selectors(), selectors(), services)
}

/// More rules than a word has bits, now and then.
fn policy() -> impl Strategy<Value = Policy> {
    let names = || prop::collection::btree_set(name(), 0..3);
    let group = (names(), names(), names()).prop_map(|(peers, users, groups)| Group {
        peers,
        users,
        groups,
    });
    let rules = prop_oneof![
        4 => prop::collection::vec(rule(), 0..12),
        1 => prop::collection::vec(rule(), 60..140),
    ];
    (
        verdict(),
        prop::collection::btree_map(name(), group, 0..3),
        prop::collection::btree_map(name(), prop::collection::vec(net(), 0..3), 0..3),
        rules,
    )
        .prop_map(|(default, groups, resources, rules)| Policy {
            mode: Mode::Observe,
            default,
            groups,
            resources,
            rules: rules
                .into_iter()
                .zip(1..)
                .map(|((action, from, to, services), line)| Rule {
                    id: format!("rule-{line}").into(),
                    action,
                    from,
                    to,
                    services,
                    line,
                })
                .collect(),
        })
}

fn identity() -> impl Strategy<Value = Peer> {
    let who =
        (name(), prop::option::of(name()), prop::collection::vec(name(), 0..3), any::<bool>());
    prop::option::of(who.prop_map(|(name, user, groups, roams)| {
        Arc::new(Identity {
            public_key: format!("{name}-key="),
            name,
            user,
            device: None,
            groups,
            endpoint: roams.then(|| "192.0.2.7:51820".parse().unwrap()),
        })
    }))
}

fn address() -> impl Strategy<Value = Ipv6Addr> {
    prop::sample::select(&ADDRESSES[..]).prop_map(|text| match text.parse().unwrap() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    })
}

fn flow() -> impl Strategy<Value = Record> {
    let protocol = prop::sample::select(&[6, 17, 1, 58, 47][..]);
    let port = || prop::sample::select(&[0_u16, 8, 22, 23][..]);
    let icmp_type = prop::sample::select(&[0_u8, 1, 3, 8, 11, 128, 129][..]);
    let initiator =
        prop::sample::select(&[Initiator::Unknown, Initiator::Peer, Initiator::Remote][..]);
    let ends = (identity(), identity(), address(), address(), port(), port());
    let was = (verdict(), prop::option::of(name()), 1..4_u64, any::<bool>());
    (ends, protocol, icmp_type, initiator, was).prop_map(
        |(ends, protocol, icmp_type, initiator, (verdict, rule, packets, is_first))| {
            let (peer, remote_peer, peer_addr, remote_addr, peer_port, remote_port) = ends;
            let counters =
                Counters { rx_packets: packets, rx_bytes: packets * 60, ..Counters::default() };
            Record {
                tuple: Tuple { protocol, peer_addr, remote_addr, peer_port, remote_port },
                icmp: matches!(protocol, 1 | 58).then_some(Icmp { r#type: icmp_type, code: 0 }),
                peer,
                remote_peer,
                initiator,
                verdict,
                rule: rule.map(Into::into),
                counters,
                total: if is_first { counters } else { counters + counters },
                ..record()
            }
        },
    )
}

/// The specification: rule by rule, nothing remembered.
fn decided(
    policy: &Policy,
    gateway: &BTreeSet<IpAddr>,
    record: &Record,
    of: Initiator,
) -> Option<usize> {
    let tuple = &record.tuple;
    let (ip, remote_ip) = (tuple.peer_ip(), tuple.remote_ip());
    let is_gateway = |ip| gateway.contains(&ip);
    let near = Endpoint { peer: record.peer.as_deref(), ip, is_gateway: is_gateway(ip) };
    let far = Endpoint {
        peer: record.remote_peer.as_deref(),
        ip: remote_ip,
        is_gateway: is_gateway(remote_ip),
    };
    let (from, to, port) = match of {
        Initiator::Remote => (far, near, tuple.peer_port),
        _ => (near, far, tuple.remote_port),
    };
    let low = match (tuple.protocol, record.icmp.map(|icmp| icmp.r#type)) {
        (1, Some(0)) => 8,
        (58, Some(129)) => 128,
        (1 | 58, icmp_type) => icmp_type.unwrap().into(),
        (6 | 17, _) => port,
        _ => 0,
    };
    policy.decide(&from, &to, Service::new(tuple.protocol, low))
}

fn slow_replay(policy: &Policy, gateway: &BTreeSet<IpAddr>, records: &[Record]) -> Replayed {
    let mut told = Replayed::default();
    let mut turns: BTreeMap<Turn, Tally> = BTreeMap::new();
    let add = |tally: &mut Tally, record: &Record| {
        tally.flows += u64::from(record.counters == record.total);
        tally.packets += record.counters.packets();
        tally.bytes += record.counters.bytes();
    };
    for record in records {
        let by = |side| decided(policy, gateway, record, side);
        let allows = |decision: &Option<usize>| policy.verdict(*decision) == Verdict::Allow;
        let decision = match record.initiator {
            Initiator::Unknown => {
                let ways = [by(Initiator::Peer), by(Initiator::Remote)];
                ways.into_iter().find(allows).unwrap_or(ways[0])
            }
            side => by(side),
        };
        let is_error = match record.tuple.protocol {
            1 => [3, 11].contains(&record.icmp.unwrap().r#type),
            58 => [1, 3].contains(&record.icmp.unwrap().r#type),
            _ => false,
        };
        let would_be = policy.verdict(decision);
        match would_be {
            Verdict::Allow => add(&mut told.allowed, record),
            Verdict::Deny if is_error => {
                add(&mut told.unjudged, record);
                continue;
            }
            Verdict::Deny => add(&mut told.denied, record),
        }
        if would_be != record.verdict {
            let turn = Turn {
                peer: record.peer.as_ref().map(|peer| peer.name.clone()),
                was: record.verdict,
                was_rule: record.rule.clone(),
                would_be,
                rule: decision.map(|rule| policy.rules[rule].id.clone()),
            };
            add(turns.entry(turn).or_default(), record);
        }
    }
    told.turns = turns.into_iter().collect();
    // Stable: equal ones stay in the order of their names.
    told.turns.sort_by_key(|(_, tally)| {
        let Tally { flows, packets, bytes } = *tally;
        [bytes, packets, flows].map(std::cmp::Reverse)
    });
    told
}

proptest! {
    #[test]
    fn a_replay_is_what_the_specification_says(
        policy in policy(),
        records in prop::collection::vec(flow(), 1..40),
        room in prop_oneof![Just(0), Just(100), Just(judge::ROOM)],
    ) {
        let gateway = BTreeSet::from(["10.0.0.1".parse().unwrap(), "fd00::2".parse().unwrap()]);
        let mut replayer = Replayer::new(&policy, &gateway, 0);
        replayer.judge = Judge::new(&policy, &gateway, room);
        for record in &records {
            replayer.absorb(record);
        }
        prop_assert_eq!(replayer.finish(), slow_replay(&policy, &gateway, &records));
    }
}
