//! What one caller may have of the fetches, so that a noisy one does not starve the others (faults.md, D16).
//!
//! A fetch counts against the identity whose question started it, from its start to its end: whoever cancels gets nothing
//! back. Joining another's fetch counts for nothing, and neither do answers from memory. Callers without an identity are
//! not told apart, so they are not limited here.
//!
//! Two limits. An identity may have started so many fetches at once, and one more is refused. Of those, only so many compete
//! with other callers' fetches for the places in flight; the others wait for their own turn first. Without the second,
//! one identity could hold every place as long as Glacier is slow.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::limiter::FetchLimits;
use crate::caller::CallerIdentity;

/// Who asks, if that is known. Borrowed, so that a hit pays nothing for it.
pub type Asker<'a> = Option<&'a Arc<CallerIdentity>>;

/// The shares that are in use. An identity without a fetch takes no room.
pub(super) struct Shares {
    most: usize,
    most_in_flight: usize,
    in_use: Mutex<HashMap<Arc<CallerIdentity>, InUse>>,
}

struct InUse {
    fetches: usize,
    turns: Arc<Semaphore>,
}

/// A part of an identity's share, held by one fetch until it ends.
pub(super) struct Share {
    shares: Arc<Shares>,
    asker: Arc<CallerIdentity>,
    turns: Arc<Semaphore>,
}

/// The share is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the caller has as many fetches at once as it may")]
pub(super) struct UsedUp;

impl Shares {
    pub(super) fn new(limits: &FetchLimits) -> Self {
        Self {
            most: limits.per_caller,
            // The other half is for others, whatever one caller does.
            most_in_flight: limits.in_flight.div_ceil(2),
            in_use: Mutex::default(),
        }
    }

    /// A part of the asker's share, for one fetch; nothing for one without an identity.
    pub(super) fn take(self: &Arc<Self>, asker: Asker<'_>) -> Result<Option<Share>, UsedUp> {
        let Some(asker) = asker else { return Ok(None) };
        let mut in_use = self.lock();
        let turns = match in_use.entry(Arc::clone(asker)) {
            Entry::Occupied(taken) if taken.get().fetches >= self.most => return Err(UsedUp),
            Entry::Occupied(mut taken) => {
                taken.get_mut().fetches += 1;
                Arc::clone(&taken.get().turns)
            }
            Entry::Vacant(vacant) => {
                let turns = Arc::new(Semaphore::new(self.most_in_flight));
                vacant.insert(InUse { fetches: 1, turns: Arc::clone(&turns) });
                turns
            }
        };
        Ok(Some(Share { shares: Arc::clone(self), asker: Arc::clone(asker), turns }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<CallerIdentity>, InUse>> {
        // The map is whole between any two statements, so a panic elsewhere does not spoil it.
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Waits until this fetch may compete for a place in flight; it may until the permit is dropped. The semaphore never
    /// closes.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Entry::Occupied(mut taken) = self.shares.lock().entry(Arc::clone(&self.asker)) {
            taken.get_mut().fetches -= 1;
            if taken.get().fetches == 0 {
                taken.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(per_caller: usize) -> Arc<Shares> {
        Arc::new(Shares::new(&FetchLimits { per_caller, ..FetchLimits::default() }))
    }

    fn caller(name: &str) -> Arc<CallerIdentity> {
        Arc::new(CallerIdentity::Spiffe(format!("spiffe://test/{name}")))
    }

    #[test]
    fn a_share_is_counted_for_each_identity_by_its_name() {
        let shares = shares(2);
        let first = shares.take(Some(&caller("a"))).unwrap().unwrap();
        // The same identity on another connection.
        let _second = shares.take(Some(&caller("a"))).unwrap();
        assert_eq!(shares.take(Some(&caller("a"))).err(), Some(UsedUp));
        assert!(shares.take(Some(&caller("b"))).is_ok());
        drop(first);
        assert!(shares.take(Some(&caller("a"))).is_ok());
    }

    #[test]
    fn callers_without_an_identity_are_not_counted() {
        let shares = shares(1);
        for _ in 0..10 {
            assert!(shares.take(None).unwrap().is_none());
        }
        assert!(shares.lock().is_empty());
    }

    #[test]
    fn identities_without_fetches_take_no_room() {
        let shares = shares(10);
        let taken: Vec<_> = (0..1000).map(|n| shares.take(Some(&caller(&n.to_string()))).unwrap()).collect();
        assert_eq!(shares.lock().len(), 1000);
        drop(taken);
        assert!(shares.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_identity_has_half_of_the_places_in_flight_at_most() {
        let limits = FetchLimits { in_flight: 3, ..FetchLimits::default() };
        let shares = Arc::new(Shares::new(&limits));
        let taken: Vec<_> = (0..3).map(|_| shares.take(Some(&caller("a"))).unwrap().unwrap()).collect();
        let (first, _second) = (taken[0].turn().await, taken[1].turn().await);
        let mut third = std::pin::pin!(taken[2].turn());
        assert!(futures_util::poll!(&mut third).is_pending());
        drop(first);
        assert!(third.await.is_some());
    }
}
