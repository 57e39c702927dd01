//! What a policy would have said of records: which verdicts change, for whom, and by which rules.
//!
//! - A record is judged by what was frozen in it, the identities of that time; the gateway's own
//!   addresses are those of now.
//! - A flow whose initiator is unknown may pass when either side may open it, as in the kernel.
//! - An ICMP error that the policy would deny is left as it was: the flow that it quotes may allow
//!   it, and what it quotes is not recorded. Neither is what overflow consists of.
//! - What was dropped counts with the packets that tried to pass; had it been allowed, there would
//!   have been more.

mod judge;

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use flowd_common::{packet::is_icmp_error, policy::service};

use self::judge::{End, Judge};
use super::{Policy, Service};
use crate::flows::{Initiator, Opening, Record, Tally, Verdict};

/// Replays records, one by one.
#[derive(Debug)]
pub struct Replayer<'p> {
    policy: &'p Policy,
    judge: Judge<'p>,
    opening: Opening,
    allowed: Tally,
    denied: Tally,
    unjudged: Tally,
    turns: HashMap<Turn, Tally>,
}

/// What became of all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// What would be allowed.
    pub allowed: Tally,
    /// What would be denied.
    pub denied: Tally,
    /// Overflow, and ICMP errors that may belong to what is allowed.
    pub unjudged: Tally,
    /// The verdicts that change, the most bytes first.
    pub turns: Vec<(Turn, Tally)>,
}

/// A change of verdict.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Turn {
    /// The peer, by the name it had then.
    pub peer: Option<String>,
    /// What was said.
    pub was: Verdict,
    /// By which rule; `None`: by none.
    pub was_rule: Option<Arc<str>>,
    /// What would be said.
    pub would_be: Verdict,
    /// By which rule; `None`: by none.
    pub rule: Option<Arc<str>>,
}

impl<'p> Replayer<'p> {
    /// Begins what `opening` begins, on a gateway that has these addresses.
    pub fn new(
        policy: &'p Policy,
        gateway: &'p BTreeSet<IpAddr>,
        opening: impl Into<Opening>,
    ) -> Self {
        Self {
            policy,
            judge: Judge::new(policy, gateway, judge::ROOM),
            opening: opening.into(),
            allowed: Tally::default(),
            denied: Tally::default(),
            unjudged: Tally::default(),
            turns: HashMap::new(),
        }
    }

    /// Judges one record of the range.
    pub fn absorb(&mut self, record: &Record) {
        let seen = Tally {
            flows: u64::from(!record.overflow && self.opening.is(record)),
            packets: record.counters.packets(),
            bytes: record.counters.bytes(),
        };
        let Some((would_be, rule)) = self.judge(record) else {
            return add(&mut self.unjudged, &seen);
        };
        match would_be {
            Verdict::Allow => add(&mut self.allowed, &seen),
            Verdict::Deny => add(&mut self.denied, &seen),
        }
        if would_be != record.verdict {
            let turn = Turn {
                peer: record.peer.as_ref().map(|peer| peer.name.clone()),
                was: record.verdict,
                was_rule: record.rule.clone(),
                would_be,
                rule: rule.map(|rule| self.policy.rules[rule].id.clone()),
            };
            add(self.turns.entry(turn).or_default(), &seen);
        }
    }

    /// What became of all of them.
    pub fn finish(self) -> Replayed {
        let Self { policy: _, judge: _, opening: _, allowed, denied, unjudged, turns } = self;
        let mut turns: Vec<_> = turns.into_iter().collect();
        turns.sort_by(|(turn, tally), (other, others)| {
            let rank = |tally: &Tally| Reverse((tally.bytes, tally.packets, tally.flows));
            (rank(tally), turn).cmp(&(rank(others), other))
        });
        Replayed { allowed, denied, unjudged, turns }
    }

    /// What would be said, and by which rule. `None`: that cannot be known.
    fn judge(&mut self, record: &Record) -> Option<(Verdict, Option<usize>)> {
        if record.overflow {
            return None;
        }
        let of_peer = self.opened_by(Initiator::Peer, record);
        let judgement = match record.initiator {
            Initiator::Peer => of_peer,
            Initiator::Remote => self.opened_by(Initiator::Remote, record),
            Initiator::Unknown if of_peer.0 == Verdict::Allow => of_peer,
            Initiator::Unknown => {
                let of_remote = self.opened_by(Initiator::Remote, record);
                if of_remote.0 == Verdict::Allow { of_remote } else { of_peer }
            }
        };
        let is_error =
            record.icmp.is_some_and(|icmp| is_icmp_error(record.tuple.protocol, icmp.r#type));
        (judgement.0 == Verdict::Allow || !is_error).then_some(judgement)
    }

    /// What would be said if this side had opened the flow.
    fn opened_by(&mut self, side: Initiator, record: &Record) -> (Verdict, Option<usize>) {
        let tuple = &record.tuple;
        let near = End { peer: record.peer.as_ref(), ip: tuple.peer_ip() };
        let far = End { peer: record.remote_peer.as_ref(), ip: tuple.remote_ip() };
        let (from, to) = side.first(near, far);
        let (_, port) = side.first(tuple.peer_port, tuple.remote_port);
        let icmp_type = record.icmp.map_or(0, |icmp| icmp.r#type);
        let decision =
            self.judge.decide(&from, &to, Service(service(tuple.protocol, port, icmp_type)));
        (self.policy.verdict(decision), decision)
    }
}

fn add(sum: &mut Tally, more: &Tally) {
    let Tally { flows, packets, bytes } = more;
    sum.flows += flows;
    sum.packets += packets;
    sum.bytes += bytes;
}

#[cfg(test)]
mod tests;
