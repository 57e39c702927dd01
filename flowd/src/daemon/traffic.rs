//! What each peer did since the daemon's start, by verdict, for `/metrics`
//! - a record that is stored is added; what open flows did since their last records comes on top at
//!   each look
//! - so many peers have sums of their own, and keep them; those that come later are summed together
//! - no sum ever becomes less: packets of an address that has found its peer only now move to that
//!   peer, and then the sum of nobody's packets waits until it is made up for

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    flows::{Counters, Identity, Record, Verdict},
    live::{ByVerdict, Traffic, Whose},
};

/// The sums of all interfaces.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    by_interface: HashMap<Arc<str>, OfInterface>,
    /// Peers with sums of their own.
    named: usize,
    max_named: usize,
}

#[derive(Debug, Default)]
struct OfInterface {
    peers: BTreeMap<String, OfPeer>,
    others: Sums,
    nobodys: Sums,
}

#[derive(Debug)]
struct OfPeer {
    identity: Arc<Identity>,
    sums: Sums,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    recorded: ByVerdict,
    /// Of open flows since their last records, during a look.
    pending: ByVerdict,
    /// As the last look had it.
    shown: ByVerdict,
}

impl Tallies {
    /// Nothing yet; so many peers get sums of their own.
    pub(super) fn new(max_named: usize) -> Self {
        Self { max_named, ..Self::default() }
    }

    /// Adds a record that is in the store.
    pub(super) fn record(&mut self, record: &Record) {
        let sums = self.of(&record.interface, record.peer.as_ref());
        *sums.recorded.of(record.verdict) += record.counters;
    }

    /// Adds what an open flow, or several of a peer, did since the last record.
    pub(super) fn pend(
        &mut self,
        interface: &Arc<str>,
        peer: Option<&Arc<Identity>>,
        verdict: Verdict,
        counters: Counters,
    ) {
        *self.of(interface, peer).pending.of(verdict) += counters;
    }

    /// A peer that is there has sums from now on, under the name that it has now.
    pub(super) fn introduce(&mut self, interface: &Arc<str>, peer: &Arc<Identity>) {
        self.of(interface, Some(peer));
        let of_interface = self.by_interface.get_mut(interface);
        if let Some(known) = of_interface.and_then(|of| of.peers.get_mut(&peer.public_key)) {
            known.identity = peer.clone();
        }
    }

    /// Everything so far; what was pending has to be told again at the next look.
    pub(super) fn take(&mut self) -> Vec<Traffic> {
        let mut all = Vec::new();
        for (interface, of_interface) in &mut self.by_interface {
            let OfInterface { peers, others, nobodys } = of_interface;
            let mut add = |whose, sums: &mut Sums| {
                let sums = sums.take();
                all.push(Traffic { interface: interface.clone(), whose, sums });
            };
            for OfPeer { identity, sums } in peers.values_mut() {
                add(Whose::Peer(identity.clone()), sums);
            }
            add(Whose::Others, others);
            add(Whose::Nobodys, nobodys);
        }
        all.sort_by(|a, b| a.interface.cmp(&b.interface));
        all
    }

    fn of(&mut self, interface: &Arc<str>, peer: Option<&Arc<Identity>>) -> &mut Sums {
        let Self { by_interface, named, max_named } = self;
        if !by_interface.contains_key(interface) {
            by_interface.insert(interface.clone(), OfInterface::default());
        }
        let of_interface = by_interface.get_mut(interface).expect("it is there now");
        let OfInterface { peers, others, nobodys } = of_interface;
        let Some(peer) = peer else { return nobodys };
        if !peers.contains_key(&peer.public_key) {
            if *named >= *max_named {
                return others;
            }
            *named += 1;
            let new = OfPeer { identity: peer.clone(), sums: Sums::default() };
            peers.insert(peer.public_key.clone(), new);
        }
        &mut peers.get_mut(&peer.public_key).expect("it is there now").sums
    }
}

impl Sums {
    fn take(&mut self) -> ByVerdict {
        let Self { recorded, pending, shown } = self;
        let pending = std::mem::take(pending);
        shown.allow = greatest(shown.allow, recorded.allow + pending.allow);
        shown.deny = greatest(shown.deny, recorded.deny + pending.deny);
        *shown
    }
}

fn greatest(a: Counters, b: Counters) -> Counters {
    Counters {
        rx_packets: a.rx_packets.max(b.rx_packets),
        rx_bytes: a.rx_bytes.max(b.rx_bytes),
        tx_packets: a.tx_packets.max(b.tx_packets),
        tx_bytes: a.tx_bytes.max(b.tx_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::{Arc, Counters, Identity, Tallies, Traffic, Verdict, Whose};

    fn peer(name: &str) -> Arc<Identity> {
        Arc::new(Identity {
            public_key: format!("key of {name}"),
            name: name.to_owned(),
            user: None,
            device: None,
            groups: Vec::new(),
            endpoint: None,
        })
    }

    fn packets(rx_packets: u64) -> Counters {
        Counters { rx_packets, ..Counters::default() }
    }

    /// Allowed packets by name.
    fn allowed(told: &[Traffic]) -> Vec<(String, u64)> {
        let name = |whose: &Whose| match whose {
            Whose::Peer(identity) => identity.name.clone(),
            Whose::Others => "others".to_owned(),
            Whose::Nobodys => "nobody".to_owned(),
        };
        told.iter().map(|told| (name(&told.whose), told.sums.allow.rx_packets)).collect()
    }

    fn sums(tallies: &mut Tallies) -> Vec<u64> {
        allowed(&tallies.take()).into_iter().map(|(_, packets)| packets).collect()
    }

    #[test]
    fn peers_beyond_the_bound_are_one() {
        let wg0 = Arc::from("wg0");
        let mut tallies = Tallies::new(2);
        for (name, count) in [("a", 1), ("b", 2), ("c", 4), ("d", 8), ("a", 16)] {
            tallies.pend(&wg0, Some(&peer(name)), Verdict::Allow, packets(count));
        }
        tallies.pend(&wg0, None, Verdict::Allow, packets(32));
        let expected = [("a", 17), ("b", 2), ("others", 12), ("nobody", 32)];
        let expected: Vec<_> = expected.map(|(name, count)| (name.to_owned(), count)).into();
        assert_eq!(allowed(&tallies.take()), expected);
    }

    #[test]
    fn a_peer_keeps_its_sums_under_another_name() {
        let wg0 = Arc::from("wg0");
        let mut tallies = Tallies::new(1);
        tallies.introduce(&wg0, &peer("a"));
        tallies.pend(&wg0, Some(&peer("a")), Verdict::Allow, packets(1));
        let renamed = Arc::new(Identity { name: "b".to_owned(), ..peer("a").as_ref().clone() });
        tallies.introduce(&wg0, &renamed);
        assert_eq!(allowed(&tallies.take())[0], ("b".to_owned(), 1));
    }

    #[test]
    fn no_sum_becomes_less() {
        let wg0: Arc<str> = Arc::from("wg0");
        let mut tallies = Tallies::new(1);
        tallies.pend(&wg0, None, Verdict::Allow, packets(5));
        assert_eq!(sums(&mut tallies), [0, 5]);
        // The address has a peer now.
        tallies.pend(&wg0, Some(&peer("a")), Verdict::Allow, packets(6));
        assert_eq!(sums(&mut tallies), [6, 0, 5]);
        tallies.pend(&wg0, Some(&peer("a")), Verdict::Allow, packets(7));
        tallies.pend(&wg0, None, Verdict::Allow, packets(8));
        assert_eq!(sums(&mut tallies), [7, 0, 8]);
    }
}
