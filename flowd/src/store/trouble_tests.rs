//! Disks and files that fail.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::Path,
};

use rusqlite::Connection;

use super::{
    Leaving, Reader, State, Synchronous, WriteError, Writer, opening::peek, salvage, verify_store,
    writer::Newest,
};
use crate::flows::{Counters, EndReason, Filter, Record, sample};

const DAY: i64 = 86_400_000;

/// A record of the flow of this port, that has done `done` packets before and does one more.
fn record(port: u16, done: u64) -> Record {
    let mut record = sample::record();
    let packets =
        |rx_packets| Counters { rx_packets, rx_bytes: rx_packets * 60, ..Counters::default() };
    record.tuple.peer_port = port;
    record.window_start_ms = i64::try_from(done).unwrap();
    record.window_end_ms = record.window_start_ms + 1;
    (record.counters, record.total) = (packets(1), packets(done + 1));
    record
}

fn store(records: u16) -> (tempfile::TempDir, Writer) {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
    let mut batch: Vec<_> = (0..records).map(|port| record(port, 0)).collect();
    writer.commit(0, &mut batch, &Leaving::default()).unwrap();
    (dir, writer)
}

fn conn(writer: &Writer) -> &Connection {
    match &writer.newest {
        Newest::Open(segment) => segment.conn(),
        other => panic!("{other:?}"),
    }
}

/// Overwrites a page of the table in the file itself, below SQLite.
fn damage(path: &Path, table: &str) {
    let page: u64 = {
        let conn = Connection::open(path).unwrap();
        conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?";
        conn.query_row(sql, [table], |row| row.get::<_, i64>(0)).unwrap().cast_unsigned()
    };
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0xa5; 4096], (page - 1) * 4096).unwrap();
}

fn files(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join("segments")).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.ends_with("-wal") && !name.ends_with("-shm"));
    names.sort();
    names
}

fn whole(dir: &Path) {
    for one in verify_store(dir).unwrap() {
        assert!(one.problems.is_empty(), "{one:#?}");
    }
}

#[test]
fn a_full_disk_changes_nothing_and_is_recovered_from() {
    let (dir, mut writer) = store(10);
    let pages: i64 =
        conn(&writer).pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    conn(&writer).pragma_update(None, "max_page_count", pages).unwrap();
    let mut many: Vec<_> = (100..2_000).map(|port| record(port, 0)).collect();
    let error = writer.commit(0, &mut many, &Leaving::default()).unwrap_err().to_string();
    assert!(error.contains("make room on the disk"), "{error}");
    assert!(many.iter().all(|record| record.record_id == 0));
    assert_eq!((writer.last_record_id(), writer.leftovers().unwrap().len()), (10, 10));
    conn(&writer).pragma_update(None, "max_page_count", 1 << 20).unwrap();
    writer.commit(0, &mut many, &Leaving::default()).unwrap();
    assert_eq!(many[0].record_id, 11);
    whole(dir.path());
}

#[test]
fn a_read_only_segment_is_told_with_its_remedy_and_tried_again() {
    let (_dir, mut writer) = store(1);
    conn(&writer).pragma_update(None, "query_only", true).unwrap();
    let error = writer.commit(0, &mut [record(7, 0)], &Leaving::default()).unwrap_err().to_string();
    assert!(error.contains("make the file system"), "{error}");
    conn(&writer).pragma_update(None, "query_only", false).unwrap();
    writer.commit(0, &mut [record(7, 0)], &Leaving::default()).unwrap();
    assert_eq!(writer.last_record_id(), 2);
}

/// Else the next daemon would take what is recorded now for what was recorded before the boot, and
/// record it again.
#[test]
fn a_state_that_a_failing_disk_refused_goes_with_the_next_records() {
    let (dir, mut writer) = store(1);
    let told = |boot: &str| State { boot_id: Some(boot.to_owned()), ..State::default() };
    writer.set_state(0, &told("before")).unwrap();
    conn(&writer).pragma_update(None, "query_only", true).unwrap();
    writer.set_state(0, &told("now")).unwrap_err();
    assert_eq!(writer.state().unwrap().boot_id.as_deref(), Some("before"));
    conn(&writer).pragma_update(None, "query_only", false).unwrap();
    writer.commit(0, &mut [record(7, 0)], &Leaving::default()).unwrap();
    drop(writer);
    let writer = Writer::open(dir.path(), "gw", 0).unwrap();
    assert_eq!(writer.state().unwrap().boot_id.as_deref(), Some("now"));
}

#[test]
fn a_segment_that_is_damaged_while_it_is_written_is_set_aside_and_another_begun() {
    let (dir, mut writer) = store(2_000);
    let ledger = writer.leftovers().unwrap();
    let path = dir.path().join("segments/1970-01-01.sqlite");
    conn(&writer).execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA cache_size = 1").unwrap();
    damage(&path, "record");
    let damaged = fs::read(&path).unwrap();
    let error = writer.commit(5, &mut [record(0, 1)], &Leaving::default()).unwrap_err();
    assert!(matches!(error, WriteError::Damaged(_)), "{error}");
    assert!(writer.wants_ledger());
    let error = writer.commit(5, &mut [record(0, 1)], &Leaving::default()).unwrap_err();
    assert!(matches!(error, WriteError::LedgerWanted), "{error}");
    assert_eq!(files(dir.path()), ["1970-01-01.corrupt-5"]);

    writer.begin_anew(6, ledger, HashSet::new()).unwrap();
    let mut next = [record(0, 1)];
    writer.commit(6, &mut next, &Leaving::default()).unwrap();
    assert_eq!(next[0].record_id, 2_001);
    assert_eq!(writer.leftovers().unwrap().len(), 2_000);
    assert_eq!(fs::read(dir.path().join("segments/1970-01-01.corrupt-5")).unwrap(), damaged);
    assert_eq!(writer.set_aside().len(), 1);
    let reader = Reader::new(dir.path(), "gw");
    assert_eq!(reader.summary(&Filter::default(), 1 << 40).unwrap().counters.rx_packets, 1);
    writer.close();

    let writer = Writer::open(dir.path(), "gw", 7).unwrap();
    assert_eq!((writer.last_record_id(), writer.leftovers().unwrap().len()), (2_001, 2_000));
}

#[test]
fn a_crash_between_setting_aside_and_beginning_anew_loses_no_ledger() {
    let (dir, mut writer) = store(20);
    writer.commit(DAY, &mut [record(3, 1)], &Leaving::default()).unwrap();
    conn(&writer).execute_batch("PRAGMA wal_autocheckpoint = 0").unwrap();
    writer.commit(DAY, &mut [record(4, 1)], &Leaving::default()).unwrap();
    writer.set_newest_aside(DAY, "a test".to_owned()).unwrap();
    let left = "1970-01-02.corrupt-86400000";
    assert_eq!(files(dir.path()), ["1970-01-01.sqlite", left]);
    assert!(dir.path().join("segments").join(format!("{left}-wal")).exists(), "its log goes along");
    drop(writer);

    let writer = Writer::open(dir.path(), "gw", DAY).unwrap();
    let ledger = writer.leftovers().unwrap();
    let done: u64 = ledger.iter().map(|record| record.total.rx_packets).sum();
    assert_eq!((writer.last_record_id(), ledger.len(), done), (22, 20, 22));
}

#[test]
fn a_log_that_was_left_behind_is_no_other_segments() {
    let (dir, mut writer) = store(3);
    let segments = dir.path().join("segments");
    let path = segments.join("1970-01-01.sqlite");
    // As if flowd had been killed in the middle of setting it aside.
    fs::rename(&path, segments.join("1970-01-01.corrupt-5")).unwrap();
    writer.newest = Newest::Wanted { day: "1970-01-01".to_owned(), gaps: <_>::default() };
    drop(writer);
    let log = segments.join("1970-01-01.sqlite-wal");
    fs::write(&log, b"left").unwrap();
    fs::hard_link(&log, segments.join("1970-01-01.corrupt-5-wal")).unwrap();
    let mut writer = Writer::open(dir.path(), "gw", 9).unwrap();
    assert_eq!(fs::read(segments.join("1970-01-01.corrupt-5-wal")).unwrap(), b"left");
    assert_ne!(fs::read(&log).unwrap_or_default(), b"left");
    writer.commit(9, &mut [record(9, 0)], &Leaving::default()).unwrap();
}

#[test]
fn a_damaged_segment_is_set_aside_at_start_with_what_can_be_read_carried_over() {
    // What is damaged, and the ledger that is left.
    for (table, expected) in [("record", 2_000), ("open_flow", 0), ("interface", 0), ("state", 0)] {
        let (dir, mut writer) = store(10);
        let mut batch: Vec<_> = (0..2_000).map(|port| record(port, 1)).collect();
        writer.commit(DAY, &mut batch, &Leaving::default()).unwrap();
        writer.close();
        damage(&dir.path().join("segments/1970-01-02.sqlite"), table);
        let mut writer = Writer::open(dir.path(), "gw", DAY + 1).unwrap();
        assert_eq!(writer.leftovers().unwrap().len(), expected, "{table}");
        assert_eq!(writer.set_aside().len(), 1);
        assert_eq!(writer.set_aside()[0].has_ledger, expected > 0, "{table}");
        let names = ["1970-01-01.sqlite", "1970-01-02.corrupt-86400001", "1970-01-02.sqlite"];
        assert_eq!(files(dir.path()), names);
        let mut next = [record(7_000, 0)];
        writer.commit(DAY + 1, &mut next, &Leaving::default()).unwrap();
        assert_eq!(next[0].record_id, 2_011, "{table}: no number comes twice");
    }
}

#[test]
fn a_file_that_is_no_database_is_set_aside() {
    let (dir, writer) = store(3);
    writer.close();
    let path = dir.path().join("segments/1970-01-01.sqlite");
    fs::write(&path, b"no database".repeat(999)).unwrap();
    let writer = Writer::open(dir.path(), "gw", 1).unwrap();
    assert_eq!(files(dir.path()), ["1970-01-01.corrupt-1", "1970-01-01.sqlite"]);
    assert!(!writer.set_aside()[0].has_ledger);
    let wrong = verify_store(dir.path()).unwrap();
    assert!(wrong.iter().any(|one| one.problems.iter().any(|p| p.contains("set aside"))));
}

#[test]
fn a_segment_that_somebody_removes_is_followed_by_another_with_the_ledger() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 3] = [
        ("the file", |dir| fs::remove_file(dir.join("segments/1970-01-01.sqlite")).unwrap()),
        ("everything", |dir| fs::remove_dir_all(dir).unwrap()),
        ("another file", |dir| {
            let path = dir.join("segments/1970-01-01.sqlite");
            fs::copy(&path, dir.join("copy")).unwrap();
            fs::rename(dir.join("copy"), &path).unwrap();
        }),
    ];
    for (what, harm) in harms {
        let (dir, mut writer) = store(30);
        harm(dir.path());
        let mut next = [record(5, 1)];
        writer.commit(1, &mut next, &Leaving::default()).unwrap();
        assert_eq!(next[0].record_id, 31, "{what}");
        let ledger = writer.leftovers().unwrap();
        let done: u64 = ledger.iter().map(|record| record.total.rx_packets).sum();
        assert_eq!((ledger.len(), done), (30, 31), "{what}");
        assert!(!writer.set_aside().is_empty(), "{what}");
        assert!(Writer::open(dir.path(), "gw", 1).is_err(), "{what}: the lock holds");
        writer.close();
        let writer = Writer::open(dir.path(), "gw", 2).unwrap();
        assert_eq!((writer.last_record_id(), writer.leftovers().unwrap().len()), (31, 30));
    }
}

#[test]
fn a_day_that_cannot_begin_leaves_the_day_before_as_it_is() {
    let (dir, mut writer) = store(3);
    let next = dir.path().join("segments/1970-01-02.sqlite");
    fs::create_dir(&next).unwrap();
    for _ in 0..3 {
        writer.commit(DAY, &mut [record(1, 1)], &Leaving::default()).unwrap_err();
        assert_eq!(writer.leftovers().unwrap().len(), 3);
    }
    fs::remove_dir(&next).unwrap();
    // A newer flowd's file stays as it is.
    Connection::open(&next)
        .and_then(|conn| conn.pragma_update(None, "application_id", 0x666c_7764).map(|()| conn))
        .and_then(|conn| conn.pragma_update(None, "user_version", 99))
        .unwrap();
    let newer = fs::read(&next).unwrap();
    let error =
        writer.commit(DAY, &mut [record(1, 1)], &Leaving::default()).unwrap_err().to_string();
    assert!(error.contains("update flowd"), "{error}");
    assert_eq!(fs::read(&next).unwrap(), newer);
    // What is no database at all is out of the way.
    fs::write(&next, b"no database".repeat(999)).unwrap();
    let mut record = [record(1, 1)];
    writer.commit(DAY, &mut record, &Leaving::default()).unwrap();
    assert_eq!((record[0].record_id, writer.leftovers().unwrap().len()), (4, 3));
    let names = ["1970-01-01.sqlite", "1970-01-02.corrupt-86400000", "1970-01-02.sqlite"];
    assert_eq!(files(dir.path()), names);
}

#[test]
fn a_day_that_was_only_half_begun_before_a_crash_inherits_all_the_same() {
    let (dir, writer) = store(3);
    writer.close();
    let next = dir.path().join("segments/1970-01-02.sqlite");
    for content in [Vec::new(), {
        let conn = Connection::open(&next).unwrap();
        conn.pragma_update(None, "journal_mode", "wal").unwrap();
        drop(conn);
        fs::read(&next).unwrap()
    }] {
        fs::write(&next, content).unwrap();
        for day in [0, DAY] {
            let writer = Writer::open(dir.path(), "gw", day).unwrap();
            assert_eq!((writer.last_record_id(), writer.leftovers().unwrap().len()), (3, 3));
            writer.close();
        }
    }
}

#[test]
fn everything_can_be_read_where_nothing_can_be_written() {
    let (dir, mut writer) = store(5);
    let segments = dir.path().join("segments");
    // With a log, and without.
    let carried = peek(&segments).unwrap();
    assert_eq!((carried.ledger.len(), carried.last_record_id), (5, 5));
    writer.commit(DAY, &mut [], &Leaving::default()).unwrap();
    let carried = peek(&segments).unwrap();
    assert_eq!(
        (carried.ledger.len(), carried.last_record_id),
        (5, 5),
        "a segment without records inherits them"
    );
    let state = writer.state().unwrap();
    writer.close();
    let carried = peek(&segments).unwrap();
    assert_eq!((carried.ledger.len(), carried.last_record_id, carried.state), (5, 5, state));
    assert_eq!(peek(&dir.path().join("nothing")).unwrap().last_record_id, 0);
    let odd = dir.path().join("odd ?#%.sqlite");
    fs::copy(segments.join("1970-01-01.sqlite"), &odd).unwrap();
    assert_eq!(salvage::peek(&odd).unwrap().unwrap().last_record_id, 5);
}

#[test]
fn an_older_segment_that_a_query_finds_damaged_is_set_aside_by_the_next_write() {
    let (dir, mut writer) = store(2_000);
    writer.commit(DAY, &mut [record(1, 1)], &Leaving::default()).unwrap();
    damage(&dir.path().join("segments/1970-01-01.sqlite"), "record");
    let reader = Reader::new(dir.path(), "gw").reporting(writer.reports());
    let error = reader.summary(&Filter::default(), 1 << 40).unwrap_err().to_string();
    assert!(error.contains("1970-01-01") && error.contains("sets it aside"), "{error}");
    writer.beat(DAY, false).unwrap();
    assert_eq!(files(dir.path()), ["1970-01-01.corrupt-86400000", "1970-01-02.sqlite"]);
    assert_eq!(reader.summary(&Filter::default(), 1 << 40).unwrap().counters.rx_packets, 1);
    assert_eq!(writer.leftovers().unwrap().len(), 2_000, "the ledger is in the newest one");
}

#[test]
fn a_newest_segment_that_a_query_finds_damaged_gets_a_new_ledger() {
    let (dir, mut writer) = store(2_000);
    conn(&writer).execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    damage(&dir.path().join("segments/1970-01-01.sqlite"), "record");
    let reader = Reader::new(dir.path(), "gw").reporting(writer.reports());
    reader.summary(&Filter::default(), 1 << 40).unwrap_err();
    let error = writer.beat(1, false).unwrap_err();
    assert!(matches!(error, WriteError::Damaged(_)), "{error}");
    writer.begin_anew(1, Vec::new(), HashSet::new()).unwrap();
    writer.beat(1, false).unwrap();
}

#[test]
fn a_file_has_its_mode_and_its_promise() {
    let (dir, writer) = store(1);
    let writer = writer.with_synchronous(Synchronous::Full).unwrap();
    let level = |writer: &Writer| {
        conn(writer).pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!(level(&writer), 2);
    let path = dir.path().join("segments/1970-01-01.sqlite");
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o640);
    let mut writer = writer;
    writer
        .commit(
            DAY,
            &mut [Record { end_reason: Some(EndReason::Idle), ..record(0, 1) }],
            &Leaving::default(),
        )
        .unwrap();
    assert_eq!(level(&writer), 2, "also on the next day");
}

/// A file that a crash left in the middle of a write that went without a log: when a segment is begun
/// or closed.
#[test]
fn what_a_crash_left_half_done_without_a_log_is_undone_at_the_start() {
    let (dir, writer) = store(3);
    writer.close();
    let path = dir.path().join("segments/1970-01-01.sqlite");
    let journal = path.with_extension("sqlite-journal");
    let conn = Connection::open(&path).unwrap();
    let _mode: String =
        conn.query_row("PRAGMA journal_mode = delete", [], |row| row.get(0)).unwrap();
    let spill = "PRAGMA cache_size = 5; BEGIN IMMEDIATE; CREATE TABLE half (done); \
                 WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 999) \
                 INSERT INTO half SELECT randomblob(999) FROM n";
    conn.execute_batch(spill).unwrap();
    let left = [&path, &journal].map(|file| fs::read(file).unwrap());
    conn.execute_batch("ROLLBACK").unwrap();
    drop(conn);
    for (file, left) in [&path, &journal].into_iter().zip(left) {
        fs::write(file, left).unwrap();
    }
    let reader = Reader::new(dir.path(), "gw");
    let error = reader.summary(&Filter::default(), 3).unwrap_err();
    assert!(error.to_string().contains("readonly"), "{error}");
    let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
    assert!(!journal.exists());
    writer.commit(0, &mut [record(9, 0)], &Leaving::default()).unwrap();
    assert_eq!(reader.summary(&Filter::default(), 4).unwrap().flows, 4);
}
