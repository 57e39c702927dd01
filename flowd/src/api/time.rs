//! Instants as people write them in queries. Pure: now comes in.

use jiff::{Timestamp, civil::Date, tz::TimeZone};

/// What is accepted, for error messages.
pub(super) const ACCEPTED: &str = "RFC 3339 such as 2026-11-21T08:00:00Z, a date such as \
    2026-11-21, `today`, `now`, or how long ago, such as 90s, 15m, 24h or 7d";

/// Unix milliseconds of an instant. A date is its first instant in UTC.
pub(super) fn parse(text: &str, now_ms: i64) -> Option<i64> {
    let start = |date: Date| {
        let start = date.to_zoned(TimeZone::UTC).ok()?;
        Some(start.timestamp().as_millisecond())
    };
    match text {
        "now" => Some(now_ms),
        "today" => {
            let now = Timestamp::from_millisecond(now_ms).ok()?;
            start(now.to_zoned(TimeZone::UTC).date())
        }
        _ => ago(text)
            .and_then(|ago_ms| now_ms.checked_sub(ago_ms))
            // What has no date could not be told back.
            .filter(|ms| Timestamp::from_millisecond(*ms).is_ok())
            .or_else(|| Some(text.parse::<Timestamp>().ok()?.as_millisecond()))
            .or_else(|| start(text.parse().ok()?)),
    }
}

/// Milliseconds of a number and a unit.
fn ago(text: &str) -> Option<i64> {
    let unit = text.chars().next_back()?;
    let unit_ms = match unit {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        'w' => 7 * 86_400_000,
        _ => return None,
    };
    let number = &text[..text.len() - unit.len_utf8()];
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<i64>().ok()?.checked_mul(unit_ms)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn instants_are_read_and_nonsense_is_not() {
        let now_ms = 1_795_233_600_000 + 3_600_000; // 2026-11-21T05:00:00Z
        let cases = [
            ("now", Some(now_ms)),
            ("today", Some(1_795_219_200_000)),
            ("2026-11-21", Some(1_795_219_200_000)),
            ("2026-11-21T04:00:00Z", Some(1_795_233_600_000)),
            ("2026-11-21T05:00:00+01:00", Some(1_795_233_600_000)),
            ("2026-11-21T04:00:00.123Z", Some(1_795_233_600_123)),
            ("90s", Some(now_ms - 90_000)),
            ("15m", Some(now_ms - 900_000)),
            ("24h", Some(now_ms - 86_400_000)),
            ("7d", Some(now_ms - 7 * 86_400_000)),
            ("0s", Some(now_ms)),
            ("", None),
            ("m", None),
            ("-5m", None),
            ("1.5h", None),
            ("15x", None),
            ("15é", None),
            ("9223372036854775807d", None),
            ("1000w", Some(now_ms - 1_000 * 7 * 86_400_000)),
            ("20000000w", None),
            ("yesterday-ish", None),
            ("2026-13-01", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text, now_ms), expected.or(None), "{text}");
        }
    }
}
