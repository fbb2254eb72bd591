//! State machine safety: two replicas of a group that have applied the log up to the same index are in the same state.
//!
//! Source: Ongaro and Ousterhout, "In search of an understandable consensus algorithm", 2014, figure 3; the corruption checker of
//! etcd, which compares hashes at one revision.

use crate::Verdict;
use std::collections::BTreeMap;

/// One look at one replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Which group.
    pub group_id: u32,
    /// On which node.
    pub node_id: u64,
    /// How far it had applied its log.
    pub applied_index: u64,
    /// Hash of its state then.
    pub state_hash: String,
}

/// Compares all samples with each other, from whatever time they are.
#[must_use]
pub fn same_index_same_state(samples: &[Sample]) -> Verdict {
    let mut known: BTreeMap<(u32, u64), &Sample> = BTreeMap::new();
    let mut violations = Vec::new();
    for sample in samples {
        let first = *known.entry((sample.group_id, sample.applied_index)).or_insert(sample);
        if first.state_hash != sample.state_hash {
            violations.push(format!(
                "group {} at index {}: node {} has {}, node {} has {}",
                sample.group_id, sample.applied_index, first.node_id, first.state_hash, sample.node_id, sample.state_hash
            ));
        }
    }
    Verdict::from_violations(violations)
}

/// After healing: every group that was seen at all has `replicas` of them, all at one index and in one state.
#[must_use]
pub fn identical(samples: &[Sample], replicas: usize) -> Verdict {
    let mut groups: BTreeMap<u32, BTreeMap<u64, &Sample>> = BTreeMap::new();
    for sample in samples {
        groups.entry(sample.group_id).or_default().insert(sample.node_id, sample);
    }
    let mut violations = Vec::new();
    for (group, members) in groups {
        let described =
            || members.values().map(|s| format!("node {} at {} with {}", s.node_id, s.applied_index, s.state_hash)).collect::<Vec<_>>();
        let mut states: Vec<_> = members.values().map(|s| (s.applied_index, &s.state_hash)).collect();
        states.dedup();
        if members.len() != replicas || states.len() != 1 {
            violations.push(format!("group {group}: {} replicas of {replicas}, not identical: {}", members.len(), described().join(", ")));
        }
    }
    Verdict::from_violations(violations)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(node_id: u64, applied_index: u64, state_hash: &str) -> Sample {
        Sample { group_id: 1, node_id, applied_index, state_hash: state_hash.into() }
    }

    #[test]
    fn divergence_at_one_index_is_caught() {
        assert!(!same_index_same_state(&[sample(1, 7, "a"), sample(2, 8, "b"), sample(2, 7, "b")]).passes());
    }

    #[test]
    fn different_states_at_different_indices_are_fine_meanwhile_but_not_in_the_end() {
        let lagging = [sample(1, 7, "a"), sample(2, 8, "b")];
        assert!(same_index_same_state(&lagging).passes());
        assert!(!identical(&lagging, 2).passes());
    }

    #[test]
    fn a_missing_replica_is_caught_and_identical_ones_pass() {
        let two = [sample(1, 7, "a"), sample(2, 7, "a")];
        assert!(identical(&two, 2).passes());
        assert!(!identical(&two, 3).passes());
    }
}
