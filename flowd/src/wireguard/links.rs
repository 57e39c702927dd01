//! Network links of this namespace: numbers and the device's own counters.

use std::{ffi::CString, fs, io};

use crate::flows::Counters;

/// The number of the link called `name`, if there is one.
pub fn ifindex_of(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the argument is a terminated string that lives through the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
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
