//! `flowctl policy diff`: what a file says otherwise than the policy in force.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
    path::Path,
};

use serde::Serialize;

use super::{checked, read, show, tell, wrong};
use crate::{
    ctl::{
        client::Client,
        error::CtlError,
        output::{Format, Screen},
        text,
    },
    policy::{self, Policy, Rule},
    wire,
};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Difference {
    /// `+` new, `-` gone, `~` changed, `>` moved.
    sign: char,
    /// `mode`, `default`, `group`, `resource` or `rule`.
    what: &'static str,
    /// Of a group, resource or rule.
    name: Option<String>,
    /// As an operator reads it.
    detail: String,
}

/// Compares, and tells what the file would cut.
pub(super) async fn run(
    client: &Client<'_>,
    screen: &mut Screen,
    format: Format,
    file: &Path,
) -> Result<(), CtlError> {
    let report = checked(client, file).await?;
    if !report.problems.is_empty() {
        return Err(wrong(file, &report.problems));
    }
    tell(file, &report.warnings, "warning: ");
    let in_force: wire::Policy = client.get("/v1/policy", &[]).await?;
    let parse = |text: &str| {
        let parsed = policy::parse(text, None);
        parsed.map(|checked| checked.policy).map_err(CtlError::Policy)
    };
    let differences = differences(&parse(&in_force.text)?, &parse(&read(file)?)?);
    match format {
        Format::Table => {
            if differences.is_empty() {
                screen.line("They say the same.")?;
            }
            for Difference { sign, what, name, detail } in &differences {
                let name = name.as_deref().map(text::visible).unwrap_or_default();
                let line = format!("{sign} {what} {name}");
                screen.line(&format!("{}: {}", line.trim_end(), text::visible(detail)))?;
            }
            screen.line("")?;
            show::report(screen, &report)?;
        }
        Format::Json => screen.json(&differences)?,
        Format::Jsonl => {
            for difference in &differences {
                screen.json_line(difference)?;
            }
        }
        Format::Csv => screen.flat_csv(&differences)?,
    }
    screen.flush()
}

fn differences(old: &Policy, new: &Policy) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut changed = |what, old: &str, new: &str| {
        if old != new {
            let detail = format!("{old}, then {new}");
            differences.push(Difference { sign: '~', what, name: None, detail });
        }
    };
    changed("mode", old.mode.word(), new.mode.word());
    changed("default", old.default.word(), new.default.word());
    let groups = |policy: &Policy| {
        policy.groups.iter().map(|(name, group)| (name.clone(), members(group))).collect()
    };
    differences.extend(named("group", &groups(old), &groups(new)));
    let resources = |policy: &Policy| {
        let all = policy.resources.iter();
        all.map(|(name, nets)| (name.clone(), list(nets))).collect()
    };
    differences.extend(named("resource", &resources(old), &resources(new)));
    differences.extend(rules(old, new));
    differences
}

fn named(
    what: &'static str,
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut push = |sign, name: &String, detail| {
        differences.push(Difference { sign, what, name: Some(name.clone()), detail });
    };
    for (name, said) in old {
        match new.get(name) {
            None => push('-', name, said.clone()),
            Some(says) if says != said => push('~', name, format!("{said}, then {says}")),
            Some(_) => {}
        }
    }
    for (name, says) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        push('+', name, says.clone());
    }
    differences
}

fn rules(old: &Policy, new: &Policy) -> Vec<Difference> {
    let by_id = |policy: &Policy| -> HashMap<String, String> {
        policy.rules.iter().map(|rule| (rule.id.to_string(), content(rule))).collect()
    };
    let (before, after) = (by_id(old), by_id(new));
    let mut differences = Vec::new();
    let mut push = |sign, id: &str, detail| {
        let name = Some(id.to_owned());
        differences.push(Difference { sign, what: "rule", name, detail });
    };
    for rule in old.rules.iter().filter(|rule| !after.contains_key(&*rule.id)) {
        push('-', &rule.id, content(rule));
    }
    // Rules that both have, in the order of each: where they part, something has moved.
    let order = |policy: &Policy, other: &HashMap<String, String>| -> Vec<String> {
        let rules = policy.rules.iter().map(|rule| rule.id.to_string());
        rules.filter(|id| other.contains_key(id)).collect()
    };
    let mut was = order(old, &after);
    for rule in &new.rules {
        let says = content(rule);
        match before.get(&*rule.id) {
            None => push('+', &rule.id, says),
            Some(said) => {
                if *said != says {
                    push('~', &rule.id, format!("{said}, then {says}"));
                }
                if was.first().is_some_and(|first| *first != *rule.id) {
                    let next = was.first().cloned().unwrap_or_default();
                    push('>', &rule.id, format!("moved before {next}"));
                }
                was.retain(|id| *id != *rule.id);
            }
        }
    }
    differences
}

fn content(rule: &Rule) -> String {
    let Rule { id: _, action, from, to, services, line: _ } = rule;
    format!("{} from {} to {} for {services}", action.word(), list(from), list(to))
}

fn members(group: &policy::Group) -> String {
    let policy::Group { peers, users, groups } = group;
    let peers = peers.iter().cloned();
    let users = users.iter().map(|user| format!("user:{user}"));
    let groups = groups.iter().map(|group| format!("group:{group}"));
    peers.chain(users).chain(groups).collect::<Vec<_>>().join(" ")
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::differences;
    use crate::policy::parse;

    #[test]
    fn what_is_new_gone_changed_and_moved_is_told() {
        let old = "default = \"allow\"\n[groups]\nops = [\"alice\"]\n\
            [[rules]]\nid = \"a\"\naction = \"allow\"\nfrom = [\"any\"]\nto = [\"any\"]\n\
            [[rules]]\nid = \"b\"\naction = \"deny\"\nfrom = [\"group:ops\"]\nto = [\"gateway\"]\nports = [\"22\"]\nprotocols = [\"tcp\"]\n\
            [[rules]]\nid = \"c\"\naction = \"deny\"\nfrom = [\"any\"]\nto = [\"any\"]\n";
        let new = "default = \"deny\"\n[groups]\nops = [\"alice\", \"bob\"]\n\
            [[rules]]\nid = \"b\"\naction = \"deny\"\nfrom = [\"group:ops\"]\nto = [\"gateway\"]\nports = [\"23\"]\nprotocols = [\"tcp\"]\n\
            [[rules]]\nid = \"a\"\naction = \"allow\"\nfrom = [\"any\"]\nto = [\"any\"]\n\
            [[rules]]\nid = \"d\"\naction = \"deny\"\nfrom = [\"any\"]\nto = [\"any\"]\n";
        let policy = |text| parse(text, None).unwrap().policy;
        let found = differences(&policy(old), &policy(new));
        let lines: Vec<_> = found
            .iter()
            .map(|d| {
                format!("{} {} {}: {}", d.sign, d.what, d.name.as_deref().unwrap_or(""), d.detail)
            })
            .collect();
        assert_eq!(
            lines,
            [
                "~ default : allow, then deny",
                "~ group ops: alice, then alice bob",
                "- rule c: deny from any to any for everything",
                "~ rule b: deny from group:ops to gateway for tcp/22, then deny from group:ops to gateway for tcp/23",
                "> rule b: moved before a",
                "+ rule d: deny from any to any for everything",
            ]
        );
        assert!(differences(&policy(old), &policy(old)).is_empty());
    }
}
