//! Raft's invariants, asked of every step that any replica takes: what it wrote, voted, made durable, applied, cut and opened with.
//!
//! They are those that openraft's own `tests-turmoil` checks, after Ongaro and Ousterhout 2014 (section numbers of the extended version),
//! Ongaro's thesis, and Vanlightly's TLA+ specification of Raft; and four of our own: a leader cuts nothing, what was durable is there after a
//! crash, no read is answered under a lease that another leader has ended, and none by a state that has not reached its index. Each has
//! its file with the property, and a history that breaks it. [`Judge`] keeps a model of every replica from the events alone; an invariant
//! looks at the model as it was before an event, and at the event.

#![expect(clippy::wildcard_enum_match_arm, reason = "a property looks at the few kinds of events that can break it")]

mod applied_in_order;
mod commit_monotone;
mod committed_immutable;
mod committed_on_quorum;
mod durable_survives;
mod election_safety;
mod leader_append_only;
mod leader_completeness;
mod log_matching;
mod model;
mod read_applied;
mod read_index;
mod state_machine_safety;
mod state_ordering;
mod term_monotone;
mod vote_monotone;

pub use model::{Entry, Event, Model, Positions, Replica, What};

use crate::Verdict;

/// An invariant: what is wrong with an event, in the model as it was before.
type Invariant = fn(&Model, &Event) -> Option<String>;

/// All of them, by name.
const INVARIANTS: [(&str, Invariant); 15] = [
    ("election safety", election_safety::check),
    ("log matching", log_matching::check),
    ("leader completeness", leader_completeness::check),
    ("state machine safety", state_machine_safety::check),
    ("committed on quorum", committed_on_quorum::check),
    ("committed immutable", committed_immutable::check),
    ("state ordering", state_ordering::check),
    ("monotone term", term_monotone::check),
    ("monotone vote", vote_monotone::check),
    ("monotone commit index", commit_monotone::check),
    ("monotone applied index", applied_in_order::check),
    ("leader append-only", leader_append_only::check),
    ("durable survives", durable_survives::check),
    (READ_INDEX, read_index::check),
    ("read applied", read_applied::check),
];

/// The one that clocks can break.
const READ_INDEX: &str = "read index";
/// Violations that are told: the first ones say what the others follow from.
const TOLD: usize = 5;

/// Judges events as they come.
#[derive(Debug, Default)]
pub struct Judge {
    model: Model,
    steps: u64,
    excuses_reads: bool,
    violations: Vec<String>,
}

impl Judge {
    /// One for clocks beyond what leases allow for.
    #[must_use]
    pub fn excusing_reads(excused: bool) -> Self {
        Judge { excuses_reads: excused, ..Judge::default() }
    }

    /// The next event; whether nothing is wrong with it.
    pub fn step(&mut self, event: &Event) -> bool {
        let before = self.violations.len();
        self.steps += 1;
        for (name, check) in INVARIANTS.into_iter().filter(|(name, _)| !self.excuses_reads || *name != READ_INDEX) {
            if let Some(wrong) = check(&self.model, event).filter(|_| self.violations.len() < TOLD) {
                self.violations.push(format!("{name}: node {}, group {}: {wrong}", event.node_id, event.group_id));
            }
        }
        self.model.step(event);
        self.violations.len() == before
    }

    /// How many events were judged.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// What came of it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        Verdict::from_violations(self.violations.clone())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Entry, Event, Judge, What};

    /// A history of group 1, as (node, what), judged.
    pub(crate) fn judge(history: &[(u64, What)]) -> Vec<String> {
        let mut judge = Judge::default();
        for (node_id, what) in history {
            let _ = judge.step(&Event { node_id: *node_id, group_id: 1, what: what.clone() });
        }
        judge.violations
    }

    /// An empty replica.
    pub(crate) fn born() -> What {
        What::Opened { vote: None, purged: 0, log: Vec::new(), applied: 0 }
    }

    /// An entry that says `says`.
    pub(crate) fn entry(index: u64, term: u64, says: u32) -> Entry {
        Entry { index, term, digest: says, voters: None }
    }

    /// The entry that makes 1, 2 and 3 the voters.
    pub(crate) fn three() -> Entry {
        Entry { index: 1, term: 0, digest: 0, voters: Some(vec![[1, 2, 3].into()]) }
    }

    /// Three replicas, each with the first entry durable, and node 1 leading term 1.
    pub(crate) fn cluster() -> Vec<(u64, What)> {
        let mut history = Vec::new();
        for node in 1..=3 {
            history.push((node, born()));
            history.push((node, What::Appended { append: 1, entries: vec![three()] }));
            history.push((node, What::Durable { append: 1 }));
        }
        history.push((1, What::Voted { term: 1, candidate: 1, leads: false }));
        history.push((2, What::Voted { term: 1, candidate: 1, leads: false }));
        history.push((1, What::Voted { term: 1, candidate: 1, leads: true }));
        history
    }

    /// That the cluster, going on so, breaks exactly this invariant first; going on otherwise, none.
    pub(crate) fn breaks(name: &str, bad: &[(u64, What)], good: &[(u64, What)]) {
        let told = judge(&[&cluster(), bad].concat());
        assert!(told.first().is_some_and(|first| first.starts_with(name)), "{name}: {told:?}");
        assert_eq!(judge(&[&cluster(), good].concat()), Vec::<String>::new(), "{name}");
    }

    /// Appends one entry durably.
    pub(crate) fn writes(node: u64, append: u64, entry: Entry) -> Vec<(u64, What)> {
        vec![(node, What::Appended { append, entries: vec![entry] }), (node, What::Durable { append })]
    }

    #[test]
    fn an_ordinary_life_breaks_nothing() {
        let mut history = cluster();
        history.extend(writes(1, 2, entry(2, 1, 7)));
        history.extend(writes(2, 2, entry(2, 1, 7)));
        history.push((1, What::Applied { entries: vec![three(), entry(2, 1, 7)] }));
        history.extend(writes(3, 2, entry(2, 1, 7)));
        history.push((3, What::Applied { entries: vec![three()] }));
        history.push((3, What::Applied { entries: vec![entry(2, 1, 7)] }));
        history.push((1, What::Flushed { through: 2 }));
        history.push((1, What::Purged { through: 2 }));
        assert_eq!(judge(&history), Vec::<String>::new());
    }
}
