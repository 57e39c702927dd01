//! Every policy that was ever in force, as files beside the segments: `policy/0000000007.toml` is
//! the text of revision 7, and the highest is the one in force, also after a restart.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};

use sha2::{Digest as _, Sha256};

use super::verdicts::Revision;
use crate::{
    policy::{self, Policy},
    store::policy_file as file_name,
};

/// The directory.
#[derive(Debug)]
pub(super) struct Revisions {
    dir: PathBuf,
}

/// A policy's text with what it says.
pub(super) struct Written {
    pub(super) text: String,
    pub(super) policy: Policy,
}

impl Revisions {
    /// Opens the directory of a store, makes it where there is none.
    pub(super) fn open(store: &Path) -> io::Result<Self> {
        let dir = store.join("policy");
        DirBuilder::new().recursive(true).mode(0o750).create(&dir)?;
        Ok(Self { dir })
    }

    /// The policy in force; that of no rules where there never was one. Peers that it names may
    /// have gone.
    pub(super) fn newest(&self) -> io::Result<Arc<Revision>> {
        let mut newest = 0;
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".toml")?.parse().ok());
            // Other files may lie here too, such as an editor's.
            let ours = number.filter(|number| name == *file_name(*number));
            newest = newest.max(ours.unwrap_or(0));
        }
        self.of(newest)
    }

    /// The policy of a number; 0 is that of no rules.
    pub(super) fn of(&self, number: u32) -> io::Result<Arc<Revision>> {
        if number == 0 {
            return Ok(Arc::default());
        }
        let path = self.path(number);
        let text = fs::read_to_string(&path)?;
        let checked = policy::parse(&text, None).map_err(|problems| {
            let first = problems.first().map(ToString::to_string).unwrap_or_default();
            io::Error::other(format!("{}:{first}", path.display()))
        })?;
        let modified = fs::metadata(&path)?.modified()?;
        let applied_ms = modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Ok(Arc::new(Revision {
            number,
            applied_ms: i64::try_from(applied_ms).unwrap_or(i64::MAX),
            text,
            policy: checked.policy,
        }))
    }

    /// Keeps a policy under the number after `before`, safe on the disk.
    pub(super) fn keep(
        &self,
        before: u32,
        written: Written,
        now_ms: i64,
    ) -> io::Result<Arc<Revision>> {
        let number = before.checked_add(1).ok_or_else(|| io::Error::other("no number is left"))?;
        self.write(&self.path(number), written.text.as_bytes())?;
        let Written { text, policy } = written;
        Ok(Arc::new(Revision { number, applied_ms: now_ms, text, policy }))
    }

    /// Takes back what [`Self::keep`] kept, because it could not be put into force.
    pub(super) fn take_back(&self, revision: &Revision) {
        if let Err(error) = fs::remove_file(self.path(revision.number)) {
            tracing::error!(%error, revision = revision.number, "a refused policy stays on the disk");
        }
    }

    /// Whether the configured file says something else than when it was last looked at.
    pub(super) fn is_news(&self, text: &str) -> bool {
        fs::read_to_string(self.seen()).ok().as_deref() != Some(&digest(text))
    }

    /// Notes that the configured file has been looked at.
    pub(super) fn note(&self, text: &str) -> io::Result<()> {
        self.write(&self.seen(), digest(text).as_bytes())
    }

    fn seen(&self) -> PathBuf {
        self.dir.join("file.sha256")
    }

    fn path(&self, number: u32) -> PathBuf {
        self.dir.join(file_name(number))
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let temporary = self.dir.join("new");
        let mut file = OpenOptions::new();
        let mut file = file.write(true).create(true).truncate(true).mode(0o640).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        fs::File::open(&self.dir)?.sync_all()
    }
}

fn digest(text: &str) -> String {
    use std::fmt::Write as _;
    let mut hex = String::new();
    for byte in Sha256::digest(text) {
        write!(hex, "{byte:02x}").expect("a string grows");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::{Revisions, Written};
    use crate::policy;

    #[test]
    fn the_newest_policy_comes_back_and_an_unchanged_file_is_no_news() {
        let dir = tempfile::tempdir().unwrap();
        let revisions = Revisions::open(dir.path()).unwrap();
        assert_eq!(revisions.newest().unwrap().number, 0);
        for (number, text) in [(1, "default = \"deny\"\n"), (2, "mode = \"enforce\"\n")] {
            let policy = policy::parse(text, None).unwrap().policy;
            let written = Written { text: text.to_owned(), policy };
            let kept = revisions.keep(number - 1, written, 7).unwrap();
            let found = Revisions::open(dir.path()).unwrap().newest().unwrap();
            assert_eq!((found.number, &found.text), (number, &kept.text));
            assert_eq!(found.policy, kept.policy);
        }
        assert!(revisions.is_news("a"));
        revisions.note("a").unwrap();
        assert!(!revisions.is_news("a") && revisions.is_news("b"));
        revisions.take_back(&revisions.newest().unwrap());
        assert_eq!(revisions.newest().unwrap().number, 1);
    }

    #[test]
    fn other_files_are_no_policies_and_the_last_number_is_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let revisions = Revisions::open(dir.path()).unwrap();
        for name in ["7.toml", "+8.toml", "99999999999.toml", "0000000009.toml~", "new", "a.toml"] {
            std::fs::write(dir.path().join("policy").join(name), "!").unwrap();
        }
        assert_eq!(revisions.newest().unwrap().number, 0);
        let policy = || Written { text: String::new(), policy: policy::Policy::default() };
        revisions.keep(u32::MAX - 1, policy(), 7).unwrap();
        let last = revisions.newest().unwrap().number;
        assert_eq!(last, u32::MAX);
        revisions.keep(last, policy(), 7).unwrap_err();
    }
}
