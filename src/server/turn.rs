//! hyper's timer, whose clock is read once a turn.
//!
//! For keep-alive, hyper notes when the last frame came, and asks its timer with every frame and at every poll: four times a
//! call. All that a turn of the connection ([`super::executor`]) finds has come before, so the turn's beginning is as good.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};
use hyper_util::rt::TokioTimer;

/// tokio's timer, but for the clock. Clones share the turn.
#[derive(Debug, Clone)]
pub(super) struct TurnTimer {
    timer: TokioTimer,
    made: Instant,
    /// When the turn began, in nanoseconds since this was made: enough for 584 years.
    turn: Arc<AtomicU64>,
}

impl Default for TurnTimer {
    fn default() -> Self {
        let timer = TokioTimer::new();
        Self { made: timer.now(), timer, turn: Arc::default() }
    }
}

impl TurnTimer {
    /// A turn begins.
    pub(super) fn begin(&self) {
        let passed = self.timer.now().saturating_duration_since(self.made);
        self.turn.store(u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Timer for TurnTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.timer.sleep(duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.timer.sleep_until(deadline)
    }

    fn now(&self) -> Instant {
        self.made + Duration::from_nanos(self.turn.load(Ordering::Relaxed))
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, new_deadline: Instant) {
        self.timer.reset(sleep, new_deadline);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_time_is_that_of_the_last_turn() {
        let timer = TurnTimer::default();
        let start = timer.now();
        for turn in 1..4 {
            tokio::time::advance(SECOND).await;
            assert_eq!(timer.now() - start, (turn - 1) * SECOND);
            timer.clone().begin();
            assert_eq!(timer.now() - start, turn * SECOND);
        }
    }

    /// However old the turn is.
    #[tokio::test(start_paused = true)]
    async fn sleeps_are_as_long_as_they_should_be() {
        let timer = TurnTimer::default();
        tokio::time::advance(SECOND).await;
        let start = tokio::time::Instant::now();
        let mut sleep = timer.sleep(2 * SECOND);
        sleep.as_mut().await;
        assert_eq!(start.elapsed(), 2 * SECOND);
        timer.reset(&mut sleep, timer.now() + 4 * SECOND);
        sleep.await;
        assert_eq!(start.elapsed(), 3 * SECOND, "counted from the turn that hyper knows");
    }
}
