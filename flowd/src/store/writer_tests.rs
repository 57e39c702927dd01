use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt};

use super::{Leaving, Writer};
use crate::flows::{Counters, EndReason, Record, Tuple, sample};

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
