//! The ledger against a model: whatever fails, and whenever the writer dies, records and ledger add
//! up to what was committed, and no number comes twice.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    path::Path,
};

use proptest::prelude::*;
use rusqlite::Connection;

use super::{
    Keeper, Leaving, MaxBytes, Retention, Writer, chunks, salvage, step_tests, verify_store,
    writer::Newest,
};
use crate::{
    chunk::Chunk,
    flows::{Counters, EndReason, Record, sample},
};

const DAY: i64 = 86_400_000;
const FLOWS: u16 = 4;
/// Records of a chunk.
const TAIL: u32 = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Packets of a flow arrive.
    Grow { flow: u16, packets: u64 },
    /// What the flows did is recorded, and this one may end.
    Commit { ends: Option<u16> },
    /// The next commits fail for want of room.
    Fill,
    /// There is room again.
    MakeRoom,
    /// Time goes by.
    Wait { ms: i64 },
    /// A day goes by.
    NextDay,
    /// The daemon stops and starts.
    Restart,
    /// It is killed and starts.
    Kill,
    /// The newest segment is found damaged; the daemon may be killed before it begins another one.
    Damage { killed: bool },
    /// Somebody deletes the newest segment.
    Delete,
    /// Old days are sealed.
    Keep,
    /// A chunk is made.
    MakeChunk,
    /// It is put into its place, unless that is gone.
    TakeChunk,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..FLOWS, 1_u64..9).prop_map(|(flow, packets)| Step::Grow { flow, packets }),
        8 => prop::option::weighted(0.2, 0..FLOWS).prop_map(|ends| Step::Commit { ends }),
        1 => Just(Step::Fill),
        2 => Just(Step::MakeRoom),
        4 => (1_i64..1_000).prop_map(|ms| Step::Wait { ms }),
        2 => Just(Step::NextDay),
        1 => Just(Step::Restart),
        2 => Just(Step::Kill),
        1 => any::<bool>().prop_map(|killed| Step::Damage { killed }),
        1 => Just(Step::Delete),
        1 => Just(Step::Keep),
        4 => Just(Step::MakeChunk),
        4 => Just(Step::TakeChunk),
    ]
}

/// A flow as the kernel and the daemon's memory have it.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    first_seen_ms: i64,
    window_start_ms: i64,
    counted: u64,
    recorded: u64,
}

struct Model {
    dir: tempfile::TempDir,
    writer: Option<Writer>,
    made: Option<super::Step>,
    now_ms: i64,
    flows: BTreeMap<u16, Flow>,
    /// Packets that ever came.
    counted: u64,
    /// Packets in committed records, by number of the record.
    committed: BTreeMap<u64, u64>,
    /// Numbers of the records that were in a deleted segment.
    deleted: BTreeSet<u64>,
}

fn packets(count: u64) -> Counters {
    Counters { rx_packets: count, rx_bytes: count * 60, ..Counters::default() }
}

impl Model {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let writer = Some(open(dir.path(), 0));
        let (flows, committed, deleted) = <_>::default();
        Self { dir, writer, made: None, now_ms: 0, flows, counted: 0, committed, deleted }
    }

    fn writer(&mut self) -> &mut Writer {
        self.writer.as_mut().unwrap()
    }

    fn conn(&mut self) -> Option<&Connection> {
        match &self.writer.as_ref().unwrap().newest {
            Newest::Open(segment) => Some(segment.conn()),
            _ => None,
        }
    }

    fn record(&self, port: u16, flow: &Flow, ends: bool) -> Record {
        let mut record = sample::record();
        record.tuple.peer_port = port;
        record.first_seen_ms = flow.first_seen_ms;
        record.window_start_ms = flow.window_start_ms;
        record.window_end_ms = self.now_ms;
        record.counters = packets(flow.counted - flow.recorded);
        record.total = packets(flow.counted);
        record.end_reason = ends.then_some(EndReason::Idle);
        record
    }

    /// As the daemon does it: what is not committed stays counted.
    fn commit(&mut self, ends: Option<u16>) {
        if self.writer().wants_ledger() {
            self.begin_anew();
        }
        let mut batch: Vec<_> = self
            .flows
            .iter()
            .filter(|(port, flow)| flow.counted > flow.recorded || ends == Some(**port))
            .map(|(port, flow)| self.record(*port, flow, ends == Some(*port)))
            .collect();
        let now_ms = self.now_ms;
        if self.writer().commit(now_ms, &mut batch, &Leaving::default()).is_err() {
            return;
        }
        for record in batch {
            let before = self.committed.insert(record.record_id, record.counters.rx_packets);
            assert_eq!(before, None, "a number comes once");
            let port = record.tuple.peer_port;
            if record.end_reason.is_some() {
                self.flows.remove(&port);
            } else if let Some(flow) = self.flows.get_mut(&port) {
                flow.recorded = record.total.rx_packets;
                flow.window_start_ms = record.window_end_ms;
            }
        }
    }

    /// From the daemon's memory.
    fn begin_anew(&mut self) {
        let known = self.flows.iter().filter(|(_, flow)| flow.recorded > 0);
        let ledger = known.map(|(port, flow)| Record {
            window_end_ms: flow.window_start_ms,
            counters: Counters::default(),
            total: packets(flow.recorded),
            ..self.record(*port, flow, false)
        });
        let (ledger, now_ms) = (ledger.collect(), self.now_ms);
        self.writer().begin_anew(now_ms, ledger, HashSet::new()).unwrap();
    }

    /// The next daemon knows what the store says.
    fn start(&mut self) {
        let writer = open(self.dir.path(), self.now_ms);
        let left = writer.leftovers().unwrap();
        for (port, flow) in &self.flows {
            let known = left.iter().find(|record| record.tuple.peer_port == *port);
            let known = known.map_or(0, |record| record.total.rx_packets);
            assert_eq!(known, flow.recorded, "the ledger of {port}");
        }
        let open = self.flows.values().filter(|flow| flow.recorded > 0).count();
        assert_eq!(left.len(), open, "and of nothing else");
        assert_eq!(writer.last_record_id(), self.committed.keys().copied().max().unwrap_or(0));
        self.writer = Some(writer);
    }

    fn run(&mut self, step: Step) {
        let now_ms = self.now_ms;
        match step {
            Step::Grow { flow, packets } => {
                let new =
                    Flow { first_seen_ms: now_ms, window_start_ms: now_ms, ..Flow::default() };
                self.counted += packets;
                self.flows.entry(flow).or_insert(new).counted += packets;
            }
            Step::Commit { ends } => self.commit(ends.filter(|port| self.flows.contains_key(port))),
            Step::Fill => {
                if let Some(conn) = self.conn() {
                    let pages: i64 =
                        conn.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
                    conn.pragma_update(None, "max_page_count", pages).unwrap();
                }
            }
            Step::MakeRoom => {
                if let Some(conn) = self.conn() {
                    conn.pragma_update(None, "max_page_count", 1 << 20).unwrap();
                }
            }
            Step::Wait { ms } => self.now_ms += ms,
            Step::NextDay => self.now_ms += DAY,
            Step::Restart => {
                self.writer.take().unwrap().close();
                self.start();
            }
            Step::Kill => {
                self.kill();
                self.start();
            }
            Step::Damage { killed } => {
                if self.conn().is_some() {
                    self.writer().set_newest_aside(now_ms, "a test".to_owned()).unwrap();
                    if killed {
                        self.kill();
                        self.start();
                    }
                }
            }
            Step::Delete => {
                if let Newest::Open(segment) = &self.writer.as_ref().unwrap().newest {
                    let path = self.dir.path().join(format!("segments/{}.sqlite", segment.day));
                    for (id, _) in records(&path) {
                        self.deleted.insert(id);
                    }
                    fs::remove_file(&path).unwrap();
                    // While it lives, the daemon notices; a dead one cannot.
                    let now_ms = self.now_ms;
                    self.writer().beat(now_ms, false).unwrap();
                }
            }
            Step::Keep => {
                let retention = Retention { days: 0, max_bytes: MaxBytes::None };
                let keeper = Keeper::new(self.dir.path(), retention);
                keeper.with_tail_records(TAIL).run(now_ms).unwrap();
            }
            Step::MakeChunk => self.made = step_tests::next(self.dir.path(), TAIL),
            Step::TakeChunk => {
                if let Some(step) = self.made.take() {
                    // One that comes late or finds no room changes nothing.
                    let _is_taken = self.writer().take_step(now_ms, &step);
                }
            }
        }
    }

    /// Leaves everything as SIGKILL does.
    fn kill(&mut self) {
        let writer = self.writer.take().unwrap();
        if let Newest::Open(segment) = writer.newest {
            segment.abandon();
        }
    }

    fn check(&mut self) {
        let mut stored = BTreeMap::new();
        for entry in fs::read_dir(self.dir.path().join("segments")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if name.ends_with("-wal") || name.ends_with("-shm") {
                continue;
            }
            for (id, packets) in records(&path) {
                assert_eq!(stored.insert(id, packets), None, "{id} is in two segments");
            }
        }
        let mut expected = self.committed.clone();
        expected.retain(|id, _| !self.deleted.contains(id));
        assert_eq!(stored, expected, "what was committed is stored, and nothing else");
        let last = self.committed.keys().copied().max().unwrap_or(0);
        assert_eq!(self.committed.len() as u64, last, "no number is left out");
        let is_whole = self.deleted.is_empty();
        for one in verify_store(self.dir.path()).unwrap() {
            // What follows a segment that was set aside goes on from what it does not have.
            let known = ["set aside", "segment before", "more like that"];
            let is_known =
                |problem: &String| !is_whole || known.iter().any(|known| problem.contains(known));
            assert!(one.problems.iter().all(is_known), "{one:#?}");
        }
    }
}

/// A writer for which two records are many.
fn open(dir: &Path, now_ms: i64) -> Writer {
    Writer::open(dir, "gw", now_ms).unwrap().with_tail_records(2 * TAIL)
}

/// Numbers and packets of every record in a file.
fn records(path: &Path) -> Vec<(u64, u64)> {
    let conn = salvage::open(path).unwrap();
    let mut query = conn.prepare("SELECT record_id, rx_packets FROM record").unwrap();
    let rows =
        query.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).unwrap();
    let rows = rows.map(|row| row.unwrap());
    let mut all: Vec<_> = rows.map(|(id, n)| (id.cast_unsigned(), n.cast_unsigned())).collect();
    for stored in chunks::between(&conn, 0, u64::MAX >> 1).unwrap() {
        stored.need(&conn, Chunk::row_columns()).unwrap();
        let rows = stored.chunk.all_rows().unwrap();
        all.extend(rows.iter().map(|row| (row.record_id, row.counters.rx_packets)));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn records_and_ledger_add_up_whatever_happens(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut model = Model::new();
        for step in steps {
            model.run(step);
        }
        // However it went, the store takes everything in the end.
        model.run(Step::MakeRoom);
        for ends in 0..FLOWS {
            model.run(Step::Commit { ends: Some(ends) });
        }
        let sum: u64 = model.committed.values().sum();
        prop_assert_eq!(sum, model.counted, "nothing lost, nothing doubled");
        prop_assert!(model.flows.is_empty());
        model.check();
        model.run(Step::Kill);
        model.check();
    }
}
