//! Many events that say the same, told as one.
//!
//! - the first one is an entry at once: who did what is never only in memory
//! - those that follow are counted, and told together when their window ends
//! - one that went on in the window before is not told at once again: it goes on
//! - of those who may not, and of what comes and goes by itself at one place, so many different ones
//!   are told apart; what is more is told together
//! - where there is no room to follow one, it is told by itself, but what was asked before is told
//!   together: whoever asks the same again never fills the disk

use std::collections::{BTreeSet, HashMap};

use super::event::{Actor, Event, Outcome};

/// How long those that say the same are counted before they are told.
const WINDOW_MS: i64 = 300_000;
/// Different ones that are followed at a time.
const FOLLOWED: usize = 4_096;
/// Different ones of a user who may not, or of one kind at one place, in a window.
const APART: usize = 32;
/// Processes that are named; there is one entry for each so many.
const PIDS: usize = 64;

/// An event, or several.
#[derive(Clone, Debug, PartialEq)]
pub struct Folded {
    /// The first one.
    pub event: Event,
    /// When the last one was; `None`: there is one.
    pub until_ms: Option<i64>,
    /// How many there are.
    pub count: u64,
    /// The processes, in ascending order.
    pub pids: Vec<u32>,
}

impl From<Event> for Folded {
    fn from(event: Event) -> Self {
        Self { event, until_ms: None, count: 1, pids: Vec::new() }
    }
}

/// All that is the same in events that say the same: everything but the instant and the process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Same {
    word: &'static str,
    actor: Actor,
    resource: Option<String>,
    details: String,
    outcome: Outcome,
}

impl Same {
    fn of(event: &Event) -> Self {
        let mut actor = event.actor.clone();
        if let Actor::Caller(caller) = &mut actor {
            caller.pid = 0;
        }
        let details = serde_json::to_string(&event.details).expect("an object is JSON");
        let Event { word, resource, outcome, .. } = event;
        Self { word, actor, resource: resource.clone(), details, outcome: *outcome }
    }

    /// The same of what is told together: a user may have any number of groups.
    fn of_rest(event: &Event) -> Self {
        let mut same = Self::of(event);
        if let Actor::Caller(caller) = &mut same.actor {
            caller.gid = 0;
            caller.groups.clear();
        }
        same
    }
}

/// Of whom, or of what, so many different ones are told apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Source {
    User(u32),
    Place(&'static str, Option<String>),
}

impl Source {
    /// `None`: all of them are told apart.
    fn of(event: &Event) -> Option<Self> {
        match &event.actor {
            Actor::Caller(caller) if event.is_unwanted() => Some(Self::User(caller.uid)),
            Actor::Caller(_) => None,
            Actor::System | Actor::Auto => {
                let place = || Self::Place(event.word, event.resource.clone());
                event.comes_and_goes().then(place)
            }
        }
    }
}

/// Those of one window.
#[derive(Clone, Debug)]
struct Followed {
    began_ms: i64,
    /// The first one that is not told yet.
    first: Option<Event>,
    last_ms: i64,
    count: u64,
    pids: BTreeSet<u32>,
    /// Of whom or what it is one of the different ones.
    source: Option<Source>,
}

impl Followed {
    fn told_at(at_ms: i64, source: Option<Source>) -> Self {
        let pids = BTreeSet::new();
        Self { began_ms: at_ms, first: None, last_ms: at_ms, count: 0, pids, source }
    }

    fn absorb(&mut self, event: Event) {
        self.count += 1;
        self.last_ms = event.at_ms;
        if let Actor::Caller(caller) = &event.actor
            && self.pids.len() < PIDS
        {
            self.pids.insert(caller.pid);
        }
        self.first.get_or_insert(event);
    }

    /// What there is to tell; another window begins.
    fn take(&mut self, now_ms: i64) -> Option<Folded> {
        let next = Self::told_at(now_ms, self.source.clone());
        let Self { first, last_ms, count, pids, .. } = std::mem::replace(self, next);
        let event = first?;
        let until_ms = (count > 1).then_some(last_ms);
        Some(Folded { event, until_ms, count, pids: pids.into_iter().collect() })
    }
}

/// What is being counted.
#[derive(Debug, Default)]
pub struct Fold {
    followed: HashMap<Same, Followed>,
    /// How many different ones there are.
    different: HashMap<Source, usize>,
}

impl Fold {
    /// Takes an event, and gives what is to be told now.
    pub fn take(&mut self, event: Event) -> Option<Folded> {
        if !event.may_fold() {
            return Some(event.into());
        }
        let (mut event, mut same) = (event.clone(), Same::of(&event));
        let is_known = self.followed.contains_key(&same);
        let mut source = Source::of(&event).filter(|_| !is_known);
        let is_full = self.followed.len() >= FOLLOWED;
        if let Some(one) = &source {
            let different = self.different.entry(one.clone()).or_default();
            if *different < APART {
                *different += 1;
            } else {
                source = None;
                event = rest(event, APART);
                same = Same::of_rest(&event);
            }
        } else if is_full && !is_known && event.is_again {
            event = rest(event, FOLLOWED);
            same = Same::of_rest(&event);
        }
        if let Some(followed) = self.followed.get_mut(&same) {
            let is_wanted = !event.is_unwanted();
            followed.absorb(event);
            // No process goes unnamed; of those who may not, the first ones have to do.
            let is_complete = followed.pids.len() >= PIDS && is_wanted;
            return is_complete.then(|| followed.take(followed.last_ms)).flatten();
        }
        // Of those who are limited there is room for each: they are few, and must not get out of it.
        if !is_full || event.is_again || Source::of(&event).is_some() {
            self.followed.insert(same, Followed::told_at(event.at_ms, source));
        }
        Some(event.into())
    }

    /// What is to be told because its window has ended, or lies ahead since the clock was set back.
    pub fn ended(&mut self, now_ms: i64) -> Vec<Folded> {
        let mut told = Vec::new();
        self.followed.retain(|_, followed| {
            if (followed.began_ms..followed.began_ms + WINDOW_MS).contains(&now_ms) {
                return true;
            }
            let ended = followed.take(now_ms);
            let goes_on = ended.is_some();
            told.extend(ended);
            if !goes_on && let Some(source) = followed.source.take() {
                let different = self.different.entry(source).or_default();
                *different = different.saturating_sub(1);
            }
            goes_on
        });
        self.different.retain(|_, different| *different > 0);
        told.sort_by_key(|folded| folded.event.at_ms);
        told
    }

    /// All that is not told yet: the daemon stops.
    pub fn rest(&mut self, now_ms: i64) -> Vec<Folded> {
        let Self { followed, different: _ } = std::mem::take(self);
        let mut told: Vec<_> =
            followed.into_values().filter_map(|mut one| one.take(now_ms)).collect();
        told.sort_by_key(|folded| folded.event.at_ms);
        told
    }
}

/// What there was besides.
fn rest(event: Event, told: usize) -> Event {
    let Event { at_ms, word, mut actor, mut resource, details: _, outcome, is_again } = event;
    if let Actor::Caller(caller) = &mut actor {
        // A user may have any number of programs, and ask for anything.
        caller.executable = None;
        resource = None;
    }
    let event = Event { resource, is_again, ..Event::new(at_ms, word, actor, outcome) };
    event.with("more", format!("than {told} different ones"))
}

#[cfg(test)]
mod tests {
    use super::{APART, FOLLOWED, Fold, Folded, WINDOW_MS};
    use crate::audit::{Actor, Caller, Event, Outcome, word};

    const NOW_MS: i64 = 1_795_233_600_000;

    fn event(after_ms: i64, word: &'static str, pid: u32, resource: &str) -> Event {
        let caller = Caller { uid: 1000, pid, ..Caller::default() };
        Event::new(NOW_MS + after_ms, word, Actor::Caller(caller), Outcome::Done).on(resource)
    }

    #[test]
    fn the_first_is_told_at_once_and_the_others_together() {
        let mut fold = Fold::default();
        assert!(fold.take(event(0, word::QUERY, 1, "/a")).is_some());
        for after_ms in 1..=5 {
            assert_eq!(
                fold.take(event(after_ms, word::QUERY, 2 + after_ms as u32 % 2, "/a")),
                None
            );
        }
        assert!(fold.take(event(6, word::QUERY, 1, "/b")).is_some(), "another says another thing");
        assert_eq!(fold.ended(NOW_MS + WINDOW_MS - 1), []);
        let told = fold.ended(NOW_MS + WINDOW_MS);
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].count, told[0].event.at_ms), (5, NOW_MS + 1));
        assert_eq!(told[0].until_ms, Some(NOW_MS + 5));
        assert_eq!(told[0].pids, [2, 3]);
    }

    #[test]
    fn what_goes_on_is_told_once_a_window() {
        let mut fold = Fold::default();
        let (mut told, mut count) = (0, 0);
        for step in 0..100 {
            let at_ms = step * WINDOW_MS / 10;
            for folded in fold.ended(NOW_MS + at_ms).into_iter().chain(fold.take(event(
                at_ms,
                word::QUERY,
                1,
                "/a",
            ))) {
                told += 1;
                count += folded.count;
            }
        }
        let rest = fold.rest(NOW_MS);
        assert_eq!(count + rest.iter().map(|folded| folded.count).sum::<u64>(), 100);
        assert_eq!(told, 10);
    }

    #[test]
    fn what_changes_something_is_never_folded() {
        let mut fold = Fold::default();
        for _ in 0..3 {
            assert!(fold.take(event(0, word::POLICY_APPLIED, 1, "/v1/policy")).is_some());
        }
        assert_eq!(fold.rest(NOW_MS), []);
    }

    #[test]
    fn whoever_may_not_cannot_fill_the_log() {
        let mut fold = Fold::default();
        let told: u64 = (0..100_000)
            .filter_map(|n| fold.take(event(n, word::ACCESS_REFUSED, 1, &format!("/{n}"))))
            .map(|folded| folded.count)
            .sum();
        assert_eq!(told, APART as u64 + 1);
        let rest = fold.rest(NOW_MS);
        assert_eq!(rest.len(), 1);
        assert_eq!(told + rest[0].count, 100_000, "and yet each one is counted");
        assert_eq!(rest[0].event.resource, None);
    }

    #[test]
    fn another_group_is_no_way_around_that() {
        let mut fold = Fold::default();
        let refused = |gid: u32| {
            let caller = Caller { uid: 1000, gid, groups: vec![gid], ..Caller::default() };
            Event::new(NOW_MS, word::ACCESS_REFUSED, Actor::Caller(caller), Outcome::Refused)
        };
        let told = (0..10_000).filter_map(|gid| fold.take(refused(gid))).count();
        assert_eq!(told, APART + 1);
    }

    #[test]
    fn what_comes_and_goes_by_itself_cannot_fill_the_log_either() {
        let mut fold = Fold::default();
        let moved = |n: i64, peer: &str| {
            let event = Event::auto(NOW_MS + n, word::PEER_ENDPOINT_CHANGED).on(peer);
            event.with("to", format!("192.0.2.1:{n}"))
        };
        let told: Vec<_> = (0..10_000).filter_map(|n| fold.take(moved(n, "alice"))).collect();
        assert_eq!(told.len(), APART + 1);
        let rest = told.last().unwrap();
        assert_eq!(rest.event.resource.as_deref(), Some("alice"), "whose it is stays");
        assert!(fold.take(moved(0, "bob")).unwrap().event.details.contains_key("to"));
        let counted: u64 = fold.rest(NOW_MS).iter().map(|folded| folded.count).sum();
        assert_eq!(told.len() as u64 + counted, 10_000);
    }

    #[test]
    fn memory_has_a_bound_and_nothing_is_lost_beyond_it() {
        let mut fold = Fold::default();
        for n in 0..2 * FOLLOWED {
            assert!(fold.take(event(0, word::QUERY, 1, &format!("/{n}"))).is_some());
        }
        assert_eq!(fold.followed.len(), FOLLOWED);
    }

    #[test]
    fn whoever_asks_again_makes_no_entry_where_there_is_no_room_either() {
        let mut fold = Fold::default();
        let many = 2 * FOLLOWED as i64;
        let mut asked = |n: i64, is_again| {
            let event = event(n, word::QUERY, 1, &format!("/{n}"));
            fold.take(Event { is_again, ..event }).map_or(0, |folded| folded.count)
        };
        let first: u64 = (0..many).map(|n| asked(n, false)).sum();
        assert_eq!(first, many as u64, "what is new stands by itself, whoever filled the room");
        let told: u64 = (0..many).cycle().take(100_000).map(|n| asked(n, true)).sum();
        assert_eq!(told, 1, "the first one of the rest");
        let rest = fold.rest(NOW_MS);
        let counted: u64 = rest.iter().map(|folded| folded.count).sum();
        assert_eq!(told + counted, 100_000, "and yet each one is counted");
        let more = |folded: &&Folded| folded.event.details.contains_key("more");
        assert_eq!(rest.iter().filter(more).count(), 1);
    }
}
