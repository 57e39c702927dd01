//! `docs/guarantees.md` names tests that are there.

use std::{collections::BTreeSet, fs, path::Path};

use crate::command::workspace;

/// The names of functions below `dir` that are tests, by the attribute or macro before them.
fn tests_below(dir: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).expect("it is ours") {
        let path = entry.expect("it is ours").path();
        if path.is_dir() {
            tests_below(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("it is ours");
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                let name = line.trim_start_matches("async ").strip_prefix("fn ");
                match name.and_then(|name| name.split_once('(')) {
                    Some((name, _)) if is_test => {
                        names.insert(name.to_owned());
                    }
                    _ => {}
                }
                is_test = line == "#[test]" || line.starts_with("#[tokio::test");
            }
        }
    }
}

/// The names of the install tier's steps.
fn steps(names: &mut BTreeSet<String>) {
    let main = workspace().join("tests/tests/install/main.rs");
    let text = fs::read_to_string(main).expect("it is ours");
    let lists = text.split("steps![").skip(1).filter_map(|rest| rest.split_once(']'));
    for step in lists.flat_map(|(list, _)| list.split(',')) {
        names.extend(step.trim().rsplit_once("::").map(|(_, name)| name.to_owned()));
    }
}

#[test]
fn every_promise_has_its_proof() {
    let root = workspace();
    let mut names = BTreeSet::new();
    for dir in ["flowd/src", "flowd-common", "tests/tests"] {
        tests_below(&root.join(dir), &mut names);
    }
    steps(&mut names);
    let text = fs::read_to_string(root.join("docs/guarantees.md")).expect("it is ours");
    let mut promises = 0;
    for row in text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---")) {
        let proof = row.trim_end_matches(" |").rsplit_once(" | ").expect("three columns").1;
        if proof == "proof" {
            continue;
        }
        promises += 1;
        let named: Vec<&str> = proof.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test proves: {row}");
        for name in named {
            assert!(names.contains(name), "there is no test `{name}`, named in: {row}");
        }
    }
    assert!(promises > 10, "the tables are read");
}
