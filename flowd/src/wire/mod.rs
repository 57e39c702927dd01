//! The JSON shapes of the socket API, shared by the daemon that writes and the client that reads
//! them. Clients depend on these names: they change only with the API version.

mod audit;
mod coverage;
mod csv;
mod csv_sums;
mod day_total;
mod flow;
mod gap;
mod peer;
mod policy;
mod problem;
mod rates;
mod record;
mod segment;
mod series;
mod sql;
mod status;
mod summary;
mod timestamp;
mod top;
mod watched;

pub use audit::{AUDIT_CSV_COLUMNS, AuditEntry, AuditPage, AuditVerdict, audit_csv_row};
pub use coverage::{Balance, BalanceState, Coverage};
pub use csv::{
    CHANGE_CSV_COLUMNS, CSV_COLUMNS, FLOW_CSV_COLUMNS, GAP_CSV_COLUMNS, PEER_CSV_COLUMNS,
    PEER_EVENT_CSV_COLUMNS, change_csv_row, csv_row, csv_text, flow_csv_row, gap_csv_row,
    peer_csv_row, peer_event_csv_row,
};
pub use csv_sums::{series_csv_columns, series_csv_rows, top_csv_columns, top_csv_row};
pub use day_total::DayTotalList;
pub use flow::{Flow, FlowDetail, FlowPage, FlowState};
pub use gap::{Gap, GapList, StageStatus};
pub use peer::{
    Peer, PeerDetail, PeerEvent, PeerInterval, PeerList, PeerSession, SessionEndpoint,
    WireguardCounters,
};
pub use policy::{
    CallerCut, Change, CutFlow, Decision, LastFlow, Policy, PolicyReport, PolicySize, Replay,
    RuleHits, Why, WhyEnd,
};
pub use problem::Problem;
pub use rates::{FlowRate, PeerRate, Rates};
pub use record::{Endpoint, Record, RecordPage};
pub use segment::{Segment, SegmentList};
pub use series::{Point, Series, SeriesLine};
pub use sql::{SqlColumn, SqlRows, SqlTable, SqlTables};
pub use status::{
    DrainStatus, InterfaceStatus, NamedTally, PolicyStatus, ProgramStatus, Status, StoreStatus,
    TableStatus,
};
pub use summary::Summary;
pub use timestamp::Timestamp;
pub use top::{Top, TopRow, Traffic, share};
pub use watched::Watched;
