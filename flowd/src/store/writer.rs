//! The only writer.
//!
//! - What cannot be written now is not written in part, and is tried again by whoever owns it.
//! - A damaged segment is set aside and another one is begun. A segment that somebody else removed
//!   or replaced is followed by another one with the ledger that the writer still sees.
//! - The ledger of the newest segment, set aside or not, is the only one that is believed.
//! - The newest segment takes all records, also when the clock has been set back since it was begun.

use std::{
    collections::HashSet,
    fs::{self, File},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::mpsc,
};

use rusqlite::{Connection, Transaction};

use super::{
    OpenError, SetAside, Synchronous, WriteError, aside,
    bulk::Bulk,
    failure,
    gaps::CarriedGaps,
    opening::{peek, prepare_directories},
    peer_state::CarriedPeers,
    row,
    segment::{self, Carried, Interned, Met, Place, Segment},
    state::{self, EntryId, Leaving, State},
    step::{Step, TAIL_RECORDS},
    total::Totals,
};
use crate::flows::Record;

/// Owned by the drain thread; blocking.
#[derive(Debug)]
pub struct Writer {
    pub(super) place: Place,
    pub(super) newest: Newest,
    pub(super) last_record_id: u64,
    /// As it is in the newest segment, but for what has only just ended: of that, it has what the
    /// daemon before left.
    pub(super) state: State,
    /// A state that no transaction has taken yet; the next one does.
    unwritten: Option<State>,
    aside: Vec<SetAside>,
    /// Since when the newest segment is of a day to come.
    pub(super) ahead_since_ms: Option<i64>,
    /// Segments that a reader found damaged.
    damaged: (mpsc::Sender<PathBuf>, mpsc::Receiver<PathBuf>),
    /// Held while the store is in use; and the file's device and inode.
    pub(super) lock: Option<(File, (u64, u64))>,
    /// Records of a step.
    tail_records: u32,
}

/// The segment that takes records.
#[derive(Debug)]
pub(super) enum Newest {
    Open(Segment),
    /// It cannot be written yet; what it says, and why.
    Closed {
        carried: Carried,
        why: String,
    },
    /// It was set aside, and the next one waits for the ledger.
    Wanted {
        day: String,
        gaps: CarriedGaps,
    },
}

impl Writer {
    /// Opens the store in `dir`, makes it where there is none, and keeps other writers out. A disk
    /// that is full or read-only is no error as long as the ledger can be read: the store is opened
    /// by the first transaction that can.
    pub fn open(dir: &Path, gateway: &str, now_ms: i64) -> Result<Self, OpenError> {
        let place = Place {
            store: dir.to_owned(),
            segments: dir.join("segments"),
            gateway: gateway.to_owned(),
            synchronous: Synchronous::default(),
        };
        let mut writer = Self {
            place,
            newest: Newest::Closed { carried: Carried::default(), why: String::new() },
            last_record_id: 0,
            state: State::default(),
            unwritten: None,
            aside: Vec::new(),
            ahead_since_ms: None,
            damaged: mpsc::channel(),
            lock: None,
            tail_records: TAIL_RECORDS,
        };
        match writer.reopen(now_ms) {
            Err(error) if failure::may_pass(&error) => {
                let carried = peek(&writer.place.segments)?;
                writer.state.clone_from(&carried.state);
                writer.last_record_id = carried.last_record_id;
                writer.newest = Newest::Closed { carried, why: error.to_string() };
            }
            opened => opened?,
        }
        Ok(writer)
    }

    /// The same writer with another promise about power failures.
    pub fn with_synchronous(mut self, synchronous: Synchronous) -> rusqlite::Result<Self> {
        self.place.synchronous = synchronous;
        if let Newest::Open(segment) = &self.newest {
            segment.set_synchronous(synchronous)?;
        }
        Ok(self)
    }

    /// The same writer beside a [`super::Compactor`] whose steps have so many records.
    pub fn with_tail_records(mut self, tail_records: u32) -> Self {
        self.tail_records = tail_records;
        self
    }

    /// Numbers and stores the records and brings the ledger up to date, in one transaction, and adds
    /// to what flows did that have left the tables. On an error nothing has changed, and the records
    /// keep the id 0.
    pub fn commit(
        &mut self,
        now_ms: i64,
        records: &mut [Record],
        leaving: &Leaving,
    ) -> Result<(), WriteError> {
        let mut last = 0;
        let left = std::mem::take(&mut self.state.ended);
        let tail_records = self.tail_records;
        let outcome = self.numbered(now_ms, |tx, interned, first| {
            let mut totals = Totals::default();
            let mut writing = row::Writing::new(tx)?;
            let mut all_ids = Vec::with_capacity(records.len());
            for (id, record) in (first..).zip(records.iter_mut()) {
                record.record_id = id;
                last = id;
            }
            let records = &*records;
            let mut met = Met::default();
            for record in records {
                let ids = interned.ids(tx, record, &mut met)?;
                totals.add(record, ids);
                all_ids.push(ids);
            }
            writing.ledger(records, &all_ids)?;
            let recorded = || records.iter().zip(all_ids.iter().copied());
            let bulk = Bulk::new(tx, records.len(), tail_records)?;
            let is_written = match bulk {
                Some(mut bulk) => {
                    recorded().all(|(record, ids)| bulk.push(record, ids)) && bulk.write(tx)?
                }
                None => false,
            };
            if !is_written {
                recorded().try_for_each(|(record, ids)| writing.record(record, ids))?;
            }
            totals.write(tx)?;
            state::write_ended(tx, &left, records)?;
            state::write_leaving(tx, leaving)?;
            state::write_alive(tx, now_ms, false)
        });
        self.state.ended = left;
        if outcome.is_err() {
            records.iter_mut().for_each(|record| record.record_id = 0);
        } else {
            self.last_record_id = self.last_record_id.max(last);
            self.state.leave(leaving);
        }
        outcome
    }

    /// Runs `write` in one transaction of the day's segment, which is made where there is none. On
    /// an error nothing has changed.
    pub(super) fn transaction<T>(
        &mut self,
        now_ms: i64,
        write: impl FnOnce(&Transaction<'_>, &mut Interned) -> rusqlite::Result<T>,
    ) -> Result<T, WriteError> {
        self.numbered(now_ms, |tx, interned, _| write(tx, interned))
    }

    /// The same, with the number of the next record.
    fn numbered<T>(
        &mut self,
        now_ms: i64,
        write: impl FnOnce(&Transaction<'_>, &mut Interned, u64) -> rusqlite::Result<T>,
    ) -> Result<T, WriteError> {
        self.see_to_damage(now_ms)?;
        let first = self.last_record_id;
        // Opening the segment may have found more.
        let first = first.max(self.ready(now_ms)?.1) + 1;
        let Newest::Open(segment) = &mut self.newest else { return Err(WriteError::LedgerWanted) };
        let unwritten = &self.unwritten;
        let outcome = segment.transaction(|tx, interned| {
            if let Some(state) = unwritten {
                state.write(tx)?;
            }
            write(tx, interned, first)
        });
        match outcome {
            Ok(done) => {
                if let Some(state) = self.unwritten.take() {
                    self.state = state;
                }
                Ok(done)
            }
            Err(error) if failure::is_damage(&error) => {
                let why = error.to_string();
                Err(WriteError::Damaged(self.set_newest_aside(now_ms, why)?))
            }
            outcome => Ok(outcome?),
        }
    }

    /// The segment that takes records at this time, and the highest id.
    fn ready(&mut self, now_ms: i64) -> Result<(&mut Segment, u64), WriteError> {
        match &self.newest {
            Newest::Closed { .. } => self.reopen(now_ms)?,
            Newest::Wanted { .. } => return Err(WriteError::LedgerWanted),
            Newest::Open(_) => self.heed_the_day(now_ms)?,
        }
        let today = day(now_ms);
        let Newest::Open(segment) = &self.newest else { return Err(WriteError::LedgerWanted) };
        let has_moved = segment.has_moved();
        // A clock that is set back does not reopen an older day.
        if has_moved || today > segment.day {
            let next = today.max(segment.day.clone());
            let carried = match segment::carried(segment.conn()) {
                Ok(carried) => Carried { last_record_id: self.last_record_id, ..carried },
                Err(error) if failure::is_damage(&error) => {
                    let why = error.to_string();
                    return Err(WriteError::Damaged(self.set_newest_aside(now_ms, why)?));
                }
                Err(error) => return Err(error.into()),
            };
            let before = segment.day.clone();
            if has_moved {
                prepare_directories(&self.place)?;
                self.take_lock()?;
                self.clear(&before, now_ms, "another file was in its place")?;
            }
            let next = self.begin(now_ms, &next, &carried)?;
            failpoint!("segment-begun");
            let old = std::mem::replace(&mut self.newest, Newest::Open(next));
            if let Newest::Open(old) = old {
                if has_moved {
                    old.abandon();
                    self.note(SetAside {
                        day: before,
                        file: None,
                        at_ms: now_ms,
                        why: "somebody moved, replaced or removed it".to_owned(),
                        has_ledger: true,
                    });
                } else {
                    old.close();
                }
            }
        }
        match &mut self.newest {
            Newest::Open(segment) => Ok((segment, self.last_record_id)),
            _ => Err(WriteError::LedgerWanted),
        }
    }

    /// A new segment with what is carried over; a damaged file in its place is set aside.
    fn begin(&mut self, now_ms: i64, day: &str, carried: &Carried) -> Result<Segment, WriteError> {
        let opened = Segment::open(&self.place, day, Some(carried));
        let segment = match opened {
            Err(error) if failure::is_damaged_file(&error) => {
                self.clear(day, now_ms, &failure::said(&error))?;
                Segment::open(&self.place, day, Some(carried))?
            }
            opened => opened?,
        };
        // A file that was there already has numbers too.
        self.last_record_id = self.last_record_id.max(segment::last_record_id(segment.conn())?);
        Ok(segment)
    }

    /// Sets aside what lies where a segment is to be begun, if anything does.
    fn clear(&mut self, day: &str, now_ms: i64, why: &str) -> Result<(), WriteError> {
        let path = self.place.path(day);
        if !path.exists() {
            return Ok(());
        }
        let file = aside::rename(&self.place.segments, day, now_ms)
            .map_err(|source| WriteError::NotSetAside { path, source })?;
        self.note(SetAside {
            day: day.to_owned(),
            file: Some(file),
            at_ms: now_ms,
            why: why.to_owned(),
            has_ledger: true,
        });
        Ok(())
    }

    /// Takes the segment out of use that takes records.
    pub(super) fn set_newest_aside(
        &mut self,
        now_ms: i64,
        why: String,
    ) -> Result<SetAside, WriteError> {
        let (day, gaps) = match &self.newest {
            // What cannot be read of them, the daemon writes again when they end.
            Newest::Open(segment) => {
                (segment.day.clone(), CarriedGaps::read(segment.conn()).unwrap_or_default())
            }
            _ => return Err(WriteError::LedgerWanted),
        };
        let path = self.place.path(&day);
        let file = aside::rename(&self.place.segments, &day, now_ms)
            .map_err(|source| WriteError::NotSetAside { path, source })?;
        let old = std::mem::replace(&mut self.newest, Newest::Wanted { day: day.clone(), gaps });
        if let Newest::Open(old) = old {
            old.abandon();
        }
        let aside = SetAside { day, file: Some(file), at_ms: now_ms, why, has_ledger: true };
        self.note(aside.clone());
        Ok(aside)
    }

    /// Sets aside what readers found damaged.
    fn see_to_damage(&mut self, now_ms: i64) -> Result<(), WriteError> {
        while let Ok(path) = self.damaged.1.try_recv() {
            let why = "a query found it damaged";
            match &self.newest {
                Newest::Open(segment) if self.place.path(&segment.day) == path => {
                    return Err(WriteError::Damaged(self.set_newest_aside(now_ms, why.into())?));
                }
                _ => {
                    let day = path.file_stem().and_then(|day| day.to_str()).unwrap_or_default();
                    let day = day.to_owned();
                    self.clear(&day, now_ms, why)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn note(&mut self, aside: SetAside) {
        tracing::error!(
            day = aside.day,
            file = aside.file.as_ref().map(|file| file.display().to_string()),
            why = aside.why,
            "a segment is out of use, and its records are in no answer: restore it from a backup"
        );
        self.aside.push(aside);
    }

    /// Whether a segment was set aside and the next one waits for [`Self::begin_anew`].
    pub fn wants_ledger(&self) -> bool {
        matches!(self.newest, Newest::Wanted { .. })
    }

    /// Begins the segment after one that was set aside, with what is recorded of every flow that
    /// the kernel still has, as [`Self::for_each_open`] says it, and with what has ended and may
    /// still be in its table.
    pub fn begin_anew(
        &mut self,
        now_ms: i64,
        ledger: Vec<Record>,
        ended: HashSet<EntryId>,
    ) -> Result<(), WriteError> {
        let Newest::Wanted { day: aside, gaps } = &self.newest else { return Ok(()) };
        let (next, gaps) = (day(now_ms).max(aside.clone()), gaps.clone());
        let known = self.unwritten.as_ref().unwrap_or(&self.state).clone();
        let state = State { alive_ms: Some(now_ms), ended, ..known };
        let last_record_id = self.last_record_id;
        // The running daemon knows its peers' sessions and counters, and writes them again.
        let peers = CarriedPeers::default();
        let carried = Carried { ledger, state, gaps, peers, last_record_id };
        let segment = self.begin(now_ms, &next, &carried)?;
        self.newest = Newest::Open(segment);
        if let Some(state) = self.unwritten.take() {
            self.state = state;
        }
        Ok(())
    }

    /// The newest segment, where it can be used.
    pub(super) fn conn(&self) -> Option<&Connection> {
        match &self.newest {
            Newest::Open(segment) => Some(segment.conn()),
            Newest::Closed { .. } | Newest::Wanted { .. } => None,
        }
    }

    /// What is known of peers.
    pub(super) fn peers(&self) -> rusqlite::Result<CarriedPeers> {
        match &self.newest {
            Newest::Open(segment) => CarriedPeers::read(segment.conn()),
            Newest::Closed { carried, .. } => Ok(carried.peers.clone()),
            Newest::Wanted { .. } => Ok(CarriedPeers::default()),
        }
    }

    /// Puts a chunk into its place, in one transaction. `false`: it is of another segment than takes
    /// records now, or that is not as it was; nothing has changed then, nor on an error.
    pub fn take_step(&mut self, now_ms: i64, step: &Step) -> Result<bool, WriteError> {
        let Newest::Open(segment) = &mut self.newest else { return Ok(false) };
        if segment.file() != step.file || segment.has_moved() {
            return Ok(false);
        }
        match segment.transaction(|tx, _| step.take(tx)) {
            Ok(()) => {
                failpoint!("chunk-committed");
                Ok(true)
            }
            Err(rusqlite::Error::StatementChangedRows(_)) => Ok(false),
            Err(error) if failure::is_damage(&error) => {
                let why = error.to_string();
                Err(WriteError::Damaged(self.set_newest_aside(now_ms, why)?))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Segments that are out of use since the store was opened.
    pub fn set_aside(&self) -> &[SetAside] {
        &self.aside
    }

    /// Where readers report the segments that they found damaged.
    pub fn reports(&self) -> mpsc::Sender<PathBuf> {
        self.damaged.0.clone()
    }

    /// Why nothing can be written yet, since the store was opened.
    pub fn trouble(&self) -> Option<&str> {
        match &self.newest {
            Newest::Closed { why, .. } => Some(why),
            _ => None,
        }
    }

    /// Notes that everything until now is in the kernel's tables or in the store; if `is_clean`, in the
    /// store.
    pub fn beat(&mut self, now_ms: i64, is_clean: bool) -> Result<(), WriteError> {
        self.transaction(now_ms, |tx, _| state::write_alive(tx, now_ms, is_clean))
    }

    /// What the daemon before left to know.
    pub fn state(&self) -> Result<State, WriteError> {
        match &self.newest {
            Newest::Open(segment) => Ok(State::read(segment.conn())?),
            Newest::Closed { carried, .. } => Ok(carried.state.clone()),
            Newest::Wanted { .. } => Err(WriteError::LedgerWanted),
        }
    }

    /// Replaces it: now, or with the next transaction that succeeds, so that no record is taken for
    /// one of another boot; where a segment waits for its ledger, it comes with that.
    pub fn set_state(&mut self, now_ms: i64, state: &State) -> Result<(), WriteError> {
        self.unwritten = Some(state.clone());
        if self.wants_ledger() {
            return Ok(());
        }
        self.transaction(now_ms, |_, _| Ok(()))
    }

    /// These have ended, and are in the kernel's table until [`Self::forget_ended`].
    pub fn keep_ended(&mut self, ids: &[EntryId]) {
        self.state.ended.extend(ids);
    }

    /// What had ended before has left the kernel's table.
    pub fn forget_ended(&mut self) {
        self.state.ended.clear();
    }

    /// The highest record id in the store; 0: none yet.
    pub fn last_record_id(&self) -> u64 {
        self.last_record_id
    }

    /// The ledger: shows open flows to `visit` until it says stop, each as a record of nothing since its
    /// last one.
    pub fn for_each_open(
        &self,
        mut visit: impl FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), WriteError> {
        match &self.newest {
            Newest::Open(segment) => Ok(segment::for_each_open(segment.conn(), visit)?),
            Newest::Closed { carried, .. } => {
                // Breaking off is what it is for.
                let _stopped = carried.ledger.iter().cloned().try_for_each(&mut visit);
                Ok(())
            }
            Newest::Wanted { .. } => Err(WriteError::LedgerWanted),
        }
    }

    #[cfg(test)]
    pub(super) fn leftovers(&self) -> Result<Vec<Record>, WriteError> {
        let mut ledger = Vec::new();
        self.for_each_open(|record| {
            ledger.push(record);
            ControlFlow::Continue(())
        })?;
        Ok(ledger)
    }

    /// Segments and their bytes on disk, write-ahead logs included.
    pub fn size(&self) -> (u64, u64) {
        let segments = &self.place.segments;
        let count = list(segments).map_or(0, |names| names.len() as u64);
        let bytes = fs::read_dir(segments).map_or(0, |entries| {
            entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|m| m.len()).sum()
        });
        (count, bytes)
    }

    /// Folds the write-ahead log into the segment.
    pub fn close(self) {
        if let Newest::Open(segment) = self.newest {
            segment.close();
        }
    }
}

/// The UTC day, as segments are named.
pub(super) fn day(now_ms: i64) -> String {
    let now = jiff::Timestamp::from_millisecond(now_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    now.strftime("%Y-%m-%d").to_string()
}

/// The days that have a segment, oldest first.
pub(super) fn list(segments: &Path) -> std::io::Result<Vec<String>> {
    let mut days = Vec::new();
    for entry in fs::read_dir(segments)? {
        let name = entry?.file_name();
        let day = name.to_str().and_then(|name| name.strip_suffix(".sqlite"));
        days.extend(day.filter(|day| day.parse::<jiff::civil::Date>().is_ok()).map(str::to_owned));
    }
    days.sort();
    Ok(days)
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
