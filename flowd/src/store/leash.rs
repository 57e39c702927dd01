//! How long a query may go on: as long as somebody waits for its answer, and no longer than its
//! time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rusqlite::Connection;

/// Steps of SQLite's machine between two looks at the leash: some tens of microseconds.
const STEPS: i32 = 2_000;

/// Held by whoever asks; the same for all of its clones. The default one is endless.
#[derive(Clone, Debug, Default)]
pub struct Leash(Option<Arc<Held>>);

#[derive(Debug)]
struct Held {
    begun: Instant,
    limit: Duration,
    /// Milliseconds after `begun`.
    renewed_ms: AtomicU64,
    is_let_go: AtomicBool,
}

/// Why a query has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Its time is over, which was so long.
    Late(Duration),
    /// Nobody waits for it.
    Abandoned,
}

impl Leash {
    /// For a query that may take so long from now on.
    pub fn new(limit: Duration) -> Self {
        Self(Some(Arc::new(Held {
            begun: Instant::now(),
            limit,
            renewed_ms: AtomicU64::new(0),
            is_let_go: AtomicBool::new(false),
        })))
    }

    /// The time begins anew.
    pub fn renew(&self) {
        if let Some(held) = &self.0 {
            let ms = u64::try_from(held.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            held.renewed_ms.store(ms, Ordering::Relaxed);
        }
    }

    /// Nobody waits any more.
    pub fn let_go(&self) {
        if let Some(held) = &self.0 {
            held.is_let_go.store(true, Ordering::Relaxed);
        }
    }

    /// Whether and why the query has to end.
    pub(super) fn over(&self) -> Option<Over> {
        let held = self.0.as_ref()?;
        if held.is_let_go.load(Ordering::Relaxed) {
            return Some(Over::Abandoned);
        }
        let renewed = Duration::from_millis(held.renewed_ms.load(Ordering::Relaxed));
        let late = held.begun.elapsed().saturating_sub(renewed) > held.limit;
        late.then_some(Over::Late(held.limit))
    }

    /// Interrupts whatever runs on a connection once it is over.
    pub(super) fn hold(&self, conn: &mut Connection) -> rusqlite::Result<()> {
        if self.0.is_none() {
            return Ok(());
        }
        let leash = self.clone();
        conn.progress_handler(STEPS, Some(move || leash.over().is_some()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rusqlite::{Connection, ErrorCode};

    use super::{Leash, Over};

    /// A query that would take years.
    const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
        SELECT count(*) FROM n";

    #[test]
    fn what_is_over_is_interrupted_whatever_it_does() {
        let late = Leash::new(Duration::ZERO);
        let abandoned = Leash::new(Duration::from_secs(3_600));
        assert_eq!(abandoned.over(), None);
        abandoned.let_go();
        assert_eq!(abandoned.over(), Some(Over::Abandoned));
        for leash in [late, abandoned] {
            let mut conn = Connection::open_in_memory().unwrap();
            leash.hold(&mut conn).unwrap();
            let error = conn.query_row(ENDLESS, [], |_| Ok(())).unwrap_err();
            assert_eq!(error.sqlite_error_code(), Some(ErrorCode::OperationInterrupted));
        }
    }

    #[test]
    fn an_endless_leash_is_never_over_and_a_renewed_one_later() {
        let endless = Leash::default();
        endless.let_go();
        assert_eq!(endless.over(), None);
        let short = Leash::new(Duration::ZERO);
        assert_eq!(short.over(), Some(Over::Late(Duration::ZERO)));
        let long = Leash::new(Duration::from_secs(3_600));
        long.renew();
        assert_eq!(long.over(), None);
    }
}
