//! The plan against a naive model that reads every name.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// What the rules say, in one pass over all names.
fn naive(names: &BTreeSet<String>, prefix: &str, delimiter: &str, start_after: &str) -> Vec<String> {
    let mut shown: Vec<String> = Vec::new();
    for name in names.iter().filter(|name| name.starts_with(prefix)) {
        let rest = &name[prefix.len()..];
        let item = match rest.find(delimiter) {
            Some(at) if !delimiter.is_empty() => name[..prefix.len() + at + delimiter.len()].to_owned(),
            _ => name.clone(),
        };
        if item.as_str() > start_after && name.as_str() > start_after && shown.last() != Some(&item) {
            shown.push(item);
        }
    }
    shown
}

/// One page, driven as the operation drives it. Gives what is shown, the continuation, and how many names were read.
fn page(names: &BTreeSet<String>, plan: &mut Plan) -> (Vec<String>, Option<String>, usize) {
    let (mut shown, mut read) = (Vec::new(), 0);
    while let Some(query) = plan.query() {
        let inside = |name: &&String| {
            name.as_bytes() >= query.from.as_slice() && query.before.as_ref().is_none_or(|before| name.as_bytes() < before.as_slice())
        };
        let found: Vec<String> = names.iter().filter(inside).take(query.limit + 1).cloned().collect();
        let all = found.len() <= query.limit;
        let rows = &found[..found.len().min(query.limit)];
        read += rows.len();
        for item in plan.feed(rows, all) {
            shown.push(match item {
                Item::Name(index) => rows[index].clone(),
                Item::Prefix(prefix) => prefix,
            });
        }
    }
    (shown, plan.continuation(), read)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn pages_together_are_what_the_model_shows(
        names in prop::collection::btree_set("[ab/é]{1,6}", 0..40),
        prefix in "[ab/é]{0,2}",
        delimiter in prop::sample::select(vec!["", "/", "b", "//", "é"]),
        start_after in "[ab/é]{0,3}",
        limit in 1usize..6,
    ) {
        let expected = naive(&names, &prefix, delimiter, &start_after);
        let mut shown = Vec::new();
        let mut continuation: Option<String> = None;
        loop {
            let mut plan = Plan::new(prefix.clone(), delimiter.to_owned(), &start_after, limit);
            if let Some(continuation) = &continuation {
                plan.resume(continuation).expect("our own");
            }
            let (items, next, _) = page(&names, &mut plan);
            prop_assert!(items.len() <= limit);
            prop_assert!(next.is_none() || items.len() == limit, "a page that is not the last is full");
            shown.extend(items);
            continuation = next;
            if continuation.is_none() {
                break;
            }
        }
        prop_assert_eq!(&shown, &expected);
        // Version 1 of the S3 listing goes on by the last item shown.
        if let Some(last) = shown.get(limit - 1) {
            let mut plan = Plan::new(prefix.clone(), delimiter.to_owned(), last, usize::MAX - 1);
            prop_assert_eq!(page(&names, &mut plan).0, &expected[limit..]);
        }
    }
}

#[test]
fn common_prefixes_are_skipped_by_seeking() {
    let names: BTreeSet<String> = (0..20).flat_map(|folder| (0..5000).map(move |file| format!("{folder:02}/{file:05}"))).collect();
    let mut plan = Plan::new(String::new(), "/".into(), "", 1000);
    let (shown, continuation, read) = page(&names, &mut plan);
    assert_eq!((shown.len(), continuation), (20, None));
    assert!(read <= 21 * LIST_PROBE, "{read} names read");
}

#[test]
fn a_made_up_continuation_is_refused() {
    for bad in ["", "zz", "02", &"01".repeat(5000)] {
        assert!(
            matches!(Plan::new(String::new(), String::new(), "", 1).resume(bad), Err(Error::Invalid { field, .. }) if field == "continuation")
        );
    }
}
