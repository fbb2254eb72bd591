//! `cairn demo`: a real folder goes in over S3, the node that leads most groups is killed in the middle, and every byte is read back
//! through another node and compared.

mod copy;
mod report;
mod tree;

pub(crate) use copy::read_part;

use crate::dev::{DEMO, DevCluster, DevOptions};
use crate::failure::Failure;
use crate::output::{self, Format, Output, Progress};
use copy::{Copier, Seen, Sum, Verdict};
use jepsen::nemesis::{self, Kill, Pace};
use report::{Report, Sample};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tree::Tree;

/// How often the nemesis looks whether its moment has come.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// At most this long the killed node stays down: long enough that the others must have gone on without it.
const DOWN_AT_MOST: Duration = Duration::from_secs(5);
/// At least this long, even if the upload is done before.
const DOWN_AT_LEAST: Duration = Duration::from_millis(1500);

/// How long the third copy of the sampled file is waited for.
const COPIED_WITHIN: Duration = Duration::from_secs(15);

/// What the person asked for.
#[derive(Debug, Clone)]
pub(crate) struct DemoOptions {
    pub(crate) folder: PathBuf,
    pub(crate) workers: usize,
    pub(crate) nodes: u16,
    pub(crate) kills: usize,
    pub(crate) max_files: usize,
    pub(crate) data: Option<PathBuf>,
    pub(crate) keep: bool,
}

/// Runs it. It fails if a byte differs.
pub(crate) async fn run(options: DemoOptions, output: Output) -> Result<(), Failure> {
    let started = Instant::now();
    let mut stop = crate::node::Stop::from_system(false)?;
    let tree = tree::walk(&options.folder, options.max_files)?;
    if tree.files.is_empty() {
        return Err(Failure::usage(format!("{} holds no files", options.folder.display())).hint("choose another folder: `cairn demo DIR`"));
    }
    output::note(&format!("{}: {} files, {}", options.folder.display(), tree.files.len(), output::size(tree.bytes)));
    let place = Place::choose(&options)?;
    let dev = DevOptions { data: place.path.clone(), nodes: Some(options.nodes), port_base: None };
    let played = async {
        let running = Box::pin(DevCluster::up(&dev)).await?;
        output::note(&format!("{} nodes are up after {:.1} s", options.nodes, running.took.as_secs_f64()));
        let outcome = Box::pin(play(&options, &tree, &running)).await;
        running.down().await;
        outcome
    };
    let outcome = tokio::select! {
        biased;
        () = stop.wait() => Err(Failure::failed("interrupted")),
        outcome = Box::pin(played) => outcome,
    };
    place.leave(outcome.is_err())?;
    let mut report = outcome?;
    report.seconds = started.elapsed().as_secs_f64();
    output.show(&report)?;
    if output.format == Format::Table {
        output::line(&report.last_line())?;
    }
    if report.mismatches > 0 {
        return Err(Failure::failed(format!("{} of {} files differ from what was uploaded", report.mismatches, report.files)));
    }
    Ok(())
}

/// Where the cluster's data lies.
struct Place {
    path: PathBuf,
    temporary: Option<tempfile::TempDir>,
    keep: bool,
}

impl Place {
    fn choose(options: &DemoOptions) -> Result<Self, Failure> {
        if let Some(path) = &options.data {
            if std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) {
                return Err(Failure::usage(format!("{} is not empty", path.display())).hint("the demo wants a new or empty folder"));
            }
            return Ok(Place { path: path.clone(), temporary: None, keep: options.keep });
        }
        let made = tempfile::Builder::new().prefix("cairn-demo-").tempdir();
        let made = made.map_err(|error| Failure::failed(format!("can't make a temporary folder: {error}")).hint("give one with --data"))?;
        Ok(Place { path: made.path().to_owned(), temporary: Some(made), keep: options.keep })
    }

    /// Removes the data, unless it shall be kept or tells why something failed.
    fn leave(self, failed: bool) -> Result<(), Failure> {
        if self.keep || failed {
            let path = self.temporary.map_or(self.path, tempfile::TempDir::keep);
            output::note(&format!("the data is kept: `cairn dev --data {}`", path.display()));
            return Ok(());
        }
        if self.temporary.is_none() {
            std::fs::remove_dir_all(&self.path).map_err(|error| Failure::io("remove", &self.path, &error))?;
        }
        Ok(())
    }
}

async fn play(options: &DemoOptions, tree: &Tree, running: &DevCluster) -> Result<Report, Failure> {
    let (writes, reads) = (Seen::default(), Seen::default());
    let started = Instant::now();
    let progress = Progress::bytes("upload", tree.bytes);
    let copier = copier(options, running, &progress, &writes)?;
    let upload = Upload { files: tree.files.len() as u64, seen: &writes, progress: &progress, done: AtomicBool::new(false) };
    let uploading = async {
        let sums = copier.upload(&tree.files).await;
        upload.done.store(true, Ordering::Relaxed);
        (sums, started.elapsed().as_secs_f64())
    };
    // Nobody can be spared in a cluster of one or two.
    let kills = if running.cluster.size() < 3 { 0 } else { options.kills as u64 };
    let mut pace = ByUpload { upload: &upload, kills };
    let ((sums, upload_seconds), kills) = Box::pin(futures::future::join(uploading, nemesis::run(&running.cluster, &mut pace))).await;
    progress.finish();
    let (sums, kills) = (sums?, kills.map_err(|error| Failure::failed(error.to_string()))?);

    let started = Instant::now();
    let progress = Progress::bytes("read back", tree.bytes);
    let verdicts = copier_of(options, running, &progress, &reads, &tree.files, &sums).await;
    progress.finish();
    let verdicts = verdicts?;
    let read_seconds = started.elapsed().as_secs_f64();
    let sample = sample(running, tree).await;
    let mismatches = verdicts.iter().filter(|verdict| **verdict == Verdict::Differs).count();
    let different = tree.files.iter().zip(&verdicts).filter(|(_, verdict)| **verdict == Verdict::Differs);
    different.take(10).for_each(|(file, _)| output::note(&format!("differs: {}", file.key)));
    Ok(Report {
        folder: options.folder.display().to_string(),
        files: tree.files.len(),
        bytes: tree.bytes,
        skipped: tree.skipped,
        upload_seconds,
        read_seconds,
        longest_pause_ms: u64::try_from(writes.longest_pause().max(reads.longest_pause()).as_millis()).unwrap_or(u64::MAX),
        retries: writes.retries() + reads.retries(),
        mismatches,
        killed: kills.iter().map(|kill| format!("node-{}, which led {} groups", kill.node + 1, kill.groups)).collect(),
        sample,
        seconds: 0.0,
    })
}

fn copier<'a>(options: &DemoOptions, running: &DevCluster, progress: &'a Progress, seen: &'a Seen) -> Result<Copier<'a>, Failure> {
    Ok(Copier { s3: running.s3()?, bucket: DEMO, nodes: options.nodes.into(), workers: options.workers, progress, seen })
}

async fn copier_of(
    options: &DemoOptions,
    running: &DevCluster,
    progress: &Progress,
    seen: &Seen,
    files: &[tree::TreeFile],
    sums: &[Sum],
) -> Result<Vec<Verdict>, Failure> {
    copier(options, running, progress, seen)?.verify(files, sums).await
}

/// The pace of the kills: at even distances within the upload.
struct ByUpload<'a> {
    upload: &'a Upload<'a>,
    kills: u64,
}

impl Pace for ByUpload<'_> {
    async fn next_kill(&mut self, round: usize) -> bool {
        let round = round as u64 + 1;
        if round > self.kills {
            return false;
        }
        let moment = self.upload.files * round / (self.kills + 1);
        while self.upload.seen.files.load(Ordering::Relaxed) < moment && !self.upload.is_done() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        !self.upload.is_done()
    }

    async fn while_down(&mut self, kill: &Kill) {
        let (killed, name) = (Instant::now(), format!("node-{}", kill.node + 1));
        self.upload.progress.note(&format!("killed {name} with SIGKILL: it led {} groups", kill.groups));
        self.upload.progress.message(format!("{name} is down"));
        while killed.elapsed() < DOWN_AT_LEAST || (killed.elapsed() < DOWN_AT_MOST && !self.upload.is_done()) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn is_back(&mut self, kill: &Kill, was_down: Duration) {
        self.upload.progress.note(&format!("node-{} is back after {:.1} s", kill.node + 1, was_down.as_secs_f64()));
        self.upload.progress.message(String::new());
    }
}

/// How far the upload is.
struct Upload<'a> {
    files: u64,
    seen: &'a Seen,
    progress: &'a Progress,
    done: AtomicBool,
}

impl Upload<'_> {
    fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }
}

/// Where the copies of one file lie, as its record says: the largest file, because an empty one has none. A copy that the killed node
/// missed is made in the background: it gets a while.
async fn sample(running: &DevCluster, tree: &Tree) -> Option<Sample> {
    let file = tree.files.iter().max_by_key(|file| file.bytes)?;
    let (router, path, started) = (running.router(), format!("/{DEMO}/{}", file.key), Instant::now());
    let wanted = running.cluster.size().min(object_gateway::content::COPIES);
    loop {
        let nodes = crate::cli::copies(router.clone(), DEMO, &path).await.ok();
        match nodes {
            Some(nodes) if nodes.len() >= wanted || started.elapsed() > COPIED_WITHIN => {
                return Some(Sample { key: file.key.clone(), bytes: file.bytes, nodes });
            }
            None if started.elapsed() > COPIED_WITHIN => return None,
            Some(_) | None => tokio::time::sleep(LOOK_EVERY * 10).await,
        }
    }
}
