//! Monotone applied index: a replica applies one entry after the other, none twice, none left out; after a restart it goes on where its
//! state says.
//!
//! Source: Raft, section 3.6.3 ("apply entries in log index order").

use super::{Event, Model, What};

pub(super) fn check(model: &Model, event: &Event) -> Option<String> {
    let mut at = model.replica(event)?.applied;
    match &event.what {
        What::Applied { entries } => {
            for entry in entries {
                // The first entry of a log may have index 0.
                if entry.index != at + 1 && (entry.index, at) != (0, 0) {
                    return Some(format!("applied {} after {at}", entry.index));
                }
                at = entry.index;
            }
            None
        }
        What::Installed { through } if *through < at => Some(format!("took a snapshot of {through} over {at}")),
        _ => None,
    }
}

#[cfg(test)]
#[test]
fn a_gap_or_a_repetition_is_caught() {
    use super::tests::{breaks, three};
    let applies = (1, What::Applied { entries: vec![three()] });
    let gap = What::Opened { vote: Some((1, 1, true)), purged: 0, log: vec![three()], applied: 5 };
    breaks("monotone applied", &[applies.clone(), applies.clone()], std::slice::from_ref(&applies));
    breaks("monotone applied", &[(1, gap), applies], &[]);
}
