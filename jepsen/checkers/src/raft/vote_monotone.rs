//! Monotone vote: in one term a replica votes for one candidate, and may then only learn who leads it, which it never forgets; not over
//! restarts either.
//!
//! Source: Raft, section 3.4 ("at most one candidate in a given term"); `MonotonicVote` of the TLA+ specification.

use super::{Event, Model, What};

pub(super) fn check(model: &Model, event: &Event) -> Option<String> {
    let before = model.replica(event)?.vote?;
    let now = match &event.what {
        What::Voted { term, candidate, leads } => (*term, *candidate, *leads),
        What::Opened { vote: Some(vote), .. } => *vote,
        _ => return None,
    };
    let same_term = now.0 == before.0;
    if same_term && now.1 != before.1 && (before.2 || !now.2) {
        return Some(format!("voted for {} and for {} in term {}", before.1, now.1, now.0));
    }
    (same_term && before.2 && !now.2).then(|| format!("forgot that {} leads term {}", now.1, now.0))
}

#[cfg(test)]
#[test]
fn two_votes_in_a_term_are_caught() {
    let votes = |candidate, leads| (2, What::Voted { term: 2, candidate, leads });
    super::tests::breaks("monotone vote", &[votes(1, false), votes(3, false)], &[votes(3, false), votes(1, true)]);
    super::tests::breaks("monotone vote", &[votes(1, true), votes(1, false)], &[]);
    super::tests::breaks("monotone vote", &[votes(1, true), votes(3, true)], &[]);
}
