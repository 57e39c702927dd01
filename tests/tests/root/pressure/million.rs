//! A million live flows.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use flowd::wire;
use flowd_tests::{machine, site::Settings, skip, wait};

use super::{MIB, assert_memory, assert_sums, fill, gateway, timed};
use crate::books::flowd_on;

/// Walks over the whole table that the test waits for.
const DRAINS: u64 = 2;

/// No flow is due for ten minutes.
fn long_lived(table_size: u32) -> Settings {
    Settings {
        table_size,
        drain_interval_ms: 1_000,
        active_timeout_ms: 600_000,
        idle_timeout_ms: 600_000,
        tail_records: flowd::store::TAIL_RECORDS,
        ..Settings::default()
    }
}

#[test]
fn a_million_live_flows_are_counted_and_told() {
    let flows: u32 = machine::size(1_000_000, 50_000);
    let net = gateway(1);
    let settings = long_lived(1 << 20);
    let (site, daemon) = flowd_on(&net, &settings);
    let ctl = site.flowctl(&net.gateway);
    let idle = daemon.usage();

    let (mut sent, _) = timed("their first packets", || fill(&net, &net.peers[0], 0..flows));
    while ctl.status().flow_table.entries < flows.into() {
        // What was lost on its way goes again, and what was not is the second packet of its flow.
        sent += fill(&net, &net.peers[0], 0..flows);
    }
    let (drains, before) = (ctl.status().drain.count, daemon.usage().cpu);
    let (now, _) = timed("some drains", || {
        wait::until_some(wait::SOON, "the table is drained", || {
            Some(ctl.status().drain).filter(|drain| drain.count >= drains + DRAINS)
        })
    });
    let cpu = daemon.usage().cpu - before;
    println!("{cpu:?} of CPU; the last drain took {} us", now.last_duration_us);

    let status = assert_sums(&net, &ctl);
    assert_eq!(status.seen.rx_packets, sent);
    let (summary, _) = timed("flowctl summary", || ctl.summary());
    assert_eq!((summary.open_flows, summary.counters), (flows.into(), status.seen));
    let (page, _) = timed("flowctl flows", || ctl.json::<wire::FlowPage>(&["flows"]));
    assert_eq!(page.flows.len(), 100);
    // Of a live flow without a record, nothing is kept outside the kernel.
    assert_memory(&daemon, idle.rss_bytes, 32 * MIB);
    daemon.kill();
}

#[test]
fn flows_that_are_due_together_keep_nobody_waiting() {
    if machine::is_emulated() {
        skip!("so many records take minutes on emulated CPUs");
    }
    let flows = 300_000;
    let net = gateway(1);
    let settings = long_lived(1 << 19);
    let (site, daemon) = flowd_on(&net, &settings);
    let ctl = site.flowctl(&net.gateway);
    let sent = fill(&net, &net.peers[0], 0..flows);
    let entries = ctl.status().flow_table.entries;
    daemon.kill();

    // The next daemon finds all of them due at once.
    site.configure(&site.config(&Settings { active_timeout_ms: 100, ..settings }));
    let daemon = site.start(&net.gateway);
    let idle = daemon.usage();
    let mut slowest = Duration::ZERO;
    let mut halfway = BTreeSet::new();
    timed("their records", || {
        wait::until(10 * wait::SOON, "all are recorded", || {
            let begun = Instant::now();
            let status = ctl.status();
            slowest = slowest.max(begun.elapsed());
            halfway.insert(status.store.last_record_id);
            status.store.last_record_id >= entries
        });
    });
    halfway.retain(|records| (1..entries).contains(records));
    println!("answers between {halfway:?} records, the slowest after {slowest:?}");
    assert!(halfway.len() >= 2, "the daemon answers before it has recorded them all");
    assert_sums(&net, &ctl);
    assert_eq!(ctl.summary().counters.rx_packets, sent);
    // The ledger has them now.
    assert_memory(&daemon, idle.rss_bytes, 160 * MIB);
    timed("stop", || daemon.stop());
}
