//! Instants as people write them. Pure: now and the zone come in.

use jiff::{
    Timestamp, Zoned,
    civil::{Date, DateTime, Time},
    tz::TimeZone,
};

/// What is accepted, for error messages.
pub(crate) const ACCEPTED: &str = "RFC 3339 such as 2026-11-21T08:00:00Z, a date and time such \
    as 2026-11-21 08:00, a date such as 2026-11-21, a time of today such as 08:00, `today`, \
    `yesterday`, `now`, or how long ago, such as 90s, 15m, 24h, -2h or 7d";

/// Unix milliseconds of an instant. What says no zone is meant in `zone`; a date is its first
/// instant there.
pub(crate) fn parse(text: &str, now_ms: i64, zone: &TimeZone) -> Option<i64> {
    let now = Timestamp::from_millisecond(now_ms).ok()?;
    let today = || now.to_zoned(zone.clone()).date();
    let there = |at: DateTime| Some(at.to_zoned(zone.clone()).ok()?.timestamp().as_millisecond());
    let midnight =
        |days: i64| there(today().checked_sub(jiff::Span::new().days(days)).ok()?.into());
    match text {
        "now" => Some(now_ms),
        "today" => midnight(0),
        "yesterday" => midnight(1),
        _ => ago(text)
            .and_then(|ago_ms| now_ms.checked_sub(ago_ms))
            // What has no date could not be told back.
            .filter(|ms| Timestamp::from_millisecond(*ms).is_ok())
            .or_else(|| Some(text.parse::<Timestamp>().ok()?.as_millisecond()))
            .or_else(|| Some(text.parse::<Zoned>().ok()?.timestamp().as_millisecond()))
            .or_else(|| there(civil(text, today())?)),
    }
}

/// A date, with or without a time, or a time of this day. One that says a zone is none: it would be
/// read over.
fn civil(text: &str, today: Date) -> Option<DateTime> {
    let time = text.split_once(':').map_or("", |(_, behind)| behind);
    if text.contains('[') || time.contains(['+', '-', 'Z', 'z']) {
        return None;
    }
    text.parse().ok().or_else(|| {
        // With a colon: a number alone might be anything.
        let time: Time = text.contains(':').then(|| text.parse().ok())??;
        Some(today.to_datetime(time))
    })
}

/// Milliseconds of a number and a unit; the past needs no sign, but may have one.
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
    let number = number.strip_prefix('-').unwrap_or(number);
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<i64>().ok()?.checked_mul(unit_ms)
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::parse;

    const NOW_MS: i64 = 1_795_233_600_000 + 3_600_000; // 2026-11-21T05:00:00Z
    const HOUR_MS: i64 = 3_600_000;
    const MIDNIGHT_MS: i64 = NOW_MS - 5 * HOUR_MS;

    #[test]
    fn instants_are_read_and_nonsense_is_not() {
        let cases = [
            ("now", Some(NOW_MS)),
            ("today", Some(MIDNIGHT_MS)),
            ("yesterday", Some(MIDNIGHT_MS - 24 * HOUR_MS)),
            ("2026-11-21", Some(MIDNIGHT_MS)),
            ("2026-11-20 08:00", Some(MIDNIGHT_MS - 16 * HOUR_MS)),
            ("2026-11-20 08:00:01", Some(MIDNIGHT_MS - 16 * HOUR_MS + 1_000)),
            ("2026-11-20T08:00", Some(MIDNIGHT_MS - 16 * HOUR_MS)),
            ("04:30", Some(MIDNIGHT_MS + 9 * HOUR_MS / 2)),
            ("04:30:15", Some(MIDNIGHT_MS + 9 * HOUR_MS / 2 + 15_000)),
            ("2026-11-21T04:00:00Z", Some(1_795_233_600_000)),
            ("2026-11-21T05:00:00+01:00", Some(1_795_233_600_000)),
            ("2026-11-21T04:00:00.123Z", Some(1_795_233_600_123)),
            ("90s", Some(NOW_MS - 90_000)),
            ("15m", Some(NOW_MS - 900_000)),
            ("-2h", Some(NOW_MS - 2 * HOUR_MS)),
            ("24h", Some(NOW_MS - 24 * HOUR_MS)),
            ("7d", Some(NOW_MS - 7 * 24 * HOUR_MS)),
            ("0s", Some(NOW_MS)),
            ("", None),
            ("m", None),
            ("-", None),
            ("--2h", None),
            ("1.5h", None),
            ("15x", None),
            ("15é", None),
            ("0430", None),
            ("25:00", None),
            ("2026-11-20 25:00", None),
            ("9223372036854775807d", None),
            ("1000w", Some(NOW_MS - 1_000 * 7 * 24 * HOUR_MS)),
            ("20000000w", None),
            ("yesterday-ish", None),
            ("2026-13-01", None),
            // A zone that is told counts, or nothing does.
            ("2026-11-20T08:00[UTC]", Some(MIDNIGHT_MS - 16 * HOUR_MS)),
            ("2026-11-20T08:00+01:00[+01:00]", Some(MIDNIGHT_MS - 17 * HOUR_MS)),
            ("2026-11-20 08:00+01:00", Some(MIDNIGHT_MS - 17 * HOUR_MS)),
            ("2026-11-20 08:00[Nowhere/Land]", None),
            ("08:00+05:00", None),
            ("08:00-05:00", None),
            ("T08:00Z", None),
            ("2026-11-21[Nowhere/Land]", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text, NOW_MS, &TimeZone::UTC), expected, "{text}");
        }
    }

    #[test]
    fn what_says_no_zone_is_meant_where_one_is() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let cases = [
            // now, text, expected
            ("2026-11-21T05:00:00Z", "today", "2026-11-20T23:00:00Z"),
            ("2026-11-21T23:30:00Z", "today", "2026-11-21T23:00:00Z"),
            ("2026-11-21T05:00:00Z", "2026-11-20 08:00", "2026-11-20T07:00:00Z"),
            ("2026-11-21T05:00:00Z", "2026-07-20 08:00", "2026-07-20T06:00:00Z"),
            ("2026-11-21T05:00:00Z", "08:00", "2026-11-21T07:00:00Z"),
            ("2026-11-21T05:00:00Z", "2026-11-20T08:00:00Z", "2026-11-20T08:00:00Z"),
            // The clocks went back in the night: that day had 25 hours.
            ("2026-10-26T05:00:00Z", "yesterday", "2026-10-24T22:00:00Z"),
            ("2026-10-26T05:00:00Z", "24h", "2026-10-25T05:00:00Z"),
        ];
        for (now, text, expected) in cases {
            let [now_ms, expected] =
                [now, expected].map(|at| at.parse::<jiff::Timestamp>().unwrap().as_millisecond());
            assert_eq!(parse(text, now_ms, &berlin), Some(expected), "{text} at {now}");
        }
    }
}
