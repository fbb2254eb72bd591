//! One slice of the comparison of replicas, from the leader's side: has all of them hash it, asks for the hashes, judges them, and tells
//! those that differ.

use super::Group;
use crate::command::Command;
use crate::machine::Outcome;
use crate::metrics::HANDLES;
use crate::raft::compare::verdict::{Verdict, verdict};
use crate::raft::compare::{Place, index_of, reason};
use crate::rows::comparison::Comparison;
use metadb_proto::v1::{self, Role};
use metadb_proto::{Error, level};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// How long the entry may take.
const PROPOSED_WITHIN: Duration = Duration::from_secs(2);
/// When a slice that could not be compared may be tried again.
const RETRY: Duration = Duration::from_millis(500);
/// A replica that lacks more entries than this is not asked: it would not answer in time.
const BEHIND_ENTRIES: u64 = 256;

/// What the leader remembers of comparisons, for its status.
#[derive(Debug, Default)]
pub(super) struct Told {
    whole_ms: u64,
    undecided: Option<String>,
}

/// What came of a slice.
#[derive(Debug)]
pub(crate) struct Compared {
    /// What the replicas found.
    pub(crate) verdict: Verdict,
    /// Whether every replica that differs knows it.
    pub(crate) told: bool,
    /// Bytes that each read.
    pub(crate) bytes: u64,
    /// Where the next slice begins; none: that was the last.
    pub(crate) next: Option<Place>,
}

impl Group {
    /// Whether there is anything to compare: this node leads more than one replica, by rules that know how.
    pub(crate) fn can_compare(&self) -> bool {
        let seen = self.replica.observe();
        let members = seen.voters.len() + seen.learners.len();
        seen.role == Role::Leader && !seen.joint && members > 1 && self.level.get() >= level::COMPARE
    }

    /// Begins to lead comparisons: from where, as the log says.
    pub(crate) fn begin_comparing(&self) -> Option<Comparison> {
        *self.comparing.lock() = Told::default();
        self.replica.comparison().unwrap_or_else(|error| {
            tracing::warn!(group_id = self.group_id, %error, "where the comparison of states is can't be read: it begins anew");
            None
        })
    }

    /// Notes that every voter took part in every slice of a comparison.
    pub(crate) fn note_whole_comparison(&self, began_ms: u64) {
        self.comparing.lock().whole_ms = began_ms;
    }

    /// How the replicas compare, as this one knows.
    pub(super) fn comparison_status(&self) -> Option<v1::ComparisonStatus> {
        let status = self.replica.slices().status();
        let told = self.comparing.lock();
        let (whole_ms, undecided) = (told.whole_ms, told.undecided.clone().unwrap_or_default());
        let leads = self.is_leader() && (whole_ms > 0 || !undecided.is_empty());
        match leads {
            true => Some(v1::ComparisonStatus { whole_ms, undecided, ..status.unwrap_or_default() }),
            false => status,
        }
    }

    /// Has all replicas compare a slice of their states.
    ///
    /// # Errors
    /// Whatever kept them from it: nothing is known then.
    pub(crate) async fn compare(&self, began_ms: u64, (family, from): Place, max_bytes: u64) -> Result<Compared, Error> {
        let request = v1::CompareRequest { group_id: self.group_id, began_ms, family: family.into(), from, max_bytes };
        let position = match self.propose(Command::Compare(request), Instant::now() + PROPOSED_WITHIN).await? {
            Outcome::Compare(position) => position?,
            Outcome::Transact(_) | Outcome::Shard(_) => return Err(Error::internal("a comparison was answered like something else")),
        };
        let failed = |why: &str| Error::unavailable(format!("group {}: {why}", self.group_id), RETRY);
        let own = self.replica.slices().at(&position).await.ok_or_else(|| failed("the leader has not hashed its slice"))?;
        let seen = self.replica.observe();
        if seen.role != Role::Leader || seen.joint {
            return Err(failed("its members or its leader change"));
        }
        let is_near = |id: &u64| seen.matched.get(id).is_some_and(|matched| matched + BEHIND_ENTRIES >= index_of(&position));
        let others = seen.voters.iter().chain(&seen.learners).filter(|node| node.node_id != self.node_id);
        let others: Vec<v1::NodeRef> =
            others.filter(|node| seen.answering.contains(&node.node_id) && is_near(&node.node_id)).cloned().collect();
        let mut found = self.replica.ask_for_hashes(&others, &position).await;
        found.insert(self.node_id, own.hash);
        let voters: BTreeSet<u64> = seen.voters.iter().map(|node| node.node_id).collect();
        let verdict = verdict(&voters, &found);
        self.comparing.lock().undecided = None;
        let mut told = true;
        match &verdict {
            Verdict::Equal { .. } => HANDLES.compared_equal.increment(1),
            Verdict::Alone => HANDLES.compared_alone.increment(1),
            Verdict::Undecided(why) => {
                HANDLES.compared_undecided.increment(1);
                let why = format!("behind entry {} {why}", index_of(&position));
                tracing::error!(group_id = self.group_id, why, "replicas differ");
                self.comparing.lock().undecided = Some(why);
            }
            Verdict::Differ { right, wrong } => {
                HANDLES.compared_differ.increment(1);
                tracing::error!(group_id = self.group_id, index = index_of(&position), ?wrong, "replicas differ from most others");
                for node in others.iter().filter(|node| wrong.contains(&node.node_id)) {
                    told &= self.replica.tell_that_it_differs(node, &position, right).await;
                }
                // The leader last: it leads no more then.
                if wrong.contains(&self.node_id) {
                    self.replica.distrust(reason(&position));
                }
            }
        }
        Ok(Compared { verdict, told, bytes: own.bytes, next: own.next })
    }
}
