//! Lists that were appended to: what the checker accepts, and what it must not.

use super::{Transaction, check};
use crate::Outcome;
use std::collections::BTreeMap;

/// A transaction that lasted from the first place to the second.
fn did(during: (u64, u64), reads: &[(&str, &[u64])], appends: &[(&str, u64)]) -> Transaction {
    Transaction {
        invoked: during.0,
        completed: Some(during.1),
        outcome: Outcome::Ok(()),
        reads: reads.iter().map(|(list, elements)| ((*list).to_owned(), elements.to_vec())).collect(),
        appends: appends.iter().map(|(list, element)| ((*list).to_owned(), *element)).collect(),
    }
}

fn judge(history: &[Transaction], last: &[(&str, &[u64])]) -> Option<String> {
    let last: BTreeMap<String, Vec<u64>> = last.iter().map(|(list, elements)| ((*list).to_owned(), elements.to_vec())).collect();
    check(history, &last).reason().map(ToString::to_string)
}

fn caught(history: &[Transaction], last: &[(&str, &[u64])], what: &str) {
    let told = judge(history, last);
    assert!(told.as_ref().is_some_and(|told| told.contains(what)), "{what}: {told:?}");
}

#[test]
fn one_after_the_other_passes() {
    let history = [did((1, 2), &[], &[("a", 1)]), did((3, 4), &[("a", &[1])], &[("a", 2), ("b", 3)]), did((3, 6), &[("b", &[])], &[])];
    assert_eq!(judge(&history, &[("a", &[1, 2]), ("b", &[3])]), None);
}

#[test]
fn write_skew_is_caught() {
    let history = [did((1, 4), &[("a", &[])], &[("b", 1)]), did((2, 3), &[("b", &[])], &[("a", 2)])];
    caught(&history, &[("a", &[2]), ("b", &[1])], "no order");
}

#[test]
fn a_read_that_goes_back_in_real_time_is_caught() {
    let history = [did((1, 2), &[], &[("a", 1)]), did((3, 4), &[("a", &[])], &[])];
    caught(&history, &[("a", &[1])], "no order");
    let concurrent = [did((1, 4), &[], &[("a", 1)]), did((2, 3), &[("a", &[])], &[])];
    assert_eq!(judge(&concurrent, &[("a", &[1])]), None);
}

#[test]
fn read_skew_is_caught() {
    let history = [did((1, 5), &[], &[("a", 1), ("b", 2)]), did((2, 6), &[("a", &[1]), ("b", &[])], &[])];
    caught(&history, &[("a", &[1]), ("b", &[2])], "no order");
}

#[test]
fn an_append_done_twice_is_caught() {
    caught(&[did((1, 2), &[], &[("a", 1)])], &[("a", &[1, 1])], "twice");
}

#[test]
fn an_acknowledged_append_that_is_gone_is_caught() {
    caught(&[did((1, 2), &[], &[("a", 1)])], &[("a", &[])], "lacks 1");
}

#[test]
fn lists_that_part_are_caught() {
    let history = [
        did((1, 9), &[], &[("a", 1)]),
        did((1, 9), &[], &[("a", 2)]),
        did((1, 9), &[("a", &[1])], &[]),
        did((1, 9), &[("a", &[2, 1])], &[]),
    ];
    caught(&history, &[("a", &[2, 1])], "was read as");
}

#[test]
fn an_element_of_a_failed_or_unknown_origin_is_told_apart() {
    let failed = Transaction { outcome: Outcome::Fail, completed: None, ..did((1, 2), &[], &[("a", 1)]) };
    caught(std::slice::from_ref(&failed), &[("a", &[1])], "failed");
    let unknown = Transaction { outcome: Outcome::Unknown, ..failed };
    assert_eq!(judge(std::slice::from_ref(&unknown), &[("a", &[1])]), None);
    assert_eq!(judge(&[unknown], &[("a", &[])]), None);
    caught(&[], &[("a", &[7])], "nobody appended");
}
