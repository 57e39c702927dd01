//! `flowctl audit`: who did and read what. `verify` reads the file itself, so that a copy can be
//! checked where no daemon is.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};

use super::{
    client::Client,
    error::CtlError,
    filters::{Parameters, Range},
    lists::words,
    output::{Format, Screen},
    table::{Align, Table, Tone, Value},
    text::{self, Clock},
    verify,
};
use crate::{
    audit::{Head, Outcome},
    seal::PublicKey,
    store::AuditReader,
    wire::{self, AuditEntry, AuditPage, AuditVerdict},
};

/// Entries that are asked for at a time.
const PAGE: &str = "10000";
/// How often a list that is followed looks for what is new.
const INTERVAL: Duration = Duration::from_secs(1);

/// What to do with the audit log.
#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Who did and read what, newest first.
    #[command(after_help = "Example: flowctl audit list --event 'policy.*' --since 7d")]
    List(AuditList),
    /// Check that no entry was edited, moved or taken out, and with --key, that the log was neither
    /// truncated nor made anew.
    ///
    /// Reads the file itself; no daemon is needed. Exits with 1 when anything is wrong.
    #[command(after_help = "Example: flowctl audit verify")]
    Verify {
        /// The log.
        #[arg(default_value = "/var/lib/flowd/audit.sqlite")]
        file: PathBuf,
        /// Ask the daemon instead.
        #[arg(long, conflicts_with = "file")]
        online: bool,
        /// What an earlier check said of the newest entry, as it was kept elsewhere.
        #[arg(long, value_name = "SEQ:HASH")]
        head: Option<String>,
        /// A public key of the gateway that was kept elsewhere: what it, or one that it vouches for,
        /// has signed of the log in the `seals.chain` beside it has to be there, and it has to have
        /// signed what retention cut off.
        #[arg(long = "key", value_name = "PUB")]
        keys: Vec<String>,
    },
    /// Every entry that matches, a line of JSON each, in the order of their numbers.
    #[command(after_help = "Example: flowctl audit export --since 30d > audit.jsonl")]
    Export(AuditList),
}

/// Which entries.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct AuditList {
    #[command(flatten)]
    range: Range,
    /// Whose: name or number of a user, or `system`.
    #[arg(long, value_name = "USER")]
    actor: Option<String>,
    /// What happened: a word such as query, or the start of one such as policy.*
    #[arg(long)]
    event: Option<String>,
    /// To what, such as /v1/flows.
    #[arg(long)]
    resource: Option<String>,
    /// How it ended.
    #[arg(long, value_parser = words(Outcome::ALL.map(Outcome::word)))]
    outcome: Option<String>,
    /// What stands somewhere in them.
    #[arg(long)]
    text: Option<String>,
    /// How many at most, newest first.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Show what is new until interrupted, in the order of their numbers.
    #[arg(short, long)]
    follow: bool,
}

impl AuditList {
    /// As query parameters, all but the limit.
    fn pairs(&self, clock: &Clock) -> Result<Parameters, CtlError> {
        let Self { range, actor, event, resource, outcome, text, limit: _, follow: _ } = self;
        let own = [
            ("actor", actor),
            ("event", event),
            ("resource", resource),
            ("outcome", outcome),
            ("text", text),
        ];
        let mut pairs = range.pairs(clock)?;
        pairs.extend(own.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
        Ok(pairs)
    }
}

/// Runs one of the commands.
pub(super) async fn run(
    client: &Client<'_>,
    screen: &mut Screen,
    format: Format,
    command: &AuditCommand,
) -> Result<(), CtlError> {
    match command {
        AuditCommand::List(wanted) => {
            let mut pairs = wanted.pairs(&screen.clock)?;
            let limit = wanted.limit.map(|limit| ("limit", limit.to_string()));
            pairs.extend(limit);
            let page: AuditPage = client.query("/v1/audit", &pairs).await?;
            if !wanted.follow {
                return list(screen, format, &page);
            }
            follow(client, screen, format, wanted, page).await
        }
        AuditCommand::Export(wanted) => {
            let pairs = wanted.pairs(&screen.clock)?;
            let mut left = wanted.limit.unwrap_or(u64::MAX);
            let mut after = 0;
            while left > 0 {
                let page = behind(client, &pairs, after).await?;
                let Some(last) = page.entries.last() else { break };
                after = last.seq;
                for entry in &page.entries {
                    if left > 0 {
                        screen.json_line(entry)?;
                        left -= 1;
                    }
                }
            }
            screen.flush()
        }
        AuditCommand::Verify { file, online, head, keys } => {
            let keys: Vec<PublicKey> = verify::all("--key", keys)?;
            let verdict = if *online {
                let mut pairs: Vec<_> = head.iter().map(|head| ("head", head.clone())).collect();
                pairs.extend((!keys.is_empty()).then(|| ("key", verify::joined(&keys))));
                client.query("/v1/audit/verify", &pairs).await?
            } else {
                offline(file, head.as_deref(), &keys)?
            };
            tell(screen, format, &verdict)
        }
    }
}

async fn behind(
    client: &Client<'_>,
    pairs: &Parameters,
    after: u64,
) -> Result<AuditPage, CtlError> {
    let mut pairs = pairs.clone();
    pairs.extend([("after", after.to_string()), ("limit", PAGE.to_owned())]);
    client.query("/v1/audit", &pairs).await
}

async fn follow(
    client: &Client<'_>,
    screen: &mut Screen,
    format: Format,
    wanted: &AuditList,
    page: AuditPage,
) -> Result<(), CtlError> {
    let pairs = wanted.pairs(&screen.clock)?;
    let AuditPage { mut entries, .. } = page;
    entries.reverse();
    let mut after = entries.last().map_or(0, |entry| entry.seq);
    if format == Format::Csv {
        screen.csv(&wire::AUDIT_CSV_COLUMNS, std::iter::empty())?;
    }
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        for entry in &entries {
            one(screen, format, entry)?;
        }
        screen.flush()?;
        ticks.tick().await;
        AuditPage { entries, .. } = behind(client, &pairs, after).await?;
        after = entries.last().map_or(after, |entry| entry.seq);
    }
}

fn one(screen: &mut Screen, format: Format, entry: &AuditEntry) -> Result<(), CtlError> {
    match format {
        Format::Table => {
            let AuditEntry { event, outcome, .. } = entry;
            let line = format!(
                "{}  {}  {event}  {outcome}  {}",
                screen.clock.full(entry.time),
                entry.actor,
                said(entry)
            );
            screen.line(&text::visible(&line))
        }
        Format::Json | Format::Jsonl => screen.json_line(entry),
        Format::Csv => screen.csv_line(&wire::audit_csv_row(entry)),
    }
}

fn list(screen: &mut Screen, format: Format, page: &AuditPage) -> Result<(), CtlError> {
    match format {
        Format::Table => show(screen, page)?,
        Format::Json => screen.json(page)?,
        Format::Jsonl => {
            for entry in &page.entries {
                screen.json_line(entry)?;
            }
        }
        Format::Csv => {
            screen.csv(&wire::AUDIT_CSV_COLUMNS, page.entries.iter().map(wire::audit_csv_row))?;
        }
    }
    screen.flush()
}

fn show(screen: &mut Screen, page: &AuditPage) -> Result<(), CtlError> {
    if page.entries.is_empty() {
        return screen.line("No entries.");
    }
    let mut table = Table::new(&[
        ("SEQ", Align::Right, 4),
        ("TIME", Align::Left, 0),
        ("ACTOR", Align::Left, 0),
        ("EVENT", Align::Left, 0),
        ("OUTCOME", Align::Left, 0),
        ("COUNT", Align::Right, 3),
        ("PROGRAM", Align::Left, 5),
        ("WHAT", Align::Left, 1),
    ]);
    for entry in &page.entries {
        let tone = match entry.outcome.as_str() {
            "refused" | "failed" => Tone::Bad,
            _ => Tone::Good,
        };
        table.row(vec![
            entry.seq.to_string().into(),
            screen.clock.short(entry.time).into(),
            text::visible(&entry.actor).into(),
            text::visible(&entry.event).into(),
            Value::toned(text::visible(&entry.outcome), tone),
            entry.count.to_string().into(),
            entry.executable.as_deref().map(text::visible).unwrap_or_default().into(),
            text::visible(&said(entry)).into(),
        ]);
    }
    screen.table(table)?;
    if page.next_cursor.is_some() {
        screen.line("There are more; --limit N shows more, and `flowctl audit export` all.")?;
    }
    Ok(())
}

/// What was asked, in a line.
fn said(entry: &AuditEntry) -> String {
    let resource = entry.resource.as_deref().unwrap_or_default();
    let details: Vec<String> = entry
        .details
        .iter()
        .map(|(name, value)| match value {
            serde_json::Value::String(text) => format!("{name}={text}"),
            value => format!("{name}={value}"),
        })
        .collect();
    format!("{resource} {}", details.join(" ")).trim().to_owned()
}

fn offline(file: &Path, head: Option<&str>, keys: &[PublicKey]) -> Result<AuditVerdict, CtlError> {
    let known = head
        .map(|head| {
            let (seq, hash) = head.split_once(':')?;
            Some(Head { seq: seq.parse().ok()?, hash: hash.parse().ok()? })
        })
        .map(|known| {
            known.ok_or_else(|| {
                CtlError::Usage(
                    "--head is the number of an entry, a colon and its hash, as `flowctl audit \
                     verify` says them"
                        .to_owned(),
                )
            })
        })
        .transpose()?;
    let verdict = AuditReader::of_file(file).verify(known, keys).map_err(CtlError::Audit)?;
    Ok(verdict.into())
}

/// What is proven by signatures, and what is not.
fn signed(verdict: &AuditVerdict) -> String {
    let AuditVerdict { proven_seq, proven_at, nothing_proven, unproven, unproven_since, .. } =
        verdict;
    let rest = match unproven_since {
        Some(since) => format!("{unproven} entries since {since} are unproven"),
        None => "none is unproven".to_owned(),
    };
    match (proven_at, nothing_proven) {
        (Some(at), _) => format!("proven up to entry {proven_seq}, as was signed {at}; {rest}"),
        (None, Some(why)) => {
            format!("nothing is proven by signatures ({}); {rest}", text::visible(why))
        }
        (None, None) => format!("nothing is proven by signatures; {rest}"),
    }
}

fn tell(screen: &mut Screen, format: Format, verdict: &AuditVerdict) -> Result<(), CtlError> {
    match format {
        Format::Table => {
            let AuditVerdict { entries, cut, cut_by, head_seq, head_hash, more_problems, .. } =
                verdict;
            for problem in &verdict.problems {
                screen.line(&format!("WRONG: {}", text::visible(problem)))?;
            }
            if *more_problems > 0 {
                screen.line(&format!("WRONG: {more_problems} more"))?;
            }
            if verdict.is_whole {
                let cut = match cut_by {
                    Some(key) => {
                        let key = text::visible(key);
                        format!(", behind the {cut} that retention cut off, as {key} has signed")
                    }
                    None => String::new(),
                };
                screen.line(&format!("ok: {entries} entries{cut}"))?;
            }
            screen.line(&signed(verdict))?;
            screen.line(&format!("head {head_seq}:{}", text::visible(head_hash)))?;
        }
        Format::Json => screen.json(verdict)?,
        Format::Jsonl => screen.json_line(verdict)?,
        Format::Csv => screen.flat_csv(std::slice::from_ref(verdict))?,
    }
    screen.flush()?;
    if verdict.is_whole { Ok(()) } else { Err(CtlError::Told) }
}

#[cfg(test)]
mod tests {
    use super::signed;
    use crate::{
        audit::{Anchor, Head, Verdict},
        wire::AuditVerdict,
    };

    #[test]
    fn what_is_unproven_is_said() {
        let at_ms = 1_795_233_600_000;
        let anchor = Anchor { head: Head { seq: 7, ..Head::default() }, at_ms };
        let verdict = |proven, nothing_proven, unproven| {
            let unproven_since_ms = (unproven > 0).then_some(at_ms + 1);
            let found = Verdict {
                proven,
                nothing_proven,
                unproven,
                unproven_since_ms,
                ..Verdict::default()
            };
            signed(&AuditVerdict::from(found))
        };
        let cases = [
            (
                verdict(Some(anchor), None, 2),
                "proven up to entry 7, as was signed 2026-11-21T04:00:00.000Z; 2 entries since \
                 2026-11-21T04:00:00.001Z are unproven",
            ),
            (
                verdict(Some(anchor), None, 0),
                "proven up to entry 7, as was signed 2026-11-21T04:00:00.000Z; none is unproven",
            ),
            (
                verdict(None, Some("no key was given"), 3),
                "nothing is proven by signatures (no key was given); 3 entries since \
                 2026-11-21T04:00:00.001Z are unproven",
            ),
            (verdict(None, None, 0), "nothing is proven by signatures; none is unproven"),
        ];
        for (said, expected) in cases {
            assert_eq!(said, expected);
        }
    }
}
