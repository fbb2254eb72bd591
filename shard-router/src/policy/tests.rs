//! Every failure under every circumstance: the rules of the module hold, and each kind is treated as its duty says.

use super::*;

fn redirect(leader: bool, group_id: u32) -> v1::Redirect {
    v1::Redirect { group_id, leader: leader.then(|| v1::NodeRef { node_id: 2, address: "b:1".into() }), epoch: 4, ..Default::default() }
}

fn all_errors() -> Vec<Error> {
    let message = || "why".to_owned();
    let retry_after = Duration::from_millis(40);
    let mut errors = vec![
        Error::Conflict { message: message() },
        Error::Unavailable { message: message(), retry_after },
        Error::Exhausted { message: message(), retry_after },
        Error::UnknownOutcome { message: message() },
        Error::invalid("f", "l", "v"),
        Error::not_found("x"),
        Error::AlreadyExists { message: message() },
        Error::Denied { message: message() },
        Error::Suspended { message: message() },
        Error::Unauthenticated { message: message() },
        Error::Corrupt { message: message() },
        Error::internal("bug"),
    ];
    for (leader, group) in [(true, 1), (false, 1), (true, 2), (false, 2)] {
        errors.push(Error::Moved { message: message(), redirect: redirect(leader, group) });
        let of_keys = v1::Redirect { keys: Some(Box::default()), ..redirect(leader, group) };
        errors.push(Error::Moved { message: message(), redirect: of_keys });
    }
    errors
}

fn every_case(mut check: impl FnMut(&Attempt<'_>, &Verdict)) {
    let failures: Vec<Failure> =
        all_errors().into_iter().flat_map(|e| [Failure::Answered(e.clone()), Failure::NotSent(e.clone()), Failure::Lost(e)]).collect();
    for failure in &failures {
        for attempts in 1..=40 {
            for redirects in [0, 1, REDIRECTS_AT_ONCE, 50] {
                for time_left in [Duration::ZERO, Duration::from_millis(3), Duration::from_millis(150), Duration::from_secs(10)] {
                    for bits in 0..16_u8 {
                        let (effects, repeatable, open) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0 && bits & 1 != 0);
                        let may_repeat = bits & 8 == 0;
                        for (group_id, random) in [(None, 0), (Some(1), u64::MAX), (Some(1), 12_345)] {
                            let attempt = Attempt {
                                failure,
                                attempts,
                                redirects,
                                time_left,
                                effects,
                                repeatable,
                                open,
                                group_id,
                                may_repeat,
                                random,
                            };
                            check(&attempt, &decide(&attempt));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn no_wait_goes_past_the_deadline() {
    every_case(|attempt, verdict| match &verdict.decision {
        Decision::GiveUp { .. } => {}
        decision @ (Decision::RetryHere { .. }
        | Decision::GoTo { .. }
        | Decision::Follow { .. }
        | Decision::TryAnother { .. }
        | Decision::Refresh { .. }) => {
            assert!(wait_of(decision) < attempt.time_left, "{attempt:?} {verdict:?}");
        }
    });
}

#[test]
fn what_may_have_happened_stays_open_and_ends_unknown() {
    every_case(|attempt, verdict| {
        let may = matches!(attempt.failure, Failure::Lost(_) | Failure::Answered(Error::UnknownOutcome { .. }));
        assert_eq!(verdict.open, attempt.open || (attempt.effects && may));
        if let Decision::GiveUp { error } = &verdict.decision {
            assert_eq!(verdict.open, matches!(error, Error::UnknownOutcome { .. }), "{attempt:?} {verdict:?}");
        } else {
            assert!(!verdict.open || attempt.repeatable, "repeated without a request id: {attempt:?}");
        }
    });
}

#[test]
fn who_is_told_to_slow_down_waits_as_long_as_told() {
    every_case(|attempt, verdict| {
        let Failure::Answered(Error::Exhausted { retry_after, .. }) = attempt.failure else { return };
        match &verdict.decision {
            Decision::RetryHere { after } => assert!(attempt.may_repeat && after >= retry_after, "{attempt:?} {verdict:?}"),
            Decision::GiveUp { .. } => {}
            other @ (Decision::GoTo { .. } | Decision::Follow { .. } | Decision::TryAnother { .. } | Decision::Refresh { .. }) => {
                panic!("{attempt:?} {other:?}")
            }
        }
    });
}

#[test]
fn what_a_group_says_of_its_keys_is_followed_and_nothing_else_is() {
    every_case(|attempt, verdict| {
        let says = matches!(attempt.failure, Failure::Answered(Error::Moved { redirect, .. }) if redirect.keys.is_some() && redirect.leader.is_none());
        let follows = matches!(verdict.decision, Decision::Follow { .. });
        let gives_up = matches!(verdict.decision, Decision::GiveUp { .. });
        assert_eq!(follows, says && attempt.group_id.is_some() && !gives_up, "{attempt:?} {verdict:?}");
    });
}

#[test]
fn redirects_do_not_leave_the_router() {
    every_case(|_, verdict| {
        assert!(!matches!(&verdict.decision, Decision::GiveUp { error: Error::Moved { .. } }));
    });
}

#[test]
fn final_errors_are_given_up_at_once_as_they_are() {
    every_case(|attempt, verdict| {
        let Failure::Answered(error) = attempt.failure else { return };
        let hopeless = match error {
            Error::Conflict { .. }
            | Error::Invalid { .. }
            | Error::AlreadyExists { .. }
            | Error::Denied { .. }
            | Error::Unauthenticated { .. }
            | Error::Suspended { .. }
            | Error::Internal { .. } => true,
            Error::NotFound { .. } => attempt.attempts > NOT_FOUND_REFRESHES,
            Error::Corrupt { .. } => attempt.attempts >= CORRUPT_ATTEMPTS,
            Error::Exhausted { .. } => !attempt.may_repeat,
            Error::Moved { .. } | Error::Unavailable { .. } | Error::UnknownOutcome { .. } => false,
        };
        if hopeless && !verdict.open {
            assert_eq!(verdict.decision, Decision::GiveUp { error: error.clone() });
        } else if !hopeless && attempt.time_left >= Duration::from_secs(10) && (!verdict.open || attempt.repeatable) {
            assert!(!matches!(verdict.decision, Decision::GiveUp { .. }), "given up too early: {attempt:?}");
        }
    });
}

#[test]
fn a_named_leader_is_gone_to_at_once_and_later_with_a_wait() {
    every_case(|attempt, verdict| {
        let Failure::Answered(Error::Moved { redirect, .. }) = attempt.failure else { return };
        if let Decision::GoTo { after, redirect: to } = &verdict.decision {
            assert!(redirect.leader.is_some() && to == redirect);
            assert_eq!(after.is_zero(), attempt.redirects < REDIRECTS_AT_ONCE);
        }
    });
}

#[test]
fn the_wait_asked_for_is_kept_at_least_by_half() {
    every_case(|attempt, verdict| {
        if let Failure::Answered(Error::Unavailable { retry_after, .. } | Error::Exhausted { retry_after, .. }) = attempt.failure
            && !matches!(verdict.decision, Decision::GiveUp { .. })
        {
            assert!(wait_of(&verdict.decision) >= *retry_after / 2, "{attempt:?} {verdict:?}");
        }
    });
}

#[test]
fn a_dead_node_is_left_and_the_routes_are_read_again_in_the_end() {
    let failure = Failure::NotSent(Error::unavailable("refused", Duration::ZERO));
    let decisions: Vec<Decision> = (1..=8)
        .map(|attempts| {
            let attempt = Attempt {
                failure: &failure,
                attempts,
                redirects: 0,
                time_left: Duration::from_secs(10),
                effects: true,
                repeatable: true,
                open: false,
                group_id: Some(1),
                may_repeat: true,
                random: 7,
            };
            decide(&attempt).decision
        })
        .collect();
    assert!(matches!(decisions[0], Decision::TryAnother { .. }) && matches!(decisions[3], Decision::Refresh { .. }));
    assert!(matches!(decisions[7], Decision::Refresh { .. }));
}

#[test]
fn backoff_doubles_to_its_bound_with_jitter_in_the_upper_half() {
    for attempts in 1..100 {
        let most = (BACKOFF_FIRST * (1 << (attempts - 1).min(16))).min(BACKOFF_LONGEST);
        for random in [0, 1, 999_999_937, u64::MAX] {
            let wait = backoff(attempts, random);
            assert!(wait >= most / 2 && wait <= most, "{attempts} {wait:?}");
        }
    }
}
