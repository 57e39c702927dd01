//! How much one user may ask: so many requests at a time and a second, that the others have their
//! answers; and so many different ones, that what the audit log has of them does not fill the disk.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher as _},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// Requests that may come at once.
const BURST: f64 = 400.0;
/// Requests a second that may go on.
const PER_SECOND: f64 = 100.0;
/// Bytes of entries that may come at once.
const BURST_BYTES: f64 = 4_194_304.0;
/// Bytes of entries a second that may go on: some 350 MB a day.
const BYTES_PER_SECOND: f64 = 4_096.0;
/// How long one that is asked again makes no entry of its own: as `audit/fold.rs` has it.
const WINDOW: Duration = Duration::from_mins(5);
/// Different ones of a user that are remembered so long.
const REMEMBERED: usize = 1_024;
/// Users that are remembered; those whose budget is full again are forgotten then.
const USERS: usize = 1_024;

/// What a request leaves in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trace {
    /// The same for those that are told as one; `None`: each is told.
    same: Option<u64>,
    bytes: u32,
}

impl Trace {
    /// Of one that is told by itself.
    pub(super) fn alone(bytes: u32) -> Self {
        Self { same: None, bytes }
    }

    /// Of one that is told together with those of the same `question`.
    pub(super) fn of(question: &impl Hash, bytes: u32) -> Self {
        let mut hasher = DefaultHasher::new();
        question.hash(&mut hasher);
        Self { same: Some(hasher.finish()), bytes }
    }

    #[cfg(test)]
    pub(super) fn is_alone(self) -> bool {
        self.same.is_none()
    }
}

/// As what a request may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is told, and was paid for.
    New,
    /// It was asked before, and makes no entry of its own.
    Again,
}

#[derive(Clone, Debug)]
struct Left {
    requests: f64,
    bytes: f64,
    at: Instant,
    /// Asked since `since`.
    known: HashSet<u64>,
    since: Instant,
}

impl Left {
    fn full(now: Instant) -> Self {
        let known = HashSet::new();
        Self { requests: BURST, bytes: BURST_BYTES, at: now, known, since: now }
    }

    fn refill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.requests = (self.requests + seconds * PER_SECOND).min(BURST);
        self.bytes = (self.bytes + seconds * BYTES_PER_SECOND).min(BURST_BYTES);
        self.at = now;
        let is_over = now.saturating_duration_since(self.since) >= WINDOW;
        if is_over || self.known.len() >= REMEMBERED {
            self.known.clear();
            self.since = now;
        }
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.requests >= BURST && self.bytes >= BURST_BYTES
    }

    fn take(&mut self, trace: Trace) -> Option<Taken> {
        if self.requests < 1.0 {
            return None;
        }
        self.requests -= 1.0;
        if trace.same.is_some_and(|same| self.known.contains(&same)) {
            return Some(Taken::Again);
        }
        let bytes = f64::from(trace.bytes);
        if self.bytes < bytes {
            return None;
        }
        self.bytes -= bytes;
        self.known.extend(trace.same);
        Some(Taken::New)
    }
}

/// What every user has left.
#[derive(Clone, Debug, Default)]
pub(super) struct Budget(Arc<Mutex<HashMap<u32, Left>>>);

impl Budget {
    /// Takes a request from what a user has left. `None`: it is too much.
    pub(super) fn take(&self, uid: u32, trace: Trace, now: Instant) -> Option<Taken> {
        // Nobody panics with it.
        let mut users = self.0.lock().ok()?;
        if users.len() >= USERS {
            users.retain(|_, left| !left.is_full(now));
        }
        let left = users.entry(uid).or_insert_with(|| Left::full(now));
        left.refill(now);
        left.take(trace)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{BURST, BURST_BYTES, BYTES_PER_SECOND, Budget, PER_SECOND, Taken, Trace, WINDOW};

    #[test]
    fn one_user_spends_only_an_own_budget() {
        let (budget, now) = (Budget::default(), Instant::now());
        let small = Trace::of(&"the same", 100);
        let taken = (0..1_000).filter(|_| budget.take(1000, small, now).is_some()).count();
        assert_eq!(taken, BURST as usize);
        assert!(budget.take(1001, small, now).is_some());
        let later = now + Duration::from_secs(2);
        let taken = (0..1_000).filter(|_| budget.take(1000, small, later).is_some()).count();
        assert_eq!(taken, 2 * PER_SECOND as usize);
    }

    /// However slowly and however much is asked, the log grows by so much.
    #[test]
    fn what_the_log_has_of_a_user_grows_so_fast_at_most() {
        const BYTES: u32 = 5_000;
        let (budget, start) = (Budget::default(), Instant::now());
        let mut written = 0_u64;
        let seconds = 7_200;
        for second in 0..seconds {
            for n in 0..20_u64 {
                let now = start + Duration::from_secs(second);
                if budget.take(1000, Trace::of(&(second, n), BYTES), now).is_some() {
                    written += u64::from(BYTES);
                }
            }
        }
        let most = BURST_BYTES + BYTES_PER_SECOND * seconds as f64;
        assert!((written as f64) <= most && written as f64 > most * 0.9, "{written} of {most}");
        let now = start + Duration::from_secs(seconds);
        assert_eq!(budget.take(1000, Trace::alone(BURST_BYTES as u32), now), None);
        assert!(budget.take(1001, Trace::alone(BURST_BYTES as u32), now).is_some(), "another user");
    }

    #[test]
    fn what_is_asked_again_costs_once_a_window() {
        let (budget, start) = (Budget::default(), Instant::now());
        let half = (BURST_BYTES / 2.0) as u32;
        let take = |question: &str, now| budget.take(1000, Trace::of(&question, half), now);
        assert_eq!(["a", "b"].map(|question| take(question, start)), [Some(Taken::New); 2]);
        for _ in 0..10 {
            assert_eq!(["a", "b"].map(|question| take(question, start)), [Some(Taken::Again); 2]);
        }
        assert_eq!(take("c", start), None, "it is spent");
        let soon = start + Duration::from_secs(1);
        assert_eq!(take("a", soon), Some(Taken::Again), "that is asked already");
        let later = start + WINDOW;
        assert_eq!(take("a", later), None, "another entry, for which there is no room yet");
    }
}
