//! Which records a reader asks for. The same filter serves the store, the live table and `watch`.

use ipnet::IpNet;

use super::{Identity, Initiator, Opening, Record, Verdict};

/// Whether a flow still lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is in the kernel's table.
    Open,
    /// It has ended.
    Closed,
}

/// What decided a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decider {
    /// The rule with this id.
    Rule(String),
    /// No rule: the policy's default, or there is no policy. Overflow is never decided by a rule.
    Nobody,
}

impl Decider {
    /// The rule's id.
    pub fn rule(&self) -> Option<&str> {
        match self {
            Self::Rule(id) => Some(id),
            Self::Nobody => None,
        }
    }
}

/// A conjunction: an absent part matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Unix milliseconds; the range is half open: `since <= window_end < until`.
    pub since_ms: Option<i64>,
    /// Unix milliseconds.
    pub until_ms: Option<i64>,
    /// Name, public key or the start of the key, of the peer at either end.
    pub peer: Option<String>,
    /// User of the peer at either end.
    pub user: Option<String>,
    /// The initiator's address (the peer's side where the initiator is unknown).
    pub src: Option<IpNet>,
    /// The other address.
    pub dst: Option<IpNet>,
    /// Either address.
    pub ip: Option<IpNet>,
    /// Either port, of protocols that have ports.
    pub port: Option<u16>,
    /// The port at `src`.
    pub src_port: Option<u16>,
    /// The port at `dst`.
    pub dst_port: Option<u16>,
    /// IANA protocol number.
    pub protocol: Option<u8>,
    /// What the policy says.
    pub verdict: Option<Verdict>,
    /// What decided.
    pub rule: Option<Decider>,
    /// Who opened the flow.
    pub initiator: Option<Initiator>,
    /// Name of the interface.
    pub interface: Option<String>,
    /// What its flow had moved by the end of a record, both ways, since its first packet.
    pub min_bytes: Option<u64>,
    /// Of the flow, not of a record: [`Filter::matches`] does not look at it.
    pub state: Option<State>,
}

impl Filter {
    /// Which of the records that match is the first of its flow.
    pub fn opening(&self) -> Opening {
        Opening {
            since_ms: self.since_ms.unwrap_or(i64::MIN),
            min_bytes: self.min_bytes.unwrap_or_default(),
        }
    }

    /// Whether a record is asked for, apart from the state of its flow.
    pub fn matches(&self, record: &Record) -> bool {
        let Self {
            since_ms,
            until_ms,
            peer,
            user,
            src,
            dst,
            ip,
            port,
            src_port,
            dst_port,
            protocol,
            verdict,
            rule,
            initiator,
            interface,
            min_bytes,
            state: _,
        } = self;
        let tuple = &record.tuple;
        let (from, to) = record.initiator.first(tuple.peer_ip(), tuple.remote_ip());
        let (from_port, to_port) = record.initiator.first(tuple.peer_port, tuple.remote_port);
        let is = |wanted: &u16, port: u16| tuple.has_ports() && *wanted == port;
        let any_address = src.is_some() || dst.is_some() || ip.is_some();
        let any_port = port.is_some() || src_port.is_some() || dst_port.is_some();
        let of_flows = any_address || any_port || protocol.is_some() || initiator.is_some();
        since_ms.is_none_or(|since| since <= record.window_end_ms)
            && until_ms.is_none_or(|until| record.window_end_ms < until)
            && !(record.overflow && of_flows)
            && protocol.is_none_or(|wanted| wanted == tuple.protocol)
            && verdict.is_none_or(|wanted| wanted == record.verdict)
            && rule.as_ref().is_none_or(|wanted| wanted.rule() == record.rule.as_deref())
            && initiator.is_none_or(|wanted| wanted == record.initiator)
            && interface.as_ref().is_none_or(|wanted| **wanted == *record.interface)
            && min_bytes.is_none_or(|least| least <= record.total.bytes())
            && port.as_ref().is_none_or(|wanted| is(wanted, from_port) || is(wanted, to_port))
            && src_port.as_ref().is_none_or(|wanted| is(wanted, from_port))
            && dst_port.as_ref().is_none_or(|wanted| is(wanted, to_port))
            && src.is_none_or(|net| net.contains(&from))
            && dst.is_none_or(|net| net.contains(&to))
            && ip.is_none_or(|net| net.contains(&from) || net.contains(&to))
            && peer.as_ref().is_none_or(|wanted| either_end(record, |identity| identity.is(wanted)))
            && user.as_ref().is_none_or(|wanted| {
                either_end(record, |identity| identity.user.as_ref() == Some(wanted))
            })
    }
}

fn either_end(record: &Record, is_wanted: impl Fn(&Identity) -> bool) -> bool {
    [&record.peer, &record.remote_peer].into_iter().flatten().any(|identity| is_wanted(identity))
}

#[cfg(test)]
mod tests {
    use super::{Decider, Filter};
    use crate::flows::{Initiator, Record, Tuple, Verdict, sample};

    fn matched(filter: &Filter) -> Vec<&'static str> {
        let denied = Record {
            verdict: Verdict::Deny,
            rule: Some("no-smtp".into()),
            peer: Some(sample::peer("bob", None)),
            remote_peer: Some(sample::peer("alice", Some("alice@example.com"))),
            ..sample::record()
        };
        let overflow = Record {
            verdict: Verdict::Deny,
            peer: Some(sample::peer("carol", Some("carol@example.com"))),
            ..sample::overflow()
        };
        let all = [("allowed", sample::record()), ("denied", denied), ("overflow", overflow)];
        let matching = all.into_iter().filter(|(_, record)| filter.matches(record));
        matching.map(|(name, _)| name).collect()
    }

    #[test]
    fn verdict_rule_and_user_narrow() {
        let none = Filter::default;
        let rule = |id: &str| Filter { rule: Some(Decider::Rule(id.to_owned())), ..none() };
        let user = |user: &str| Filter { user: Some(user.to_owned()), ..none() };
        let nobody = Filter { rule: Some(Decider::Nobody), ..none() };
        let cases = [
            (none(), vec!["allowed", "denied", "overflow"]),
            (Filter { verdict: Some(Verdict::Allow), ..none() }, vec!["allowed"]),
            (Filter { verdict: Some(Verdict::Deny), ..none() }, vec!["denied", "overflow"]),
            (rule("no-smtp"), vec!["denied"]),
            (rule("no"), vec![]),
            (nobody.clone(), vec!["allowed", "overflow"]),
            (user("alice@example.com"), vec!["allowed", "denied"]),
            (user("carol@example.com"), vec!["overflow"]),
            (user("alice"), vec![]),
            (Filter { user: Some("carol@example.com".to_owned()), ..nobody }, vec!["overflow"]),
        ];
        for (filter, expected) in cases {
            assert_eq!(matched(&filter), expected, "{filter:?}");
        }
    }

    #[test]
    fn ports_sides_interface_and_size_narrow() {
        let from_outside =
            Record { initiator: Initiator::Remote, interface: "wg1".into(), ..sample::record() };
        let ping = Record {
            tuple: Tuple { protocol: 1, peer_port: 443, ..sample::record().tuple },
            initiator: Initiator::Unknown,
            counters: sample::record().counters,
            total: sample::record().total + sample::record().total,
            ..sample::record()
        };
        let records = [
            ("to", sample::record()),
            ("from", from_outside),
            ("ping", ping),
            ("overflow", sample::overflow()),
        ];
        let all = vec!["to", "from", "ping", "overflow"];
        let none = Filter::default;
        let wg = |name: &str| Filter { interface: Some(name.to_owned()), ..none() };
        let least = |bytes| Filter { min_bytes: Some(bytes), ..none() };
        let opened = |by| Filter { initiator: Some(by), ..none() };
        let cases = [
            (none(), all.clone()),
            (Filter { port: Some(443), ..none() }, vec!["to", "from"]),
            (Filter { src_port: Some(443), ..none() }, vec!["from"]),
            (Filter { dst_port: Some(443), ..none() }, vec!["to"]),
            (Filter { src_port: Some(40_000), dst_port: Some(443), ..none() }, vec!["to"]),
            (Filter { src_port: Some(443), dst_port: Some(443), ..none() }, vec![]),
            (opened(Initiator::Peer), vec!["to"]),
            (opened(Initiator::Remote), vec!["from"]),
            (opened(Initiator::Unknown), vec!["ping"]),
            (wg("wg0"), vec!["to", "ping", "overflow"]),
            (wg("wg1"), vec!["from"]),
            (wg("wg"), vec![]),
            (least(0), all.clone()),
            (least(180), all),
            (least(181), vec!["ping"]),
            (least(361), vec![]),
        ];
        for (filter, expected) in cases {
            let matching = records.iter().filter(|(_, record)| filter.matches(record));
            let names: Vec<_> = matching.map(|(name, _)| *name).collect();
            assert_eq!(names, expected, "{filter:?}");
        }
    }
}
