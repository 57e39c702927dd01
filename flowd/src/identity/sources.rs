//! Where the names of peers come from: which files there are, what is in them, and whether they
//! have changed. Nothing here knows what they say.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// A file of names is not longer. A peer takes some 200 bytes.
const MAX_BYTES: u64 = 64 << 20;

/// Files and directories in which peers have names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// flowd's own list; it need not exist.
    pub peers: PathBuf,
    /// Directories of `*.conf` as wg-quick reads them.
    pub wireguard: Vec<PathBuf>,
    /// Directories of `*.netdev` as systemd-networkd reads them.
    pub networkd: Vec<PathBuf>,
    /// The names in those, as a list, for a flowd that may not read them; it need not exist.
    pub copy: PathBuf,
}

/// A file or directory that is there and names nobody, because flowd cannot read it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Unread {
    /// Where it is.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
    /// Whether another user may read it.
    pub(super) is_forbidden: bool,
}

/// What a look at every file showed, short of reading it. Another one: something has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprint(Vec<(PathBuf, Option<Stamp>)>);

/// The change time is in it because a new owner or mode may make a file readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Sources {
    /// The operators' files: directory by directory as configured, by name in each.
    pub(super) fn files(&self) -> (Vec<PathBuf>, Vec<Unread>) {
        let (mut files, mut unread) = (Vec::new(), Vec::new());
        let wireguard = self.wireguard.iter().map(|directory| (directory, "conf"));
        let networkd = self.networkd.iter().map(|directory| (directory, "netdev"));
        for (directory, extension) in wireguard.chain(networkd) {
            match list(directory, extension) {
                Ok(found) => files.extend(found),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => unread.push(Unread::new(directory, &error)),
            }
        }
        (files, unread)
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        let (mut paths, unread) = self.files();
        paths.extend([self.peers.clone(), self.copy.clone()]);
        paths.extend(unread.into_iter().map(|unread| unread.path));
        let stamped = paths.into_iter().map(|path| {
            let stamp = fs::metadata(&path).ok().as_ref().map(Stamp::of);
            (path, stamp)
        });
        Fingerprint(stamped.collect())
    }
}

impl Unread {
    pub(super) fn new(path: &Path, error: &io::Error) -> Self {
        let is_forbidden = error.kind() == io::ErrorKind::PermissionDenied;
        Self { path: path.to_owned(), reason: error.to_string(), is_forbidden }
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn list(directory: &Path, extension: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The bytes of a file; `None`: it is not there. Never waits for a writer of a pipe, and never
/// takes more than memory holds.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match open(path).and_then(|file| contents(&file)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

fn contents(file: &File) -> io::Result<Vec<u8>> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("larger than {} MiB", MAX_BYTES >> 20)));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

    use super::{Sources, read};

    fn in_directory(directory: &Path) -> Sources {
        Sources {
            peers: directory.join("peers.toml"),
            wireguard: vec![directory.to_owned(), directory.join("missing")],
            networkd: vec![directory.to_owned()],
            copy: directory.join("copy.toml"),
        }
    }

    #[test]
    fn only_configurations_are_looked_at_in_order() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["wg1.conf", "wg0.conf", "wg0.conf~", "notes.txt", "b.netdev", "conf", ".conf"]
        {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let (files, unread) = in_directory(directory.path()).files();
        let names: Vec<_> =
            files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["wg0.conf", "wg1.conf", "b.netdev"]);
        assert_eq!(unread, [], "what is not there is no problem");
    }

    #[test]
    fn every_change_shows_in_the_fingerprint() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let sources = in_directory(directory.path());
        let changes: [(&str, &dyn Fn()); 8] = [
            ("a new list", &|| fs::write(path("peers.toml"), "one").unwrap()),
            ("a longer list", &|| fs::write(path("peers.toml"), "three").unwrap()),
            ("a new configuration", &|| fs::write(path("wg0.conf"), "one").unwrap()),
            ("one that takes its place", &|| {
                fs::write(path("new"), "two").unwrap();
                fs::rename(path("new"), path("wg0.conf")).unwrap();
            }),
            ("another name", &|| fs::rename(path("wg0.conf"), path("wg1.conf")).unwrap()),
            ("a link", &|| symlink(path("wg1.conf"), path("wg2.netdev")).unwrap()),
            ("the link's target", &|| fs::write(path("wg1.conf"), "longer").unwrap()),
            ("one less", &|| fs::remove_file(path("wg1.conf")).unwrap()),
        ];
        for (what, change) in changes {
            let before = sources.fingerprint();
            assert_eq!(sources.fingerprint(), before, "before {what}");
            change();
            assert_ne!(sources.fingerprint(), before, "{what}");
        }
        let before = sources.fingerprint();
        fs::write(path("notes.txt"), "").unwrap();
        assert_eq!(sources.fingerprint(), before, "of no interest");
    }

    #[test]
    fn what_is_no_file_is_neither_waited_for_nor_read() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe.conf");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [pipe.as_path(), directory.path(), Path::new("/dev/zero")] {
            assert_eq!(read(path).unwrap_err().to_string(), "not a regular file", "{path:?}");
        }
        assert_eq!(read(&directory.path().join("missing")).unwrap(), None);
    }
}
