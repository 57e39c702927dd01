//! The packet parser over the bytes of one packet.
//!
//! - both directions of the same bytes, and the mirrored packet in the other one, have one key
//! - a packet that is cut off is truncated, or means the same
//! - an ICMP error quotes the flow that the quoted packet has when it is met itself

#![no_main]

use flowd_common::{
    counter::Direction,
    flow::{FlowKey, Initiator},
    packet::{Fragment, Headers, Packet, Skip, Weight, has_ports, headers, is_icmp_error},
};
use libfuzzer_sys::fuzz_target;

const IFINDEX: u32 = 7;
/// Bytes before the packet that an ICMP error quotes.
const ICMP_BYTES: usize = 8;

struct Bytes<'a>(&'a [u8]);

impl Packet for Bytes<'_> {
    fn read<T: bytemuck::Pod>(&self, offset: usize) -> Option<T> {
        let bytes = self.0.get(offset..offset.checked_add(size_of::<T>())?)?;
        Some(bytemuck::pod_read_unaligned(bytes))
    }
}

fuzz_target!(|bytes: &[u8]| {
    let there = parse(bytes, Direction::Ingress);
    let back = parse(bytes, Direction::Egress);
    cut_off(bytes, there);
    let (there, back) = match (there, back) {
        (Ok(there), Ok(back)) => (there, back),
        (there, back) => return assert_eq!(there.err(), back.err(), "directions differ"),
    };
    plausible(&there, bytes);
    exchanged(&there, &back);
    mirrored(bytes, &there);
    quoted(bytes, &there);
});

fn parse(bytes: &[u8], direction: Direction) -> Result<Headers, Skip> {
    headers(&Bytes(bytes), IFINDEX, direction)
}

/// Every beginning of a packet is truncated, or is read like all of it.
fn cut_off(bytes: &[u8], whole: Result<Headers, Skip>) {
    for len in 0..bytes.len() {
        let part = parse(&bytes[..len], Direction::Ingress);
        assert!(part == whole || part == Err(Skip::Truncated), "{len} bytes: {part:?}, {whole:?}");
    }
}

fn plausible(headers: &Headers, bytes: &[u8]) {
    let Headers { key, header_bytes, fragment, fragment_id, tcp_flags, icmp_type, icmp_code } =
        headers;
    assert_eq!((key.ifindex, key.generation, key.reserved), (IFINDEX, 0, [0; 2]));
    assert_eq!(key.peer.is_v4(), key.remote.is_v4(), "families are mixed");
    assert!(*header_bytes >= if key.peer.is_v4() { 20 } else { 40 });
    assert!(*fragment != Fragment::Whole || *fragment_id == 0);
    let of_tcp = *tcp_flags != 0;
    let of_icmp = (*icmp_type, *icmp_code) != (0, 0);
    assert!(!of_tcp || key.protocol == 6);
    assert!(!of_icmp || matches!(key.protocol, 1 | 58));
    if *fragment == Fragment::Later {
        assert!(!of_tcp && !of_icmp && (key.peer_port, key.remote_port) == (0, 0));
    }
    let len = bytes.len() as u32;
    let weight = Weight::of(len, *header_bytes, 1 + len / 3, 0);
    assert!(weight.packets >= 1 && weight.bytes >= u64::from(len), "{weight:?}");
}

/// The two directions of the same bytes differ in nothing but who is who.
fn exchanged(there: &Headers, back: &Headers) {
    let mut key = FlowKey { peer: back.key.remote, remote: back.key.peer, ..back.key };
    if has_ports(key.protocol) {
        (key.peer_port, key.remote_port) = (back.key.remote_port, back.key.peer_port);
    }
    assert_eq!(*there, Headers { key, ..*back });
    let initiators = [there.initiator(Direction::Ingress), back.initiator(Direction::Egress)];
    let exchanged = match initiators[0] {
        Initiator::Peer => Initiator::Remote,
        Initiator::Remote => Initiator::Peer,
        Initiator::Unknown => Initiator::Unknown,
    };
    assert_eq!(initiators[1], exchanged);
    assert_ne!(there.datagram(Direction::Ingress), back.datagram(Direction::Egress));
    let mut joined = *there;
    joined.join(there.for_later_fragments());
    assert_eq!(joined, *there);
}

/// The answer, sent the other way, is of the same flow.
fn mirrored(bytes: &[u8], there: &Headers) {
    let mut answer = bytes.to_vec();
    let is_v4 = there.key.peer.is_v4();
    let (source, octets) = if is_v4 { (12, 4) } else { (8, 16) };
    let (one, other) = answer[source..source + 2 * octets].split_at_mut(octets);
    one.swap_with_slice(other);
    if has_ports(there.key.protocol) && there.fragment != Fragment::Later {
        let ports = if is_v4 { usize::from(bytes[0] & 0xf) * 4 } else { 40 };
        // The number in the header; behind extension headers the ports are somewhere else.
        if bytes[if is_v4 { 9 } else { 6 }] != there.key.protocol {
            return;
        }
        let (one, other) = answer[ports..ports + 4].split_at_mut(2);
        one.swap_with_slice(other);
    }
    let answer = parse(&answer, Direction::Egress).expect("the answer is as good as the packet");
    assert_eq!(answer.key, there.key);
}

fn quoted(bytes: &[u8], there: &Headers) {
    let Headers { key, header_bytes, fragment, icmp_type, .. } = there;
    if *fragment == Fragment::Later || !is_icmp_error(key.protocol, *icmp_type) {
        return;
    }
    let flow = Headers::quoted(&Bytes(bytes), *header_bytes, IFINDEX, Direction::Ingress);
    if let Some(flow) = flow {
        assert_eq!((flow.ifindex, flow.generation, flow.reserved), (IFINDEX, 0, [0; 2]));
    }
    let inner = bytes.get(*header_bytes as usize + ICMP_BYTES..).unwrap_or_default();
    let Ok(met) = parse(inner, Direction::Egress) else { return };
    let is_behind_extensions = !met.key.peer.is_v4() && inner[6] != met.key.protocol;
    if met.fragment != Fragment::Later && !is_behind_extensions {
        assert_eq!(flow, Some(met.key));
    }
}
