//! The programs under the verifier against the same parser on the host.

use std::collections::HashMap;

use bytemuck::Pod;
use flowd::dataplane::{Dataplane, LinkHeader, Why};
use flowd_common::{
    counter::{CounterKey, Direction, Tally},
    flow::{FlowKey, FlowValue, FragmentKey, FragmentPorts, TX_FLAGS_SHIFT},
    packet::{Fragment, Packet, headers},
};
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, TestRunner},
};

/// `BPF_PROG_TEST_RUN` pretends that packets cross the loopback device.
const LOOPBACK: u32 = 1;
const PACKETS: usize = 4_000;

struct Bytes<'a>(&'a [u8]);

impl Packet for Bytes<'_> {
    fn read<T: Pod>(&self, offset: usize) -> Option<T> {
        let bytes = self.0.get(offset..offset.checked_add(size_of::<T>())?)?;
        Some(bytemuck::pod_read_unaligned(bytes))
    }
}

/// What the datapath should have counted: the specification in a few lines.
#[derive(Default)]
struct Model {
    flows: HashMap<FlowKey, FlowValue>,
    counters: HashMap<CounterKey, Tally>,
    fragments: HashMap<FragmentKey, FragmentPorts>,
}

impl Model {
    fn count(&mut self, packet: &[u8], direction: Direction) {
        let bytes = packet.len() as u64;
        let mut headers = match headers(&Bytes(packet), LOOPBACK, direction) {
            Ok(headers) => headers,
            Err(skip) => {
                let key = CounterKey {
                    ifindex: LOOPBACK,
                    counter: skip.counter() as u8,
                    direction: direction as u8,
                    reserved: [0; 2],
                };
                let tally = self.counters.entry(key).or_default();
                tally.packets += 1;
                tally.bytes += bytes;
                return;
            }
        };
        match headers.fragment {
            Fragment::Whole => {}
            Fragment::First => {
                self.fragments.insert(headers.datagram(direction), headers.for_later_fragments());
            }
            Fragment::Later => {
                if let Some(first) = self.fragments.get(&headers.datagram(direction)) {
                    headers.join(*first);
                }
            }
        }
        let flow = self.flows.entry(headers.key).or_insert_with(|| FlowValue {
            initiator: headers.initiator(direction) as u8,
            icmp_type: headers.icmp_type,
            icmp_code: headers.icmp_code,
            ..FlowValue::default()
        });
        match direction {
            Direction::Ingress => {
                flow.rx_packets += 1;
                flow.rx_bytes += bytes;
                flow.marks |= u64::from(headers.tcp_flags);
            }
            Direction::Egress => {
                flow.tx_packets += 1;
                flow.tx_bytes += bytes;
                flow.marks |= u64::from(headers.tcp_flags) << TX_FLAGS_SHIFT;
            }
        }
    }
}

/// Bytes that are nearly a packet: enough structure to get deep into the parser, few enough
/// addresses and ports that flows meet again.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let v4 = (
        prop::sample::select(vec![0x45_u8, 0x46, 0x4f, 0x44]),
        prop::sample::select(vec![0_u16, 0, 0, 0x4000, 0x2000, 0x0001, 0x2010]),
        prop::sample::select(vec![1_u8, 6, 17, 47, 50, 132, 136, 253]),
        0_u8..3,
        prop::collection::vec(prop::sample::select(vec![0_u8, 1, 3, 8, 0x50, 0x12]), 0..80),
    )
        .prop_map(|(version, fragment, protocol, host, rest)| {
            let mut packet = vec![version, 0, 0, 60, 0, host];
            packet.extend(fragment.to_be_bytes());
            packet.extend([64, protocol, 0, 0, 10, 8, 0, host, 10, 0, 0, 1]);
            packet.extend(rest);
            packet
        });
    let v6 = (
        prop::sample::select(vec![0_u8, 6, 17, 43, 44, 51, 58, 60, 50, 59, 132]),
        0_u8..3,
        prop::collection::vec(
            prop::sample::select(vec![0_u8, 0, 0, 1, 6, 17, 44, 58, 60, 128, 129, 0x50]),
            0..160,
        ),
    )
        .prop_map(|(next, host, rest)| {
            let mut packet = vec![0x60, 0, 0, 0, 0, 60, next, 64];
            packet.extend([0xfd, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
            packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            packet.extend(rest);
            packet
        });
    let noise = prop::collection::vec(any::<u8>(), 1..120);
    prop_oneof![4 => v4, 4 => v6, 1 => noise]
}

/// The test run refuses a frame that claims to be IP and is too short for its header; the parser
/// does not look at the claim.
fn frame(packet: &[u8]) -> Vec<u8> {
    let ethertype: [u8; 2] = match packet[0] >> 4 {
        4 if packet.len() >= 20 => [0x08, 0x00],
        6 if packet.len() >= 40 => [0x86, 0xdd],
        _ => [0x88, 0xb5],
    };
    [&[0; 12], ethertype.as_slice(), packet].concat()
}

#[test]
fn the_kernel_and_the_host_count_the_same_packets_alike() {
    let mut dataplane = Dataplane::load(65_536, LinkHeader::Ethernet, None).unwrap();
    dataplane.make_counters(LOOPBACK).unwrap();
    let mut model = Model::default();
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    let strategy = (packet(), any::<bool>());
    for _ in 0..PACKETS {
        let (packet, ingress) = strategy.new_tree(&mut runner).unwrap().current();
        let direction = if ingress { Direction::Ingress } else { Direction::Egress };
        let (action, _) = dataplane.test_run(direction, &frame(&packet), 1).unwrap();
        assert_eq!(action, -1, "the packet passes: {packet:02x?}");
        model.count(&packet, direction);
    }

    let mut flows = HashMap::new();
    dataplane
        .for_each_flow(|key, value| {
            let comparable = FlowValue { first_seen_ns: 0, last_seen_jiffies: 0, ..*value };
            assert!(flows.insert(*key, comparable).is_none(), "seen twice: {key:?}");
        })
        .unwrap();
    for (key, expected) in &model.flows {
        assert_eq!(flows.get(key), Some(expected), "{key:?}");
    }
    assert_eq!(flows.len(), model.flows.len());
    let mut counters: HashMap<_, _> = dataplane.counters().unwrap().into_iter().collect();
    counters.retain(|_, tally| tally.packets != 0);
    assert_eq!(counters, model.counters);
    assert!(model.flows.len() > 500 && model.counters.len() >= 4, "the packets were too alike");
}

#[test]
fn the_verifier_accepts_every_program_and_says_how_much_it_walked() {
    let dataplane = Dataplane::load(1_024, LinkHeader::None, None).unwrap();
    let verified = dataplane.verified();
    assert_eq!(verified.len(), 4);
    for (name, instructions, bytes) in verified {
        println!("{name}: {instructions:?} instructions verified, {bytes} bytes of machine code");
        assert!(instructions.is_none_or(|walked| walked < 1_000_000));
    }
}

#[test]
fn a_retired_flow_keeps_its_last_counts_and_its_successor_has_its_own() {
    let mut dataplane = Dataplane::load(64, LinkHeader::Ethernet, None).unwrap();
    let packet = [
        0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 8, 0, 2, 10, 0, 0, 1, 0x12, 0x34, 0, 53, 0,
        8, 0, 0,
    ];
    let frame = frame(&packet);
    let mut keys = Vec::new();
    dataplane.test_run(Direction::Ingress, &frame, 3).unwrap();
    dataplane.for_each_flow(|key, _| keys.push(*key)).unwrap();

    let mut last = Vec::new();
    dataplane.retire(&keys, Why::Ended, |_, value| last.push(value.rx_packets)).unwrap();
    dataplane.test_run(Direction::Ingress, &frame, 2).unwrap();
    assert_eq!(last, [3]);
    let mut both = Vec::new();
    dataplane.for_each_flow(|key, value| both.push((key.generation, value.rx_packets))).unwrap();
    both.sort_unstable();
    assert_eq!(both, [(0, 3), (1, 2)]);

    dataplane.delete(&keys, |_| {}).unwrap();
    dataplane.test_run(Direction::Ingress, &frame, 1).unwrap();
    both.clear();
    dataplane.for_each_flow(|key, value| both.push((key.generation, value.rx_packets))).unwrap();
    both.sort_unstable();
    assert_eq!(both, [(1, 3)], "the second generation is the flow now");
}
