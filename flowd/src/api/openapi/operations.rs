//! Every operation of the API. A test holds the list against the router.

use super::{operation::Operation, parameters as p};
use crate::{
    api::{audit, flows, gaps, query, rates, records, series, sql, top},
    flows::By,
    seal::Proof,
    wire,
};

/// As the document shows it: for the default order.
const CURSOR: &str = "1795233600000~6~::ffff:10.8.0.2~40000~::ffff:10.20.0.2~443~0~wg0";
const LAST: &str = "The `next_cursor` of the page before, or the id of any record.";
const NEXT: &str = "The `next_cursor` of the page before; the other parameters stay the same.";

/// In the order of the paths.
pub(super) fn all() -> Vec<Operation> {
    let mut all = flows_and_sums();
    all.extend(records());
    all.extend(statements());
    all.extend(peers());
    all.extend(policy());
    all.extend(daemon());
    all
}

fn flows_and_sums() -> Vec<Operation> {
    vec![
        Operation::get("/v1/flows", "listFlows")
            .says(
                "Flows, newest first unless another order is asked for",
                "A flow has what its records in the range add up to; what an open flow did since \
                 its last record is in it, and `total` is since its first packet. A page in another \
                 order than newest first keeps the range of the first page, and is of its own \
                 instant.",
            )
            .takes_filters()
            .takes(p::state())
            .takes(p::flow_sort())
            .takes(p::order())
            .takes(p::limit("Flows of a page.", flows::DEFAULT_LIMIT, query::MAX_LIMIT))
            .takes(p::cursor(NEXT, CURSOR))
            .answers::<wire::FlowPage>()
            .leads("next", "listFlows", ("cursor", "/next_cursor"))
            .leads("flow", "showFlow", ("flow_id", "/flows/0/flow_id"))
            .reads_store(),
        Operation::get("/v1/flows/{flow_id}", "showFlow")
            .says("One flow over its whole life, with its records", "")
            .takes(p::flow_id())
            .answers::<wire::FlowDetail>()
            .refuses(&["404"])
            .reads_store(),
        Operation::get("/v1/summary", "sum")
            .says("Flows, packets and bytes of a range", "Without `since` of all that is stored.")
            .takes_filters()
            .takes(p::state())
            .answers::<wire::Summary>()
            .reads_store(),
        Operation::get("/v1/top", "rank")
            .says("Who did most", "Rows and `rest` together are `total`.")
            .takes_filters()
            .takes(p::state())
            .takes(p::by(Some(By::Peer)))
            .takes(p::sort())
            .takes(p::order())
            .takes(p::limit("Rows.", top::DEFAULT_LIMIT, top::MAX_LIMIT))
            .answers::<wire::Top>()
            .reads_store(),
        Operation::get("/v1/series", "series")
            .says(
                "Traffic over time",
                "In steps that are aligned to UTC days; without `since` over a day. With `by`, a \
                 line for each of those that have most, and one for the rest.",
            )
            .takes_filters()
            .takes(p::state())
            .takes(p::by(None))
            .takes(p::sort())
            .takes(p::step())
            .takes(p::limit("Lines.", series::DEFAULT_LINES, series::MAX_LINES))
            .answers::<wire::Series>()
            .reads_store(),
        Operation::get("/v1/rates", "measure")
            .says(
                "What open flows and their peers move now",
                "Between this look at them and the look before, whoever took that. Sums are of all \
                 flows that match, lists of the first of them.",
            )
            .takes_filters_of_now()
            .takes(p::rate_sort())
            .takes(p::order())
            .takes(p::limit("Flows, and peers.", rates::DEFAULT_LIMIT, rates::MAX_LIMIT))
            .answers::<wire::Rates>(),
    ]
}

fn records() -> Vec<Operation> {
    vec![
        Operation::get("/v1/records", "listRecords")
            .says(
                "Stored records, by ascending id",
                "`Accept` chooses the format. JSON comes in pages; JSON lines (a record a line) \
                 and CSV (RFC 4180, with a header) come as a stream of everything that was stored when \
                 it began, and take any `limit`; a stream that fails breaks off.",
            )
            .takes_filters()
            .takes(p::state())
            .takes(p::limit("Records of a page.", records::DEFAULT_PAGE, records::MAX_PAGE))
            .takes(p::cursor(LAST, "1000"))
            .answers::<wire::RecordPage>()
            .answers_as::<wire::Record>("application/x-ndjson")
            .answers_text("text/csv")
            .leads("next", "listRecords", ("cursor", "/next_cursor"))
            .leads("flow", "showFlow", ("flow_id", "/records/0/flow_id"))
            .refuses(&["406"])
            .reads_store(),
        Operation::get("/v1/watch", "watch")
            .says(
                "Records as they are written",
                "A record a line, until the reader or the daemon goes. A reader that is too slow \
                 gets a line with `skipped`, the number of records that it missed; they are stored.",
            )
            .takes_filters()
            .answers_as::<wire::Watched>("application/x-ndjson"),
    ]
}

fn statements() -> Vec<Operation> {
    vec![
        Operation::get("/v1/sql", "listTables")
            .says("The tables and columns that a statement may read", "")
            .answers::<wire::SqlTables>(),
        Operation::post("/v1/sql", "askSql")
            .says(
                "The answer to a statement of SQL",
                "It only reads. `Accept` chooses the format: JSON, JSON lines (an object a row), \
                 or CSV. All of them are streams, and one that fails breaks off.",
            )
            .takes(p::most("Rows; all of them unless given.", sql::MAX_LIMIT))
            .takes_statement()
            .answers::<wire::SqlRows>()
            .answers_objects("application/x-ndjson")
            .answers_text("text/csv")
            .refuses(&["406"])
            .reads_store(),
    ]
}

fn peers() -> Vec<Operation> {
    vec![
        Operation::get("/v1/peers", "listPeers")
            .says("Who is there, and what was counted against WireGuard's own counters", "")
            .takes(p::peer("Only this peer"))
            .answers::<wire::PeerList>()
            .leads("peer", "showPeer", ("peer", "/peers/0/public_key")),
        Operation::get("/v1/peers/{peer}", "showPeer")
            .says("One peer, now and over a range", "Without `since` over seven days.")
            .takes(p::peer_in_path())
            .takes_range()
            .answers::<wire::PeerDetail>()
            .refuses(&["404", "409"])
            .reads_store(),
        Operation::get("/v1/totals", "totals")
            .says("What each peer did on each UTC day, also on days whose records have gone", "")
            .takes_range()
            .takes(p::peer("Only this peer"))
            .answers::<wire::DayTotalList>()
            .reads_store(),
    ]
}

fn policy() -> Vec<Operation> {
    vec![
        Operation::get("/v1/policy", "showPolicy")
            .says("The policy in force, and how often its rules decided", "")
            .answers::<wire::Policy>(),
        Operation::put("/v1/policy", "applyPolicy")
            .says(
                "Puts a policy into force",
                "It is checked whole before anything changes, and is in force for every packet at \
                 once. With `via`, one that would cut that connection is refused.",
            )
            .takes(p::via())
            .takes_policy()
            .answers::<wire::PolicyReport>()
            .refuses(&["409", "422", "500"]),
        Operation::post("/v1/policy/check", "checkPolicy")
            .says("What a policy would do", "Nothing changes.")
            .takes(p::via())
            .takes_policy()
            .answers::<wire::PolicyReport>(),
        Operation::get("/v1/policy/why", "why")
            .says("The rule that decides between two ends", "")
            .takes(p::end("src", "Who would begin", "alice-laptop"))
            .takes(p::end("dst", "With whom", "10.20.0.2"))
            .takes(p::protocol())
            .takes(p::port("port", "The port at `dst`; of TCP where no protocol is named."))
            .answers::<wire::Why>()
            .refuses(&["404", "409", "422"])
            .reads_store(),
        Operation::post("/v1/policy/replay", "replayPolicy")
            .says(
                "What a policy would have said of the stored records",
                "Without `since` of seven days. What open flows did since their last record is \
                 left out.",
            )
            .takes_filters()
            .takes(p::state())
            .takes_policy()
            .answers::<wire::Replay>()
            .reads_store(),
    ]
}

fn daemon() -> Vec<Operation> {
    vec![
        Operation::get("/v1/status", "status")
            .says("How the daemon is", "")
            .answers::<wire::Status>(),
        Operation::get("/v1/gaps", "listGaps")
            .says(
                "Where something may have gone unrecorded, newest first",
                "Gaps that touch the range; one of every interface or every peer is one of each.",
            )
            .takes_range()
            .takes(p::stage())
            .takes(p::interface())
            .takes(p::peer("Of this peer"))
            .takes(p::limit("Gaps.", gaps::DEFAULT_LIMIT, gaps::MAX_LIMIT))
            .answers::<wire::GapList>()
            .reads_store(),
        Operation::get("/v1/audit", "listAudit")
            .says(
                "Who did and read what, newest first",
                "For root and members of `admin_groups`. That it was read is in it too.",
            )
            .takes_range()
            .takes(p::actor())
            .takes(p::event())
            .takes(p::resource())
            .takes(p::outcome())
            .takes(p::part())
            .takes(p::after())
            .takes(p::limit("Entries.", audit::DEFAULT_LIMIT, audit::MAX_LIMIT))
            .takes(p::cursor(NEXT, "4711"))
            .answers::<wire::AuditPage>()
            .leads("next", "listAudit", ("cursor", "/next_cursor"))
            .reads_store(),
        Operation::get("/v1/audit/verify", "verifyAudit")
            .says("Whether an entry was edited, moved or taken out", "")
            .takes(p::head())
            .takes(p::keys())
            .answers::<wire::AuditVerdict>()
            .refuses(&["422"])
            .reads_store(),
        Operation::get("/v1/verify", "verifyHistory")
            .says(
                "Whether the history is as it was sealed, day by day",
                "It reads every record that is stored, which may take minutes; one at a time. What \
                 is not sealed yet is unproven, and not wrong: see docs/sealed.md.",
            )
            .takes(p::keys().required())
            .takes(p::known())
            .answers::<Proof>()
            .refuses(&["422"])
            .reads_store(),
        Operation::get("/v1/segments", "listSegments")
            .says("The files of the database", "")
            .answers::<wire::SegmentList>()
            .reads_store(),
        Operation::get("/metrics", "metrics")
            .says("Counters and gauges in Prometheus' text format", "")
            .answers_text("text/plain"),
        Operation::get("/v1/openapi.json", "describe")
            .says("This document", "")
            .answers_objects("application/json"),
    ]
}
