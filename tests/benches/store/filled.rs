//! A store of so many records, and the same records in a file for others to load.

use std::{
    error::Error,
    fs::{self, File},
    io::BufWriter,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use flowd::{
    export::{Export, Format},
    flows::{FlowId, Record},
    store::{Compactor, Keeper, Leaving, Reader, Retention, Synchronous, TAIL_RECORDS, Writer},
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
const COMMIT: usize = 10_000;

/// What a store is asked about: something that is in it.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) peer: String,
    pub(super) source: std::net::IpAddr,
    /// The address that the fewest of some records had.
    pub(super) needle: std::net::IpAddr,
    pub(super) flow: FlowId,
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

/// What each commit took, with the steps behind it.
#[derive(Debug, Default)]
pub(super) struct Ingest {
    /// Records into rows.
    commits: Vec<Duration>,
    /// Rows into chunks, and chunks into larger ones.
    makes: Vec<Duration>,
    /// Chunks into their place: the daemon drains nothing meanwhile.
    takes: Vec<Duration>,
    /// The longest of them.
    pub(super) longest_take: Duration,
}

impl Ingest {
    /// Makes and takes the steps that are due.
    fn step(
        &mut self,
        compactor: &Compactor,
        writer: &mut Writer,
        now_ms: i64,
    ) -> Result<(), Box<dyn Error>> {
        let (mut makes, mut takes) = (Duration::ZERO, Duration::ZERO);
        loop {
            let start = Instant::now();
            let step = compactor.next()?;
            makes += start.elapsed();
            let Some(step) = step else { break };
            let start = Instant::now();
            if !writer.take_step(now_ms, &step)? {
                return Err("a step is not of the segment".into());
            }
            takes += start.elapsed();
            self.longest_take = self.longest_take.max(start.elapsed());
        }
        self.makes.push(makes);
        self.takes.push(takes);
        Ok(())
    }

    /// All of it, on one core.
    pub(super) fn all(&self) -> Duration {
        [&self.commits, &self.makes, &self.takes].into_iter().flatten().sum()
    }

    /// Records into rows alone.
    pub(super) fn commits(&self) -> Duration {
        self.commits.iter().sum()
    }

    /// All of it, of the tenth that was the slowest.
    pub(super) fn slowest_tenth(&self) -> Duration {
        let of_commits = self.commits.iter().zip(&self.makes).zip(&self.takes);
        let of_commits: Vec<_> = of_commits.map(|((a, b), c)| *a + *b + *c).collect();
        let tenth = of_commits.len().div_ceil(10);
        let whole = of_commits.chunks(tenth).filter(|part| part.len() == tenth);
        whole.map(|part| part.iter().sum()).max().unwrap_or_default()
    }
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
        let names = Names::new();
        let mut rows = Generator::new(SEED, FLOWS_PER_S).skip(WARM_UP).take(count);
        let (mut ingest, mut facts, mut done) = (Ingest::default(), None, 0);
        while done < count {
            let mut records: Vec<Record> =
                rows.by_ref().take(COMMIT).map(|row| names.record(&row)).collect();
            let now_ms = records.iter().map(|one| one.window_end_ms).max().unwrap_or(MIDNIGHT_MS);
            let start = Instant::now();
            writer.commit(now_ms, &mut records, &Leaving::default())?;
            ingest.commits.push(start.elapsed());
            ingest.step(&compactor, &mut writer, now_ms)?;
            done += records.len();
            for record in &records {
                export.record(&wire::Record::new(GATEWAY, record))?;
            }
            if done >= count / 2 && facts.is_none() {
                facts = Some(Facts::of(&records));
            }
            if let Some(facts) = &mut facts {
                facts.last_ms = now_ms;
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

    /// Has the kernel forget what it read of the store.
    pub(super) fn cool(&self) -> Result<(), Box<dyn Error>> {
        for path in files(&self.store())? {
            let file = File::open(path)?;
            file.sync_all()?;
            // SAFETY: the descriptor is open as long as the file is.
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        }
        Ok(())
    }
}

impl Facts {
    fn of(records: &[Record]) -> Self {
        let source = |one: &Record| one.initiator.first(one.tuple.peer_ip(), one.tuple.remote_ip());
        let typical = records.iter().find(|one| one.peer.is_some() && one.counters != one.total);
        let typical = typical.unwrap_or(&records[0]);
        let mut seen = std::collections::BTreeMap::new();
        for record in records {
            *seen.entry(record.tuple.remote_ip()).or_insert(0) += 1;
        }
        let rarest = seen.iter().min_by_key(|(_, count)| **count);
        Self {
            peer: typical.peer.as_ref().map(|peer| peer.name.clone()).unwrap_or_default(),
            source: source(typical).0,
            needle: rarest.map_or(typical.tuple.remote_ip(), |(address, _)| *address),
            flow: FlowId::new(GATEWAY, &typical.interface, &typical.tuple, typical.first_seen_ms),
            last_ms: 0,
        }
    }
}

/// What the files below a directory take on the disk.
fn bytes(directory: &Path) -> Result<u64, Box<dyn Error>> {
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
