//! What this machine can do in the time that a test may take.

use std::{fs, sync::OnceLock};

/// Whether its CPUs are emulated, some twenty times slower than what emulates them.
pub fn is_emulated() -> bool {
    static EMULATED: OnceLock<bool> = OnceLock::new();
    // `model_id` of the CPU `max` in QEMU's `target/i386/cpu.c`.
    *EMULATED.get_or_init(|| {
        fs::read_to_string("/proc/cpuinfo").is_ok_and(|cpus| cpus.contains("QEMU TCG CPU"))
    })
}

/// `full`, or `reduced` on emulated CPUs.
pub fn size<T>(full: T, reduced: T) -> T {
    if is_emulated() { reduced } else { full }
}
