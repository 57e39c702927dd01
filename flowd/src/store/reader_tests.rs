use std::{
    cell::Cell, collections::BTreeSet, net::Ipv6Addr, ops::ControlFlow, path::Path, sync::Arc,
    time::Duration,
};

use proptest::prelude::*;

use super::Reader;
use crate::{
    flows::{
        By, Counters, Decider, EndReason, Entry, Filter, Flow, FlowId, Grouping, Identity,
        Initiator, Ranking, Record, Series, State, Step, Summary, TcpFlags, Tuple, Verdict,
    },
    live::Position,
    store::{
        Keeper, Leash, Leaving, MaxBytes, ReadError, Retention, TAIL_RECORDS, Writer, schema,
        step_tests::compact,
    },
};

const DAY_MS: i64 = 86_400_000;

/// One flow of the model: its windows in order, of the given lengths, and whether it ends.
#[derive(Clone, Debug)]
pub(in crate::store) struct Life {
    start_ms: i64,
    protocol: u8,
    host: u8,
    port: u16,
    initiator: Initiator,
    verdict: Verdict,
    rule: Option<&'static str>,
    windows: Vec<(i64, u64)>,
    ends: bool,
    overflow: bool,
}

pub(in crate::store) fn life() -> impl Strategy<Value = Life> {
    (
        (0_i64..3 * DAY_MS).prop_map(|ms| ms / 600_000 * 600_000),
        prop::sample::select(vec![1_u8, 6, 17]),
        0_u8..4,
        prop::sample::select(vec![53_u16, 443]),
        prop::sample::select(vec![Initiator::Peer, Initiator::Remote, Initiator::Unknown]),
        (
            prop::sample::select(vec![Verdict::Allow, Verdict::Deny]),
            prop::sample::select(vec![None, Some("web"), Some("ssh")]),
        ),
        prop::collection::vec((0_i64..8 * 3_600_000, 0_u64..5), 1..6),
        any::<bool>(),
        prop::bool::weighted(0.1),
    )
        .prop_map(
            |(start_ms, protocol, host, port, initiator, policy, windows, ends, overflow)| Life {
                start_ms,
                protocol,
                host,
                port,
                initiator,
                verdict: policy.0,
                rule: policy.1.filter(|_| !overflow),
                windows,
                ends: ends && !overflow,
                overflow,
            },
        )
}

/// An allowed flow of host 1 that has ended.
pub(in crate::store) fn ended(start_ms: i64, windows: Vec<(i64, u64)>) -> Life {
    Life {
        start_ms,
        protocol: 6,
        host: 1,
        port: 443,
        initiator: Initiator::Peer,
        verdict: Verdict::Allow,
        rule: None,
        windows,
        ends: true,
        overflow: false,
    }
}

fn addr(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x0a08, last)
}

pub(in crate::store) fn records_of(number: u16, life: &Life) -> Vec<Record> {
    let tuple = Tuple {
        protocol: life.protocol,
        peer_addr: addr(u16::from(life.host)),
        remote_addr: addr(100),
        peer_port: number,
        remote_port: life.port,
    };
    let identity = |host: u8| {
        Arc::new(Identity {
            public_key: format!("{host}key=").repeat(4),
            name: format!("host-{host}"),
            user: (host > 1).then(|| "alice@example.com".to_owned()),
            device: Some("box".to_owned()),
            groups: vec!["all".to_owned()],
            endpoint: "192.0.2.1:51820".parse().ok(),
        })
    };
    let peer = (life.host > 0).then(|| identity(life.host));
    let remote_peer = (life.port == 443 && number % 5 == 4).then(|| identity(2));
    let mut total = Counters { rx_packets: 1, rx_bytes: 60, ..Counters::default() };
    let mut at = life.start_ms;
    let mut records = Vec::new();
    for (index, (length, packets)) in life.windows.iter().enumerate() {
        let last = index + 1 == life.windows.len();
        let growth = Counters {
            tx_packets: *packets,
            tx_bytes: packets * 1_420,
            ..if index == 0 { total } else { Counters::default() }
        };
        total.tx_packets += packets;
        total.tx_bytes += packets * 1_420;
        records.push(Record {
            record_id: 0,
            interface: if number.is_multiple_of(2) { "wg0".into() } else { "wg1".into() },
            entry: Entry::default(),
            tuple,
            window_start_ms: at,
            window_end_ms: at + length,
            first_seen_ms: life.start_ms,
            last_seen_ms: at + length,
            initiator: life.initiator,
            icmp: None,
            peer: peer.clone(),
            remote_peer: remote_peer.clone(),
            peer_resource: None,
            // A policy that changes while the flow lives.
            remote_resource: (index > 0).then(|| format!("net-{}", index % 2).into()),
            verdict: life.verdict,
            enforced: false,
            rule: life.rule.map(Into::into),
            policy_revision: 0,
            counters: growth,
            total,
            tcp_flags: TcpFlags { rx: 2, tx: 18 },
            end_reason: (last && life.ends).then_some(EndReason::Idle),
            overflow: life.overflow,
        });
        at += length;
    }
    records
}

pub(in crate::store) fn filter() -> impl Strategy<Value = Filter> {
    let net = |text: &str| text.parse().ok();
    (
        prop::option::of(0_i64..4 * DAY_MS),
        prop::option::of(0_i64..4 * DAY_MS),
        prop::sample::select(vec![None, None, Some("host-1"), Some("2key="), Some("nobody")]),
        prop::sample::select(vec![None, None, net("10.8.0.1/32"), net("10.8.0.0/30")]),
        prop::sample::select(vec![None, None, net("10.8.0.100/32"), net("10.8.0.2/31")]),
        prop::sample::select(vec![None, None, Some(53), Some(443)]),
        prop::sample::select(vec![None, None, Some(State::Open), Some(State::Closed)]),
        (prop::sample::select(vec![None, None, Some("alice@example.com")]), judged(), narrow()),
    )
        .prop_map(
            |(since_ms, until_ms, peer, src, dst, port, state, (user, judged, narrow))| Filter {
                since_ms,
                until_ms,
                peer: peer.map(str::to_owned),
                user: user.map(str::to_owned),
                src,
                dst,
                port,
                state,
                protocol: judged.protocol,
                verdict: judged.verdict,
                rule: judged.rule,
                ..narrow
            },
        )
}

/// What is asked for less often.
fn narrow() -> impl Strategy<Value = Filter> {
    let nets = ["10.8.0.0/30", "10.8.0.100/32"].map(|net| net.parse().ok());
    (
        prop::sample::select(vec![None, None, None, nets[0], nets[1]]),
        prop::sample::select(vec![None, None, None, Some(3), Some(443)]),
        prop::sample::select(vec![None, None, None, Some(53)]),
        prop::sample::select(vec![
            None,
            None,
            Some(Initiator::Peer),
            Some(Initiator::Remote),
            Some(Initiator::Unknown),
        ]),
        prop::sample::select(vec![None, None, Some("wg1"), Some("wg2")]),
        prop::sample::select(vec![None, None, Some(60), Some(2_000), Some(9_000)]),
    )
        .prop_map(|(ip, src_port, dst_port, initiator, interface, min_bytes)| Filter {
            ip,
            src_port,
            dst_port,
            initiator,
            interface: interface.map(str::to_owned),
            min_bytes,
            ..Filter::default()
        })
}

/// What SQL alone can judge.
fn judged() -> impl Strategy<Value = Filter> {
    (
        prop::sample::select(vec![None, None, Some(6), Some(17)]),
        prop::sample::select(vec![None, None, Some(Verdict::Allow), Some(Verdict::Deny)]),
        prop::sample::select(vec![
            None,
            None,
            Some(Decider::Nobody),
            Some(Decider::Rule("web".to_owned())),
            Some(Decider::Rule("none".to_owned())),
        ]),
    )
        .prop_map(|(protocol, verdict, rule)| Filter {
            protocol,
            verdict,
            rule,
            ..Filter::default()
        })
}

/// One property at most, which sums may answer for.
fn of_one_property() -> impl Strategy<Value = Filter> {
    let net = |text: &str| text.parse().ok();
    let one = prop::sample::select(vec![
        Filter::default(),
        Filter { peer: Some("host-1".to_owned()), ..Filter::default() },
        Filter { peer: Some("host-2".to_owned()), ..Filter::default() },
        Filter { user: Some("alice@example.com".to_owned()), ..Filter::default() },
        Filter { src: net("10.8.0.1/32"), ..Filter::default() },
        Filter { src: net("10.8.0.100/32"), ..Filter::default() },
        Filter { dst: net("10.8.0.0/30"), ..Filter::default() },
        Filter { ip: net("10.8.0.1/32"), ..Filter::default() },
        Filter { ip: net("10.8.0.0/24"), ..Filter::default() },
        Filter { dst_port: Some(53), ..Filter::default() },
        Filter { protocol: Some(17), ..Filter::default() },
        Filter { dst_port: Some(53), protocol: Some(17), ..Filter::default() },
    ]);
    let verdict = prop::sample::select(vec![None, None, Some(Verdict::Allow), Some(Verdict::Deny)]);
    let since_ms = prop::option::weighted(0.3, 0_i64..4 * DAY_MS);
    (one, verdict, since_ms).prop_map(|(filter, verdict, since_ms)| Filter {
        verdict,
        since_ms,
        ..filter
    })
}

/// What is asked for, by looking at every record.
struct Slow {
    records: Vec<Record>,
}

impl Slow {
    fn open(&self, record: &Record) -> bool {
        self.open_at(record, u64::MAX)
    }

    /// Whether the flow was open when `watermark` was the last record.
    fn open_at(&self, record: &Record, watermark: u64) -> bool {
        !record.overflow
            && !self.records.iter().any(|other| {
                Position::of(other) == Position::of(record)
                    && other.end_reason.is_some()
                    && other.record_id <= watermark
            })
    }

    fn matching(&self, filter: &Filter) -> Vec<Record> {
        self.matching_at(filter, u64::MAX)
    }

    fn matching_at(&self, filter: &Filter, watermark: u64) -> Vec<Record> {
        let is_open = |record: &Record| self.open_at(record, watermark);
        let wanted = |record: &&Record| {
            record.record_id <= watermark
                && filter.matches(record)
                && filter.state.is_none_or(|state| (state == State::Open) == is_open(record))
        };
        self.records.iter().filter(wanted).cloned().collect()
    }

    fn flows(&self, filter: &Filter) -> Vec<Flow> {
        let mut flows: std::collections::BTreeMap<Position, Flow> =
            std::collections::BTreeMap::new();
        for record in self.matching(filter) {
            match flows.get_mut(&Position::of(&record)) {
                Some(flow) => flow.absorb(record),
                None => drop(flows.insert(Position::of(&record), Flow::new(record))),
            }
        }
        flows.into_values().rev().collect()
    }
}

/// Writes the lives in the order of their records' ends, some records a transaction.
fn write(dir: &Path, lives: &[Life]) -> Vec<Record> {
    write_as(dir, lives, 1, 0)
}

/// The same, and behind each transaction takes so many steps towards chunks.
fn write_as(dir: &Path, lives: &[Life], tail_records: u32, steps: usize) -> Vec<Record> {
    let mut records: Vec<Record> =
        (0..).zip(lives).flat_map(|(number, life)| records_of(number, life)).collect();
    records.sort_by_key(|record| record.window_end_ms);
    // In half of the cases some of the transactions make chunks themselves.
    let is_bulk = steps > 0 && tail_records.is_multiple_of(2);
    let of_writer = if is_bulk { tail_records + 8 } else { TAIL_RECORDS };
    let mut writer = Writer::open(dir, "gw", 0).unwrap().with_tail_records(of_writer);
    for batch in records.chunks_mut(5) {
        let now_ms = batch[batch.len() - 1].window_end_ms;
        writer.commit(now_ms, batch, &Leaving::default()).unwrap();
        compact(dir, &mut writer, tail_records, steps);
    }
    records
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn every_answer_is_the_slow_twins(
        lives in prop::collection::vec(life(), 1..20),
        filters in prop::collection::vec(prop_oneof![3 => filter(), 1 => judged(), 3 => of_one_property()], 2..8),
        by in prop::sample::select(By::ALL.to_vec()),
        limit in 1_usize..6,
        tail_records in 1_u32..12,
        steps in 0_usize..4,
        bounds in (0_u64..40, 0_u64..40),
        both in prop::sample::select(vec!["peer,dst_port", "user,src,verdict", "dst,rule"]),
        is_sealed: bool,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let slow = Slow { records: write_as(dir.path(), &lives, tail_records, steps) };
        if is_sealed {
            let keeper = Keeper::new(dir.path(), Retention { days: 0, max_bytes: MaxBytes::None });
            keeper.with_tail_records(tail_records).run(0).unwrap();
        }
        let reader = Reader::new(dir.path(), "gw");
        for filter in filters {
            let expected = slow.matching(&filter);
            let mut got = Vec::new();
            reader.records(&filter, 0, u64::MAX >> 1, &mut |record| {
                got.push(record);
                ControlFlow::Continue(())
            }).unwrap();
            prop_assert_eq!(&got, &expected);

            let (after, watermark) = (bounds.0.min(bounds.1), bounds.0.max(bounds.1));
            got.clear();
            reader.records(&filter, after, watermark, &mut |record| {
                got.push(record);
                ControlFlow::Continue(())
            }).unwrap();
            let there = slow.matching_at(&filter, watermark);
            let is_between = |record: &&Record| record.record_id > after;
            let between: Vec<Record> = there.iter().filter(is_between).cloned().collect();
            prop_assert_eq!(&got, &between);
            let mut sum = Summary::default();
            there.iter().for_each(|record| sum.absorb(record, filter.opening()));
            prop_assert_eq!(reader.summary(&filter, watermark).unwrap(), sum);

            let mut sum = Summary::default();
            for record in &expected {
                sum.absorb(record, filter.opening());
            }
            prop_assert_eq!(reader.summary(&filter, u64::MAX >> 1).unwrap(), sum);

            let mut ranking = Ranking::new(by);
            for record in &expected {
                ranking.absorb(record, filter.opening());
            }
            prop_assert_eq!(reader.top(&filter, by, u64::MAX >> 1).unwrap(), ranking);

            let both: Grouping = both.parse().unwrap();
            let mut ranking = Ranking::new(both.clone());
            let step: Step = "1h".parse().unwrap();
            let groups = expected.iter().take(2).map(|record| both.group(record));
            let groups: BTreeSet<_> = groups.collect();
            let empty = Series::new(step, Some((both.clone(), groups.into_iter().collect())));
            let mut series = empty.clone();
            for record in &expected {
                ranking.absorb(record, filter.opening());
                series.absorb(record, filter.opening());
            }
            prop_assert_eq!(reader.top(&filter, both, u64::MAX >> 1).unwrap(), ranking);
            prop_assert_eq!(reader.series(&filter, empty, u64::MAX >> 1).unwrap(), series);

            let mut pages = Vec::new();
            let mut before = None;
            loop {
                let page = reader.flows(&filter, before.as_ref(), limit, u64::MAX >> 1).unwrap();
                prop_assert!(page.len() <= limit);
                let Some((last, _)) = page.last() else { break };
                before = Some(Position::of(&last.newest));
                pages.extend(page);
            }
            for (flow, open) in &pages {
                prop_assert_eq!(*open, slow.open(&flow.newest));
            }
            let pages: Vec<Flow> = pages.into_iter().map(|(flow, _)| flow).collect();
            prop_assert_eq!(pages, slow.flows(&filter));
        }
        for flow in slow.flows(&Filter::default()) {
            let newest = &flow.newest;
            let id = FlowId::new("gw", &newest.interface, &newest.tuple, newest.first_seen_ms);
            let (records, open) = reader.flow(id, u64::MAX >> 1).unwrap().unwrap();
            prop_assert_eq!(records.len() as u64, flow.records);
            prop_assert_eq!(open, slow.open(newest));
        }
    }
}

#[test]
fn records_above_the_watermark_are_not_there_yet() {
    let dir = tempfile::tempdir().unwrap();
    let life = ended(1_000, vec![(60_000, 3), (60_000, 4)]);
    let records = write(dir.path(), &[life]);
    let reader = Reader::new(dir.path(), "gw");
    for watermark in 0..=2 {
        let expected: u64 =
            records[..watermark as usize].iter().map(|record| record.counters.tx_packets).sum();
        let filter = Filter::default();
        assert_eq!(reader.summary(&filter, watermark).unwrap().counters.tx_packets, expected);
        let ranking = reader.top(&filter, By::Peer, watermark).unwrap();
        assert_eq!(ranking.total().counters.tx_packets, expected);
        let flows = reader.flows(&filter, None, 10, watermark).unwrap();
        assert_eq!(flows.iter().map(|(flow, _)| flow.counters.tx_packets).sum::<u64>(), expected);
    }
}

#[test]
fn verdict_rule_and_user_are_asked_of_the_store() {
    let life =
        |host: u8, verdict, rule| Life { host, verdict, rule, ..ended(0, vec![(60_000, 1)]) };
    let dir = tempfile::tempdir().unwrap();
    let overflow = Life { overflow: true, ..life(3, Verdict::Deny, None) };
    write(
        dir.path(),
        &[
            life(1, Verdict::Allow, Some("web")),
            life(2, Verdict::Deny, Some("no-smtp")),
            life(2, Verdict::Allow, None),
            overflow,
        ],
    );
    let reader = Reader::new(dir.path(), "gw");
    let none = Filter::default;
    let rule = |id: &str| Some(Decider::Rule(id.to_owned()));
    let alice = || Some("alice@example.com".to_owned());
    let cases = [
        // filter, records, flows
        (none(), 4, 3),
        (Filter { verdict: Some(Verdict::Allow), ..none() }, 2, 2),
        (Filter { verdict: Some(Verdict::Deny), ..none() }, 2, 1),
        (Filter { rule: rule("web"), ..none() }, 1, 1),
        (Filter { rule: rule("none"), ..none() }, 0, 0),
        (Filter { rule: Some(Decider::Nobody), ..none() }, 2, 1),
        (Filter { user: alice(), ..none() }, 3, 2),
        (Filter { user: alice(), rule: Some(Decider::Nobody), ..none() }, 2, 1),
    ];
    for (filter, records, flows) in cases {
        let mut found = 0;
        let count = &mut |_| {
            found += 1;
            ControlFlow::Continue(())
        };
        reader.records(&filter, 0, 9, count).unwrap();
        assert_eq!(found, records, "{filter:?}");
        assert_eq!(reader.summary(&filter, 9).unwrap().flows, flows, "{filter:?}");
        assert_eq!(reader.top(&filter, By::Verdict, 9).unwrap().total().flows, flows);
    }
}

/// A segment as the first version of the schema left it: a record of an open flow.
fn write_version_1(path: &Path, id: u8) {
    let conn = rusqlite::Connection::open(path).unwrap();
    let zero = "x'00000000000000000000000000000000'";
    let endpoints = format!("1, 17, {zero}, {zero}, {id}, 53");
    conn.execute_batch(&format!(
        "{} PRAGMA application_id = {}; PRAGMA user_version = 1;
        INSERT INTO meta VALUES (1, 'gw', '1970-01-01');
        INSERT INTO interface VALUES (1, 'wg0');
        INSERT INTO record VALUES ({id}, {endpoints}, 0, 7, 8, 7, 9, 1, NULL, NULL, NULL, \
            0, 0, 'dns', 1, 0, 1, 60, 0, 0, 1, 60, 0, 0, NULL);
        INSERT INTO open_flow VALUES (7, {endpoints}, 8, 9, 1, NULL, NULL, NULL, \
            0, 0, 'dns', 1, 0, 1, 60, 0, 0);",
        schema::MIGRATIONS[0],
        schema::APPLICATION_ID,
    ))
    .unwrap();
}

fn version(path: &Path) -> i64 {
    let conn = rusqlite::Connection::open(path).unwrap();
    conn.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

#[test]
fn a_segment_of_version_1_is_read_as_it_is_and_its_ledger_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let segment = |day: &str| dir.path().join(format!("segments/{day}.sqlite"));
    std::fs::create_dir(dir.path().join("segments")).unwrap();
    let days = ["1970-01-01", "1970-01-02", "1970-01-03"].map(segment);
    write_version_1(&days[0], 1);
    write_version_1(&days[1], 2);
    let reader = Reader::new(dir.path(), "gw");
    let read = || {
        let mut records = Vec::new();
        let all = Filter::default();
        let sink = &mut |record| {
            records.push(record);
            ControlFlow::Continue(())
        };
        reader.records(&all, 0, 9, sink).unwrap();
        let flows = reader.flows(&all, None, 9, 9).unwrap();
        assert_eq!(flows.len(), 2);
        for record in &records {
            let id = FlowId::new("gw", "wg0", &record.tuple, record.first_seen_ms);
            assert_eq!(reader.flow(id, 9).unwrap().unwrap().0[0].rule.as_deref(), Some("dns"));
        }
        records.into_iter().map(|r| (r.record_id, r.remote_resource)).collect::<Vec<_>>()
    };
    assert_eq!(read(), [(1, None), (2, None)], "before any writer");

    let mut writer = Writer::open(dir.path(), "gw", 2 * DAY_MS).unwrap();
    let mut left = writer.leftovers().unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!((&left[0].peer_resource, &left[0].remote_resource), (&None, &None));
    left[0].remote_resource = Some("resolver".into());
    writer.commit(2 * DAY_MS, &mut left, &Leaving::default()).unwrap();
    assert_eq!(read(), [(1, None), (2, None), (3, Some("resolver".into()))]);
    assert_eq!(writer.leftovers().unwrap()[0].remote_resource.as_deref(), Some("resolver"));
    assert_eq!(days.each_ref().map(|path| version(path)), [1, 6, 6], "the oldest is left alone");
}

#[test]
fn a_store_that_is_not_there_yet_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let reader = Reader::new(&dir.path().join("nothing"), "gw");
    assert_eq!(reader.summary(&Filter::default(), 0).unwrap(), Summary::default());
    assert!(reader.flows(&Filter::default(), None, 10, 0).unwrap().is_empty());
    assert_eq!(reader.top(&Filter::default(), By::Dst, 0).unwrap().groups(), 0);
}

#[test]
fn a_query_that_is_over_ends_in_the_middle() {
    let life = |start_ms| ended(start_ms, vec![(60_000, 1)]);
    let dir = tempfile::tempdir().unwrap();
    let lives: Vec<_> = (0..2_000).map(life).collect();
    write(dir.path(), &lives);
    let leash = Leash::new(Duration::from_secs(3_600));
    let reader = Reader::new(dir.path(), "gw");
    let seen = Cell::new(0);
    let read = |leash: &Leash| {
        reader.clone().on(leash.clone()).records(&Filter::default(), 0, u64::MAX >> 1, &mut |_| {
            seen.set(seen.get() + 1);
            leash.let_go();
            ControlFlow::Continue(())
        })
    };
    assert!(matches!(read(&leash), Err(ReadError::Abandoned)));
    assert!(matches!(read(&leash), Err(ReadError::Abandoned)));
    assert!(seen.get() < 1_000, "{seen:?}");
    assert!(matches!(read(&Leash::new(Duration::ZERO)), Err(ReadError::TooLong(_))));
    assert!(read(&Leash::default()).is_ok(), "others go on");
}

#[test]
fn a_flow_that_has_ended_behind_the_watermark_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let life = ended(1_000, vec![(60_000, 1), (DAY_MS, 1), (DAY_MS, 1)]);
    write(dir.path(), &[life]);
    let reader = Reader::new(dir.path(), "gw");
    for (state, open) in [(State::Open, true), (State::Closed, false)] {
        for watermark in 1..=3 {
            let filter = Filter { state: Some(state), ..Filter::default() };
            let found = reader.flows(&filter, None, 9, watermark).unwrap();
            assert_eq!(found.len() == 1, open == (watermark < 3), "{state:?} at {watermark}");
            assert!(
                found.iter().all(|(flow, is_open)| *is_open == open && flow.records == watermark)
            );
        }
    }
}
