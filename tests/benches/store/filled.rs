//! A store of so many records, and the same records in a file for others to load.

use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
    fs::{self, File},
    io::BufWriter,
    net::IpAddr,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use flowd::{
    export::{Export, Format},
    flows::{FlowId, Record},
    seal::DayState,
    store::{
        Compactor, Keeper, Leaving, Reader, Retention, Synchronous, TAIL_RECORDS, Writer, prove,
        read_chain,
    },
    wire,
};
use tempfile::TempDir;

use super::{
    generate::{Generator, MIDNIGHT_MS},
    names::Names,
};

pub(super) const GATEWAY: &str = "bench";
/// Ten million records come in about a day.
const FLOWS_PER_S: f64 = 60.0;
const SEED: u64 = 1;
/// Records that are left out at first, until long flows are as frequent as they will be.
const WARM_UP: usize = 300_000;
/// Records of a transaction.
pub(super) const COMMIT: usize = 10_000;
const DAY_MS: i64 = 86_400_000;
/// How long the first window of a flow is at most.
const WINDOW_MS: i64 = 60_000;

/// What a store is asked about: something that is in it.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) peer: String,
    pub(super) source: IpAddr,
    /// The inside address that has about as many records as one has on the average.
    pub(super) usual: IpAddr,
    /// The address that the fewest of some records had.
    pub(super) needle: IpAddr,
    /// A flow of many records.
    pub(super) long: FlowId,
    /// A flow of two.
    pub(super) short: FlowId,
    pub(super) last_ms: i64,
}

/// A store, closed.
pub(super) struct Filled {
    pub(super) directory: TempDir,
    pub(super) count: usize,
    pub(super) facts: Facts,
    pub(super) ingest: Ingest,
    /// With the log, after the last transaction.
    pub(super) open_bytes: u64,
    /// After the writer has gone.
    pub(super) closed_bytes: u64,
}

/// Time that something took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Took {
    pub(super) wall: Duration,
    /// Of this thread; waiting for the disk is not in it.
    pub(super) cpu: Duration,
}

impl Took {
    fn by<T>(work: impl FnOnce() -> T) -> (T, Self) {
        let (start, cpu) = (Instant::now(), thread_cpu());
        let done = work();
        (done, Self { wall: start.elapsed(), cpu: thread_cpu() - cpu })
    }
}

impl std::iter::Sum for Took {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |sum, part| Self {
            wall: sum.wall + part.wall,
            cpu: sum.cpu + part.cpu,
        })
    }
}

fn thread_cpu() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock is one that Linux always has, and the result lies on this stack.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut now) };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// What each commit took, with the steps behind it.
#[derive(Debug, Default)]
pub(super) struct Ingest {
    /// Records into rows.
    commits: Vec<Took>,
    /// Rows into chunks, chunks into larger ones, and digests: beside the daemon's drain thread.
    makes: Vec<Took>,
    /// Chunks into their place: the daemon drains nothing meanwhile.
    takes: Vec<Took>,
    pub(super) longest_take: Duration,
    /// What making a step needed at most, beyond what was there before.
    pub(super) step_bytes: u64,
}

impl Ingest {
    /// Makes and takes the steps that are due.
    fn step(
        &mut self,
        compactor: &Compactor,
        writer: &mut Writer,
        now_ms: i64,
    ) -> Result<(), Box<dyn Error>> {
        let (mut makes, mut takes) = (Vec::new(), Vec::new());
        loop {
            fs::write("/proc/self/clear_refs", "5")?;
            let before = resident("VmRSS")?;
            let (step, took) = Took::by(|| compactor.next());
            makes.push(took);
            let Some(step) = step? else { break };
            self.step_bytes = self.step_bytes.max(resident("VmHWM")?.saturating_sub(before));
            let (is_taken, took) = Took::by(|| writer.take_step(now_ms, &step));
            if !is_taken? {
                return Err("a step is not of the segment".into());
            }
            takes.push(took);
            self.longest_take = self.longest_take.max(took.wall);
        }
        self.makes.push(makes.into_iter().sum());
        self.takes.push(takes.into_iter().sum());
        Ok(())
    }

    /// All of it, one after the other.
    pub(super) fn all(&self) -> Took {
        [&self.commits, &self.makes, &self.takes].into_iter().flatten().copied().sum()
    }

    /// What the drain thread does.
    pub(super) fn of_writer(&self) -> Took {
        [&self.commits, &self.takes].into_iter().flatten().copied().sum()
    }

    /// All of it, of the tenth that was the slowest.
    pub(super) fn slowest_tenth(&self) -> Took {
        let of_commits = self.commits.iter().zip(&self.makes).zip(&self.takes);
        let of_commits: Vec<Took> =
            of_commits.map(|((a, b), c)| [*a, *b, *c].into_iter().sum()).collect();
        let tenth = of_commits.len().div_ceil(10);
        let whole = of_commits.chunks(tenth).filter(|part| part.len() == tenth);
        let sums = whole.map(|part| part.iter().copied().sum::<Took>());
        sums.max_by_key(|took| took.cpu).unwrap_or_default()
    }
}

/// A line of `/proc/self/status`, in bytes.
fn resident(what: &str) -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()).ok_or("no such line")?;
    Ok(kilobytes.parse::<u64>()? * 1024)
}

impl Filled {
    /// Writes a store as the daemon does, each transaction safe on the disk: commits, and the steps
    /// that are due behind each.
    pub(super) fn new(count: usize) -> Result<Self, Box<dyn Error>> {
        let directory = TempDir::with_prefix_in("bench-store-", env!("CARGO_TARGET_TMPDIR"))?;
        let store = directory.path().join("store");
        fs::create_dir(&store)?;
        let parquet = BufWriter::new(File::create(directory.path().join("records.parquet"))?);
        let mut export = Export::begin(Format::Parquet, parquet)?;
        let mut writer = Writer::open(&store, GATEWAY, MIDNIGHT_MS)?;
        writer = writer.with_synchronous(Synchronous::Full)?;
        let compactor = Compactor::new(Reader::new(&store, GATEWAY), TAIL_RECORDS);
        let mut all = records(count);
        let (mut ingest, mut facts, mut done) = (Ingest::default(), None, 0);
        let mut inside = HashMap::new();
        while done < count {
            let mut records: Vec<Record> = all.by_ref().take(COMMIT).collect();
            let now_ms = records.iter().map(|one| one.window_end_ms).max().unwrap_or(MIDNIGHT_MS);
            let (committed, took) =
                Took::by(|| writer.commit(now_ms, &mut records, &Leaving::default()));
            committed?;
            ingest.commits.push(took);
            ingest.step(&compactor, &mut writer, now_ms)?;
            done += records.len();
            for record in &records {
                *inside.entry(record.tuple.peer_ip()).or_insert(0) += 1;
                export.record(&wire::Record::new(GATEWAY, record))?;
            }
            if done >= count / 2 && facts.is_none() {
                facts = Some(Facts::of(&records));
            }
            if let Some(facts) = &mut facts {
                facts.last_ms = now_ms;
                facts.usual = usual(&inside).unwrap_or(facts.source);
            }
        }
        export.end()?.into_inner()?.sync_all()?;
        let open_bytes = bytes(&store)?;
        writer.close();
        // Days that are over.
        let end_ms = facts.as_ref().map_or(MIDNIGHT_MS, |facts: &Facts| facts.last_ms);
        Keeper::new(&store, Retention::default()).run(end_ms)?;
        let closed_bytes = bytes(&store)?;
        Ok(Self {
            directory,
            count,
            facts: facts.ok_or("a store has records")?,
            ingest,
            open_bytes,
            closed_bytes,
        })
    }

    pub(super) fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    pub(super) fn parquet(&self) -> PathBuf {
        self.directory.path().join("records.parquet")
    }

    /// Seals all days, once their files are closed, and checks what was sealed.
    pub(super) fn seal(&self) -> Result<[(&'static str, Took); 2], Box<dyn Error>> {
        // Another day begins, so that every day with records is over, those that came while questions
        // were asked among them.
        let (store, now_ms) = (self.store(), self.facts.last_ms + 2 * DAY_MS);
        Writer::open(&store, GATEWAY, now_ms)?.close();
        let keeper = || Keeper::new(&store, Retention::default());
        keeper().run(now_ms)?;
        let keeper = keeper().signing(&store.join("keys"), GATEWAY);
        let (sealed, sealing) = Took::by(|| keeper.run(now_ms));
        sealed?;
        let key = read_chain(&store)?.key().ok_or("a chain has a key")?;
        let (proof, checking) = Took::by(|| prove(&store, &[key], &[]));
        let proof = proof?;
        let proven = proof.days.iter().filter(|day| day.state == DayState::Proven);
        let proven: u64 = proven.map(|day| day.records).sum();
        if !proof.is_good || proven != self.count as u64 {
            return Err(format!("of what was sealed {proven} are proven: {proof:?}").into());
        }
        Ok([("sealing", sealing), ("checking what is sealed", checking)])
    }

    /// Has the kernel forget what it read of the store.
    pub(super) fn cool(&self) -> Result<(), Box<dyn Error>> {
        cool(&self.store())
    }
}

/// Has the kernel forget what it read of the files below a directory.
pub(super) fn cool(directory: &Path) -> Result<(), Box<dyn Error>> {
    for path in files(directory)? {
        let file = File::open(path)?;
        file.sync_all()?;
        // SAFETY: the descriptor is open as long as the file is.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
    Ok(())
}

/// The records of a store of so many, in their order, the same each time.
pub(super) fn records(count: usize) -> impl Iterator<Item = Record> {
    let names = Names::new();
    let rows = Generator::new(SEED, FLOWS_PER_S).skip(WARM_UP).take(count);
    rows.map(move |row| names.record(&row))
}

impl Facts {
    fn of(records: &[Record]) -> Self {
        let source = |one: &Record| one.initiator.first(one.tuple.peer_ip(), one.tuple.remote_ip());
        let typical = records.iter().find(|one| one.peer.is_some() && one.counters != one.total);
        let typical = typical.unwrap_or(&records[0]);
        let id = |one: &Record| FlowId::new(GATEWAY, &one.interface, &one.tuple, one.first_seen_ms);
        let is_second = |one: &&Record| {
            one.counters != one.total && one.window_start_ms - one.first_seen_ms <= WINDOW_MS
        };
        let short = records.iter().filter(is_second).find(|one| one.end_reason.is_some());
        let mut seen = BTreeMap::new();
        for record in records {
            *seen.entry(record.tuple.remote_ip()).or_insert(0) += 1;
        }
        let rarest = seen.iter().min_by_key(|(_, count)| **count);
        Self {
            peer: typical.peer.as_ref().map(|peer| peer.name.clone()).unwrap_or_default(),
            source: source(typical).0,
            usual: source(typical).0,
            needle: rarest.map_or(typical.tuple.remote_ip(), |(address, _)| *address),
            long: id(typical),
            short: id(short.unwrap_or(typical)),
            last_ms: 0,
        }
    }
}

/// Of numbers of records, whose is the closest to the average.
fn usual(records: &HashMap<IpAddr, u64>) -> Option<IpAddr> {
    let mean = records.values().sum::<u64>() / records.len().max(1) as u64;
    let closest = |(address, count): &(&IpAddr, &u64)| (count.abs_diff(mean), **address);
    records.iter().min_by_key(closest).map(|(address, _)| *address)
}

/// What the files below a directory take on the disk.
pub(super) fn bytes(directory: &Path) -> Result<u64, Box<dyn Error>> {
    let mut sum = 0;
    for path in files(directory)? {
        sum += fs::metadata(path)?.blocks() * 512;
    }
    Ok(sum)
}

/// The files below a directory.
fn files(directory: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}
