//! Read applied: a linearizable read is answered by a state that holds all up to its read index.
//!
//! Source: Ongaro's thesis, section 6.4, step 4.

use super::{Event, Model, What};

pub(super) fn check(_: &Model, event: &Event) -> Option<String> {
    let What::Served { index, applied } = event.what else { return None };
    (applied < index).then(|| format!("answers a read at {index} by its state at {applied}"))
}

#[cfg(test)]
#[test]
fn a_read_that_does_not_wait_for_its_index_is_caught() {
    let served = |applied| vec![(1, What::Served { index: 5, applied })];
    super::tests::breaks("read applied", &served(4), &served(5));
}
