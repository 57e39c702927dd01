//! One entry of the flow table: adding to it, and whether its verdict still holds.

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_ns};
use flowd_common::{
    counter::Direction,
    flow::{CUT, FlowKey, FlowValue, Initiator, RETIRED, TX_FLAGS_SHIFT},
    limits::CUT_MEMORY_NS,
    packet::Weight,
    policy::{Head, Judgement, Outcome},
};

use crate::{atomic, maps::FLOWS, met::Met};

/// Who opened a conversation, and the marks of its entry from the start.
#[derive(Clone, Copy)]
pub struct Opened {
    /// An [`Initiator`] as a number.
    pub initiator: u8,
    /// [`CUT`] when it goes on from an entry that was cut.
    pub marks: u64,
}

/// An entry of the flow table, as it was when it was found.
pub struct Entry {
    pub value: *mut FlowValue,
    pub marks: u64,
    pub judgement: Judgement,
}

impl Entry {
    #[inline(always)]
    pub fn find(key: &FlowKey) -> Option<Self> {
        let value = FLOWS.get_ptr_mut(key)?;
        // SAFETY: entries are preallocated, and the daemon deletes one only after every classifier
        // that could have seen it live has left, so the pointer is to this flow; forms an address.
        let marks = unsafe { &raw const (*value).marks };
        // SAFETY: as above. Volatile: `flowd_retire` and other CPUs write the word.
        let marks = unsafe { marks.read_volatile() };
        // SAFETY: as above; forms an address.
        let judgement = unsafe { &raw const (*value).judgement };
        // SAFETY: as above. Volatile: other CPUs write the word, to one value.
        let judgement = unsafe { judgement.read_volatile() };
        Some(Self { value, marks, judgement })
    }

    #[inline(always)]
    pub fn outcome(&self) -> u64 {
        self.judgement.0 & 3
    }

    #[inline(always)]
    pub fn initiator(&self) -> u8 {
        // SAFETY: as in `find`; written once, before the entry could be found.
        unsafe { (*self.value).initiator }
    }

    /// Whether a packet that comes this way could open a conversation of its own on an entry that
    /// is dropped: nothing of the other side has arrived that it could answer. Not soon after a cut,
    /// before which much may have arrived.
    #[inline(always)]
    pub fn may_be_opened_by(&self, direction: Direction) -> bool {
        let opener = match direction {
            Direction::Ingress => Initiator::Remote,
            Direction::Egress => Initiator::Peer,
        };
        self.initiator() == opener as u8 && (self.marks & CUT == 0 || self.is_older_than_answers())
    }

    #[inline(always)]
    pub fn is_older_than_answers(&self) -> bool {
        // SAFETY: as in `find`; written once, before the entry could be found.
        let first_seen_ns = unsafe { (*self.value).first_seen_ns };
        // SAFETY: a helper without arguments.
        let now_ns = unsafe { bpf_ktime_get_ns() };
        now_ns.wrapping_sub(first_seen_ns) > CUT_MEMORY_NS
    }

    /// `None`: the outcome stays, and the judgement is now that of the policy in force. Otherwise
    /// who opened what follows.
    #[inline(always)]
    pub fn judge_again(&self, met: &Met, direction: Direction, head: Head) -> Option<Opened> {
        let (opinion, asks) = (&met.opinion, met.asks);
        if self.outcome() == Outcome::Dropped as u64
            && self.may_be_opened_by(direction)
            && asks != Initiator::Unknown as u8
            && asks != self.initiator()
            && opinion.of(asks).0 & 3 != Outcome::Dropped as u64
        {
            return Some(Opened { initiator: asks, marks: 0 });
        }
        if self.judgement.epoch() == head.epoch() {
            return None;
        }
        let initiator = self.initiator();
        let judgement = opinion.of(initiator);
        if judgement.0 & 3 != self.outcome() {
            if met.opens_another(initiator) {
                return Some(Opened { initiator: asks, marks: 0 });
            }
            return Some(Opened { initiator, marks: CUT });
        }
        // SAFETY: as in `find`; forms an address.
        let word = unsafe { &raw mut (*self.value).judgement };
        // SAFETY: as in `find`. One aligned store; every CPU that races here stores the same.
        unsafe { word.write_volatile(judgement) };
        None
    }

    /// Ends the entry: what follows is another flow.
    #[inline(always)]
    pub fn cut(&self) {
        // SAFETY: as in `find`; forms an address.
        let marks = unsafe { &raw mut (*self.value).marks };
        atomic::or(marks, RETIRED | CUT);
    }

    #[inline(always)]
    pub fn add(&self, tcp_flags: u8, direction: Direction, weight: Weight) {
        let value = self.value;
        let flags = flag_bits(tcp_flags, direction);
        if self.marks & flags != flags {
            // SAFETY: as in `find`; forms an address.
            atomic::or(unsafe { &raw mut (*value).marks }, flags);
        }
        let (packets, bytes) = match direction {
            // SAFETY: as in `find`; forms an address.
            Direction::Ingress => (unsafe { &raw mut (*value).rx_packets }, {
                // SAFETY: as in `find`; forms an address.
                unsafe { &raw mut (*value).rx_bytes }
            }),
            // SAFETY: as in `find`; forms an address.
            Direction::Egress => (unsafe { &raw mut (*value).tx_packets }, {
                // SAFETY: as in `find`; forms an address.
                unsafe { &raw mut (*value).tx_bytes }
            }),
        };
        atomic::add(packets, weight.packets);
        atomic::add(bytes, weight.bytes);
        // SAFETY: a helper without arguments.
        let now = unsafe { bpf_jiffies64() };
        // SAFETY: as in `find`. A plain store: a race between CPUs is about one jiffy.
        unsafe { (*value).last_seen_jiffies = now };
    }
}

#[inline(always)]
pub fn flag_bits(tcp_flags: u8, direction: Direction) -> u64 {
    match direction {
        Direction::Ingress => u64::from(tcp_flags),
        Direction::Egress => u64::from(tcp_flags) << TX_FLAGS_SHIFT,
    }
}
