//! Whether the history is as it was sealed. Works on files, with or without a daemon.
//!
//! - the chain: every statement as its key signed it, in its place, under a key that somebody kept
//! - each day: its file as it was sealed, or a tombstone that says what it had
//! - together: the numbers of records go on from day to day, up to the newest one, which nobody has
//!   signed yet

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    OpenError, SealError, TotalsError, aside,
    content::{self, Derived},
    failure,
    leash::{Leash, Over},
    schema,
    sealing::closed_ms,
    segment::record_ids,
    signing::{chain_path, read_chain},
    totals, verify, writer,
};
use crate::{
    audit::{Anchor, Signed},
    seal::{
        self, Chain, Content, Contents, DayProof, DayState, Fault, FaultKind, Hash, Proof,
        PublicKey, Seal, Tombstone,
    },
};

/// Checks of a store that goes on meanwhile, at most.
const ATTEMPTS: u32 = 3;

/// The history cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The directory of the segments.
    #[error("cannot list {path}: {source}: is it the copy of a store?")]
    List {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The chain.
    #[error(transparent)]
    Chain(#[from] SealError),
    /// What is left of days.
    #[error(transparent)]
    Totals(#[from] TotalsError),
    /// It takes too long.
    #[error(
        "the check took longer than {} s: `flowctl verify DIR`, best of a copy of the store, has no \
         limit", .0.as_secs_f64()
    )]
    TooLong(Duration),
    /// Nobody waits for the answer.
    #[error("nobody waits for the answer any more")]
    Abandoned,
}

/// Checks the history of a store, or a copy of one, against public keys that were kept elsewhere,
/// and that the statements with these hashes are in it.
pub fn prove(store: &Path, keys: &[PublicKey], known: &[Hash]) -> Result<Proof, ProveError> {
    within(store, (keys, known), &Leash::default())
}

/// The same, for as long as somebody waits.
pub(super) fn within(
    store: &Path,
    (keys, known): (&[PublicKey], &[Hash]),
    leash: &Leash,
) -> Result<Proof, ProveError> {
    let mut attempts = ATTEMPTS;
    loop {
        let proof = once(store, (keys, known), leash)?;
        attempts -= 1;
        // What the keeper did meanwhile looks as if a day were missing.
        let went_on = || Ok::<_, SealError>(read_chain(store)?.head.0 > proof.statements);
        if proof.is_good || attempts == 0 || !went_on()? {
            return Ok(proof);
        }
    }
}

fn once(
    store: &Path,
    (keys, known): (&[PublicKey], &[Hash]),
    leash: &Leash,
) -> Result<Proof, ProveError> {
    let segments = store.join("segments");
    let list = |source| ProveError::List { path: segments.clone(), source };
    let chain = read_chain(store)?;
    let days = writer::list(&segments).map_err(list)?;
    let set_aside = aside::list(&segments).map_err(list)?;
    let proven = chain.proven(keys);
    let proof = Proof::begin(&chain);
    let mut check = Check { segments, chain: &chain, proven, days, set_aside, leash, proof };
    check.of_chain(store, keys, known);
    let mut spans = check.of_days()?;
    spans.extend(check.of_removed(store)?);
    let last = check.of_numbers(spans);
    check.of_unsealed(last)?;
    let mut proof = check.proof;
    proof.days.sort_by(|a, b| a.day.cmp(&b.day));
    proof.is_good = proof.faults.is_empty();
    Ok(proof)
}

struct Check<'c> {
    segments: PathBuf,
    chain: &'c Chain,
    /// Of each link.
    proven: Vec<bool>,
    /// That have a file, ascending.
    days: Vec<String>,
    set_aside: Vec<(String, i64)>,
    leash: &'c Leash,
    proof: Proof,
}

/// What a file says of itself, and what it has.
struct Found {
    day: String,
    gateway: String,
    closed_ms: Option<i64>,
    /// Whether its tables are flowd's.
    is_own: bool,
    /// Rows that point to nothing.
    has_strays: bool,
    contents: Contents,
}

/// First and last id of the records of a file.
type Span = ((u64, u64), String);

impl Check<'_> {
    fn fault(&mut self, kind: FaultKind, file: &str, detail: impl Into<String>) {
        self.proof.faults.push(Fault::new(kind, file, detail));
    }

    fn of_chain(&mut self, store: &Path, keys: &[PublicKey], known: &[Hash]) {
        let path = chain_path(store);
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if self.chain.links.is_empty() {
            let detail = "there is none, or nothing in it: no day is proven";
            self.fault(FaultKind::Cut, &name, detail);
        }
        let broken = self.chain.breaks.iter().map(|of| Fault::of_break(&name, of));
        self.proof.faults.extend(broken);
        for (key, number, is_named) in self.chain.keys() {
            let index = self.chain.links.iter().position(|link| link.statement.number == number);
            if index.is_some_and(|index| self.proven[index]) {
                if number > 1 && !is_named {
                    self.proof.notes.push(format!(
                        "from statement {number} on, key {key} signs, which the key before did not \
                         name"
                    ));
                }
                continue;
            }
            let wanted: Vec<_> = keys.iter().map(ToString::to_string).collect();
            let detail = format!(
                "from statement {number} on, key {key} signs: it is not {}, and no known key \
                 named it",
                wanted.join(" or ")
            );
            self.fault(FaultKind::WrongKey, &name, detail);
        }
        for hash in known {
            if !self.chain.links.iter().any(|link| link.hash == *hash) {
                let detail = format!("statement {hash} is not in it: it was cut, or made anew");
                self.fault(FaultKind::Cut, &name, detail);
            }
        }
        if let Some(Anchor { head, .. }) = Signed::of(self.chain, keys).anchors.last() {
            let entry = head.seq;
            self.proof.notes.push(format!(
                "the audit log is signed up to entry {entry}: `flowctl audit verify --key` checks it"
            ));
        }
        if self.chain.has_rest {
            let note = "the last line of the chain is incomplete: it was being written, or cut";
            self.proof.notes.push(note.to_owned());
        }
        let mut gateways: Vec<_> =
            self.chain.links.iter().map(|link| &link.statement.gateway).collect();
        gateways.dedup();
        if gateways.len() > 1 {
            self.proof.notes.push(format!("the chain speaks of {} gateways", gateways.len()));
        }
    }

    /// The files of sealed days. The records of those that count.
    fn of_days(&mut self) -> Result<Vec<Span>, ProveError> {
        let mut spans = Vec::new();
        let tombstones = self.chain.tombstones();
        for (day, (index, seal)) in self.chain.seals() {
            let buried = tombstones.get(day).copied();
            let before = self.proof.faults.len();
            let is_there = self.days.iter().any(|there| there == day);
            if !self.proven[index] {
                let detail = format!("its seal, statement {}, is not proven", self.number(index));
                self.fault(FaultKind::WrongKey, &seal.file, detail);
            } else if is_there {
                self.of_file(seal, index)?;
                if buried.is_some() {
                    let note = format!("{}: it was removed, and put back", seal.file);
                    self.proof.notes.push(note);
                }
            } else if let Some((at, tombstone)) = buried {
                self.of_tombstone(seal, index, (at, tombstone));
            } else {
                self.missing(seal);
            }
            let state = match (self.proof.faults.len() > before, is_there) {
                (true, _) => DayState::Wrong,
                (false, true) => DayState::Proven,
                (false, false) => DayState::Removed,
            };
            self.day(day, &seal.file, state, (seal.records, seal.record_ids()));
            spans.extend(seal.record_ids().map(|ids| (ids, seal.file.clone())));
        }
        Ok(spans)
    }

    fn number(&self, index: usize) -> u64 {
        self.chain.links[index].statement.number
    }

    fn day(
        &mut self,
        day: &str,
        file: &str,
        state: DayState,
        (records, ids): (u64, Option<(u64, u64)>),
    ) {
        self.proof.days.push(DayProof {
            day: day.to_owned(),
            file: file.to_owned(),
            state,
            records,
            first_record_id: ids.map(|(first, _)| first),
            last_record_id: ids.map(|(_, last)| last),
        });
    }

    fn of_file(&mut self, seal: &Seal, index: usize) -> Result<(), ProveError> {
        let file = &seal.file;
        if !seal.is_whole() {
            self.fault(FaultKind::Edited, file, "the hashes of its seal are not one of another");
            return Ok(());
        }
        if seal.is_late {
            self.proof.notes.push(format!(
                "{file}: it was sealed later than it was closed; what happened to it in between is \
                 not proven"
            ));
        }
        let content = Content::new(seal.record_ids(), seal.range_ids);
        match self.read(&seal.day, |_| content)? {
            Ok(Found { day, gateway, closed_ms, is_own, has_strays, contents }) => {
                if !is_own {
                    let detail = "it has tables, views or triggers that are not flowd's";
                    self.fault(FaultKind::Edited, file, detail);
                }
                if day != seal.day {
                    self.fault(FaultKind::Reordered, file, format!("it is the segment of {day}"));
                }
                if gateway != self.chain.links[index].statement.gateway {
                    self.fault(FaultKind::Edited, file, "it says that it is another gateway's");
                }
                if closed_ms.is_some() && closed_ms != seal.closed_ms {
                    let detail = "it says that it was closed at another time than its seal does";
                    self.fault(FaultKind::Edited, file, detail);
                }
                if has_strays {
                    self.fault(
                        FaultKind::Edited,
                        file,
                        "rows of it point to rows that are not there",
                    );
                }
                self.proof.faults.extend(seal.compare(file, &contents));
            }
            Err(error) => {
                let said = failure_line(&error);
                let detail = format!("it cannot be read ({said}): restore it from a backup");
                self.fault(FaultKind::Edited, file, detail);
            }
        }
        Ok(())
    }

    /// What a day's file has, or why it cannot be read.
    fn read(
        &self,
        day: &str,
        content: impl FnOnce(Option<(u64, u64)>) -> Content,
    ) -> Result<Result<Found, OpenError>, ProveError> {
        let path = self.segments.join(format!("{day}.sqlite"));
        let read = || -> Result<Found, OpenError> {
            let (mut conn, version) = verify::open(&path)?;
            self.leash.hold(&mut conn)?;
            // Everything below speaks of one instant.
            let conn = conn.unchecked_transaction()?;
            let sql = "SELECT day, gateway FROM meta";
            let (day, gateway) = conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let content = content(record_ids(&conn)?);
            Ok(Found {
                day,
                gateway,
                closed_ms: closed_ms(&conn, version)?,
                is_own: schema::is_own(&conn, version)?,
                has_strays: conn.prepare("PRAGMA foreign_key_check")?.exists([])?,
                contents: content::of(&conn, version, content, Derived::Checked)?,
            })
        };
        let found = read();
        match self.leash.over() {
            // What was found is that it was interrupted.
            Some(Over::Late(limit)) => Err(ProveError::TooLong(limit)),
            Some(Over::Abandoned) => Err(ProveError::Abandoned),
            None => Ok(found),
        }
    }

    fn of_tombstone(&mut self, seal: &Seal, index: usize, (at, tombstone): (usize, &Tombstone)) {
        let Tombstone { records, flows, counters, .. } = tombstone;
        if !self.proven[at] {
            let detail = format!("its tombstone, statement {}, is not proven", self.number(at));
            self.fault(FaultKind::WrongKey, &seal.file, detail);
        }
        if tombstone.has_changed {
            let detail = "it was not as it was sealed when retention removed it";
            self.fault(FaultKind::Edited, &seal.file, detail);
        }
        let is_same = tombstone.seal == Some(self.chain.links[index].hash)
            && tombstone.record_ids() == seal.record_ids()
            && (*records, *flows, *counters) == (seal.records, seal.flows, seal.counters);
        if !is_same {
            let detail = "it had something else when it was removed than when it was sealed";
            self.fault(FaultKind::Edited, &seal.file, detail);
        }
    }

    fn missing(&mut self, seal: &Seal) {
        let aside = self.set_aside.iter().rev().find(|(day, _)| *day == seal.day);
        let why = match aside {
            Some((day, at)) => format!("flowd set it aside as {day}.corrupt-{at}: it was damaged"),
            None => "it is not there, and nothing says that it was removed".to_owned(),
        };
        self.proof.faults.push(match seal.record_ids() {
            Some(ids) => Fault::of_records(FaultKind::MissingDay, &seal.file, ids, &why),
            None => Fault::new(FaultKind::MissingDay, &seal.file, why),
        });
    }

    /// Days of which only a tombstone or a sum is left. Their records.
    fn of_removed(&mut self, store: &Path) -> Result<Vec<Span>, ProveError> {
        let (seals, tombstones) = (self.chain.seals(), self.chain.tombstones());
        let mut spans = Vec::new();
        for (day, (index, tombstone)) in &tombstones {
            if seals.contains_key(day) {
                continue;
            }
            let file = format!("{day}.sqlite");
            let state = if self.proven[*index] { DayState::Removed } else { DayState::Wrong };
            if state == DayState::Wrong {
                let detail =
                    format!("its tombstone, statement {}, is not proven", self.number(*index));
                self.fault(FaultKind::WrongKey, &file, detail);
            }
            self.proof.notes.push(format!("{file}: it was removed without having been sealed"));
            self.day(day, &file, state, (tombstone.records, tombstone.record_ids()));
            spans.extend(tombstone.record_ids().map(|ids| (ids, file)));
        }
        let mut peers: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for peer in totals::peer_days(store)? {
            peers.entry(peer.day.clone()).or_default().push(peer);
        }
        let mut kept = totals::days(store)?;
        let first_said = seals.keys().chain(tombstones.keys()).min().copied().unwrap_or_default();
        let strange = |day: &str| {
            let is_told =
                tombstones.contains_key(day) || self.days.iter().any(|there| there == day);
            !is_told && !first_said.is_empty() && day >= first_said
        };
        let named = kept.iter().map(|kept| &kept.day).chain(peers.keys());
        let strange: BTreeSet<String> = named.filter(|day| strange(day)).cloned().collect();
        for day in strange {
            let detail = format!("it has sums of {day}, which nobody has signed");
            self.fault(FaultKind::Edited, "totals.sqlite", detail);
        }
        for (day, (_, tombstone)) in tombstones {
            let place = kept.iter().position(|kept| kept.day == day);
            let found = place.map(|place| kept.swap_remove(place));
            let sums = content::of_peers(peers.get(day).map_or(&[], Vec::as_slice));
            let is_same = found.is_some_and(|found| {
                found.record_ids == tombstone.record_ids()
                    && (found.records, found.flows) == (tombstone.records, tombstone.flows)
                    && found.counters == tombstone.counters
                    && (found.reason.word(), found.file_bytes)
                        == (&*tombstone.reason, tombstone.file_bytes)
                    && found.sha256.parse() == Ok(tombstone.file_sha256)
            });
            if !is_same || sums != tombstone.peers {
                let detail = format!("its sums of {day} are not those of the tombstone");
                self.fault(FaultKind::Edited, "totals.sqlite", detail);
            }
        }
        kept.retain(|kept| !self.days.contains(&kept.day));
        for day in kept {
            let file = format!("{}.sqlite", day.day);
            self.proof.notes.push(format!("{file}: it was removed before days were sealed"));
            self.day(&day.day, &file, DayState::Unproven, (day.records, day.record_ids));
            spans.extend(day.record_ids.map(|ids| (ids, file)));
        }
        Ok(spans)
    }

    /// The numbers of sealed records go on from day to day. The last one.
    fn of_numbers(&mut self, mut spans: Vec<Span>) -> Option<u64> {
        spans.sort();
        let mut last: Option<u64> = None;
        for ((first, end), file) in spans {
            let next = last.map_or(first, |last| last.saturating_add(1));
            if last.is_none() && first > 1 {
                let note =
                    format!("records before {first} are in no day: nothing is proven of them");
                self.proof.notes.push(note);
            }
            if first > next {
                let what = "they are in no day: flowd lost them, or a day was cut out";
                self.proof.faults.push(Fault::of_records(
                    FaultKind::Cut,
                    &file,
                    (next, first - 1),
                    what,
                ));
            } else if first < next {
                let what = "the day before has some of them too";
                let kind = FaultKind::Reordered;
                self.proof.faults.push(Fault::of_records(kind, &file, (first, end), what));
            }
            last = last.max(Some(end));
        }
        last
    }

    /// The files that have no seal: those before the last sealed one should have, the others are
    /// unproven.
    fn of_unsealed(&mut self, mut last: Option<u64>) -> Result<(), ProveError> {
        let seals = self.chain.seals();
        let newest = seals.keys().next_back().copied().unwrap_or_default();
        for day in self.days.clone() {
            if seals.contains_key(day.as_str()) {
                continue;
            }
            let file = format!("{day}.sqlite");
            let before = self.proof.faults.len();
            let mut records = (0, None);
            if day.as_str() < newest {
                let detail = "it has no seal, although a later day has";
                self.fault(FaultKind::Unsealed, &file, detail);
            }
            let mut ids = None;
            let content = |found: Option<(u64, u64)>| {
                ids = found;
                Content::new(found, found.map_or(seal::RANGE_IDS, seal::range_ids))
            };
            match self.read(&day, content)? {
                Ok(Found { contents, .. }) => {
                    records = (contents.records, ids);
                    self.of_tail(&file, (&contents, ids), &mut last);
                }
                // It is only just being made.
                Err(OpenError::Sqlite(rusqlite::Error::SqliteFailure(..)))
                    if day.as_str() > newest =>
                {
                    self.proof.notes.push(format!("{file}: there is nothing in it yet"));
                }
                Err(error) => {
                    let detail = format!("it cannot be read ({})", failure_line(&error));
                    self.fault(FaultKind::Edited, &file, detail);
                }
            }
            let is_wrong = self.proof.faults.len() > before;
            let state = if is_wrong { DayState::Wrong } else { DayState::Unproven };
            self.day(&day, &file, state, records);
        }
        Ok(())
    }

    /// Whether a file that nobody has signed goes on from the last record that somebody has.
    fn of_tail(
        &mut self,
        file: &str,
        (contents, ids): (&Contents, Option<(u64, u64)>),
        last: &mut Option<u64>,
    ) {
        for ids in &contents.holes {
            let what = "they are not there";
            self.proof.faults.push(Fault::of_records(FaultKind::Cut, file, *ids, what));
        }
        let Some((first, end)) = ids else { return };
        let next = last.map_or(first, |last| last.saturating_add(1));
        if first > next {
            let what = "they are in no day: flowd lost them, or they were cut";
            let ids = (next, first - 1);
            self.proof.faults.push(Fault::of_records(FaultKind::Cut, file, ids, what));
        } else if first < next {
            let what = "a sealed day has them too";
            let kind = FaultKind::Reordered;
            self.proof.faults.push(Fault::of_records(kind, file, (first, end), what));
        }
        *last = (*last).max(Some(end));
    }
}

fn failure_line(error: &OpenError) -> String {
    match error {
        OpenError::Sqlite(error) => failure::with_remedy(error),
        error => error.to_string(),
    }
}
