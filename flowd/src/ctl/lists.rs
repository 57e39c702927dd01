//! The flags of what is listed, ranked or drawn over time.

use clap::{Args, builder::PossibleValuesParser};
use clap_complete::engine::ArgValueCandidates;

use super::{
    complete,
    error::CtlError,
    filters::{Filters, Parameters},
    text::Clock,
};
use crate::flows::{By, Grouping, NotAStep, Order, Sort, Step};

/// Filters, and how many.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Page {
    #[command(flatten)]
    pub(super) filters: Filters,
    /// How many at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: Option<u64>,
    /// Go on behind the page that gave this cursor.
    #[arg(long)]
    pub(super) cursor: Option<String>,
}

/// Which flows, and in which order.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct FlowList {
    #[command(flatten)]
    pub(super) page: Page,
    /// What comes first: start, last (packet), duration, bytes or packets; with --group-by bytes,
    /// packets or flows.
    #[arg(long, value_parser = words(FLOW_SORTS))]
    pub(super) sort: Option<String>,
    /// The most first, or the least.
    #[arg(long, value_parser = words(ORDERS))]
    pub(super) order: Option<String>,
    /// A row for each peer, port, … instead of each flow, as `flowctl top --by`.
    #[arg(long, value_name = "BY", value_parser = grouping, conflicts_with = "cursor",
        add = properties())]
    pub(super) group_by: Option<Grouping>,
    /// Go on, and show flows as they begin, move something and end, until interrupted.
    #[arg(short, long, conflicts_with_all = ["sort", "order", "group_by", "cursor", "until"])]
    pub(super) follow: bool,
}

impl FlowList {
    /// As parameters of a list.
    pub(super) fn pairs(&self, clock: &Clock) -> Result<Parameters, CtlError> {
        let Self { page, sort, order, group_by: _, follow: _ } = self;
        let mut pairs = page.filters.pairs(clock)?;
        pairs.extend(sort.clone().map(|sort| ("sort", sort)));
        pairs.extend(order.clone().map(|order| ("order", order)));
        Ok(pairs)
    }

    /// As parameters of a ranking.
    pub(super) fn groups(&self, by: &Grouping, clock: &Clock) -> Result<Parameters, CtlError> {
        let mut pairs = self.pairs(clock)?;
        pairs.push(("by", by.to_string()));
        pairs.extend(self.page.limit.map(|limit| ("limit", limit.to_string())));
        Ok(pairs)
    }
}

const FLOW_SORTS: [&str; 6] = ["start", "last", "duration", "bytes", "packets", "flows"];

/// A ranking of what the filters leave.
#[derive(Clone, Debug, Args)]
pub(super) struct Top {
    /// What to rank: peer, user, src, dst, dst_port, protocol, rule, verdict, or several with commas.
    #[arg(long, visible_alias = "group-by", default_value = By::Peer.word(), value_parser = grouping,
        add = properties())]
    pub(super) by: Grouping,
    /// What to rank it by.
    #[arg(long, default_value = Sort::Bytes.word(), value_parser = words(Sort::ALL.map(Sort::word)))]
    pub(super) sort: String,
    /// The most first, or the least.
    #[arg(long, value_parser = words(ORDERS))]
    pub(super) order: Option<String>,
    /// How many at most.
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: u64,
    /// The whole screen: peers and flows by what they move now, until q is pressed.
    #[arg(long, conflicts_with_all = ["by", "sort", "order", "limit", "since", "until", "state"])]
    pub(super) live: bool,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value = "1", requires = "live")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=30))]
    pub(super) interval: u64,
    #[command(flatten)]
    pub(super) filters: Filters,
}

impl Top {
    /// As query parameters.
    pub(super) fn pairs(&self, clock: &Clock) -> Result<Parameters, CtlError> {
        let Self { by, sort, order, limit, live: _, interval: _, filters } = self;
        let mut pairs = filters.pairs(clock)?;
        let own = [("by", by.to_string()), ("sort", sort.clone()), ("limit", limit.to_string())];
        pairs.extend(own);
        pairs.extend(order.clone().map(|order| ("order", order)));
        Ok(pairs)
    }
}

/// What the filters leave, over time.
#[derive(Clone, Debug, Args)]
pub(super) struct Series {
    /// The length of a step: 1m, 5m, 15m, 1h, 6h, 1d; unless told, what makes about a hundred.
    #[arg(long, value_parser = step, add = complete::words(["1m", "5m", "15m", "1h", "6h", "1d"]))]
    pub(super) step: Option<Step>,
    /// A line for each: peer, user, src, dst, dst_port, protocol, rule, verdict, or several with
    /// commas.
    #[arg(long, visible_alias = "group-by", value_parser = grouping, add = properties())]
    pub(super) by: Option<Grouping>,
    /// What the bars are of, and which lines come first.
    #[arg(long, default_value = Sort::Bytes.word(), value_parser = words(Sort::ALL.map(Sort::word)))]
    pub(super) sort: String,
    /// How many lines at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: Option<u64>,
    #[command(flatten)]
    pub(super) filters: Filters,
}

impl Series {
    /// As query parameters.
    pub(super) fn pairs(&self, clock: &Clock) -> Result<Parameters, CtlError> {
        let Self { step, by, sort, limit, filters } = self;
        let mut pairs = filters.pairs(clock)?;
        pairs.extend(step.map(|step| ("step", step.to_string())));
        pairs.extend(by.as_ref().map(|by| ("by", by.to_string())));
        pairs.push(("sort", sort.clone()));
        pairs.extend(limit.map(|limit| ("limit", limit.to_string())));
        Ok(pairs)
    }

    /// What the bars are of.
    pub(super) fn sort(&self) -> Sort {
        Sort::from_word(&self.sort).expect("only its words are accepted")
    }
}

const ORDERS: [&str; 2] = [Order::Descending.word(), Order::Ascending.word()];

fn grouping(text: &str) -> Result<Grouping, String> {
    let words = By::ALL.map(By::word).join(", ");
    text.parse().map_err(|error| format!("{error}: {words}"))
}

/// What flows are grouped by, for shells.
fn properties() -> ArgValueCandidates {
    complete::words(By::ALL.map(By::word))
}

fn step(text: &str) -> Result<Step, NotAStep> {
    text.parse()
}

/// One of these.
pub(super) fn words(words: impl IntoIterator<Item = &'static str>) -> PossibleValuesParser {
    PossibleValuesParser::new(words)
}
