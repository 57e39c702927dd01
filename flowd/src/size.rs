//! Sizes in bytes as people write them.

/// Bytes: a number, alone or with B, kB, MB, GB, TB, KiB, MiB, GiB or TiB.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let scale: u64 = match unit {
        "" | "B" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    let number = number.trim();
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(scale).filter(|bytes| *bytes < MAX);
    }
    let bytes = number.parse::<f64>().ok()? * scale as f64;
    (bytes < MAX as f64).then_some(bytes as u64)
}

/// An exabyte: more than any store or flow has.
const MAX: u64 = 1_000_000_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_are_read_and_nonsense_is_not() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1500", Some(1_500)),
            ("10kB", Some(10_000)),
            ("1.5 MB", Some(1_500_000)),
            ("2GiB", Some(2 << 30)),
            ("999999999999999999", Some(999_999_999_999_999_999)),
            ("1000000000000000000", None),
            ("9000000TB", None),
            ("18446744073709551615TiB", None),
            ("", None),
            ("MB", None),
            ("-1", None),
            ("+1", None),
            ("inf", None),
            ("1e3", None),
            ("10 mb", None),
            ("10 GiBi", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
