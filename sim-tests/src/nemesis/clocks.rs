//! Faults of clocks: rates and jumps, within what the server allows for and beyond it.
//!
//! **Rates.** A leader reads under its lease for 3/4 of the time that its followers keep from voting, each by its own monotonic clock. So
//! no two clocks may run at rates that differ by more than a third: rates of 1000 ± 130 thousandths keep that. In *wild* seeds rates lie
//! far beyond, and what is promised then is less: writes, and whatever is judged in the log, stay linearizable, but a read under a lease
//! may be old. There plain reads are excused (`checkers::register::excuse_reads`) and nothing else is.
//!
//! **Jumps.** A leader whose wall clock is far from those of the others proposes nothing and hands over: versions stay near true time
//! ([`DRIFT_MAX`]). In wild seeds a node believes its clock whatever it shows: versions must still rise.

use super::{Felt, busiest};
use crate::cluster::Cluster;
use crate::workload::{Shared, below};
use metadb_proto::seam::simulated::TRUE_RATE;
use std::time::Duration;

/// How far a monotonic clock may be off, in thousandths: two such differ by less than a third.
pub(crate) const TAME_RATE: u32 = 130;
const _: () = assert!((TRUE_RATE + TAME_RATE) * 3 < (TRUE_RATE - TAME_RATE) * 4, "two nodes at the bounds keep each other's leases");
/// Rates in wild seeds: what no machine has.
const WILD_RATES: std::ops::Range<u32> = 250..4000;
/// Shortest and longest jump.
const JUMP_MS: (u64, u64) = (3_000, 3_600_000);
/// How far ahead of true time a version may be: the offset that a node allows itself, and what a slow network hides.
pub const DRIFT_MAX: Duration = Duration::from_millis(2_500);

/// It bit if the node leads something, and so reads under its lease, or others do while it counts their lease.
pub(super) fn rate(cluster: &Cluster, shared: &Shared, node: usize) -> Felt {
    let node = if below(2) == 0 { busiest(cluster, node) } else { node };
    let rate = if cluster.is_wild() {
        WILD_RATES.start + u32::try_from(below(u64::from(WILD_RATES.end - WILD_RATES.start))).unwrap_or(0)
    } else {
        TRUE_RATE - TAME_RATE + u32::try_from(below(u64::from(TAME_RATE) * 2 + 1)).unwrap_or(0)
    };
    shared.trace.event(format_args!("the clock of {node} runs at {rate}"));
    cluster.set_clock(node, rate, 0);
    Felt::Known(rate != TRUE_RATE && (0..=crate::cluster::GROUPS).any(|group| cluster.leader(group).is_some()))
}

/// It bit if the node led something and says that its clock is wrong; in wild seeds, if it led something.
pub(super) async fn jump(cluster: &Cluster, shared: &Shared, node: usize) -> Felt {
    let node = if below(6) > 0 { busiest(cluster, node) } else { node };
    let distance = i64::try_from(JUMP_MS.0 + below(JUMP_MS.1 - JUMP_MS.0)).unwrap_or(i64::MAX);
    let jump = if below(3) == 0 { -distance } else { distance };
    let led = cluster.leads(node);
    cluster.set_clock(node, TRUE_RATE, jump);
    let noticed = cluster.clock_problem(node).await;
    shared.trace.event(format_args!("the wall clock of {node} jumps by {jump} ms while it leads {led}: {noticed:?}"));
    Felt::Known(led > 0 && (cluster.is_wild() || noticed.is_some()))
}
