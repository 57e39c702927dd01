//! Somebody with the rights to the audit log's file, and without the gateway's key.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use rusqlite::{Connection, params};

use super::{
    AuditReader, Keeper, MaxBytes, Retention,
    audit_tests::{NOW_MS, anchors, entries, opened, query, ten},
    prove, read_chain, rotate_key,
};
use crate::{
    audit::{Anchor, Checkpoint, Hash, Head, Log, Message, Signature, Signed, Verdict, word},
    seal::{PrivateKey, PublicKey, What, tests::chain},
};

const DAY_MS: i64 = 86_400_000;

fn key() -> PrivateKey {
    PrivateKey::from_seed(&[7; 32])
}

/// A log of ten entries, of which two were signed.
fn signed() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    ten(dir.path());
    let mut said = vec![(NOW_MS, What::Key)];
    for seq in [4, 8] {
        let Anchor { head: Head { seq, hash }, at_ms } = anchors(dir.path())[seq - 1];
        said.push((at_ms, What::Audit { sequence: seq, hash }));
    }
    fs::write(dir.path().join("seals.chain"), chain(&key(), &said)).unwrap();
    dir
}

/// Nothing stops who may write the file.
fn attacked(store: &Path) -> Connection {
    let conn = Connection::open(store.join("audit.sqlite")).unwrap();
    let free = "DROP TRIGGER entry_stands; DROP TRIGGER entry_stays; DROP TRIGGER entry_follows; \
                DROP TRIGGER checkpoint_follows";
    conn.execute_batch(free).unwrap();
    conn
}

/// The same, once more.
fn attacked_before(store: &Path) -> Connection {
    Connection::open(store.join("audit.sqlite")).unwrap()
}

fn truncate(store: &Path, last: u64) {
    attacked(store).execute("DELETE FROM entry WHERE seq > ?", [last.cast_signed()]).unwrap();
}

/// Edits an entry, and makes every hash from there on anew.
fn rechain(store: &Path, from: u64) {
    let conn = attacked(store);
    let mut entries = entries(store);
    let mut previous = None;
    for entry in entries.iter_mut().skip_while(|entry| entry.seq < from) {
        match previous {
            None => entry.actor = "nobody".to_owned(),
            Some(previous) => entry.previous = previous,
        }
        entry.hash = entry.computed();
        previous = Some(entry.hash);
        let sql = "UPDATE entry SET actor = ?, previous = ?, hash = ? WHERE seq = ?";
        let to = params![entry.actor, entry.previous.0, entry.hash.0, entry.seq.cast_signed()];
        conn.execute(sql, to).unwrap();
    }
}

fn verify(store: &Path, keys: &[PublicKey]) -> Verdict {
    AuditReader::new(store).verify(None, keys).unwrap()
}

/// Number of the newest entry that is proven, how many come behind it, and since when.
fn proven(verdict: &Verdict) -> (u64, u64, Option<i64>) {
    let Verdict { proven, unproven, unproven_since_ms, .. } = verdict;
    (proven.map_or(0, |anchor| anchor.head.seq), *unproven, *unproven_since_ms)
}

#[track_caller]
fn assert_told(verdict: &Verdict, told: &str) {
    let Verdict { problems, .. } = verdict;
    assert!(problems.iter().any(|problem| problem.starts_with(told)), "{told}: {problems:?}");
}

/// What flowd finds when it starts.
fn contradiction(store: &Path) -> Option<String> {
    let signed = Signed::of(&read_chain(store).unwrap(), &[key().public()]);
    opened(store).contradicts(&signed).unwrap()
}

#[test]
fn what_is_behind_the_last_anchor_is_unproven_and_the_rest_proven() {
    let dir = signed();
    let verdict = verify(dir.path(), &[key().public()]);
    assert_eq!((verdict.problems.as_slice(), verdict.nothing_proven), (&[] as &[String], None));
    assert_eq!(proven(&verdict), (8, 2, Some(NOW_MS + 9_000)));
    assert_eq!(verdict.proven.map(|anchor| anchor.at_ms), Some(NOW_MS + 8_000));
    assert_eq!(contradiction(dir.path()), None);
    fs::create_dir(dir.path().join("segments")).unwrap();
    let note = "the audit log is signed up to entry 8: `flowctl audit verify --key` checks it";
    let proof = prove(dir.path(), &[key().public()], &[]).unwrap();
    assert!(proof.is_good && proof.notes == [note], "{proof:#?}");
    let verdict = verify(dir.path(), &[]);
    assert_eq!((proven(&verdict).0, verdict.nothing_proven), (0, Some("no key was given")));
    fs::remove_file(dir.path().join("seals.chain")).unwrap();
    let verdict = verify(dir.path(), &[key().public()]);
    let why = "there is no `seals.chain` beside it";
    assert_eq!((proven(&verdict).1, verdict.nothing_proven), (10, Some(why)));
    assert_eq!(verdict.problems, [format!("{why}: nothing of it is proven")]);
}

#[test]
fn a_log_that_is_truncated_is_found_at_every_entry_that_was_signed() {
    for last in 0..=10 {
        let dir = signed();
        truncate(dir.path(), last);
        assert_eq!(verify(dir.path(), &[]).problems, [] as [String; 0], "{last}: no key, no proof");
        let verdict = verify(dir.path(), &[key().public()]);
        let told = "truncated: entry 8, which was signed 2026-11-21T04:00:08.000Z, is not there";
        let both = "truncated: entry 4, which was signed 2026-11-21T04:00:04.000Z, is not there; 1 \
                    more like it, up to entry 8";
        match last {
            0..8 => {
                assert_eq!(verdict.problems, [if last < 4 { both } else { told }], "{last}");
                assert_eq!(contradiction(dir.path()).as_deref(), Some(told), "{last}");
            }
            _ => {
                assert_eq!(verdict.problems, [] as [String; 0], "{last}");
                assert_eq!((proven(&verdict).0, proven(&verdict).1), (8, last - 8), "{last}");
                assert_eq!(contradiction(dir.path()), None, "{last}");
            }
        }
    }
}

#[test]
fn a_log_that_is_made_anew_is_found_from_every_entry_that_was_signed() {
    for from in 1..=10 {
        let dir = signed();
        rechain(dir.path(), from);
        let verdict = verify(dir.path(), &[]);
        assert_eq!(verdict.problems, [] as [String; 0], "{from}: no key, no proof");
        let verdict = verify(dir.path(), &[key().public()]);
        let told = "made anew: entry 8 has another hash than was signed 2026-11-21T04:00:08.000Z";
        let both = "made anew: entry 4 has another hash than was signed 2026-11-21T04:00:04.000Z; 1 \
                    more like it, up to entry 8";
        match from {
            1..=8 => {
                assert_eq!(verdict.problems, [if from > 4 { told } else { both }], "{from}");
                assert_eq!(proven(&verdict).0, if from > 4 { 4 } else { 0 }, "{from}");
                assert_eq!(contradiction(dir.path()).as_deref(), Some(told), "{from}");
            }
            _ => {
                assert_eq!(verdict.problems, [] as [String; 0], "{from}");
                assert_eq!(proven(&verdict), (8, 2, Some(NOW_MS + 9_000)), "{from}");
            }
        }
    }
    // Also when flowd has gone on behind it.
    let dir = signed();
    truncate(dir.path(), 2);
    (11..20).for_each(|n| opened(dir.path()).append(&[query(n)]).unwrap());
    assert_told(&verify(dir.path(), &[key().public()]), "made anew: entry 4 ");
    // Also when the line that was signed is left among others.
    let dir = signed();
    let kept = entries(dir.path()).remove(7).hash;
    rechain(dir.path(), 1);
    let sql = "UPDATE entry SET hash = ? WHERE seq = 8";
    attacked_before(dir.path()).execute(sql, [kept.0]).unwrap();
    let told = contradiction(dir.path()).unwrap();
    assert!(told.starts_with("made anew: entry 8 "), "{told}");
}

#[test]
fn a_log_that_comes_back_in_the_place_of_another_is_not_the_one_that_was_signed() {
    let dir = signed();
    let [log, chain] = ["audit.sqlite", "seals.chain"].map(|name| dir.path().join(name));
    let signed_so_far = fs::read_to_string(&chain).unwrap();
    let before = anchors(dir.path());
    let sign = |message: &[u8]| Ok(Signature { key: key().public(), bytes: key().sign(message) });
    opened(dir.path()).cut(&before[3..4], NOW_MS + 7_000, NOW_MS + 20_000, sign).unwrap().unwrap();
    let kept = dir.path().join("kept");
    fs::rename(&log, &kept).unwrap();
    ten(dir.path());
    opened(dir.path()).append(&[query(99)]).unwrap();
    // Its second entry is signed, and another one is in its place.
    let Anchor { head: Head { seq, hash }, .. } = anchors(dir.path())[1];
    let said = [(NOW_MS, What::Key)].into_iter().chain(
        [before[3], before[7]]
            .map(|Anchor { head: Head { seq, hash }, at_ms }| {
                (at_ms, What::Audit { sequence: seq, hash })
            })
            .into_iter()
            .chain([(NOW_MS + 90_000, What::Audit { sequence: seq, hash: Hash::of(&hash.0) })]),
    );
    let said: Vec<_> = said.collect();
    fs::write(&chain, self::chain(&key(), &said)).unwrap();
    assert!(fs::read_to_string(&chain).unwrap().starts_with(&signed_so_far));
    fs::rename(&kept, &log).unwrap();
    let told = "entry 2, which was signed 2026-11-21T04:01:30.000Z, is not there";
    assert_told(&verify(dir.path(), &[key().public()]), told);
    assert_eq!(contradiction(dir.path()).as_deref(), Some(told));
}

#[test]
fn a_chain_that_was_changed_with_the_log_is_named_but_for_its_tail() {
    let dir = signed();
    let path = dir.path().join("seals.chain");
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    truncate(dir.path(), 5);
    for edited in [
        text.replace("\"sequence\":8", "\"sequence\":5"),
        text.replace("\"sequence\":8", "\"wisdom\":5"),
        [lines[0], lines[2]].concat(),
        [lines[0], lines[2], lines[1]].concat(),
    ] {
        fs::write(&path, edited).unwrap();
        let told = "the `seals.chain` beside it is not as it was written";
        assert_told(&verify(dir.path(), &[key().public()]), told);
    }
    let stranger = PrivateKey::from_seed(&[8; 32]);
    let Anchor { head: Head { seq, hash }, at_ms } = anchors(dir.path())[4];
    let said = [(0, What::Key), (at_ms, What::Audit { sequence: seq, hash })];
    fs::write(&path, chain(&stranger, &said)).unwrap();
    let verdict = verify(dir.path(), &[key().public()]);
    assert_told(&verdict, "of what the `seals.chain` beside it says of the log, no known key");
    assert_eq!(proven(&verdict).0, 0);
    // Only what somebody kept elsewhere shows this: what is left of both is whole.
    fs::write(&path, lines[..2].concat()).unwrap();
    let verdict = verify(dir.path(), &[key().public()]);
    assert_eq!(verdict.problems, [] as [String; 0]);
    assert_eq!(proven(&verdict), (4, 1, Some(NOW_MS + 5_000)));
}

#[test]
fn what_retention_cut_off_needs_no_anchor_if_the_key_has_signed_that() {
    for signer in [key(), PrivateKey::from_seed(&[8; 32])] {
        let dir = signed();
        let sign =
            |message: &[u8]| Ok(Signature { key: signer.public(), bytes: signer.sign(message) });
        let cut = |before_ms| {
            let signed = anchors(dir.path());
            let signed = [3, 7].map(|at| signed[at]);
            opened(dir.path()).cut(&signed, before_ms, NOW_MS + 20_000, sign).unwrap()
        };
        let checkpoint: Checkpoint = cut(NOW_MS + 7_000).unwrap();
        assert_eq!(checkpoint.seq, 4, "what was signed later goes later");
        let verdict = verify(dir.path(), &[key().public()]);
        let contradiction = contradiction(dir.path());
        if signer.public() == key().public() {
            assert_eq!((verdict.problems.len(), contradiction), (0, None));
            assert_eq!(proven(&verdict), (8, 2, Some(NOW_MS + 9_000)));
        } else {
            assert_told(&verdict, "entries up to 4 were cut off, which");
            assert_eq!(contradiction, None, "the newest is there");
        }
    }
    // Somebody else cuts off all that was signed.
    let dir = signed();
    let stranger = PrivateKey::from_seed(&[8; 32]);
    let sign =
        |message: &[u8]| Ok(Signature { key: stranger.public(), bytes: stranger.sign(message) });
    let signed = [anchors(dir.path())[8]];
    opened(dir.path()).cut(&signed, i64::MAX, NOW_MS, sign).unwrap().unwrap();
    let told = "entry 8, which was signed 2026-11-21T04:00:08.000Z, is not there";
    let both =
        "entry 4, which was signed 2026-11-21T04:00:04.000Z, is not there; 1 more like it, up";
    assert_told(&verify(dir.path(), &[key().public()]), both);
    assert_eq!(contradiction(dir.path()).as_deref(), Some(told));
}

#[test]
fn flowd_cuts_off_nothing_that_somebody_made_old_or_made_anew() {
    let sign = |message: &[u8]| Ok(Signature { key: key().public(), bytes: key().sign(message) });
    let cut = |store: &Path| {
        let signed = Signed::of(&read_chain(store).unwrap(), &[key().public()]);
        let cut = opened(store).cut(&signed.anchors, NOW_MS + 9_000, NOW_MS + 20_000, sign);
        cut.unwrap().map(|checkpoint| checkpoint.seq)
    };
    for (from, expected) in [(3, None), (5, Some(4)), (9, Some(8))] {
        let dir = signed();
        rechain(dir.path(), from);
        assert_eq!(cut(dir.path()), expected, "from {from}");
    }
    let dir = signed();
    attacked(dir.path()).execute("UPDATE entry SET time = 0, until = NULL", []).unwrap();
    assert_eq!(cut(dir.path()), None, "what was edited stays");
    let dir = signed();
    let sql = "UPDATE entry SET time = 0, until = NULL WHERE seq NOT IN (4, 8)";
    attacked(dir.path()).execute(sql, []).unwrap();
    assert_eq!(cut(dir.path()), Some(8), "what was signed later stays");
    // The clock was behind when the newest was signed.
    let dir = signed();
    attacked(dir.path())
        .execute("UPDATE entry SET time = 0, until = NULL WHERE seq < 8", [])
        .unwrap();
    let mut all = [3, 7].map(|at| anchors(dir.path())[at]);
    (all[0].at_ms, all[1].at_ms) = (NOW_MS + 10_000, 0);
    let cut = opened(dir.path()).cut(&all, NOW_MS + 9_000, NOW_MS + 20_000, sign).unwrap();
    assert_eq!(cut, None, "it is not older than the one before");
}

#[test]
fn the_log_is_signed_when_a_day_is_over_and_as_whoever_writes_it_knows_it() {
    let dir = tempfile::tempdir().unwrap();
    let (log, inbox, _lost) = Log::new();
    let newest = Arc::new(Mutex::new(Head::default()));
    let known = newest.clone();
    let auditor = thread::spawn(move || {
        while let Ok(message) = inbox.recv() {
            match message {
                Message::Head(reply) => reply.send(Some(*known.lock().unwrap())).unwrap(),
                Message::Stop => return,
                Message::Note(_) | Message::Record { .. } => {}
            }
        }
    });
    let keys = dir.path().join("keys");
    let retention = Retention { days: 0, max_bytes: MaxBytes::None };
    fs::create_dir(dir.path().join("segments")).unwrap();
    let keeper =
        Keeper::new(dir.path(), retention).telling(log.clone().into()).signing(&keys, "gw");
    let head = |seq| Head { seq, hash: Hash::of(&[seq as u8]) };
    let cases = [
        // now, the newest entry, those that are signed then
        (0, 0, vec![]),
        (1_000, 3, vec![3]),
        (DAY_MS, 5, vec![3]),
        (DAY_MS + 1_000, 6, vec![3, 6]),
        (3 * DAY_MS, 6, vec![3, 6]),
        (3 * DAY_MS + 1_000, 7, vec![3, 6, 7]),
        // A clock that was ahead, and a log that was begun anew.
        (DAY_MS, 8, vec![3, 6, 7, 8]),
        (2 * DAY_MS, 2, vec![3, 6, 7, 8, 2]),
    ];
    let signed = || Signed::of(&read_chain(dir.path()).unwrap(), &[own(dir.path())]).anchors;
    for (now_ms, seq, expected) in cases {
        *newest.lock().unwrap() = head(seq);
        keeper.run(now_ms).unwrap();
        let found: Vec<_> = signed().iter().map(|anchor| anchor.head).collect();
        assert_eq!(found, expected.into_iter().map(head).collect::<Vec<_>>(), "{now_ms} {seq}");
    }
    // Another key: it says so, and what it knows.
    fs::remove_file(keys.join("gateway.ed25519")).unwrap();
    *newest.lock().unwrap() = head(9);
    keeper.run(2 * DAY_MS).unwrap();
    assert_eq!(signed().iter().map(|anchor| anchor.head.seq).collect::<Vec<_>>(), [9]);
    // Whoever trusts one that was named by it trusts what both said.
    rotate_key(dir.path(), &keys, 2 * DAY_MS).unwrap();
    assert_eq!(signed().iter().map(|anchor| anchor.head.seq).collect::<Vec<_>>(), [9]);
    assert!(!dir.path().join("audit.sqlite").exists(), "nothing is read from the file");
    log.stop();
    auditor.join().unwrap();
}

/// A run of a flowd that was just started. What it tells the log, which has it then.
fn started(store: &Path) -> Vec<&'static str> {
    let (log, inbox, _lost) = Log::new();
    let auditor = thread::spawn(move || {
        let mut told = Vec::new();
        loop {
            match inbox.recv().unwrap() {
                Message::Note(event) => told.push(event),
                Message::Head(reply) => reply.send(None).unwrap(),
                Message::Record { .. } => {}
                Message::Stop => return told,
            }
        }
    });
    let retention = Retention { days: 0, max_bytes: MaxBytes::None };
    let keeper = Keeper::new(store, retention).telling(log.clone().into());
    let keeper = keeper.signing(&store.join("keys"), "gw");
    for _ in 0..2 {
        keeper.run(NOW_MS).unwrap();
    }
    log.stop();
    let told = auditor.join().unwrap();
    let folded: Vec<_> = told.iter().cloned().map(Into::into).collect();
    opened(store).append(&folded).unwrap();
    told.iter().map(|event| event.word).collect()
}

#[test]
fn a_key_that_changed_while_no_flowd_ran_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("segments")).unwrap();
    let rotate = || rotate_key(dir.path(), &dir.path().join("keys"), NOW_MS).unwrap();
    let nothing: [&str; 0] = [];
    assert_eq!(started(dir.path()), [word::KEY_CREATED]);
    assert_eq!(started(dir.path()), nothing);
    rotate();
    assert_eq!(started(dir.path()), [word::KEY_ROTATED]);
    assert_eq!(started(dir.path()), nothing);
    rotate();
    rotate();
    assert_eq!(started(dir.path()), [word::KEY_ROTATED; 2]);
    assert_eq!(started(dir.path()), nothing);
    // A log that knows nothing of the chain.
    rotate();
    fs::remove_file(dir.path().join("audit.sqlite")).unwrap();
    assert_eq!(started(dir.path()), nothing);
}

fn own(store: &Path) -> PublicKey {
    read_chain(store).unwrap().key().unwrap()
}

/// Written by the first version that signed the log: it has to verify for ever.
#[test]
fn a_golden_log_verifies() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/golden/audit-1");
    let text = |name: &str| fs::read_to_string(golden.join(name)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("seals.chain"), text("seals.chain")).unwrap();
    let packed = fs::read(golden.join("audit.sqlite.zst")).unwrap();
    let log = zstd::bulk::decompress(&packed, 1 << 24).unwrap();
    fs::write(dir.path().join("audit.sqlite"), log).unwrap();
    let head = Head { seq: 10, hash: text("head").parse().unwrap() };
    let keys = [text("key").parse().unwrap()];
    let verdict = AuditReader::new(dir.path()).verify(Some(head), &keys).unwrap();
    assert_eq!(verdict.problems, [] as [String; 0]);
    assert_eq!((verdict.cut, verdict.cut_by, verdict.entries), (4, Some(keys[0]), 6));
    assert_eq!(proven(&verdict), (8, 2, Some(NOW_MS + 9_000)));
}
