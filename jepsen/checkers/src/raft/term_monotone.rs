//! Monotone term: the term of a replica never falls, not over restarts either.
//!
//! Source: Raft, section 3.3; `MonotonicTerm` of the TLA+ specification.

use super::{Event, Model, What};

pub(super) fn check(model: &Model, event: &Event) -> Option<String> {
    let (before, _, _) = model.replica(event)?.vote?;
    let now = match &event.what {
        What::Voted { term, .. } => *term,
        What::Opened { vote, .. } => vote.map_or(0, |(term, _, _)| term),
        _ => return None,
    };
    (now < before).then(|| format!("fell from term {before} to {now}"))
}

#[cfg(test)]
#[test]
fn a_term_that_falls_is_caught() {
    let votes = |term| (2, What::Voted { term, candidate: 3, leads: false });
    let opens = |vote| {
        let log = vec![super::tests::three()];
        (2, What::Opened { vote, purged: 0, log, applied: 0 })
    };
    super::tests::breaks("monotone term", &[votes(5), votes(4)], &[votes(5), votes(6)]);
    super::tests::breaks("monotone term", &[votes(5), opens(Some((4, 3, false)))], &[votes(5), opens(Some((5, 3, false)))]);
}
