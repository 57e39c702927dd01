//! `/metrics`: Prometheus text format, version 0.0.4.

use std::fmt::Write as _;

use axum::{
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};

use super::{ApiState, error::ApiError, params::Params};
use crate::{
    flows::Counters,
    live::Request,
    wire::{InterfaceStatus, Status},
};

/// `GET /metrics`.
pub(super) async fn metrics(
    State(state): State<ApiState>,
    params: Params,
) -> Result<Response, ApiError> {
    params.only(&[])?;
    let status = state.live.ask(|reply| Request::Status { reply }).await?;
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(CONTENT_TYPE, kind)], render(&status)).into_response())
}

fn render(status: &Status) -> String {
    let mut text = Text::default();
    text.family("flowd_build_info", "gauge", "Version of flowd; always 1.");
    text.sample("flowd_build_info", &[("version", &status.version)], 1);
    let seen = |interface: &InterfaceStatus| interface.seen;
    directions(&mut text, status, "flowd_packets_total", "Packets seen.", seen, |c| {
        (c.rx_packets, c.tx_packets)
    });
    directions(&mut text, status, "flowd_bytes_total", "Bytes at layer 3 seen.", seen, |c| {
        (c.rx_bytes, c.tx_bytes)
    });
    let name = "flowd_overflow_packets_total";
    text.family(name, "counter", "Packets in no flow but summed per peer: the table was full.");
    for interface in &status.interfaces {
        text.both(
            name,
            interface,
            &[],
            (interface.overflow.rx_packets, interface.overflow.tx_packets),
        );
    }
    let dropped = |interface: &InterfaceStatus| interface.dropped;
    let (name, help) = ("flowd_dropped_packets_total", "Packets dropped by the policy.");
    directions(&mut text, status, name, help, dropped, |c| (c.rx_packets, c.tx_packets));
    let name = "flowd_uncounted_packets_total";
    text.family(name, "counter", "Packets in no flow and no overflow bucket, by reason.");
    for interface in &status.interfaces {
        for tally in &interface.uncounted {
            let counts = (tally.counters.rx_packets, tally.counters.tx_packets);
            text.both(name, interface, &[("reason", &tally.reason)], counts);
        }
    }
    let gauges = [
        (
            "flowd_flow_table_entries",
            "gauge",
            "Flows in the kernel's table.",
            status.flow_table.entries,
        ),
        (
            "flowd_flow_table_capacity",
            "gauge",
            "Flows that fit into it.",
            status.flow_table.capacity,
        ),
        (
            "flowd_policy_revision",
            "gauge",
            "Revision of the policy in force; 0: none.",
            u64::from(status.policy.revision),
        ),
        (
            "flowd_policy_enforced",
            "gauge",
            "1 while the policy drops what it denies.",
            u64::from(status.policy.mode == "enforce"),
        ),
        ("flowd_drains_total", "counter", "Reads of the kernel's tables.", status.drain.count),
        ("flowd_records_total", "counter", "Records written.", status.drain.records),
        ("flowd_store_bytes", "gauge", "Bytes of the database on disk.", status.store.bytes),
        ("flowd_store_segments", "gauge", "Segments of the database.", status.store.segments),
        (
            "flowd_store_failing",
            "gauge",
            "1 while the database takes no records.",
            u64::from(status.store.error.is_some()),
        ),
    ];
    let (name, help) = ("flowd_gaps_total", "Gaps in the record that began since the start.");
    text.family(name, "counter", help);
    for gaps in &status.gaps {
        text.sample(name, &[("stage", gaps.stage.word())], gaps.begun);
    }
    text.family("flowd_gaps_open", "gauge", "Gaps in the record that last.");
    for gaps in &status.gaps {
        text.sample("flowd_gaps_open", &[("stage", gaps.stage.word())], gaps.open);
    }
    for (name, kind, help, value) in gauges {
        text.family(name, kind, help);
        text.sample(name, &[], value);
    }
    text.family("flowd_drain_duration_seconds", "gauge", "Duration of the last drain.");
    let seconds = status.drain.last_duration_us as f64 / 1e6;
    text.sample("flowd_drain_duration_seconds", &[], seconds);
    text.0
}

fn directions(
    text: &mut Text,
    status: &Status,
    name: &str,
    help: &str,
    of: impl Fn(&InterfaceStatus) -> Counters,
    pick: impl Fn(&Counters) -> (u64, u64),
) {
    text.family(name, "counter", help);
    for interface in &status.interfaces {
        text.both(name, interface, &[], pick(&of(interface)));
    }
}

/// Text in the exposition format.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a string grows");
    }

    /// A sample for each direction of an interface; its number tells one of the same name apart.
    fn both(
        &mut self,
        name: &str,
        interface: &InterfaceStatus,
        more: &[(&str, &str)],
        (rx, tx): (u64, u64),
    ) {
        let ifindex = interface.ifindex.to_string();
        for (direction, value) in [("rx", rx), ("tx", tx)] {
            let mut labels = vec![
                ("interface", interface.name.as_str()),
                ("ifindex", ifindex.as_str()),
                ("direction", direction),
            ];
            labels.extend(more);
            self.sample(name, &labels, value);
        }
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, value)| {
                let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                format!("{label}=\"{value}\"")
            })
            .collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        writeln!(self.0, "{name}{labels} {value}").expect("a string grows");
    }
}
