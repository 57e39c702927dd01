//! What stands in the dictionaries: facts of a record that come together, under one number.

use std::{
    hash::{Hash, Hasher},
    net::Ipv6Addr,
};

use super::{NameId, Row};
use crate::flows::{EndReason, Icmp, Initiator, TcpFlags, Verdict};

/// One end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// The peer there.
    pub peer: NameId,
    /// Its address; IPv4 is v4-mapped.
    pub addr: Ipv6Addr,
    /// The resource around it.
    pub resource: NameId,
}

/// What a run of records of one flow is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Row of the segment's `interface`.
    pub interface: u32,
    /// IANA protocol number.
    pub protocol: u8,
    /// No flow, but the sum of a peer's packets that are in none.
    pub overflow: bool,
    /// Who opened the conversation.
    pub initiator: Initiator,
    /// For ICMP and ICMPv6 only.
    pub icmp: Option<Icmp>,
    /// What the policy says.
    pub verdict: Verdict,
    /// Whether a denied packet was dropped.
    pub enforced: bool,
    /// Number of the rule that decided.
    pub rule: NameId,
    /// The policy that was in force.
    pub policy_revision: u32,
    /// Whether the first record of the run is the first one of its flow.
    pub opens: bool,
}

/// What a single record is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// Since the first packet.
    pub tcp_flags: TcpFlags,
    /// `None` while the flow lives.
    pub end_reason: Option<EndReason>,
    /// Whether it starts a run: what it shares with the record before says so, not its flow.
    pub starts: bool,
}

/// An entry as numbers, and back.
pub(super) trait Entry<const WIDTH: usize>: Sized {
    fn to_numbers(&self) -> [i64; WIDTH];
    /// `None` for numbers that stand for nothing.
    fn from_numbers(numbers: &[i64; WIDTH]) -> Option<Self>;
}

/// IPv4 is held v4-mapped: without these bits its numbers are short.
const MAPPED: u64 = 0xffff_0000_0000;

impl End {
    pub(super) fn inside(row: &Row) -> Self {
        Self { peer: row.peer, addr: row.tuple.peer_addr, resource: row.peer_resource }
    }

    pub(super) fn other(row: &Row) -> Self {
        Self { peer: row.remote_peer, addr: row.tuple.remote_addr, resource: row.remote_resource }
    }
}

/// In as few words as it has: every record is looked up by its ends and its kind.
impl Hash for End {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { peer, addr, resource } = self;
        let bits = addr.to_bits();
        state.write_u64((bits >> 64) as u64);
        state.write_u64(bits as u64);
        state.write_u64((name(*peer) << 32 | name(*resource)).cast_unsigned());
    }
}

impl Entry<4> for End {
    fn to_numbers(&self) -> [i64; 4] {
        let bits = self.addr.to_bits();
        let (high, low) = ((bits >> 64) as u64, bits as u64);
        let low = if high == 0 { low ^ MAPPED } else { low };
        [name(self.peer), high.cast_signed(), low.cast_signed(), name(self.resource)]
    }

    fn from_numbers(&[peer, high, low, resource]: &[i64; 4]) -> Option<Self> {
        let (high, low) = (high.cast_unsigned(), low.cast_unsigned());
        let low = if high == 0 { low ^ MAPPED } else { low };
        let addr = Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low));
        Some(Self { peer: name_id(peer)?, addr, resource: name_id(resource)? })
    }
}

impl Kind {
    pub(super) fn of(row: &Row) -> Self {
        Self {
            interface: row.interface,
            protocol: row.tuple.protocol,
            overflow: row.overflow,
            initiator: row.initiator,
            icmp: row.icmp,
            verdict: row.verdict,
            enforced: row.enforced,
            rule: row.rule,
            policy_revision: row.policy_revision,
            opens: row.opens(),
        }
    }
}

/// As [`End`]'s.
impl Hash for Kind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [interface, protocol, words, icmp, rule, revision] =
            self.to_numbers().map(i64::cast_unsigned);
        state.write_u64(interface << 32 | rule);
        state.write_u64(revision << 32 | words);
        state.write_u64(icmp << 8 | protocol);
    }
}

impl Entry<6> for Kind {
    fn to_numbers(&self) -> [i64; 6] {
        let words = i64::from(self.overflow)
            | i64::from(self.enforced) << 1
            | i64::from(self.opens) << 2
            | i64::from(self.verdict.number()) << 3
            | i64::from(self.initiator.number()) << 11;
        let icmp =
            self.icmp.map_or(0, |icmp| 1 + i64::from(u16::from_be_bytes([icmp.r#type, icmp.code])));
        [
            i64::from(self.interface),
            i64::from(self.protocol),
            words,
            icmp,
            name(self.rule),
            i64::from(self.policy_revision),
        ]
    }

    fn from_numbers(
        &[interface, protocol, words, icmp, rule, revision]: &[i64; 6],
    ) -> Option<Self> {
        let word = |shift: u32| u8::try_from(words >> shift & 0xff).ok();
        let icmp = match icmp {
            0 => None,
            known => {
                let [kind, code] = u16::try_from(known - 1).ok()?.to_be_bytes();
                Some(Icmp { r#type: kind, code })
            }
        };
        if words >> 19 != 0 {
            return None;
        }
        Some(Self {
            interface: u32::try_from(interface).ok()?,
            protocol: u8::try_from(protocol).ok()?,
            overflow: words & 1 != 0,
            enforced: words & 2 != 0,
            opens: words & 4 != 0,
            verdict: Verdict::from_number(word(3)?)?,
            initiator: Initiator::from_number(word(11)?)?,
            icmp,
            rule: name_id(rule)?,
            policy_revision: u32::try_from(revision).ok()?,
        })
    }
}

impl State {
    pub(super) fn of(row: &Row, starts: bool) -> Self {
        Self { tcp_flags: row.tcp_flags, end_reason: row.end_reason, starts }
    }
}

impl Entry<3> for State {
    fn to_numbers(&self) -> [i64; 3] {
        let flags = u16::from_be_bytes([self.tcp_flags.rx, self.tcp_flags.tx]);
        let end = self.end_reason.map_or(0, EndReason::number);
        [i64::from(flags), i64::from(end), i64::from(self.starts)]
    }

    fn from_numbers(&[flags, end, starts]: &[i64; 3]) -> Option<Self> {
        let [rx, tx] = u16::try_from(flags).ok()?.to_be_bytes();
        let end_reason = match end {
            0 => None,
            number => Some(EndReason::from_number(u8::try_from(number).ok()?)?),
        };
        let starts = matches!(starts, 0 | 1).then_some(starts == 1)?;
        Some(Self { tcp_flags: TcpFlags { rx, tx }, end_reason, starts })
    }
}

fn name(id: NameId) -> i64 {
    id.map_or(0, |id| i64::from(id.get()))
}

fn name_id(number: i64) -> Option<NameId> {
    Some(std::num::NonZeroU32::new(u32::try_from(number).ok()?))
}
