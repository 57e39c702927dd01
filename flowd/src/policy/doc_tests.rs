//! `docs/policy.md` and the README against the language: every example is what the text around it
//! says.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use super::{Known, Policy, Service, World, parse};
use crate::{
    config::Config,
    flows::{Identity, Routes, protocol_number},
};

const DOCUMENT: &str = include_str!("../../../docs/policy.md");
/// Where the peers of the document are.
const IFINDEX: u32 = 1;
const PEERS: [(&str, &str, &str, &[&str]); 5] = [
    ("alice-laptop", "alice@example.com", "10.8.0.2", &["ops"]),
    ("bob-phone", "bob@example.com", "10.8.0.3", &["help-desk"]),
    ("carol-tablet", "carol@example.com", "10.8.0.4", &[]),
    ("dave", "dave@example.com", "10.8.0.5", &[]),
    ("backup-server", "dave@example.com", "10.8.0.6", &[]),
];
const DAVES_KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

/// A fenced block of the document.
struct Block {
    /// What stands behind the fence.
    kind: &'static str,
    text: &'static str,
    /// The line of its fence.
    line: usize,
}

fn blocks() -> Vec<Block> {
    blocks_of(DOCUMENT)
}

fn blocks_of(document: &'static str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut line = 1;
    for (position, piece) in document.split("```").enumerate() {
        if position % 2 == 1 {
            let (kind, text) = piece.split_once('\n').expect("a fence ends its line");
            blocks.push(Block { kind, text, line });
        }
        line += piece.matches('\n').count();
    }
    blocks
}

fn identities() -> Vec<Identity> {
    let peers = PEERS.iter().map(|(name, user, _, groups)| Identity {
        public_key: match *name {
            "dave" => DAVES_KEY.to_owned(),
            name => format!("{name:A<43}="),
        },
        name: (*name).to_owned(),
        user: Some((*user).to_owned()),
        device: None,
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        endpoint: None,
    });
    peers.collect()
}

fn world() -> World {
    let mut world = World::default();
    let mut routes = Routes::default();
    for (id, (identity, (_, _, addr, _))) in (1..).zip(identities().into_iter().zip(PEERS)) {
        routes.insert(&addr.parse::<IpAddr>().unwrap().into(), id);
        world.identities.insert(id, Arc::new(identity));
    }
    world.routes.insert(IFINDEX, routes);
    world.gateway = BTreeSet::from(["10.8.0.1".parse().unwrap()]);
    world
}

#[test]
fn the_examples_are_right_and_nothing_is_odd_about_them() {
    let identities = identities();
    let blocks = blocks();
    let examples: Vec<_> = blocks.iter().filter(|block| block.kind == "toml").collect();
    assert!(examples.len() >= 5, "the document has examples");
    for Block { text, line, .. } in examples {
        for known in [None, Some(&Known { identities: &identities })] {
            let checked =
                parse(text, known).unwrap_or_else(|problems| panic!("{line}: {problems:#?}"));
            assert_eq!(checked.warnings, [], "line {line}");
            assert!(!checked.policy.rules.is_empty(), "line {line}");
        }
    }
}

#[test]
fn the_policy_in_the_readme_is_right() {
    let blocks = blocks_of(include_str!("../../../README.md"));
    let example = blocks.iter().find(|block| block.text.contains("[[rules]]")).unwrap();
    let checked = parse(example.text, Some(&Known { identities: &identities() })).unwrap();
    assert_eq!(checked.warnings, []);
}

#[test]
fn what_is_wrong_or_odd_is_told_as_the_document_says() {
    let identities = identities();
    let blocks = blocks();
    let mut kinds = BTreeSet::new();
    for [example, told] in blocks.array_windows() {
        let before = match example.kind {
            "toml wrong" => "",
            "toml odd" => "warning: ",
            _ => continue,
        };
        kinds.insert(example.kind);
        let answer = parse(example.text, Some(&Known { identities: &identities }));
        assert_eq!(answer.is_err(), example.kind == "toml wrong", "line {}", example.line);
        let problems = answer.map_or_else(|problems| problems, |checked| checked.warnings);
        let lines = problems.iter().map(|problem| {
            format!("policy.toml:{}:{}: {before}{}\n", problem.line, problem.column, problem.text)
        });
        assert_eq!(lines.collect::<String>(), told.text, "line {}", example.line);
    }
    assert_eq!(kinds.len(), 2);
}

#[test]
fn the_configuration_in_the_document_is_the_default() {
    let blocks = blocks();
    let example = blocks.iter().find(|block| block.kind == "toml flowd.toml").unwrap();
    assert_eq!(Config::parse(example.text).unwrap(), Config::default());
}

#[test]
fn the_table_of_packets_is_what_the_first_example_decides() {
    let policy = parse(blocks()[0].text, None).unwrap().policy;
    let world = world();
    let header = "| from | to | service | decided by | verdict |\n";
    let (_, table) = DOCUMENT.split_once(header).expect("the table");
    let rows: Vec<_> = table.lines().skip(1).take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() >= 8);
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [from, to, service, by, verdict] = cells.try_into().expect("five cells");
        let ends = [from, to].map(|end| world.far(IFINDEX, address(end)));
        let decision = policy.decide(&ends[0], &ends[1], asked(service));
        assert_eq!(told(&policy, decision), (by, verdict), "{row}");
    }
}

fn told(policy: &Policy, decision: Option<usize>) -> (&str, &str) {
    let by = decision.map_or("the default", |rule| &*policy.rules[rule].id);
    (by, policy.verdict(decision).word())
}

fn address(end: &str) -> Ipv6Addr {
    let peer = PEERS.iter().find(|(name, ..)| *name == end);
    let text = peer.map_or(end, |(_, _, addr, _)| addr);
    match text.parse::<IpAddr>().unwrap() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

fn asked(service: &str) -> Service {
    let (protocol, port) = service.split_once('/').unwrap();
    Service::new(protocol_number(protocol).unwrap(), port.parse().unwrap())
}
