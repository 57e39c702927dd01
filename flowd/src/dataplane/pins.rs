//! What outlives the daemon: links and the flow table, as files of the kernel's BPF file system.
//!
//! Filters of a `clsact` qdisc outlive it by themselves, and have no file.

use std::{
    ffi::CString,
    fs::{self, DirBuilder},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::DirBuilderExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use aya::maps::{HashMap, Map, MapData};
use bytemuck::{Pod, Zeroable};
use flowd_common::{
    counter::Direction,
    flow::{FlowKey, FlowValue},
};

use super::{DataplaneError, batch::Batch};

/// `BPF_OBJ_PIN` of `enum bpf_cmd` in `include/uapi/linux/bpf.h`.
const BPF_OBJ_PIN: libc::c_long = 6;

/// The `pathname` member of `union bpf_attr` there.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct PinAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The directory of this network namespace.
#[derive(Debug)]
pub struct Pins {
    dir: PathBuf,
}

impl Pins {
    /// Opens it under `base`, makes it where there is none.
    pub fn open(base: &Path) -> io::Result<Self> {
        let pins = Self::under(base)?;
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

    fn flows(&self) -> PathBuf {
        self.dir.join("flows")
    }

    /// Keeps a flow table; the one that was kept before is forgotten.
    pub(super) fn keep_flows(&self, table: BorrowedFd<'_>) -> io::Result<()> {
        self.forget_flows()?;
        pin(table, &self.flows())
    }

    /// Forgets the flow table that was kept.
    pub fn forget_flows(&self) -> io::Result<()> {
        match fs::remove_file(self.flows()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The flow table that the daemon before left. `None` where it left none, or one of another
    /// layout.
    pub fn predecessor(&self) -> Option<Predecessor> {
        let data = MapData::from_pin(self.flows()).ok()?;
        let fd = data.fd().as_fd().try_clone_to_owned().ok()?;
        match HashMap::<MapData, FlowKey, FlowValue>::try_from(Map::HashMap(data)) {
            Ok(_) => Some(Predecessor { fd, batch: Batch::new() }),
            Err(error) => {
                tracing::warn!(%error, "the flow table of the flowd before has another layout");
                None
            }
        }
    }

    /// Removes every file; what hung by one of them is gone then. How many there were.
    pub(super) fn clear(&self) -> io::Result<usize> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut removed = 0;
        for entry in entries {
            fs::remove_file(entry?.path())?;
            removed += 1;
        }
        fs::remove_dir(&self.dir)?;
        Ok(removed)
    }
}

/// The flow table that a daemon left when it went.
pub struct Predecessor {
    fd: OwnedFd,
    batch: Batch<FlowKey, FlowValue>,
}

impl Predecessor {
    /// Shows every flow to `visit`.
    pub fn for_each(
        &mut self,
        visit: impl FnMut(&FlowKey, &FlowValue),
    ) -> Result<u64, DataplaneError> {
        self.batch
            .for_each(self.fd.as_fd(), visit)
            .map_err(|source| DataplaneError::Read { table: "old flow", source })
    }
}

/// Gives a BPF object a name in the BPF file system.
fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = PinAttr {
        pathname: path.as_ptr() as u64,
        bpf_fd: object.as_raw_fd() as u32,
        file_flags: 0,
    };
    // SAFETY: the attribute is of the size that is told, and its path is a terminated string that
    // lives through the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_PIN, &raw const attr, size_of::<PinAttr>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
