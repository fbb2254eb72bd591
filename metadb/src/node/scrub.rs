//! Reads everything of the node that is at rest, slowly, so that rot is found while the other replicas are still whole.
//!
//! A pass reads the sealed segments of the log, every family of the store, the marks beside them, and what else the process keeps
//! ([`AtRest`]), each in steps, at a rate that a setting bounds. Nothing is held between two steps. A pass begins by itself when the last
//! one ended so long ago as a setting says, or when an operator asks. Where it is and when the last one ended is kept in the file `scrub`
//! of the spool, so that a restart goes on and does not begin anew.
//!
//! What does not read back goes the way of everything that does not ([`super::watchdog`]): the store and the log say so themselves.
//!
//! Not here: rows that are wrong under a right checksum, which only other replicas can tell.

mod note;

use super::Node;
use super::quarantine::{self, Scope};
use crate::metrics;
use bytes::Bytes;
use futures::future::BoxFuture;
use metadb_engine::{COLUMN_FAMILIES, Cf, EngineError, Verified};
use metadb_proto::planted::{self, Bug};
use metadb_proto::settings::Asker;
use metadb_proto::settings::registry::{SCRUB_BYTES_PER_S, SCRUB_INTERVAL_S};
use metadb_proto::{Error, seam, v1};
use metadb_telemetry::Samples;
use note::{Note, Part};
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// How often it looks whether a pass is due.
const LOOK: Duration = Duration::from_secs(1);
/// A step reads what the rate allows in a quarter of a second, within these bounds.
const STEPS_PER_S: u64 = 4;
const STEP_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=16 << 20;
/// Between two steps.
const REST: Duration = Duration::from_millis(1);
/// How often the place is kept: a restart repeats no more than what was read since.
const NOTE_EVERY: Duration = Duration::from_secs(30);
/// Most that is told of a pass.
const PROBLEMS_MAX: usize = 16;

/// Something of the process that is at rest and not of this crate.
pub trait AtRest: Send + Sync + 'static {
    /// A word for it.
    fn name(&self) -> &'static str;

    /// Checks about so many bytes from a place on; empty: from the beginning. It has what is bad mended by itself.
    ///
    /// # Errors
    /// Whatever kept it from reading.
    fn verify(&self, from: Bytes, max_bytes: u64) -> BoxFuture<'_, Result<Checked, Error>>;
}

/// What a step found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// How far it came.
    pub read: Verified<Bytes>,
    /// What was bad, each in a few words.
    pub bad: Vec<String>,
}

/// A pass that is under way.
struct Pass {
    note: Note,
    /// What an operator asked for instead of the setting.
    bytes_per_s: Option<u64>,
    total_bytes: u64,
    /// Since when the rate is kept, and what was read since.
    paced: (Instant, u64),
    noted: Instant,
    problems: Vec<String>,
}

#[derive(Default)]
struct State {
    note: Note,
    pass: Option<Pass>,
    /// Of the last pass that ended.
    problems: Vec<String>,
    ended_bytes: u64,
    passes: u64,
    bytes: u64,
    rot: u64,
    unread: u64,
}

/// The scrub of a node.
#[derive(Default)]
pub(super) struct Scrub {
    state: Mutex<State>,
    others: OnceLock<Vec<Arc<dyn AtRest>>>,
    asked: tokio::sync::Notify,
}

/// What one step came to.
enum Step {
    Read(Verified<Bytes>, Vec<String>),
    /// The node's storage is not to be believed: there is nothing more to be read here.
    Rotten(String),
    Unread(String),
}

/// Starts the task. It ends with the node.
pub(super) fn start(node: &Arc<Node>) {
    let note = note::load(&*node.spool).unwrap_or_else(|| {
        // Nodes that were made together do not read together.
        let interval_ms = interval(node).map_or(0, |interval| u64::try_from(interval.as_millis()).unwrap_or(u64::MAX));
        let past = if interval_ms == 0 { 0 } else { seam::random_u64() % interval_ms };
        let note = Note { since_ms: seam::unix_ms().saturating_sub(past), ..Note::default() };
        node.keep_note(&note);
        note
    });
    node.scrub.state.lock().note = note;
    tokio::spawn(run(Arc::downgrade(node)));
}

async fn run(node: Weak<Node>) {
    loop {
        let Some(node) = node.upgrade().filter(|node| !node.stopping.begun()) else { return };
        let rest = node.scrub_step().await;
        let asked = Arc::clone(&node.scrub);
        drop(node);
        tokio::select! {
            () = asked.asked.notified() => {}
            () = tokio::time::sleep(rest) => {}
        }
    }
}

/// How long after a pass the next one begins; none: never by itself.
fn interval(node: &Node) -> Option<Duration> {
    let seconds: u64 = node.config.settings.get(&SCRUB_INTERVAL_S, Asker::NODE);
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

impl Node {
    /// Has what else the process keeps at rest read too. Once, right after the start.
    pub fn also_scrub(&self, others: Vec<Arc<dyn AtRest>>) {
        let _ = self.scrub.others.set(others);
    }

    /// Begins a pass, unless one is under way, which then goes on at the rate asked for; 0: as the setting says.
    pub fn begin_scrub(&self, bytes_per_s: u64) -> v1::ScrubStatus {
        let bytes_per_s = Some(bytes_per_s).filter(|rate| *rate > 0);
        let total_bytes = self.bytes_at_rest();
        let mut state = self.scrub.state.lock();
        match &mut state.pass {
            Some(pass) => {
                pass.bytes_per_s = bytes_per_s;
                pass.paced = (Instant::now(), 0);
            }
            None => {
                let note = Note { began_ms: seam::unix_ms(), bytes: 0, part: Part::default(), from: Bytes::new(), ..state.note.clone() };
                state.begin(note, bytes_per_s, total_bytes);
            }
        }
        drop(state);
        self.scrub.asked.notify_one();
        self.scrub_status()
    }

    /// How the scrub of this node is.
    #[must_use]
    pub fn scrub_status(&self) -> v1::ScrubStatus {
        let setting: u64 = self.config.settings.get(&SCRUB_BYTES_PER_S, Asker::NODE);
        let state = self.scrub.state.lock();
        let pass = state.pass.as_ref();
        v1::ScrubStatus {
            running: pass.is_some(),
            part: pass.map(|pass| self.part_name(pass.note.part).to_owned()).unwrap_or_default(),
            began_ms: pass.map_or(0, |pass| pass.note.began_ms),
            bytes: pass.map_or(0, |pass| pass.note.bytes),
            total_bytes: pass.map_or(0, |pass| pass.total_bytes.max(pass.note.bytes)),
            bytes_per_s: pass.and_then(|pass| pass.bytes_per_s).unwrap_or(setting),
            ended_ms: state.note.ended_ms,
            ended_bytes: state.ended_bytes,
            passes: state.passes,
            rot: state.rot,
            problems: pass.map_or(&state.problems, |pass| &pass.problems).clone(),
        }
    }

    /// Tells whoever scrapes.
    pub(super) fn observe_scrub(&self, samples: &mut Samples) {
        let state = self.scrub.state.lock();
        let numbers = metrics::ScrubNumbers {
            running: state.pass.is_some(),
            bytes: state.bytes,
            rot: state.rot,
            unread: state.unread,
            ended_ms: state.note.ended_ms,
        };
        metrics::observe_scrub(&numbers, samples);
    }

    fn bytes_at_rest(&self) -> u64 {
        self.log.stats().bytes + self.store.size_bytes()
    }

    fn part_name(&self, part: Part) -> &'static str {
        match part {
            Part::Log => "log",
            Part::Family(0) => "data",
            Part::Family(1) => "changes",
            Part::Family(_) => "state",
            Part::Marks => "marks",
            Part::Other(number) => {
                self.scrub.others.get().and_then(|others| others.get(usize::from(number))).map_or("", |other| other.name())
            }
        }
    }

    /// Does what is due; how long to rest then.
    async fn scrub_step(&self) -> Duration {
        let Some((part, from, rate, early)) = self.scrub_place() else { return LOOK };
        if !early.is_zero() {
            return early.min(LOOK);
        }
        let step = self.read_at_rest(part, from, (rate / STEPS_PER_S).clamp(*STEP_BYTES.start(), *STEP_BYTES.end())).await;
        self.scrub_went(part, step);
        REST
    }

    /// Where to go on, how fast, and how much too early it would be now; none: nothing is due.
    fn scrub_place(&self) -> Option<(Part, Bytes, u64, Duration)> {
        if self.quarantined.lock().values().any(|mark| mark.scope == Scope::Node) {
            // It is replaced by an empty one.
            return None;
        }
        let setting: u64 = self.config.settings.get(&SCRUB_BYTES_PER_S, Asker::NODE);
        let now_ms = seam::unix_ms();
        let total_bytes = self.bytes_at_rest();
        let mut state = self.scrub.state.lock();
        if state.pass.is_none() {
            let note = state.note.clone();
            if note.began_ms > 0 {
                state.begin(note, None, total_bytes);
            } else if interval(self).is_some_and(|interval| note.is_due(now_ms, interval)) {
                state.begin(Note { began_ms: now_ms, ..note }, None, total_bytes);
            }
        }
        let pass = state.pass.as_ref()?;
        let rate = pass.bytes_per_s.unwrap_or(setting).max(1);
        let (since, read) = pass.paced;
        let early = Duration::from_secs_f64(read as f64 / rate as f64).saturating_sub(since.elapsed());
        Some((pass.note.part, pass.note.from.clone(), rate, early))
    }

    async fn read_at_rest(&self, part: Part, from: Bytes, max_bytes: u64) -> Step {
        let read = match part {
            Part::Log => {
                let read = self.log.verify(note::log_place(&from), max_bytes).await;
                read.map(|Verified { bytes, next }| Verified { bytes, next: next.map(note::log_bytes) })
            }
            Part::Family(number) => match COLUMN_FAMILIES.get(usize::from(number)) {
                Some(Cf::Changes) if planted::is(Bug::ScrubSkipsFamily) => Ok(Verified { bytes: 0, next: None }),
                Some(cf) => self.store.verify(*cf, from, max_bytes).await,
                None => Ok(Verified { bytes: 0, next: None }),
            },
            Part::Marks => return self.read_marks(),
            Part::Other(number) => {
                let other = self.scrub.others.get().and_then(|others| others.get(usize::from(number))).cloned();
                return match other {
                    None => Step::Read(Verified { bytes: 0, next: None }, Vec::new()),
                    Some(other) => match other.verify(from, max_bytes).await {
                        Ok(Checked { read, bad }) => Step::Read(read, bad),
                        Err(error) => Step::Unread(format!("{}: {error}", other.name())),
                    },
                };
            }
        };
        match read {
            Ok(read) => Step::Read(read, Vec::new()),
            Err(error @ EngineError::Corrupt { .. }) => Step::Rotten(error.to_string()),
            Err(error) => Step::Unread(error.to_string()),
        }
    }

    /// The marks of quarantines: one that does not read back is a quarantine too, and is written anew.
    fn read_marks(&self) -> Step {
        match quarantine::load(&*self.spool) {
            Err(error) => Step::Unread(format!("marks: {error}")),
            Ok(marks) => {
                let known = self.quarantined.lock().clone();
                let rotten = |(group_id, mark): &(&u32, &quarantine::Mark)| {
                    !mark.reads_back() && known.get(group_id).is_some_and(quarantine::Mark::reads_back)
                };
                let mut bad = Vec::new();
                for (group_id, _) in marks.iter().filter(rotten) {
                    bad.push(format!("the mark of the quarantine of group {group_id}"));
                    if let Err(error) = quarantine::keep(&*self.spool, *group_id, &known[group_id]) {
                        return Step::Unread(format!("marks: {error}"));
                    }
                }
                Step::Read(Verified { bytes: 0, next: None }, bad)
            }
        }
    }

    /// Notes what a step came to.
    fn scrub_went(&self, part: Part, step: Step) {
        let others = self.scrub.others.get().map_or(0, Vec::len);
        let mut state = self.scrub.state.lock();
        let State { pass: Some(pass), bytes, rot, unread, .. } = &mut *state else { return };
        let mut next_part = part.next(others);
        match step {
            Step::Read(read, bad) => {
                pass.note.bytes += read.bytes;
                pass.paced.1 += read.bytes;
                *bytes += read.bytes;
                *rot += bad.len() as u64;
                for what in bad {
                    tracing::error!(what, "something at rest does not read back; it is mended");
                    pass.tell(what);
                }
                pass.note.from = read.next.clone().unwrap_or_default();
                if read.next.is_some() {
                    next_part = Some(part);
                }
            }
            Step::Rotten(what) => {
                *rot += 1;
                tracing::error!(what, "something at rest does not read back: the node is rebuilt from its peers");
                pass.tell(what);
                next_part = None;
            }
            Step::Unread(what) => {
                *unread += 1;
                tracing::warn!(what, "something at rest could not be read; the scrub goes on behind it");
                pass.tell(what);
                pass.note.from = Bytes::new();
            }
        }
        let Some(next_part) = next_part else {
            let note = state.end(seam::unix_ms());
            drop(state);
            return self.keep_note(&note);
        };
        let moved_on = next_part != pass.note.part;
        pass.note.part = next_part;
        let due = moved_on || pass.noted.elapsed() >= NOTE_EVERY;
        if pass.noted.elapsed() >= NOTE_EVERY {
            // A rate that was changed holds from here on, not for what was read before.
            pass.paced = (Instant::now(), 0);
        }
        let to_keep = due.then(|| {
            pass.noted = Instant::now();
            pass.note.clone()
        });
        drop(state);
        if let Some(note) = to_keep {
            self.keep_note(&note);
        }
    }

    fn keep_note(&self, note: &Note) {
        if let Err(error) = note::keep(&*self.spool, note) {
            tracing::warn!(%error, "where the scrub is was not written down: after a restart it repeats some");
        }
    }
}

impl Pass {
    fn tell(&mut self, what: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(what);
        }
    }
}

impl State {
    fn begin(&mut self, note: Note, bytes_per_s: Option<u64>, total_bytes: u64) {
        tracing::info!(part = ?note.part, read = note.bytes, total_bytes, "a scrub begins or goes on");
        let now = Instant::now();
        self.pass = Some(Pass { note, bytes_per_s, total_bytes, paced: (now, 0), noted: now, problems: Vec::new() });
    }

    /// Ends the pass; what to keep of it.
    fn end(&mut self, now_ms: u64) -> Note {
        if let Some(pass) = self.pass.take() {
            tracing::info!(bytes = pass.note.bytes, problems = pass.problems.len(), "a scrub ended");
            self.ended_bytes = pass.note.bytes;
            self.problems = pass.problems;
        }
        self.passes += 1;
        self.note = Note { since_ms: now_ms, ended_ms: now_ms, ..Note::default() };
        self.note.clone()
    }
}

#[cfg(all(test, not(madsim)))]
mod tests;
