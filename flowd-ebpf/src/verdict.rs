//! The policy in the kernel: which tables are in force, and what they say.

use aya_ebpf::{maps::lpm_trie::Key, programs::TcContext};
use bytemuck::{must_cast, must_cast_ref};
use flowd_common::{
    addr::Addr,
    counter::Direction,
    flow::{FlowValue, RETIRED},
    packet::Headers,
    policy::{
        self, Decision, Endpoint, EndpointPrefix, Head, Interval, Judgement, Outcome, Pair, Tables,
        Wanted, judge,
    },
};

use crate::{
    maps::{CHAINS, FLOWS, HOSTS, NETS, PAIRS, POLICY},
    met::Met,
    skb::Skb,
};

/// The policy in force. A packet reads it once and keeps to it.
#[inline(always)]
pub fn in_force() -> Head {
    match POLICY.get_ptr(0) {
        // SAFETY: the entry of an array is always there. Volatile: the daemon changes it, and the
        // word is to be read once.
        Some(head) => unsafe { head.read_volatile() },
        None => Head(0),
    }
}

/// The set of tables that is in force under a head, of which the epoch does not matter here.
struct InForce(Head);

impl Tables for InForce {
    #[inline(always)]
    fn endpoint(&self, view: u32, addr: Addr) -> Endpoint {
        let host = EndpointPrefix { view, addr };
        if let Some(endpoint) = HOSTS.get_value_ptr_mut(self.0.slot(), &host) {
            // SAFETY: the daemon fills a set before it is in force and changes nothing in it
            // afterwards.
            return must_cast(unsafe { *endpoint });
        }
        let key = Key::new(EndpointPrefix::FULL_BITS, host);
        let Some(tree) = NETS.get(self.0.slot()) else {
            return Endpoint::default();
        };
        tree.get(&key).copied().map(must_cast).unwrap_or_default()
    }

    #[inline(always)]
    fn chain(&self, pair: &Pair) -> Option<u32> {
        let Self(head) = *self;
        let bucket = |index| PAIRS.get_value(head.slot(), &index).map(must_cast_ref);
        policy::find_chain(bucket, head.bucket_bits(), pair)
    }

    #[inline(always)]
    fn interval(&self, index: u32) -> Option<Interval> {
        CHAINS.get_value(self.0.slot(), &index).copied().map(must_cast)
    }

    #[inline(always)]
    fn decide(&self, pair: Pair, service: u32) -> Decision {
        let Pair { layer, from, to } = pair;
        flowd_decide(self.0.0 as u32, layer, from, to, service)
    }
}

/// Which rule decides for a pair and a service. `flags` are those of a [`Head`].
///
/// Global and with numbers only, so that the verifier walks it once for all numbers, and not once
/// for each way on which it is called.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowd_decide(
    flags: u32,
    layer: u32,
    from: u32,
    to: u32,
    service: u32,
) -> Decision {
    policy::decide(&InForce(Head(u64::from(flags))), &Pair { layer, from, to }, service)
}

/// Asks what the policy says of the flow of the packet that is being decided about; the answer is
/// put beside the question. `head` is a [`Head`], `wanted` a [`Wanted`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowd_judge(head: u64, wanted: u32) -> i32 {
    let head = Head(head);
    if let Some(met) = Met::get() {
        met.opinion = judge(&InForce(head), head, &met.key, met.icmp_type, Wanted(wanted));
    }
    0
}

/// What is said of the flow whose packet an ICMP error quotes, if it may pass: then the error may.
///
/// An error goes to the sender of what it quotes; one that does not is none.
#[inline(never)]
pub fn of_the_quoted(
    ctx: &TcContext,
    header_bytes: u64,
    ifindex: u64,
    direction: Direction,
) -> u64 {
    let (header_bytes, ifindex) = (header_bytes as u32, ifindex as u32);
    let Some(mut key) = Headers::quoted(&Skb::new(ctx), header_bytes, ifindex, direction) else {
        return DENIED;
    };
    let Some(met) = Met::get() else {
        return DENIED;
    };
    let goes_to_its_sender = match direction {
        Direction::Ingress => key.remote == met.key.remote,
        Direction::Egress => key.peer == met.key.peer,
    };
    if !goes_to_its_sender {
        return DENIED;
    }
    for generation in 0..2 {
        key.generation = generation;
        if let Some(flow) = FLOWS.get_ptr(key)
            && let Some(found) = live(flow)
            && !found.is_denied()
        {
            return found.0;
        }
    }
    DENIED
}

/// A word that allows nothing.
pub const DENIED: u64 = Outcome::Passed as u64;

#[inline(always)]
fn live(flow: *const FlowValue) -> Option<Judgement> {
    // SAFETY: the pointer is to a map value; forms an address.
    let marks = unsafe { &raw const (*flow).marks };
    // SAFETY: as above. Volatile: other CPUs write the word.
    let marks = unsafe { marks.read_volatile() };
    // SAFETY: as above; one aligned word.
    let judgement = unsafe { (*flow).judgement };
    (marks & RETIRED == 0).then_some(judgement)
}
