//! The contract between the kernel side (`flowd-ebpf`) and the user side (`flowd`): the layout of
//! every map, and the packet parser that both sides run.
//!
//! Nothing here allocates, does I/O or knows aya beyond one marker trait; the crate builds for the
//! BPF target and for the host alike.
#![cfg_attr(not(test), no_std)]

pub mod addr;
pub mod clock;
pub mod counter;
pub mod flow;
pub mod limits;
pub mod memory;
pub mod packet;
pub mod peer;
pub mod policy;

/// The layout of the tables that outlive a daemon. Another number: what it means has changed, and the
/// next daemon makes tables of its own, and drains these. What it must be able to read of them stands
/// in [`flow::FlowKey`], [`flow::FlowValue`], [`flow::OverflowKey`], [`counter::Tally`] and
/// [`memory`], which therefore grow at their ends only.
pub const LAYOUT: u32 = 1;

/// Fixes the size of every type that crosses the kernel boundary and, in user space, hands
/// bytemuck's proof (no padding, every bit pattern valid) on to aya.
macro_rules! map_types {
    ($($(#[$meta:meta])* $type:ty: $size:literal),+ $(,)?) => {
        $(
            const _: () = assert!(size_of::<$type>() == $size);
            const _: fn() = || {
                fn pod<T: bytemuck::Pod>() {}
                pod::<$type>();
            };
            // SAFETY: the type is `bytemuck::Pod` (asserted above), which is what aya asks for:
            // `Copy`, no padding, any bit pattern is a value.
            #[cfg(feature = "user")]
            unsafe impl aya::Pod for $type {}
        )+
    };
}

map_types! {
    addr::Addr: 16,
    clock::Clocks: 16,
    counter::CounterKey: 8,
    counter::Tally: 16,
    flow::FlowKey: 44,
    flow::FlowValue: 72,
    flow::FragmentKey: 44,
    flow::FragmentPorts: 8,
    flow::OverflowKey: 12,
    memory::Anchor: 16,
    memory::InterfaceNote: 88,
    memory::PeerNote: 48,
    policy::Endpoint: 20,
    policy::EndpointPrefix: 20,
    policy::Head: 8,
    policy::Interval: 8,
    policy::Judgement: 8,
    policy::Opinion: 24,
    policy::Pair: 12,
    policy::PairBucket: 64,
    policy::PairSlot: 16,
}
