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
    /// Some 2 MB.
    const MOST: usize = 2_048;

    fn len(&self) -> usize {
        self.chunks.len()
    }
}

impl Latest<Listed> {
    /// As [`chunks::between`].
    pub(super) fn between(
        &self,
        conn: &Connection,
        (after, watermark): (u64, u64),
        file: FileId,
    ) -> rusqlite::Result<Vec<Stored>> {
        let (count, last) = chunks::count(conn)?;
        let is_same = |listed: &Listed| (listed.chunks.len(), listed.last) == (count, last);
        let listed = self.of(file, is_same, || {
            let chunks = chunks::between(conn, 0, i64::MAX.cast_unsigned())?.into_iter();
            let chunks =
                chunks.map(|Stored { first, last, chunk }| (first, last, chunk.into_header()));
            Ok(Listed { last, chunks: chunks.collect() })
        })?;
        let chunks = listed.chunks.iter().skip_while(|(_, last, _)| *last <= after);
        let chunks = chunks.take_while(|(first, ..)| *first <= watermark);
        Ok(chunks
            .map(|(first, last, header)| Stored {
                first: *first,
                last: *last,
                chunk: Chunk::new(header.clone()),
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
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
        let latest = Latest::<Listed>::default();
        let (mut sizes, file) = (std::collections::BTreeSet::new(), FileId::of(&path).unwrap());
        for _ in 0..24 {
            writer.commit(0, &mut [sample::record()], &Leaving::default()).unwrap();
            // One step at a time: rows that become a chunk, or chunks that become one.
            for _ in 0..2 {
                compact(dir.path(), &mut writer, 2, 1);
                let conn = Connection::open(&path).unwrap();
                for (after, watermark) in [(0, u64::MAX >> 1), (4, 12), (5, 5), (40, 50)] {
                    let told = latest.between(&conn, (after, watermark), file).unwrap();
                    let is = chunks::between(&conn, after, watermark).unwrap();
                    sizes.insert(is.len());
                    assert_eq!(format!("{told:?}"), format!("{is:?}"));
                }
            }
        }
        assert!(sizes.len() > 3, "{sizes:?}");
    }
}
