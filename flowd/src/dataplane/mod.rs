//! The user side of the datapath: the only module that knows aya.
//!
//! It loads and attaches the programs, walks their tables, and runs the protocol by which an ended
//! flow leaves the table without losing a packet. It knows nothing of records, peers' names or
//! files.

mod attachment;
mod batch;
mod clock;
mod error;
mod missing;
mod notes;
mod old;
mod order;
mod pairs;
mod pins;
mod policy;
mod retire;
mod strangers;
mod syscall;

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData},
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
    util::KernelVersion,
};
use aya_log::EbpfLogger;
use flowd_common::{
    clock::Clocks,
    counter::{Counter, CounterKey, Direction, Tally},
    flow::{FlowKey, FlowValue, OverflowKey},
    policy::Head,
};

use self::batch::Batch;
pub use self::{
    attachment::{AttachedBy, Attachment, detach_everything, has_left_tables, tables_pattern},
    clock::TimeLine,
    error::{DataplaneError, LoadError},
    notes::{Notebook, Notes},
    old::{OldTable, OldTables},
    order::{Hanging, Order},
    pins::{Detached, Pins, Tables},
    retire::Why,
};
use crate::policy::Compiled;

/// The object that `build.rs` made of `flowd-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/flowd-ebpf"));

/// `BPF_NOEXIST` in `include/uapi/linux/bpf.h`: do not replace an entry.
const BPF_NOEXIST: u64 = 1;
/// `BPF_EXIST` there: replace an entry, do not make one.
const BPF_EXIST: u64 = 2;

/// Bytes of a frame that `BPF_PROG_TEST_RUN` accepts for a program that does not look at it.
const BLANK_FRAME: [u8; 64] = [0; 64];

/// Bytes before the network header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkHeader {
    /// A WireGuard interface has none.
    None,
    /// What `BPF_PROG_TEST_RUN` puts before every packet.
    Ethernet,
}

/// The loaded datapath.
pub struct Dataplane {
    ebpf: Ebpf,
    log: Option<EbpfLogger<&'static dyn log::Log>>,
    flows: HashMap<MapData, FlowKey, FlowValue>,
    flows_fd: OwnedFd,
    overflow_fd: OwnedFd,
    counters: HashMap<MapData, CounterKey, Tally>,
    counters_fd: OwnedFd,
    policy: policy::PolicyMaps,
    retire: retire::Retire,
    notebook: Notebook,
    clocks: Array<MapData, Clocks>,
    started: Clocks,
    capacity: u32,
    order: Order,
    flow_batch: Batch<FlowKey, FlowValue>,
    overflow_batch: Batch<OverflowKey, Tally>,
    counter_batch: Batch<CounterKey, Tally>,
}

impl Dataplane {
    /// Loads the programs. Their tables are those in `tables`, where a daemon before has made them;
    /// else they are made, with room for so many flows, and stay there. Without `tables` they go with
    /// the daemon.
    pub fn load(
        flows: u32,
        link_header: LinkHeader,
        tables: Option<&Tables>,
    ) -> Result<Self, LoadError> {
        let found = KernelVersion::current()
            .map_err(|error| LoadError::Refused { reason: error.to_string() })?;
        if found < KernelVersion::new(5, 15, 0) {
            return Err(LoadError::OldKernel { found: format!("{found:?}") });
        }
        let link_header_bytes = match link_header {
            LinkHeader::None => 0_u32,
            LinkHeader::Ethernet => 14,
        };
        let mut loader = EbpfLoader::new();
        if let Some(tables) = tables {
            for name in pins::KEPT {
                loader.map_pin_path(name, tables.path(name));
            }
        }
        let mut ebpf = loader
            .verifier_log_level(aya::VerifierLogLevel::VERBOSE)
            .map_max_entries("FLOWS", flows)
            .override_global("LINK_HEADER_BYTES", &link_header_bytes, true)
            .override_global(aya_log::LEVEL, &kernel_log_level(), true)
            .load(OBJECT)
            .map_err(|error| LoadError::from_ebpf(&error, flows))?;
        failpoint!("tables-made");
        for name in ["flowd_ingress", "flowd_egress", "flowd_retire", "flowd_clock"] {
            classifier_mut(&mut ebpf, name)
                .load()
                .map_err(|error| LoadError::from_program(&error, flows))?;
        }
        let log = match kernel_log_level() {
            0 => None,
            _ => EbpfLogger::init(&mut ebpf)
                .inspect_err(|error| tracing::warn!(%error, "the datapath logs nothing"))
                .ok(),
        };
        let (flows_map, flows_fd) = take(&mut ebpf, "FLOWS");
        let (_, overflow_fd) = take(&mut ebpf, "OVERFLOW");
        let (counters, counters_fd) = take(&mut ebpf, "COUNTERS");
        let mut dataplane = Self {
            flows: HashMap::try_from(flows_map).expect("FLOWS is a hash of these types"),
            flows_fd,
            overflow_fd,
            counters: HashMap::try_from(counters).expect("COUNTERS is a hash of these types"),
            counters_fd,
            policy: policy::PolicyMaps::new(
                take(&mut ebpf, "POLICY").0,
                take(&mut ebpf, "HOSTS").0,
                take(&mut ebpf, "NETS").0,
                take(&mut ebpf, "PAIRS").0,
                take(&mut ebpf, "CHAINS").0,
            ),
            retire: retire::Retire::new(
                take(&mut ebpf, "RETIRE").0,
                take(&mut ebpf, "RETIRE_CURSOR").0,
            ),
            notebook: Notebook::new(
                take(&mut ebpf, "PEERS").0,
                take(&mut ebpf, "INTERFACES").0,
                take(&mut ebpf, "EPOCHS").0,
                take(&mut ebpf, "ANCHORS").0,
            ),
            clocks: Array::try_from(take(&mut ebpf, "CLOCKS").0)
                .expect("CLOCKS is an array of these types"),
            started: Clocks::default(),
            capacity: flows,
            order: Order::default(),
            flow_batch: Batch::new(),
            overflow_batch: Batch::new(),
            counter_batch: Batch::new(),
            log,
            ebpf,
        };
        dataplane.started = dataplane
            .read_clocks()
            .map_err(|error| LoadError::Refused { reason: error::first_line(&error) })?;
        Ok(dataplane)
    }

    /// Flows that fit into the table.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Hands on what the datapath logged: why packets had no flow, at level DEBUG only.
    pub fn flush_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    /// Shows every flow to `visit`, retired ones included, and returns how many there were.
    pub fn for_each_flow(
        &mut self,
        visit: impl FnMut(&FlowKey, &FlowValue),
    ) -> Result<u64, DataplaneError> {
        self.flow_batch
            .for_each(self.flows_fd.as_fd(), visit)
            .map_err(|source| DataplaneError::Read { table: "flow", source })
    }

    /// Every overflow bucket, cumulative since the load.
    pub fn overflow(&mut self) -> Result<Vec<(OverflowKey, Tally)>, DataplaneError> {
        let mut buckets = Vec::new();
        self.overflow_batch
            .for_each(self.overflow_fd.as_fd(), |key, tally| buckets.push((*key, *tally)))
            .map_err(|source| DataplaneError::Read { table: "overflow", source })?;
        Ok(buckets)
    }

    /// Every named counter, cumulative since its interface was attached.
    pub fn counters(&mut self) -> Result<Vec<(CounterKey, Tally)>, DataplaneError> {
        let mut counters = Vec::new();
        self.counter_batch
            .for_each(self.counters_fd.as_fd(), |key, tally| counters.push((*key, *tally)))
            .map_err(|source| DataplaneError::Read { table: "counter", source })?;
        Ok(counters)
    }

    /// Puts a policy into force, for every packet from now on. On an error the old one stays.
    pub fn install(&mut self, compiled: &Compiled) -> Result<Head, DataplaneError> {
        self.policy.install(compiled)
    }

    /// The epoch that the next policy will begin.
    pub fn next_epoch(&self) -> u32 {
        self.policy.next_epoch()
    }

    /// Begins the next epoch after `newest`, if tables that are new have not come so far.
    pub fn continue_epochs(&mut self, newest: u32) {
        self.policy.continue_epochs(newest);
    }

    /// The policy in force.
    pub fn in_force(&self) -> Head {
        self.policy.in_force()
    }

    /// Where the daemon notes what the next one must know.
    pub fn notebook(&mut self) -> &mut Notebook {
        &mut self.notebook
    }

    /// Makes the entry of a flow, unless a packet has. Returns whether there was room.
    pub fn seed(&mut self, key: &FlowKey, value: &FlowValue) -> Result<bool, DataplaneError> {
        let source = match self.flows.insert(key, value, BPF_NOEXIST) {
            Ok(()) => return Ok(true),
            Err(source) => source,
        };
        match error::os_error(&source) {
            Some(libc::EEXIST) => Ok(true),
            Some(libc::E2BIG | libc::ENOMEM) => Ok(false),
            _ => Err(DataplaneError::Write { table: "flow", source }),
        }
    }

    /// Returns when every classifier that runs now has left.
    pub fn wait_for_classifiers(&self) -> Result<(), DataplaneError> {
        retire::wait_for_classifiers()
            .map_err(|source| DataplaneError::Read { table: "flow", source })
    }

    /// Replaces the value of a flow that is retired, after which it lives again.
    pub fn revive(&mut self, key: &FlowKey, value: &FlowValue) -> Result<(), DataplaneError> {
        self.flows
            .insert(key, value, BPF_EXIST)
            .map_err(|source| DataplaneError::Write { table: "flow", source })
    }

    /// Ends flows: from here on nobody adds to their entries. Afterwards their values are final,
    /// and are shown to `visit`; the entries stay until [`Self::delete`].
    pub fn retire(
        &mut self,
        keys: &[FlowKey],
        why: Why,
        mut visit: impl FnMut(&FlowKey, &FlowValue),
    ) -> Result<(), DataplaneError> {
        let program = classifier(&self.ebpf, "flowd_retire");
        self.retire.mark(program, keys, why)?;
        for key in keys {
            if let Some(value) = self.flow(key)? {
                visit(key, &value);
            }
        }
        Ok(())
    }

    /// One flow.
    pub fn flow(&self, key: &FlowKey) -> Result<Option<FlowValue>, DataplaneError> {
        match self.flows.get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(aya::maps::MapError::KeyNotFound) => Ok(None),
            Err(source) => {
                let source = io::Error::other(source);
                Err(DataplaneError::Read { table: "flow", source })
            }
        }
    }

    /// Frees the entries of retired flows whose final values are safe, and shows `gone` which are
    /// gone; on an error these are not all.
    pub fn delete(
        &mut self,
        keys: &[FlowKey],
        mut gone: impl FnMut(&FlowKey),
    ) -> Result<(), DataplaneError> {
        for key in keys {
            match self.flows.remove(key) {
                Ok(()) | Err(aya::maps::MapError::KeyNotFound) => {}
                Err(error) if error::os_error(&error) == Some(libc::ENOENT) => {}
                Err(source) => {
                    return Err(DataplaneError::Write { table: "flow", source });
                }
            }
            gone(key);
        }
        Ok(())
    }

    /// Relates the datapath's clocks to `wall_ms`, the wall clock's Unix milliseconds now. `None`
    /// in the first tenth of a second.
    pub fn time_line(&mut self, wall_ms: i64) -> Result<Option<TimeLine>, DataplaneError> {
        let now = self.read_clocks()?;
        Ok(TimeLine::new(self.started, now, wall_ms))
    }

    fn read_clocks(&mut self) -> Result<Clocks, DataplaneError> {
        run(classifier(&self.ebpf, "flowd_clock"), "flowd_clock", &BLANK_FRAME, 1)?;
        self.clocks.get(&0, 0).map_err(|source| DataplaneError::Read {
            table: "clock",
            source: io::Error::other(source),
        })
    }

    /// Makes the named counters of an interface, so that the datapath only ever adds. Attaching
    /// does it.
    pub fn make_counters(&mut self, ifindex: u32) -> Result<(), DataplaneError> {
        for counter in Counter::ALL {
            for direction in [Direction::Ingress, Direction::Egress] {
                let key = CounterKey {
                    ifindex,
                    counter: counter as u8,
                    direction: direction as u8,
                    reserved: [0; 2],
                };
                match self.counters.insert(key, Tally::default(), BPF_NOEXIST) {
                    Ok(()) => {}
                    // flowd hung on this interface before; its counts go on.
                    Err(error) if error::os_error(&error) == Some(libc::EEXIST) => {}
                    Err(source) => {
                        return Err(DataplaneError::Write { table: "counter", source });
                    }
                }
            }
        }
        Ok(())
    }

    /// Runs one of the classifiers on a frame, for tests and benches; returns its verdict and the
    /// mean time of `repeat` runs.
    pub fn test_run(
        &self,
        direction: Direction,
        frame: &[u8],
        repeat: u32,
    ) -> Result<(i32, std::time::Duration), DataplaneError> {
        let name = program_name(direction);
        let result = run(classifier(&self.ebpf, name), name, frame, repeat)?;
        Ok((result.return_value as i32, result.duration))
    }

    /// What the verifier made of the programs: name, instructions it walked, bytes of machine code.
    pub fn verified(&self) -> Vec<(String, Option<u32>, u32)> {
        self.ebpf
            .programs()
            .filter_map(|(name, program)| {
                let info = program.info().ok()?;
                Some((name.to_owned(), info.verified_instruction_count(), info.size_jitted()))
            })
            .collect()
    }
}

/// The level that the datapath logs at: DEBUG when flowd does, else not at all, which the verifier
/// turns into no code.
fn kernel_log_level() -> u8 {
    if tracing::enabled!(tracing::Level::DEBUG) { aya_log::Level::Debug as u8 } else { 0 }
}

fn program_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "flowd_ingress",
        Direction::Egress => "flowd_egress",
    }
}

fn run(
    program: &SchedClassifier,
    name: &'static str,
    frame: &[u8],
    repeat: u32,
) -> Result<aya::programs::TestRunResult, DataplaneError> {
    program
        .test_run(TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() })
        .map_err(|source| DataplaneError::Control { program: name, source })
}

fn classifier<'a>(ebpf: &'a Ebpf, name: &str) -> &'a SchedClassifier {
    ebpf.program(name)
        .and_then(|program| program.try_into().ok())
        .expect("the object has this classifier")
}

fn classifier_mut<'a>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut SchedClassifier {
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .expect("the object has this classifier")
}

fn take(ebpf: &mut Ebpf, name: &str) -> (Map, OwnedFd) {
    let map = ebpf.take_map(name).expect("the object has this map");
    let (Map::HashMap(data) | Map::Array(data) | Map::ArrayOfMaps(data)) = &map else {
        unreachable!("flowd's maps are of these three kinds")
    };
    let fd = data.fd().as_fd().try_clone_to_owned().expect("a map's descriptor can be duplicated");
    (map, fd)
}
