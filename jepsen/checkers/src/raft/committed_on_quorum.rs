//! Committed on quorum: what is applied anywhere is durable at a majority of the voters; of both majorities, while voters change.
//!
//! The voters are those in force at the entry, or those at the end of the log: a leader counts by its newest membership (thesis, 4.1).
//!
//! Source: Raft, section 3.6.2; `CommittedEntriesReachMajority` of the TLA+ specification.

use super::{Entry, Event, Model, What};
use std::collections::BTreeSet;

pub(super) fn check(model: &Model, event: &Event) -> Option<String> {
    let What::Applied { entries } = &event.what else { return None };
    let own = model.replica(event)?;
    let fresh = entries.iter().filter(|entry| !model.applied.contains_key(&(event.group_id, entry.index)));
    for entry in fresh {
        let known: Vec<_> = own.voters(entry.index).into_iter().flatten().collect();
        if !known.is_empty() && !known.iter().any(|sets| sets.iter().all(|voters| is_held(model, event.group_id, entry, voters))) {
            let holders: Vec<u64> = model.group(event.group_id).filter(|(_, replica)| replica.holds(entry)).map(|(node, _)| node).collect();
            return Some(format!("applied entry {}, which only {holders:?} of {:?} hold durably", entry.index, known[0]));
        }
    }
    None
}

fn is_held(model: &Model, group_id: u32, entry: &Entry, voters: &BTreeSet<u64>) -> bool {
    let holds = |node: &&u64| model.replicas.get(&(group_id, **node)).is_some_and(|replica| replica.holds(entry));
    voters.iter().filter(holds).count() * 2 > voters.len()
}

#[cfg(test)]
#[test]
fn an_entry_applied_before_a_quorum_has_it_is_caught() {
    use super::tests::{breaks, entry, three, writes};
    let (first, second) = (writes(1, 2, entry(2, 1, 7)), writes(2, 2, entry(2, 1, 7)));
    let applies = vec![(1, What::Applied { entries: vec![three(), entry(2, 1, 7)] })];
    let not_durable = second[..1].to_vec();
    breaks("committed on quorum", &[first.clone(), not_durable, applies.clone()].concat(), &[first, second, applies].concat());
}
