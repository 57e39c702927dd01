//! Whole packets, byte by byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 packet; `options` is padded to words. The kernel fills in the header checksum.
pub fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let words = options.len().div_ceil(4);
    let length = 20 + 4 * words + payload.len();
    let mut packet = vec![0x40 | (5 + words) as u8, 0];
    packet.extend((length as u16).to_be_bytes());
    packet.extend([0, 9, 0, 0, 64, protocol, 0, 0]);
    packet.extend(src.octets());
    packet.extend(dst.octets());
    packet.extend(options);
    packet.resize(20 + 4 * words, 0);
    let sum = checksum(&packet, 0);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// An IPv6 packet; each extension header is its number, of 8 bytes, and holds one PadN option.
pub fn ipv6(
    src: Ipv6Addr,
    dst: Ipv6Addr,
    protocol: u8,
    extensions: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let length = 8 * extensions.len() + payload.len();
    let first = extensions.first().copied().unwrap_or(protocol);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((length as u16).to_be_bytes());
    packet.extend([first, 64]);
    packet.extend(src.octets());
    packet.extend(dst.octets());
    for next in extensions.iter().skip(1).chain([&protocol]).take(extensions.len()) {
        packet.extend([*next, 0, 1, 4, 0, 0, 0, 0]);
    }
    packet.extend(payload);
    packet
}

/// A UDP header and payload, with a checksum that the receiver accepts.
pub fn udp(src: IpAddr, dst: IpAddr, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    let mut segment = Vec::new();
    segment.extend(ports.0.to_be_bytes());
    segment.extend(ports.1.to_be_bytes());
    segment.extend(length.to_be_bytes());
    segment.extend([0, 0]);
    segment.extend(payload);
    let pseudo = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => sum(&src.octets()) + sum(&dst.octets()),
        (IpAddr::V6(src), IpAddr::V6(dst)) => sum(&src.octets()) + sum(&dst.octets()),
        _ => panic!("both ends are of one family"),
    };
    let checksum = checksum(&segment, pseudo + 17 + u32::from(length));
    segment[6..8].copy_from_slice(&checksum.to_be_bytes());
    segment
}

/// A TCP header that asks for a connection, with a checksum that the receiver accepts.
pub fn syn(src: Ipv4Addr, dst: Ipv4Addr, ports: (u16, u16)) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(ports.0.to_be_bytes());
    segment.extend(ports.1.to_be_bytes());
    segment.extend([0, 0, 0, 9, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    let pseudo = sum(&src.octets()) + sum(&dst.octets()) + 6 + segment.len() as u32;
    let checksum = checksum(&segment, pseudo);
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    segment
}

/// The Internet checksum of `bytes` and of what was summed before.
pub fn checksum(bytes: &[u8], before: u32) -> u16 {
    let mut total = sum(bytes) + before;
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::{checksum, ipv4};

    #[test]
    fn a_header_with_its_checksum_sums_to_zero() {
        let ip = "10.0.0.1".parse().unwrap();
        let packet = ipv4(ip, ip, 17, &[0x94, 4, 0, 0], b"payload");
        assert_eq!(packet[0], 0x46);
        assert_eq!(checksum(&packet[..24], 0), 0);
        assert_eq!(packet.len(), 31);
    }
}
