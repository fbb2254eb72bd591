//! Where counted numbers live: one atomic per series, one array of atomics per histogram.
//!
//! Why not the exporter that `metrics` recommends: it keeps every observation of a histogram until the next scrape or upkeep, which costs
//! memory and time per request, and it brings second versions of three crates. Bounds that are fixed when a metric is declared need
//! neither. A histogram costs two atomic additions per observation, a counter one.

use metadb_telemetry::{Counter, Gauge, Histogram, Kind, Metric};
use metrics::{HistogramFn, Key, KeyName, Metadata, Recorder, SharedString};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most series of one metric. Labels come from bounded sets; this bound holds when that was a mistake.
const SERIES_PER_METRIC: usize = 4096;
/// Parts of a unit in which sums are kept: an integer can be added to atomically, and 2⁶⁴ of them last for centuries of seconds.
const PARTS_PER_UNIT: f64 = 1e9;
/// The same for bytes and counts, whose sums are whole numbers.
const WHOLE: f64 = 1.0;

/// A distribution within fixed bounds.
pub(super) struct Distribution {
    bounds: &'static [f64],
    parts: f64,
    counts: Vec<AtomicU64>,
    sum: AtomicU64,
}

impl Distribution {
    fn new(metric: &Metric) -> Self {
        let parts = if metric.unit == metadb_telemetry::Unit::Seconds { PARTS_PER_UNIT } else { WHOLE };
        let bounds = metric.bounds();
        Distribution { bounds, parts, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }

    /// Observations at or below each bound, and all of them.
    pub(super) fn cumulated(&self) -> (Vec<(f64, u64)>, u64) {
        let mut total = 0;
        let mut below = Vec::with_capacity(self.bounds.len());
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            total += count.load(Ordering::Relaxed);
            below.push((*bound, total));
        }
        total += self.counts.last().map_or(0, |count| count.load(Ordering::Relaxed));
        (below, total)
    }

    /// The sum of all observations.
    pub(super) fn sum(&self) -> f64 {
        self.sum.load(Ordering::Relaxed) as f64 / self.parts
    }
}

impl HistogramFn for Distribution {
    #[expect(clippy::cast_possible_truncation, reason = "a sum in whole parts: casts of floats saturate")]
    fn record(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add((value.max(0.0) * self.parts) as u64, Ordering::Relaxed);
    }
}

/// One series.
#[derive(Clone)]
pub(super) enum Series {
    Counter(Arc<AtomicU64>),
    /// The bits of a 64-bit float.
    Gauge(Arc<AtomicU64>),
    Histogram(Arc<Distribution>),
}

impl Series {
    fn new(metric: &Metric) -> Self {
        match metric.kind {
            Kind::Counter => Series::Counter(Arc::default()),
            Kind::Gauge => Series::Gauge(Arc::default()),
            Kind::Histogram => Series::Histogram(Arc::new(Distribution::new(metric))),
        }
    }
}

/// The series of one metric, by the values of its labels.
type Family = BTreeMap<Vec<String>, Series>;

/// All declared metrics, and the series that were asked for.
pub(crate) struct Registry {
    declared: BTreeMap<&'static str, &'static Metric>,
    families: Mutex<BTreeMap<&'static str, Family>>,
}

impl Registry {
    /// Knows these metrics and no others.
    pub(crate) fn new(declared: impl IntoIterator<Item = &'static Metric>) -> Self {
        let declared = declared.into_iter().map(|metric| (metric.name, metric)).collect();
        Registry { declared, families: Mutex::default() }
    }

    /// Every declared metric, by name.
    pub(super) fn declared(&self) -> impl Iterator<Item = &'static Metric> {
        self.declared.values().copied()
    }

    /// The series of a metric.
    pub(super) fn family(&self, name: &str) -> Family {
        self.families.lock().get(name).cloned().unwrap_or_default()
    }

    /// The series that a key means; none if nobody declared it so, or if it has too many already.
    fn series(&self, key: &Key, kind: Kind) -> Option<Series> {
        let Some(metric) = self.declared.get(key.name()).copied().filter(|metric| metric.kind == kind) else {
            tracing::warn!(name = key.name(), ?kind, "a metric that nobody declared is not served");
            return None;
        };
        let given: BTreeMap<&str, &str> = key.labels().map(|label| (label.key(), label.value())).collect();
        if given.len() != metric.labels.len() || !metric.labels.iter().all(|label| given.contains_key(label)) {
            tracing::warn!(name = metric.name, declared = ?metric.labels, ?given, "a metric with other labels than declared is not served");
            return None;
        }
        let values: Vec<String> = metric.labels.iter().map(|label| given[label].to_owned()).collect();
        let mut families = self.families.lock();
        let family = families.entry(metric.name).or_default();
        if family.len() >= SERIES_PER_METRIC && !family.contains_key(&values) {
            return None;
        }
        Some(family.entry(values).or_insert_with(|| Series::new(metric)).clone())
    }
}

/// The registry as the `metrics` crate sees it.
pub(super) struct Shared(pub(super) Arc<Registry>);

impl Recorder for Shared {
    fn describe_counter(&self, _: KeyName, _: Option<metrics::Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<metrics::Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<metrics::Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match self.0.series(key, Kind::Counter) {
            Some(Series::Counter(count)) => Counter::from_arc(count),
            Some(Series::Gauge(_) | Series::Histogram(_)) | None => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match self.0.series(key, Kind::Gauge) {
            Some(Series::Gauge(bits)) => Gauge::from_arc(bits),
            Some(Series::Counter(_) | Series::Histogram(_)) | None => Gauge::noop(),
        }
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        match self.0.series(key, Kind::Histogram) {
            Some(Series::Histogram(distribution)) => Histogram::from_arc(distribution),
            Some(Series::Counter(_) | Series::Gauge(_)) | None => Histogram::noop(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metadb_telemetry::Unit;

    static DELAY: Metric = Metric::new_histogram("cairn_delay_seconds", Unit::Seconds, &[], "A delay.");

    #[test]
    fn an_observation_falls_below_its_bound_and_into_the_sum() {
        let distribution = Distribution::new(&DELAY);
        for seconds in [0.00005, 0.00006, 1.0, 1000.0] {
            distribution.record(seconds);
        }
        let (below, total) = distribution.cumulated();
        let at = |bound: f64| below.iter().find(|(at, _)| (at - bound).abs() < 1e-9).expect("a bound").1;
        assert_eq!((at(0.00005), at(0.0001), at(0.8192), at(1.6384), at(52.4288), total), (1, 2, 2, 3, 3, 4));
        assert!((distribution.sum() - 1_001.000_11).abs() < 1e-6, "{}", distribution.sum());
    }

    #[test]
    fn a_metric_has_a_bounded_number_of_series_and_only_declared_labels() {
        static REQUESTS: Metric = Metric::new_counter("cairn_requests_total", Unit::Count, &["verb"], "Requests.");
        let registry = Registry::new([&REQUESTS]);
        let key = |label: &'static str, value: String| Key::from_parts("cairn_requests_total", vec![metrics::Label::new(label, value)]);
        assert!((0..SERIES_PER_METRIC).all(|n| registry.series(&key("verb", n.to_string()), Kind::Counter).is_some()));
        assert!(registry.series(&key("verb", "one more".into()), Kind::Counter).is_none());
        assert!(registry.series(&key("verb", "7".into()), Kind::Counter).is_some());
        assert!(registry.series(&key("word", "7".into()), Kind::Counter).is_none());
        assert!(registry.series(&key("verb", "7".into()), Kind::Gauge).is_none());
        assert!(registry.series(&Key::from_name("cairn_other_total"), Kind::Counter).is_none());
    }
}
