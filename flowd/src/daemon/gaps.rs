//! The gaps of this run: what opens, grows and closes until the store has it.
//!
//! - a gap that lasts is one row, which is written again when it has grown or is closed
//! - what a failing store did not take is written with the next transaction that succeeds
//! - a stage that comes and goes by itself goes on with the row it has, within a minute
//! - what waits for the store is bounded: beyond it, gaps of a stage become one

use std::{collections::BTreeMap, sync::Arc};

use super::collector::now_ms;
use crate::{
    audit::{Event, Teller, word},
    flows::{Bound, Gap, Identity, Stage},
    wire::StageStatus,
};

/// Gaps that are over and wait for the store.
const MAX_WAITING: usize = 1_000;
/// Gaps that can last at once: more than peers that flowd is made for.
const MAX_OPEN: usize = 20_000;
/// How long after its end a gap goes on instead of another that begins.
const REOPENED_WITHIN_MS: i64 = 60_000;
/// What is said of drains that were late one after the other.
const LATE_AGAIN: &str =
    "several drains were late: flowd was stopped, or the machine or its disk hung";

/// What a gap is about. Only one gap lasts at one place.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    stage: Stage,
    interface: Option<&'a Arc<str>>,
    peer: Option<&'a Arc<Identity>>,
}

impl<'a> At<'a> {
    /// All interfaces and peers.
    pub(super) fn everywhere(stage: Stage) -> Self {
        Self { stage, interface: None, peer: None }
    }

    /// One interface.
    pub(super) fn interface(stage: Stage, name: &'a Arc<str>) -> Self {
        Self { stage, interface: Some(name), peer: None }
    }

    /// One peer of an interface.
    pub(super) fn peer(stage: Stage, interface: &'a Arc<str>, peer: &'a Arc<Identity>) -> Self {
        Self { stage, interface: Some(interface), peer: Some(peer) }
    }

    fn key(&self) -> Key {
        Key {
            stage: self.stage,
            interface: self.interface.cloned(),
            public_key: self.peer.map(|peer| peer.public_key.clone()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    stage: Stage,
    interface: Option<Arc<str>>,
    public_key: Option<String>,
}

impl Key {
    fn of(gap: &Gap) -> Self {
        let At { stage, interface, peer } =
            At { stage: gap.stage, interface: gap.interface.as_ref(), peer: gap.peer.as_ref() };
        At { stage, interface, peer }.key()
    }
}

/// A gap that lasts, or may go on.
#[derive(Debug)]
struct Kept {
    gap: Gap,
    /// Whether the store has it as it is.
    is_stored: bool,
}

/// Every gap that the store may not have yet.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    kept: BTreeMap<Key, Kept>,
    /// Over, and not stored.
    waiting: Vec<Gap>,
    begun: BTreeMap<Stage, u64>,
    /// The audit log.
    pub(super) teller: Teller,
}

impl Gaps {
    /// Takes over the gaps that lasted when the daemon before ended.
    pub(super) fn resume(&mut self, left: Vec<Gap>) {
        for gap in left {
            self.kept.insert(Key::of(&gap), Kept { gap, is_stored: true });
        }
    }

    /// A gap begins; `from_ms` is the last instant at which all was well. One that lasts at this
    /// place goes on.
    pub(super) fn open(&mut self, at: At<'_>, from_ms: i64, detail: impl Into<String>) {
        let key = at.key();
        if let Some(kept) = self.kept.get_mut(&key) {
            match kept.gap.closed_ms {
                None => return,
                Some(closed_ms) if (from_ms - closed_ms).abs() <= REOPENED_WITHIN_MS => {
                    kept.gap.closed_ms = None;
                    kept.is_stored = false;
                    if at.stage == Stage::Drain {
                        kept.gap.detail = LATE_AGAIN.to_owned();
                    }
                    return;
                }
                Some(_) => self.put_aside(&key),
            }
        }
        let gap = Gap {
            gap_id: 0,
            stage: at.stage,
            interface: at.interface.cloned(),
            peer: at.peer.cloned(),
            opened_ms: from_ms,
            closed_ms: None,
            bound: Bound::NOTHING,
            detail: detail.into(),
        };
        self.begin(&gap);
        if self.kept.len() < MAX_OPEN {
            self.kept.insert(key, Kept { gap, is_stored: false });
        } else {
            // No place to remember its end: it is as long as is known.
            self.wait(Gap { closed_ms: Some(from_ms), bound: Bound::UNKNOWN, ..gap });
        }
    }

    /// So much more may be missing from the gap that lasts at this place.
    pub(super) fn grow(&mut self, at: At<'_>, more: Bound) {
        if let Some(kept) = self.lasting_mut(&at)
            && more != Bound::NOTHING
        {
            kept.gap.bound = kept.gap.bound.and(more);
            kept.is_stored = false;
        }
    }

    /// The gap that lasts at this place ends, with so much more that may be missing.
    pub(super) fn close(&mut self, at: At<'_>, to_ms: i64, more: Bound) {
        let kept = self.kept.get_mut(&at.key()).filter(|kept| kept.gap.closed_ms.is_none());
        let Some(kept) = kept else { return };
        kept.gap.bound = kept.gap.bound.and(more);
        kept.gap.closed_ms = Some(to_ms.max(kept.gap.opened_ms));
        kept.is_stored = false;
        self.teller.tell(told(&kept.gap, word::GAP_CLOSED));
        let Gap { stage, interface, bound, .. } = &kept.gap;
        tracing::debug!(
            stage = stage.word(),
            interface = interface.as_deref(),
            packets = bound.packets,
            "a gap has ended"
        );
        if !comes_and_goes(at.stage) {
            self.put_aside(&at.key());
        }
    }

    /// A gap that is already over. Its number is the store's.
    pub(super) fn note(&mut self, gap: Gap) {
        self.begin(&gap);
        let closed_ms = gap.closed_ms.unwrap_or(gap.opened_ms).max(gap.opened_ms);
        self.wait(Gap { gap_id: 0, closed_ms: Some(closed_ms), ..gap });
    }

    /// Whether a gap lasts at this place.
    pub(super) fn is_open(&self, at: At<'_>) -> bool {
        self.kept.get(&at.key()).is_some_and(|kept| kept.gap.closed_ms.is_none())
    }

    /// Every gap that lasts.
    pub(super) fn lasting(&self) -> impl Iterator<Item = &Gap> {
        self.kept.values().map(|kept| &kept.gap).filter(|gap| gap.closed_ms.is_none())
    }

    /// Every gap that the store may not have as it is.
    pub(super) fn unwritten(&self) -> impl Iterator<Item = &Gap> {
        let kept = self.kept.values().filter(|kept| !kept.is_stored).map(|kept| &kept.gap);
        kept.chain(&self.waiting)
    }

    /// How many gaps of each stage began since the start, and last.
    pub(super) fn stages(&self) -> Vec<StageStatus> {
        let stage = |stage| StageStatus {
            stage,
            begun: self.begun.get(&stage).copied().unwrap_or(0),
            open: self.lasting().filter(|gap| gap.stage == stage).count() as u64,
        };
        Stage::ALL.map(stage).into()
    }

    /// What the store does not have yet goes through `put`, which numbers what has none; on an error
    /// it stays for the next time.
    pub(super) fn write<E>(
        &mut self,
        now_ms: i64,
        put: impl FnOnce(&mut [Gap]) -> Result<(), E>,
    ) -> Result<(), E> {
        let news = self.kept.iter().filter(|(_, kept)| !kept.is_stored);
        let news = news.map(|(key, kept)| (Some(key.clone()), kept.gap.clone()));
        let mut batch: Vec<(Option<Key>, Gap)> =
            news.chain(self.waiting.iter().map(|gap| (None, gap.clone()))).collect();
        if !batch.is_empty() {
            batch.sort_by_key(|(_, gap)| gap.opened_ms);
            let (keys, mut gaps): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            put(&mut gaps)?;
            self.waiting.clear();
            for (key, gap) in keys.into_iter().zip(gaps) {
                if let Some(key) = key {
                    self.kept.insert(key, Kept { gap, is_stored: true });
                }
            }
        }
        self.forget(now_ms);
        Ok(())
    }

    fn begin(&mut self, gap: &Gap) {
        *self.begun.entry(gap.stage).or_default() += 1;
        self.teller.tell(told(gap, word::GAP_OPENED));
        tracing::warn!(
            stage = gap.stage.word(),
            interface = gap.interface.as_deref(),
            peer = gap.peer.as_deref().map(|peer| peer.name.as_str()),
            detail = gap.detail,
            "a gap in the record"
        );
    }

    fn lasting_mut(&mut self, at: &At<'_>) -> Option<&mut Kept> {
        self.kept.get_mut(&at.key()).filter(|kept| kept.gap.closed_ms.is_none())
    }

    /// Makes room for another gap at this place.
    fn put_aside(&mut self, key: &Key) {
        if let Some(Kept { gap, is_stored: false }) = self.kept.remove(key) {
            self.wait(gap);
        }
    }

    /// Forgets what is stored and cannot go on.
    fn forget(&mut self, now_ms: i64) {
        self.kept.retain(|_, Kept { gap, is_stored }| {
            let is_over = |closed_ms: i64| (now_ms - closed_ms).abs() > REOPENED_WITHIN_MS;
            !*is_stored || !gap.closed_ms.is_some_and(is_over)
        });
    }

    fn wait(&mut self, gap: Gap) {
        // One that the store knows as open must be closed there.
        if self.waiting.len() < MAX_WAITING || gap.gap_id != 0 {
            self.waiting.push(gap);
            return;
        }
        let newest = self.waiting.iter_mut().rev().find(|other| other.stage == gap.stage);
        match newest {
            Some(other) => merge(other, &gap),
            // As many as there are stages at most.
            None => self.waiting.push(gap),
        }
    }
}

/// What the audit log is told of a gap; one that is told of when it is over has its end at once.
fn told(gap: &Gap, word: &'static str) -> Event {
    let Gap { gap_id: _, stage, interface, peer, opened_ms, closed_ms, bound, detail } = gap;
    let event = Event::auto(now_ms(), word)
        .on(stage.word())
        .with("interface", interface.as_deref())
        .with("peer", peer.as_deref().map(|peer| peer.public_key.as_str()))
        .with("from_ms", *opened_ms)
        .with("detail", detail.as_str());
    match closed_ms {
        None => event,
        Some(closed_ms) => event
            .with("to_ms", *closed_ms)
            .with("packets", bound.packets)
            .with("bytes", bound.bytes),
    }
}

/// Whether gaps of this stage end and begin by themselves, so that they would fill the store.
fn comes_and_goes(stage: Stage) -> bool {
    matches!(stage, Stage::Drain | Stage::TableFull | Stage::Store | Stage::Coverage)
}

/// Makes one gap of two of a stage.
fn merge(gap: &mut Gap, other: &Gap) {
    gap.opened_ms = gap.opened_ms.min(other.opened_ms);
    gap.closed_ms = gap.closed_ms.max(other.closed_ms);
    gap.bound = gap.bound.and(other.bound);
    if gap.interface != other.interface {
        gap.interface = None;
    }
    if gap.peer != other.peer {
        gap.peer = None;
    }
    gap.detail = "several gaps in one: the database took none for too long".to_owned();
}

#[cfg(test)]
mod tests {
    use super::{Arc, At, Bound, Gap, Gaps, MAX_WAITING, REOPENED_WITHIN_MS, Stage};

    /// The store, as rows by number; or one that fails.
    #[derive(Default)]
    struct Rows {
        rows: Vec<Gap>,
        is_failing: bool,
    }

    impl Rows {
        fn take(&mut self, gaps: &mut Gaps, now_ms: i64) -> bool {
            let put = |batch: &mut [Gap]| {
                if self.is_failing {
                    return Err(());
                }
                for gap in batch {
                    if gap.gap_id == 0 {
                        gap.gap_id = self.rows.len() as u64 + 1;
                        self.rows.push(gap.clone());
                    }
                    self.rows[gap.gap_id as usize - 1] = gap.clone();
                }
                Ok(())
            };
            gaps.write(now_ms, put).is_ok()
        }

        fn spans(&self) -> Vec<(i64, Option<i64>, Option<u64>)> {
            let span = |gap: &Gap| (gap.opened_ms, gap.closed_ms, gap.bound.packets);
            self.rows.iter().map(span).collect()
        }
    }

    fn over(stage: Stage, opened_ms: i64, closed_ms: i64) -> Gap {
        Gap {
            gap_id: 0,
            stage,
            interface: None,
            peer: None,
            opened_ms,
            closed_ms: Some(closed_ms),
            bound: Bound::of(1, 100),
            detail: String::new(),
        }
    }

    #[test]
    fn one_gap_lasts_at_a_place_and_is_one_row_until_it_closes() {
        let (wg0, wg1): (Arc<str>, Arc<str>) = ("wg0".into(), "wg1".into());
        let at = At::interface(Stage::Detached, &wg0);
        let (mut gaps, mut rows) = (Gaps::default(), Rows::default());
        gaps.open(at, 10, "gone");
        gaps.open(at, 20, "gone again");
        gaps.open(At::interface(Stage::Detached, &wg1), 30, "gone");
        gaps.grow(at, Bound::of(2, 200));
        assert!(rows.take(&mut gaps, 40));
        assert_eq!(rows.spans(), [(10, None, Some(2)), (30, None, Some(0))]);
        assert_eq!(gaps.lasting().count(), 2);
        gaps.grow(at, Bound::of(1, 100));
        gaps.close(at, 50, Bound::of(4, 400));
        gaps.close(at, 60, Bound::of(9, 900));
        gaps.grow(at, Bound::of(9, 900));
        assert!(!gaps.is_open(at) && gaps.is_open(At::interface(Stage::Detached, &wg1)));
        gaps.open(at, 50, "and once more");
        assert!(rows.take(&mut gaps, 70));
        let expected = [(10, Some(50), Some(7)), (30, None, Some(0)), (50, None, Some(0))];
        assert_eq!(rows.spans(), expected);
        let told = gaps.stages().into_iter().filter(|told| told.begun > 0);
        let told: Vec<_> = told.map(|told| (told.stage, told.begun, told.open)).collect();
        assert_eq!(told, [(Stage::Detached, 3, 2)]);
    }

    #[test]
    fn what_comes_and_goes_by_itself_goes_on_with_its_row_for_a_while() {
        let at = At::everywhere(Stage::TableFull);
        let (mut gaps, mut rows) = (Gaps::default(), Rows::default());
        for (from, to) in [(0, 10), (20, 30)] {
            gaps.open(at, from, "full");
            gaps.close(at, to, Bound::of(5, 500));
            assert!(rows.take(&mut gaps, to));
        }
        assert_eq!(rows.spans(), [(0, Some(30), Some(10))]);
        let later = 30 + REOPENED_WITHIN_MS + 1;
        gaps.open(at, later, "full");
        assert!(rows.take(&mut gaps, later));
        assert_eq!(rows.spans(), [(0, Some(30), Some(10)), (later, None, Some(0))]);
    }

    #[test]
    fn drains_that_are_late_one_after_the_other_are_one_row() {
        let at = At::everywhere(Stage::Drain);
        let (mut gaps, mut rows) = (Gaps::default(), Rows::default());
        for from in [0, 50_000, 100_000, 300_000] {
            gaps.open(at, from, "a drain was late");
            gaps.close(at, from + 10_000, Bound::NOTHING);
            assert!(rows.take(&mut gaps, from + 10_000));
        }
        assert_eq!(rows.spans(), [(0, Some(110_000), Some(0)), (300_000, Some(310_000), Some(0))]);
        assert!(rows.rows[0].detail.starts_with("several drains"), "{:?}", rows.rows[0]);
    }

    #[test]
    fn a_gap_that_was_open_at_the_start_keeps_its_number() {
        let wg0: Arc<str> = "wg0".into();
        let at = At::interface(Stage::Detached, &wg0);
        let (mut gaps, mut rows) = (Gaps::default(), Rows::default());
        gaps.open(at, 10, "gone");
        assert!(rows.take(&mut gaps, 20));
        let mut next = Gaps::default();
        next.resume(rows.rows.clone());
        next.close(at, 5, Bound::UNKNOWN);
        assert!(rows.take(&mut next, 30));
        assert_eq!(rows.spans(), [(10, Some(10), None)], "a clock set back makes it no shorter");
    }

    #[test]
    fn a_store_that_fails_gets_everything_later_in_bounded_memory() {
        let (mut gaps, mut rows) = (Gaps::default(), Rows { is_failing: true, ..Rows::default() });
        let store = At::everywhere(Stage::Store);
        gaps.open(store, 0, "no space left on device");
        let many = 5 * MAX_WAITING as i64;
        for at in 0..many {
            gaps.note(over(Stage::Drain, at, at + 1));
            gaps.note(over(Stage::Clock, at, at + 1));
            assert!(at > 10 || !rows.take(&mut gaps, at));
        }
        assert!(gaps.waiting.len() <= MAX_WAITING + Stage::ALL.len());
        gaps.close(store, many, Bound::NOTHING);
        rows.is_failing = false;
        assert!(rows.take(&mut gaps, many));
        let of = |stage| rows.rows.iter().filter(move |gap| gap.stage == stage);
        for stage in [Stage::Drain, Stage::Clock] {
            let packets: u64 = of(stage).filter_map(|gap| gap.bound.packets).sum();
            assert_eq!(packets, many as u64, "no bound got lost");
            assert_eq!(of(stage).map(|gap| gap.opened_ms).min(), Some(0));
            assert_eq!(of(stage).filter_map(|gap| gap.closed_ms).max(), Some(many));
        }
        assert_eq!(of(Stage::Store).count(), 1);
        assert!(gaps.waiting.is_empty());
    }
}
