//! A gateway that restarts: the kernel's tables are lost, what was recorded of them is not.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use flowd::{
    flows::{EndReason, FlowId, Stage},
    wire::{RecordPage, Timestamp},
};
use flowd_tests::{
    flowctl::Flowctl,
    own_machine::{self, Unwritten},
    site::{Settings, Site},
    skip,
    topology::Topology,
    traffic::{Load, udp},
    wait,
    wireguard::Keys,
};
use serde::{Deserialize, Serialize};

use crate::books::assert_balanced;

/// How the boots end, one after the other.
const ENDS: [End; 3] = [End::Stopped, End::Sudden, End::PowerFails];
/// Of the one flow of each boot, which is always the same one on the wire.
const PORTS: (u16, u16) = (6000, 7000);
/// Recorded in each boot, and lost.
const RECORDED: [usize; 5] = [100; 5];
const LOST: [usize; 3] = [1000; 3];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// After flowd.
    Stopped,
    /// Under flowd.
    Sudden,
    /// Under flowd, and what is not on the disk is lost.
    PowerFails,
}

/// What a boot leaves for those after it.
#[derive(Debug, Serialize, Deserialize)]
struct Boot {
    id: String,
    /// When its flowd was started.
    began: Timestamp,
    /// When nothing was recorded any more.
    ended: Timestamp,
    flow: FlowId,
}

#[test]
fn open_flows_end_with_the_boot() {
    let Some(disk) = own_machine::disk() else {
        skip!("it restarts the machine");
    };
    let mut boots: Vec<Boot> = read(&disk.join("boots")).unwrap_or_default();
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("/proc is mounted");
    assert!(boots.iter().all(|boot| boot.id != id), "it is another boot: {id}, {boots:?}");
    let end = ENDS.get(boots.len()).copied();

    let net = topology(&disk);
    let (site, store) = site(&net, &disk, end);
    let began = now();
    let mut daemon = site.start(&net.gateway);
    let ctl = site.flowctl(&net.gateway);
    ctl.attached("wg0");
    assert_past(&ctl, &boots, began);

    let pair = pair(&net);
    let load = pair.exchange(&RECORDED);
    let flow = ctl.one_flow(&["--state", "open"], Load::both(load, load));
    assert!(boots.iter().all(|boot| boot.flow != flow.flow_id), "it is a new flow: {flow:?}");
    wait::until(wait::SOON, "it is recorded", || {
        let records = ctl.flow(&flow.flow_id).records;
        let stored = records.iter().filter(|record| record.record_id.is_some());
        stored.map(|record| record.counters.packets()).sum::<u64>() == 2 * load.packets
    });
    assert_balanced(&ctl, "wg0");
    assert_whole(&ctl, &store);
    let Some(end) = end else {
        daemon.stop();
        return;
    };
    // One that stands still records nothing, and does not end before the machine does.
    let _running = if end == End::Stopped {
        daemon.stop();
        None
    } else {
        daemon.pause();
        Some(daemon)
    };
    boots.push(Boot { id, began, ended: now(), flow: flow.flow_id });
    pair.exchange(&LOST);
    write(&disk.join("boots"), &boots);
    own_machine::restart(match end {
        End::Stopped | End::Sudden => Unwritten::Written,
        End::PowerFails => Unwritten::Lost,
    });
}

/// Every flow of the boots before has ended with what was recorded of it, and from the last drain to
/// the start of the next flowd there is a gap.
fn assert_past(ctl: &Flowctl<'_>, boots: &[Boot], began: Timestamp) {
    let recorded = udp::datagram([10, 8, 0, 2].into(), RECORDED[0]);
    let recorded = Load::of(RECORDED.len() as u64, recorded.bytes);
    let mut flows = ctl.flows(&[]);
    flows.sort_by_key(|flow| flow.first_seen);
    let found: Vec<_> = flows.iter().map(|f| (f.flow_id, f.end_reason, f.total)).collect();
    let total = Load::both(recorded, recorded);
    let expected: Vec<_> =
        boots.iter().map(|boot| (boot.flow, Some(EndReason::Reboot), total)).collect();
    assert_eq!(found, expected);

    let mut gaps = ctl.gaps(&[]);
    // A slow machine drains late, and misses nothing.
    gaps.retain(|gap| (gap.stage, gap.packets) != (Stage::Drain, Some(0)));
    gaps.sort_by_key(|gap| gap.from);
    let next = boots.iter().skip(1).map(|boot| boot.began).chain([began]);
    assert_eq!(gaps.len(), boots.len(), "{gaps:#?}");
    for ((gap, boot), next) in gaps.iter().zip(boots).zip(next) {
        assert_eq!((gap.stage, gap.packets, gap.bytes), (Stage::Reboot, None, None), "{gap:#?}");
        assert!(boot.began <= gap.from && gap.from <= boot.ended, "{gap:#?} {boot:?}");
        assert!(gap.to.is_some_and(|to| next <= to && to <= now()), "{gap:#?} {next}");
    }

    let page: RecordPage = ctl.json(&["records", "--limit", "1000"]);
    let mut ids: Vec<u64> = page.records.iter().filter_map(|record| record.record_id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=ids.len() as u64).collect::<Vec<_>>(), "no number is left out");
    assert!(ids.len() >= boots.len());
}

/// `flowctl segments verify` finds nothing.
fn assert_whole(ctl: &Flowctl<'_>, store: &Path) {
    let store = store.to_str().expect("a path of ours");
    let said = ctl.run(&["segments", "verify", "--store", store]);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success() && text.contains(": ok, "), "{text}");
}

/// The gateway and its peer, with the keys that they had in the first boot.
fn topology(disk: &Path) -> Topology {
    let path = disk.join("keys");
    let keys: Vec<(String, String)> = read(&path).unwrap_or_else(|| {
        let keys = [Keys::new(), Keys::new()].map(|keys| (keys.private, keys.public)).to_vec();
        write(&path, &keys);
        keys
    });
    let mut keys = keys.into_iter().map(|(private, public)| Keys { private, public });
    Topology::with_keys(&[("wg0", 1)], || keys.next().expect("an interface and a peer"))
}

/// A site whose store is on the disk, and where; what it says is written loses no power failure.
fn site(net: &Topology, disk: &Path, end: Option<End>) -> (Site, PathBuf) {
    let settings = Settings { active_timeout_ms: 500, ..Settings::default() };
    let site = Site::new(net, &settings);
    let store = disk.join("store");
    let synchronous = if end == Some(End::PowerFails) { "full" } else { "normal" };
    let text = site.config(&settings);
    let (old, new) = (site.path("store"), &store);
    let [old, new] = [&old, new].map(|path| format!("[store]\npath = {path:?}\n"));
    assert!(text.contains(&old), "{text}");
    site.configure(&text.replace(&old, &format!("{new}synchronous = {synchronous:?}\n")));
    (site, store)
}

fn pair(net: &Topology) -> udp::Pair {
    let peer = &net.peers[0];
    let near = udp::bind((&peer.namespace, peer.v4.into()), PORTS.0);
    let far = udp::bind((&net.gateway, net.gateway_v4(peer)), PORTS.1);
    near.connect(far.local_addr().expect("bound")).expect("a route");
    far.connect(near.local_addr().expect("bound")).expect("a route");
    udp::Pair { near, far }
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp(i64::try_from(since.expect("after 1970").as_millis()).expect("it fits"))
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    let text = fs::read(path).ok()?;
    Some(serde_json::from_slice(&text).expect("a file of ours"))
}

/// So that it outlives a power failure.
fn write(path: &Path, what: &impl Serialize) {
    let text = serde_json::to_vec(what).expect("it is plain");
    let mut file = File::create(path).expect("room");
    file.write_all(&text).and_then(|()| file.sync_all()).expect("room");
}
