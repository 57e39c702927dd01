//! What a policy file may say: tables, lists and words with their places. Nothing of it is
//! trusted.
//!
//! A walk over the untyped document instead of serde's derive, which stops at the first thing
//! that has the wrong type.

use std::borrow::Cow;

use toml::{
    Spanned,
    de::{DeInteger, DeTable, DeValue},
};

use super::problem::{Report, quoted};
use crate::nearest::nearest;

const TOP_KEYS: [&str; 5] = ["mode", "default", "groups", "resources", "rules"];
const RULE_KEYS: [&str; 6] = ["id", "action", "from", "to", "protocols", "ports"];

/// The file. What has the wrong type is reported and left out.
#[derive(Default)]
pub(super) struct File<'t> {
    pub(super) mode: Option<Word<'t>>,
    pub(super) default: Option<Word<'t>>,
    pub(super) groups: Vec<Named<'t>>,
    pub(super) resources: Vec<Named<'t>>,
    pub(super) rules: Vec<RawRule<'t>>,
}

/// One `[[rules]]`. What is `None` is absent, or reported.
pub(super) struct RawRule<'t> {
    /// The byte at which it begins.
    pub(super) at: usize,
    pub(super) id: Option<Word<'t>>,
    pub(super) action: Option<Word<'t>>,
    pub(super) from: Option<Vec<Word<'t>>>,
    pub(super) to: Option<Vec<Word<'t>>>,
    pub(super) protocols: Option<Vec<Word<'t>>>,
    pub(super) ports: Option<Vec<Word<'t>>>,
}

/// An entry of `[groups]` or `[resources]`.
pub(super) struct Named<'t> {
    pub(super) name: Word<'t>,
    pub(super) entries: Vec<Word<'t>>,
}

/// A string, or a number as a string in decimal.
pub(super) struct Word<'t> {
    /// The byte at which it begins.
    pub(super) at: usize,
    pub(super) text: Cow<'t, str>,
}

/// What the entries of a list may be.
#[derive(Clone, Copy, PartialEq)]
enum Entries {
    Strings,
    StringsOrNumbers,
}

impl<'t> File<'t> {
    pub(super) fn read(text: &'t str, report: &mut Report<'_>) -> Self {
        let mut file = Self::default();
        let table = match DeTable::parse(text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                report.add(at, &format!("not TOML: {}", error.message()));
                return file;
            }
        };
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "mode" => file.mode = string("mode", value, report),
                "default" => file.default = string("default", value, report),
                "groups" => file.groups = named("groups", value, report),
                "resources" => file.resources = named("resources", value, report),
                "rules" => file.rules = rules(value, report),
                _ => unknown_key(&key, &TOP_KEYS, report),
            }
        }
        file
    }
}

fn rules<'t>(value: Spanned<DeValue<'t>>, report: &mut Report<'_>) -> Vec<RawRule<'t>> {
    let at = value.span().start;
    let array = match value.into_inner() {
        DeValue::Array(array) => array,
        other => {
            let text = format!("`rules` is {}; write [[rules]] above each rule", kind(&other));
            report.add(at, &text);
            return Vec::new();
        }
    };
    let mut rules = Vec::with_capacity(array.len());
    for value in array {
        let at = value.span().start;
        match value.into_inner() {
            DeValue::Table(table) => rules.push(rule(at, table, report)),
            other => {
                let text = format!("`rules` holds {}; a rule is a table", kind(&other));
                report.add(at, &text);
            }
        }
    }
    rules
}

fn rule<'t>(at: usize, table: DeTable<'t>, report: &mut Report<'_>) -> RawRule<'t> {
    for (key, remedy) in [
        ("id", "give it a name of its own"),
        ("action", "write \"allow\" or \"deny\""),
        ("from", "write who opens the flow, or [\"any\"]"),
        ("to", "write to whom, or [\"any\"]"),
    ] {
        if !table.contains_key(key) {
            let id = table.get("id").and_then(|id| id.get_ref().as_str()).map(quoted);
            let rule = id.map_or_else(|| "a rule".to_owned(), |id| format!("rule {id}"));
            report.add(at, &format!("{rule} has no `{key}`; {remedy}"));
        }
    }
    let mut rule =
        RawRule { at, id: None, action: None, from: None, to: None, protocols: None, ports: None };
    for (key, value) in table {
        match key.get_ref().as_ref() {
            "id" => rule.id = string("id", value, report),
            "action" => rule.action = string("action", value, report),
            "from" => rule.from = selectors("from", value, report),
            "to" => rule.to = selectors("to", value, report),
            "protocols" => rule.protocols = numbers("protocols", "\"tcp\"", value, report),
            "ports" => rule.ports = numbers("ports", "\"22\", \"8000-8100\"", value, report),
            _ => unknown_key(&key, &RULE_KEYS, report),
        }
    }
    rule
}

/// The entries of a table of lists, in the order of the text.
fn named<'t>(
    table_name: &str,
    value: Spanned<DeValue<'t>>,
    report: &mut Report<'_>,
) -> Vec<Named<'t>> {
    let at = value.span().start;
    let table = match value.into_inner() {
        DeValue::Table(table) => table,
        other => {
            let text = format!("`{table_name}` is {}; write [{table_name}]", kind(&other));
            report.add(at, &text);
            return Vec::new();
        }
    };
    let example = if table_name == "groups" { "\"alice-laptop\"" } else { "\"10.0.5.0/24\"" };
    let mut entries: Vec<_> = table
        .into_iter()
        .map(|(key, value)| {
            let name = Word { at: key.span().start, text: key.into_inner() };
            let called = format!("{table_name}.{}", name.text);
            let empty = "leave it out";
            let entries = list(&called, example, empty, Entries::Strings, value, report);
            Named { name, entries: entries.unwrap_or_default() }
        })
        .collect();
    entries.sort_by_key(|entry| entry.name.at);
    entries
}

fn selectors<'t>(
    key: &str,
    value: Spanned<DeValue<'t>>,
    report: &mut Report<'_>,
) -> Option<Vec<Word<'t>>> {
    list(key, "\"any\"", "write [\"any\"] to mean everything", Entries::Strings, value, report)
}

fn numbers<'t>(
    key: &str,
    example: &str,
    value: Spanned<DeValue<'t>>,
    report: &mut Report<'_>,
) -> Option<Vec<Word<'t>>> {
    list(key, example, "leave it out to mean any", Entries::StringsOrNumbers, value, report)
}

fn list<'t>(
    key: &str,
    example: &str,
    empty: &str,
    allowed: Entries,
    value: Spanned<DeValue<'t>>,
    report: &mut Report<'_>,
) -> Option<Vec<Word<'t>>> {
    let at = value.span().start;
    let array = match value.into_inner() {
        DeValue::Array(array) => array,
        other => {
            let (key, kind) = (quoted(key), kind(&other));
            report.add(at, &format!("{key} is {kind}; write a list such as [{example}]"));
            return None;
        }
    };
    if array.is_empty() {
        report.add(at, &format!("{} is empty; {empty}", quoted(key)));
    }
    let mut words = Vec::with_capacity(array.len());
    for entry in array {
        let at = entry.span().start;
        match entry.into_inner() {
            DeValue::String(text) => words.push(Word { at, text }),
            DeValue::Integer(number) if allowed == Entries::StringsOrNumbers => {
                words.push(Word { at, text: decimal(&number) });
            }
            other => {
                let wanted = match allowed {
                    Entries::Strings => "strings",
                    Entries::StringsOrNumbers => "strings and whole numbers",
                };
                let (key, kind) = (quoted(key), kind(&other));
                report.add(at, &format!("{key} holds {kind}; its entries are {wanted}"));
            }
        }
    }
    Some(words)
}

fn string<'t>(key: &str, value: Spanned<DeValue<'t>>, report: &mut Report<'_>) -> Option<Word<'t>> {
    let at = value.span().start;
    match value.into_inner() {
        DeValue::String(text) => Some(Word { at, text }),
        other => {
            report.add(at, &format!("`{key}` is {}; it must be a string", kind(&other)));
            None
        }
    }
}

fn unknown_key(key: &Spanned<Cow<'_, str>>, known: &[&str], report: &mut Report<'_>) {
    let name = key.get_ref();
    let remedy = match nearest(name, known.iter().copied()) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("known here are {}", known.join(", ")),
    };
    report.add(key.span().start, &format!("unknown key {}; {remedy}", quoted(name)));
}

/// The number as people write it, whatever base it has in the file.
fn decimal<'t>(number: &DeInteger<'_>) -> Cow<'t, str> {
    let value = i128::from_str_radix(number.as_str(), number.radix());
    Cow::Owned(value.map_or_else(|_| number.to_string(), |value| value.to_string()))
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
