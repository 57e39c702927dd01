//! Which of a statement's conditions narrow what is read of the store.
//!
//! - SQLite judges every row once more, so a condition may let more through than it says, and never
//!   less
//! - what narrows is written down as a letter a condition, and read again with their values; behind
//!   that stands whether SQLite sorts the rows, and which columns the statement uses

use rusqlite::{
    types::ValueRef,
    vtab::{Filters, IndexConstraintOp as Op, IndexFlags, IndexInfo},
};

use super::tables::RECORD_COLUMNS;
use crate::{
    chunk::{Chunk, Code, ColumnSet, Number},
    flows::{Decider, Filter, FlowId, Verdict, protocol_number},
    store::batch::Need,
};

/// Between the conditions that narrow and the columns that are used: records come by ascending id,
/// or, where SQLite sorts them, as they lie.
const BY_ID: char = ':';
const AS_THEY_LIE: char = '~';

/// What SQLite takes a history for, in records.
const MANY: f64 = 1e7;
/// What a condition leaves of it; a range has two ends.
const END_LEAVES: f64 = 0.1;
const EQUAL_LEAVES: f64 = 0.05;

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    /// Which records.
    pub(super) filter: Filter,
    /// Only those of one flow.
    pub(super) flow: Option<FlowId>,
    /// Those above this number.
    pub(super) after: u64,
    /// Those up to this number.
    pub(super) last: u64,
    /// What of it.
    pub(super) need: Need,
}

/// What a condition narrows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Narrow {
    Flow,
    Record,
    RecordFrom,
    RecordTo,
    At,
    Since,
    Until,
    Peer,
    Key,
    User,
    Src,
    Dst,
    SrcPort,
    DstPort,
    Protocol,
    ProtocolNumber,
    Verdict,
    Rule,
    NoRule,
    Interface,
}

impl Narrow {
    const ALL: [(Self, char); 20] = [
        (Self::Flow, 'f'),
        (Self::Record, '='),
        (Self::RecordFrom, '>'),
        (Self::RecordTo, '<'),
        (Self::At, 'a'),
        (Self::Since, 's'),
        (Self::Until, 'u'),
        (Self::Peer, 'p'),
        (Self::Key, 'k'),
        (Self::User, 'w'),
        (Self::Src, 'S'),
        (Self::Dst, 'D'),
        (Self::SrcPort, 'x'),
        (Self::DstPort, 'y'),
        (Self::Protocol, 't'),
        (Self::ProtocolNumber, 'n'),
        (Self::Verdict, 'v'),
        (Self::Rule, 'r'),
        (Self::NoRule, '0'),
        (Self::Interface, 'i'),
    ];

    fn of(column: &str, operator: &Op) -> Option<Self> {
        let is_equal = *operator == Op::SQLITE_INDEX_CONSTRAINT_EQ;
        Some(match (column, operator) {
            ("flow_id", _) if is_equal => Self::Flow,
            ("record_id", Op::SQLITE_INDEX_CONSTRAINT_EQ) => Self::Record,
            ("record_id", Op::SQLITE_INDEX_CONSTRAINT_GT | Op::SQLITE_INDEX_CONSTRAINT_GE) => {
                Self::RecordFrom
            }
            ("record_id", Op::SQLITE_INDEX_CONSTRAINT_LT | Op::SQLITE_INDEX_CONSTRAINT_LE) => {
                Self::RecordTo
            }
            ("window_end", Op::SQLITE_INDEX_CONSTRAINT_EQ) => Self::At,
            ("window_end", Op::SQLITE_INDEX_CONSTRAINT_GT | Op::SQLITE_INDEX_CONSTRAINT_GE) => {
                Self::Since
            }
            ("window_end", Op::SQLITE_INDEX_CONSTRAINT_LT | Op::SQLITE_INDEX_CONSTRAINT_LE) => {
                Self::Until
            }
            // A filter means the peers at both ends.
            ("peer_name" | "src_peer" | "dst_peer", _) if is_equal => Self::Peer,
            ("peer_public_key", _) if is_equal => Self::Key,
            ("peer_user", _) if is_equal => Self::User,
            ("src_ip", _) if is_equal => Self::Src,
            ("dst_ip", _) if is_equal => Self::Dst,
            ("src_port", _) if is_equal => Self::SrcPort,
            ("dst_port", _) if is_equal => Self::DstPort,
            ("protocol", _) if is_equal => Self::Protocol,
            ("protocol_number", _) if is_equal => Self::ProtocolNumber,
            ("verdict", _) if is_equal => Self::Verdict,
            ("rule", Op::SQLITE_INDEX_CONSTRAINT_ISNULL) => Self::NoRule,
            ("rule", _) if is_equal => Self::Rule,
            ("interface", _) if is_equal => Self::Interface,
            _ => return None,
        })
    }

    /// The ends that it gives a range of numbers or of time, which spares whole segments.
    fn ends(self) -> &'static [Self] {
        match self {
            Self::RecordFrom => &[Self::RecordFrom],
            Self::RecordTo => &[Self::RecordTo],
            Self::At => &[Self::Since, Self::Until],
            Self::Since => &[Self::Since],
            Self::Until => &[Self::Until],
            _ => &[],
        }
    }

    /// Whether it leads straight to what is wanted.
    fn is_point(self) -> bool {
        matches!(self, Self::Flow | Self::Record)
    }
}

/// Chooses the conditions that narrow, and says what that costs.
///
/// SQLite asks for each side of an `OR` too, with what stands beside it, and then reads for each
/// side without the `BETWEEN` that stands beside it. So a side is cheaper only where it has a range
/// of its own or a point: neither what is equal nor a second order makes a range cheaper.
pub(super) fn choose(info: &mut IndexInfo) -> rusqlite::Result<()> {
    let conditions: Vec<_> =
        info.constraints().map(|one| (one.column(), one.operator(), one.is_usable())).collect();
    let (mut plan, mut equal_leave) = (String::new(), 1.0);
    let (mut ends, mut is_point) = (Vec::new(), false);
    for (index, (column, operator, is_usable)) in conditions.iter().enumerate() {
        // The row's number is the record's.
        let name = match usize::try_from(*column) {
            Ok(at) => RECORD_COLUMNS.get(at).map_or("", |column| column.name),
            Err(_) => "record_id",
        };
        let Some(narrow) = Narrow::of(name, operator).filter(|_| *is_usable) else { continue };
        // Other orders of text may mean other text; a list is a scan for each of its values.
        if info.collation(index)? != "BINARY"
            || (info.is_in_constraint(index)? && !narrow.is_point())
        {
            continue;
        }
        let letter = Narrow::ALL.iter().find(|(known, _)| *known == narrow);
        plan.extend(letter.map(|(_, letter)| letter));
        let count = i32::try_from(plan.len()).expect("a statement has fewer conditions");
        info.constraint_usage(index).set_argv_index(count);
        if narrow.is_point() {
            is_point = true;
        } else if narrow.ends().is_empty() {
            equal_leave *= EQUAL_LEAVES;
        } else {
            ends.extend(narrow.ends());
        }
    }
    let has = |end| usize::from(ends.contains(&end));
    let of_numbers = has(Narrow::RecordFrom) + has(Narrow::RecordTo);
    let most_ends = of_numbers.max(has(Narrow::Since) + has(Narrow::Until));
    let mut cost = (0..most_ends).fold(MANY, |cost, _| cost * END_LEAVES);
    let mut rows = cost * equal_leave;
    if is_point {
        (rows, cost) = (10.0, 100.0);
        if plan.contains('=') {
            rows = 1.0;
            info.set_idx_flags(IndexFlags::SQLITE_INDEX_SCAN_UNIQUE);
        }
    }
    info.set_estimated_rows(rows.max(1.0) as i64);
    info.set_estimated_cost(cost);
    let by_number = {
        let mut by = info.order_bys().map(|one| (one.column(), one.is_order_by_desc()));
        matches!((by.next(), by.next()), (Some((-1 | 0, false)), None))
    };
    info.set_order_by_consumed(by_number);
    let is_sorted_later = info.order_bys().next().is_some() && !by_number;
    let order = if is_sorted_later { AS_THEY_LIE } else { BY_ID };
    info.set_idx_str(&format!("{plan}{order}{:x}", info.col_used()));
    Ok(())
}

/// What a plan means with these values, of the records up to `watermark`.
pub(super) fn range(plan: &str, values: &Filters<'_>, watermark: u64) -> Range {
    let is_by_id = !plan.contains(AS_THEY_LIE);
    let (plan, used) = plan.split_once([BY_ID, AS_THEY_LIE]).unwrap_or((plan, ""));
    let of = needed(u64::from_str_radix(used, 16).unwrap_or(u64::MAX));
    let (filter, need) = (Filter::default(), Need { of, is_by_id });
    let mut range = Range { filter, flow: None, after: 0, last: watermark, need };
    for (letter, value) in plan.chars().zip(values.iter()) {
        let known = Narrow::ALL.iter().find(|(_, known)| *known == letter);
        if let Some((narrow, _)) = known {
            range.narrow(*narrow, value);
        }
    }
    range
}

/// What chunks have to say of records for these columns of the table, a bit each.
fn needed(used: u64) -> ColumnSet {
    let columns = RECORD_COLUMNS.iter().enumerate().filter(|(at, _)| used >> at & 1 == 1);
    columns.fold(ColumnSet::default(), |needed, (_, column)| needed.and(said_by(column.name)))
}

/// The columns of chunks that say what stands in a column of the table.
fn said_by(column: &str) -> ColumnSet {
    let ends = [Code::Kind, Code::Peer, Code::Remote];
    let codes = |codes: &[Code]| {
        codes.iter().fold(ColumnSet::default(), |all, code| all.and(code.columns()))
    };
    match column {
        "record_id" => Number::RecordId.columns(),
        "gateway" => ColumnSet::default(),
        "window_start" => Number::WindowStart.columns(),
        "window_end" => Number::WindowEnd.columns(),
        "first_seen" => Number::FirstSeen.columns(),
        "last_seen" => Number::LastSeen.columns(),
        "interface" | "protocol" | "protocol_number" | "initiator" | "icmp_type" | "icmp_code"
        | "verdict" | "enforced" | "rule" | "policy_revision" | "overflow" => codes(&[Code::Kind]),
        "src_ip" | "dst_ip" | "src_peer" | "dst_peer" | "src_resource" | "dst_resource" => {
            codes(&ends)
        }
        "src_port" | "dst_port" => codes(&[Code::Kind, Code::SrcPort, Code::DstPort]),
        "peer_public_key" | "peer_name" | "peer_user" | "peer_device" | "peer_groups"
        | "peer_endpoint" => codes(&[Code::Peer]),
        "rx_packets" => Number::RxPackets.columns(),
        "rx_bytes" => Number::RxBytes.columns(),
        "tx_packets" => Number::TxPackets.columns(),
        "tx_bytes" => Number::TxBytes.columns(),
        "total_rx_packets" => Number::RxPacketsTotal.columns(),
        "total_rx_bytes" => Number::RxBytesTotal.columns(),
        "total_tx_packets" => Number::TxPacketsTotal.columns(),
        "total_tx_bytes" => Number::TxBytesTotal.columns(),
        "tcp_flags_rx" | "tcp_flags_tx" | "end_reason" => codes(&[Code::State]),
        // The id of a flow is made of most of a record.
        _ => Chunk::row_columns(),
    }
}

impl Range {
    /// Nothing is equal to NULL, below it or above it. No number is above a blob, and nothing that
    /// a table has is equal to one. Any other value of another type narrows nothing.
    fn narrow(&mut self, narrow: Narrow, value: ValueRef<'_>) {
        match value {
            ValueRef::Text(bytes) => {
                if let Ok(text) = std::str::from_utf8(bytes) {
                    self.narrow_to_text(narrow, text);
                }
            }
            ValueRef::Integer(number) => self.narrow_to_numbers(narrow, number, number),
            ValueRef::Real(number) => {
                self.narrow_to_numbers(narrow, number.floor() as i64, number.ceil() as i64);
            }
            ValueRef::Null if narrow == Narrow::NoRule => {
                self.filter.rule = Some(Decider::Nobody);
            }
            ValueRef::Blob(_) if matches!(narrow, Narrow::RecordTo | Narrow::Until) => {}
            // Records are numbered from 1.
            ValueRef::Null | ValueRef::Blob(_) => self.last = 0,
        }
    }

    fn narrow_to_text(&mut self, narrow: Narrow, text: &str) {
        let filter = &mut self.filter;
        let owned = || Some(text.to_owned());
        match narrow {
            Narrow::Flow => self.flow = text.parse().ok().or(self.flow),
            Narrow::Peer => filter.peer = owned(),
            // The start of a key is no shorter than that.
            Narrow::Key if text.len() >= 4 => filter.peer = owned(),
            Narrow::User => filter.user = owned(),
            Narrow::Src => filter.src = address(text).or(filter.src),
            Narrow::Dst => filter.dst = address(text).or(filter.dst),
            // Records of a full table have protocol 0, and are of no protocol to a filter.
            Narrow::Protocol => {
                filter.protocol = protocol_number(text).filter(|it| *it > 0).or(filter.protocol);
            }
            Narrow::Verdict => filter.verdict = Verdict::from_word(text).or(filter.verdict),
            Narrow::Rule => filter.rule = Some(Decider::Rule(text.to_owned())),
            Narrow::NoRule => filter.rule = Some(Decider::Nobody),
            Narrow::Interface => filter.interface = owned(),
            _ => {}
        }
    }

    /// To the numbers from `low` to `high`.
    fn narrow_to_numbers(&mut self, narrow: Narrow, low: i64, high: i64) {
        let number = |at: i64| u64::try_from(at).unwrap_or(0);
        let filter = &mut self.filter;
        if matches!(narrow, Narrow::Record | Narrow::RecordFrom) {
            self.after = self.after.max(number(low.saturating_sub(1)));
        }
        if matches!(narrow, Narrow::Record | Narrow::RecordTo) {
            self.last = self.last.min(number(high));
        }
        if matches!(narrow, Narrow::At | Narrow::Since) {
            filter.since_ms = filter.since_ms.max(Some(low));
        }
        if matches!(narrow, Narrow::At | Narrow::Until) {
            let until_ms = high.saturating_add(1);
            filter.until_ms = Some(filter.until_ms.map_or(until_ms, |it| it.min(until_ms)));
        }
        if low != high {
            return;
        }
        let port = || u16::try_from(low).ok();
        match narrow {
            Narrow::SrcPort => filter.src_port = port().or(filter.src_port),
            Narrow::DstPort => filter.dst_port = port().or(filter.dst_port),
            Narrow::ProtocolNumber => {
                let protocol = u8::try_from(low).ok().filter(|it| *it > 0);
                filter.protocol = protocol.or(filter.protocol);
            }
            Narrow::NoRule => filter.rule = Some(Decider::Nobody),
            _ => {}
        }
    }
}

fn address(text: &str) -> Option<ipnet::IpNet> {
    text.parse::<std::net::IpAddr>().ok().map(Into::into)
}
