//! Monotone commit index: what a replica knows to be committed never shrinks while it lives.
//!
//! Source: Raft, section 3.4; `MonotonicCommitIndex` of the TLA+ specification.

use super::{Event, Model, What};

pub(super) fn check(model: &Model, event: &Event) -> Option<String> {
    let What::Stands(now) = &event.what else { return None };
    let before = model.replica(event)?.stands?.committed;
    (now.committed < before).then(|| format!("knew {before} as committed, and now {}", now.committed))
}

#[cfg(test)]
#[test]
fn a_commit_index_that_falls_is_caught() {
    use super::Positions;
    let at = |committed| (1, What::Stands(Positions { committed, last: 9, ..Positions::default() }));
    super::tests::breaks("monotone commit", &[at(5), at(4)], &[at(4), at(5)]);
}
