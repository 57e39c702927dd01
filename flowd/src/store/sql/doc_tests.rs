//! `docs/sql.md` against the tables: every column is there, and every example is answered.

use std::path::Path;

use super::{
    ask, tables,
    tests::{Around, Rows, question},
};
use crate::{
    flows::sample,
    store::{Leash, Leaving, Reader, Writer},
};

const DOCUMENT: &str = include_str!("../../../../docs/sql.md");

#[test]
fn every_column_is_documented_as_it_is_told() {
    for (table, columns) in tables() {
        let (_, section) = DOCUMENT.split_once(&format!("\n### {}\n", table.name)).unwrap();
        let section = section.split("\n#").next().unwrap();
        let rows: Vec<_> = section.lines().filter(|line| line.starts_with("| `")).collect();
        let expected: Vec<_> = columns
            .iter()
            .map(|column| format!("| `{}` | {} | {} |", column.name, column.kind, column.about))
            .collect();
        assert_eq!(rows, expected, "{}", table.name);
    }
}

#[test]
fn every_example_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
    writer.commit(0, &mut [sample::record()], &Leaving::default()).unwrap();
    writer.close();
    let examples: Vec<_> = DOCUMENT
        .split("```")
        .skip(1)
        .step_by(2)
        .filter_map(|block| block.strip_prefix("sql\n"))
        .collect();
    assert!(examples.len() >= 7, "{examples:?}");
    for example in examples {
        answered(dir.path(), example);
    }
    let typed = DOCUMENT.lines().filter_map(|line| line.strip_prefix("$ flowctl sql \""));
    let typed: Vec<_> = typed.filter_map(|line| line.strip_suffix('"')).collect();
    assert_eq!(typed.len(), 1);
    typed.iter().for_each(|text| answered(dir.path(), text));
}

fn answered(dir: &Path, text: &str) {
    let mut rows = Rows::default();
    let reader = Reader::new(dir, "gw");
    let asked = ask(&reader, &Leash::default(), &question(text), &Around, &mut rows);
    assert!(asked.is_ok(), "{text}: {asked:?}");
    assert!(!rows.names.is_empty());
}
