//! Sums that are there, or that SQL makes: where they answer, no record is looked at.

use rusqlite::{Row, named_params};

use super::view::{JUDGED, Segment};
use crate::{
    chunk::{Header, Number},
    flows::{Counters, Decider, Filter, Summary, Verdict},
};

impl Segment {
    /// Totals of the rows that match.
    pub(super) fn plain_summary_of_tail(
        &self,
        filter: &Filter,
        watermark: u64,
    ) -> rusqlite::Result<Summary> {
        let since_ms = filter.since_ms.unwrap_or(i64::MIN);
        let mut query = self.conn.prepare_cached(&format!(
            "SELECT verdict, overflow, \
             total((rx_packets = rx_packets_total AND rx_bytes = rx_bytes_total \
              AND tx_packets = tx_packets_total AND tx_bytes = tx_bytes_total) \
              OR window_start < :since), \
             sum(rx_packets), sum(rx_bytes), sum(tx_packets), sum(tx_bytes) FROM record \
             WHERE record_id <= :watermark AND window_end >= :since AND window_end < :until \
             AND {JUDGED} AND NOT (overflow AND :protocol IS NOT NULL) \
             GROUP BY verdict, overflow"
        ))?;
        let parameters = named_params! {
            ":watermark": watermark.cast_signed(),
            ":since": since_ms,
            ":until": filter.until_ms.unwrap_or(i64::MAX),
            ":protocol": filter.protocol,
            ":verdict": filter.verdict.map(Verdict::number),
            ":any_rule": filter.rule.is_none(),
            ":rule": filter.rule.as_ref().and_then(Decider::rule),
        };
        let mut sum = Summary::default();
        let mut rows = query.query(parameters)?;
        while let Some(row) = rows.next()? {
            absorb_group(&mut sum, row)?;
        }
        Ok(sum)
    }
}

/// Whether the sums of a chunk are those of what is asked for: it lies in the range whole, no flow
/// that began before the range is in it, and nothing else is asked but a verdict.
pub(super) fn is_whole(header: &Header, filter: &Filter, watermark: u64) -> bool {
    let inside = |number, least: i64, most: i64| {
        let zone = header.zone(number);
        least <= *zone.start() && *zone.end() <= most
    };
    let since_ms = filter.since_ms.unwrap_or(i64::MIN);
    let until_ms = filter.until_ms.map_or(i64::MAX, |until| until.saturating_sub(1));
    is_plain(filter)
        && filter.protocol.is_none()
        && filter.rule.is_none()
        && inside(Number::RecordId, 0, i64::try_from(watermark).unwrap_or(i64::MAX))
        && inside(Number::WindowEnd, since_ms, until_ms)
        && inside(Number::WindowStart, since_ms, i64::MAX)
}

fn absorb_group(sum: &mut Summary, row: &Row<'_>) -> rusqlite::Result<()> {
    let count = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let counters = Counters {
        rx_packets: count(3)?,
        rx_bytes: count(4)?,
        tx_packets: count(5)?,
        tx_bytes: count(6)?,
    };
    let overflow: bool = row.get(1)?;
    let flows = if overflow { 0 } else { row.get::<_, f64>(2)? as u64 };
    let verdict = Verdict::from_number(row.get(0)?).unwrap_or(Verdict::Allow);
    absorb_sum(sum, verdict, overflow, (flows, counters));
    Ok(())
}

/// Adds what some records of one fate did together.
pub(super) fn absorb_sum(
    sum: &mut Summary,
    verdict: Verdict,
    overflow: bool,
    (flows, counters): (u64, Counters),
) {
    let side = match verdict {
        Verdict::Deny => &mut sum.denied,
        Verdict::Allow => &mut sum.allowed,
    };
    side.flows += flows;
    side.packets += counters.packets();
    side.bytes += counters.bytes();
    sum.flows += flows;
    sum.counters += counters;
    if overflow {
        sum.overflow += counters;
    }
}

/// Whether SQL alone can judge the filter, and often a header.
pub(super) fn is_plain(filter: &Filter) -> bool {
    let Filter {
        since_ms: _,
        until_ms: _,
        peer,
        user,
        src,
        dst,
        ip,
        port,
        src_port,
        dst_port,
        protocol: _,
        verdict: _,
        rule: _,
        initiator,
        interface,
        min_bytes,
        state,
    } = filter;
    peer.is_none()
        && user.is_none()
        && src.is_none()
        && dst.is_none()
        && ip.is_none()
        && port.is_none()
        && src_port.is_none()
        && dst_port.is_none()
        && initiator.is_none()
        && interface.is_none()
        && min_bytes.is_none()
        && state.is_none()
}
