//! Numbers that are read when somebody looks.

use crate::metric::Metric;

/// One number at the moment of a scrape.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Of which metric.
    pub metric: &'static Metric,
    /// The values of its labels, in their order.
    pub labels: Vec<String>,
    /// The number.
    pub value: f64,
}

/// What the parts of a process tell at one scrape.
#[derive(Debug, Default)]
pub struct Samples(Vec<Sample>);

impl Samples {
    /// Adds a number without labels.
    pub fn set(&mut self, metric: &'static Metric, value: impl Number) {
        self.with(metric, &[], value);
    }

    /// Adds a number with the values of its labels, in their order.
    pub fn with(&mut self, metric: &'static Metric, labels: &[&dyn std::fmt::Display], value: impl Number) {
        assert_eq!(labels.len(), metric.labels.len(), "{} has the labels {:?}", metric.name, metric.labels);
        let labels = labels.iter().map(ToString::to_string).collect();
        self.0.push(Sample { metric, labels, value: value.number() });
    }

    /// All of them, by metric and labels.
    #[must_use]
    pub fn sorted(mut self) -> Vec<Sample> {
        self.0.sort_by(|a, b| (a.metric.name, &a.labels).cmp(&(b.metric.name, &b.labels)));
        self.0
    }
}

/// What can be a sample: numbers as they come, each as the nearest 64-bit float.
pub trait Number {
    /// As the text format has it.
    fn number(self) -> f64;
}

impl Number for f64 {
    fn number(self) -> f64 {
        self
    }
}

impl Number for bool {
    fn number(self) -> f64 {
        f64::from(u8::from(self))
    }
}

impl Number for u32 {
    fn number(self) -> f64 {
        f64::from(self)
    }
}

impl Number for u64 {
    fn number(self) -> f64 {
        self as f64
    }
}

impl Number for usize {
    fn number(self) -> f64 {
        self as f64
    }
}

impl Number for std::time::Duration {
    fn number(self) -> f64 {
        self.as_secs_f64()
    }
}
