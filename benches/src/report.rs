//! What a section found: tables for a person, figures against what must be reached, raw numbers for programs, curves to plot.

use crate::plot::Plot;
use anyhow::Context as _;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;

/// What one section found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Its name.
    pub section: String,
    /// For people.
    #[serde(skip)]
    pub tables: Vec<TextTable>,
    /// Against the thresholds.
    pub figures: Vec<Figure>,
    /// What a reader must know of how it was measured, and what went wrong.
    pub notes: Vec<String>,
    /// Everything measured.
    pub raw: serde_json::Value,
    /// Curves.
    #[serde(skip)]
    pub plots: Vec<Plot>,
}

impl Report {
    /// One that says nothing yet.
    #[must_use]
    pub fn new(section: &str) -> Self {
        Report {
            section: section.to_owned(),
            tables: Vec::new(),
            figures: Vec::new(),
            notes: Vec::new(),
            raw: serde_json::Value::Null,
            plots: Vec::new(),
        }
    }

    /// All of it, for a person.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for table in &self.tables {
            let _ = write!(text, "\n{table}");
        }
        for note in &self.notes {
            let _ = writeln!(text, "  {note}");
        }
        if !self.figures.is_empty() {
            let _ = write!(text, "\n{}", figures_table("against what must be reached", &self.figures));
        }
        text
    }
}

/// What is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Throughput.
    Higher,
    /// Latency, memory, time.
    Lower,
}

/// One number that has to reach something.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// For scripts.
    pub key: &'static str,
    /// For people.
    pub what: &'static str,
    /// The number; none if it could not be measured.
    pub value: Option<f64>,
    /// Behind the number: `x`, ` s`, ` MB`, ` %`.
    pub unit: &'static str,
    /// Ours, as measured.
    pub ours: String,
    /// The peer's, as measured.
    pub peer: String,
    /// What must be reached.
    pub at_least: Option<f64>,
    /// What would be best.
    pub moon: Option<f64>,
    /// Which way is good.
    pub better: Better,
}

/// What becomes of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The best that was asked.
    Moon,
    /// What must be.
    Met,
    /// Not that.
    Missed,
    /// Nobody knows.
    None,
}

impl Figure {
    /// Whether it reaches what it must.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let reaches = |limit: Option<f64>| match (self.value, limit, self.better) {
            (Some(value), Some(limit), Better::Higher) => value >= limit,
            (Some(value), Some(limit), Better::Lower) => value <= limit,
            _ => false,
        };
        match (self.value, self.at_least) {
            (None, _) | (_, None) => Verdict::None,
            _ if reaches(self.moon) && reaches(self.at_least) => Verdict::Moon,
            _ if reaches(self.at_least) => Verdict::Met,
            _ => Verdict::Missed,
        }
    }

    fn shown(&self, value: Option<f64>) -> String {
        value.map_or_else(String::new, |value| format!("{}{}", cells::significant(value), self.unit))
    }
}

/// Figures beside what they must reach.
#[must_use]
pub fn figures_table(title: &str, figures: &[Figure]) -> TextTable {
    let mut table = TextTable::new(title, &["figure", "Cairn", "peer", "value", "at least", "moon", "met"]);
    for figure in figures {
        let met = match figure.verdict() {
            Verdict::Moon => "moon",
            Verdict::Met => "yes",
            Verdict::Missed => "NO",
            Verdict::None if figure.value.is_none() => "not measured",
            Verdict::None => "",
        };
        table.row([
            figure.what.to_owned(),
            figure.ours.clone(),
            figure.peer.clone(),
            figure.shown(figure.value),
            figure.shown(figure.at_least),
            figure.shown(figure.moon),
            met.to_owned(),
        ]);
    }
    table
}

/// The last line, for scripts: every figure by its key; `none` if it was not measured.
#[must_use]
pub fn last_line(figures: &[Figure]) -> String {
    let mut line = "bench:".to_owned();
    for figure in figures {
        let value = figure.value.map_or_else(|| "none".to_owned(), cells::significant);
        let _ = write!(line, " {}={value}", figure.key);
    }
    line
}

/// Everything, for programs.
///
/// # Errors
/// If the file can't be written.
pub fn write_json<T: Serialize>(all: &T, path: &Path) -> anyhow::Result<()> {
    std::fs::write(path, serde_json::to_vec_pretty(all)?).with_context(|| format!("can't write {}", path.display()))
}

/// Rows with aligned columns: text to the left, numbers to the right.
#[derive(Debug, Clone)]
pub struct TextTable {
    title: String,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl TextTable {
    /// An empty one.
    #[must_use]
    pub fn new(title: &str, header: &[&str]) -> Self {
        TextTable { title: title.to_owned(), header: header.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    /// One more row; a short one ends in empty cells.
    pub fn row<S: Into<String>>(&mut self, row: impl IntoIterator<Item = S>) {
        let mut row: Vec<String> = row.into_iter().map(Into::into).collect();
        row.resize(self.header.len(), String::new());
        self.rows.push(row);
    }
}

impl std::fmt::Display for TextTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let column = |n: usize| self.rows.iter().map(move |row| row[n].as_str());
        let width = |n: usize| column(n).chain([self.header[n].as_str()]).map(|cell| cell.chars().count()).max().unwrap_or(0);
        let numbers = |n: usize| column(n).all(|cell| cell.is_empty() || cell.starts_with(|c: char| c.is_ascii_digit() || c == '-'));
        let columns: Vec<(usize, bool)> = (0..self.header.len()).map(|n| (width(n), numbers(n))).collect();
        writeln!(f, "{}", self.title)?;
        for row in std::iter::once(&self.header).chain(&self.rows) {
            let mut line = String::from("  ");
            for (cell, (width, right)) in row.iter().zip(&columns) {
                let pad = " ".repeat(width - cell.chars().count());
                let _ = if *right { write!(line, "{pad}{cell}  ") } else { write!(line, "{cell}{pad}  ") };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Numbers as they stand in cells.
pub mod cells {
    /// With so many digits behind the point.
    #[must_use]
    pub fn number(value: f64, digits: usize) -> String {
        format!("{value:.digits$}")
    }

    /// As many digits as matter.
    #[must_use]
    pub fn significant(value: f64) -> String {
        let digits = match value.abs() {
            large if large >= 100.0 => 0,
            middle if middle >= 10.0 => 1,
            _ => 2,
        };
        number(value, digits)
    }

    /// With its unit, if there is a number.
    #[must_use]
    pub fn with_unit(value: Option<f64>, unit: &str) -> String {
        value.map_or_else(|| "none".to_owned(), |value| format!("{}{unit}", significant(value)))
    }
}

/// The middle of some numbers; none if there are none.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(value: Option<f64>, better: Better) -> Figure {
        Figure {
            key: "put",
            what: "puts",
            value,
            unit: "x",
            ours: "8/s".into(),
            peer: "2/s".into(),
            at_least: Some(4.0),
            moon: Some(if better == Better::Higher { 10.0 } else { 1.0 }),
            better,
        }
    }

    #[test]
    fn verdicts_go_the_right_way() {
        let higher = [1.0, 4.0, 10.0].map(|value| figure(Some(value), Better::Higher).verdict());
        assert_eq!(higher, [Verdict::Missed, Verdict::Met, Verdict::Moon]);
        let lower = [5.0, 4.0, 1.0].map(|value| figure(Some(value), Better::Lower).verdict());
        assert_eq!(lower, [Verdict::Missed, Verdict::Met, Verdict::Moon]);
        assert_eq!(figure(None, Better::Lower).verdict(), Verdict::None);
    }

    #[test]
    fn the_last_line_says_what_was_not_measured() {
        let figures = [figure(Some(2.345), Better::Higher), figure(None, Better::Higher)];
        assert_eq!(last_line(&figures), "bench: put=2.35 put=none");
    }

    #[test]
    fn columns_align() {
        let mut table = TextTable::new("t", &["µ name", "per second"]);
        table.row(["a", "1,000"]);
        table.row(["longer name"]);
        assert_eq!(table.to_string(), "t\n  µ name       per second\n  a                 1,000\n  longer name\n");
    }

    #[test]
    fn the_middle_is_of_sorted_values() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([]), None);
    }
}
