//! `flowctl verify`: whether the history is as it was sealed. Reads the files itself, so that a copy
//! can be checked where no daemon is, by somebody who need not trust the gateway; or asks the daemon.

use std::{fmt::Display, path::PathBuf, str::FromStr};

use clap::Args;

use super::{
    client::Client,
    error::CtlError,
    output::{Format, Screen},
    text,
};
use crate::{
    seal::{DayProof, DayState, Hash, Proof, PublicKey},
    store,
};

/// What to check, and against what.
#[derive(Clone, Debug, Args)]
pub(super) struct Verify {
    /// Directory of the store, or a copy of it.
    #[arg(value_name = "DIR", default_value = "/var/lib/flowd")]
    pub(super) store: PathBuf,
    /// Ask the daemon instead, whose audit log says so then.
    #[arg(long, conflicts_with = "store")]
    pub(super) online: bool,
    /// A public key of the gateway that was kept elsewhere, as `flowctl keys show` prints it. More
    /// than one where a key was lost.
    #[arg(long = "key", value_name = "PUB", required = true)]
    pub(super) keys: Vec<String>,
    /// A hash that an earlier check printed: what it spoke of must still be there.
    #[arg(long = "known", value_name = "HASH")]
    pub(super) known: Vec<String>,
}

/// Checks a store; fails when anything is wrong.
pub(super) async fn run(
    client: &Client<'_>,
    screen: &mut Screen,
    format: Format,
    wanted: &Verify,
) -> Result<(), CtlError> {
    let Verify { store, online, keys, known } = wanted;
    let keys: Vec<PublicKey> = all("--key", keys)?;
    let known: Vec<Hash> = all("--known", known)?;
    let (name, proof) = if *online {
        let mut pairs = vec![("key", joined(&keys))];
        pairs.extend((!known.is_empty()).then(|| ("known", joined(&known))));
        ("the daemon's store".to_owned(), client.query("/v1/verify", &pairs).await?)
    } else {
        let proof = store::prove(store, &keys, &known).map_err(CtlError::Prove)?;
        (text::visible(&store.display().to_string()), proof)
    };
    match format {
        Format::Table => tell(screen, &name, &proof)?,
        Format::Json => screen.json(&proof)?,
        Format::Jsonl => screen.json_line(&proof)?,
        Format::Csv => screen.flat_csv(&proof.days)?,
    }
    screen.flush()?;
    if proof.is_good { Ok(()) } else { Err(CtlError::Told) }
}

/// Each of what was given with a flag.
pub(super) fn all<T: FromStr<Err: Display>>(
    flag: &str,
    texts: &[String],
) -> Result<Vec<T>, CtlError> {
    let one = |text: &String| {
        let wrong = |error| CtlError::Usage(format!("{flag} {}: {error}", text::visible(text)));
        text.parse().map_err(wrong)
    };
    texts.iter().map(one).collect()
}

/// As the API takes a list.
pub(super) fn joined<T: Display>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn tell(screen: &mut Screen, name: &str, proof: &Proof) -> Result<(), CtlError> {
    let visible = text::visible;
    for day in &proof.days {
        screen.line(&line(day))?;
    }
    for note in &proof.notes {
        screen.line(&format!("note: {}", visible(note)))?;
    }
    for fault in &proof.faults {
        let (file, kind) = (visible(&fault.file), fault.kind.word());
        screen.line(&format!("{file}: WRONG: {kind}: {}", visible(&fault.detail)))?;
    }
    let Proof { statements, head, .. } = proof;
    if !head.is_empty() {
        screen.line(&format!(
            "{name}: the chain ends with statement {statements}, {head}: keep that hash, and \
             --known proves later that nothing up to it was cut"
        ))?;
    }
    let proven = proof.days.iter().filter(|day| day.state == DayState::Proven).count();
    let unproven: Vec<_> =
        proof.days.iter().filter(|day| day.state == DayState::Unproven).collect();
    let rest = match unproven.first().and_then(|day| day.first_record_id) {
        Some(first) => format!("; records from {first} on are sealed by nobody, and unproven"),
        None if unproven.is_empty() => String::new(),
        None => format!("; {} more are sealed by nobody, and unproven", unproven.len()),
    };
    let verdict = if proof.is_good { "nothing is wrong" } else { "WRONG" };
    screen.line(&format!("{name}: {verdict}: {proven} days are as they were sealed{rest}"))
}

fn line(day: &DayProof) -> String {
    let state = match day.state {
        DayState::Proven => "proven",
        DayState::Removed => "removed, what it had is proven",
        DayState::Unproven => "unproven",
        DayState::Wrong => "WRONG",
    };
    let records = match day.first_record_id.zip(day.last_record_id) {
        Some((first, last)) => format!("{} records, {first} to {last}", day.records),
        None => "no records".to_owned(),
    };
    format!("{}: {state}, {records}", text::visible(&day.file))
}
