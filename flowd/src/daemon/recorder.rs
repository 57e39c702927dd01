//! Putting records into the store, telling those who watch, and living with a store that fails.

use std::sync::Arc;

use tokio::sync::broadcast;

use super::policy::Hits;
use crate::{flows::Record, store::Writer};

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
    pub(super) fn record(
        &mut self,
        now_ms: i64,
        mut records: Vec<Record>,
    ) -> Result<(), NotRecorded> {
        if records.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.writer.commit(now_ms, &mut records) {
            let error = error.to_string();
            if self.error.is_none() {
                tracing::error!(
                    error,
                    "cannot record; the kernel keeps counting, and flowd tries again"
                );
            }
            self.error = Some(error);
            return Err(NotRecorded);
        }
        if self.error.take().is_some() {
            tracing::info!("recording again");
        }
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
