//! How many fetches this replica has at once. Answers from memory are never limited.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

use super::{pace::Pace, shares::Share};
use crate::metrics::{DescribeMetrics, Present};

/// Limits on fetches.
#[derive(Debug, Clone)]
pub struct FetchLimits {
    /// Fetches talking to Glacier at once.
    pub in_flight: usize,
    /// Fetches waiting for one of those places.
    pub waiting: usize,
    /// How long a fetch waits for its place.
    pub max_wait: Duration,
    /// Fetches under way and waiting because one identity asked, at least 1; half of the places in flight at most are its.
    pub per_caller: usize,
    /// Fetches in a second that one identity may start in the long run, at least 1. What it has not used in quiet times it may
    /// start at once, up to `per_caller` or a second's worth, whichever is more.
    pub starts_per_caller: u32,
}

/// Enough to watch 1500 jobs at the 30 s for which an answer is fresh, or 500 Expedited ones at 10 s; more of one caller
/// brings the account's own throttling near, which falls on everybody.
const STARTS_PER_CALLER: u32 = 50;

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            in_flight: 64,
            waiting: 1024,
            max_wait: Duration::from_secs(1),
            per_caller: 256,
            starts_per_caller: STARTS_PER_CALLER,
        }
    }
}

/// Why a fetch did not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    #[error("too many fetches are waiting")]
    Queue,
    #[error("no fetch ended in time to make place")]
    Wait,
    #[error("no fetch of the caller that started this one ended in time to make place")]
    OwnTurn,
}

/// A place in flight, held until it is dropped.
pub(super) struct Place<'a> {
    _permits: Permits<'a>,
    _counted: Present,
}

/// What such a place consists of.
struct Permits<'a> {
    _in_flight: SemaphorePermit<'a>,
    /// The starter's own turn, given back with the place.
    _turn: Option<SemaphorePermit<'a>>,
}

pub(super) struct Limiter {
    in_flight: Semaphore,
    /// Most that may wait.
    waiting: usize,
    pace: Mutex<Pace>,
    max_wait: Duration,
    metrics: DescribeMetrics,
}

/// One that waits, until it is dropped.
struct InQueue<'a> {
    limiter: &'a Limiter,
    has_place: bool,
    _counted: Present,
}

impl Drop for InQueue<'_> {
    fn drop(&mut self) {
        self.limiter.pace().leaves(self.has_place);
    }
}

impl Limiter {
    pub(super) fn new(limits: &FetchLimits, metrics: DescribeMetrics) -> Self {
        Self {
            in_flight: Semaphore::new(limits.in_flight),
            waiting: limits.waiting,
            pace: Mutex::new(Pace::new(limits.max_wait)),
            max_wait: limits.max_wait,
            metrics,
        }
    }

    /// A place among the fetches in flight, for a fetch that counts against this share. Until it is its starter's own turn,
    /// it waits where it is in nobody's way.
    pub(super) async fn enter<'a>(&'a self, share: Option<&'a Share>) -> Result<Place<'a>, Full> {
        let entered = self.permits(share).await.inspect_err(|full| match full {
            Full::Queue | Full::Wait => self.metrics.shed(),
            Full::OwnTurn => self.metrics.over_share(),
        });
        entered.map(|permits| Place { _permits: permits, _counted: self.metrics.in_flight() })
    }

    async fn permits<'a>(&'a self, share: Option<&'a Share>) -> Result<Permits<'a>, Full> {
        let until = Instant::now() + self.max_wait;
        let turn = match share {
            Some(share) => Some(timeout_at(until, share.turn()).await.ok().flatten().ok_or(Full::OwnTurn)?),
            None => None,
        };
        if let Ok(place) = self.in_flight.try_acquire() {
            return Ok(Permits { _in_flight: place, _turn: turn });
        }
        let mut in_queue = self.join_queue().ok_or(Full::Queue)?;
        // The outer error is the time running out; the inner one a closed semaphore, and ours never closes.
        let place = timeout_at(until, self.in_flight.acquire()).await.ok().and_then(Result::ok).ok_or(Full::Wait)?;
        in_queue.has_place = true;
        Ok(Permits { _in_flight: place, _turn: turn })
    }

    fn join_queue(&self) -> Option<InQueue<'_>> {
        let joins = self.pace().joins(Instant::now(), self.waiting);
        joins.then(|| InQueue { limiter: self, has_place: false, _counted: self.metrics.waiting() })
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        // Counts are whole between any two statements, so a panic elsewhere does not spoil them.
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(in_flight: usize, waiting: usize) -> Limiter {
        let limits = FetchLimits { in_flight, waiting, max_wait: Duration::from_secs(1), ..FetchLimits::default() };
        Limiter::new(&limits, DescribeMetrics::default())
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_queue_the_answer_is_immediate() {
        let limiter = limiter(1, 0);
        let _place = limiter.enter(None).await.ok().unwrap();
        assert_eq!(limiter.enter(None).await.err(), Some(Full::Queue));
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_left_after_the_longest_wait() {
        let limiter = limiter(1, 1);
        let _place = limiter.enter(None).await.ok().unwrap();
        let began = Instant::now();
        assert_eq!(limiter.enter(None).await.err(), Some(Full::Wait));
        assert_eq!(began.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_becomes_free_is_taken() {
        let limiter = limiter(1, 1);
        let place = limiter.enter(None).await.ok().unwrap();
        let (entered, ()) = tokio::join!(limiter.enter(None), async { drop(place) });
        assert!(entered.is_ok());
    }
}
