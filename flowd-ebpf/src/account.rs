//! One packet: find its flow, add to it, say what happens to the packet.
//!
//! - parsed, flow known, live and judged under the policy in force: add
//! - parsed, anything else: `meet` judges, and adds to the flow, ends it, or makes a new one
//! - no room for a new entry, or a packet that its flow does not speak for: the peer's overflow
//!   bucket
//! - not parsed, or no room there either: a named counter
//!
//! Every packet takes exactly one of these ends.
//!
//! A flow has one outcome for life. When the policy changes its mind, the entry is retired and
//! marked as cut, and the packet makes the next generation, which was opened by whoever opened the
//! first: so a reply to a flow that was cut is no new conversation the other way.

#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "by value, keys and values would be copied to the stack, of which there is little"
)]

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::{bpf_jiffies64, bpf_ktime_get_ns},
    programs::TcContext,
};
use aya_log_ebpf::debug;
use flowd_common::{
    counter::{Counter, Direction},
    flow::{CUT, FlowKey, RETIRED},
    packet::{Fragment, Headers, Weight, is_icmp_error, is_opening, tells_its_initiator},
    policy::{Head, Judgement, Outcome, Wanted},
};

use crate::{
    entry::{Entry, Opened, flag_bits},
    maps::{ASKED, FLOWS, FRAGMENTS, OVERFLOW},
    met::Met,
    skb::Skb,
    tally::{add_tally, tally, tally_apart},
    verdict,
};

/// What becomes of the packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes on to the next program, or on its way.
    Pass,
    /// The policy stops it.
    Drop,
}

impl Fate {
    #[inline(always)]
    pub fn action(self) -> i32 {
        match self {
            Self::Pass => TC_ACT_UNSPEC,
            Self::Drop => TC_ACT_SHOT,
        }
    }
}

/// Counts one packet.
#[inline(always)]
pub fn packet(ctx: &TcContext, direction: Direction) -> Fate {
    let head = verdict::in_force();
    let outcome = match settle(ctx, direction, head) {
        UNSETTLED => meet(ctx, direction, head),
        outcome => outcome,
    };
    if outcome == Outcome::Dropped as u64 { Fate::Drop } else { Fate::Pass }
}

/// Not an [`Outcome`]: the packet has to be decided about.
const UNSETTLED: u64 = 3;

/// Reads a packet and counts it where there is nothing to decide; its outcome, or [`UNSETTLED`].
///
/// A function of its own, as is [`meet`]: the verifier limits the stack of those that call each
/// other.
#[inline(never)]
fn settle(ctx: &TcContext, direction: Direction, head: Head) -> u64 {
    let skb = Skb::new(ctx);
    let ifindex = skb.ifindex();
    let mut room = MaybeUninit::uninit();
    keep_in_memory(&mut room);
    let headers = match Headers::read(&mut room, &skb, ifindex, direction) {
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
            if !head.has(Head::STRICT) {
                return Outcome::Allowed as u64;
            }
            tally(ifindex, Counter::Dropped, direction, weight);
            return Outcome::Dropped as u64;
        }
    };
    let weight = skb.weight(headers.header_bytes);
    if headers.fragment != Fragment::Whole {
        follow_fragment(headers, direction);
    }
    let Some(outcome) = add_to_settled(headers, direction, weight, head) else {
        Met::keep(headers, weight, skb.len(), direction);
        return UNSETTLED;
    };
    tally_apart(ifindex, outcome, direction, weight, skb.len());
    outcome
}

/// Has the compiler write the fields to the stack once, in their places. It would hold them in
/// registers, of which BPF has ten, and move each through the stack wherever ways meet.
#[inline(always)]
fn keep_in_memory(headers: &mut MaybeUninit<Headers>) {
    // SAFETY: moves a register to itself. No instruction at all would leave two lines of the source
    // at one place, which the kernel refuses.
    unsafe {
        asm!("{headers} = {headers}", headers = in(reg) headers);
    }
}

/// Adds to a live entry about which there is nothing to decide; its outcome.
#[inline(always)]
fn add_to_settled(
    headers: &Headers,
    direction: Direction,
    weight: Weight,
    head: Head,
) -> Option<u64> {
    let entry = Entry::find(&headers.key)?;
    if entry.marks & RETIRED != 0 || entry.judgement.epoch() != head.epoch() {
        return None;
    }
    let outcome = entry.outcome();
    if outcome == Outcome::Dropped as u64 && entry.may_be_opened_by(direction) {
        return None;
    }
    if head.has(Head::STRICT) {
        let FlowKey { protocol, .. } = headers.key;
        let opens = is_opening(protocol, headers.tcp_flags, headers.icmp_type);
        if opens && entry.initiator() != headers.initiator(direction) as u8
            || is_icmp_error(protocol, headers.icmp_type)
        {
            return None;
        }
    }
    entry.add(headers.tcp_flags, direction, weight);
    Some(outcome)
}

/// Decides about a packet whose flow is new, or was judged under another policy; its outcome.
#[inline(never)]
fn meet(ctx: &TcContext, direction: Direction, head: Head) -> u64 {
    // The slot is always there.
    let Some(met) = Met::get() else {
        return Outcome::Allowed as u64;
    };
    let outcome = find_or_make(ctx, met, direction, head);
    tally_apart(met.key.ifindex, outcome, direction, met.weight(), met.len);
    outcome
}

#[inline(always)]
fn find_or_make(ctx: &TcContext, met: &mut Met, direction: Direction, head: Head) -> u64 {
    met.key.generation = 1;
    let second = Entry::find(&met.key);
    met.key.generation = 0;
    let first = Entry::find(&met.key);
    // Of an entry that is there, the one who opened it may not be the one who asks.
    let is_new = first.is_none() && second.is_none();
    let wanted = if is_new { Wanted::of(met.asks) } else { Wanted::BOTH };
    judge(ctx, met, direction, head, wanted);

    let mut opened = Opened { initiator: met.asks, marks: 0 };
    let mut next = Next::Successor;
    if let Some(entry) = &first {
        next = go_on(entry, met, &mut opened, direction, head);
    }
    if next == Next::Successor
        && let Some(entry) = &second
    {
        next = go_on(entry, met, &mut opened, direction, head);
    }
    if let Next::Counted(outcome) = next {
        return outcome;
    }
    if next == Next::Successor {
        if first.is_none() || second.is_none() {
            met.key.generation = u8::from(first.is_some());
            if let Some(outcome) = create(met, &opened, direction) {
                return outcome;
            }
        }
        if wanted != Wanted::BOTH {
            judge(ctx, met, direction, head, Wanted::BOTH);
        }
        if opened.marks & CUT == 0 {
            opened.initiator = who_asked(met, opened.initiator, head);
        }
    }
    overflow(met, met.opinion.of(opened.initiator), direction)
}

/// Who opened a conversation that has no flow. TCP and ICMP tell questions from answers themselves;
/// of the others it is remembered who asked, if he may.
#[inline(always)]
fn who_asked(met: &mut Met, asks: u8, head: Head) -> u8 {
    if tells_its_initiator(met.key.protocol) || !head.has(Head::LAYERS_USED | Head::DEFAULT_DENY) {
        return asks;
    }
    met.key.generation = 0;
    // SAFETY: the word is read at once; should the LRU hand it to another conversation in between,
    // the packet is judged as if that one's opener had sent it.
    if let Some(asked) = unsafe { ASKED.get(&met.key) } {
        return *asked as u8;
    }
    if !met.opinion.of(asks).is_denied() {
        // Failure means that the answer is judged as a question.
        let _not_remembered = ASKED.insert(&met.key, u32::from(asks), u64::from(BPF_ANY));
    }
    asks
}

/// What becomes of a packet that has met an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// It has been added, and this is its outcome.
    Counted(u64),
    /// The entry has ended; `opened` says what follows.
    Successor,
    /// The entry goes on without it; `opened` says who asks.
    Apart,
}

/// Adds to an entry whose outcome stays, if it holds for the packet too.
#[inline(always)]
fn go_on(entry: &Entry, met: &Met, opened: &mut Opened, direction: Direction, head: Head) -> Next {
    if entry.marks & RETIRED != 0 {
        let initiator = entry.initiator();
        if entry.marks & CUT != 0 && !met.opens_another(initiator) {
            *opened = Opened { initiator, marks: CUT };
        }
        return Next::Successor;
    }
    if let Some(other) = entry.judge_again(met, direction, head) {
        entry.cut();
        *opened = other;
        return Next::Successor;
    }
    if is_judged_apart(entry, met, head) {
        *opened = Opened { initiator: met.asks, marks: 0 };
        return Next::Apart;
    }
    entry.add(met.tcp_flags, direction, met.weight());
    Next::Counted(entry.outcome())
}

/// Whether something else is said of the packet than of the entry, which does not speak for it.
///
/// Who may answer may not open: an entry that an answer made, or that was met in mid-stream, passes
/// no SYN of a side that may open nothing. And what one ICMP error quotes says nothing of the next.
#[inline(always)]
fn is_judged_apart(entry: &Entry, met: &Met, head: Head) -> bool {
    let allowed = entry.outcome() == Outcome::Allowed as u64;
    let by_itself = allowed && met.opens_another(entry.initiator())
        || is_icmp_error(met.key.protocol, met.icmp_type);
    head.has(Head::STRICT) && by_itself && met.opinion.of(met.asks).0 & 3 != entry.outcome()
}

/// Asks what the policy says, or what it says of the flow that an ICMP error is about.
#[inline(always)]
fn judge(ctx: &TcContext, met: &mut Met, direction: Direction, head: Head, wanted: Wanted) {
    verdict::flowd_judge(head.0, wanted.0);
    let denied = met.opinion.of_peer.is_denied() || met.opinion.of_remote.is_denied();
    if denied && is_icmp_error(met.key.protocol, met.icmp_type) {
        let (header_bytes, ifindex) = (u64::from(met.header_bytes), u64::from(met.key.ifindex));
        let quoted = Judgement(verdict::of_the_quoted(ctx, header_bytes, ifindex, direction));
        if !quoted.is_denied() && quoted.epoch() == head.epoch() {
            met.opinion.of_peer = quoted;
            met.opinion.of_remote = quoted;
        }
    }
}

/// Makes the entry of a new flow; its outcome. `None` when there is no room.
#[inline(always)]
fn create(met: &mut Met, opened: &Opened, direction: Direction) -> Option<u64> {
    let judgement = met.opinion.of(opened.initiator);
    let (rx, tx) = match direction {
        Direction::Ingress => (met.weight(), Weight { packets: 0, bytes: 0 }),
        Direction::Egress => (Weight { packets: 0, bytes: 0 }, met.weight()),
    };
    let value = &mut met.value;
    // SAFETY: a helper without arguments.
    value.first_seen_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: a helper without arguments.
    value.last_seen_jiffies = unsafe { bpf_jiffies64() };
    value.rx_packets = rx.packets;
    value.rx_bytes = rx.bytes;
    value.tx_packets = tx.packets;
    value.tx_bytes = tx.bytes;
    value.marks = flag_bits(met.tcp_flags, direction) | opened.marks;
    value.judgement = judgement;
    value.peer_id = met.opinion.peer_id;
    value.initiator = opened.initiator;
    value.reserved = 0;
    value.icmp_type = met.icmp_type;
    value.icmp_code = met.icmp_code;
    if FLOWS.insert(&met.key, &met.value, u64::from(BPF_NOEXIST)).is_ok() {
        return Some(judgement.0 & 3);
    }
    // Another CPU may have made it meanwhile, of a packet of which something else is said.
    let Some(entry) = Entry::find(&met.key) else {
        tally(met.key.ifindex, Counter::TableFull, direction, met.weight());
        return None;
    };
    if entry.marks & RETIRED != 0 || entry.outcome() != judgement.0 & 3 {
        return None;
    }
    entry.add(met.tcp_flags, direction, met.weight());
    Some(entry.outcome())
}

#[inline(always)]
fn overflow(met: &mut Met, judgement: Judgement, direction: Direction) -> u64 {
    let (ifindex, weight) = (met.key.ifindex, met.weight());
    let outcome = judgement.0 & 3;
    let bucket = &mut met.bucket;
    bucket.ifindex = ifindex;
    bucket.peer_id = met.opinion.peer_id;
    bucket.outcome = outcome as u8;
    bucket.direction = direction as u8;
    if OVERFLOW.get_ptr_mut(&met.bucket).is_none() {
        // Fails when another CPU was first, or the table is full: the look-up below tells.
        let _lost_race_or_full = OVERFLOW.insert(&met.bucket, &met.empty, u64::from(BPF_NOEXIST));
    }
    match OVERFLOW.get_ptr_mut(&met.bucket) {
        Some(sum) => add_tally(sum, weight),
        None => tally(ifindex, Counter::OverflowFull, direction, weight),
    }
    outcome
}

/// Remembers the ports of a first fragment, or finds those of a later one.
#[inline(never)]
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
