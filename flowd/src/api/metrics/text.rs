//! Text in the exposition format.

use std::fmt::{Display, Write as _};

use crate::{live::Durations, wire::Timestamp};

#[derive(Default)]
pub(super) struct Text(String);

/// What a family of samples is.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// It only grows while flowd runs.
    Counter,
    /// It is what it is now.
    Gauge,
}

impl Text {
    /// Begins the samples of one name.
    pub(super) fn family(&mut self, kind: Kind, name: &str, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a string grows");
    }

    /// A counter without labels.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(Kind::Counter, name, help);
        self.sample(name, &[], value);
    }

    /// A gauge without labels.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(Kind::Gauge, name, help);
        self.sample(name, &[], value);
    }

    /// A histogram without labels.
    pub(super) fn histogram(&mut self, name: &str, help: &str, durations: &Durations) {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} histogram").expect("a string grows");
        let bounds = Durations::BOUNDS.map(|bound| bound.as_secs_f64().to_string());
        let bounds = bounds.iter().map(String::as_str).chain(["+Inf"]);
        let mut within = 0;
        for (bound, count) in bounds.zip(durations.counts) {
            within += count;
            self.sample(&format!("{name}_bucket"), &[("le", bound)], within);
        }
        self.sample(&format!("{name}_sum"), &[], durations.sum.as_secs_f64());
        self.sample(&format!("{name}_count"), &[], within);
    }

    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (place, (label, value)) in labels.iter().enumerate() {
            self.0.push(if place == 0 { '{' } else { ',' });
            self.0.push_str(label);
            self.0.push_str("=\"");
            for letter in value.chars() {
                match letter {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    letter => self.0.push(letter),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        writeln!(self.0, " {value}").expect("a string grows");
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

/// Seconds since 1970.
pub(super) fn seconds(at: Timestamp) -> f64 {
    at.0 as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Durations, Text};

    #[test]
    fn labels_are_escaped() {
        let mut text = Text::default();
        text.sample("a", &[("b", "\\ \" \n é\t"), ("c", "")], 1.5);
        assert_eq!(text.into_string(), "a{b=\"\\\\ \\\" \\n é\t\",c=\"\"} 1.5\n");
    }

    #[test]
    fn buckets_of_a_histogram_add_up() {
        let mut durations = Durations::default();
        for millis in [1, 1, 3, 20_000] {
            durations.observe(Duration::from_millis(millis));
        }
        let mut text = Text::default();
        text.histogram("a_seconds", "Help.", &durations);
        let text = text.into_string();
        for line in [
            "# TYPE a_seconds histogram",
            "a_seconds_bucket{le=\"0.001\"} 2",
            "a_seconds_bucket{le=\"0.005\"} 3",
            "a_seconds_bucket{le=\"10\"} 3",
            "a_seconds_bucket{le=\"+Inf\"} 4",
            "a_seconds_sum 20.005",
            "a_seconds_count 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
