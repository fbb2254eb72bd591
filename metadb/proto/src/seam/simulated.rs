//! What a simulation changes in the world of its nodes: their clocks, how fast they apply, whether messages between them come twice, and
//! which bug is planted.
//!
//! madsim has one clock for all nodes. Here each node has an offset of its wall clock, and a rate of its monotonic clock, over that one.
//! A wall clock may be set back at any time, as an administrator would; a monotonic clock only changes its rate and never goes back.
//! A sleep that was begun before its node's rate changed ends as if it had not.
//!
//! A simulation lives in one thread, and so does this. It is compiled with `--cfg madsim` only.

use crate::planted::Bug;
use madsim::task::NodeId;
use madsim::time::TimeHandle;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A simulated machine.
pub type Machine = NodeId;

/// The machine whose task this is.
#[must_use]
pub fn machine() -> Machine {
    madsim::plugin::node()
}

/// The rate of a clock that is right.
pub const TRUE_RATE: u32 = 1000;

/// A node's clocks.
#[derive(Debug, Clone, Copy)]
struct Clock {
    /// True time when the rate was last set, and what the monotonic clock showed then.
    set_at: Duration,
    shown: Duration,
    /// Thousandths of true time.
    rate: u32,
    wall_offset_ms: i64,
}

impl Clock {
    fn at(&self, now: Duration) -> Duration {
        self.shown + now.saturating_sub(self.set_at) * self.rate / TRUE_RATE
    }
}

#[derive(Debug, Default)]
struct World {
    clocks: BTreeMap<NodeId, Clock>,
    /// One of so many messages between nodes comes a second time, and how much later at most.
    duplicates: Option<(u64, Duration)>,
    duplicated: u64,
    /// How long a node rests before it applies what is committed.
    apply_pauses: BTreeMap<NodeId, Duration>,
    bug: Option<Bug>,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
}

fn clock() -> Option<Clock> {
    WORLD.with_borrow(|world| if world.clocks.is_empty() { None } else { world.clocks.get(&madsim::plugin::node()).copied() })
}

/// Sets a node's clocks: the rate of the monotonic one in thousandths, and how far the wall clock is ahead of true time.
pub fn set_clock(node: NodeId, rate: u32, wall_offset_ms: i64) {
    let now = TimeHandle::current().elapsed();
    WORLD.with_borrow_mut(|world| {
        let shown = world.clocks.get(&node).map_or(now, |clock| clock.at(now));
        world.clocks.insert(node, Clock { set_at: now, shown, rate, wall_offset_ms });
    });
}

/// How far the wall clock of the node that asks is ahead of true time.
pub(super) fn wall_offset_ms() -> i64 {
    clock().map_or(0, |clock| clock.wall_offset_ms)
}

/// What the monotonic clock of the node that asks shows at a true moment.
#[must_use]
pub fn shown(moment: Instant) -> Instant {
    let Some(clock) = clock() else { return moment };
    let time = TimeHandle::current();
    let (now, shown) = (time.elapsed(), clock.at(time.elapsed()));
    if shown >= now { moment + (shown - now) } else { moment - (now - shown) }
}

/// How much true time passes while the monotonic clock of the node that asks shows this much.
#[must_use]
pub fn true_time(duration: Duration) -> Duration {
    clock().map_or(duration, |clock| duration.saturating_mul(TRUE_RATE) / clock.rate)
}

/// From now on one of `every` messages between nodes comes a second time, up to `later`; none: no more.
pub fn set_duplicates(every: Option<(u64, Duration)>) {
    WORLD.with_borrow_mut(|world| world.duplicates = every);
}

/// Whether a message that came now comes again, and when.
#[must_use]
pub fn duplicate() -> Option<Duration> {
    let (every, later) = WORLD.with_borrow(|world| world.duplicates)?;
    if super::random_u64() % every.max(1) != 0 {
        return None;
    }
    WORLD.with_borrow_mut(|world| world.duplicated += 1);
    let micros = u64::try_from(later.as_micros()).unwrap_or(u64::MAX);
    Some(Duration::from_micros(super::random_u64() % micros.max(1)))
}

/// How many messages came twice so far.
#[must_use]
pub fn duplicated() -> u64 {
    WORLD.with_borrow(|world| world.duplicated)
}

/// From now on a node rests so long before each batch that it applies: what a store does that can't keep up.
pub fn set_apply_pause(node: NodeId, pause: Duration) {
    WORLD.with_borrow_mut(|world| world.apply_pauses.insert(node, pause));
}

/// How long the node that asks rests before it applies a batch, if it does.
#[must_use]
pub fn apply_pause() -> Option<Duration> {
    let pause = WORLD.with_borrow(|world| world.apply_pauses.get(&madsim::plugin::node()).copied());
    pause.filter(|pause| !pause.is_zero())
}

/// Plants a bug for the rest of this simulation.
pub fn plant(bug: Option<Bug>) {
    WORLD.with_borrow_mut(|world| world.bug = bug);
}

/// Whether a bug is planted.
#[must_use]
pub(crate) fn is_planted(bug: Bug) -> bool {
    WORLD.with_borrow(|world| world.bug == Some(bug))
}
