//! The chunks of a segment: what is in its tables `chunk`, `chunk_column` and `word`.
//!
//! Whatever is wrong with a chunk is an error of SQLite to everybody else: the segment is damaged.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc};

use foldhash::fast::RandomState;
use rusqlite::{Connection, params, types::Type};

use super::{columns::OfFile, digests};
use crate::chunk::{Chunk, ChunkError, ColumnId, ColumnSet, Encoded, Header, NameId, Number};

/// Since this version of the schema there are any.
pub(super) const SINCE_VERSION: usize = 5;
/// Places that each record id has in `chunk_column`.
const PLACES: i64 = 32;

const _: () = assert!(ColumnId::COUNT <= PLACES as usize);

/// A chunk of a segment, with those of its columns that were needed so far.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) chunk: Chunk,
    /// Where readers keep its columns.
    pub(super) columns: Option<OfFile>,
}

impl Stored {
    /// The same, of which nothing but the header is read.
    pub(super) fn unread(&self) -> Self {
        let Self { first, last, chunk, columns } = self;
        Self { first: *first, last: *last, chunk: chunk.unread(), columns: columns.clone() }
    }

    /// Reads columns, unless they are there already.
    pub(super) fn need(&self, conn: &Connection, of: ColumnSet) -> rusqlite::Result<()> {
        self.need_through(of, |missing| self.read(conn, missing))
    }

    /// The same where somebody else has the connection.
    pub(super) fn need_through(
        &self,
        of: ColumnSet,
        read: impl FnOnce(ColumnSet) -> rusqlite::Result<Vec<(ColumnId, Vec<u8>)>>,
    ) -> rusqlite::Result<()> {
        if let Some(columns) = &self.columns {
            columns.lend(self, self.chunk.missing(of));
        }
        let missing = self.chunk.missing(of);
        if missing == ColumnSet::default() {
            return Ok(());
        }
        for (column, body) in read(missing)? {
            self.chunk.load(column, body).map_err(damaged)?;
        }
        if let Some(columns) = &self.columns {
            columns.keep(self, missing);
        }
        Ok(())
    }

    /// Columns as they lie in the segment: those beside each other at once.
    pub(super) fn read(
        &self,
        conn: &Connection,
        of: ColumnSet,
    ) -> rusqlite::Result<Vec<(ColumnId, Vec<u8>)>> {
        let columns: Vec<ColumnId> = of.iter().collect();
        let mut read = Vec::with_capacity(columns.len());
        let mut query = conn.prepare_cached(
            "SELECT place, body FROM chunk_column WHERE place BETWEEN ? AND ? ORDER BY place",
        )?;
        for beside in columns.chunk_by(|one, next| *one as u8 + 1 == *next as u8) {
            let places = beside.iter().map(|column| place(self.first, *column));
            let (Some(first), Some(last)) = (places.clone().next(), places.clone().next_back())
            else {
                continue;
            };
            let mut rows = query.query([first, last])?;
            for (column, place) in beside.iter().zip(places) {
                match rows.next()? {
                    Some(row) if row.get::<_, i64>(0)? == place => {
                        read.push((*column, row.get(1)?));
                    }
                    _ => return Err(damaged(ChunkError::Damaged("a column is missing"))),
                }
            }
        }
        Ok(read)
    }
}

/// The chunks with records above `after` and up to `watermark`, by ascending id.
pub(super) fn between(
    conn: &Connection,
    after: u64,
    watermark: u64,
) -> rusqlite::Result<Vec<Stored>> {
    let mut query = conn.prepare_cached(
        "SELECT first_record_id, last_record_id, header FROM chunk \
         WHERE last_record_id > ? AND first_record_id <= ? ORDER BY first_record_id",
    )?;
    let mut rows = query.query([after.cast_signed(), watermark.cast_signed()])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let (first, last): (i64, i64) = (row.get(0)?, row.get(1)?);
        let header = Header::decode(row.get_ref(2)?.as_blob()?).map_err(damaged)?;
        if header.zone(Number::RecordId) != (first..=last)
            || header.rows() as u64 != last.abs_diff(first) + 1
        {
            return Err(damaged(ChunkError::Damaged("it has other records than it says")));
        }
        let (first, last) = (first.cast_unsigned(), last.cast_unsigned());
        found.push(Stored { first, last, chunk: Chunk::new(header), columns: None });
    }
    Ok(found)
}

/// How many chunks there are, and up to which record; 0: none.
pub(super) fn count(conn: &Connection) -> rusqlite::Result<(usize, u64)> {
    let mut query = conn.prepare_cached(
        "SELECT count(*), coalesce( \
         (SELECT last_record_id FROM chunk ORDER BY first_record_id DESC LIMIT 1), 0) FROM chunk",
    )?;
    query.query_row([], |row| {
        Ok((row.get::<_, u32>(0)? as usize, row.get::<_, i64>(1)?.cast_unsigned()))
    })
}

/// The ids of the first and last record of each chunk, ascending.
pub(super) fn ranges(conn: &Connection) -> rusqlite::Result<Vec<(u64, u64)>> {
    let sql = "SELECT first_record_id, last_record_id FROM chunk ORDER BY first_record_id";
    let mut query = conn.prepare_cached(sql)?;
    let rows = query.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    rows.map(|row| row.map(|(first, last)| (first.cast_unsigned(), last.cast_unsigned()))).collect()
}

/// Takes a chunk in.
pub(super) fn insert(
    conn: &Connection,
    (first, last): (u64, u64),
    encoded: &Encoded,
) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT INTO chunk VALUES (?, ?, ?)")?.execute(params![
        first.cast_signed(),
        last.cast_signed(),
        encoded.header
    ])?;
    let mut insert = conn.prepare_cached("INSERT INTO chunk_column VALUES (?, ?)")?;
    for (column, body) in &encoded.columns {
        insert.execute(params![place(first, *column), body])?;
    }
    Ok(())
}

/// Takes the chunks of these records out. How many there were.
pub(super) fn delete(conn: &Connection, (first, last): (u64, u64)) -> rusqlite::Result<usize> {
    conn.prepare_cached("DELETE FROM chunk_column WHERE place >= ? AND place < ?")?
        .execute([first.cast_signed() * PLACES, (last.cast_signed() + 1) * PLACES])?;
    conn.prepare_cached("DELETE FROM chunk WHERE first_record_id BETWEEN ? AND ?")?
        .execute([first.cast_signed(), last.cast_signed()])
}

fn place(first: u64, column: ColumnId) -> i64 {
    first.cast_signed() * PLACES + i64::from(column as u8)
}

/// An error of a chunk as one of the file that it is in.
pub(super) fn damaged(error: ChunkError) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, error.into())
}

/// Reads every column of every chunk: checksums, records, and that sums are theirs, those of digests
/// too.
pub(super) fn check(conn: &Connection) -> rusqlite::Result<()> {
    let version: u32 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if (version as usize) < SINCE_VERSION {
        return Ok(());
    }
    for stored in between(conn, 0, i64::MAX.cast_unsigned())? {
        stored.need(conn, ColumnId::ALL.iter().copied().collect())?;
        stored.chunk.check().map_err(damaged)?;
    }
    digests::check(conn, version as usize)
}

/// What the numbers of rules and resources stand for.
pub(super) fn words(
    conn: &Connection,
    version: usize,
) -> rusqlite::Result<HashMap<u32, Arc<str>, RandomState>> {
    if version < SINCE_VERSION {
        return Ok(HashMap::default());
    }
    let mut query = conn.prepare("SELECT word_id, text FROM word")?;
    query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// The numbers of words, and those that a step makes.
#[derive(Debug, Default)]
pub(super) struct Words {
    ids: HashMap<Arc<str>, NonZeroU32, RandomState>,
    last: u32,
    /// Not in the segment yet.
    pub(super) new: Vec<(NonZeroU32, Arc<str>)>,
}

impl Words {
    pub(super) fn read(conn: &Connection) -> rusqlite::Result<Self> {
        let known = words(conn, SINCE_VERSION)?;
        let last = known.keys().copied().max().unwrap_or_default();
        let ids = known.into_iter().filter_map(|(id, text)| Some((text, NonZeroU32::new(id)?)));
        Ok(Self { ids: ids.collect(), last, new: Vec::new() })
    }

    /// The number of a word, which it gets if it has none.
    pub(super) fn id(&mut self, text: Option<&Arc<str>>) -> NameId {
        let text = text?;
        if let Some(id) = self.ids.get(text) {
            return Some(*id);
        }
        self.last += 1;
        let id = NonZeroU32::new(self.last)?;
        self.ids.insert(text.clone(), id);
        self.new.push((id, text.clone()));
        Some(id)
    }
}

/// Puts words into the segment.
pub(super) fn insert_words(
    conn: &Connection,
    words: &[(NonZeroU32, Arc<str>)],
) -> rusqlite::Result<()> {
    let mut insert = conn.prepare_cached("INSERT INTO word VALUES (?, ?)")?;
    for (id, text) in words {
        insert.execute(params![id.get(), &**text])?;
    }
    Ok(())
}
