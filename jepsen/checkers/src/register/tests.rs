//! Histories of a register: published anomalies that must be caught, and correct ones that must pass.

use super::{Call, Register, Return};
use crate::linearizable::{Budget, check};
use crate::{History, OperationId, Outcome, Verdict};

type Registers = History<Call, Return>;

fn judge(history: &Registers) -> Verdict {
    check::<Register>(history, Budget::default())
}

fn start(h: &mut Registers, process: u64, call: Call) -> OperationId {
    h.invoke(process, "k", 0, call)
}

fn ok(h: &mut Registers, id: OperationId, answer: Return) {
    h.complete(id, 0, Outcome::Ok(answer));
}

/// One after the other, all answered.
fn sequence(calls: &[(Call, Return)]) -> Registers {
    let mut h = Registers::new();
    for (call, answer) in calls {
        let id = start(&mut h, 1, *call);
        ok(&mut h, id, *answer);
    }
    h
}

#[track_caller]
fn caught(history: &Registers) {
    assert!(matches!(judge(history), Verdict::Violated(_)), "{:?}", judge(history));
}

#[track_caller]
fn passes(history: &Registers) {
    assert_eq!(judge(history), Verdict::Holds);
}

#[test]
fn a_sequential_history_passes() {
    passes(&sequence(&[
        (Call::Get, Return::Value(None)),
        (Call::Put(1), Return::Written),
        (Call::Cas { expected: Some(1), new: 2 }, Return::Written),
        (Call::Cas { expected: Some(1), new: 3 }, Return::Refused(Some(2))),
        (Call::Add(5), Return::Sum(7)),
        (Call::Get, Return::Value(Some(7))),
        (Call::Delete, Return::Deleted(true)),
        (Call::Delete, Return::Deleted(false)),
        (Call::Get, Return::Value(None)),
    ]));
}

#[test]
fn a_stale_read_is_caught() {
    caught(&sequence(&[(Call::Put(1), Return::Written), (Call::Put(2), Return::Written), (Call::Get, Return::Value(Some(1)))]));
}

#[test]
fn a_lost_update_is_caught() {
    // Two swaps from the same value cannot both succeed.
    let mut h = sequence(&[(Call::Put(1), Return::Written)]);
    let a = start(&mut h, 1, Call::Cas { expected: Some(1), new: 2 });
    let b = start(&mut h, 2, Call::Cas { expected: Some(1), new: 3 });
    ok(&mut h, a, Return::Written);
    ok(&mut h, b, Return::Written);
    caught(&h);
}

#[test]
fn a_lost_acknowledged_write_is_caught() {
    caught(&sequence(&[(Call::Put(1), Return::Written), (Call::Get, Return::Value(None))]));
}

#[test]
fn a_doubled_swap_is_caught() {
    // The retry of 1 to 2 is applied again after 2 went back to 1.
    caught(&sequence(&[
        (Call::Put(1), Return::Written),
        (Call::Cas { expected: Some(1), new: 2 }, Return::Written),
        (Call::Cas { expected: Some(2), new: 1 }, Return::Written),
        (Call::Get, Return::Value(Some(2))),
    ]));
}

#[test]
fn a_doubled_add_is_caught_even_if_its_outcome_is_unknown() {
    let mut h = Registers::new();
    let add = start(&mut h, 1, Call::Add(1));
    h.complete(add, 0, Outcome::Unknown);
    let get = start(&mut h, 2, Call::Get);
    ok(&mut h, get, Return::Value(Some(2)));
    caught(&h);
}

#[test]
fn a_read_that_goes_back_is_caught() {
    // A write of unknown outcome is seen, then unseen.
    let mut h = Registers::new();
    let put = start(&mut h, 1, Call::Put(1));
    h.complete(put, 0, Outcome::Unknown);
    for value in [Some(1), None] {
        let get = start(&mut h, 2, Call::Get);
        ok(&mut h, get, Return::Value(value));
    }
    caught(&h);
}

#[test]
fn two_readers_may_not_disagree_on_the_order() {
    let mut h = Registers::new();
    let (a, b) = (start(&mut h, 1, Call::Put(1)), start(&mut h, 2, Call::Put(2)));
    for (process, values) in [(3, [1, 2]), (4, [1, 2]), (3, [1, 1])] {
        for value in values {
            let get = start(&mut h, process, Call::Get);
            ok(&mut h, get, Return::Value(Some(value)));
        }
    }
    ok(&mut h, a, Return::Written);
    ok(&mut h, b, Return::Written);
    caught(&h);
}

#[test]
fn a_refused_write_that_shows_is_caught() {
    let mut h = Registers::new();
    let put = start(&mut h, 1, Call::Put(1));
    h.complete(put, 0, Outcome::Fail);
    let get = start(&mut h, 2, Call::Get);
    ok(&mut h, get, Return::Value(Some(1)));
    caught(&h);
}

#[test]
fn a_write_before_its_invocation_is_caught() {
    let mut h = sequence(&[(Call::Get, Return::Value(Some(9)))]);
    let put = start(&mut h, 2, Call::Put(9));
    ok(&mut h, put, Return::Written);
    caught(&h);
}

#[test]
fn an_unknown_write_may_show_late_or_never() {
    for seen in [None, Some(1)] {
        let mut h = Registers::new();
        let put = start(&mut h, 1, Call::Put(1));
        h.complete(put, 0, Outcome::Unknown);
        for value in [None, None, seen] {
            let get = start(&mut h, 2, Call::Get);
            ok(&mut h, get, Return::Value(value));
        }
        passes(&h);
    }
}

#[test]
fn concurrent_operations_may_take_either_order() {
    for winner in [1, 2] {
        let mut h = Registers::new();
        let (a, b) = (start(&mut h, 1, Call::Put(1)), start(&mut h, 2, Call::Put(2)));
        ok(&mut h, a, Return::Written);
        ok(&mut h, b, Return::Written);
        let get = start(&mut h, 3, Call::Get);
        ok(&mut h, get, Return::Value(Some(winner)));
        passes(&h);
    }
}

#[test]
fn keys_are_judged_apart() {
    let mut h = Registers::new();
    for (key, value) in [("a", 1), ("b", 2)] {
        let put = h.invoke(1, key, 0, Call::Put(value));
        ok(&mut h, put, Return::Written);
    }
    let get = h.invoke(1, "a", 0, Call::Get);
    ok(&mut h, get, Return::Value(Some(2)));
    let Verdict::Violated(reason) = judge(&h) else { panic!("a read of another key's value") };
    assert!(reason.contains("key a"), "{reason}");
}

#[test]
fn a_search_out_of_budget_is_undecided() {
    let mut h = Registers::new();
    let puts: Vec<_> = (0..20).map(|i| start(&mut h, i, Call::Put(i))).collect();
    for put in puts {
        ok(&mut h, put, Return::Written);
    }
    let get = start(&mut h, 99, Call::Get);
    ok(&mut h, get, Return::Value(Some(1000)));
    let verdict = check::<Register>(&h, Budget { steps: 1000, cache_bytes: usize::MAX });
    assert!(matches!(verdict, Verdict::Undecided(_)) && !verdict.passes());
    let verdict = check::<Register>(&h, Budget { steps: u64::MAX, cache_bytes: 10_000 });
    assert!(matches!(verdict, Verdict::Undecided(_)));
}

#[test]
fn five_hundred_operations_on_one_key_are_decided() {
    // Sixteen clients, answers in the order asked, a tenth of the puts unknown.
    let mut h = Registers::new();
    let mut open = std::collections::VecDeque::new();
    for i in 0..500 {
        open.push_back((i, start(&mut h, i % 16, Call::Put(i))));
        if open.len() == 16 {
            let (i, id) = open.pop_front().expect("sixteen are open");
            h.complete(id, 0, if i % 10 == 0 { Outcome::Unknown } else { Outcome::Ok(Return::Written) });
        }
    }
    passes(&h);
}

#[test]
fn excused_reads_may_be_old_and_may_not_be_invented() {
    let told = |value| {
        let mut history: History<Call, Return> = History::new();
        let put = history.invoke(1, "k", 0, Call::Put(1));
        history.complete(put, 1, Outcome::Ok(Return::Written));
        let read = history.invoke(2, "k", 2, Call::Get);
        history.complete(read, 3, Outcome::Ok(Return::Value(value)));
        let later = history.invoke(1, "k", 4, Call::Put(9));
        history.complete(later, 5, Outcome::Ok(Return::Written));
        super::excuse_reads(history)
    };
    for old in [None, Some(1)] {
        let (rest, verdict) = told(old);
        assert!(verdict.passes() && rest.operations().len() == 2, "{old:?}");
    }
    for invented in [Some(2), Some(9)] {
        assert!(!told(invented).1.passes(), "{invented:?}");
    }
}
