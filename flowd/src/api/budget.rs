//! How much one user may ask: so many requests at a time and a second, that the others have their
//! answers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Instant,
};

/// Requests that may come at once.
const BURST: f64 = 400.0;
/// Requests a second that may go on.
const PER_SECOND: f64 = 100.0;
/// Users that are remembered; those whose budget is full again are forgotten then.
const USERS: usize = 1_024;

#[derive(Clone, Copy, Debug)]
struct Left {
    requests: f64,
    at: Instant,
}

impl Left {
    fn at(self, now: Instant) -> f64 {
        let more = now.saturating_duration_since(self.at).as_secs_f64() * PER_SECOND;
        (self.requests + more).min(BURST)
    }
}

/// What every user has left.
#[derive(Clone, Debug, Default)]
pub(super) struct Budget(Arc<Mutex<HashMap<u32, Left>>>);

impl Budget {
    /// Takes a request from what a user has left. `false`: it is too much.
    pub(super) fn take(&self, uid: u32, now: Instant) -> bool {
        // Nobody panics with it.
        let Ok(mut users) = self.0.lock() else { return false };
        if users.len() >= USERS {
            users.retain(|_, left| left.at(now) < BURST);
        }
        let left = users.entry(uid).or_insert(Left { requests: BURST, at: now });
        let requests = left.at(now);
        let is_enough = requests >= 1.0;
        *left = Left { requests: if is_enough { requests - 1.0 } else { requests }, at: now };
        is_enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{BURST, Budget, PER_SECOND};

    #[test]
    fn one_user_spends_only_an_own_budget() {
        let (budget, now) = (Budget::default(), Instant::now());
        let taken = (0..1_000).filter(|_| budget.take(1000, now)).count();
        assert_eq!(taken, BURST as usize);
        assert!(budget.take(1001, now));
        let later = now + Duration::from_secs(2);
        let taken = (0..1_000).filter(|_| budget.take(1000, later)).count();
        assert_eq!(taken, 2 * PER_SECOND as usize);
    }
}
