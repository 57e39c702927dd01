//! A flowd that goes and comes again, under traffic: nothing is lost, nothing counted twice, and
//! open flows stay what they are.

use std::collections::BTreeMap;

use flowd::flows::{Counters, EndReason, FlowId, Stage};
use flowd_tests::{
    flowctl::Flowctl,
    site::{Settings, Site},
    topology::Topology,
    traffic::{Load, steady::Steady, udp},
    wait,
};

use crate::books::{assert_balanced, flowd_on};

const PAIRS: usize = 8;

fn pairs(net: &Topology) -> Vec<udp::Pair> {
    let peer = &net.peers[0];
    let ends = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
    (0..PAIRS).map(|_| udp::Pair::new(ends.0, ends.1)).collect()
}

/// What every flow did, by the port of its source.
fn by_port(ctl: &Flowctl<'_>) -> BTreeMap<u16, Vec<(FlowId, Counters)>> {
    let mut all: BTreeMap<u16, Vec<(FlowId, Counters)>> = BTreeMap::new();
    for flow in ctl.flows(&["--protocol", "udp"]) {
        let port = flow.src.port.expect("datagrams have ports");
        all.entry(port).or_default().push((flow.flow_id, flow.total));
    }
    all
}

fn names(flows: &BTreeMap<u16, Vec<(FlowId, Counters)>>) -> BTreeMap<u16, Vec<FlowId>> {
    let ids = |flows: &Vec<(FlowId, Counters)>| flows.iter().map(|(id, _)| *id).collect();
    flows.iter().map(|(port, flows)| (*port, ids(flows))).collect()
}

/// Every packet of `sent` is in one flow, which has the name it had, and in the records.
fn assert_same(ctl: &Flowctl<'_>, sent: &[(udp::Pair, Load)], before: &BTreeMap<u16, Vec<FlowId>>) {
    let expected: BTreeMap<u16, Counters> =
        sent.iter().map(|(pair, load)| (pair.ports().0, Load::both(*load, *load))).collect();
    wait::until_equal("every packet is in its flow, once", &expected, || {
        let sum = |flows: &[(FlowId, Counters)]| {
            flows.iter().fold(Counters::default(), |sum, (_, counters)| sum + *counters)
        };
        by_port(ctl).into_iter().map(|(port, flows)| (port, sum(&flows))).collect()
    });
    assert_eq!(&names(&by_port(ctl)), before, "each flow goes on under its name");
    for id in before.values().flatten() {
        let detail = ctl.flow(id);
        let sum = detail.records.iter().fold(Counters::default(), |sum, r| sum + r.counters);
        assert_eq!(sum, detail.flow.total, "{id}");
        for pair in detail.records.windows(2) {
            assert_eq!(pair[0].window_end, pair[1].window_start, "{id}");
        }
    }
}

/// The gaps, and how many packets each may miss; but not that a slow machine drained late, which
/// misses none.
fn gaps(ctl: &Flowctl<'_>) -> Vec<(Stage, Option<u64>)> {
    let gaps = ctl.gaps(&[]).into_iter().map(|gap| (gap.stage, gap.packets));
    gaps.filter(|gap| *gap != (Stage::Drain, Some(0))).collect()
}

fn goes_on_after(settings: &Settings, end: impl Fn(flowd_tests::daemon::Daemon)) {
    let net = Topology::new(1);
    let (site, mut daemon) = flowd_on(&net, settings);
    let ctl = site.flowctl(&net.gateway);
    let steady = Steady::begin(pairs(&net));
    wait::until(wait::SOON, "all flows are there", || by_port(&ctl).len() == PAIRS);
    let before = names(&by_port(&ctl));
    for _ in 0..3 {
        end(daemon);
        daemon = site.start(&net.gateway);
    }
    let sent = steady.end();
    assert_same(&ctl, &sent, &before);
    assert_eq!(gaps(&ctl), [], "nothing is missing");
    assert_balanced(&ctl, "wg0");
    daemon.stop();
}

#[test]
fn flows_that_are_not_recorded_yet_go_on_after_a_kill() {
    goes_on_after(&Settings::default(), flowd_tests::daemon::Daemon::kill);
}

#[test]
fn flows_that_are_recorded_go_on_after_a_kill() {
    let settings =
        Settings { active_timeout_ms: 1_000, drain_interval_ms: 100, ..Settings::default() };
    goes_on_after(&settings, flowd_tests::daemon::Daemon::kill);
}

#[test]
fn flows_go_on_after_an_orderly_stop() {
    goes_on_after(&Settings::default(), flowd_tests::daemon::Daemon::stop);
}

#[test]
fn what_ended_while_nobody_drained_is_recorded_once() {
    let net = Topology::new(1);
    let settings = Settings { idle_timeout_ms: 1_000, ..Settings::default() };
    let (site, daemon) = flowd_on(&net, &settings);
    let ctl = site.flowctl(&net.gateway);
    let pairs = pairs(&net);
    let load = pairs.iter().fold(Load::default(), |sum, pair| sum + pair.exchange(&[10; 3]));
    let before = names(&by_port(&ctl));
    daemon.kill();
    let late = pairs.iter().fold(Load::default(), |sum, pair| sum + pair.exchange(&[20; 2]));
    let daemon = site.start(&net.gateway);
    wait::until_equal("all have ended", &vec![Some(EndReason::Idle); PAIRS], || {
        ctl.flows(&["--protocol", "udp"]).iter().map(|flow| flow.end_reason).collect()
    });
    assert_eq!(names(&by_port(&ctl)), before);
    assert_eq!(ctl.summary().counters, Load::both(load + late, load + late));
    daemon.stop();
}

#[test]
fn tables_of_another_size_are_drained_to_the_last_packet() {
    let net = Topology::new(1);
    let (site, mut daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    let steady = Steady::begin(pairs(&net));
    for table_size in [8_192, 64, 4_096] {
        daemon.kill();
        site.configure(&site.config(&Settings { table_size, ..Settings::default() }));
        daemon = site.start(&net.gateway);
    }
    let sent = steady.end();
    let expected: BTreeMap<u16, Counters> =
        sent.iter().map(|(pair, load)| (pair.ports().0, Load::both(*load, *load))).collect();
    wait::until_equal("every packet is in some flow, once", &expected, || {
        let sum = |flows: &[(FlowId, Counters)]| {
            flows.iter().fold(Counters::default(), |sum, (_, counters)| sum + *counters)
        };
        by_port(&ctl).into_iter().map(|(port, flows)| (port, sum(&flows))).collect()
    });
    assert_eq!(ctl.status().flow_table.capacity, 4_096);
    daemon.stop();
}

#[test]
fn overflow_goes_on_after_a_kill() {
    let net = Topology::new(1);
    let settings = Settings { table_size: 16, active_timeout_ms: 1_000, ..Settings::default() };
    let (site, mut daemon) = flowd_on(&net, &settings);
    let peer = &net.peers[0];
    let ends = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
    let steady = Steady::begin((0..64).map(|_| udp::Pair::new(ends.0, ends.1)).collect());
    for _ in 0..3 {
        daemon.kill();
        daemon = site.start(&net.gateway);
    }
    let load = steady.end().iter().fold(Load::default(), |sum, (_, load)| sum + *load);
    let ctl = site.flowctl(&net.gateway);
    wait::until_equal("every packet is counted once", &Load::both(load, load), || {
        ctl.json::<flowd::wire::Summary>(&["summary", "--peer", &peer.name]).counters
    });
    assert!(ctl.interface("wg0").expect("it is there").overflow.packets() > 0);
    assert_balanced(&ctl, "wg0");
    daemon.stop();
}

/// The next daemon finds the flows of [`pairs`] at their end, with this load, and tells that none
/// counted meanwhile.
fn assert_ended(net: &Topology, site: &Site, load: Load) {
    let daemon = site.start(&net.gateway);
    let ctl = site.flowctl(&net.gateway);
    assert_eq!(gaps(&ctl), [(Stage::Daemon, None)]);
    assert_eq!(ctl.summary().counters, Load::both(load, load));
    let ends: Vec<_> = ctl.flows(&[]).iter().map(|flow| flow.end_reason).collect();
    assert_eq!(ends, vec![Some(EndReason::Shutdown); PAIRS]);
    daemon.stop();
}

#[test]
fn detach_records_what_was_counted_while_no_daemon_ran() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let pairs = pairs(&net);
    let mut load = pairs.iter().fold(Load::default(), |sum, pair| sum + pair.exchange(&[10; 3]));
    daemon.kill();
    load = load + pairs[0].exchange(&[20; 2]);
    let output = site.flowd(&net.gateway).arg("detach").output().expect("flowd is built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    pairs[0].exchange(&[30; 7]);
    assert_ended(&net, &site, load);
}

/// Without a BPF file system nothing stays; flows end with the daemon.
#[test]
fn without_a_place_for_pins_flows_end_with_the_daemon() {
    let net = Topology::new(1);
    let site = Site::new(&net, &Settings::default());
    let text = site.config(&Settings::default());
    let pins = site.path("bpf/flowd").display().to_string();
    let nowhere = site.path("plain/flowd").display().to_string();
    site.configure(&text.replace(&pins, &nowhere));
    let daemon = site.start(&net.gateway);
    let ctl = site.flowctl(&net.gateway);
    ctl.attached("wg0");
    assert!(daemon.log().contains("mount the BPF file system"), "{}", daemon.log());
    let pairs = pairs(&net);
    let load = pairs.iter().fold(Load::default(), |sum, pair| sum + pair.exchange(&[10; 3]));
    assert_eq!(gaps(&ctl), []);
    daemon.stop();
    pairs[0].exchange(&[30; 7]);
    assert_ended(&net, &site, load);
}

/// The ledger has gone on with other tables since: what the first ones say of is not known.
#[test]
fn tables_of_a_place_that_was_left_are_not_recorded_twice() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let ctl = site.flowctl(&net.gateway);
    let text = site.config(&Settings::default());
    let here = site.path("bpf/flowd").display().to_string();
    let there = site.path("bpf/elsewhere").display().to_string();
    let pairs = pairs(&net);
    let mut load = Load::default();
    let mut exchange = || {
        load = pairs.iter().fold(load, |sum, pair| sum + pair.exchange(&[10; 3]));
        load
    };
    let first = exchange();
    wait::until_equal("all is counted", &Load::both(first, first), || ctl.summary().counters);
    daemon.stop();
    site.configure(&text.replace(&here, &there));
    let daemon = site.start(&net.gateway);
    let second = exchange();
    wait::until_equal("all is counted", &Load::both(second, second), || ctl.summary().counters);
    daemon.stop();
    site.configure(&text);
    let daemon = site.start(&net.gateway);
    let third = exchange();
    wait::until_equal("nothing is doubled", &Load::both(third, third), || ctl.summary().counters);
    assert!(gaps(&ctl).contains(&(Stage::Daemon, None)), "{:?}", gaps(&ctl));
    // It complained of what it could not record.
    daemon.kill();
}
