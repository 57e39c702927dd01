//! Days that go, and what stays of them.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use rusqlite::Connection;

use super::{
    Keeper, Kept, Leaving, MaxBytes, Reader, Retention, SegmentState, Writer, totals, verify_files,
    verify_store,
};
use crate::flows::{Counters, DayTotal, EndReason, Filter, Record, Verdict, sample};

const DAY: i64 = 86_400_000;

fn record(port: u16, verdict: Verdict, end_reason: Option<EndReason>) -> Record {
    let mut record = Record { verdict, end_reason, ..sample::record() };
    record.tuple.peer_port = port;
    record
}

/// A store with a flow that lives for all `days`, and one a day that does not.
fn store(days: i64) -> (tempfile::TempDir, Writer) {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
    for day in 0..days {
        let mut long = record(1, Verdict::Allow, None);
        (long.window_start_ms, long.window_end_ms) = (day, day + 1);
        let times = u64::try_from(day).unwrap() + 1;
        let one = long.counters;
        long.total = (1..times).fold(one, |sum, _| sum + one);
        let ended = record(2, Verdict::Deny, Some(EndReason::Idle));
        let ended = Record { first_seen_ms: day * DAY, ..ended };
        writer.commit(day * DAY, &mut [long, ended], &Leaving::default()).unwrap();
    }
    (dir, writer)
}

fn keeper(dir: &Path, days: u32, max_bytes: MaxBytes) -> Keeper {
    Keeper::new(dir, Retention { days, max_bytes })
}

fn states(dir: &Path) -> Vec<(String, SegmentState, u64, u64)> {
    let list = Reader::new(dir, "gw").segments().unwrap();
    list.into_iter().map(|s| (s.day, s.state, s.records, s.flows)).collect()
}

fn row(day: &str, state: SegmentState, flows: u64) -> (String, SegmentState, u64, u64) {
    (day.to_owned(), state, 2, flows)
}

#[test]
fn a_day_that_is_over_is_sealed_and_can_be_handed_over_alone() {
    let (dir, writer) = store(2);
    keeper(dir.path(), 0, MaxBytes::None).run(2 * DAY).unwrap();
    let path = dir.path().join("segments/1970-01-01.sqlite");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o440);
    assert!(!dir.path().join("segments/1970-01-01.sqlite-wal").exists());
    let expected =
        [row("1970-01-01", SegmentState::Sealed, 2), row("1970-01-02", SegmentState::Open, 1)];
    assert_eq!(states(dir.path()), expected);
    let copy = tempfile::tempdir().unwrap();
    let alone = copy.path().join("evidence.sqlite");
    fs::copy(&path, &alone).unwrap();
    let found = verify_files(&[alone]);
    assert!(found[0].problems.is_empty() && found[0].is_sealed, "{found:?}");
    assert_eq!((found[0].records, found[0].record_ids), (2, Some((1, 2))));
    drop(writer);
    // The next daemon leaves it sealed.
    let writer = Writer::open(dir.path(), "gw", 2 * DAY).unwrap();
    assert_eq!(writer.leftovers().unwrap().len(), 1);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o440);
}

#[test]
fn the_oldest_days_go_and_their_sums_stay() {
    let (dir, mut writer) = store(5);
    assert_eq!(keeper(dir.path(), 2, MaxBytes::None).run(4 * DAY).unwrap().removed, 2);
    let expected = [
        row("1970-01-01", SegmentState::Removed, 2),
        row("1970-01-02", SegmentState::Removed, 1),
        row("1970-01-03", SegmentState::Sealed, 1),
        row("1970-01-04", SegmentState::Sealed, 1),
        row("1970-01-05", SegmentState::Open, 1),
    ];
    assert_eq!(states(dir.path()), expected);
    let list = Reader::new(dir.path(), "gw").segments().unwrap();
    let mut sum = Counters::default();
    list.iter().for_each(|segment| sum += segment.counters);
    assert_eq!((sum.rx_packets, sum.tx_bytes), (20, 600), "no packet is counted twice or lost");
    assert_eq!(list[1].record_ids, Some((3, 4)));
    assert_eq!(list[1].sha256.as_ref().unwrap().len(), 64);
    let totals = Reader::new(dir.path(), "gw").day_totals(None, None).unwrap();
    let mut sum = Counters::default();
    totals.iter().for_each(|total| sum += total.counters);
    assert_eq!((sum.rx_packets, sum.tx_bytes), (20, 600), "each day and peer is there once");
    let days: Vec<_> = totals.iter().map(|total| (total.day.as_str(), total.verdict)).collect();
    let expected: Vec<String> = (1..=5).map(|day| format!("1970-01-0{day}")).collect();
    let both = |day| [(day, Verdict::Allow), (day, Verdict::Deny)];
    let expected: Vec<_> = expected.iter().flat_map(|day| both(day.as_str())).collect();
    assert_eq!(days, expected);
    let second = Reader::new(dir.path(), "gw");
    let second = second.day_totals(Some("1970-01-02"), Some("1970-01-02")).unwrap();
    assert_eq!(second, totals[2..4]);
    let DayTotal { name, user, flows, counters, .. } = &second[0];
    assert_eq!((name.as_deref(), user.as_deref()), (Some("alice"), Some("alice@example.com")));
    assert_eq!((*flows, counters.rx_packets), (0, 2));
    for one in verify_store(dir.path()).unwrap() {
        assert!(one.problems.is_empty(), "{one:#?}");
    }
    writer.commit(4 * DAY, &mut [record(9, Verdict::Allow, None)], &Leaving::default()).unwrap();
    assert_eq!(writer.last_record_id(), 11);
    assert_eq!(
        Reader::new(dir.path(), "gw").summary(&Filter::default(), 99).unwrap().counters.rx_packets,
        14
    );
}

#[test]
fn a_clock_that_is_set_far_ahead_makes_nothing_old() {
    let (dir, mut writer) = store(4);
    let ahead = 4_000 * DAY;
    let mut late = [record(9, Verdict::Allow, None)];
    writer.commit(ahead, &mut late, &Leaving::default()).unwrap();
    let keeper = keeper(dir.path(), 3, MaxBytes::None);
    assert_eq!(keeper.run(ahead).unwrap().removed, 1, "by the day after the last one");
    assert_eq!(keeper.run(ahead).unwrap().removed, 0);
    assert_eq!(writer.size().0, 4);
    for day in 1..8 {
        writer.commit(ahead + day * DAY, &mut late, &Leaving::default()).unwrap();
        assert_eq!(keeper.run(ahead + day * DAY).unwrap().removed, 0, "{day}");
    }
    writer.commit(ahead + 8 * DAY, &mut late, &Leaving::default()).unwrap();
    assert_eq!(keeper.run(ahead + 8 * DAY).unwrap().removed, 3 + 5, "it was right after all");
}

/// The clock is ten years ahead for three days, and then right again.
#[test]
fn days_of_a_clock_that_was_ahead_do_not_outlive_or_outdo_the_others() {
    let (dir, mut writer) = store(4);
    let keeper = keeper(dir.path(), 6, MaxBytes::None);
    let mut commit = |now_ms: i64| {
        let mut late = record(9, Verdict::Allow, None);
        (late.window_start_ms, late.window_end_ms) = (now_ms, now_ms + 1);
        late.total = late.counters;
        writer.commit(now_ms, &mut [late], &Leaving::default()).unwrap();
        keeper.run(now_ms).unwrap().removed
    };
    for day in 3_650..3_653 {
        assert_eq!(commit(day * DAY), 0, "the days before are good");
    }
    let days = || states(dir.path()).into_iter().map(|(day, ..)| day).collect::<Vec<_>>();
    assert_eq!(days().len(), 4 + 3);
    // Within the fourth day again: the newest segment takes the records, whatever its name.
    for minute in [0, 700, 1_400] {
        commit(3 * DAY + minute * 60_000);
    }
    assert_eq!(days()[6], "1980-01-01");
    let (since_ms, until_ms) = (Some(3 * DAY), Some(4 * DAY));
    let filter = Filter { since_ms, until_ms, ..Filter::default() };
    let found = Reader::new(dir.path(), "gw").summary(&filter, 99).unwrap();
    let expected = 3 * sample::record().counters.rx_packets;
    assert_eq!(found.counters.rx_packets, expected, "what came since is found");
    // It has gone on for a day.
    commit(4 * DAY);
    let now: Vec<String> = (1..8).map(|day| format!("1970-01-0{day}")).collect();
    assert_eq!(days(), now, "in their order, and none is ahead for long");
    for day in 5..7 {
        commit(day * DAY);
        assert_eq!(days().len(), 7, "its segment is there already");
    }
    for day in 7..10 {
        commit(day * DAY);
    }
    assert!(!days().contains(&"1980-01-01".to_owned()));
    assert_eq!(days().last().map(String::as_str), Some("1970-01-10"));
    let ids: Vec<_> = Reader::new(dir.path(), "gw").segments().unwrap();
    let ids: Vec<(u64, u64)> = ids.iter().filter_map(|segment| segment.record_ids).collect();
    assert!(ids.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "no record is missing: {ids:?}");
    assert_eq!(states(dir.path())[0].1, SegmentState::Removed, "and days get old again");
}

/// A clock that has fallen back behind everything is the wrong one.
#[test]
fn a_clock_that_falls_behind_every_segment_renames_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), "gw", 20_000 * DAY).unwrap();
    for day in [20_000, 20_009, 0, 1, 2, 3] {
        let mut one = [record(9, Verdict::Allow, None)];
        writer.commit(day * DAY, &mut one, &Leaving::default()).unwrap();
    }
    let days: Vec<_> = states(dir.path()).into_iter().map(|(day, ..)| day).collect();
    assert_eq!(days, ["2024-10-04", "2024-10-13"]);
    assert_eq!(writer.last_record_id(), 6);
}

#[test]
fn the_newest_day_stays_however_large_it_is() {
    let (dir, writer) = store(3);
    let keeper = keeper(dir.path(), 0, MaxBytes::Bytes(1));
    assert_eq!(keeper.run(2 * DAY).unwrap().removed, 2);
    assert_eq!(keeper.run(2 * DAY).unwrap().removed, 0);
    assert_eq!(keeper.newest().as_deref(), Some("1970-01-03"));
    assert_eq!(writer.size().0, 1);
}

#[test]
fn only_as_much_goes_as_is_too_much() {
    let (dir, writer) = store(4);
    keeper(dir.path(), 0, MaxBytes::Percent(100)).run(4 * DAY).unwrap();
    assert_eq!(writer.size().0, 4, "a share of the file system");
    let bytes = writer.size().1;
    let oldest = fs::metadata(dir.path().join("segments/1970-01-01.sqlite")).unwrap().len();
    let keeper = keeper(dir.path(), 0, MaxBytes::Bytes(bytes - oldest / 2));
    assert_eq!(keeper.run(4 * DAY).unwrap().removed, 1);
    assert_eq!(states(dir.path())[0].1, SegmentState::Removed);
}

#[test]
fn a_crash_between_the_sums_and_the_removal_neither_doubles_nor_loses() {
    let (dir, _writer) = store(3);
    let path = dir.path().join("segments/1970-01-01.sqlite");
    keeper(dir.path(), 0, MaxBytes::None).run(2 * DAY).unwrap();
    let copy = fs::read(&path).unwrap();
    assert_eq!(keeper(dir.path(), 1, MaxBytes::None).run(2 * DAY).unwrap().removed, 1);
    // As if the file had not been removed yet.
    fs::write(&path, &copy).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
    assert_eq!(states(dir.path())[0].1, SegmentState::Sealed, "it speaks for itself");
    assert_eq!(keeper(dir.path(), 1, MaxBytes::None).run(2 * DAY).unwrap().removed, 1);
    assert!(!path.exists());
    assert_eq!(totals::days(dir.path()).unwrap().len(), 1);
    let conn = Connection::open(dir.path().join("totals.sqlite")).unwrap();
    let rows: i64 = conn.query_row("SELECT count(*) FROM peer_day", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 2, "one a verdict, once");
}

#[test]
fn another_file_of_a_day_that_has_gone_is_left_alone() {
    let (dir, _writer) = store(3);
    assert_eq!(keeper(dir.path(), 1, MaxBytes::None).run(2 * DAY).unwrap().removed, 1);
    let path = dir.path().join("segments/1970-01-01.sqlite");
    fs::copy(dir.path().join("segments/1970-01-02.sqlite"), &path).unwrap();
    keeper(dir.path(), 1, MaxBytes::None).run(2 * DAY).unwrap();
    assert!(path.exists());
}

#[test]
fn a_segment_that_somebody_has_open_is_sealed_later() {
    let (dir, _writer) = store(2);
    let path = dir.path().join("segments/1970-01-01.sqlite");
    let reader = Connection::open(&path).unwrap();
    let count = "SELECT sum(records) FROM total";
    let records = || reader.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(records(), 2);
    let keeper = keeper(dir.path(), 0, MaxBytes::Bytes(1));
    assert_eq!(keeper.run(DAY).unwrap(), Kept { removed: 0, held: 1 });
    assert_eq!(records(), 2, "it is neither sealed nor removed");
    assert!(path.exists());
    drop(reader);
    assert_eq!(keeper.run(DAY).unwrap(), Kept { removed: 1, held: 0 });
    assert!(!path.exists());
}

#[test]
fn a_file_that_has_lost_everything_is_not_whole() {
    let dir = tempfile::tempdir().unwrap();
    let files = ["2026-11-21.sqlite", "missing.sqlite"].map(|name| dir.path().join(name));
    fs::write(&files[0], "").unwrap();
    let found = verify_files(&files);
    let said: Vec<&str> = found.iter().flat_map(|one| &one.problems).map(String::as_str).collect();
    assert!(
        matches!(said[..], [empty, missing]
        if empty.starts_with("it is empty") && missing.contains("No such file")),
        "{said:?}"
    );
}

#[test]
fn what_is_wrong_with_a_segment_is_found() {
    let harms = [
        ("DELETE FROM record WHERE record_id = 5", "1 of the records"),
        ("DELETE FROM record WHERE record_id = 3", "begins with record 4"),
        ("UPDATE record SET window_start = 0 WHERE record_id = 3", "goes on from something else"),
        ("UPDATE record SET window_start = 0 WHERE record_id = 7", "does not go on"),
        ("UPDATE open_flow SET tx_bytes_total = 1", "ledger"),
        ("DELETE FROM open_flow", "ledger"),
        ("UPDATE total SET rx_packets = rx_packets + 1", "sums"),
        ("UPDATE meta SET day = '1999-01-01'", "rename it"),
        (
            "PRAGMA foreign_keys = 0; UPDATE open_flow SET peer_id = 99",
            "a row of its table open_flow points to a name",
        ),
        (
            "PRAGMA writable_schema = 1; \
             UPDATE sqlite_schema SET rootpage = 3 WHERE name = 'sqlite_autoindex_word_1'",
            "damaged",
        ),
    ];
    for (sql, said) in harms {
        let (dir, mut writer) = store(2);
        // More of the long flow, so that something goes on within a day.
        for time in 2..5 {
            let mut long = record(1, Verdict::Allow, None);
            (long.window_start_ms, long.window_end_ms) = (time, time + 1);
            let one = long.counters;
            long.total = (0..time).fold(one, |sum, _| sum + one);
            writer.commit(DAY, &mut [long], &Leaving::default()).unwrap();
        }
        writer.close();
        let all = || -> Vec<String> {
            verify_store(dir.path()).unwrap().into_iter().flat_map(|one| one.problems).collect()
        };
        assert_eq!(all(), Vec::<String>::new());
        let conn = Connection::open(dir.path().join("segments/1970-01-02.sqlite")).unwrap();
        conn.execute_batch(sql).unwrap();
        drop(conn);
        let told = all().join("\n");
        assert!(told.contains(said), "{sql}: {told:?}");
    }
}
