//! What peers are called, where that comes from, and that records keep the name of their time.

use flowd::flows::Identity;
use flowd_tests::{
    flowctl::Flowctl,
    site::{Settings, Site},
    topology::{Peer, Topology},
    traffic::{Load, udp},
    wait,
};

use crate::books::flowd_on;

/// A key that no interface has.
const STRANGER: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

fn listed(key: &str, name: &str) -> String {
    format!("[[peers]]\npublic_key = \"{key}\"\nname = \"{name}\"\n")
}

/// A section as an operator leaves it.
fn commented(peer: &Peer, name: &str) -> String {
    let Peer { keys, .. } = peer;
    format!("# {name}\n[Peer]\nPublicKey = {}\n#PersistentKeepalive = 25\n\n", keys.public)
}

/// The names of `peers` as `flowctl peers` has them now.
fn names(ctl: &Flowctl<'_>, peers: &[Peer]) -> Vec<String> {
    let known = ctl.peers().peers;
    let name = |peer: &Peer| {
        let found = known.iter().find(|known| known.identity.public_key == peer.keys.public);
        found.map_or_else(String::new, |known| known.identity.name.clone())
    };
    peers.iter().map(name).collect()
}

/// The name of the peer in every record of the only flow on `port`, the oldest first.
fn recorded(ctl: &Flowctl<'_>, port: u16) -> Vec<String> {
    let flows = ctl.flows(&["--port", &port.to_string()]);
    assert_eq!(flows.len(), 1, "{flows:#?}");
    let records = ctl.flow(&flows[0].flow_id).records.into_iter();
    records.filter_map(|record| record.peer).map(|peer| peer.name).collect()
}

#[test]
fn the_list_names_first_then_comments_then_the_key() {
    let net = Topology::new(4);
    let site = Site::new(&net, &Settings::default());
    let (a, b) = (&net.peers[0], &net.peers[1]);
    site.write("peers.toml", &listed(&a.keys.public, "alice"));
    site.write("wireguard/wg0.conf", &(commented(a, "x") + &commented(b, "bob")));
    let key = &net.peers[2].keys.public;
    let json =
        "# friendly_json={\"name\":\"carol\",\"user\":\"c@example.com\",\"groups\":[\"ops\"]}";
    site.write("networkd/wg0.netdev", &format!("[WireGuardPeer]\n{json}\nPublicKey={key}\n"));
    let daemon = site.start(&net.gateway);
    let ctl = site.flowctl(&net.gateway);
    ctl.attached("wg0");
    let short = Identity::short_key(&net.peers[3].keys.public);
    assert_eq!(names(&ctl, &net.peers), ["alice", "bob", "carol", &short]);
    let known = ctl.peers().peers.into_iter().find(|peer| peer.identity.name == "carol");
    let carol = known.expect("she is listed").identity;
    assert_eq!((carol.user.as_deref(), carol.groups), (Some("c@example.com"), vec!["ops".into()]));

    let ends = ((&b.namespace, b.v4.into()), (&net.gateway, net.gateway_v4(b)));
    let load = udp::Pair::new(ends.0, ends.1).exchange(&[10]);
    let flow = ctl.one_flow(&["--peer", "bob"], Load::both(load, load));
    assert_eq!(flow.src.peer.as_deref(), Some("bob"));
    daemon.stop();
}

#[test]
fn a_change_is_noticed_and_records_keep_the_name_of_their_time() {
    let net = Topology::new(1);
    let settings = Settings { active_timeout_ms: 1000, ..Settings::default() };
    let site = Site::new(&net, &settings);
    let peer = &net.peers[0];
    site.write("peers.toml", "");
    site.write("wireguard/wg0.conf", &commented(peer, "before"));
    let daemon = site.start(&net.gateway);
    let ctl = site.flowctl(&net.gateway);
    ctl.attached("wg0");
    let ends = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
    let pair = udp::Pair::on_port(ends.0, ends.1, 7000);
    let more_records = |than: usize| {
        wait::until(wait::SOON, "another record of the flow", || {
            pair.exchange(&[10]);
            ctl.flows(&["--port", "7000"]).first().is_some_and(|flow| flow.records > than as u64)
        });
        recorded(&ctl, 7000)
    };
    let old = more_records(2);
    // What is not recorded yet has the name of now; what is recorded, no other ever.
    let kept = old.len() - 1;
    assert!(old.iter().all(|name| name == "before"), "{old:?}");

    site.write("wireguard/wg0.conf", &commented(peer, "after"));
    wait::until_equal("the comment counts", &vec!["after".to_owned()], || names(&ctl, &net.peers));
    let both = more_records(old.len() + 2);
    assert_eq!(both[..kept], old[..kept]);
    assert_eq!(both.last().map(String::as_str), Some("after"));
    site.write("peers.toml", &listed(&peer.keys.public, "listed"));
    wait::until_equal("the list wins", &vec!["listed".to_owned()], || names(&ctl, &net.peers));
    daemon.stop();

    let daemon = site.start(&net.gateway);
    let stored = recorded(&ctl, 7000);
    assert_eq!(stored[..kept], old[..kept], "also for another flowd");
    assert_eq!(stored.last().map(String::as_str), Some("listed"));
    daemon.stop();
}

#[test]
fn a_broken_list_stops_the_start_but_not_the_daemon() {
    let net = Topology::new(1);
    let (site, mut daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    let log = |daemon: &flowd_tests::daemon::Daemon, line: &str| daemon.log().matches(line).count();
    site.write("peers.toml", "[[peers]]\nname = 7\n");
    let told = "peers.toml: line 2: invalid type";
    wait::until(wait::SOON, "flowd says what is wrong", || log(&daemon, told) == 1);
    assert_eq!(names(&ctl, &net.peers), ["peer0"]);
    daemon.read_names();
    wait::until(wait::SOON, "who asks is told again", || log(&daemon, told) == 2);
    assert_eq!(names(&ctl, &net.peers), ["peer0"]);
    site.write("peers.toml", &listed(&net.peers[0].keys.public, "alice"));
    wait::until_equal("it is right again", &vec!["alice".to_owned()], || names(&ctl, &net.peers));
    daemon.kill(); // An orderly stop asserts that nothing went wrong.

    site.write("peers.toml", "[[peers]]\nname = 7\n");
    let line = site.refused(&net.gateway);
    assert!(line.contains(told), "{line}");
}

#[test]
fn names_that_no_peer_bears_are_told_once() {
    let net = Topology::new(1);
    let site = Site::new(&net, &Settings::default());
    let entries = listed(&net.peers[0].keys.public, "alice") + &listed(STRANGER, "bob");
    site.write("peers.toml", &entries);
    // A directory where a file should be: even root cannot read it.
    site.write("wireguard/wg0.conf/x", "");
    let mut daemon = site.start(&net.gateway);
    let ctl = site.flowctl(&net.gateway);
    let told = "peers.toml: line 4: no watched interface has the peer xTIBA5rb";
    let times = |daemon: &flowd_tests::daemon::Daemon| daemon.log().matches(told).count();
    wait::until(wait::SOON, "flowd tells of bob", || times(&daemon) == 1);
    let drains = ctl.status().drain.count;
    wait::until(wait::SOON, "more drains", || ctl.status().drain.count > drains + 3);
    assert_eq!(times(&daemon), 1);
    daemon.read_names();
    wait::until(wait::SOON, "flowd tells of bob again", || times(&daemon) == 2);
    let unread = daemon.log().matches("cannot be read; it names no peer").count();
    assert_eq!(unread, 1, "{}", daemon.log());
    daemon.stop();
}

#[test]
fn an_address_that_moves_leaves_old_records_with_the_old_peer() {
    let net = Topology::new(2);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    let [old, new] = [&net.peers[0], &net.peers[1]];
    let gateway = net.gateway_v4(old);
    let ends = ((&old.namespace, old.v4.into()), (&net.gateway, gateway));
    let before = udp::Pair::on_port(ends.0, ends.1, 7000).exchange(&[100; 3]);
    ctl.one_flow(&["--port", "7000"], Load::both(before, before));

    net.admit(new, &format!("{},{}/32", new.allowed_ips(), old.v4));
    new.namespace.ip(&format!("addr add {}/32 dev wg0", old.v4));
    wait::until(wait::SOON, "flowd knows of the move", || {
        let known = ctl.peers().peers;
        let prefix = format!("{}/32", old.v4);
        let mut owners = known.iter().filter(|peer| peer.allowed_ips.contains(&prefix));
        owners.next().is_some_and(|owner| owner.identity.name == new.name)
    });
    let ends = ((&new.namespace, old.v4.into()), (&net.gateway, gateway));
    let after = udp::Pair::on_port(ends.0, ends.1, 7001).exchange(&[100; 5]);
    ctl.one_flow(&["--port", "7001"], Load::both(after, after));

    let names = || {
        [7000, 7001].map(|port| {
            let mut names = recorded(&ctl, port);
            // The flow goes on over the restart, with a record of each daemon.
            names.dedup();
            names
        })
    };
    let expected = [vec![old.name.clone()], vec![new.name.clone()]];
    wait::until_equal("each record with its peer", &expected, names);
    daemon.stop();
    let daemon = site.start(&net.gateway);
    assert_eq!(names(), expected, "also in the store");
    let peers = |filter: &[&str]| -> Vec<u64> {
        ctl.flows(filter).iter().map(|flow| flow.total.rx_packets).collect()
    };
    assert_eq!(peers(&["--peer", &old.name, "--ip", &old.v4.to_string()]), [before.packets]);
    assert_eq!(peers(&["--peer", &new.name, "--ip", &old.v4.to_string()]), [after.packets]);
    daemon.stop();
}
