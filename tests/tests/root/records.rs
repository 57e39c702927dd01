//! When records are written, and that they outlive the daemon.

use flowd::{
    flows::{Counters, EndReason},
    wire::DayTotalList,
};
use flowd_tests::{
    site::Settings,
    topology::Topology,
    traffic::{Load, udp},
    wait,
};

use crate::books::flowd_on;

#[test]
fn a_quiet_flow_ends() {
    let net = Topology::new(1);
    let settings = Settings { idle_timeout_ms: 1000, ..Settings::default() };
    let (site, daemon) = flowd_on(&net, &settings);
    let (ctl, peer) = (site.flowctl(&net.gateway), &net.peers[0]);
    let ends = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
    let load = udp::Pair::new(ends.0, ends.1).exchange(&[10]);
    wait::until_equal("it ends", &vec![(Some(EndReason::Idle), Load::both(load, load))], || {
        ctl.flows(&[]).iter().map(|flow| (flow.end_reason, flow.total)).collect()
    });
    let totals = |args: &[&str]| ctl.json::<DayTotalList>(&[&["totals"], args].concat()).totals;
    let told = totals(&["--peer", &peer.name]);
    let told: Vec<_> = told.iter().map(|it| (it.name.as_deref(), it.flows, it.counters)).collect();
    assert_eq!(told, [(Some(peer.name.as_str()), 1, Load::both(load, load))]);
    assert_eq!(totals(&["--peer", "nobody"]), []);
    daemon.stop();
}

#[test]
fn the_records_of_a_long_flow_add_up_to_it() {
    let net = Topology::new(1);
    let settings = Settings { active_timeout_ms: 1000, ..Settings::default() };
    let (site, daemon) = flowd_on(&net, &settings);
    let (ctl, peer) = (site.flowctl(&net.gateway), &net.peers[0]);
    let ends = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
    let pair = udp::Pair::new(ends.0, ends.1);
    let mut sent = Load::default();
    wait::until(wait::SOON, "three records of a flow that goes on", || {
        sent = sent + pair.exchange(&[100]);
        ctl.flows(&[]).first().is_some_and(|flow| flow.records > 3)
    });
    let flow = ctl.one_flow(&[], Load::both(sent, sent));
    let detail = ctl.flow(&flow.flow_id);
    let sum = detail.records.iter().fold(Counters::default(), |sum, one| sum + one.counters);
    assert_eq!(sum, Load::both(sent, sent));
    assert_eq!(detail.flow.total, sum);
    for pair in detail.records.windows(2) {
        assert_eq!(pair[0].window_end, pair[1].window_start, "windows follow each other");
    }
    daemon.stop();
}

#[test]
fn a_ranking_has_what_is_recorded_and_what_is_not() {
    let net = Topology::new(2);
    let settings = Settings { active_timeout_ms: 1000, ..Settings::default() };
    let (site, daemon) = flowd_on(&net, &settings);
    let ctl = site.flowctl(&net.gateway);
    let pairs: Vec<_> = net
        .peers
        .iter()
        .map(|peer| {
            let gateway = (&net.gateway, net.gateway_v4(peer));
            udp::Pair::new((&peer.namespace, peer.v4.into()), gateway)
        })
        .collect();
    // The second peer does more.
    let mut sent = [Load::default(); 2];
    wait::until(wait::SOON, "records of flows that go on", || {
        sent[0] = sent[0] + pairs[0].exchange(&[100]);
        sent[1] = sent[1] + pairs[1].exchange(&[100, 1000]);
        ctl.flows(&["--protocol", "udp"]).iter().filter(|flow| flow.records > 2).count() == 2
    });
    let expected: Vec<_> = [1, 0]
        .map(|index| (Some(net.peers[index].name.clone()), 1, Load::both(sent[index], sent[index])))
        .into();
    wait::until_equal("every packet is in the ranking", &expected, || {
        let top = ctl.top(&["--protocol", "udp"]);
        assert_eq!(top.total.counters, top.rows[0].traffic.counters + top.rows[1].traffic.counters);
        let rows = top.rows.into_iter();
        rows.map(|row| (row.key, row.traffic.flows, row.traffic.counters)).collect()
    });
    assert_eq!(ctl.top(&["--protocol", "udp", "--limit", "1"]).rows.len(), 1);
    assert_eq!(ctl.top(&["--verdict", "deny"]).keys, 0, "no policy denies anything");
    daemon.stop();
}

#[test]
fn an_orderly_stop_leaves_everything_in_the_store() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let (ctl, peer) = (site.flowctl(&net.gateway), &net.peers[0]);
    let ends = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
    let pairs = [0; 5].map(|_| udp::Pair::new(ends.0, ends.1));
    let mut load = Load::default();
    for pair in &pairs {
        load = load + pair.exchange(&[100; 4]);
    }
    let before = ctl.flows(&[]);
    daemon.stop();

    let daemon = site.start(&net.gateway);
    let summary = ctl.summary();
    assert_eq!((summary.flows, summary.open_flows), (5, 5));
    assert_eq!(summary.counters, Load::both(load, load));
    for (flow, before) in ctl.flows(&[]).iter().zip(before) {
        assert_eq!((flow.flow_id, flow.end_reason), (before.flow_id, None));
        assert_eq!(flow.total, before.total);
    }
    daemon.stop();
}
