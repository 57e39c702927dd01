//! Opening the store: what is there, which segment is the newest, what is known of its ledger.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::Path,
};

use super::{
    OpenError, SetAside, aside, failure, salvage,
    segment::{self, Carried, Place, Segment, carried_of, last_record_id_of, version_of},
    state::State,
    writer::{Newest, Writer, day, list},
};

impl Writer {
    /// Opens what the directory has. A damaged newest segment is set aside; the next one has what
    /// can be read of it.
    pub(super) fn reopen(&mut self, now_ms: i64) -> Result<(), OpenError> {
        prepare_directories(&self.place)?;
        self.take_lock()?;
        let segments = self.place.segments.clone();
        let names = list(&segments).map_err(io(&segments))?;
        names.iter().for_each(|name| segment::roll_back(&self.place.path(name)));
        let mut newest = None;
        for name in names.iter().rev() {
            match version_of(&self.place.path(name)) {
                // It was never begun.
                Ok(0) => {}
                Ok(_) => {
                    newest = Some(name.as_str());
                    break;
                }
                Err(error) if failure::is_damaged_file(&error) => {
                    self.clear_at_start(name, now_ms, &error)?;
                    return self.reopen(now_ms);
                }
                Err(error) => return Err(error),
            }
        }
        let today = day(now_ms);
        let segment = match self.open_newest(newest, &today) {
            Err(error) if failure::is_damaged_file(&error) => {
                self.clear_at_start(newest.unwrap_or(&today), now_ms, &error)?;
                return self.reopen(now_ms);
            }
            opened => opened?,
        };
        self.state = State::read(segment.conn())?;
        self.newest = Newest::Open(segment);
        Ok(())
    }

    /// The segment to write, given the newest one that has something in it.
    fn open_newest(&mut self, newest: Option<&str>, today: &str) -> Result<Segment, OpenError> {
        let segments = &self.place.segments;
        let after = aside::newest_after(segments, newest).map_err(io(segments))?;
        let mut last = self.last_record_id;
        let segment = match (after, newest) {
            (Some((day, file)), _) => {
                let left = salvage::salvage(&file);
                let mut carried = left.carried.unwrap_or_else(Carried::lost);
                // One that says nothing at all may follow others.
                let known = last.max(left.last_record_id);
                carried.last_record_id =
                    if known > 0 { known } else { last_before(&self.place, &day)? };
                Segment::open(&self.place, today.max(&day), Some(&carried))?
            }
            (None, Some(newest)) if newest < today => {
                let carried = match carried_of(&self.place, newest)? {
                    Some(carried) => carried,
                    None => {
                        let old = Segment::open(&self.place, newest, None)?;
                        segment::carried(old.conn())?
                    }
                };
                Segment::open(&self.place, today, Some(&carried))?
            }
            (None, Some(newest)) => {
                let segment = Segment::open(&self.place, newest, None)?;
                // Whatever the drain thread reads at start is readable, or the file is damaged.
                segment::carried(segment.conn())?;
                segment
            }
            (None, None) => Segment::open(&self.place, today, Some(&Carried::default()))?,
        };
        last = last.max(segment::last_record_id(segment.conn())?);
        // Older versions did not note what was before a segment without records.
        if last == 0 {
            last = last_before(&self.place, &segment.day)?;
        }
        self.last_record_id = last;
        Ok(segment)
    }

    /// Sets a segment aside that cannot be opened.
    fn clear_at_start(
        &mut self,
        day: &str,
        now_ms: i64,
        error: &OpenError,
    ) -> Result<(), OpenError> {
        let path = self.place.path(day);
        let file = aside::rename(&self.place.segments, day, now_ms).map_err(io(&path))?;
        let has_ledger = salvage::salvage(&file).carried.is_some();
        self.note(SetAside {
            day: day.to_owned(),
            file: Some(file),
            at_ms: now_ms,
            why: failure::said(error),
            has_ledger,
        });
        Ok(())
    }

    /// Keeps other writers out. A directory that was made anew has another lock.
    pub(super) fn take_lock(&mut self) -> Result<(), OpenError> {
        let path = self.place.store.join("lock");
        let id = |file: &fs::Metadata| (file.dev(), file.ino());
        let now = fs::metadata(&path).ok().as_ref().map(id);
        if let Some((_, held)) = &self.lock
            && Some(*held) == now
        {
            return Ok(());
        }
        let file = lock(&self.place.store)?;
        let held = id(&file.metadata().map_err(io(&path))?);
        self.lock = Some((file, held));
        Ok(())
    }
}

pub(super) fn prepare_directories(place: &Place) -> Result<(), OpenError> {
    let segments = &place.segments;
    DirBuilder::new().recursive(true).mode(0o750).create(segments).map_err(io(segments))?;
    for path in [&place.store, segments] {
        fs::set_permissions(path, Permissions::from_mode(0o750)).map_err(io(path))?;
    }
    Ok(())
}

/// What the newest segment says, without writing anything anywhere.
pub(super) fn peek(segments: &Path) -> Result<Carried, OpenError> {
    if !segments.exists() {
        return Ok(Carried::default());
    }
    let names = list(segments).map_err(io(segments))?;
    for day in names.iter().rev() {
        let after = aside::newest_after(segments, Some(day)).map_err(io(segments))?;
        if let Some((_, file)) = after {
            return Ok(salvage::salvage(&file).carried.unwrap_or_else(Carried::lost));
        }
        let path = segments.join(format!("{day}.sqlite"));
        let found = salvage::peek(&path)
            .map_err(|source| OpenError::Segment { path, source: Box::new(source) })?;
        // The newest may not have been begun yet.
        if let Some(carried) = found {
            return Ok(carried);
        }
    }
    Ok(Carried::default())
}

pub(super) fn io(path: &Path) -> impl Fn(std::io::Error) -> OpenError {
    move |source| OpenError::Io { path: path.to_owned(), source }
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o640);
    // On a read-only disk nobody else can write either; the lock holds all the same.
    let file = match options.open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::ReadOnlyFilesystem => File::open(&path),
        opened => opened,
    };
    let file = file.map_err(io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(io(&path)(error)),
    }
}

/// The highest record id of the segments before a day; 0: none. One that cannot be read is the
/// reader's to find.
fn last_before(place: &Place, day: &str) -> Result<u64, OpenError> {
    let names = list(&place.segments).map_err(io(&place.segments))?;
    let before = names.iter().rev().filter(|name| name.as_str() < day);
    let mut ids = before.filter_map(|name| last_record_id_of(&place.path(name)).ok());
    Ok(ids.find(|last| *last > 0).unwrap_or_default())
}
