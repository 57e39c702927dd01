//! flowd's datapath: counts every packet of a WireGuard interface on its flow, and applies the
//! policy.
//!
//! It never drops a packet because counting failed. Entry points are two lines; what they do is in
//! `account`. Reading order: `maps`, `skb`, `account`, `entry`, `met`,
//! `verdict`, `tally`, `control`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod account;
mod atomic;
mod control;
mod entry;
mod maps;
mod met;
mod skb;
mod tally;
mod verdict;

use aya_ebpf::{macros::classifier, programs::TcContext};
use flowd_common::counter::Direction;

/// Counts and judges packets that the gateway received from a peer.
#[classifier]
pub fn flowd_ingress(ctx: TcContext) -> i32 {
    account::packet(&ctx, Direction::Ingress).action()
}

/// Counts and judges packets that the gateway sends to a peer.
#[classifier]
pub fn flowd_egress(ctx: TcContext) -> i32 {
    account::packet(&ctx, Direction::Egress).action()
}

/// Marks ended flows; the daemon runs it, it is attached to nothing.
#[classifier]
pub fn flowd_retire(_ctx: TcContext) -> i32 {
    control::retire_next()
}

/// Reads the datapath's two clocks together; the daemon runs it, it is attached to nothing.
#[classifier]
pub fn flowd_clock(_ctx: TcContext) -> i32 {
    control::read_clocks()
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // The verifier proves that no path leads here, or it refuses the program.
    loop {}
}

/// The kernel lends GPL-only helpers to programs that say this.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
