//! Clients that ask and never read.

use flowd_tests::{http, machine, site::Settings, wait};

use super::{MIB, assert_memory, assert_sums, fill, gateway, timed};
use crate::books::flowd_on;

/// Clients of each kind: more than a pool of threads or connections would hold.
const READERS: usize = 100;
/// What they ask for.
const STREAMS: [(&str, &str); 4] = [
    ("/v1/records", "application/x-ndjson"),
    ("/v1/records", "text/csv"),
    ("/v1/records?limit=10000", "application/json"),
    ("/v1/watch", "application/x-ndjson"),
];

#[test]
fn clients_that_never_read_hold_nothing_up() {
    let flows: u32 = machine::size(20_000, 2_000);
    let net = gateway(1);
    let settings = Settings {
        table_size: 65_536,
        idle_timeout_ms: 1_000,
        tail_records: flowd::store::TAIL_RECORDS,
        ..Settings::default()
    };
    let (site, daemon) = flowd_on(&net, &settings);
    let ctl = site.flowctl(&net.gateway);
    let idle = daemon.usage();
    let mut records = 0;
    let mut record = |round: u32| {
        records += fill(&net, &net.peers[0], round * flows..(round + 1) * flows);
        let recorded = || ctl.status().store.last_record_id >= records;
        timed("recorded", || wait::until(wait::SOON, "every flow is recorded", recorded));
    };
    record(0);

    let socket = site.socket();
    let silent: Vec<_> = (0..READERS)
        .flat_map(|_| STREAMS)
        .map(|(path, accept)| {
            let stream = http::connect(&socket).expect("flowd listens");
            http::send(stream, path, accept).expect("flowd reads")
        })
        .collect();
    // Others are answered, and what is new is recorded, over and over.
    for round in 1..=3 {
        record(round);
        timed("a page of records", || ctl.json::<serde_json::Value>(&["records", "--limit", "10"]));
    }
    let status = assert_sums(&net, &ctl);
    assert_eq!(ctl.summary().counters, status.seen);
    // Room for unread answers is 64 MiB; each of those that are refused had one for a moment.
    assert_memory(&daemon, idle.rss_bytes, 160 * MIB);
    timed("stop", || daemon.stop());
    drop(silent);
}
