//! UDP: datagrams in lock-step, fragments, segmentation offload.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    time::Duration,
};

use super::{End, Load, ip_header};

/// The MTU of every tunnel here.
pub const MTU: u64 = 1420;

/// Two sockets connected to each other.
#[derive(Debug)]
pub struct Pair {
    /// Sends first.
    pub near: UdpSocket,
    /// Answers.
    pub far: UdpSocket,
}

impl Pair {
    /// Ports are the kernel's choice.
    pub fn new(near: End<'_>, far: End<'_>) -> Self {
        Self::on_port(near, far, 0)
    }

    /// With a given port at the far end.
    pub fn on_port(near: End<'_>, far: End<'_>, port: u16) -> Self {
        let (near, far) = (bind(near, 0), bind(far, port));
        near.connect(far.local_addr().expect("bound")).expect("a route");
        far.connect(near.local_addr().expect("bound")).expect("a route");
        Self { near, far }
    }

    /// One datagram of each payload size there and the same back, one after another. What went
    /// each way.
    pub fn exchange(&self, payloads: &[usize]) -> Load {
        for payload in payloads {
            deliver(&self.near, &self.far, *payload);
            deliver(&self.far, &self.near, *payload);
        }
        self.load(payloads)
    }

    /// One datagram of each payload size there. What went.
    pub fn send(&self, payloads: &[usize]) -> Load {
        payloads.iter().for_each(|payload| deliver(&self.near, &self.far, *payload));
        self.load(payloads)
    }

    /// Hands the kernel one buffer that it cuts into datagrams of `segment` bytes, and waits for
    /// them all. `None` where this kernel cannot (before 6.11 on devices without checksums).
    pub fn send_segmented(&self, segment: u16, datagrams: usize) -> Option<Load> {
        let size = libc::c_int::from(segment);
        set_option(&self.near, libc::SOL_UDP, libc::UDP_SEGMENT, size).ok()?;
        let sent = self.near.send(&vec![7; usize::from(segment) * datagrams]);
        set_option(&self.near, libc::SOL_UDP, libc::UDP_SEGMENT, 0).ok()?;
        sent.ok()?;
        let mut buffer = [0; 2048];
        for _ in 0..datagrams {
            let got = self.far.recv(&mut buffer).expect("every segment arrives");
            assert_eq!(got, usize::from(segment));
        }
        Some(self.load(&vec![usize::from(segment); datagrams]))
    }

    /// Ports, near and far.
    pub fn ports(&self) -> (u16, u16) {
        let port = |socket: &UdpSocket| socket.local_addr().expect("bound").port();
        (port(&self.near), port(&self.far))
    }

    fn load(&self, payloads: &[usize]) -> Load {
        let ip = self.near.local_addr().expect("bound").ip();
        payloads.iter().map(|payload| datagram(ip, *payload)).fold(Load::default(), Load::add_up)
    }
}

impl Load {
    fn add_up(self, other: Self) -> Self {
        self + other
    }
}

/// A socket in the namespace of `end`, with a deadline for what it receives.
pub fn bind(end: End<'_>, port: u16) -> UdpSocket {
    let (namespace, ip) = end;
    let socket = namespace
        .run(|| UdpSocket::bind(SocketAddr::new(ip, port)))
        .unwrap_or_else(|error| panic!("{}: {ip}:{port}: {error}", namespace.label()));
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
    socket
}

/// What one datagram is at layer 3, in fragments where it exceeds the [`MTU`].
pub fn datagram(ip: IpAddr, payload: usize) -> Load {
    let length = 8 + payload as u64;
    let header = ip_header(ip);
    if header + length <= MTU {
        return Load::of(1, header + length);
    }
    let fragment_header = header + if ip.is_ipv4() { 0 } else { 8 };
    let room = (MTU - fragment_header) / 8 * 8;
    let fragments = length.div_ceil(room);
    Load { packets: fragments, bytes: length + fragments * fragment_header }
}

fn deliver(from: &UdpSocket, to: &UdpSocket, payload: usize) {
    let sent = vec![0x5a; payload];
    from.send(&sent).expect("a datagram leaves");
    let mut buffer = vec![0; 65_536];
    let got = to.recv(&mut buffer).expect("the datagram arrives");
    assert_eq!(buffer[..got], sent, "payload of {payload}");
}

fn set_option(
    socket: &UdpSocket,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    super::raw::set_option(socket.as_raw_fd(), level, name, &value)
}

#[cfg(test)]
mod tests {
    use super::{Load, datagram};

    #[test]
    fn datagrams_are_cut_at_the_mtu() {
        let (v4, v6) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
        for (ip, payload, packets, bytes) in [
            (v4, 0, 1, 28),
            (v4, 1392, 1, 1420),
            (v4, 1393, 2, 1401 + 40),
            (v4, 4000, 3, 4008 + 60),
            (v6, 1372, 1, 1420),
            (v6, 1373, 2, 1381 + 96),
        ] {
            assert_eq!(datagram(ip, payload), Load { packets, bytes }, "{ip} {payload}");
        }
    }
}
