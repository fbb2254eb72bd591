//! Read index: a linearizable read sees at least what any leader had applied, and so may have answered, when it was asked for; so nobody
//! answers reads under a lease while another leads. What only followers have applied does not count: a leader whose own disk is the
//! slowest applies after them, and answers after itself.
//!
//! Source: Ongaro's thesis, sections 6.4 and 6.4.1. With clocks beyond what leases allow for it is not promised ([`super::Judge::excusing_reads`]).

use super::{Event, Model, What};

pub(super) fn check(model: &Model, event: &Event) -> Option<String> {
    let What::ReadAt { read, index } = event.what else { return None };
    let newest = *model.asked.get(&read)?;
    (index < newest).then(|| format!("answers a read at {index}, and a leader had applied {newest} before it was asked for"))
}

#[cfg(test)]
#[test]
fn a_lease_that_another_leader_has_ended_is_caught() {
    use super::tests::{breaks, entry, three, writes};
    let mut history: Vec<_> = [2, 3].into_iter().flat_map(|node| writes(node, 2, entry(2, 1, 7))).collect();
    history.push((2, What::Voted { term: 2, candidate: 2, leads: true }));
    history.push((2, What::Applied { entries: vec![three(), entry(2, 1, 7)] }));
    history.push((1, What::Asked { read: 1 }));
    let answers = |index| vec![(1, What::ReadAt { read: 1, index })];
    breaks("read index", &[history.clone(), answers(1)].concat(), &[history, answers(2)].concat());
}
