//! `flowctl flows --follow`: flows as they begin, move something and end, a line each time.
//!
//! - what is open is asked for again and again: it is listed with its live counters
//! - what has ended is told by the daemon as soon as it is recorded

use std::{collections::HashMap, time::Duration};

use tokio::{sync::mpsc, time::MissedTickBehavior};

use super::{
    client::Client,
    error::CtlError,
    filters::Parameters,
    flows::{state, verdict},
    lists::FlowList,
    output::{Format, Screen},
    records::{each_line, parse, tell_skipped},
    text,
};
use crate::{
    flows::FlowId,
    wire::{self, Flow, FlowPage, FlowState, Record, Watched},
};

/// Between two looks at what is open.
const INTERVAL: Duration = Duration::from_secs(1);
/// Flows that are shown before the first one is new.
const DEFAULT: u64 = 10;
/// Flows of a look: those that began last.
const LOOK: u64 = 1_000;
/// Flows that are remembered at most; what has ended is forgotten first.
const REMEMBERED: usize = 100_000;

/// Shows the newest flows, then whatever is new of them and others, until interrupted.
pub(super) async fn run(
    client: &Client<'_>,
    screen: &mut Screen,
    format: Format,
    list: &FlowList,
) -> Result<(), CtlError> {
    let filters = list.page.filters.pairs(&screen.clock)?;
    let wanted = list.page.filters.state.as_deref();
    let mut seen = Seen::default();
    let body =
        client.open("/v1/watch", &without(&filters, &["state"]), "application/x-ndjson").await?;
    // Read between two lines that are shown: nothing gathers here.
    let (lines, mut ended) = mpsc::unbounded_channel();
    let reading = each_line(body, |line| {
        // Received below, as long as it is read here.
        let _sent = lines.send(line.to_vec());
        Ok(())
    });
    let mut reading = Box::pin(reading);

    if format == Format::Csv {
        screen.csv(&wire::FLOW_CSV_COLUMNS, std::iter::empty())?;
    }
    let mut first = filters.clone();
    first.push(("limit", list.page.limit.unwrap_or(DEFAULT).to_string()));
    let newest: FlowPage = client.query("/v1/flows", &first).await?;
    for flow in newest.flows.into_iter().rev().filter(|flow| seen.is_news(flow)) {
        show(screen, format, &flow)?;
    }
    screen.flush()?;

    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            done = &mut reading => return done,
            Some(line) = ended.recv() => match parse(&line)? {
                Watched::Skipped { skipped } => tell_skipped(skipped),
                Watched::Record(record)
                    if record.end_reason.is_some() && wanted != Some("open") =>
                {
                    let flow = of_record(*record);
                    if seen.is_news(&flow) {
                        show(screen, format, &flow)?;
                    }
                }
                Watched::Record(_) => {}
            },
            _ = ticks.tick(), if wanted != Some("closed") => {
                let mut open = without(&filters, &["state"]);
                open.extend([("state", "open".to_owned()), ("limit", LOOK.to_string())]);
                let open: FlowPage = client.query("/v1/flows", &open).await?;
                let mut news: Vec<_> =
                    open.flows.into_iter().filter(|flow| seen.is_news(flow)).collect();
                news.sort_by_key(|flow| flow.last_seen);
                for flow in &news {
                    show(screen, format, flow)?;
                }
            }
        }
        screen.flush()?;
    }
}

/// What was shown of each flow: its packets, and whether it had ended.
#[derive(Default)]
struct Seen(HashMap<FlowId, (u64, FlowState)>);

impl Seen {
    /// Whether a flow has moved something or ended since it was shown; what is older than what was
    /// shown is no news.
    fn is_news(&mut self, flow: &Flow) -> bool {
        let now = (flow.total.packets(), flow.state);
        let is_news = match self.0.get(&flow.flow_id) {
            None => true,
            Some((_, FlowState::Closed)) => false,
            Some((packets, FlowState::Open)) => flow.state == FlowState::Closed || now.0 > *packets,
        };
        if is_news {
            if self.0.len() >= REMEMBERED {
                self.0.retain(|_, (_, state)| *state == FlowState::Open);
            }
            self.0.insert(flow.flow_id, now);
        }
        is_news
    }
}

fn without(pairs: &Parameters, names: &[&str]) -> Parameters {
    pairs.iter().filter(|(name, _)| !names.contains(name)).cloned().collect()
}

/// A line a flow, with what it has moved since its first packet.
fn show(screen: &mut Screen, format: Format, flow: &Flow) -> Result<(), CtlError> {
    match format {
        Format::Json | Format::Jsonl => return screen.json_line(flow),
        Format::Csv => return screen.csv_line(&wire::flow_csv_row(flow)),
        Format::Table => {}
    }
    let or_none = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), text::visible);
    let rule = flow.rule.as_deref().map(|rule| format!("  {}", text::visible(rule)));
    screen.line(&format!(
        "{}  {:<12} {:<16} {:<10} {} → {}  rx {}  tx {}  {}{}",
        screen.clock.short(flow.last_seen),
        state(flow).text,
        or_none(flow.peer.as_ref().map(|peer| &*peer.name)),
        text::protocol(flow.protocol_number, flow.overflow, flow.icmp),
        text::endpoint(&flow.src),
        text::endpoint(&flow.dst),
        text::bytes(flow.total.rx_bytes),
        text::bytes(flow.total.tx_bytes),
        verdict(flow.verdict, flow.enforced).text,
        rule.unwrap_or_default(),
    ))
}

/// A flow that has ended, by its last record.
fn of_record(record: Record) -> Flow {
    let Record {
        record_id: _,
        flow_id,
        gateway,
        interface,
        window_start: _,
        window_end: _,
        first_seen,
        last_seen,
        protocol,
        protocol_number,
        src,
        dst,
        initiator,
        icmp,
        peer,
        verdict,
        enforced,
        rule,
        policy_revision,
        counters,
        total,
        tcp_flags,
        end_reason,
        overflow,
    } = record;
    let state = FlowState::Closed;
    Flow {
        flow_id,
        state,
        gateway,
        interface,
        first_seen,
        last_seen,
        protocol,
        protocol_number,
        src,
        dst,
        initiator,
        icmp,
        peer,
        verdict,
        enforced,
        rule,
        policy_revision,
        counters,
        total,
        tcp_flags,
        end_reason,
        overflow,
        records: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::{FlowState, Seen, of_record};
    use crate::{
        flows::{self, Counters, EndReason, sample},
        wire::{Flow, Record},
    };

    fn flow(packets: u64, end_reason: Option<EndReason>) -> Flow {
        let total = Counters { rx_packets: packets, rx_bytes: 60 * packets, ..Counters::default() };
        let record = flows::Record { total, counters: total, end_reason, ..sample::record() };
        if end_reason.is_some() {
            return of_record(Record::new("gw", &record));
        }
        Flow::new("gw", &flows::Flow::new(record), FlowState::Open)
    }

    #[test]
    fn a_flow_is_news_when_it_begins_moves_something_and_ends() {
        let mut seen = Seen::default();
        let fin = Some(EndReason::Fin);
        let cases = [
            (flow(2, None), true),
            (flow(2, None), false),
            (flow(3, None), true),
            // An answer that was under way.
            (flow(2, None), false),
            (flow(3, fin), true),
            (flow(3, fin), false),
            (flow(3, None), false),
        ];
        for (index, (flow, is_news)) in cases.into_iter().enumerate() {
            assert_eq!(seen.is_news(&flow), is_news, "{index}");
        }
        assert!(Seen::default().is_news(&flow(1, fin)), "what began and ended between two looks");
    }
}
