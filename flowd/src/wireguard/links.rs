//! Network links of this namespace: numbers and the device's own counters.

use std::{
    collections::BTreeSet,
    ffi::CString,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ptr,
};

use crate::flows::Counters;

/// The number of the link called `name`, if there is one.
pub fn ifindex_of(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the argument is a terminated string that lives through the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

/// Every address of this namespace's links.
pub fn addresses() -> io::Result<BTreeSet<IpAddr>> {
    let mut list = ptr::null_mut();
    // SAFETY: the kernel's answer is put into a list that `list` then points to.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut addresses = BTreeSet::new();
    let mut next = list;
    // SAFETY: `next` is null at the end, else points to an entry of the list, which is not freed
    // before the loop has ended.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        addresses.extend(address(entry.ifa_addr));
    }
    // SAFETY: the list came from `getifaddrs`, and nothing points into it any more.
    unsafe { libc::freeifaddrs(list) };
    Ok(addresses)
}

/// The IP address behind a pointer of `getifaddrs`, which may be null or of another family.
fn address(pointer: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: null, or points to an address that lives as long as the list it is from.
    let family = unsafe { pointer.as_ref() }?.sa_family;
    match libc::c_int::from(family) {
        libc::AF_INET => {
            // SAFETY: an address of this family is a `sockaddr_in`.
            let address = unsafe { *pointer.cast::<libc::sockaddr_in>() };
            Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: an address of this family is a `sockaddr_in6`.
            let address = unsafe { *pointer.cast::<libc::sockaddr_in6>() };
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

/// What every device of this namespace counted, by name.
pub struct DeviceCounters {
    text: String,
}

impl DeviceCounters {
    /// Reads `/proc/net/dev`, whose numbers are those of `ip -s link`.
    pub fn read() -> io::Result<Self> {
        Ok(Self { text: fs::read_to_string("/proc/net/dev")? })
    }

    /// Those of one device.
    pub fn of(&self, name: &str) -> Option<Counters> {
        let numbers = self
            .text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(device, _)| device.trim() == name)
            .map(|(_, numbers)| numbers)?;
        // Eight columns of what was received, then eight of what was sent: bytes, packets, …
        // (`dev_seq_printf_stats` in `net/core/net-procfs.c`).
        let mut columns = numbers.split_ascii_whitespace().map(str::parse::<u64>);
        let mut column = |index| columns.nth(index)?.ok();
        let (rx_bytes, rx_packets) = (column(0)?, column(0)?);
        let (tx_bytes, tx_packets) = (column(6)?, column(0)?);
        Some(Counters { rx_packets, rx_bytes, tx_packets, tx_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::{Counters, DeviceCounters};

    #[test]
    fn the_loopback_address_is_one_of_ours() {
        assert!(super::addresses().unwrap().contains(&"127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn the_columns_are_found_by_name() {
        let text = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       1       2    0    0    0     0          0         0        3       4    0    0    0     0       0          0
   wg0: 1480 9 0 0 0 0 0 0 888 7 0 0 0 0 0 0
";
        let counters = DeviceCounters { text: text.to_owned() };
        let expected = Counters { rx_packets: 9, rx_bytes: 1480, tx_packets: 7, tx_bytes: 888 };
        assert_eq!(counters.of("wg0"), Some(expected));
        assert_eq!(counters.of("wg"), None);
    }
}
