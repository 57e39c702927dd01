//! The tier `fuzz`: every target on its seeds and on what can be made of them in a short time, the
//! same at every run. A target is one test.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result};

use super::outcome::{Failure, Outcome};
use super::report::beginning;
use crate::command::show;
use crate::fuzz::{self, Bounds};

/// Enough to notice what a change breaks; who looks for more runs `cargo xtask fuzz`.
const BOUNDS: Bounds = Bounds { inputs: Some(50_000), seconds: 25, seed: Some(1) };

/// What libFuzzer says of an input that it keeps.
const KEPT: &str = "Test unit written to ";
/// The same input, for whom the file is out of reach.
const IN_BASE64: &str = "Base64: ";

pub(super) fn run(filter: Option<&str>) -> Result<Outcome> {
    let mut targets = fuzz::targets()?;
    targets.retain(|target| filter.is_none_or(|filter| target.contains(filter)));
    let mut outcome = Outcome::default();
    if targets.is_empty() {
        return Ok(outcome);
    }
    fuzz::build()?;
    for target in targets {
        match run_target(&target)? {
            None => outcome.tally.passed += 1,
            Some(said) => {
                outcome.tally.failed += 1;
                outcome.failures.push(Failure { name: target, said });
            }
        }
    }
    Ok(outcome)
}

/// What is wrong, if something is.
fn run_target(target: &str) -> Result<Option<Vec<String>>> {
    let found = tempfile::tempdir()?;
    let mut command = fuzz::on_corpus(target, found.path(), BOUNDS)?;
    let started = Instant::now();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", show(&command)))?;
    let seconds = started.elapsed().as_secs();
    let text = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        println!("[fuzz {target}] {} in {seconds} s", inputs(&text));
        return Ok(None);
    }
    println!("[fuzz {target}] {} after {seconds} s:", output.status);
    let lines: Vec<_> = text.lines().filter(|line| !is_progress(line)).collect();
    lines.iter().for_each(|line| println!("[fuzz {target}] {line}"));
    Ok(Some(said(target, &lines)))
}

/// What a target said when it ended, and how to see it again.
fn said(target: &str, lines: &[&str]) -> Vec<String> {
    let panic: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
    let mut said = beginning(&panic);
    let kept = lines.iter().find_map(|line| line.split_once(KEPT));
    if let Some((_, input)) = kept {
        said.push(format!("reproduce: {}", fuzz::reproduction(target, input)));
    }
    said.extend(lines.iter().find(|line| line.starts_with(IN_BASE64)).map(|&line| line.to_owned()));
    said
}

/// libFuzzer's lines about inputs that are of use: `#123 NEW cov: …`.
fn is_progress(line: &str) -> bool {
    line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// `100000 inputs` in `Done 100000 runs in 12 second(s)`.
fn inputs(text: &str) -> String {
    let done = text.lines().find_map(|line| line.strip_prefix("Done ")?.split_once(" runs in "));
    format!("{} inputs", done.map_or("unknown", |(inputs, _)| inputs))
}

#[cfg(test)]
mod tests {
    use super::{inputs, is_progress, said};

    const FAILED: &str = "INFO: Seed: 1
#2\tINITED cov: 120 ft: 121 corp: 1/1b exec/s: 0 rss: 40Mb
#2048\tpulse  cov: 130 ft: 140 corp: 9/80b exec/s: 1024 rss: 41Mb

thread '<unnamed>' (7) panicked at fuzz/fuzz_targets/packet.rs:66:5:
families are mixed
stack backtrace:
   0: __rustc::rust_begin_unwind
==7== ERROR: libFuzzer: deadly signal
artifact_prefix='/flowd/fuzz/artifacts/packet/'; Test unit written to fuzz/artifacts/packet/crash-1f
Base64: YWI=";

    #[test]
    fn a_failure_says_how_to_see_it_again() {
        let lines: Vec<_> = FAILED.lines().filter(|line| !is_progress(line)).collect();
        let expected = [
            "thread '<unnamed>' (7) panicked at fuzz/fuzz_targets/packet.rs:66:5:",
            "families are mixed",
            "reproduce: cargo xtask fuzz packet fuzz/artifacts/packet/crash-1f",
            "Base64: YWI=",
        ];
        assert_eq!(said("packet", &lines), expected);
    }

    #[test]
    fn the_number_of_inputs_is_read() {
        assert_eq!(inputs("INFO: x\nDone 100000 runs in 12 second(s)\n"), "100000 inputs");
        assert_eq!(inputs(""), "unknown inputs");
    }
}
