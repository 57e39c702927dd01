//! What somebody may do to a copy of a store, and that it is found.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rusqlite::Connection;

use super::{
    Keeper, Leaving, MaxBytes, Retention, Writer, chunks, prove, read_chain, rotate_key,
    verify_store,
};
use crate::{
    chunk::{Encoded, Row},
    flows::{Bound, EndReason, Gap, Record, Stage, Verdict, sample},
    seal::{
        Chain, DayState, FORMAT, FaultKind, Hash, PrivateKey, Proof, PublicKey, Statement, What,
    },
};

const DAY: i64 = 86_400_000;
/// A range, and what is begun of another one.
const RECORDS: u16 = 4_200;
const SECOND: (u64, u64) = (4_096, 4_200);

fn record(port: u16) -> Record {
    let mut record = Record { end_reason: Some(EndReason::Idle), ..sample::record() };
    record.tuple.peer_port = port;
    record.first_seen_ms = i64::from(port);
    record.rule = port.is_multiple_of(3).then(|| "rule".into());
    record.verdict = if port.is_multiple_of(2) { Verdict::Deny } else { Verdict::Allow };
    record
}

/// Three days, of which two are over and sealed; the first one has many records.
struct Store {
    dir: tempfile::TempDir,
    writer: Writer,
    /// The first day before it was closed: rows, no chunks.
    rows: PathBuf,
}

impl Store {
    fn new() -> Self {
        Self::of(RECORDS)
    }

    fn of(records: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
        let mut all: Vec<_> = (0..records).map(record).collect();
        // So few that they are rows at first.
        for batch in all.chunks_mut(1_000) {
            writer.commit(0, batch, &Leaving::default()).unwrap();
        }
        let gap = Gap {
            gap_id: 0,
            stage: Stage::Drain,
            interface: Some("wg0".into()),
            peer: None,
            opened_ms: 1,
            closed_ms: Some(2),
            bound: Bound::NOTHING,
            detail: "a drain was late".to_owned(),
        };
        writer.put_gaps(0, &mut [gap]).unwrap();
        let rows = dir.path().join("rows");
        let first = Connection::open(dir.path().join("segments/1970-01-01.sqlite")).unwrap();
        first.execute("VACUUM INTO ?", [rows.to_str().unwrap()]).unwrap();
        drop(first);
        for day in 1..3 {
            let mut all: Vec<_> = (0..5).map(record).collect();
            writer.commit(day * DAY, &mut all, &Leaving::default()).unwrap();
        }
        let store = Self { dir, writer, rows };
        store.keep(0, 2);
        store
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn keep(&self, days: u32, today: i64) {
        keeper(self.path(), days).run(today * DAY + 5).unwrap();
    }

    fn key(&self) -> PublicKey {
        read_chain(self.path()).unwrap().key().unwrap()
    }

    /// What somebody takes away, without the key.
    fn copy(&self) -> Copy {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("segments")).unwrap();
        for name in ["seals.chain", "totals.sqlite"] {
            let _none = fs::copy(self.path().join(name), dir.path().join(name));
        }
        for file in fs::read_dir(self.path().join("segments")).unwrap() {
            let file = file.unwrap();
            let to = dir.path().join("segments").join(file.file_name());
            fs::copy(file.path(), &to).unwrap();
            fs::set_permissions(&to, Permissions::from_mode(0o640)).unwrap();
        }
        Copy { dir, key: self.key() }
    }

    /// The same, whose first day is rows.
    fn copy_of_rows(&self) -> Copy {
        let copy = self.copy();
        fs::copy(&self.rows, copy.segment("1970-01-01")).unwrap();
        copy
    }
}

fn keeper(dir: &Path, days: u32) -> Keeper {
    let retention = Retention { days, max_bytes: MaxBytes::None };
    Keeper::new(dir, retention).signing(&dir.join("keys"), "gw")
}

struct Copy {
    dir: tempfile::TempDir,
    key: PublicKey,
}

impl Copy {
    fn segment(&self, day: &str) -> PathBuf {
        self.dir.path().join(format!("segments/{day}.sqlite"))
    }

    fn edit(&self, sql: &str) {
        let conn = Connection::open(self.segment("1970-01-01")).unwrap();
        conn.pragma_update(None, "ignore_check_constraints", true).unwrap();
        conn.pragma_update(None, "foreign_keys", false).unwrap();
        conn.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    fn chain(&self) -> PathBuf {
        self.dir.path().join("seals.chain")
    }

    fn lines(&self) -> Vec<String> {
        fs::read_to_string(self.chain()).unwrap().lines().map(str::to_owned).collect()
    }

    fn set_lines(&self, lines: &[String]) {
        fs::write(self.chain(), lines.iter().map(|line| format!("{line}\n")).collect::<String>())
            .unwrap();
    }

    fn prove(&self) -> Proof {
        prove(self.dir.path(), &[self.key], &[]).unwrap()
    }

    /// Nothing is wrong.
    fn assert_good(&self) -> Proof {
        let proof = self.prove();
        assert!(proof.is_good, "{proof:#?}");
        proof
    }

    /// This is wrong, with these records of the first day.
    fn assert_wrong(&self, kind: FaultKind, records: Option<(u64, u64)>) -> Proof {
        let proof = self.prove();
        assert!(!proof.is_good);
        let is_it = |fault: &&crate::seal::Fault| {
            fault.kind == kind && fault.first_record_id.zip(fault.last_record_id) == records
        };
        assert!(proof.faults.iter().any(|fault| is_it(&fault)), "{kind:?} {records:?}: {proof:#?}");
        proof
    }
}

fn states(proof: &Proof) -> Vec<(&str, DayState, u64)> {
    proof.days.iter().map(|day| (day.day.as_str(), day.state, day.records)).collect()
}

#[test]
fn a_copy_is_proven_but_for_its_newest_day() {
    let store = Store::new();
    let copy = store.copy();
    let proof = copy.assert_good();
    let expected = [
        ("1970-01-01", DayState::Proven, u64::from(RECORDS)),
        ("1970-01-02", DayState::Proven, 5),
        ("1970-01-03", DayState::Unproven, 5),
    ];
    assert_eq!(states(&proof), expected);
    assert_eq!((proof.statements, proof.notes.len()), (3, 0), "{proof:#?}");
    store.keep(0, 2);
    assert_eq!(read_chain(store.path()).unwrap().head.0, 3, "nothing is sealed twice");
    let head: Hash = proof.head.parse().unwrap();
    assert!(prove(store.path(), &[copy.key], &[head]).unwrap().is_good);
    for one in verify_store(store.path()).unwrap() {
        assert!(one.problems.is_empty(), "{one:#?}");
    }
}

#[test]
fn neither_pages_nor_rows_nor_numbers_of_the_file_matter() {
    let store = Store::new();
    let copy = store.copy();
    copy.edit("VACUUM");
    copy.assert_good();
    let copy = store.copy_of_rows();
    copy.assert_good();
    copy.edit(
        "UPDATE record SET peer_id = peer_id + 70; UPDATE peer SET peer_id = peer_id + 70;
         UPDATE total SET peer_id = peer_id + 70; UPDATE gap SET peer_id = peer_id + 70;
         VACUUM",
    );
    copy.assert_good();
}

#[test]
fn a_copy_can_be_read_only() {
    let copy = Store::of(20).copy();
    // The newest has a log, which SQLite wants an index for.
    let _none = fs::remove_file(copy.segment("1970-01-03").with_extension("sqlite-shm"));
    for (path, mode) in [(copy.dir.path().join("segments"), 0o500), (copy.dir.path().into(), 0o500)]
    {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    // Root may write there all the same: what was written would show.
    let before = files(copy.dir.path());
    copy.assert_good();
    assert_eq!(files(copy.dir.path()), before);
}

/// Every file below a directory, with its bytes, but the index that SQLite makes of a log.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let (dirs, found): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let is_index = |path: &PathBuf| path.to_string_lossy().ends_with("-shm");
    let found = found.into_iter().filter(|path| !is_index(path));
    let own = found.map(|path| (path.clone(), fs::read(path).unwrap()));
    own.chain(dirs.iter().flat_map(|dir| files(dir))).collect()
}

#[test]
fn every_column_of_a_record_counts() {
    let store = Store::of(40);
    let conn = Connection::open(&store.rows).unwrap();
    let mut query = conn.prepare("SELECT name FROM pragma_table_info('record')").unwrap();
    let columns: Vec<String> =
        query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(columns.len(), 32);
    for column in columns.iter().filter(|column| *column != "record_id") {
        let value = match column.as_str() {
            "interface_id" | "peer_id" => "99",
            "remote_peer_id" => "1",
            "peer_addr" | "remote_addr" => "zeroblob(16)",
            "icmp" => "2048",
            "rule" | "peer_resource" | "remote_resource" => "'other'",
            "overflow" | "enforced" => "1",
            "verdict" => "1 - verdict",
            "end_reason" => "NULL",
            _ => "CASE typeof(@) WHEN 'integer' THEN @ + 1 ELSE @ END",
        };
        let copy = store.copy_of_rows();
        copy.edit(&format!(
            "INSERT INTO interface VALUES (99, 'wg9');
             UPDATE record SET {column} = {} WHERE record_id = 20",
            value.replace('@', column)
        ));
        copy.assert_wrong(FaultKind::Edited, Some((1, 40)));
    }
}

#[test]
fn what_is_beside_records_counts() {
    let store = Store::of(40);
    let edits = [
        ("UPDATE peer SET user = 'mallory'", "peers"),
        ("UPDATE peer SET groups = '[\"ops\"]'", "peers"),
        ("INSERT INTO peer VALUES (9, 'k', 'n', NULL, NULL, '[]', NULL)", "peers"),
        ("UPDATE gap SET detail = 'nothing was late'", "gaps"),
        ("DELETE FROM gap", "gaps"),
        ("UPDATE total SET rx_bytes = rx_bytes + 1", "totals"),
        ("INSERT INTO policy VALUES (7, 'x')", "policies"),
        ("INSERT INTO peer_event VALUES (1, 1, 1, 1, 1, NULL, NULL)", "peer events"),
        ("INSERT INTO coverage VALUES (1, 2, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0)", "coverage"),
    ];
    for (sql, name) in edits {
        let copy = store.copy();
        copy.edit(sql);
        let proof = copy.assert_wrong(FaultKind::Edited, None);
        let told = format!("its {name} are not as they were sealed");
        assert!(proof.faults.iter().any(|fault| fault.detail.starts_with(&told)), "{proof:#?}");
    }
    let copy = store.copy();
    copy.edit("UPDATE peer SET user = 'mallory'");
    copy.assert_wrong(FaultKind::Edited, Some((1, 40)));
    for sql in ["UPDATE gap SET peer_id = 77", "UPDATE meta SET sealed = sealed + 1"] {
        let copy = store.copy();
        copy.edit(sql);
        copy.assert_wrong(FaultKind::Edited, None);
    }
}

/// Makes the chunks of the first day anew, from what `change` leaves of their rows.
fn reencode(copy: &Copy, change: impl Fn(&mut Vec<Row>)) {
    let conn = Connection::open(copy.segment("1970-01-01")).unwrap();
    for stored in chunks::between(&conn, 0, u64::MAX >> 1).unwrap() {
        let columns = crate::chunk::ColumnId::ALL.iter().copied().collect();
        stored.need(&conn, columns).unwrap();
        let mut rows = stored.chunk.all_rows().unwrap();
        change(&mut rows);
        let ids = (stored.first, stored.last);
        chunks::delete(&conn, ids).unwrap();
        conn.execute("DELETE FROM digest", []).unwrap();
        chunks::insert(&conn, ids, &Encoded::of(&rows).unwrap()).unwrap();
    }
}

#[test]
fn a_chunk_that_is_made_anew_has_to_say_the_same() {
    let store = Store::new();
    let copy = store.copy();
    reencode(&copy, |_| {});
    copy.assert_good();
    reencode(&copy, |rows| rows[10].counters.rx_bytes -= 1);
    copy.assert_wrong(FaultKind::Edited, Some((1, 4095)));
    let copy = store.copy();
    let ids = |rows: &mut Vec<Row>| {
        let (a, b) = (rows[20].record_id, rows[21].record_id);
        (rows[20].record_id, rows[21].record_id) = (b, a);
    };
    reencode(&copy, ids);
    copy.assert_wrong(FaultKind::Edited, Some((1, 4095)));
    // What only speeds up answers has to be true too.
    let copy = store.copy();
    copy.edit(
        "INSERT INTO digest VALUES (1, 4200, 0, 60000, 60000, x'00', NULL, NULL, NULL, NULL)",
    );
    copy.assert_wrong(FaultKind::Edited, None);
}

#[test]
fn a_record_that_is_cut_added_or_moved_is_named() {
    let store = Store::new();
    let copy = store.copy_of_rows();
    copy.edit("DELETE FROM record WHERE record_id = 4111");
    copy.assert_wrong(FaultKind::Cut, Some((4111, 4111)));
    let copy = store.copy_of_rows();
    copy.edit("DELETE FROM record WHERE record_id > 4180");
    copy.assert_wrong(FaultKind::Cut, Some((4181, u64::from(RECORDS))));
    let copy = store.copy_of_rows();
    copy.edit("DELETE FROM record WHERE record_id < 10");
    copy.assert_wrong(FaultKind::Cut, Some((1, 9)));
    let copy = store.copy_of_rows();
    copy.edit(
        "UPDATE record SET record_id = 99999 WHERE record_id = 4150;
         UPDATE record SET record_id = 4150 WHERE record_id = 4151;
         UPDATE record SET record_id = 4151 WHERE record_id = 99999",
    );
    copy.assert_wrong(FaultKind::Edited, Some(SECOND));
    let copy = store.copy_of_rows();
    copy.edit("UPDATE record SET record_id = 99999 WHERE record_id = 4200");
    copy.assert_wrong(FaultKind::Edited, Some((99_999, 99_999)));
}

#[test]
fn a_day_that_is_gone_exchanged_or_older_is_named() {
    let store = Store::new();
    let (records, last) = (u64::from(RECORDS), u64::from(RECORDS) + 5);
    let copy = store.copy();
    fs::remove_file(copy.segment("1970-01-01")).unwrap();
    copy.assert_wrong(FaultKind::MissingDay, Some((1, records)));
    let copy = store.copy();
    fs::rename(copy.segment("1970-01-02"), copy.segment("1970-01-01")).unwrap();
    copy.assert_wrong(FaultKind::Reordered, None);
    copy.assert_wrong(FaultKind::MissingDay, Some((records + 1, last)));
    copy.assert_wrong(FaultKind::Cut, Some((1, records)));
    // What a backup of noon has.
    let copy = store.copy_of_rows();
    copy.edit("DELETE FROM record WHERE record_id > 4100");
    copy.assert_wrong(FaultKind::Cut, Some((4101, records)));
    let copy = store.copy();
    fs::write(copy.segment("1970-01-01"), "no segment").unwrap();
    copy.assert_wrong(FaultKind::Edited, None);
}

#[test]
fn a_cut_or_edited_chain_is_named() {
    let store = Store::of(20);
    let copy = store.copy();
    let (lines, head) = (copy.lines(), copy.prove().head);
    assert_eq!(lines.len(), 3);
    // The end: nobody who has not kept a hash can tell, but what is left is not called proven.
    copy.set_lines(&lines[..2]);
    let proof = copy.assert_good();
    assert_eq!(states(&proof)[1], ("1970-01-02", DayState::Unproven, 5));
    let known = prove(copy.dir.path(), &[copy.key], &[head.parse().unwrap()]).unwrap();
    assert_eq!(known.faults[0].kind, FaultKind::Cut, "{known:#?}");
    copy.set_lines(&[lines[0].clone(), lines[2].clone()]);
    copy.assert_wrong(FaultKind::Cut, None);
    copy.assert_wrong(FaultKind::Unsealed, None);
    copy.set_lines(&[lines[0].clone(), lines[2].clone(), lines[1].clone()]);
    copy.assert_wrong(FaultKind::Reordered, None);
    copy.set_lines(&[]);
    copy.assert_wrong(FaultKind::Cut, None);
    for (number, line) in lines.iter().enumerate() {
        for at in (0..line.len()).step_by(113) {
            let mut edited = line.clone().into_bytes();
            edited[at] = if edited[at] == b'1' { b'2' } else { b'1' };
            let mut changed = lines.clone();
            changed[number] = String::from_utf8(edited).unwrap();
            copy.set_lines(&changed);
            assert!(!copy.prove().is_good, "line {number}, byte {at}");
        }
    }
    // A line that is only begun was never said.
    fs::write(copy.chain(), [lines.join("\n").as_bytes(), b"\n{\"format\":1"].concat()).unwrap();
    assert_eq!(copy.assert_good().notes.len(), 1);
}

#[test]
fn a_chain_that_is_made_anew_has_another_key() {
    let store = Store::of(20);
    let copy = store.copy();
    fs::remove_file(copy.chain()).unwrap();
    copy.edit("UPDATE peer SET user = 'mallory'");
    keeper(copy.dir.path(), 0).run(2 * DAY + 6).unwrap();
    let proof = copy.assert_wrong(FaultKind::WrongKey, None);
    assert!(proof.days[..2].iter().all(|day| day.state == DayState::Wrong), "{proof:#?}");
    // And one that goes on where the other one ended.
    let copy = store.copy();
    let mut lines = copy.lines();
    lines.pop();
    copy.set_lines(&lines);
    keeper(copy.dir.path(), 0).run(2 * DAY + 6).unwrap();
    copy.assert_wrong(FaultKind::WrongKey, None);
}

#[test]
fn keys_follow_each_other_and_each_proves_all() {
    let mut store = Store::of(20);
    let first = store.key();
    let keys = store.path().join("keys");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&keys), mode(&keys.join("gateway.ed25519"))), (0o700, 0o600));
    let (old, second) = rotate_key(store.path(), &keys, 2 * DAY + 7).unwrap();
    assert_eq!((old, second), (first, store.key()));
    assert_eq!(mode(&keys.join("gateway.ed25519")), 0o600);
    assert_eq!(fs::read_dir(&keys).unwrap().count(), 2, "the key, and the last hash");
    store.writer.commit(3 * DAY, &mut [record(1)], &Leaving::default()).unwrap();
    store.keep(0, 3);
    for key in [first, second] {
        let proof = prove(store.path(), &[key], &[]).unwrap();
        assert!(proof.is_good, "{proof:#?}");
        assert_eq!(proof.days.iter().filter(|day| day.state == DayState::Proven).count(), 3);
    }
    // One that is lost names nobody.
    fs::remove_file(keys.join("gateway.ed25519")).unwrap();
    store.writer.commit(4 * DAY, &mut [record(1)], &Leaving::default()).unwrap();
    store.keep(0, 4);
    let third = store.key();
    for key in [second, third] {
        let proof = prove(store.path(), &[key], &[]).unwrap();
        assert_eq!(proof.faults[0].kind, FaultKind::WrongKey, "{proof:#?}");
    }
    let proof = prove(store.path(), &[first, third], &[]).unwrap();
    assert!(proof.is_good && proof.notes.len() == 1, "{proof:#?}");
}

/// Statements of somebody who has a key of his own, behind `lines`; the last one names `next`.
fn usurped(lines: &str, next: PublicKey) -> String {
    let key = PrivateKey::from_seed(&[7; 32]);
    let mut chain = Chain::read(lines.as_bytes());
    let mut all = lines.to_owned();
    for what in [What::Key, What::Rotate { next }] {
        let (last, previous) = chain.head;
        let statement = Statement {
            format: FORMAT,
            number: last + 1,
            at_ms: 5,
            gateway: "gw".to_owned(),
            key: key.public(),
            previous,
            what,
        };
        let (line, _hash) = statement.signed(&key);
        all.push_str(&line);
        all.push('\n');
        chain = Chain::read(all.as_bytes());
    }
    assert!(chain.breaks.is_empty());
    all
}

#[test]
fn nobody_has_flowd_vouch_for_a_key_that_says_to_have_named_its_own() {
    for is_behind in [false, true] {
        let store = Store::of(20);
        let (key, chain, keys) =
            (store.key(), store.path().join("seals.chain"), store.path().join("keys"));
        let lines = if is_behind { fs::read_to_string(&chain).unwrap() } else { String::new() };
        let forged = usurped(&lines, key);
        fs::write(&chain, &forged).unwrap();
        if !is_behind {
            let error = keeper(store.path(), 0).run(2 * DAY).unwrap_err();
            assert!(error.to_string().contains("has lost what was said in it last"), "{error}");
            fs::remove_file(keys.join("head")).unwrap();
        }
        let refused = "names the key that is in its place already";
        for _ in 0..2 {
            let error = keeper(store.path(), 0).run(2 * DAY).unwrap_err();
            assert!(error.to_string().contains(refused), "{error}");
            rotate_key(store.path(), &keys, 2 * DAY).unwrap_err();
        }
        assert_eq!(fs::read_to_string(&chain).unwrap(), forged, "flowd adds nothing to it");
        let trusted = read_chain(store.path()).unwrap().trusted(&[key]);
        assert!(trusted.iter().all(|trusted| *trusted == key), "{trusted:?}");
        assert!(!prove(store.path(), &[key], &[]).unwrap().is_good);
        // Nor where a rotation seems to have been cut off.
        let next = keys.join("gateway.ed25519.next");
        fs::copy(keys.join("gateway.ed25519"), &next).unwrap();
        keeper(store.path(), 0).run(2 * DAY).unwrap_err();
        assert!(!next.exists());
        assert_eq!(fs::read_to_string(&chain).unwrap(), forged);
    }
}

#[test]
fn flowd_does_not_go_on_from_a_chain_whose_end_was_cut_off() {
    let mut store = Store::of(20);
    let chain = store.path().join("seals.chain");
    let whole = fs::read_to_string(&chain).unwrap();
    let cut = whole.trim_end().rsplit_once('\n').unwrap().0.to_owned() + "\n";
    fs::write(&chain, &cut).unwrap();
    // What was sealed behind it is changed, and to be sealed as if that were new.
    let path = store.path().join("segments/1970-01-02.sqlite");
    forge(&path, "INSERT INTO policy VALUES (7, 'forged'); UPDATE meta SET sealed = NULL");
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    store.writer.commit(3 * DAY, &mut [record(1)], &Leaving::default()).unwrap();
    let error = keeper(store.path(), 0).run(3 * DAY).unwrap_err();
    assert!(error.to_string().contains("has lost what was said in it last"), "{error}");
    rotate_key(store.path(), &store.path().join("keys"), 3 * DAY).unwrap_err();
    assert_eq!(fs::read_to_string(&chain).unwrap(), cut);
    // The way out that it names.
    fs::write(&chain, &whole).unwrap();
    let error = keeper(store.path(), 0).run(3 * DAY).unwrap_err();
    assert!(error.to_string().contains("is not as it was sealed"), "{error}");
}

#[test]
fn what_says_something_else_each_time_is_not_signed() {
    let store = Store::of(20);
    let first = store.path().join("segments/1970-01-01.sqlite");
    forge(
        &first,
        "ALTER TABLE policy RENAME TO other; CREATE VIEW policy AS SELECT * FROM other UNION ALL \
         SELECT 7, 'forged' WHERE random() & 1; UPDATE meta SET sealed = sealed + 1",
    );
    for _ in 0..20 {
        let error = keeper(store.path(), 0).run(2 * DAY).unwrap_err();
        assert!(error.to_string().contains("that are not flowd's"), "{error}");
    }
    let proof = store.copy().assert_wrong(FaultKind::Edited, None);
    assert!(proof.faults.iter().any(|fault| fault.detail.contains("not flowd's")), "{proof:#?}");
}

#[test]
fn a_day_that_cannot_be_read_any_more_holds_no_other_up() {
    let mut store = Store::of(20);
    for day in 3..5 {
        store.writer.commit(day * DAY, &mut [record(1)], &Leaving::default()).unwrap();
    }
    fs::write(store.path().join("segments/1970-01-03.sqlite"), b"no database".repeat(999)).unwrap();
    keeper(store.path(), 0).run(4 * DAY).unwrap_err();
    assert!(read_chain(store.path()).unwrap().seals().contains_key("1970-01-04"));
}

#[test]
fn a_chain_that_somebody_adds_to_is_waited_for_and_then_left_alone() {
    let store = Store::of(20);
    let keys = fs::File::open(store.path().join("keys")).unwrap();
    keys.lock().unwrap();
    let error = keeper(store.path(), 0).run(2 * DAY).unwrap_err();
    assert!(error.to_string().contains("is locked"), "{error}");
    drop(keys);
    // Whoever reads the chain holds nobody up.
    let reader = fs::File::open(store.path().join("seals.chain")).unwrap();
    reader.lock().unwrap();
    keeper(store.path(), 0).run(2 * DAY).unwrap();
}

#[test]
fn a_day_that_cannot_be_sealed_now_is_sealed_before_those_behind_it() {
    let mut store = Store::of(20);
    for day in 3..5 {
        store.writer.commit(day * DAY, &mut [record(1)], &Leaving::default()).unwrap();
    }
    let path = store.path().join("segments/1970-01-03.sqlite");
    let away = store.path().join("away");
    fs::rename(&path, &away).unwrap();
    fs::create_dir(&path).unwrap();
    keeper(store.path(), 0).run(4 * DAY).unwrap_err();
    let sealed = |store: &Store| read_chain(store.path()).unwrap().seals().len();
    assert_eq!(sealed(&store), 2, "the one behind it waits");
    fs::remove_dir(&path).unwrap();
    fs::rename(&away, &path).unwrap();
    store.keep(0, 4);
    assert_eq!(sealed(&store), 4);
    store.copy().assert_good();
}

#[test]
fn a_day_that_goes_leaves_a_tombstone() {
    let store = Store::new();
    store.keep(1, 2);
    let copy = store.copy();
    let proof = copy.assert_good();
    let expected = [
        ("1970-01-01", DayState::Removed, u64::from(RECORDS)),
        ("1970-01-02", DayState::Proven, 5),
        ("1970-01-03", DayState::Unproven, 5),
    ];
    assert_eq!(states(&proof), expected);
    let totals = copy.dir.path().join("totals.sqlite");
    for sql in [
        "UPDATE day SET rx_bytes = 0",
        "UPDATE day SET reason = 'bytes'",
        "UPDATE day SET file_bytes = 1",
        "UPDATE day SET sha256 = printf('%064d', 0)",
        "INSERT INTO day SELECT '2026-12-09', gateway, removed, reason, records, flows, rx_packets, \
         rx_bytes, tx_packets, tx_bytes, first_record_id, last_record_id, file_bytes, sha256 FROM day",
        "UPDATE peer_day SET user = 'mallory'",
        "UPDATE peer_day SET day = '1970-01-05'",
    ] {
        let copy = store.copy();
        let conn = Connection::open(copy.dir.path().join("totals.sqlite")).unwrap();
        conn.pragma_update(None, "foreign_keys", false).unwrap();
        conn.execute_batch(sql).unwrap();
        copy.assert_wrong(FaultKind::Edited, None);
    }
    fs::remove_file(totals).unwrap();
    copy.assert_wrong(FaultKind::Edited, None);
    // Without it, the day is missing.
    let copy = store.copy();
    let mut lines = copy.lines();
    lines.pop();
    copy.set_lines(&lines);
    copy.assert_wrong(FaultKind::MissingDay, Some((1, u64::from(RECORDS))));
}

#[test]
fn days_of_before_there_were_seals_are_sealed_late_and_say_so() {
    let store = Store::of(20);
    let plain = Retention { days: 0, max_bytes: MaxBytes::None };
    fs::remove_file(store.path().join("seals.chain")).unwrap();
    fs::remove_dir_all(store.path().join("keys")).unwrap();
    Keeper::new(store.path(), plain).run(2 * DAY).unwrap();
    store.keep(0, 2);
    let proof = store.copy().assert_good();
    assert_eq!(proof.notes.len(), 2, "{proof:#?}");
    assert!(proof.notes[0].contains("sealed later than it was closed"));
}

#[test]
fn a_day_that_was_opened_again_is_sealed_again_if_it_still_has_what_was_sealed() {
    let store = Store::of(20);
    let path = store.path().join("segments/1970-01-02.sqlite");
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let open = || Connection::open(&path).unwrap();
    open().execute("UPDATE meta SET sealed = NULL", []).unwrap();
    store.keep(0, 2);
    assert_eq!(store.copy().assert_good().statements, 3, "the same time has nothing new");
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    open().execute("UPDATE meta SET sealed = 1", []).unwrap();
    store.keep(0, 2);
    assert_eq!(store.copy().assert_good().statements, 4);
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    open().execute_batch("UPDATE meta SET sealed = 2; UPDATE peer SET user = 'mallory'").unwrap();
    let error = keeper(store.path(), 0).run(2 * DAY).unwrap_err();
    assert!(error.to_string().contains("is not as it was sealed"), "{error}");
    assert_eq!(read_chain(store.path()).unwrap().head.0, 4);
}

#[test]
fn a_day_that_is_called_after_another_one_is_sealed_under_its_new_name() {
    let store = Store::of(20);
    for (from, to) in [("1970-01-01", "1969-12-30"), ("1970-01-02", "1969-12-31")] {
        let path = |day: &str| store.path().join(format!("segments/{day}.sqlite"));
        fs::set_permissions(path(from), Permissions::from_mode(0o640)).unwrap();
        let conn = Connection::open(path(from)).unwrap();
        conn.execute("UPDATE meta SET day = ?", [to]).unwrap();
        drop(conn);
        fs::rename(path(from), path(to)).unwrap();
    }
    store.copy().assert_wrong(FaultKind::MissingDay, Some((1, 20)));
    store.keep(0, 2);
    let proof = store.copy().assert_good();
    assert_eq!(states(&proof)[0], ("1969-12-30", DayState::Proven, 20));
    assert_eq!(states(&proof)[1], ("1969-12-31", DayState::Proven, 5));
    assert_eq!(proof.days.len(), 3);
}

/// Edits a file of a store, as somebody does who may write there but has no key.
fn forge(path: &Path, sql: &str) {
    fs::set_permissions(path, Permissions::from_mode(0o640)).unwrap();
    let conn = Connection::open(path).unwrap();
    conn.pragma_update(None, "foreign_keys", false).unwrap();
    conn.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    drop(conn);
    fs::set_permissions(path, Permissions::from_mode(0o440)).unwrap();
}

#[test]
fn flowd_signs_nothing_that_somebody_else_has_written() {
    let first = "segments/1970-01-01.sqlite";
    let sealed_again = "UPDATE meta SET sealed = sealed + 1;";
    for sql in [
        "DELETE FROM gap",
        "UPDATE gap SET detail = 'nothing was late'",
        "INSERT INTO policy VALUES (7, 'forged')",
        "UPDATE total SET rx_bytes = rx_bytes + 1",
    ] {
        let store = Store::of(20);
        let statements = read_chain(store.path()).unwrap().head.0;
        forge(&store.path().join(first), &format!("{sql}; {sealed_again}"));
        let error = keeper(store.path(), 0).run(2 * DAY).unwrap_err();
        assert!(error.to_string().contains("is not as it was sealed"), "{sql}: {error}");
        assert_eq!(read_chain(store.path()).unwrap().head.0, statements, "{sql}");
        store.copy().assert_wrong(FaultKind::Edited, None);
        // When its time is over it goes all the same, and its tombstone says so.
        keeper(store.path(), 1).run(2 * DAY).unwrap_err();
        assert!(!store.path().join(first).exists(), "{sql}");
        let proof = store.copy().assert_wrong(FaultKind::Edited, None);
        let told = |fault: &crate::seal::Fault| fault.detail.contains("when retention removed it");
        assert!(proof.faults.iter().any(told), "{sql}: {proof:#?}");
    }
}

#[test]
fn a_day_that_comes_back_or_comes_from_nowhere_gets_no_seal() {
    let store = Store::of(20);
    let (first, kept) =
        (store.path().join("segments/1970-01-01.sqlite"), store.path().join("kept"));
    fs::copy(&first, &kept).unwrap();
    store.keep(1, 2);
    let statements = read_chain(store.path()).unwrap().head.0;
    fs::copy(&kept, &first).unwrap();
    store.keep(0, 2);
    store.copy().assert_good();
    forge(&first, "UPDATE peer SET name = 'mallory'; UPDATE meta SET sealed = sealed + 1");
    store.keep(0, 2);
    store.copy().assert_wrong(FaultKind::Edited, None);
    fs::remove_file(&first).unwrap();
    let strange = store.path().join("segments/1969-12-31.sqlite");
    fs::copy(&kept, &strange).unwrap();
    forge(&strange, "UPDATE meta SET day = '1969-12-31'");
    let error = keeper(store.path(), 0).run(2 * DAY).unwrap_err();
    assert!(error.to_string().contains("was not there when a later day was sealed"), "{error}");
    store.copy().assert_wrong(FaultKind::Unsealed, None);
    assert_eq!(read_chain(store.path()).unwrap().head.0, statements);
}

#[test]
fn days_are_sealed_in_their_order_also_when_a_reader_holds_one() {
    let store = Store::of(20);
    for said in ["seals.chain", "keys/head"] {
        fs::remove_file(store.path().join(said)).unwrap();
    }
    let first = store.path().join("segments/1970-01-01.sqlite");
    fs::set_permissions(&first, Permissions::from_mode(0o640)).unwrap();
    let conn = Connection::open(&first).unwrap();
    let _mode: String = conn.query_row("PRAGMA journal_mode = wal", [], |row| row.get(0)).unwrap();
    let reader = Connection::open(&first).unwrap();
    let tx = reader.unchecked_transaction().unwrap();
    let _day: String = tx.query_row("SELECT day FROM meta", [], |row| row.get(0)).unwrap();
    store.keep(0, 2);
    assert!(store.copy().prove().faults.is_empty());
    assert!(read_chain(store.path()).unwrap().seals().is_empty());
    drop((tx, conn));
    drop(reader);
    store.keep(0, 2);
    assert_eq!(read_chain(store.path()).unwrap().seals().len(), 2);
    store.copy().assert_good();
}

#[test]
fn what_a_crash_left_of_a_line_goes() {
    let store = Store::of(20);
    let chain = store.path().join("seals.chain");
    let whole = fs::read(&chain).unwrap();
    for left in [whole.len() - 1, whole.len() - 40, whole.len() - 700] {
        fs::write(&chain, &whole[..left]).unwrap();
        // The crash was before it was written that the line was there.
        fs::remove_file(store.path().join("keys/head")).unwrap();
        store.keep(0, 2);
        let proof = store.copy().assert_good();
        assert_eq!((proof.statements, proof.days.len()), (3, 3), "{left}");
    }
    // One in the middle stays, and is told.
    let text = fs::read_to_string(&chain).unwrap();
    fs::write(&chain, text.replacen("\"gw\"", "\"xy\"", 1)).unwrap();
    let error = keeper(store.path(), 0).run(2 * DAY).unwrap_err();
    assert!(error.to_string().contains("is not as it was written"), "{error}");
}

/// What the first version that seals left: a day that went, one that is sealed, one that is not.
#[test]
fn a_store_of_the_first_version_stays_proven() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/golden/seal-1");
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("segments")).unwrap();
    for name in ["seals.chain", "totals.sqlite", "1970-01-02.sqlite", "1970-01-03.sqlite"] {
        let packed = fs::read(golden.join(format!("{name}.zst"))).unwrap();
        let is_segment = name.starts_with("1970");
        let to = if is_segment { dir.path().join("segments") } else { dir.path().to_owned() };
        fs::write(to.join(name), zstd::bulk::decompress(&packed, 1 << 24).unwrap()).unwrap();
    }
    let key = fs::read_to_string(golden.join("key")).unwrap().parse().unwrap();
    let copy = Copy { dir, key };
    let proof = copy.assert_good();
    let expected = [
        ("1970-01-01", DayState::Removed, 20),
        ("1970-01-02", DayState::Proven, 5),
        ("1970-01-03", DayState::Unproven, 5),
    ];
    assert_eq!((states(&proof), proof.statements), (expected.to_vec(), 4));
}
