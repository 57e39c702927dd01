//! What the daemon runs in the kernel itself, through `BPF_PROG_TEST_RUN`.

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_ns};
use flowd_common::flow::{CUT, RETIRED};

use crate::{
    atomic,
    maps::{CLOCKS, FLOWS, RETIRE, RETIRE_CURSOR},
};

/// Marks the next flow of the batch as ended and moves the cursor: run it once a flow.
///
/// User space cannot mark an entry: its update replaces the whole value and with it the counts of
/// packets that arrive meanwhile.
#[inline(always)]
pub fn retire_next() -> i32 {
    let Some(cursor) = RETIRE_CURSOR.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: the daemon runs one batch at a time; nobody else touches the cursor.
    let index = unsafe { *cursor };
    // SAFETY: as above.
    unsafe { *cursor = index + 1 };
    let marks = match RETIRE_CURSOR.get(1) {
        Some(1) => RETIRED | CUT,
        _ => RETIRED,
    };
    let Some(key) = RETIRE.get(index) else {
        return 0;
    };
    if let Some(value) = FLOWS.get_ptr_mut(key) {
        // SAFETY: only the daemon deletes entries, and it waits for this run; forms an address.
        atomic::or(unsafe { &raw mut (*value).marks }, marks);
    }
    0
}

/// Reads both clocks into their map.
#[inline(always)]
pub fn read_clocks() -> i32 {
    if let Some(clocks) = CLOCKS.get_ptr_mut(0) {
        // SAFETY: a helper without arguments.
        let monotonic_ns = unsafe { bpf_ktime_get_ns() };
        // SAFETY: a helper without arguments.
        let jiffies = unsafe { bpf_jiffies64() };
        // SAFETY: the daemon runs this program and reads the map in the same thread.
        unsafe { *clocks = flowd_common::clock::Clocks { monotonic_ns, jiffies } };
    }
    0
}
