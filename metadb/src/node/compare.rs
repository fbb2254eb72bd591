//! Has the groups that are led here compare the states of their replicas, slice by slice and round and round.
//!
//! One group after the other has a slice compared, at a rate that a setting bounds for the node as a leader. A group goes through its whole
//! state, then rests until a setting's time has passed since it began. Where it is stands in its log, so that a later leader goes on there.
//!
//! * A replica whose slice is not what most voters have is told so by its leader, and the watchdog takes it out of service, durably: it is
//!   rebuilt as one that does not read back. So is a leader that finds itself wrong.
//! * Where no state is that of a majority nothing is thrown away: it is told, and the same slice is compared again.
//! * A slice that not every voter answered for is tried again; who is away for longer is left out of it, until the next time round.

use super::Node;
use crate::group::Group;
use crate::raft::compare::Place;
use crate::raft::compare::verdict::Verdict;
use bytes::Bytes;
use metadb_proto::seam;
use metadb_proto::settings::Asker;
use metadb_proto::settings::registry::{COMPARE_BYTES_PER_S, COMPARE_INTERVAL_S};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// How often it looks whether anything is due.
const LOOK: Duration = Duration::from_secs(1);
/// Between two slices, at least.
const REST: Duration = Duration::from_millis(1);
/// A slice is what the rate allows in a quarter of a second, within these bounds.
const SLICES_PER_S: u64 = 4;
const SLICE_BYTES: std::ops::RangeInclusive<u64> = 1 << 10..=4 << 20;
/// When a slice that not every voter answered for is tried again, and how often.
const RETRY: Duration = Duration::from_millis(500);
const TRIES: u32 = 4;
/// When a slice is compared again that nobody could decide on.
const UNDECIDED_RETRY: Duration = Duration::from_secs(10);

/// How far the comparison of a group is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Walk {
    began_ms: u64,
    /// The next slice; none: it is through.
    at: Option<Place>,
    /// Whether every voter took part in all of it.
    whole: bool,
    tries: u32,
    not_before: Instant,
}

impl Walk {
    /// Goes on where a leader before stopped. What was compared under it may have been in part.
    fn resume(began_ms: u64, at: Place, now: Instant) -> Self {
        Walk { began_ms, at: Some(at), whole: false, tries: 0, not_before: now }
    }

    fn never(now: Instant) -> Self {
        Walk { began_ms: 0, at: None, whole: false, tries: 0, not_before: now }
    }

    /// The slice that is due.
    fn due(&mut self, now: Instant, now_ms: u64, interval: Duration) -> Option<Place> {
        let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        // A clock that was set back makes it wait no longer than that.
        if self.at.is_none() && now_ms.abs_diff(self.began_ms) >= interval_ms {
            *self = Walk { began_ms: now_ms, at: Some((0, Bytes::new())), whole: true, tries: 0, not_before: self.not_before };
        }
        self.at.clone().filter(|_| self.not_before <= now)
    }

    /// Notes what came of the slice that was due. Whether it was the last of a comparison in which every voter took part.
    fn went(&mut self, verdict: &Verdict, told: bool, next: Option<Place>, now: Instant) -> bool {
        let again = match verdict {
            Verdict::Equal { whole: true } => None,
            Verdict::Differ { .. } => (!told).then_some(RETRY),
            Verdict::Undecided(_) => Some(UNDECIDED_RETRY),
            Verdict::Equal { whole: false } | Verdict::Alone => {
                self.tries += 1;
                self.whole &= self.tries < TRIES;
                (self.tries < TRIES).then_some(RETRY)
            }
        };
        // Others have their turn first.
        self.not_before = now + again.unwrap_or_default();
        if again.is_some() {
            return false;
        }
        (self.at, self.tries) = (next, 0);
        self.at.is_none() && self.whole
    }
}

/// Starts the task. It ends with the node.
pub(super) fn start(node: &Arc<Node>) {
    tokio::spawn(run(Arc::downgrade(node)));
}

async fn run(node: Weak<Node>) {
    let mut walks = BTreeMap::new();
    loop {
        let Some(node) = node.upgrade().filter(|node| !node.stopping.begun()) else { return };
        let rest = node.compare_next(&mut walks).await;
        drop(node);
        tokio::time::sleep(rest).await;
    }
}

impl Node {
    /// Has the group compare a slice whose turn it is; how long to rest then.
    async fn compare_next(&self, walks: &mut BTreeMap<u32, Walk>) -> Duration {
        let settings = &self.config.settings;
        let (rate, seconds): (u64, u64) = (settings.get(&COMPARE_BYTES_PER_S, Asker::NODE), settings.get(&COMPARE_INTERVAL_S, Asker::NODE));
        let led: Vec<Arc<Group>> = self.groups().into_iter().filter(|group| seconds > 0 && group.can_compare()).collect();
        walks.retain(|group_id, _| led.iter().any(|group| group.group_id() == *group_id));
        let (now, now_ms) = (Instant::now(), seam::unix_ms());
        let mut due: Option<(Instant, Arc<Group>, Place)> = None;
        for group in led {
            let walk = walks.entry(group.group_id()).or_insert_with(|| match group.begin_comparing() {
                Some(at) => Walk::resume(at.began_ms, (at.family, at.from), now),
                None => Walk::never(now),
            });
            if let Some(at) = walk.due(now, now_ms, Duration::from_secs(seconds))
                && due.as_ref().is_none_or(|(since, _, _)| walk.not_before < *since)
            {
                due = Some((walk.not_before, group, at));
            }
        }
        let Some((_, group, at)) = due else { return LOOK };
        let Some(walk) = walks.get_mut(&group.group_id()) else { return LOOK };
        let max_bytes = (rate / SLICES_PER_S).clamp(*SLICE_BYTES.start(), *SLICE_BYTES.end());
        match group.compare(walk.began_ms, at, max_bytes).await {
            Ok(compared) => {
                if walk.went(&compared.verdict, compared.told, compared.next, Instant::now()) {
                    group.note_whole_comparison(walk.began_ms);
                }
                Duration::from_secs_f64(compared.bytes as f64 / rate.max(1) as f64).saturating_sub(now.elapsed()).max(REST)
            }
            Err(error) => {
                tracing::debug!(group_id = group.group_id(), %error, "a slice was not compared; it is tried again");
                walk.not_before = Instant::now() + RETRY;
                REST
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const HOUR_MS: u64 = 3_600_000;

    fn second() -> Option<Place> {
        Some((0, Bytes::from_static(b"k")))
    }

    #[test]
    fn a_comparison_goes_through_and_rests_until_its_time() {
        let now = Instant::now();
        let mut walk = Walk::never(now);
        assert_eq!(walk.due(now, 50 * HOUR_MS, HOUR), Some((0, Bytes::new())));
        let equal = Verdict::Equal { whole: true };
        assert!(!walk.went(&equal, true, second(), now));
        assert_eq!(walk.due(now, 99 * HOUR_MS, HOUR), second(), "one that takes longer than its time is ended first");
        assert!(walk.went(&equal, true, None, now), "that was all");
        assert_eq!(walk.due(now, 51 * HOUR_MS - 1, HOUR), None);
        assert_eq!(walk.due(now, 51 * HOUR_MS, HOUR), Some((0, Bytes::new())));
        walk.at = None;
        assert_eq!(walk.due(now, 3, HOUR), Some((0, Bytes::new())), "it began in the future");
    }

    #[test]
    fn who_is_away_is_waited_for_a_while_and_then_left_out() {
        let now = Instant::now();
        let mut walk = Walk::never(now);
        let first = walk.due(now, HOUR_MS, HOUR);
        for _ in 1..TRIES {
            assert!(!walk.went(&Verdict::Equal { whole: false }, true, second(), now));
            assert_eq!(walk.due(now, HOUR_MS, HOUR), None, "a little later");
            assert_eq!(walk.due(now + RETRY, HOUR_MS, HOUR), first);
        }
        assert!(!walk.went(&Verdict::Alone, true, second(), now));
        assert_eq!(walk.due(now, HOUR_MS, HOUR), second());
        assert!(!walk.went(&Verdict::Equal { whole: true }, true, None, now), "not every voter took part");
    }

    #[test]
    fn what_is_not_settled_is_compared_again() {
        let now = Instant::now();
        let mut walk = Walk::never(now);
        let first = walk.due(now, HOUR_MS, HOUR);
        assert!(!walk.went(&Verdict::Undecided(String::new()), true, None, now));
        assert_eq!(walk.due(now + UNDECIDED_RETRY, HOUR_MS, HOUR), first);
        let differ = Verdict::Differ { right: [1; 32], wrong: vec![3] };
        assert!(!walk.went(&differ, false, None, now), "node 3 does not know it");
        assert_eq!(walk.due(now + RETRY, HOUR_MS, HOUR), first);
        assert!(walk.went(&differ, true, None, now));
    }

    #[test]
    fn a_later_leader_goes_on_where_the_log_says() {
        let now = Instant::now();
        let mut walk = Walk::resume(HOUR_MS, (2, Bytes::from_static(b"x")), now);
        assert_eq!(walk.due(now, HOUR_MS + 1, HOUR), Some((2, Bytes::from_static(b"x"))));
        assert!(!walk.went(&Verdict::Equal { whole: true }, true, None, now), "it does not know who took part before");
        assert_eq!(walk.due(now, 2 * HOUR_MS - 1, HOUR), None);
    }
}
