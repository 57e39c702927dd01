//! Records that were picked from a chunk, as columns: a row is made of them when it is asked for.

use super::{
    Chunk, ChunkError, Code, ColumnId, ColumnSet, End, Kind, Number, Page, Row, State,
    rows::{Facts, row},
};
use crate::flows::{Initiator, TcpFlags, Verdict};

const NO_END: End = End { peer: None, addr: std::net::Ipv6Addr::UNSPECIFIED, resource: None };
const NO_KIND: Kind = Kind {
    interface: 0,
    protocol: 0,
    overflow: false,
    initiator: Initiator::Unknown,
    icmp: None,
    verdict: Verdict::Allow,
    enforced: false,
    rule: None,
    policy_revision: 0,
    opens: false,
};
const NO_STATE: State =
    State { tcp_flags: TcpFlags { rx: 0, tx: 0 }, end_reason: None, starts: false };

/// Records of a chunk, of each as much as its reader needs. They outlive the chunk.
pub struct Picked {
    peer_ends: Vec<End>,
    remote_ends: Vec<End>,
    kinds: Vec<Kind>,
    states: Vec<State>,
    /// Those that are not needed are empty.
    codes: [Vec<u32>; Code::ALL.len()],
    numbers: [Vec<i64>; Number::ALL.len()],
    /// Positions in the columns.
    order: Vec<u32>,
}

impl Picked {
    /// Those that are wanted of these pages of a chunk, in its order. Of what is said by these columns every row
    /// has its own, and of the rest nothing; ids are needed in any case.
    pub fn of(chunk: &Chunk, pages: Vec<Page<'_>>, of: ColumnSet) -> Result<Self, ChunkError> {
        let ids = Number::RecordId.columns();
        // Of nothing there is nothing to say.
        let of = if pages.is_empty() { ColumnSet::default() } else { of.and(ids) };
        let mut codes = Code::ALL.map(|_| Vec::new());
        let mut numbers = Number::ALL.map(|_| Vec::new());
        for page in pages {
            let places: Vec<usize> = page.wanted().iter(page.rows()).collect();
            for code in Code::ALL.into_iter().filter(|code| of.has_all(code.columns())) {
                let values = page.codes(code)?;
                codes[code as usize].extend(places.iter().map(|at| values[*at]));
            }
            for number in Number::ALL.into_iter().filter(|number| of.has_all(number.columns())) {
                if !matches!(number, Number::SrcPort | Number::DstPort) {
                    let values = page.numbers(number)?;
                    numbers[number as usize].extend(places.iter().map(|at| values[*at]));
                }
            }
        }
        let has = |column| of.has(column);
        let none = &[][..];
        let peer_ends = if has(ColumnId::PeerEnds) { chunk.peer_ends()? } else { none };
        let remote_ends = if has(ColumnId::RemoteEnds) { chunk.remote_ends()? } else { none };
        Ok(Self {
            peer_ends: pointed_to(peer_ends, &mut codes[Code::Peer as usize]),
            remote_ends: pointed_to(remote_ends, &mut codes[Code::Remote as usize]),
            kinds: if has(ColumnId::Kinds) { chunk.kinds()?.to_vec() } else { vec![] },
            states: if has(ColumnId::States) { chunk.states()?.to_vec() } else { vec![] },
            order: (0..numbers[Number::RecordId as usize].len() as u32).collect(),
            codes,
            numbers,
        })
    }

    /// The same by ascending id.
    #[must_use]
    pub fn by_id(self) -> Self {
        let ids = self.numbers[Number::RecordId as usize].iter();
        let mut order: Vec<(i64, u32)> = ids.copied().zip(0..).collect();
        order.sort_unstable();
        Self { order: order.into_iter().map(|(_, at)| at).collect(), ..self }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// One of them; `None` behind the last one.
    pub fn row(&self, place: usize) -> Option<Row> {
        let at = *self.order.get(place)? as usize;
        let code = |code: Code| self.codes[code as usize].get(at).map(|code| *code as usize);
        let end = |ends: &[End], of| code(of).and_then(|code| ends.get(code).copied());
        let facts = Facts {
            near: end(&self.peer_ends, Code::Peer).unwrap_or(NO_END),
            far: end(&self.remote_ends, Code::Remote).unwrap_or(NO_END),
            kind: code(Code::Kind).map_or(NO_KIND, |code| self.kinds[code]),
            state: code(Code::State).map_or(NO_STATE, |code| self.states[code]),
            ports: [Code::SrcPort, Code::DstPort].map(|port| code(port).unwrap_or(0) as u16),
        };
        let number = |number: Number| self.numbers[number as usize].get(at).copied();
        Some(row(&facts, |of| number(of).unwrap_or(0)))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Row> {
        (0..self.len()).filter_map(|place| self.row(place))
    }
}

/// The entries of a dictionary that codes point to, each for one of them, where the dictionary is
/// longer.
fn pointed_to(entries: &[End], codes: &mut [u32]) -> Vec<End> {
    if entries.len() <= codes.len() {
        return entries.to_vec();
    }
    let mut found = Vec::with_capacity(codes.len());
    for (code, at) in codes.iter_mut().zip(0..) {
        found.push(entries[*code as usize]);
        *code = at;
    }
    found
}
