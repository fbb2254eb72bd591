//! State machine safety: no two replicas apply different entries at one index.
//!
//! Source: Raft, section 3.6.3.

use super::{Event, Model, What};

pub(super) fn check(model: &Model, event: &Event) -> Option<String> {
    let What::Applied { entries } = &event.what else { return None };
    let mut parted = entries.iter().filter_map(|entry| {
        let (first, node) = model.applied.get(&(event.group_id, entry.index))?;
        (first != entry).then(|| format!("applied at {} another entry than node {node} did", entry.index))
    });
    parted.next()
}

#[cfg(test)]
#[test]
fn two_entries_applied_at_one_index_are_caught() {
    use super::tests::{breaks, entry, three, writes};
    let mut history: Vec<_> = [1, 2].into_iter().flat_map(|node| writes(node, 2, entry(2, 1, 7))).collect();
    history.push((1, What::Applied { entries: vec![three(), entry(2, 1, 7)] }));
    let applies = |says| vec![(2, What::Applied { entries: vec![three(), entry(2, 1, says)] })];
    breaks("state machine safety", &[history.clone(), applies(8)].concat(), &[history, applies(7)].concat());
}
