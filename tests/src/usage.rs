//! What a process takes of the machine, as `/proc` tells it.

use std::{fs, time::Duration};

/// Memory and CPU time of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory now.
    pub rss_bytes: u64,
    /// The most that was ever resident.
    pub peak_bytes: u64,
    /// CPU time of all threads that run now.
    pub cpu: Duration,
}

impl Usage {
    /// Of the process `pid`, which runs.
    pub fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        Self {
            rss_bytes: kilobytes(&status, "VmRSS:") * 1024,
            peak_bytes: kilobytes(&status, "VmHWM:") * 1024,
            cpu: fs::read_dir(format!("/proc/{pid}/task"))
                .expect("it runs")
                // A thread may end meanwhile.
                .filter_map(|task| fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
                .map(|schedstat| on_cpu(&schedstat))
                .sum(),
        }
    }
}

fn kilobytes(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a known line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The first number of `schedstat`: nanoseconds on a CPU.
fn on_cpu(schedstat: &str) -> Duration {
    let first = schedstat.split(' ').next().expect("three numbers");
    Duration::from_nanos(first.parse().expect("a number"))
}

#[cfg(test)]
mod tests {
    use super::Usage;

    #[test]
    fn this_process_takes_memory_and_time() {
        let room = vec![1_u8; 16 << 20];
        let usage = Usage::of(std::process::id());
        assert!(usage.rss_bytes as usize > room.len(), "{usage:?}");
        assert!(usage.peak_bytes >= usage.rss_bytes, "{usage:?}");
        assert!(!usage.cpu.is_zero(), "{usage:?}");
    }
}
