//! Asking a throttled account less, before Glacier has to say so again: client-side throttling as in "Handling Overload" of
//! the Google SRE book.
//!
//! Of the fetches wanted lately, those beyond K times the fetches that were not throttled are held back, with the
//! probability max(0, (requests − K·accepts) / (requests + 1)). What is held back counts as wanted, so the probability
//! falls only as Glacier accepts again. A fetch counts once its outcome is known: a burst of first questions is no sign of
//! throttling.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How many fetches are let through for each that is accepted. At 2, half of what reaches a throttling Glacier is wasted at
/// worst, and recovery is noticed soon.
const K: f64 = 2.0;
/// How far back counts.
const WINDOW: Duration = Duration::from_mins(2);
/// The window moves in steps of this.
const SLICE: Duration = Duration::from_secs(5);

/// Counts fetches and Glacier's verdicts over the last two minutes.
#[derive(Debug, Default)]
pub(super) struct AdaptiveThrottle {
    slices: Mutex<VecDeque<Slice>>,
}

#[derive(Debug)]
struct Slice {
    began: Instant,
    requests: u32,
    accepts: u32,
}

impl AdaptiveThrottle {
    /// Whether a fetch may go to Glacier. If not, that counts; else its outcome will. `random` is uniform in [0, 1).
    pub(super) fn admits(&self, now: Instant, random: f64) -> bool {
        let mut slices = self.at(now);
        let requests: u32 = slices.iter().map(|slice| slice.requests).sum();
        let accepts: u32 = slices.iter().map(|slice| slice.accepts).sum();
        let admitted = random >= held_back(requests, accepts);
        if !admitted {
            count(&mut slices, 0);
        }
        admitted
    }

    /// Glacier answered a fetch that was let through: with throttling, or with anything else.
    pub(super) fn answered(&self, now: Instant, throttled: bool) {
        count(&mut self.at(now), u32::from(!throttled));
    }

    /// The slices that count at `now`; the last one is `now`'s.
    fn at(&self, now: Instant) -> MutexGuard<'_, VecDeque<Slice>> {
        let mut slices = self.slices.lock().unwrap_or_else(PoisonError::into_inner);
        while slices.front().is_some_and(|slice| now.saturating_duration_since(slice.began) >= WINDOW) {
            slices.pop_front();
        }
        if slices.back().is_none_or(|slice| now.saturating_duration_since(slice.began) >= SLICE) {
            slices.push_back(Slice { began: now, requests: 0, accepts: 0 });
        }
        slices
    }
}

fn count(slices: &mut VecDeque<Slice>, accepts: u32) {
    if let Some(slice) = slices.back_mut() {
        slice.requests = slice.requests.saturating_add(1);
        slice.accepts = slice.accepts.saturating_add(accepts);
    }
}

/// The probability with which a fetch is held back.
fn held_back(requests: u32, accepts: u32) -> f64 {
    ((f64::from(requests) - K * f64::from(accepts)) / (f64::from(requests) + 1.0)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probability_is_the_books() {
        for (requests, accepts, expected) in
            [(0, 0, 0.0), (1, 0, 0.5), (9, 0, 0.9), (10, 5, 0.0), (99, 25, 0.49), (5, 5, 0.0)]
        {
            assert!((held_back(requests, accepts) - expected).abs() < 1e-9, "{requests} {accepts}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_accepting_glacier_is_never_held_back_and_no_burst_is_either() {
        let throttle = AdaptiveThrottle::default();
        for _ in 0..1000 {
            for _ in 0..64 {
                assert!(throttle.admits(Instant::now(), 0.0));
            }
            for _ in 0..64 {
                throttle.answered(Instant::now(), false);
            }
            tokio::time::advance(Duration::from_millis(500)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_more_it_throttles_the_less_it_is_asked() {
        let throttle = AdaptiveThrottle::default();
        for _ in 0..9 {
            throttle.answered(Instant::now(), true);
        }
        assert!(throttle.admits(Instant::now(), 0.91), "let through, and its outcome not known yet");
        assert!(!throttle.admits(Instant::now(), 0.89), "9 of 10, and held back: that counts");
        assert!(!throttle.admits(Instant::now(), 0.905), "10 of 11");
    }

    #[tokio::test(start_paused = true)]
    async fn two_minutes_are_remembered() {
        let throttle = AdaptiveThrottle::default();
        for _ in 0..9 {
            throttle.answered(Instant::now(), true);
        }
        tokio::time::advance(WINDOW.saturating_sub(SLICE)).await;
        assert!(!throttle.admits(Instant::now(), 0.89));
        tokio::time::advance(SLICE).await;
        assert!(throttle.admits(Instant::now(), 0.5), "only what was held back a moment ago still counts");
        tokio::time::advance(WINDOW).await;
        assert!(throttle.admits(Instant::now(), 0.0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_takes_a_few_slices_however_many_fetches_there_are() {
        let throttle = AdaptiveThrottle::default();
        for _ in 0..1000 {
            throttle.answered(Instant::now(), false);
            tokio::time::advance(Duration::from_millis(200)).await;
        }
        let slices = throttle.slices.lock().unwrap().len();
        assert!((23..=25).contains(&slices), "{slices}");
    }
}
