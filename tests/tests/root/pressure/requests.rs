//! A thousand requests at once.

use std::thread;

use flowd::{
    flows::Counters,
    wire::{FlowPage, PeerList, Status, Summary},
};
use flowd_tests::{
    http::{self, Answer},
    machine,
    site::Settings,
    wait,
};

use super::{MIB, assert_memory, assert_sums, fill, gateway, timed};
use crate::books::flowd_on;

const REQUESTS: usize = 1_000;
/// What is asked, in turn.
const PATHS: [&str; 5] =
    ["/v1/status", "/v1/summary", "/v1/flows?limit=5", "/v1/peers", "/metrics"];

#[test]
fn a_thousand_requests_at_once_are_answered() {
    let flows: u32 = machine::size(20_000, 2_000);
    let net = gateway(1);
    let settings = Settings {
        table_size: 65_536,
        tail_records: flowd::store::TAIL_RECORDS,
        ..Settings::default()
    };
    let (site, daemon) = flowd_on(&net, &settings);
    let ctl = site.flowctl(&net.gateway);
    let flows = fill(&net, &net.peers[0], 0..flows);
    let seen = assert_sums(&net, &ctl).seen;
    let idle = daemon.usage();
    let drains = ctl.status().drain.count;

    let socket = site.socket();
    // All are connected before the first one asks, and all have asked before the first one reads.
    let (answers, _) = timed("a thousand answers", || {
        let streams: Vec<_> =
            (0..REQUESTS).map(|_| http::connect(&socket).expect("flowd listens")).collect();
        let sent: Vec<_> = streams
            .into_iter()
            .zip(PATHS.iter().cycle())
            .map(|(stream, path)| (*path, http::send(stream, path, "*/*").expect("it takes them")))
            .collect();
        let readers = sent.into_iter().map(|(path, sent)| {
            thread::spawn(move || (path, sent.answer().expect("a whole answer")))
        });
        let readers: Vec<_> = readers.collect();
        readers.into_iter().map(|reader| reader.join().expect("it ends")).collect::<Vec<_>>()
    });
    assert_eq!(answers.len(), REQUESTS);
    for (path, answer) in &answers {
        check(path, answer, flows, seen);
    }
    assert_memory(&daemon, idle.rss_bytes, 64 * MIB);
    wait::until(wait::SOON, "the drain goes on", || ctl.status().drain.count > drains);
    assert_sums(&net, &ctl);
    daemon.stop();
}

/// Every answer is right.
fn check(path: &str, answer: &Answer, flows: u64, seen: Counters) {
    match path {
        "/v1/status" => {
            let status: Status = answer.json();
            assert_eq!(status.flow_table.entries, flows);
        }
        "/v1/summary" => assert_eq!(answer.json::<Summary>().counters, seen),
        "/v1/peers" => assert_eq!(answer.json::<PeerList>().peers[0].counters, seen),
        "/metrics" => {
            let text = String::from_utf8_lossy(&answer.body);
            assert_eq!(answer.status, 200, "{text}");
            assert!(text.contains("flowd_packets_total"), "{text}");
        }
        _ => assert_eq!(answer.json::<FlowPage>().flows.len(), 5),
    }
}
