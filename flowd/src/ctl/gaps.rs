//! `flowctl gaps`: where something may have gone unrecorded.

use super::{
    error::CtlError,
    output::{Format, Screen},
    table::{Align, Table, Tone, Value},
    text,
};
use crate::{
    flows::GapSum,
    wire::{self, Gap, GapList},
};

/// Shows the gaps in the wanted form.
pub(super) fn run(screen: &mut Screen, format: Format, list: &GapList) -> Result<(), CtlError> {
    match format {
        Format::Table => show(screen, list)?,
        Format::Json => screen.json(list)?,
        Format::Jsonl => {
            for gap in &list.gaps {
                screen.json_line(gap)?;
            }
        }
        Format::Csv => {
            screen.csv(&wire::GAP_CSV_COLUMNS, list.gaps.iter().map(wire::gap_csv_row))?;
        }
    }
    screen.flush()
}

/// How much may be missing, for people.
pub(super) fn missing(sum: &GapSum) -> String {
    let GapSum { count, open: _, packets, bytes: _, unknown } = *sum;
    let packets = exact(packets);
    match unknown {
        0 if sum.packets == 0 => "no packet is missing".to_owned(),
        0 => format!("up to {packets} packets may be missing"),
        _ if unknown == count => "nobody knows how many packets are missing".to_owned(),
        _ => format!("up to {packets} packets may be missing, and in {unknown} nobody knows"),
    }
}

fn show(screen: &mut Screen, list: &GapList) -> Result<(), CtlError> {
    if list.gaps.is_empty() {
        return screen.line("No gaps.");
    }
    let mut table = Table::new(&[
        ("FROM", Align::Left, 0),
        ("TO", Align::Left, 0),
        ("STAGE", Align::Left, 0),
        ("INTERFACE", Align::Left, 3),
        ("PEER", Align::Left, 4),
        ("PACKETS", Align::Right, 0),
        ("BYTES", Align::Right, 5),
        ("DETAIL", Align::Left, 1),
    ]);
    for gap in &list.gaps {
        table.row(row(screen, gap));
    }
    screen.table(table)?;
    let GapSum { count, open, .. } = list.sum;
    let listed = list.gaps.len() as u64;
    if count > listed {
        screen.line(&format!("These are the {listed} newest of {count}; --limit N shows more."))?;
    }
    let open = if open == 0 { String::new() } else { format!(", {open} open") };
    screen.line(&format!("{}{open}: {}", counted(count), missing(&list.sum)))
}

/// A number of gaps.
pub(super) fn counted(count: u64) -> String {
    if count == 1 { "1 gap".to_owned() } else { format!("{} gaps", exact(count)) }
}

fn row(screen: &Screen, gap: &Gap) -> Vec<Value> {
    let to = match gap.to {
        Some(to) => screen.clock.short(to).into(),
        None => Value::toned("open", Tone::Bad),
    };
    let packets = match gap.packets {
        None => Value::toned("unknown", Tone::Bad),
        Some(0) => "0".into(),
        Some(packets) => Value::toned(format!("≤ {}", exact(packets)), Tone::Bad),
    };
    let named = |name: Option<&str>| name.map_or_else(|| "all".to_owned(), text::visible);
    vec![
        screen.clock.short(gap.from).into(),
        to,
        gap.stage.word().into(),
        named(gap.interface.as_deref()).into(),
        named(gap.peer.as_ref().map(|peer| peer.name.as_str())).into(),
        packets,
        gap.bytes.map_or_else(|| "unknown".to_owned(), text::bytes).into(),
        text::visible(&gap.detail).into(),
    ]
}

/// A count to the last digit, with commas.
fn exact(count: u64) -> String {
    let digits = count.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups.map(|group| String::from_utf8_lossy(group)).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::{GapList, GapSum, counted, exact, missing, run};
    use crate::{
        ctl::output::{Format, Screen, Sink},
        flows::Stage,
        wire::{Gap, Timestamp},
    };

    #[test]
    fn counts_are_exact_and_readable() {
        for (count, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_204_567, "1,204,567")] {
            assert_eq!(exact(count), text);
        }
        assert_eq!((counted(1), counted(1_200)), ("1 gap".to_owned(), "1,200 gaps".to_owned()));
    }

    #[test]
    fn what_may_be_missing_is_told_as_far_as_it_is_known() {
        let cases = [
            // gaps, packets, unknown, told
            (2, 1_204, 0, "up to 1,204 packets may be missing"),
            (2, 0, 0, "no packet is missing"),
            (2, 0, 2, "nobody knows how many packets are missing"),
            (3, 7, 1, "up to 7 packets may be missing, and in 1 nobody knows"),
        ];
        for (count, packets, unknown, told) in cases {
            let sum = GapSum { count, packets, unknown, ..GapSum::default() };
            assert_eq!(missing(&sum), told);
        }
    }

    #[test]
    fn gaps_are_a_table_with_a_line_that_sums_them_up() {
        let now = Timestamp(1_795_233_600_000);
        let gap = |stage, to, packets| Gap {
            gap_id: Some(1),
            stage,
            interface: Some("wg0".to_owned()),
            peer: None,
            from: Timestamp(now.0 - 60_000),
            to,
            packets,
            bytes: packets.map(|packets| packets * 100),
            detail: "somebody\tdid it".to_owned(),
        };
        let gaps =
            vec![gap(Stage::Detached, None, Some(1_204)), gap(Stage::Clock, Some(now), None)];
        let sum = GapSum { count: 9, open: 1, packets: 1_204, bytes: 0, unknown: 1 };
        let sink = Sink::default();
        let mut screen = Screen::fixed(Box::new(sink.clone()), now, 200);
        run(&mut screen, Format::Table, &GapList { sum, gaps }).unwrap();
        let text = sink.text();
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1][..8].join(" "), "03:59:00 open detached wg0 all ≤ 1,204 120");
        assert!(text.contains("somebody\\x09did it"), "{text}");
        assert!(text.contains("unknown"), "{text}");
        assert!(text.contains("the 2 newest of 9"), "{text}");
        assert!(text.contains("9 gaps, 1 open: up to 1,204 packets"), "{text}");
    }
}
