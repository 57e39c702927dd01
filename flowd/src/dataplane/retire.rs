//! How a flow leaves the table without losing a packet.
//!
//! - mark: `flowd_retire` sets the entry's retired bit in the kernel, atomically
//! - wait: every classifier that read the entry before the mark has left
//! - from here on the counters are final: packets of the same endpoints go to the second generation
//! - the daemon reads them, commits them, and deletes the entry

use std::io;

use aya::{
    maps::{Array, Map, MapData},
    programs::SchedClassifier,
};
use flowd_common::{flow::FlowKey, limits::RETIRE_BATCH};

use super::{BLANK_FRAME, DataplaneError, run};

/// `MEMBARRIER_CMD_GLOBAL` in `include/uapi/linux/membarrier.h`: returns after a grace period of
/// RCU, under which every classifier runs (`synchronize_rcu` in `kernel/sched/membarrier.c`).
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

/// Why flows are retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// They have ended.
    Ended,
    /// The policy has changed its mind: what follows is no new conversation.
    Cut,
}

/// The maps of the protocol.
pub(super) struct Retire {
    keys: Array<MapData, FlowKey>,
    cursor: Array<MapData, u32>,
}

impl Retire {
    pub(super) fn new(keys: Map, cursor: Map) -> Self {
        Self {
            keys: Array::try_from(keys).expect("RETIRE is an array of keys"),
            cursor: Array::try_from(cursor).expect("RETIRE_CURSOR is an array of one number"),
        }
    }

    /// Marks the entries of `keys` and waits until their counters are final.
    pub(super) fn mark(
        &mut self,
        program: &SchedClassifier,
        keys: &[FlowKey],
        why: Why,
    ) -> Result<(), DataplaneError> {
        let write = |source| DataplaneError::Write { table: "retire", source };
        self.cursor.set(1, u32::from(why == Why::Cut), 0).map_err(write)?;
        for batch in keys.chunks(RETIRE_BATCH as usize) {
            for (index, key) in (0..).zip(batch) {
                self.keys.set(index, key, 0).map_err(write)?;
            }
            self.cursor.set(0, 0, 0).map_err(write)?;
            run(program, "flowd_retire", &BLANK_FRAME, batch.len() as u32)?;
        }
        wait_for_classifiers().map_err(|source| DataplaneError::Read { table: "flow", source })
    }
}

pub(super) fn wait_for_classifiers() -> io::Result<()> {
    // SAFETY: membarrier(2) takes three integers and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::EINVAL) {
        // Kernels with `nohz_full` CPUs do not offer the barrier. A classifier runs with bottom
        // halves disabled for microseconds; this is ten thousand times as long.
        std::thread::sleep(std::time::Duration::from_millis(100));
        return Ok(());
    }
    Err(error)
}
