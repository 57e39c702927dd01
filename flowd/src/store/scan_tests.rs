use std::{ops::ControlFlow, path::Path};

use super::{MANY, Second};
use crate::{
    flows::{By, Filter, Ranking, Record, sample},
    store::{Leash, Leaving, Reader, Writer, step_tests::compact, tallies::Tallies, view::Segment},
};

const ALL: u64 = u64::MAX >> 1;

/// A store whose records, each of its own rule, are in many chunks.
fn store() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
    for at in 0..30_u16 {
        let mut record = Record { rule: Some(format!("rule-{at}").into()), ..sample::record() };
        record.tuple.peer_port = at;
        writer.commit(0, &mut [record], &Leaving::default()).unwrap();
        compact(dir.path(), &mut writer, 2, 1);
    }
    dir
}

fn segment(dir: &Path, leash: &Leash) -> Segment {
    let reader = Reader::new(dir, "gw").on(leash.clone());
    let mut opened = reader.opened(&Filter::default()).unwrap();
    opened.next().unwrap().unwrap().1
}

/// By rule, which no sums know.
fn asked(
    segment: &mut Segment,
    second: &Second,
    behind: impl FnMut(&mut Tallies<'_>) -> ControlFlow<()>,
) -> rusqlite::Result<Ranking> {
    let (filter, mut ranking) = (Filter::default(), Ranking::new(By::Rule));
    let mut tallies = Tallies::new(&filter, &[By::Rule], None, ALL).unwrap();
    tallies.add_chunks(segment, second, behind)?;
    tallies.take(|tally| ranking.add(tally.group, &tally.sum));
    Ok(ranking)
}

#[test]
fn two_threads_add_up_what_one_does() {
    let dir = store();
    let mut segment = segment(dir.path(), &Leash::default());
    assert!(segment.chunks(0, ALL).unwrap().len() > MANY);
    let second = Second::new();
    let mut ask = || asked(&mut segment, &second, |_| ControlFlow::Continue(())).unwrap();
    let alone = {
        let _taken = second.take().unwrap();
        assert!(second.take().is_none(), "one query at a time has it");
        ask()
    };
    assert!(alone.groups() > 20);
    for _ in 0..20 {
        assert_eq!(ask(), alone);
    }
}

#[test]
fn the_second_thread_ends_with_its_query_whatever_ends_that() {
    let (dir, second) = (store(), Second::new());
    let leash = Leash::new(std::time::Duration::from_secs(3_600));
    let mut held = segment(dir.path(), &leash);
    asked(&mut held, &second, |_| ControlFlow::Break(())).unwrap();
    assert!(second.take().is_some());

    leash.let_go();
    asked(&mut held, &second, |_| ControlFlow::Continue(())).unwrap_err();
    assert!(second.take().is_some());

    let path = dir.path().join("segments/1970-01-01.sqlite");
    let sql = "UPDATE chunk_column SET body = zeroblob(7) WHERE place % 32 = 28";
    rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
    let mut harmed = segment(dir.path(), &Leash::default());
    let error = asked(&mut harmed, &second, |_| ControlFlow::Continue(())).unwrap_err();
    assert!(error.to_string().contains("length"), "{error}");
    assert!(second.take().is_some());
}
