//! What the demo found out.

use crate::failure::Failure;
use crate::output::{Show, size};
use serde::Serialize;

/// Upper bounds of the pauses in the picture, in milliseconds.
const BOUNDS_MS: [f64; 8] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0];
/// The longest bar, in characters.
const BAR: usize = 40;

/// The result of one run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) shards: u32,
    pub(crate) created_seconds: f64,
    pub(crate) moved: usize,
    pub(crate) left_behind: usize,
    pub(crate) move_seconds: f64,
    pub(crate) copied_bytes: u64,
    /// For how long each shard was neither read nor written, the shortest first.
    pub(crate) pauses_ms: Vec<f64>,
    pub(crate) requests: u64,
    pub(crate) slowest_ms: f64,
    pub(crate) client_errors: usize,
    pub(crate) first_error: Option<String>,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// The node that was drained, and whether it holds nothing any more.
    pub(crate) drained: Option<(u64, bool)>,
}

impl Report {
    /// For scripts.
    pub(crate) fn last_line(&self) -> String {
        format!(
            "shards: count={} moved={} moves_per_s={:.0} pause_p50_ms={:.1} pause_p99_ms={:.1} client_errors={} lost={} doubled={}",
            self.shards,
            self.moved - self.left_behind.min(self.moved),
            self.per_second(),
            self.pause(50),
            self.pause(99),
            self.client_errors,
            self.lost,
            self.doubled
        )
    }

    /// Whether what must hold holds.
    pub(crate) fn verdict(&self) -> Result<(), Failure> {
        if let Some(error) = &self.first_error {
            return Err(Failure::failed(format!("{} times a client was told an error, first: {error}", self.client_errors)));
        }
        if self.lost + self.doubled > 0 {
            return Err(Failure::failed(format!("{} writes were lost, {} were done twice", self.lost, self.doubled)));
        }
        if self.left_behind > 0 {
            return Err(Failure::failed(format!("{} shards are where they were", self.left_behind)));
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    fn per_second(&self) -> f64 {
        self.moved as f64 / self.move_seconds.max(0.001)
    }

    /// A percentile of the pauses.
    fn pause(&self, percent: usize) -> f64 {
        let at = (self.pauses_ms.len() * percent).div_ceil(100).max(1) - 1;
        self.pauses_ms.get(at).copied().unwrap_or(0.0)
    }

    /// How many pauses were how long.
    fn picture(&self) -> String {
        let within = |from: f64, to: f64| self.pauses_ms.iter().filter(|pause| (from..to).contains(*pause)).count();
        let lowers = std::iter::once(0.0).chain(BOUNDS_MS);
        let uppers = BOUNDS_MS.into_iter().chain([f64::INFINITY]);
        let counts: Vec<(f64, usize)> = lowers.zip(uppers).map(|(from, to)| (to, within(from, to))).collect();
        let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
        let line = |(to, count): &(f64, usize)| {
            let label = if to.is_finite() { format!("< {to} ms") } else { "longer".to_owned() };
            format!("{label:>9} {:<BAR$} {count}", "#".repeat((count * BAR).div_ceil(most)))
        };
        counts.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

impl Show for Report {
    fn columns(&self) -> Vec<&'static str> {
        vec!["WHAT", "RESULT"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let drained = match self.drained {
            Some((node, true)) => format!("node {node}, which holds nothing any more"),
            Some((node, false)) => format!("node {node}, which still holds replicas"),
            None => "none: too few nodes".to_owned(),
        };
        let longest = self.pauses_ms.last().copied().unwrap_or(0.0);
        let pauses = format!("p50 {:.1} ms, p99 {:.1} ms, longest {longest:.1} ms", self.pause(50), self.pause(99));
        let rows = [
            ("shards", format!("{}, created in {:.1} s", self.shards, self.created_seconds)),
            ("moved", format!("{} in {:.1} s, {:.0}/s", self.moved, self.move_seconds, self.per_second())),
            ("copied", size(self.copied_bytes)),
            ("drained", drained),
            ("pauses", pauses),
            ("", self.picture()),
            ("requests meanwhile", format!("{}, the slowest took {:.0} ms", self.requests, self.slowest_ms)),
            ("errors told to clients", self.client_errors.to_string()),
            ("writes lost, done twice", format!("{}, {}", self.lost, self.doubled)),
        ];
        rows.into_iter().map(|(what, result)| vec![what.to_owned(), result]).collect()
    }
}
