//! The figures as tables and as JSON.

use std::time::Duration;

/// Everything that was measured.
pub(crate) struct Table {
    /// Nanoseconds of the empty program.
    pub(crate) empty: f64,
    /// Nanoseconds of the bare reference.
    pub(crate) bare: f64,
    /// The first is without a policy.
    pub(crate) rows: Vec<Row>,
}

/// One policy.
pub(crate) struct Row {
    pub(crate) rules: usize,
    pub(crate) text_bytes: usize,
    pub(crate) parse: Duration,
    pub(crate) compile: Duration,
    pub(crate) prefixes: usize,
    pub(crate) pairs: usize,
    pub(crate) intervals: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) swap: Duration,
    /// Nanoseconds of a packet, the empty program's included.
    pub(crate) established: f64,
    /// Nanoseconds of a flow's first packet above the empty program.
    pub(crate) new: f64,
    /// Share of the flows.
    pub(crate) allowed: f64,
}

impl Row {
    /// A row before anything but the parser is measured.
    pub(crate) fn new(rules: usize, text_bytes: usize, parse: Duration) -> Self {
        Self {
            rules,
            text_bytes,
            parse,
            compile: Duration::ZERO,
            prefixes: 0,
            pairs: 0,
            intervals: 0,
            memory_bytes: 0,
            swap: Duration::ZERO,
            established: f64::MAX,
            new: f64::MAX,
            allowed: 0.0,
        }
    }

    fn name(&self) -> String {
        if self.rules == 0 { "no policy".to_owned() } else { self.rules.to_string() }
    }

    /// An amount of a rule.
    fn each(&self, amount: f64) -> String {
        if self.rules == 0 { "-".to_owned() } else { format!("{:.1}", amount / self.rules as f64) }
    }
}

impl Table {
    pub(crate) fn print(&self) {
        self.print_making();
        println!();
        self.print_packets();
        if let Some(path) = std::env::var_os("FLOWD_BENCH_JSON")
            && let Err(error) = std::fs::write(&path, format!("{:#}\n", self.json()))
        {
            eprintln!("bench policy: cannot write {}: {error}", path.display());
        }
    }

    fn print_making(&self) {
        println!(
            "{:<10}{:>10}{:>9}{:>11}{:>9}{:>9}{:>9}{:>9}{:>10}{:>9}{:>10}{:>9}",
            "rules",
            "parse ms",
            "µs/rule",
            "compile ms",
            "µs/rule",
            "prefixes",
            "pairs",
            "ranges",
            "memory KB",
            "B/rule",
            "swap ms",
            "µs/rule",
        );
        for row in &self.rows {
            let micros = |duration: Duration| row.each(duration.as_secs_f64() * 1e6);
            println!(
                "{:<10}{:>10.1}{:>9}{:>11.1}{:>9}{:>9}{:>9}{:>9}{:>10}{:>9}{:>10.1}{:>9}",
                row.name(),
                millis(row.parse),
                micros(row.parse),
                millis(row.compile),
                micros(row.compile),
                row.prefixes,
                row.pairs,
                row.intervals,
                row.memory_bytes / 1_000,
                row.each(row.memory_bytes as f64),
                millis(row.swap),
                micros(row.swap),
            );
        }
    }

    fn print_packets(&self) {
        let Self { empty, bare, rows } = self;
        println!(
            "empty classifier {empty:.0} ns, bare reference {:.0} ns above it\n",
            bare - empty
        );
        println!(
            "{:<10}{:>22}{:>8}{:>12}{:>20}{:>8}{:>12}{:>10}",
            "rules",
            "established, ns above",
            "× bare",
            "× no policy",
            "new flow, ns above",
            "× bare",
            "× no policy",
            "allowed",
        );
        for row in rows {
            let established = row.established - empty;
            println!(
                "{:<10}{:>22.0}{:>8.2}{:>12.2}{:>20.0}{:>8.2}{:>12.2}{:>9.0}%",
                row.name(),
                established,
                established / (bare - empty),
                established / (rows[0].established - empty),
                row.new,
                row.new / (bare - empty),
                row.new / rows[0].new,
                row.allowed * 100.0,
            );
        }
        println!("(above the empty classifier; established: minimum; new: median, cold)");
    }

    fn json(&self) -> serde_json::Value {
        let Self { empty, bare, rows } = self;
        let row = |row: &Row| {
            serde_json::json!({
                "rules": row.rules,
                "text_bytes": row.text_bytes,
                "parse_ms": millis(row.parse),
                "compile_ms": millis(row.compile),
                "prefixes": row.prefixes,
                "pairs": row.pairs,
                "intervals": row.intervals,
                "memory_bytes": row.memory_bytes,
                "swap_ms": millis(row.swap),
                "established_above_empty_ns": row.established - empty,
                "new_above_empty_ns": row.new,
                "allowed": row.allowed,
            })
        };
        serde_json::json!({
            "empty_ns": empty,
            "bare_ns": bare,
            "policies": rows.iter().map(row).collect::<Vec<_>>(),
        })
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
