//! The digests of a segment: what is in its table `digest`. `docs/store.md` says when there is one.

use std::ops::RangeInclusive;

use rusqlite::{Connection, params};

use super::chunks::{self, damaged};
use crate::chunk::{Blobs, Chunk, ChunkError, Digest, Header, Number};

/// Since this version of the schema there are any.
const SINCE_VERSION: usize = 6;

/// Which records a digest is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) ids: RangeInclusive<i64>,
    /// The least of them, Unix milliseconds.
    pub(super) window_start_ms: i64,
    pub(super) window_end_ms: RangeInclusive<i64>,
}

impl Extent {
    /// Of one chunk.
    pub(super) fn of(header: &Header) -> Self {
        Self {
            ids: header.zone(Number::RecordId),
            window_start_ms: *header.zone(Number::WindowStart).start(),
            window_end_ms: header.zone(Number::WindowEnd),
        }
    }

    /// How many records there are.
    pub(super) fn records(&self) -> u64 {
        self.ids.end().abs_diff(*self.ids.start()) + 1
    }

    /// Of all that follow each other.
    fn joined(mut extents: impl Iterator<Item = Self>) -> Option<Self> {
        let first = extents.next()?;
        let both = |one: &RangeInclusive<i64>, other: &RangeInclusive<i64>| {
            *one.start().min(other.start())..=*one.end().max(other.end())
        };
        Some(extents.fold(first, |one, other| Self {
            ids: both(&one.ids, &other.ids),
            window_start_ms: one.window_start_ms.min(other.window_start_ms),
            window_end_ms: both(&one.window_end_ms, &other.window_end_ms),
        }))
    }
}

/// A digest to be put into the segment.
#[derive(Debug)]
pub(super) struct New {
    pub(super) extent: Extent,
    digest: Digest,
}

impl New {
    /// Of chunks that follow each other and have loaded [`Digest::columns`]; `None`: of no chunk.
    pub(super) fn of(chunks: &[Chunk]) -> Result<Option<Self>, ChunkError> {
        let digest = Digest::of(chunks)?;
        let extents = chunks.iter().map(|chunk| Extent::of(chunk.header()));
        Ok(Extent::joined(extents).map(|extent| Self { extent, digest }))
    }

    /// Of those of a segment that follow each other.
    pub(super) fn merged(conn: &Connection, extents: &[Extent]) -> rusqlite::Result<Option<Self>> {
        let digests =
            extents.iter().map(|extent| read(conn, extent)).collect::<Result<Vec<_>, _>>()?;
        let digest = Digest::merged(&digests).map_err(damaged)?;
        Ok(Extent::joined(extents.iter().cloned()).map(|extent| Self { extent, digest }))
    }

    /// The first and the last record.
    pub(super) fn ids(&self) -> (u64, u64) {
        (self.extent.ids.start().cast_unsigned(), self.extent.ids.end().cast_unsigned())
    }

    pub(super) fn insert(&self, conn: &Connection) -> rusqlite::Result<()> {
        let Extent { ids, window_start_ms, window_end_ms } = &self.extent;
        let [totals, peers, remotes, ports, pairs] = self.digest.encode();
        let mut insert =
            conn.prepare_cached("INSERT INTO digest VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?;
        insert.execute(params![
            ids.start(),
            ids.end(),
            window_start_ms,
            window_end_ms.start(),
            window_end_ms.end(),
            totals,
            peers,
            remotes,
            ports,
            pairs,
        ])?;
        Ok(())
    }
}

/// What digests there are, ascending.
pub(super) fn list(conn: &Connection, version: usize) -> rusqlite::Result<Vec<Extent>> {
    if version < SINCE_VERSION {
        return Ok(Vec::new());
    }
    let mut query = conn.prepare_cached(
        "SELECT first_record_id, last_record_id, window_start, window_end_first, window_end_last \
         FROM digest ORDER BY first_record_id",
    )?;
    let extents = query.query_map([], |row| {
        Ok(Extent {
            ids: row.get(0)?..=row.get(1)?,
            window_start_ms: row.get(2)?,
            window_end_ms: row.get(3)?..=row.get(4)?,
        })
    })?;
    extents.collect()
}

/// How many bytes each has, by ascending id.
pub(super) fn lengths(conn: &Connection) -> rusqlite::Result<Vec<u64>> {
    let mut query = conn.prepare_cached(
        "SELECT coalesce(length(peers), 0) + coalesce(length(remotes), 0) \
         + coalesce(length(ports), 0) + coalesce(length(pairs), 0) \
         FROM digest ORDER BY first_record_id",
    )?;
    query.query_map([], |row| row.get::<_, i64>(0).map(i64::cast_unsigned))?.collect()
}

/// Takes those of these records out. How many there were.
pub(super) fn delete(conn: &Connection, (first, last): (u64, u64)) -> rusqlite::Result<usize> {
    conn.prepare_cached("DELETE FROM digest WHERE first_record_id BETWEEN ? AND ?")?
        .execute([first.cast_signed(), last.cast_signed()])
}

/// A digest, whole.
fn read(conn: &Connection, extent: &Extent) -> rusqlite::Result<Digest> {
    Digest::decode(&blobs(conn, extent, [true; 5])?).map_err(damaged)
}

/// Those parts of a digest that are wanted: totals, peers, remotes, ports, pairs.
pub(super) fn blobs(
    conn: &Connection,
    extent: &Extent,
    wanted: [bool; 5],
) -> rusqlite::Result<Blobs> {
    let columns = ["totals", "peers", "remotes", "ports", "pairs"];
    let columns: Vec<_> = columns
        .iter()
        .zip(wanted)
        .map(|(name, wanted)| if wanted { name } else { "NULL" })
        .collect();
    let sql = format!("SELECT {} FROM digest WHERE first_record_id = ?", columns.join(", "));
    conn.prepare_cached(&sql)?.query_row([extent.ids.start()], |row| {
        Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?])
    })
}

/// Chunks that are in memory at once when digests are held against them.
const AT_ONCE: usize = 4;

/// Holds every digest against its chunks.
pub(super) fn check(conn: &Connection, version: usize) -> rusqlite::Result<()> {
    for extent in list(conn, version)? {
        let stored = read(conn, &extent)?;
        let (first, last) = (*extent.ids.start(), *extent.ids.end());
        let mut waiting =
            chunks::between(conn, first.cast_unsigned().saturating_sub(1), last.cast_unsigned())?;
        let extents = waiting.iter().map(|stored| Extent::of(stored.chunk.header()));
        let is_whole = Extent::joined(extents).as_ref() == Some(&extent);
        let mut whole = Digest::whole(&[]).map_err(damaged)?;
        while !waiting.is_empty() {
            let mut chunks = Vec::new();
            for stored in waiting.drain(..AT_ONCE.min(waiting.len())) {
                stored.need(conn, Digest::columns())?;
                chunks.push(stored.chunk);
            }
            let next = Digest::whole(&chunks).map_err(damaged)?;
            whole = Digest::merged(&[whole, next]).map_err(damaged)?;
        }
        if !is_whole || !stored.is_part_of(&whole) {
            return Err(damaged(ChunkError::Damaged("a digest is not that of its chunks")));
        }
    }
    Ok(())
}
