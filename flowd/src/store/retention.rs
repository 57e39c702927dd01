//! What goes when: the oldest days first, whole, and never the newest.
//!
//! - A day that is over is sealed: its rows become chunks, its log is folded into the file, which
//!   is then read-only, and what it has is said under the gateway's key (`sealing.rs`).
//! - When something was said, and once a day, the newest entry of the audit log is signed.
//! - Before a segment goes, a signed tombstone says what it had.
//! - Before a segment goes, its sums are in `totals.sqlite`, safe on the disk. A crash in between
//!   finds them there and removes the file.
//! - Whatever cannot be done now is tried again by the next run; a day that somebody reads cannot be
//!   closed.

use std::{
    cell::Cell,
    fs::{self, File, Permissions},
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use rusqlite::{Connection, OpenFlags};
use sha2::{Digest as _, Sha256};

use super::{
    AuditError, AuditReader, aside, failure, schema,
    sealing::{Closed, Sealer, told},
    signing::{SealError, Signer},
    step::{self, MakeError, StepError},
    totals::{Day, Reason, Totals, TotalsError},
    writer,
};
use crate::{
    audit::{Anchor, Event, Teller, word},
    seal::{Chain, What},
    size,
};

/// A longer time without a segment may be a clock that is wrong.
const MOST_HOLE_DAYS: i64 = 31;
/// So many segments make it believed.
const BELIEVED_AFTER_DAYS: usize = 8;

/// The audit log is signed at least so often.
const DAY_MS: i64 = 86_400_000;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Days whose records are kept; 0: for ever. They are counted back from the last day that is
    /// over and has records, and from before a hole of more than a month until a week has followed, so
    /// that a clock set far ahead removes none.
    pub days: u32,
    /// How much of the disk the segments may take.
    pub max_bytes: MaxBytes,
}

impl Default for Retention {
    fn default() -> Self {
        Self { days: 365, max_bytes: MaxBytes::default() }
    }
}

/// How much of the disk the segments may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxBytes {
    /// As much as there is.
    None,
    /// A share of the file system's size.
    Percent(u8),
    /// So much.
    Bytes(u64),
}

impl Default for MaxBytes {
    fn default() -> Self {
        Self::Percent(50)
    }
}

/// The text is no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotASize;

impl FromStr for MaxBytes {
    type Err = NotASize;

    fn from_str(text: &str) -> Result<Self, NotASize> {
        if text == "none" {
            return Ok(Self::None);
        }
        if let Some(share) = text.strip_suffix('%') {
            let share = share.trim().parse().map_err(|_| NotASize)?;
            return if (1..=100).contains(&share) {
                Ok(Self::Percent(share))
            } else {
                Err(NotASize)
            };
        }
        size::bytes(text).filter(|bytes| *bytes > 0).map(Self::Bytes).ok_or(NotASize)
    }
}

/// Something about the old segments could not be done.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// A file or directory.
    #[error("cannot keep {path}: {source}: check its owner, permissions and disk")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A segment.
    #[error("cannot keep segment {path}: {}", failure::with_remedy(source))]
    Segment {
        /// Which.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The sums for ever.
    #[error(transparent)]
    Totals(#[from] TotalsError),
    /// What is said of days under the gateway's key.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// What a run did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Days whose records were removed.
    pub removed: usize,
    /// Days that are over and still open, because somebody reads them.
    pub held: usize,
}

/// Seals and removes segments. The only one that touches them when their day is over.
#[derive(Debug)]
pub struct Keeper {
    store: PathBuf,
    segments: PathBuf,
    retention: Retention,
    tail_records: u32,
    teller: Teller,
    sealer: Option<Sealer>,
    /// Statements of the chain that the audit log was told.
    told: Cell<Option<usize>>,
    /// Statements that it had before the first run.
    begun: Cell<Option<usize>>,
}

impl Keeper {
    /// Of the store in `dir`, which is open for writing meanwhile.
    pub fn new(dir: &Path, retention: Retention) -> Self {
        let (store, segments) = (dir.to_owned(), dir.join("segments"));
        Self {
            store,
            segments,
            retention,
            tail_records: step::TAIL_RECORDS,
            teller: Teller::default(),
            sealer: None,
            told: Cell::new(None),
            begun: Cell::new(None),
        }
    }

    /// The same, which tells the audit log what it removes.
    pub fn telling(mut self, teller: Teller) -> Self {
        self.teller = teller;
        self
    }

    /// The same, which signs what it seals and removes with the key of a gateway, in a directory that
    /// is made with the key where there is none.
    pub fn signing(mut self, keys: &Path, gateway: &str) -> Self {
        let (store, keys, gateway) = (self.store.clone(), keys.to_owned(), gateway.to_owned());
        self.sealer = Some(Sealer { store, keys, gateway });
        self
    }

    /// The same, which makes chunks of so many records.
    pub fn with_tail_records(mut self, tail_records: u32) -> Self {
        self.tail_records = tail_records;
        self
    }

    /// The newest day; what is older is the keeper's.
    pub fn newest(&self) -> Option<String> {
        writer::list(&self.segments).ok()?.pop()
    }

    /// Seals what is over and removes what is too old or too much.
    pub fn run(&self, now_ms: i64) -> Result<Kept, KeepError> {
        let mut signer = self.sealer.as_ref().map(|sealer| sealer.open(now_ms)).transpose();
        let done = self.run_with(&mut signer, now_ms);
        let mut anchored = Ok(());
        if let Ok(Some(signer)) = &mut signer {
            self.tell(signer);
            anchored = self.anchor(signer, now_ms);
        }
        signer.and(anchored).map_err(KeepError::from).and(done)
    }

    /// Says which entry of the audit log is the newest: when this run said something else, and once a
    /// day.
    fn anchor(&self, signer: &mut Signer, now_ms: i64) -> Result<(), SealError> {
        let last = signer.signed().anchors.pop();
        let is_old = |last: Anchor| !(0..DAY_MS).contains(&now_ms.saturating_sub(last.at_ms));
        if signer.chain.links.len() == signer.known && !last.is_none_or(is_old) {
            return Ok(());
        }
        let Some(head) = self.teller.head() else { return Ok(()) };
        if last.is_some_and(|last| last.head == head) {
            return Ok(());
        }
        signer.say(now_ms, What::Audit { sequence: head.seq, hash: head.hash }).map(drop)
    }

    /// Tells the audit log what is new in the chain: on the first run, what follows the statement that
    /// it was told of last, or what this run added, where it was told of none that is there.
    fn tell(&self, signer: &Signer) {
        let links = &signer.chain.links;
        let begun = self.begun.get().unwrap_or(signer.known);
        self.begun.set(Some(begun));
        let before = || Some(self.told_before(&signer.chain).ok()?.unwrap_or(begun));
        let known = self.told.get().map(|told| told.min(signer.known));
        // Where the log cannot be read, the next run tells what this one has said, too.
        let Some(from) = known.or_else(before) else { return };
        for at in from..links.len() {
            let before = at.checked_sub(1).and_then(|before| links.get(before));
            if let Some(event) = told(&links[at], before) {
                self.teller.tell(event);
            }
        }
        self.told.set(Some(links.len()));
    }

    /// How many statements the audit log was told by a flowd before; `None`: it does not say.
    fn told_before(&self, chain: &Chain) -> Result<Option<usize>, AuditError> {
        let last = match AuditReader::new(&self.store).last_statement() {
            Err(AuditError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            last => last?,
        };
        let Some(last) = last else { return Ok(None) };
        Ok(chain.links.iter().rposition(|link| link.hash == last).map(|at| at + 1))
    }

    fn run_with(
        &self,
        signer: &mut Result<Option<Signer>, SealError>,
        now_ms: i64,
    ) -> Result<Kept, KeepError> {
        let all = writer::list(&self.segments).map_err(io_at(&self.segments))?;
        let Some((newest, days)) = all.split_last() else {
            return Ok(Kept { removed: 0, held: 0 });
        };
        let (mut failed, mut held, mut is_next) = (None, 0, true);
        for day in days {
            let sealed = self.close(day, now_ms).and_then(|closed| {
                held += usize::from(closed == Closed::NotYet);
                is_next &= closed != Closed::NotYet;
                match signer {
                    Ok(Some(signer)) if is_next => {
                        signer.seal(&self.path(day), (day, &all), closed, now_ms)
                    }
                    _ => Ok(()),
                }
            });
            if let Err(error) = sealed {
                // Days are sealed in their order, so that one which may be sealed later holds the
                // others up.
                is_next &= is_for_good(&error);
                failed.get_or_insert(error);
            }
        }
        // Nothing goes without a word.
        let Ok(signer) = signer else { return Ok(Kept { removed: 0, held }) };
        if let Some(Err(error)) = signer.as_ref().map(Signer::check) {
            failed.get_or_insert(error.into());
        }
        let leaving = self.leaving(days, newest, now_ms)?;
        let mut removed = 0;
        for (day, reason) in &leaving {
            removed += usize::from(self.remove(day, *reason, now_ms, signer.as_mut())?);
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(Kept { removed, held }),
        }
    }

    /// Which days go, oldest first, and why.
    fn leaving(
        &self,
        days: &[String],
        newest: &str,
        now_ms: i64,
    ) -> Result<Vec<(String, Reason)>, KeepError> {
        let Retention { days: kept, max_bytes } = self.retention;
        let now = jiff::Timestamp::from_millisecond(now_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let today = now.to_zoned(jiff::tz::TimeZone::UTC).date();
        // A clock that is wrong by years makes nothing old: there would be days in between.
        let day_after =
            days.last().and_then(|day| day.parse::<jiff::civil::Date>().ok()?.tomorrow().ok());
        let today = day_after.map_or(today, |day| today.min(day));
        let today = before_doubt(days).map_or(today, |day| today.min(day));
        let first_kept = today.saturating_sub(jiff::Span::new().days(i64::from(kept))).to_string();
        let limit = match max_bytes {
            MaxBytes::None => u64::MAX,
            MaxBytes::Bytes(bytes) => bytes,
            MaxBytes::Percent(share) => {
                let size = file_system_bytes(&self.segments).map_err(io_at(&self.segments))?;
                size / 100 * u64::from(share)
            }
        };
        let mut bytes: u64 =
            self.bytes(newest) + days.iter().map(|day| self.bytes(day)).sum::<u64>();
        let mut leaving = Vec::new();
        for day in days {
            let reason = if kept > 0 && *day < first_kept {
                Reason::Age
            } else if bytes > limit {
                Reason::Bytes
            } else {
                break;
            };
            bytes = bytes.saturating_sub(self.bytes(day));
            leaving.push((day.clone(), reason));
        }
        Ok(leaving)
    }

    fn bytes(&self, day: &str) -> u64 {
        let path = self.path(day);
        let of = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
        of(&path) + of(&aside::with(&path, "-wal")) + of(&aside::with(&path, "-shm"))
    }

    fn path(&self, day: &str) -> PathBuf {
        self.segments.join(format!("{day}.sqlite"))
    }

    /// Turns what is left of rows into chunks. A full disk leaves it: the day can go all the same.
    fn finish(&self, conn: &mut Connection) -> rusqlite::Result<()> {
        match step::finish(conn, self.tail_records) {
            Err(MakeError::Sqlite(error))
                if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) =>
            {
                Ok(())
            }
            Err(MakeError::Sqlite(error)) => Err(error),
            Err(MakeError::NotTheSame((first, last))) => {
                let error = StepError::NotTheSame { first, last };
                tracing::error!(%error, "a day that is over keeps rows");
                Ok(())
            }
            Ok(()) => {
                failpoint!("day-chunked");
                Ok(())
            }
        }
    }

    /// Folds the log of a day that is over into its file and makes it read-only. A segment of an
    /// older version stays as it is.
    fn close(&self, day: &str, now_ms: i64) -> Result<Closed, KeepError> {
        let path = self.path(day);
        let mode = fs::metadata(&path).map_err(io_at(&path))?.permissions().mode();
        if mode & 0o222 == 0 {
            return Ok(Closed::Before);
        }
        let close = || -> rusqlite::Result<Closed> {
            let mut conn = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            let version: u32 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
            let version = version as usize;
            if version != schema::MIGRATIONS.len() {
                // Nobody writes it any more.
                return Ok(Closed::Before);
            }
            self.finish(&mut conn)?;
            conn.pragma_update(None, "synchronous", "full")?;
            conn.execute("UPDATE meta SET sealed = ? WHERE sealed IS NULL", [now_ms])?;
            let mode: String =
                conn.query_row("PRAGMA journal_mode = delete", [], |row| row.get(0))?;
            Ok(if mode == "delete" { Closed::Now } else { Closed::NotYet })
        };
        match close() {
            Ok(Closed::Now) => {
                let read_only = Permissions::from_mode(0o440);
                fs::set_permissions(&path, read_only).map_err(io_at(&path))?;
                failpoint!("day-closed");
                Ok(Closed::Now)
            }
            Ok(closed) => Ok(closed),
            // A reader has it open: the next run finds it free.
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
                Ok(Closed::NotYet)
            }
            Err(source) => Err(KeepError::Segment { path, source }),
        }
    }

    /// Whether it could.
    fn remove(
        &self,
        day: &str,
        reason: Reason,
        now_ms: i64,
        signer: Option<&mut Signer>,
    ) -> Result<bool, KeepError> {
        let path = self.path(day);
        let read = || {
            let conn = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            let version: u32 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
            let version = version as usize;
            let (sums, peers) = Day::of(&conn, day, version)?;
            Ok((version, sums, peers))
        };
        let (version, sums, peers) =
            read().map_err(|source| KeepError::Segment { path: path.clone(), source })?;
        let mode = fs::metadata(&path).map_err(io_at(&path))?.permissions().mode();
        if version == schema::MIGRATIONS.len() && mode & 0o222 != 0 {
            // Somebody still has it open; it goes when it is sealed.
            return Ok(false);
        }
        let (sha256, file_bytes) = digest(&path).map_err(io_at(&path))?;
        let tombstone = Day { removed_ms: now_ms, reason, sha256, file_bytes, ..sums };
        if !Totals::open(&self.store)?.keep(&tombstone, &peers)? {
            // A day was removed once and restored since; whoever did that removes it again.
            tracing::warn!(day, "another segment of this day was removed before; this one stays");
            return Ok(false);
        }
        if let Some(signer) = signer {
            signer.bury((&path, &tombstone), &peers, now_ms)?;
        }
        for suffix in ["-wal", "-shm", ""] {
            match fs::remove_file(aside::with(&path, suffix)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_at(&path)(error));
                }
                _ => {}
            }
        }
        File::open(&self.segments).and_then(|dir| dir.sync_all()).map_err(io_at(&self.segments))?;
        let event = Event::auto(now_ms, word::SEGMENT_REMOVED)
            .on(day)
            .with("because", reason.word())
            .with("records", tombstone.records)
            .with("sha256", &*tombstone.sha256);
        self.teller.tell(event);
        tracing::info!(
            day,
            records = tombstone.records,
            bytes = file_bytes,
            because = reason.word(),
            "removed the records of a day; its sums stay"
        );
        Ok(true)
    }
}

/// Whether a day that cannot be sealed now never will be.
fn is_for_good(error: &KeepError) -> bool {
    match error {
        KeepError::Seal(SealError::Changed(_) | SealError::Behind(_) | SealError::Foreign(_)) => {
            true
        }
        KeepError::Segment { source, .. } => failure::is_damage(source),
        _ => false,
    }
}

/// The day after the last one that is beyond doubt. After a hole of more than a month, a clock is
/// believed when it has gone on for a week of segments.
fn before_doubt(days: &[String]) -> Option<jiff::civil::Date> {
    let recent = &days[days.len().saturating_sub(BELIEVED_AFTER_DAYS)..];
    let date = |day: &String| day.parse::<jiff::civil::Date>().ok();
    recent.windows(2).find_map(|pair| {
        let (before, after) = (date(&pair[0])?, date(&pair[1])?);
        let end = before.saturating_add(jiff::Span::new().days(MOST_HOLE_DAYS));
        if end < after { before.tomorrow().ok() } else { None }
    })
}

/// SHA-256 in hex, and the length.
pub(super) fn digest(path: &Path) -> io::Result<(String, u64)> {
    use std::fmt::Write as _;
    let mut file = File::open(path)?;
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        bytes += read as u64;
    }
    let mut hex = String::new();
    for byte in hash.finalize() {
        write!(hex, "{byte:02x}").expect("a string grows");
    }
    Ok((hex, bytes))
}

fn file_system_bytes(path: &Path) -> io::Result<u64> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path is terminated, and the buffer is as large as the kernel writes.
    let done = unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call filled it.
    let stat = unsafe { stat.assume_init() };
    Ok(stat.f_blocks * stat.f_frsize)
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> KeepError {
    move |source| KeepError::Io { path: path.to_owned(), source }
}
