use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use super::{Opened, Reached, ReadError, Reader};
use crate::{
    flows::{Filter, Record},
    store::{
        Leaving, Writer,
        reader::tests::{ended, records_of},
        step_tests::compact,
    },
};

const DAY_MS: i64 = 86_400_000;

/// Three days, a record of a flow that has ended each.
fn three_days(dir: &Path) -> [PathBuf; 3] {
    let life = |day: i64| ended(day * DAY_MS + 60_000, vec![(60_000, 1)]);
    let mut writer = Writer::open(dir, "gw", 0).unwrap();
    for day in 0..3 {
        let mut records = records_of(day as u16, &life(day));
        writer.commit((day + 1) * DAY_MS - 1, &mut records, &Leaving::default()).unwrap();
    }
    ["1970-01-01", "1970-01-02", "1970-01-03"].map(|day| dir.join(format!("segments/{day}.sqlite")))
}

#[test]
fn a_day_that_goes_behind_what_was_read_is_told() {
    let all = Filter::default();
    for gone in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let days = three_days(dir.path());
        let reader = Reader::new(dir.path(), "gw");
        let mut seen = Vec::new();
        let told = reader.records(&all, 0, 9, &mut |record| {
            seen.push(record.record_id);
            fs::remove_file(&days[gone]).unwrap_or(());
            ControlFlow::Continue(())
        });
        assert!(matches!(told, Err(ReadError::Removed)), "{told:?}, {seen:?}");
        assert_eq!(seen.len(), gone, "what comes behind the hole is not shown");
    }
}

#[test]
fn a_day_that_goes_when_it_was_read_or_before_is_not_missed() {
    let dir = tempfile::tempdir().unwrap();
    let days = three_days(dir.path());
    let reader = Reader::new(dir.path(), "gw");
    let paths = Vec::from(days.clone());
    fs::remove_file(&days[0]).unwrap();
    let opened = Opened::new(&reader, paths);
    let found: Vec<_> = opened.map(|opened| opened.unwrap().0).collect();
    assert_eq!(found, days[1..]);
    let mut seen = Vec::new();
    let read = reader.records(&Filter::default(), 0, 9, &mut |record| {
        seen.push(record.record_id);
        fs::remove_file(&days[1]).unwrap_or(());
        ControlFlow::Continue(())
    });
    read.unwrap();
    assert_eq!(seen, [2, 3]);
}

#[test]
fn of_the_newest_first_an_older_one_that_goes_is_missed_only_before_others() {
    for (gone, is_hole) in [(0, false), (1, true)] {
        let dir = tempfile::tempdir().unwrap();
        let days = three_days(dir.path());
        let reader = Reader::new(dir.path(), "gw");
        let mut opened = reader.opened(&Filter::default()).unwrap().newest_first();
        assert_eq!(opened.next().unwrap().unwrap().0, days[2]);
        fs::remove_file(&days[gone]).unwrap();
        let rest: Vec<_> = opened.map(|opened| opened.map(|(path, _)| path)).collect();
        if is_hole {
            assert!(matches!(rest[0], Err(ReadError::Removed)), "{rest:?}");
        } else {
            let rest: Vec<_> = rest.into_iter().map(Result::unwrap).collect();
            assert_eq!(rest, days[1..2]);
        }
    }
}

#[test]
fn the_newest_flows_are_found_without_the_days_of_long_ago() {
    let dir = tempfile::tempdir().unwrap();
    let days = three_days(dir.path());
    let reader = Reader::new(dir.path(), "gw");
    let flows = |limit| {
        let found = reader.flows(&Filter::default(), None, limit, 9);
        found.map(|flows| flows.iter().map(|(flow, _)| flow.newest.record_id).collect::<Vec<_>>())
    };
    assert_eq!(flows(9).unwrap(), [3, 2, 1]);
    assert_eq!(flows(1).unwrap(), [3]);
    // It is not even looked at, unless it may have one of them.
    fs::write(&days[0], "no database").unwrap();
    assert_eq!(flows(1).unwrap(), [3]);
    assert!(flows(3).is_err());
}

#[test]
fn of_the_day_before_no_more_is_read_than_flows_of_the_page_may_have() {
    let dir = tempfile::tempdir().unwrap();
    let life = |day: i64| ended(day * DAY_MS + 60_000, vec![(60_000, 1)]);
    let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
    for day in 0..2 {
        let mut records = records_of(day as u16, &life(day));
        writer.commit((day + 1) * DAY_MS - 1, &mut records, &Leaving::default()).unwrap();
        assert_eq!(compact(dir.path(), &mut writer, 1, usize::MAX), 1);
    }
    let conn = rusqlite::Connection::open(dir.path().join("segments/1970-01-01.sqlite")).unwrap();
    let sql = "UPDATE chunk_column SET body = zeroblob(7) WHERE place % 32 >= 10";
    assert!(conn.execute(sql, []).unwrap() > 0);
    let reader = Reader::new(dir.path(), "gw");
    let flows = |limit| reader.flows(&Filter::default(), None, limit, 9).map(|flows| flows.len());
    assert_eq!(flows(1).unwrap(), 1);
    assert!(flows(2).is_err());
}

#[test]
fn a_reader_that_pauses_is_told_that_the_day_went_in_which_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let days = three_days(dir.path());
    let reader = Reader::new(dir.path(), "gw");
    let all = Filter::default();
    let mut reached = Reached::new(0);
    let next = |reached: &mut Reached| {
        let mut id = 0;
        let one = &mut |record: Record| {
            id = record.record_id;
            ControlFlow::Break(())
        };
        reader.records_on(&all, reached, 9, one).map(|()| id)
    };
    assert_eq!(next(&mut reached).unwrap(), 1);
    assert_eq!(next(&mut reached).unwrap(), 2);
    fs::remove_file(&days[0]).unwrap();
    assert_eq!(next(&mut reached.clone()).unwrap(), 3, "it is past that one");
    fs::remove_file(&days[1]).unwrap();
    let told = next(&mut reached);
    assert!(matches!(told, Err(ReadError::Removed)), "{told:?}");
}
