//! A machine in QEMU: tests run inside and speak over the serial console.
//!
//! A machine has disks. It ends with the tests, or when a test restarts it: then it is booted
//! again, from what it left on them.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::initramfs::{IS_UP, RESTARTS, SENTINEL};
use super::outcome::Outcome;
use super::passing;
use super::report::Report;
use crate::setup::Kernel;

/// How long one machine may take, boot included. Without hardware support everything in it is
/// some twenty times slower.
const LIMIT: Duration = Duration::from_secs(1_800);
/// How often tests may restart a machine.
const RESTARTS_AT_MOST: u32 = 8;
/// Now and then a kernel that patches itself while it boots panics under QEMU's emulation of two
/// CPUs.
const BOOTS: usize = 3;

/// What a machine is made of.
pub(super) struct Parts<'a> {
    /// In front of every line that it says.
    pub(super) label: &'a str,
    pub(super) kernel: &'a Kernel,
    pub(super) initrd: &'a Path,
    /// Its disks, in the order of their names.
    pub(super) disks: &'a [&'a Path],
}

/// Boots the machine, and again as often as its tests restart it; what the tests came to.
pub(super) fn run(parts: &Parts<'_>) -> Result<Outcome> {
    let deadline = Instant::now() + LIMIT;
    let mut run = Run { label: parts.label, report: Report::new(passing()), deadline };
    let (mut failed_boots, mut restarts) = (0, 0);
    let complaint = loop {
        match run.watch(&Machine::boot(parts)?) {
            End::NeverUp => {
                failed_boots += 1;
                if failed_boots == BOOTS {
                    break Some("the kernel did not come up".to_owned());
                }
                run.say("the kernel did not come up under emulation; booting again");
            }
            End::Restart if restarts == RESTARTS_AT_MOST => {
                break Some(format!("a test restarts the machine more than {restarts} times"));
            }
            End::Restart => (failed_boots, restarts) = (0, restarts + 1),
            End::Over(complaint) => break complaint,
        }
    };
    let mut outcome = run.report.outcome();
    if let Some(complaint) = complaint {
        let last = run.report.last_ended().unwrap_or("none");
        let complaint = format!("{complaint}; the last test that ended: {last}");
        run.say(&complaint);
        if outcome.tally.failed == 0 {
            outcome += Outcome::broken(complaint);
        }
    }
    Ok(outcome)
}

/// The tests of one machine, over all its boots.
struct Run<'a> {
    label: &'a str,
    report: Report,
    deadline: Instant,
}

/// Why a machine stopped.
enum End {
    /// Before the first program in it ran.
    NeverUp,
    /// A test wanted it to.
    Restart,
    /// All is done, or something is wrong.
    Over(Option<String>),
}

impl Run<'_> {
    fn say(&self, line: &str) {
        println!("[{}] {line}", self.label);
    }

    /// Reads the console to its end.
    fn watch(&mut self, machine: &Machine) -> End {
        // What is said before the machine is up matters only when it does not come up.
        let mut boot = Some(Vec::new());
        let (mut exit, mut restarts) = (None, false);
        let end = loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            match machine.console.recv_timeout(left) {
                Ok(line) if line.trim() == IS_UP => boot = None,
                Ok(line) => match (&mut boot, line.trim().strip_prefix(SENTINEL)) {
                    (Some(boot), _) => boot.push(line),
                    (None, Some(code)) => exit = Some(code.trim().to_owned()),
                    (None, None) if line.trim() == RESTARTS => restarts = true,
                    (None, None) => {
                        if let Some(line) = self.report.line(&line) {
                            println!("[{}] {line}", self.label);
                        }
                    }
                },
                Err(RecvTimeoutError::Disconnected) => match exit.as_deref() {
                    Some("0") => break End::Over(None),
                    Some(code) => {
                        break End::Over(Some(format!("the tests ended with exit code {code}")));
                    }
                    None if restarts => break End::Restart,
                    None => {
                        let complaint = "the machine stopped before the tests ended";
                        break End::Over(Some(complaint.to_owned()));
                    }
                },
                Err(RecvTimeoutError::Timeout) => {
                    break End::Over(Some(format!("not done after {} s", LIMIT.as_secs())));
                }
            }
        };
        match boot {
            Some(boot) => {
                boot.iter().for_each(|line| self.say(line));
                End::NeverUp
            }
            None => end,
        }
    }
}

/// A running QEMU; it ends with this value.
struct Machine {
    qemu: Child,
    console: Receiver<String>,
}

impl Machine {
    fn boot(parts: &Parts<'_>) -> Result<Self> {
        let Parts { label: _, kernel, initrd, disks } = parts;
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
        for disk in *disks {
            // What the guest wrote is in this file when QEMU ends; that is safe enough.
            qemu.arg("-drive")
                .arg(format!("file={},format=raw,if=virtio,cache=unsafe", disk.display()));
        }
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
