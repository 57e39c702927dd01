//! What a policy's maps take of the kernel's memory, as the kernel says (`memlock` in
//! `/proc/self/fdinfo`).
//!
//! flowd keeps no descriptors of them, so they are found by their numbers: maps that are there
//! after a policy was installed and were not before, and have the sizes of its tables.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use flowd::policy::Compiled;
use flowd_common::policy::{Endpoint, EndpointPrefix, Head, Interval, PairBucket};

const BPF_MAP_GET_NEXT_ID: libc::c_long = 12;
const BPF_MAP_GET_FD_BY_ID: libc::c_long = 14;

/// The numbers of all maps in the kernel.
pub(crate) fn map_ids() -> BTreeSet<u32> {
    let mut ids = BTreeSet::new();
    let mut last = 0;
    // Start, next, flags.
    loop {
        let mut attr = [last, 0, 0];
        if bpf(BPF_MAP_GET_NEXT_ID, &mut attr).is_err() {
            return ids;
        }
        last = attr[1];
        ids.insert(last);
    }
}

/// Bytes of the maps of a policy that was installed since there were only the maps of `before`.
pub(crate) fn of_policy(
    before: &BTreeSet<u32>,
    compiled: &Compiled,
    head: Head,
) -> io::Result<u64> {
    let hosts = compiled.endpoints.iter().filter(|(bits, ..)| *bits == 128).count();
    let nets = compiled.endpoints.len() - hosts;
    // Bytes of key (that of a tree begins with the length) and value, and entries.
    let tables = [
        (size_of::<EndpointPrefix>(), size_of::<Endpoint>(), hosts),
        (4 + size_of::<EndpointPrefix>(), size_of::<Endpoint>(), nets),
        (size_of::<u32>(), size_of::<PairBucket>(), 1 << head.bucket_bits()),
        (size_of::<u32>(), size_of::<Interval>(), compiled.intervals.len()),
    ];
    let mut bytes = 0;
    for id in map_ids().difference(before) {
        let mut attr = [*id, 0, 0];
        let Ok(fd) = bpf(BPF_MAP_GET_FD_BY_ID, &mut attr) else {
            // The old policy's, gone meanwhile.
            continue;
        };
        // SAFETY: the kernel has just made this descriptor for us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
        let number = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim_start_matches(':').trim().parse::<u64>().ok())
        };
        let is_one = tables.iter().any(|(key, value, entries)| {
            let sizes = [*key, *value, (*entries).max(1)].map(|size| Some(size as u64));
            sizes == ["key_size", "value_size", "max_entries"].map(number)
        });
        if is_one {
            bytes += number("memlock").unwrap_or_default();
        }
    }
    Ok(bytes)
}

fn bpf(command: libc::c_long, attr: &mut [u32; 3]) -> io::Result<libc::c_long> {
    // SAFETY: the attribute lives through the call and holds no pointers.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
