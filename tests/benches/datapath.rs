//! Nanoseconds a packet in the datapath, by `BPF_PROG_TEST_RUN`.
//!
//! The programs take turns in short slices, many rounds long, and the fastest slice of each counts:
//! a shared machine slows down for seconds at a time, but not every slice. The empty classifier is
//! what the test run itself costs; the bare reference is a hash look-up and two atomic adds.

#[path = "datapath/reference.rs"]
mod reference;

use std::{process::ExitCode, time::Duration};

use flowd::dataplane::{Dataplane, LinkHeader};
use flowd_common::{counter::Direction, limits::DEFAULT_FLOWS};
use reference::Reference;

const ROUNDS: usize = 25;
/// Runs of one slice: some ten milliseconds.
const REPEAT: u32 = 200_000;
/// Flows that are made to time making one.
const NEW_FLOWS: u32 = 20_000;

/// What a row is compared with: netobserv's agent, measured elsewhere on such a machine.
const NETOBSERV_NS: f64 = 92.0;

fn main() -> ExitCode {
    // `cargo test` runs benches with `--test`: there is nothing to assert in a time.
    if std::env::args().any(|arg| arg == "--test") {
        return ExitCode::SUCCESS;
    }
    match measure() {
        Ok(table) => {
            table.print();
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench datapath: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Nanoseconds of every row.
struct Table {
    empty: f64,
    bare: f64,
    hot_v4: f64,
    hot_v6: f64,
    hot_tcp: f64,
    full: f64,
    new: f64,
    verified: Vec<(String, Option<u32>, u32)>,
}

fn measure() -> Result<Table, Box<dyn std::error::Error>> {
    let reference = Reference::load()?;
    let live = Dataplane::load(DEFAULT_FLOWS, LinkHeader::Ethernet, None)?;
    let full = Dataplane::load(16, LinkHeader::Ethernet, None)?;
    for port in 0..64 {
        full.test_run(Direction::Ingress, &udp_v4(port), 1)?;
    }
    let (v4, v6, tcp) = (udp_v4(5353), udp_v6(5353), tcp_v4(40_000));
    let mut best = [f64::MAX; 6];
    for _ in 0..ROUNDS {
        let slices = [
            reference.run_empty(&v4, REPEAT)?,
            reference.run_bare(&v4, REPEAT)?,
            live.test_run(Direction::Ingress, &v4, REPEAT)?.1,
            live.test_run(Direction::Ingress, &v6, REPEAT)?.1,
            live.test_run(Direction::Egress, &tcp, REPEAT)?.1,
            full.test_run(Direction::Ingress, &udp_v4(60_000), REPEAT)?.1,
        ];
        for (best, slice) in best.iter_mut().zip(slices) {
            *best = best.min(nanoseconds(slice));
        }
    }
    let [empty, bare, hot_v4, hot_v6, hot_tcp, full] = best;
    Ok(Table {
        empty,
        bare,
        hot_v4,
        hot_v6,
        hot_tcp,
        full,
        new: new_flow(&reference, &live)?,
        verified: live.verified(),
    })
}

/// The median cost of a packet that makes a flow, above the empty program, each run once: what a
/// single run costs is mostly the test run itself, and is taken off.
fn new_flow(reference: &Reference, live: &Dataplane) -> Result<f64, Box<dyn std::error::Error>> {
    let mut differences = Vec::new();
    for flow in 0..NEW_FLOWS {
        let frame = udp_v4_from([172, 16, (flow >> 8) as u8, flow as u8], 7);
        let empty = nanoseconds(reference.run_empty(&frame, 1)?);
        let new = nanoseconds(live.test_run(Direction::Ingress, &frame, 1)?.1);
        differences.push(new - empty);
    }
    differences.sort_by(f64::total_cmp);
    Ok(differences[differences.len() / 2])
}

fn nanoseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}

impl Table {
    fn print(&self) {
        let Self { empty, bare, hot_v4, hot_v6, hot_tcp, full, new, verified } = self;
        println!("{:<34} {:>8} {:>12} {:>10} {:>14}", "", "ns", "above empty", "× bare", "× 92 ns");
        let row = |name: &str, above: f64, total: Option<f64>| {
            let total = total.map_or_else(|| "-".to_owned(), |total| format!("{total:.0}"));
            println!(
                "{name:<34} {total:>8} {above:>12.0} {:>10.2} {:>14.2}",
                above / (bare - empty),
                above / NETOBSERV_NS,
            );
        };
        row("empty classifier", 0.0, Some(*empty));
        for (name, total) in [
            ("bare reference", bare),
            ("existing flow, IPv4 UDP", hot_v4),
            ("existing flow, IPv4 TCP, egress", hot_tcp),
            ("existing flow, IPv6 UDP", hot_v6),
            ("table full, to the overflow bucket", full),
        ] {
            row(name, total - empty, Some(*total));
        }
        row("new flow, IPv4 UDP (median, cold)", *new, None);
        println!("(92 ns: netobserv's agent, measured on another machine of this kind)\n");
        for (name, instructions, bytes) in verified {
            let instructions = instructions.map_or_else(|| "?".to_owned(), |n| n.to_string());
            println!("{name}: {instructions} instructions verified, {bytes} bytes of machine code");
        }
        let json = format!(
            "{{\"empty_ns\":{empty},\"bare_ns\":{bare},\"hot_v4_ns\":{hot_v4},\"hot_tcp_ns\":{hot_tcp},\
             \"hot_v6_ns\":{hot_v6},\"full_ns\":{full},\"new_above_empty_ns\":{new}}}\n"
        );
        if let Some(path) = std::env::var_os("FLOWD_BENCH_JSON")
            && let Err(error) = std::fs::write(&path, json)
        {
            eprintln!("bench datapath: cannot write {}: {error}", path.display());
        }
    }
}

fn ethernet(ethertype: u16, packet: Vec<u8>) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

fn ipv4(src: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend(((20 + payload.len()) as u16).to_be_bytes());
    packet.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
    packet.extend(src);
    packet.extend([10, 0, 0, 1]);
    packet.extend(payload);
    ethernet(0x0800, packet)
}

fn ports(src: u16, dst: u16) -> Vec<u8> {
    [src.to_be_bytes(), dst.to_be_bytes()].concat()
}

fn udp_v4_from(src: [u8; 4], port: u16) -> Vec<u8> {
    ipv4(src, 17, &[ports(port, 53), vec![0, 8, 0, 0]].concat())
}

fn udp_v4(port: u16) -> Vec<u8> {
    udp_v4_from([10, 8, 0, 2], port)
}

fn tcp_v4(port: u16) -> Vec<u8> {
    ipv4([10, 8, 0, 2], 6, &[ports(port, 443), vec![0; 8], vec![0x50, 0x10], vec![0; 6]].concat())
}

fn udp_v6(port: u16) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 8, 17, 64];
    packet.extend([0xfd, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend(ports(port, 53));
    packet.extend([0, 8, 0, 0]);
    ethernet(0x86dd, packet)
}
