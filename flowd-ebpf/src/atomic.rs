//! Atomic additions to map values.
//!
//! In assembly, because the compiler's BPF target calls itself single-threaded: its atomic
//! operations would be lowered to plain ones, and two CPUs would lose each other's packets.

use core::arch::asm;

/// Adds to a counter that other CPUs add to as well.
#[inline(always)]
pub fn add(counter: *mut u64, amount: u64) {
    // SAFETY: callers pass an aligned field of a map value, which the verifier checks; the
    // instruction (`BPF_ATOMIC | BPF_ADD`, since 3.18) touches these eight bytes only.
    unsafe {
        asm!("lock *(u64 *)({counter} + 0) += {amount}", counter = in(reg) counter, amount = in(reg) amount);
    }
}

/// Sets bits in a word that other CPUs set bits in as well.
#[inline(always)]
pub fn or(word: *mut u64, bits: u64) {
    // SAFETY: as in `add`; `BPF_ATOMIC | BPF_OR`, since 5.12.
    unsafe {
        asm!("lock *(u64 *)({word} + 0) |= {bits}", word = in(reg) word, bits = in(reg) bits);
    }
}
