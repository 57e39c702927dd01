//! What a flowd before left where this one does not look for it.

use std::{fs, path::PathBuf};

use flowd::flows::Stage;
use flowd_common::counter::Direction;
use flowd_tests::{
    detach,
    site::{Settings, Site},
    topology::Topology,
    traffic::{Load, udp},
};

use crate::books::{assert_balanced, flowd_on};

/// As in the policy of a gateway that lets nobody in.
const NOTHING: &str = "mode = \"enforce\"\ndefault = \"deny\"\n";

fn pair(net: &Topology) -> udp::Pair {
    let peer = &net.peers[0];
    udp::Pair::new((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)))
}

/// From now on, pins are in another directory.
fn keep_pins_in(site: &Site, name: &str) {
    let text = site.config(&Settings::default());
    let pins = site.path("bpf/flowd").display().to_string();
    site.configure(&text.replace(&pins, &site.path(name).display().to_string()));
}

/// Programs of one direction that hang on the tunnel; `None` where the kernel has no tcx.
fn hanging(net: &Topology, direction: Direction) -> Option<usize> {
    detach::hanging(&net.gateway, "wg0", direction).ok()
}

#[test]
fn programs_that_were_kept_elsewhere_are_taken_off() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    site.flowctl(&net.gateway).apply(NOTHING);
    daemon.stop();
    fs::remove_dir_all(site.path("store/policy")).expect("it is there");
    for place in ["bpf/other", "plain/nowhere"] {
        keep_pins_in(&site, place);
        let daemon = site.start(&net.gateway);
        let ctl = site.flowctl(&net.gateway);
        ctl.attached("wg0");
        for direction in Direction::BOTH {
            assert!(hanging(&net, direction).is_none_or(|programs| programs == 1), "{place}");
        }
        if hanging(&net, Direction::Ingress).is_some() {
            assert!(daemon.log().contains("in another place"), "{place}: {}", daemon.log());
        }
        let load = pair(&net).exchange(&[10; 3]);
        let flow = ctl.flows(&[]).into_iter().next().expect("it passes");
        assert_eq!(flow.total, Load::both(load, load), "{place}");
        assert_eq!(
            ctl.gaps(&["--stage", "daemon"]).last().map(|gap| gap.stage),
            Some(Stage::Daemon)
        );
        assert_balanced(&ctl, "wg0");
        // What stays in the first place is found from the second.
        if place == "bpf/other" { daemon.kill() } else { daemon.stop() }
    }
}

#[test]
fn detach_takes_off_what_is_kept_in_any_place() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    site.flowctl(&net.gateway).apply(NOTHING);
    daemon.kill();
    keep_pins_in(&site, "bpf/other");
    let output = site.flowd(&net.gateway).arg("detach").output().expect("flowd is built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for direction in Direction::BOTH {
        assert!(hanging(&net, direction).is_none_or(|programs| programs == 0));
    }
    pair(&net).exchange(&[10]);
}

/// The database is deleted while flowd is down: a new one begins with all that the kernel has.
#[test]
fn a_store_that_was_removed_begins_with_what_the_kernel_has() {
    let net = Topology::new(1);
    let settings =
        Settings { active_timeout_ms: 1_000, idle_timeout_ms: 1_000, ..Settings::default() };
    let (site, daemon) = flowd_on(&net, &settings);
    let ctl = site.flowctl(&net.gateway);
    let ended = pair(&net);
    ended.exchange(&[10; 3]);
    flowd_tests::wait::until(flowd_tests::wait::SOON, "it has ended", || {
        ctl.flows(&[]).iter().all(|flow| flow.end_reason.is_some())
    });
    let load = pair(&net).exchange(&[20; 2]);
    daemon.stop();
    fs::remove_dir_all(site.path("store")).expect("it is there");
    let daemon = site.start(&net.gateway);
    ctl.attached("wg0");
    assert_eq!(ctl.summary().counters, Load::both(load, load));
    daemon.stop();
}

/// Each table is a file, and a daemon may be killed between any two of them.
#[test]
fn tables_that_are_there_in_part_do_not_keep_flowd_from_starting() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    daemon.kill();
    let only = |dir: PathBuf| {
        let mut entries = fs::read_dir(dir).expect("it is there").map(|entry| entry.expect("ours"));
        entries.find(|entry| entry.path().is_dir()).expect("there is one").path()
    };
    let tables = only(only(site.path("bpf/flowd")));
    fs::remove_file(tables.join("COUNTERS")).expect("it is there");
    site.configure(&site.config(&Settings { table_size: 8_192, ..Settings::default() }));
    let daemon = site.start(&net.gateway);
    let ctl = site.flowctl(&net.gateway);
    ctl.attached("wg0");
    let load = pair(&net).exchange(&[10; 3]);
    assert_eq!(ctl.summary().counters, Load::both(load, load));
    assert!(!tables.exists(), "what was left of them is gone");
    daemon.stop();
}
