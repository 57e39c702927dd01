//! Who is at the other end of a connection: nothing that a client says, only what the kernel knew
//! when it connected.

use std::{
    ffi::{CStr, CString},
    fs, io,
    os::fd::AsRawFd as _,
    ptr,
};

use tokio::net::UnixStream;

use crate::audit::Caller;

/// Bytes for what the user database says of one name, at first and at most.
const DATABASE_BYTES: std::ops::RangeInclusive<usize> = 1 << 10..=1 << 20;

/// The credentials of a connection, all but the name of its user.
pub(super) fn of(stream: &UnixStream) -> io::Result<Caller> {
    let credentials = stream.peer_cred()?;
    let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default();
    // At once: a process that has ended has none. Nobody else decides by it.
    let executable = fs::read_link(format!("/proc/{pid}/exe")).ok();
    Ok(Caller {
        uid: credentials.uid(),
        gid: credentials.gid(),
        pid,
        groups: groups(stream)?,
        name: None,
        executable: executable.map(|path| path.display().to_string()),
    })
}

/// The supplementary groups, as the process had them when it connected (since 4.13).
fn groups(stream: &UnixStream) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 32];
    loop {
        let held = size_of_val(groups.as_slice());
        let mut bytes = libc::socklen_t::try_from(held).expect("some kilobytes");
        // SAFETY: the kernel writes `bytes` bytes at most, which the vector has, and any bytes are
        // numbers.
        let done = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let count = bytes as usize / size_of::<u32>();
        if done == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // Then it has said how many there are.
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

/// The name of a user. It may take its time: the user database may be on another machine.
pub(super) fn user_name(uid: u32) -> Option<String> {
    from_database(|buffer| {
        // SAFETY: all zeros are a valid value of this plain structure of C.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found = ptr::null_mut();
        // SAFETY: entry, buffer and its length belong together and outlive the call.
        let error = unsafe {
            libc::getpwuid_r(
                uid,
                &raw mut entry,
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                &raw mut found,
            )
        };
        if found.is_null() {
            return Err(error);
        }
        // SAFETY: a terminated string in the buffer, which is still there.
        let name = unsafe { CStr::from_ptr(entry.pw_name) };
        Ok(name.to_string_lossy().into_owned())
    })
}

/// The number of a group.
pub(super) fn group_id(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    from_database(|buffer| {
        // SAFETY: all zeros are a valid value of this plain structure of C.
        let mut entry: libc::group = unsafe { std::mem::zeroed() };
        let mut found = ptr::null_mut();
        // SAFETY: name, entry, buffer and its length belong together and outlive the call.
        let error = unsafe {
            libc::getgrnam_r(
                name.as_ptr(),
                &raw mut entry,
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                &raw mut found,
            )
        };
        if found.is_null() { Err(error) } else { Ok(entry.gr_gid) }
    })
}

/// Asks with as much room as it takes. An error is a number of the operating system.
fn from_database<T>(mut ask: impl FnMut(&mut [u8]) -> Result<T, i32>) -> Option<T> {
    let mut buffer = vec![0; *DATABASE_BYTES.start()];
    loop {
        match ask(&mut buffer) {
            Ok(found) => return Some(found),
            Err(libc::ERANGE) if buffer.len() < *DATABASE_BYTES.end() => {
                buffer.resize(2 * buffer.len(), 0);
            }
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::{group_id, of, user_name};

    #[tokio::test]
    async fn the_kernel_says_who_it_is() {
        let (stream, _other) = UnixStream::pair().unwrap();
        let caller = of(&stream).unwrap();
        assert_eq!(caller.pid, std::process::id());
        // SAFETY: this call has no conditions.
        assert_eq!(caller.uid, unsafe { libc::geteuid() });
        let own = std::env::current_exe().unwrap();
        assert_eq!(caller.executable.as_deref(), own.to_str());
        // SAFETY: a length of zero asks how many there are, and nothing is written.
        let count = unsafe { libc::getgroups(0, std::ptr::null_mut()) };
        assert_eq!(caller.groups.len(), usize::try_from(count).unwrap());
    }

    #[test]
    fn names_come_from_the_database() {
        assert_eq!(user_name(0).as_deref(), Some("root"));
        assert_eq!(user_name(u32::MAX - 7), None);
        assert_eq!(group_id("root"), Some(0));
        for none in ["", "no-such-group-at-all", "a\0b"] {
            assert_eq!(group_id(none), None, "{none:?}");
        }
    }
}
