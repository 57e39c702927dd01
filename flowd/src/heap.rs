//! The allocator's habits, so that what one thread frees is there for the others, an answer does not
//! fetch from the kernel what the one before gave back, and what nobody needs goes back in the end.
//!
//! By default glibc has eight heaps a CPU, and after the first large answer keeps what large ones
//! take in them: a daemon that was flooded once stays large. Where each large piece is a mapping of
//! its own, or what is free goes back at once, a query takes up to twice as long: the kernel clears
//! each page again.

use std::time::Duration;

/// Heaps for all threads together.
const HEAPS: libc::c_int = 2;
/// From this size on an allocation is a mapping of its own.
const LARGE_BYTES: libc::c_int = 4 * 1024 * 1024;
/// So much that is free stays at the end of a heap, until somebody looks.
const KEPT_BYTES: libc::c_int = 32 * 1024 * 1024;
/// How often somebody looks.
const LOOK: Duration = Duration::from_secs(10);
/// So much that is free is not worth the trouble.
const LITTLE_BYTES: usize = 2 * 1024 * 1024;

/// Sets them; before other threads start.
pub fn tidy() {
    for (what, value) in [
        (libc::M_ARENA_MAX, HEAPS),
        (libc::M_MMAP_THRESHOLD, LARGE_BYTES),
        (libc::M_TRIM_THRESHOLD, KEPT_BYTES),
    ] {
        // SAFETY: the call takes two numbers, and no other thread allocates yet.
        let is_set = unsafe { libc::mallopt(what, value) };
        if is_set == 0 {
            tracing::debug!(what, "the allocator keeps its habits");
        }
    }
}

/// Gives what nobody needs back to the kernel, now and then, after `forget` has let go of what it can;
/// it never ends.
pub(crate) async fn keep_small(forget: impl Fn()) {
    let mut looks = tokio::time::interval(LOOK);
    loop {
        looks.tick().await;
        forget();
        // SAFETY: the call takes nothing, and any thread may make it at any time.
        let free_bytes = unsafe { libc::mallinfo2() }.fordblks;
        if free_bytes > LITTLE_BYTES {
            // SAFETY: the call takes a number, and any thread may make it at any time.
            unsafe { libc::malloc_trim(0) };
        }
    }
}
