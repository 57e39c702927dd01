//! File systems of one test's own: for BPF, and small ones in memory that fill up. mounted
//! in a mount namespace of the thread, which the programs that the thread starts share.

use std::{ffi::CString, fs, io, os::unix::ffi::OsStrExt as _, path::Path, ptr};

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
    memory(path, 0, bytes);
}

/// Makes one of [`small`] read-only; nobody may have a file in it open for writing.
pub fn read_only(path: &Path, bytes: u64) {
    memory(path, libc::MS_REMOUNT | libc::MS_RDONLY, bytes);
}

/// Makes it writable again.
pub fn writable(path: &Path, bytes: u64) {
    memory(path, libc::MS_REMOUNT, bytes);
}

fn memory(path: &Path, flags: libc::c_ulong, bytes: u64) {
    let path = CString::new(path.as_os_str().as_bytes()).expect("no zero byte");
    let options = CString::new(format!("size={bytes}")).expect("no zero byte");
    let kind = c"tmpfs";
    // SAFETY: the strings are terminated and live through the call.
    let result = unsafe {
        libc::mount(kind.as_ptr(), path.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast())
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
