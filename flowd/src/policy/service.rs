//! Protocols with their ports or ICMP types, as ranges of one number line.

use std::{fmt, ops::RangeInclusive};

use crate::flows::protocol_name;

/// What a flow asks for: IANA protocol number in bits 16 to 23, below it the destination port, or
/// the ICMP type (an echo reply counts as its request), or zero for everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service(pub u32);

/// Ranges of services, sorted, disjoint, not touching each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Services(Vec<RangeInclusive<u32>>);

impl Service {
    /// The highest service there is.
    pub const LAST: u32 = 0xff_ffff;

    /// A destination port of a protocol, or an ICMP type.
    pub const fn new(protocol: u8, port_or_type: u16) -> Self {
        Self((protocol as u32) << 16 | port_or_type as u32)
    }

    /// IANA protocol number.
    pub const fn protocol(self) -> u8 {
        (self.0 >> 16) as u8
    }

    /// Destination port or ICMP type.
    pub const fn port_or_type(self) -> u16 {
        self.0 as u16
    }
}

impl Services {
    /// Every service of every protocol.
    pub fn any() -> Self {
        Self(vec![0..=Service::LAST])
    }

    /// The union of ranges of service numbers.
    pub fn of(mut ranges: Vec<RangeInclusive<u32>>) -> Self {
        ranges.retain(|range| !range.is_empty());
        ranges.sort_by_key(|range| *range.start());
        let mut merged: Vec<RangeInclusive<u32>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if *range.start() <= last.end().saturating_add(1) => {
                    *last = *last.start()..=*last.end().max(range.end());
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    /// Every port and type of one protocol.
    pub const fn protocol(number: u8) -> RangeInclusive<u32> {
        Service::new(number, 0).0..=Service::new(number, u16::MAX).0
    }

    /// The ranges, ascending.
    pub fn ranges(&self) -> &[RangeInclusive<u32>] {
        &self.0
    }

    /// Whether nothing is left to match after these.
    pub fn is_any(&self) -> bool {
        self.0 == [0..=Service::LAST]
    }

    /// Whether the service is among them.
    pub fn contains(&self, service: Service) -> bool {
        let after = self.0.partition_point(|range| *range.start() <= service.0);
        after > 0 && self.0[after - 1].contains(&service.0)
    }

    /// What is in both.
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Vec::new();
        for a in &self.0 {
            for b in &other.0 {
                both.push(*a.start().max(b.start())..=*a.end().min(b.end()));
            }
        }
        Self::of(both)
    }

    /// What is in these and not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        let mut outside = Vec::new();
        let mut start = 0;
        for range in &other.0 {
            if start < *range.start() {
                outside.push(start..=range.start() - 1);
            }
            start = range.end() + 1;
        }
        if start <= Service::LAST {
            outside.push(start..=Service::LAST);
        }
        self.intersection(&Self(outside))
    }

    /// Whether every service of `other` is among these.
    pub fn contain_all(&self, other: &Self) -> bool {
        other.0.iter().all(|inner| {
            let after = self.0.partition_point(|range| range.start() <= inner.start());
            after > 0 && self.0[after - 1].end() >= inner.end()
        })
    }
}

impl fmt::Display for Services {
    /// As people write them: `tcp/22, udp/8000-8100, icmp/8, gre`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_any() {
            return f.write_str("everything");
        }
        let mut separator = "";
        for range in &self.0 {
            let mut start = *range.start();
            while start <= *range.end() {
                let protocol = Service(start).protocol();
                let whole = Services::protocol(protocol);
                let end = *range.end().min(whole.end());
                let name = protocol_name(protocol);
                f.write_str(separator)?;
                match (Service(start).port_or_type(), Service(end).port_or_type()) {
                    (0, u16::MAX) => f.write_str(&name)?,
                    (first, last) if first == last => write!(f, "{name}/{first}")?,
                    (first, last) => write!(f, "{name}/{first}-{last}")?,
                }
                separator = ", ";
                start = whole.end() + 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Service, Services};

    #[test]
    fn sets_of_services_are_cut_and_told() {
        let of = |pairs: &[(u32, u32)]| Services::of(pairs.iter().map(|(a, b)| *a..=*b).collect());
        let (a, b) = (of(&[(1, 9), (20, 29)]), of(&[(5, 22)]));
        assert_eq!(a.intersection(&b), of(&[(5, 9), (20, 22)]));
        assert_eq!(a.without(&b), of(&[(1, 4), (23, 29)]));
        assert_eq!(a.without(&Services::any()), of(&[]));
        assert_eq!(Services::any().without(&of(&[])), Services::any());
        let told = Services::of(vec![
            Service::new(6, 22).0..=Service::new(6, 22).0,
            Service::new(6, 8000).0..=Service::new(6, 8100).0,
            Services::protocol(17),
            Service::new(1, 8).0..=Service::new(1, 8).0,
        ]);
        assert_eq!(told.to_string(), "icmp/8, tcp/22, tcp/8000-8100, udp");
        assert_eq!(Services::any().to_string(), "everything");
    }

    /// First and last service of each range.
    type Ranges = &'static [(u32, u32)];

    #[test]
    fn ranges_that_touch_become_one() {
        let cases: [(Ranges, Ranges); 4] = [
            (&[(5, 9), (1, 4)], &[(1, 9)]),
            (&[(1, 4), (6, 9)], &[(1, 4), (6, 9)]),
            (&[(1, 9), (2, 3)], &[(1, 9)]),
            (&[], &[]),
        ];
        let ranges = |pairs: Ranges| pairs.iter().map(|(a, b)| *a..=*b).collect::<Vec<_>>();
        for (given, expected) in cases {
            assert_eq!(Services::of(ranges(given)).ranges(), ranges(expected));
        }
    }

    #[test]
    fn services_are_found_in_their_ranges() {
        let web = Services::of(vec![
            Service::new(6, 80).0..=Service::new(6, 80).0,
            Service::new(6, 8000).0..=Service::new(6, 8100).0,
            Services::protocol(17),
        ]);
        for (protocol, port, inside) in [
            (6, 80, true),
            (6, 81, false),
            (6, 8050, true),
            (17, 0, true),
            (17, 65535, true),
            (18, 0, false),
            (1, 8, false),
        ] {
            assert_eq!(web.contains(Service::new(protocol, port)), inside, "{protocol} {port}");
        }
        assert!(Services::any().contain_all(&web) && !web.contain_all(&Services::any()));
        assert!(
            web.contain_all(&Services::of(vec![Service::new(6, 8001).0..=Service::new(6, 8100).0]))
        );
    }
}
