use std::{collections::BTreeSet, fs, ops::ControlFlow, os::unix::fs::PermissionsExt};

use super::{
    super::{Reader, chunks, step, verify_store},
    Leaving, Writer,
};
use crate::flows::{Counters, EndReason, Filter, Record, Tuple, sample};

const DAY: i64 = 86_400_000;

fn record(port: u16) -> Record {
    let counters = Counters { rx_packets: 1, rx_bytes: 60, tx_packets: 0, tx_bytes: 0 };
    Record {
        record_id: 0,
        tuple: Tuple { protocol: 17, peer_port: port, ..Tuple::NONE },
        window_start_ms: 1,
        window_end_ms: 5,
        first_seen_ms: 1,
        last_seen_ms: 4,
        peer: None,
        counters,
        total: counters,
        ..sample::record()
    }
}

#[test]
fn ids_have_no_gap_and_the_ledger_follows_over_days_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
    let refused = Writer::open(dir.path(), "gw", 0).unwrap_err().to_string();
    assert!(refused.contains("in use"), "{refused}");
    let mut batch = [record(1), record(2)];
    batch[0].peer_resource = Some("branch".into());
    batch[0].remote_resource = Some("billing-db".into());
    writer.commit(0, &mut batch, &Leaving::default()).unwrap();
    assert_eq!(batch.map(|record| record.record_id), [1, 2]);
    let mut bad = [record(3), record(4)];
    bad[1].window_end_ms = 0;
    writer.commit(DAY, &mut bad, &Leaving::default()).unwrap_err();
    assert_eq!(bad.map(|record| record.record_id), [0, 0]);
    writer.close();

    let mut writer = Writer::open(dir.path(), "gw", 2 * DAY).unwrap();
    assert_eq!(writer.last_record_id(), 2);
    assert_eq!(writer.size().0, 3);
    let mut left = writer.leftovers().unwrap();
    assert_eq!(left.len(), 2);
    assert_eq!(left[0].counters, Counters::default());
    assert_eq!(left[0].total, record(1).total);
    assert_eq!(left[0].peer_resource.as_deref(), Some("branch"));
    assert_eq!(left[0].remote_resource.as_deref(), Some("billing-db"));
    left[0].end_reason = Some(EndReason::Shutdown);
    writer.commit(2 * DAY, &mut left[..1], &Leaving::default()).unwrap();
    assert_eq!(left[0].record_id, 3);
    assert_eq!(writer.leftovers().unwrap().len(), 1);
    let path = dir.path().join("segments/1970-01-03.sqlite");
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn many_records_at_once_are_chunks_and_take_the_rows_along() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), "gw", 0).unwrap().with_tail_records(16);
    let commit = |writer: &mut Writer, ports: std::ops::Range<u16>| {
        let mut batch: Vec<Record> = ports.map(record).collect();
        batch[0].rule = Some("r".into());
        writer.commit(0, &mut batch, &Leaving::default())
    };
    let forms = |writer: &Writer| {
        let conn = writer.conn().unwrap();
        let rows = step::tail(conn).unwrap();
        (chunks::ranges(conn).unwrap(), rows)
    };
    commit(&mut writer, 1..4).unwrap();
    assert_eq!(forms(&writer), (vec![], 3));
    commit(&mut writer, 4..8).unwrap();
    assert_eq!(forms(&writer), (vec![(1, 7)], 0));
    commit(&mut writer, 8..11).unwrap();
    // A chunk has as many as two steps here.
    commit(&mut writer, 11..91).unwrap();
    assert_eq!(forms(&writer), (vec![(1, 7), (8, 39), (40, 71), (72, 90)], 0));

    let mut bad: Vec<Record> = (1..9).map(record).collect();
    bad[5].window_end_ms = 0;
    let refused = writer.commit(0, &mut bad, &Leaving::default()).unwrap_err().to_string();
    assert!(refused.contains("CHECK"), "{refused}");
    assert!(bad.iter().all(|record| record.record_id == 0));
    assert_eq!(forms(&writer).1, 0);

    let reader = Reader::new(dir.path(), "gw");
    let mut ports = Vec::new();
    reader
        .records(&Filter::default(), 0, u64::MAX >> 1, &mut |record| {
            assert_eq!(record.rule.is_some(), [1, 4, 8, 11].contains(&record.tuple.peer_port));
            ports.push(record.tuple.peer_port);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(ports, (1..91).collect::<Vec<_>>());
    assert_eq!(writer.leftovers().unwrap().len(), 90);
    writer.close();
    let verified = verify_store(dir.path()).unwrap();
    assert!(verified.iter().all(|segment| segment.problems.is_empty()), "{verified:#?}");
}

#[test]
fn a_long_tail_is_left_to_the_compactor() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
    let mut batch: Vec<Record> = (1..21).map(record).collect();
    writer.commit(0, &mut batch, &Leaving::default()).unwrap();
    let mut writer = writer.with_tail_records(16);
    writer.commit(0, &mut (21..41).map(record).collect::<Vec<_>>(), &Leaving::default()).unwrap();
    assert_eq!(step::tail(writer.conn().unwrap()).unwrap(), 40);
}

#[test]
fn a_tail_with_a_hole_is_left_to_the_compactor() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), "gw", 0).unwrap().with_tail_records(16);
    writer.commit(0, &mut [1, 2, 3].map(record), &Leaving::default()).unwrap();
    writer.conn().unwrap().execute("DELETE FROM record WHERE record_id = 2", []).unwrap();
    writer.commit(0, &mut (4..12).map(record).collect::<Vec<_>>(), &Leaving::default()).unwrap();
    assert_eq!(chunks::ranges(writer.conn().unwrap()).unwrap(), [] as [(u64, u64); 0]);
}

#[test]
fn foreign_and_newer_files_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    Writer::open(dir.path(), "gw", 0).unwrap().close();
    let path = dir.path().join("segments/1970-01-01.sqlite");
    rusqlite::Connection::open(&path)
        .and_then(|conn| conn.pragma_update(None, "user_version", 99))
        .unwrap();
    let newer = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (a)").unwrap();
    let foreign = fs::read(&path).unwrap();
    for (content, said) in [(newer, "update flowd"), (foreign, "no segment of flowd")] {
        fs::write(&path, &content).unwrap();
        let error = Writer::open(dir.path(), "gw", 0).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}

/// A daemon may be killed again before it has looked at everything that the one before left.
#[test]
fn what_has_ended_is_remembered_until_it_has_left_the_kernel() {
    let dir = tempfile::tempdir().unwrap();
    let end = |writer: &mut Writer, port| {
        let record = Record { end_reason: Some(EndReason::Idle), ..record(port) };
        writer.commit(0, &mut [record], &Leaving::default()).unwrap();
    };
    let ended = |writer: &Writer| {
        let ended = writer.state().unwrap().ended;
        ended.into_iter().map(|(tuple, _)| tuple.peer_port).collect::<BTreeSet<_>>()
    };
    for port in 1..=3 {
        let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
        end(&mut writer, port);
        assert_eq!(ended(&writer), (1..=port).collect(), "killed before its first drain");
    }
    let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
    writer.forget_ended();
    assert_eq!(ended(&writer), BTreeSet::from([1, 2, 3]));
    end(&mut writer, 4);
    assert_eq!(ended(&writer), BTreeSet::from([4]));
}

#[test]
fn the_ledger_is_the_same_however_records_share_transactions() {
    // What happens to three flows, in the order of their records: which one, and whether it ends.
    let cases: [&[(u16, bool)]; 6] = [
        &[(1, true)],
        &[(1, false), (1, true)],
        &[(3, false), (1, false), (2, true), (1, false)],
        &[(3, false), (2, false), (3, true), (1, false), (2, false)],
        &[(2, false), (1, false), (2, false), (1, true), (3, false), (2, true)],
        &[(3, false), (3, true), (3, false)],
    ];
    for case in cases {
        let (mut totals, mut until) = ([Counters::default(); 4], [1; 4]);
        let records = case.iter().zip(1..).map(|((port, ends), time)| {
            let flow = usize::from(*port);
            let (total, until) = (&mut totals[flow], &mut until[flow]);
            let mut record = record(*port);
            *total += record.counters;
            record.total = *total;
            record.window_start_ms = *until;
            record.window_end_ms += time;
            *until = record.window_end_ms;
            if *ends {
                *total = Counters::default();
                record.end_reason = Some(EndReason::Idle);
            }
            record
        });
        let records: Vec<Record> = records.collect();
        let ledger = |transaction: usize, before: usize| {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
            let (mut alone, mut together) = (records.clone(), Vec::new());
            together.extend(alone.split_off(before.min(alone.len())));
            for batch in alone.chunks_mut(1).chain(together.chunks_mut(transaction)) {
                writer.commit(0, batch, &Leaving::default()).unwrap();
            }
            assert!(verify_store(dir.path()).unwrap()[0].problems.is_empty(), "{case:?}");
            writer.leftovers().unwrap()
        };
        let slow = ledger(1, 0);
        for before in 0..records.len() {
            for transaction in 2..=records.len() {
                assert_eq!(ledger(transaction, before), slow, "{case:?}, {transaction} at once");
            }
        }
    }
}
