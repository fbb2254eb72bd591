//! Ownership: who is told what, epochs only rise, asking again changes nothing.

use super::*;
use std::collections::BTreeMap;

const GROUP: u32 = 3;
const TENANT: u64 = 7;

fn range(start: &str, end: &str) -> Range {
    Range { tenant_id: TENANT, start: Bytes::from(start.to_owned()), end: Bytes::from(end.to_owned()) }
}

fn done(change: Result<Change, Error>) -> Vec<ShardRow> {
    match change.expect("allowed") {
        Change::Done(rows) => rows,
        Change::Already(version) => panic!("was so since {version}"),
    }
}

fn owning(ranges: &[(&str, &str)]) -> Ownership {
    let mut ownership = Ownership::at_birth(GROUP);
    for (start, end) in ranges {
        done(ownership.adopt(&range(start, end), 2, Version(10)));
    }
    ownership
}

#[test]
fn only_the_directorys_group_owns_something_from_birth() {
    Ownership::at_birth(0).check_range(0, b"", b"", 1).expect("the directory");
    assert!(matches!(Ownership::at_birth(GROUP).check_key(0, b"k", 0), Err(Error::NotFound { .. })));
}

#[test]
fn a_range_is_owned_by_neighbours_together_and_not_across_a_gap() {
    let ownership = owning(&[("", "g"), ("g", "p"), ("q", "")]);
    ownership.check_range(TENANT, b"a", b"p", 2).expect("neighbours");
    ownership.check_range(TENANT, b"r", b"", 2).expect("to the end");
    for (start, end) in [("a", "pp"), ("a", ""), ("p", "q")] {
        assert!(matches!(ownership.check_range(TENANT, start.as_bytes(), end.as_bytes(), 2), Err(Error::Moved { .. })), "{start}..{end}");
    }
    assert!(matches!(ownership.check_key(8, b"a", 0), Err(Error::NotFound { .. })));
}

#[test]
fn an_old_epoch_is_told_the_new_one_and_a_newer_one_to_wait() {
    let ownership = owning(&[("", "")]);
    ownership.check_key(TENANT, b"k", 0).expect("not known is fine");
    let Err(Error::Moved { redirect, .. }) = ownership.check_key(TENANT, b"k", 1) else { panic!("old") };
    assert_eq!((redirect.group_id, redirect.epoch), (GROUP, 2));
    assert!(matches!(ownership.check_key(TENANT, b"k", 3), Err(Error::Unavailable { .. })));
}

#[test]
fn adopting_twice_is_adopting_once_and_a_late_epoch_is_refused() {
    let mut ownership = owning(&[("", "m")]);
    let before = ownership.clone();
    assert_eq!(ownership.adopt(&range("", "m"), 2, Version(20)), Ok(Change::Already(Version(10))));
    assert!(matches!(ownership.adopt(&range("", "m"), 1, Version(20)), Err(Error::Conflict { .. })));
    assert!(matches!(ownership.adopt(&range("k", "z"), 3, Version(20)), Err(Error::Invalid { .. })));
    assert!(matches!(ownership.adopt(&range("n", "z"), 0, Version(20)), Err(Error::Invalid { .. })));
    assert_eq!(ownership, before, "refusals change nothing");
    done(ownership.adopt(&range("", "m"), 3, Version(20)));
    ownership.check_key(TENANT, b"k", 3).expect("the epoch rose");
}

#[test]
fn releasing_leaves_a_mark_that_forwards_and_keeps_late_adoptions_out() {
    let mut ownership = owning(&[("", "m"), ("m", "")]);
    assert!(matches!(ownership.release(&range("", "k"), 2, None, Version(20)), Err(Error::Invalid { .. })), "half a shard");
    assert!(matches!(ownership.release(&range("", "m"), 1, None, Version(20)), Err(Error::Conflict { .. })));
    done(ownership.release(&range("", "m"), 2, Some(9), Version(20)));
    let Err(Error::Moved { redirect, .. }) = ownership.check_key(TENANT, b"k", 2) else { panic!("forwarded") };
    assert_eq!(redirect.group_id, 9);
    assert_eq!(ownership.release(&range("", "m"), 2, Some(9), Version(30)), Ok(Change::Already(Version(20))));
    assert!(matches!(ownership.adopt(&range("", "m"), 2, Version(30)), Err(Error::Conflict { .. })));
    done(ownership.adopt(&range("c", "f"), 3, Version(40)));
    ownership.check_range(TENANT, b"c", b"f", 3).expect("came back");
    for key in [&b"a"[..], b"f"] {
        assert!(matches!(ownership.check_key(TENANT, key, 0), Err(Error::Moved { redirect, .. }) if redirect.group_id == 9), "both sides");
    }
    assert_eq!(ownership.owned(), 2);
}

#[test]
fn what_was_never_owned_can_be_released_so_that_a_late_adoption_is_refused() {
    let mut ownership = Ownership::at_birth(GROUP);
    done(ownership.release(&range("", ""), 2, None, Version(1)));
    assert!(matches!(ownership.adopt(&range("", ""), 2, Version(2)), Err(Error::Conflict { .. })));
    let directory = Range { tenant_id: 0, start: Bytes::new(), end: Bytes::new() };
    assert!(matches!(Ownership::at_birth(0).release(&directory, 9, None, Version(1)), Err(Error::Invalid { .. })));
}

#[test]
fn the_rows_of_every_change_rebuild_the_same_ownership() {
    let mut ownership = Ownership::at_birth(GROUP);
    let mut rows: BTreeMap<(u64, Bytes), Shard> = BTreeMap::new();
    let steps = [("", "m", 2, true), ("m", "", 2, true), ("", "m", 3, false), ("c", "f", 4, true), ("", "", 9, false), ("b", "", 10, true)];
    for (step, (start, end, epoch, adopt)) in steps.into_iter().enumerate() {
        let version = Version(step as u64 + 1);
        let range = range(start, end);
        let change = if adopt { ownership.adopt(&range, epoch, version) } else { ownership.release(&range, epoch, Some(1), version) };
        for (tenant_id, start, shard) in done(change) {
            match shard {
                Some(shard) => rows.insert((tenant_id, start), shard),
                None => rows.remove(&(tenant_id, start)),
            };
        }
        let mut rebuilt = Ownership::at_birth(GROUP);
        for ((tenant_id, start), shard) in &rows {
            rebuilt.restore(*tenant_id, start.clone(), shard.clone());
        }
        assert_eq!(rebuilt, ownership, "after step {step}");
        let owned = rows.values().filter(|shard| matches!(shard.state, State::Owned | State::Fenced { .. })).count();
        assert_eq!(ownership.owned(), owned as u64, "after step {step}");
    }
}
