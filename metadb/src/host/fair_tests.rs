//! What fair queuing promises, for all histories: shares, bounds, order, and work whenever there is some.

use super::*;
use proptest::prelude::*;

const LARGE: Room = Room { requests: 1_000_000, bytes: usize::MAX / 2 };

fn arrival(tenant_id: u64, weight: u64, cost: u64, value: u64) -> Arrival<u64> {
    Arrival { tenant_id, weight, cost, bytes: 100, value }
}

#[track_caller]
fn waits(queue: &mut FairQueue<u64>, arrival: Arrival<u64>) -> u64 {
    match queue.push(arrival, LARGE) {
        (Pushed::Waits { ticket }, gone) if gone.is_empty() => ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_flood_does_not_keep_a_newcomer_waiting() {
    let mut queue = FairQueue::new(LARGE);
    for n in 0..10_000 {
        waits(&mut queue, arrival(1, 100, 1, n));
    }
    for _ in 0..500 {
        queue.pop().expect("there are many");
    }
    waits(&mut queue, arrival(2, 100, 1, 7));
    let next: Vec<u64> = (0..2).filter_map(|_| queue.pop()).map(|taken| taken.tenant_id).collect();
    assert!(next.contains(&2), "one request of the flood at most goes first: {next:?}");
}

#[test]
fn who_was_away_has_no_credit_and_no_debt() {
    let mut queue = FairQueue::new(LARGE);
    for n in 0..1000 {
        waits(&mut queue, arrival(1, 1, 1, n));
    }
    (0..500).for_each(|_| _ = queue.pop());
    for n in 0..1000 {
        waits(&mut queue, arrival(2, 1, 1, n));
    }
    let taken: Vec<u64> = (0..100).filter_map(|_| queue.pop()).map(|taken| taken.tenant_id).collect();
    let of_second = taken.iter().filter(|tenant| **tenant == 2).count();
    assert!((49..=51).contains(&of_second), "{of_second}");
}

#[test]
fn a_tripped_line_takes_nothing_until_half_of_it_is_gone() {
    let within = Room { requests: 10, bytes: 1 << 20 };
    let mut queue = FairQueue::new(LARGE);
    for n in 0..10 {
        assert!(matches!(queue.push(arrival(1, 1, 1, n), within).0, Pushed::Waits { .. }));
    }
    assert_eq!(queue.push(arrival(1, 1, 1, 10), within).0, Pushed::LineFull);
    for _ in 0..4 {
        queue.pop().expect("waits");
        assert_eq!(queue.push(arrival(1, 1, 1, 11), within).0, Pushed::LineFull, "{:?}", queue.line(1));
    }
    assert_eq!(queue.longest(5), [(1, Room { requests: 6, bytes: 600 }, true)]);
    queue.pop().expect("waits");
    assert!(matches!(queue.push(arrival(1, 1, 1, 12), within).0, Pushed::Waits { .. }));
    assert!(!queue.longest(5)[0].2);
}

#[test]
fn when_all_is_full_the_longest_line_makes_room_for_a_shorter_one() {
    let mut queue = FairQueue::new(Room { requests: 10, bytes: 1 << 20 });
    for n in 0..10 {
        waits(&mut queue, arrival(1, 1, 1, n));
    }
    assert_eq!(queue.push(arrival(1, 1, 1, 10), LARGE), (Pushed::AllFull, vec![]));
    let (pushed, gone) = queue.push(arrival(2, 1, 1, 0), LARGE);
    assert!(matches!(pushed, Pushed::Waits { .. }));
    assert_eq!(gone, [9], "the newest of the longest");
    // One request that needs many places: as many go as it takes, from the longest line.
    let large = Arrival { bytes: (1 << 20) - 500, ..arrival(3, 1, 1, 0) };
    assert_eq!(queue.push(large, LARGE).0, Pushed::AllFull, "its own line would be the longest");
    assert_eq!(queue.waiting().requests, 10);
}

/// What may happen to a queue.
#[derive(Debug, Clone)]
enum Step {
    Push { tenant_id: u64, cost: u64, bytes: usize },
    Pop,
    Remove { which: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let push = (1_u64..6, 1_u64..20, 0_usize..3000).prop_map(|(tenant_id, cost, bytes)| Step::Push { tenant_id, cost, bytes });
    let step = prop_oneof![4 => push, 2 => Just(Step::Pop), 1 => (0_usize..64).prop_map(|which| Step::Remove { which })];
    proptest::collection::vec(step, 0..400)
}

proptest! {
    /// Bounds hold, each line is first in first out, nothing is lost or made up, and whenever something waits something is taken.
    #[test]
    fn bounds_hold_and_nothing_is_lost(steps in steps()) {
        let (all, line) = (Room { requests: 20, bytes: 20_000 }, Room { requests: 8, bytes: 9_000 });
        let mut queue = FairQueue::new(all);
        let mut model: BTreeMap<u64, Vec<(u64, u64, usize)>> = BTreeMap::new();
        for (value, step) in (0_u64..).zip(steps) {
            match step {
                Step::Push { tenant_id, cost, bytes } => {
                    let (pushed, gone) = queue.push(Arrival { tenant_id, weight: tenant_id, cost, bytes, value }, line);
                    for gone in gone {
                        let found = model.values_mut().find(|line| line.last().is_some_and(|(_, last, _)| *last == gone));
                        found.expect("the newest of a line").pop();
                    }
                    if let Pushed::Waits { ticket } = pushed {
                        model.entry(tenant_id).or_default().push((ticket, value, bytes));
                    }
                }
                Step::Pop => match queue.pop() {
                    Some(taken) => {
                        let first = model.get_mut(&taken.tenant_id).map(|line| line.remove(0));
                        prop_assert_eq!(first.map(|first| first.1), Some(taken.value), "first in, first out");
                    }
                    None => prop_assert!(model.values().all(Vec::is_empty), "something waits and nothing was taken"),
                },
                Step::Remove { which } => {
                    let places: Vec<_> = model.iter().flat_map(|(t, line)| line.iter().enumerate().map(|(i, w)| (*t, i, *w))).collect();
                    if let Some((tenant_id, at, (ticket, value, _))) = places.get(which % places.len().max(1)).copied() {
                        prop_assert_eq!(queue.remove(tenant_id, ticket), Some(value));
                        prop_assert_eq!(queue.remove(tenant_id, ticket), None);
                        model.get_mut(&tenant_id).expect("found there").remove(at);
                    }
                }
            }
            let room = |line: &Vec<(u64, u64, usize)>| Room { requests: line.len(), bytes: line.iter().map(|w| w.2).sum() };
            for (tenant_id, waiting) in &model {
                prop_assert_eq!(queue.line(*tenant_id), room(waiting));
                prop_assert!(waiting.len() <= line.requests && room(waiting).bytes <= line.bytes);
            }
            prop_assert_eq!(queue.waiting(), room(&model.values().flatten().copied().collect()));
            prop_assert!(queue.waiting().requests <= all.requests && queue.waiting().bytes <= all.bytes);
        }
    }

    /// The theorem of start-time fair queuing: while two tenants both always have something waiting, what they got, divided by their
    /// weights, differs by no more than one largest request of each, divided by its weight. Whoever else comes and goes.
    #[test]
    fn shares_follow_weights(
        weights in (1_u64..50, 1_u64..50),
        costs in proptest::collection::vec((1_u64..30, 1_u64..30), 50..150),
        others in proptest::collection::vec((3_u64..8, 1_u64..30), 0..200),
        pops in 20_usize..60,
    ) {
        let mut queue = FairQueue::new(LARGE);
        for (n, (first, second)) in (0_u64..).zip(&costs) {
            waits(&mut queue, arrival(1, weights.0, *first, n));
            waits(&mut queue, arrival(2, weights.1, *second, n));
        }
        let mut others = others.into_iter();
        let mut got = [0_u128; 3];
        for _ in 0..pops.min(costs.len()) {
            if let Some((tenant_id, cost)) = others.next() {
                waits(&mut queue, arrival(tenant_id, 10, cost, 0));
            }
            let taken = queue.pop().expect("two lines never end");
            if let Some(got) = got.get_mut(usize::try_from(taken.tenant_id).unwrap_or(9)) {
                *got += u128::from(taken.cost);
            }
            prop_assert!(queue.line(1).requests > 0 && queue.line(2).requests > 0 || pops >= costs.len());
            // Multiplied out, so that it is exact.
            let (w1, w2) = (u128::from(weights.0), u128::from(weights.1));
            let difference = (got[1] * w2).abs_diff(got[2] * w1);
            prop_assert!(difference <= 30 * w2 + 30 * w1, "{got:?} with weights {weights:?}");
        }
    }

    /// A tenant that asks once is served after at most one request of each other tenant, and what that costs.
    #[test]
    fn a_rare_asker_waits_for_one_of_each_other(floods in proptest::collection::vec(1_usize..50, 1..10), served in 0_usize..40) {
        let mut queue = FairQueue::new(LARGE);
        for (tenant_id, count) in (10_u64..).zip(&floods) {
            for n in 0..*count as u64 {
                waits(&mut queue, arrival(tenant_id, 100, 1, n));
            }
        }
        (0..served).for_each(|_| _ = queue.pop());
        waits(&mut queue, arrival(1, 100, 1, 0));
        let before = std::iter::from_fn(|| queue.pop()).take_while(|taken| taken.tenant_id != 1).count();
        prop_assert!(before <= floods.len(), "{before} went first");
    }
}
