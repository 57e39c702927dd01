//! What an operator says about a policy, and hears.

use flowd::{
    flows::Verdict,
    wire::{Replay, Why},
};
use flowd_tests::{
    site::{self, Settings, Site},
    topology::Topology,
    traffic::udp,
    wait,
};

use crate::{
    books::flowd_on,
    enforcement::{STRICT, ends, lan_net},
};

#[test]
fn a_wrong_policy_is_told_whole_and_changes_nothing() {
    let net = lan_net();
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    ctl.apply(STRICT);
    let wrong = "mode = \"enforced\"\n[[rules]]\nid = \"a\"\naction = \"allow\"\n\
                 from = [\"peer9\"]\nto = [\"10.0.0.5/24\"]\nports = [\"99999\"]\n";
    site.write("wrong.toml", wrong);
    let path = site.path("wrong.toml");
    let path = path.to_str().expect("text");
    for command in ["check", "apply", "diff"] {
        let output = ctl.run(&["policy", command, path]);
        assert_eq!(output.status.code(), Some(1));
        let told = String::from_utf8(output.stderr).expect("text");
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines.len(), 4, "{told}");
        for (line, start) in lines.iter().zip(["1:8: ", "5:9: ", "6:7: ", "7:10: "]) {
            assert!(line.starts_with(&format!("{path}:{start}")), "{line}");
        }
    }
    assert_eq!(ctl.policy().revision, 1);
    let output = ctl.run(&["policy", "apply", "/nowhere/policy.toml"]);
    assert_eq!(output.status.code(), Some(1));
    daemon.stop();
}

#[test]
fn a_file_that_was_wrong_is_looked_at_again_when_it_is_asked_for() {
    let net = lan_net();
    let (site, mut daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    let policy = "[[rules]]\nid = \"a\"\naction = \"allow\"\nfrom = [\"dave\"]\nto = [\"any\"]\n";
    site.write("policy.toml", policy);
    daemon.read_names();
    wait::until(wait::SOON, "the mistake is told", || {
        daemon.log().contains("the policy in force stays")
    });
    let peers = std::fs::read_to_string(site.path("peers.toml")).expect("written");
    site.write("peers.toml", &peers.replace("name = \"peer1\"", "name = \"dave\""));
    wait::until(wait::SOON, "the same file comes into force", || {
        daemon.read_names();
        ctl.policy().revision == 1
    });
    daemon.kill();
}

#[test]
fn whoever_would_cut_himself_off_is_asked_first() {
    let net = lan_net();
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    site.write("candidate.toml", STRICT);
    let path = site.path("candidate.toml");
    let apply = |more: &[&str]| {
        let mut command = ctl.command(&["policy", "apply", path.to_str().expect("text")]);
        let (peer, gateway) = (net.peers[0].v4, net.gateway_v4(&net.peers[0]));
        command.env("SSH_CONNECTION", format!("{peer} 50000 {gateway} 22"));
        command.args(more).output().expect("flowctl is built")
    };
    let refused = site::one_line_of_failure(&apply(&[]), 1);
    assert!(refused.contains("would cut the connection") && refused.contains("--yes"), "{refused}");
    assert_eq!(ctl.policy().revision, 0);
    assert!(apply(&["--yes"]).status.success());
    assert_eq!(ctl.policy().revision, 1);
    daemon.stop();
}

#[test]
fn why_tells_the_rule_the_peer_the_route_and_the_last_flow() {
    let net = lan_net();
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    ctl.apply(STRICT);
    let (near, far) = ends(&net)[0];
    udp::Pair::on_port(near, far, 5000).exchange(&[1]);
    let far_text = far.1.to_string();
    let why: Why =
        ctl.json(&["policy", "why", "peer0", &far_text, "--port", "5000", "--protocol", "udp"]);
    assert_eq!(why.decisions.len(), 1);
    assert_eq!(why.decisions[0].rule.as_deref(), Some("open"));
    assert_eq!(why.src.ip, near.1);
    let peer = why.src.peer.expect("found");
    assert_eq!((peer.name.as_str(), why.src.interface.as_deref()), ("peer0", Some("wg0")));
    assert!(why.src.latest_handshake.is_some());
    assert_eq!((why.src.route.as_deref(), why.src.route_fits), (Some("wg0"), Some(true)));
    assert_eq!((why.dst.route.as_deref(), why.dst.resource.as_deref()), (Some("lan"), Some("lan")));
    let last = why.last_flow.expect("there was one");
    assert_eq!((last.verdict, last.rule.as_deref()), (Verdict::Allow, Some("open")));

    let why: Why = ctl.json(&["policy", "why", "peer1", &far_text]);
    let decisions: Vec<_> = why
        .decisions
        .iter()
        .map(|d| (d.rule.as_deref(), d.verdict, d.services.as_deref()))
        .collect();
    assert_eq!(
        decisions,
        [(Some("ping"), Verdict::Allow, Some("icmp/8, icmpv6/128")), (None, Verdict::Deny, None)]
    );
    assert!(why.last_flow.is_none());
    let told = ctl.failure(&["policy", "why", "nobody", &far_text], 1);
    assert!(told.contains("no address and no peer"), "{told}");
    daemon.stop();
}

#[test]
fn a_policy_that_does_not_fit_names_the_limit_and_changes_nothing() {
    let net = Topology::new(1);
    let site = Site::new(&net, &Settings::default());
    let config = site.config(&Settings::default());
    site.configure(&config.replace("[policy]\n", "[policy]\nmax_prefixes = 1000\n"));
    let daemon = site.start(&net.gateway);
    let ctl = site.flowctl(&net.gateway);
    ctl.apply("default = \"deny\"\n");
    let hosts: Vec<_> = (0..1_100).map(|n| format!("\"10.99.{}.{}\"", n / 250, n % 250)).collect();
    let text = format!(
        "[[rules]]\nid = \"a\"\naction = \"allow\"\nfrom = [\"any\"]\nto = [{}]\n",
        hosts.join(", ")
    );
    site.write("large.toml", &text);
    let path = site.path("large.toml");
    let path = path.to_str().expect("text");
    for command in ["check", "apply"] {
        let told = ctl.run(&["policy", command, path]);
        assert_eq!(told.status.code(), Some(1));
        let told = String::from_utf8(told.stderr).expect("text");
        assert!(told.contains("`policy.max_prefixes` = 1000"), "{told}");
        assert_eq!(told.trim().lines().count(), 1, "{told}");
    }
    assert_eq!(ctl.policy().revision, 1);
    daemon.stop();
}

#[test]
fn replay_tells_what_a_policy_would_have_denied() {
    let net = lan_net();
    let settings = Settings { idle_timeout_ms: 1_000, ..Settings::default() };
    let (site, daemon) = flowd_on(&net, &settings);
    let ctl = site.flowctl(&net.gateway);
    let (near, far) = ends(&net)[0];
    udp::Pair::on_port(near, far, 5000).exchange(&[100; 2]);
    let load = udp::Pair::on_port(near, far, 6000).exchange(&[100; 5]);
    wait::until_equal("both have ended", &2, || ctl.flows(&["--state", "closed"]).len());
    site.write("candidate.toml", STRICT);
    let path = site.path("candidate.toml");
    let replay: Replay = ctl.json(&["policy", "replay", path.to_str().expect("text")]);
    assert_eq!((replay.allowed.flows, replay.denied.flows), (1, 1), "{replay:#?}");
    assert_eq!(replay.changes.len(), 1, "{replay:#?}");
    let change = &replay.changes[0];
    assert_eq!(change.peer.as_deref(), Some("peer0"));
    assert_eq!((change.was, change.would_be), (Verdict::Allow, Verdict::Deny));
    let traffic = (change.traffic.flows, change.traffic.packets, change.traffic.bytes);
    assert_eq!(traffic, (1, 10, 2 * load.bytes));
    assert_eq!(ctl.policy().revision, 0, "nothing has changed");
    daemon.stop();
}
