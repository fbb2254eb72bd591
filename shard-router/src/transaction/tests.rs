//! How buffered writes lie over what was read.

use super::*;

fn state(writes: Vec<Write>) -> State {
    State { written: writes, ..State::default() }
}

fn key(effect: Effect) -> Write {
    Write::Key { key: "k".into(), effect }
}

#[test]
fn writes_apply_in_order_over_what_was_read() {
    let five = Bytes::copy_from_slice(&5_i64.to_le_bytes());
    let range = || Write::Range { start: "a".into(), end: "z".into() };
    let cases = [
        (vec![], Some(five.clone())),
        (vec![key(Effect::Delete)], None),
        (vec![range()], None),
        (vec![range(), key(Effect::Put("v".into()))], Some("v".into())),
        (vec![key(Effect::Put("v".into())), range()], None),
        (vec![key(Effect::Add(2))], Some(Bytes::copy_from_slice(&7_i64.to_le_bytes()))),
        (vec![key(Effect::Delete), key(Effect::Add(2))], Some(Bytes::copy_from_slice(&2_i64.to_le_bytes()))),
    ];
    for (writes, expected) in cases {
        assert_eq!(state(writes).overlay(&"k".into(), Some(five.clone())).expect("fits"), expected);
    }
}

#[test]
fn a_sum_that_does_not_fit_and_a_value_that_is_no_counter_are_refused() {
    let add = || state(vec![key(Effect::Add(1))]);
    assert!(add().overlay(&"k".into(), Some("text".into())).is_err());
    assert!(add().overlay(&"k".into(), Some(Bytes::copy_from_slice(&i64::MAX.to_le_bytes()))).is_err());
}

#[test]
fn only_what_sets_a_key_makes_reading_it_needless() {
    assert!(state(vec![key(Effect::Add(1))]).settled(&"k".into()).is_none());
    assert!(state(vec![key(Effect::Delete)]).settled(&"k".into()).is_some());
}
