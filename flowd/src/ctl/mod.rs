//! flowctl: asks the daemon over its socket and shows what it says. The only module, besides the
//! binaries, that prints.

mod args;
mod bars;
mod client;
mod error;
mod filters;
mod flow;
mod flows;
mod gaps;
mod output;
mod peer;
mod peers;
mod policy;
mod records;
mod segments;
mod series;
mod status;
mod summary;
mod table;
mod text;
mod top;
mod totals;

use std::process::ExitCode;

pub use args::Cli;

use self::{
    args::{Command, SegmentsCommand},
    client::Client,
    error::CtlError,
    output::{Format, Screen},
};
use crate::wire;

/// Runs one command. 0: done, also when whoever reads the output has gone; 1: failed; 2: the command
/// line makes no sense.
pub fn run(cli: &Cli) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(execute(cli)),
        Err(error) => Err(CtlError::Runtime(error)),
    };
    match done {
        Ok(()) | Err(CtlError::ClosedPipe) => ExitCode::SUCCESS,
        Err(error @ CtlError::Usage(_)) => {
            eprintln!("flowctl: {error}");
            ExitCode::from(2)
        }
        Err(CtlError::Told) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("flowctl: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(cli: &Cli) -> Result<(), CtlError> {
    let client = Client::new(&cli.socket);
    let mut screen = Screen::new(cli.utc, cli.color);
    match &cli.command {
        Command::Status => {
            let answer: wire::Status = client.get("/v1/status", &[]).await?;
            match cli.output {
                Format::Csv => screen.flat_csv(&answer.interfaces)?,
                _ => screen.one(cli.output, &answer, |screen| status::show(screen, &answer))?,
            }
            screen.flush()
        }
        Command::Summary(filters) => {
            let answer: wire::Summary =
                client.get("/v1/summary", &filters.pairs(&screen.clock)?).await?;
            screen.one(cli.output, &answer, |screen| summary::show(screen, &answer))
        }
        Command::Flows(page) => flows::run(&client, &mut screen, cli.output, page).await,
        Command::Flow { flow_id } => {
            let path = format!("/v1/flows/{}", client::encode(flow_id));
            let answer: wire::FlowDetail = client.get(&path, &[]).await?;
            match cli.output {
                Format::Csv => {
                    screen.csv(&wire::CSV_COLUMNS, answer.records.iter().map(wire::csv_row))
                }
                _ => screen.one(cli.output, &answer, |screen| flow::show(screen, &answer)),
            }
        }
        Command::Gaps(gaps) => {
            let answer: wire::GapList = client.get("/v1/gaps", &gaps.pairs(&screen.clock)?).await?;
            gaps::run(&mut screen, cli.output, &answer)
        }
        Command::Top(top) => {
            let answer: wire::Top = client.get("/v1/top", &top.pairs(&screen.clock)?).await?;
            top::run(&mut screen, cli.output, &answer)
        }
        Command::Series(args) => {
            let pairs = args.pairs(&screen.clock)?;
            let answer: wire::Series = client.get("/v1/series", &pairs).await?;
            series::run(&mut screen, cli.output, &answer, args.sort())
        }
        Command::Peers { peer } => {
            let pairs: Vec<_> = peer.iter().map(|peer| ("peer", peer.clone())).collect();
            let answer: wire::PeerList = client.get("/v1/peers", &pairs).await?;
            peers::run(&mut screen, cli.output, &answer)
        }
        Command::Peer { peer, range } => {
            let path = format!("/v1/peers/{}", client::encode(peer));
            let pairs = range.pairs(&screen.clock)?;
            let answer: wire::PeerDetail = client.get(&path, &pairs).await?;
            match cli.output {
                Format::Csv => {
                    let events = answer.events.iter().map(wire::peer_event_csv_row);
                    screen.csv(&wire::PEER_EVENT_CSV_COLUMNS, events)?;
                    screen.flush()
                }
                _ => screen.one(cli.output, &answer, |screen| peer::show(screen, &answer)),
            }
        }
        Command::Policy { command } => policy::run(&client, &mut screen, cli.output, command).await,
        Command::Segments { command: SegmentsCommand::List } => {
            let answer: wire::SegmentList = client.get("/v1/segments", &[]).await?;
            segments::list(&mut screen, cli.output, &answer)
        }
        Command::Segments { command: SegmentsCommand::Verify { segments, store } } => {
            segments::verify(&mut screen, cli.output, store, segments)
        }
        Command::Totals(totals) => {
            let answer: wire::DayTotalList = client.get("/v1/totals", &totals.pairs()).await?;
            totals::run(&mut screen, cli.output, &answer)
        }
        Command::Watch(filters) => {
            let pairs = filters.pairs(&screen.clock)?;
            records::watch(&client, &mut screen, cli.output, &pairs).await
        }
        Command::Records(page) => records::list(&client, &mut screen, cli.output, page).await,
    }
}
