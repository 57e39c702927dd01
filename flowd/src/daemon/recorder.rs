//! Putting records into the store, telling those who watch, and living with a store that fails.

use std::{ops::ControlFlow, sync::Arc};

use tokio::sync::broadcast;

use super::policy::Hits;
use crate::{
    flows::{Gap, Record},
    store::{Leaving, PeerNews, State, WriteError, Writer},
};

/// Records that one transaction takes.
pub(super) const BATCH: usize = 10_000;

/// The store's only writer.
pub(super) struct Recorder {
    writer: Writer,
    watchers: broadcast::Sender<Arc<Record>>,
    /// Records since the start.
    pub(super) written: u64,
    /// How often each rule decided.
    pub(super) hits: Hits,
    /// What was wrong at the last write; told once.
    pub(super) error: Option<String>,
}

/// The store did not take the records; the kernel keeps their counts.
#[derive(Debug)]
pub(super) struct NotRecorded;

impl Recorder {
    pub(super) fn new(writer: Writer, watchers: broadcast::Sender<Arc<Record>>) -> Self {
        Self { writer, watchers, written: 0, hits: Hits::default(), error: None }
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
        let committed = self.writer.commit(now_ms, &mut records, leaving);
        self.told(committed)?;
        self.written += records.len() as u64;
        records.iter().for_each(|record| self.hits.count(record));
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
        let outcome = self.writer.put_peer_news(now_ms, news);
        self.told(outcome)
    }

    /// For what the daemon before knew of peers.
    pub(super) fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Notes that everything until now is in the kernel's tables or in the store.
    pub(super) fn beat(&mut self, now_ms: i64, is_clean: bool) -> Result<(), NotRecorded> {
        let noted = self.writer.beat(now_ms, is_clean);
        self.told(noted)
    }

    /// What the daemon before left to know.
    pub(super) fn state(&self) -> Result<State, WriteError> {
        self.writer.state()
    }

    /// Replaces it.
    pub(super) fn set_state(&mut self, now_ms: i64, state: &State) -> Result<(), NotRecorded> {
        let noted = self.writer.set_state(now_ms, state);
        self.told(noted)
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
        let outcome = self.writer.put_gaps(now_ms, gaps);
        self.told(outcome)
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

    /// Tells once what is wrong, and once that it is not any more.
    fn told(&mut self, outcome: Result<(), WriteError>) -> Result<(), NotRecorded> {
        let Err(error) = outcome else {
            if self.error.take().is_some() {
                tracing::info!("recording again");
            }
            return Ok(());
        };
        let error = error.to_string();
        if self.error.is_none() {
            tracing::error!(
                error,
                "cannot record; the kernel keeps counting, and flowd tries again"
            );
        }
        self.error = Some(error);
        Err(NotRecorded)
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
