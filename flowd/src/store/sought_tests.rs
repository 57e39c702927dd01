//! A flow that is sought among chunks.

use std::ops::ControlFlow;

use rusqlite::Connection;

use super::super::{
    Leaving, Reader, Writer,
    step_tests::{compact, next},
};
use crate::flows::{Counters, EndReason, Filter, FlowId, Record, sample};

const ALL: u64 = u64::MAX >> 1;
/// Records of a chunk here.
const STEP: u32 = 10;

/// The record number `number` of the flow of a port; the first one is 0.
fn record(port: u16, number: u64, end_reason: Option<EndReason>) -> Record {
    let mut record = Record { first_seen_ms: 1_000, end_reason, ..sample::record() };
    record.tuple.peer_port = port;
    let of = |packets| Counters { rx_packets: packets, rx_bytes: packets * 100, ..<_>::default() };
    (record.counters, record.total) = (of(1), of(number + 1));
    record
}

/// Records of other flows that were seen first in the same millisecond; some go on.
fn others(count: u16, numbers: u64) -> impl Iterator<Item = Record> {
    (100..100 + count).map(move |port| record(port, u64::from(port) % (numbers + 1), None))
}

fn id(record: &Record) -> FlowId {
    FlowId::new("gw", &record.interface, &record.tuple, record.first_seen_ms)
}

/// A store of these records, in chunks that nobody joins.
fn store(records: Vec<Record>) -> (tempfile::TempDir, Writer) {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
    let mut records = records;
    for step in records.chunks_mut(STEP as usize) {
        writer.commit(0, step, &Leaving::default()).unwrap();
        if let Some(step) = next(dir.path(), STEP) {
            assert!(writer.take_step(0, &step).unwrap());
        }
    }
    (dir, writer)
}

#[test]
fn a_flow_is_found_in_every_chunk_and_behind_its_end_nothing_is_read() {
    let (ends, goes_on) = (record(1, 2, Some(EndReason::Fin)), record(2, 3, None));
    let records: Vec<Record> = [record(1, 0, None), record(2, 0, None)]
        .into_iter()
        .chain(others(8, 0))
        .chain([record(1, 1, None), record(2, 1, None)])
        .chain(others(8, 1))
        .chain([ends.clone(), record(2, 2, None)])
        .chain(others(8, 1))
        // None of these begins, so that no header speaks of the time.
        .chain([goes_on.clone()])
        .chain((100..109).map(|port| record(port, 2, None)))
        .collect();
    let (dir, writer) = store(records.clone());
    // Each with nothing that another one keeps.
    let reader = || Reader::new(dir.path(), "gw");
    let found = |sought: &Record| reader().flow(id(sought), ALL).map(Option::unwrap);
    let own = |port: u16| -> Vec<u64> {
        let numbered = records.iter().zip(1..);
        numbered.filter(|(one, _)| one.tuple.peer_port == port).map(|(_, id)| id).collect()
    };
    let numbers = |records: &[Record]| -> Vec<u64> {
        records.iter().map(|record| record.record_id).collect()
    };
    let (closed, is_open) = found(&ends).unwrap();
    assert_eq!((numbers(&closed), is_open), (own(1), false));
    let (open, is_open) = found(&goes_on).unwrap();
    assert_eq!((numbers(&open), is_open), (own(2), true));

    drop(writer);
    let path = dir.path().join("segments/1970-01-01.sqlite");
    let conn = Connection::open(path).unwrap();
    let chunks: i64 = conn.query_row("SELECT count(*) FROM chunk", [], |row| row.get(0)).unwrap();
    assert_eq!(chunks, 4);
    let damaged = "UPDATE chunk_column SET body = x'01' WHERE place >= 31 * 32";
    assert!(conn.execute(damaged, []).unwrap() > 0);
    assert_eq!(found(&ends).unwrap().0, closed);
    assert!(found(&goes_on).is_err());
}

#[test]
fn two_flows_of_one_id_are_both_found() {
    let ended = |number| record(1, number, Some(EndReason::Policy));
    let twice = [record(1, 0, None), ended(1), record(1, 0, None), ended(1)];
    let records = twice.into_iter().enumerate().flat_map(|(chunk, own)| {
        let beside = 100 * (chunk as u16 + 1);
        [own].into_iter().chain((beside..beside + 9).map(|port| record(port, 0, None)))
    });
    let (dir, mut writer) = store(records.collect());
    let reader = Reader::new(dir.path(), "gw");
    for _joined in 0..2 {
        let (records, is_open) = reader.flow(id(&ended(1)), ALL).unwrap().unwrap();
        assert_eq!(records.len(), 4);
        assert!(!is_open);
        compact(dir.path(), &mut writer, STEP, usize::MAX);
    }
}

#[test]
fn what_no_chunk_has_is_not_found() {
    let (dir, _writer) = store(others(30, 1).collect());
    let reader = Reader::new(dir.path(), "gw");
    assert_eq!(reader.flow(id(&record(7, 0, None)), ALL).unwrap(), None);
    let mut count = 0;
    let sink = &mut |_record| {
        count += 1;
        ControlFlow::Continue(())
    };
    reader.records(&Filter::default(), 0, ALL, sink).unwrap();
    assert_eq!(count, 30);
}
