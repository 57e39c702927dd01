//! The parser on golden packets, on every truncation of them, and on generated ones whose fields
//! are known because they were put in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytemuck::Pod;
use flowd_common::{
    addr::Addr,
    counter::Direction,
    flow::{FlowKey, Initiator},
    limits::MAX_EXTENSIONS,
    packet::{Fragment, Packet, Skip, Weight, headers, tcp},
};
use proptest::prelude::*;

struct Bytes<'a>(&'a [u8]);

impl Packet for Bytes<'_> {
    fn read<T: Pod>(&self, offset: usize) -> Option<T> {
        let bytes = self.0.get(offset..offset.checked_add(size_of::<T>())?)?;
        Some(bytemuck::pod_read_unaligned(bytes))
    }
}

const IFINDEX: u32 = 7;
const PEER: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 2);
const REMOTE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 8, 0, 0, 0, 0, 0, 2);
const REMOTE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

/// An IPv4 packet from the peer; `fragment` is the word of flags and offset.
fn ipv4(protocol: u8, options: &[u8], fragment: u16, payload: &[u8]) -> Vec<u8> {
    assert!(options.len().is_multiple_of(4) && options.len() <= 40);
    let header_bytes = 20 + options.len();
    let mut packet = vec![0x40 | (header_bytes / 4) as u8, 0];
    packet.extend(((header_bytes + payload.len()) as u16).to_be_bytes());
    packet.extend([0xab, 0xcd]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(PEER.octets());
    packet.extend(REMOTE.octets());
    packet.extend(options);
    packet.extend(payload);
    packet
}

/// An IPv6 packet from the peer with extension headers of the given types and eight-byte units
/// beyond the first.
fn ipv6(extensions: &[(u8, u8)], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let types = extensions.iter().map(|(kind, _)| *kind).chain([protocol]).collect::<Vec<_>>();
    let mut behind = Vec::new();
    for (index, (kind, units)) in extensions.iter().enumerate() {
        let mut extension = vec![types[index + 1], *units];
        // AH counts in four-byte units, less two (RFC 4302, section 2.2).
        let bytes = if *kind == 51 { (*units as usize + 2) * 4 } else { (*units as usize + 1) * 8 };
        extension.resize(bytes, 0);
        behind.extend(extension);
    }
    behind.extend(payload);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((behind.len() as u16).to_be_bytes());
    packet.extend([types[0], 64]);
    packet.extend(PEER6.octets());
    packet.extend(REMOTE6.octets());
    packet.extend(behind);
    packet
}

fn tcp_header(src: u16, dst: u16, flags: u8, words: u8) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(src.to_be_bytes());
    header.extend(dst.to_be_bytes());
    header.extend([0; 8]);
    header.extend([words << 4, flags]);
    header.resize(usize::from(words).max(5) * 4, 0);
    header
}

fn udp_header(src: u16, dst: u16) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(src.to_be_bytes());
    header.extend(dst.to_be_bytes());
    header.extend([0, 8, 0, 0]);
    header
}

fn icmp_header(kind: u8, code: u8, id: u16) -> Vec<u8> {
    let mut header = vec![kind, code, 0, 0];
    header.extend(id.to_be_bytes());
    header.extend([0, 1]);
    header
}

fn key(
    peer: impl Into<IpAddr>,
    remote: impl Into<IpAddr>,
    protocol: u8,
    ports: (u16, u16),
) -> FlowKey {
    FlowKey {
        peer: Addr::from(peer.into()),
        remote: Addr::from(remote.into()),
        peer_port: ports.0,
        remote_port: ports.1,
        ifindex: IFINDEX,
        protocol,
        ..FlowKey::default()
    }
}

#[test]
fn golden_packets_have_their_keys() {
    let syn = tcp_header(40000, 443, tcp::SYN, 10);
    let udp = udp_header(5353, 53);
    let cases: [(&str, Vec<u8>, FlowKey, u32); 14] = [
        ("tcp", ipv4(6, &[], 0, &syn), key(PEER, REMOTE, 6, (40000, 443)), 60),
        ("tcp behind options", ipv4(6, &[1; 40], 0, &syn), key(PEER, REMOTE, 6, (40000, 443)), 100),
        ("udp", ipv4(17, &[], 0x4000, &udp), key(PEER, REMOTE, 17, (5353, 53)), 28),
        ("sctp", ipv4(132, &[], 0, &udp), key(PEER, REMOTE, 132, (5353, 53)), 28),
        (
            "echo request",
            ipv4(1, &[], 0, &icmp_header(8, 0, 99)),
            key(PEER, REMOTE, 1, (99, 0)),
            20,
        ),
        ("echo reply", ipv4(1, &[], 0, &icmp_header(0, 0, 99)), key(PEER, REMOTE, 1, (99, 0)), 20),
        (
            "port unreachable",
            ipv4(1, &[], 0, &icmp_header(3, 3, 0)),
            key(PEER, REMOTE, 1, (0, 0x0303)),
            20,
        ),
        ("gre", ipv4(47, &[], 0, &[0; 4]), key(PEER, REMOTE, 47, (0, 0)), 20),
        (
            "protocol 253 without payload",
            ipv4(253, &[], 0, &[]),
            key(PEER, REMOTE, 253, (0, 0)),
            20,
        ),
        ("tcp over ipv6", ipv6(&[], 6, &syn), key(PEER6, REMOTE6, 6, (40000, 443)), 80),
        (
            "echo over ipv6",
            ipv6(&[], 58, &icmp_header(128, 0, 99)),
            key(PEER6, REMOTE6, 58, (99, 0)),
            40,
        ),
        (
            "udp behind hop-by-hop, routing and destination options",
            ipv6(&[(0, 0), (43, 2), (60, 1)], 17, &udp),
            key(PEER6, REMOTE6, 17, (5353, 53)),
            40 + 8 + 24 + 16 + 8,
        ),
        (
            "udp behind authentication",
            ipv6(&[(51, 4)], 17, &udp),
            key(PEER6, REMOTE6, 17, (5353, 53)),
            40 + 24 + 8,
        ),
        ("esp", ipv6(&[], 50, &[0; 8]), key(PEER6, REMOTE6, 50, (0, 0)), 40),
    ];
    for (name, packet, expected, header_bytes) in cases {
        let got = headers(&Bytes(&packet), IFINDEX, Direction::Ingress).unwrap();
        assert_eq!((got.key, got.header_bytes), (expected, header_bytes), "{name}");
        assert_eq!(got.fragment, Fragment::Whole, "{name}");
    }
}

#[test]
fn both_directions_have_one_key() {
    let there = ipv4(17, &[], 0, &udp_header(5353, 53));
    let mut back = ipv4(17, &[], 0, &udp_header(53, 5353));
    back[12..16].copy_from_slice(&REMOTE.octets());
    back[16..20].copy_from_slice(&PEER.octets());
    let there = headers(&Bytes(&there), IFINDEX, Direction::Ingress).unwrap();
    let back = headers(&Bytes(&back), IFINDEX, Direction::Egress).unwrap();
    assert_eq!(there.key, back.key);
}

#[test]
fn every_truncation_is_reported() {
    // The packet, and the bytes from which on its flow is known.
    let cases = [
        (ipv4(17, &[], 0, &udp_header(5353, 53)), 24),
        (ipv4(6, &[], 0, &tcp_header(1, 2, tcp::ACK, 5)), 36),
        (ipv4(6, &[1; 8], 0, &tcp_header(1, 2, tcp::ACK, 5)), 44),
        (ipv4(1, &[], 0, &icmp_header(8, 0, 1)), 28),
        (ipv6(&[], 58, &icmp_header(128, 0, 1)), 48),
        (ipv6(&[(0, 0), (60, 3)], 17, &udp_header(1, 2)), 40 + 8 + 32 + 4),
    ];
    for (packet, enough) in cases {
        for len in 0..=packet.len() {
            let got = headers(&Bytes(&packet[..len]), IFINDEX, Direction::Ingress);
            let expected = if len < enough { Some(Skip::Truncated) } else { None };
            assert_eq!(got.err(), expected, "{len} of {} bytes", packet.len());
        }
    }
}

#[test]
fn what_is_no_ip_or_contradicts_itself_is_named() {
    let mut short_ihl = ipv4(17, &[], 0, &udp_header(1, 2));
    short_ihl[0] = 0x44;
    let mut from_v4 = ipv6(&[], 17, &udp_header(1, 2));
    from_v4[8..24].copy_from_slice(&PEER.to_ipv6_mapped().octets());
    let mut to_v4 = ipv6(&[(60, 0)], 17, &udp_header(1, 2));
    to_v4[24..40].copy_from_slice(&REMOTE.to_ipv6_mapped().octets());
    let chain: Vec<_> = std::iter::repeat_n((60, 0), MAX_EXTENSIONS + 1).collect();
    let cases = [
        (vec![0x10; 60], Skip::NotIp),
        (vec![0xff; 60], Skip::NotIp),
        (short_ihl, Skip::Malformed),
        (from_v4, Skip::Malformed),
        (to_v4, Skip::Malformed),
        (ipv4(6, &[], 0, &tcp_header(1, 2, 0, 4)), Skip::Malformed),
        (ipv6(&chain, 17, &udp_header(1, 2)), Skip::TooManyExtensions),
    ];
    for (packet, skip) in cases {
        assert_eq!(headers(&Bytes(&packet), IFINDEX, Direction::Ingress), Err(skip));
    }
    let longest = ipv6(&chain[..MAX_EXTENSIONS], 17, &udp_header(1, 2));
    assert!(headers(&Bytes(&longest), IFINDEX, Direction::Ingress).is_ok());
}

/// An IPv6 fragment header (RFC 8200, section 4.5) before `payload`.
fn ipv6_fragment(offset: u16, more: bool, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = ipv6(&[(44, 0)], next, payload);
    packet[42..44].copy_from_slice(&(offset << 3 | u16::from(more)).to_be_bytes());
    packet[44..48].copy_from_slice(&[1, 2, 3, 4]);
    packet
}

#[test]
fn later_fragments_find_their_first() {
    let udp = udp_header(5353, 53);
    let pairs = [
        (ipv4(17, &[], 0x2000, &udp), ipv4(17, &[], 0x2003, &[0; 8])),
        (ipv4(17, &[], 0x2000, &udp), ipv4(17, &[], 0x00b9, &[])),
        (ipv6_fragment(0, true, 17, &udp), ipv6_fragment(100, false, 17, &[])),
        // Its first one had destination options before the ports; the later one does not know.
        (ipv6_fragment(0, true, 17, &udp), ipv6_fragment(100, false, 60, &[])),
    ];
    for (first, later) in pairs {
        for direction in [Direction::Ingress, Direction::Egress] {
            let first = headers(&Bytes(&first), IFINDEX, direction).unwrap();
            let mut later = headers(&Bytes(&later), IFINDEX, direction).unwrap();
            assert_eq!((first.fragment, later.fragment), (Fragment::First, Fragment::Later));
            assert_eq!((later.key.peer_port, later.key.remote_port), (0, 0));
            assert_eq!(first.datagram(direction), later.datagram(direction));
            later.join(first.for_later_fragments());
            assert_eq!(first.key, later.key);
        }
    }
    let atomic = ipv6_fragment(0, false, 17, &udp);
    let atomic = headers(&Bytes(&atomic), IFINDEX, Direction::Ingress).unwrap();
    assert_eq!(atomic.fragment, Fragment::Whole);
}

#[test]
fn the_initiator_is_told_by_the_flags_or_the_first_packet() {
    use Initiator::{Peer, Remote, Unknown};
    let tcp_with = |flags| ipv4(6, &[], 0, &tcp_header(1, 2, flags, 5));
    let cases = [
        // packet, initiator when it comes from the peer, when it goes to the peer
        (tcp_with(tcp::SYN), Peer, Remote),
        (tcp_with(tcp::SYN | tcp::ACK), Remote, Peer),
        (tcp_with(tcp::ACK), Unknown, Unknown),
        (tcp_with(tcp::RST), Unknown, Unknown),
        (ipv4(17, &[], 0, &udp_header(1, 2)), Peer, Remote),
        (ipv4(1, &[], 0, &icmp_header(8, 0, 1)), Peer, Remote),
        (ipv4(1, &[], 0, &icmp_header(0, 0, 1)), Remote, Peer),
        (ipv4(1, &[], 0, &icmp_header(3, 1, 0)), Peer, Remote),
        (ipv6(&[], 58, &icmp_header(129, 0, 1)), Remote, Peer),
        (ipv4(253, &[], 0, &[]), Peer, Remote),
    ];
    for (packet, ingress, egress) in cases {
        for (direction, expected) in [(Direction::Ingress, ingress), (Direction::Egress, egress)] {
            let headers = headers(&Bytes(&packet), IFINDEX, direction).unwrap();
            assert_eq!(headers.initiator(direction), expected, "{:?}", headers.key);
        }
    }
}

#[test]
fn a_super_packet_weighs_its_segments() {
    let cases = [
        // len, header, gso_size, gso_segs, packets, bytes
        (1420, 52, 0, 0, 1, 1420),
        (52 + 3 * 1368, 52, 1368, 3, 3, 3 * 1420),
        (52 + 2 * 1368 + 1, 52, 1368, 3, 3, 2 * 1420 + 53),
        // Nobody counted the segments.
        (52 + 2 * 1368 + 1, 52, 1368, 0, 3, 2 * 1420 + 53),
        (52, 52, 1368, 0, 1, 52),
    ];
    for (len, header, size, segments, packets, bytes) in cases {
        let weight = Weight::of(len, header, size, segments);
        assert_eq!(weight, Weight { packets, bytes }, "{len} {size} {segments}");
    }
}

fn extensions() -> impl Strategy<Value = Vec<(u8, u8)>> {
    let kind = prop::sample::select(vec![0_u8, 43, 60, 51, 135, 139, 140]);
    prop::collection::vec((kind, 0_u8..20), 0..=MAX_EXTENSIONS)
}

proptest! {
    #[test]
    fn what_was_put_in_comes_out(
        version_4 in any::<bool>(),
        options in 0_usize..=10,
        extensions in extensions(),
        protocol in any::<u8>(),
        ports in any::<(u16, u16)>(),
        flags in any::<u8>(),
        words in 5_u8..=15,
    ) {
        // What follows an extension header's number is another header, not a protocol.
        prop_assume!(version_4 || ![0, 43, 44, 51, 60, 135, 139, 140].contains(&protocol));
        let (src, dst) = ports;
        let (payload, expected_ports, header_bytes) = match protocol {
            6 => (tcp_header(src, dst, flags, words), ports, u32::from(words) * 4),
            17 | 33 | 132 | 136 => (udp_header(src, dst), ports, 8),
            1 if matches!(src as u8, 0 | 8) => (icmp_header(src as u8, flags, dst), (dst, 0), 0),
            58 if matches!(src as u8, 128 | 129) => (icmp_header(src as u8, flags, dst), (dst, 0), 0),
            1 | 58 => {
                let expected = u16::from(src as u8) << 8 | u16::from(flags);
                (icmp_header(src as u8, flags, dst), (0, expected), 0)
            }
            _ => (Vec::new(), (0, 0), 0),
        };
        let (packet, peer, remote): (_, IpAddr, IpAddr) = if version_4 {
            (ipv4(protocol, &vec![1; options * 4], 0, &payload), PEER.into(), REMOTE.into())
        } else {
            (ipv6(&extensions, protocol, &payload), PEER6.into(), REMOTE6.into())
        };
        let got = headers(&Bytes(&packet), IFINDEX, Direction::Ingress).unwrap();
        prop_assert_eq!(got.key, key(peer, remote, protocol, expected_ports));
        prop_assert_eq!(got.header_bytes as usize, packet.len() - payload.len() + header_bytes as usize);
        prop_assert_eq!(got.tcp_flags, if protocol == 6 { flags } else { 0 });
    }

    #[test]
    fn any_bytes_are_read_without_a_panic_and_reserved_bytes_stay_zero(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        v4 in any::<bool>(),
    ) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = *first & 0x0f | if v4 { 0x40 } else { 0x60 };
        }
        for direction in [Direction::Ingress, Direction::Egress] {
            if let Ok(got) = headers(&Bytes(&bytes), IFINDEX, direction) {
                prop_assert_eq!((got.key.reserved, got.key.generation), ([0; 2], 0));
                prop_assert_eq!(got.key.ifindex, IFINDEX);
            }
        }
    }
}
