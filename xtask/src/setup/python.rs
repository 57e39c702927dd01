//! A Python of our own below the user's cache directory, with the programs that read what
//! `flowctl export` writes, and one that asks an API whatever its document allows.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{Missing, cache, packages};
use crate::command::{command, find, run, succeeds};

/// What reads Parquet, VPC flow logs, OCSF and OpenAPI, each with what it needs.
const PACKAGES: &[&str] = &[
    "pyarrow==26.0.1",
    "flowlogs-reader==5.0.1",
    "ocsf-json-schema==1.2.0",
    "jsonschema==4.26.0",
    "openapi-spec-validator==0.9.0",
    "schemathesis==4.32.5",
];
/// What reads Zeek's logs, without what it needs for statistics.
const ALONE: &[&str] = &["zat==0.4.9"];
/// Finds each of them.
const IMPORTS: &str = "import flowlogs_reader, jsonschema, ocsf_json_schema, \
    openapi_spec_validator, pyarrow.parquet, schemathesis, zat.zeek_log_reader";
/// The package without which Python makes no environments on Debian.
const VENV: &str = "python3-venv";

/// The interpreter, whether or not it is there.
pub(crate) fn interpreter() -> Result<PathBuf> {
    Ok(cache("python")?.join("bin/python3"))
}

/// The environment, when something in it is not there.
pub(super) fn missing() -> Option<Missing> {
    let is_there = interpreter().is_ok_and(|python| {
        python.is_file() && succeeds(command([python.as_os_str()]).args(["-c", IMPORTS]))
    });
    (!is_there).then(|| Missing {
        what: "readers of Parquet, VPC flow logs, OCSF and Zeek's logs, and schemathesis"
            .to_owned(),
        why: "the tests of `flowctl export` and of the API; a Python environment in the cache \
              directory, 400 MB",
        command: format!(
            "python3 -m venv; pip install {}; pip install --no-deps {}",
            PACKAGES.join(" "),
            ALONE.join(" ")
        ),
        install: Box::new(install),
    })
}

fn install() -> Result<()> {
    let can_make = ["-c", "import ensurepip, venv"];
    if find("python3").is_none() || !succeeds(command(["python3"]).args(can_make)) {
        packages::install(&[VENV])?;
    }
    let python = interpreter()?;
    let directory = python.ancestors().nth(2).context("an interpreter is in a directory")?;
    run(command(["python3", "-m", "venv", "--clear"]).arg(directory))?;
    let pip = |options: &[&str], packages: &[&str]| {
        let mut pip = command([python.as_os_str()]);
        pip.args(["-m", "pip", "install", "-q", "--disable-pip-version-check"]);
        run(pip.args(options).args(packages))
    };
    pip(&[], PACKAGES)?;
    pip(&["--no-deps"], ALONE)
}
