//! What the clocks say from one drain to the next: a drain that is late, a wall clock that was
//! stepped; and whether the wall clock may be believed where it decides what is old.

use std::time::Duration;

use super::collector::now_ms;

/// How late a drain may be, besides three intervals.
const PATIENCE_MS: i64 = 1_000;
/// How far the wall clock may run apart from the others between two drains: adjusting it moves it
/// by half a millisecond a second.
pub(super) const STEP_MS: i64 = 1_000;
/// How far the wall clock may run apart from the others, in all, and be believed.
const DOUBT_MS: i64 = 3_600_000;
/// How long it has to go on as it is at start, and after it ran further apart.
const BELIEVED_AFTER_START_MS: i64 = 3_600_000;
const BELIEVED_AFTER_STEP_MS: i64 = 86_400_000;

/// The clocks at one instant, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// Unix time.
    pub(super) wall: i64,
    /// `CLOCK_MONOTONIC`, which stands still while the machine is suspended.
    pub(super) monotonic: i64,
    /// `CLOCK_BOOTTIME`, which does not.
    pub(super) boot: i64,
}

impl Reading {
    pub(super) fn now() -> Self {
        Self {
            wall: now_ms(),
            monotonic: clock_ms(libc::CLOCK_MONOTONIC),
            boot: clock_ms(libc::CLOCK_BOOTTIME),
        }
    }
}

/// Something that a gap says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Irregularity {
    pub(super) what: What,
    /// Unix milliseconds.
    pub(super) from_ms: i64,
    /// Unix milliseconds.
    pub(super) to_ms: i64,
    pub(super) detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Late,
    Stepped,
}

/// The drains, by the clocks.
#[derive(Debug)]
pub(super) struct Pulse {
    interval_ms: i64,
    last: Reading,
}

impl Pulse {
    pub(super) fn new(interval: Duration, start: Reading) -> Self {
        let interval_ms = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX);
        Self { interval_ms, last: start }
    }

    /// A drain begins; what is wrong with when.
    pub(super) fn beat(&mut self, now: Reading) -> Vec<Irregularity> {
        let last = std::mem::replace(&mut self.last, now);
        let elapsed_ms = now.boot - last.boot;
        let mut found = Vec::new();
        let step_ms = now.wall - last.wall - elapsed_ms;
        if step_ms.abs() > STEP_MS {
            let direction = if step_ms > 0 { "forward" } else { "back" };
            found.push(Irregularity {
                what: What::Stepped,
                from_ms: now.wall.min(last.wall),
                to_ms: now.wall.max(last.wall),
                detail: format!("the wall clock was set {direction} by {}", seconds(step_ms.abs())),
            });
        }
        if elapsed_ms > self.interval_ms.saturating_mul(3).saturating_add(PATIENCE_MS) {
            let suspended_ms = elapsed_ms - (now.monotonic - last.monotonic);
            let late_ms = elapsed_ms - self.interval_ms;
            let detail = if suspended_ms > PATIENCE_MS {
                format!("the machine was suspended for {}", seconds(suspended_ms))
            } else {
                let late = seconds(late_ms);
                format!(
                    "a drain was {late} late: flowd was stopped, or the machine or its disk hung"
                )
            };
            // By the clock as it is now.
            let from_ms = now.wall - elapsed_ms;
            found.push(Irregularity { what: What::Late, from_ms, to_ms: now.wall, detail });
        }
        found
    }
}

/// Whether the wall clock may be believed: one that was just set may be wrong, and what is removed
/// because it is old does not come back.
#[derive(Debug)]
pub(super) struct Belief {
    /// As the clock has gone on since.
    base: Reading,
    /// By `boot`.
    from_ms: i64,
}

impl Belief {
    /// At start nothing is known of the clock but what it says.
    pub(super) fn new(start: Reading) -> Self {
        Self { base: start, from_ms: start.boot + BELIEVED_AFTER_START_MS }
    }

    /// Looks at the clocks; whether the wall clock is believed now.
    pub(super) fn look(&mut self, now: Reading) -> bool {
        let apart_ms = (now.wall - self.base.wall) - (now.boot - self.base.boot);
        if apart_ms.abs() > DOUBT_MS {
            *self = Self { base: now, from_ms: now.boot + BELIEVED_AFTER_STEP_MS };
        }
        now.boot >= self.from_ms
    }
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03} s", ms / 1_000, ms % 1_000)
}

fn clock_ms(clock: libc::clockid_t) -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes into a `timespec` that lives through the call; both clocks exist
    // since before the oldest kernel that flowd runs on.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec * 1_000 + time.tv_nsec / 1_000_000
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Belief, Pulse, Reading, What};

    /// What is told, from when to when, beginning with which words.
    type Told = (What, i64, i64, &'static str);

    #[test]
    fn a_late_drain_and_a_stepped_clock_are_told_apart() {
        let hour = 3_600_000;
        let cases: [(&str, i64, i64, i64, &[Told]); 9] = [
            // what happened; how far each clock went: wall, monotonic, boot; what is told
            ("nothing", 1_000, 1_000, 1_000, &[]),
            ("adjusted", 1_900, 1_000, 1_000, &[]),
            ("a slow drain", 4_000, 4_000, 4_000, &[]),
            ("stopped", 7_000, 7_000, 7_000, &[(What::Late, 0, 7_000, "a drain was 6.000 s late")]),
            (
                "suspended",
                hour,
                1_500,
                hour,
                &[(What::Late, 0, hour, "the machine was suspended for 3598.500 s")],
            ),
            (
                "set forward",
                61_000,
                1_000,
                1_000,
                &[(What::Stepped, 0, 61_000, "the wall clock was set forward by 60.000 s")],
            ),
            (
                "set back",
                -59_000,
                1_000,
                1_000,
                &[(What::Stepped, -59_000, 0, "the wall clock was set back by 60.000 s")],
            ),
            (
                "just too far",
                -2,
                1_000,
                1_000,
                &[(What::Stepped, -2, 0, "the wall clock was set back by 1.002 s")],
            ),
            (
                "stopped and set",
                -53_000,
                7_000,
                7_000,
                &[
                    (What::Stepped, -53_000, 0, "the wall clock was set back by 60.000 s"),
                    (What::Late, -60_000, -53_000, "a drain was 6.000 s late"),
                ],
            ),
        ];
        let start = Reading { wall: 1_700_000_000_000, monotonic: 5_000, boot: 9_000 };
        for (case, wall, monotonic, boot, expected) in cases {
            let mut pulse = Pulse::new(Duration::from_secs(1), start);
            let now = Reading {
                wall: start.wall + wall,
                monotonic: start.monotonic + monotonic,
                boot: start.boot + boot,
            };
            let found = pulse.beat(now);
            assert_eq!(found.len(), expected.len(), "{case}: {found:?}");
            for (found, (what, from, to, detail)) in found.iter().zip(expected) {
                let span = (found.from_ms - start.wall, found.to_ms - start.wall);
                assert_eq!((found.what, span), (*what, (*from, *to)), "{case}");
                assert!(found.detail.starts_with(detail), "{case}: {}", found.detail);
            }
            let later = Reading { wall: now.wall + 1_000, boot: now.boot + 1_000, ..now };
            let later = Reading { monotonic: now.monotonic + 1_000, ..later };
            assert_eq!(pulse.beat(later), [], "{case}: told once");
        }
    }

    #[test]
    fn a_clock_that_was_just_set_is_not_believed() {
        let (hour, day, year) = (3_600_000, 86_400_000, 31_536_000_000);
        let start = Reading { wall: 1_700_000_000_000, monotonic: 5_000, boot: 9_000 };
        let cases = [
            // what happened; since start by `boot`, and how far the wall clock is apart; is it believed
            ("start", 0, 0, false),
            ("not long ago", hour - 1, 0, false),
            ("an hour", hour, 0, true),
            ("adjusted", 2 * hour, hour, true),
            ("years ahead", 2 * hour + 1_000, 5 * year, false),
            ("and still", 2 * hour + 2_000, 5 * year, false),
            ("back after seconds", 2 * hour + 3_000, 0, false),
            ("not long ago", 2 * hour + 3_000 + day - 1, 0, false),
            ("a day", 2 * hour + 3_000 + day, 0, true),
            ("set back", 4 * day, -year, false),
            ("as it is now", 5 * day, -year, true),
        ];
        let mut belief = Belief::new(start);
        for (what, boot, apart, is_believed) in cases {
            let (wall, boot) = (start.wall + boot + apart, start.boot + boot);
            assert_eq!(belief.look(Reading { wall, boot, ..start }), is_believed, "{what}");
        }
    }

    #[test]
    fn the_clocks_of_this_machine_run() {
        let (before, now) = (Reading::now(), Reading::now());
        assert!(before.monotonic > 0 && before.boot >= before.monotonic);
        assert_eq!(Pulse::new(Duration::from_secs(1), before).beat(now), []);
    }
}
