//! The records of one flow, which is sought by its id.
//!
//! - The id says when the flow was first seen. Chunks in which flows of that time begin are looked
//!   at; others, if their filter knows of it.
//! - The first record that is found says between which ends: that is less to look at in all chunks
//!   behind.
//! - Behind the record that ends the flow there is none.

use std::ops::ControlFlow;

use rusqlite::named_params;

use super::{
    chunks::{Stored, damaged},
    source::Source as _,
    view::Segment,
};
use crate::{
    chunk::{Chunk, ColumnId, ColumnSet, Member, Number},
    flows::{Filter, FlowId, Record},
};

/// A flow, and what was found of it so far.
pub(super) struct Sought<'g> {
    gateway: &'g str,
    id: FlowId,
    /// By ascending id.
    pub(super) records: Vec<Record>,
}

impl<'g> Sought<'g> {
    pub(super) fn new(gateway: &'g str, id: FlowId) -> Self {
        Self { gateway, id, records: Vec::new() }
    }

    fn first_seen_ms(&self) -> i64 {
        self.id.first_seen_ms()
    }

    /// Whether its last record is known: nobody ends before it begins, and two may have one id.
    pub(super) fn has_ended(&self) -> bool {
        let begun = self.records.iter().filter(|record| record.counters == record.total).count();
        let ended = self.records.iter().filter(|record| record.end_reason.is_some()).count();
        ended >= begun.max(1)
    }

    fn offer(&mut self, record: Record) {
        let Record { interface, tuple, first_seen_ms, .. } = &record;
        if FlowId::new(self.gateway, interface, tuple, *first_seen_ms) == self.id {
            self.records.push(record);
        }
    }
}

impl Segment {
    /// Finds what there is of a flow.
    pub(super) fn seek(&self, sought: &mut Sought<'_>, watermark: u64) -> rusqlite::Result<()> {
        let first_seen_ms = sought.first_seen_ms();
        let any = self.wanted(&Filter::default(), 0, watermark)?;
        let any = any.within(Number::FirstSeen, first_seen_ms..=first_seen_ms);
        for stored in self.chunks(0, watermark)? {
            self.heed_leash()?;
            let header = stored.chunk.header();
            let begins = header.opened().is_some_and(|opened| opened.contains(&first_seen_ms));
            if !begins && (sought.has_ended() || !self.may_have_older(&stored, first_seen_ms)?) {
                continue;
            }
            let wanted = match sought.records.first() {
                Some(record) => any.between(&record.tuple),
                None => any.clone(),
            };
            let found = self.pick(&stored, &wanted, Chunk::row_columns())?.by_id();
            for row in found.iter() {
                sought.offer(self.names()?.record(&row));
            }
        }
        self.seek_in_tail(sought, watermark)
    }

    /// Whether a chunk may go on with a flow that began before it.
    fn may_have_older(&self, stored: &Stored, first_seen_ms: i64) -> rusqlite::Result<bool> {
        if !stored.chunk.header().zone(Number::FirstSeen).contains(&first_seen_ms) {
            return Ok(false);
        }
        stored.need(&self.conn, ColumnSet::default().with(ColumnId::Members))?;
        let members = stored.chunk.members().map_err(damaged)?;
        Ok(members.may_have(Member::Older(first_seen_ms)))
    }

    fn seek_in_tail(&self, sought: &mut Sought<'_>, watermark: u64) -> rusqlite::Result<()> {
        let first_seen_ms = sought.first_seen_ms();
        if let Some(rows) = self.kept(watermark)? {
            rows.filter(|row| row.first_seen_ms == first_seen_ms)
                .for_each(|row| sought.offer(row.clone()));
            return Ok(());
        }
        let sql = format!(
            "SELECT {} FROM record WHERE first_seen = :first_seen AND +record_id <= :watermark \
             ORDER BY record_id",
            self.columns
        );
        let parameters = named_params! {
            ":first_seen": first_seen_ms,
            ":watermark": watermark.cast_signed(),
        };
        self.run(&sql, parameters, |record| {
            sought.offer(record);
            ControlFlow::Continue(())
        })
    }
}

#[cfg(test)]
#[path = "sought_tests.rs"]
mod tests;
