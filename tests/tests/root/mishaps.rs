//! What goes wrong between the kernel's tables and the store, and is no reason to lose or double a
//! packet.

use std::{
    fs,
    path::{Path, PathBuf},
};

use flowd::flows::Stage;
use flowd_tests::{
    flowctl::Flowctl,
    freeze,
    site::{Settings, Site},
    topology::Topology,
    traffic::{Load, udp},
    wait,
};

use crate::books::{assert_balanced, flowd_on};

fn pair(net: &Topology) -> udp::Pair {
    let peer = &net.peers[0];
    udp::Pair::new((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)))
}

fn brief() -> Settings {
    Settings { active_timeout_ms: 500, idle_timeout_ms: 500, ..Settings::default() }
}

/// Everything that was sent is in flows, once.
fn assert_counted(ctl: &Flowctl<'_>, load: Load) {
    wait::until_equal("every packet is there, once", &Load::both(load, load), || {
        ctl.summary().counters
    });
}

/// The only directory in a directory.
fn only(dir: &Path) -> PathBuf {
    let entries = fs::read_dir(dir).expect("it is there").map(|entry| entry.expect("ours").path());
    entries.filter(|path| path.is_dir()).next().expect("there is one")
}

fn tables(site: &Site) -> PathBuf {
    only(&only(&site.path("bpf/flowd")))
}

/// Flows whose last records are in the store stay in the table, because the kernel deletes none.
#[test]
fn what_has_ended_and_cannot_be_deleted_is_recorded_once() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &brief());
    let ctl = site.flowctl(&net.gateway);
    freeze::table(&tables(&site).join("FLOWS")).expect("it is there");
    let ends = |count: usize| {
        wait::until(wait::SOON, "its flows have ended", || {
            ctl.flows(&[]).iter().filter(|flow| flow.end_reason.is_some()).count() == count
        });
    };
    let mut load = pair(&net).exchange(&[10; 3]);
    ends(1);
    // In another transaction.
    load = load + pair(&net).exchange(&[20; 2]);
    ends(2);
    assert_counted(&ctl, load);
    assert_eq!(ctl.flows(&["--state", "open"]), []);
    assert_balanced(&ctl, "wg0");
    assert!(daemon.log().contains("drain failed"), "{}", daemon.log());
    daemon.kill();

    site.configure(&site.config(&Settings { table_size: 8_192, ..brief() }));
    let daemon = site.start(&net.gateway);
    ctl.attached("wg0");
    assert_counted(&ctl, load);
    load = load + pair(&net).exchange(&[30; 4]);
    assert_counted(&ctl, load);
    assert_balanced(&ctl, "wg0");
    drop(daemon);
}
