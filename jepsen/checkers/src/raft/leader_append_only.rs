//! Leader append-only: who leads cuts nothing from its own log.
//!
//! Source: Raft, figure 3.

use super::{Event, Model, What};

pub(super) fn check(model: &Model, event: &Event) -> Option<String> {
    let What::Truncated { from } = event.what else { return None };
    let own = model.replica(event)?;
    let (term, candidate, leads) = own.vote?;
    let last = own.log.last_key_value().map_or(0, |(index, _)| *index);
    (leads && candidate == event.node_id && from <= last).then(|| format!("leads term {term} and cuts its log of {last} entries at {from}"))
}

#[cfg(test)]
#[test]
fn a_leader_that_cuts_is_caught() {
    let writes = |node| super::tests::writes(node, 2, super::tests::entry(2, 1, 7));
    let cuts = |node| vec![(node, What::Truncated { from: 2 })];
    super::tests::breaks("leader append-only", &[writes(1), cuts(1)].concat(), &[writes(1), writes(2), cuts(2)].concat());
}
