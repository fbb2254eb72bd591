//! A metric as it is declared: what nobody may serve differently.

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata};

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Rises only; starts at 0 with the process.
    Counter,
    /// Rises and falls.
    Gauge,
    /// How many observations fell below each of some bounds, their number and their sum.
    Histogram,
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things: requests, entries, files.
    Count,
    /// Bytes.
    Bytes,
    /// Seconds, with a fraction.
    Seconds,
    /// Yes or no: 1 or 0.
    Flag,
}

/// A metric: declared once, as a constant in the `metrics.rs` of the crate that counts it.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// `cairn_<what>_<unit>`, with `_total` behind it for a counter.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// What it counts.
    pub unit: Unit,
    /// One sentence for whoever reads a dashboard.
    pub help: &'static str,
    /// The names of its labels. Their values come from bounded sets only: never a tenant, a path or a user.
    pub labels: &'static [&'static str],
}

/// Bounds of histograms of seconds: from a hop in memory to the longest deadline, each twice the one before.
const SECONDS: [f64; 21] = [
    0.00005, 0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024, 0.2048, 0.4096, 0.8192, 1.6384,
    3.2768, 6.5536, 13.1072, 26.2144, 52.4288,
];
/// Bounds of histograms of bytes: from a small row to the largest message, each four times the one before.
const BYTES: [f64; 10] = [256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0, 67_108_864.0];
/// Bounds of histograms of counts: batches, queues.
const COUNTS: [f64; 12] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];

static METADATA: Metadata<'static> = Metadata::new("cairn", Level::INFO, None);

impl Metric {
    /// A counter.
    #[must_use]
    pub const fn new_counter(name: &'static str, unit: Unit, labels: &'static [&'static str], help: &'static str) -> Self {
        Metric { name, kind: Kind::Counter, unit, help, labels }
    }

    /// A gauge.
    #[must_use]
    pub const fn new_gauge(name: &'static str, unit: Unit, labels: &'static [&'static str], help: &'static str) -> Self {
        Metric { name, kind: Kind::Gauge, unit, help, labels }
    }

    /// A histogram.
    #[must_use]
    pub const fn new_histogram(name: &'static str, unit: Unit, labels: &'static [&'static str], help: &'static str) -> Self {
        Metric { name, kind: Kind::Histogram, unit, help, labels }
    }

    /// The upper bounds of a histogram's buckets, but for the last one, which has none.
    #[must_use]
    pub fn bounds(&self) -> &'static [f64] {
        match self.unit {
            Unit::Seconds => &SECONDS,
            Unit::Bytes => &BYTES,
            Unit::Count | Unit::Flag => &COUNTS,
        }
    }

    fn key(&self, values: &[&str]) -> Key {
        assert_eq!(values.len(), self.labels.len(), "{} has the labels {:?}", self.name, self.labels);
        let labels = self.labels.iter().zip(values).map(|(name, value)| Label::new(*name, (*value).to_owned()));
        Key::from_parts(self.name, labels.collect::<Vec<_>>())
    }

    /// A handle to count with; `values` are those of the labels, in their order. To be made once and kept.
    pub fn counter(&self, values: &[&str]) -> Counter {
        assert_eq!(self.kind, Kind::Counter, "{} is something else", self.name);
        metrics::with_recorder(|recorder| recorder.register_counter(&self.key(values), &METADATA))
    }

    /// A handle to set; as [`Metric::counter`].
    pub fn gauge(&self, values: &[&str]) -> Gauge {
        assert_eq!(self.kind, Kind::Gauge, "{} is something else", self.name);
        metrics::with_recorder(|recorder| recorder.register_gauge(&self.key(values), &METADATA))
    }

    /// A handle to observe with; as [`Metric::counter`].
    pub fn histogram(&self, values: &[&str]) -> Histogram {
        assert_eq!(self.kind, Kind::Histogram, "{} is something else", self.name);
        metrics::with_recorder(|recorder| recorder.register_histogram(&self.key(values), &METADATA))
    }

    /// What is wrong with the declaration; for the test of the list that it is in.
    ///
    /// # Errors
    /// A sentence that names the metric.
    pub fn check(&self) -> Result<(), String> {
        let name = self.name;
        let stem = name.strip_suffix("_total").unwrap_or(name);
        let wrong = |what: &str| Err(format!("{name}: {what}"));
        if !name.starts_with("cairn_") || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
            return wrong("must be cairn_ and lower case words");
        }
        if (self.kind == Kind::Counter) != name.ends_with("_total") {
            return wrong("a counter ends in _total, and nothing else does");
        }
        if (self.unit == Unit::Seconds) != stem.ends_with("_seconds") || (self.unit == Unit::Bytes) != stem.ends_with("_bytes") {
            return wrong("the unit is the last word before _total");
        }
        if !self.help.ends_with('.') || self.help.contains('\n') {
            return wrong("the help is one sentence");
        }
        match self.labels.iter().find(|label| ["tenant", "tenant_id", "path", "user", "key", "request_id"].contains(label)) {
            Some(label) => wrong(&format!("the label {label} has no bound")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declaration_that_breaks_the_rules_is_told() {
        let good = Metric::new_counter("cairn_log_batch_bytes_total", Unit::Bytes, &["outcome"], "Bytes written.");
        good.check().expect("it keeps to them");
        let bad = |metric: Metric, word: &str| assert!(metric.check().expect_err("refused").contains(word), "{metric:?}");
        bad(Metric::new_counter("cairn_requests", Unit::Count, &[], "Requests."), "_total");
        bad(Metric::new_gauge("cairn_requests_total", Unit::Count, &[], "Requests."), "_total");
        bad(Metric::new_gauge("cairn_delay", Unit::Seconds, &[], "A delay."), "unit");
        bad(Metric::new_gauge("cairn_delay_bytes", Unit::Seconds, &[], "A delay."), "unit");
        bad(Metric::new_gauge("requests", Unit::Count, &[], "Requests."), "cairn_");
        bad(Metric::new_counter("cairn_requests_total", Unit::Count, &["tenant"], "Requests."), "bound");
        bad(Metric::new_counter("cairn_requests_total", Unit::Count, &[], "Requests"), "sentence");
    }

    #[test]
    fn bounds_rise_and_reach_the_longest_deadline() {
        for bounds in [&SECONDS[..], &BYTES[..], &COUNTS[..]] {
            assert!(bounds.windows(2).all(|pair| pair[0] < pair[1]));
        }
        const { assert!(SECONDS[20] > 50.0) };
    }

    #[test]
    fn without_a_recorder_a_handle_does_nothing() {
        static REQUESTS: Metric = Metric::new_counter("cairn_requests_total", Unit::Count, &["verb"], "Requests.");
        REQUESTS.counter(&["get"]).increment(1);
    }
}
