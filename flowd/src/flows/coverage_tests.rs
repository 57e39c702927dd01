use std::time::Duration;

use proptest::prelude::*;

use super::{
    Balance, Counters, Coverage, Finding, INITIATION_BYTES, Interval, Missing, Observation, Outer,
    own_messages_bytes,
};

/// A tunnel, packet by packet: the specification.
#[derive(Clone, Copy, Debug, Default)]
struct Tunnel {
    at: Duration,
    outer: Outer,
    flows: Counters,
    /// Outer bytes of packets that nobody recorded.
    missed: (u64, u64),
}

#[derive(Clone, Copy, Debug)]
struct Packet {
    bytes: u64,
    is_rx: bool,
    is_recorded: bool,
}

impl Tunnel {
    fn carry(&mut self, packet: Packet) {
        let Packet { bytes, is_rx, is_recorded } = packet;
        let outer = 32 + bytes.next_multiple_of(16);
        let (carried, packets, inner, missed) = if is_rx {
            let Counters { rx_packets, rx_bytes, .. } = &mut self.flows;
            (&mut self.outer.rx_bytes, rx_packets, rx_bytes, &mut self.missed.0)
        } else {
            let Counters { tx_packets, tx_bytes, .. } = &mut self.flows;
            (&mut self.outer.tx_bytes, tx_packets, tx_bytes, &mut self.missed.1)
        };
        *carried += outer;
        if is_recorded {
            *packets += 1;
            *inner += bytes;
        } else {
            *missed += outer;
        }
    }

    fn handshake(&mut self) {
        self.outer.tx_bytes += INITIATION_BYTES;
        self.outer.rx_bytes += 92;
    }

    fn keepalive(&mut self) {
        self.outer.tx_bytes += 32;
        self.outer.rx_bytes += 32;
    }

    /// An observation, while the packets of `meanwhile` come in between the readings.
    fn observe(&mut self, meanwhile: &[Packet]) -> Observation {
        let (began, before) = (self.at, self.outer);
        let (first, second) = meanwhile.split_at(meanwhile.len() / 2);
        first.iter().for_each(|packet| self.carry(*packet));
        let flows = self.flows;
        second.iter().for_each(|packet| self.carry(*packet));
        self.at += Duration::from_millis(700);
        Observation {
            at_ms: i64::try_from(self.at.as_millis()).unwrap(),
            began,
            ended: self.at,
            before,
            after: self.outer,
            flows,
            nobodys: Counters::default(),
        }
    }
}

fn packet(is_recorded: impl Strategy<Value = bool>) -> impl Strategy<Value = Packet> {
    (0_u64..1_420, any::<bool>(), is_recorded).prop_map(|(bytes, is_rx, is_recorded)| Packet {
        bytes,
        is_rx,
        is_recorded,
    })
}

/// What comes in between two observations, and during the second.
fn steps(
    is_recorded: impl Strategy<Value = bool> + Clone,
) -> impl Strategy<Value = Vec<(Vec<Packet>, Vec<Packet>, u64)>> {
    let packets = |most| prop::collection::vec(packet(is_recorded.clone()), 0..most);
    prop::collection::vec((packets(80), packets(20), 0_u64..40), 1..12)
}

/// Time goes by with as many messages of WireGuard's own as its timers allow.
fn pass(tunnel: &mut Tunnel, seconds: u64) {
    for second in 1..=seconds {
        tunnel.at += Duration::from_secs(1);
        tunnel.keepalive();
        if second % 5 == 0 {
            tunnel.handshake();
        }
    }
}

proptest! {
    #[test]
    fn what_is_recorded_is_balanced_whenever_one_looks(steps in steps(Just(true))) {
        let mut tunnel = Tunnel::default();
        let mut coverage = Coverage::default();
        prop_assert_eq!(coverage.observe(tunnel.observe(&[])), None);
        for (before, meanwhile, seconds) in steps {
            before.iter().for_each(|packet| tunnel.carry(*packet));
            pass(&mut tunnel, seconds);
            prop_assert_eq!(coverage.observe(tunnel.observe(&meanwhile)), None);
            let total = coverage.total().unwrap().balance;
            prop_assert_eq!((total.rx_off, total.tx_off), (0, 0));
        }
    }

    #[test]
    fn what_is_claimed_is_missed_and_what_is_missed_beyond_the_slack_is_claimed(
        steps in steps(any::<bool>()),
    ) {
        let mut tunnel = Tunnel::default();
        let start = tunnel.observe(&[]);
        for (before, meanwhile, seconds) in steps {
            before.iter().for_each(|packet| tunnel.carry(*packet));
            pass(&mut tunnel, seconds);
            let missed = tunnel.missed;
            let now = tunnel.observe(&meanwhile);
            let Balance { flows, rx_off, tx_off, .. } = now.since(&start).unwrap();
            let (rx, tx) = (u64::try_from(rx_off).unwrap(), u64::try_from(tx_off).unwrap());
            prop_assert!(rx <= missed.0 && tx <= missed.1, "{rx} {tx} of {missed:?}");
            prop_assert!(now.missing_since(&start).bytes >= missed.0 + missed.1);
            let own = own_messages_bytes(now.ended);
            let in_flight: u64 = meanwhile.iter().map(|packet| 47 + packet.bytes).sum();
            prop_assert!(rx + own + 15 * flows.rx_packets + in_flight >= missed.0);
            prop_assert!(tx + own + 15 * flows.tx_packets + in_flight >= missed.1);
        }
    }

    #[test]
    fn windows_follow_each_other_and_add_up(
        steps in steps(any::<bool>()),
        closings in prop::collection::vec(any::<bool>(), 12),
    ) {
        let mut tunnel = Tunnel::default();
        let mut coverage = Coverage::default();
        let start = tunnel.observe(&[]);
        coverage.observe(start);
        let (mut sum, mut until_ms, mut last) = (Balance::default(), start.at_ms, start);
        let mut take = |interval: Interval| {
            assert_eq!(interval.start_ms, until_ms, "no hole, no overlap");
            until_ms = interval.end_ms;
            sum = sum.and(interval.balance);
        };
        for ((before, meanwhile, seconds), close) in steps.into_iter().zip(closings) {
            before.iter().for_each(|packet| tunnel.carry(*packet));
            pass(&mut tunnel, seconds);
            last = tunnel.observe(&meanwhile);
            if let Some(Finding::Unexplained(interval, _)) = coverage.observe(last) {
                take(interval);
            }
            if close && let Some(interval) = coverage.close() {
                take(interval);
            }
        }
        if let Some(interval) = coverage.close() {
            take(interval);
        }
        prop_assert_eq!(until_ms, last.at_ms);
        prop_assert_eq!(sum, coverage.total().unwrap().balance);
        prop_assert_eq!(sum.flows, last.flows);
        prop_assert_eq!(sum.outer.rx_bytes, last.after.rx_bytes);
    }
}

fn unrecorded(bytes: u64) -> Packet {
    Packet { bytes, is_rx: true, is_recorded: false }
}

#[test]
fn packets_that_go_unrecorded_are_found_at_the_second_look_and_their_end_too() {
    let mut tunnel = Tunnel::default();
    let mut coverage = Coverage::default();
    let start = tunnel.observe(&[]);
    coverage.observe(start);
    (0..100).for_each(|_| tunnel.carry(unrecorded(1_000)));
    assert_eq!(coverage.observe(tunnel.observe(&[])), None);
    assert!(!coverage.is_settled() && !coverage.is_out());
    let second = tunnel.observe(&[]);
    let Some(Finding::Unexplained(interval, missing)) = coverage.observe(second) else {
        panic!("{coverage:?}")
    };
    assert_eq!((interval.start_ms, interval.end_ms), (start.at_ms, second.at_ms));
    let carried = 100 * (32 + 1_008);
    let least = carried - own_messages_bytes(second.ended);
    assert_eq!(interval.balance.unexplained_bytes(), least);
    assert_eq!(missing, Missing { packets: carried / 32, bytes: carried });
    assert_eq!(interval.balance.tx_off, 0);
    assert!(coverage.is_out());

    assert_eq!(coverage.observe(tunnel.observe(&[])), None);
    tunnel.carry(unrecorded(1));
    let last = tunnel.observe(&[]);
    let missing = Missing { packets: 1, bytes: 48 };
    let back = Some(Finding::Balanced { at_ms: last.at_ms, missing });
    assert_eq!(coverage.observe(last), back);
    assert!(!coverage.is_out());
    assert_eq!(coverage.total().unwrap().balance.unexplained_bytes(), least, "it is remembered");
}

#[test]
fn what_was_not_carried_is_short_and_no_gap() {
    let mut coverage = Coverage::default();
    let mut tunnel = Tunnel::default();
    coverage.observe(tunnel.observe(&[]));
    tunnel.flows.tx_packets = 10;
    tunnel.flows.tx_bytes = 1_000;
    for _ in 0..3 {
        assert_eq!(coverage.observe(tunnel.observe(&[])), None);
    }
    let balance = coverage.total().unwrap().balance;
    assert_eq!((balance.rx_off, balance.tx_off), (0, -1_320));
    assert_eq!(balance.unexplained_bytes(), 0);
}

#[test]
fn what_was_counted_for_nobody_may_have_been_the_peers() {
    let start = Observation::default();
    let carried = 2 * (32 + 1_424) + own_messages_bytes(Duration::ZERO);
    let outer = Outer { rx_bytes: carried, tx_bytes: 0 };
    let nobodys = Counters { rx_packets: 2, rx_bytes: 2_846, ..Counters::default() };
    let with = Observation { before: outer, after: outer, nobodys, ..start };
    assert_eq!(with.since(&start).unwrap().rx_off, 0);
    let without = Observation { nobodys: Counters::default(), ..with };
    assert_eq!(without.since(&start).unwrap().unexplained_bytes(), 2 * (32 + 1_424));
}

#[test]
fn counters_that_shrink_and_interruptions_start_anew() {
    let mut coverage = Coverage::default();
    let mut tunnel = Tunnel::default();
    tunnel.carry(unrecorded(1_000_000));
    coverage.observe(tunnel.observe(&[]));
    tunnel.outer = Outer::default();
    let again = tunnel.observe(&[]);
    assert_eq!(coverage.observe(again), None);
    assert_eq!(coverage.close(), None, "there is but one observation");
    tunnel.carry(unrecorded(1_000_000));
    coverage.observe(tunnel.observe(&[]));
    let interval = coverage.interrupt().unwrap();
    assert_eq!(interval.start_ms, again.at_ms);
    assert_eq!(coverage.interrupt(), None);
    assert_eq!(coverage.observe(tunnel.observe(&[])), None);
    assert_eq!(coverage.observe(tunnel.observe(&[])), None);
    assert!(coverage.is_settled());
}
