//! Changes of shards: two groups and movers that know nothing of each other never make two owners, and what is asked again changes nothing.

#![expect(clippy::wildcard_enum_match_arm, reason = "each match picks the steps that it is about")]

use super::*;
use proptest::prelude::*;

const TENANT: u64 = 7;

fn range(start: &str, end: &str) -> Range {
    Range { tenant_id: TENANT, start: Bytes::from(start.to_owned()), end: Bytes::from(end.to_owned()) }
}

fn owning(group_id: u32, ranges: &[(&str, &str)]) -> Ownership {
    let mut ownership = Ownership::at_birth(group_id);
    for (start, end) in ranges {
        ownership.adopt(&range(start, end), 2, Version(10)).expect("free");
    }
    ownership
}

fn split(at: &str) -> step::Change {
    step::Change::Split(v1::SplitShard { at: Bytes::from(at.to_owned()) })
}

fn merge(at: &str) -> step::Change {
    step::Change::Merge(v1::MergeShards { at: Bytes::from(at.to_owned()) })
}

fn owns(ownership: &Ownership, key: &str) -> bool {
    ownership.check_key(TENANT, key.as_bytes(), 0).is_ok()
}

#[test]
fn a_split_and_a_merge_are_done_once() {
    let mut group = owning(3, &[("", "")]);
    assert!(matches!(group.change(&range("", ""), 3, &split("m"), Version(11)), Ok(Change::Done(_))));
    assert_eq!(group.change(&range("", ""), 3, &split("m"), Version(12)), Ok(Change::Already(Version(11))));
    let Err(Error::Moved { redirect, .. }) = group.check_key(TENANT, b"z", 2) else { panic!("an old epoch") };
    assert_eq!((redirect.group_id, redirect.epoch), (3, 3));
    group.check_range(TENANT, b"a", b"", 3).expect("both halves are here");
    assert_eq!(group.owned(), 2);
    assert!(matches!(group.change(&range("", ""), 4, &split("q"), Version(13)), Err(Error::Conflict { .. })), "no such shard any more");
    assert!(matches!(group.change(&range("", ""), 4, &merge("m"), Version(13)), Ok(Change::Done(_))));
    assert_eq!(group.change(&range("", ""), 4, &merge("m"), Version(14)), Ok(Change::Already(Version(13))));
    assert_eq!(group.owned(), 1);
}

#[test]
fn what_cannot_be_is_refused_with_what_there_is() {
    let mut group = owning(3, &[("", "g"), ("g", "p")]);
    for at in ["", "g", "x"] {
        let refused = group.change(&range("", "g"), 3, &split(at), Version(11));
        assert!(matches!(refused, Err(Error::Invalid { ref field, .. }) if field == "at"), "{at}: {refused:?}");
    }
    assert!(matches!(group.change(&range("", "g"), 2, &split("c"), Version(11)), Err(Error::Conflict { .. })), "an epoch that it has");
    let Err(Error::Conflict { message }) = group.change(&range("", "x"), 3, &merge("g"), Version(11)) else { panic!("no neighbour") };
    assert!(message.contains("from 67 to 70"), "{message}");
    let to_itself = step::Change::Fence(v1::FenceShard { to_group_id: 3 });
    assert!(matches!(group.change(&range("", "g"), 3, &to_itself, Version(11)), Err(Error::Invalid { .. })));
    let mut directory = Ownership::at_birth(0);
    let all = Range { tenant_id: 0, start: Bytes::new(), end: Bytes::new() };
    assert!(matches!(directory.change(&all, 9, &split("m"), Version(11)), Err(Error::Invalid { .. })));
    assert_eq!(group, owning(3, &[("", "g"), ("g", "p")]), "nothing was changed");
}

/// The groups of the test, and their ownership.
const FROM: u32 = 3;
const TO: u32 = 4;

fn steps(take_at: u64) -> Vec<(u32, step::Change)> {
    vec![
        (TO, step::Change::Expect(v1::ExpectShard { from_group_id: FROM })),
        (FROM, step::Change::Fence(v1::FenceShard { to_group_id: TO })),
        (TO, step::Change::TakeOver(v1::TakeOverShard { from_group_id: FROM, fence_version: take_at })),
        (FROM, step::Change::HandOver(v1::HandOverShard { to_group_id: TO })),
    ]
}

#[test]
fn a_move_goes_through_and_nobody_owns_in_the_middle() {
    let (mut from, mut to) = (owning(FROM, &[("", "")]), Ownership::at_birth(TO));
    let all = range("", "");
    for (number, (group, step)) in steps(20).into_iter().enumerate() {
        if number == 2 {
            assert!(matches!(to.change(&all, 3, &step, Version(30)), Err(Error::Conflict { .. })), "rows are missing");
            to.arrived(&all, 3, Version(20)).expect("expected");
        }
        let ownership = if group == FROM { &mut from } else { &mut to };
        assert!(matches!(ownership.change(&all, 3, &step, Version(20 + number as u64)), Ok(Change::Done(_))), "step {number}");
        assert!(matches!(ownership.change(&all, 3, &step, Version(90)), Ok(Change::Already(_))), "step {number} again");
        let expected = [(true, false), (false, false), (false, true), (false, true)][number];
        assert_eq!((owns(&from, "k"), owns(&to, "k")), expected, "after step {number}");
    }
    let Err(Error::Moved { redirect, .. }) = from.check_key(TENANT, b"k", 0) else { panic!("a mark") };
    assert_eq!((redirect.group_id, redirect.epoch), (TO, 3));
}

/// What a mover may have sent, long ago.
fn message() -> impl Strategy<Value = (u32, step::Change, u64)> {
    let decline = step::Change::Decline(v1::DeclineShard { from_group_id: FROM });
    let mut all = steps(1);
    all.extend([(TO, decline), (FROM, step::Change::Lift(v1::LiftFence {}))]);
    (prop::sample::select(all), 3..7_u64).prop_map(|((group, step), epoch)| (group, step, epoch))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Movers are careful in one thing each: who takes over at an epoch has seen the fence of that epoch, who lifts a fence has seen the
    /// other group decline, who hands over has seen it taken over. Everything else comes in any order, late, and twice.
    #[test]
    fn two_groups_never_own_the_same(messages in prop::collection::vec(message(), 1..60)) {
        let (mut from, mut to) = (owning(FROM, &[("", "")]), Ownership::at_birth(TO));
        let all = range("", "");
        let (mut fenced, mut declined, mut taken) = ([false; 8], [false; 8], [false; 8]);
        for (number, (group, step, epoch)) in messages.into_iter().enumerate() {
            let (version, at) = (Version(100 + number as u64), usize::try_from(epoch).expect("small"));
            let allowed = match &step {
                step::Change::TakeOver(_) => fenced[at],
                step::Change::Lift(_) => declined[at],
                step::Change::HandOver(_) => taken[at],
                _ => true,
            };
            if !allowed {
                continue;
            }
            if matches!(step, step::Change::TakeOver(_)) {
                let _ = to.arrived(&all, epoch, Version(50));
            }
            let ownership = if group == FROM { &mut from } else { &mut to };
            let done = ownership.change(&all, epoch, &step, version).is_ok();
            match &step {
                step::Change::Fence(_) => fenced[at] |= done,
                step::Change::Decline(_) => declined[at] |= done,
                step::Change::TakeOver(_) => taken[at] |= done,
                _ => {}
            }
            prop_assert!(!(owns(&from, "k") && owns(&to, "k")), "two owners after {step:?} at {epoch}");
            // Where the rows are dropped, somebody else has them: nothing is ever lost.
            let dropped = matches!(from.exactly(&all).map(|shard| shard.state), Some(State::Dropped { .. }));
            prop_assert!(!dropped || owns(&to, "k"), "nobody has it after {step:?} at {epoch}");
        }
    }
}
