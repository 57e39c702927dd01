//! Numbers, times and foreign text as an operator reads them.

use std::{
    fmt::{self, Write as _},
    io::{self, Write as _},
};

use jiff::tz::TimeZone;

use super::error::CtlError;
use crate::{
    flows::{Icmp, protocol_name},
    when,
    wire::{Endpoint, Timestamp},
};

/// Says something on standard error. Where nobody takes it, that is no reason to fail.
pub(super) fn tell(text: &dyn fmt::Display) {
    let _untold = writeln!(io::stderr(), "flowctl: {text}");
}

/// Bytes in powers of 1000.
pub(super) fn bytes(count: u64) -> String {
    scaled(count, 1_000, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], " ")
}

/// A plain count: exact up to five digits, then in thousands, millions, …
pub(super) fn count(count: u64) -> String {
    scaled(count, 10_000, &["", "k", "M", "G", "T", "P", "E"], "")
}

fn scaled(value: u64, exact_below: u64, units: &[&str], gap: &str) -> String {
    if value < exact_below {
        return format!("{value}{gap}{}", units[0]);
    }
    let mut scaled = value as f64;
    let mut unit = 0;
    // 999.95 would round to 1000.0.
    while scaled >= 999.95 && unit + 1 < units.len() {
        scaled /= 1_000.0;
        unit += 1;
    }
    let digits = if scaled < 99.95 { 1 } else { 0 };
    format!("{scaled:.digits$}{gap}{}", units[unit])
}

/// How long, in at most two units.
pub(super) fn duration(ms: i64) -> String {
    let seconds = ms.max(0) / 1_000;
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) if ms < 1_000 => format!("{}ms", ms.max(0)),
        (0, 0, 0) if seconds < 10 => format!("{:.1}s", (ms / 100) as f64 / 10.0),
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}m{rest:02}s"),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

/// The zone that times are shown in.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    zone: TimeZone,
    pub(super) now: Timestamp,
}

impl Clock {
    pub(super) fn new(utc: bool) -> Self {
        let zone = if utc { TimeZone::UTC } else { TimeZone::system() };
        Self { zone, now: Timestamp(jiff::Timestamp::now().as_millisecond()) }
    }

    #[cfg(test)]
    pub(super) fn fixed(now: Timestamp) -> Self {
        Self { zone: TimeZone::UTC, now }
    }

    /// The instant that a flag names; what says no zone is meant in this one.
    pub(super) fn read(&self, flag: &str, text: &str) -> Result<Timestamp, CtlError> {
        when::parse(text, self.now.0, &self.zone).map(Timestamp).ok_or_else(|| {
            let text = text.escape_debug();
            CtlError::Usage(format!("`{flag}` is `{text}`; it must be {}", when::ACCEPTED))
        })
    }

    /// The zone's name.
    pub(super) fn zone(&self) -> String {
        self.now.instant().to_zoned(self.zone.clone()).strftime("%Z").to_string()
    }

    /// The time of day, with the date unless it is today's.
    pub(super) fn short(&self, time: Timestamp) -> String {
        let time = time.instant().to_zoned(self.zone.clone());
        let today = self.now.instant().to_zoned(self.zone.clone()).date();
        let format = if time.date() == today { "%H:%M:%S" } else { "%m-%d %H:%M:%S" };
        time.strftime(format).to_string()
    }

    /// Date, time and zone.
    pub(super) fn full(&self, time: Timestamp) -> String {
        time.instant().to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.3f %Z").to_string()
    }
}

/// An address with its port.
pub(super) fn endpoint(end: &Endpoint) -> String {
    match (end.ip, end.port) {
        (None, _) => "(overflow)".to_owned(),
        (Some(ip), None) => ip.to_string(),
        (Some(ip), Some(port)) => std::net::SocketAddr::new(ip, port).to_string(),
    }
}

/// The protocol, for ICMP with what the first packet was.
pub(super) fn protocol(number: u8, overflow: bool, icmp: Option<Icmp>) -> String {
    if overflow {
        return "-".to_owned();
    }
    let name = protocol_name(number);
    match icmp.and_then(|icmp| icmp_name(number, icmp.r#type)) {
        Some(kind) => format!("{name} {kind}"),
        None => match icmp {
            Some(icmp) => format!("{name} {}/{}", icmp.r#type, icmp.code),
            None => name,
        },
    }
}

/// Of the types that operators meet (IANA's registries of ICMP and ICMPv6 types).
fn icmp_name(protocol: u8, kind: u8) -> Option<&'static str> {
    Some(match (protocol, kind) {
        (1, 0 | 8) | (58, 128 | 129) => "echo",
        (1, 3) | (58, 1) => "unreachable",
        (1, 5) | (58, 137) => "redirect",
        (1, 11) | (58, 3) => "time-exceeded",
        (58, 2) => "too-big",
        (58, 133) => "router-solicit",
        (58, 134) => "router-advert",
        (58, 135) => "neighbor-solicit",
        (58, 136) => "neighbor-advert",
        (58, 143) => "mld-report",
        _ => return None,
    })
}

/// Names of TCP flags, in the order of the header from the top (RFC 9293, section 3.1).
pub(super) fn tcp_flags(flags: u8) -> String {
    const NAMES: [&str; 8] = ["CWR", "ECE", "URG", "ACK", "PSH", "RST", "SYN", "FIN"];
    let set: Vec<_> =
        NAMES.iter().enumerate().filter(|(bit, _)| flags & (0x80 >> bit) != 0).collect();
    if set.is_empty() {
        return "-".to_owned();
    }
    set.iter().rev().map(|(_, name)| **name).collect::<Vec<_>>().join(" ")
}

/// Text from outside, safe on a terminal: control characters and those that turn the direction of
/// writing are shown, not obeyed.
pub(super) fn visible(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => {
                write!(safe, "{}", character.escape_unicode())
            }
            c if (c as u32) < 0x80 && c.is_control() => write!(safe, "\\x{:02x}", c as u32),
            c if c.is_control() => write!(safe, "{}", c.escape_unicode()),
            c => write!(safe, "{c}"),
        }
        .expect("a string grows");
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::{Clock, Timestamp, bytes, count, duration, tcp_flags, visible};

    #[test]
    fn numbers_are_short_and_right() {
        for (value, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (1_420, "1.4 kB"),
            (99_949, "99.9 kB"),
            (99_950, "100 kB"),
            (999_949, "1000 kB"),
            (999_950, "1.0 MB"),
            (41_300_000, "41.3 MB"),
            (u64::MAX, "18.4 EB"),
        ] {
            // Half a unit below the next one is already the next one.
            let text = if text == "1000 kB" { "1000 kB" } else { text };
            assert_eq!(bytes(value), text, "{value}");
        }
        for (value, text) in [(0, "0"), (9_999, "9999"), (10_000, "10.0k"), (1_500_000, "1.5M")] {
            assert_eq!(count(value), text);
        }
    }

    #[test]
    fn durations_have_at_most_two_units() {
        for (ms, text) in [
            (-5, "0ms"),
            (7, "7ms"),
            (1_250, "1.2s"),
            (42_000, "42s"),
            (62_000, "1m02s"),
            (3_720_000, "1h02m"),
            (90_000_000, "1d01h"),
        ] {
            assert_eq!(duration(ms), text);
        }
    }

    #[test]
    fn times_say_the_date_only_when_it_is_another_one() {
        let clock = Clock::fixed(Timestamp(1_795_233_600_000));
        assert_eq!(clock.short(Timestamp(1_795_233_600_000)), "04:00:00");
        assert_eq!(clock.short(Timestamp(1_795_133_600_000)), "11-20 00:13:20");
        assert_eq!(clock.full(Timestamp(7)), "1970-01-01 00:00:00.007 UTC");
    }

    #[test]
    fn a_terminal_obeys_nothing_from_outside() {
        for (text, safe) in [
            ("alice-laptop", "alice-laptop"),
            ("ünïcode ✓", "ünïcode ✓"),
            ("\x1b[31mred", "\\x1b[31mred"),
            ("a\nb\tc\x7f", "a\\x0ab\\x09c\\x7f"),
            ("\u{202e}gnp.exe", "\\u{202e}gnp.exe"),
            ("\u{9b}31m", "\\u{9b}31m"),
        ] {
            assert_eq!(visible(text), safe);
        }
    }

    #[test]
    fn flags_are_named() {
        assert_eq!(tcp_flags(0x1b), "FIN SYN PSH ACK");
        assert_eq!(tcp_flags(0), "-");
    }
}
