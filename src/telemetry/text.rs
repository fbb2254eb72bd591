//! The numbers as Prometheus reads them: its text format, version 0.0.4.

use super::recorder::{Registry, Series};
use metadb_telemetry::{Kind, Metric, Sample, Samples};
use std::fmt::Write as _;
use std::sync::atomic::Ordering;

/// What the answer is.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that was counted, and what was read for this scrape, by name.
pub(crate) fn render(registry: &Registry, samples: Samples) -> String {
    let mut text = String::new();
    let samples = samples.sorted();
    for metric in registry.declared() {
        let family = registry.family(metric.name);
        let read: Vec<&Sample> = samples.iter().filter(|sample| sample.metric.name == metric.name).collect();
        if family.is_empty() && read.is_empty() {
            continue;
        }
        head(&mut text, metric);
        for (values, series) in &family {
            match series {
                Series::Counter(count) => line(&mut text, metric.name, metric, values, count.load(Ordering::Relaxed) as f64),
                Series::Gauge(bits) => line(&mut text, metric.name, metric, values, f64::from_bits(bits.load(Ordering::Relaxed))),
                Series::Histogram(distribution) => {
                    let (below, total) = distribution.cumulated();
                    for (bound, count) in below {
                        bucket(&mut text, metric, values, &bound.to_string(), count);
                    }
                    bucket(&mut text, metric, values, "+Inf", total);
                    line(&mut text, &format!("{}_sum", metric.name), metric, values, distribution.sum());
                    line(&mut text, &format!("{}_count", metric.name), metric, values, total as f64);
                }
            }
        }
        for sample in read {
            line(&mut text, metric.name, metric, &sample.labels, sample.value);
        }
    }
    text
}

fn head(text: &mut String, metric: &Metric) {
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let help = metric.help.replace('\\', "\\\\");
    // Writing to a string can't fail; the same below.
    let _ = writeln!(text, "# HELP {} {help}\n# TYPE {} {kind}", metric.name, metric.name);
}

fn labels(metric: &Metric, values: &[String], more: Option<(&str, &str)>) -> String {
    let own = metric.labels.iter().copied().zip(values.iter().map(String::as_str));
    let pairs: Vec<String> = own.chain(more).map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn line(text: &mut String, name: &str, metric: &Metric, values: &[String], number: f64) {
    let _ = writeln!(text, "{name}{} {number}", labels(metric, values, None));
}

fn bucket(text: &mut String, metric: &Metric, values: &[String], bound: &str, count: u64) {
    let _ = writeln!(text, "{}_bucket{} {count}", metric.name, labels(metric, values, Some(("le", bound))));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::recorder::Shared;
    use metadb_telemetry::Unit;
    use std::sync::Arc;

    static CALLS: Metric = Metric::new_counter("cairn_calls_total", Unit::Count, &["verb"], "Calls \\ so far.");
    static SIZE: Metric = Metric::new_histogram("cairn_size_bytes", Unit::Bytes, &[], "Sizes.");
    static UP: Metric = Metric::new_gauge("cairn_up", Unit::Flag, &["group"], "Whether it is up.");

    #[test]
    fn what_is_counted_and_what_is_read_is_written_with_its_meaning() {
        let registry = Arc::new(Registry::new([&CALLS, &SIZE, &UP]));
        metrics::with_local_recorder(&Shared(Arc::clone(&registry)), || {
            CALLS.counter(&["say \"hi\""]).increment(3);
            SIZE.histogram(&[]).record(300.0);
        });
        let mut samples = Samples::default();
        samples.with(&UP, &[&1], true);
        let text = render(&registry, samples);
        let expected = "# HELP cairn_calls_total Calls \\\\ so far.\n# TYPE cairn_calls_total counter\n\
            cairn_calls_total{verb=\"say \\\"hi\\\"\"} 3\n# HELP cairn_size_bytes Sizes.\n# TYPE cairn_size_bytes histogram\n\
            cairn_size_bytes_bucket{le=\"256\"} 0\ncairn_size_bytes_bucket{le=\"1024\"} 1\n";
        assert!(text.starts_with(expected), "{text}");
        let end = "cairn_size_bytes_bucket{le=\"+Inf\"} 1\ncairn_size_bytes_sum 300\ncairn_size_bytes_count 1\n\
            # HELP cairn_up Whether it is up.\n# TYPE cairn_up gauge\ncairn_up{group=\"1\"} 1\n";
        assert!(text.ends_with(end), "{text}");
    }
}
