//! The file of the audit log, and those who lay hands on it.

use std::{fs, ops::ControlFlow, path::Path};

use rusqlite::Connection;

use super::{AuditError, AuditFilter, AuditReader, AuditWriter, SealError};
use crate::{
    audit::{Actor, Anchor, Caller, Entry, Event, Folded, Head, Outcome, Signature, word},
    seal::PrivateKey,
};

pub(super) const NOW_MS: i64 = 1_795_233_600_000;

pub(super) fn query(n: i64) -> Folded {
    let name = if n % 2 == 0 { "alice" } else { "bob" };
    let caller = Caller {
        uid: 1000 + (n % 2) as u32,
        name: Some(name.to_owned()),
        executable: Some("/usr/bin/flowctl".to_owned()),
        ..Caller::default()
    };
    let outcome = if n % 5 == 0 { Outcome::Refused } else { Outcome::Done };
    let event = if n % 3 == 0 { word::POLICY_CHECKED } else { word::QUERY };
    Event::new(NOW_MS + n * 1_000, event, Actor::Caller(caller), outcome)
        .on(format!("/v1/flows/{n}"))
        .with("n", n)
        .into()
}

pub(super) fn opened(store: &Path) -> AuditWriter {
    let (writer, aside) = AuditWriter::open(store, "gw", NOW_MS).unwrap();
    assert_eq!(aside, None);
    writer
}

/// A log of entries 1 to 10.
pub(super) fn ten(store: &Path) -> Head {
    let mut writer = opened(store);
    for n in 1..=5 {
        writer.append(&[query(2 * n - 1), query(2 * n)]).unwrap();
    }
    drop(writer);
    AuditReader::new(store).verify(None, &[]).unwrap().head
}

fn listed(store: &Path, filter: &AuditFilter) -> Vec<u64> {
    let mut seqs = Vec::new();
    let mut each = |entry: Entry| {
        seqs.push(entry.seq);
        ControlFlow::Continue(())
    };
    AuditReader::new(store).list(filter, &mut each).unwrap();
    seqs
}

#[test]
fn entries_go_on_over_restarts_and_verify() {
    let dir = tempfile::tempdir().unwrap();
    let head = ten(dir.path());
    opened(dir.path()).append(&[query(11)]).unwrap();
    let verdict = AuditReader::new(dir.path()).verify(Some(head), &[]).unwrap();
    assert_eq!((verdict.entries, verdict.problems.len(), verdict.head.seq), (11, 0, 11));
}

#[test]
fn filters_choose() {
    let dir = tempfile::tempdir().unwrap();
    ten(dir.path());
    let text = |text: &str| Some(text.to_owned());
    let all = AuditFilter::default;
    let cases = [
        (all(), vec![10, 9, 8, 7, 6, 5, 4, 3, 2, 1]),
        (AuditFilter { since_ms: Some(NOW_MS + 9_000), ..all() }, vec![10, 9]),
        (AuditFilter { until_ms: Some(NOW_MS + 2_000), ..all() }, vec![1]),
        (
            AuditFilter { actor: text("alice"), since_ms: Some(NOW_MS + 7_000), ..all() },
            vec![10, 8],
        ),
        (AuditFilter { actor: text("1001"), until_ms: Some(NOW_MS + 4_000), ..all() }, vec![3, 1]),
        (AuditFilter { event: text("policy.*"), ..all() }, vec![9, 6, 3]),
        (AuditFilter { event: text("policy.checked"), ..all() }, vec![9, 6, 3]),
        (AuditFilter { event: text("policy"), ..all() }, vec![]),
        (AuditFilter { resource: text("/v1/flows/7"), ..all() }, vec![7]),
        (AuditFilter { outcome: Some(Outcome::Refused), ..all() }, vec![10, 5]),
        (AuditFilter { text: text("\"n\":4"), ..all() }, vec![4]),
        (AuditFilter { text: text("flows/1"), ..all() }, vec![10, 1]),
        (AuditFilter { after: Some(8), ..all() }, vec![9, 10]),
        (AuditFilter { before: Some(3), ..all() }, vec![2, 1]),
    ];
    for (filter, expected) in cases {
        assert_eq!(listed(dir.path(), &filter), expected, "{filter:?}");
    }
}

#[test]
fn nothing_but_adding_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    ten(dir.path());
    let conn = Connection::open(dir.path().join("audit.sqlite")).unwrap();
    let columns = "time, until, count, event, actor, uid, gid, pid, executable, source, resource, \
                   details, outcome, previous, hash";
    for sql in [
        "UPDATE entry SET actor = 'carol' WHERE seq = 3",
        "DELETE FROM entry WHERE seq = 3",
        "DELETE FROM entry WHERE seq = 10",
        &format!("INSERT OR REPLACE INTO entry SELECT 3, {columns} FROM entry WHERE seq = 4"),
        &format!("INSERT INTO entry SELECT 12, {columns} FROM entry WHERE seq = 4"),
    ] {
        let error = conn.execute(sql, []).unwrap_err().to_string();
        assert!(error.contains("append-only"), "{sql}: {error}");
    }
}

/// Somebody with the rights to the file who takes the triggers away first.
#[test]
fn what_somebody_did_to_the_file_is_named() {
    let columns = [
        "time = time + 1",
        "until = time",
        "count = 2",
        "event = 'query.'",
        "actor = 'carol'",
        "uid = 7",
        "uid = 1 << 40",
        "gid = 7",
        "pid = 7",
        "executable = NULL",
        "source = 'self'",
        "resource = NULL",
        "details = '{}'",
        "outcome = 'failed'",
        "previous = zeroblob(32)",
        "hash = zeroblob(32)",
        "actor = CAST(x'ff' AS TEXT)",
        "details = CAST(x'7bff7d' AS TEXT)",
        "count = -1",
    ];
    let edited =
        columns.map(|set| (format!("UPDATE entry SET {set} WHERE seq = 4"), "entry 4 was edited"));
    let others = [
        ("DELETE FROM entry WHERE seq = 1", "entries 1 to 1 are missing"),
        ("DELETE FROM entry WHERE seq BETWEEN 4 AND 6", "entries 4 to 6 are missing"),
        ("DELETE FROM entry WHERE seq > 7", "entries 8 to 10 are missing at the end"),
        (
            "UPDATE entry SET seq = CASE seq WHEN 4 THEN 40 WHEN 5 THEN 4 ELSE seq END; \
             UPDATE entry SET seq = 5 WHERE seq = 40",
            "entry 4 was edited",
        ),
        ("UPDATE entry SET seq = -1 WHERE seq = 4", "entry -1 was edited"),
        (
            "UPDATE entry SET seq = -9223372036854775807 - 1 WHERE seq = 4",
            "entry -9223372036854775808 was edited",
        ),
        (
            "UPDATE entry SET seq = 9223372036854775807 WHERE seq = 10",
            "entries 10 to 9223372036854775806 are missing",
        ),
        (
            "INSERT INTO checkpoint VALUES (0, CAST(x'ff' AS TEXT), 0, zeroblob(32), 0, NULL, NULL)",
            "the last checkpoint was edited",
        ),
    ];
    let others = others.map(|(sql, told)| (sql.to_owned(), told));
    for (sql, told) in edited.into_iter().chain(others) {
        let dir = tempfile::tempdir().unwrap();
        let head = ten(dir.path());
        let conn = Connection::open(dir.path().join("audit.sqlite")).unwrap();
        let free = "DROP TRIGGER entry_stands; DROP TRIGGER entry_stays; \
                    DROP TRIGGER checkpoint_follows; PRAGMA ignore_check_constraints = 1;";
        conn.execute_batch(free).unwrap();
        conn.execute_batch(&sql).unwrap();
        let problems = AuditReader::new(dir.path()).verify(Some(head), &[]).unwrap().problems;
        assert!(problems.iter().any(|problem| problem == told), "{sql}: {problems:?}");
        assert!(listed(dir.path(), &AuditFilter::default()).len() >= 7, "{sql}");
    }
}

#[test]
fn what_can_be_read_of_an_edited_entry_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    ten(dir.path());
    let conn = Connection::open(dir.path().join("audit.sqlite")).unwrap();
    let edit = "DROP TRIGGER entry_stands; \
                UPDATE entry SET actor = CAST(x'61ff' AS TEXT), uid = 1 << 40 WHERE seq = 4";
    conn.execute_batch(edit).unwrap();
    let mut seen = Vec::new();
    let mut each = |entry: Entry| {
        seen.push(entry);
        ControlFlow::Continue(())
    };
    AuditReader::new(dir.path()).list(&AuditFilter::default(), &mut each).unwrap();
    assert_eq!(seen.len(), 10);
    let Entry { actor, uid, resource, .. } = &seen[6];
    assert_eq!((actor.as_str(), *uid), ("a\u{fffd}", None));
    assert_eq!(resource.as_deref(), Some("/v1/flows/4"));
}

#[test]
fn a_copy_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let writer = {
        ten(dir.path());
        let mut writer = opened(dir.path());
        writer.append(&[query(11)]).unwrap();
        writer
    };
    for (copied, entries) in [(&[""][..], 10), (&["", "-wal"], 11)] {
        let copy = tempfile::tempdir().unwrap();
        for suffix in copied {
            let name = format!("audit.sqlite{suffix}");
            fs::copy(dir.path().join(&name), copy.path().join(&name)).unwrap();
        }
        let file = copy.path().join("audit.sqlite");
        let verdict = AuditReader::of_file(&file).verify(None, &[]).unwrap();
        assert_eq!((verdict.entries, verdict.problems.len()), (entries, 0));
        assert_eq!(fs::read_dir(copy.path()).unwrap().count(), copied.len(), "nothing beside it");
        let error = AuditReader::of_file(copy.path()).verify(None, &[]).unwrap_err().to_string();
        assert!(error.contains("is a directory: name the log in it"), "{error}");
    }
    // Beside who writes it.
    assert_eq!(AuditReader::new(dir.path()).verify(None, &[]).unwrap().entries, 11);
    drop(writer);
}

/// Every entry, in order.
pub(super) fn entries(store: &Path) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut each = |entry: Entry| {
        entries.push(entry);
        ControlFlow::Continue(())
    };
    let all = AuditFilter { after: Some(0), ..AuditFilter::default() };
    AuditReader::new(store).list(&all, &mut each).unwrap();
    entries
}

/// What is said of each of them when it is written.
pub(super) fn anchors(store: &Path) -> Vec<Anchor> {
    let anchor = |Entry { seq, hash, at_ms, .. }| Anchor { head: Head { seq, hash }, at_ms };
    entries(store).into_iter().map(anchor).collect()
}

#[test]
fn the_old_end_is_cut_at_a_checkpoint_and_the_rest_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let head = ten(dir.path());
    let mut writer = opened(dir.path());
    let key = PrivateKey::from_seed(&[7; 32]);
    let sign = |message: &[u8]| Ok(Signature { key: key.public(), bytes: key.sign(message) });
    assert_eq!(writer.cut(&anchors(dir.path()), NOW_MS, NOW_MS, sign).unwrap(), None);
    let keyless = |_: &[u8]| Err(SealError::NoKey("key".into()));
    let (before, now) = (NOW_MS + 4_000, NOW_MS + 20_000);
    assert!(writer.cut(&anchors(dir.path()), before, now, keyless).is_err());
    assert_eq!(writer.cut(&[], before, now, sign).unwrap(), None, "nobody has signed them");
    let cut = writer.cut(&anchors(dir.path()), before, now, sign);
    let checkpoint = cut.unwrap().unwrap();
    assert_eq!((checkpoint.seq, checkpoint.at_ms), (3, NOW_MS + 3_000));
    writer.append(&[query(11)]).unwrap();
    let verdict = AuditReader::new(dir.path()).verify(Some(head), &[]).unwrap();
    assert_eq!((verdict.cut, verdict.entries, verdict.problems.len()), (3, 8, 0));
    // All but the newest.
    writer.cut(&anchors(dir.path()), i64::MAX, now, sign).unwrap().unwrap();
    drop(writer);
    opened(dir.path()).append(&[query(12)]).unwrap();
    let verdict = AuditReader::new(dir.path()).verify(None, &[]).unwrap();
    assert_eq!((verdict.cut, verdict.entries, verdict.problems.len()), (10, 2, 0));
    assert_eq!(verdict.cut_by, Some(key.public()));
    let other = PrivateKey::from_seed(&[8; 32]).public();
    let verdict = AuditReader::new(dir.path()).verify(None, &[other]).unwrap();
    // And there is nothing that proves the rest.
    assert_eq!((verdict.cut_by, verdict.problems.len()), (None, 2));
}

#[test]
fn a_damaged_log_is_set_aside_and_another_gateways_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    ten(dir.path());
    let error = AuditWriter::open(dir.path(), "other", NOW_MS).unwrap_err();
    assert!(matches!(&error, AuditError::OtherGateway { found, .. } if found == "gw"), "{error}");
    fs::write(dir.path().join("audit.sqlite"), "no database at all, and long enough to be one")
        .unwrap();
    let (mut writer, aside) = AuditWriter::open(dir.path(), "gw", NOW_MS).unwrap();
    assert!(aside.unwrap().exists());
    writer.append(&[query(1)]).unwrap();
    let conn = Connection::open(dir.path().join("audit.sqlite")).unwrap();
    conn.pragma_update(None, "user_version", 99).unwrap();
    drop(conn);
    let error = AuditWriter::open(dir.path(), "gw", NOW_MS).unwrap_err();
    assert!(matches!(error, AuditError::Unknown(_)), "{error}");
}
