//! The daemon itself: what it runs with, how it keeps up, where it stores.

use super::{
    Turns,
    text::{Kind, Text, seconds},
};
use crate::{live::Metrics, wire::Status};

pub(super) fn render(text: &mut Text, metrics: &Metrics) {
    let status = &metrics.status;
    text.family(Kind::Gauge, "flowd_build_info", "Version of flowd; always 1.");
    text.sample("flowd_build_info", &[("version", &status.version)], 1);
    let (name, help) = ("flowd_start_time_seconds", "When flowd was ready.");
    text.gauge(name, help, seconds(status.started));
    table(text, status);
    drains(text, metrics);
    store(text, metrics);
    policy(text, status);
    gaps(text, status);
}

fn table(text: &mut Text, status: &Status) {
    let (name, help) = ("flowd_flow_table_entries", "Flows in the kernel's table.");
    text.gauge(name, help, status.flow_table.entries);
    text.gauge("flowd_flow_table_capacity", "Flows that fit into it.", status.flow_table.capacity);
}

fn drains(text: &mut Text, metrics: &Metrics) {
    let drain = &metrics.status.drain;
    let (name, help) =
        ("flowd_drain_duration_seconds", "How long reads of the kernel's tables took.");
    text.histogram(name, help, &metrics.drains);
    let name = "flowd_last_drain_timestamp_seconds";
    text.gauge(
        name,
        "When the last one ended; 0: there was none.",
        drain.last.map_or(0.0, seconds),
    );
    let help = "1 while a drain leaves something for the next one.";
    text.gauge("flowd_drain_behind", help, u64::from(metrics.is_behind));
    text.counter("flowd_records_total", "Records written.", drain.records);
    let help = "Live records that slow readers of /v1/watch did not get; the store has them.";
    text.counter("flowd_watch_skipped_records_total", help, drain.watch_skipped);
}

fn store(text: &mut Text, metrics: &Metrics) {
    let store = &metrics.status.store;
    text.gauge("flowd_store_bytes", "Bytes of the database on disk.", store.bytes);
    text.gauge("flowd_store_segments", "Segments of the database.", store.segments);
    text.gauge("flowd_store_last_record_id", "Highest record id; 0: none.", store.last_record_id);
    let help = "1 while the database takes no records; the kernel keeps the counts.";
    text.gauge("flowd_store_failing", help, u64::from(store.error.is_some()));
    let help = "1 while days that are over cannot be closed, sealed or removed.";
    text.gauge("flowd_keeper_failing", help, u64::from(store.keeper_error.is_some()));
    let help = "Writes that the database did not take.";
    text.counter("flowd_store_write_failures_total", help, metrics.write_failures);
    let help = "Segments that went out of use, damaged or taken away.";
    text.counter("flowd_store_segments_set_aside_total", help, store.set_aside.len());
}

fn policy(text: &mut Text, status: &Status) {
    let help = "Revision of the policy in force; 0: none.";
    text.gauge("flowd_policy_revision", help, status.policy.revision);
    let help = "1 while the policy drops what it denies.";
    text.gauge("flowd_policy_enforced", help, u64::from(status.policy.mode == "enforce"));
}

fn gaps(text: &mut Text, status: &Status) {
    let name = "flowd_gaps_total";
    text.family(Kind::Counter, name, "Gaps in the record that began, by stage.");
    for gaps in &status.gaps {
        text.sample(name, &[("stage", gaps.stage.word())], gaps.begun);
    }
    let name = "flowd_gaps_open";
    text.family(Kind::Gauge, name, "Gaps in the record that last, by stage.");
    for gaps in &status.gaps {
        text.sample(name, &[("stage", gaps.stage.word())], gaps.open);
    }
}

/// Who asks the daemon.
pub(super) fn api(text: &mut Text, turns: &[Turns], watchers: usize) {
    text.gauge("flowd_api_watchers", "Readers of /v1/watch.", watchers);
    let name = "flowd_api_queries_running";
    text.family(Kind::Gauge, name, "Queries that run, by kind; the others wait for their turn.");
    for Turns { kind, running, .. } in turns {
        text.sample(name, &[("kind", kind)], running);
    }
    let name = "flowd_api_queries_limit";
    text.family(Kind::Gauge, name, "Queries that may run at a time, by kind.");
    for Turns { kind, limit, .. } in turns {
        text.sample(name, &[("kind", kind)], limit);
    }
}
