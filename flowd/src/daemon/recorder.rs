//! Putting records into the store, telling those who watch, and living with a store that fails.

use std::{collections::HashSet, ops::ControlFlow, sync::Arc, time::Duration};

use tokio::sync::broadcast;

use super::{policy::Hits, traffic::Tallies};
use crate::{
    flows::{Gap, Record},
    store::{EntryId, Leaving, PeerNews, SetAside, State, Step, WriteError, Writer},
};

/// Records that one transaction takes.
pub(super) const BATCH: usize = 10_000;

/// A store that fails again within this time of having been told of is not told of again.
const QUIET: Duration = Duration::from_mins(10);

/// The store does not take records.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    /// One line: what is wrong, and what to do.
    pub(super) text: String,
    /// Unix milliseconds.
    pub(super) since_ms: i64,
    /// Whether the journal knows.
    is_told: bool,
}

/// The store's only writer.
pub(super) struct Recorder {
    writer: Writer,
    watchers: broadcast::Sender<Arc<Record>>,
    /// Records since the start.
    pub(super) written: u64,
    /// How often each rule decided.
    pub(super) hits: Hits,
    /// What each peer did.
    pub(super) tallies: Tallies,
    /// What was wrong at the last write.
    pub(super) error: Option<Trouble>,
    /// Writes that failed since the start.
    pub(super) failures: u64,
    /// How many of the segments that were set aside somebody has asked for.
    aside_seen: usize,
    /// When the journal was told last, Unix milliseconds.
    told_ms: Option<i64>,
    /// What the store did not take at the start. It comes before everything else: counts that are
    /// recorded under another boot are taken for counts of another kernel.
    untold: Option<State>,
}

/// The store did not take the records; the kernel keeps their counts.
#[derive(Debug)]
pub(super) struct NotRecorded;

impl Recorder {
    pub(super) fn new(
        writer: Writer,
        watchers: broadcast::Sender<Arc<Record>>,
        tallies: Tallies,
        now_ms: i64,
    ) -> Self {
        let trouble = writer.trouble().map(str::to_owned);
        let hits = Hits::default();
        let (error, told_ms) = (None, None);
        let mut recorder = Self {
            writer,
            watchers,
            written: 0,
            hits,
            tallies,
            error,
            failures: 0,
            aside_seen: 0,
            told_ms,
            untold: None,
        };
        if let Some(text) = trouble {
            recorder.fail(now_ms, text);
        }
        recorder
    }

    /// Records all or nothing.
    pub(super) fn record(&mut self, now_ms: i64, records: Vec<Record>) -> Result<(), NotRecorded> {
        self.record_last(now_ms, records, &Leaving::default())
    }

    /// Records all or nothing, and what the flows did that now leave the kernel's tables.
    pub(super) fn record_last(
        &mut self,
        now_ms: i64,
        mut records: Vec<Record>,
        leaving: &Leaving,
    ) -> Result<(), NotRecorded> {
        if records.is_empty() && leaving.sums.is_empty() && leaving.tables.is_none() {
            return Ok(());
        }
        self.tell_state(now_ms)?;
        let committed = self.writer.commit(now_ms, &mut records, leaving);
        self.told(now_ms, committed)?;
        self.written += records.len() as u64;
        for record in &records {
            self.hits.count(record);
            self.tallies.record(record);
        }
        if self.watchers.receiver_count() > 0 {
            for record in records {
                // Fails when the last watcher has just left.
                let _nobody_watches = self.watchers.send(Arc::new(record));
            }
        }
        Ok(())
    }

    /// Stores what is new of peers, all or nothing.
    pub(super) fn put_peer_news(
        &mut self,
        now_ms: i64,
        news: &PeerNews,
    ) -> Result<(), NotRecorded> {
        self.tell_state(now_ms)?;
        let outcome = self.writer.put_peer_news(now_ms, news);
        self.told(now_ms, outcome)
    }

    /// For what the daemon before knew of peers.
    pub(super) fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Notes that everything until now is in the kernel's tables or in the store.
    pub(super) fn beat(&mut self, now_ms: i64, is_clean: bool) -> Result<(), NotRecorded> {
        self.tell_state(now_ms)?;
        let noted = self.writer.beat(now_ms, is_clean);
        self.told(now_ms, noted)
    }

    /// What the daemon before left to know.
    pub(super) fn state(&self) -> Result<State, WriteError> {
        self.writer.state()
    }

    /// Replaces it: now, or before anything else is stored.
    pub(super) fn set_state(&mut self, now_ms: i64, state: State) {
        self.untold = Some(state);
        // Told, and tried again by whatever is to be stored next.
        let _tried_again = self.tell_state(now_ms);
    }

    fn tell_state(&mut self, now_ms: i64) -> Result<(), NotRecorded> {
        let Some(state) = self.untold.take() else { return Ok(()) };
        let noted = self.writer.set_state(now_ms, &state);
        if noted.is_err() {
            self.untold = Some(state);
        }
        self.told(now_ms, noted)
    }

    /// These have ended, and are in the kernel's table all the same.
    pub(super) fn keep_ended(&mut self, ids: &[EntryId]) {
        self.writer.keep_ended(ids);
    }

    /// What had ended has left the kernel's table.
    pub(super) fn forget_ended(&mut self) {
        self.writer.forget_ended();
    }

    /// Shows flows that the ledger has to `visit` until it says stop, each as a record of nothing since
    /// its last one.
    pub(super) fn for_each_open(
        &self,
        visit: impl FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), WriteError> {
        self.writer.for_each_open(visit)
    }

    /// Stores gaps as they are now, all or nothing.
    pub(super) fn put_gaps(&mut self, now_ms: i64, gaps: &mut [Gap]) -> Result<(), NotRecorded> {
        self.tell_state(now_ms)?;
        let outcome = self.writer.put_gaps(now_ms, gaps);
        self.told(now_ms, outcome)
    }

    /// The highest number of a gap in the store.
    pub(super) fn last_gap_id(&self) -> u64 {
        // A store that cannot be read gives its readers no gap either.
        self.writer.last_gap_id().unwrap_or(u64::MAX)
    }

    /// The gaps that the daemon before left open.
    pub(super) fn open_gaps(&mut self) -> Vec<Gap> {
        let found = self.writer.open_gaps();
        found
            .inspect_err(|error| tracing::error!(%error, "no open gap goes on"))
            .unwrap_or_default()
    }

    /// Puts a chunk into its place, or leaves everything as it is: then it is made again later.
    pub(super) fn take_step(&mut self, now_ms: i64, step: &Step) -> bool {
        match self.writer.take_step(now_ms, step) {
            Ok(is_taken) => is_taken,
            Err(error @ WriteError::Damaged(_)) => {
                self.fail(now_ms, error.to_string());
                false
            }
            Err(error) => {
                tracing::debug!(%error, "records stay rows");
                false
            }
        }
    }

    /// Whether the store needs [`Self::begin_anew`].
    pub(super) fn wants_ledger(&self) -> bool {
        self.writer.wants_ledger()
    }

    /// Gives a store that lost its ledger another one.
    pub(super) fn begin_anew(
        &mut self,
        now_ms: i64,
        ledger: Vec<Record>,
        ended: HashSet<EntryId>,
    ) -> Result<(), NotRecorded> {
        self.tell_state(now_ms)?;
        let outcome = self.writer.begin_anew(now_ms, ledger, ended);
        self.told(now_ms, outcome)
    }

    /// Segments that were set aside since the start.
    pub(super) fn set_aside(&self) -> Vec<String> {
        self.writer.set_aside().iter().map(ToString::to_string).collect()
    }

    /// Those of them that nobody has asked for yet.
    pub(super) fn newly_set_aside(&mut self) -> Vec<SetAside> {
        let new = self.writer.set_aside().get(self.aside_seen..).unwrap_or_default().to_vec();
        self.aside_seen += new.len();
        new
    }

    /// Tells the journal once, however often the store fails.
    fn told(&mut self, now_ms: i64, outcome: Result<(), WriteError>) -> Result<(), NotRecorded> {
        match outcome {
            Ok(()) => {
                if self.error.take().is_some_and(|trouble| trouble.is_told) {
                    tracing::info!("recording again");
                }
                Ok(())
            }
            Err(error) => {
                self.fail(now_ms, error.to_string());
                Err(NotRecorded)
            }
        }
    }

    fn fail(&mut self, now_ms: i64, text: String) {
        self.failures += 1;
        if let Some(trouble) = &mut self.error {
            trouble.text = text;
            return;
        }
        let quiet_ms = u64::try_from(QUIET.as_millis()).unwrap_or(u64::MAX);
        let is_told = self.told_ms.is_none_or(|told_ms| told_ms.abs_diff(now_ms) >= quiet_ms);
        if is_told {
            tracing::error!(
                error = text,
                "cannot record; the kernel keeps counting, and flowd tries again"
            );
            self.told_ms = Some(now_ms);
        }
        self.error = Some(Trouble { text, since_ms: now_ms, is_told });
    }

    pub(super) fn last_record_id(&self) -> u64 {
        self.writer.last_record_id()
    }

    /// Segments and bytes on disk.
    pub(super) fn size(&self) -> (u64, u64) {
        self.writer.size()
    }

    pub(super) fn close(self) {
        self.writer.close();
    }
}
