//! File systems of one test's own: for BPF, and small ones in memory that fill up. mounted
//! in a mount namespace of the thread, which the programs that the thread starts share.

use std::{
    ffi::{CStr, CString},
    fs, io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr,
};

/// Mounts one on a new directory.
pub fn bpf(path: &Path) {
    fs::create_dir_all(path).expect("room");
    // SAFETY: the call takes no pointers.
    done(unsafe { libc::unshare(libc::CLONE_NEWNS) }, "a mount namespace");
    let (root, none) = (c"/", c"none");
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: the strings are terminated and live through the call.
    let result =
        unsafe { libc::mount(none.as_ptr(), root.as_ptr(), ptr::null(), private, ptr::null()) };
    done(result, "mounts that stay here");
    let path = CString::new(path.as_os_str().as_bytes()).expect("no zero byte");
    let kind = c"bpf";
    // SAFETY: as above.
    let result =
        unsafe { libc::mount(kind.as_ptr(), path.as_ptr(), kind.as_ptr(), 0, ptr::null()) };
    done(result, "a BPF file system");
}

/// Mounts one in memory, with room for so many bytes, on a new directory; after [`bpf`].
pub fn small(path: &Path, bytes: u64) {
    fs::create_dir_all(path).expect("room");
    memory(path, bytes);
}

/// Makes one of [`small`] read-only; nobody may have a file in it open for writing.
pub fn read_only(path: &Path) {
    set(path, c"ro");
}

/// Makes it writable again.
pub fn writable(path: &Path) {
    set(path, c"rw");
}

/// Sets a flag of the file system itself: one of its mount would not reach those who have a mount
/// table of their own.
fn set(path: &Path, flag: &CStr) {
    /// `enum fsconfig_command` in `include/uapi/linux/mount.h`.
    const FSCONFIG_SET_FLAG: libc::c_int = 0;
    const FSCONFIG_CMD_RECONFIGURE: libc::c_int = 7;
    let path = CString::new(path.as_os_str().as_bytes()).expect("no zero byte");
    // SAFETY: the path is terminated and lives through the call.
    let picked = unsafe { libc::syscall(libc::SYS_fspick, libc::AT_FDCWD, path.as_ptr(), 0) };
    let picked = RawFd::try_from(picked).expect("a descriptor");
    done(picked.min(0), "the file system is there");
    // SAFETY: the descriptor is new and nobody else's.
    let picked = unsafe { OwnedFd::from_raw_fd(picked) };
    let configure = |command: libc::c_int, key: *const libc::c_char| {
        let nothing = ptr::null::<libc::c_char>();
        // SAFETY: the key is terminated and lives through the call, or null where none is read.
        unsafe { libc::syscall(libc::SYS_fsconfig, picked.as_raw_fd(), command, key, nothing, 0) }
    };
    for (command, key) in
        [(FSCONFIG_SET_FLAG, flag.as_ptr()), (FSCONFIG_CMD_RECONFIGURE, ptr::null())]
    {
        let result = configure(command, key);
        done(libc::c_int::try_from(result).expect("0 or -1"), "another flag of a file system");
    }
}

fn memory(path: &Path, bytes: u64) {
    let path = CString::new(path.as_os_str().as_bytes()).expect("no zero byte");
    let options = CString::new(format!("size={bytes}")).expect("no zero byte");
    let kind = c"tmpfs";
    // SAFETY: the strings are terminated and live through the call.
    let result = unsafe {
        libc::mount(kind.as_ptr(), path.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast())
    };
    done(result, "a file system in memory");
}

/// Unmounts it; whoever uses it may go on until they end.
pub fn release(path: &Path) {
    let path = CString::new(path.as_os_str().as_bytes()).expect("no zero byte");
    // SAFETY: the string is terminated and lives through the call.
    unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
}

fn done(result: libc::c_int, what: &str) {
    assert_eq!(result, 0, "{what}: {}", io::Error::last_os_error());
}
