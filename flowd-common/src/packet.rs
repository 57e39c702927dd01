//! The packet parser: from the bytes of one packet to the key of its flow.
//!
//! Pure and generic over where the bytes come from, so that the same code runs in the classifier
//! under the verifier and under `cargo test` on the host. It reads headers only, never payload, and
//! knows nothing of maps, verdicts or counters.

use core::mem::MaybeUninit;

use bytemuck::Pod;

use crate::{
    addr::Addr,
    counter::{Counter, Direction},
    flow::{FlowKey, FragmentKey, FragmentPorts, Initiator},
    limits::MAX_EXTENSIONS,
};

/// Random access to the bytes of one packet.
pub trait Packet {
    /// Reads a `T` at `offset` bytes from the start of the network header. `None` when the packet
    /// ends before.
    fn read<T: Pod>(&self, offset: usize) -> Option<T>;

    /// The same at an offset that is known when the program is compiled, which a view may be able
    /// to do without a call.
    #[inline(always)]
    fn read_at<T: Pod, const OFFSET: usize>(&self) -> Option<T> {
        self.read(OFFSET)
    }
}

/// Why a packet has no flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Shorter than its own headers say.
    Truncated,
    /// The version nibble is neither 4 nor 6.
    NotIp,
    /// A header contradicts itself.
    Malformed,
    /// More than [`MAX_EXTENSIONS`] IPv6 extension headers.
    TooManyExtensions,
}

impl Skip {
    /// The counter that takes the packet.
    #[inline(always)]
    pub const fn counter(self) -> Counter {
        match self {
            Self::Truncated => Counter::Truncated,
            Self::NotIp => Counter::NotIp,
            Self::Malformed => Counter::Malformed,
            Self::TooManyExtensions => Counter::TooManyExtensions,
        }
    }
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// All of it.
    Whole,
    /// The first fragment, which has the ports.
    First,
    /// A later fragment, which has none: the key's ports are zero until the first one is found.
    Later,
}

/// What the datapath needs to know of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The flow it belongs to.
    pub key: FlowKey,
    /// Bytes of network and transport headers, which every segment of a super-packet repeats.
    pub header_bytes: u32,
    /// Which part of a datagram it is.
    pub fragment: Fragment,
    /// Identification of the datagram, for fragments only, as it stands in the header.
    pub fragment_id: u32,
    /// TCP flags as in the header; zero for other protocols.
    pub tcp_flags: u8,
    /// ICMP type; zero for other protocols.
    pub icmp_type: u8,
    /// ICMP code; zero for other protocols.
    pub icmp_code: u8,
}

/// The bits of the TCP flags byte that open a flow or end it (RFC 9293, section 3.1).
pub mod tcp {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Ends a connection at once.
    pub const RST: u8 = 0x04;
    /// Acknowledges.
    pub const ACK: u8 = 0x10;
}

/// IANA protocol numbers that the parser tells apart.
mod protocol {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ICMP: u8 = 1;
    pub(super) const TCP: u8 = 6;
    pub(super) const UDP: u8 = 17;
    pub(super) const DCCP: u8 = 33;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const ICMPV6: u8 = 58;
    pub(super) const DESTINATION_OPTIONS: u8 = 60;
    pub(super) const SCTP: u8 = 132;
    pub(super) const MOBILITY: u8 = 135;
    pub(super) const UDP_LITE: u8 = 136;
    pub(super) const HIP: u8 = 139;
    pub(super) const SHIM6: u8 = 140;
}

/// Whether a protocol's header starts with two ports.
#[inline(always)]
pub const fn has_ports(protocol: u8) -> bool {
    matches!(
        protocol,
        protocol::TCP | protocol::UDP | protocol::DCCP | protocol::SCTP | protocol::UDP_LITE
    )
}

/// Whether a packet of the protocol says by itself who opened the conversation.
#[inline(always)]
pub const fn tells_its_initiator(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::ICMP | protocol::ICMPV6)
}

/// Whether a packet opens a conversation, whatever came before it: a SYN alone, an echo request.
#[inline(always)]
pub const fn is_opening(protocol: u8, tcp_flags: u8, icmp_type: u8) -> bool {
    match protocol {
        protocol::TCP => tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN,
        protocol::ICMP => icmp_type == 8,
        protocol::ICMPV6 => icmp_type == 128,
        _ => false,
    }
}

/// Whether a message tells of an error in another flow's packet (RFC 792; RFC 4443, section 2.1).
#[inline(always)]
pub const fn is_icmp_error(protocol: u8, icmp_type: u8) -> bool {
    match protocol {
        protocol::ICMP => matches!(icmp_type, 3 | 4 | 11 | 12),
        protocol::ICMPV6 => matches!(icmp_type, 1..=4),
        _ => false,
    }
}

/// The ICMP type that a policy judges a flow by: an echo reply stands for its request. `None` for
/// other protocols.
#[inline(always)]
pub const fn icmp_request(protocol: u8, icmp_type: u8) -> Option<u8> {
    match (protocol, icmp_type) {
        (protocol::ICMP, 0) => Some(8),
        (protocol::ICMPV6, 129) => Some(128),
        (protocol::ICMP | protocol::ICMPV6, other) => Some(other),
        _ => None,
    }
}

/// Bytes of an IPv4 header without options.
const IPV4_BYTES: usize = 20;
/// Bytes of the fixed IPv6 header.
const IPV6_BYTES: usize = 40;
/// Bytes before the packet that an ICMP error quotes.
const ICMP_BYTES: usize = 8;

/// Reads the headers of a packet that crosses interface `ifindex` in `direction`.
#[inline(always)]
pub fn headers(packet: &impl Packet, ifindex: u32, direction: Direction) -> Result<Headers, Skip> {
    Headers::read(&mut MaybeUninit::uninit(), packet, ifindex, direction).map(|headers| *headers)
}

/// IANA's list of IPv6 extension header types, without ESP, which hides what follows it.
#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(
        next,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION_OPTIONS
            | protocol::MOBILITY
            | protocol::HIP
            | protocol::SHIM6
    )
}

impl Headers {
    /// Does what [`headers`] does, and puts them where the caller wants them.
    #[inline(always)]
    pub fn read<'h>(
        room: &'h mut MaybeUninit<Self>,
        packet: &impl Packet,
        ifindex: u32,
        direction: Direction,
    ) -> Result<&'h mut Self, Skip> {
        let first_word = u32::from_be(packet.read_at::<u32, 0>().ok_or(Skip::Truncated)?);
        match first_word >> 28 {
            4 => Self::read_ipv4(room, packet, ifindex, direction),
            6 => Self::read_ipv6(room, packet, ifindex, direction),
            _ => Err(Skip::NotIp),
        }
    }

    /// RFC 791, section 3.1.
    #[inline(always)]
    fn read_ipv4<'h>(
        room: &'h mut MaybeUninit<Self>,
        packet: &impl Packet,
        ifindex: u32,
        direction: Direction,
    ) -> Result<&'h mut Self, Skip> {
        let words = packet.read_at::<[u32; 5], 0>().ok_or(Skip::Truncated)?;
        let header_bytes = ((u32::from_be(words[0]) >> 24) & 0xf) as usize * 4;
        if header_bytes < IPV4_BYTES {
            return Err(Skip::Malformed);
        }
        let id_and_fragment = u32::from_be(words[1]);
        let protocol = (u32::from_be(words[2]) >> 16) as u8;
        let headers = room.write(Self::new(
            ifindex,
            direction,
            Addr::from_v4(words[3]),
            Addr::from_v4(words[4]),
            protocol,
            header_bytes as u32,
        ));
        let offset = id_and_fragment & 0x1fff;
        let more = id_and_fragment & 0x2000 != 0;
        if offset != 0 || more {
            headers.fragment_id = id_and_fragment >> 16;
            headers.fragment = if offset == 0 { Fragment::First } else { Fragment::Later };
            if offset != 0 {
                return Ok(headers);
            }
        }
        if header_bytes == IPV4_BYTES {
            headers.transport::<_, IPV4_BYTES>(packet, direction)?;
        } else {
            headers.transport_behind(packet, header_bytes, direction)?;
        }
        Ok(headers)
    }

    /// RFC 8200, section 3.
    #[inline(always)]
    fn read_ipv6<'h>(
        room: &'h mut MaybeUninit<Self>,
        packet: &impl Packet,
        ifindex: u32,
        direction: Direction,
    ) -> Result<&'h mut Self, Skip> {
        let words = packet.read_at::<[u32; 10], 0>().ok_or(Skip::Truncated)?;
        let next = (u32::from_be(words[1]) >> 8) as u8;
        let src = Addr([words[2], words[3], words[4], words[5]]);
        let dst = Addr([words[6], words[7], words[8], words[9]]);
        // Never on a wire (RFC 4942, section 2.2); here it would be taken for the IPv4 address.
        if src.is_v4() || dst.is_v4() {
            return Err(Skip::Malformed);
        }
        let headers = room.write(Self::new(ifindex, direction, src, dst, next, IPV6_BYTES as u32));
        if !is_extension(next) {
            headers.transport::<_, IPV6_BYTES>(packet, direction)?;
            return Ok(headers);
        }
        let offset = headers.walk(packet)?;
        headers.header_bytes = offset as u32;
        if headers.fragment == Fragment::Later {
            return Ok(headers);
        }
        headers.transport_behind(packet, offset, direction)?;
        Ok(headers)
    }

    #[inline(always)]
    fn new(
        ifindex: u32,
        direction: Direction,
        src: Addr,
        dst: Addr,
        protocol: u8,
        header_bytes: u32,
    ) -> Self {
        let (peer, remote) = match direction {
            Direction::Ingress => (src, dst),
            Direction::Egress => (dst, src),
        };
        Self {
            key: FlowKey {
                peer,
                remote,
                peer_port: 0,
                remote_port: 0,
                ifindex,
                protocol,
                generation: 0,
                reserved: [0; 2],
            },
            header_bytes,
            fragment: Fragment::Whole,
            fragment_id: 0,
            tcp_flags: 0,
            icmp_type: 0,
            icmp_code: 0,
        }
    }

    /// Follows the extension headers and returns where the transport header starts. Stops at a
    /// later fragment, behind which there are no headers.
    #[inline(always)]
    fn walk(&mut self, packet: &impl Packet) -> Result<usize, Skip> {
        let mut offset = IPV6_BYTES;
        for _ in 0..MAX_EXTENSIONS {
            // Every extension header has at least eight bytes (RFC 8200, section 4).
            let [first, second] = packet.read::<[u32; 2]>(offset).ok_or(Skip::Truncated)?;
            let [next, units, _, _] = first.to_ne_bytes();
            match self.key.protocol {
                protocol::FRAGMENT => {
                    let fragment = u32::from_be(first);
                    let later = fragment & 0xfff8 != 0;
                    let more = fragment & 1 != 0;
                    if later || more {
                        self.fragment_id = second;
                        self.fragment = if later { Fragment::Later } else { Fragment::First };
                    }
                    offset += 8;
                    if later {
                        self.key.protocol = next;
                        return Ok(offset);
                    }
                }
                protocol::AUTHENTICATION => offset += (units as usize + 2) * 4,
                _ => offset += (units as usize + 1) * 8,
            }
            self.key.protocol = next;
            if !is_extension(next) {
                return Ok(offset);
            }
        }
        Err(Skip::TooManyExtensions)
    }

    /// Reads the transport header at a fixed place: the path of nearly all packets.
    #[inline(always)]
    fn transport<P: Packet, const OFFSET: usize>(
        &mut self,
        packet: &P,
        direction: Direction,
    ) -> Result<(), Skip> {
        match self.key.protocol {
            protocol::TCP => {
                let words = packet.read_at::<[u32; 4], OFFSET>().ok_or(Skip::Truncated)?;
                self.tcp(words, direction)
            }
            protocol::UDP | protocol::UDP_LITE | protocol::DCCP | protocol::SCTP => {
                let ports = packet.read_at::<u32, OFFSET>().ok_or(Skip::Truncated)?;
                self.udp(ports, direction);
                Ok(())
            }
            protocol::ICMP | protocol::ICMPV6 => {
                let words = packet.read_at::<[u32; 2], OFFSET>().ok_or(Skip::Truncated)?;
                self.icmp(words);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Reads the transport header behind options or extension headers.
    #[inline(always)]
    fn transport_behind(
        &mut self,
        packet: &impl Packet,
        offset: usize,
        direction: Direction,
    ) -> Result<(), Skip> {
        match self.key.protocol {
            protocol::TCP => {
                let words = packet.read::<[u32; 4]>(offset).ok_or(Skip::Truncated)?;
                self.tcp(words, direction)
            }
            protocol::UDP | protocol::UDP_LITE | protocol::DCCP | protocol::SCTP => {
                let ports = packet.read::<u32>(offset).ok_or(Skip::Truncated)?;
                self.udp(ports, direction);
                Ok(())
            }
            protocol::ICMP | protocol::ICMPV6 => {
                let words = packet.read::<[u32; 2]>(offset).ok_or(Skip::Truncated)?;
                self.icmp(words);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// RFC 9293, section 3.1.
    #[inline(always)]
    fn tcp(&mut self, words: [u32; 4], direction: Direction) -> Result<(), Skip> {
        self.ports(words[0], direction);
        let offset_and_flags = u32::from_be(words[3]) >> 16;
        let header_bytes = (offset_and_flags >> 12) * 4;
        if header_bytes < 20 {
            return Err(Skip::Malformed);
        }
        self.tcp_flags = offset_and_flags as u8;
        self.header_bytes += header_bytes;
        Ok(())
    }

    /// UDP and the protocols that start like it: two ports. Only UDP has super-packets.
    #[inline(always)]
    fn udp(&mut self, ports: u32, direction: Direction) {
        self.ports(ports, direction);
        self.header_bytes += 8;
    }

    /// RFC 792, RFC 4443: echo request and reply share the identifier and so the flow; everything
    /// else is a flow of its type and code.
    #[inline(always)]
    fn icmp(&mut self, words: [u32; 2]) {
        let first = u32::from_be(words[0]);
        self.icmp_type = (first >> 24) as u8;
        self.icmp_code = (first >> 16) as u8;
        if self.is_echo() {
            self.key.peer_port = (u32::from_be(words[1]) >> 16) as u16;
        } else {
            self.key.remote_port = (first >> 16) as u16;
        }
    }

    #[inline(always)]
    fn is_echo(&self) -> bool {
        match self.key.protocol {
            protocol::ICMP => matches!(self.icmp_type, 0 | 8),
            _ => matches!(self.icmp_type, 128 | 129),
        }
    }

    #[inline(always)]
    fn ports(&mut self, word: u32, direction: Direction) {
        let word = u32::from_be(word);
        let (src, dst) = ((word >> 16) as u16, word as u16);
        (self.key.peer_port, self.key.remote_port) = match direction {
            Direction::Ingress => (src, dst),
            Direction::Egress => (dst, src),
        };
    }

    /// Who opened the conversation, if this is its first packet.
    #[inline(always)]
    pub fn initiator(&self, direction: Direction) -> Initiator {
        let (sender, receiver) = match direction {
            Direction::Ingress => (Initiator::Peer, Initiator::Remote),
            Direction::Egress => (Initiator::Remote, Initiator::Peer),
        };
        match self.key.protocol {
            protocol::TCP if self.fragment == Fragment::Later => Initiator::Unknown,
            protocol::TCP => match self.tcp_flags & (tcp::SYN | tcp::ACK) {
                tcp::SYN => sender,
                both if both == tcp::SYN | tcp::ACK => receiver,
                _ => Initiator::Unknown,
            },
            // An echo reply answers a request that came before.
            protocol::ICMP if self.icmp_type == 0 && self.fragment != Fragment::Later => receiver,
            protocol::ICMPV6 if self.icmp_type == 129 => receiver,
            _ => sender,
        }
    }

    /// The flow of the packet that an ICMP error quotes, whose own headers take `header_bytes` and
    /// which crosses `ifindex` in `direction`. `None` when it quotes too little, a later fragment,
    /// or a packet with IPv6 extension headers.
    ///
    /// The quoted packet went the other way.
    #[inline(always)]
    pub fn quoted(
        packet: &impl Packet,
        header_bytes: u32,
        ifindex: u32,
        direction: Direction,
    ) -> Option<FlowKey> {
        let start = header_bytes as usize + ICMP_BYTES;
        let first = u32::from_be(packet.read::<u32>(start)?);
        let opposite = match direction {
            Direction::Ingress => Direction::Egress,
            Direction::Egress => Direction::Ingress,
        };
        let (mut quoted, transport) = if first >> 28 == 4 {
            let words = packet.read::<[u32; 5]>(start)?;
            if u32::from_be(words[1]) & 0x1fff != 0 {
                return None;
            }
            let (src, dst) = (Addr::from_v4(words[3]), Addr::from_v4(words[4]));
            let protocol = (u32::from_be(words[2]) >> 16) as u8;
            let header_bytes = (first >> 24 & 0xf) as usize * 4;
            (Self::new(ifindex, opposite, src, dst, protocol, 0), start + header_bytes)
        } else {
            let words = packet.read::<[u32; 10]>(start)?;
            let src = Addr([words[2], words[3], words[4], words[5]]);
            let dst = Addr([words[6], words[7], words[8], words[9]]);
            let protocol = (u32::from_be(words[1]) >> 8) as u8;
            (Self::new(ifindex, opposite, src, dst, protocol, 0), start + IPV6_BYTES)
        };
        if has_ports(quoted.key.protocol) {
            quoted.ports(packet.read::<u32>(transport)?, opposite);
        } else if matches!(quoted.key.protocol, protocol::ICMP | protocol::ICMPV6) {
            quoted.icmp(packet.read::<[u32; 2]>(transport)?);
        }
        Some(quoted.key)
    }

    /// The name of the datagram that this fragment is part of.
    ///
    /// IPv6 names a datagram without its protocol (RFC 8200, section 4.5), and a later fragment
    /// does not always know it.
    #[inline(always)]
    pub fn datagram(&self, direction: Direction) -> FragmentKey {
        let FlowKey { peer, remote, ifindex, protocol, .. } = self.key;
        FragmentKey {
            peer,
            remote,
            id: self.fragment_id,
            ifindex,
            protocol: if peer.is_v4() { protocol } else { protocol::FRAGMENT },
            direction: direction as u8,
            reserved: [0; 2],
        }
    }

    /// What later fragments need from this first one.
    #[inline(always)]
    pub fn for_later_fragments(&self) -> FragmentPorts {
        FragmentPorts {
            peer_port: self.key.peer_port,
            remote_port: self.key.remote_port,
            protocol: self.key.protocol,
            reserved: [0; 3],
        }
    }

    /// Gives a later fragment the flow of its first one.
    #[inline(always)]
    pub fn join(&mut self, first: FragmentPorts) {
        self.key.peer_port = first.peer_port;
        self.key.remote_port = first.remote_port;
        self.key.protocol = first.protocol;
    }
}

/// Packets and bytes on the wire of one buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// Segments; 1 for an ordinary packet.
    pub packets: u64,
    /// Bytes at layer 3 of all segments, each with its own headers.
    pub bytes: u64,
}

impl Weight {
    /// Weighs a buffer of `len` bytes at layer 3 that the kernel will cut into, or has put together
    /// from, segments of `gso_size` payload bytes.
    ///
    /// `gso_size` is zero for an ordinary packet; `gso_segs` may be zero for a super-packet that
    /// came from a device that did not count (`SKB_GSO_DODGY`).
    #[inline(always)]
    pub fn of(len: u32, header_bytes: u32, gso_size: u32, gso_segs: u32) -> Self {
        if gso_size == 0 {
            return Self { packets: 1, bytes: u64::from(len) };
        }
        let segments = if gso_segs != 0 {
            u64::from(gso_segs)
        } else {
            let payload = u64::from(len.saturating_sub(header_bytes));
            let segments = payload.div_ceil(u64::from(gso_size));
            if segments == 0 { 1 } else { segments }
        };
        let bytes = u64::from(len) + (segments - 1) * u64::from(header_bytes);
        Self { packets: segments, bytes }
    }
}
