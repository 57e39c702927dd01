//! Ways past a deny that somebody inside a tunnel, or behind the gateway, would try.

use std::{collections::HashMap, sync::Arc};

use flowd::{
    dataplane::{Dataplane, LinkHeader},
    flows::{Identity, Routes},
    policy::{Limits, World, compile, parse},
};
use flowd_common::{
    counter::Direction::{self, Egress, Ingress},
    flow::{FlowValue, RETIRED},
    limits::CUT_MEMORY_NS,
};

/// `BPF_PROG_TEST_RUN` pretends that packets cross the loopback device.
const LOOPBACK: u32 = 1;
const LIMITS: Limits = Limits { endpoints: 1 << 20, pairs: 1 << 20, intervals: 1 << 20 };

const PEER: [u8; 4] = [10, 8, 0, 2];
const HOST: [u8; 4] = [10, 0, 0, 5];
const OTHER_HOST: [u8; 4] = [10, 0, 0, 6];

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const SYN_ACK: u8 = SYN | ACK;

/// The peer may ask hosts for the web; hosts may look after the peer by SSH and ping. Nobody may
/// anything else.
const POLICY: &str = r#"
mode = "enforce"
default = "deny"

[[rules]]
id = "web"
action = "allow"
from = ["10.8.0.2/32"]
to = ["10.0.0.5/32"]
protocols = ["tcp"]
ports = ["443"]

[[rules]]
id = "care"
action = "allow"
from = ["10.0.0.0/24"]
to = ["10.8.0.2/32"]
protocols = ["tcp"]
ports = ["22"]

[[rules]]
id = "ping"
action = "allow"
from = ["10.0.0.0/24"]
to = ["10.8.0.2/32"]
protocols = ["icmp:8"]
"#;

struct Kernel(Dataplane);

impl Kernel {
    fn new(flows: u32) -> Self {
        let mut dataplane = Dataplane::load(flows, LinkHeader::Ethernet, None).unwrap();
        dataplane.make_counters(LOOPBACK).unwrap();
        let mut kernel = Self(dataplane);
        kernel.apply(POLICY);
        kernel
    }

    fn apply(&mut self, text: &str) {
        let policy = parse(text, None).unwrap().policy;
        self.0.install(&compile(&policy, &world(), &LIMITS).unwrap()).unwrap();
    }

    fn passes(&self, direction: Direction, packet: &[u8]) -> bool {
        let frame = [&[0; 12], [8, 0].as_slice(), packet].concat();
        self.0.test_run(direction, &frame, 1).unwrap().0 == -1
    }
}

fn world() -> World {
    let mut world = World::default();
    let identity = Identity {
        public_key: format!("{:A<43}=", "peer"),
        name: "peer".to_owned(),
        user: None,
        device: None,
        groups: Vec::new(),
        endpoint: None,
    };
    world.identities = HashMap::from([(1, Arc::new(identity))]);
    let mut routes = Routes::default();
    routes.insert(&"10.8.0.2/32".parse().unwrap(), 1);
    world.routes.insert(LOOPBACK, routes);
    world
}

fn ipv4(src: [u8; 4], dst: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend(((20 + payload.len()) as u16).to_be_bytes());
    packet.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
    packet.extend(src);
    packet.extend(dst);
    packet.extend(payload);
    packet
}

fn tcp(from: ([u8; 4], u16), to: ([u8; 4], u16), flags: u8) -> Vec<u8> {
    let mut segment = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 1, 0, 0, 0, 0, 0]);
    ipv4(from.0, to.0, 6, &segment)
}

fn echo(src: [u8; 4], dst: [u8; 4], icmp_type: u8, id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    ipv4(src, dst, 1, &[icmp_type, 0, 0, 0, high, low, 0, 1])
}

fn unreachable(src: [u8; 4], dst: [u8; 4], quoted: &[u8]) -> Vec<u8> {
    ipv4(src, dst, 1, &[&[3, 4, 0, 0, 0, 0, 5, 0], quoted].concat())
}

#[test]
fn a_syn_opens_nothing_on_a_flow_that_looked_like_an_answer() {
    for excuse in [ACK, SYN_ACK] {
        let kernel = Kernel::new(64);
        // As if a host had opened SSH to the peer before flowd came.
        kernel.passes(Ingress, &tcp((PEER, 22), (HOST, 3389), excuse));
        assert!(!kernel.passes(Ingress, &tcp((PEER, 22), (HOST, 3389), SYN)), "{excuse:#x}");
        assert!(kernel.passes(Egress, &tcp((HOST, 3389), (PEER, 22), SYN)), "it may");
        // As if the peer had opened the web before.
        kernel.passes(Egress, &tcp((HOST, 443), (PEER, 5900), excuse));
        assert!(!kernel.passes(Egress, &tcp((HOST, 443), (PEER, 5900), SYN)), "{excuse:#x}");
        assert!(kernel.passes(Ingress, &tcp((PEER, 5900), (HOST, 443), SYN)), "it may");
    }
}

#[test]
fn an_echo_request_does_not_pass_for_a_reply() {
    let kernel = Kernel::new(64);
    kernel.passes(Ingress, &echo(PEER, HOST, 0, 7));
    assert!(!kernel.passes(Ingress, &echo(PEER, HOST, 8, 7)));
    assert!(kernel.passes(Egress, &echo(HOST, PEER, 8, 7)));
    assert!(kernel.passes(Ingress, &echo(PEER, HOST, 0, 7)));
    assert!(!kernel.passes(Ingress, &echo(PEER, HOST, 8, 7)));
}

#[test]
fn an_error_passes_to_the_sender_of_what_it_quotes_only() {
    let kernel = Kernel::new(64);
    assert!(kernel.passes(Ingress, &tcp((PEER, 5000), (HOST, 443), SYN)));
    let answer = tcp((HOST, 443), (PEER, 5000), SYN_ACK);
    assert!(kernel.passes(Egress, &answer));
    assert!(!kernel.passes(Ingress, &unreachable(PEER, OTHER_HOST, &answer)), "not its packet");
    assert!(kernel.passes(Ingress, &unreachable(PEER, HOST, &answer)));
}

#[test]
fn each_error_is_judged_by_what_it_quotes() {
    let kernel = Kernel::new(64);
    assert!(kernel.passes(Ingress, &tcp((PEER, 5000), (HOST, 443), SYN)));
    let good = tcp((PEER, 5000), (HOST, 443), ACK);
    let bad = tcp((PEER, 5000), (HOST, 444), ACK);
    // A router between the gateway and the host, about a flow that is allowed and one that is not.
    for _ in 0..2 {
        assert!(!kernel.passes(Egress, &unreachable(OTHER_HOST, PEER, &bad)));
        assert!(kernel.passes(Egress, &unreachable(OTHER_HOST, PEER, &good)));
    }
    // In the other order too.
    assert!(kernel.passes(Egress, &unreachable(HOST, PEER, &good)));
    assert!(!kernel.passes(Egress, &unreachable(HOST, PEER, &bad)));
}

#[test]
fn a_cut_conversation_may_be_opened_the_other_way_later() {
    let mut kernel = Kernel::new(64);
    let allow = |from: &str, to: &str| {
        format!(
            "mode = 'enforce'\ndefault = 'deny'\n[[rules]]\nid = 'a'\naction = 'allow'\n\
             from = ['{from}']\nto = ['{to}']\nprotocols = ['udp']\n"
        )
    };
    let (from_host, from_peer) = (sip(HOST, PEER), sip(PEER, HOST));
    kernel.apply(&allow("10.0.0.0/24", "10.8.0.2"));
    assert!(kernel.passes(Egress, &from_host));
    kernel.apply(&allow("10.8.0.2", "10.0.0.0/24"));
    assert!(!kernel.passes(Egress, &from_host));
    assert!(!kernel.passes(Ingress, &from_peer), "an answer to what was allowed before");
    let mut cut = Vec::new();
    kernel.0.for_each_flow(|key, value| cut.push((*key, *value))).unwrap();
    for (key, value) in cut {
        if value.marks & RETIRED != 0 {
            kernel.0.delete(&[key], |_| {}).unwrap();
        } else {
            // As if it had happened long ago.
            let first_seen_ns = value.first_seen_ns.wrapping_sub(2 * CUT_MEMORY_NS);
            kernel.0.revive(&key, &FlowValue { first_seen_ns, ..value }).unwrap();
        }
    }
    assert!(!kernel.passes(Egress, &from_host));
    assert!(kernel.passes(Ingress, &from_peer), "the peer may ask");
    assert!(kernel.passes(Egress, &from_host), "and be answered");
}

/// Both ends have the same port.
fn sip(src: [u8; 4], dst: [u8; 4]) -> Vec<u8> {
    ipv4(src, dst, 17, &[0x13, 0xc4, 0x13, 0xc4, 0, 8, 0, 0])
}

#[test]
fn a_full_table_passes_answers_and_no_questions_that_look_like_them() {
    let mut kernel = Kernel::new(16);
    kernel.apply(
        "mode = 'enforce'\ndefault = 'deny'\n[[rules]]\nid = 'a'\naction = 'allow'\n\
         from = ['10.0.0.0/24']\nto = ['10.8.0.2']\nprotocols = ['udp']\nports = [161]\n",
    );
    let udp = |src, sport: u16, dst, dport: u16| {
        ipv4(src, dst, 17, &[sport.to_be_bytes(), dport.to_be_bytes(), [0, 8], [0, 0]].concat())
    };
    for port in 0..200 {
        assert!(!kernel.passes(Ingress, &udp(PEER, 9000 + port, OTHER_HOST, 9)));
    }
    let answer = udp(PEER, 161, HOST, 40_000);
    assert!(!kernel.passes(Ingress, &answer), "nobody has asked");
    assert!(kernel.passes(Egress, &udp(HOST, 40_000, PEER, 161)), "the host asks");
    assert!(kernel.passes(Ingress, &answer), "and is answered");
    assert!(!kernel.passes(Ingress, &udp(PEER, 161, HOST, 40_001)), "nobody has asked from there");
}
