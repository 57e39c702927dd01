//! The sums of a day: per interface, peer and verdict, kept with every record.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use rusqlite::{Connection, params};

use super::row::Ids;
use crate::flows::{Counters, Record, Verdict};

/// What records did together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) records: u64,
    /// That have their first record among these.
    pub(super) flows: u64,
    pub(super) counters: Counters,
}

/// What one transaction adds to the sums.
#[derive(Debug, Default)]
pub(super) struct Totals(HashMap<(i64, i64, Verdict), Sum, RandomState>);

impl Totals {
    pub(super) fn add(&mut self, record: &Record, ids: Ids) {
        let key = (ids.interface, ids.peer.unwrap_or_default(), record.verdict);
        let sum = self.0.entry(key).or_default();
        sum.records += 1;
        sum.flows += u64::from(!record.overflow && record.counters == record.total);
        sum.counters += record.counters;
    }

    pub(super) fn write(self, conn: &Connection) -> rusqlite::Result<()> {
        let mut upsert = conn.prepare_cached(
            "INSERT INTO total VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET \
             records = records + excluded.records, flows = flows + excluded.flows, \
             rx_packets = rx_packets + excluded.rx_packets, \
             rx_bytes = rx_bytes + excluded.rx_bytes, \
             tx_packets = tx_packets + excluded.tx_packets, \
             tx_bytes = tx_bytes + excluded.tx_bytes",
        )?;
        let mut sums: Vec<_> = self.0.into_iter().collect();
        // In the order of the table.
        sums.sort_unstable_by_key(|((interface, peer, verdict), _)| {
            (*interface, *peer, verdict.number())
        });
        for ((interface, peer, verdict), sum) in sums {
            let Sum { records, flows, counters: c } = sum;
            upsert.execute(params![
                interface,
                peer,
                verdict.number(),
                records.cast_signed(),
                flows.cast_signed(),
                c.rx_packets.cast_signed(),
                c.rx_bytes.cast_signed(),
                c.tx_packets.cast_signed(),
                c.tx_bytes.cast_signed(),
            ])?;
        }
        Ok(())
    }
}
