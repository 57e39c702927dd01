//! The names of a segment as readers keep them. None of them ever changes, and others are only added.

use std::sync::Arc;

use rusqlite::Connection;

use super::{
    chunks,
    latest::{FileId, Lasting, Latest},
    row::Names,
};

/// What was read of a segment's names.
#[derive(Clone, Debug)]
pub(super) struct Known {
    last: Last,
    names: Arc<Names>,
}

/// The last number of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Last {
    interface: i64,
    peer: i64,
    word: i64,
}

impl Lasting for Known {
    /// Some 8 MB.
    const MOST: usize = 16_384;

    fn len(&self) -> usize {
        let Names { interfaces, peers, words } = &*self.names;
        interfaces.len() + peers.len() + words.len()
    }
}

impl Latest<Known> {
    /// What records point to, as the transaction of `conn` sees it, and perhaps others that came
    /// later.
    pub(super) fn names(
        &self,
        conn: &Connection,
        version: usize,
        file: FileId,
    ) -> rusqlite::Result<Arc<Names>> {
        let last = Last::of(conn, version)?;
        let read = || Ok(Known { last, names: Names::whole(conn, version)?.into() });
        Ok(self.of(file, |known| known.last.covers(last), read)?.names)
    }
}

impl Last {
    fn of(conn: &Connection, version: usize) -> rusqlite::Result<Self> {
        let has_words = version >= chunks::SINCE_VERSION;
        let word = if has_words { "(SELECT max(word_id) FROM word)" } else { "0" };
        let sql = format!(
            "SELECT coalesce((SELECT max(interface_id) FROM interface), 0), \
             coalesce((SELECT max(peer_id) FROM peer), 0), coalesce({word}, 0)"
        );
        conn.query_row(&sql, [], |row| {
            Ok(Self { interface: row.get(0)?, peer: row.get(1)?, word: row.get(2)? })
        })
    }

    /// Whether everything is known here that is known there.
    fn covers(self, other: Self) -> bool {
        self.interface >= other.interface && self.peer >= other.peer && self.word >= other.word
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use rusqlite::Connection;

    use super::{FileId, Known, Latest, Names};
    use crate::{
        flows::{Record, sample},
        store::{Leaving, Writer, schema},
    };

    fn commit(writer: &mut Writer, peers: &[&str]) {
        let record =
            |name: &&str| Record { peer: Some(sample::peer(name, None)), ..sample::record() };
        let mut records: Vec<Record> = peers.iter().map(record).collect();
        writer.commit(0, &mut records, &Leaving::default()).unwrap();
    }

    struct View(Connection);

    impl View {
        fn of(dir: &Path) -> Self {
            let path = dir.join("segments/1970-01-01.sqlite");
            let conn = Connection::open(&path).unwrap();
            conn.execute_batch("BEGIN").unwrap();
            Self(conn)
        }

        fn names(&self, latest: &Latest<Known>) -> Arc<Names> {
            latest.names(&self.0, schema::MIGRATIONS.len(), FileId::sample(1)).unwrap()
        }
    }

    #[test]
    fn names_are_read_anew_when_others_have_come() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
        let latest = Latest::default();
        let has = |names: &Names, name: &str| names.peers.values().any(|peer| peer.name == name);
        commit(&mut writer, &["ann"]);
        let first = View::of(dir.path());
        let before = first.names(&latest);
        assert!(has(&before, "ann"));
        assert!(Arc::ptr_eq(&before, &first.names(&latest)));
        // What points to the same names brings none.
        commit(&mut writer, &["ann"]);
        assert!(Arc::ptr_eq(&before, &View::of(dir.path()).names(&latest)));
        commit(&mut writer, &["ben"]);
        let after = View::of(dir.path()).names(&latest);
        assert!(has(&after, "ann") && has(&after, "ben"));
        // An older view takes what is kept for the newer one.
        assert!(Arc::ptr_eq(&after, &first.names(&latest)));
    }
}
