//! Whether entries are the ones that were written: none edited, moved, put in or taken out.
//!
//! - an entry that was edited has not the hash that it should
//! - one that was moved, put in or taken out leaves a hole in the numbers, or in the hashes
//! - the newest entries, taken away, and all of it, made anew, leave no trace in what is left: only
//!   what the gateway's key has signed shows it, or a head that somebody kept elsewhere

use std::collections::BTreeMap;

use super::{Anchor, Checkpoint, Entry, Hash, Signed};
use crate::seal::PublicKey;

/// Problems that are told; what is more is counted.
const TOLD: usize = 20;

/// The newest entry at some instant, as somebody keeps it elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Its number; 0: there was none.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Entries that were looked at.
    pub entries: u64,
    /// The number before the first one; 0: nothing was cut off.
    pub cut: u64,
    /// Whose signature says so; `None`: nothing was cut off, or nobody's that is known.
    pub cut_by: Option<PublicKey>,
    /// The newest one.
    pub head: Head,
    /// The newest one that is as a known key has signed it, and when; what is before it is proven.
    pub proven: Option<Anchor>,
    /// Why nothing is proven, where that is not because something is wrong.
    pub nothing_proven: Option<&'static str>,
    /// Entries behind `proven`: nobody has signed them yet.
    pub unproven: u64,
    /// When the first of those was, in Unix milliseconds.
    pub unproven_since_ms: Option<i64>,
    /// One line each; empty: all is as it was written.
    pub problems: Vec<String>,
    /// Problems that are not in `problems`.
    pub more_problems: u64,
}

/// The check, entry by entry.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    known: Option<Head>,
    /// Those whose entry has not come yet, by its number.
    anchors: BTreeMap<u64, Vec<Anchor>>,
    /// Those whose entry has another hash, and which.
    other: Vec<(Anchor, Option<Hash>)>,
    verdict: Verdict,
    kept_seen: bool,
}

impl Chain {
    /// Begins behind the last checkpoint, if there is one, which one of the keys of `signed` has to
    /// have signed, or any where there are none. `known` is a head that was kept elsewhere.
    pub fn new(checkpoint: Option<&Checkpoint>, known: Option<Head>, signed: &Signed) -> Self {
        let keys = &signed.keys;
        let head = checkpoint.map_or_else(Head::default, |Checkpoint { seq, hash, .. }| Head {
            seq: *seq,
            hash: *hash,
        });
        let nothing_proven = signed.nothing;
        let verdict = Verdict { cut: head.seq, head, nothing_proven, ..Verdict::default() };
        let mut chain = Self { known, anchors: BTreeMap::new(), verdict, ..Self::default() };
        signed.problems.iter().for_each(|problem| chain.problem(problem.clone()));
        let mut anchors = signed.anchors.clone();
        match checkpoint.map(|cut| (cut, cut.signer())) {
            None => {}
            Some((cut, Some(key))) if keys.is_empty() || keys.contains(&key) => {
                chain.verdict.cut_by = Some(key);
                match signed.since(cut) {
                    Some(since) => anchors = since.to_vec(),
                    None => {
                        anchors.retain(|anchor| anchor.head.seq > cut.seq);
                        signed.without(cut).into_iter().for_each(|problem| chain.problem(problem));
                    }
                }
            }
            Some((_, Some(key))) => chain.problem(format!(
                "entries up to {} were cut off, which {key} has signed: that is no known key",
                head.seq
            )),
            Some((_, None)) => chain.problem(format!(
                "entries up to {} were cut off, which nobody has signed as it is",
                head.seq
            )),
        }
        for anchor in anchors {
            chain.anchors.entry(anchor.head.seq).or_default().push(anchor);
        }
        chain.compare(head);
        chain
    }

    /// Takes the next entry.
    pub fn add(&mut self, entry: &Entry) {
        let Entry { seq, previous, hash, .. } = entry;
        let before = self.verdict.head;
        if before.seq.checked_add(1) != Some(*seq) {
            self.problem(if *seq > before.seq {
                format!("entries {} to {} are missing", before.seq + 1, seq - 1)
            } else {
                format!("entry {seq} stands behind entry {}", before.seq)
            });
        } else if *previous != before.hash {
            self.problem(format!("entry {seq} does not go on from the entry before"));
        }
        if entry.computed() != *hash {
            self.problem(format!("entry {seq} was edited"));
        }
        self.count(entry.at_ms);
        self.verdict.head = Head { seq: *seq, hash: *hash };
        self.compare(self.verdict.head);
    }

    /// Takes an entry with values that nobody writes; the next one goes on from what it says, if
    /// that is a number at all.
    pub fn unreadable(&mut self, seq: i64, at_ms: i64, hash: Hash) {
        self.problem(format!("entry {seq} was edited"));
        self.count(at_ms);
        if let Ok(seq) = u64::try_from(seq) {
            self.verdict.head = Head { seq, hash };
            self.compare_signed(self.verdict.head);
        }
    }

    /// There is a checkpoint, with values that nobody writes; so it says nothing.
    pub fn unreadable_checkpoint(&mut self) {
        self.problem("the last checkpoint was edited".to_owned());
    }

    /// What was found.
    pub fn finish(mut self) -> Verdict {
        let head = self.verdict.head;
        let missing = std::mem::take(&mut self.anchors).into_values().flatten();
        let (within, behind): (Vec<_>, Vec<_>) = missing
            .map(|anchor| (anchor, None))
            .partition(|(anchor, _)| anchor.head.seq <= head.seq);
        for wrong in [std::mem::take(&mut self.other), within, behind] {
            self.wrong(&wrong, head.seq);
        }
        if let Some(known) = self.known.filter(|_| !self.kept_seen) {
            self.problem(if known.seq > head.seq {
                format!("entries {} to {} are missing at the end", head.seq + 1, known.seq)
            } else {
                format!("entry {} was cut off since its hash was kept", known.seq)
            });
        }
        let Verdict { proven, nothing_proven, problems, .. } = &mut self.verdict;
        if proven.is_none() && problems.is_empty() {
            nothing_proven.get_or_insert("what is signed is of entries that were cut off");
        }
        self.verdict
    }

    /// One more entry, which is unproven until it, or one behind it, is as it was signed.
    fn count(&mut self, at_ms: i64) {
        self.verdict.entries += 1;
        self.verdict.unproven += 1;
        self.verdict.unproven_since_ms.get_or_insert(at_ms);
    }

    fn compare_signed(&mut self, head: Head) {
        for anchor in self.anchors.remove(&head.seq).unwrap_or_default() {
            if anchor.head == head {
                let Verdict { proven, unproven, unproven_since_ms, .. } = &mut self.verdict;
                (*proven, *unproven, *unproven_since_ms) = (Some(anchor), 0, None);
            } else {
                self.other.push((anchor, Some(head.hash)));
            }
        }
    }

    /// One line for signed entries that are wrong in the same way, with what was found of each: many
    /// of them hide nothing else.
    fn wrong(&mut self, anchors: &[(Anchor, Option<Hash>)], last: u64) {
        let Some(((first, found), others)) = anchors.split_first() else { return };
        let Some(mut problem) = first.wrong(*found, last) else { return };
        if let Some((end, _)) = others.last() {
            let (count, seq) = (others.len(), end.head.seq);
            problem.push_str(&format!("; {count} more like it, up to entry {seq}"));
        }
        self.problem(problem);
    }

    fn compare(&mut self, head: Head) {
        self.compare_signed(head);
        let Some(known) = self.known.filter(|known| known.seq == head.seq) else { return };
        self.kept_seen = true;
        if known.hash != head.hash {
            self.problem(format!("entry {} is not the one whose hash was kept", head.seq));
        }
    }

    fn problem(&mut self, text: String) {
        if self.verdict.problems.len() < TOLD {
            self.verdict.problems.push(text);
        } else {
            self.verdict.more_problems += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Chain, Head, Verdict};
    use crate::{
        audit::{Checkpoint, Entry, Hash, Signature, Signed, entry::tests::three},
        seal::{PrivateKey, PublicKey},
    };

    fn verify(entries: &[Entry], known: Option<Head>) -> Verdict {
        let mut chain = Chain::new(None, known, &Signed::default());
        entries.iter().for_each(|entry| chain.add(entry));
        chain.finish()
    }

    fn head() -> Head {
        let entries = three();
        Head { seq: 3, hash: entries[2].hash }
    }

    #[test]
    fn what_was_written_verifies() {
        let verdict = verify(&three(), Some(head()));
        assert_eq!((verdict.problems.as_slice(), verdict.entries), (&[] as &[String], 3));
        assert_eq!(verdict.head, head());
    }

    #[test]
    fn an_edit_of_any_member_is_found() {
        type Edit = fn(&mut Entry);
        let edits: [(&str, Edit); 15] = [
            ("at", |entry| entry.at_ms += 1),
            ("until", |entry| entry.until_ms = None),
            ("count", |entry| entry.count += 1),
            ("event", |entry| entry.event.push('x')),
            ("actor", |entry| entry.actor = "bob".to_owned()),
            ("uid", |entry| entry.uid = Some(0)),
            ("gid", |entry| entry.gid = None),
            ("pid", |entry| entry.pid = Some(1)),
            ("executable", |entry| entry.executable = None),
            ("source", |entry| entry.source = "self".to_owned()),
            ("resource", |entry| entry.resource = Some(String::new())),
            ("details", |entry| entry.details = entry.details.replace("alice", "carol")),
            ("outcome", |entry| entry.outcome = "refused".to_owned()),
            ("previous", |entry| entry.previous = Hash::default()),
            ("hash", |entry| entry.hash.0[31] ^= 1),
        ];
        for (what, edit) in edits {
            let mut entries = three();
            edit(&mut entries[1]);
            let problems = verify(&entries, None).problems;
            assert!(
                problems.iter().any(|told| told == "entry 2 was edited"),
                "{what}: {problems:?}"
            );
        }
    }

    #[test]
    fn what_is_missing_or_moved_is_named() {
        type Change = fn(&mut Vec<Entry>);
        let cases: [(&str, Change, &str); 5] = [
            ("first", |all| drop(all.remove(0)), "entries 1 to 1 are missing"),
            ("middle", |all| drop(all.remove(1)), "entries 2 to 2 are missing"),
            ("exchanged", |all| all.swap(1, 2), "entry 2 stands behind entry 3"),
            ("twice", |all| all.insert(1, all[0].clone()), "entry 1 stands behind entry 1"),
            ("tail", |all| all.truncate(1), "entries 2 to 3 are missing at the end"),
        ];
        for (what, change, told) in cases {
            let mut entries = three();
            change(&mut entries);
            let problems = verify(&entries, Some(head())).problems;
            assert!(problems.iter().any(|problem| problem == told), "{what}: {problems:?}");
        }
    }

    #[test]
    fn numbers_at_the_end_of_all_numbers_are_named() {
        for (seq, told) in [
            (u64::MAX, "entries 2 to 18446744073709551614 are missing"),
            (0, "entry 0 stands behind entry 1"),
        ] {
            let mut entries = three();
            entries[1].seq = seq;
            let problems = verify(&entries, Some(head())).problems;
            assert!(problems.iter().any(|problem| problem == told), "{problems:?}");
            assert!(problems.contains(&format!("entry {seq} was edited")), "{problems:?}");
        }
    }

    #[test]
    fn a_chain_that_was_made_anew_is_found_by_a_kept_head_only() {
        let mut entries = three();
        entries[0].actor = "nobody".to_owned();
        let mut previous = Hash::default();
        for entry in &mut entries {
            entry.previous = previous;
            entry.hash = entry.computed();
            previous = entry.hash;
        }
        assert!(verify(&entries, None).problems.is_empty());
        let problems = verify(&entries, Some(head())).problems;
        assert_eq!(problems, ["entry 3 is not the one whose hash was kept"]);
    }

    #[test]
    fn the_rest_goes_on_from_a_checkpoint_that_is_signed() {
        let entries = three();
        let [key, other] = [[1; 32], [2; 32]].map(|seed| PrivateKey::from_seed(&seed));
        let signed = |hash| {
            let mut checkpoint = Checkpoint {
                gateway: "gw".to_owned(),
                seq: 1,
                at_ms: entries[0].at_ms,
                hash,
                cut_ms: entries[2].at_ms,
                signature: None,
            };
            let bytes = key.sign(&checkpoint.canonical());
            checkpoint.signature = Some(Signature { key: key.public(), bytes });
            checkpoint
        };
        let verify = |checkpoint: &Checkpoint, known, keys: &[PublicKey]| {
            let signed = Signed { keys: keys.to_vec(), ..Signed::default() };
            let mut chain = Chain::new(Some(checkpoint), known, &signed);
            entries[1..].iter().for_each(|entry| chain.add(entry));
            chain.finish()
        };
        let checkpoint = signed(entries[0].hash);
        let kept = Head { seq: 1, hash: entries[0].hash };
        for keys in [&[][..], &[other.public(), key.public()]] {
            for known in [head(), kept] {
                let verdict = verify(&checkpoint, Some(known), keys);
                assert_eq!(verdict.problems, [] as [String; 0]);
                let by = Some(key.public());
                assert_eq!((verdict.cut, verdict.cut_by, verdict.entries), (1, by, 2));
            }
        }
        let problems = verify(&checkpoint, None, &[other.public()]).problems;
        assert!(problems[0].ends_with("that is no known key"), "{problems:?}");
        let told = ["entry 2 does not go on from the entry before"];
        assert_eq!(verify(&signed(Hash::default()), None, &[]).problems, told);
        let nobody = ["entries up to 1 were cut off, which nobody has signed as it is"];
        for edited in [
            Checkpoint { signature: None, ..checkpoint.clone() },
            Checkpoint { cut_ms: 0, ..checkpoint.clone() },
            Checkpoint { at_ms: 0, ..checkpoint.clone() },
            Checkpoint { gateway: "other".to_owned(), ..checkpoint },
        ] {
            assert_eq!(verify(&edited, None, &[]).problems, nobody);
        }
    }
}
