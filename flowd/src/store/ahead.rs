//! Segments that are called after days to come, because the wall clock was once far ahead.
//!
//! - the newest segment takes all records, so such a one would take them until its day has come
//! - a clock that was set back may be the wrong one: only when it has gone on for a day, the names
//!   are put right
//! - the first one is called after today, or tomorrow where today has a segment, the next one after
//!   the day that follows: their order, which is that of their records, stays

use std::{fs, os::unix::fs::PermissionsExt as _};

use rusqlite::{Connection, OpenFlags};

use super::{
    OpenError, WriteError, aside,
    opening::io,
    segment::{self, Place},
    writer::{Newest, Writer, day, list},
};

const DAY_MS: i64 = 86_400_000;

/// No clock that is right has been before.
const EARLIEST: &str = "2026-01-01";

impl Writer {
    /// Puts names right that are ahead of the clock for a day.
    pub(super) fn heed_the_day(&mut self, now_ms: i64) -> Result<(), WriteError> {
        let Newest::Open(segment) = &self.newest else { return Ok(()) };
        if segment.day <= day(now_ms.saturating_add(DAY_MS)) {
            self.ahead_since_ms = None;
            return Ok(());
        }
        let since_ms = *self.ahead_since_ms.get_or_insert(now_ms);
        if now_ms < since_ms {
            self.ahead_since_ms = Some(now_ms);
        }
        if now_ms.saturating_sub(since_ms) < DAY_MS {
            return Ok(());
        }
        // What cannot be done now is tried again after another day.
        self.ahead_since_ms = Some(now_ms);
        let names = names_ahead(&self.place, &day(now_ms))?;
        if names.is_empty() {
            return Ok(());
        }
        let carried = segment::carried(segment.conn())?;
        let why = "its segment is renamed".to_owned();
        let old = std::mem::replace(&mut self.newest, Newest::Closed { carried, why });
        if let Newest::Open(old) = old {
            old.close();
        }
        for (from, to) in &names {
            match rename(&self.place, from, to) {
                Ok(()) => tracing::warn!(
                    from,
                    to,
                    "a segment was called after a day to come, because the clock was ahead; it is \
                     renamed"
                ),
                Err(error) => {
                    tracing::warn!(%error, from, to, "a segment keeps its name");
                    break;
                }
            }
        }
        let ended = std::mem::take(&mut self.state.ended);
        self.reopen(now_ms)?;
        self.state.ended = ended;
        Ok(())
    }
}

/// The segments of days to come, and what they are to be called, oldest first.
fn names_ahead(place: &Place, today: &str) -> Result<Vec<(String, String)>, OpenError> {
    let segments = &place.segments;
    let all = list(segments).map_err(io(segments))?;
    let first = all.partition_point(|name| name.as_str() <= today);
    let is_before_all = first == 0 && today < EARLIEST;
    // The ledger may be in one that was set aside, by its name.
    let has_aside = aside::newest_after(segments, Some(today)).map_err(io(segments))?.is_some();
    let Ok(mut next) = today.parse::<jiff::civil::Date>() else { return Ok(Vec::new()) };
    if is_before_all || has_aside {
        return Ok(Vec::new());
    }
    if all[..first].last().is_some_and(|last| last == today) {
        next = next.saturating_add(jiff::Span::new().days(1));
    }
    let mut names = Vec::new();
    for from in &all[first..] {
        let to = next.to_string();
        if to < *from {
            names.push((from.clone(), to));
        }
        next = next.saturating_add(jiff::Span::new().days(1));
    }
    Ok(names)
}

/// Calls a segment that nobody has open after another day.
fn rename(place: &Place, from: &str, to: &str) -> Result<(), OpenError> {
    let (path, new) = (place.path(from), place.path(to));
    let mode = fs::metadata(&path).map_err(io(&path))?.permissions();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).map_err(io(&path))?;
    let told = || -> rusqlite::Result<()> {
        let conn = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        // So that nothing is beside the file. Fails while a reader has it open.
        conn.query_row("PRAGMA journal_mode = delete", [], |_| Ok(()))?;
        conn.execute("UPDATE meta SET day = ?", [to]).map(drop)
    };
    told()?;
    fs::set_permissions(&path, mode).map_err(io(&path))?;
    fs::rename(&path, &new).map_err(io(&path))?;
    fs::File::open(&place.segments).and_then(|dir| dir.sync_all()).map_err(io(&place.segments))
}
