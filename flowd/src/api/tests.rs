//! The API over a real socket, with a store of a few records and a stand-in for the drain thread.

mod audit;
mod bodies;
mod grants;
mod limits;
mod replay;
mod sql;
mod sums;

use std::{path::PathBuf, sync::Arc, sync::mpsc, time::Duration};

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request as HttpRequest, client::conn::http1, header::ACCEPT};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{broadcast, oneshot},
};

use super::{Access, ApiState, openapi, serve};
use crate::{
    audit::{Event, Log, Message},
    flows::{
        Bound, Counters, EndReason, Entry, FlowId, Gap, Identity, Initiator, Ranking, Record,
        Stage, Summary, TcpFlags, Tuple, Verdict,
    },
    live::{Live, Measured, Pending, PendingSummary, Position, Request, Surroundings},
    store::{AuditReader, AuditWriter, Leaving, Reader, Writer},
    wire,
};

const START_MS: i64 = 1_795_233_600_000;

fn record(port: u16, window: i64) -> Record {
    let one = Counters { rx_packets: 2, rx_bytes: 120, tx_packets: 1, tx_bytes: 60 };
    let windows = u64::try_from(window).unwrap() + 1;
    let total = Counters {
        rx_packets: 2 * windows,
        rx_bytes: 120 * windows,
        tx_packets: windows,
        tx_bytes: 60 * windows,
    };
    Record {
        record_id: 0,
        interface: "wg0".into(),
        entry: Entry::default(),
        tuple: Tuple {
            protocol: 6,
            peer_addr: "::ffff:10.8.0.2".parse().unwrap(),
            remote_addr: "::ffff:10.0.0.1".parse().unwrap(),
            peer_port: port,
            remote_port: 443,
        },
        window_start_ms: START_MS + window * 60_000,
        window_end_ms: START_MS + (window + 1) * 60_000,
        first_seen_ms: START_MS,
        last_seen_ms: START_MS + (window + 1) * 60_000,
        initiator: Initiator::Peer,
        icmp: None,
        peer: Some(Arc::new(Identity {
            public_key: "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=".to_owned(),
            name: "=alice".to_owned(),
            user: Some("alice@example.com".to_owned()),
            device: Some("laptop".to_owned()),
            groups: vec!["ops".to_owned()],
            endpoint: "192.0.2.7:51820".parse().ok(),
        })),
        remote_peer: None,
        peer_resource: None,
        remote_resource: Some("billing-db".into()),
        verdict: Verdict::Allow,
        enforced: false,
        rule: None,
        policy_revision: 0,
        counters: one,
        total,
        tcp_flags: TcpFlags { rx: 0x1b, tx: 0x1b },
        end_reason: None,
        overflow: false,
    }
}

fn gap() -> Gap {
    Gap {
        gap_id: 0,
        stage: Stage::Detached,
        interface: Some("wg0".into()),
        peer: None,
        opened_ms: START_MS,
        closed_ms: None,
        bound: Bound::of(7, 700),
        detail: "somebody took both programs off the interface".to_owned(),
    }
}

/// A served API: closed flows 1 to 5 in the store, and flow 1000 open, with one record in the store
/// and one window that is not recorded.
pub(super) struct Served {
    pub(super) socket: PathBuf,
    watchers: broadcast::Sender<Arc<Record>>,
    /// What the audit log was told.
    events: mpsc::Receiver<Event>,
    stop: Option<oneshot::Sender<()>>,
    ended: tokio::task::JoinHandle<()>,
    dir: tempfile::TempDir,
}

impl Served {
    pub(super) fn start() -> Self {
        Self::with_query_timeout(Duration::from_secs(30))
    }

    fn with_query_timeout(query_timeout: Duration) -> Self {
        Self::with(query_timeout, Access::of(&[], &[], &[]))
    }

    fn with(query_timeout: Duration, access: Access) -> Self {
        Self::asking(query_timeout, access, drain_thread)
    }

    /// One whose drain thread is another; the number is of the last record in the store.
    fn asking(
        query_timeout: Duration,
        access: Access,
        drain: impl FnOnce(&mpsc::Receiver<Request>, u64) + Send + 'static,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut records: Vec<Record> = (1..=5).map(|port| record(port, 0)).collect();
        for record in &mut records {
            record.end_reason = Some(EndReason::Fin);
        }
        records.push(record(1000, 0));
        let mut writer = Writer::open(dir.path(), "gw", START_MS).unwrap();
        writer.commit(START_MS, &mut records, &Leaving::default()).unwrap();
        let watermark = writer.last_record_id();
        // The second is put there after the drain thread's answer, which has it without a number.
        writer.put_gaps(START_MS, &mut [gap(), Gap { stage: Stage::TableFull, ..gap() }]).unwrap();
        // Committed after the drain thread's answer: not there yet.
        writer.commit(START_MS, &mut [record(2000, 0)], &Leaving::default()).unwrap();
        writer.close();

        let (live, inbox, watchers) = Live::new();
        std::thread::spawn(move || drain(&inbox, watermark));
        let (audit, told, _lost) = Log::new();
        let events = mpsc::channel();
        std::thread::spawn(move || audit_thread(&told, &events.0));
        // As the daemon makes it at its start.
        AuditWriter::open(dir.path(), "gw", START_MS).unwrap();
        let socket = dir.path().join("flowd.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let state = ApiState {
            live,
            reader: Reader::new(dir.path(), "gw"),
            gateway: "gw".into(),
            query_timeout,
            access: Arc::new(access),
            audit,
            audit_reader: AuditReader::new(dir.path()),
        };
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(serve(listener, state, async {
            let _stop = stopped.await;
        }));
        Self { socket, watchers, events: events.1, stop: Some(stop), ended, dir }
    }

    fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    async fn send(&self, target: &str, accept: &str) -> hyper::Response<hyper::body::Incoming> {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = HttpRequest::get(target)
            .header("host", "flowd")
            .header(ACCEPT, accept)
            .body(Empty::<Bytes>::new())
            .unwrap();
        sender.send_request(request).await.unwrap()
    }

    async fn text(&self, target: &str, accept: &str) -> (u16, String) {
        let (status, bytes) = documented("GET", target, self.send(target, accept).await).await;
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    async fn json(&self, target: &str) -> Value {
        let (status, text) = self.text(target, "application/json").await;
        assert_eq!(status, 200, "{target}: {text}");
        serde_json::from_str(&text).unwrap()
    }
}

/// The answer to a request, which must be one that the document has.
async fn documented(
    method: &str,
    target: &str,
    response: hyper::Response<hyper::body::Incoming>,
) -> (u16, Bytes) {
    let status = response.status().as_u16();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    openapi::tests::check(method, target, (status, &kind, &bytes));
    (status, bytes)
}

/// Hands on what is told; there is room for it on every disk.
fn audit_thread(told: &mpsc::Receiver<Message>, events: &mpsc::Sender<Event>) {
    while let Ok(message) = told.recv() {
        let event = match message {
            Message::Note(event) => event,
            Message::Record { event, reply } => {
                drop(reply.send(Ok(())));
                event
            }
            Message::Head(reply) => {
                let _gone = reply.send(None);
                continue;
            }
            Message::Stop => return,
        };
        // A test that has ended listens no more.
        if events.send(event).is_err() {
            return;
        }
    }
}

/// One that the store has as open, and has taken nothing since; one without a number.
fn pending_gaps() -> Pending<Vec<Gap>> {
    let closed = Gap { gap_id: 1, closed_ms: Some(START_MS + 500), ..gap() };
    let table_full = Gap {
        stage: Stage::TableFull,
        interface: Some("wg1".into()),
        opened_ms: START_MS + 60_000,
        bound: Bound::of(3, 300),
        ..gap()
    };
    Pending { watermark: 1, answer: vec![table_full, closed] }
}

fn drain_thread(inbox: &mpsc::Receiver<Request>, watermark: u64) {
    let open = record(1000, 1);
    while let Ok(question) = inbox.recv() {
        match question {
            Request::Flows { filter, before, limit, reply } => {
                let wanted = filter.matches(&open)
                    && before.is_none_or(|before| Position::of(&open) < before);
                // As for a drain thread, of which only flows that are open can be asked.
                let wanted = wanted && filter.state != Some(crate::flows::State::Closed);
                let answer = wanted.then(|| open.clone()).into_iter().take(limit).collect();
                drop(reply.send(Pending { watermark, answer }));
            }
            Request::Flow { id, reply } => {
                let own = FlowId::new("gw", "wg0", &open.tuple, open.first_seen_ms) == id;
                drop(reply.send(Pending { watermark, answer: own.then(|| open.clone()) }));
            }
            Request::Summary { filter, reply } => {
                let mut answer = PendingSummary { gaps: pending_gaps(), ..Default::default() };
                if filter.matches(&open) {
                    answer.open_flows = 1;
                    answer.summary.absorb(&open, filter.opening());
                }
                drop(reply.send(Pending { watermark, answer }));
            }
            Request::Top { filter, by, reply } => {
                let mut answer = Ranking::new(by);
                if filter.matches(&open) {
                    answer.absorb(&open, filter.opening());
                }
                drop(reply.send(Pending { watermark, answer }));
            }
            Request::Series { filter, empty, reply } => {
                let mut answer = empty;
                if filter.matches(&open) {
                    answer.absorb(&open, filter.opening());
                }
                drop(reply.send(Pending { watermark, answer }));
            }
            Request::Rates { filter, empty, reply } => {
                let mut board = empty;
                if filter.matches(&open) {
                    board.absorb(&open, open.counters);
                }
                let interval = Some(Duration::from_millis(1_500));
                drop(reply.send(Measured { now_ms: START_MS, interval, board }));
            }
            Request::Gaps { reply } => drop(reply.send(pending_gaps())),
            Request::Peers { reply } => {
                drop(reply.send(Arc::new(vec![bob("AAAA="), bob("BBBB="), bob("CCCC=")])));
            }
            Request::Watermark { reply } => drop(reply.send(watermark)),
            Request::World { reply } => {
                let known = open.peer.iter().map(|peer| peer.as_ref().clone()).collect();
                let answer = Surroundings { known, ..Surroundings::default() };
                drop(reply.send(Pending { watermark, answer }));
            }
            // A reply that is dropped, as by a drain thread that has failed.
            _ => {}
        }
    }
}

/// A peer that is there; the third is called otherwise.
fn bob(public_key: &str) -> wire::Peer {
    let name = if public_key == "CCCC=" { "carol" } else { "bob" };
    wire::Peer {
        identity: Identity {
            public_key: public_key.to_owned(),
            name: name.to_owned(),
            user: None,
            device: None,
            groups: vec![],
            endpoint: None,
        },
        interface: "wg0".to_owned(),
        allowed_ips: vec![],
        latest_handshake: None,
        connected_since: Some(wire::Timestamp(START_MS - 5)),
        open_flows: 0,
        counters: Counters::default(),
        wireguard: wire::WireguardCounters::default(),
        coverage: None,
    }
}

#[tokio::test]
async fn a_peer_is_found_by_name_and_key_also_when_only_the_store_knows_it() {
    let served = Served::start();
    let detail = async |target: &str| -> wire::PeerDetail {
        serde_json::from_value(served.json(target).await).unwrap()
    };
    let carol = detail("/v1/peers/carol?since=2026-11-21").await;
    assert_eq!((carol.interfaces.len(), carol.sessions.len()), (1, 1));
    assert_eq!(carol.sessions[0].connected, Some(wire::Timestamp(START_MS - 5)));
    assert_eq!(detail("/v1/peers/BBBB%3D").await.identity.name, "bob");
    let past = detail("/v1/peers/carol?since=2026-11-21&until=2026-11-22").await;
    assert_eq!(past.sessions, [], "of now nothing is said");
    for wanted in ["=alice", "xTIB", "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="] {
        let removed = detail(&format!("/v1/peers/{wanted}")).await;
        assert_eq!(removed.identity.name, "=alice");
        assert_eq!((removed.interfaces, removed.sessions), (vec![], vec![]), "{wanted}");
    }
}

#[tokio::test]
async fn rates_are_of_open_flows_and_their_peers() {
    let served = Served::start();
    let rates = async |query: &str| -> wire::Rates {
        serde_json::from_value(served.json(&format!("/v1/rates?{query}")).await).unwrap()
    };
    let moved = record(1000, 1).counters;
    let all = rates("sort=total&order=asc&limit=5").await;
    assert_eq!((all.interval_ms, all.open_flows, all.moving_flows), (Some(1_500), 1, 1));
    assert_eq!((all.moved, all.sort.word(), all.peer_count), (moved, "total", 1));
    assert_eq!((all.flows[0].moved, all.flows[0].record.record_id), (moved, None));
    let peer = &all.peers[0];
    assert_eq!((peer.peer.as_ref().unwrap().name.as_str(), peer.moved), ("=alice", moved));
    let none = rates("verdict=deny").await;
    assert_eq!(
        (none.open_flows, none.moved, none.flows, none.peers),
        (0, Counters::default(), vec![], vec![])
    );
}

#[tokio::test]
async fn a_record_has_the_fields_of_the_contract() {
    let served = Served::start();
    let page = served.json("/v1/records?limit=1").await;
    let id = FlowId::new("gw", "wg0", &record(1, 0).tuple, START_MS).to_string();
    let end = |ip: &str, port: u16, peer: Option<&str>, resource: Option<&str>| json!({ "ip": ip, "port": port, "peer": peer, "resource": resource });
    let sums = json!({ "rx_packets": 2, "rx_bytes": 120, "tx_packets": 1, "tx_bytes": 60 });
    assert_eq!(
        page,
        json!({
            "records": [{
                "record_id": 1,
                "flow_id": id,
                "gateway": "gw",
                "interface": "wg0",
                "window_start": "2026-11-21T04:00:00.000Z",
                "window_end": "2026-11-21T04:01:00.000Z",
                "first_seen": "2026-11-21T04:00:00.000Z",
                "last_seen": "2026-11-21T04:01:00.000Z",
                "protocol": "tcp",
                "protocol_number": 6,
                "src": end("10.8.0.2", 1, Some("=alice"), None),
                "dst": end("10.0.0.1", 443, None, Some("billing-db")),
                "initiator": "peer",
                "icmp": null,
                "peer": {
                    "public_key": "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
                    "name": "=alice",
                    "user": "alice@example.com",
                    "device": "laptop",
                    "groups": ["ops"],
                    "endpoint": "192.0.2.7:51820",
                },
                "verdict": "allow",
                "enforced": false,
                "rule": null,
                "policy_revision": 0,
                "rx_packets": 2,
                "rx_bytes": 120,
                "tx_packets": 1,
                "tx_bytes": 60,
                "total": sums,
                "tcp_flags": { "rx": 27, "tx": 27 },
                "end_reason": "fin",
                "overflow": false,
            }],
            "next_cursor": "1",
        })
    );
}

#[tokio::test]
async fn stored_and_open_flows_are_one_list_in_pages() {
    let served = Served::start();
    let mut seen = Vec::new();
    let mut target = "/v1/flows?limit=2".to_owned();
    loop {
        let page: wire::FlowPage = serde_json::from_value(served.json(&target).await).unwrap();
        assert!(page.flows.len() <= 2);
        seen.extend(page.flows);
        let Some(cursor) = page.next_cursor else { break };
        target = format!("/v1/flows?limit=2&cursor={cursor}");
    }
    let ports: Vec<_> = seen.iter().map(|flow| flow.src.port.unwrap()).collect();
    assert_eq!(ports, [1000, 5, 4, 3, 2, 1], "newest first, and nothing above the watermark");
    let open = &seen[0];
    assert_eq!((open.state, open.records), (wire::FlowState::Open, 2));
    assert_eq!(open.counters, open.total, "the stored window and the live one");
    assert_eq!(open.counters.rx_packets, 4);
    assert!(seen[1..].iter().all(|flow| flow.state == wire::FlowState::Closed));
}

#[tokio::test]
async fn flows_are_listed_in_any_order_in_pages() {
    let served = Served::start();
    let cases = [
        // The open flow has moved twice as much, and was seen last.
        ("sort=bytes", [1000, 5, 4, 3, 2, 1]),
        ("sort=packets&order=desc", [1000, 5, 4, 3, 2, 1]),
        ("sort=bytes&order=asc", [1, 2, 3, 4, 5, 1000]),
        ("sort=last&order=asc", [1, 2, 3, 4, 5, 1000]),
        ("sort=duration", [1000, 5, 4, 3, 2, 1]),
        ("order=asc", [1, 2, 3, 4, 5, 1000]),
    ];
    for (query, expected) in cases {
        let mut ports = Vec::new();
        let mut cursor = String::new();
        loop {
            let target = format!("/v1/flows?{query}&limit=4{cursor}");
            let page: wire::FlowPage = serde_json::from_value(served.json(&target).await).unwrap();
            ports.extend(page.flows.iter().map(|flow| flow.src.port.unwrap()));
            let open = page.flows.iter().find(|flow| flow.src.port == Some(1000));
            assert!(open.is_none_or(|flow| flow.records == 2), "with its live counters");
            let Some(next) = page.next_cursor else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(ports, expected, "{query}");
    }
    let state = served.json("/v1/flows?sort=bytes&state=open").await;
    assert_eq!(state["flows"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn one_flow_has_its_records_and_the_live_rest() {
    let served = Served::start();
    let id = FlowId::new("gw", "wg0", &record(1000, 0).tuple, START_MS);
    let detail: wire::FlowDetail =
        serde_json::from_value(served.json(&format!("/v1/flows/{id}")).await).unwrap();
    let ids: Vec<_> = detail.records.iter().map(|record| record.record_id).collect();
    assert_eq!(ids, [Some(6), None]);
    assert_eq!(detail.flow.counters.rx_packets, 4);
}

#[tokio::test]
async fn a_summary_counts_everything_once() {
    let served = Served::start();
    let sum = served.json("/v1/summary").await;
    let mut expected = Summary::default();
    for port in [1, 2, 3, 4, 5, 1000] {
        expected.absorb(&record(port, 0), i64::MIN);
    }
    expected.absorb(&record(1000, 1), i64::MIN);
    assert_eq!(sum["flows"], 6);
    assert_eq!(sum["open_flows"], 1);
    assert_eq!(sum["packets"], expected.counters.packets());
    assert_eq!(sum["bytes"], expected.counters.bytes());
    assert_eq!(sum["allowed"]["flows"], 6);
    assert_eq!(sum["denied"], json!({ "flows": 0, "packets": 0, "bytes": 0 }));
    for key in ["since", "until", "rx_packets", "rx_bytes", "tx_packets", "tx_bytes", "overflow"] {
        assert!(sum.get(key).is_some(), "{key}");
    }
}

#[tokio::test]
async fn gaps_are_those_of_the_store_and_what_it_has_not_taken_each_once() {
    let served = Served::start();
    let list = served.json("/v1/gaps").await;
    let of = |stage: &str, packets: u64| {
        json!({
            "gap_id": null,
            "stage": stage,
            "interface": "wg1",
            "peer": null,
            "from": "2026-11-21T04:01:00.000Z",
            "to": null,
            "packets": packets,
            "bytes": packets * 100,
            "detail": "somebody took both programs off the interface",
        })
    };
    let mut detached = of("detached", 7);
    detached["gap_id"] = json!(1);
    detached["interface"] = json!("wg0");
    detached["from"] = json!("2026-11-21T04:00:00.000Z");
    detached["to"] = json!("2026-11-21T04:00:00.500Z");
    let expected = json!({
        "sum": { "count": 2, "open": 1, "packets": 10, "bytes": 1000, "unknown": 0 },
        "gaps": [of("table_full", 3), detached],
    });
    assert_eq!(list, expected, "newest first");
    for (query, count) in [
        ("stage=detached", 1),
        ("stage=clock", 0),
        ("interface=wg1", 1),
        ("peer=%3Dalice", 2),
        ("since=2026-11-21T04:00:00.501Z", 1),
        ("until=2026-11-21T04:01:00Z", 1),
        ("until=2026-11-21T04:00:00Z", 0),
        ("limit=1", 2),
    ] {
        let list = served.json(&format!("/v1/gaps?{query}")).await;
        assert_eq!(list["sum"]["count"], count, "{query}");
        let listed = list["gaps"].as_array().unwrap().len();
        assert_eq!(listed, if query == "limit=1" { 1 } else { count }, "{query}");
    }
    let range = "since=2026-11-21T04:00:00Z&until=2026-11-21T04:01:00Z";
    for (query, count, packets) in
        [("", 2, 10), (range, 1, 7), ("port=1", 2, 10), ("since=2026-11-21T04:00:01Z", 1, 3)]
    {
        let sum = served.json(&format!("/v1/summary?{query}")).await;
        assert_eq!(
            (&sum["gaps"]["count"], &sum["gaps"]["packets"]),
            (&json!(count), &json!(packets))
        );
    }
}

#[tokio::test]
async fn totals_are_those_of_the_days_that_a_range_touches() {
    let served = Served::start();
    let all = served.json("/v1/totals").await;
    let day = &all["totals"][0];
    assert_eq!(all["totals"].as_array().unwrap().len(), 1);
    assert_eq!((&day["day"], &day["records"]), (&json!("2026-11-21"), &json!(7)));
    assert_eq!(day["rx_packets"], 14);
    let key = day["public_key"].as_str().unwrap();
    for (query, count) in [
        (format!("peer={}", key.replace('=', "%3D")), 1),
        ("peer=nobody".to_owned(), 0),
        ("since=2026-11-21T23:59:59Z".to_owned(), 1),
        ("since=2026-11-22T00:00:00Z".to_owned(), 0),
        ("until=2026-11-21T00:00:00.001Z".to_owned(), 1),
        ("until=2026-11-21T00:00:00Z".to_owned(), 0),
    ] {
        let list = served.json(&format!("/v1/totals?{query}")).await;
        assert_eq!(list["totals"].as_array().unwrap().len(), count, "{query}");
    }
}

#[tokio::test]
async fn a_ranking_counts_everything_once() {
    let served = Served::start();
    let sums = |flows: u64, windows: u64| {
        let tally = json!({ "flows": flows, "packets": 3 * windows, "bytes": 180 * windows });
        json!({
            "flows": flows,
            "packets": 3 * windows,
            "bytes": 180 * windows,
            "rx_packets": 2 * windows,
            "rx_bytes": 120 * windows,
            "tx_packets": windows,
            "tx_bytes": 60 * windows,
            "allowed": tally,
            "denied": { "flows": 0, "packets": 0, "bytes": 0 },
        })
    };
    let row = |key: Value, flows, windows| {
        let mut row = sums(flows, windows);
        row["values"] = json!([key]);
        row["key"] = key;
        row["share"] = json!(1.0);
        row
    };
    let until = "2026-11-21T05:00:00.000Z";
    let top = served.json(&format!("/v1/top?until={until}")).await;
    let expected = json!({
        "since": null,
        "until": until,
        "by": "peer",
        "sort": "bytes",
        "keys": 1,
        "total": sums(6, 7),
        "rows": [row("=alice".into(), 6, 7)],
        "rest": sums(0, 0),
    });
    assert_eq!(top, expected);

    let top = served.json("/v1/top?by=rule&sort=flows&rule=none&user=alice%40example.com").await;
    assert_eq!(top["rows"], json!([row(Value::Null, 6, 7)]), "no rule decided");
    let top = served.json("/v1/top?by=dst_port&port=1000").await;
    assert_eq!(top["rows"], json!([row("443".into(), 1, 2)]), "the stored window and the live one");
    let top = served.json("/v1/top?by=verdict&verdict=deny").await;
    assert_eq!((&top["keys"], &top["rows"]), (&json!(0), &json!([])));
    let top = served.json("/v1/top?by=src,dst_port&order=asc").await;
    assert_eq!(top["by"], "src,dst_port");
    assert_eq!(
        (&top["rows"][0]["key"], &top["rows"][0]["values"]),
        (&json!(null), &json!(["10.8.0.2", "443"]))
    );
}

#[tokio::test]
async fn every_filter_narrows_every_answer() {
    let served = Served::start();
    let cases = [
        ("", 6),
        ("verdict=allow", 6),
        ("verdict=deny", 0),
        ("rule=none", 6),
        ("rule=ops-ssh", 0),
        ("user=alice%40example.com", 6),
        ("user=alice", 0),
        ("src=10.8.0.0/24&dst=10.0.0.1&ip=10.0.0.0/8", 6),
        ("src=10.0.0.1", 0),
        ("port=1000", 1),
        ("src_port=1000", 1),
        ("dst_port=1000", 0),
        ("dst_port=443&protocol=tcp&initiator=peer", 6),
        ("initiator=remote", 0),
        ("interface=wg0", 6),
        ("interface=wg1", 0),
        ("min_bytes=180", 6),
        ("min_bytes=361", 0),
    ];
    for (query, flows) in cases {
        let summary = served.json(&format!("/v1/summary?{query}")).await;
        assert_eq!(summary["flows"], flows, "{query}");
        let top = served.json(&format!("/v1/top?{query}")).await;
        assert_eq!(top["total"]["flows"], flows, "{query}");
        let page = served.json(&format!("/v1/flows?{query}")).await;
        assert_eq!(page["flows"].as_array().unwrap().len(), flows, "{query}");
        let page = served.json(&format!("/v1/records?{query}")).await;
        assert_eq!(page["records"].as_array().unwrap().len(), flows, "{query}");
    }
    // What an open flow did since its last record makes it large enough; it counts from there on.
    for (query, flows, packets) in [("min_bytes=181", 1, 3), ("min_bytes=0.18kB", 6, 21)] {
        let summary = served.json(&format!("/v1/summary?{query}")).await;
        assert_eq!((&summary["flows"], &summary["packets"]), (&json!(flows), &json!(packets)));
        let page = served.json(&format!("/v1/flows?{query}")).await;
        let pages = page["flows"].as_array().unwrap();
        let sum = |field: &str| pages.iter().map(|flow| flow[field].as_u64().unwrap()).sum::<u64>();
        assert_eq!((pages.len(), sum("rx_packets") + sum("tx_packets")), (flows, packets));
    }
}

#[tokio::test]
async fn every_form_of_records_says_the_same() {
    let served = Served::start();
    let page: wire::RecordPage = serde_json::from_value(served.json("/v1/records").await).unwrap();
    assert_eq!((page.records.len(), page.next_cursor), (6, None));
    let (_, lines) = served.text("/v1/records", "application/x-ndjson").await;
    let lines: Vec<wire::Record> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, page.records);
    let (_, csv) = served.text("/v1/records?limit=3", "text/csv").await;
    let mut csv = csv::Reader::from_reader(csv.as_bytes());
    assert_eq!(csv.headers().unwrap(), wire::CSV_COLUMNS.as_slice());
    let rows: Vec<_> = csv.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0], wire::csv_row(&page.records[0]));
    assert!(rows[0].iter().any(|cell| cell == "'=alice"), "no cell is a formula");
    let kinds = [
        ("Text/CSV", "text/csv"),
        ("application/json;q=0.1, text/csv", "text/csv"),
        ("text/csv;q=0, application/json", "application/json"),
        ("text/html, application/x-ndjson;q=0.5, */*;q=0.1", "application/x-ndjson"),
        ("text/csv, application/json", "text/csv"),
    ];
    for (accept, expected) in kinds {
        let answer = served.send("/v1/records?limit=3", accept).await;
        let kind = answer.headers()["content-type"].to_str().unwrap();
        assert!(kind.starts_with(expected), "{accept}: {kind}");
    }
    for accept in ["text/csv;q=0", "text/html", "text/csv;q=much"] {
        assert_eq!(served.text("/v1/records?limit=3", accept).await.0, 406, "{accept}");
    }
    let (_, empty) = served.text("/v1/records?peer=nobody", "text/csv").await;
    assert_eq!(empty.lines().count(), 1, "the header");
    let (status, _) = served.text("/v1/records", "image/png").await;
    assert_eq!(status, 406);
}

#[tokio::test]
async fn what_is_wrong_is_told_as_a_problem() {
    let served = Served::start();
    let cases = [
        ("/v1/flows?sicne=1h", 400, "unknown parameter `sicne`; did you mean `since`?"),
        ("/v1/flows?since=soon", 400, "`since` is `soon`; it must be"),
        ("/v1/flows?limit=0", 400, "`limit` is `0`; it must be a number from 1 to 10000"),
        ("/v1/flows?cursor=page2", 422, "`cursor` is `page2`; it must be the `next_cursor`"),
        ("/v1/flows?sort=size", 400, "`sort` is `size`; it must be one of start, last, duration"),
        (
            "/v1/flows?sort=bytes&cursor=1~6~::~1~::~2~0~wg0",
            422,
            "`cursor` is `1~6~::~1~::~2~0~wg0`",
        ),
        ("/v1/flows?port=1&port=2", 400, "`port` is given twice"),
        ("/v1/summary?limit=1", 400, "unknown parameter `limit`"),
        ("/v1/summary?since=1h&until=2h", 422, "`since` is not before `until`"),
        ("/v1/peers?user=x", 400, "unknown parameter `user`"),
        ("/v1/peers/=alice?since=soon", 400, "`since` is `soon`; it must be"),
        ("/v1/peers/=alice?since=1h&until=2h", 422, "`since` is not before `until`"),
        ("/v1/peers/=alice?peer=x", 400, "unknown parameter `peer`"),
        ("/v1/peers/xTI", 404, "there is no peer `xTI`, and was none; see /v1/peers"),
        ("/v1/peers/b%0aob", 404, "there is no peer `b\\nob`, and was none; did you mean `bob`?"),
        ("/v1/peers/bob", 409, "`bob` means 2 peers: give the public key of one, such as AAAA="),
        ("/v1/status?verbose=1", 400, "unknown parameter `verbose`; this endpoint takes none"),
        ("/v1/rates?sort=size", 400, "`sort` is `size`; it must be one of rate, rx, tx, packets"),
        ("/v1/rates?since=1h", 400, "unknown parameter `since`; "),
        ("/v1/rates?state=open", 400, "unknown parameter `state`; "),
        ("/v1/rates?limit=10001", 400, "`limit` is `10001`; it must be a number from 1 to 10000"),
        ("/v1/top?by=colour", 400, "`by` is `colour`; it must be one of peer, user, src, dst"),
        ("/v1/top?by=peer,peer", 400, "`by` is `peer,peer`; it must be one of peer, user, src"),
        ("/v1/top?order=up", 400, "`order` is `up`; it must be `desc` or `asc`"),
        ("/v1/series?step=7m", 400, "`step` is `7m`; it must be a part of a day such as 1m, 5m"),
        (
            "/v1/series?step=1m&since=365d",
            422,
            "a step of 1m makes 525601 points of 1 lines; 10000",
        ),
        ("/v1/series?step=1m&by=dst&limit=100&since=24h", 422, "a step of 1m makes 1441 points"),
        ("/v1/series?by=colour", 400, "`by` is `colour`; it must be one of peer, user, src, dst"),
        ("/v1/top?sort=size", 400, "`sort` is `size`; it must be one of bytes, packets, flows"),
        ("/v1/top?limit=10001", 400, "`limit` is `10001`; it must be a number from 1 to 10000"),
        ("/v1/top?cursor=1", 400, "unknown parameter `cursor`"),
        ("/v1/totals?user=x", 400, "unknown parameter `user`; did you mean `peer`?"),
        ("/v1/totals?user=x", 400, "unknown parameter `user`"),
        ("/v1/totals?peer=", 400, "`peer` is ``; it must be a peer's name"),
        ("/v1/gaps?stage=lost", 400, "`stage` is `lost`; it must be one of daemon, reboot, attach"),
        ("/v1/gaps?interface=", 400, "`interface` is ``; it must be the name of an interface"),
        ("/v1/gaps?peer=", 400, "`peer` is ``; it must be a peer's name"),
        ("/v1/gaps?since=1h&until=2h", 422, "`since` is not before `until`"),
        ("/v1/gaps?state=open", 400, "unknown parameter `state`; did you mean `stage`?"),
        ("/v1/gaps?limit=100001", 400, "`limit` is `100001`; it must be a number from 1 to 100000"),
        ("/v1/flows?verdict=no", 400, "`verdict` is `no`; it must be `allow` or `deny`"),
        ("/v1/summary?rule=", 400, "`rule` is ``; it must be the id of a rule, or `none`"),
        ("/v1/watch?user=", 400, "`user` is ``; it must be the user of a peer"),
        ("/v1/records?ip=10.0.0.0/40", 400, "`ip` is `10.0.0.0/40`; it must be an address"),
        ("/v1/watch?state=open", 400, "`state` is of flows"),
        ("/v1/flows/xyz", 400, "`xyz` is no flow id"),
        ("/v1/flows/00000000-0000-7000-8000-000000000000", 404, "there is no flow"),
        ("/v1/flwos", 404, "there is no /v1/flwos"),
        ("/v1/status", 503, "flowd is shutting down"),
    ];
    for (target, status, detail) in cases {
        let response = served.send(target, "*/*").await;
        assert_eq!(response.status().as_u16(), status, "{target}");
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{target}");
        let (_, bytes) = documented("GET", target, response).await;
        let problem: wire::Problem = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(problem.status, status);
        assert!(problem.detail.starts_with(detail), "{target}: {}", problem.detail);
        assert_eq!(problem.detail.lines().count(), 1);
    }
}

#[tokio::test]
async fn a_watcher_sees_matching_records_and_the_end() {
    let mut served = Served::start();
    let target = "/v1/watch?port=7&verdict=deny&rule=no-web&user=alice%40example.com";
    let response = served.send(target, "*/*").await;
    assert_eq!(response.status().as_u16(), 200, "the answer begins before the first record");
    for port in [6, 7] {
        served.watchers.send(Arc::new(record(port, 0))).unwrap();
    }
    let rule = Some("no-web".into());
    let denied = Record { verdict: Verdict::Deny, rule, ..record(7, 0) };
    served.watchers.send(Arc::new(denied)).unwrap();
    let mut body = response.into_body();
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    openapi::tests::check("GET", target, (200, "application/x-ndjson", &frame));
    let line: wire::Record = serde_json::from_slice(&frame).unwrap();
    assert_eq!((line.src.port, line.rule.as_deref()), (Some(7), Some("no-web")));
    drop(served.stop.take());
    served.ended.await.unwrap();
}
