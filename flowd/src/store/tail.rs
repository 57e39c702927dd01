//! The rows of the newest segment as readers keep them. A row never changes, so what one query has
//! read, the next need not read again; what has become a chunk since is forgotten.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::{Connection, OptionalExtension as _};

use super::{
    latest::FileId,
    row::{self, Names},
};
use crate::flows::Record;

/// Rows that are kept at most: a tail is longer only where steps fail, and in old segments.
const MOST: u64 = 65_536;

/// Records that follow each other, ascending; each part is what one query found new.
pub(super) type Parts = Vec<Arc<[Record]>>;

/// The kept rows of one file.
#[derive(Debug, Default)]
pub(super) struct Tail {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    file: Option<FileId>,
    parts: VecDeque<Arc<[Record]>>,
}

impl Tail {
    /// All rows as the transaction of `conn` sees them, and perhaps others beyond the range of ids
    /// that comes with them; `None`: they are too many, or somebody with a later view was here.
    pub(super) fn of<'n>(
        &self,
        conn: &Connection,
        names: impl FnOnce() -> rusqlite::Result<&'n Names>,
        (columns, file): (&str, FileId),
    ) -> rusqlite::Result<Option<(Parts, (u64, u64))>> {
        let (first, last): (Option<i64>, Option<i64>) = conn.query_row(
            "SELECT (SELECT min(record_id) FROM record), (SELECT max(record_id) FROM record)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let (Some(first), Some(last)) = (first, last) else {
            return Ok(Some((Parts::new(), (1, 0))));
        };
        let ids = (first.cast_unsigned(), last.cast_unsigned());
        if ids.1 - ids.0 >= MOST {
            return Ok(None);
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.file != Some(file) || !kept.is_of(conn, ids)? {
            *kept = Kept { file: Some(file), parts: VecDeque::new() };
        }
        let known = kept.ids();
        if known.is_some_and(|(first, _)| first > ids.0) {
            return Ok(None);
        }
        let new = known.map_or(ids.0, |(_, last)| last + 1);
        if new <= ids.1 {
            let part = read(conn, names()?, columns, (new, ids.1))?;
            kept.parts.push_back(part.into());
        }
        while kept
            .parts
            .front()
            .and_then(|part| part.last())
            .is_none_or(|row| row.record_id < ids.0)
        {
            if kept.parts.pop_front().is_none() {
                break;
            }
        }
        Ok(Some((kept.parts.iter().cloned().collect(), ids)))
    }
}

impl Kept {
    /// The first and the last one.
    fn ids(&self) -> Option<(u64, u64)> {
        let first = self.parts.front()?.first()?.record_id;
        Some((first, self.parts.back()?.last()?.record_id))
    }

    /// Whether the file still has what was read of it: another one may have got its number.
    fn is_of(&self, conn: &Connection, (_, last): (u64, u64)) -> rusqlite::Result<bool> {
        let rows = || self.parts.iter().rev().flat_map(|part| part.iter().rev());
        let Some(known) = rows().find(|row| row.record_id <= last) else { return Ok(true) };
        let sql = "SELECT first_seen, window_end, last_seen FROM record WHERE record_id = ?";
        let found: Option<(i64, i64, i64)> = conn
            .prepare_cached(sql)?
            .query_row([known.record_id.cast_signed()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()?;
        // What is no row any more is not asked for either.
        Ok(found.is_none_or(|found| {
            found == (known.first_seen_ms, known.window_end_ms, known.last_seen_ms)
        }))
    }
}

fn read(
    conn: &Connection,
    names: &Names,
    columns: &str,
    (first, last): (u64, u64),
) -> rusqlite::Result<Vec<Record>> {
    let sql =
        format!("SELECT {columns} FROM record WHERE record_id BETWEEN ? AND ? ORDER BY record_id");
    let mut query = conn.prepare_cached(&sql)?;
    let mut rows = query.query([first.cast_signed(), last.cast_signed()])?;
    let mut records = Vec::with_capacity((last - first + 1) as usize);
    while let Some(row) = rows.next()? {
        records.push(row::record(row, names)?);
    }
    Ok(records)
}
