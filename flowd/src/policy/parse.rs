//! From the text of a policy to a policy that is checked whole.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    Known, Mode, Policy, Problem, Rule, Selector, entry,
    file::{File, Named, Word},
    groups,
    names::Names,
    ports,
    problem::{Report, is_visible, quoted},
    shadow::{self, Shadowed},
    unused,
};
use crate::flows::Verdict;

/// Characters of a rule's id.
const MAX_ID_CHARS: usize = 64;
/// Ids that records use for what no rule decided.
const RESERVED_IDS: [&str; 2] = ["default", "none"];

/// A policy, and what is odd about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// What it says.
    pub policy: Policy,
    /// In the order of the text.
    pub warnings: Vec<Problem>,
}

/// Parses a policy and checks it whole; everything that is wrong is told at once.
///
/// `known: None` means that the peers are not known, and names of peers, users and groups are not
/// checked: the peers of a stored policy may have gone.
pub fn parse(text: &str, known: Option<&Known<'_>>) -> Result<Checked, Vec<Problem>> {
    let mut report = Report::of(text);
    let file = File::read(text, &mut report);
    let names = Names::of(&file, known);
    let policy = policy(&file, &names, &mut report);
    if !report.is_wrong() {
        unused::warn(&file, &policy, &mut report);
        warn_of_shadowed(&file, &policy, &names, &mut report);
    }
    let warnings = report.finish()?;
    Ok(Checked { policy, warnings })
}

fn warn_of_shadowed(file: &File<'_>, policy: &Policy, names: &Names<'_>, report: &mut Report<'_>) {
    let Some(shadowed) = shadow::shadowed(policy, names) else {
        let text = "the rules have too many addresses to be searched for some that never decide";
        return report.warn(file.rules[0].at, text);
    };
    for Shadowed { rule, by } in shadowed {
        let (hidden, hiding) = (&policy.rules[rule], &policy.rules[by]);
        let text = format!(
            "rule `{}` (line {}) never decides: rule `{}` (line {}) matches everything it does",
            hidden.id, hidden.line, hiding.id, hiding.line
        );
        report.warn(file.rules[rule].at, &text);
    }
}

/// What is wrong is reported and left out.
fn policy(file: &File<'_>, names: &Names<'_>, report: &mut Report<'_>) -> Policy {
    let modes = [("observe", Mode::Observe), ("enforce", Mode::Enforce)];
    let verdicts = [("allow", Verdict::Allow), ("deny", Verdict::Deny)];
    let none = Policy::default();
    let mode = choice("mode", file.mode.as_ref(), modes, report).unwrap_or(none.mode);
    let default =
        choice("default", file.default.as_ref(), verdicts, report).unwrap_or(none.default);
    for Named { name, entries: _ } in file.groups.iter().chain(&file.resources) {
        if name.text.is_empty() || !name.text.chars().all(is_visible) {
            report.add(name.at, &format!("{} is no name that people can read", quoted(&name.text)));
        }
    }
    let groups = groups::unfold(&file.groups, names, report);
    let mut resources = BTreeMap::new();
    for Named { name, entries } in &file.resources {
        let nets = entries.iter().filter_map(|word| entry::address(word, report)).collect();
        resources.insert(name.text.to_string(), nets);
    }
    let mut lines = HashMap::new();
    let mut rules = Vec::with_capacity(file.rules.len());
    for raw in &file.rules {
        let line = report.line(raw.at);
        let id = raw.id.as_ref().and_then(|id| rule_id(id, line, &mut lines, report));
        let action = choice("action", raw.action.as_ref(), verdicts, report);
        let from = selectors(raw.from.as_deref(), names, report);
        let to = selectors(raw.to.as_deref(), names, report);
        let services = ports::services(raw, report);
        if let (Some(id), Some(action)) = (id, action) {
            rules.push(Rule { id, action, from, to, services, line });
        }
    }
    Policy { mode, default, groups, resources, rules }
}

/// The id, if it can be one and no rule before has it. `lines` remembers the rules' lines.
fn rule_id<'w>(
    word: &'w Word<'_>,
    line: usize,
    lines: &mut HashMap<&'w str, usize>,
    report: &mut Report<'_>,
) -> Option<Arc<str>> {
    let id = word.text.as_ref();
    let is_readable = id.chars().all(|c| is_visible(c) && !c.is_whitespace());
    if !is_readable || !(1..=MAX_ID_CHARS).contains(&id.chars().count()) {
        let text = format!(
            "{} is no id; an id has 1 to {MAX_ID_CHARS} printable characters and no spaces",
            quoted(id)
        );
        report.add(word.at, &text);
        return None;
    }
    if RESERVED_IDS.contains(&id) {
        report.add(word.at, &format!("`{id}` is reserved; give the rule another id"));
        return None;
    }
    if let Some(first) = lines.get(id) {
        report.add(word.at, &format!("the rule on line {first} has the id {} too", quoted(id)));
        return None;
    }
    lines.insert(id, line);
    Some(id.into())
}

fn selectors(
    words: Option<&[Word<'_>]>,
    names: &Names<'_>,
    report: &mut Report<'_>,
) -> Vec<Selector> {
    let words = words.unwrap_or_default().iter();
    words.filter_map(|word| entry::selector(word, names, report)).collect()
}

/// One of two words; `None`: absent, or reported.
fn choice<T: Copy>(
    key: &str,
    word: Option<&Word<'_>>,
    choices: [(&str, T); 2],
    report: &mut Report<'_>,
) -> Option<T> {
    let word = word?;
    let found = choices.iter().find(|(known, _)| *known == word.text);
    if found.is_none() {
        let [(one, _), (other, _)] = choices;
        let text = quoted(&word.text);
        report.add(word.at, &format!("unknown {key} {text}; write \"{one}\" or \"{other}\""));
    }
    found.map(|(_, choice)| *choice)
}
