//! Many records at once: they become chunks in the transaction that stores them, and were never
//! rows. What there is of rows goes into the chunk before them, so that every id in a chunk stays
//! below every id of a row.

use std::num::NonZeroU32;

use rusqlite::Connection;

use super::{
    chunks::{self, Words},
    row::Ids,
    step::{self, MakeError},
};
use crate::{
    chunk::{Encoded, NameId, Row},
    flows::Record,
};

/// A transaction with one record for so many of a step has many.
const ENOUGH: u32 = 4;
/// Fewer are never many.
const LEAST: usize = if cfg!(test) { 1 } else { 64 };

/// Records on their way into chunks.
pub(super) struct Bulk {
    words: Words,
    /// By ascending id; rows of the tail first.
    rows: Vec<Row>,
    of_tail: usize,
    most: u64,
}

impl Bulk {
    /// For so many records; `None`: they are few, or the tail is long enough for a step of its own,
    /// or has a hole.
    pub(super) fn new(
        conn: &Connection,
        count: usize,
        tail_records: u32,
    ) -> rusqlite::Result<Option<Self>> {
        let tail = step::tail(conn)?;
        if count < LEAST
            || count as u64 * u64::from(ENOUGH) < u64::from(tail_records)
            || tail >= u64::from(tail_records)
        {
            return Ok(None);
        }
        let mut words = Words::read(conn)?;
        let mut rows = Vec::with_capacity(tail as usize + count);
        step::read_rows(conn, tail_records, &mut words, &mut rows)?;
        let of_tail = rows.len();
        // What lies behind a hole would stay rows, below the chunk.
        if of_tail as u64 != tail {
            return Ok(None);
        }
        Ok(Some(Self { words, rows, of_tail, most: step::most(tail_records) }))
    }

    /// One record more. `false`: it is one that a segment refuses, and says why as a row.
    pub(super) fn push(&mut self, record: &Record, ids: Ids) -> bool {
        let row = ids.row(record, &mut self.words);
        self.rows.extend(row);
        row.is_some_and(|row| row.is_sound())
    }

    /// Puts the chunks into the segment. `false`: one of them does not give back what it is made of,
    /// and nothing has changed.
    pub(super) fn write(mut self, conn: &Connection) -> rusqlite::Result<bool> {
        let of_tail =
            self.rows[..self.of_tail].last().map(|last| (self.rows[0].record_id, last.record_id));
        let mut made: Vec<((u64, u64), Encoded)> = Vec::new();
        for rows in self.rows.chunk_by_mut(|one, next| one.record_id + 1 == next.record_id) {
            for rows in rows.chunks_mut(self.most as usize) {
                match step::encoded(rows) {
                    Ok(chunk) => made.push(chunk),
                    Err(MakeError::Sqlite(error)) => return Err(error),
                    Err(MakeError::NotTheSame((first, last))) => {
                        let error = step::StepError::NotTheSame { first, last };
                        tracing::error!(%error, "records become rows");
                        return Ok(false);
                    }
                }
            }
        }
        if let Some(ids) = of_tail {
            step::delete_rows(conn, ids)?;
        }
        chunks::insert_words(conn, &self.words.new)?;
        for (ids, chunk) in &made {
            chunks::insert(conn, *ids, chunk)?;
        }
        failpoint!("bulk-written");
        Ok(true)
    }
}

impl Ids {
    /// The row of a chunk; `None`: a number is none that a chunk can have.
    fn row(&self, record: &Record, words: &mut Words) -> Option<Row> {
        let peer = |id: Option<i64>| -> Option<NameId> {
            let Some(id) = id else { return Some(None) };
            Some(Some(NonZeroU32::new(u32::try_from(id).ok()?)?))
        };
        Some(Row {
            record_id: record.record_id,
            interface: u32::try_from(self.interface).ok()?,
            peer: peer(self.peer)?,
            remote_peer: peer(self.remote_peer)?,
            peer_resource: words.id(record.peer_resource.as_ref()),
            remote_resource: words.id(record.remote_resource.as_ref()),
            rule: words.id(record.rule.as_ref()),
            tuple: record.tuple,
            window_start_ms: record.window_start_ms,
            window_end_ms: record.window_end_ms,
            first_seen_ms: record.first_seen_ms,
            last_seen_ms: record.last_seen_ms,
            initiator: record.initiator,
            icmp: record.icmp,
            verdict: record.verdict,
            enforced: record.enforced,
            policy_revision: record.policy_revision,
            counters: record.counters,
            total: record.total,
            tcp_flags: record.tcp_flags,
            end_reason: record.end_reason,
            overflow: record.overflow,
        })
    }
}
