//! Sealing days that are over, and saying what went: what the keeper adds to the chain.
//!
//! - A day is sealed when its file is closed. Nothing but a whole line of the chain says so: after a
//!   crash in between, the next run seals it, late.
//! - A file that was opened again (the newest one was lost), or that is called after another day
//!   now (the clock was ahead), is sealed again if it has exactly what was sealed: whoever can write
//!   files gets no signature for what he wrote into them.
//! - Days are sealed in their order: one that comes from somewhere behind a sealed one gets no seal,
//!   and neither does one that was removed and comes back.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::{
    content::{self, Derived},
    retention::KeepError,
    schema,
    segment::record_ids,
    signing::{SealError, Signer},
    totals::Day,
};
use crate::{
    audit::{Event, word},
    flows::DayTotal,
    seal::{self, Chain, Content, Contents, Hash, Link, Seal, Statement, Tombstone, What},
};

/// What seals of a store need.
#[derive(Clone, Debug)]
pub(super) struct Sealer {
    pub(super) store: PathBuf,
    pub(super) keys: PathBuf,
    pub(super) gateway: String,
}

/// What became of the file of a day that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// It was closed by this run.
    Now,
    /// It was closed before.
    Before,
    /// It is still open.
    NotYet,
}

impl Sealer {
    pub(super) fn open(&self, now_ms: i64) -> Result<Signer, SealError> {
        let Self { store, keys, gateway } = self;
        Signer::open(store, keys, gateway, now_ms)
    }
}

impl Signer {
    /// Seals a day whose file is closed, unless it is sealed as it is. `days` are those that have a
    /// file.
    pub(super) fn seal(
        &mut self,
        path: &Path,
        (day, days): (&str, &[String]),
        closed: Closed,
        now_ms: i64,
    ) -> Result<(), KeepError> {
        let known = self.chain.seals().get(day).map(|(_, seal)| seal.closed_ms);
        if self.chain.tombstones().contains_key(day) {
            return Ok(());
        }
        let is_behind = self.is_behind(day, days);
        let read = || -> rusqlite::Result<Option<Result<Seal, SealError>>> {
            let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            let conn = conn.unchecked_transaction()?;
            let version: u32 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
            let version = version as usize;
            let closed_ms = closed_ms(&conn, version)?;
            if version == 0 || known == Some(closed_ms) {
                return Ok(None);
            }
            if !schema::is_own(&conn, version)? {
                return Ok(Some(Err(SealError::Foreign(day.to_owned()))));
            }
            let ids = record_ids(&conn)?;
            let before = before(&self.chain, day, days, ids);
            if before.is_none() && is_behind {
                return Ok(Some(Err(SealError::Behind(day.to_owned()))));
            }
            let range_ids = ids.map_or(seal::RANGE_IDS, seal::range_ids);
            let content = Content::new(ids, range_ids);
            let contents = content::of(&conn, version, content, Derived::Skipped)?;
            // What is signed is what was compared: it is read once.
            if before.is_some_and(|before| !is_same(before, ids, &contents)) {
                return Ok(Some(Err(SealError::Changed(day.to_owned()))));
            }
            Ok(Some(Ok(Seal {
                day: day.to_owned(),
                file: format!("{day}.sqlite"),
                closed_ms,
                is_late: closed == Closed::Before,
                was: before.map(|seal| seal.day.clone()).filter(|was| was != day),
                first_record_id: ids.map(|(first, _)| first),
                last_record_id: ids.map(|(_, last)| last),
                records: contents.records,
                flows: contents.flows,
                counters: contents.counters,
                range_ids,
                content: contents.sha256(),
                ranges: contents.ranges,
                sections: contents.sections,
            })))
        };
        let segment = |source| KeepError::Segment { path: path.to_owned(), source };
        let Some(seal) = read().map_err(segment)? else { return Ok(()) };
        let seal = seal?;
        let records = seal.records;
        let (statement, hash) = self.say(now_ms, What::Seal(seal))?;
        tracing::info!(day, records, statement, %hash, "sealed a day");
        Ok(())
    }

    /// Whether a later day is sealed already.
    fn is_behind(&self, day: &str, days: &[String]) -> bool {
        let (seals, gone) = (self.chain.seals(), self.chain.tombstones());
        let mut later = seals.keys().chain(gone.keys()).filter(|later| **later > day);
        // What was sealed under a name that no file has is called otherwise now; what has gone under
        // a name behind all files was called after a day to come.
        let newest = days.last().map_or("", String::as_str);
        later.any(|later| {
            (gone.contains_key(later) && *later <= newest) || days.iter().any(|day| day == later)
        })
    }

    /// Whether the file of a day has what was sealed, if it was.
    fn has_changed(&self, path: &Path, day: &str) -> rusqlite::Result<bool> {
        let seals = self.chain.seals();
        let Some((_, seal)) = seals.get(day) else { return Ok(false) };
        let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let conn = conn.unchecked_transaction()?;
        let version: u32 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let version = version as usize;
        let content = Content::new(seal.record_ids(), seal.range_ids);
        let contents = content::of(&conn, version, content, Derived::Skipped)?;
        let is_same = is_same(seal, record_ids(&conn)?, &contents);
        Ok(!(is_same && schema::is_own(&conn, version)?))
    }

    /// Says that a day is about to go, and what it had, unless that was said before.
    pub(super) fn bury(
        &mut self,
        (path, day): (&Path, &Day),
        peers: &[DayTotal],
        now_ms: i64,
    ) -> Result<(), SealError> {
        let file_sha256: Hash = day.sha256.parse().unwrap_or_default();
        let is_said = |(_, said): &(usize, &Tombstone)| said.file_sha256 == file_sha256;
        if self.chain.tombstones().get(day.day.as_str()).is_some_and(is_said) {
            return Ok(());
        }
        // What cannot be read is not as it was sealed.
        let has_changed = self.has_changed(path, &day.day).unwrap_or(true);
        if has_changed {
            tracing::error!(
                day = day.day,
                "a day that retention removes is not as it was sealed; its tombstone says so"
            );
        }
        let seals = self.chain.seals();
        let seal = seals.get(day.day.as_str()).map(|(index, _)| self.chain.links[*index].hash);
        let tombstone = Tombstone {
            has_changed,
            day: day.day.clone(),
            seal,
            reason: day.reason.word().to_owned(),
            first_record_id: day.record_ids.map(|(first, _)| first),
            last_record_id: day.record_ids.map(|(_, last)| last),
            records: day.records,
            flows: day.flows,
            counters: day.counters,
            file_bytes: day.file_bytes,
            file_sha256,
            peers: content::of_peers(peers),
        };
        self.say(now_ms, What::Tombstone(tombstone)).map(drop)
    }
}

/// What the audit log has of a statement that follows another; nothing of a day that went, which it
/// is told by who removes it, and nothing of one about itself.
pub(super) fn told(link: &Link, before: Option<&Link>) -> Option<Event> {
    let Statement { at_ms, key, what, .. } = &link.statement;
    let event = |word| Event::auto(*at_ms, word).with("statement_sha256", link.hash.to_string());
    match what {
        What::Key
            if matches!(before.map(|link| &link.statement.what), Some(What::Rotate { .. })) =>
        {
            None
        }
        What::Key => Some(event(word::KEY_CREATED).with("key", key.to_string())),
        What::Rotate { next } => Some(
            event(word::KEY_ROTATED).with("key", next.to_string()).with("before", key.to_string()),
        ),
        What::Seal(seal) => Some(
            event(word::SEGMENT_SEALED)
                .on(&*seal.day)
                .with("records", seal.records)
                .with("first_record_id", seal.first_record_id)
                .with("last_record_id", seal.last_record_id)
                .with("content_sha256", seal.content.to_string()),
        ),
        What::Tombstone(_) | What::Audit { .. } => None,
    }
}

/// Whether a segment with these ids and contents has all of what was sealed, and nothing else.
fn is_same(seal: &Seal, ids: Option<(u64, u64)>, contents: &Contents) -> bool {
    ids == seal.record_ids() && contents.outside.is_none() && contents.sha256() == seal.content
}

/// When a file was closed.
pub(super) fn closed_ms(conn: &Connection, version: usize) -> rusqlite::Result<Option<i64>> {
    match version {
        0..4 => Ok(None),
        _ => conn.query_row("SELECT sealed FROM meta", [], |row| row.get(0)),
    }
}

/// What the records of a file were sealed as before: under its name, or under that of a day which has
/// no file.
fn before<'c>(
    chain: &'c Chain,
    day: &str,
    days: &[String],
    ids: Option<(u64, u64)>,
) -> Option<&'c Seal> {
    let (seals, gone) = (chain.seals(), chain.tombstones());
    if let Some((_, seal)) = seals.get(day)
        && !gone.contains_key(day)
    {
        return Some(*seal);
    }
    let first = ids.map(|(first, _)| first)?;
    let is_renamed = |(_, seal): &&(usize, &Seal)| {
        seal.first_record_id == Some(first)
            && !days.contains(&seal.day)
            && !gone.contains_key(seal.day.as_str())
    };
    seals.values().find(is_renamed).map(|(_, seal)| *seal)
}
