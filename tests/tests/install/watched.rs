//! Traffic under a policy while something happens to flowd: one flow that is allowed, one that is
//! denied, and every packet of both known.
//!
//! A denied datagram goes in front of each allowed exchange. WireGuard keeps the order of a peer's
//! packets, so when the answer is there, the denied one has passed the gateway or never will.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use flowd::flows::{Counters, Verdict};
use flowd::wire::Flow;
use flowd_tests::{
    traffic::{Load, udp},
    wait,
};

use crate::gateway::Gateway;
use crate::operator::{flows, json};
use crate::policy::{ALLOWED_PORT, DENIED_PORT};

/// Payloads of an exchange, and of a denied datagram.
const ALLOWED: [usize; 2] = [100, 1300];
const DENIED: usize = 64;

/// What went through, and what should not have.
struct Sent {
    exchanges: u64,
    arrived: u64,
}

/// Both flows, until they are told to stop.
pub(crate) struct Watched {
    stop: Stop,
    thread: JoinHandle<Sent>,
    /// Source ports, allowed and denied.
    ports: [u16; 2],
}

/// Set when it goes, so that a step that fails leaves no traffic, and its ports, to the next one.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Watched {
    /// Starts; returns when flowd has seen both flows.
    pub(crate) fn begin(gateway: &Gateway) -> (Self, [Flow; 2]) {
        let [allowed, denied] = [ALLOWED_PORT, DENIED_PORT].map(|port| gateway.pair(port));
        denied.far.set_nonblocking(true).expect("a socket");
        // A machine that does other things too may stand still for long; nothing is lost by that.
        for socket in [&allowed.near, &allowed.far] {
            socket.set_read_timeout(Some(wait::SOON)).expect("a socket");
        }
        let ports = [&allowed, &denied].map(|pair| pair.ports().0);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut sent = Sent { exchanges: 0, arrived: 0 };
            while !stopped.load(Ordering::Relaxed) {
                denied.near.send(&[1; DENIED]).expect("it leaves the peer");
                allowed.exchange(&ALLOWED);
                sent.exchanges += 1;
                sent.arrived += u64::from(denied.far.recv(&mut [0; 2_000]).is_ok());
            }
            sent
        });
        let watched = Self { stop: Stop(stop), thread, ports };
        wait::until(wait::SOON, "both flows are there", || watched.flows().len() == 2);
        let flows = watched.flows().try_into().expect("two");
        (watched, flows)
    }

    /// Stops. Both flows are those of the beginning, every packet is in them and in their records,
    /// and none that was denied arrived.
    pub(crate) fn end_whole(self, before: &[Flow; 2]) {
        let Self { stop, thread, ports } = self;
        drop(stop);
        let Sent { exchanges, arrived } =
            thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        assert_eq!(arrived, 0, "denied datagrams arrived, of {exchanges}");
        let from = [10, 8, 0, 2].into();
        let one = ALLOWED.map(|payload| udp::datagram(from, payload));
        let (one, denied) = (one[0] + one[1], udp::datagram(from, DENIED));
        let times =
            |load: Load| Load { packets: load.packets * exchanges, bytes: load.bytes * exchanges };
        let expected =
            [Load::both(times(one), times(one)), Load::both(times(denied), Load::default())];
        let ids = before.each_ref().map(|flow| flow.flow_id);
        let expected: Vec<_> = ids.into_iter().zip(expected).collect();
        wait::until_equal("every packet is in its flow, once", &expected, || {
            of_ports(ports).iter().map(|flow| (flow.flow_id, flow.total)).collect()
        });
        let verdicts: Vec<_> =
            of_ports(ports).iter().map(|flow| (flow.verdict, flow.enforced)).collect();
        assert_eq!(verdicts, [(Verdict::Allow, false), (Verdict::Deny, true)]);
        for (id, total) in expected {
            let detail: flowd::wire::FlowDetail = json(&["flow", &id.to_string()]);
            let records = detail.records.iter();
            let sum = records.fold(Counters::default(), |sum, record| sum + record.counters);
            assert_eq!(sum, total, "the records of {id}");
        }
    }

    fn flows(&self) -> Vec<Flow> {
        of_ports(self.ports)
    }
}

/// The flows from these ports, in their order.
fn of_ports(ports: [u16; 2]) -> Vec<Flow> {
    let of = |port: u16| flows(&["--protocol", "udp", "--src-port", &port.to_string()]);
    ports.into_iter().flat_map(of).collect()
}
