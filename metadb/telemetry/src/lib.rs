//! What the parts of Cairn count, and how each number is declared.
//!
//! Every crate lists its metrics as [`Metric`]s in its own `metrics.rs`; the binary gathers the lists, describes them to the recorder and
//! serves them. There are two ways to give a number:
//!
//! * **counted where it happens**: [`Metric::counter`], [`Metric::gauge`] and [`Metric::histogram`] give a handle, to be kept; using it is
//!   one or two atomic additions. Without a recorder, as in the simulator and in clients, a handle does nothing;
//! * **read when somebody looks**: a part writes what it knows into [`Samples`] at each scrape. That costs nothing between scrapes, and
//!   what is gone (a group that left the node) is gone from the next scrape too.
//!
//! [`trace`] tells where the time of single requests went, the sampled ones.
//!
//! Not here: the recorder and the text format (`cairn`), and what any number means (the crate that counts it).

mod metric;
mod samples;
pub mod trace;

pub use metric::{Kind, Metric, Unit};
/// Handles, as the recorder gives them out.
pub use metrics::{Counter, Gauge, Histogram};
pub use samples::{Sample, Samples};
