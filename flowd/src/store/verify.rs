//! Whether segments are whole. Works on files, with or without a daemon.
//!
//! - alone: SQLite's own check, chunks as they were made, numbers without a gap, the windows of a
//!   flow without a hole and its totals as the running sums, the ledger as the last records, the
//!   day's sums as the records'
//! - one after another: numbers go on, and so does every open flow

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _};

use super::{
    OpenError, aside, failure, salvage, schema, totals,
    walk::{GoesOn, Walk, not_handed_on},
    writer,
};

/// Lines about one kind of thing that is wrong.
const SHOWN: usize = 3;

/// One segment, and what is wrong with it.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Where it is.
    pub file: PathBuf,
    /// UTC, YYYY-MM-DD; empty: it cannot be read.
    pub day: String,
    /// In it.
    pub records: u64,
    /// First and last.
    pub record_ids: Option<(u64, u64)>,
    /// Whether its day is over and it was sealed.
    pub is_sealed: bool,
    /// A line each; empty: it is whole.
    pub problems: Vec<String>,
}

/// Checks every segment of a store, and that they follow each other.
pub fn verify_store(store: &Path) -> Result<Vec<Verified>, OpenError> {
    let segments = store.join("segments");
    let io = |source| OpenError::Io { path: segments.clone(), source };
    let days = writer::list(&segments).map_err(io)?;
    let mut removed = BTreeMap::new();
    match totals::days(store) {
        Ok(gone) => removed.extend(gone.into_iter().map(|day| (day.day, day.record_ids))),
        Err(error) => {
            let file = store.join("totals.sqlite");
            let problems = vec![error.to_string()];
            return Ok(vec![Verified { file, problems, ..Verified::default() }]);
        }
    }
    let mut found: Vec<Verified> = Vec::new();
    for day in &days {
        let path = segments.join(format!("{day}.sqlite"));
        let Some((mut one, going_on)) = verify_file(&path) else { continue };
        let before = found.last().map(|before| (before.day.clone(), before.record_ids));
        let gone = removed.range(..day.clone()).next_back();
        let last = before.iter().map(|(_, ids)| *ids).chain(gone.map(|(_, ids)| *ids)).flatten();
        follow(&mut one, last.map(|(_, last)| last).max());
        if let Some(before) = found.last()
            && before.problems.is_empty()
            && one.problems.is_empty()
        {
            one.problems.extend(handed_on(&before.file, &path, &going_on));
        }
        found.push(one);
    }
    for (day, at_ms) in aside::list(&segments).map_err(io)? {
        let file = segments.join(format!("{day}.corrupt-{at_ms}"));
        let problems = vec![
            "it was set aside, and its records are in no answer: restore the day from a backup, \
             and move this file away"
                .to_owned(),
        ];
        found.push(Verified { file, day, problems, ..Verified::default() });
    }
    Ok(found)
}

/// Checks some segments, and those of following days one after another.
pub fn verify_files(files: &[PathBuf]) -> Vec<Verified> {
    let empty = |file: &PathBuf| Verified {
        file: file.clone(),
        problems: vec!["it is empty: restore it from a backup".to_owned()],
        ..Verified::default()
    };
    let verify = |file: &PathBuf| verify_file(file).unwrap_or_else(|| (empty(file), Vec::new()));
    let mut found: Vec<_> = files.iter().map(verify).collect();
    found.sort_by(|(a, _), (b, _)| a.day.cmp(&b.day));
    for index in 1..found.len() {
        let (before, after) = found.split_at_mut(index);
        let ((before, _), (one, going_on)) = (&before[index - 1], &mut after[0]);
        let next = before.day.parse::<jiff::civil::Date>().and_then(|day| day.tomorrow());
        if next.is_ok_and(|next| next.to_string() == one.day) && before.problems.is_empty() {
            follow(one, before.record_ids.map(|(_, last)| last));
            one.problems.extend(handed_on(&before.file, &one.file, going_on));
        }
    }
    found.into_iter().map(|(one, _)| one).collect()
}

/// The numbers of records go on where those of the segment before end.
fn follow(one: &mut Verified, last: Option<u64>) {
    let (Some((first, _)), Some(last)) = (one.record_ids, last) else { return };
    if first != last + 1 {
        one.problems.push(format!(
            "it begins with record {first} although the segment before ends with {last}: see \
             `flowctl gaps`, and look for a segment that was moved away"
        ));
    }
}

/// One segment, and what goes on in it from the one before. `None`: it is empty still, because it
/// is only just being made.
fn verify_file(path: &Path) -> Option<(Verified, Vec<GoesOn>)> {
    let mut one = Verified { file: path.to_owned(), ..Verified::default() };
    if let Err(error) = std::fs::metadata(path) {
        one.problems.push(format!("it cannot be read: {error}"));
        return Some((one, Vec::new()));
    }
    let going_on = match look(path, &mut one) {
        Ok(going_on) => going_on?,
        Err(OpenError::Sqlite(error)) => {
            one.problems.push(failure::with_remedy(&error));
            Vec::new()
        }
        Err(error) => {
            one.problems.push(error.to_string());
            Vec::new()
        }
    };
    Some((one, going_on))
}

/// What goes on from the segment before; `None`: it is empty still.
fn look(path: &Path, one: &mut Verified) -> Result<Option<Vec<GoesOn>>, OpenError> {
    let (conn, version) = open(path)?;
    if version == 0 {
        return Ok(None);
    }
    // Everything below speaks of one instant.
    let conn = conn.unchecked_transaction()?;
    let mut query = conn.prepare("PRAGMA integrity_check(3)")?;
    let said: Vec<String> =
        query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    if said != ["ok"] {
        let said = said.join("; ");
        one.problems.push(format!("it is damaged ({said}): restore it from a backup"));
        return Ok(Some(Vec::new()));
    }
    let sql = "SELECT \"table\" FROM pragma_foreign_key_check LIMIT 1";
    if let Some(table) = conn.query_row(sql, [], |row| row.get::<_, String>(0)).optional()? {
        one.problems.push(format!(
            "a row of its table {table} points to a name that is not there: restore it from a backup"
        ));
    }
    let sealed = if version < 4 { "NULL" } else { "sealed" };
    (one.day, one.is_sealed) =
        conn.query_row(&format!("SELECT day, {sealed} IS NOT NULL FROM meta"), [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    if name.parse::<jiff::civil::Date>().is_ok() && name != one.day {
        one.problems.push(format!("it is the segment of {}: rename it", one.day));
    }
    let walk = Walk::over(&conn, version)?;
    (one.records, one.record_ids) = (walk.records, walk.ids);
    if let Some((first, last)) = walk.ids
        && walk.missing > 0
    {
        one.problems.push(format!(
            "{} of the records {first} to {last} are missing: restore it from a backup",
            walk.missing
        ));
    }
    let record = |id: u64| format!("record {id}");
    one.problems.extend(told("is there twice", &walk.doubled, record));
    let what = "does not go on where the record before of its flow ends";
    one.problems.extend(told(what, &walk.off, record));
    let what = "is the last one of an open flow that the ledger does not have so";
    one.problems.extend(told(what, &walk.not_in_ledger(&conn)?, record));
    if version >= 4 {
        let what = "has sums that are not those of its records";
        let peer = |id: u32| format!("peer {id}");
        one.problems.extend(told(what, &walk.wrong_sums(&conn)?, peer));
    }
    Ok(Some(walk.going_on))
}

/// Every flow that goes on was handed on by the segment before, as it was.
fn handed_on(before: &Path, path: &Path, going_on: &[GoesOn]) -> Vec<String> {
    let look = || -> Result<Vec<u64>, OpenError> {
        let ((conn, _), (older, _)) = (open(path)?, open(before)?);
        Ok(not_handed_on(going_on, &conn, &older)?)
    };
    let what = "goes on from something else than the segment before has";
    match look() {
        Ok(wrong) => told(what, &wrong, |id| format!("record {id}")),
        Err(error) => vec![error.to_string()],
    }
}

fn told<T: Copy>(what: &str, wrong: &[T], name: impl Fn(T) -> String) -> Vec<String> {
    let mut lines: Vec<String> = wrong
        .iter()
        .take(SHOWN)
        .map(|which| format!("{} {what}: restore it from a backup", name(*which)))
        .collect();
    if wrong.len() > SHOWN {
        lines.push(format!("{} more like that", wrong.len() - SHOWN));
    }
    lines
}

/// A copy may lie where nothing can be written, which SQLite needs for a file with a log.
pub(super) fn open(path: &Path) -> Result<(Connection, usize), OpenError> {
    if let Err(source) = std::fs::File::open(path) {
        return Err(OpenError::Io { path: path.to_owned(), source });
    }
    let usual = || {
        let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let version = schema::check(&conn)?;
        Ok((conn, version))
    };
    match usual() {
        Err(OpenError::Sqlite(error))
            if matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly)
            ) =>
        {
            let conn = salvage::open(path)?;
            let version = schema::check(&conn)?;
            Ok((conn, version))
        }
        opened => opened,
    }
}
