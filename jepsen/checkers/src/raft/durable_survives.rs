//! What was durable is there after a crash: the entries, as they were, unless they were cut or lie in a durable state; and the vote.
//!
//! Source: Raft, figure 2 ("persistent state on all servers … before responding"); design, section 7.

use super::{Event, Model, What};

pub(super) fn check(model: &Model, event: &Event) -> Option<String> {
    let What::Opened { vote, purged, log, .. } = &event.what else { return None };
    let before = model.replica(event)?;
    if vote.is_none() && before.vote.is_some() {
        return Some("opened without a vote, and had one".to_owned());
    }
    let promised = before.log.values().filter(|(entry, append)| *append <= before.durable && entry.index > *purged.max(&before.purged));
    let mut lost = promised.filter(|(entry, _)| !log.iter().any(|found| found == entry));
    lost.next().map(|(entry, _)| format!("opened without entry {}, which was durable", entry.index))
}

#[cfg(test)]
#[test]
fn a_durable_entry_that_is_gone_is_caught() {
    use super::tests::{breaks, entry, three};
    let written = vec![(2, What::Appended { append: 2, entries: vec![entry(2, 1, 7)] })];
    let durable = vec![(2, What::Durable { append: 2 })];
    let opens = vec![(2, What::Opened { vote: Some((1, 1, false)), purged: 0, log: vec![three()], applied: 0 })];
    breaks("durable survives", &[written.clone(), durable, opens.clone()].concat(), &[written, opens].concat());
}
