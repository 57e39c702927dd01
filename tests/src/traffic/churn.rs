//! Flows that come and go while something happens to flowd.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use flowd::flows::Counters;

use super::{
    End, Load,
    tcp::Connection,
    udp::{self, Pair},
};
use crate::topology::Topology;

/// Where nobody answers.
pub const DEAF: u16 = 7777;

/// Between two flows.
const PAUSE: Duration = Duration::from_millis(5);

/// What flows of datagrams did, by their two ports, the lower one first. Ports come again.
pub type ByPorts = BTreeMap<(u16, u16), Counters>;

/// The place of a flow in [`ByPorts`].
pub fn place(ports: (u16, u16)) -> (u16, u16) {
    (ports.0.min(ports.1), ports.0.max(ports.1))
}

/// While `work` runs, opens one flow after the other: of datagrams, whose counts are known, one way
/// to [`DEAF`] and both ways elsewhere; and now and then a TCP connection, closed or reset. What went
/// in datagrams, and what `work` returned.
pub fn during<T>(net: &Topology, work: impl FnOnce() -> T) -> (ByPorts, T) {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let traffic = scope.spawn(|| churn(net, &ended));
        // Also when it panics.
        let stop = Stop(&ended);
        let done = work();
        drop(stop);
        (traffic.join().expect("every datagram arrives"), done)
    })
}

fn churn(net: &Topology, ended: &AtomicBool) -> ByPorts {
    let peer = &net.peers[0];
    let ends = |near: IpAddr, far: IpAddr| -> (End<'_>, End<'_>) {
        ((&peer.namespace, near), (&net.gateway, far))
    };
    let families =
        [ends(peer.v4.into(), net.gateway_v4(peer)), ends(peer.v6.into(), net.gateway_v6(peer))];
    let mut sent = ByPorts::new();
    let mut count = |ports: (u16, u16), rx: Load, tx: Load| {
        *sent.entry(place(ports)).or_default() += Load::both(rx, tx);
    };
    let deaf = Pair::on_port(families[0].0, families[0].1, DEAF);
    for round in 0_usize.. {
        if ended.load(Ordering::Relaxed) {
            break;
        }
        let (near, far) = families[round % 2];
        let pair = Pair::new(near, far);
        let load = pair.exchange(&[round % 1000, 100][..1 + round % 2]);
        count(pair.ports(), load, load);
        deaf.near.send(&[7; 40]).expect("a datagram leaves");
        count(deaf.ports(), udp::datagram(families[0].0.1, 40), Load::default());
        if round % 4 == 0 {
            // Says nothing more.
            let once = udp::bind(families[0].0, 0);
            once.connect((families[0].1.1, DEAF)).expect("a route");
            once.send(&[7; 40]).expect("a datagram leaves");
            let port = once.local_addr().expect("bound").port();
            count((port, DEAF), udp::datagram(families[0].0.1, 40), Load::default());
        }
        if round % 8 == 0 {
            let mut connection = Connection::open(near, far, 0);
            connection.transfer(2_000, 500);
            if round % 16 == 0 {
                connection.close();
            } else {
                connection.reset();
            }
        }
        thread::sleep(PAUSE);
    }
    sent
}
