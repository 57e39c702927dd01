//! `flowctl summary`: totals of a range.

use super::{error::CtlError, gaps, output::Screen, text};
use crate::{flows::Tally, wire::Summary};

/// Shows the totals, a line each.
pub(super) fn show(screen: &mut Screen, summary: &Summary) -> Result<(), CtlError> {
    let until = screen.clock.full(summary.until);
    let range = match summary.since {
        Some(since) => format!("{} to {until}", screen.clock.full(since)),
        None => format!("everything until {until}"),
    };
    let counters = &summary.counters;
    let mut lines = vec![
        ("Range", range),
        ("Flows", format!("{} ({} open)", summary.flows, summary.open_flows)),
        (
            "Packets",
            format!(
                "{} (rx {}, tx {})",
                text::count(summary.packets),
                text::count(counters.rx_packets),
                text::count(counters.tx_packets)
            ),
        ),
        (
            "Traffic",
            format!(
                "{} (rx {}, tx {})",
                text::bytes(summary.bytes),
                text::bytes(counters.rx_bytes),
                text::bytes(counters.tx_bytes)
            ),
        ),
        ("Allowed", tally(&summary.allowed)),
        ("Denied", tally(&summary.denied)),
    ];
    if summary.overflow.packets() > 0 {
        let overflow = &summary.overflow;
        lines.push((
            "Overflow",
            format!(
                "{} in {} packets that are in no flow but summed per peer",
                text::bytes(overflow.bytes()),
                text::count(overflow.packets())
            ),
        ));
    }
    if summary.gaps.count > 0 {
        lines.push(("Gaps", gaps_line(summary)));
    }
    for (name, line) in lines {
        screen.line(&format!("{name:<9} {line}"))?;
    }
    Ok(())
}

/// What the records leave out, and where to see it.
fn gaps_line(summary: &Summary) -> String {
    let since = summary.since.map(|since| format!(" --since {since}")).unwrap_or_default();
    format!(
        "{}: {} (flowctl gaps{since} --until {})",
        gaps::counted(summary.gaps.count),
        gaps::missing(&summary.gaps),
        summary.until
    )
}

fn tally(tally: &Tally) -> String {
    let Tally { flows, packets, bytes } = tally;
    format!("{flows} flows, {} packets, {}", text::count(*packets), text::bytes(*bytes))
}
