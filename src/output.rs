//! The only place that prints. Answers go to standard output, in the format asked for; everything else goes to standard error.

use crate::failure::Failure;
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// The widest line of a table that does not go to a terminal: no script reads tables, but a log may hold one.
const WIDTH_WITHOUT_TERMINAL: u16 = 160;
/// How often progress is told when there is no terminal to draw it on.
const PLAIN_PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
}

/// An answer: its rows for people, itself (by serde) for programs.
pub(crate) trait Show: Serialize {
    /// The titles of the columns.
    fn columns(&self) -> Vec<&'static str>;
    /// The rows, each as long as the columns.
    fn rows(&self) -> Vec<Vec<String>>;
    /// What is said when there are no rows.
    fn empty(&self) -> &'static str {
        "nothing"
    }
}

/// Prints answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) format: Format,
}

impl Output {
    /// Prints an answer.
    pub(crate) fn show<T: Show>(self, answer: &T) -> Result<(), Failure> {
        let text = match self.format {
            Format::Table => {
                let rows = answer.rows();
                if rows.is_empty() { answer.empty().to_owned() } else { table(&answer.columns(), rows) }
            }
            Format::Json | Format::Yaml => self.encoded(answer)?,
        };
        line(&text)
    }

    /// Prints a sentence, or, to a program, the value that it tells.
    pub(crate) fn done<T: Serialize>(self, sentence: &str, value: &T) -> Result<(), Failure> {
        match self.format {
            Format::Table => line(sentence),
            Format::Json | Format::Yaml => line(&self.encoded(value)?),
        }
    }

    fn encoded<T: Serialize>(self, value: &T) -> Result<String, Failure> {
        let failed = |error: String| Failure::failed(format!("the answer can't be encoded: {error}"));
        match self.format {
            Format::Yaml => {
                serde_yaml_ng::to_string(value).map(|text| text.trim_end().to_owned()).map_err(|error| failed(error.to_string()))
            }
            Format::Json | Format::Table => serde_json::to_string_pretty(value).map_err(|error| failed(error.to_string())),
        }
    }
}

/// A table that aligns its columns and fits the terminal.
pub(crate) fn table(columns: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !std::io::stdout().is_terminal() {
        table.set_width(WIDTH_WITHOUT_TERMINAL);
    }
    table.set_header(columns).add_rows(rows);
    // Every cell has a blank on both sides: the first one of a line says nothing.
    let lines = table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

/// One line (or several) to standard output. A reader that went away, as `head` does, is no failure.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    bytes(format!("{text}\n").as_bytes())
}

/// Bytes to standard output as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::failed(format!("can't write the answer: {error}"))),
        _ => Ok(()),
    }
}

/// One line to standard error: what is being done. If even that can't be written, nobody is listening.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Tells a failure and what to do about it.
pub(crate) fn failure(failure: &Failure) {
    note(&format!("error: {}", failure.message));
    if let Some(hint) = &failure.hint {
        note(&format!(" hint: {hint}"));
    }
}

/// How an amount is told.
type Shown = fn(u64) -> String;

/// Progress of something countable: a bar on a terminal, a line each second without one.
pub(crate) struct Progress {
    bar: ProgressBar,
    shown: Shown,
    plain: Option<tokio::task::JoinHandle<()>>,
}

impl Progress {
    /// Starts to show progress towards `total` bytes.
    pub(crate) fn bytes(label: &str, total: u64) -> Self {
        let style = "{prefix:>9} [{bar:36}] {percent:>3}% {decimal_bytes:>10} of {decimal_total_bytes} {decimal_bytes_per_sec:>12} {msg}";
        Self::start(label, total, size, style)
    }

    /// Starts to show progress towards so many of something.
    pub(crate) fn items(label: &str, total: u64) -> Self {
        Self::start(label, total, |count| count.to_string(), "{prefix:>9} [{bar:36}] {percent:>3}% {pos} of {len} {per_sec:>12} {msg}")
    }

    fn start(label: &str, total: u64, shown: Shown, style: &str) -> Self {
        let bar = ProgressBar::new(total);
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(label.to_owned());
        let plain = (!std::io::stderr().is_terminal()).then(|| tokio::spawn(tell_plainly(label.to_owned(), bar.clone(), shown)));
        Progress { bar, shown, plain }
    }

    /// Goes on by so many bytes.
    pub(crate) fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// What is told behind the numbers.
    pub(crate) fn message(&self, text: String) {
        self.bar.set_message(text);
    }

    /// A line above the bar.
    pub(crate) fn note(&self, text: &str) {
        self.bar.suspend(|| note(text));
    }

    /// Ends it, and leaves its last state to be read.
    pub(crate) fn finish(self) {
        if let Some(task) = &self.plain {
            task.abort();
            note(&plain_line(&self.bar.prefix(), &self.bar, self.shown));
        }
        self.bar.finish();
    }
}

async fn tell_plainly(label: String, bar: ProgressBar, shown: Shown) {
    loop {
        tokio::time::sleep(PLAIN_PROGRESS_EVERY).await;
        note(&plain_line(&label, &bar, shown));
    }
}

fn plain_line(label: &str, bar: &ProgressBar, shown: Shown) -> String {
    let (at, total) = (bar.position(), bar.length().unwrap_or(0));
    let percent = at.saturating_mul(100).checked_div(total).unwrap_or(100);
    format!("{label}: {percent}% ({} of {}) {}", shown(at), shown(total), bar.message())
}

/// Bytes for people: 1.5 MB.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::DecimalBytes(bytes).to_string()
}

/// A time for people.
pub(crate) fn duration(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..120_000 => format!("{:.1} s", ms as f64 / 1000.0),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{:.1} h", ms as f64 / 3_600_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_aligns_and_ends_no_line_with_blanks() {
        let text = table(&["NAME", "SIZE"], vec![vec!["a".into(), "1".into()], vec!["longer".into(), "22".into()]]);
        assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
        let at = |needle: &str| text.lines().find_map(|line| line.find(needle));
        assert_eq!(at("22"), at("1"));
    }

    #[test]
    fn sizes_are_for_people() {
        assert_eq!(size(1_500_000), "1.50 MB");
    }
}
