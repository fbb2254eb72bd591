//! Ceilings of tenants: requests and bytes per second on this node. Only tenants that have one are known here.

use super::bucket::Bucket;
use super::load::Load;
use metadb_proto::Error;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How long a request waits for its turn below the ceiling; who would have to wait longer is refused and told when to come again.
const PATIENCE: Duration = Duration::from_millis(100);
/// Most requests that wait for their turn on a node, of all tenants.
const WAITING: usize = 4096;
/// Most tenants whose rates are remembered; those that asked nothing for a while are forgotten first.
const TENANTS: usize = 16_384;

/// What a tenant may do per second; 0: anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ceiling {
    pub(super) requests_per_s: u64,
    pub(super) bytes_per_s: u64,
}

impl Ceiling {
    pub(super) fn is_none(self) -> bool {
        self.requests_per_s == 0 && self.bytes_per_s == 0
    }
}

#[derive(Default)]
struct Rates {
    requests: Bucket,
    bytes: Bucket,
}

struct State {
    tenants: BTreeMap<u64, Rates>,
    waiting: usize,
}

/// The rates of all tenants that have a ceiling.
pub(super) struct Ceilings {
    since: Instant,
    state: Mutex<State>,
}

/// Its place among those that wait; given back when it ends, however it ends.
struct Place<'a>(&'a Ceilings);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.state.lock().waiting -= 1;
    }
}

impl Ceilings {
    pub(super) fn new() -> Self {
        Ceilings { since: Instant::now(), state: Mutex::new(State { tenants: BTreeMap::new(), waiting: 0 }) }
    }

    /// Waits for a tenant's turn.
    pub(super) async fn pass(&self, tenant_id: u64, ceiling: Ceiling, load: Load, deadline: Instant) -> Result<(), Error> {
        let patience = PATIENCE.min(deadline.saturating_duration_since(Instant::now()));
        let now = self.since.elapsed();
        let (wait, _place) = {
            let mut state = self.state.lock();
            let wait =
                take(&mut state.tenants, now, tenant_id, ceiling, load, patience).map_err(|more| refused(tenant_id, ceiling, more))?;
            if wait.is_zero() {
                return Ok(());
            }
            if state.waiting >= WAITING {
                return Err(refused(tenant_id, ceiling, wait));
            }
            state.waiting += 1;
            (wait, Place(self))
        };
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

fn take(
    tenants: &mut BTreeMap<u64, Rates>,
    now: Duration,
    tenant_id: u64,
    ceiling: Ceiling,
    load: Load,
    patience: Duration,
) -> Result<Duration, Duration> {
    if tenants.len() >= TENANTS && !tenants.contains_key(&tenant_id) {
        tenants.retain(|_, rates| !rates.requests.is_full(now) || !rates.bytes.is_full(now));
        if tenants.len() >= TENANTS {
            tenants.pop_first();
        }
    }
    let rates = tenants.entry(tenant_id).or_default();
    let mut wait = Duration::ZERO;
    if ceiling.requests_per_s > 0 {
        wait = rates.requests.take(now, 1, ceiling.requests_per_s, patience)?;
    }
    if ceiling.bytes_per_s > 0 {
        match rates.bytes.take(now, load.bytes as u64, ceiling.bytes_per_s, patience) {
            Ok(of_bytes) => wait = wait.max(of_bytes),
            Err(more) => {
                if ceiling.requests_per_s > 0 {
                    rates.requests.give_back(1, ceiling.requests_per_s);
                }
                return Err(more);
            }
        }
    }
    Ok(wait)
}

fn refused(tenant_id: u64, ceiling: Ceiling, retry_after: Duration) -> Error {
    let Ceiling { requests_per_s, bytes_per_s } = ceiling;
    let of = |limit: u64, unit: &str| (limit > 0).then(|| format!("{limit} {unit}/s"));
    let limits = [of(requests_per_s, "requests"), of(bytes_per_s, "bytes")].into_iter().flatten().collect::<Vec<_>>().join(", ");
    Error::Exhausted { message: format!("tenant {tenant_id} is over its ceiling on this node of {limits}"), retry_after }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Load = Load { writes: true, cost: 1, bytes: 1000 };

    const LONG: Duration = Duration::from_millis(100);

    #[test]
    fn a_ceiling_slows_then_refuses_and_never_another_tenant() {
        let mut tenants = BTreeMap::new();
        let ceiling = Ceiling { requests_per_s: 100, bytes_per_s: 0 };
        let now = Duration::from_secs(9);
        let told: Vec<_> = (0..50).map(|_| take(&mut tenants, now, 7, ceiling, LOAD, LONG)).collect();
        let at_once = told.iter().filter(|told| **told == Ok(Duration::ZERO)).count();
        let later = told.iter().filter(|told| told.is_ok_and(|wait| !wait.is_zero() && wait <= LONG)).count();
        assert_eq!((at_once, later), (26, 10), "a burst of 25 and the one whose turn is now; then a turn each 10 ms: {told:?}");
        assert_eq!(told[49], Err(Duration::from_millis(10)), "after which there is room for a turn within the patience");
        assert_eq!(take(&mut tenants, now, 8, ceiling, LOAD, LONG), Ok(Duration::ZERO), "nobody else is touched");
        assert!(
            matches!(refused(7, ceiling, LONG), Error::Exhausted { message, .. } if message.contains("tenant 7") && message.contains("100 requests/s"))
        );
    }

    #[test]
    fn bytes_count_too_and_what_is_refused_is_not_paid() {
        let mut tenants = BTreeMap::new();
        let ceiling = Ceiling { requests_per_s: 10, bytes_per_s: 1000 };
        let now = Duration::from_secs(9);
        assert_eq!(take(&mut tenants, now, 7, ceiling, LOAD, LONG), Ok(Duration::ZERO));
        for _ in 0..100 {
            take(&mut tenants, now, 7, ceiling, LOAD, LONG).expect_err("750 ms too early, less the patience");
        }
        let later = now + Duration::from_millis(800);
        assert_eq!(take(&mut tenants, later, 7, ceiling, LOAD, LONG), Ok(Duration::ZERO), "refusals cost no turn");
    }

    #[test]
    fn memory_of_tenants_is_bounded() {
        let mut tenants = BTreeMap::new();
        let ceiling = Ceiling { requests_per_s: 1, bytes_per_s: 0 };
        for tenant_id in 0..2 * TENANTS as u64 {
            take(&mut tenants, Duration::from_secs(9), tenant_id, ceiling, LOAD, LONG).expect("its first");
        }
        assert!(tenants.len() <= TENANTS);
    }
}
