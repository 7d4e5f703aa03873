//! How many fetches may wait for a place in flight so that each of them gets a place in time.
//!
//! Under lasting overload a queue that is longer than what is served within the longest wait only makes callers wait for a
//! refusal. So once the queue has not been empty for as long as one may wait, it is as long as what got a place in that
//! time. A burst after quiet times finds the whole queue.

use std::time::Duration;

use tokio::time::Instant;

/// Follows how many wait, and how fast they get a place.
#[derive(Debug)]
pub(super) struct Queue {
    /// How long one may wait; the pace is taken over as long.
    max_wait: Duration,
    /// How many wait.
    waiting: usize,
    /// Since when the present count goes on; `None` while nobody waits.
    counting_since: Option<Instant>,
    /// How many got a place since then.
    served: usize,
    /// The count before; `None` if the queue was empty meanwhile.
    served_before: Option<usize>,
}

impl Queue {
    pub(super) fn new(max_wait: Duration) -> Self {
        Self { max_wait, waiting: 0, counting_since: None, served: 0, served_before: None }
    }

    /// Whether one more may wait at `now`, with room for `most`; it is counted if so.
    pub(super) fn joins(&mut self, now: Instant, most: usize) -> bool {
        let since = *self.counting_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= self.max_wait {
            self.served_before = Some(self.served);
            (self.served, self.counting_since) = (0, Some(now));
        }
        // A tenth less, since the pace is not even; at least one, or there would be nothing to count.
        let in_time = self.served_before.map_or(most, |served| (served - served / 10).max(1));
        let joins = self.waiting < in_time.min(most);
        self.waiting += usize::from(joins);
        joins
    }

    /// One that waited does so no more.
    pub(super) fn leaves(&mut self, has_place: bool) {
        self.waiting = self.waiting.saturating_sub(1);
        self.served += usize::from(has_place);
        if self.waiting == 0 {
            *self = Self::new(self.max_wait);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_finds_the_whole_queue() {
        let (mut queue, now) = (Queue::new(SECOND), Instant::now());
        assert_eq!((0..20).filter(|_| queue.joins(now, 10)).count(), 10);
    }

    #[test]
    fn under_lasting_overload_as_many_wait_as_are_served_in_time() {
        let (mut queue, start) = (Queue::new(SECOND), Instant::now());
        // Twenty a second are served, a hundred ask.
        for tick in 0..300 {
            queue.joins(start + tick * SECOND / 100, 1000);
            if tick % 5 == 4 {
                queue.leaves(true);
            }
        }
        // The rest of what waited in the first second has given up.
        while queue.waiting > 5 {
            queue.leaves(false);
        }
        let now = start + 3 * SECOND;
        assert_eq!((0..100).filter(|_| queue.joins(now, 1000)).count(), 18 - 5);
    }

    #[test]
    fn when_the_queue_has_been_empty_it_is_whole_again() {
        let (mut queue, start) = (Queue::new(SECOND), Instant::now());
        assert!(queue.joins(start, 10));
        assert!(!queue.joins(start + SECOND, 10), "nobody was served for a second");
        queue.leaves(false);
        assert_eq!((0..20).filter(|_| queue.joins(start + SECOND, 10)).count(), 10);
    }

    /// However often it was full: who left takes no room.
    #[test]
    fn a_queue_that_refused_lets_everybody_in_again() {
        let (mut queue, start) = (Queue::new(SECOND), Instant::now());
        for round in 0..100 {
            let now = start + round * 5 * SECOND;
            assert_eq!((0..30).filter(|_| queue.joins(now, 10)).count(), 10, "{round}");
            for n in 0..10 {
                queue.leaves(n % 2 == 0);
            }
        }
    }
}
