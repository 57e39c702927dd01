//! A policy with its hits, and what a policy does to open flows.

use crate::{
    ctl::{
        error::CtlError,
        flows::verdict,
        output::{Format, Screen},
        table::{Align, Table, Tone, Value},
        text,
    },
    flows::Verdict,
    policy::Mode,
    wire::{CutFlow, Policy, PolicyReport, PolicySize},
};

/// The policy in force.
pub(super) fn run(screen: &mut Screen, format: Format, policy: &Policy) -> Result<(), CtlError> {
    match format {
        Format::Json | Format::Table => {
            screen.one(format, policy, |screen| show(screen, policy))?;
        }
        Format::Jsonl => {
            for rule in &policy.rules {
                screen.json_line(rule)?;
            }
        }
        Format::Csv => screen.flat_csv(&policy.rules)?,
    }
    screen.flush()
}

fn show(screen: &mut Screen, policy: &Policy) -> Result<(), CtlError> {
    let Some(applied) = policy.applied else {
        screen.line("There is no policy: everything may pass.")?;
        return screen.line("Write one, then: flowctl policy check FILE");
    };
    screen.line(&format!(
        "Policy {} since {}: {}",
        policy.revision,
        screen.clock.full(applied),
        meaning(policy.mode)
    ))?;
    screen.line(&dimensions(&policy.size))?;
    screen.line("")?;
    let mut table = Table::new(&[
        ("RULE", Align::Left, 0),
        ("ACTION", Align::Left, 0),
        ("FLOWS", Align::Right, 0),
        ("PACKETS", Align::Right, 1),
        ("BYTES", Align::Right, 1),
    ]);
    for rule in &policy.rules {
        let id = match &rule.id {
            Some(id) => Value::from(text::visible(id)),
            None => Value::toned("(no rule)", Tone::Dim),
        };
        let never = rule.hits.flows == 0;
        let flows = if never {
            Value::toned("never", Tone::Dim)
        } else {
            rule.hits.flows.to_string().into()
        };
        table.row(vec![
            id,
            action(rule.action),
            flows,
            text::count(rule.hits.packets).into(),
            text::bytes(rule.hits.bytes).into(),
        ]);
    }
    screen.table(table)?;
    screen.line("")?;
    screen.line(&format!("Counted since {}", screen.clock.full(policy.since)))
}

/// What a policy is, and which open flows it denies that the one before did not.
pub(super) fn report(screen: &mut Screen, report: &PolicyReport) -> Result<(), CtlError> {
    match report.revision {
        Some(revision) => {
            screen.line(&format!("Policy {revision} is in force: {}", meaning(report.mode)))?;
        }
        None => screen.line(&format!("The policy is right: {}", meaning(report.mode)))?,
    }
    screen.line(&dimensions(&report.size))?;
    if report.cut_flows == 0 {
        return screen.line("No open flow is denied that was not before.");
    }
    let (now, what) = match (report.revision.is_some(), report.mode) {
        (true, Mode::Enforce) => ("were cut", "ended"),
        (true, Mode::Observe) => ("are denied from now on, and pass", "ended"),
        (false, Mode::Enforce) => ("would be cut", "open"),
        (false, Mode::Observe) => ("would be denied, and pass", "open"),
    };
    screen.line("")?;
    screen.line(&format!("{} open flows {now}:", report.cut_flows))?;
    let table = cut(&report.cut);
    screen.table(table)?;
    let listed = report.cut.len() as u64;
    if listed < report.cut_flows {
        screen.line(&format!("… and {} more that {what}", report.cut_flows - listed))?;
    }
    if let Some(cut) = &report.cuts_caller {
        let rule = cut.rule.as_deref().map_or_else(|| "the default".to_owned(), text::visible);
        screen.line("")?;
        screen.line(&format!(
            "Your own connection, {}, would be dropped by {rule}; apply wants --yes",
            text::visible(&cut.connection)
        ))?;
    }
    Ok(())
}

fn cut(flows: &[CutFlow]) -> Table {
    let mut table = Table::new(&[
        ("PEER", Align::Left, 0),
        ("PROTO", Align::Left, 0),
        ("SOURCE", Align::Left, 0),
        ("DESTINATION", Align::Left, 0),
        ("RULE", Align::Left, 0),
        ("VERDICT", Align::Left, 1),
    ]);
    for flow in flows {
        table.row(vec![
            flow.peer.as_deref().map_or_else(|| "-".to_owned(), text::visible).into(),
            text::visible(&flow.protocol).into(),
            text::endpoint(&flow.src).into(),
            text::endpoint(&flow.dst).into(),
            flow.rule.as_deref().map_or_else(|| "(no rule)".to_owned(), text::visible).into(),
            verdict(Verdict::Deny, flow.enforced),
        ]);
    }
    table
}

fn meaning(mode: Mode) -> &'static str {
    match mode {
        Mode::Observe => "it is observed, and nothing is dropped",
        Mode::Enforce => "it is enforced, and what it denies is dropped",
    }
}

fn dimensions(size: &PolicySize) -> String {
    let PolicySize { rules, prefixes, pairs, intervals } = size;
    format!("{rules} rules; in the kernel {prefixes} prefixes, {pairs} pairs, {intervals} ranges")
}

/// The word of a rule.
pub(super) fn action(action: Verdict) -> Value {
    match action {
        Verdict::Allow => Value::toned("allow", Tone::Good),
        Verdict::Deny => Value::toned("deny", Tone::Bad),
    }
}
