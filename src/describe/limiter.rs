//! How many fetches this replica has at once. Answers from memory are never limited.

use std::time::Duration;

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

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
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self { in_flight: 64, waiting: 1024, max_wait: Duration::from_secs(1) }
    }
}

/// Why a fetch did not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    #[error("too many fetches are waiting")]
    Queue,
    #[error("no fetch ended in time to make place")]
    Wait,
}

pub(super) struct Limiter {
    in_flight: Semaphore,
    waiting: Semaphore,
    max_wait: Duration,
    metrics: DescribeMetrics,
}

/// A place among the fetches in flight, until it is dropped.
pub(super) struct Place<'a> {
    _permit: SemaphorePermit<'a>,
    _counted: Present,
}

impl Limiter {
    pub(super) fn new(limits: &FetchLimits, metrics: DescribeMetrics) -> Self {
        Self {
            in_flight: Semaphore::new(limits.in_flight),
            waiting: Semaphore::new(limits.waiting),
            max_wait: limits.max_wait,
            metrics,
        }
    }

    /// A place among the fetches in flight.
    pub(super) async fn enter(&self) -> Result<Place<'_>, Full> {
        let entered = self.permit().await.inspect_err(|_| self.metrics.shed());
        entered.map(|permit| Place { _permit: permit, _counted: self.metrics.in_flight() })
    }

    async fn permit(&self) -> Result<SemaphorePermit<'_>, Full> {
        if let Ok(place) = self.in_flight.try_acquire() {
            return Ok(place);
        }
        let _in_queue = self.waiting.try_acquire().map_err(|_| Full::Queue)?;
        let _counted = self.metrics.waiting();
        // The outer error is the time running out; the inner one a closed semaphore, and ours never closes.
        timeout(self.max_wait, self.in_flight.acquire()).await.ok().and_then(Result::ok).ok_or(Full::Wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(in_flight: usize, waiting: usize) -> Limiter {
        Limiter::new(&FetchLimits { in_flight, waiting, max_wait: Duration::from_secs(1) }, DescribeMetrics::default())
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_queue_the_answer_is_immediate() {
        let limiter = limiter(1, 0);
        let _place = limiter.enter().await.unwrap();
        assert_eq!(limiter.enter().await.err(), Some(Full::Queue));
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_left_after_the_longest_wait() {
        let limiter = limiter(1, 1);
        let _place = limiter.enter().await.unwrap();
        let began = tokio::time::Instant::now();
        assert_eq!(limiter.enter().await.err(), Some(Full::Wait));
        assert_eq!(began.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_becomes_free_is_taken() {
        let limiter = limiter(1, 1);
        let place = limiter.enter().await.unwrap();
        let (entered, ()) = tokio::join!(limiter.enter(), async { drop(place) });
        assert!(entered.is_ok());
    }
}
