//! What the store has and had: a row for each day, and for each file that was set aside.

use std::{fs, path::Path};

use super::{OpenError, ReadError, Reader, aside, totals, totals::Day, writer};
use crate::flows::Counters;

/// What became of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentState {
    /// It takes records, or is not sealed yet.
    Open,
    /// Its day is over, and it is read-only.
    Sealed,
    /// Its records have gone; its sums are kept.
    Removed,
    /// It was damaged, and nothing reads it.
    SetAside,
    /// It cannot be read now.
    Unreadable,
}

/// One segment.
#[derive(Clone, Debug)]
pub struct SegmentInfo {
    /// UTC, YYYY-MM-DD.
    pub day: String,
    /// What became of it.
    pub state: SegmentState,
    /// Name of the file in the directory of the segments; what was removed had it.
    pub file: String,
    /// Of the file.
    pub bytes: u64,
    /// In it; 0 where nobody can tell.
    pub records: u64,
    /// That began in it.
    pub flows: u64,
    /// What its records did.
    pub counters: Counters,
    /// First and last.
    pub record_ids: Option<(u64, u64)>,
    /// SHA-256 of what was removed, hex.
    pub sha256: Option<String>,
    /// When it was removed or set aside, Unix milliseconds.
    pub since_ms: Option<i64>,
    /// Why it was removed (`age`, `bytes`), or cannot be read.
    pub why: Option<String>,
}

impl Reader {
    /// Every segment that is or was there, by day.
    pub fn segments(&self) -> Result<Vec<SegmentInfo>, ReadError> {
        let segments = self.directory();
        let days = match writer::list(segments) {
            Ok(days) => days,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(ReadError::List { path: segments.to_owned(), source }),
        };
        let mut list = Vec::new();
        let store = segments.parent().unwrap_or(segments);
        for removed in totals::days(store).map_err(ReadError::Totals)? {
            // Its segment speaks for itself while it is there.
            if !days.contains(&removed.day) {
                list.push(of_removed(removed));
            }
        }
        for day in &days {
            // Retention may remove it meanwhile.
            list.extend(self.segment_info(day));
        }
        let aside = aside::list(segments)
            .map_err(|source| ReadError::List { path: segments.to_owned(), source })?;
        for (day, at_ms) in aside {
            let file = format!("{day}.corrupt-{at_ms}");
            let bytes = fs::metadata(segments.join(&file)).map_or(0, |file| file.len());
            let since_ms = Some(at_ms);
            let state = SegmentState::SetAside;
            list.push(SegmentInfo { bytes, since_ms, ..empty(day, state, file) });
        }
        list.sort_by(|a, b| (&a.day, a.since_ms).cmp(&(&b.day, b.since_ms)));
        Ok(list)
    }

    fn segment_info(&self, day: &str) -> Option<SegmentInfo> {
        let file = format!("{day}.sqlite");
        let path = self.directory().join(&file);
        let bytes = fs::metadata(&path).ok()?.len();
        let (state, sums) = match sums(&path, day) {
            Ok(Some((true, sums))) => (SegmentState::Sealed, sums),
            Ok(Some((false, sums))) => (SegmentState::Open, sums),
            // It is only just being made.
            Ok(None) => return None,
            Err(error) => {
                let why = Some(error.to_string());
                let info = empty(day.to_owned(), SegmentState::Unreadable, file);
                return Some(SegmentInfo { bytes, why, ..info });
            }
        };
        let Day { records, flows, counters, record_ids, .. } = sums;
        let info = empty(day.to_owned(), state, file);
        Some(SegmentInfo { bytes, records, flows, counters, record_ids, ..info })
    }
}

/// Whether it is sealed, and what it has; `None`: it is empty still.
fn sums(path: &Path, day: &str) -> Result<Option<(bool, Day)>, OpenError> {
    super::segment::as_it_is(path, |conn, version| {
        if version == 0 {
            return Ok(None);
        }
        let is_sealed = version >= 4
            && conn.query_row("SELECT sealed IS NOT NULL FROM meta", [], |row| row.get(0))?;
        Ok(Some((is_sealed, Day::of(conn, day, version)?.0)))
    })
}

fn of_removed(day: Day) -> SegmentInfo {
    let Day { records, flows, counters, record_ids, .. } = day;
    let file = format!("{}.sqlite", day.day);
    SegmentInfo {
        bytes: day.file_bytes,
        records,
        flows,
        counters,
        record_ids,
        sha256: Some(day.sha256),
        since_ms: Some(day.removed_ms),
        why: Some(day.reason.word().to_owned()),
        ..empty(day.day, SegmentState::Removed, file)
    }
}

fn empty(day: String, state: SegmentState, file: String) -> SegmentInfo {
    SegmentInfo {
        day,
        state,
        file,
        bytes: 0,
        records: 0,
        flows: 0,
        counters: Counters::default(),
        record_ids: None,
        sha256: None,
        since_ms: None,
        why: None,
    }
}
