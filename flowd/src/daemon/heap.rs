//! The allocator's habits, so that what one thread frees is there for the others, and what is large
//! goes back to the kernel.
//!
//! By default glibc has eight heaps a CPU, and after the first large answer keeps what large ones
//! take in them: a daemon that was flooded once stays large.

/// Heaps for all threads together.
const HEAPS: libc::c_int = 2;
/// From this size on an allocation is a mapping of its own.
const LARGE_BYTES: libc::c_int = 256 * 1024;

/// Sets them; before other threads start.
pub(super) fn tidy() {
    for (what, value) in [(libc::M_ARENA_MAX, HEAPS), (libc::M_MMAP_THRESHOLD, LARGE_BYTES)] {
        // SAFETY: the call takes two numbers, and no other thread allocates yet.
        let is_set = unsafe { libc::mallopt(what, value) };
        if is_set == 0 {
            tracing::debug!(what, "the allocator keeps its habits");
        }
    }
}
