//! A store whose disk fills up, is read-only or damaged, and days that change: the kernel keeps
//! counting, and every packet is recorded once.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use flowd::{
    flows::Counters,
    seal::{DayState, Proof},
    wire::SegmentList,
};
use flowd_tests::{
    daemon::Daemon,
    flowctl::Flowctl,
    mount,
    site::{Settings, Site},
    skip,
    topology::Topology,
    traffic::{Load, udp},
    wait,
};

use crate::books::assert_balanced;

/// Of the store's own file system.
const ROOM: u64 = 3 << 20;
pub(crate) const DAY_MS: i64 = 86_400_000;

fn settings() -> Settings {
    Settings { active_timeout_ms: 500, ..Settings::default() }
}

fn pair(net: &Topology) -> udp::Pair {
    let peer = &net.peers[0];
    udp::Pair::new((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)))
}

fn start(site: &Site, net: &Topology) -> Daemon {
    let daemon = site.start(&net.gateway);
    site.flowctl(&net.gateway).attached("wg0");
    daemon
}

/// Everything that was sent is in the records, once.
fn assert_recorded(ctl: &Flowctl<'_>, load: Load) {
    wait::until_equal("every packet is there, once", &Load::both(load, load), || {
        ctl.summary().counters
    });
}

fn stored(ctl: &Flowctl<'_>) -> Counters {
    let page: flowd::wire::RecordPage = ctl.json(&["records", "--limit", "1000"]);
    page.records.iter().fold(Counters::default(), |sum, record| sum + record.counters)
}

pub(crate) fn newest(site: &Site) -> PathBuf {
    let files = fs::read_dir(site.path("store/segments")).expect("the store is there");
    let files = files.map(|file| file.expect("a file").path());
    files.filter(|path| path.extension().is_some_and(|e| e == "sqlite")).max().expect("a segment")
}

/// Takes all the room that is left.
fn fill(dir: &Path) -> PathBuf {
    let path = dir.join("ballast");
    let mut ballast = File::create(&path).expect("room for a name");
    for size in [1 << 16, 1 << 12, 1] {
        while ballast.write_all(&vec![1; size]).is_ok() {}
    }
    path
}

#[test]
fn a_disk_that_fills_up_is_waited_for_and_everything_is_recorded_then() {
    let net = Topology::new(1);
    let site = Site::new(&net, &settings());
    mount::small(&site.path("store"), ROOM);
    let daemon = start(&site, &net);
    let ctl = site.flowctl(&net.gateway);
    let mut load = pair(&net).exchange(&[100]);
    wait::until(wait::SOON, "records", || ctl.status().drain.records > 0);

    let ballast = fill(&site.path("store"));
    wait::until(wait::SOON, "the store fails", || {
        load = load + pair(&net).exchange(&[100; 4]);
        ctl.status().store.error.is_some()
    });
    let drains = ctl.status().drain.count;
    wait::until(wait::SOON, "more drains fail", || ctl.status().drain.count > drains + 5);
    let failing = ctl.status().store;
    assert!(failing.error.as_ref().is_some_and(|e| e.contains("make room")), "{failing:?}");
    assert!(failing.failing_since.is_some());
    load = load + pair(&net).exchange(&[100; 4]);
    assert_balanced(&ctl, "wg0");

    fs::remove_file(ballast).expect("it is there");
    wait::until(wait::SOON, "it records again", || ctl.status().store.error.is_none());
    assert_recorded(&ctl, load);
    wait::until_equal("nothing waits", &Load::both(load, load), || stored(&ctl));
    assert_eq!(daemon.log().matches("cannot record").count(), 1, "{}", daemon.log());
    assert_balanced(&ctl, "wg0");
    assert_whole(&site, &ctl);
    daemon.kill();
    mount::release(&site.path("store"));
}

#[test]
fn a_store_that_is_read_only_at_start_is_opened_when_it_is_not() {
    let net = Topology::new(1);
    let site = Site::new(&net, &settings());
    let store = site.path("store");
    mount::small(&store, ROOM);
    let daemon = start(&site, &net);
    let ctl = site.flowctl(&net.gateway);
    let flow = pair(&net);
    let mut load = flow.exchange(&[100]);
    wait::until(wait::SOON, "records", || ctl.status().drain.records > 0);
    daemon.kill();
    mount::read_only(&store);

    let daemon = start(&site, &net);
    load = load + flow.exchange(&[100; 5]);
    wait::until(wait::SOON, "it says so", || ctl.status().store.error.is_some());
    assert_balanced(&ctl, "wg0");
    mount::writable(&store);
    wait::until(wait::SOON, "it records", || ctl.status().store.error.is_none());
    assert_recorded(&ctl, load);
    wait::until_equal("nothing waits", &Load::both(load, load), || stored(&ctl));
    assert_eq!(daemon.log().matches("cannot record").count(), 1, "{}", daemon.log());
    assert_whole(&site, &ctl);
    daemon.kill();
    mount::release(&store);
}

#[test]
fn a_segment_that_is_damaged_is_set_aside_and_nothing_is_recorded_twice() {
    let net = Topology::new(1);
    let site = Site::new(&net, &settings());
    let daemon = start(&site, &net);
    let ctl = site.flowctl(&net.gateway);
    let flow = pair(&net);
    let before = flow.exchange(&[100; 9]);
    wait::until_equal("it is recorded", &Load::both(before, before), || stored(&ctl));
    let path = newest(&site);
    // An orderly stop folds the log into the file; what is in a log hides what is damaged there.
    daemon.stop();
    let daemon = start(&site, &net);
    damage(&path);
    wait::until(wait::SOON, "it is set aside", || {
        // A query finds it.
        ctl.run(&["records"]);
        !ctl.status().store.set_aside.is_empty()
    });
    let after = flow.exchange(&[100; 7]);
    wait::until_equal("what follows is recorded", &Load::both(after, after), || stored(&ctl));
    assert_recorded(&ctl, after);
    let list: SegmentList = ctl.json(&["segments", "list"]);
    assert!(list.segments.iter().any(|segment| segment.state == "set_aside"), "{list:#?}");
    let gaps = String::from_utf8(ctl.run(&["gaps"]).stdout).expect("text");
    assert!(gaps.contains("database"), "{gaps}");
    daemon.kill();

    // The same at start, with the log, which has every page of a young segment.
    let path = newest(&site);
    for log in ["-wal", "-shm"] {
        let name = format!("{}{log}", path.display());
        fs::remove_file(name).expect("a killed daemon leaves it");
    }
    fs::write(path, b"no database".repeat(999)).expect("room");
    let daemon = start(&site, &net);
    assert_eq!(ctl.status().store.set_aside.len(), 1);
    daemon.kill();
}

/// All but the first page, as a bad disk would.
fn damage(path: &Path) {
    let file = fs::OpenOptions::new().write(true).open(path).expect("it is there");
    let pages = file.metadata().expect("it is there").len() / 4096;
    for page in 1..pages {
        file.write_all_at(&[0xa5; 4096], page * 4096).expect("room");
    }
}

#[test]
fn a_day_that_changes_under_load_loses_nothing_also_when_flowd_is_killed() {
    let net = Topology::new(1);
    let mut site = Site::new(&net, &settings());
    if !site.use_failpoints() {
        skip!("FLOWD_FAILPOINTS_BIN names no flowd with the feature `failpoints`");
    }
    let mut daemon = start(&site, &net);
    let ctl = site.flowctl(&net.gateway);
    let flow = pair(&net);
    let mut load = flow.exchange(&[100]);
    for day in 1..4 {
        wait::until_equal("it is recorded", &Load::both(load, load), || stored(&ctl));
        site.set_clock(day * DAY_MS);
        let segments = usize::try_from(day).expect("small") + 1;
        wait::until(wait::SOON, "the next day has a segment", || {
            load = load + flow.exchange(&[100; 3]);
            let list: SegmentList = ctl.json(&["segments", "list"]);
            list.segments.len() == segments
        });
        if day > 1 {
            daemon.kill();
            load = load + flow.exchange(&[100; 3]);
            daemon = start(&site, &net);
        }
        assert_recorded(&ctl, load);
    }
    let flows = ctl.flows(&["--protocol", "udp"]);
    assert_eq!(flows.len(), 1, "the flow goes on: {flows:#?}");
    wait::until(2 * wait::SOON, "the days that are over are sealed", || {
        let list: SegmentList = ctl.json(&["segments", "list"]);
        list.segments.iter().filter(|segment| segment.state == "sealed").count() == 3
    });
    assert_whole(&site, &ctl);
    assert_proven(&site, &ctl);
    daemon.kill();
}

/// `flowctl verify` proves every day but the newest, and finds nothing wrong.
pub(crate) fn assert_proven(site: &Site, ctl: &Flowctl<'_>) {
    let store = site.path("store");
    let store = store.to_str().expect("a path of ours");
    let key = ctl.key();
    // The keeper seals a day after it has closed its file.
    wait::until(wait::SOON, "the days that are over are proven", || {
        let proof: Proof = ctl.json(&["verify", store, "--key", &key]);
        assert!(proof.is_good, "{proof:#?}");
        let Some((_newest, over)) = proof.days.split_last() else { return false };
        !over.is_empty() && over.iter().all(|day| day.state == DayState::Proven)
    });
}

/// `flowctl segments verify` finds nothing.
pub(crate) fn assert_whole(site: &Site, ctl: &Flowctl<'_>) {
    let store = site.path("store");
    let store = store.to_str().expect("a path of ours");
    let said = ctl.run(&["segments", "verify", "--store", store]);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success() && text.contains(": ok, "), "{text}");
}
