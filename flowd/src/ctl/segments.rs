//! `flowctl segments`: the files of the store. `verify` reads them itself, so that a single file can
//! be checked where no daemon is.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{
    error::CtlError,
    output::{Format, Screen},
    table::{Align, Table, Tone, Value},
    text,
};
use crate::{
    store::{self, Verified},
    wire::{Segment, SegmentList},
};

/// Shows the segments in the wanted form.
pub(super) fn list(
    screen: &mut Screen,
    format: Format,
    list: &SegmentList,
) -> Result<(), CtlError> {
    match format {
        Format::Table => show(screen, list)?,
        Format::Json => screen.json(list)?,
        Format::Jsonl => {
            for segment in &list.segments {
                screen.json_line(segment)?;
            }
        }
        Format::Csv => screen.flat_csv(&list.segments)?,
    }
    screen.flush()
}

fn show(screen: &mut Screen, list: &SegmentList) -> Result<(), CtlError> {
    if list.segments.is_empty() {
        return screen.line("No segments.");
    }
    let mut table = Table::new(&[
        ("DAY", Align::Left, 0),
        ("STATE", Align::Left, 0),
        ("RECORDS", Align::Right, 0),
        ("FLOWS", Align::Right, 2),
        ("PACKETS", Align::Right, 3),
        ("TRAFFIC", Align::Right, 1),
        ("SIZE", Align::Right, 1),
        ("FIRST", Align::Right, 4),
        ("LAST", Align::Right, 4),
        ("NOTE", Align::Left, 5),
    ]);
    for segment in &list.segments {
        table.row(row(screen, segment));
    }
    screen.table(table)
}

fn row(screen: &Screen, segment: &Segment) -> Vec<Value> {
    let state = match segment.state.as_str() {
        "open" | "sealed" => Value::toned(segment.state.as_str(), Tone::Good),
        "removed" => Value::toned("removed", Tone::Dim),
        other => Value::toned(text::visible(&other.replace('_', " ")), Tone::Bad),
    };
    let number = |id: Option<u64>| id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    let since = segment.since.map(|since| screen.clock.full(since)).unwrap_or_default();
    let why = segment.why.as_deref().map(text::visible).unwrap_or_default();
    let note = match segment.state.as_str() {
        "removed" => format!(
            "{since}, for its {why}; sha256 {}",
            segment.sha256.as_deref().map(text::visible).unwrap_or_default()
        ),
        "set_aside" => format!("{since}, as {}", text::visible(&segment.file)),
        _ => why,
    };
    vec![
        text::visible(&segment.day).into(),
        state,
        segment.records.to_string().into(),
        segment.flows.to_string().into(),
        text::count(segment.counters.packets()).into(),
        text::bytes(segment.counters.bytes()).into(),
        text::bytes(segment.bytes).into(),
        number(segment.first_record_id).into(),
        number(segment.last_record_id).into(),
        note.into(),
    ]
}

/// One segment, as programs are told of it.
#[derive(Serialize)]
struct Report<'a> {
    file: &'a Path,
    day: &'a str,
    is_sealed: bool,
    records: u64,
    first_record_id: Option<u64>,
    last_record_id: Option<u64>,
    problems: &'a [String],
}

/// Checks segments, a line each; fails when anything is wrong.
pub(super) fn verify(
    screen: &mut Screen,
    format: Format,
    store: &Path,
    wanted: &[PathBuf],
) -> Result<(), CtlError> {
    let found = if wanted.is_empty() {
        store::verify_store(store).map_err(CtlError::Store)?
    } else {
        let files: Vec<PathBuf> = wanted.iter().map(|name| file(store, name)).collect();
        store::verify_files(&files)
    };
    let reports: Vec<Report<'_>> = found.iter().map(report).collect();
    match format {
        Format::Table => {
            for one in &found {
                tell(screen, one)?;
            }
        }
        Format::Json => screen.json(&reports)?,
        Format::Jsonl => {
            for one in &reports {
                screen.json_line(one)?;
            }
        }
        Format::Csv => screen.flat_csv(&reports)?,
    }
    screen.flush()?;
    if found.iter().all(|one| one.problems.is_empty()) { Ok(()) } else { Err(CtlError::Told) }
}

/// A day means the store's segment of it.
fn file(store: &Path, name: &Path) -> PathBuf {
    match name.to_str().and_then(|name| name.parse::<jiff::civil::Date>().ok()) {
        Some(day) => store.join(format!("segments/{day}.sqlite")),
        None => name.to_owned(),
    }
}

fn report(one: &Verified) -> Report<'_> {
    let Verified { file, day, records, record_ids, is_sealed, problems } = one;
    Report {
        file,
        day,
        is_sealed: *is_sealed,
        records: *records,
        first_record_id: record_ids.map(|(first, _)| first),
        last_record_id: record_ids.map(|(_, last)| last),
        problems,
    }
}

fn tell(screen: &mut Screen, one: &Verified) -> Result<(), CtlError> {
    let name = text::visible(&one.file.display().to_string());
    if one.problems.is_empty() {
        let state = if one.is_sealed { "sealed" } else { "open" };
        let records = match one.record_ids {
            Some((first, last)) => format!("{} records, {first} to {last}", one.records),
            None => "no records".to_owned(),
        };
        return screen.line(&format!("{name}: ok, {state}, {records}"));
    }
    for problem in &one.problems {
        screen.line(&format!("{name}: WRONG: {}", text::visible(problem)))?;
    }
    Ok(())
}
