//! What stands in the place of the rows: one flow in detail, or what the keys do.

use ratatui::{
    style::{Modifier, Style as Paint},
    text::{Line, Span},
};

use super::{
    model::Model,
    view::{Style, rates, with_sparkline},
};
use crate::ctl::{flow, table::Tone};

const HELP: [&str; 17] = [
    "q, Ctrl-C    quit; Esc too, when nothing is left to take back",
    "Tab          flows or peers",
    "↑ ↓ j k      select; PgUp, PgDn, Home, End; the selection keeps to its flow",
    "Enter        details of a flow; the flows of a peer; Esc goes back",
    "/            find as you type: words of name, user, address, port, rule, verdict",
    "s  r         sort by what comes next; the other end first",
    "d            only what the policy denies",
    "p, Space     pause: nothing moves until you press it again",
    "Ctrl-L       paint the screen anew; Ctrl-Z: back to the shell, `fg` goes on",
    "",
    "RX/s is what the gateway receives from the peer, TX/s what it sends, inside the",
    "tunnel, between the last two looks (`each`); TOTAL is since the first packet.",
    "VERDICT (deny): the policy denies it, and it passed, as nothing is enforced.",
    "`first 500 of …`: those that come first in this order; / looks at the first",
    "5000, flags such as --peer, --dst, --port, and d look at all of them.",
    "(overflow): packets of a peer that are in no flow, as the table was full.",
    "! says what may be lost: see `flowctl status`, `flowctl gaps`.",
];

/// What the keys do.
pub(super) fn help<'a>(height: usize) -> Vec<Line<'a>> {
    HELP.into_iter().take(height).map(Line::from).collect()
}

/// A flow in detail, from the line on that was scrolled to.
pub(super) fn details<'a>(
    model: &mut Model,
    style: &Style,
    width: usize,
    height: usize,
) -> Vec<Line<'a>> {
    model.fit(height);
    let Some(details) = &mut model.details else { return Vec::new() };
    let bold = |text: String| Line::styled(text, Paint::default().add_modifier(Modifier::BOLD));
    let now = with_sparkline(format!("Now  {}", rates(details.rate)), &details.history, width);
    let mut lines = vec![bold(now)];
    if let Some(trouble) = &details.trouble {
        lines.push(Line::styled(format!("! {trouble}"), style.of(Tone::Bad)));
    }
    match &details.told {
        None if details.trouble.is_none() => lines.push("Asking the daemon.".into()),
        None => {}
        Some(told) => {
            for (title, values) in flow::sections(&style.clock, told) {
                lines.push(bold(title.to_owned()));
                lines.extend(values.into_iter().map(|(name, value)| {
                    let name = Span::raw(format!("  {name:<12} "));
                    Line::from(vec![name, Span::styled(value.text, style.of(value.tone))])
                }));
            }
            lines.push(bold("Records".to_owned()));
            let table = flow::records(&style.clock, told);
            let table = table.render(false, u16::try_from(width).ok());
            lines.extend(table.lines().map(|line| Line::from(line.to_owned())));
        }
    }
    // The last page is the end.
    details.line = details.line.min(lines.len().saturating_sub(height));
    lines.drain(..details.line);
    lines.truncate(height);
    lines
}
