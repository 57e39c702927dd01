//! What a filter asks of chunks, so that most of them, and most of the others, need not be read.
//!
//! It never leaves out a record that the filter wants; the filter itself has the last word.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv6Addr},
    ops::RangeInclusive,
    sync::Arc,
};

use foldhash::fast::RandomState;
use ipnet::IpNet;

use super::{
    chunks::{Stored, damaged},
    row::Names,
    source::Source,
};
use crate::{
    chunk::{ColumnId, ColumnSet, End, Header, Kind, Member, NameId, Number, Plan, Predicate},
    flows::{Decider, Filter, Identity, Initiator, Tuple},
};

/// What is asked of the records of one segment's chunks.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// All of these hold; headers alone may say that they do not.
    ranges: Vec<(Number, RangeInclusive<i64>)>,
    /// One of each may be in the chunk, or there is nothing in it.
    members: Vec<Vec<Member>>,
    /// All of these hold.
    predicates: Vec<Predicate>,
}

impl Wanted {
    pub(super) fn of<'n>(
        filter: &Filter,
        names: impl Fn() -> rusqlite::Result<&'n Names>,
    ) -> rusqlite::Result<Self> {
        let mut wanted = Self::default();
        if filter.since_ms.is_some() || filter.until_ms.is_some() {
            let since_ms = filter.since_ms.unwrap_or(i64::MIN);
            let until_ms = filter.until_ms.map_or(i64::MAX, |until| until.saturating_sub(1));
            wanted.ranges.push((Number::WindowEnd, since_ms..=until_ms));
        }
        wanted.kinds(filter, &names)?;
        wanted.ports(filter);
        wanted.addresses(filter);
        if let Some(peer) = &filter.peer {
            wanted.peers(names()?, |identity| identity.is(peer));
        }
        if filter.user.is_some() {
            wanted.peers(names()?, |identity| identity.user == filter.user);
        }
        // Both directions together are that much only if one of them is half of it.
        if let Some(least) = filter.min_bytes {
            let half = i64::try_from(least.div_ceil(2)).unwrap_or(i64::MAX);
            let one_way = |number| Predicate::Number(number, half..=i64::MAX);
            let both = [Number::RxBytesTotal, Number::TxBytesTotal].map(one_way);
            wanted.predicates.push(Predicate::Any(both.into()));
        }
        Ok(wanted)
    }

    /// The same, and that a number lies in a range.
    pub(super) fn within(&self, number: Number, range: RangeInclusive<i64>) -> Self {
        let mut narrow = self.clone();
        narrow.ranges.push((number, range));
        narrow
    }

    /// The same, and that a number lies in one of these ranges.
    pub(super) fn within_any(mut self, number: Number, ranges: &[RangeInclusive<i64>]) -> Self {
        let ranges = ranges.iter().map(|range| Predicate::Number(number, range.clone()));
        self.predicates.push(Predicate::Any(ranges.collect()));
        self
    }

    /// The same, and that records are between these ends.
    pub(super) fn between(&self, tuple: &Tuple) -> Self {
        let is = |wanted: Ipv6Addr| Arc::new(move |end: &End| end.addr == wanted);
        let Self { ranges, mut members, mut predicates } = self.clone();
        members.extend([tuple.peer_addr, tuple.remote_addr].map(|it| vec![Member::Address(it)]));
        predicates.push(Predicate::Peer(is(tuple.peer_addr)));
        predicates.push(Predicate::Remote(is(tuple.remote_addr)));
        Self { ranges, members, predicates }
    }

    /// Whether there may be anything in a chunk with this header.
    pub(super) fn may_have(&self, header: &Header) -> bool {
        self.ranges.iter().all(|(number, range)| {
            let zone = header.zone(*number);
            range.start() <= zone.end() && zone.start() <= range.end()
        })
    }

    /// What a chunk makes of it; `None`: it has nothing of the kind.
    pub(super) fn plan(
        &self,
        source: &(impl Source + ?Sized),
        stored: &Stored,
    ) -> rusqlite::Result<Option<Plan>> {
        if !self.may_have(stored.chunk.header()) {
            return Ok(None);
        }
        if !self.members.is_empty() {
            source.need(stored, ColumnSet::default().with(ColumnId::Members))?;
            let members = stored.chunk.members().map_err(damaged)?;
            let may_have = |any: &Vec<Member>| any.iter().any(|key| members.may_have(*key));
            if !self.members.iter().all(may_have) {
                return Ok(None);
            }
        }
        let ranges =
            self.ranges.iter().map(|(number, range)| Predicate::Number(*number, range.clone()));
        // What is cheap to read comes first: ranges of times need the ids too.
        let predicate = Predicate::All(self.predicates.iter().cloned().chain(ranges).collect());
        source.need(stored, predicate.dictionaries())?;
        let plan = Plan::of(&predicate, &stored.chunk).map_err(damaged)?;
        Ok((!plan.is_nothing()).then_some(plan))
    }

    /// What is the same for all records of a run.
    fn kinds<'n>(
        &mut self,
        filter: &Filter,
        names: &impl Fn() -> rusqlite::Result<&'n Names>,
    ) -> rusqlite::Result<()> {
        let Filter { src, dst, ip, port, src_port, dst_port, .. } = filter;
        let Filter { protocol, verdict, initiator, .. } = *filter;
        let any_address = src.is_some() || dst.is_some() || ip.is_some();
        let any_port = port.is_some() || src_port.is_some() || dst_port.is_some();
        let of_flows = any_address || any_port || protocol.is_some() || initiator.is_some();
        // A rule or an interface that the segment does not know decided nothing in it.
        let rule: Option<Vec<NameId>> = match filter.rule.as_ref().map(Decider::rule) {
            None => None,
            Some(None) => Some(vec![None]),
            Some(Some(text)) => {
                let known = names()?.words.iter().filter(|(_, word)| &***word == text);
                Some(known.map(|(id, _)| std::num::NonZeroU32::new(*id)).collect())
            }
        };
        let interface: Option<Vec<i64>> = match &filter.interface {
            None => None,
            Some(wanted) => {
                let known = names()?.interfaces.iter();
                let known = known.filter(|(_, name)| &***name == wanted.as_str());
                Some(known.map(|(id, _)| *id).collect())
            }
        };
        let is_asked = of_flows || verdict.is_some() || rule.is_some() || interface.is_some();
        if !is_asked {
            return Ok(());
        }
        let judge = move |kind: &Kind| {
            !(kind.overflow && of_flows)
                && protocol.is_none_or(|wanted| wanted == kind.protocol)
                && verdict.is_none_or(|wanted| wanted == kind.verdict)
                && initiator.is_none_or(|wanted| wanted == kind.initiator)
                && rule.as_ref().is_none_or(|wanted| wanted.contains(&kind.rule))
                && interface
                    .as_ref()
                    .is_none_or(|wanted| wanted.contains(&i64::from(kind.interface)))
                && (!any_port || flowd_common::packet::has_ports(kind.protocol))
        };
        self.predicates.push(Predicate::Kind(Arc::new(judge)));
        Ok(())
    }

    fn ports(&mut self, filter: &Filter) {
        let is = |number, port: u16| Predicate::Number(number, port.into()..=port.into());
        if let Some(port) = filter.port {
            let either = [Number::SrcPort, Number::DstPort].map(|number| is(number, port));
            self.predicates.push(Predicate::Any(either.into()));
        }
        for (number, port) in
            [(Number::SrcPort, filter.src_port), (Number::DstPort, filter.dst_port)]
        {
            self.predicates.extend(port.map(|port| is(number, port)));
        }
    }

    fn addresses(&mut self, filter: &Filter) {
        let inside = |net: IpNet| {
            Predicate::Peer(Arc::new(move |end: &End| net.contains(&end.addr.to_canonical())))
        };
        let other = |net: IpNet| {
            Predicate::Remote(Arc::new(move |end: &End| net.contains(&end.addr.to_canonical())))
        };
        let inward = |is: bool| {
            Predicate::Kind(Arc::new(move |kind: &Kind| {
                (kind.initiator == Initiator::Remote) == is
            }))
        };
        if let Some(net) = filter.ip {
            self.predicates.push(Predicate::Any(vec![inside(net), other(net)]));
        }
        for (net, is_source) in [(filter.src, true), (filter.dst, false)] {
            let Some(net) = net else { continue };
            self.predicates.push(Predicate::Any(vec![
                Predicate::All(vec![inward(!is_source), inside(net)]),
                Predicate::All(vec![inward(is_source), other(net)]),
            ]));
        }
        for net in [filter.ip, filter.src, filter.dst].into_iter().flatten() {
            if net.prefix_len() == net.max_prefix_len() {
                let addr = match net.addr() {
                    IpAddr::V4(addr) => addr.to_ipv6_mapped(),
                    IpAddr::V6(addr) => addr,
                };
                self.members.push(vec![Member::Address(addr)]);
            }
        }
    }

    /// A peer at either end.
    fn peers(&mut self, names: &Names, is_wanted: impl Fn(&Identity) -> bool) {
        let states = names.peers.iter().filter(|(_, identity)| is_wanted(identity));
        let ids: HashSet<u32, RandomState> =
            states.filter_map(|(id, _)| u32::try_from(*id).ok()).collect();
        let keys = ids.iter().map(|id| Member::Peer(NameId::from(std::num::NonZeroU32::new(*id))));
        self.members.push(keys.collect());
        let judge = move |end: &End| end.peer.is_some_and(|id| ids.contains(&id.get()));
        let judge = Arc::new(judge);
        self.predicates
            .push(Predicate::Any(vec![Predicate::Peer(judge.clone()), Predicate::Remote(judge)]));
    }
}
