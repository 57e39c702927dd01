//! Which records are wanted: a predicate, what a chunk makes of it, and what it selects of a page.

use std::{fmt, ops::RangeInclusive, slice, sync::Arc};

use super::{Chunk, ChunkError, Code, ColumnId, ColumnSet, End, Kind, Number, Page, State};

/// Says of an entry of a dictionary whether it is wanted.
pub type Judge<T> = Arc<dyn Fn(&T) -> bool + Send + Sync>;

/// Which records are wanted. What speaks of entries of dictionaries is asked once an entry.
#[derive(Clone)]
pub enum Predicate {
    /// All of these hold; without any, it holds.
    All(Vec<Self>),
    /// One of these holds.
    Any(Vec<Self>),
    /// This does not hold.
    Not(Box<Self>),
    /// Of the inside end.
    Peer(Judge<End>),
    /// Of the other end.
    Remote(Judge<End>),
    /// Of what its run is like. It does not say whether the record itself opens its flow.
    Kind(Judge<Kind>),
    /// Of what the record is like.
    State(Judge<State>),
    /// A number lies in a range.
    Number(Number, RangeInclusive<i64>),
}

impl Predicate {
    /// The dictionaries that [`Plan::of`] reads.
    pub fn dictionaries(&self) -> ColumnSet {
        let none = ColumnSet::default();
        match self {
            Self::All(parts) | Self::Any(parts) => {
                parts.iter().fold(none, |all, part| all.and(part.dictionaries()))
            }
            Self::Not(part) => part.dictionaries(),
            Self::Peer(_) => none.with(ColumnId::PeerEnds),
            Self::Remote(_) => none.with(ColumnId::RemoteEnds),
            Self::Kind(_) => none.with(ColumnId::Kinds),
            Self::State(_) => none.with(ColumnId::States),
            Self::Number(..) => none,
        }
    }
}

impl fmt::Debug for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(parts) => f.debug_tuple("All").field(parts).finish(),
            Self::Any(parts) => f.debug_tuple("Any").field(parts).finish(),
            Self::Not(part) => f.debug_tuple("Not").field(part).finish(),
            Self::Peer(_) => f.write_str("Peer"),
            Self::Remote(_) => f.write_str("Remote"),
            Self::Kind(_) => f.write_str("Kind"),
            Self::State(_) => f.write_str("State"),
            Self::Number(number, range) => {
                f.debug_tuple("Number").field(number).field(range).finish()
            }
        }
    }
}

/// What a chunk makes of a predicate: dictionaries are judged, and what its header decides is
/// decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// It holds for all records, or for none.
    Always(bool),
    /// It holds for the codes that are true here.
    Code(Code, Vec<bool>),
    /// A port lies in a range.
    Port(Code, RangeInclusive<i64>),
    /// A number lies in a range.
    Number(Number, RangeInclusive<i64>),
    /// All of these hold; they are asked in this order.
    All(Vec<Self>),
    /// One of these holds.
    Any(Vec<Self>),
    /// This does not hold.
    Not(Box<Self>),
}

/// Of what a plan selects.
#[derive(Clone, Copy)]
enum Each {
    Run,
    Record,
}

impl Plan {
    /// Needs the dictionaries of the predicate.
    pub fn of(predicate: &Predicate, chunk: &Chunk) -> Result<Self, ChunkError> {
        let all = |parts: &[Predicate]| -> Result<Vec<Self>, ChunkError> {
            parts.iter().map(|part| Self::of(part, chunk)).collect()
        };
        Ok(match predicate {
            Predicate::All(parts) => Self::joined(all(parts)?, false, Self::All),
            Predicate::Any(parts) => Self::joined(all(parts)?, true, Self::Any),
            Predicate::Not(part) => match Self::of(part, chunk)? {
                Self::Always(holds) => Self::Always(!holds),
                part => Self::Not(Box::new(part)),
            },
            Predicate::Peer(judge) => Self::judged(Code::Peer, chunk.peer_ends()?, judge),
            Predicate::Remote(judge) => Self::judged(Code::Remote, chunk.remote_ends()?, judge),
            Predicate::Kind(judge) => Self::judged(Code::Kind, chunk.kinds()?, judge),
            Predicate::State(judge) => Self::judged(Code::State, chunk.states()?, judge),
            Predicate::Number(number, range) => {
                let zone = chunk.header().zone(*number);
                if zone.end() < range.start() || range.end() < zone.start() || range.is_empty() {
                    Self::Always(false)
                } else if range.contains(zone.start()) && range.contains(zone.end()) {
                    Self::Always(true)
                } else {
                    match number {
                        Number::SrcPort => Self::Port(Code::SrcPort, range.clone()),
                        Number::DstPort => Self::Port(Code::DstPort, range.clone()),
                        _ => Self::Number(*number, range.clone()),
                    }
                }
            }
        })
    }

    fn judged<T>(code: Code, entries: &[T], judge: &Judge<T>) -> Self {
        let wanted: Vec<bool> = entries.iter().map(|entry| judge(entry)).collect();
        match (wanted.contains(&true), wanted.contains(&false)) {
            (false, _) => Self::Always(false),
            (true, false) => Self::Always(true),
            (true, true) => Self::Code(code, wanted),
        }
    }

    /// `decisive` is what settles the whole as soon as one part says it.
    fn joined(mut parts: Vec<Self>, decisive: bool, join: fn(Vec<Self>) -> Self) -> Self {
        if parts.contains(&Self::Always(decisive)) {
            return Self::Always(decisive);
        }
        parts.retain(|part| !matches!(part, Self::Always(_)));
        match parts.len() {
            0 => Self::Always(!decisive),
            1 => parts.swap_remove(0),
            _ => join(parts),
        }
    }

    /// Whether no record of the chunk is wanted.
    pub fn is_nothing(&self) -> bool {
        *self == Self::Always(false)
    }

    /// What is asked one after the other, each of what the ones before have left: what is the same
    /// for all records of a run comes first.
    pub fn steps(self) -> Vec<Self> {
        let Self::All(parts) = self else { return vec![self] };
        let (mut of_runs, rest): (Vec<_>, Vec<_>) = parts.into_iter().partition(Self::is_of_runs);
        of_runs.sort_by_key(Self::rank);
        let of_runs = (!of_runs.is_empty()).then_some(Self::All(of_runs));
        of_runs.into_iter().chain(rest).collect()
    }

    /// What is asked earlier is cheap, or leaves less.
    fn rank(&self) -> u8 {
        match self {
            Self::Port(..) => 0,
            Self::Code(Code::Kind, _) => 2,
            Self::Number(..) => 3,
            _ => 1,
        }
    }

    /// Whether it says the same of all records of a run.
    fn is_of_runs(&self) -> bool {
        match self {
            Self::Always(_) | Self::Port(..) => true,
            Self::Code(code, _) => *code != Code::State,
            Self::Number(number, _) => *number == Number::FirstSeen,
            Self::All(parts) | Self::Any(parts) => parts.iter().all(Self::is_of_runs),
            Self::Not(part) => part.is_of_runs(),
        }
    }

    /// The columns that [`Self::narrow`] reads.
    pub fn columns(&self) -> ColumnSet {
        match self {
            Self::Always(_) => ColumnSet::default(),
            Self::Code(code, _) | Self::Port(code, _) => code.columns(),
            // Runs are what a page is narrowed to.
            Self::Number(number, _) => number.columns().and(Code::State.columns()),
            Self::All(parts) | Self::Any(parts) => {
                parts.iter().fold(ColumnSet::default(), |all, part| all.and(part.columns()))
            }
            Self::Not(part) => part.columns(),
        }
    }

    /// What is left of a page, and which of its records are wanted; `None`: none.
    pub fn narrow<'c>(&self, mut page: Page<'c>) -> Result<Option<Page<'c>>, ChunkError> {
        if !self.is_of_runs() {
            let records = self.select(&page, Each::Record)?;
            return page.want(records);
        }
        let parts = match self {
            Self::All(parts) => parts,
            one => slice::from_ref(one),
        };
        let mut runs = Selection::All;
        for part in parts {
            runs = runs.and(part.select(&page, Each::Run)?);
            if runs == Selection::Nothing {
                return Ok(None);
            }
            (page, runs) = page.keep_few(runs)?;
        }
        match runs {
            Selection::Some(runs) => page.want_runs(&runs),
            _ => Ok(Some(page)),
        }
    }

    /// Those of a page for which it holds.
    fn select(&self, page: &Page<'_>, of: Each) -> Result<Selection, ChunkError> {
        let codes = |code| match of {
            Each::Run => page.codes_of_runs(code),
            Each::Record => page.codes(code),
        };
        Ok(match self {
            Self::Always(true) => Selection::All,
            Self::Always(false) => Selection::Nothing,
            Self::Code(code, wanted) => {
                if *code == Code::Peer {
                    // What is on the page is known without reading it.
                    let (first, last) = page.peers();
                    let here = &wanted[first as usize..=last as usize];
                    if !here.contains(&true) {
                        return Ok(Selection::Nothing);
                    }
                    if !here.contains(&false) {
                        return Ok(Selection::All);
                    }
                }
                Selection::of(codes(*code)?.iter().map(|code| wanted[*code as usize]))
            }
            Self::Port(code, range) => match of {
                Each::Run => Selection::some(page.ports_within(*code, range)?),
                Each::Record => {
                    let inside = |port: &u32| range.contains(&i64::from(*port));
                    Selection::of(codes(*code)?.iter().map(inside))
                }
            },
            Self::Number(number, range) => {
                let (start, width) = (*range.start(), range.end().abs_diff(*range.start()));
                let inside = |value: &i64| value.wrapping_sub(start).cast_unsigned() <= width;
                match of {
                    // It is the only one that runs have.
                    Each::Run => Selection::of(page.first_seens_of_runs()?.iter().map(inside)),
                    Each::Record => Selection::of(page.numbers(*number)?.iter().map(inside)),
                }
            }
            Self::All(parts) => {
                let mut selection = Selection::All;
                for part in parts {
                    if selection == Selection::Nothing {
                        break;
                    }
                    selection = selection.and(part.select(page, of)?);
                }
                selection
            }
            Self::Any(parts) => {
                // Not one of them fails: De Morgan's law.
                let mut failing = Selection::All;
                for part in parts {
                    if failing == Selection::Nothing {
                        break;
                    }
                    failing = failing.and(part.select(page, of)?.not());
                }
                failing.not()
            }
            Self::Not(part) => part.select(page, of)?.not(),
        })
    }
}

/// Which records of a page are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// None.
    Nothing,
    /// All.
    All,
    /// Those that are true here.
    Some(Vec<bool>),
}

impl Selection {
    fn of(wanted: impl Iterator<Item = bool>) -> Self {
        Self::some(wanted.collect())
    }

    fn some(wanted: Vec<bool>) -> Self {
        match (wanted.contains(&true), wanted.contains(&false)) {
            (false, _) => Self::Nothing,
            (true, false) => Self::All,
            (true, true) => Self::Some(wanted),
        }
    }

    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, _) | (_, Self::Nothing) => Self::Nothing,
            (Self::All, other) | (other, Self::All) => other,
            (Self::Some(mut wanted), Self::Some(other)) => {
                wanted.iter_mut().zip(&other).for_each(|(wanted, other)| *wanted &= other);
                Self::some(wanted)
            }
        }
    }

    fn not(self) -> Self {
        match self {
            Self::Nothing => Self::All,
            Self::All => Self::Nothing,
            Self::Some(mut wanted) => {
                wanted.iter_mut().for_each(|wanted| *wanted = !*wanted);
                Self::Some(wanted)
            }
        }
    }

    /// Which of the records at these positions are wanted.
    pub(super) fn at(&self, places: &[u16]) -> Self {
        match self {
            Self::Some(wanted) => Self::of(places.iter().map(|place| wanted[usize::from(*place)])),
            Self::Nothing => Self::Nothing,
            Self::All => Self::All,
        }
    }

    /// How many there are on a page of so many rows.
    pub fn count(&self, rows: usize) -> usize {
        match self {
            Self::Nothing => 0,
            Self::All => rows,
            Self::Some(wanted) => wanted.iter().filter(|wanted| **wanted).count(),
        }
    }

    /// Their positions on a page of so many rows.
    pub fn iter(&self, rows: usize) -> impl Iterator<Item = usize> {
        let is_wanted = move |at: &usize| match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Some(wanted) => wanted.get(*at).is_some_and(|wanted| *wanted),
        };
        (0..rows).filter(is_wanted)
    }
}
