//! `flowctl export`: stored records in the format of another tool, one after the other.
//!
//! - memory does not grow with the answer: a record is written before the next one is read
//! - with a bookmark, exactly what is new, once: it moves when everything has been written, and a run
//!   that fails leaves it where it was
//! - records come in the order of their ids, else the place to go on from would mean nothing
//! - ids have no gaps, so records that are gone from the store are missed and told

use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal as _, Write},
    os::fd::AsFd as _,
    path::PathBuf,
};

use clap::{Args, builder::PossibleValuesParser};

use super::{
    bookmark::{Bookmark, BookmarkError},
    client::Client,
    error::CtlError,
    filters::{Filters, Parameters},
    progress::{Progress, Way},
    records::each_line,
    text::{self, Clock},
};
use crate::{
    export::{Export, Format},
    flows::FlowId,
    wire::{Gap, GapList, Record, RecordPage, Segment, SegmentList, Status, Timestamp},
};

/// Gaps that the daemon lists at most.
const MAX_GAPS: u64 = 100_000;
/// Bytes that wait for the output.
const BUFFER_BYTES: usize = 256 * 1024;

/// What to export, as what, from where on.
#[derive(Clone, Debug, Args)]
pub(super) struct ExportArgs {
    /// The format; docs/formats.md has each, field by field.
    #[arg(long, value_parser = PossibleValuesParser::new(Format::ALL.map(Format::word)))]
    format: String,
    #[command(flatten)]
    filters: Filters,
    /// Only records behind this one, by its record_id.
    #[arg(long, value_name = "N", conflicts_with = "state")]
    after_record: Option<u64>,
    /// Only what is new since the last run with this FILE, which remembers it.
    ///
    /// The file is made by the first run and replaced, whole, when everything has been written. One
    /// for each job: it knows its gateway and its format.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["after_record", "until", "state"])]
    resume: Option<PathBuf>,
}

/// Writes the records to standard output.
pub(super) async fn run(
    client: &Client<'_>,
    wanted: &ExportArgs,
    clock: &Clock,
) -> Result<(), CtlError> {
    let format = Format::from_word(&wanted.format).expect("clap lets no other word pass");
    if !format.is_text() && io::stdout().is_terminal() {
        return Err(CtlError::NotForTerminals(format.word()));
    }
    let done = write(client, wanted, format, wanted.filters.pairs(clock)?).await;
    match done {
        // The next run begins where this one did.
        Err(CtlError::ClosedPipe) if wanted.resume.is_some() => Err(CtlError::Unread),
        done => done,
    }
}

async fn write(
    client: &Client<'_>,
    wanted: &ExportArgs,
    format: Format,
    filters: Parameters,
) -> Result<(), CtlError> {
    let status: Status = client.query("/v1/status", &[]).await?;
    let bookmark = match &wanted.resume {
        Some(path) => Some(Bookmark::read(path, &status.gateway, format)?),
        None => None,
    };
    let after = bookmark.as_ref().map(|bookmark| bookmark.record_id).or(wanted.after_record);
    let last = status.store.last_record_id;
    if let Some(after) = after.filter(|after| *after > last) {
        return Err(CtlError::BeyondStore { after, last });
    }
    if let Some(bookmark) = &bookmark {
        check_store(client, bookmark).await?;
    }
    let gaps = match format.has_gaps() {
        true => gaps(client, &filters).await?,
        false => Vec::new(),
    };

    let mut run = Run {
        export: Export::begin(format, BufWriter::with_capacity(BUFFER_BYTES, io::stdout()))?,
        progress: Progress::begin(way(&wanted.filters, &filters, after, &status)),
        ids: Ids { last: after.unwrap_or(0), ..Ids::default() },
        told_gaps: 0,
    };
    let mut pairs = filters;
    let is_whole = pairs.is_empty();
    pairs.push(("cursor", after.unwrap_or(0).to_string()));
    let body = client.open("/v1/records", &pairs, "application/x-ndjson").await?;
    each_line(body, |line| run.record(line)).await?;
    let last_gap = run.gaps(&gaps, bookmark.as_ref(), status.now)?;
    let Run { export, progress, ids, told_gaps } = run;
    export.end()?;
    progress.end();

    if let (Some(path), Some(bookmark)) = (&wanted.resume, bookmark) {
        settle(&io::stdout())?;
        let moved = Bookmark {
            record_id: ids.last,
            flow_id: ids.last_flow.or(bookmark.flow_id),
            gap_id: last_gap.max(bookmark.gap_id),
            at: status.now,
            ..bookmark
        };
        moved.write(path)?;
    }
    // The bookmark does not wait for what is only told.
    if let Some(after) = after {
        tell_gone(client, after, is_whole.then_some(ids.missing)).await?;
    }
    if wanted.resume.is_none() {
        let Ids { count, last, .. } = ids;
        text::tell(&format_args!("{count} records; the last one is record {last}"));
    }
    if after.is_some() && ids.count == 0 && told_gaps == 0 {
        return Err(CtlError::NothingNew);
    }
    Ok(())
}

/// From where to where records come: by their times, where a range is asked for, else by their
/// numbers.
fn way(wanted: &Filters, sent: &Parameters, after: Option<u64>, status: &Status) -> Way {
    if wanted.range.since.is_none() && wanted.range.until.is_none() {
        return Way::Numbers(after.unwrap_or(0), status.store.last_record_id);
    }
    let until = sent.iter().find(|(name, _)| *name == "until");
    let until = until.and_then(|(_, text)| text.parse::<jiff::Timestamp>().ok());
    let now_ms = status.now.0;
    Way::Times(until.map_or(now_ms, |until| until.as_millisecond().min(now_ms)))
}

/// Says how many records have gone: those that are missing, where their numbers tell.
async fn tell_gone(client: &Client<'_>, after: u64, missing: Option<u64>) -> Result<(), CtlError> {
    let (gone, which) = match missing {
        Some(missing) => (missing, ""),
        None => {
            let list = client.query("/v1/segments", &[]).await?;
            (gone(&list, after), ", whatever the filters would have taken of them")
        }
    };
    if gone > 0 {
        text::tell(&format_args!(
            "{gone} records behind record {after} are no longer in the store{which}; see \
             `flowctl segments list`"
        ));
    }
    Ok(())
}

/// How many records behind `after` went with their days.
fn gone(list: &SegmentList, after: u64) -> u64 {
    let behind = |day: &Segment| {
        let (first, last) = day.first_record_id.zip(day.last_record_id)?;
        Some((last + 1).saturating_sub(first.max(after + 1)))
    };
    list.segments.iter().filter(|day| day.state == "removed").filter_map(behind).sum()
}

/// Refuses a bookmark whose record is another one by now: numbers begin anew when a store was
/// removed.
async fn check_store(client: &Client<'_>, bookmark: &Bookmark) -> Result<(), CtlError> {
    let (Some(flow_id), Some(before)) = (bookmark.flow_id, bookmark.record_id.checked_sub(1))
    else {
        return Ok(());
    };
    let pairs = [("cursor", before.to_string()), ("limit", "1".to_owned())];
    let page: RecordPage = client.query("/v1/records", &pairs).await?;
    let is_other =
        |record: &Record| record.record_id == Some(bookmark.record_id) && record.flow_id != flow_id;
    if page.records.iter().any(is_other) {
        return Err(CtlError::OtherStore(bookmark.record_id));
    }
    Ok(())
}

/// The gaps of the range, oldest first.
async fn gaps(client: &Client<'_>, filters: &Parameters) -> Result<Vec<Gap>, CtlError> {
    let is_of_gaps = |name: &str| ["since", "until", "peer", "interface"].contains(&name);
    let mut pairs = filters.clone();
    pairs.retain(|(name, _)| is_of_gaps(name));
    pairs.push(("limit", MAX_GAPS.to_string()));
    let mut list: GapList = client.query("/v1/gaps", &pairs).await?;
    let untold = list.sum.count.saturating_sub(list.gaps.len() as u64);
    if untold > 0 {
        text::tell(&format_args!("the {untold} oldest gaps are left out; narrow with --since"));
    }
    list.gaps.reverse();
    Ok(list.gaps)
}

/// An export under way.
struct Run {
    export: Export<BufWriter<io::Stdout>>,
    progress: Progress,
    ids: Ids,
    told_gaps: u64,
}

impl Run {
    fn record(&mut self, line: &[u8]) -> Result<(), CtlError> {
        let record: Record =
            serde_json::from_slice(line).map_err(|error| CtlError::Nonsense(error.to_string()))?;
        let Some(id) = record.record_id.filter(|id| *id > self.ids.last) else {
            let (id, last) = (record.record_id, self.ids.last);
            return Err(CtlError::Nonsense(format!("record {id:?} behind record {last}")));
        };
        self.export.record(&record)?;
        self.ids.next(id, record.flow_id);
        self.progress.at(id, record.window_end.0);
        Ok(())
    }

    /// Tells the gaps that the bookmark does not have, and how those that it has went on. The
    /// highest number of them.
    fn gaps(
        &mut self,
        gaps: &[Gap],
        bookmark: Option<&Bookmark>,
        now: Timestamp,
    ) -> Result<u64, CtlError> {
        let mut last = 0;
        for gap in gaps {
            let since = match (gap.gap_id, bookmark) {
                (_, None) => None,
                // It would be another one when it has its number: told then.
                (None, Some(_)) => continue,
                (Some(id), Some(bookmark)) => (id <= bookmark.gap_id).then_some(bookmark.at),
            };
            last = last.max(gap.gap_id.unwrap_or(0));
            self.told_gaps += u64::from(self.export.gap(gap, since, now)?);
        }
        Ok(last)
    }
}

/// The numbers of the records of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ids {
    count: u64,
    last: u64,
    /// The flow of the last one.
    last_flow: Option<FlowId>,
    /// Between the first asked for and the last one.
    missing: u64,
}

impl Ids {
    fn next(&mut self, id: u64, flow: FlowId) {
        self.last_flow = Some(flow);
        self.count += 1;
        self.missing += id.saturating_sub(self.last + 1);
        self.last = id;
    }
}

/// Waits until what was written is on the disk, where it goes to one: the bookmark must not be
/// ahead of it after a power failure.
fn settle(stdout: &io::Stdout) -> Result<(), CtlError> {
    stdout.lock().flush()?;
    let file = File::from(stdout.as_fd().try_clone_to_owned()?);
    match file.sync_all() {
        // A pipe or a terminal.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EROFS)) => Ok(()),
        done => Ok(done?),
    }
}

impl From<BookmarkError> for CtlError {
    fn from(error: BookmarkError) -> Self {
        Self::Bookmark(error)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::{Clock, Ids, Segment, SegmentList, Timestamp, gone};
    use crate::{
        ctl::args::{Cli, Command},
        flows::{Counters, FlowId},
    };

    #[test]
    fn records_that_are_gone_are_missed() {
        let cases = [
            // after, ids, (count, last, missing)
            (0, vec![1, 2, 3], (3, 3, 0)),
            (5, vec![6, 7], (2, 7, 0)),
            (5, vec![9, 12], (2, 12, 5)),
            (5, vec![], (0, 5, 0)),
        ];
        for (after, seen, (count, last, missing)) in cases {
            let mut ids = Ids { last: after, ..Ids::default() };
            seen.iter().for_each(|id| ids.next(*id, FlowId(uuid::Uuid::nil())));
            let told = (ids.count, ids.last, ids.missing);
            assert_eq!(told, (count, last, missing), "{after}: {seen:?}");
        }
    }

    #[test]
    fn records_that_went_with_their_days_are_counted() {
        let day = |state: &str, ids: Option<(u64, u64)>| Segment {
            day: "2026-11-20".to_owned(),
            state: state.to_owned(),
            file: String::new(),
            bytes: 0,
            records: 0,
            flows: 0,
            counters: Counters::default(),
            first_record_id: ids.map(|(first, _)| first),
            last_record_id: ids.map(|(_, last)| last),
            sha256: None,
            since: None,
            why: None,
        };
        let days = [
            day("removed", Some((1, 10))),
            day("removed", None),
            day("removed", Some((11, 15))),
            day("sealed", Some((16, 20))),
        ];
        let list = SegmentList { path: String::new(), segments: days.to_vec() };
        for (after, expected) in [(0, 15), (1, 14), (10, 5), (12, 3), (15, 0), (18, 0)] {
            assert_eq!(gone(&list, after), expected, "behind {after}");
        }
    }

    #[test]
    fn what_would_miss_records_later_cannot_be_resumed() {
        let cases = [
            ("--resume f", true),
            ("--resume f --since 24h --peer alice", true),
            ("--after-record 5 --until today", true),
            ("--resume f --until today", false),
            ("--resume f --state closed", false),
            ("--resume f --after-record 5", false),
            ("--after-record 5 --state open", false),
        ];
        for (flags, is_right) in cases {
            let line = format!("flowctl export --format csv {flags}");
            let parsed = Cli::try_parse_from(line.split(' '));
            assert_eq!(parsed.is_ok(), is_right, "{line}");
        }
        assert!(Cli::try_parse_from(["flowctl", "export"]).is_err(), "the format is asked for");
        assert!(Cli::try_parse_from(["flowctl", "export", "--format", "xlsx"]).is_err());
    }

    #[test]
    fn the_filters_are_those_of_every_command() {
        let line = "flowctl export --format ecs --since 1h --verdict deny --dst 10.0.0.0/8";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Command::Export(wanted) = cli.command else { panic!("{line}") };
        let pairs = wanted.filters.pairs(&Clock::fixed(Timestamp(0))).unwrap();
        let names: Vec<_> = pairs.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["since", "dst", "verdict"]);
    }
}
