//! Records of a gateway's day, the same for the same seed: 800 peers, 5,000 destinations, flows of
//! nine kinds, drained every five seconds as flowd does it.

use std::{net::Ipv6Addr, num::NonZeroU32};

use super::Row;
use super::flows::{Counters, EndReason, Icmp, Initiator, TcpFlags, Tuple, Verdict};

pub(super) const PEERS: usize = 800;
pub(super) const DESTINATIONS: usize = 5_000;
/// 2026-11-21 00:00 UTC.
pub(super) const MIDNIGHT_MS: i64 = 1_795_219_200_000;
const DRAIN_MS: i64 = 5_000;
const ACTIVE_MS: i64 = 60_000;
const LINGER_MS: i64 = 5_000;
const IDLE_MS: i64 = 60_000;

/// SplitMix64.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    /// Around `median`; two thirds lie within a factor of `e` to the power of `spread`.
    fn around(&mut self, median: f64, spread: f64) -> f64 {
        median * (self.normal() * spread).exp()
    }
}

/// Ranks by Zipf's law.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(count: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let mut steps: Vec<f64> = (1..=count)
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        steps.iter_mut().for_each(|step| *step /= sum);
        Self(steps)
    }

    fn draw(&self, random: &mut Random) -> usize {
        let at = random.unit();
        self.0.partition_point(|step| *step <= at).min(self.0.len() - 1)
    }
}

#[derive(Clone, Copy)]
struct Destination {
    addr: Ipv6Addr,
    resource: Option<NonZeroU32>,
    rule: Option<NonZeroU32>,
}

/// What is left to happen of one flow.
struct Live {
    /// What all its records share; `total` is what it will have been, `counters` what of it is
    /// recorded, and `window_end_ms` until when.
    row: Row,
    ends_ms: i64,
    end: EndReason,
    /// Packets a millisecond, each way.
    rate: [f64; 2],
    mean_bytes: [f64; 2],
    /// When it is quiet long enough.
    gone_ms: i64,
    last_flags: TcpFlags,
}

/// An endless stream of rows with ids from 1.
pub(super) struct Generator {
    random: Random,
    peers: Zipf,
    destinations: Vec<Destination>,
    popular: Zipf,
    favourites: Zipf,
    rate_per_s: f64,
    now_ms: i64,
    live: Vec<Live>,
    ready: Vec<Row>,
    at: usize,
    next_id: u64,
}

impl Generator {
    /// About 10 million records a day come of 50 new flows a second.
    pub(super) fn new(seed: u64, flows_per_s: f64) -> Self {
        let mut random = Random::new(seed);
        let destinations = (0..DESTINATIONS).map(|rank| destination(rank, &mut random)).collect();
        Self {
            random,
            peers: Zipf::new(PEERS, 0.7),
            destinations,
            popular: Zipf::new(DESTINATIONS, 1.0),
            favourites: Zipf::new(60, 0.8),
            rate_per_s: flows_per_s,
            now_ms: MIDNIGHT_MS,
            live: Vec::new(),
            ready: Vec::new(),
            at: 0,
            next_id: 1,
        }
    }

    /// Goes one drain on.
    fn drain(&mut self) {
        let before = self.now_ms;
        // The thread is a little late each time.
        self.now_ms += DRAIN_MS + self.random.below(4) as i64;
        let expected = self.rate_per_s * (self.now_ms - before) as f64 / 1000.0;
        let count = (expected + self.random.normal() * expected.sqrt()).round().max(0.0) as u64;
        for _ in 0..count {
            let at = before + self.random.below((self.now_ms - before) as u64) as i64;
            let live = self.flow(at);
            self.live.push(live);
        }
        self.ready.clear();
        self.at = 0;
        let mut i = 0;
        while i < self.live.len() {
            let live = &mut self.live[i];
            if live.gone_ms <= self.now_ms {
                self.ready.push(last(live));
                self.live.swap_remove(i);
                continue;
            }
            if self.now_ms - live.row.window_end_ms >= ACTIVE_MS
                && let Some(row) = window(live, self.now_ms, &mut self.random)
            {
                self.ready.push(row);
            }
            i += 1;
        }
        // The table is walked in the order of a hash.
        for i in (1..self.ready.len()).rev() {
            let other = self.random.below(i as u64 + 1) as usize;
            self.ready.swap(i, other);
        }
        for row in &mut self.ready {
            row.record_id = self.next_id;
            self.next_id += 1;
        }
    }

    fn flow(&mut self, first_seen_ms: i64) -> Live {
        let random = &mut self.random;
        let peer = self.peers.draw(random);
        let peer_addr = inside_addr(peer, random.below(20) == 0);
        // Everybody has favourites besides what is popular with all.
        let rank = if random.below(2) == 0 {
            let favourite = self.favourites.draw(random);
            (peer * 7_919 + favourite * 104_729) % DESTINATIONS
        } else {
            self.popular.draw(random)
        };
        let to = self.destinations[rank];
        let ephemeral = 32_768 + random.below(28_232) as u16;
        let shape = Shape::draw(random);
        let Shape { protocol, port, packets, bytes, lasts_ms, end, flags } = shape;
        let mut row = Row {
            record_id: 0,
            interface: 1,
            peer: NonZeroU32::new(peer as u32 + 1),
            remote_peer: None,
            peer_resource: None,
            remote_resource: to.resource,
            rule: to.rule,
            tuple: Tuple {
                protocol,
                peer_addr,
                remote_addr: to.addr,
                peer_port: ephemeral,
                remote_port: port,
            },
            window_start_ms: first_seen_ms,
            window_end_ms: first_seen_ms,
            first_seen_ms,
            last_seen_ms: first_seen_ms,
            initiator: Initiator::Peer,
            icmp: None,
            verdict: Verdict::Allow,
            enforced: false,
            policy_revision: 12,
            counters: Counters::default(),
            total: Counters::default(),
            tcp_flags: flags,
            end_reason: None,
            overflow: false,
        };
        if protocol == 1 {
            row.icmp = Some(Icmp { r#type: 8, code: 0 });
            row.tuple.remote_port = 0;
        }
        if packets[1] == 0 {
            (row.verdict, row.enforced, row.rule) = (Verdict::Deny, true, NonZeroU32::new(20));
        }
        match random.below(100) {
            // To another peer.
            0..3 => {
                let other = self.peers.draw(random);
                row.tuple.remote_addr = inside_addr(other, false);
                row.remote_peer = NonZeroU32::new(other as u32 + 1);
            }
            // From a server to the peer.
            3..6 => {
                row.initiator = Initiator::Remote;
                (row.tuple.peer_port, row.tuple.remote_port) = (port, ephemeral);
            }
            6 if protocol == 6 => row.initiator = Initiator::Unknown,
            _ => {}
        }
        let ends_ms = first_seen_ms + lasts_ms;
        row.total = Counters {
            rx_packets: packets[0],
            rx_bytes: bytes[0],
            tx_packets: packets[1],
            tx_bytes: bytes[1],
        };
        let per_ms = |of: u64| of as f64 / lasts_ms.max(1) as f64;
        let mean = |i: usize| bytes[i] as f64 / packets[i].max(1) as f64;
        let quiet = if end == EndReason::Idle { IDLE_MS } else { LINGER_MS };
        Live {
            rate: [per_ms(packets[0]), per_ms(packets[1])],
            mean_bytes: [mean(0), mean(1)],
            ends_ms,
            end,
            gone_ms: ends_ms + quiet,
            last_flags: flags,
            row,
        }
    }
}

impl Iterator for Generator {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        while self.at == self.ready.len() {
            self.drain();
        }
        self.at += 1;
        Some(self.ready[self.at - 1])
    }
}

/// What a flow will have been, before it is cut into windows.
struct Shape {
    protocol: u8,
    port: u16,
    packets: [u64; 2],
    bytes: [u64; 2],
    lasts_ms: i64,
    end: EndReason,
    flags: TcpFlags,
}

impl Shape {
    fn draw(random: &mut Random) -> Self {
        let closed = TcpFlags { rx: 0x1b, tx: 0x1b };
        let none = TcpFlags::default();
        let (tcp, udp) = (6, 17);
        match random.below(100) {
            // DNS.
            0..24 => {
                let rx = 56 + random.below(34);
                let tx = rx + 16 * (1 + random.below(12)) + random.below(3);
                let lasts = random.around(14.0, 1.2) as i64;
                Self::new((udp, 53), [1, 1], [rx, tx], lasts, EndReason::Idle, none)
            }
            // HTTPS.
            24..62 => Self::tcp(random, 443, 11.0, 1_900.0, 7_500.0, 900.0, closed),
            // QUIC.
            62..70 => {
                let up = random.around(14.0, 0.9).max(1.0) as u64;
                let down = (up as f64 * random.around(1.3, 0.4)).max(1.0) as u64;
                let bytes = [up * 180 + random.below(1_200), down * 900 + random.below(1_300)];
                let lasts = random.around(4_000.0, 1.5) as i64;
                Self::new((udp, 443), [up, down], bytes, lasts, EndReason::Idle, none)
            }
            // Long sessions: SSH, databases, message queues.
            70..78 => {
                let port = [22, 5432, 3306, 5671, 3389, 445][random.below(6) as usize];
                Self::tcp(random, port, 700.0, 90_000.0, 300_000.0, 240_000.0, closed)
            }
            // Web without TLS, proxies, monitoring.
            78..86 => {
                let port = [80, 8080, 9100, 9090, 389, 636][random.below(6) as usize];
                Self::tcp(random, port, 7.0, 700.0, 3_000.0, 250.0, closed)
            }
            // NTP.
            86..89 => {
                let lasts = random.around(20.0, 0.6) as i64;
                Self::new((udp, 123), [1, 1], [76, 76], lasts, EndReason::Idle, none)
            }
            // Ping.
            89..93 => {
                let count = 1 + random.below(5);
                let bytes = [count * 84, count * 84];
                let lasts = count as i64 * 1_001;
                Self::new((1, 0), [count, count], bytes, lasts, EndReason::Idle, none)
            }
            // Refused by the server.
            93..95 => {
                let flags = TcpFlags { rx: 0x02, tx: 0x14 };
                let lasts = random.around(12.0, 0.7) as i64;
                let port = random.below(10_000) as u16;
                Self::new((tcp, port), [1, 1], [60, 40], lasts, EndReason::Rst, flags)
            }
            // Denied.
            _ => {
                let count = 1 + random.below(4);
                let flags = TcpFlags { rx: 0x02, tx: 0 };
                let lasts = [0, 1_030, 3_070, 7_160][count as usize - 1] + random.below(20) as i64;
                let port = [23, 445, 25, 3389, 22, 6379][random.below(6) as usize];
                Self::new((tcp, port), [count, 0], [count * 60, 0], lasts, EndReason::Idle, flags)
            }
        }
    }

    fn new(
        (protocol, port): (u8, u16),
        packets: [u64; 2],
        bytes: [u64; 2],
        lasts_ms: i64,
        end: EndReason,
        flags: TcpFlags,
    ) -> Self {
        Self { protocol, port, packets, bytes, lasts_ms, end, flags }
    }

    fn tcp(
        random: &mut Random,
        port: u16,
        packets: f64,
        sent: f64,
        received: f64,
        lasts_ms: f64,
        flags: TcpFlags,
    ) -> Self {
        let size = random.around(1.0, 1.1);
        let up = (packets * size * random.around(1.0, 0.2)).max(4.0) as u64;
        let down = (up as f64 * random.around(1.1, 0.2)).max(3.0) as u64;
        let least = [up * 52 + 8, down * 52 + 8];
        let bytes = [
            (least[0] + random.around(sent * size, 0.7) as u64).min(up * 1_400),
            (least[1] + random.around(received * size, 0.7) as u64).min(down * 1_400),
        ];
        let lasts = (lasts_ms * random.around(1.0, 1.6)) as i64;
        let (end, flags) = match random.below(12) {
            0 => (EndReason::Rst, TcpFlags { rx: flags.rx | 0x04, tx: flags.tx }),
            _ => (EndReason::Fin, flags),
        };
        Self::new((6, port), [up, down], bytes, lasts, end, flags)
    }
}

/// What happened until now of a flow that goes on; nothing of one that was quiet.
fn window(live: &mut Live, now_ms: i64, random: &mut Random) -> Option<Row> {
    let row = live.row;
    let start_ms = row.window_end_ms;
    let span = (now_ms.min(live.ends_ms) - start_ms).max(0) as f64;
    let (had, all) = (row.counters, row.total);
    let grown = |i: usize, left: u64| -> u64 {
        ((live.rate[i] * span * share(i, start_ms)).round() as u64).min(left)
    };
    let packets =
        [grown(0, all.rx_packets - had.rx_packets), grown(1, all.tx_packets - had.tx_packets)];
    if packets == [0, 0] {
        return None;
    }
    let mut bytes = |i: usize, left: u64| -> u64 {
        let mean = live.mean_bytes[i] * (0.8 + 0.4 * random.unit());
        ((packets[i] as f64 * mean) as u64).min(left)
    };
    let counters = Counters {
        rx_packets: packets[0],
        rx_bytes: bytes(0, all.rx_bytes - had.rx_bytes),
        tx_packets: packets[1],
        tx_bytes: bytes(1, all.tx_bytes - had.tx_bytes),
    };
    let quiet = (random.unit().powi(3) * 8_000.0) as i64;
    let last_seen_ms = now_ms.min(live.ends_ms).saturating_sub(quiet).max(start_ms);
    let open = TcpFlags { rx: live.last_flags.rx & !0x05, tx: live.last_flags.tx & !0x05 };
    live.row.counters = had + counters;
    live.row.window_end_ms = now_ms;
    Some(Row {
        window_start_ms: start_ms,
        window_end_ms: now_ms,
        last_seen_ms,
        counters,
        total: had + counters,
        tcp_flags: open,
        ..row
    })
}

fn last(live: &Live) -> Row {
    let row = live.row;
    Row {
        window_start_ms: row.window_end_ms,
        window_end_ms: live.ends_ms.max(row.window_end_ms),
        last_seen_ms: live.ends_ms.max(row.first_seen_ms),
        counters: row.total - row.counters,
        end_reason: Some(live.end),
        ..row
    }
}

/// Flows are not steady: this part of the mean rate, by direction and time.
fn share(direction: usize, at_ms: i64) -> f64 {
    let mut random = Random::new(at_ms as u64 ^ (direction as u64) << 60);
    random.around(0.7, 0.5).min(2.0)
}

fn destination(rank: usize, random: &mut Random) -> Destination {
    let addr = match rank % 12 {
        0 => Ipv6Addr::from(0x2a00_1450_4001_0000_0000_0000_0000_0000 | u128::from(random.next())),
        1..6 => v4([10, (rank % 16) as u8, (random.below(200)) as u8, random.below(250) as u8]),
        _ => v4((random.next() as u32).to_be_bytes()),
    };
    let internal = (1..6).contains(&(rank % 12));
    let resource = internal.then(|| 1 + rank as u32 % 40).and_then(NonZeroU32::new);
    let rule = if internal { 1 + rank as u32 % 17 } else { 19 };
    Destination { addr, resource, rule: NonZeroU32::new(rule) }
}

fn v4(octets: [u8; 4]) -> Ipv6Addr {
    std::net::Ipv4Addr::from(octets).to_ipv6_mapped()
}

fn inside_addr(peer: usize, v6: bool) -> Ipv6Addr {
    let host = 2 + peer as u16;
    if v6 {
        return Ipv6Addr::new(0xfd00, 8, 0, 0, 0, 0, 0, host);
    }
    let [high, low] = host.to_be_bytes();
    v4([10, 8, high, low])
}
