//! The headers of a segment's chunks as readers keep them.
//!
//! As many chunks up to the same record are the same chunks: others come only behind the last one,
//! and where some become one they are fewer.

use std::sync::Arc;

use rusqlite::Connection;

use super::{
    chunks::{self, Stored},
    latest::{FileId, Lasting, Latest},
};
use crate::chunk::{Chunk, Header};

/// What was read of a segment's chunks.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    last: u64,
    /// The first and the last record of each, by ascending id.
    chunks: Arc<[(u64, u64, Arc<Header>)]>,
}

impl Lasting for Listed {
    /// Some 3 MB.
    const MOST: usize = 2_048;

    fn len(&self) -> usize {
        self.chunks.len()
    }
}

impl Latest<Listed> {
    /// As [`chunks::between`], from the first one on. Who wants a part of them has that read alone.
    pub(super) fn up_to(
        &self,
        conn: &Connection,
        watermark: u64,
        file: FileId,
    ) -> rusqlite::Result<Vec<Stored>> {
        let (count, last) = chunks::count(conn)?;
        if watermark < last {
            return chunks::between(conn, 0, watermark);
        }
        let is_same = |listed: &Listed| (listed.chunks.len(), listed.last) == (count, last);
        let listed = self.of(file, is_same, || {
            let chunks = chunks::between(conn, 0, watermark)?.into_iter();
            let chunks =
                chunks.map(|Stored { first, last, chunk, .. }| (first, last, chunk.into_header()));
            Ok(Listed { last, chunks: chunks.collect() })
        })?;
        let stored = |(first, last, header): &(u64, u64, Arc<Header>)| Stored {
            first: *first,
            last: *last,
            chunk: Chunk::new(header.clone()),
            columns: None,
        };
        Ok(listed.chunks.iter().map(stored).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rusqlite::Connection;

    use super::{FileId, Latest, Listed};
    use crate::{
        flows::sample,
        store::{Leaving, Writer, chunks, step_tests::compact},
    };

    #[test]
    fn what_is_kept_is_what_is_there_whatever_has_come_and_become_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
        let path = dir.path().join("segments/1970-01-01.sqlite");
        let (latest, file) = (Latest::<Listed>::default(), FileId::sample(1));
        let told = |conn: &Connection, watermark| latest.up_to(conn, watermark, file);
        let mut counts = BTreeSet::new();
        for _ in 0..24 {
            writer.commit(0, &mut [sample::record()], &Leaving::default()).unwrap();
            // One step at a time: rows that become a chunk, or chunks that become one.
            for _ in 0..2 {
                compact(dir.path(), &mut writer, 2, 1);
                let conn = Connection::open(&path).unwrap();
                for watermark in [u64::MAX >> 1, 12, u64::MAX >> 1] {
                    let is = chunks::between(&conn, 0, watermark).unwrap();
                    counts.insert(is.len());
                    assert_eq!(format!("{:?}", told(&conn, watermark).unwrap()), format!("{is:?}"));
                }
            }
        }
        assert!(counts.len() > 3, "{counts:?}");
        // It is not read again, unless it is asked for in part.
        let conn = Connection::open(&path).unwrap();
        conn.execute("UPDATE chunk SET header = x'00'", []).unwrap();
        told(&conn, u64::MAX >> 1).unwrap();
        told(&conn, 12).unwrap_err();
    }
}
