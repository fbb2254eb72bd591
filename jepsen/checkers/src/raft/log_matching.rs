//! Log matching: two logs that have an entry of one index and term have the same entry there, and the same before it.
//!
//! Source: Raft, section 3.5; `NoLogDivergence` of the TLA+ specification.

use super::{Entry, Event, Model, Replica, What};

pub(super) fn check(model: &Model, event: &Event) -> Option<String> {
    let What::Appended { entries, .. } = &event.what else { return None };
    let own = model.replica(event)?;
    let others = model.group(event.group_id).filter(|(node, _)| *node != event.node_id);
    let mut parted = others.flat_map(|(node, other)| entries.iter().filter_map(move |entry| parts(own, entry, node, other)));
    parted.next()
}

fn parts(own: &Replica, entry: &Entry, node: u64, other: &Replica) -> Option<String> {
    let (same_place, _) = other.log.get(&entry.index).filter(|(theirs, _)| theirs.term == entry.term)?;
    if same_place != entry {
        return Some(format!("entry {} of term {} is another than that of node {node}", entry.index, entry.term));
    }
    let before = entry.index.checked_sub(1)?;
    let (mine, theirs) = (own.log.get(&before)?, other.log.get(&before)?);
    (mine.0 != theirs.0).then(|| format!("entry {} is the same as that of node {node}, and the one before is not", entry.index))
}

#[cfg(test)]
#[test]
fn one_index_and_term_with_two_meanings_is_caught() {
    use super::tests::{breaks, entry, writes};
    let (first, same, other) = (writes(1, 2, entry(2, 1, 7)), writes(2, 2, entry(2, 1, 7)), writes(2, 2, entry(2, 1, 8)));
    breaks("log matching", &[first.clone(), other].concat(), &[first, same].concat());
    let apart = [writes(1, 2, entry(2, 1, 7)), writes(2, 2, entry(2, 2, 9)), writes(1, 3, entry(3, 3, 1)), writes(2, 3, entry(3, 3, 1))];
    breaks("log matching", &apart.concat(), &[]);
}
