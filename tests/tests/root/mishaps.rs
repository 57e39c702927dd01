//! What goes wrong between the kernel's tables and the store, and is no reason to lose or double a
//! packet.

use std::{
    fs,
    path::{Path, PathBuf},
};

use flowd::flows::Stage;
use flowd_tests::{
    flowctl::Flowctl,
    freeze, mount,
    site::{Settings, Site, ended, one_line_of_failure},
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
    Settings { active_timeout_ms: 500, idle_timeout_ms: 1_000, ..Settings::default() }
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
    entries.into_iter().find(|path| path.is_dir()).expect("there is one")
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

    let daemon = site.start(&net.gateway);
    ctl.attached("wg0");
    assert_counted(&ctl, load);
    load = load + pair(&net).exchange(&[30; 4]);
    assert_counted(&ctl, load);
    assert_balanced(&ctl, "wg0");
    drop(daemon);
}

#[test]
fn detach_leaves_everything_as_it_is_when_the_store_takes_nothing() {
    let net = Topology::new(1);
    let site = Site::new(&net, &Settings::default());
    let store = site.path("store");
    mount::small(&store, 3 << 20);
    let daemon = site.start(&net.gateway);
    let ctl = site.flowctl(&net.gateway);
    ctl.attached("wg0");
    let flow = pair(&net);
    let mut load = flow.exchange(&[10; 3]);
    daemon.kill();
    mount::read_only(&store);

    let output = ended(site.flowd(&net.gateway).arg("detach"));
    let line = one_line_of_failure(&output, 1);
    assert!(
        line.contains("cannot be recorded") && line.contains("run `flowd detach` again"),
        "{line}"
    );
    assert!(line.contains("Read-only file system"), "it says why: {line}");
    assert!(tables(&site).join("FLOWS").exists());
    load = load + flow.exchange(&[20; 2]);

    mount::writable(&store);
    let output = ended(site.flowd(&net.gateway).arg("detach"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let daemon = site.start(&net.gateway);
    assert_counted(&ctl, load);
    daemon.stop();
    mount::release(&store);
}

#[test]
fn detach_leaves_alone_what_is_not_flowds() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let load = pair(&net).exchange(&[10; 3]);
    daemon.kill();
    let own = only(&site.path("bpf/flowd"));
    let foreign = [site.path("bpf/flowd/net-of-somebody"), own.join("net-of-somebody")];
    for dir in &foreign {
        fs::create_dir(dir).expect("the BPF file system has directories");
    }
    let output = ended(site.flowd(&net.gateway).arg("detach"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("net-of-somebody is not flowd's"), "{said}");
    assert!(foreign.iter().all(|dir| dir.is_dir()));
    assert_eq!(fs::read_dir(&own).expect("it stays").count(), 1, "the rest is gone");
    let daemon = site.start(&net.gateway);
    let ctl = site.flowctl(&net.gateway);
    assert_counted(&ctl, load);
    daemon.stop();
}

/// The database is removed while flowd is down; the kernel's tables and what stands in them are not.
#[test]
fn the_books_balance_after_the_store_was_removed() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &brief());
    let ctl = site.flowctl(&net.gateway);
    pair(&net).exchange(&[10; 3]);
    wait::until(wait::SOON, "it has ended", || {
        ctl.flows(&[]).iter().all(|flow| flow.end_reason.is_some())
    });
    let mut load = pair(&net).exchange(&[20; 2]);
    daemon.stop();
    fs::remove_dir_all(site.path("store")).expect("it is there");
    let daemon = site.start(&net.gateway);
    ctl.attached("wg0");
    load = load + pair(&net).exchange(&[30; 4]);
    assert_counted(&ctl, load);
    assert_balanced(&ctl, "wg0");
    let told: Vec<_> = ctl.gaps(&["--stage", "database"]);
    assert_eq!(told.len(), 1, "{told:#?}");
    assert_eq!((told[0].stage, told[0].packets), (Stage::Database, None));
    // Whoever comes next finds books that are in order.
    daemon.kill();
    let daemon = site.start(&net.gateway);
    ctl.attached("wg0");
    assert_counted(&ctl, load);
    assert_balanced(&ctl, "wg0");
    assert_eq!(ctl.gaps(&["--stage", "database"]).len(), 1);
    daemon.stop();
}
