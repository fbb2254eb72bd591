//! Leader completeness: who is elected has every entry that was committed before.
//!
//! Source: Raft, section 3.6.3; `LeaderHasAllAckedValues` of the TLA+ specification.

use super::{Event, Model, What};

pub(super) fn check(model: &Model, event: &Event) -> Option<String> {
    let What::Voted { term, candidate, leads: true } = event.what else { return None };
    let own = model.replica(event).filter(|_| candidate == event.node_id)?;
    let committed = model.applied.range((event.group_id, 0)..=(event.group_id, u64::MAX)).map(|(_, applied)| applied);
    let mut missing = committed.filter(|(entry, _)| {
        let has = own.log.get(&entry.index).is_some_and(|(own, _)| own == entry);
        entry.term < term && !has && entry.index > own.purged.max(own.applied)
    });
    missing.next().map(|(entry, node)| format!("leads term {term} without entry {}, which node {node} has applied", entry.index))
}

#[cfg(test)]
#[test]
fn a_leader_without_a_committed_entry_is_caught() {
    use super::tests::{breaks, entry, three, writes};
    let mut history = [writes(1, 2, entry(2, 1, 7)), writes(2, 2, entry(2, 1, 7))].concat();
    history.push((1, What::Applied { entries: vec![three(), entry(2, 1, 7)] }));
    let leads = |node| vec![(node, What::Voted { term: 2, candidate: node, leads: true })];
    breaks("leader completeness", &[history.clone(), leads(3)].concat(), &[history, leads(2)].concat());
}
