//! `flowctl totals`: what each peer did on each day, for ever.

use super::{
    error::CtlError,
    output::{Format, Screen},
    table::{Align, Table, Tone, Value},
    text,
};
use crate::{
    flows::{DayTotal, Verdict},
    wire::DayTotalList,
};

/// Shows the totals in the wanted form.
pub(super) fn run(
    screen: &mut Screen,
    format: Format,
    list: &DayTotalList,
) -> Result<(), CtlError> {
    match format {
        Format::Table => show(screen, list)?,
        Format::Json => screen.json(list)?,
        Format::Jsonl => {
            for total in &list.totals {
                screen.json_line(total)?;
            }
        }
        Format::Csv => screen.flat_csv(&list.totals)?,
    }
    screen.flush()
}

fn show(screen: &mut Screen, list: &DayTotalList) -> Result<(), CtlError> {
    if list.totals.is_empty() {
        return screen.line("No totals.");
    }
    let mut table = Table::new(&[
        ("DAY (UTC)", Align::Left, 0),
        ("INTERFACE", Align::Left, 2),
        ("PEER", Align::Left, 0),
        ("USER", Align::Left, 3),
        ("VERDICT", Align::Left, 1),
        ("FLOWS", Align::Right, 1),
        ("PACKETS", Align::Right, 2),
        ("RX", Align::Right, 0),
        ("TX", Align::Right, 0),
    ]);
    for total in &list.totals {
        table.row(row(total));
    }
    screen.table(table)
}

fn row(total: &DayTotal) -> Vec<Value> {
    let verdict = match total.verdict {
        Verdict::Allow => "allow".into(),
        Verdict::Deny => Value::toned("deny", Tone::Bad),
    };
    let named =
        |name: &Option<String>| name.as_deref().map_or_else(|| "-".to_owned(), text::visible);
    let peer = total.name.as_ref().or(total.public_key.as_ref()).cloned();
    vec![
        total.day.as_str().into(),
        text::visible(&total.interface).into(),
        named(&peer).into(),
        named(&total.user).into(),
        verdict,
        total.flows.to_string().into(),
        text::count(total.counters.packets()).into(),
        text::bytes(total.counters.rx_bytes).into(),
        text::bytes(total.counters.tx_bytes).into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::{DayTotal, DayTotalList, run};
    use crate::{
        ctl::output::{Format, Screen, Sink},
        flows::{Counters, Verdict},
        wire::Timestamp,
    };

    #[test]
    fn a_day_of_a_peer_is_a_line() {
        let counters =
            Counters { rx_packets: 2, rx_bytes: 300, tx_packets: 1, tx_bytes: 41_300_000 };
        let of = |name: Option<&str>, verdict| DayTotal {
            day: "2026-11-20".to_owned(),
            interface: "wg0".to_owned(),
            public_key: name.map(|_| "key=".to_owned()),
            name: name.map(str::to_owned),
            user: None,
            device: None,
            verdict,
            records: 3,
            flows: 2,
            counters,
        };
        let totals = vec![of(Some("ali\tce"), Verdict::Allow), of(None, Verdict::Deny)];
        let sink = Sink::default();
        let mut screen = Screen::fixed(Box::new(sink.clone()), Timestamp(0), 200);
        run(&mut screen, Format::Table, &DayTotalList { totals }).unwrap();
        let text = sink.text();
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1][..6], ["2026-11-20", "wg0", "ali\\x09ce", "-", "allow", "2"]);
        assert_eq!(lines[2][..5], ["2026-11-20", "wg0", "-", "-", "deny"]);
    }
}
