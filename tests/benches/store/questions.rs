//! What the store is asked, and how the same is said in SQL.

use std::{
    error::Error,
    net::IpAddr,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use flowd::{
    flows::{By, Filter, FlowId, Gap, Order, Ranking, Sort},
    store::{
        Leash, ReadError, Reader,
        sql::{self, Answer, Beside, Cell, Question as Statement},
    },
    wire,
};
use ipnet::IpNet;

use super::{
    Figure,
    filled::{Facts, Filled, GATEWAY},
};

const HOUR_MS: i64 = 3_600_000;
/// Times that something is asked, of which the median counts: fewer of what takes long, and more of what
/// takes little, since the machine may be slow for a moment.
const TRIES: usize = 7;
const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_secs(1);

/// A question with a number for an answer, so that answers can be compared.
pub(super) struct Question {
    pub(super) what: &'static str,
    /// For DuckDB: a number, or rows of which the number counts.
    pub(super) duckdb: String,
    /// A statistic of nfdump's, if it has all that is asked for.
    pub(super) nfdump: Option<[String; 5]>,
    /// Takes seconds.
    pub(super) is_long: bool,
    ask: Ask,
}

type Ask = Box<dyn Fn(&Reader) -> Result<u64, ReadError>>;

/// What an answer was and how long it took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    pub(super) answer: u64,
    pub(super) warm: Duration,
    pub(super) cold: Duration,
}

/// The questions of the targets.
pub(super) fn all(facts: &Facts) -> Vec<Question> {
    let Facts { peer, source, usual, needle, long, short, last_ms } = facts.clone();
    let hour_ms = last_ms - HOUR_MS;
    let bytes = "SELECT coalesce(sum(rx_bytes + tx_bytes), 0) FROM records";
    let of_peer = format!("(src_peer = '{peer}' OR dst_peer = '{peer}')");
    let named = Filter { peer: Some(peer), ..Filter::default() };
    let from = Filter { src: Some(IpNet::from(source)), ..Filter::default() };
    let at = |address| Filter { ip: Some(IpNet::from(address)), ..Filter::default() };
    let lately = |what, address: IpAddr| Question {
        what,
        duckdb: format!(
            "SELECT * FROM records WHERE (src_ip = '{address}' OR dst_ip = '{address}') \
             AND window_end >= {hour_ms}"
        ),
        nfdump: None,
        is_long: false,
        ask: rows(Filter { since_ms: Some(hour_ms), ..at(address) }),
    };
    let unserved = Filter { dst_port: Some(9_100), min_bytes: Some(100_000), ..Filter::default() };
    let newest = named.clone();
    let top = "SELECT dst_ip, sum(rx_bytes + tx_bytes) AS bytes FROM records \
        GROUP BY dst_ip ORDER BY bytes DESC LIMIT 10";
    vec![
        sum("one peer, sum", named, format!("{bytes} WHERE {of_peer}")),
        Question {
            nfdump: nfdump_sum(&format!("src ip {source}")),
            ..sum("one source, sum", from, format!("{bytes} WHERE src_ip = '{source}'"))
        },
        lately("rows of one address, last hour", usual),
        lately("rows of a busy one, last hour", source),
        Question {
            what: "last 100 flows of a peer",
            duckdb: format!(
                "SELECT flow_id, max(first_seen) AS first, sum(rx_bytes), sum(tx_bytes) \
                 FROM records WHERE {of_peer} GROUP BY flow_id ORDER BY first DESC LIMIT 100"
            ),
            nfdump: None,
            is_long: false,
            ask: Box::new(move |reader| {
                Ok(reader.flows(&newest, None, 100, u64::MAX >> 1)?.len() as u64)
            }),
        },
        by_id("flow of two records, by id", short),
        by_id("flow of many records, by id", long),
        Question {
            nfdump: nfdump_sum(&format!("ip {needle}")),
            ..sum("one remote address, sum", at(needle), {
                format!("{bytes} WHERE src_ip = '{needle}' OR dst_ip = '{needle}'")
            })
        },
        Question {
            what: "top 10 destinations of all",
            duckdb: format!("SELECT sum(bytes) FROM ({top})"),
            nfdump: Some(["-n", "10", "-s", "dstip/bytes", "any"].map(str::to_owned)),
            is_long: false,
            ask: Box::new(|reader| {
                Ok(first(reader.top(&Filter::default(), By::Dst, u64::MAX >> 1)?))
            }),
        },
        Question {
            what: "the same in SQL",
            duckdb: format!("SELECT sum(bytes) FROM ({top})"),
            nfdump: None,
            is_long: true,
            ask: Box::new(move |reader| in_sql(reader, &format!("SELECT sum(bytes) FROM ({top})"))),
        },
        Question {
            what: "sum by verdict",
            duckdb: "SELECT sum(bytes) FROM (SELECT verdict, sum(rx_bytes + tx_bytes) AS bytes \
                FROM records GROUP BY verdict) WHERE verdict = 'deny'"
                .to_owned(),
            nfdump: None,
            is_long: false,
            ask: Box::new(|reader| {
                Ok(reader.summary(&Filter::default(), u64::MAX >> 1)?.denied.bytes)
            }),
        },
        sum("a port and a size, sum", unserved, {
            format!("{bytes} WHERE dst_port = 9100 AND total_rx_bytes + total_tx_bytes >= 100000")
        }),
    ]
}

fn rows(filter: Filter) -> Ask {
    Box::new(move |reader| {
        let mut count = 0;
        reader.records(&filter, 0, u64::MAX >> 1, &mut |_record| {
            count += 1;
            ControlFlow::Continue(())
        })?;
        Ok(count)
    })
}

fn sum(what: &'static str, filter: Filter, duckdb: String) -> Question {
    let ask: Ask =
        Box::new(move |reader| Ok(reader.summary(&filter, u64::MAX >> 1)?.counters.bytes()));
    Question { what, duckdb, nfdump: None, is_long: false, ask }
}

fn by_id(what: &'static str, flow: FlowId) -> Question {
    let ask: Ask = Box::new(move |reader| {
        let found = reader.flow(flow, u64::MAX >> 1)?;
        Ok(found.map_or(0, |(records, _)| records.len() as u64))
    });
    let duckdb = format!("SELECT * FROM records WHERE flow_id = '{flow}'");
    Question { what, duckdb, nfdump: None, is_long: false, ask }
}

fn nfdump_sum(filter: &str) -> Option<[String; 5]> {
    Some(["-n", "0", "-s", "proto/bytes", filter].map(str::to_owned))
}

fn first(ranking: Ranking) -> u64 {
    let (rows, _) = ranking.first(10, Sort::Bytes, Order::Descending);
    rows.iter().map(|(_, sum)| sum.counters.bytes()).sum()
}

/// The one number that a statement answers.
fn in_sql(reader: &Reader, text: &str) -> Result<u64, ReadError> {
    let statement = Statement {
        text: text.to_owned(),
        gateway: GATEWAY.into(),
        watermark: u64::MAX >> 1,
        now_ms: 0,
    };
    let mut number = Number(0);
    sql::ask(reader, &Leash::default(), &statement, &Nothing, &mut number)?;
    Ok(number.0)
}

struct Number(u64);

impl Answer for Number {
    fn columns(&mut self, _names: Vec<String>) {}

    fn row(&mut self, cells: &[Cell<'_>]) -> ControlFlow<()> {
        if let [Cell::Integer(number)] = cells {
            self.0 = number.cast_unsigned();
        }
        ControlFlow::Continue(())
    }
}

/// No daemon.
struct Nothing;

impl Beside for Nothing {
    fn gaps(&self) -> Result<Vec<Gap>, String> {
        Ok(Vec::new())
    }

    fn peers(&self) -> Result<Arc<Vec<wire::Peer>>, String> {
        Ok(Arc::default())
    }
}

impl Question {
    /// Asks the store until the median is known, and nothing else.
    pub(super) fn time(&self, filled: &Filled) -> Result<Duration, Box<dyn Error>> {
        let reader = Reader::new(&filled.store(), GATEWAY);
        (self.ask)(&reader)?;
        median(&mut || timed(|| (self.ask)(&reader)))
    }

    /// Asks a reader that has kept nothing yet, until the median is known.
    pub(super) fn first(&self, filled: &Filled) -> Result<Duration, Box<dyn Error>> {
        median(&mut || {
            let reader = Reader::new(&filled.store(), GATEWAY);
            timed(|| (self.ask)(&reader))
        })
    }

    /// Asks the store until the median is known.
    pub(super) fn ask(&self, filled: &Filled) -> Result<Answered, Box<dyn Error>> {
        let mut cold = || -> Result<Duration, Box<dyn Error>> {
            let reader = Reader::new(&filled.store(), GATEWAY);
            filled.cool()?;
            timed(|| (self.ask)(&reader))
        };
        let cold = median(&mut cold)?;
        let reader = Reader::new(&filled.store(), GATEWAY);
        let answer = (self.ask)(&reader)?;
        let warm = median(&mut || timed(|| (self.ask)(&reader)))?;
        Ok(Answered { answer, warm, cold })
    }
}

fn timed(ask: impl FnOnce() -> Result<u64, ReadError>) -> Result<Duration, Box<dyn Error>> {
    let start = Instant::now();
    std::hint::black_box(ask()?);
    Ok(start.elapsed())
}

pub(super) fn median(
    time: &mut dyn FnMut() -> Result<Duration, Box<dyn Error>>,
) -> Result<Duration, Box<dyn Error>> {
    let mut taken: Vec<Duration> = Vec::new();
    let mut sum = Duration::ZERO;
    while sum < if taken.len() < TRIES { LONG } else { SHORT } {
        taken.push(time()?);
        sum += taken[taken.len() - 1];
    }
    taken.sort();
    Ok(taken[taken.len() / 2])
}

/// The figures of an answer.
pub(super) fn figures(what: &str, who: &'static str, answered: &Answered) -> [Figure; 2] {
    let Answered { warm, cold, answer: _ } = *answered;
    [figure(what, "warm", who, warm), figure(what, "cold", who, cold)]
}

/// How long an answer took, and how it was asked for.
pub(super) fn figure(what: &str, how: &str, who: &'static str, time: Duration) -> Figure {
    Figure { what: format!("{what}, {how}"), who, value: time.as_secs_f64() * 1e3, unit: "ms" }
}
