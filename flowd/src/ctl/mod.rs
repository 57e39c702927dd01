//! flowctl: asks the daemon over its socket and shows what it says. The only module, besides the
//! binaries, that prints.

mod args;
mod audit;
mod bars;
mod bookmark;
mod client;
mod complete;
mod error;
mod export;
mod filters;
mod flow;
mod flows;
mod follow;
mod gaps;
mod keys;
mod lists;
mod live;
pub mod manual;
mod output;
mod peer;
mod peers;
mod policy;
mod progress;
mod records;
mod segments;
mod series;
mod sql;
mod status;
mod summary;
mod table;
mod text;
mod top;
mod totals;
mod verify;

use std::process::ExitCode;

pub use args::Cli;
pub use complete::complete;

use self::{
    args::{Command, SegmentsCommand},
    client::Client,
    error::CtlError,
    output::{Format, Screen},
};
use crate::wire;

/// The exit code of an export that found nothing new; `EX_NOINPUT` of BSD's `sysexits.h`.
pub const NOTHING_NEW: u8 = 66;

/// Runs one command. 0: done, also when whoever reads the output has gone; 1: failed; 2: the command
/// line makes no sense; 66 ([`NOTHING_NEW`]): an export went on from an earlier one and there was
/// nothing.
pub fn run(cli: &Cli) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(execute(cli)),
        Err(error) => Err(CtlError::Runtime(error)),
    };
    match done {
        Ok(()) | Err(CtlError::ClosedPipe) => ExitCode::SUCCESS,
        Err(error @ CtlError::Usage(_)) => {
            text::tell(&error);
            ExitCode::from(2)
        }
        Err(CtlError::Told) => ExitCode::FAILURE,
        Err(CtlError::NothingNew) => ExitCode::from(NOTHING_NEW),
        Err(error) => {
            text::tell(&error);
            ExitCode::FAILURE
        }
    }
}

async fn execute(cli: &Cli) -> Result<(), CtlError> {
    let client = Client::new(&cli.socket);
    let mut screen = Screen::new(cli.utc, cli.color, cli.output);
    let format = cli.output.format();
    match &cli.command {
        Command::Status => {
            let answer: wire::Status = client.get("/v1/status", &[]).await?;
            match format {
                Format::Csv => screen.flat_csv(&answer.interfaces)?,
                _ => screen.one(format, &answer, |screen| status::show(screen, &answer))?,
            }
            screen.flush()
        }
        Command::Summary(filters) => {
            let answer: wire::Summary =
                client.query("/v1/summary", &filters.pairs(&screen.clock)?).await?;
            screen.one(format, &answer, |screen| summary::show(screen, &answer))
        }
        Command::Flows(list) if list.follow => {
            follow::run(&client, &mut screen, format, list).await
        }
        Command::Flows(list) => flows::run(&client, &mut screen, format, list).await,
        Command::Manual { directory } => Ok(manual::write_own(directory)?),
        Command::Completion { shell } => complete::register(&mut screen, shell),
        Command::Flow { flow_id } => {
            let path = format!("/v1/flows/{}", client::encode(flow_id));
            let answer: wire::FlowDetail = client.query(&path, &[]).await?;
            match format {
                Format::Csv => {
                    screen.csv(&wire::CSV_COLUMNS, answer.records.iter().map(wire::csv_row))
                }
                _ => screen.one(format, &answer, |screen| flow::show(screen, &answer)),
            }
        }
        Command::Gaps(gaps) => {
            let answer: wire::GapList =
                client.query("/v1/gaps", &gaps.pairs(&screen.clock)?).await?;
            gaps::run(&mut screen, format, &answer)
        }
        Command::Audit { command } => audit::run(&client, &mut screen, format, command).await,
        Command::Top(top) if top.live => live::run(&client, &screen, format, top).await,
        Command::Top(top) => {
            let answer: wire::Top = client.query("/v1/top", &top.pairs(&screen.clock)?).await?;
            top::run(&mut screen, format, &answer)
        }
        Command::Series(args) => {
            let pairs = args.pairs(&screen.clock)?;
            let answer: wire::Series = client.query("/v1/series", &pairs).await?;
            series::run(&mut screen, format, &answer, args.sort())
        }
        Command::Peers { peer } => {
            let pairs: Vec<_> = peer.iter().map(|peer| ("peer", peer.clone())).collect();
            let answer: wire::PeerList = client.get("/v1/peers", &pairs).await?;
            peers::run(&mut screen, format, &answer)
        }
        Command::Peer { peer, range } => {
            let path = format!("/v1/peers/{}", client::encode(peer));
            let pairs = range.pairs(&screen.clock)?;
            let answer: wire::PeerDetail = client.query(&path, &pairs).await?;
            match format {
                Format::Csv => {
                    let events = answer.events.iter().map(wire::peer_event_csv_row);
                    screen.csv(&wire::PEER_EVENT_CSV_COLUMNS, events)?;
                    screen.flush()
                }
                _ => screen.one(format, &answer, |screen| peer::show(screen, &answer)),
            }
        }
        Command::Policy { command } => policy::run(&client, &mut screen, format, command).await,
        Command::Segments { command: SegmentsCommand::List } => {
            let answer: wire::SegmentList = client.query("/v1/segments", &[]).await?;
            segments::list(&mut screen, format, &answer)
        }
        Command::Segments { command: SegmentsCommand::Verify { segments, store } } => {
            segments::verify(&mut screen, format, store, segments)
        }
        Command::Verify(wanted) => verify::run(&client, &mut screen, format, wanted).await,
        Command::Keys { command } => keys::run(&mut screen, format, command),
        Command::Sql(asked) => sql::run(&client, &mut screen, format, asked).await,
        Command::Totals(totals) => {
            let answer: wire::DayTotalList =
                client.query("/v1/totals", &totals.pairs(&screen.clock)?).await?;
            totals::run(&mut screen, format, &answer)
        }
        Command::Watch(filters) => {
            let pairs = filters.pairs(&screen.clock)?;
            records::watch(&client, &mut screen, format, &pairs).await
        }
        Command::Export(wanted) => export::run(&client, wanted, &screen.clock).await,
        Command::Records(page) => records::list(&client, &mut screen, format, page).await,
    }
}
