//! Committed entries stay: a replica neither cuts nor overwrites what it has applied, nor what it knows to be committed.
//!
//! Source: follows from log matching and leader completeness (Raft, section 3.6.3); asked on its own since it shows the culprit at once.

use super::{Event, Model, What};

pub(super) fn check(model: &Model, event: &Event) -> Option<String> {
    let own = model.replica(event)?;
    let committed = own.applied.max(own.stands.map_or(0, |stands| stands.committed));
    match &event.what {
        What::Truncated { from } if *from <= committed => Some(format!("cut its log at {from}, and {committed} is committed")),
        What::Appended { entries, .. } => {
            let overwritten = entries.iter().find(|entry| {
                let other = |applied: &(super::Entry, u64)| applied.0 != **entry;
                entry.index <= committed && model.applied.get(&(event.group_id, entry.index)).is_some_and(other)
            })?;
            Some(format!("wrote another entry at {}, which is committed", overwritten.index))
        }
        _ => None,
    }
}

#[cfg(test)]
#[test]
fn a_cut_of_what_is_committed_is_caught() {
    use super::tests::{breaks, entry, three, writes};
    let mut history: Vec<_> = [2, 3].into_iter().flat_map(|node| writes(node, 2, entry(2, 1, 7))).collect();
    history.push((2, What::Applied { entries: vec![three(), entry(2, 1, 7)] }));
    let cuts = |from| vec![(2, What::Truncated { from })];
    breaks("committed immutable", &[history.clone(), cuts(2)].concat(), &[history.clone(), cuts(3)].concat());
    breaks("committed immutable", &[history, writes(2, 3, entry(2, 5, 9))].concat(), &[]);
}
