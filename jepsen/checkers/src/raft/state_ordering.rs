//! State ordering: a replica has purged no more than is durable in its state, flushed no more than it applied, applied no more than it
//! knows to be committed.
//!
//! The end of the log is left out: behind an installed snapshot it may lie before what is applied.
//!
//! Source: openraft's `tests-turmoil`, `purged ≤ snapshot ≤ applied ≤ committed`; design, section 3.2 (purged only behind the flush).

use super::{Event, Model, What};

pub(super) fn check(model: &Model, event: &Event) -> Option<String> {
    match &event.what {
        What::Purged { through } => {
            let own = model.replica(event)?;
            let flushed = own.flushed;
            (*through > flushed).then(|| format!("purged its log through {through}, and its state is durable through {flushed}"))
        }
        What::Stands(at) => {
            let steps = [("purged", at.purged), ("flushed", at.flushed), ("applied", at.applied)];
            let wrong = steps.windows(2).find(|pair| pair[0].1 > pair[1].1)?;
            Some(format!("says {} {} and {} {}", wrong[0].0, wrong[0].1, wrong[1].0, wrong[1].1))
        }
        _ => None,
    }
}

#[cfg(test)]
#[test]
fn a_purge_beyond_the_flush_is_caught() {
    use super::Positions;
    let at = |purged, flushed, applied| (1, What::Stands(Positions { purged, flushed, applied, committed: 9, last: 9 }));
    let flushed = (1, What::Flushed { through: 1 });
    let purged = (1, What::Purged { through: 1 });
    super::tests::breaks("state ordering", std::slice::from_ref(&purged), &[flushed, purged.clone()]);
    super::tests::breaks("state ordering", &[at(3, 2, 5)], &[at(2, 3, 5)]);
    super::tests::breaks("state ordering", &[at(1, 6, 5)], &[]);
}
