//! The compiled policy: what the tables say, and the one procedure that reads them, in the kernel
//! and on the host alike.
//!
//! - an address has an [`Endpoint`]: its peer, and its roles as the source and as the destination
//! - a pair of roles has a chain, in each of four layers
//! - a chain says which rule decides for which service; the lowest rule of the four wins
//!
//! So a verdict costs two prefix look-ups, four pair look-ups and four binary searches, whatever
//! the number of rules and peers.

use bytemuck::{Pod, Zeroable};

use crate::{
    addr::Addr,
    flow::{FlowKey, Initiator},
    limits::{BUCKET_PROBES, CHAIN_STEPS},
    packet::{has_ports, icmp_request},
    peer::PeerId,
};

/// The policy in force, in one word, so that a packet reads all of it or none.
///
/// Bits 32 to 63: the epoch, which grows at every change of policy, peers or addresses. Below them
/// flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Head(pub u64);

impl Head {
    /// Which of the two sets of tables is in force.
    pub const SLOT: u64 = 1;
    /// What is denied is dropped.
    pub const ENFORCE: u64 = 1 << 1;
    /// What no rule matches is denied.
    pub const DEFAULT_DENY: u64 = 1 << 2;
    /// A packet that cannot be judged is dropped.
    pub const STRICT: u64 = 1 << 3;
    /// The first of four flags: layer `n` has pairs.
    pub const LAYER_0: u64 = 1 << 4;
    /// All four.
    pub const LAYERS_USED: u64 = 0xf << 4;
    /// Where the logarithm of the number of [`PairBucket`]s stands, in five bits.
    pub const BUCKET_BITS_SHIFT: u32 = 8;

    /// Puts epoch and flags together.
    pub const fn new(epoch: u32, flags: u64) -> Self {
        Self((epoch as u64) << 32 | flags)
    }

    /// The epoch.
    #[inline(always)]
    pub const fn epoch(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Whether a flag is set.
    #[inline(always)]
    pub const fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    /// Which of the two sets of tables is in force.
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        (self.0 & Self::SLOT) as u32
    }

    /// How many bits the number of a [`PairBucket`] has.
    #[inline(always)]
    pub const fn bucket_bits(self) -> u32 {
        (self.0 >> Self::BUCKET_BITS_SHIFT) as u32 & 31
    }
}

/// What became of a flow's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// The policy allows it.
    Allowed = 0,
    /// The policy denies it, and it passed: observe mode.
    Passed = 1,
    /// The policy denies it, and it was dropped.
    Dropped = 2,
}

/// The verdict on a flow, in one word: epoch in bits 32 to 63, rule in bits 2 to 31 (counted from
/// 1; 0: none, the default decided), [`Outcome`] in bits 0 and 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct Judgement(pub u64);

impl Judgement {
    /// Puts the parts together.
    #[inline(always)]
    pub const fn new(epoch: u32, rule: u32, outcome: Outcome) -> Self {
        Self((epoch as u64) << 32 | (rule as u64) << 2 | outcome as u64)
    }

    /// The epoch in which it was made.
    #[inline(always)]
    pub const fn epoch(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The rule that decided, counted from 1; 0: none.
    #[inline(always)]
    pub const fn rule(self) -> u32 {
        (self.0 as u32) >> 2
    }

    /// What becomes of the packets.
    #[inline(always)]
    pub const fn outcome(self) -> Outcome {
        match self.0 & 3 {
            0 => Outcome::Allowed,
            1 => Outcome::Passed,
            _ => Outcome::Dropped,
        }
    }

    /// Whether the policy denies it, dropped or not.
    #[inline(always)]
    pub const fn is_denied(self) -> bool {
        self.0 & 3 != Outcome::Allowed as u64
    }
}

/// Names a set of endpoints: those of one interface, on one side of it.
///
/// [`EndpointPrefix::NEAR`]: the peers' side. [`EndpointPrefix::FAR`]: everything else as seen from
/// there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct EndpointPrefix {
    /// `ifindex << 1 | side`, in native order: compared as a whole only.
    pub view: u32,
    /// The address, its host bits zero. An IPv4 prefix of /n has /(96+n).
    pub addr: Addr,
}

impl EndpointPrefix {
    /// The side of the peers.
    pub const NEAR: u32 = 0;
    /// The other side.
    pub const FAR: u32 = 1;
    /// Bits before the address.
    pub const VIEW_BITS: u32 = 32;
    /// Bits of the key when the whole address counts.
    pub const FULL_BITS: u32 = Self::VIEW_BITS + 128;

    /// The view of one side of an interface.
    #[inline(always)]
    pub const fn view(ifindex: u32, side: u32) -> u32 {
        ifindex << 1 | side
    }
}

/// What the policy knows of an address. Role 0 in a layer: no rule of it speaks of the address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Endpoint {
    /// The peer that owns it, [`crate::peer::NO_PEER`] for nobody.
    pub peer_id: PeerId,
    /// Its roles as a source: in rules for few sources, in rules for many.
    pub from: [u32; 2],
    /// Its roles as a destination, likewise.
    pub to: [u32; 2],
}

/// Layers of pairs: bit 0 says whether the rules in it are for many sources, bit 1 for many
/// destinations.
pub const LAYERS: u32 = 4;

/// A source and a destination in one layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Pair {
    /// 0 to 3.
    pub layer: u32,
    /// Role of the source.
    pub from: u32,
    /// Role of the destination.
    pub to: u32,
}

/// A pair and where its chain begins. Free: role 0, which is in no pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct PairSlot {
    /// The pair.
    pub pair: Pair,
    /// Index of its chain.
    pub chain: u32,
}

/// Pairs whose hashes are alike, and those that found the buckets before full; the last slot is
/// taken last.
///
/// The kernel's own hash tables cost a cache miss for the bucket and one for the entry, and a new
/// flow asks for up to eight pairs, most of which are not there. This is one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct PairBucket(pub [PairSlot; 4]);

impl Pair {
    /// The number of the bucket in which the pair is, if that has room, out of 2^`bits`.
    #[inline(always)]
    pub const fn bucket(&self, bits: u32) -> u32 {
        let word = (self.from as u64) << 32 | self.to as u64;
        let mixed = (word ^ (self.layer as u64) << 29).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (mixed >> 32) as u32 & ((1 << bits) - 1)
    }
}

/// Where the chain of a pair begins, among 2^`bits` buckets.
#[inline(always)]
pub fn find_chain<'a>(
    bucket: impl Fn(u32) -> Option<&'a PairBucket>,
    bits: u32,
    pair: &Pair,
) -> Option<u32> {
    let mut index = pair.bucket(bits);
    for _ in 0..BUCKET_PROBES {
        let PairBucket(slots) = bucket(index)?;
        for slot in slots {
            if slot.pair.from == pair.from
                && slot.pair.to == pair.to
                && slot.pair.layer == pair.layer
            {
                return Some(slot.chain);
            }
        }
        if slots[3].pair.from == 0 {
            break;
        }
        index = (index + 1) & ((1 << bits) - 1);
    }
    None
}

/// One entry of a chain. A chain is a first entry whose `start` is the number of those that follow,
/// which are sorted, the first of them at 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Interval {
    /// The first service (protocol << 16 | port or ICMP type) that it speaks of; the next entry
    /// ends it.
    pub start: u32,
    /// A [`Decision`].
    pub decision: u32,
}

/// The rule that decides, counted from 1, in bits 1 to 31; bit 0: it denies.
pub type Decision = u32;
/// No rule decides.
pub const UNDECIDED: Decision = u32::MAX;

/// The tables, wherever they are. Absent entries are `None` or the default.
pub trait Tables {
    /// The entry of the longest prefix.
    fn endpoint(&self, view: u32, addr: Addr) -> Endpoint;
    /// Where the chain of a pair begins.
    fn chain(&self, pair: &Pair) -> Option<u32>;
    /// One entry.
    fn interval(&self, index: u32) -> Option<Interval>;

    /// Which rule decides for a pair and a service: [`decide`], wherever it runs.
    #[inline(always)]
    fn decide(&self, pair: Pair, service: u32) -> Decision
    where
        Self: Sized,
    {
        decide(self, &pair, service)
    }
}

/// What a flow asks for: protocol, and the destination's port, given as the key's field for it, or
/// the ICMP type.
#[inline(always)]
pub fn service(protocol: u8, port: u16, icmp_type: u8) -> u32 {
    let low = match icmp_request(protocol, icmp_type) {
        Some(request) => u32::from(request),
        None if has_ports(protocol) => u32::from(port),
        None => 0,
    };
    u32::from(protocol) << 16 | low
}

/// What is said of a flow if its peer's side opened it, and if the other side did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Opinion {
    /// Opened by the peer's side.
    pub of_peer: Judgement,
    /// Opened by the other side.
    pub of_remote: Judgement,
    /// Whose flow it is.
    pub peer_id: PeerId,
    /// Always zero.
    pub reserved: u32,
}

impl Opinion {
    /// The judgement of a flow that `initiator` opened. Unknown: it may pass when either may.
    #[inline(always)]
    pub fn of(&self, initiator: u8) -> Judgement {
        let of_peer = initiator == Initiator::Peer as u8;
        let of_remote = initiator == Initiator::Remote as u8;
        let remote_only = self.of_peer.is_denied() && !self.of_remote.is_denied();
        if of_remote || (!of_peer && remote_only) { self.of_remote } else { self.of_peer }
    }
}

/// Judges a flow, for the initiators that are asked for.
#[inline(always)]
pub fn judge(
    tables: &impl Tables,
    head: Head,
    key: &FlowKey,
    icmp_type: u8,
    wanted: Wanted,
) -> Opinion {
    let near = tables.endpoint(EndpointPrefix::view(key.ifindex, EndpointPrefix::NEAR), key.peer);
    let silent = verdict(head, UNDECIDED);
    let mut opinion =
        Opinion { of_peer: silent, of_remote: silent, peer_id: near.peer_id, reserved: 0 };
    if !head.has(Head::LAYERS_USED) {
        return opinion;
    }
    let far = tables.endpoint(EndpointPrefix::view(key.ifindex, EndpointPrefix::FAR), key.remote);
    if wanted.0 & Wanted::OF_PEER.0 != 0 {
        let asked = service(key.protocol, key.remote_port, icmp_type);
        opinion.of_peer = verdict(head, first_of_all(tables, head, near.from, far.to, asked));
    }
    if wanted.0 & Wanted::OF_REMOTE.0 != 0 {
        let asked = service(key.protocol, key.peer_port, icmp_type);
        opinion.of_remote = verdict(head, first_of_all(tables, head, far.from, near.to, asked));
    }
    opinion
}

/// Which initiators a judgement is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted(pub u32);

impl Wanted {
    /// The peer's side.
    pub const OF_PEER: Self = Self(1);
    /// The other side.
    pub const OF_REMOTE: Self = Self(2);
    /// Both.
    pub const BOTH: Self = Self(3);

    /// What [`Opinion::of`] needs for an initiator.
    #[inline(always)]
    pub const fn of(initiator: u8) -> Self {
        if initiator == Initiator::Peer as u8 {
            Self::OF_PEER
        } else if initiator == Initiator::Remote as u8 {
            Self::OF_REMOTE
        } else {
            Self::BOTH
        }
    }
}

/// The rule with the lowest number of all layers.
#[inline(always)]
fn first_of_all(
    tables: &impl Tables,
    head: Head,
    from: [u32; 2],
    to: [u32; 2],
    service: u32,
) -> Decision {
    let mut best = UNDECIDED;
    for layer in 0..LAYERS {
        let from = if layer & 1 == 0 { from[0] } else { from[1] };
        let to = if layer & 2 == 0 { to[0] } else { to[1] };
        if head.has(Head::LAYER_0 << layer) && from != 0 && to != 0 {
            best = best.min(tables.decide(Pair { layer, from, to }, service));
        }
    }
    best
}

/// Which rule decides for a pair and a service.
#[inline(always)]
pub fn decide(tables: &impl Tables, pair: &Pair, service: u32) -> Decision {
    tables.chain(pair).map_or(UNDECIDED, |chain| search(tables, chain, service))
}

/// The last entry of a chain that starts at or before the service.
///
/// What is left is halved whichever way the comparison goes, so that the verifier sees both ways
/// come together again.
#[inline(always)]
fn search(tables: &impl Tables, chain: u32, service: u32) -> Decision {
    let Some(head) = tables.interval(chain) else {
        return UNDECIDED;
    };
    let mut left = head.start;
    let mut base = chain + 1;
    for _ in 0..CHAIN_STEPS {
        if left <= 1 {
            break;
        }
        let half = left / 2;
        let Some(middle) = tables.interval(base + half) else {
            return UNDECIDED;
        };
        if middle.start <= service {
            base += half;
        }
        left -= half;
    }
    tables.interval(base).map_or(UNDECIDED, |last| last.decision)
}

#[inline(always)]
fn verdict(head: Head, decision: Decision) -> Judgement {
    let (rule, denied) = if decision == UNDECIDED {
        (0, head.has(Head::DEFAULT_DENY))
    } else {
        (decision >> 1, decision & 1 != 0)
    };
    let outcome = if !denied {
        Outcome::Allowed
    } else if head.has(Head::ENFORCE) {
        Outcome::Dropped
    } else {
        Outcome::Passed
    };
    Judgement::new(head.epoch(), rule, outcome)
}
