//! The picture of a state: what is at the top and at the bottom, whatever the size.
//!
//! - everything that colours say is said in words or marks too
//! - on a low screen, what is above the rows goes, the least important line first

use ratatui::{
    Frame,
    style::{Color, Modifier, Style as Paint},
    text::{Line, Span},
};
use unicode_width::UnicodeWidthStr as _;

use super::{
    columns::shortened,
    list,
    model::{Model, Tab},
    panels,
};
use crate::{
    ctl::{
        bars::sparkline,
        table::Tone,
        text::{self, Clock},
    },
    flows::{Counters, Order, RateSort},
};

/// Cells of the sparkline at most.
const SPARKLINE: usize = 60;
/// How long a restart is told, in milliseconds.
const RESTART_TOLD_MS: i64 = 60_000;

/// How pictures are painted.
#[derive(Clone, Debug)]
pub(super) struct Style {
    pub(super) clock: Clock,
    pub(super) has_color: bool,
}

impl Style {
    /// In UTC, without colours.
    #[cfg(test)]
    pub(super) fn sample() -> Self {
        let now = crate::wire::Timestamp(super::sample::NOW_MS);
        Self { clock: Clock::fixed(now), has_color: false }
    }

    pub(super) fn of(&self, tone: Tone) -> Paint {
        let paint = Paint::default();
        match tone {
            Tone::Dim => paint.add_modifier(Modifier::DIM),
            Tone::Good if self.has_color => paint.fg(Color::Green),
            Tone::Bad if self.has_color => paint.fg(Color::Red),
            Tone::Plain | Tone::Good | Tone::Bad => paint,
        }
    }
}

/// Paints a state; the rows scroll to the selection.
pub(super) fn paint(frame: &mut Frame<'_>, model: &mut Model, style: &Style) {
    let area = frame.area();
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let mut above = above(model, style, width, height);
    let has_keys = height >= 6 || model.is_typing;
    let rest = height.saturating_sub(above.len() + usize::from(has_keys));
    if model.has_help {
        above.extend(panels::help(rest));
    } else if model.details.is_some() {
        above.extend(panels::details(model, style, width, rest));
    } else {
        above.extend(list::lines(model, style, width, rest));
    }
    let buffer = frame.buffer_mut();
    for (line, y) in above.iter().zip(area.top()..area.bottom()) {
        buffer.set_line(area.left(), y, line, area.width);
    }
    if !has_keys {
        return;
    }
    let Some(last) = area.bottom().checked_sub(1) else { return };
    if model.is_typing {
        let typed = format!("/{}", text::visible(&model.text));
        let cursor = u16::try_from(typed.width()).unwrap_or(u16::MAX);
        let line = format!("{typed}   Enter: keep, Esc: clear");
        buffer.set_line(area.left(), last, &fill(&line, width).into(), area.width);
        let x = area.left().saturating_add(cursor).min(area.right().saturating_sub(1));
        frame.set_cursor_position((x, last));
    } else {
        let line = Line::from(fill(keys(model), width));
        buffer.set_line(area.left(), last, &line.style(style.of(Tone::Dim)), area.width);
    }
}

/// The lines above the rows, of which there are fewer on a low screen.
fn above<'a>(model: &Model, style: &Style, width: usize, height: usize) -> Vec<Line<'a>> {
    let trouble = trouble(model, style);
    let is_untold = height < 6 && trouble.is_some();
    let state = state(model, if is_untold { "! " } else { "" }, width);
    match height {
        // Losses stay; they must not hide for good what the rows are.
        0..6 => vec![trouble.filter(|_| model.trouble.is_some()).unwrap_or(state)],
        6..9 => vec![trouble.unwrap_or_else(|| totals(model, width)), state],
        _ => {
            let calm = if head_is_known(model) { "no losses, no open gaps" } else { "" };
            let calm = || Line::styled(calm, style.of(Tone::Dim));
            vec![
                title(model, style, width),
                totals(model, width),
                trouble.unwrap_or_else(calm),
                state,
            ]
        }
    }
}

fn head_is_known(model: &Model) -> bool {
    !model.head.title.is_empty()
}

/// Who, since when, and what time it is there.
fn title<'a>(model: &Model, style: &Style, width: usize) -> Line<'a> {
    let head = &model.head;
    if !head_is_known(model) {
        return Line::from("flowd");
    }
    let interval = model
        .interval_ms
        .map_or_else(String::new, |ms| format!(" · each {:.1} s", ms as f64 / 1e3));
    let clock = style.clock.short(head.now);
    let room = width.saturating_sub(clock.width() + 1);
    let left = shortened(&format!("{}{interval}", head.title), room);
    let space = " ".repeat(width.saturating_sub(left.width() + clock.width()));
    Line::from(vec![
        Span::styled(left, Paint::default().add_modifier(Modifier::BOLD)),
        Span::raw(space + &clock),
    ])
}

/// What passes in all.
fn totals<'a>(model: &Model, width: usize) -> Line<'a> {
    let head = &model.head;
    let line = format!("{}  {}", rates(head.rate), head.table);
    Line::from(with_sparkline(line, &head.history, width))
}

/// Rates in words.
pub(super) fn rates(rate: Option<Counters>) -> String {
    let bytes = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), text::bytes);
    let packets = rate.map_or_else(|| "-".to_owned(), |rate| text::count(rate.packets()));
    let (rx, tx) = (bytes(rate.map(|rate| rate.rx_bytes)), bytes(rate.map(|rate| rate.tx_bytes)));
    format!("rx {rx:>7}/s  tx {tx:>7}/s  {packets:>5} packets/s")
}

/// A line with the latest values behind it, as far as there is room.
pub(super) fn with_sparkline<'a>(
    line: String,
    history: impl IntoIterator<Item = &'a u64>,
    width: usize,
) -> String {
    let room = width.saturating_sub(line.width() + 2).min(SPARKLINE);
    let values: Vec<u64> = history.into_iter().copied().collect();
    let latest = &values[values.len().saturating_sub(room)..];
    if latest.is_empty() {
        return line;
    }
    let space = " ".repeat(width.saturating_sub(line.width() + latest.len()));
    format!("{line}{space}{}", sparkline(latest, room))
}

/// Why nothing new comes, a restart, or what may be lost.
fn trouble<'a>(model: &Model, style: &Style) -> Option<Line<'a>> {
    let head = &model.head;
    let tell = |text: String| Line::styled(text, style.of(Tone::Bad));
    if let Some(trouble) = &model.trouble {
        return Some(tell(format!("! {trouble}")));
    }
    let restarted = head.restarted.filter(|at| head.now.0 - at.0 < RESTART_TOLD_MS);
    let restarted =
        restarted.map(|at| format!("flowd has restarted, noticed at {}", style.clock.short(at)));
    let told: Vec<String> = restarted.into_iter().chain(head.losses.iter().cloned()).collect();
    (!told.is_empty()).then(|| tell(format!("! {}", told.join("; "))))
}

/// What is listed: of which, in which order, how many. A mark says that there is trouble.
fn state<'a>(model: &Model, mark: &str, width: usize) -> Line<'a> {
    let tabs = match model.tab {
        Tab::Flows => "[FLOWS] peers",
        Tab::Peers => "flows [PEERS]",
    };
    let mut told = vec![format!("{mark}{tabs}  by {}", order(model))];
    if model.is_paused {
        told.push("PAUSED".to_owned());
    }
    if model.text.is_empty() {
        told.push(listed(model));
    } else {
        let text = shortened(&text::visible(&model.text), 20);
        told.push(format!("/{text}: {} found in {}", model.shown.len(), listed(model)));
    }
    if let Some(peer) = &model.only_peer {
        told.push(format!("only {}", shortened(&text::visible(&peer.name), 20)));
    }
    if model.only_denied {
        told.push("only denied".to_owned());
    } else if model.sums.denied_flows > 0 {
        told.push(format!("{} denied", text::count(model.sums.denied_flows)));
    }
    let line = fill(&told.join("  "), width);
    Line::styled(line, Paint::default().add_modifier(Modifier::REVERSED))
}

fn order(model: &Model) -> String {
    let sort = match (model.tab, model.sort) {
        (Tab::Peers, RateSort::Total | RateSort::Start | RateSort::Last) => RateSort::Rate,
        (_, sort) => sort,
    };
    let mark = match model.order {
        Order::Descending => '▼',
        Order::Ascending => '▲',
    };
    format!("{} {mark}", sort.word())
}

/// How many, and of how many when these are not all.
fn listed(model: &Model) -> String {
    let sums = &model.sums;
    let (listed, all, what) = match model.tab {
        Tab::Flows => (sums.listed_flows as u64, sums.open_flows, "open"),
        Tab::Peers => (sums.listed_peers as u64, sums.peers, "peers"),
    };
    if listed < all {
        format!("first {} of {} {what}", text::count(listed), text::count(all))
    } else {
        format!("{} {what}", text::count(all))
    }
}

fn keys(model: &Model) -> &'static str {
    if model.has_help {
        return "any key: back";
    }
    if model.details.is_some() {
        return "Esc back  ↑↓ scroll  p pause  q quit  ? help";
    }
    match model.tab {
        Tab::Flows => {
            "q quit ? help Tab peers / find s sort r reverse d denied p pause Enter details"
        }
        Tab::Peers => {
            "q quit ? help Tab flows / find s sort r reverse d denied p pause Enter its flows"
        }
    }
}

/// A line over the whole width, so that nothing shows through.
fn fill(line: &str, width: usize) -> String {
    super::columns::cell(line, width, crate::ctl::table::Align::Left)
}
