//! Records and rows as bytes, the same for whoever makes them: numbers in network byte order, texts
//! with their lengths, a byte before what may be missing.

use sha2::{Digest as _, Sha256};

use super::{Hash, SectionSeal};
use crate::{
    chunk::Row,
    flows::{Counters, EndReason, Icmp, Identity, TcpFlags, Tuple},
};

/// What the numbers of a [`Row`] stand for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Named<'a> {
    /// Name of the interface.
    pub interface: &'a str,
    /// [`identity`] of the peer.
    pub peer: Option<Hash>,
    /// The same of the peer at the other end.
    pub remote_peer: Option<Hash>,
    /// The resource around the inside address.
    pub peer_resource: Option<&'a str>,
    /// The resource around the other address.
    pub remote_resource: Option<&'a str>,
    /// The rule that decided.
    pub rule: Option<&'a str>,
}

/// Appends a record, every column of it.
pub(super) fn record(out: &mut Vec<u8>, row: &Row, named: &Named<'_>) {
    let Row {
        record_id,
        // Numbers of the file; their names are in `named`.
        interface: _,
        peer: _,
        remote_peer: _,
        peer_resource: _,
        remote_resource: _,
        rule: _,
        tuple: Tuple { protocol, peer_addr, remote_addr, peer_port, remote_port },
        window_start_ms,
        window_end_ms,
        first_seen_ms,
        last_seen_ms,
        initiator,
        icmp,
        verdict,
        enforced,
        policy_revision,
        counters,
        total,
        tcp_flags: TcpFlags { rx, tx },
        end_reason,
        overflow,
    } = row;
    out.extend(record_id.to_be_bytes());
    text(out, named.interface);
    out.push(*protocol);
    out.extend(peer_addr.octets());
    out.extend(remote_addr.octets());
    out.extend(peer_port.to_be_bytes());
    out.extend(remote_port.to_be_bytes());
    for time_ms in [window_start_ms, window_end_ms, first_seen_ms, last_seen_ms] {
        out.extend(time_ms.to_be_bytes());
    }
    out.push(initiator.number());
    option(out, *icmp, |out, Icmp { r#type, code }| out.extend([r#type, code]));
    for peer in [named.peer, named.remote_peer] {
        option(out, peer, |out, Hash(hash)| out.extend(hash));
    }
    for name in [named.peer_resource, named.remote_resource, named.rule] {
        option(out, name, text);
    }
    out.extend([verdict.number(), u8::from(*enforced)]);
    out.extend(policy_revision.to_be_bytes());
    for Counters { rx_packets, rx_bytes, tx_packets, tx_bytes } in [counters, total] {
        for count in [rx_packets, rx_bytes, tx_packets, tx_bytes] {
            out.extend(count.to_be_bytes());
        }
    }
    out.extend([*rx, *tx]);
    option(out, end_reason.map(EndReason::number), Vec::push);
    out.push(u8::from(*overflow));
}

/// What stands for a peer in a record: the hash of what was known of it.
pub fn identity(identity: &Identity) -> Hash {
    let Identity { public_key, name, user, device, groups, endpoint } = identity;
    let mut out = b"flowd identity 1\n".to_vec();
    text(&mut out, public_key);
    text(&mut out, name);
    option(&mut out, user.as_deref(), text);
    option(&mut out, device.as_deref(), text);
    out.extend(length(groups.len()));
    groups.iter().for_each(|group| text(&mut out, group));
    let endpoint = endpoint.map(|endpoint| endpoint.to_string());
    option(&mut out, endpoint.as_deref(), text);
    Hash::of(&out)
}

/// A value of a row that is no record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// SQL's NULL.
    Null,
    /// A number.
    Integer(i64),
    /// A text.
    Text(&'a str),
}

/// What a day has besides its records: rows of one kind, in any order.
#[derive(Debug, Default)]
pub struct Section(Vec<Vec<u8>>);

impl Section {
    /// Adds a row.
    pub fn row<'a>(&mut self, values: impl IntoIterator<Item = Value<'a>>) {
        let mut out = Vec::new();
        for value in values {
            match value {
                Value::Null => out.push(0),
                Value::Integer(number) => {
                    out.push(1);
                    out.extend(number.to_be_bytes());
                }
                Value::Text(value) => {
                    out.push(2);
                    text(&mut out, value);
                }
            }
        }
        self.0.push(out);
    }

    /// How many rows there are, and their hash: each with its length, sorted as bytes are.
    pub fn seal(mut self) -> SectionSeal {
        self.0.sort_unstable();
        let mut hasher = Sha256::new();
        for row in &self.0 {
            hasher.update(length(row.len()));
            hasher.update(row);
        }
        SectionSeal { rows: self.0.len() as u64, sha256: Hash::done(hasher) }
    }
}

pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    out.extend(length(text.len()));
    out.extend(text.as_bytes());
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("SQLite's values are shorter").to_be_bytes()
}

fn option<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}
