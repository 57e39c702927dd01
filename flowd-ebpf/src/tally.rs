//! Named counters.

use flowd_common::{
    counter::{Counter, CounterKey, Direction, Tally},
    packet::Weight,
    policy::Outcome,
};

use crate::{atomic, maps::COUNTERS};

/// Counts what relates flowd's sums to the device's: a device counts the buffers of super-packets,
/// and never sees what is dropped on the way to it.
#[inline(always)]
pub fn tally_apart(ifindex: u32, outcome: u64, direction: Direction, weight: Weight, len: u32) {
    let dropped = outcome == Outcome::Dropped as u64;
    if dropped {
        tally(ifindex, Counter::Dropped, direction, weight);
    }
    if weight.packets > 1 && !(dropped && direction == Direction::Egress) {
        let extra = Weight { packets: weight.packets - 1, bytes: weight.bytes - u64::from(len) };
        tally(ifindex, Counter::Coalesced, direction, extra);
    }
}

/// Counts under a name. The table holds every name of 256 interfaces; the daemon makes the entries
/// of an interface when it attaches, so that this never has to.
#[inline(always)]
pub fn tally(ifindex: u32, counter: Counter, direction: Direction, weight: Weight) {
    let key = CounterKey {
        ifindex,
        counter: counter as u8,
        direction: direction as u8,
        reserved: [0; 2],
    };
    if let Some(tally) = COUNTERS.get_ptr_mut(key) {
        add_tally(tally, weight);
    }
}

#[inline(always)]
pub fn add_tally(tally: *mut Tally, weight: Weight) {
    // SAFETY: `tally` points into an entry that is never deleted; forms an address.
    let packets = unsafe { &raw mut (*tally).packets };
    // SAFETY: as above; forms an address.
    let bytes = unsafe { &raw mut (*tally).bytes };
    atomic::add(packets, weight.packets);
    atomic::add(bytes, weight.bytes);
}
