//! The clocks of a node: its monotonic one, by which leases are measured, and whether its wall clock may be believed.
//!
//! A version begins with the wall clock of the leader that proposed it, and versions never fall again. A clock that ran ahead would drag
//! the versions of its groups with it for good: they would count on from the future, and every bound on staleness would be a lie. So each
//! node watches the wall clocks of its peers, as CockroachDB's nodes do with `--max-offset`, and takes the word of most of them: while
//! its own clock is farther off than [`NodeConfig::max_clock_offset`](crate::node::NodeConfig), it proposes nothing, hands leadership
//! over, answers no read whose age it would have to judge, and says so in its status. It stays a voter and a follower: for these no wall
//! clock is needed.
//!
//! What is remembered of a peer is its wall clock against this node's *monotonic* one. So a jump of the own wall clock is noticed at the
//! next proposal, not at the next message.

use metadb_proto::planted::{self, Bug};
use metadb_proto::{Error, seam};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How far a node's wall clock may be from those of its peers. NTP holds milliseconds; CockroachDB's default is the same.
pub const MAX_CLOCK_OFFSET: Duration = Duration::from_millis(500);
/// A reading is replaced by a less exact one only when it is this old: quartz drifts by 0.2 ms in that time.
const READING_FRESH: Duration = Duration::from_secs(2);
/// A peer that was not heard for so long has no word any more.
const READING_COUNTS: Duration = Duration::from_secs(300);
/// No bound from above: later than any clock shows.
const UNBOUNDED_MS: i64 = i64::MAX / 4;
/// When a caller may try again that met a node with a wrong clock: another one leads by then.
const CLOCK_RETRY: Duration = Duration::from_millis(200);

/// The monotonic clock of this node.
pub(crate) fn now() -> Instant {
    #[cfg(madsim)]
    {
        seam::simulated::shown(Instant::now())
    }
    #[cfg(not(madsim))]
    {
        Instant::now()
    }
}

/// Sleeps while the monotonic clock of this node shows this much.
pub(crate) fn sleep(duration: Duration) -> tokio::time::Sleep {
    tokio::time::sleep(true_time(duration))
}

fn true_time(duration: Duration) -> Duration {
    #[cfg(madsim)]
    {
        seam::simulated::true_time(duration)
    }
    #[cfg(not(madsim))]
    {
        duration
    }
}

/// What a node knows of its peers' wall clocks.
pub(crate) struct Clocks {
    max_offset_ms: i64,
    begin: Instant,
    peers: Mutex<BTreeMap<u64, Reading>>,
    /// What peers said of themselves last, without being asked: it bounds their clocks from below only.
    said: Mutex<BTreeMap<u64, Reading>>,
}

/// Between which bounds a peer's wall clock is ahead of this node's monotonic one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    least_ms: i64,
    most_ms: i64,
    at_ms: i64,
}

impl Reading {
    /// Its middle, or the bound that it has.
    fn likely_ms(&self) -> i64 {
        if self.most_ms == UNBOUNDED_MS { self.least_ms } else { i64::midpoint(self.least_ms, self.most_ms) }
    }

    fn width(&self) -> i64 {
        self.most_ms - self.least_ms
    }

    fn age_ms(&self, now_ms: i64) -> i64 {
        now_ms - self.at_ms
    }
}

impl Clocks {
    /// Of a node that has heard nobody yet.
    pub(crate) fn new(max_offset: Duration) -> Self {
        Clocks { max_offset_ms: millis(max_offset), begin: now(), peers: Mutex::default(), said: Mutex::default() }
    }

    fn monotonic_ms(&self, moment: Instant) -> i64 {
        millis(moment.saturating_duration_since(self.begin))
    }

    /// Notes what a peer's wall clock showed between two moments of this node.
    pub(crate) fn heard(&self, peer: u64, asked: Instant, answered: Instant, peer_unix_ms: u64) {
        let shown = i64::try_from(peer_unix_ms).unwrap_or(i64::MAX);
        let (asked, answered) = (self.monotonic_ms(asked), self.monotonic_ms(answered));
        // Each stamp is cut to whole milliseconds.
        let reading = Reading { least_ms: shown - answered - 1, most_ms: shown - asked + 1, at_ms: answered };
        let mut peers = self.peers.lock();
        let known = peers.entry(peer).or_insert(reading);
        if reading.width() <= known.width() || known.age_ms(answered) > millis(READING_FRESH) {
            *known = reading;
        }
    }

    /// Notes what a peer's wall clock showed at some moment before this one: what a node that asks nobody hears all the same.
    pub(crate) fn heard_of(&self, peer: u64, peer_unix_ms: u64) {
        let at_ms = self.monotonic_ms(now());
        let least_ms = i64::try_from(peer_unix_ms).unwrap_or(i64::MAX) - at_ms - 1;
        self.said.lock().insert(peer, Reading { least_ms, most_ms: UNBOUNDED_MS, at_ms });
    }

    /// The wall clock, for a proposal.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it is not to be believed.
    pub(crate) fn proposable(&self) -> Result<u64, Error> {
        let unix_ms = seam::unix_ms();
        match self.problem_at(unix_ms) {
            Some(_) if planted::is(Bug::ClockIsBelieved) => Ok(unix_ms),
            Some(problem) => Err(Error::unavailable(problem, CLOCK_RETRY)),
            None => Ok(unix_ms),
        }
    }

    /// Why the wall clock is not to be believed, if so.
    pub(crate) fn problem(&self) -> Option<String> {
        self.problem_at(seam::unix_ms())
    }

    fn problem_at(&self, unix_ms: u64) -> Option<String> {
        let (readings, ahead) = self.compare(unix_ms);
        let max = self.max_offset_ms;
        disagrees(&readings, ahead, max).then(|| {
            let peers = readings.len();
            format!("the clock of this node is {} ms from those of most of its {peers} peers, more than {max} ms", offset(&readings, ahead))
        })
    }

    /// How far the wall clock is ahead of the peers': of the middle one of them.
    pub(crate) fn ahead_ms(&self) -> i64 {
        let (readings, ahead) = self.compare(seam::unix_ms());
        offset(&readings, ahead)
    }

    /// The readings that count, and how far the own wall clock is ahead of the own monotonic one.
    fn compare(&self, unix_ms: u64) -> (Vec<Reading>, i64) {
        let now_ms = self.monotonic_ms(now());
        let counts = |reading: &&Reading| reading.age_ms(now_ms) <= millis(READING_COUNTS);
        let mut readings = self.said.lock().clone();
        for (peer, exact) in self.peers.lock().iter() {
            let known = readings.entry(*peer).or_insert(*exact);
            // What was said since narrows it, or moves it by as much as clocks drift apart; if it contradicts, the peer's clock was set.
            if known.at_ms <= exact.at_ms || known.least_ms <= exact.most_ms + self.max_offset_ms {
                let (least_ms, most_ms) = (known.least_ms.max(exact.least_ms), known.least_ms.max(exact.most_ms));
                *known = Reading { least_ms, most_ms, ..*exact };
            }
        }
        let readings = readings.values().filter(counts).copied().collect();
        (readings, i64::try_from(unix_ms).unwrap_or(i64::MAX) - now_ms)
    }
}

/// Whether a clock is for certain farther than `max` from more than half of the peers.
fn disagrees(readings: &[Reading], ahead_ms: i64, max_ms: i64) -> bool {
    let most = |far: usize, of: usize| far * 2 > of;
    let behind = readings.iter().filter(|reading| reading.least_ms - ahead_ms > max_ms).count();
    // A peer that only said what it shows can't tell that this node is ahead: it has no voice in that.
    let bounded = || readings.iter().filter(|reading| reading.most_ms != UNBOUNDED_MS);
    let far = bounded().filter(|reading| ahead_ms - reading.most_ms > max_ms || reading.least_ms - ahead_ms > max_ms).count();
    most(behind, readings.len()) || most(far, bounded().count())
}

fn offset(readings: &[Reading], ahead_ms: i64) -> i64 {
    let mut offsets: Vec<i64> = readings.iter().map(|reading| ahead_ms - reading.likely_ms()).collect();
    offsets.sort_unstable();
    offsets.get(offsets.len() / 2).copied().unwrap_or(0)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exactly(ahead_ms: i64) -> Reading {
        Reading { least_ms: ahead_ms, most_ms: ahead_ms, at_ms: 0 }
    }

    #[test]
    fn the_word_of_most_peers_counts() {
        let (right, wrong) = (exactly(0), exactly(9_000));
        assert!(!disagrees(&[], 9_000, 500), "who is alone is right");
        assert!(!disagrees(&[right, right], 500, 500) && disagrees(&[right, right], 501, 500) && disagrees(&[right, right], -501, 500));
        assert!(!disagrees(&[right, wrong], 0, 500), "one of two peers is wrong, not this node");
        assert!(disagrees(&[right, right, wrong, wrong], -5_000, 500));
        assert!(disagrees(&[wrong], 0, 500), "of two nodes nobody knows who is right: neither proposes");
    }

    #[test]
    fn a_peer_that_was_not_asked_excuses_nobody() {
        let said = Reading { most_ms: UNBOUNDED_MS, ..exactly(0) };
        assert!(disagrees(&[exactly(0), said], 9_000, 500) && !disagrees(&[said, said], 9_000, 500));
        assert!(disagrees(&[said, said], -9_000, 500) && !disagrees(&[exactly(0), said], 0, 500));
    }

    #[test]
    fn a_slow_network_accuses_nobody() {
        let vague = Reading { least_ms: -2_000, most_ms: 10, at_ms: 0 };
        assert!(!disagrees(&[vague, vague], -1_500, 500), "it may be right");
        assert!(disagrees(&[vague, vague], 511, 500));
    }

    #[test]
    fn the_offset_is_that_of_the_middle_peer() {
        assert_eq!(offset(&[exactly(0), exactly(-9_000), exactly(10)], 100), 100);
        assert_eq!(offset(&[], 100), 0);
    }

    #[tokio::test]
    async fn a_jump_of_the_own_clock_is_seen_without_a_message() {
        let clocks = Clocks::new(MAX_CLOCK_OFFSET);
        let (moment, true_ms) = (now(), seam::unix_ms());
        for peer in [2, 3] {
            clocks.heard(peer, moment, moment, true_ms);
        }
        assert_eq!(clocks.problem(), None);
        assert!(clocks.problem_at(true_ms + 60_000).is_some_and(|problem| problem.contains("2 peers, more than 500 ms")));
        assert!(clocks.problem_at(true_ms - 60_000).is_some());
    }

    #[tokio::test]
    async fn who_asks_nobody_still_notices_that_it_is_late() {
        let clocks = Clocks::new(MAX_CLOCK_OFFSET);
        let true_ms = seam::unix_ms();
        clocks.heard_of(2, true_ms);
        assert!(clocks.problem_at(true_ms - 5_000).is_some() && clocks.problem_at(true_ms).is_none());
        assert_eq!(clocks.problem_at(true_ms + 5_000), None, "the message may have taken long");
        let moment = now();
        clocks.heard(2, moment, moment, true_ms);
        assert!(clocks.problem_at(true_ms + 5_000).is_some());
    }

    #[tokio::test]
    async fn a_peer_that_drifted_since_it_was_asked_keeps_its_voice_and_one_that_was_set_has_none() {
        let clocks = Clocks::new(MAX_CLOCK_OFFSET);
        let (moment, true_ms) = (now(), seam::unix_ms());
        for peer in [2, 3] {
            clocks.heard(peer, moment, moment, true_ms);
            clocks.heard_of(peer, true_ms + 100);
        }
        assert!(clocks.problem_at(true_ms + 60_000).is_some(), "a tenth of a second excuses nobody");
        assert_eq!(clocks.problem_at(true_ms + 300), None);
        // Said in a later millisecond than asked.
        while clocks.monotonic_ms(now()) == clocks.monotonic_ms(moment) {
            tokio::task::yield_now().await;
        }
        for peer in [2, 3] {
            clocks.heard_of(peer, true_ms + 50_000);
        }
        assert_eq!(clocks.problem_at(true_ms + 60_000), None, "their clocks were set since: nobody knows how far");
    }

    #[tokio::test]
    async fn an_exact_reading_gives_way_to_a_vague_one_only_when_it_is_old() {
        let clocks = Clocks::new(MAX_CLOCK_OFFSET);
        let begin = clocks.begin;
        clocks.heard(2, begin, begin, 1_000);
        clocks.heard(2, begin, begin + Duration::from_secs(1), 1_500);
        assert_eq!(clocks.peers.lock()[&2].width(), 2);
        clocks.heard(2, begin + Duration::from_secs(3), begin + Duration::from_secs(4), 4_500);
        assert_eq!(clocks.peers.lock()[&2].width(), 1_002);
    }
}
