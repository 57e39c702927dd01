//! Who did most: totals by properties of a flow, and the first of them.

use std::{collections::HashMap, fmt, net::IpAddr};

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Group, Grouping, Opening, Record, Summary, Verdict, protocol_name};

/// What a ranking is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The name that the peer had, whose leg of the tunnel it is.
    Peer,
    /// That peer's user.
    User,
    /// The initiator's address (the peer's side where the initiator is unknown).
    Src,
    /// The other address.
    Dst,
    /// The port at the other address.
    DstPort,
    /// The protocol.
    Protocol,
    /// The rule that decided.
    Rule,
    /// What the policy says.
    Verdict,
}

impl By {
    /// Every one, in the order of the documentation.
    pub const ALL: [Self; 8] = [
        Self::Peer,
        Self::User,
        Self::Src,
        Self::Dst,
        Self::DstPort,
        Self::Protocol,
        Self::Rule,
        Self::Verdict,
    ];

    /// The word in JSON and on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::User => "user",
            Self::Src => "src",
            Self::Dst => "dst",
            Self::DstPort => "dst_port",
            Self::Protocol => "protocol",
            Self::Rule => "rule",
            Self::Verdict => "verdict",
        }
    }

    /// The value of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.word() == word)
    }

    /// The key of a record; `None` where it has none. Overflow has a peer and a verdict, but speaks
    /// of no endpoints and is decided by no rule.
    pub(super) fn key(self, record: &Record) -> Option<Key> {
        let tuple = &record.tuple;
        let of_flow = |key: Key| (!record.overflow).then_some(key);
        let (src, dst) = record.initiator.first(tuple.peer_ip(), tuple.remote_ip());
        match self {
            Self::Peer => record.peer.as_ref().map(|peer| Key::Name(peer.name.clone())),
            Self::User => record.peer.as_ref()?.user.clone().map(Key::Name),
            Self::Src => of_flow(Key::Address(src)),
            Self::Dst => of_flow(Key::Address(dst)),
            Self::DstPort => {
                let (_, port) = record.initiator.first(tuple.peer_port, tuple.remote_port);
                of_flow(Key::Port(port)).filter(|_| tuple.has_ports())
            }
            Self::Protocol => of_flow(Key::Protocol(tuple.protocol)),
            Self::Rule => record.rule.as_deref().map(|rule| Key::Name(rule.to_owned())),
            Self::Verdict => Some(Key::Verdict(record.verdict)),
        }
    }
}

/// What a ranking is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// Bytes of both directions.
    Bytes,
    /// Packets of both directions.
    Packets,
    /// Flows.
    Flows,
}

impl Sort {
    /// Every one, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Bytes, Self::Packets, Self::Flows];

    /// The word in JSON and on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Packets => "packets",
            Self::Flows => "flows",
        }
    }

    /// The value of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|sort| sort.word() == word)
    }

    /// What it is sorted by.
    pub fn of(self, sum: &Summary) -> u64 {
        match self {
            Self::Bytes => sum.counters.bytes(),
            Self::Packets => sum.counters.packets(),
            Self::Flows => sum.flows,
        }
    }
}

/// Which end comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The most, the newest, the longest.
    #[default]
    Descending,
    /// The least, the oldest, the shortest.
    Ascending,
}

impl Order {
    /// The word in queries and on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Descending => "desc",
            Self::Ascending => "asc",
        }
    }

    /// The value of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Descending, Self::Ascending].into_iter().find(|order| order.word() == word)
    }

    /// The same, or the reverse.
    pub fn apply(self, ascending: std::cmp::Ordering) -> std::cmp::Ordering {
        match self {
            Self::Ascending => ascending,
            Self::Descending => ascending.reverse(),
        }
    }
}

/// What the records of one row have in common. The order settles ties: addresses and ports stand
/// in the order of their numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Of a peer, a user or a rule.
    Name(String),
    /// Of one end.
    Address(IpAddr),
    /// Of one end.
    Port(u16),
    /// IANA protocol number.
    Protocol(u8),
    /// What the policy says.
    Verdict(Verdict),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(ip) => ip.fmt(f),
            Self::Port(port) => port.fmt(f),
            Self::Protocol(number) => f.write_str(&protocol_name(*number)),
            Self::Verdict(verdict) => f.write_str(verdict.word()),
        }
    }
}

/// Totals by group; rankings of disjoint sets of records add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranking {
    by: Grouping,
    sums: HashMap<Group, Summary, RandomState>,
}

impl Ranking {
    /// A ranking of no records.
    pub fn new(by: impl Into<Grouping>) -> Self {
        Self { by: by.into(), sums: HashMap::default() }
    }

    /// What the groups are.
    pub fn by(&self) -> &Grouping {
        &self.by
    }

    /// Adds one record of what begins with `opening`. A flow whose group changes in the range (a new
    /// rule, a new name) counts where it was first; its packets count where they were.
    pub fn absorb(&mut self, record: &Record, opening: impl Into<Opening>) {
        self.sums.entry(self.by.group(record)).or_default().absorb(record, opening);
    }

    /// Adds what records of a group add up to.
    pub fn add(&mut self, group: Group, sum: &Summary) {
        self.sums.entry(group).or_default().merge(sum);
    }

    /// Adds a ranking by the same properties of other records.
    pub fn merge(&mut self, other: Self) {
        debug_assert_eq!(self.by, other.by, "peers and ports do not add up");
        for (group, sum) in other.sums {
            self.sums.entry(group).or_default().merge(&sum);
        }
    }

    /// How many groups there are.
    pub fn groups(&self) -> usize {
        self.sums.len()
    }

    /// The totals of every record.
    pub fn total(&self) -> Summary {
        let mut total = Summary::default();
        for sum in self.sums.values() {
            total.merge(sum);
        }
        total
    }

    /// The first `limit` rows, and what all the others are together. Equals stand in the order of
    /// their groups.
    pub fn first(self, limit: usize, sort: Sort, order: Order) -> (Vec<(Group, Summary)>, Summary) {
        let mut rows: Vec<_> = self.sums.into_iter().collect();
        rows.sort_unstable_by(|(a, left), (b, right)| {
            order.apply(sort.of(left).cmp(&sort.of(right))).then_with(|| a.cmp(b))
        });
        let mut rest = Summary::default();
        rows.drain(limit.min(rows.len())..).for_each(|(_, sum)| rest.merge(&sum));
        (rows, rest)
    }
}

#[cfg(test)]
#[path = "top_tests.rs"]
mod tests;
