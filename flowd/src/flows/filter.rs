//! Which records a reader asks for. The same filter serves the store, the live table and `watch`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Initiator, Record};

/// Whether a flow still lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is in the kernel's table.
    Open,
    /// It has ended.
    Closed,
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
    /// The initiator's address (the peer's side where the initiator is unknown).
    pub src: Option<IpNet>,
    /// The other address.
    pub dst: Option<IpNet>,
    /// Either address.
    pub ip: Option<IpNet>,
    /// Either port, of protocols that have ports.
    pub port: Option<u16>,
    /// IANA protocol number.
    pub protocol: Option<u8>,
    /// Of the flow, not of a record: [`Filter::matches`] does not look at it.
    pub state: Option<State>,
}

impl Filter {
    /// Whether a record is asked for, apart from the state of its flow.
    pub fn matches(&self, record: &Record) -> bool {
        let Self { since_ms, until_ms, peer, src, dst, ip, port, protocol, state: _ } = self;
        let (from, to) = initiator_first(record);
        let tuple = &record.tuple;
        let any_address = src.is_some() || dst.is_some() || ip.is_some();
        since_ms.is_none_or(|since| since <= record.window_end_ms)
            && until_ms.is_none_or(|until| record.window_end_ms < until)
            && !(record.overflow && (any_address || port.is_some() || protocol.is_some()))
            && protocol.is_none_or(|wanted| wanted == tuple.protocol)
            && port.is_none_or(|wanted| {
                tuple.has_ports() && (wanted == tuple.peer_port || wanted == tuple.remote_port)
            })
            && src.is_none_or(|net| net.contains(&from))
            && dst.is_none_or(|net| net.contains(&to))
            && ip.is_none_or(|net| net.contains(&from) || net.contains(&to))
            && peer.as_ref().is_none_or(|wanted| {
                [&record.peer, &record.remote_peer]
                    .into_iter()
                    .flatten()
                    .any(|identity| identity.is(wanted))
            })
    }
}

fn initiator_first(record: &Record) -> (IpAddr, IpAddr) {
    let (peer, remote) = (record.tuple.peer_ip(), record.tuple.remote_ip());
    match record.initiator {
        Initiator::Peer | Initiator::Unknown => (peer, remote),
        Initiator::Remote => (remote, peer),
    }
}
