//! Boots Debian's kernels in QEMU and runs the tests inside, over the serial console.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::initramfs::{self, IS_UP, SENTINEL};
use super::outcome::Outcome;
use super::passing;
use super::report::Report;
use crate::setup::{Kernel, SERIES};

/// How long one machine may take, boot included. Without hardware support everything in it is
/// some twenty times slower.
const LIMIT: Duration = Duration::from_secs(900);
/// Now and then a kernel that patches itself while it boots panics under QEMU's emulation of two
/// CPUs.
const BOOTS: usize = 3;

/// Runs the program called `tests` beside the other programs on each kernel, one after the other.
pub(super) fn run(programs: &[(&str, &Path)], filter: Option<&str>) -> Result<Outcome> {
    let mut total = Outcome::default();
    for series in SERIES {
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
        total += outcome;
    }
    Ok(total)
}

fn run_on(kernel: &Kernel, programs: &[(&str, &Path)], filter: Option<&str>) -> Result<Outcome> {
    let work = tempfile::tempdir()?;
    let initrd = work.path().join("initrd");
    initramfs::write(&initrd, kernel, programs, filter)?;
    for _ in 1..BOOTS {
        if let Some(outcome) = boot_and_run(kernel, &initrd)? {
            return Ok(outcome);
        }
        println!(
            "[vm {}] the kernel did not come up under emulation; booting again",
            kernel.series
        );
    }
    let outcome = boot_and_run(kernel, &initrd)?;
    Ok(outcome.unwrap_or_else(|| Outcome::broken("the kernel did not come up")))
}

/// `None`: the machine stopped before the first program in it ran.
fn boot_and_run(kernel: &Kernel, initrd: &Path) -> Result<Option<Outcome>> {
    let machine = Machine::boot(kernel, initrd)?;
    let say = |line: &str| println!("[vm {}] {line}", kernel.series);
    // What is said before the machine is up matters only when it does not come up.
    let mut boot = Some(Vec::new());
    let deadline = Instant::now() + LIMIT;
    let mut report = Report::new(passing());
    let mut exit = None;
    let complaint = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match machine.console.recv_timeout(left) {
            Ok(line) if line.trim() == IS_UP => boot = None,
            Ok(line) => match (&mut boot, line.trim().strip_prefix(SENTINEL)) {
                (Some(boot), _) => boot.push(line),
                (None, Some(code)) => exit = Some(code.trim().to_owned()),
                (None, None) => report.line(&line).into_iter().for_each(say),
            },
            Err(RecvTimeoutError::Disconnected) => match exit.as_deref() {
                Some("0") => break None,
                Some(code) => break Some(format!("the tests ended with exit code {code}")),
                None => break Some("the machine stopped before the tests ended".to_owned()),
            },
            Err(RecvTimeoutError::Timeout) => {
                break Some(format!("not done after {} s", LIMIT.as_secs()));
            }
        }
    };
    if let Some(boot) = boot {
        boot.iter().for_each(|line| say(line));
        return Ok(None);
    }
    let mut outcome = report.outcome();
    if let Some(complaint) = complaint {
        let last = report.last_ended().unwrap_or("none");
        let complaint = format!("{complaint}; the last test that ended: {last}");
        say(&complaint);
        if outcome.tally.failed == 0 {
            outcome += Outcome::broken(complaint);
        }
    }
    Ok(Some(outcome))
}

/// A running QEMU; it ends with this value.
struct Machine {
    qemu: Child,
    console: Receiver<String>,
}

impl Machine {
    fn boot(kernel: &Kernel, initrd: &Path) -> Result<Self> {
        let mut qemu = Command::new("qemu-system-x86_64");
        // Emulated, not KVM: a KVM nested in another machine may hang these kernels.
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"])
            .args(["-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"])
            .args(["-append", "console=ttyS0 panic=-1 quiet"])
            .arg("-kernel")
            .arg(kernel.image())
            .arg("-initrd")
            .arg(initrd)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut qemu = qemu.spawn().context("cannot run qemu-system-x86_64")?;
        let serial = qemu.stdout.take().expect("stdout is piped");
        let (lines, console) = mpsc::channel();
        // It ends with QEMU, whose end closes the pipe.
        thread::spawn(move || {
            for line in BufReader::new(serial).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if lines.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { qemu, console })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only when QEMU is gone, which is what is wanted.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
