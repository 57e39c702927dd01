//! Names that readers keep.

use std::{path::Path, sync::Arc, time::Duration};

use rusqlite::Connection;

use super::{
    super::{Leaving, Writer, row::Names, schema},
    FileId, Known,
};
use crate::flows::{Identity, Record, sample};

/// A record of a peer of this name.
fn record(name: &str) -> Record {
    let peer = Identity {
        public_key: name.to_owned(),
        name: name.to_owned(),
        user: None,
        device: None,
        groups: Vec::new(),
        endpoint: None,
    };
    Record { peer: Some(peer.into()), ..sample::record() }
}

fn commit(writer: &mut Writer, names: &[&str]) {
    let mut records: Vec<Record> = names.iter().map(|name| record(name)).collect();
    writer.commit(0, &mut records, &Leaving::default()).unwrap();
}

struct File {
    conn: Connection,
    id: FileId,
}

impl File {
    fn of(dir: &Path) -> Self {
        let path = dir.join("segments/1970-01-01.sqlite");
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch("BEGIN").unwrap();
        Self { conn, id: FileId::of(&path).unwrap() }
    }

    fn known(&self, known: &Known) -> Arc<Names> {
        known.of(&self.conn, schema::MIGRATIONS.len(), self.id).unwrap()
    }
}

fn has(names: &Names, name: &str) -> bool {
    names.peers.values().any(|peer| peer.name == name)
}

#[test]
fn names_are_read_once_and_anew_when_others_have_come() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
    let known = Known::default();
    commit(&mut writer, &["ann"]);
    let first = File::of(dir.path());
    let before = first.known(&known);
    assert!(has(&before, "ann"));
    assert!(Arc::ptr_eq(&before, &first.known(&known)));
    // What points to the same names brings none.
    commit(&mut writer, &["ann"]);
    assert!(Arc::ptr_eq(&before, &File::of(dir.path()).known(&known)));
    commit(&mut writer, &["ben"]);
    let after = File::of(dir.path()).known(&known);
    assert!(has(&after, "ann") && has(&after, "ben"));
    // An older view takes what is kept for the newer one.
    assert!(Arc::ptr_eq(&after, &first.known(&known)));
}

#[test]
fn a_file_that_was_made_at_another_time_is_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
    commit(&mut writer, &["ann"]);
    let (known, file) = (Known::default(), File::of(dir.path()));
    let Some(made) = file.id.made else { panic!("the file system does not say when") };
    let names = file.known(&known);
    let id = FileId { made: Some(made + Duration::from_nanos(1)), ..file.id };
    let later = File { conn: Connection::open_in_memory().unwrap(), id };
    assert!(known.of(&later.conn, schema::MIGRATIONS.len(), later.id).is_err());
    assert!(Arc::ptr_eq(&names, &file.known(&known)));
    // Where nobody says when, nothing is kept.
    let unsaid = File { id: FileId { made: None, ..file.id }, ..file };
    assert!(!Arc::ptr_eq(&unsaid.known(&known), &unsaid.known(&known)));
}

#[test]
fn of_many_names_the_latest_are_kept() {
    let stores: Vec<_> = (0..3)
        .map(|_| {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
            // With the interface and a rule, these are at most half of what may be kept.
            commit(&mut writer, &["ann", "ben"]);
            (dir, writer)
        })
        .collect();
    let known = Known::default();
    let files: Vec<File> = stores.iter().map(|(dir, _)| File::of(dir.path())).collect();
    let names: Vec<_> = files.iter().map(|file| file.known(&known)).collect();
    assert!((super::MOST / 3..=super::MOST / 2).contains(&names[0].len()));
    assert!(Arc::ptr_eq(&names[1], &files[1].known(&known)));
    assert!(Arc::ptr_eq(&names[2], &files[2].known(&known)));
    assert!(!Arc::ptr_eq(&names[0], &files[0].known(&known)));
}
