//! `flowctl export`: every format read by its own tools, and exports that go on where the one
//! before ended.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use flowd::{ctl::NOTHING_NEW, export::Format, flows::Counters, wire::Record};
use flowd_tests::{
    counters::link_exists,
    flowctl::Flowctl,
    site::Settings,
    skip,
    topology::Topology,
    traffic::{raw, tcp, udp},
    wait,
};
use serde_json::{Value, json};

use crate::{
    books::flowd_on,
    enforcement::{STRICT, ends, lan_net},
};

/// Python with the readers, as `cargo xtask setup --for test` makes it.
pub(crate) fn python() -> Option<PathBuf> {
    let given = env::var_os("FLOWD_TEST_PYTHON").map(PathBuf::from);
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".cache/flowd/python/bin/python3"));
    given.or_else(home).filter(|python| python.is_file())
}

/// What the tools of a format find in a file.
fn read_back(python: &Path, format: Format, file: &Path) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/root/export.py");
    let output =
        Command::new(python).args([script, format.word()]).arg(file).output().expect("it is there");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{format:?}: {stderr}");
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

/// Exports into a file of the site, and what flowctl said.
fn export(ctl: &Flowctl<'_>, file: &Path, args: &[&str]) -> Output {
    let stdout = File::create(file).expect("room");
    let mut command = ctl.command(&[&["export"], args].concat());
    command.stdout(stdout).output().expect("flowctl is built")
}

/// The code of an end, with nothing said that is not expected.
fn code(output: &Output) -> i32 {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("panicked"), "{stderr}");
    output.status.code().unwrap_or_else(|| panic!("{stderr}"))
}

/// Waits until every flow has ended, so that everything is recorded. The sum of the records.
fn all_recorded(ctl: &Flowctl<'_>) -> Counters {
    wait::until(wait::SOON, "every flow is recorded", || {
        let summary = ctl.summary();
        summary.flows > 0 && summary.open_flows == 0
    });
    ctl.summary().counters
}

fn quick() -> Settings {
    Settings { idle_timeout_ms: 1_000, active_timeout_ms: 1_000, ..Settings::default() }
}

#[test]
fn every_format_is_read_by_its_own_tools_and_the_sums_are_those_of_the_records() {
    let Some(python) = python() else {
        skip!("no Python with readers: run `cargo xtask setup --for test`");
    };
    let net = lan_net();
    let (site, daemon) = flowd_on(&net, &quick());
    let ctl = site.flowctl(&net.gateway);
    ctl.apply(STRICT);
    for (near, far) in ends(&net) {
        udp::Pair::on_port(near, far, 5_000).exchange(&[100; 3]);
        raw::ping(near, far.1, 7, 3, 56);
        let mut connection = tcp::Connection::open(near, far, 8_000);
        connection.transfer(10_000, 200_000);
        connection.close();
        // Denied: it does not arrive.
        let denied = udp::Pair::on_port(near, far, 6_000);
        denied.near.send(&[1; 50]).expect("it leaves the peer");
    }
    wait::until(wait::SOON, "what is denied is counted", || {
        ctl.flows(&["--verdict", "deny", "--port", "6000"]).len() == 2
    });
    let counters = all_recorded(&ctl);
    assert!(counters.rx_bytes > 20_000 && counters.tx_bytes > 400_000, "{counters:?}");
    let records = ctl.run(&["records", "-o", "jsonl"]).stdout;
    let records: Vec<Record> = records
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("a record"))
        .collect();
    let denied = ctl.top(&["--verdict", "deny"]).total.packets;
    assert!(denied >= 2);

    for format in Format::ALL {
        let file = site.path(format!("export.{}", format.word()));
        let output = export(&ctl, &file, &["--format", format.word()]);
        assert_eq!(code(&output), 0, "{format:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        let expected = format!("flowctl: {0} records; the last one is record {0}\n", records.len());
        assert_eq!(said, expected, "{format:?}");

        let found = read_back(&python, format, &file);
        let Counters { rx_packets, rx_bytes, tx_packets, tx_bytes } = counters;
        let expected = match format {
            Format::Zeek | Format::ZeekJson => json!({
                "records": records.len(),
                "packets": counters.packets(),
                "bytes": counters.bytes(),
            }),
            Format::Vpc => json!({
                "rx_packets": rx_packets, "rx_bytes": rx_bytes, "tx_packets": tx_packets,
                "tx_bytes": tx_bytes, "rejected_packets": denied, "skipped": found["skipped"],
            }),
            _ => json!({
                "records": records.len(), "rx_packets": rx_packets, "rx_bytes": rx_bytes,
                "tx_packets": tx_packets, "tx_bytes": tx_bytes,
            }),
        };
        assert_eq!(found, expected, "{format:?}");
    }

    // A filter leaves what it leaves elsewhere.
    let file = site.path("denied.csv");
    export(&ctl, &file, &["--format", "csv", "--verdict", "deny", "--port", "6000"]);
    assert_eq!(read_back(&python, Format::Csv, &file)["rx_packets"], 2);
    daemon.stop();
}

/// The ids in an export as JSON lines.
fn ids(file: &Path) -> Vec<u64> {
    let text = fs::read_to_string(file).expect("it was written");
    let id = |line: &str| serde_json::from_str::<Record>(line).expect("a record").record_id;
    text.lines().map(|line| id(line).expect("it is stored")).collect()
}

/// One more flow, recorded.
fn one_more(net: &Topology, ctl: &Flowctl<'_>) {
    let before = ctl.summary().flows;
    let peer = &net.peers[0];
    let gateway = (&net.gateway, net.gateway_v4(peer));
    udp::Pair::new((&peer.namespace, peer.v4.into()), gateway).exchange(&[100]);
    wait::until(wait::SOON, "one more flow is recorded", || {
        let summary = ctl.summary();
        summary.flows > before && summary.open_flows == 0
    });
}

#[test]
fn a_job_takes_exactly_what_is_new_once() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &quick());
    let ctl = site.flowctl(&net.gateway);
    let bookmark = site.path("job");
    let job = |name: &str, format: &str| {
        let file = site.path(name);
        let resume = bookmark.to_str().expect("it is text");
        let output = export(&ctl, &file, &["--format", format, "--resume", resume]);
        (code(&output), String::from_utf8_lossy(&output.stderr).into_owned(), file)
    };

    let mut taken = Vec::new();
    for night in 1..=3_u64 {
        one_more(&net, &ctl);
        let (code, said, file) = job("night", "jsonl");
        assert_eq!((code, &*said), (0, ""), "night {night}");
        let new = ids(&file);
        assert!(!new.is_empty());
        taken.extend(new);
        let (code, said, file) = job("again", "jsonl");
        assert_eq!((code, &*said), (NOTHING_NEW.into(), ""), "night {night}");
        assert!(ids(&file).is_empty());
    }
    let last = ctl.status().store.last_record_id;
    assert_eq!(taken, (1..=last).collect::<Vec<_>>(), "every record once");

    // What fails leaves the place where it was.
    one_more(&net, &ctl);
    let before = fs::read(&bookmark).expect("a file");
    let resume = bookmark.to_str().expect("it is text");
    let mut full = ctl.command(&["export", "--format", "jsonl", "--resume", resume]);
    let full = full.stdout(File::options().write(true).open("/dev/full").expect("a device"));
    assert_eq!(code(&full.output().expect("flowctl is built")), 1);
    let (failed, said, _) = job("other", "csv");
    assert!(failed == 1 && said.contains("name a file for each"), "{said}");
    assert_eq!(fs::read(&bookmark).expect("a file"), before);
    let (code, _, file) = job("after", "jsonl");
    assert_eq!((code, ids(&file).first().copied()), (0, Some(last + 1)));
    daemon.stop();
}

#[test]
fn a_job_does_not_go_on_in_another_store() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &quick());
    let bookmark = site.path("job");
    let job = |ctl: &Flowctl<'_>| {
        let resume = bookmark.to_str().expect("it is text");
        export(ctl, &site.path("export"), &["--format", "csv", "--resume", resume])
    };
    let ctl = site.flowctl(&net.gateway);
    one_more(&net, &ctl);
    assert_eq!(code(&job(&ctl)), 0);
    let last = ctl.status().store.last_record_id;
    daemon.stop();

    fs::remove_dir_all(site.path("store")).expect("it is the site's");
    let daemon = site.start(&net.gateway);
    ctl.attached("wg0");
    // Its numbers begin anew, and come to where the job was.
    while ctl.status().store.last_record_id <= last {
        one_more(&net, &ctl);
    }
    let before = fs::read(&bookmark).expect("a file");
    let failed = job(&ctl);
    let said = String::from_utf8_lossy(&failed.stderr);
    assert_eq!(code(&failed), 1, "{said}");
    assert!(said.contains("the store is another one"), "{said}");
    assert_eq!(fs::read(&bookmark).expect("a file"), before);
    daemon.stop();
}

#[test]
fn an_export_behind_a_record_says_whether_there_was_anything() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &quick());
    let ctl = site.flowctl(&net.gateway);
    one_more(&net, &ctl);
    one_more(&net, &ctl);
    let last = ctl.status().store.last_record_id;
    let file = site.path("export");
    let behind = |after: u64| {
        let after = after.to_string();
        let output = export(&ctl, &file, &["--format", "jsonl", "--after-record", &after]);
        (code(&output), ids(&file), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, seen, _) = behind(last - 1);
    assert_eq!((code, seen), (0, vec![last]));
    let (code, seen, _) = behind(last);
    assert_eq!((code, seen), (NOTHING_NEW.into(), vec![]));
    let (code, _, said) = behind(last + 1);
    assert!(code == 1 && said.contains("is the store another one?"), "{said}");
    daemon.stop();
}

#[test]
fn a_gap_is_told_in_a_vpc_log_once() {
    let mut net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &quick());
    net.lower("wg0");
    assert!(!link_exists(&net.gateway, "wg0"));
    wait::until(wait::SOON, "the interface is known to be gone", || {
        !site.flowctl(&net.gateway).gaps(&["--stage", "interface"]).is_empty()
    });
    net.raise("wg0");
    let ctl = site.flowctl(&net.gateway);
    ctl.attached("wg0");
    let gap = ctl.ended_gap("interface");
    assert_eq!(gap.interface.as_deref(), Some("wg0"));
    let bookmark = site.path("job");
    let resume = bookmark.to_str().expect("it is text");
    let lines = || {
        let file = site.path("vpc");
        let output = export(&ctl, &file, &["--format", "vpc", "--resume", resume]);
        let text = fs::read_to_string(&file).expect("it was written");
        let gaps = text.lines().filter(|line| line.contains(" NODATA "));
        (code(&output), gaps.map(str::to_owned).collect::<Vec<_>>())
    };
    let (code, gaps) = lines();
    let (from, to) = (gap.from.0 / 1_000, gap.to.expect("it has ended").0 / 1_000);
    let expected = format!("5 - wg0 - - - - - - - {from} {to} - NODATA ");
    assert_eq!((code, gaps.len()), (0, 1));
    assert!(gaps[0].starts_with(&expected), "{gaps:?}");
    assert_eq!(lines().1, [""; 0], "it has been told");
    daemon.stop();
}
