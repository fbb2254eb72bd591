//! Election safety: a term of a group has at most one leader.
//!
//! Source: Raft, section 3.6.3 and figure 3.

use super::{Event, Model, What};

pub(super) fn check(model: &Model, event: &Event) -> Option<String> {
    let What::Voted { term, candidate, leads: true } = event.what else { return None };
    if candidate != event.node_id {
        return None;
    }
    let first = model.leaders.get(&(event.group_id, term)).filter(|first| **first != event.node_id)?;
    Some(format!("leads term {term}, which node {first} led"))
}

#[cfg(test)]
#[test]
fn two_leaders_of_a_term_are_caught() {
    let leads = |term, node| (node, What::Voted { term, candidate: node, leads: true });
    super::tests::breaks("election safety", &[leads(1, 3)], &[leads(2, 3), leads(1, 1)][..1]);
}
