//! `cairn admin tenant create`: one, or many in one go.

use super::tenant::Row;
use crate::failure::Failure;
use crate::output::{Output, Progress, Show};
use clap::Args;
use serde::Serialize;
use shard_router::operator::{Operator, Planned};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use tokio::time::Instant;

/// Most tenants of one call: their names are held in memory, and a typing error should not fill a cluster.
const COUNT_MAX: u32 = 1_000_000;
/// Names that `--dry-run` prints of each kind; a program gets all.
const SHOWN: usize = 10;

const EXAMPLES: &str = "\
Examples:
  cairn admin tenant create acme
  cairn admin tenant create --count 1000 --prefix customer-     customer-1 to customer-1000
  cairn admin tenant create --from-file names.txt --dry-run     a name a line; - is standard input
Run again with the same names, it makes what is missing and leaves the rest as it is.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Create {
    /// Its name: unique in the cluster.
    #[arg(required_unless_present_any = ["count", "from_file"], conflicts_with_all = ["count", "from_file"])]
    name: Option<String>,
    /// Make so many, named by --prefix and a number from 1.
    #[arg(long, requires = "prefix", conflicts_with = "from_file", value_parser = clap::value_parser!(u32).range(1..=i64::from(COUNT_MAX)))]
    count: Option<u32>,
    /// What the names of --count begin with.
    #[arg(long, requires = "count")]
    prefix: Option<String>,
    /// Make those that a file names: one a line, blank lines and lines that begin with # left out.
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// Only tell what would be made.
    #[arg(long)]
    dry_run: bool,
}

/// What came of a batch, as it is printed.
#[derive(Debug, Serialize)]
struct Batch {
    made: usize,
    existed: usize,
    seconds: f64,
}

/// What would be made, as it is printed.
#[derive(Debug, Serialize)]
struct Plan {
    missing: Vec<String>,
    existing: Vec<String>,
}

impl Show for Plan {
    fn columns(&self) -> Vec<&'static str> {
        vec!["WHAT", "TENANTS", "NAMES"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |what: &str, names: &[String]| {
            let more = if names.len() > SHOWN { " …" } else { "" };
            vec![what.to_owned(), names.len().to_string(), format!("{}{more}", names[..names.len().min(SHOWN)].join(" "))]
        };
        vec![row("would be made", &self.missing), row("are there", &self.existing)]
    }
}

impl Create {
    pub(super) async fn run(self, operator: &Operator, output: Output) -> Result<(), Failure> {
        if let (Some(name), false) = (&self.name, self.dry_run) {
            let row = Row::from(operator.create_tenant(name).await?);
            let next = format!("made tenant {0} with id {1}; next: `cairn admin key create --tenant {0}`", row.name, row.id);
            return output.done(&next, &row);
        }
        let names = self.names()?;
        if self.dry_run {
            let Planned { missing, existing } = operator.plan_tenants(&names).await?;
            return output.show(&Plan { missing, existing });
        }
        let begin = Instant::now();
        let progress = Progress::items("tenants", names.len() as u64);
        let done = operator.ensure_tenants(&names, |done| progress.advance(done as u64)).await;
        progress.finish();
        let done = done.map_err(|error| Failure::from(error).hint("run it again: it goes on where it stopped"))?;
        let batch = Batch { made: done.made.len(), existed: done.existed.len(), seconds: begin.elapsed().as_secs_f64() };
        output.done(&format!("made {} tenants in {:.1} s; {} were there", batch.made, batch.seconds, batch.existed), &batch)
    }

    fn names(&self) -> Result<Vec<String>, Failure> {
        if let Some(path) = &self.from_file {
            let text = read(path)?;
            let names: Vec<String> = names_in(&text);
            return if names.is_empty() { Err(Failure::usage(format!("{} names no tenant", path.display()))) } else { Ok(names) };
        }
        let prefix = self.prefix.as_deref().unwrap_or_default();
        let numbered = (1..=self.count.unwrap_or(0)).map(|n| format!("{prefix}{n}"));
        Ok(self.name.iter().cloned().chain(numbered).collect())
    }
}

fn names_in(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

fn read(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    read.map_err(|error| Failure::usage(format!("can't read {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_have_comments_and_blanks() {
        assert_eq!(names_in("a\n\n # no\n  b \r\n#c\n"), ["a", "b"]);
    }

    #[test]
    fn numbers_start_at_one_and_have_no_zeros_before() {
        let create = Create { name: None, count: Some(11), prefix: Some("t-".into()), from_file: None, dry_run: false };
        let names = create.names().expect("named");
        assert_eq!((names.len(), names[0].as_str(), names[10].as_str()), (11, "t-1", "t-11"));
    }
}
