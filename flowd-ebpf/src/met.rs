//! The packet that is being decided about.

use flowd_common::{
    counter::{Direction, Tally},
    flow::{FlowKey, FlowValue, OverflowKey},
    packet::{Headers, Weight, is_opening},
    policy::Opinion,
};

use crate::maps::MET;

/// What is known of a packet that has to be decided about, and room for what comes of it.
///
/// It is in a map: the verifier knows nothing of what it reads from there, so that it walks what
/// follows once, and not once for each way through the parser.
#[repr(C)]
pub struct Met {
    pub key: FlowKey,
    pub header_bytes: u32,
    pub packets: u64,
    pub bytes: u64,
    pub tcp_flags: u8,
    pub icmp_type: u8,
    pub icmp_code: u8,
    /// An [`Initiator`] as a number: who opens a conversation if this is its first packet.
    pub asks: u8,
    /// Of the buffer.
    pub len: u32,
    /// What the policy says.
    pub opinion: Opinion,
    /// The entry to be.
    pub value: FlowValue,
    /// The bucket, where there is no room for an entry.
    pub bucket: OverflowKey,
    reserved: u32,
    pub empty: Tally,
}

impl Met {
    /// The one of this CPU.
    #[inline(always)]
    pub fn get() -> Option<&'static mut Self> {
        let met = MET.get_ptr_mut(0)?;
        // SAFETY: the slot belongs to this CPU, and classifiers run with bottom halves disabled, so
        // no other classifier uses it meanwhile.
        Some(unsafe { &mut *met })
    }

    #[inline(always)]
    pub fn keep(headers: &Headers, weight: Weight, len: u32, direction: Direction) {
        let Some(met) = Self::get() else {
            return;
        };
        met.key = headers.key;
        met.header_bytes = headers.header_bytes;
        met.packets = weight.packets;
        met.bytes = weight.bytes;
        met.len = len;
        met.tcp_flags = headers.tcp_flags;
        met.icmp_type = headers.icmp_type;
        met.icmp_code = headers.icmp_code;
        met.asks = headers.initiator(direction) as u8;
    }

    #[inline(always)]
    pub fn weight(&self) -> Weight {
        Weight { packets: self.packets, bytes: self.bytes }
    }

    /// Whether it opens a conversation and somebody else has opened the entry's.
    #[inline(always)]
    pub fn opens_another(&self, initiator: u8) -> bool {
        self.asks != initiator && is_opening(self.key.protocol, self.tcp_flags, self.icmp_type)
    }
}
