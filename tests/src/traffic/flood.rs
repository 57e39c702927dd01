//! Small packets of many flows, as fast as the machine makes them.

use std::{
    io, iter,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use super::{
    packet,
    raw::{RawSocket, address_v4},
};
use crate::namespace::Namespace;

/// Packets that one system call takes.
const CALL: usize = 256;
/// Packets under way that the smallest queue has room for: the socket of wireguard-go.
const WINDOW: u64 = 128;
/// Packets that are sent between two looks at how many have arrived.
const STEP: usize = 64;
/// What has not arrived after so long will not.
const LOST: Duration = Duration::from_secs(1);

/// One packet: a bare SYN, or an empty datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// IANA number: 6 or 17.
    pub protocol: u8,
    /// The port it is sent from.
    pub port: u16,
    /// Where it goes.
    pub to: SocketAddrV4,
}

impl Packet {
    /// A connection is asked for.
    pub fn syn(port: u16, to: SocketAddrV4) -> Self {
        Self { protocol: 6, port, to }
    }

    /// Nothing is said.
    pub fn datagram(port: u16, to: SocketAddrV4) -> Self {
        Self { protocol: 17, port, to }
    }

    /// As it goes through the tunnel.
    fn bytes(&self, from: Ipv4Addr) -> Vec<u8> {
        let ports = (self.port, self.to.port());
        let payload = match self.protocol {
            6 => packet::syn(from, *self.to.ip(), ports),
            _ => packet::udp(from.into(), (*self.to.ip()).into(), ports, &[]),
        };
        packet::ipv4(from, *self.to.ip(), self.protocol, &[], &payload)
    }
}

/// Sends from one address, whatever it is told.
#[derive(Debug)]
pub struct Flood {
    socket: RawSocket,
    from: Ipv4Addr,
}

impl Flood {
    /// Packets leave `namespace` as from `from`.
    pub fn new(namespace: &Namespace, from: Ipv4Addr) -> Self {
        Self { socket: RawSocket::whole(namespace, from.into()), from }
    }

    /// Hands every packet to the kernel. Where they overwhelm the device, some get no further.
    pub fn send(&self, packets: impl IntoIterator<Item = Packet>) {
        let mut packets = packets.into_iter();
        loop {
            let some: Vec<Packet> = packets.by_ref().take(CALL).collect();
            if some.is_empty() {
                return;
            }
            self.call(&some);
        }
    }

    /// Hands packets to the kernel no faster than they get through the tunnel, so that next to none
    /// is lost. `arrived` says how many have.
    pub fn send_paced(&self, packets: impl IntoIterator<Item = Packet>, arrived: impl Fn() -> u64) {
        let mut packets = packets.into_iter();
        let mut sent = arrived();
        loop {
            let some: Vec<Packet> = packets.by_ref().take(STEP).collect();
            if some.is_empty() {
                wait_for(&arrived, sent);
                return;
            }
            self.call(&some);
            sent += some.len() as u64;
            if !wait_for(&arrived, sent.saturating_sub(WINDOW)) {
                sent = arrived();
            }
        }
    }

    fn call(&self, packets: &[Packet]) {
        let mut bytes: Vec<Vec<u8>> =
            packets.iter().map(|packet| packet.bytes(self.from)).collect();
        let mut names: Vec<_> = packets.iter().map(|packet| address_v4(*packet.to.ip())).collect();
        let mut buffers: Vec<libc::iovec> = bytes
            .iter_mut()
            .map(|bytes| libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = iter::zip(&mut names, &mut buffers)
            .map(|(name, buffer)| {
                // SAFETY: all zero is a valid `mmsghdr`, with nothing in it.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_name = (&raw mut *name).cast();
                message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
                message.msg_hdr.msg_iov = buffer;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        let mut rest = messages.as_mut_slice();
        while !rest.is_empty() {
            // SAFETY: the messages point to names and buffers that outlive the call.
            let sent = unsafe {
                libc::sendmmsg(
                    self.socket.as_raw_fd(),
                    rest.as_mut_ptr(),
                    rest.len() as libc::c_uint,
                    0,
                )
            };
            let taken = match usize::try_from(sent) {
                Ok(taken) => taken,
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => 0,
                    // The device's queue is full: this one is lost.
                    error if error.raw_os_error() == Some(libc::ENOBUFS) => 1,
                    error => panic!("a flood: {error}"),
                },
            };
            rest = &mut rest[taken..];
        }
    }
}

/// Whether so many arrive before it is certain that some are lost.
fn wait_for(arrived: &impl Fn() -> u64, count: u64) -> bool {
    let late = Instant::now() + LOST;
    while arrived() < count {
        if Instant::now() > late {
            return false;
        }
        thread::yield_now();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::Packet;
    use crate::traffic::packet::checksum;

    #[test]
    fn a_syn_is_one_that_the_other_side_answers() {
        let from = "10.8.0.2".parse().unwrap();
        let bytes = Packet::syn(4000, "10.8.0.1:80".parse().unwrap()).bytes(from);
        assert_eq!(bytes.len(), 40);
        assert_eq!(bytes[20..24], [0x0f, 0xa0, 0, 80]);
        assert_eq!(bytes[33], 0x02, "SYN and no more");
        let pseudo = [&bytes[12..20], &[0, 6, 0, 20], &bytes[20..]].concat();
        assert_eq!(checksum(&pseudo, 0), 0);
    }
}
