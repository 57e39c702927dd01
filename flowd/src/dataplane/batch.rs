//! Batched map reads, which aya does not have: `bpf(2)` with `BPF_MAP_LOOKUP_BATCH` (since 5.6).
//!
//! One call copies thousands of entries, bucket by bucket under the bucket's lock, so that an entry
//! that lives during the whole walk is seen exactly once, however many come and go beside it.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use bytemuck::{Pod, Zeroable};

/// `enum bpf_cmd` in `include/uapi/linux/bpf.h`.
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// Entries that one call copies at most; grows when a bucket has more.
const ENTRIES: usize = 4_096;

/// The `batch` member of `union bpf_attr` in `include/uapi/linux/bpf.h`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Room for one batch of entries, kept between walks.
pub(super) struct Batch<K, V> {
    keys: Vec<K>,
    values: Vec<V>,
}

impl<K: Pod, V: Pod> Batch<K, V> {
    /// Allocates the room.
    pub(super) fn new() -> Self {
        Self { keys: vec![K::zeroed(); ENTRIES], values: vec![V::zeroed(); ENTRIES] }
    }

    /// Shows every entry of the hash map `map` to `visit` and returns how many there were.
    ///
    /// `map` must be a hash map with keys of type `K` and values of type `V`.
    pub(super) fn for_each(
        &mut self,
        map: BorrowedFd<'_>,
        mut visit: impl FnMut(&K, &V),
    ) -> io::Result<u64> {
        // The position in the table: a bucket number, opaque to us.
        let mut position = 0_u32;
        let mut next_position = 0_u32;
        let mut begun = false;
        let mut seen = 0;
        loop {
            let mut attr = BatchAttr {
                in_batch: if begun { (&raw const position) as u64 } else { 0 },
                out_batch: (&raw mut next_position) as u64,
                keys: self.keys.as_mut_ptr() as u64,
                values: self.values.as_mut_ptr() as u64,
                count: self.keys.len() as u32,
                map_fd: map.as_raw_fd() as u32,
                elem_flags: 0,
                flags: 0,
            };
            // SAFETY: every address points to memory that lives through the call and has room for
            // `count` entries of the sizes that the map was made with; the kernel writes at most
            // that much, and `K` and `V` accept any bytes.
            let result = unsafe {
                libc::syscall(
                    libc::SYS_bpf,
                    BPF_MAP_LOOKUP_BATCH,
                    &raw mut attr,
                    size_of::<BatchAttr>(),
                )
            };
            let last = match result {
                0 => false,
                _ => match io::Error::last_os_error() {
                    error if error.raw_os_error() == Some(libc::ENOENT) => true,
                    // One bucket alone has more entries than there is room.
                    error if error.raw_os_error() == Some(libc::ENOSPC) => {
                        let room = self.keys.len() * 2;
                        self.keys.resize(room, K::zeroed());
                        self.values.resize(room, V::zeroed());
                        continue;
                    }
                    error if error.raw_os_error() == Some(libc::EINTR) => continue,
                    error => return Err(error),
                },
            };
            let count = attr.count as usize;
            for (key, value) in self.keys[..count].iter().zip(&self.values[..count]) {
                visit(key, value);
            }
            seen += count as u64;
            if last {
                return Ok(seen);
            }
            position = next_position;
            begun = true;
        }
    }
}
