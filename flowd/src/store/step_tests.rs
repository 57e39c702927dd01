//! Rows that become chunks.

use std::{collections::HashSet, ops::ControlFlow, path::Path};

use rusqlite::Connection;

use super::{
    Compactor, Keeper, Leaving, ReadError, Reader, Retention, Step, WriteError, Writer,
    chunks::Words,
    digests, schema,
    step::{self, MakeError},
    verify_store,
    writer::Newest,
};
use crate::{
    chunk::Row,
    flows::{By, Counters, EndReason, Filter, FlowId, Record, sample},
};

const ALL: u64 = u64::MAX >> 1;

/// The next step of a store, where there is one.
pub(in crate::store) fn next(dir: &Path, tail_records: u32) -> Option<Step> {
    Compactor::new(Reader::new(dir, "gw"), tail_records).next().unwrap()
}

/// Makes and takes steps, at most so many. How many there were.
pub(in crate::store) fn compact(
    dir: &Path,
    writer: &mut Writer,
    tail_records: u32,
    most: usize,
) -> usize {
    let take = |step: Step| assert!(writer.take_step(0, &step).unwrap());
    std::iter::from_fn(|| next(dir, tail_records)).take(most).map(take).count()
}

/// A record of the flow of this port, with a rule that only some have.
fn record(port: u16) -> Record {
    let mut record = Record { end_reason: Some(EndReason::Idle), ..sample::record() };
    record.tuple.peer_port = port;
    record.first_seen_ms = i64::from(port);
    record.rule = (port.is_multiple_of(3)).then(|| format!("rule-{}", port % 2).into());
    record
}

/// `records` in transactions of ten.
fn store(records: u16) -> (tempfile::TempDir, Writer) {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
    let mut all: Vec<_> = (0..records).map(record).collect();
    for batch in all.chunks_mut(10) {
        writer.commit(0, batch, &Leaving::default()).unwrap();
    }
    (dir, writer)
}

fn ids(reader: &Reader) -> Vec<u64> {
    let mut ids = Vec::new();
    let sink = &mut |record: Record| {
        ids.push(record.record_id);
        ControlFlow::Continue(())
    };
    reader.records(&Filter::default(), 0, ALL, sink).unwrap();
    ids
}

fn conn(writer: &Writer) -> &Connection {
    match &writer.newest {
        Newest::Open(segment) => segment.conn(),
        other => panic!("{other:?}"),
    }
}

fn count(writer: &Writer, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    conn(writer).query_row(&sql, [], |row| row.get(0)).unwrap()
}

fn assert_whole(dir: &Path) {
    for one in verify_store(dir).unwrap() {
        assert!(one.problems.is_empty(), "{one:#?}");
    }
}

#[test]
fn the_oldest_rows_become_chunks_and_small_chunks_one() {
    let (dir, mut writer) = store(50);
    let tables = |writer: &Writer| (count(writer, "record"), count(writer, "chunk"));
    assert_eq!(compact(dir.path(), &mut writer, 20, 1), 1);
    assert_eq!(tables(&writer), (30, 1));
    assert_eq!(compact(dir.path(), &mut writer, 20, 1), 1);
    assert_eq!(tables(&writer), (10, 2));
    assert_eq!(compact(dir.path(), &mut writer, 20, 9), 1, "the two are one");
    assert_eq!(tables(&writer), (10, 1));
    assert_eq!(ids(&Reader::new(dir.path(), "gw")), (1..=50).collect::<Vec<_>>());
    assert_whole(dir.path());
    // The numbers go on also when there is no row.
    assert_eq!(compact(dir.path(), &mut writer, 10, 9), 1);
    assert_eq!(tables(&writer), (0, 2));
    drop(writer);
    let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
    assert_eq!(writer.last_record_id(), 50);
    let mut more = [record(60)];
    writer.commit(0, &mut more, &Leaving::default()).unwrap();
    assert_eq!(more[0].record_id, 51);
    assert_whole(dir.path());
}

#[test]
fn digests_become_fewer_as_they_become_more() {
    // Two steps are a chunk here, two chunks have a digest, and two of those become one.
    let (dir, mut writer) = store(190);
    compact(dir.path(), &mut writer, 10, usize::MAX);
    let extents = |conn: &Connection| -> Vec<(u64, u64)> {
        let extents = digests::list(conn, schema::MIGRATIONS.len()).unwrap();
        let ids = |extent: &digests::Extent| (*extent.ids.start(), *extent.ids.end());
        extents.iter().map(ids).map(|(a, b)| (a.cast_unsigned(), b.cast_unsigned())).collect()
    };
    // Nine chunks have twenty records each.
    assert_eq!(extents(conn(&writer)), [(1, 160)]);
    assert_whole(dir.path());
    writer.commit(86_400_000, &mut [record(200)], &Leaving::default()).unwrap();
    Keeper::new(dir.path(), Retention::default()).with_tail_records(10).run(86_400_000).unwrap();
    let over = Connection::open(dir.path().join("segments/1970-01-01.sqlite")).unwrap();
    assert_eq!(extents(&over), [(1, 190)], "a day that is over has one");
    assert_whole(dir.path());

    // One that says something else is found.
    over.execute("UPDATE digest SET window_start = window_start + 1", []).unwrap();
    let problems: Vec<_> =
        verify_store(dir.path()).unwrap().into_iter().flat_map(|one| one.problems).collect();
    assert!(problems[0].contains("a digest is not that of its chunks"), "{problems:?}");
}

#[test]
fn rows_that_come_twice_become_no_chunk() {
    let (_dir, writer) = store(1);
    let mut rows = Vec::new();
    step::read_rows(conn(&writer), 1, &mut Words::default(), &mut rows).unwrap();
    let row = |record_id| Row { record_id, ..rows[0] };
    assert!(step::encoded(&mut [row(7), row(8), row(9)]).is_ok());
    for ids in [[7, 7, 8], [7, 8, 8], [7, 9, 10], [7, 8, u64::MAX]] {
        let refused = step::encoded(&mut ids.map(row));
        assert!(matches!(refused, Err(MakeError::NotTheSame(_))), "{ids:?}");
    }
}

#[test]
fn a_record_is_the_same_in_either_form() {
    let (dir, mut writer) = store(40);
    let reader = Reader::new(dir.path(), "gw");
    let all = || {
        let mut all = Vec::new();
        let sink = &mut |record| {
            all.push(record);
            ControlFlow::Continue(())
        };
        reader.records(&Filter::default(), 0, ALL, sink).unwrap();
        all
    };
    let rows = all();
    compact(dir.path(), &mut writer, 13, 9);
    assert_eq!(count(&writer, "record"), 1);
    assert_eq!(all(), rows);
    let newest = &rows[5];
    let id = FlowId::new("gw", &newest.interface, &newest.tuple, newest.first_seen_ms);
    assert_eq!(reader.flow(id, ALL).unwrap().unwrap().0, rows[5..6]);
    assert_eq!(reader.flow(id, 3).unwrap(), None, "not yet");
}

#[test]
fn a_step_during_a_query_makes_no_difference_to_it() {
    let (dir, mut writer) = store(60);
    let reader = Reader::new(dir.path(), "gw");
    let mut seen = Vec::new();
    let sink = &mut |record: Record| {
        seen.push(record.record_id);
        if seen.len() == 5 {
            assert_eq!(compact(dir.path(), &mut writer, 20, 9), 4);
        }
        ControlFlow::Continue(())
    };
    reader.records(&Filter::default(), 0, ALL, sink).unwrap();
    assert_eq!(seen, (1..=60).collect::<Vec<_>>());
    assert_eq!(ids(&reader), seen);
}

#[test]
fn a_step_that_comes_late_changes_nothing() {
    let (dir, mut writer) = store(20);
    let late = [next(dir.path(), 20).unwrap(), next(dir.path(), 10).unwrap()];
    compact(dir.path(), &mut writer, 20, 1);
    let tables = (count(&writer, "record"), count(&writer, "chunk"), count(&writer, "word"));
    assert_eq!(tables, (0, 1, 2));
    for step in &late {
        assert!(!writer.take_step(0, step).unwrap());
    }
    let now = (count(&writer, "record"), count(&writer, "chunk"), count(&writer, "word"));
    assert_eq!(now, tables);
    // Nor in the segment of another day, which has other records.
    let late = {
        writer.commit(0, &mut [record(30)], &Leaving::default()).unwrap();
        next(dir.path(), 1).unwrap()
    };
    writer.commit(86_400_000, &mut [record(31)], &Leaving::default()).unwrap();
    assert!(!writer.take_step(86_400_000, &late).unwrap());
    assert_eq!(ids(&Reader::new(dir.path(), "gw")), (1..=22).collect::<Vec<_>>());
    assert_whole(dir.path());
}

#[test]
fn a_disk_that_takes_no_step_loses_nothing() {
    let (dir, mut writer) = store(10);
    let step = next(dir.path(), 10).unwrap();
    conn(&writer).pragma_update(None, "query_only", true).unwrap();
    let error = writer.take_step(0, &step).unwrap_err().to_string();
    assert!(error.contains("make the file system"), "{error}");
    assert_eq!((count(&writer, "record"), count(&writer, "chunk")), (10, 0));
    conn(&writer).pragma_update(None, "query_only", false).unwrap();
    assert!(writer.take_step(0, &step).unwrap());
    assert_eq!(ids(&Reader::new(dir.path(), "gw")), (1..=10).collect::<Vec<_>>());
}

#[test]
fn the_room_of_rows_is_the_next_ones() {
    let (dir, mut writer) = store(0);
    let pages = |writer: &Writer| {
        conn(writer).pragma_query_value(None, "page_count", |row| row.get::<_, i64>(0)).unwrap()
    };
    let mut sizes = Vec::new();
    for round in 0..8 {
        let mut batch: Vec<_> = (0..1_000).map(|port| record(round * 1_000 + port)).collect();
        writer.commit(0, &mut batch, &Leaving::default()).unwrap();
        compact(dir.path(), &mut writer, 1_000, 9);
        sizes.push(pages(&writer));
    }
    // Chunks of a thousand records take some pages, their rows take forty.
    let grown = sizes[7] - sizes[1];
    assert!(grown < 6 * 20, "{sizes:?}");
}

/// What makes a chunk wrong, and what is said of it.
const HARMS: [(&str, &str); 7] = [
    ("UPDATE chunk_column SET body = zeroblob(length(body)) WHERE place % 32 = 28", "checksum"),
    ("UPDATE chunk_column SET body = zeroblob(7) WHERE place % 32 = 5", "length"),
    ("DELETE FROM chunk_column WHERE place % 32 = 12", "a column is missing"),
    ("UPDATE chunk SET header = zeroblob(400)", "version 0"),
    ("UPDATE chunk SET header = substr(header, 1, length(header) - 1)", "checksum"),
    ("UPDATE chunk SET last_record_id = last_record_id + 1", "other records than it says"),
    ("DELETE FROM chunk; DELETE FROM chunk_column", "sums that are not those"),
];

#[test]
fn what_is_wrong_with_a_chunk_is_found() {
    for (sql, said) in HARMS {
        let (dir, mut writer) = store(20);
        compact(dir.path(), &mut writer, 10, 1);
        assert_whole(dir.path());
        conn(&writer).execute_batch(sql).unwrap();
        let told: Vec<String> =
            verify_store(dir.path()).unwrap().into_iter().flat_map(|one| one.problems).collect();
        let told = told.join("\n");
        assert!(told.contains(said), "{sql}: {told:?}");
        assert!(told.contains("restore") || told.contains("update flowd"), "{told:?}");
    }
}

#[test]
fn a_segment_with_a_bad_chunk_is_set_aside_and_what_goes_on_is_recorded_once() {
    let (dir, mut writer) = store(20);
    compact(dir.path(), &mut writer, 10, 1);
    conn(&writer).execute_batch(HARMS[0].0).unwrap();
    let reader = Reader::new(dir.path(), "gw").reporting(writer.reports());
    let error = reader.top(&Filter::default(), By::Rule, ALL).unwrap_err();
    assert!(matches!(error, ReadError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("checksum"), "{error}");
    let error = writer.commit(1, &mut [record(30)], &Leaving::default()).unwrap_err();
    assert!(matches!(error, WriteError::Damaged(_)), "{error}");
    writer.begin_anew(1, Vec::new(), HashSet::new()).unwrap();
    let mut next = [record(30)];
    writer.commit(1, &mut next, &Leaving::default()).unwrap();
    assert_eq!(next[0].record_id, 21, "no number comes twice");
    assert_eq!(ids(&reader), [21]);
}

#[test]
fn names_that_nobody_asks_for_are_not_read() {
    let (dir, mut writer) = store(20);
    compact(dir.path(), &mut writer, 10, 9);
    conn(&writer).execute_batch("ALTER TABLE peer RENAME TO elsewhere").unwrap();
    let reader = Reader::new(dir.path(), "gw");
    assert_eq!(reader.summary(&Filter::default(), ALL).unwrap().flows, 20);
    reader.top(&Filter::default(), By::Peer, ALL).unwrap_err();
}

#[test]
fn a_column_that_nobody_asks_for_is_not_read() {
    let (dir, mut writer) = store(20);
    compact(dir.path(), &mut writer, 10, 9);
    conn(&writer).execute_batch("DELETE FROM chunk_column").unwrap();
    let reader = Reader::new(dir.path(), "gw");
    let one = sample::record().counters;
    let all: Counters = (0..20).fold(Counters::default(), |sum, _| sum + one);
    assert_eq!(reader.summary(&Filter::default(), ALL).unwrap().counters, all, "headers have it");
    let later = Filter { since_ms: Some(60_001), ..Filter::default() };
    assert_eq!(reader.flows(&later, None, 9, ALL).unwrap(), [], "headers say so");
}
