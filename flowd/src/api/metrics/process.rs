//! The process, under the names that Prometheus' own clients have for it. What the kernel does not
//! tell is left out.

use std::{fs, io};

use super::text::Text;

/// Fields of `/proc/PID/stat` behind the name, from proc(5); the first one there is number 3.
const UTIME: usize = 14 - 3;
const STIME: usize = 15 - 3;
const STARTTIME: usize = 22 - 3;
const VSIZE: usize = 23 - 3;
const RSS: usize = 24 - 3;

pub(super) fn render(text: &mut Text) {
    // A process that cannot read its own is confined on purpose.
    let Ok(stat) = fs::read_to_string("/proc/self/stat") else { return };
    let Some(fields) = fields(&stat) else { return };
    let (tick, page) = (configured(libc::_SC_CLK_TCK), configured(libc::_SC_PAGESIZE));
    let cpu = (fields[UTIME] + fields[STIME]) as f64 / tick as f64;
    text.counter("process_cpu_seconds_total", "CPU time of the process.", cpu);
    let help = "Memory of the process that is in RAM.";
    text.gauge("process_resident_memory_bytes", help, fields[RSS] * page);
    let help = "Address space of the process.";
    text.gauge("process_virtual_memory_bytes", help, fields[VSIZE]);
    if let Some(boot) = boot_seconds() {
        let started = boot as f64 + fields[STARTTIME] as f64 / tick as f64;
        text.gauge("process_start_time_seconds", "When the process started.", started);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // The directory that is being read is one of them.
        let open = open.count().saturating_sub(1);
        text.gauge("process_open_fds", "Open file descriptors.", open);
    }
    if let Ok(max) = max_files() {
        text.gauge("process_max_fds", "File descriptors that may be open.", max);
    }
}

/// The numbers behind the name, which may have any characters.
fn fields(stat: &str) -> Option<Vec<u64>> {
    let (_, behind) = stat.rsplit_once(')')?;
    // Some are below zero, or a letter, and none of those is wanted.
    let fields: Vec<u64> =
        behind.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    (fields.len() > RSS).then_some(fields)
}

fn boot_seconds() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()
}

fn max_files() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is the call's own to fill.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } {
        0 => Ok(limit.rlim_cur),
        _ => Err(io::Error::last_os_error()),
    }
}

fn configured(name: libc::c_int) -> u64 {
    // SAFETY: the call takes no pointers.
    u64::try_from(unsafe { libc::sysconf(name) }).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::{RSS, STARTTIME, Text, UTIME, fields, render};

    #[test]
    fn fields_are_counted_behind_the_name() {
        let stat = "1 (a) b) S 0 1 1 0 -1 4194560 1 2 3 4 55 66 7 8 20 0 1 0 99 1234 77 \
                    18446744073709551615 1";
        let fields = fields(stat).unwrap();
        assert_eq!((fields[UTIME], fields[STARTTIME], fields[RSS]), (55, 99, 77));
    }

    #[test]
    fn the_process_tells_of_itself() {
        let mut text = Text::default();
        render(&mut text);
        let text = text.into_string();
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_virtual_memory_bytes",
            "process_start_time_seconds",
            "process_open_fds",
            "process_max_fds",
        ] {
            let sample = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            let value: f64 = sample.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap();
            // It may have taken no CPU yet that the clock's ticks show.
            assert!(value > 0.0 || name == "process_cpu_seconds_total", "{name} {value}");
        }
    }
}
