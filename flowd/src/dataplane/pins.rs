//! What outlives the daemon: links and tables, as files of the kernel's BPF file system.
//!
//! - `net-<namespace>/ingress-<ifindex>`, `egress-<ifindex>`: the links
//! - `net-<namespace>/tables-<n>-v<layout>/<NAME>`: the tables; the highest `n` is in use
//!
//! Filters of a `clsact` qdisc outlive it by themselves, and have no file.

use std::{
    fs::{self, DirBuilder, DirEntry},
    io,
    os::{
        fd::AsFd as _,
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use aya::maps::MapInfo;
use flowd_common::{LAYOUT, counter::Direction};

use super::syscall;

/// The tables that outlive a daemon.
pub(super) const KEPT: [&str; 14] = [
    "FLOWS",
    "OVERFLOW",
    "COUNTERS",
    "FRAGMENTS",
    "ASKED",
    "POLICY",
    "HOSTS",
    "NETS",
    "PAIRS",
    "CHAINS",
    "PEERS",
    "EPOCHS",
    "INTERFACES",
    "ANCHORS",
];

/// Those of them that count.
const COUNTING: [&str; 3] = ["FLOWS", "OVERFLOW", "COUNTERS"];

/// The directory of this network namespace.
#[derive(Debug)]
pub struct Pins {
    dir: PathBuf,
}

/// What was taken off, and what was found beside it.
#[derive(Debug, Default)]
pub struct Detached {
    /// Programs, links and interfaces.
    pub removed: usize,
    /// Files and directories that are not flowd's, and stay.
    pub foreign: Vec<PathBuf>,
}

/// A directory of tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    dir: PathBuf,
    number: u32,
    layout: u32,
}

impl Pins {
    /// Opens it under `base`, makes it where there is none.
    pub fn open(base: &Path) -> io::Result<Self> {
        let pins = Self::under(base)?;
        if !base.ancestors().find(|dir| dir.exists()).is_some_and(syscall::is_bpf_file_system) {
            return Err(io::Error::other("there is no BPF file system"));
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&pins.dir)?;
        Ok(pins)
    }

    /// The directory, which need not exist.
    pub(super) fn under(base: &Path) -> io::Result<Self> {
        let namespace = fs::metadata("/proc/self/ns/net")?.ino();
        Ok(Self { dir: base.join(format!("net-{namespace}")) })
    }

    pub(super) fn link(&self, ifindex: u32, direction: Direction) -> PathBuf {
        let direction = match direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        };
        self.dir.join(format!("{direction}-{ifindex}"))
    }

    /// The tables to go on with, made where there are none of this layout with room for `flows`;
    /// and all others, which are to be drained. With `anew` they are made in any case.
    pub fn tables(&self, flows: u32, anew: bool) -> io::Result<(Tables, Vec<Tables>)> {
        let mut all = self.list()?;
        let newest = all.last().map_or(0, |tables| tables.number);
        let current = match all.pop_if(|tables| tables.suit(flows) && (!anew || tables.are_new())) {
            Some(tables) => tables,
            None => {
                let (number, layout) = (newest + 1, layout());
                let dir = self.dir.join(format!("tables-{number}-v{layout}"));
                DirBuilder::new().mode(0o700).create(&dir)?;
                failpoint!("tables-begun");
                Tables { dir, number, layout }
            }
        };
        Ok((current, all))
    }

    /// Whether tables of this name are, or were, in this place.
    pub fn hold(&self, name: &str) -> bool {
        Path::new(name).parent() == Some(&self.dir)
    }

    /// The directories of all tables, for a shell.
    pub(super) fn pattern(&self) -> String {
        self.dir.join("tables-*").display().to_string()
    }

    pub(super) fn has_tables(&self) -> bool {
        self.list().is_ok_and(|all| !all.is_empty())
    }

    /// Removes the links of interfaces that are not among `present`.
    pub fn forget_links(&self, present: impl Fn(u32) -> bool) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if interface_of(&entry).is_some_and(|ifindex| !present(ifindex)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<Tables>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let numbers = name
                .to_str()
                .and_then(|name| name.strip_prefix("tables-")?.split_once("-v"))
                .and_then(|(number, layout)| Some((number.parse().ok()?, layout.parse().ok()?)));
            if let Some((number, layout)) = numbers {
                all.push(Tables { dir: entry.path(), number, layout });
            }
        }
        all.sort_by_key(|tables| tables.number);
        Ok(all)
    }

    /// Removes every file of flowd's; what hung by one of them is gone then.
    pub(super) fn clear(&self) -> io::Result<Detached> {
        let mut cleared = Detached::default();
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(cleared),
            Err(error) => return Err(error),
        };
        let tables = self.list()?;
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            if interface_of(&entry).is_none() {
                if !tables.iter().any(|tables| tables.dir == path) {
                    cleared.foreign.push(path);
                }
                continue;
            }
            // Removing the file would do it too, some time later.
            if let Ok(link) = syscall::object(&path)
                && let Err(error) = syscall::detach_link(link.as_fd())
            {
                tracing::debug!(%error, path = %path.display(), "its interface is gone");
            }
            fs::remove_file(path)?;
            cleared.removed += 1;
        }
        tables.iter().try_for_each(Tables::remove)?;
        if cleared.foreign.is_empty() {
            fs::remove_dir(&self.dir)?;
        }
        Ok(cleared)
    }
}

/// The number of the interface whose link this is.
fn interface_of(entry: &DirEntry) -> Option<u32> {
    let name = entry.file_name();
    let (direction, ifindex) = name.to_str()?.split_once("gress-")?;
    ifindex.parse().ok().filter(|_| matches!(direction, "in" | "e"))
}

impl Tables {
    /// What the store knows them by, in one boot.
    pub fn name(&self) -> String {
        self.dir.display().to_string()
    }

    /// They are numbered in the order in which they were made.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The number of tables of this name, if they are in the same place.
    pub fn number_beside(&self, name: &str) -> Option<u32> {
        let path = Path::new(name);
        let beside = path.parent() == self.dir.parent();
        let (number, _) = path.file_name()?.to_str()?.strip_prefix("tables-")?.split_once("-v")?;
        number.parse().ok().filter(|_| beside)
    }

    /// Whether no daemon has used them: nothing is attached before all of them are there. One that
    /// was killed while it made or removed them leaves some.
    pub fn are_new(&self) -> bool {
        COUNTING.iter().any(|name| !self.path(name).exists())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn suit(&self, flows: u32) -> bool {
        let room = || MapInfo::from_pin(self.path("FLOWS")).map(|info| info.max_entries());
        let has_room = || !self.path("FLOWS").exists() || room().is_ok_and(|room| room == flows);
        self.layout == layout() && has_room()
    }

    /// Removes the files; what no program uses is gone then.
    pub fn remove(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            fs::remove_file(entry?.path())?;
        }
        fs::remove_dir(&self.dir)
    }
}

/// [`LAYOUT`]; tests of an upgrade say another one.
fn layout() -> u32 {
    #[cfg(feature = "failpoints")]
    if let Some(layout) = std::env::var("FLOWD_TEST_LAYOUT").ok().and_then(|n| n.parse().ok()) {
        return layout;
    }
    LAYOUT
}
