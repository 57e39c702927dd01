//! flowd is killed at random instants and at every step of what it does, under traffic that is known
//! to the byte: every packet is in the records once, and nothing else is.
//!
//! `FLOWD_TEST_KILLS` and `FLOWD_TEST_SEED` say how often and how, for `cargo xtask soak`.

use std::{
    collections::BTreeMap,
    env,
    os::unix::process::ExitStatusExt as _,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use flowd::{
    flows::{Counters, FlowId, Stage},
    wire::{Flow, Record, RecordPage},
};
use flowd_tests::{
    daemon::Daemon,
    flowctl::Flowctl,
    site::{Settings, Site},
    skip,
    topology::Topology,
    traffic::{
        Load,
        churn::{self, ByPorts, DEAF, place},
        steady::Steady,
        udp,
    },
    wait,
};

use crate::{
    books::assert_balanced,
    store::{DAY_MS, assert_proven, assert_whole, newest},
};

/// Of one test. Emulated machines are ten to twenty times slower.
const KILLS: u32 = 80;
const KILLS_EMULATED: u32 = 5;

const SETTINGS: Settings = Settings {
    interfaces: &["wg*"],
    // Nothing leaves it while no daemon lives long enough.
    table_size: 65_536,
    drain_interval_ms: 100,
    active_timeout_ms: 1_000,
    idle_timeout_ms: 3_000,
    linger_ms: 200,
    tail_records: 32,
};

/// Flows that live as long as the test.
const PAIRS: usize = 8;

fn kills() -> u32 {
    let told = env::var("FLOWD_TEST_KILLS").ok().map(|text| text.parse().expect("a number"));
    let is_emulated = env::var_os("FLOWD_TEST_OWN_MACHINE").is_some();
    told.unwrap_or(if is_emulated { KILLS_EMULATED } else { KILLS })
}

/// Numbers that are the same for the same seed (xorshift).
struct Random(u64);

impl Random {
    fn new() -> Self {
        let now =
            || SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later").subsec_nanos();
        let told = env::var("FLOWD_TEST_SEED").ok().map(|text| text.parse().expect("a number"));
        let seed: u64 = told.unwrap_or_else(|| now().into());
        println!("FLOWD_TEST_SEED={seed}");
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn pairs(net: &Topology, count: usize) -> Vec<udp::Pair> {
    let peer = &net.peers[0];
    let v4 = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
    let v6 = ((&peer.namespace, peer.v6.into()), (&net.gateway, net.gateway_v6(peer)));
    (0..count).map(|n| if n % 2 == 0 { v4 } else { v6 }).map(|e| udp::Pair::new(e.0, e.1)).collect()
}

fn ports(src: Option<u16>, dst: Option<u16>) -> (u16, u16) {
    place((src.expect("datagrams have ports"), dst.expect("datagrams have ports")))
}

fn udp_flows(ctl: &Flowctl<'_>) -> Vec<Flow> {
    ctl.flows(&["--protocol", "udp"])
}

/// The places where `found` is not `expected`: what was found, and what was expected.
fn differences(
    found: &ByPorts,
    expected: &ByPorts,
) -> BTreeMap<(u16, u16), (Option<Counters>, Option<Counters>)> {
    let all = found.keys().chain(expected.keys());
    let both = all.map(|place| (*place, (found.get(place).copied(), expected.get(place).copied())));
    both.filter(|(_, (found, expected))| found != expected).collect()
}

/// Every datagram is in a flow, once.
fn assert_counted(ctl: &Flowctl<'_>, expected: &ByPorts) {
    wait::until_equal("every datagram is in a flow, once", &BTreeMap::new(), || {
        let mut found = ByPorts::new();
        for flow in udp_flows(ctl) {
            *found.entry(ports(flow.src.port, flow.dst.port)).or_default() += flow.total;
        }
        differences(&found, expected)
    });
}

fn records(ctl: &Flowctl<'_>) -> Vec<Record> {
    let mut records = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut args = vec!["records", "--limit", "1000"];
        args.extend(cursor.iter().flat_map(|cursor| ["--cursor", cursor]));
        let page: RecordPage = ctl.json(&args);
        records.extend(page.records);
        cursor = page.next_cursor;
        if cursor.is_none() {
            return records;
        }
    }
}

/// The records say what was sent, and their numbers have no hole.
fn assert_recorded(ctl: &Flowctl<'_>, expected: &ByPorts) {
    let records = records(ctl);
    let ids: Vec<u64> = records.iter().filter_map(|record| record.record_id).collect();
    let holes: Vec<_> = ids.windows(2).filter(|pair| pair[0] + 1 != pair[1]).collect();
    assert!(holes.is_empty() && ids.first() == Some(&1), "{:?} {holes:?}", ids.first());
    let mut found = ByPorts::new();
    for record in records.iter().filter(|record| record.protocol == "udp") {
        *found.entry(ports(record.src.port, record.dst.port)).or_default() += record.counters;
    }
    assert_eq!(differences(&found, expected), BTreeMap::new());
    let sum = records.iter().fold(Counters::default(), |sum, record| sum + record.counters);
    assert_eq!(sum, ctl.summary().counters);
}

/// There is no gap, but that a slow machine drains late.
fn assert_nothing_is_missing(ctl: &Flowctl<'_>) {
    let gaps = ctl.gaps(&[]).into_iter();
    let gaps: Vec<_> = gaps.filter(|gap| gap.stage != Stage::Drain).collect();
    assert_eq!(gaps, [], "nothing is missing");
}

/// What must be true when all is quiet again, in flows, on the interface, in the store; and in the
/// end of the daemon and under the next one.
fn assert_right(net: &Topology, site: &Site, daemon: Daemon, expected: &ByPorts) {
    let ctl = site.flowctl(&net.gateway);
    assert_counted(&ctl, expected);
    let interface = assert_balanced(&ctl, "wg0");
    assert_eq!(interface.flows + interface.overflow, interface.seen, "all of it is in the books");
    assert_eq!(ctl.summary().counters, interface.seen, "TCP too");
    assert_nothing_is_missing(&ctl);
    daemon.stop();
    let daemon = site.start(&net.gateway);
    ctl.attached("wg0");
    assert_recorded(&ctl, expected);
    assert_whole(site, &ctl);
    assert_nothing_is_missing(&ctl);
    daemon.stop();
}

/// Kills a daemon that must be running and must not have complained.
fn kill(mut daemon: Daemon) {
    let ended = daemon.ended();
    let log = daemon.log();
    assert!(ended.is_none(), "flowd ended by itself: {ended:?}");
    assert!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
    daemon.kill();
}

/// Starts flowd and kills it, again and again, from before it has begun to after it is ready. Before
/// each start, `prepare` is called.
fn kill_at_random(
    net: &Topology,
    site: &mut Site,
    daemon: Daemon,
    mut prepare: impl FnMut(&mut Random, &mut Site),
) -> Daemon {
    let mut random = Random::new();
    kill(daemon);
    let begun = Instant::now();
    kill(site.start(&net.gateway));
    let start = begun.elapsed();
    for round in 0..kills() {
        prepare(&mut random, site);
        // Now and then one gets on with its work.
        let daemon = if round % 8 == 7 {
            site.start(&net.gateway)
        } else {
            Daemon::begin(site, &net.gateway)
        };
        let delay_us = u64::try_from(start.as_micros()).expect("soon") * 2;
        thread::sleep(Duration::from_micros(random.below(delay_us)));
        kill(daemon);
    }
    prepare(&mut random, site);
    site.start(&net.gateway)
}

/// Whether flows go on under their names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    Stay,
    /// Other tables begin other flows.
    Change,
}

fn survives(
    net: &Topology,
    site: &mut Site,
    names_of: Names,
    prepare: impl FnMut(&mut Random, &mut Site),
) {
    let daemon = site.start(&net.gateway);
    site.flowctl(&net.gateway).attached("wg0");
    let steady = Steady::begin(pairs(net, PAIRS));
    let before = udp_flows(&site.flowctl(&net.gateway));
    let (mut expected, daemon) = churn::during(net, || kill_at_random(net, site, daemon, prepare));
    let sent = steady.end();
    for (pair, load) in &sent {
        *expected.entry(place(pair.ports())).or_default() += Load::both(*load, *load);
    }
    let ctl = site.flowctl(&net.gateway);
    assert_counted(&ctl, &expected);
    if names_of == Names::Stay {
        let before: Vec<FlowId> = before.iter().map(|flow| flow.flow_id).collect();
        assert_eq!(before.len(), PAIRS);
        assert_unbroken(&ctl, &before);
    }
    assert_right(net, site, daemon, &expected);
}

/// These flows are still open, and their records follow each other.
fn assert_unbroken(ctl: &Flowctl<'_>, ids: &[FlowId]) {
    for id in ids {
        let detail = ctl.flow(id);
        let sum = detail.records.iter().fold(Counters::default(), |sum, r| sum + r.counters);
        assert_eq!(sum, detail.flow.total, "{id}");
        for pair in detail.records.windows(2) {
            assert_eq!(pair[0].window_end, pair[1].window_start, "{id}");
        }
    }
    let ports = |flow: &Flow| ports(flow.src.port, flow.dst.port);
    let all = udp_flows(ctl);
    let long: Vec<_> = all.iter().filter(|flow| ids.contains(&flow.flow_id)).map(ports).collect();
    let same = all.iter().filter(|flow| long.contains(&ports(flow))).count();
    assert_eq!((long.len(), same), (ids.len(), ids.len()), "each goes on under its name");
}

#[test]
fn at_random_instants() {
    let net = Topology::new(1);
    let mut site = Site::new(&net, &SETTINGS);
    survives(&net, &mut site, Names::Stay, |_, _| {});
}

/// What goes to [`DEAF`] is dropped, or not.
fn policy(drops: bool) -> String {
    let action = if drops { "deny" } else { "allow" };
    format!(
        "mode = \"enforce\"\ndefault = \"allow\"\n[[rules]]\nid = \"deaf\"\naction = \"{action}\"\n\
         from = [\"any\"]\nto = [\"any\"]\nprotocols = [\"udp\"]\nports = [\"{DEAF}\"]\n"
    )
}

#[test]
fn at_random_instants_while_the_policy_changes() {
    let net = Topology::new(1);
    let mut site = Site::new(&net, &SETTINGS);
    site.write("policy.toml", &policy(true));
    survives(&net, &mut site, Names::Stay, |random, site| {
        site.write("policy.toml", &policy(random.below(2) == 0));
    });
}

/// What the tables had counted may be in the segment that was set aside: it is recorded at most once.
#[test]
fn when_the_ledger_is_lost() {
    let net = Topology::new(1);
    let site = Site::new(&net, &SETTINGS);
    let daemon = site.start(&net.gateway);
    let ctl = site.flowctl(&net.gateway);
    ctl.attached("wg0");
    let pairs = pairs(&net, PAIRS);
    let send = || pairs.iter().fold(Load::default(), |sum, pair| sum + pair.exchange(&[100]));
    let before = send();
    wait::until_equal("it is recorded", &before.packets, || {
        records(&ctl).iter().map(|record| record.counters.rx_packets).sum()
    });
    kill(daemon);
    let segment = newest(&site);
    // Its log would be enough to read it.
    std::fs::remove_file(format!("{}-wal", segment.display())).expect("flowd was killed");
    std::fs::write(segment, b"no database".repeat(999)).expect("room");
    send();
    let mut after = Load::default();
    for _ in 0..3 {
        let daemon = site.start(&net.gateway);
        after = after + send();
        let expected = Load::both(after, after);
        wait::until_equal("what follows is recorded", &expected, || ctl.summary().counters);
        wait::until_equal("it is a gap, once", &vec![Stage::Database], || {
            let gaps = ctl.gaps(&[]).into_iter();
            // A slow machine drains late, and misses nothing.
            gaps.map(|gap| gap.stage).filter(|stage| *stage != Stage::Drain).collect()
        });
        assert_balanced(&ctl, "wg0");
        daemon.kill();
    }
}

/// The flowd that was built for tests, or why there is none.
macro_rules! use_failpoints {
    ($site:expr) => {
        if !$site.use_failpoints() {
            skip!("FLOWD_FAILPOINTS_BIN names no flowd with the feature `failpoints`");
        }
    };
}

/// The layout of the tables of the daemons to come.
fn set_layout(site: &mut Site, is_other: bool) {
    site.set_environment("FLOWD_TEST_LAYOUT", is_other.then_some("2"));
}

#[test]
fn at_random_instants_while_the_layout_changes() {
    let net = Topology::new(1);
    let mut site = Site::new(&net, &SETTINGS);
    use_failpoints!(site);
    survives(&net, &mut site, Names::Change, |random, site| {
        set_layout(site, random.below(2) == 0);
    });
}

/// What a daemon meets that is to reach a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meets {
    /// Flows that begin and end.
    Flows,
    /// Another policy.
    Policy,
    /// Tables of another layout.
    Layout,
    /// More flows than fit.
    Overflow,
    /// Another day.
    Day,
    /// Many flows that are due at once.
    Crowd,
    /// Another key, in `sealed.rs`.
    Rotation,
}

/// Every place where a test can kill flowd.
const PLACES: &[(&str, Meets)] = &[
    ("tables-begun", Meets::Layout),
    ("tables-made", Meets::Flows),
    ("tables-made", Meets::Layout),
    ("remembered", Meets::Flows),
    ("remembered", Meets::Layout),
    ("taken-over", Meets::Flows),
    ("taken-over", Meets::Layout),
    ("put-into-force", Meets::Flows),
    ("put-into-force", Meets::Layout),
    ("policy-kept", Meets::Policy),
    ("policy-installed", Meets::Policy),
    ("cut-retired", Meets::Policy),
    ("cut-recorded", Meets::Policy),
    ("revived", Meets::Policy),
    ("seeded", Meets::Layout),
    ("attached-one-way", Meets::Flows),
    ("attached-one-way", Meets::Layout),
    ("attached", Meets::Flows),
    ("attached", Meets::Layout),
    ("old-flows-recorded", Meets::Layout),
    ("old-flows-deleted", Meets::Layout),
    ("old-tables-recorded", Meets::Layout),
    ("living-recorded", Meets::Flows),
    ("before-retiring", Meets::Flows),
    ("retired", Meets::Flows),
    ("ended-recorded", Meets::Flows),
    ("ended-deleted", Meets::Flows),
    ("overflow-recorded", Meets::Overflow),
    ("bulk-written", Meets::Crowd),
    ("chunk-made", Meets::Flows),
    ("chunk-written", Meets::Flows),
    ("merged-chunk-written", Meets::Flows),
    ("chunk-committed", Meets::Flows),
    ("audit-inserted", Meets::Flows),
    ("audit-committed", Meets::Flows),
    ("segment-begun", Meets::Day),
    ("day-chunked", Meets::Day),
    ("day-closed", Meets::Day),
    ("seal-half-written", Meets::Day),
    ("seal-written", Meets::Day),
    ("key-made", Meets::Rotation),
    ("key-put", Meets::Rotation),
];

/// Starts a daemon that is to die at this place, and waits for that.
fn die_at(net: &Topology, site: &mut Site, place: &str, mut meanwhile: impl FnMut(&Site)) {
    println!("at {place}");
    site.set_environment("FLOWD_TEST_KILL_AT", Some(place));
    let mut daemon = Daemon::begin(site, &net.gateway);
    let status = wait::until_some(wait::SOON, "it dies there", || {
        meanwhile(site);
        daemon.ended()
    });
    site.set_environment("FLOWD_TEST_KILL_AT", None);
    assert_eq!(status.signal(), Some(libc::SIGABRT), "{place}: {}", daemon.log());
}

fn wait_for_drains(ctl: &Flowctl<'_>) {
    let drains = ctl.status().drain.count;
    wait::until(wait::SOON, "more drains", || ctl.status().drain.count > drains + 2);
}

#[test]
fn at_every_step() {
    let net = Topology::new(1);
    let settings = Settings { idle_timeout_ms: 1_000, ..SETTINGS };
    let mut site = Site::new(&net, &settings);
    use_failpoints!(site);
    let mut drops = true;
    let mut is_other = false;
    site.write("policy.toml", &policy(drops));
    let mut daemon = site.start(&net.gateway);
    site.flowctl(&net.gateway).attached("wg0");
    let mut expected = ByPorts::new();
    for (place, meets) in PLACES {
        if matches!(meets, Meets::Overflow | Meets::Day | Meets::Crowd | Meets::Rotation) {
            continue;
        }
        // The next daemon is of the layout of the one that died, or of the one before.
        let goes_back: &[bool] = if *meets == Meets::Layout { &[false, true] } else { &[false] };
        for goes_back in goes_back {
            let (sent, next) = churn::during(&net, || {
                wait_for_drains(&site.flowctl(&net.gateway));
                kill(daemon);
                drops ^= *meets == Meets::Policy;
                is_other ^= *meets == Meets::Layout;
                site.write("policy.toml", &policy(drops));
                set_layout(&mut site, is_other);
                die_at(&net, &mut site, place, |_| {});
                is_other ^= *goes_back;
                set_layout(&mut site, is_other);
                let daemon = site.start(&net.gateway);
                wait_for_drains(&site.flowctl(&net.gateway));
                daemon
            });
            daemon = next;
            for (place, counters) in sent {
                *expected.entry(place).or_default() += counters;
            }
            assert_counted(&site.flowctl(&net.gateway), &expected);
        }
    }
    assert_right(&net, &site, daemon, &expected);
}

#[test]
fn when_the_overflow_is_recorded() {
    let net = Topology::new(1);
    let settings = Settings { table_size: 16, ..SETTINGS };
    let mut site = Site::new(&net, &settings);
    use_failpoints!(site);
    let daemon = site.start(&net.gateway);
    let ctl = site.flowctl(&net.gateway);
    ctl.attached("wg0");
    let steady = Steady::begin(pairs(&net, 64));
    wait_for_drains(&ctl);
    kill(daemon);
    for _ in 0..3 {
        die_at(&net, &mut site, "overflow-recorded", |_| {});
    }
    let daemon = site.start(&net.gateway);
    let load = steady.end().iter().fold(Load::default(), |sum, (_, load)| sum + *load);
    let ctl = site.flowctl(&net.gateway);
    wait::until_equal("every packet is counted once", &Load::both(load, load), || {
        ctl.summary().counters
    });
    assert!(ctl.interface("wg0").expect("it is there").overflow.packets() > 0);
    assert_balanced(&ctl, "wg0");
    daemon.stop();
}

#[test]
fn when_many_flows_are_recorded_at_once() {
    let net = Topology::new(1);
    let mut site = Site::new(&net, &SETTINGS);
    use_failpoints!(site);
    let daemon = site.start(&net.gateway);
    let ctl = site.flowctl(&net.gateway);
    ctl.attached("wg0");
    let steady = Steady::begin(pairs(&net, 128));
    wait_for_drains(&ctl);
    kill(daemon);
    for _ in 0..3 {
        // They are all due when it starts.
        die_at(&net, &mut site, "bulk-written", |_| {});
    }
    let daemon = site.start(&net.gateway);
    let load = steady.end().iter().fold(Load::default(), |sum, (_, load)| sum + *load);
    let ctl = site.flowctl(&net.gateway);
    wait::until_equal("every packet is counted once", &Load::both(load, load), || {
        ctl.summary().counters
    });
    assert_balanced(&ctl, "wg0");
    assert_whole(&site, &ctl);
    daemon.stop();
}

#[test]
fn when_the_day_changes() {
    let net = Topology::new(1);
    let mut site = Site::new(&net, &SETTINGS);
    use_failpoints!(site);
    let mut daemon = site.start(&net.gateway);
    site.flowctl(&net.gateway).attached("wg0");
    let pairs = pairs(&net, PAIRS);
    let mut load = pairs.iter().fold(Load::default(), |sum, pair| sum + pair.exchange(&[100]));
    let names = |ctl: &Flowctl<'_>| -> Vec<FlowId> {
        let mut ids: Vec<_> = udp_flows(ctl).iter().map(|flow| flow.flow_id).collect();
        ids.sort_unstable_by_key(ToString::to_string);
        ids
    };
    let before = names(&site.flowctl(&net.gateway));
    let places = PLACES.iter().filter(|(_, meets)| *meets == Meets::Day);
    for (day, (place, _)) in (1..).zip(places.cycle().take(6)) {
        kill(daemon);
        die_at(&net, &mut site, place, |site| {
            load = pairs.iter().fold(load, |sum, pair| sum + pair.exchange(&[100]));
            // Not before it has opened the segment of the day before.
            if std::os::unix::net::UnixStream::connect(site.socket()).is_ok() {
                site.set_clock(day * DAY_MS);
            }
        });
        load = pairs.iter().fold(load, |sum, pair| sum + pair.exchange(&[100]));
        daemon = site.start(&net.gateway);
        let ctl = site.flowctl(&net.gateway);
        wait::until_equal("every packet is there, once", &Load::both(load, load), || {
            ctl.summary().counters
        });
    }
    let ctl = site.flowctl(&net.gateway);
    assert_eq!(names(&ctl), before);
    assert_unbroken(&ctl, &before);
    assert_whole(&site, &ctl);
    assert_proven(&site, &ctl);
    daemon.stop();
}

#[test]
fn every_place_is_reached_by_a_test() {
    fn places(dir: &std::path::Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).expect("the source is there") {
            let path = entry.expect("the source is there").path();
            if path.is_dir() {
                places(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("text");
                let names = text.split("failpoint!(\"").skip(1);
                found.extend(names.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            }
        }
    }
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../flowd/src");
    if !source.exists() {
        skip!("the source is not on this machine");
    }
    let mut found = Vec::new();
    places(&source, &mut found);
    found.sort();
    let mut tried: Vec<_> = PLACES.iter().map(|(place, _)| (*place).to_owned()).collect();
    tried.sort();
    tried.dedup();
    assert_eq!(found, tried);
}
