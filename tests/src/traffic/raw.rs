//! Packets written by hand, and echo requests.

use std::{
    io, mem,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd},
    time::{Duration, Instant},
};

use super::{End, Load, ip_header};
use crate::namespace::Namespace;

/// A raw IP socket.
#[derive(Debug)]
pub struct RawSocket(OwnedFd);

impl RawSocket {
    /// Sends and receives payloads of one IP protocol; the kernel writes the header.
    pub fn protocol(end: End<'_>, protocol: u8) -> Self {
        let (namespace, ip) = end;
        let socket = Self(namespace.run(|| socket(family(ip), protocol.into())));
        let (address, length) = sockaddr(ip);
        // SAFETY: `address` holds an address of `length` bytes and outlives the call.
        let bound = unsafe { libc::bind(socket.fd(), (&raw const address).cast(), length) };
        assert_eq!(bound, 0, "bind {ip}: {}", io::Error::last_os_error());
        socket
    }

    /// Sends whole packets, header included, of the family of `ip`.
    pub fn whole(namespace: &Namespace, ip: IpAddr) -> Self {
        Self(namespace.run(|| socket(family(ip), libc::IPPROTO_RAW)))
    }

    /// Sends `data` to `to`.
    pub fn send_to(&self, data: &[u8], to: IpAddr) {
        let (address, length) = sockaddr(to);
        // SAFETY: the data and the address outlive the call and are as long as it is told.
        let sent = unsafe {
            libc::sendto(
                self.fd(),
                data.as_ptr().cast(),
                data.len(),
                0,
                (&raw const address).cast(),
                length,
            )
        };
        assert_eq!(
            usize::try_from(sent).ok(),
            Some(data.len()),
            "to {to}: {}",
            io::Error::last_os_error()
        );
    }

    /// The next packet: IPv4 with its header, IPv6 without. Panics after `deadline`.
    fn receive(&self, deadline: Instant) -> Vec<u8> {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "no answer in time");
        let timeout = libc::timeval {
            tv_sec: left.as_secs().cast_signed(),
            tv_usec: libc::suseconds_t::from(left.subsec_micros()).max(1),
        };
        set_option(self.fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeout).expect("a deadline");
        let mut buffer = vec![0_u8; 65_536];
        // SAFETY: the buffer is as long as the call is told.
        let got = unsafe { libc::recv(self.fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let got = usize::try_from(got)
            .unwrap_or_else(|_| panic!("no answer: {}", io::Error::last_os_error()));
        buffer.truncate(got);
        buffer
    }

    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsRawFd for RawSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd()
    }
}

/// `count` echo requests with this identifier and `payload` bytes, each answered before the next.
/// What went each way.
pub fn ping(from: End<'_>, to: IpAddr, identifier: u16, count: u16, payload: usize) -> Load {
    let (protocol, request, reply) = if to.is_ipv4() { (1, 8, 0) } else { (58, 128, 129) };
    let socket = RawSocket::protocol(from, protocol);
    for sequence in 0..count {
        let mut message = vec![request, 0, 0, 0];
        message.extend(identifier.to_be_bytes());
        message.extend(sequence.to_be_bytes());
        message.resize(8 + payload, 0x42);
        if to.is_ipv4() {
            let sum = super::packet::checksum(&message, 0);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        } // The kernel fills in that of ICMPv6.
        socket.send_to(&message, to);
        let deadline = Instant::now() + Duration::from_secs(20);
        let answered = |packet: &[u8]| {
            let skip = if to.is_ipv4() { 20 } else { 0 };
            packet.get(skip) == Some(&reply) && packet.get(skip + 4..) == message.get(4..)
        };
        while !answered(&socket.receive(deadline)) {}
    }
    Load::of(count.into(), ip_header(to) + 8 + payload as u64)
}

/// Puts bytes on a device that has no link header, whatever they are.
pub fn inject(namespace: &Namespace, interface: &str, bytes: &[u8]) {
    put(namespace, interface, bytes, Way::Queued);
}

/// The same past the device's queue, and so past every egress classifier.
pub fn inject_unseen(namespace: &Namespace, interface: &str, bytes: &[u8]) {
    put(namespace, interface, bytes, Way::Direct);
}

/// How a packet gets to its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Queued,
    /// `PACKET_QDISC_BYPASS`.
    Direct,
}

fn put(namespace: &Namespace, interface: &str, bytes: &[u8], way: Way) {
    let (socket, index) = namespace.run(|| {
        let name = std::ffi::CString::new(interface).expect("no zero byte");
        // SAFETY: the name is a terminated string.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        assert_ne!(index, 0, "{interface} is not there");
        (typed_socket(libc::AF_PACKET, libc::SOCK_RAW, 0), index)
    });
    if way == Way::Direct {
        let (level, name) = (libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS);
        set_option::<libc::c_int>(socket.as_raw_fd(), level, name, &1).expect("since Linux 3.14");
    }
    let protocol: u16 = match bytes.first().map(|byte| byte >> 4) {
        Some(6) => 0x86dd,
        _ => 0x0800,
    };
    // SAFETY: all zero is a valid `sockaddr_ll`.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET.cast_unsigned() as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = index.cast_signed();
    // SAFETY: the data and the address outlive the call and are as long as it is told.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            0,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    assert!(sent >= 0, "inject: {}", io::Error::last_os_error());
}

/// `setsockopt` with a value of the type that the option has.
pub(super) fn set_option<T>(
    fd: RawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    let value: *const T = value;
    // SAFETY: the value outlives the call and is as long as it is told.
    let done = unsafe { libc::setsockopt(fd, level, name, value.cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn socket(family: libc::c_int, protocol: libc::c_int) -> OwnedFd {
    typed_socket(family, libc::SOCK_RAW, protocol)
}

fn typed_socket(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> OwnedFd {
    // SAFETY: the call takes no pointers.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    assert!(fd >= 0, "a raw socket: {}", io::Error::last_os_error());
    // SAFETY: the descriptor is new and nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn family(ip: IpAddr) -> libc::c_int {
    if ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }
}

/// An address as the kernel takes it.
pub(super) fn address_v4(ip: Ipv4Addr) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0, // Raw sockets have none.
        sin_addr: libc::in_addr { s_addr: u32::from(ip).to_be() },
        sin_zero: [0; 8],
    }
}

fn sockaddr(ip: IpAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all zero is a valid `sockaddr_storage`.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    storage.ss_family = family(ip) as libc::sa_family_t;
    // Both start with family and port; the address of IPv4 follows, that of IPv6 after a flow label.
    let (offset, octets) = match ip {
        IpAddr::V4(ip) => (4, ip.octets().to_vec()),
        IpAddr::V6(ip) => (8, ip.octets().to_vec()),
    };
    let bytes: *mut u8 = (&raw mut storage).cast();
    // SAFETY: a `sockaddr_storage` has room for both kinds of address at these offsets.
    let place = unsafe { bytes.add(offset) };
    // SAFETY: the octets fit behind `place`, and the two do not overlap.
    unsafe { place.copy_from_nonoverlapping(octets.as_ptr(), octets.len()) };
    let length =
        if ip.is_ipv4() { size_of::<libc::sockaddr_in>() } else { size_of::<libc::sockaddr_in6>() };
    (storage, length as libc::socklen_t)
}
