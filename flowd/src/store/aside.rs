//! Setting a damaged segment aside: renamed with its log, never deleted, never overwritten.
//!
//! `2026-11-21.sqlite` becomes `2026-11-21.corrupt-1795262400000`, the time in Unix milliseconds.
//! Whoever makes a segment sees to a log that a crash in between left behind.

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// What SQLite keeps beside a file.
const LOG: &str = "-wal";
const INDEX: &str = "-shm";
/// Between the day and the time in the name of what was set aside.
const MARK: &str = ".corrupt-";

const DAY_MS: i64 = 86_400_000;

/// A segment that is out of use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// UTC, YYYY-MM-DD.
    pub day: String,
    /// Where it is now; `None`: somebody else removed it.
    pub file: Option<PathBuf>,
    /// Unix milliseconds of when.
    pub at_ms: i64,
    /// What was wrong.
    pub why: String,
    /// Whether what is recorded of the open flows is known all the same.
    pub has_ledger: bool,
}

impl SetAside {
    /// Unix milliseconds at which its day begins.
    pub fn from_ms(&self) -> i64 {
        let day: Option<jiff::civil::Date> = self.day.parse().ok();
        day.and_then(|day| day.to_zoned(jiff::tz::TimeZone::UTC).ok())
            .map_or(self.at_ms, |start| start.timestamp().as_millisecond())
    }

    /// Unix milliseconds up to which its records were missing when it went.
    pub fn to_ms(&self) -> i64 {
        self.at_ms.min(self.from_ms() + DAY_MS)
    }
}

impl fmt::Display for SetAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { day, file, why, .. } = self;
        match file {
            Some(file) => {
                write!(f, "segment {day} is set aside as {} ({why})", file.display())
            }
            None => write!(f, "segment {day} is gone ({why})"),
        }
    }
}

/// Renames the segment of a day and its log. Its new path.
pub(super) fn rename(segments: &Path, day: &str, now_ms: i64) -> io::Result<PathBuf> {
    let from = segments.join(format!("{day}.sqlite"));
    let to = free(segments, day, now_ms)?;
    let (log, log_to) = (with(&from, LOG), with(&to, LOG));
    // The log is in both places until the file has moved: it is never without one.
    let is_linked = match fs::hard_link(&log, &log_to) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        // A file system that has no links.
        Err(_) => false,
    };
    fs::rename(&from, &to)?;
    if is_linked {
        remove(&log)?;
    } else {
        fs::rename(&log, &log_to)?;
    }
    // Only tells where in the log what is.
    remove(&with(&from, INDEX))?;
    fs::File::open(segments)?.sync_all()?;
    Ok(to)
}

/// Moves a log away that has lost its file, so that no new file takes it for its own.
pub(super) fn clear_orphans(segments: &Path, day: &str) -> io::Result<()> {
    let from = segments.join(format!("{day}.sqlite"));
    if from.try_exists()? {
        return Ok(());
    }
    remove(&with(&from, INDEX))?;
    let log = with(&from, LOG);
    match fs::metadata(&log) {
        Ok(found) if found.nlink() > 1 => remove(&log),
        Ok(_) => fs::rename(&log, with(&free(segments, day, 0)?, LOG)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// A name that nothing has, for what is set aside at this time or a little later.
fn free(segments: &Path, day: &str, now_ms: i64) -> io::Result<PathBuf> {
    let mut at_ms = now_ms;
    loop {
        let to = path(segments, day, at_ms);
        if !to.try_exists()? && !with(&to, LOG).try_exists()? {
            return Ok(to);
        }
        at_ms += 1;
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The days and times of what was set aside, in that order.
pub(super) fn list(segments: &Path) -> io::Result<Vec<(String, i64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(segments)? {
        let name = entry?.file_name();
        let parts = name.to_str().and_then(|name| name.split_once(MARK));
        // Its log has no number there.
        let parts = parts.and_then(|(day, at)| Some((day.to_owned(), at.parse().ok()?)));
        found.extend(parts);
    }
    found.sort();
    Ok(found)
}

/// The newest file that was set aside, when it is newer than every segment: what it has as its
/// ledger, no older segment has.
pub(super) fn newest_after(
    segments: &Path,
    newest: Option<&str>,
) -> io::Result<Option<(String, PathBuf)>> {
    let last = list(segments)?.pop();
    Ok(last
        .filter(|(day, _)| newest.is_none_or(|newest| day.as_str() > newest))
        .map(|(day, at_ms)| (day.clone(), path(segments, &day, at_ms))))
}

/// Where the segment of a day is that was set aside then.
pub(super) fn path(segments: &Path, day: &str, at_ms: i64) -> PathBuf {
    segments.join(format!("{day}{MARK}{at_ms}"))
}

/// The path with a suffix behind its whole name.
pub(super) fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}
