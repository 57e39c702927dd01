//! An IP address as the kernel tables store it.

use bytemuck::{Pod, Zeroable};

/// An IPv6 address, or an IPv4 address mapped into `::ffff:0:0/96`, as four words in network byte
/// order.
///
/// Words, not bytes: the datapath copies and compares an address in four instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Addr(pub [u32; 4]);

impl Addr {
    /// Maps an IPv4 address, given as its four bytes in memory order.
    #[inline(always)]
    pub fn from_v4(octets: u32) -> Self {
        Self([0, 0, 0xffff_u32.to_be(), octets])
    }

    /// Whether it is an IPv4 address.
    #[inline(always)]
    pub fn is_v4(self) -> bool {
        self.0[0] | self.0[1] == 0 && self.0[2] == 0xffff_u32.to_be()
    }

    /// The sixteen octets in network order.
    #[inline(always)]
    pub fn octets(self) -> [u8; 16] {
        bytemuck::must_cast(self.0)
    }
}

impl From<core::net::Ipv6Addr> for Addr {
    fn from(addr: core::net::Ipv6Addr) -> Self {
        Self(bytemuck::must_cast(addr.octets()))
    }
}

impl From<core::net::IpAddr> for Addr {
    fn from(ip: core::net::IpAddr) -> Self {
        let octets = match ip {
            core::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            core::net::IpAddr::V6(v6) => v6.octets(),
        };
        Self(bytemuck::must_cast(octets))
    }
}

impl From<Addr> for core::net::Ipv6Addr {
    fn from(addr: Addr) -> Self {
        addr.octets().into()
    }
}

#[cfg(test)]
mod tests {
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::Addr;

    #[test]
    fn both_families_survive_the_round_trip() {
        let v4 = Ipv4Addr::new(10, 8, 0, 2);
        assert_eq!(Ipv6Addr::from(Addr::from(IpAddr::V4(v4))), v4.to_ipv6_mapped());
        assert_eq!(Addr::from_v4(u32::from_ne_bytes(v4.octets())), Addr::from(IpAddr::V4(v4)));
        let v6: Ipv6Addr = "fd00:8::2".parse().unwrap();
        assert_eq!(Ipv6Addr::from(Addr::from(IpAddr::V6(v6))), v6);
    }
}
