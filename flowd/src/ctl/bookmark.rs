//! Where an export ended: a small file that the next run begins with.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{export::Format, flows::FlowId, wire::Timestamp};

/// What a run has exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bookmark {
    /// Whose records.
    pub(super) gateway: String,
    /// As what.
    pub(super) format: String,
    /// The last record.
    pub(super) record_id: u64,
    /// Its flow, by which the record of another store is known.
    pub(super) flow_id: Option<FlowId>,
    /// The last gap that was told.
    pub(super) gap_id: u64,
    /// Until when gaps that lasted were told.
    pub(super) at: Timestamp,
}

/// Why a bookmark is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum BookmarkError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is no file of `--resume` ({reason}); name another", path.display())]
    Nonsense { path: PathBuf, reason: String },
    #[error(
        "{} is of an export of `{of}` as {format}, and this is one of `{gateway}` as {wanted}; \
         name a file for each", path.display()
    )]
    Other { path: PathBuf, of: String, format: String, gateway: String, wanted: &'static str },
    #[error("cannot write {}: {source}; what was exported is new again next time", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl Bookmark {
    /// What the run before left in `path`; the beginning, where there was none.
    pub(super) fn read(path: &Path, gateway: &str, format: Format) -> Result<Self, BookmarkError> {
        let wanted = format.word();
        let bookmark: Self = match fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| BookmarkError::Nonsense {
                path: path.to_owned(),
                reason: error.to_string(),
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self {
                    gateway: gateway.to_owned(),
                    format: wanted.to_owned(),
                    record_id: 0,
                    flow_id: None,
                    gap_id: 0,
                    at: Timestamp(0),
                });
            }
            Err(source) => return Err(BookmarkError::Read { path: path.to_owned(), source }),
        };
        if bookmark.gateway != gateway || bookmark.format != wanted {
            return Err(BookmarkError::Other {
                path: path.to_owned(),
                of: bookmark.gateway,
                format: bookmark.format,
                gateway: gateway.to_owned(),
                wanted,
            });
        }
        Ok(bookmark)
    }

    /// Takes the place of the file, whole: nobody ever reads half of it.
    pub(super) fn write(&self, path: &Path) -> Result<(), BookmarkError> {
        self.replace(path).map_err(|source| BookmarkError::Write { path: path.to_owned(), source })
    }

    fn replace(&self, path: &Path) -> io::Result<()> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut new = std::ffi::OsString::from(".");
        new.push(name);
        new.push(".new");
        let new = path.with_file_name(new);
        let mut file = File::create(&new)?;
        let mut text = serde_json::to_vec(self).map_err(io::Error::from)?;
        text.push(b'\n');
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Bookmark, Format};
    use crate::wire::Timestamp;

    #[test]
    fn what_was_written_is_read_and_a_first_run_begins_at_the_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nightly");
        let first = Bookmark::read(&path, "gw", Format::Vpc).unwrap();
        assert_eq!((first.record_id, first.gap_id), (0, 0));
        for record_id in [5, 9] {
            let bookmark = Bookmark { record_id, at: Timestamp(7), ..first.clone() };
            bookmark.write(&path).unwrap();
            assert_eq!(Bookmark::read(&path, "gw", Format::Vpc).unwrap(), bookmark);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_of_something_else_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nightly");
        Bookmark::read(&path, "gw", Format::Csv).unwrap().write(&path).unwrap();
        let cases = [
            ("gw2", Format::Csv, "is of an export of `gw` as csv, and this is one of `gw2` as csv"),
            ("gw", Format::Ecs, "is of an export of `gw` as csv, and this is one of `gw` as ecs"),
        ];
        for (gateway, format, expected) in cases {
            let told = Bookmark::read(&path, gateway, format).unwrap_err().to_string();
            assert!(told.contains(expected), "{told}");
        }
        fs::write(&path, "12\n").unwrap();
        let told = Bookmark::read(&path, "gw", Format::Csv).unwrap_err().to_string();
        assert!(told.contains("is no file of `--resume`"), "{told}");
        assert_eq!(fs::read(&path).unwrap(), b"12\n");
        let nowhere = dir.path().join("no/such/directory");
        let bookmark = Bookmark::read(&nowhere, "gw", Format::Csv).unwrap();
        let told = bookmark.write(&nowhere).unwrap_err().to_string();
        assert!(told.starts_with("cannot write"), "{told}");
    }
}
