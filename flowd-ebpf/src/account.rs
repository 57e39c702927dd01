//! One packet: find its flow, add to it, say what happens to the packet.
//!
//! - parsed, flow known and live: add
//! - parsed, flow unknown: new entry, with its peer
//! - parsed, entry retired: the same in the entry's second generation
//! - no room for a new entry: the peer's overflow bucket
//! - not parsed, or no room there either: a named counter
//!
//! Every packet takes exactly one of these ends.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST, TC_ACT_UNSPEC},
    helpers::{bpf_jiffies64, bpf_ktime_get_ns},
    maps::lpm_trie::Key,
    programs::TcContext,
};
use aya_log_ebpf::debug;
use flowd_common::{
    counter::{Counter, CounterKey, Direction, Tally},
    flow::{FlowKey, FlowValue, OverflowKey, RETIRED, TX_FLAGS_SHIFT, Verdict},
    packet::{Fragment, Headers, Weight, headers},
    peer::{NO_PEER, PeerId, PeerPrefix},
};

use crate::{
    atomic,
    maps::{COUNTERS, FLOWS, FRAGMENTS, OVERFLOW, PEERS},
    skb::Skb,
};

/// What becomes of the packet.
pub enum Fate {
    /// It goes on to the next program, or on its way.
    Pass,
}

impl Fate {
    #[inline(always)]
    pub fn action(self) -> i32 {
        match self {
            Self::Pass => TC_ACT_UNSPEC,
        }
    }
}

/// Counts one packet.
#[inline(always)]
pub fn packet(ctx: &TcContext, direction: Direction) -> Fate {
    let skb = Skb::new(ctx);
    let ifindex = skb.ifindex();
    let mut headers = match headers(&skb, ifindex, direction) {
        Ok(headers) => headers,
        Err(skip) => {
            debug!(
                ctx,
                "interface {}: a packet without a flow: {}",
                ifindex,
                skip.counter().name()
            );
            let weight = skb.weight(0);
            tally(ifindex, skip.counter(), direction, weight);
            return Fate::Pass;
        }
    };
    let weight = skb.weight(headers.header_bytes);
    if weight.packets > 1 {
        let extra =
            Weight { packets: weight.packets - 1, bytes: weight.bytes - u64::from(skb.len()) };
        tally(ifindex, Counter::Coalesced, direction, extra);
    }
    if headers.fragment != Fragment::Whole {
        follow_fragment(&mut headers, direction);
    }
    flow(&mut headers, direction, weight);
    Fate::Pass
}

#[inline(always)]
fn flow(headers: &mut Headers, direction: Direction, weight: Weight) {
    if add_to_live(&headers.key, headers.tcp_flags, direction, weight) == Added::Yes {
        return;
    }
    // Neither a retired entry nor a missing one is common: `create` finds out which it was.
    if create(headers, direction, weight) == Added::Yes {
        return;
    }
    headers.key.generation = 1;
    if add_to_live(&headers.key, headers.tcp_flags, direction, weight) == Added::Yes
        || create(headers, direction, weight) == Added::Yes
    {
        return;
    }
    overflow(&headers.key, direction, weight);
}

#[derive(PartialEq, Eq)]
enum Added {
    Yes,
    No,
}

/// Adds to an entry that exists and is live.
#[inline(always)]
fn add_to_live(key: &FlowKey, tcp_flags: u8, direction: Direction, weight: Weight) -> Added {
    let Some(value) = FLOWS.get_ptr_mut(key) else {
        return Added::No;
    };
    // SAFETY: entries are preallocated, and the daemon deletes one only after every classifier that
    // could have seen it live has left, so the pointer is to this flow; this forms an address.
    let marks = unsafe { &raw mut (*value).marks };
    // SAFETY: as above. Volatile: `flowd_retire` and other CPUs write the word.
    let seen = unsafe { marks.read_volatile() };
    if seen & RETIRED != 0 {
        return Added::No;
    }
    let flags = flag_bits(tcp_flags, direction);
    if seen & flags != flags {
        atomic::or(marks, flags);
    }
    let (packets, bytes) = match direction {
        // SAFETY: as above; forms an address.
        Direction::Ingress => (unsafe { &raw mut (*value).rx_packets }, {
            // SAFETY: as above; forms an address.
            unsafe { &raw mut (*value).rx_bytes }
        }),
        // SAFETY: as above; forms an address.
        Direction::Egress => (unsafe { &raw mut (*value).tx_packets }, {
            // SAFETY: as above; forms an address.
            unsafe { &raw mut (*value).tx_bytes }
        }),
    };
    atomic::add(packets, weight.packets);
    atomic::add(bytes, weight.bytes);
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_jiffies64() };
    // SAFETY: as above. A plain store: a race between CPUs is about one jiffy.
    unsafe { (*value).last_seen_jiffies = now };
    Added::Yes
}

#[inline(always)]
fn flag_bits(tcp_flags: u8, direction: Direction) -> u64 {
    match direction {
        Direction::Ingress => u64::from(tcp_flags),
        Direction::Egress => u64::from(tcp_flags) << TX_FLAGS_SHIFT,
    }
}

/// Makes the entry of a new flow. `No` when there is no room, or a retired entry is in the way.
#[inline(always)]
fn create(headers: &Headers, direction: Direction, weight: Weight) -> Added {
    let key = &headers.key;
    let mut value = FlowValue {
        // SAFETY: a helper without arguments.
        first_seen_ns: unsafe { bpf_ktime_get_ns() },
        // SAFETY: a helper without arguments.
        last_seen_jiffies: unsafe { bpf_jiffies64() },
        rx_packets: 0,
        rx_bytes: 0,
        tx_packets: 0,
        tx_bytes: 0,
        marks: flag_bits(headers.tcp_flags, direction),
        peer_id: peer_of(key),
        rule: 0,
        policy_revision: 0,
        initiator: headers.initiator(direction) as u8,
        verdict: Verdict::Allow as u8,
        icmp_type: headers.icmp_type,
        icmp_code: headers.icmp_code,
    };
    match direction {
        Direction::Ingress => {
            value.rx_packets = weight.packets;
            value.rx_bytes = weight.bytes;
        }
        Direction::Egress => {
            value.tx_packets = weight.packets;
            value.tx_bytes = weight.bytes;
        }
    }
    if FLOWS.insert(key, value, u64::from(BPF_NOEXIST)).is_ok() {
        return Added::Yes;
    }
    // Another CPU may have made it meanwhile.
    add_to_live(key, headers.tcp_flags, direction, weight)
}

#[inline(always)]
fn peer_of(key: &FlowKey) -> PeerId {
    let prefix = PeerPrefix { ifindex: key.ifindex, addr: key.peer };
    PEERS.get(Key::new(PeerPrefix::FULL_BITS, prefix)).copied().unwrap_or(NO_PEER)
}

#[inline(always)]
fn overflow(key: &FlowKey, direction: Direction, weight: Weight) {
    let bucket = OverflowKey {
        ifindex: key.ifindex,
        peer_id: peer_of(key),
        verdict: Verdict::Allow as u8,
        direction: direction as u8,
        reserved: [0; 2],
    };
    if OVERFLOW.get_ptr_mut(bucket).is_none() {
        let empty = Tally { packets: 0, bytes: 0 };
        // Fails when another CPU was first, or the table is full: the look-up below tells.
        let _lost_race_or_full = OVERFLOW.insert(bucket, empty, u64::from(BPF_NOEXIST));
    }
    match OVERFLOW.get_ptr_mut(bucket) {
        Some(sum) => add_tally(sum, weight),
        None => tally(key.ifindex, Counter::OverflowFull, direction, weight),
    }
}

/// Counts under a name. The table holds every name of 341 interfaces; the daemon makes the entries
/// of an interface when it attaches, so that this never has to.
#[inline(always)]
fn tally(ifindex: u32, counter: Counter, direction: Direction, weight: Weight) {
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
fn add_tally(tally: *mut Tally, weight: Weight) {
    // SAFETY: `tally` points into an entry that is never deleted; forms an address.
    let packets = unsafe { &raw mut (*tally).packets };
    // SAFETY: as above; forms an address.
    let bytes = unsafe { &raw mut (*tally).bytes };
    atomic::add(packets, weight.packets);
    atomic::add(bytes, weight.bytes);
}

/// Remembers the ports of a first fragment, or finds those of a later one.
#[inline(always)]
fn follow_fragment(headers: &mut Headers, direction: Direction) {
    let datagram = headers.datagram(direction);
    if headers.fragment == Fragment::First {
        // Failure means that later fragments are counted on a flow without ports.
        let _counted_without_ports =
            FRAGMENTS.insert(datagram, headers.for_later_fragments(), u64::from(BPF_ANY));
    // SAFETY: the entry is read at once; should the LRU hand it to another datagram in between, the
    // fragment is counted on that one's ports.
    } else if let Some(first) = unsafe { FRAGMENTS.get(datagram) } {
        headers.join(*first);
    }
}
