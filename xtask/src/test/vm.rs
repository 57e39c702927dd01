//! Boots Debian's kernels in QEMU and runs the tests inside.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};

use super::machine::{self, Parts};
use super::outcome::Outcome;
use super::{initramfs, quietly};
use crate::command::{command, find};
use crate::setup::{Kernel, SERIES};

/// Of a machine's disk, most of which is never written.
const DISK_BYTES: u64 = 256 << 20;

/// Runs the program called `tests` beside the other programs on every kernel, all at a time.
pub(super) fn run(programs: &[(&str, &Path)], filter: Option<&str>) -> Result<Outcome> {
    thread::scope(|scope| {
        let start = |series| scope.spawn(move || run_series(series, programs, filter));
        let machines: Vec<_> = SERIES.iter().copied().map(start).collect();
        let mut total = Outcome::default();
        for machine in machines {
            total += machine.join().expect("a machine's thread does not panic")?;
        }
        Ok(total)
    })
}

fn run_series(
    series: &'static str,
    programs: &[(&str, &Path)],
    filter: Option<&str>,
) -> Result<Outcome> {
    let kernel = Kernel::cached(series)?;
    let started = Instant::now();
    let mut outcome = run_on(&kernel, programs, filter)?;
    println!("[vm {series}] {} in {} s", outcome.tally, started.elapsed().as_secs());
    if outcome.is_empty() && filter.is_none() {
        println!("[vm {series}] ran no test");
        outcome += Outcome::broken("ran no test");
    }
    for failure in &mut outcome.failures {
        failure.name = format!("{} (kernel {series})", failure.name);
    }
    Ok(outcome)
}

fn run_on(kernel: &Kernel, programs: &[(&str, &Path)], filter: Option<&str>) -> Result<Outcome> {
    let work = tempfile::tempdir()?;
    let initrd = work.path().join("initrd");
    initramfs::write(&initrd, kernel, programs, filter)?;
    let disk = work.path().join("disk");
    make_disk(&disk)?;
    let label = format!("vm {}", kernel.series);
    machine::run(&Parts { label: &label, kernel, initrd: &initrd, disks: &[&disk] })
}

/// An empty file system.
fn make_disk(disk: &Path) -> Result<()> {
    fs::File::create(disk)?.set_len(DISK_BYTES)?;
    let mkfs = find("mkfs.ext4").context("mkfs.ext4 is missing")?;
    quietly(command([mkfs]).args(["-q", "-F"]).arg(disk))
}
