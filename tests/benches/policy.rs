//! What a policy costs: to read, to compile and to put into force, in kernel memory, and in
//! nanoseconds a packet of new and established flows.
//!
//! Every policy has a datapath of its own; they take turns as in the bench `datapath`, so that all
//! of them meet the same machine. Packets of new flows are spread at random over the peers and
//! destinations that the policy speaks of, and half of them are allowed.

#[path = "datapath/reference.rs"]
mod reference;

#[path = "policy/generate.rs"]
mod generate;
#[path = "policy/memory.rs"]
mod memory;
#[path = "policy/table.rs"]
mod table;

use std::{
    error::Error,
    process::ExitCode,
    time::{Duration, Instant},
};

use flowd::{
    dataplane::{Dataplane, LinkHeader},
    policy::{Known, Limits, Policy, World, compile, parse},
};
use flowd_common::{counter::Direction, limits::DEFAULT_FLOWS, policy::Outcome};
use generate::{Generated, Network, Packet, Random};
use reference::Reference;
use table::{Row, Table};

const RULES: [usize; 4] = [10, 1_000, 10_000, 100_000];
/// What flowd's configuration has unless it says otherwise.
const LIMITS: Limits = Limits { endpoints: 4_000_000, pairs: 4_000_000, intervals: 4_000_000 };
/// Times that something is done of which the fastest counts.
const TRIES: usize = 3;
const ROUNDS: usize = 25;
/// Runs of one slice: some ten milliseconds.
const REPEAT: u32 = 200_000;
/// Slices of new flows, and how many are made in each.
const NEW_SLICES: u32 = 40;
const NEW_FLOWS: u32 = 500;

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
            eprintln!("bench policy: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A policy in force, and packets for it.
struct Lane<'n> {
    dataplane: Dataplane,
    generated: Generated<'n>,
    /// Nanoseconds of each new flow above the empty program.
    new: Vec<f64>,
    row: Row,
}

fn measure() -> Result<Table, Box<dyn Error>> {
    let reference = Reference::load()?;
    let mut random = Random(1);
    let network = Network::new(&mut random);
    let world = network.world();
    let mut lanes = vec![Lane::without_policy(&network, &world, &mut random)?];
    for rules in RULES {
        lanes.push(Lane::new(&network, &world, rules, &mut random)?);
    }
    let (empty, bare) = established_flow(&reference, &mut lanes, &mut random)?;
    for slice in 0..NEW_SLICES {
        for lane in &mut lanes {
            lane.make_flows(&reference, slice * NEW_FLOWS, &mut random)?;
        }
    }
    let rows = lanes.into_iter().map(Lane::finish).collect::<Result<_, _>>()?;
    Ok(Table { empty, bare, rows })
}

/// Nanoseconds of the empty program and the bare reference; those of the lanes are put into their
/// rows. The flow is one that the policy allows.
fn established_flow(
    reference: &Reference,
    lanes: &mut [Lane<'_>],
    random: &mut Random,
) -> Result<(f64, f64), Box<dyn Error>> {
    let (mut empty, mut bare) = (f64::MAX, f64::MAX);
    let frames: Vec<_> =
        lanes.iter().map(|lane| frame(lane.generated.allowed(random), 1_000)).collect();
    for _ in 0..ROUNDS {
        empty = nanoseconds(reference.run_empty(&frames[0], REPEAT)?).min(empty);
        bare = nanoseconds(reference.run_bare(&frames[0], REPEAT)?).min(bare);
        for (lane, frame) in lanes.iter_mut().zip(&frames) {
            let (_, mean) = lane.dataplane.test_run(Direction::Ingress, frame, REPEAT)?;
            lane.row.established = nanoseconds(mean).min(lane.row.established);
        }
    }
    Ok((empty, bare))
}

impl<'n> Lane<'n> {
    /// The world without a policy. Its packets are those of a policy of a thousand rules.
    fn without_policy(
        network: &'n Network,
        world: &World,
        random: &mut Random,
    ) -> Result<Self, Box<dyn Error>> {
        let generated = network.policy(1_000, random);
        let row = Row::new(0, 0, Duration::ZERO);
        Self::compiled(&Policy::default(), generated, world, row)
    }

    fn new(
        network: &'n Network,
        world: &World,
        rules: usize,
        random: &mut Random,
    ) -> Result<Self, Box<dyn Error>> {
        let generated = network.policy(rules, random);
        let identities = network.identities();
        let known = Known { identities: &identities };
        let (checked, parsed) = fastest(|| parse(&generated.text, Some(&known)));
        let policy = match checked {
            Ok(checked) => checked.policy,
            Err(problems) => {
                return Err(format!("the generated policy is wrong: {:?}", problems[0]).into());
            }
        };
        let row = Row::new(rules, generated.text.len(), parsed);
        Self::compiled(&policy, generated, world, row)
    }

    fn compiled(
        policy: &Policy,
        generated: Generated<'n>,
        world: &World,
        mut row: Row,
    ) -> Result<Self, Box<dyn Error>> {
        let (compiled, duration) = fastest(|| compile(policy, world, &LIMITS));
        let compiled = compiled?;
        row.compile = duration;
        row.prefixes = compiled.endpoints.len();
        row.pairs = compiled.pairs.len();
        row.intervals = compiled.intervals.len();
        let mut dataplane = Dataplane::load(DEFAULT_FLOWS, LinkHeader::Ethernet, None)?;
        let mut before = memory::map_ids();
        let (installed, duration) = fastest(|| {
            before = memory::map_ids();
            dataplane.install(&compiled)
        });
        let head = installed?;
        row.swap = duration;
        row.memory_bytes = memory::of_policy(&before, &compiled, head)?;
        Ok(Self { dataplane, generated, new: Vec::new(), row })
    }

    /// Times new flows, each beside a run of the empty program: what a single run costs is mostly
    /// the test run itself, and is taken off.
    fn make_flows(
        &mut self,
        reference: &Reference,
        first: u32,
        random: &mut Random,
    ) -> Result<(), Box<dyn Error>> {
        for flow in first..first + NEW_FLOWS {
            let packet = match flow % 2 {
                0 => self.generated.allowed(random),
                _ => self.generated.stray(random),
            };
            let frame = frame(packet, 2_000 + flow as u16);
            let empty = nanoseconds(reference.run_empty(&frame, 1)?);
            let (_, new) = self.dataplane.test_run(Direction::Ingress, &frame, 1)?;
            self.new.push(nanoseconds(new) - empty);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Row, Box<dyn Error>> {
        self.new.sort_by(f64::total_cmp);
        self.row.new = self.new[self.new.len() / 2];
        let mut allowed = 0_u32;
        let flows = self.dataplane.for_each_flow(|_, value| {
            allowed += u32::from(value.judgement.outcome() == Outcome::Allowed);
        })?;
        self.row.allowed = f64::from(allowed) / flows as f64;
        Ok(self.row)
    }
}

fn fastest<T>(mut work: impl FnMut() -> T) -> (T, Duration) {
    let timed = || {
        let start = Instant::now();
        (work(), start.elapsed())
    };
    let tries = std::iter::repeat_with(timed).take(TRIES);
    tries.min_by_key(|(_, duration)| *duration).expect("something is tried")
}

fn nanoseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}

fn frame(packet: Packet, src_port: u16) -> Vec<u8> {
    let Packet { src, dst, protocol, port } = packet;
    let mut transport = [src_port.to_be_bytes(), port.to_be_bytes()].concat();
    transport.extend(match protocol {
        // A SYN.
        6 => vec![0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 1, 0, 0, 0, 0, 0],
        _ => vec![0, 8, 0, 0],
    });
    let mut frame = vec![0; 12];
    frame.extend([8, 0, 0x45, 0]);
    frame.extend(((20 + transport.len()) as u16).to_be_bytes());
    frame.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
    frame.extend(src.octets());
    frame.extend(dst.octets());
    frame.extend(transport);
    frame
}
