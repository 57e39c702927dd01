//! A table of the kernel that nobody but programs can change any more.

use std::{ffi::CString, io, os::unix::ffi::OsStrExt as _, path::Path};

use crate::detach::bpf;

/// `BPF_OBJ_GET` of `enum bpf_cmd` in `include/uapi/linux/bpf.h`.
const BPF_OBJ_GET: libc::c_long = 7;
/// `BPF_MAP_FREEZE` there.
const BPF_MAP_FREEZE: libc::c_long = 22;

/// The member of `union bpf_attr` for objects in the BPF file system.
#[repr(C)]
struct Object {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Freezes the table with this file, for ever: from here on bpf(2) changes and deletes nothing.
pub fn table(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut object = Object { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    let fd = bpf(BPF_OBJ_GET, &mut object)?;
    let mut attr = u32::try_from(fd).expect("a descriptor");
    let frozen = bpf(BPF_MAP_FREEZE, &mut attr);
    // SAFETY: the descriptor is new and nobody else's.
    unsafe { libc::close(libc::c_int::try_from(fd).expect("a descriptor")) };
    frozen.map(drop)
}
