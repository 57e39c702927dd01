use std::{ops::ControlFlow, path::Path, sync::Arc, time::Instant};

use rusqlite::Connection;

use super::{Columns, IDLE, OfFile};
use crate::{
    chunk::{ColumnId, ColumnSet},
    flows::{Filter, Record, sample},
    store::{
        Leaving, Reader, Writer,
        chunks::{self, Stored},
        latest::FileId,
        step_tests::compact,
    },
};

const ALL: u64 = u64::MAX >> 1;
const FILE: &str = "segments/1970-01-01.sqlite";

/// A segment with at least so many chunks of such records.
fn filled(dir: &Path, records: u64, chunks: usize) -> Connection {
    let mut writer = Writer::open(dir, "gw", 0).unwrap();
    (0..records).for_each(|number| commit(&mut writer, number));
    compact(dir, &mut writer, 2, usize::MAX);
    writer.close();
    let conn = Connection::open(dir.join(FILE)).unwrap();
    assert!(chunks::count(&conn).unwrap().0 >= chunks);
    conn
}

fn commit(writer: &mut Writer, number: u64) {
    let mut record = Record { first_seen_ms: number.cast_signed(), ..sample::record() };
    record.tuple.remote_port = 1_000 + number as u16;
    writer.commit(0, &mut [record], &Leaving::default()).unwrap();
}

fn all() -> ColumnSet {
    ColumnId::ALL.iter().copied().collect()
}

/// What a query finds there, none of it loaded.
fn asked(conn: &Connection, columns: &Arc<Columns>, file: FileId) -> Vec<Stored> {
    let mut found = chunks::between(conn, 0, ALL).unwrap();
    let held = OfFile::new(columns.clone(), file, columns.allowance());
    found.iter_mut().for_each(|stored| stored.columns.clone_from(&held));
    found
}

/// The memory of what is kept.
fn bytes(columns: &Columns) -> usize {
    let held = columns.held();
    assert_eq!(
        held.bytes,
        held.columns.values().map(|(_, loaded)| loaded.most_bytes()).sum::<usize>()
    );
    held.bytes
}

#[test]
fn what_one_query_has_loaded_the_next_does_not_read_while_it_is_not_idle() {
    let dir = tempfile::tempdir().unwrap();
    let conn = filled(dir.path(), 2, 1);
    let (columns, file) = (Arc::new(Columns::default()), FileId::sample(1));
    let rows = |stored: &Stored| format!("{:?}", stored.chunk.all_rows().unwrap());
    let first = asked(&conn, &columns, file).remove(0);
    first.need(&conn, all()).unwrap();
    conn.execute("DELETE FROM chunk_column", []).unwrap();
    let next = asked(&conn, &columns, file).remove(0);
    next.need(&conn, all()).unwrap();
    assert_eq!(rows(&next), rows(&first));
    // Another file has others.
    let other = asked(&conn, &columns, FileId::sample(2)).remove(0);
    other.need(&conn, all()).unwrap_err();
    columns.forget_idle_at(Instant::now());
    assert!(bytes(&columns) > 0);
    columns.forget_idle_at(Instant::now() + IDLE);
    assert_eq!(bytes(&columns), 0);
    asked(&conn, &columns, file).remove(0).need(&conn, all()).unwrap_err();
}

#[test]
fn a_column_of_a_chunk_that_has_others_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let conn = filled(dir.path(), 10, 2);
    let (columns, file) = (Arc::new(Columns::default()), FileId::sample(1));
    let mut found = asked(&conn, &columns, file);
    let (mut other, one) = (found.swap_remove(1), found.swap_remove(0));
    one.need(&conn, all()).unwrap();
    // Somebody has put another chunk in the place of the first.
    (other.first, other.last) = (one.first, one.last);
    other.need(&conn, all()).unwrap_err();
}

#[test]
fn what_is_kept_is_bounded_and_of_it_what_was_asked_for_last() {
    let dir = tempfile::tempdir().unwrap();
    let conn = filled(dir.path(), 126, 8);
    let file = FileId::sample(1);
    let of_one = {
        let columns = Arc::new(Columns::default());
        asked(&conn, &columns, file)[0].need(&conn, all()).unwrap();
        bytes(&columns)
    };
    let columns = Arc::new(Columns { most_bytes: 6 * of_one, ..Columns::default() });
    // One query leaves three fourths of it at most, however many files it reads.
    let allowance = columns.allowance();
    for number in [1, 2] {
        let held = OfFile::new(columns.clone(), FileId::sample(number), allowance.clone());
        for stored in &mut chunks::between(&conn, 0, ALL).unwrap() {
            stored.columns.clone_from(&held);
            stored.need(&conn, all()).unwrap();
        }
    }
    assert!(
        (3 * of_one..=9 * of_one / 2).contains(&bytes(&columns)),
        "{} {of_one}",
        bytes(&columns)
    );
    let ask = |place: usize| asked(&conn, &columns, file)[place].need(&conn, all());
    // The first one is not there to be read again.
    let second = asked(&conn, &columns, file)[1].first;
    conn.execute("DELETE FROM chunk_column WHERE place < 32 * ?", [second.cast_signed()]).unwrap();
    for place in [0, 5, 0, 6, 0, 7, 0, 4, 0, 3, 0, 2] {
        ask(place).unwrap();
        assert!(bytes(&columns) <= 6 * of_one);
    }
    conn.execute("DELETE FROM chunk_column", []).unwrap();
    assert!(ask(0).is_ok() && ask(2).is_ok(), "asked for last");
    assert!(ask(1).is_err() && ask(5).is_err(), "not asked for again");
}

#[test]
fn who_reads_everything_again_and_again_drives_out_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let conn = filled(dir.path(), 126, 8);
    let of_one = {
        let columns = Arc::new(Columns::default());
        asked(&conn, &columns, FileId::sample(1))[0].need(&conn, all()).unwrap();
        bytes(&columns)
    };
    let columns = Arc::new(Columns { most_bytes: 6 * of_one, ..Columns::default() });
    asked(&conn, &columns, FileId::sample(1))[0].need(&conn, all()).unwrap();
    for _again in 0..3 {
        for stored in asked(&conn, &columns, FileId::sample(2)) {
            stored.need(&conn, all()).unwrap();
        }
    }
    conn.execute("DELETE FROM chunk_column", []).unwrap();
    asked(&conn, &columns, FileId::sample(1))[0].need(&conn, all()).unwrap();
}

#[test]
fn what_two_have_loaded_at_once_is_kept_once() {
    let dir = tempfile::tempdir().unwrap();
    let conn = filled(dir.path(), 2, 1);
    let (columns, file) = (Arc::new(Columns::default()), FileId::sample(1));
    let [one, other] = [(); 2].map(|()| asked(&conn, &columns, file).remove(0));
    let read = |missing| {
        // Somebody else comes to it meanwhile.
        other.need(&conn, all()).unwrap();
        one.read(&conn, missing)
    };
    one.need_through(all(), read).unwrap();
    let twice = bytes(&columns);
    columns.forget_idle_at(Instant::now() + IDLE);
    assert_eq!(bytes(&columns), 0);
    asked(&conn, &columns, file).remove(0).need(&conn, all()).unwrap();
    assert_eq!(bytes(&columns), twice);
}

#[test]
fn a_reader_finds_what_is_there_whatever_has_become_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
    let reader = Reader::new(dir.path(), "gw");
    let found = |reader: &Reader| {
        let mut ids = Vec::new();
        let filter = Filter { min_bytes: Some(1), ..Filter::default() };
        let show = &mut |record: Record| {
            ids.push((record.record_id, record.tuple.remote_port, record.counters));
            ControlFlow::Continue(())
        };
        reader.records(&filter, 0, ALL, show).unwrap();
        (ids, reader.summary(&filter, ALL).unwrap(), reader.flows(&filter, None, 5, ALL).unwrap())
    };
    for number in 0..24 {
        commit(&mut writer, number);
        for _ in 0..2 {
            compact(dir.path(), &mut writer, 2, 1);
            assert_eq!(found(&reader), found(&Reader::new(dir.path(), "gw")));
        }
    }
    let before = found(&reader);
    let conn = Connection::open(dir.path().join(FILE)).unwrap();
    conn.execute("DELETE FROM chunk_column", []).unwrap();
    assert_eq!(found(&reader), before, "it was kept");
}
