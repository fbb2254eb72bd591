//! The runtime that openraft runs on: `tokio`, which is the simulator's under `--cfg madsim`. One type for both.
//!
//! All that could differ between two runs of a seed is chosen here: watches wake in order ([`super::watch`]), random numbers come from
//! the seam, and there is no blocking pool.

use super::watch::OrderedWatch;
use crate::clock;
use metadb_proto::seam;
use openraft_rt::{AsyncRuntime, OptionalSend};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;

/// Sleeps shorter than this yield once instead: the timer wheel has slots of 1 ms, and openraft naps 1 µs to batch I/O callbacks.
const SHORTEST_TIMER: Duration = Duration::from_micros(100);

/// The runtime.
#[derive(Debug)]
pub(crate) struct Runtime;

/// A moment on the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(tokio::time::Instant);

impl Add<Duration> for Moment {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Moment(self.0 + duration)
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, duration: Duration) {
        self.0 += duration;
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        Moment(self.0.checked_sub(duration).unwrap_or(self.0))
    }
}

impl SubAssign<Duration> for Moment {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl Sub<Moment> for Moment {
    type Output = Duration;
    fn sub(self, earlier: Moment) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }
}

impl openraft_rt::Instant for Moment {
    fn now() -> Self {
        Moment(clock::now())
    }
}

/// A sleep; a very short one is a yield.
pub(crate) enum Nap {
    /// Whether it has yielded.
    Yield(bool),
    /// A timer.
    Timer(Pin<Box<Sleep>>),
}

impl Nap {
    fn of(duration: Duration) -> Self {
        if duration < SHORTEST_TIMER { Nap::Yield(false) } else { Nap::Timer(Box::pin(clock::sleep(duration))) }
    }
}

impl Future for Nap {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self {
            Nap::Yield(true) => Poll::Ready(()),
            Nap::Yield(yielded) => {
                *yielded = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Nap::Timer(sleep) => sleep.as_mut().poll(cx),
        }
    }
}

/// A future with a time limit. The simulator's own has no name that an associated type could use.
pub(crate) struct Limited<F> {
    future: Pin<Box<F>>,
    limit: Pin<Box<Sleep>>,
}

/// The time limit passed.
#[derive(Debug, thiserror::Error)]
#[error("the time limit passed")]
pub(crate) struct Elapsed;

impl<F: Future> Future for Limited<F> {
    type Output = Result<F::Output, Elapsed>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        self.limit.as_mut().poll(cx).map(|()| Err(Elapsed))
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = tokio::task::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = tokio::task::JoinHandle<T>;
    type Sleep = Nap;
    type Instant = Moment;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Limited<T>;
    type ThreadLocalRng = SmallRng;
    type Mpsc = openraft_rt_tokio::TokioMpsc;
    type Watch = OrderedWatch;
    type Oneshot = openraft_rt_tokio::TokioOneshot;
    type Mutex<T: OptionalSend + 'static> = openraft_rt_tokio::TokioMutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        tokio::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Nap::of(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Nap::of(deadline - <Moment as openraft_rt::Instant>::now())
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        Limited { future: Box::pin(future), limit: Box::pin(clock::sleep(duration)) }
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        Self::timeout(deadline - <Moment as openraft_rt::Instant>::now(), future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        error.is_panic()
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        SmallRng::seed_from_u64(seam::random_u64())
    }

    fn new(_threads: usize) -> Self {
        Runtime
    }

    // Only openraft's own test suites block; nothing of ours does. Outside the simulator it is a current-thread runtime.
    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        #[cfg(not(madsim))]
        {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime for a test can be made").block_on(future)
        }
        #[cfg(madsim)]
        {
            drop(future);
            unreachable!("openraft blocks only in its own test suites, which do not run in the simulator")
        }
    }

    async fn spawn_blocking<F, T>(function: F) -> Result<T, std::io::Error>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        Ok(function())
    }
}
