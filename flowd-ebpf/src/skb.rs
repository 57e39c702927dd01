//! The socket buffer as a packet. Nothing else touches `__sk_buff`.

use core::mem::MaybeUninit;

use aya_ebpf::{EbpfContext as _, Global, helpers::bpf_skb_load_bytes, programs::TcContext};
use bytemuck::Pod;
use flowd_common::packet::{Packet, Weight};

/// Bytes before the network header. Zero on a WireGuard interface, which has no link header; 14
/// under `BPF_PROG_TEST_RUN`, which always makes Ethernet frames. The daemon sets it before the
/// program is verified, so that it costs nothing.
#[unsafe(no_mangle)]
static LINK_HEADER_BYTES: Global<u32> = Global::new(0);

/// The buffer that a classifier was called with.
pub struct Skb<'a> {
    ctx: &'a TcContext,
    link_header_bytes: usize,
}

impl<'a> Skb<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a TcContext) -> Self {
        Self { ctx, link_header_bytes: LINK_HEADER_BYTES.load() as usize }
    }

    /// The interface: the receiving one on ingress, the sending one on egress.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        // SAFETY: the kernel hands every classifier a valid `__sk_buff`.
        unsafe { (*self.ctx.skb.skb).ifindex }
    }

    /// Packets and bytes on the wire, and how many of them are segments that share this buffer.
    #[inline(always)]
    pub fn weight(&self, header_bytes: u32) -> Weight {
        let len = self.len();
        // SAFETY: as in `ifindex`. Since 5.7.
        let gso_size = unsafe { (*self.ctx.skb.skb).gso_size };
        if gso_size == 0 {
            return Weight::of(len, header_bytes, 0, 0);
        }
        // SAFETY: as in `ifindex`. Since 5.1.
        let gso_segs = unsafe { (*self.ctx.skb.skb).gso_segs };
        Weight::of(len, header_bytes, gso_size, gso_segs)
    }

    /// Bytes from the network header on.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        self.ctx.len() - self.link_header_bytes as u32
    }
}

impl Packet for Skb<'_> {
    #[inline(always)]
    fn read<T: Pod>(&self, offset: usize) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes `size_of::<T>()` bytes to `value` or fails; it checks the
        // offset against the buffer.
        let result = unsafe {
            bpf_skb_load_bytes(
                self.ctx.as_ptr(),
                (self.link_header_bytes + offset) as u32,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
            )
        };
        // SAFETY: the helper succeeded, so every byte is written; `T: Pod` accepts any bytes.
        (result == 0).then(|| unsafe { value.assume_init() })
    }

    /// Reads in place what lies in the linear part of the buffer.
    #[inline(always)]
    fn read_at<T: Pod, const OFFSET: usize>(&self) -> Option<T> {
        let start = self.ctx.data() + self.link_header_bytes + OFFSET;
        if start + size_of::<T>() <= self.ctx.data_end() {
            // SAFETY: the verifier has seen the comparison with the end of the buffer. BPF loads
            // need no alignment on the machines flowd runs on (the verifier refuses where they do).
            return Some(unsafe { *(start as *const T) });
        }
        self.read(OFFSET)
    }
}
