//! Whose code is in the binaries, and under which licences.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::{cargo, read, workspace};

/// The packages that become binaries: the daemon and the client, and what runs in the kernel.
const OURS: [&str; 3] = ["flowd", "flowd-common", "flowd-ebpf"];

/// Files of a crate that say under what it may be used begin with these words.
const NAMES: [&str; 4] = ["LICENSE", "LICENCE", "COPYING", "NOTICE"];

/// A crate that is linked into a binary.
struct Crate {
    name: String,
    version: String,
    licence: String,
    directory: PathBuf,
}

/// `/usr/share/doc/flowd/copyright`, in Debian's format.
pub(super) fn copyright() -> Result<String> {
    let mut by_licence: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for linked in linked()? {
        let name = format!("{} {}", linked.name, linked.version);
        by_licence.entry(linked.licence).or_default().push(name);
    }
    let mit = indented(&fs::read_to_string(workspace().join("LICENSE-MIT"))?);
    let mut text = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
         Upstream-Name: flowd\n\
         Comment:\n The eBPF programs in flowd are GPL-2.0-only or MIT.\n .\n \
         flowd is linked with wireguard-control, which is LGPL-2.1-or-later and used as it is\n \
         published: who wants to use another one changes it in Cargo.toml and builds flowd again.\n \
         .\n The binaries contain these crates, whose own words are in third-party-licences.gz:\n"
    .to_owned();
    for (licence, crates) in by_licence {
        writeln!(text, " .\n {licence}:")?;
        for line in crates.chunks(4) {
            writeln!(text, "  {}", line.join(", "))?;
        }
    }
    write!(
        text,
        "\nFiles: *\nCopyright: 2026 the flowd maintainers\nLicense: Expat or Apache-2.0\n\n\
         License: Expat\n{mit}\n\
         License: Apache-2.0\n On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.\n"
    )?;
    Ok(text)
}

/// What the crates say about themselves, each text once.
pub(super) fn texts() -> Result<String> {
    let mut by_text: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for Crate { name, version, licence, directory } in linked()? {
        let found = licence_files(&directory)?;
        if found.is_empty() {
            let line = format!("no file: {licence}\n");
            by_text.entry(line).or_default().push(format!("{name} {version}"));
        }
        for file in found {
            let text =
                fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let text = String::from_utf8_lossy(&text).trim().to_owned() + "\n";
            let of = by_text.entry(text).or_default();
            let title = format!("{name} {version}");
            if !of.contains(&title) {
                of.push(title);
            }
        }
    }
    let mut whole = String::new();
    let mut parts: Vec<_> = by_text.into_iter().collect();
    parts.sort_by(|a, b| a.1.cmp(&b.1).then_with(|| a.0.cmp(&b.0)));
    for (text, crates) in parts {
        writeln!(whole, "{}\n{}\n\n{text}", "=".repeat(78), crates.join("\n"))?;
    }
    Ok(whole)
}

fn licence_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        if path.is_file() && NAMES.iter().any(|word| name.starts_with(word)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Every crate of somebody else that is linked into a binary, by name and version.
fn linked() -> Result<Vec<Crate>> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let words = ["metadata", "--format-version=1", "--locked", "--filter-platform", &target];
    let metadata: Value = serde_json::from_str(&read(&mut cargo(&words))?)?;
    let array = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let packages: BTreeMap<String, Value> =
        array(&metadata, "packages").into_iter().map(|it| (text(&it, "id"), it)).collect();
    let nodes: BTreeMap<String, Value> =
        array(&metadata["resolve"], "nodes").into_iter().map(|it| (text(&it, "id"), it)).collect();
    let is_ours = |id: &str| OURS.contains(&text(&packages[id], "name").as_str());
    let mut waiting: Vec<String> = packages.keys().filter(|id| is_ours(id)).cloned().collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        for dependency in array(&nodes[&id], "deps") {
            // Neither what builds nor what tests is in a binary; nor are macros, but their crates
            // come with those that use them and cannot be told from others here.
            let is_linked =
                array(&dependency, "dep_kinds").iter().any(|kind| kind["kind"].is_null());
            if is_linked {
                waiting.push(text(&dependency, "pkg"));
            }
        }
    }
    let mut linked = Vec::new();
    for id in seen.iter().filter(|id| !is_ours(id)) {
        let package = &packages[id];
        let (name, licence) = (text(package, "name"), text(package, "license"));
        if licence.is_empty() {
            bail!("the crate {name} says nothing about its licence");
        }
        let manifest = PathBuf::from(text(package, "manifest_path"));
        let directory = manifest.parent().context("a manifest is in a directory")?.to_owned();
        linked.push(Crate { name, version: text(package, "version"), licence, directory });
    }
    linked.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(linked)
}

/// As a field of Debian's control files continues.
fn indented(text: &str) -> String {
    let line = |line: &str| if line.is_empty() { " .\n".to_owned() } else { format!(" {line}\n") };
    text.trim().lines().map(line).collect()
}
