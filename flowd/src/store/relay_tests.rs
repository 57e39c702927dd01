use std::{ops::ControlFlow, path::Path};

use super::MUCH;
use crate::{
    flows::{Filter, Record, sample},
    store::{Leash, Leaving, ReadError, Reader, Writer, step_tests::compact},
};

const ALL: u64 = u64::MAX >> 1;
/// Of each chunk: fewer than are much, and more.
const SIZES: [usize; 10] = [1, 2, 1, 3, 2, 3 * MUCH, 1, 3 * MUCH, 2, 1];

/// A store of chunks of these sizes that nobody joins, and some rows. Every other record is of an
/// even port.
fn store(sizes: &[usize]) -> (tempfile::TempDir, u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
    let mut count = 0;
    let records = |size: usize, count: &mut u64| -> Vec<Record> {
        let record = |at: usize| {
            let mut record = sample::record();
            record.tuple.remote_port = (*count + at as u64) as u16 % 2;
            record
        };
        let records = (0..size).map(record).collect();
        *count += size as u64;
        records
    };
    for size in sizes.iter().copied() {
        writer.commit(0, &mut records(size, &mut count), &Leaving::default()).unwrap();
        compact(dir.path(), &mut writer, size as u32, 1);
    }
    writer.commit(0, &mut records(3, &mut count), &Leaving::default()).unwrap();
    (dir, count)
}

fn ids(reader: &Reader, filter: &Filter) -> Result<Vec<u64>, ReadError> {
    let mut ids = Vec::new();
    let sink = &mut |record: Record| {
        ids.push(record.record_id);
        ControlFlow::Continue(())
    };
    reader.records(filter, 0, ALL, sink).map(|()| ids)
}

/// Whether somebody has the second thread while records are shown.
fn is_helped(reader: &Reader) -> bool {
    let mut is_taken = false;
    let sink = &mut |_| {
        is_taken |= reader.of_records.take().is_none();
        ControlFlow::Continue(())
    };
    reader.records(&Filter::default(), 0, ALL, sink).unwrap();
    is_taken
}

fn harm(dir: &Path, first: u64) {
    let path = dir.join("segments/1970-01-01.sqlite");
    let sql = "UPDATE chunk_column SET body = zeroblob(7) WHERE place = 32 * ? + 28";
    let conn = rusqlite::Connection::open(path).unwrap();
    assert_eq!(conn.execute(sql, [first.cast_signed()]).unwrap(), 1);
}

#[test]
fn two_threads_find_what_one_does_and_in_its_order() {
    let (dir, count) = store(&SIZES);
    let reader = Reader::new(dir.path(), "gw");
    let chunks = reader.opened(&Filter::default()).unwrap().next().unwrap().unwrap().1;
    assert_eq!(chunks.chunks(0, ALL).unwrap().len(), SIZES.len());
    drop(chunks);
    let odd = Filter { port: Some(1), ..Filter::default() };
    let asked = || {
        assert_eq!(ids(&reader, &Filter::default()).unwrap(), (1..=count).collect::<Vec<_>>());
        ids(&reader, &odd).unwrap()
    };
    let alone = {
        let _taken = reader.of_records.take().unwrap();
        asked()
    };
    assert!(alone.len() as u64 > count / 3 && alone.is_sorted());
    for _ in 0..20 {
        assert_eq!(asked(), alone);
    }
}

#[test]
fn the_second_thread_helps_unless_there_is_one_chunk_or_the_first_has_much() {
    let cases: [(&[usize], bool); 5] = [
        (&SIZES, true),
        (&[1, 1, 2 * MUCH], true),
        (&[1, 1], false),
        (&[2 * MUCH, 1, 1, 1], false),
        (&[], false),
    ];
    for (sizes, helps) in cases {
        let (dir, _) = store(sizes);
        assert_eq!(is_helped(&Reader::new(dir.path(), "gw")), helps, "{sizes:?}");
    }
}

#[test]
fn the_second_thread_ends_with_its_query_wherever_that_ends() {
    let (dir, count) = store(&SIZES);
    let reader = Reader::new(dir.path(), "gw");
    for most in 1..=count {
        let mut seen = 0;
        let sink = &mut |_| {
            seen += 1;
            if seen < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        reader.records(&Filter::default(), 0, ALL, sink).unwrap();
        assert_eq!(seen, most);
        assert!(reader.of_records.take().is_some());
    }
    let leash = Leash::new(std::time::Duration::from_secs(3_600));
    let held = reader.clone().on(leash.clone());
    let mut seen = 0;
    let sink = &mut |_| {
        seen += 1;
        leash.let_go();
        ControlFlow::Continue(())
    };
    let ended = held.records(&Filter::default(), 0, ALL, sink);
    assert!(matches!(ended, Err(ReadError::Abandoned)), "{ended:?}");
    assert!(seen < count);
    assert!(reader.of_records.take().is_some());
}

#[test]
fn a_chunk_that_is_damaged_is_told_behind_what_was_found_before() {
    let (dir, _) = store(&SIZES);
    // Of chunks beside each other one is the second thread's; each is the first that is damaged.
    for first in [8, 5, 4, 2] {
        harm(dir.path(), first);
        // Nothing is kept that it would find.
        let reader = Reader::new(dir.path(), "gw");
        let mut seen = Vec::new();
        let sink = &mut |record: Record| {
            seen.push(record.record_id);
            ControlFlow::Continue(())
        };
        let told = reader.records(&Filter::default(), 0, ALL, sink);
        assert!(matches!(told, Err(ReadError::Damaged { .. })), "{told:?}");
        assert_eq!(seen, (1..first).collect::<Vec<_>>());
        assert!(reader.of_records.take().is_some());
    }
}
