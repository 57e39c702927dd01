//! A BPF file system of one test's own. It is mounted in a mount namespace of the thread, which the
//! programs that the thread starts share.

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

/// Unmounts it; whoever uses it may go on until they end.
pub fn release(path: &Path) {
    let path = CString::new(path.as_os_str().as_bytes()).expect("no zero byte");
    // SAFETY: the string is terminated and lives through the call.
    unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
}

fn done(result: libc::c_int, what: &str) {
    assert_eq!(result, 0, "{what}: {}", io::Error::last_os_error());
}
