//! The language: every kind of problem with its place, and what a policy becomes.

use proptest::prelude::*;

use super::{Known, Mode, Policy, Selector, Service, parse};
use crate::flows::{Identity, Verdict};

fn peer(name: &str, key: &str, user: Option<&str>, groups: &[&str]) -> Identity {
    Identity {
        public_key: format!("{key:A<43}="),
        name: name.to_owned(),
        user: user.map(str::to_owned),
        device: None,
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        endpoint: None,
    }
}

fn peers() -> Vec<Identity> {
    vec![
        peer("alice-laptop", "alice", Some("alice@example.com"), &["ops", "staff"]),
        peer("bob-phone", "bob1", Some("bob@example.com"), &["staff"]),
        peer("twin", "twin1", None, &[]),
        peer("twin", "twin2", None, &[]),
    ]
}

/// What is wrong with a policy, a line each.
fn problems(text: &str) -> Vec<String> {
    let problems = parse(text, Some(&Known { identities: &peers() })).unwrap_err();
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn an_empty_text_allows_everything() {
    for text in ["", "\n# nothing\n", "\u{feff}"] {
        let checked = parse(text, None).unwrap();
        assert_eq!(checked.policy, Policy::default(), "{text:?}");
        assert_eq!(checked.warnings, [], "{text:?}");
    }
}

#[test]
fn the_page_of_the_language_parses() {
    let text = r#"
        mode = "enforce"
        default = "deny"

        [groups]
        ops = ["alice-laptop", "user:bob@example.com"]
        all = ["group:ops", "group:staff", "peer:bob-phone"]

        [resources]
        billing-db = ["10.0.5.10/32", "fd00:5::10", "::ffff:10.9.0.0/112"]

        [[rules]]
        id = "ops-ssh"
        action = "allow"
        from = ["group:ops", "any", "gateway", "10.0.0.5"]
        to = ["::ffff:10.0.0.0/104", "resource:billing-db", "fd00::/8", "peer:alice-laptop"]
        protocols = ["tcp", 17]
        ports = ["22", "8000-8100", 0x1bb]
    "#;
    let checked = parse(text, Some(&Known { identities: &peers() })).unwrap();
    let policy = checked.policy;
    assert_eq!((policy.mode, policy.default), (Mode::Enforce, Verdict::Deny));
    let all = &policy.groups["all"];
    assert_eq!(Vec::from_iter(&all.peers), ["alice-laptop", "bob-phone"]);
    assert_eq!(Vec::from_iter(&all.users), ["bob@example.com"]);
    assert_eq!(Vec::from_iter(&all.groups), ["ops", "staff"]);
    let nets: Vec<_> = policy.resources["billing-db"].iter().map(ToString::to_string).collect();
    assert_eq!(nets, ["10.0.5.10/32", "fd00:5::10/128", "10.9.0.0/16"]);
    let rule = &policy.rules[0];
    assert_eq!((&*rule.id, rule.action, rule.line), ("ops-ssh", Verdict::Allow, 12));
    let net = |text: &str| Selector::Net(text.parse().unwrap());
    let group = Selector::Group("ops".to_owned());
    assert_eq!(rule.from, [group, Selector::Any, Selector::Gateway, net("10.0.0.5/32")]);
    let resource = Selector::Resource("billing-db".to_owned());
    let peer = Selector::Peer("alice-laptop".to_owned());
    assert_eq!(rule.to, [net("10.0.0.0/8"), resource, net("fd00::/8"), peer]);
    for (protocol, port, inside) in
        [(6, 22, true), (17, 8050, true), (6, 443, true), (6, 23, false), (132, 22, false)]
    {
        let service = Service::new(protocol, port);
        assert_eq!(rule.services.contains(service), inside, "{protocol} {port}");
    }
}

/// Protocols with a port or ICMP type.
type Pairs = &'static [(u8, u16)];

#[test]
fn services_are_what_protocols_and_ports_say() {
    let cases: [(&str, Pairs, Pairs); 8] = [
        ("", &[(0, 0), (6, 22), (255, 65535)], &[]),
        ("protocols = [\"tcp\"]", &[(6, 0), (6, 65535)], &[(5, 65535), (7, 0), (17, 1)]),
        ("protocols = [\"GRE\", 253]", &[(47, 0), (253, 0)], &[(6, 1)]),
        ("protocols = [\"icmp:8\"]", &[(1, 8)], &[(1, 0), (1, 9), (58, 8)]),
        ("protocols = [\"icmpv6:128\", \"icmp\"]", &[(58, 128), (1, 0), (1, 255)], &[(58, 1)]),
        ("ports = [22]", &[(6, 22), (17, 22), (33, 22), (132, 22), (136, 22)], &[(1, 22)]),
        ("ports = [\"0\", \"65535\"]", &[(6, 0), (6, 65535)], &[(6, 1), (6, 65534)]),
        ("protocols = [\"udp\"]\nports = [\"5-5\"]", &[(17, 5)], &[(6, 5), (17, 4), (17, 6)]),
    ];
    for (lines, inside, outside) in cases {
        let text = format!(
            "[[rules]]\nid = \"a\"\naction = \"deny\"\nfrom = [\"any\"]\nto = [\"any\"]\n{lines}\n"
        );
        let services = parse(&text, None).unwrap().policy.rules.remove(0).services;
        for (protocol, port) in inside {
            assert!(services.contains(Service::new(*protocol, *port)), "{lines} {protocol} {port}");
        }
        for (protocol, port) in outside {
            assert!(
                !services.contains(Service::new(*protocol, *port)),
                "{lines} {protocol} {port}"
            );
        }
    }
}

/// A rule with `line` instead of the one that sets the same key; it is the sixth of the text.
fn rule_with(line: &str) -> String {
    let key = line.split([' ', '=']).next().unwrap();
    let lines = ["id = \"a\"", "action = \"deny\"", "from = [\"any\"]", "to = [\"any\"]"];
    let others: Vec<_> = lines.into_iter().filter(|other| !other.starts_with(key)).collect();
    let empty_lines = "\n".repeat(4 - others.len());
    format!("[[rules]]\n{}{empty_lines}\n{line}\n", others.join("\n"))
}

#[test]
fn what_is_wrong_with_a_rule_is_told_with_its_place() {
    let cases = [
        ("id = 5", "6:6: `id` is a number; it must be a string"),
        ("id = \"\"", "6:6: `` is no id; an id has 1 to 64 printable characters"),
        ("id = \"a b\"", "6:6: `a b` is no id"),
        ("id = \"a\\nb\"", "6:6: `a\\nb` is no id"),
        ("id = \"a\\u202eb\"", "6:6: `a\\u{202e}b` is no id"),
        ("id = \"none\"", "6:6: `none` is reserved; give the rule another id"),
        ("id = \"default\"", "6:6: `default` is reserved"),
        ("action = \"permit\"", "6:10: unknown action `permit`; write \"allow\" or \"deny\""),
        ("action = [\"deny\"]", "6:10: `action` is a list; it must be a string"),
        ("from = \"any\"", "6:8: `from` is a string; write a list such as [\"any\"]"),
        ("from = []", "6:8: `from` is empty; write [\"any\"] to mean everything"),
        ("to = []", "6:6: `to` is empty; write [\"any\"] to mean everything"),
        ("from = [\"any\", 7]", "6:16: `from` holds a number; its entries are strings"),
        ("from = [\"\"]", "6:9: an entry is empty; leave it out"),
        ("from = [\"user:\"]", "6:9: `user:` names nothing"),
        ("from = [\n  \"any\", # é\n  'äöü', \"nobody\"]", "8:3: unknown peer `äöü`; no peer has"),
        ("from = ['äöü', \"nobody\"]", "6:9: unknown peer `äöü`; no peer has this name or"),
        ("from = [\"alice-labtop\"]", "6:9: unknown peer `alice-labtop`; did you mean `alice-lap"),
        ("from = [\"Any\"]", "6:9: unknown peer `Any`; did you mean `any`?"),
        ("from = [\"staff\"]", "6:9: unknown peer `staff`; did you mean `group:staff`?"),
        ("from = [\"groups:staff\"]", "6:9: unknown peer `groups:staff`; did you mean `group:st"),
        ("from = [\"user:bob@exmaple.com\"]", "6:9: unknown user `bob@exmaple.com`; did you mean"),
        ("from = [\"group:stuff\"]", "6:9: unknown group `stuff`; did you mean `staff`?"),
        ("from = [\"group:x\"]", "6:9: unknown group `x`; it is not in [groups], and no peer"),
        ("to = [\"resource:db\"]", "6:7: unknown resource `db`; it is not in [resources]"),
        ("to = [\"a\\u001bb\"]", "6:7: unknown peer `a\\u{1b}b`"),
        (
            "to = [\"10.0.0.5/24\"]",
            "6:7: `10.0.0.5/24` has host bits set; did you mean 10.0.0.0/24 or 10.0.0.5/32?",
        ),
        (
            "to = [\"::ffff:10.0.0.5/120\"]",
            "6:7: `::ffff:10.0.0.5/120` has host bits set; did you mean 10.0.0.0/24 or 10.0.0.5/32?",
        ),
        ("to = [\"fd00::1/64\"]", "6:7: `fd00::1/64` has host bits set; did you mean fd00::/64 or"),
        ("to = [\"10.0.0/24\"]", "6:7: `10.0.0/24` is neither an address nor a prefix such as"),
        ("to = [\"10.0.0.0/33\"]", "6:7: `10.0.0.0/33` is neither an address nor a prefix"),
        ("to = [\"10.0.0.300\"]", "6:7: `10.0.0.300` is neither"),
        ("to = [\"fd00:5::g/64\", \"fd00:5\"]", "6:7: unknown peer `fd00:5::g/64`"),
        ("to = [\"fd00:5\"]", "6:7: `fd00:5` is neither"),
        ("to = [\"fe80::1%eth0\"]", "6:7: `fe80::1%eth0` is neither"),
        ("to = [\"10.0.0.1-10.0.0.9\"]", "6:7: `10.0.0.1-10.0.0.9` is neither"),
        ("to = [\"10\"]", "6:7: `10` is neither"),
        ("ports = []", "6:9: `ports` is empty; leave it out to mean any"),
        ("ports = 22", "6:9: `ports` is a number; write a list such as [\"22\", \"8000-8100\"]"),
        ("ports = [2.5]", "6:10: `ports` holds a fraction; its entries are strings and whole"),
        ("ports = [\"22\", \"ssh\"]", "6:16: `ssh` is no port; write a number such as 22"),
        ("ports = [\"any\"]", "6:10: `any` is no port; leave `ports` out to mean any"),
        ("ports = [65536]", "6:10: `65536` is no port; a port is 0 to 65535"),
        ("ports = [-1]", "6:10: `-1` is no port; write"),
        ("ports = [99999999999999999999]", "6:10: `99999999999999999999` is no port; a port is"),
        ("ports = [\"1-70000\"]", "6:10: `1-70000` is no port; a port is 0 to 65535"),
        ("ports = [\"9-8\"]", "6:10: `9-8` ends before it begins; did you mean 8-9?"),
        ("ports = [\"8-\"]", "6:10: `8-` is no port"),
        ("ports = [\"1-2-3\"]", "6:10: `1-2-3` is no port"),
        ("protocols = []", "6:13: `protocols` is empty; leave it out to mean any"),
        ("protocols = \"tcp\"", "6:13: `protocols` is a string; write a list such as [\"tcp\"]"),
        ("protocols = [true]", "6:14: `protocols` holds a boolean; its entries are"),
        ("protocols = [\"tpc\"]", "6:14: unknown protocol `tpc`; did you mean `tcp`?"),
        ("protocols = [\"any\"]", "6:14: unknown protocol `any`; leave `protocols` out"),
        ("protocols = [256]", "6:14: unknown protocol `256`; write a name such as tcp or a number"),
        ("protocols = [\"icmp:256\"]", "6:14: `icmp:256` has no type that ICMP knows; it is 0 to"),
        ("protocols = [\"icmp:\"]", "6:14: `icmp:` has no type that ICMP knows"),
        ("protocols = [\"tcp:22\"]", "6:14: `tcp:22` is no protocol; write its port into `ports`"),
        ("protocols = [\"1:8\"]", "6:14: `1:8` is no protocol; only icmp and icmpv6 take a type"),
        (
            "protocols = [\"tcp\", \"gre\"]\nports = [22]",
            "6:21: `gre` has no ports; put it into a rule of its own",
        ),
        ("protocols = [\"icmp:8\"]\nports = [22]", "6:14: `icmp:8` has no ports; put it into"),
        ("prots = [22]", "6:1: unknown key `prots`; did you mean `ports`?"),
        ("colour = 5", "6:1: unknown key `colour`; known here are id, action, from, to, protocols"),
    ];
    for (line, expected) in cases {
        let told = problems(&rule_with(line));
        assert!(told[0].starts_with(expected), "{line}\n{told:#?}");
        assert_eq!(told[0].lines().count(), 1);
        assert!(told.len() == 1 || line.contains("nobody") || line.contains("::g"), "{told:#?}");
    }
}

#[test]
fn what_is_wrong_elsewhere_is_told_with_its_place() {
    let cases = [
        ("mode = ", "1:8: not TOML: "),
        ("mode = \"observe\"\nmode = \"observe\"\n", "2:1: not TOML: duplicate key"),
        ("# ä\nx = 'ö' y", "2:9: not TOML: "),
        ("mode = \"ö\"", "1:8: unknown mode `ö`; write \"observe\" or \"enforce\""),
        ("mode = 1", "1:8: `mode` is a number; it must be a string"),
        ("default = \"drop\"", "1:11: unknown default `drop`; write \"allow\" or \"deny\""),
        ("'mod' = 1", "1:1: unknown key `mod`; did you mean `mode`?"),
        ("# é\n[[rule]]\n", "2:3: unknown key `rule`; did you mean `rules`?"),
        ("[rules]\n", "1:1: `rules` is a table; write [[rules]] above each rule"),
        ("rules = [ 5 ]", "1:11: `rules` holds a number; a rule is a table"),
        ("groups = 1", "1:10: `groups` is a number; write [groups]"),
        ("[[resources]]", "1:1: `resources` is a list; write [resources]"),
        ("[groups]\na = []", "2:5: `groups.a` is empty; leave it out"),
        ("[groups]\na = \"bob\"", "2:5: `groups.a` is a string; write a list such as [\"alice-l"),
        ("[groups]\n\"\" = [\"twin\"]", "2:1: `` is no name that people can read"),
        ("[groups]\na = [\"bob\"]", "2:6: unknown peer `bob`"),
        ("[groups]\na = [\"10.0.0.0/8\"]", "2:6: `10.0.0.0/8` cannot be in a group, which holds"),
        ("[groups]\na = [\"any\"]", "2:6: `any` cannot be in a group"),
        ("[groups]\na = [\"group:b\"]\n", "2:6: unknown group `b`; it is not in [groups]"),
        ("[groups]\na = [\"twin\", \"group:a\"]\n", "2:14: group `a` contains itself: `a → a`"),
        (
            "[groups]\na = [\"group:b\"]\nb = [\n \"group:c\"]\nc = ['group:b', 'group:d']\nd = ['twin']",
            "5:6: group `b` contains itself: `b → c → b`",
        ),
        ("[resources]\na = []", "2:5: `resources.a` is empty; leave it out"),
        ("[resources]\na = [\"db.example\"]", "2:6: `db.example` is neither an address nor a pre"),
        ("[resources]\na = ['10.0.0.0/8', '10.1/8']", "2:20: `10.1/8` is neither"),
        ("[[rules]]\naction='deny'\nfrom=['any']\nto=['any']", "1:1: a rule has no `id`; give"),
        ("\n [[rules]]\nid='ä'\nfrom=['any']\nto=['any']", "2:2: rule `ä` has no `action`; write"),
        ("rules=[{id='a',action='deny',to=['any']}]", "1:8: rule `a` has no `from`; write who"),
        ("rules=[{id='a',action='deny',from=['any']}]", "1:8: rule `a` has no `to`; write to wh"),
    ];
    for (text, expected) in cases {
        let told = problems(text);
        assert!(told[0].starts_with(expected), "{text}\n{told:#?}");
        assert_eq!(told.len(), 1, "{text}\n{told:#?}");
    }
}

#[test]
fn a_peer_whose_name_looks_like_an_address_needs_the_prefix() {
    let identities = [peer("10", "ten", None, &[])];
    let parse = |line| parse(&rule_with(line), Some(&Known { identities: &identities }));
    let told = parse("from = ['10']").unwrap_err();
    assert!(told[0].text.ends_with("; the peer is `peer:10`"), "{told:?}");
    let policy = parse("from = ['peer:10']").unwrap().policy;
    assert_eq!(policy.rules[0].from, [Selector::Peer("10".to_owned())]);
    let key = format!("from = ['{}']", identities[0].public_key);
    assert_eq!(parse(&key).unwrap().warnings, []);
}

#[test]
fn rules_that_explode_are_not_searched_for_shadows() {
    let nets = (0..3000).map(|net| format!("'10.{}.{}.0/24', ", net / 256, net % 256));
    let mut text = format!("[resources]\nbig = [{}]\n", nets.collect::<String>());
    for rule in 0..2000 {
        text += &format!(
            "[[rules]]\nid = 'r{rule}'\naction = 'deny'\nto = ['any']\n\
             from = ['resource:big', '11.{}.{}.0/24']\n",
            rule / 256,
            rule % 256
        );
    }
    let warnings = parse(&text, None).unwrap().warnings;
    let told: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        ["3:1: the rules have too many addresses to be searched for some that never decide"]
    );
}

#[test]
fn groups_that_explode_are_refused() {
    // A chain: the first of 3000 groups has 3000 members, the second 2999, …
    let chain = (0..3000).map(|group| format!("g{group} = ['group:g{}']\n", group + 1));
    let text = format!("[groups]\n{}g3000 = ['twin']\n", chain.collect::<String>());
    let told = problems(&text);
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].ends_with("groups inside groups have more than 1000000 members"), "{told:#?}");
}

#[test]
fn a_long_cycle_is_told_in_short() {
    let groups = (0..900).map(|group| format!("g{group} = ['group:g{}']\n", (group + 1) % 900));
    let told = problems(&format!("[groups]\n{}", groups.collect::<String>()));
    let cycle = "901:9: group `g0` contains itself: `g0 → g1 → g2 → g3 → … → g899 → g0`";
    assert_eq!(told, [cycle]);
}

#[test]
fn the_second_rule_of_an_id_names_the_first() {
    let rule = rule_with("ports = [22]");
    let told = problems(&format!("{rule}{rule}{rule}"));
    assert_eq!(
        told,
        [
            "8:6: the rule on line 1 has the id `a` too",
            "14:6: the rule on line 1 has the id `a` too"
        ]
    );
}

#[test]
fn ten_mistakes_are_told_at_once() {
    let text = "mode = 5\n[groups]\na = ['x1', 'group:a']\n[resources]\nb = ['10.0.0.1/8']\n\
                [[rules]]\naction = 'no'\nfrom = []\nto = ['10.', 'c']\nports = [70000]\nx = 1\n";
    assert_eq!(
        problems(text).iter().map(|told| told.split(": ").next().unwrap()).collect::<Vec<_>>(),
        ["1:8", "3:6", "3:12", "5:6", "6:1", "7:10", "8:8", "9:7", "9:14", "10:10", "11:1"]
    );
}

#[test]
fn names_are_not_checked_where_nobody_is_known() {
    let text = rule_with("from = ['ghost', 'user:ghost', 'group:ghost', 'peer:10']");
    assert_eq!(parse(&text, None).unwrap().policy.rules[0].from.len(), 4);
    let told = parse(&rule_with("to = ['resource:ghost']"), None).unwrap_err();
    assert!(told[0].text.starts_with("unknown resource `ghost`"), "{told:?}");
}

/// The example that is installed.
const EXAMPLE: &str = include_str!("../../../systemd/policy.toml");

fn uncommented_example() -> String {
    EXAMPLE.lines().map(|line| line.strip_prefix("#= ").unwrap_or(line).to_owned() + "\n").collect()
}

#[test]
fn the_example_is_the_default_with_a_policy_commented_out() {
    let checked = parse(EXAMPLE, None).unwrap();
    assert_eq!((checked.policy, checked.warnings), (Policy::default(), vec![]));
    let checked = parse(&uncommented_example(), None).unwrap();
    assert_eq!(checked.warnings, []);
    assert_eq!((checked.policy.mode, checked.policy.default), (Mode::Observe, Verdict::Allow));
    let ids: Vec<_> = checked.policy.rules.iter().map(|rule| &*rule.id).collect();
    assert_eq!(ids, ["ops-ssh", "ping", "print", "no-billing"]);
}

/// Rules `a`, `b`, …, each in one line: from, to, and the rest.
fn rules(rules: &[(&str, &str, &str)]) -> String {
    let rules = rules.iter().zip('a'..).map(|((from, to, rest), id)| {
        format!("{{ id = '{id}', action = 'deny', from = [{from}], to = [{to}]{rest} }},\n")
    });
    format!("rules = [\n{}]\n", rules.collect::<String>())
}

#[test]
fn what_is_odd_is_warned_of_with_its_place() {
    let any = "'any'";
    let hidden =
        "3:1: rule `b` (line 3) never decides: rule `a` (line 2) matches everything it does";
    let cases = [
        (
            rules(&[("'twin'", any, "")]),
            "2:38: `twin` is the name of 2 peers; write a public key to mean one of them",
        ),
        (
            rules(&[(any, any, ", protocols = ['icmp:8', 'ICMP:0']")]),
            "2:83: `ICMP:0` never matches: an echo reply counts as its request; write icmp:8",
        ),
        (
            rules(&[(any, any, ", protocols = ['icmpv6:129']")]),
            "2:73: `icmpv6:129` never matches: an echo reply counts as its request; write icmpv6:128",
        ),
        ("[groups]\nx = ['bob-phone']\n".to_owned(), "2:1: group `x` is never used"),
        ("[resources]\n'ä' = ['10.0.0.1']\n".to_owned(), "2:1: resource `ä` is never used"),
        (rules(&[(any, any, ""), ("'gateway'", "'10.0.0.1'", ", ports = [22]")]), hidden),
        (
            rules(&[
                ("'10.0.0.0/8', 'fd00::/8'", any, ""),
                ("'fc00::/16', '10.1.0.0/16'", any, ""),
            ]),
            "",
        ),
        (
            rules(&[
                ("'10.0.0.0/8', 'fd00::/8'", any, ""),
                ("'fd00::/16', '10.1.0.0/16'", any, ""),
            ]),
            hidden,
        ),
        (rules(&[("'10.0.0.0/9', '10.128.0.0/9'", any, ""), ("'10.0.0.0/8'", any, "")]), ""),
        (rules(&[("'group:staff'", any, ""), ("'alice-laptop', 'bob-phone'", any, "")]), hidden),
        (rules(&[("'alice-laptop', 'bob-phone'", any, ""), ("'group:staff'", any, "")]), ""),
        (rules(&[("'user:bob@example.com'", any, ""), ("'bob-phone'", any, "")]), hidden),
        (rules(&[("'bob-phone'", any, ""), ("'user:bob@example.com'", any, "")]), ""),
        (
            rules(&[
                (any, any, ", ports = ['20-25']"),
                (any, any, ", protocols = ['tcp'], ports = [22]"),
            ]),
            hidden,
        ),
        (rules(&[(any, any, ", ports = [22]"), (any, any, ", protocols = ['tcp']")]), ""),
        (rules(&[(any, any, "")]), ""),
        (
            rules(&[
                ("'group:g'", any, ""),
                ("'user:bob@example.com', 'bob-phone', 'group:inner'", any, ""),
            ]) + "[groups]\ng = ['group:inner', 'user:bob@example.com']\ninner = ['alice-laptop']\n",
            hidden,
        ),
        (
            rules(&[(any, "'resource:r'", ""), (any, "'resource:s', '10.0.0.1'", "")])
                + "[resources]\nr = ['10.0.0.0/8']\ns = ['10.1.0.0/16', '10.2.0.0/16']\n",
            hidden,
        ),
    ];
    for (text, expected) in cases {
        let warnings = parse(&text, Some(&Known { identities: &peers() })).unwrap().warnings;
        let told: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        let expected: Vec<_> = (!expected.is_empty()).then_some(expected).into_iter().collect();
        assert_eq!(told, expected, "{text}");
    }
}

#[test]
fn the_most_specific_resource_names_an_address() {
    let text = "[resources]\n\
        lan = ['10.0.0.0/8', 'fd00::/8']\n\
        office = ['10.1.0.0/16', 'fd00:1::/32']\n\
        billing-db = ['10.1.2.3', 'fd00:1::3']\n\
        twin = ['10.1.2.3', '10.0.0.0/8']\n\
        v6 = ['::/0']\n";
    let names = parse(text, None).unwrap().policy.resource_names();
    let cases = [
        ("::ffff:10.1.2.3", Some("billing-db")),
        ("::ffff:10.1.2.4", Some("office")),
        ("::ffff:10.2.0.1", Some("lan")),
        ("::ffff:11.0.0.1", None),
        ("fd00:1::3", Some("billing-db")),
        ("fd00:1::4", Some("office")),
        ("fd00:2::1", Some("lan")),
        ("2001:db8::1", Some("v6")),
    ];
    for (addr, expected) in cases {
        assert_eq!(names.around(addr.parse().unwrap()).map(AsRef::as_ref), expected, "{addr}");
    }
    let all = parse("[resources]\ninternet = ['0.0.0.0/0']\n", None).unwrap().policy;
    let addrs = ["::ffff:9.9.9.9", "2001:db8::1"].map(|addr| addr.parse().unwrap());
    let found = addrs.map(|addr| all.resource_names().around(addr).is_some());
    assert_eq!(found, [true, false], "a default route names its own family");
}

#[test]
fn ten_thousand_rules_are_one_policy() {
    let mut text = String::new();
    for rule in 0..10_000 {
        let (a, b) = (rule / 250, rule % 250);
        let port = rule % 7;
        text += &format!(
            "[[rules]]\nid = \"r{rule}\"\naction = \"deny\"\nfrom = [\"10.{a}.{b}.0/24\", \"gateway\"]\n\
             to = [\"any\"]\nports = [{port}]\n"
        );
    }
    text += "[[rules]]\nid = \"last\"\naction = \"deny\"\nfrom = [\"10.39.249.7\"]\nto = [\"any\"]\n\
             protocols = [\"udp\"]\nports = [3]\n";
    let checked = parse(&text, None).unwrap();
    assert_eq!(checked.policy.rules.len(), 10_001);
    let told: Vec<_> = checked.warnings.iter().map(ToString::to_string).collect();
    let last = "60001:1: rule `last` (line 60001) never decides: rule `r9999` (line 59995) matches \
                everything it does";
    assert_eq!(told, [last]);
}

/// Pieces of the language, and what tends to break parsers.
const PIECES: [&str; 24] = [
    "any",
    "group:ops",
    "[[rules]]",
    "[groups]\n",
    "id = \"x\"\n",
    "]",
    "[",
    "\"",
    "'",
    "\"\"",
    "-",
    ":",
    "/",
    "10.0.0.0/8",
    "::ffff:0:0/90",
    "é",
    "\u{202e}",
    "\0",
    "\r\n",
    "\n",
    "= 1",
    "{",
    "ports = [1]\n",
    "trusted = [\"group:trusted\"]\n",
];

fn mutated_example() -> impl Strategy<Value = String> {
    let change = (any::<prop::sample::Index>(), 0..12usize, prop::sample::select(&PIECES[..]));
    prop::collection::vec(change, 0..4).prop_map(|changes| {
        let mut chars: Vec<char> = uncommented_example().chars().collect();
        for (at, cut, piece) in changes {
            let at = at.index(chars.len());
            let end = chars.len().min(at + cut);
            chars.splice(at..end, piece.chars());
        }
        chars.into_iter().collect()
    })
}

/// What holds whatever the text is.
fn check_answers(text: &str) {
    let peers = peers();
    let blind = parse(text, None);
    let seeing = parse(text, Some(&Known { identities: &peers }));
    if let Ok(checked) = &seeing {
        let policy = blind.as_ref().map(|checked| &checked.policy);
        assert_eq!(policy.ok(), Some(&checked.policy), "a stored policy is still one");
    }
    for answer in [blind, seeing] {
        let problems = match answer {
            Ok(checked) => checked.warnings,
            Err(problems) => {
                assert_ne!(problems, []);
                problems
            }
        };
        for problem in problems {
            let line = text.split('\n').nth(problem.line - 1).expect("a line of the text");
            assert!((1..=line.chars().count() + 1).contains(&problem.column), "{problem}");
            assert_eq!(problem.to_string().lines().count(), 1, "{problem:?}");
        }
    }
}

proptest! {
    #[test]
    fn any_text_has_an_answer(text in any::<String>(), pieces in prop::collection::vec(
        prop::sample::select(&PIECES[..]), 0..30,
    )) {
        check_answers(&text);
        check_answers(&pieces.concat());
    }

    #[test]
    fn any_change_of_a_policy_has_an_answer(text in mutated_example()) {
        check_answers(&text);
    }
}
