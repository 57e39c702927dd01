//! Batched map reads, which aya does not have: `bpf(2)` with `BPF_MAP_LOOKUP_BATCH` (since 5.6).
//!
//! One call copies thousands of entries, bucket by bucket under the bucket's lock, so that an entry
//! that lives during the whole walk is seen exactly once, however many come and go beside it.

use std::{
    io,
    marker::PhantomData,
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
///
/// The table may be of another layout: what it has less than `K` and `V` is zero, what it has more is
/// left out.
pub(super) struct Batch<K, V> {
    key_bytes: usize,
    value_bytes: usize,
    room: usize,
    keys: Vec<u8>,
    values: Vec<u8>,
    kinds: PhantomData<(K, V)>,
}

impl<K: Pod, V: Pod> Batch<K, V> {
    /// Allocates the room, for a table of this layout.
    pub(super) fn new() -> Self {
        Self::of(size_of::<K>(), size_of::<V>())
    }

    /// The same for a table whose keys and values have so many bytes.
    pub(super) fn of(key_bytes: usize, value_bytes: usize) -> Self {
        let (keys, values) = (vec![0; ENTRIES * key_bytes], vec![0; ENTRIES * value_bytes]);
        Self { key_bytes, value_bytes, room: ENTRIES, keys, values, kinds: PhantomData }
    }

    /// Shows every entry of the map `map` to `visit` and returns how many there were.
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
                count: self.room as u32,
                map_fd: map.as_raw_fd() as u32,
                elem_flags: 0,
                flags: 0,
            };
            // SAFETY: every address points to memory that lives through the call and has room for
            // `count` entries of the sizes that the map was made with; the kernel writes at most
            // that much.
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
                        self.room *= 2;
                        self.keys.resize(self.room * self.key_bytes, 0);
                        self.values.resize(self.room * self.value_bytes, 0);
                        continue;
                    }
                    error if error.raw_os_error() == Some(libc::EINTR) => continue,
                    error => return Err(error),
                },
            };
            let count = attr.count as usize;
            let keys = self.keys.chunks_exact(self.key_bytes);
            let values = self.values.chunks_exact(self.value_bytes);
            for (key, value) in keys.zip(values).take(count) {
                visit(&widened(key), &widened(value));
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

/// The bytes of one layout as another: what it has more is zero.
pub(super) fn widened<T: Pod>(bytes: &[u8]) -> T {
    let mut whole = T::zeroed();
    let known = bytes.len().min(size_of::<T>());
    bytemuck::bytes_of_mut(&mut whole)[..known].copy_from_slice(&bytes[..known]);
    whole
}

#[cfg(test)]
mod tests {
    use super::widened;

    #[test]
    fn a_shorter_layout_is_filled_up_and_a_longer_one_is_cut() {
        assert_eq!(widened::<[u8; 4]>(&[1, 2]), [1, 2, 0, 0]);
        assert_eq!(widened::<[u8; 2]>(&[1, 2, 3, 4]), [1, 2]);
    }
}
