//! Peers, up to the bound that is configured; those beyond it are one.
//!
//! What no peer's key stands for has an empty label `public_key`, so nobody can be called as they
//! are.

use std::collections::HashMap;

use super::text::{Kind, Text, seconds};
use crate::{
    flows::Counters,
    live::{ByVerdict, Traffic, Whose},
    wire::Peer,
};

/// The label `peer` of all peers beyond the bound.
const OTHERS: &str = "other";
/// The label `peer` of addresses that no peer has.
const NOBODY: &str = "none";

pub(super) fn render(text: &mut Text, peers: &[Peer], traffic: &[Traffic]) {
    let name = "flowd_peer_packets_total";
    text.family(Kind::Counter, name, "Packets of a peer since flowd's start, by verdict.");
    for traffic in traffic {
        samples(text, name, traffic, |counters| (counters.rx_packets, counters.tx_packets));
    }
    let name = "flowd_peer_bytes_total";
    let help = "Bytes of a peer since flowd's start, by verdict, IP headers included.";
    text.family(Kind::Counter, name, help);
    for traffic in traffic {
        samples(text, name, traffic, |counters| (counters.rx_bytes, counters.tx_bytes));
    }
    let told: HashMap<(&str, &str), ()> = traffic
        .iter()
        .filter(|traffic| matches!(traffic.whose, Whose::Peer(_)))
        .map(|traffic| ((&*traffic.interface, key(&traffic.whose)), ()))
        .collect();
    let (named, others): (Vec<&Peer>, Vec<&Peer>) = peers
        .iter()
        .partition(|peer| told.contains_key(&(&*peer.interface, &*peer.identity.public_key)));
    let help = "Peers without series of their own: those of `other`.";
    text.gauge("flowd_peers_other", help, others.len());
    states(text, &named);
    coverage(text, &named);
}

fn samples(text: &mut Text, name: &str, traffic: &Traffic, pick: impl Fn(&Counters) -> (u64, u64)) {
    let Traffic { interface, whose, sums: ByVerdict { allow, deny } } = traffic;
    for (verdict, counters) in [("allow", allow), ("deny", deny)] {
        let (rx, tx) = pick(counters);
        for (direction, value) in [("rx", rx), ("tx", tx)] {
            let labels = [
                ("interface", &**interface),
                ("peer", called(whose)),
                ("public_key", key(whose)),
                ("direction", direction),
                ("verdict", verdict),
            ];
            text.sample(name, &labels, value);
        }
    }
}

fn called(whose: &Whose) -> &str {
    match whose {
        Whose::Peer(identity) => &identity.name,
        Whose::Others => OTHERS,
        Whose::Nobodys => NOBODY,
    }
}

fn key(whose: &Whose) -> &str {
    match whose {
        Whose::Peer(identity) => &identity.public_key,
        Whose::Others | Whose::Nobodys => "",
    }
}

fn labels(peer: &Peer) -> [(&str, &str); 3] {
    let Peer { interface, identity, .. } = peer;
    [("interface", interface), ("peer", &identity.name), ("public_key", &identity.public_key)]
}

fn states(text: &mut Text, peers: &[&Peer]) {
    let name = "flowd_peer_open_flows";
    text.family(Kind::Gauge, name, "Flows of a peer in the kernel's table.");
    for peer in peers {
        text.sample(name, &labels(peer), peer.open_flows);
    }
    let name = "flowd_peer_latest_handshake_timestamp_seconds";
    text.family(Kind::Gauge, name, "When WireGuard last shook hands with a peer; 0: never.");
    for peer in peers {
        text.sample(name, &labels(peer), peer.latest_handshake.map_or(0.0, seconds));
    }
    let name = "flowd_peer_connected";
    text.family(Kind::Gauge, name, "1 while a session of a peer lasts.");
    for peer in peers {
        text.sample(name, &labels(peer), u64::from(peer.connected_since.is_some()));
    }
}

fn coverage(text: &mut Text, peers: &[&Peer]) {
    let compared = || peers.iter().filter_map(|peer| Some((peer, peer.coverage.as_ref()?)));
    let name = "flowd_peer_coverage_off_bytes";
    let help = "Outer bytes that WireGuard has beyond what flows explain, in the latest window; \
                below 0: so many less.";
    text.family(Kind::Gauge, name, help);
    for (peer, coverage) in compared() {
        for (direction, balance) in [("rx", coverage.rx), ("tx", coverage.tx)] {
            let labels = [&labels(peer)[..], &[("direction", direction)]].concat();
            text.sample(name, &labels, balance.off_bytes);
        }
    }
    let name = "flowd_peer_coverage_timestamp_seconds";
    text.family(Kind::Gauge, name, "When a peer was last compared with WireGuard's counters.");
    for (peer, coverage) in compared() {
        text.sample(name, &labels(peer), seconds(coverage.until));
    }
}
