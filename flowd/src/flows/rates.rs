//! What open flows and their peers moved between two looks, and the first of them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{Counters, Identity, Order, Record, Tuple, Verdict, record::words};

words! {
    /// What a list of open flows and of their peers is sorted by.
    RateSort {
        /// Bytes of both directions, between the two looks.
        Rate = 0 "rate",
        /// Bytes from the peer, between the two looks.
        Rx = 1 "rx",
        /// Bytes to the peer, between the two looks.
        Tx = 2 "tx",
        /// Packets of both directions, between the two looks.
        Packets = 3 "packets",
        /// Bytes of both directions since the first packet; of a peer as by rate.
        Total = 4 "total",
        /// The first packet; of a peer as by rate.
        Start = 5 "start",
        /// The last packet; of a peer as by rate.
        Last = 6 "last",
    }
}

impl RateSort {
    /// Every one, in the order of the documentation.
    pub const ALL: [Self; 7] =
        [Self::Rate, Self::Rx, Self::Tx, Self::Packets, Self::Total, Self::Start, Self::Last];

    fn of_flow(self, record: &Record, moved: Counters) -> i64 {
        match self {
            Self::Total => count(record.total.bytes()),
            Self::Start => record.first_seen_ms,
            Self::Last => record.last_seen_ms,
            Self::Rate | Self::Rx | Self::Tx | Self::Packets => self.of_moved(moved),
        }
    }

    fn of_moved(self, moved: Counters) -> i64 {
        count(match self {
            Self::Rx => moved.rx_bytes,
            Self::Tx => moved.tx_bytes,
            Self::Packets => moved.packets(),
            Self::Rate | Self::Total | Self::Start | Self::Last => moved.bytes(),
        })
    }
}

fn count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The open flows of a peer on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRate {
    /// Name of the interface.
    pub interface: Arc<str>,
    /// `None`: addresses of nobody.
    pub peer: Option<Arc<Identity>>,
    /// Open flows.
    pub flows: u64,
    /// Of these, flows that the policy denies.
    pub denied_flows: u64,
    /// Between the two looks, overflow included.
    pub moved: Counters,
}

/// Where a flow stands: the value it is sorted by, its last and its first packet, its endpoints;
/// equals in the order in which they came.
type Place = (i64, i64, i64, Tuple, u64);

/// What is asked of a look: sums of everything, and the first flows and peers.
#[derive(Clone, Debug)]
pub struct Board {
    sort: RateSort,
    order: Order,
    limit: usize,
    came: u64,
    best: BTreeMap<Place, (Record, Counters)>,
    peers: HashMap<Arc<str>, HashMap<String, PeerRate>>,
    /// Open flows; overflow is not a flow.
    pub open_flows: u64,
    /// Of these, flows that the policy denies.
    pub denied_flows: u64,
    /// Of these, flows that moved something between the two looks.
    pub moving_flows: u64,
    /// Between the two looks, overflow included.
    pub moved: Counters,
}

impl Board {
    /// Nothing yet, for so many flows and so many peers.
    pub fn new(sort: RateSort, order: Order, limit: usize) -> Self {
        Self {
            sort,
            order,
            limit,
            came: 0,
            best: BTreeMap::new(),
            peers: HashMap::new(),
            open_flows: 0,
            denied_flows: 0,
            moving_flows: 0,
            moved: Counters::default(),
        }
    }

    /// Takes an open flow, or what found the table full, and what it moved.
    pub fn absorb(&mut self, record: &Record, moved: Counters) {
        let is_flow = u64::from(!record.overflow);
        let is_denied = if record.verdict == Verdict::Deny { is_flow } else { 0 };
        self.open_flows += is_flow;
        self.denied_flows += is_denied;
        self.moving_flows += if moved == Counters::default() { 0 } else { is_flow };
        self.moved += moved;
        let peer = self.peer(record);
        peer.flows += is_flow;
        peer.denied_flows += is_denied;
        peer.moved += moved;
        self.offer(record, moved);
    }

    fn peer(&mut self, record: &Record) -> &mut PeerRate {
        let interface = &record.interface;
        if !self.peers.contains_key(interface) {
            self.peers.insert(interface.clone(), HashMap::new());
        }
        let peers = self.peers.get_mut(interface).expect("it is there or was put there");
        let key = record.peer.as_ref().map_or("", |peer| &peer.public_key);
        if !peers.contains_key(key) {
            let (interface, peer) = (interface.clone(), record.peer.clone());
            let moved = Counters::default();
            let none = PeerRate { interface, peer, flows: 0, denied_flows: 0, moved };
            peers.insert(key.to_owned(), none);
        }
        peers.get_mut(key).expect("it is there or was put there")
    }

    fn offer(&mut self, record: &Record, moved: Counters) {
        let value = self.sort.of_flow(record, moved);
        self.came += 1;
        let place = (value, record.last_seen_ms, record.first_seen_ms, record.tuple, self.came);
        if self.best.len() >= self.limit {
            // Most flows are no better than the last one that is kept, and need not be copied.
            let last = match self.order {
                Order::Descending => self.best.first_entry().filter(|last| *last.key() < place),
                Order::Ascending => self.best.last_entry().filter(|last| *last.key() > place),
            };
            match last {
                Some(last) => drop(last.remove()),
                None => return,
            }
        }
        self.best.insert(place, (record.clone(), moved));
    }

    /// What it is sorted by.
    pub fn sorting(&self) -> (RateSort, Order) {
        (self.sort, self.order)
    }

    /// The first flows with what they moved, the first peers, and how many peers there are.
    pub fn into_rows(self) -> (Vec<(Record, Counters)>, Vec<PeerRate>, u64) {
        let Self { sort, order, limit, best, peers, .. } = self;
        let flows = best.into_values();
        let flows = match order {
            Order::Descending => flows.rev().collect(),
            Order::Ascending => flows.collect(),
        };
        let mut peers: Vec<_> = peers.into_values().flat_map(HashMap::into_values).collect();
        let there = peers.len() as u64;
        let place = |peer: &PeerRate| {
            (sort.of_moved(peer.moved), peer.flows, peer.peer.clone().map(|peer| peer.name.clone()))
        };
        peers.sort_by_cached_key(place);
        if order == Order::Descending {
            peers.reverse();
        }
        peers.truncate(limit);
        (flows, peers, there)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::{Board, Counters, Order, RateSort, Record, Verdict};
    use crate::flows::sample;

    fn moved(rx_bytes: u64, tx_bytes: u64) -> Counters {
        let packets = |bytes: u64| u64::from(bytes > 0);
        Counters {
            rx_packets: packets(rx_bytes),
            rx_bytes,
            tx_packets: packets(tx_bytes),
            tx_bytes,
        }
    }

    fn flow(port: u16, peer: &str, verdict: Verdict) -> Record {
        let mut record = sample::record();
        record.tuple.peer_port = port;
        record.peer = Some(sample::peer(peer, None));
        record.verdict = verdict;
        record
    }

    #[test]
    fn sums_are_of_everything_and_rows_of_the_first() {
        let mut board = Board::new(RateSort::Rate, Order::Descending, 2);
        let flows = [
            (flow(1, "alice", Verdict::Allow), moved(10, 0)),
            (flow(2, "bob", Verdict::Deny), moved(0, 70)),
            (flow(3, "alice", Verdict::Allow), moved(20, 30)),
            (flow(4, "alice", Verdict::Allow), moved(0, 0)),
            (sample::overflow(), moved(5, 0)),
        ];
        flows.iter().for_each(|(record, moved)| board.absorb(record, *moved));
        let sums = (board.open_flows, board.denied_flows, board.moving_flows, board.moved.bytes());
        assert_eq!(sums, (4, 1, 3, 135));
        let (rows, peers, there) = board.into_rows();
        let ports: Vec<_> = rows.iter().map(|(record, _)| record.tuple.peer_port).collect();
        assert_eq!(ports, [2, 3]);
        let told: Vec<_> = peers
            .iter()
            .map(|peer| {
                let name = peer.peer.as_ref().unwrap().name.as_str();
                (name, peer.flows, peer.denied_flows, peer.moved.bytes())
            })
            .collect();
        assert_eq!(told, [("bob", 1, 1, 70), ("alice", 3, 0, 65)]);
        assert_eq!(there, 2);
    }

    #[test]
    fn addresses_of_nobody_are_a_row_of_their_own() {
        let mut board = Board::new(RateSort::Rx, Order::Descending, 9);
        board.absorb(&Record { peer: None, ..sample::record() }, moved(1, 0));
        board.absorb(&Record { interface: Arc::from("wg1"), ..sample::record() }, moved(2, 0));
        board.absorb(&sample::record(), moved(3, 0));
        let (_, peers, there) = board.into_rows();
        let told: Vec<_> = peers.iter().map(|p| (&*p.interface, p.peer.is_some())).collect();
        assert_eq!((told, there), (vec![("wg0", true), ("wg1", true), ("wg0", false)], 3));
    }

    proptest! {
        #[test]
        fn the_first_are_those_of_a_sorted_list(
            flows in prop::collection::vec((0_u16..4, 0_u64..5, 0_u64..5, 0_i64..4), 0..60),
            sort in prop::sample::select(RateSort::ALL.to_vec()),
            is_descending in any::<bool>(),
            limit in 0_usize..20,
        ) {
            let order = if is_descending { Order::Descending } else { Order::Ascending };
            let mut board = Board::new(sort, order, limit);
            let mut all = Vec::new();
            for (port, rx, tx, time) in flows {
                let mut record = flow(port, "alice", Verdict::Allow);
                (record.first_seen_ms, record.last_seen_ms) = (time, time + 1);
                board.absorb(&record, moved(rx, tx));
                all.push(sort.of_flow(&record, moved(rx, tx)));
            }
            all.sort_unstable();
            if is_descending {
                all.reverse();
            }
            all.truncate(limit);
            let (rows, ..) = board.into_rows();
            let values: Vec<_> =
                rows.iter().map(|(record, moved)| sort.of_flow(record, *moved)).collect();
            prop_assert_eq!(values, all);
        }
    }
}
