//! `docs/formats.md` against the formats: every field that is written stands in its table.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Export, Format, sample};

const DOCUMENT: &str = include_str!("../../../docs/formats.md");

/// The first cells of the table below a heading, without their backticks.
fn documented(heading: &str) -> BTreeSet<String> {
    let (_, section) = DOCUMENT.split_once(&format!("\n## {heading}\n")).expect(heading);
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.flat_map(|row| {
        let cell = row.split(" | ").next().unwrap_or_default();
        cell.split('`')
            .step_by(2)
            .filter(|name| !name.trim_matches([',', ' ']).is_empty())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    })
    .collect()
}

/// The paths of the leaves of every sample in a format of JSON.
fn written(format: Format) -> BTreeSet<String> {
    let mut export = Export::begin(format, Vec::new()).unwrap();
    for (_, record) in sample::all() {
        export.record(&record).unwrap();
    }
    let text = String::from_utf8(export.end().unwrap()).unwrap();
    let mut paths = BTreeSet::new();
    for line in text.lines() {
        leaves(String::new(), &serde_json::from_str(line).unwrap(), &mut paths);
    }
    paths
}

fn leaves(path: String, value: &Value, paths: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(path, field, paths);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.iter().for_each(|item| leaves(format!("{path}[]"), item, paths));
        }
        _ => drop(paths.insert(path)),
    }
}

#[test]
fn every_field_of_json_is_documented_and_no_other() {
    let cases = [
        (Format::Tailscale, "Tailscale network logs: `tailscale`"),
        (Format::ZeekJson, "Zeek conn.log: `zeek` and `zeek-json`"),
        (Format::Ecs, "Elastic Common Schema: `ecs`"),
        (Format::Ocsf, "OCSF Network Activity: `ocsf`"),
    ];
    for (format, heading) in cases {
        let documented = documented(heading);
        let written = written(format);
        let missing: Vec<_> = written.difference(&documented).collect();
        assert!(missing.is_empty(), "{format:?}, not in docs/formats.md: {missing:#?}");
        let unset =
            ["service", "orig_bytes", "resp_bytes", "local_orig", "local_resp", "tunnel_parents"];
        let invented: Vec<_> = documented
            .difference(&written)
            .filter(|name| format != Format::ZeekJson || !unset.contains(&name.as_str()))
            .collect();
        assert!(invented.is_empty(), "{format:?}, only in docs/formats.md: {invented:#?}");
    }
}

#[test]
fn every_field_of_vpc_is_documented_and_no_other() {
    let documented = documented("AWS VPC flow logs: `vpc`");
    let written: BTreeSet<_> = super::vpc::FIELDS.into_iter().map(str::to_owned).collect();
    assert_eq!(documented, written);
}

#[test]
fn every_column_of_csv_and_parquet_is_documented_and_no_other() {
    let documented = documented("CSV and Parquet: `csv` and `parquet`");
    let written: BTreeSet<_> = crate::wire::CSV_COLUMNS.into_iter().map(str::to_owned).collect();
    assert_eq!(documented, written);
}

#[test]
fn every_format_is_documented() {
    for format in Format::ALL {
        assert!(DOCUMENT.contains(&format!("`{}`", format.word())), "{format:?}");
    }
}
