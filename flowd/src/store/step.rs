//! Steps towards chunks: made beside the writer, taken by it in one transaction each.
//!
//! - The oldest rows become a chunk when there are as many as a step takes; small chunks that lie
//!   side by side become one when they are [`GATHERED`] times as many together.
//! - Chunks that stay as they are get a digest, [`DIGESTED`] of them one; of digests, too, [`JOINED`]
//!   that are about as large become one. A day that is over has one in the end.
//! - What a step takes the place of never changes: rows are only added behind it, and nobody else
//!   makes steps of the same segment. A step that does not find it as it was changes nothing.
//! - A chunk that does not give back exactly the rows it is made of is never taken.

use std::{num::NonZeroU32, ops::Range, os::unix::fs::MetadataExt as _, path::Path, sync::Arc};

use rusqlite::{Connection, TransactionBehavior};

use super::{
    ReadError, Reader,
    chunks::{self, Words, damaged},
    digests,
    reader::open_file,
    row, schema, writer,
};
use crate::chunk::{Chunk, ChunkError, Digest, Encoded, Header, Row, Selection};

/// Records of a step, unless somebody says otherwise.
pub const TAIL_RECORDS: u32 = 16_384;

/// Steps whose records one chunk has in the end.
const GATHERED: u64 = if cfg!(test) { 2 } else { 4 };
/// Chunks of a digest; where no more come, fewer.
const DIGESTED: usize = if cfg!(test) { 2 } else { 4 };
/// Digests that become one.
const JOINED: usize = if cfg!(test) { 2 } else { 4 };
/// Bytes that digests have at most which become one: what they take in memory is some twenty times as
/// much.
const MOST_JOINED: u64 = 2 << 20;

/// A segment that is over is written anew when more than one page of so many is free.
const WASTE: i64 = 8;

/// A chunk, and what it takes the place of.
#[derive(Debug)]
pub struct Step {
    /// Device and inode of the segment.
    pub(super) file: (u64, u64),
    made: Made,
}

/// A step of whichever file it was made of.
#[derive(Debug)]
pub(super) struct Made {
    /// First and last.
    ids: (u64, u64),
    what: What,
}

#[derive(Debug)]
enum What {
    /// Instead of rows, whose rules and resources need these words.
    OfRows(Encoded, Vec<(NonZeroU32, Arc<str>)>),
    /// Instead of so many chunks.
    OfChunks(Encoded, usize),
    /// Beside so many chunks.
    Digest(digests::New, usize),
    /// Instead of so many digests.
    OfDigests(digests::New, usize),
}

/// No step can be made.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The segment cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A bug in flowd.
    #[error(
        "a chunk does not give back the records {first} to {last}: they stay as they are; report \
         it, with the segment if you can"
    )]
    NotTheSame {
        /// Of the records.
        first: u64,
        /// Of the records.
        last: u64,
    },
}

/// Why there is no step, before the file's name is known.
#[derive(Debug)]
pub(super) enum MakeError {
    Sqlite(rusqlite::Error),
    NotTheSame((u64, u64)),
}

impl From<rusqlite::Error> for MakeError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<ChunkError> for MakeError {
    fn from(error: ChunkError) -> Self {
        Self::Sqlite(damaged(error))
    }
}

/// Makes the steps of the segment that takes records.
#[derive(Debug)]
pub struct Compactor {
    reader: Reader,
    tail_records: u32,
}

impl Compactor {
    /// Of the store that this reader reads.
    pub fn new(reader: Reader, tail_records: u32) -> Self {
        Self { reader, tail_records }
    }

    /// The next step, where there is enough for one.
    pub fn next(&self) -> Result<Option<Step>, StepError> {
        let segments = self.reader.directory();
        let Some(newest) = writer::list(segments).unwrap_or_default().pop() else {
            return Ok(None);
        };
        let path = segments.join(format!("{newest}.sqlite"));
        let Some(file) = file_of(&path) else { return Ok(None) };
        let Some((conn, version)) = open_file(&path)? else { return Ok(None) };
        if version < schema::MIGRATIONS.len() {
            return Ok(None);
        }
        let made = conn
            .execute_batch("BEGIN")
            .map_err(MakeError::from)
            .and_then(|()| next(&conn, self.tail_records, u64::from(self.tail_records)));
        let made = made.map_err(|error| match error {
            MakeError::Sqlite(error) => StepError::Read(self.reader.failed(&path)(error)),
            MakeError::NotTheSame((first, last)) => StepError::NotTheSame { first, last },
        })?;
        // The path may mean another file by now.
        let is_same = file_of(&path) == Some(file);
        Ok(made.filter(|_| is_same).map(|made| Step { file, made }))
    }
}

impl Step {
    /// Puts the chunk into its place.
    pub(super) fn take(&self, conn: &Connection) -> rusqlite::Result<()> {
        self.made.take(conn)
    }
}

impl Made {
    /// Inside of a transaction of the caller, who rolls it back on an error.
    pub(super) fn take(&self, conn: &Connection) -> rusqlite::Result<()> {
        match &self.what {
            What::OfRows(encoded, words) => self.take_rows(conn, encoded, words),
            What::OfChunks(encoded, count) => self.take_chunks(conn, encoded, *count),
            What::Digest(digest, count) => self.take_digest(conn, digest, *count),
            What::OfDigests(digest, count) => {
                let deleted = digests::delete(conn, self.ids)?;
                if deleted != *count {
                    return Err(rusqlite::Error::StatementChangedRows(deleted));
                }
                digest.insert(conn)
            }
        }
    }

    fn take_rows(
        &self,
        conn: &Connection,
        encoded: &Encoded,
        words: &[(NonZeroU32, Arc<str>)],
    ) -> rusqlite::Result<()> {
        // First, so that the chunk takes the pages that the rows leave.
        delete_rows(conn, self.ids)?;
        chunks::insert_words(conn, words)?;
        chunks::insert(conn, self.ids, encoded)?;
        failpoint!("chunk-written");
        Ok(())
    }

    fn take_chunks(
        &self,
        conn: &Connection,
        encoded: &Encoded,
        count: usize,
    ) -> rusqlite::Result<()> {
        let deleted = chunks::delete(conn, self.ids)?;
        if deleted != count {
            return Err(rusqlite::Error::StatementChangedRows(deleted));
        }
        chunks::insert(conn, self.ids, encoded)?;
        failpoint!("merged-chunk-written");
        Ok(())
    }

    fn take_digest(
        &self,
        conn: &Connection,
        digest: &digests::New,
        count: usize,
    ) -> rusqlite::Result<()> {
        let ranges = chunks::ranges(conn)?;
        let (first, last) = self.ids;
        let found = ranges.iter().filter(|one| first <= one.0 && one.1 <= last).count();
        let is_there = last_digested(conn)? >= first;
        if is_there || found != count {
            return Err(rusqlite::Error::StatementChangedRows(found));
        }
        digest.insert(conn)
    }
}

/// How many ids there are from the first row to the last.
pub(super) fn tail(conn: &Connection) -> rusqlite::Result<u64> {
    // Each alone, SQLite finds at an end of the table.
    let sql =
        "SELECT (SELECT max(record_id) FROM record) - (SELECT min(record_id) FROM record) + 1";
    let tail: Option<i64> = conn.query_row(sql, [], |row| row.get(0))?;
    Ok(tail.map_or(0, i64::cast_unsigned))
}

/// Records that a chunk has in the end.
pub(super) fn most(tail_records: u32) -> u64 {
    GATHERED * u64::from(tail_records)
}

/// Deletes rows, exactly these.
pub(super) fn delete_rows(conn: &Connection, (first, last): (u64, u64)) -> rusqlite::Result<()> {
    let deleted = conn
        .prepare_cached("DELETE FROM record WHERE record_id BETWEEN ? AND ?")?
        .execute([first.cast_signed(), last.cast_signed()])?;
    if deleted as u64 == last - first + 1 {
        Ok(())
    } else {
        Err(rusqlite::Error::StatementChangedRows(deleted))
    }
}

/// Device and inode of what a path means.
pub(super) fn file_of(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok()
}

/// What is to be done next, once there are `least` rows.
pub(super) fn next(
    conn: &Connection,
    tail_records: u32,
    least: u64,
) -> Result<Option<Made>, MakeError> {
    let tail = tail(conn)?;
    if tail > 0 && tail >= least {
        return of_rows(conn, tail_records).map(Some);
    }
    // What has a digest stays as it is.
    let after = last_digested(conn)?;
    let mut ranges = chunks::ranges(conn)?;
    ranges.retain(|range| range.0 > after);
    let most = most(tail_records);
    // Where nothing waits for more rows, nothing more comes.
    let is_last = least < u64::from(tail_records);
    if let Some(range) = gathered(&ranges, most, is_last) {
        return of_chunks(conn, &ranges[range]).map(Some);
    }
    if let Some(range) = digested(&ranges, most, is_last) {
        return of_digest(conn, &ranges[range]);
    }
    let extents = digests::list(conn, schema::MIGRATIONS.len())?;
    match joined(&extents, &digests::lengths(conn)?, is_last) {
        Some(range) => of_digests(conn, &extents[range]),
        None => Ok(None),
    }
}

/// How many records a chunk has.
fn records((first, last): &(u64, u64)) -> u64 {
    last - first + 1
}

/// Small chunks that are to become one: side by side, and as many as fit.
fn gathered(ranges: &[(u64, u64)], most: u64, is_last: bool) -> Option<Range<usize>> {
    let mut start = 0;
    while start < ranges.len() {
        let group = group(ranges, start, most);
        if group.len() > 1 && (is_last || is_full(ranges, &group, most)) {
            return Some(group);
        }
        start = group.end;
    }
    None
}

/// The chunks from the one at `start` on that fit into one.
fn group(ranges: &[(u64, u64)], start: usize, most: u64) -> Range<usize> {
    let (mut end, mut sum) = (start + 1, records(&ranges[start]));
    while let Some(next) = ranges.get(end)
        && ranges[end - 1].1 + 1 == next.0
        && sum + records(next) <= most
    {
        sum += records(next);
        end += 1;
    }
    start..end
}

/// Whether nothing that comes later can be of a group.
fn is_full(ranges: &[(u64, u64)], group: &Range<usize>, most: u64) -> bool {
    group.end < ranges.len() || ranges[group.clone()].iter().map(records).sum::<u64>() >= most
}

/// How many of the chunks get a digest: none of them will be gathered.
fn digested(ranges: &[(u64, u64)], most: u64, is_last: bool) -> Option<Range<usize>> {
    let mut end = 0;
    while end < ranges.len().min(DIGESTED) {
        let group = group(ranges, end, most);
        if !is_last && !is_full(ranges, &group, most) {
            break;
        }
        end = group.end;
    }
    let is_enough = end >= DIGESTED || (is_last && end > 1);
    is_enough.then_some(0..end.min(DIGESTED))
}

/// Digests that are to become one: side by side, and not too large.
fn joined(extents: &[digests::Extent], lengths: &[u64], is_last: bool) -> Option<Range<usize>> {
    let follow = |pair: &[digests::Extent]| *pair[0].ids.end() + 1 == *pair[1].ids.start();
    let fit = |range: &Range<usize>| {
        let extents = &extents[range.clone()];
        let records = || extents.iter().map(digests::Extent::records);
        let are_alike = records().max() < records().min().map(|least| 2 * least);
        (is_last || are_alike)
            && extents.windows(2).all(follow)
            && lengths[range.clone()].iter().sum::<u64>() <= MOST_JOINED
    };
    let counts = (if is_last { 2 } else { JOINED }..=JOINED).rev();
    counts.flat_map(|count| (count..=extents.len()).map(move |end| end - count..end)).find(fit)
}

/// The last record that is in a digest.
fn last_digested(conn: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT coalesce(max(last_record_id), 0) FROM digest";
    conn.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
}

/// Makes and takes steps until there are no rows, and then gives room back that nothing needs. The
/// caller is the only writer.
pub(super) fn finish(conn: &mut Connection, tail_records: u32) -> Result<(), MakeError> {
    while let Some(made) = next(conn, tail_records, 1)? {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        made.take(&tx)?;
        tx.commit()?;
    }
    let count = |what| conn.pragma_query_value(None, what, |row| row.get::<_, i64>(0));
    if count("freelist_count")? * WASTE > count("page_count")? {
        // A disk without room for it loses nothing.
        if let Err(error) = conn.execute_batch("VACUUM") {
            tracing::debug!(%error, "a segment keeps pages that it does not need");
        }
    }
    Ok(())
}

fn of_rows(conn: &Connection, tail_records: u32) -> Result<Made, MakeError> {
    let mut words = Words::read(conn)?;
    let mut rows: Vec<Row> = Vec::with_capacity(tail_records as usize);
    read_rows(conn, tail_records, &mut words, &mut rows)?;
    let (ids, encoded) = encoded(&mut rows)?;
    Ok(Made { ids, what: What::OfRows(encoded, words.new) })
}

/// Appends the oldest rows, at most so many, whose ids follow each other.
pub(super) fn read_rows(
    conn: &Connection,
    most: u32,
    words: &mut Words,
    rows: &mut Vec<Row>,
) -> rusqlite::Result<()> {
    let columns = row::columns(schema::MIGRATIONS.len());
    let sql = format!("SELECT {columns} FROM record ORDER BY record_id LIMIT ?");
    let mut query = conn.prepare_cached(&sql)?;
    let mut found = query.query([most])?;
    while let Some(row) = found.next()? {
        let (row, texts) = row::numbers(row)?;
        // A chunk leaves no number out.
        if rows.last().is_some_and(|before| row.record_id != before.record_id + 1) {
            break;
        }
        rows.push(Row {
            rule: words.id(texts.rule.as_ref()),
            peer_resource: words.id(texts.peer_resource.as_ref()),
            remote_resource: words.id(texts.remote_resource.as_ref()),
            ..row
        });
    }
    Ok(())
}

fn of_chunks(conn: &Connection, ranges: &[(u64, u64)]) -> Result<Made, MakeError> {
    let (first, last) = (ranges[0].0, ranges[ranges.len() - 1].1);
    let mut rows = Vec::with_capacity((last - first + 1) as usize);
    for stored in chunks::between(conn, first - 1, last)? {
        stored.need(conn, Chunk::row_columns())?;
        stored.chunk.add_all_rows(&mut rows)?;
    }
    let (ids, encoded) = encoded(&mut rows)?;
    Ok(Made { ids, what: What::OfChunks(encoded, ranges.len()) })
}

fn of_digest(conn: &Connection, ranges: &[(u64, u64)]) -> Result<Option<Made>, MakeError> {
    let ids = (ranges[0].0, ranges[ranges.len() - 1].1);
    let mut chunks = Vec::with_capacity(ranges.len());
    for stored in chunks::between(conn, ids.0 - 1, ids.1)? {
        stored.need(conn, Digest::columns())?;
        chunks.push(stored.chunk);
    }
    let digest = digests::New::of(&chunks)?;
    Ok(digest.map(|digest| Made { ids, what: What::Digest(digest, ranges.len()) }))
}

fn of_digests(conn: &Connection, extents: &[digests::Extent]) -> Result<Option<Made>, MakeError> {
    let merged = digests::New::merged(conn, extents)?;
    Ok(merged
        .map(|digest| Made { ids: digest.ids(), what: What::OfDigests(digest, extents.len()) }))
}

/// A chunk of rows by ascending id, whose ids follow each other: the first and last of these, and the
/// chunk. The rows are left in its order.
pub(super) fn encoded(rows: &mut [Row]) -> Result<((u64, u64), Encoded), MakeError> {
    let id = |row: Option<&Row>| row.map_or(0, |row| row.record_id);
    let ids = (id(rows.first()), id(rows.last()));
    let encoded = Encoded::ordering(rows)?;
    if !is_whole(rows, ids.0) || gives_back(&encoded, rows) != Ok(true) {
        return Err(MakeError::NotTheSame(ids));
    }
    Ok((ids, encoded))
}

/// Whether there is, in any order, a row for every id from the first one on.
fn is_whole(rows: &[Row], first: u64) -> bool {
    let mut seen = vec![false; rows.len()];
    rows.iter().all(|row| {
        let place = row.record_id.wrapping_sub(first) as usize;
        seen.get_mut(place).is_some_and(|seen| !std::mem::replace(seen, true))
    })
}

/// Whether a chunk has exactly these rows, in this order.
fn gives_back(encoded: &Encoded, rows: &[Row]) -> Result<bool, ChunkError> {
    let chunk = Chunk::new(Header::decode(&encoded.header)?);
    for (column, body) in &encoded.columns {
        if Chunk::row_columns().has(*column) {
            chunk.load(*column, body.clone())?;
        }
    }
    let (mut left, mut read) = (rows, Vec::new());
    for page in chunk.pages() {
        let Some((same, after)) = left.split_at_checked(page.rows()) else { return Ok(false) };
        read.clear();
        page.add_rows(&Selection::All, &mut read)?;
        if read != same {
            return Ok(false);
        }
        left = after;
    }
    Ok(left.is_empty())
}
