//! What the demo found out.

use crate::output::{Show, size};
use serde::Serialize;

/// The result of one run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) folder: String,
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    /// Links, devices, unreadable folders: S3 has no such thing.
    pub(crate) skipped: u64,
    pub(crate) upload_seconds: f64,
    pub(crate) read_seconds: f64,
    pub(crate) longest_pause_ms: u64,
    pub(crate) retries: u64,
    pub(crate) mismatches: usize,
    pub(crate) killed: Vec<String>,
    pub(crate) sample: Option<Sample>,
    pub(crate) seconds: f64,
}

/// A file and the nodes that hold it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    pub(crate) key: String,
    pub(crate) bytes: u64,
    pub(crate) nodes: Vec<u64>,
}

impl Report {
    /// For scripts.
    pub(crate) fn last_line(&self) -> String {
        let Report { files, bytes, mismatches, longest_pause_ms, seconds, .. } = self;
        format!("demo: files={files} bytes={bytes} mismatches={mismatches} longest_pause_ms={longest_pause_ms} seconds={seconds:.1}")
    }
}

/// Files in a time, as a rate.
#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn per_second(files: usize, seconds: f64) -> String {
    format!("{:.0} files/s", files as f64 / seconds.max(0.001))
}

impl Show for Report {
    fn columns(&self) -> Vec<&'static str> {
        vec!["WHAT", "RESULT"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let copies = self.sample.as_ref().map_or_else(
            || "not known".to_owned(),
            |sample| {
                let nodes: Vec<_> = sample.nodes.iter().map(|node| format!("node {node}")).collect();
                format!("{} of {} ({})", nodes.join(", "), sample.key, size(sample.bytes))
            },
        );
        let rows = [
            ("folder", self.folder.clone()),
            ("files", format!("{} ({} links and special files left out)", self.files, self.skipped)),
            ("bytes", format!("{} ({})", self.bytes, size(self.bytes))),
            ("upload", format!("{:.1} s, {}", self.upload_seconds, per_second(self.files, self.upload_seconds))),
            ("killed in the middle", if self.killed.is_empty() { "nobody".to_owned() } else { self.killed.join("; ") }),
            ("longest pause a client saw", format!("{} ms", self.longest_pause_ms)),
            ("retries", self.retries.to_string()),
            ("read back and compared", format!("{:.1} s, {}", self.read_seconds, per_second(self.files, self.read_seconds))),
            ("mismatches", self.mismatches.to_string()),
            ("copies of a sampled file", copies),
        ];
        rows.into_iter().map(|(what, result)| vec![what.to_owned(), result]).collect()
    }
}
