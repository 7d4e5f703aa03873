//! What one caller may have of the fetches, so that a noisy one does not starve the others (tests/FAULTS.md, D16).
//!
//! A fetch counts against the identity whose question started it, from its start to its end: whoever cancels gets nothing
//! back. Joining another's fetch counts for nothing, and neither do answers from memory. Callers without an identity are
//! not told apart, so they are not limited here.
//!
//! Three limits. An identity may have started so many fetches at once, and one more is refused. Of those, only so many compete
//! with other callers' fetches for the places in flight; the others wait for their own turn first. Without the second,
//! one identity could hold every place as long as Glacier is slow. And it may start only so many in a second: where Glacier
//! is fast, few at once are many in a second, and once the account is throttled, everybody's fetches are held back.
//!
//! Whoever has another set of names in its certificate is another identity.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

use super::FetchLimits;
use crate::caller::CallerIdentity;

/// Who asks, if that is known. Borrowed, so that a hit pays nothing for it.
pub type Asker<'a> = Option<&'a Arc<CallerIdentity>>;

/// The shares that are in use. An identity that has not fetched for a while takes no room.
#[derive(Debug)]
pub(super) struct Shares {
    most: usize,
    most_in_flight: usize,
    /// Starts that an identity gains in a second.
    rate: f64,
    /// Starts that it can have gained at most.
    burst: f64,
    in_use: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    shares: HashMap<Arc<CallerIdentity>, InUse>,
    /// With this many shares, it is time to look for those that are whole again.
    sweep_at: usize,
}

/// Fewer shares than this are not worth looking through.
const LEAST_SWEPT: usize = 64;

#[derive(Debug)]
struct InUse {
    fetches: usize,
    turns: Arc<Semaphore>,
    /// Starts that were left at that time.
    starts: f64,
    at: Instant,
}

/// A part of an identity's share, held by one fetch until it ends.
#[derive(Debug)]
pub struct Share {
    shares: Arc<Shares>,
    asker: Arc<CallerIdentity>,
    turns: Arc<Semaphore>,
}

/// The share is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UsedUp {
    /// By fetches under way and waiting.
    #[error("the caller has as many fetches at once as it may")]
    AtOnce,
    /// By fetches started lately.
    #[error("the caller has started as many fetches in the last seconds as it may")]
    Starts,
}

impl Shares {
    pub(super) fn new(limits: &FetchLimits) -> Self {
        Self {
            most: limits.per_caller,
            // The other half is for others, whatever one caller does.
            most_in_flight: limits.in_flight.div_ceil(2),
            rate: f64::from(limits.starts_per_caller),
            // A share that is whole can be used whole, and a second's starts can come together.
            burst: f64::from(limits.starts_per_caller)
                .max(u32::try_from(limits.per_caller).map_or(f64::INFINITY, f64::from)),
            in_use: Mutex::default(),
        }
    }

    /// A part of the asker's share, for one fetch that starts now; nothing for one without an identity.
    pub(super) fn take(self: &Arc<Self>, asker: Asker<'_>, now: Instant) -> Result<Option<Share>, UsedUp> {
        let Some(asker) = asker else { return Ok(None) };
        let mut table = self.lock();
        if table.shares.len() >= table.sweep_at {
            table.shares.retain(|_, share| share.fetches > 0 || self.starts(share, now) < self.burst);
            table.sweep_at = (2 * table.shares.len()).max(LEAST_SWEPT);
        }
        let share = table.shares.entry(Arc::clone(asker)).or_insert_with(|| InUse {
            fetches: 0,
            turns: Arc::new(Semaphore::new(self.most_in_flight)),
            starts: self.burst,
            at: now,
        });
        if share.fetches >= self.most {
            return Err(UsedUp::AtOnce);
        }
        (share.starts, share.at) = (self.starts(share, now), now);
        if share.starts < 1.0 {
            return Err(UsedUp::Starts);
        }
        share.starts -= 1.0;
        share.fetches += 1;
        let turns = Arc::clone(&share.turns);
        Ok(Some(Share { shares: Arc::clone(self), asker: Arc::clone(asker), turns }))
    }

    fn starts(&self, share: &InUse, now: Instant) -> f64 {
        let gained = self.rate * now.saturating_duration_since(share.at).as_secs_f64();
        (share.starts + gained).min(self.burst)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // The table is whole between any two statements, so a panic elsewhere does not spoil it.
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Waits until this fetch may compete for a place in flight; it may until the permit is dropped. The semaphore never
    /// closes.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }

    /// Whose it is.
    pub fn asker(&self) -> &Arc<CallerIdentity> {
        &self.asker
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // Its starts are not given back: how often it may start is what they are about.
        if let Some(share) = self.shares.lock().shares.get_mut(&self.asker) {
            share.fetches -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        let first = shares.take(Some(&caller("a")), Instant::now()).unwrap().unwrap();
        // The same identity on another connection.
        let _second = shares.take(Some(&caller("a")), Instant::now()).unwrap();
        assert_eq!(shares.take(Some(&caller("a")), Instant::now()).err(), Some(UsedUp::AtOnce));
        assert!(shares.take(Some(&caller("b")), Instant::now()).is_ok());
        drop(first);
        assert!(shares.take(Some(&caller("a")), Instant::now()).is_ok());
    }

    #[test]
    fn nameless_certificates_have_one_share_together() {
        let (shares, nameless) = (shares(1), || Arc::new(CallerIdentity::NAMELESS));
        let _first = shares.take(Some(&nameless()), Instant::now()).unwrap();
        assert_eq!(shares.take(Some(&nameless()), Instant::now()).err(), Some(UsedUp::AtOnce));
        assert!(shares.take(Some(&caller("a")), Instant::now()).is_ok());
    }

    #[test]
    fn callers_without_an_identity_are_not_counted() {
        let shares = shares(1);
        for _ in 0..10 {
            assert!(shares.take(None, Instant::now()).unwrap().is_none());
        }
        assert!(shares.lock().shares.is_empty());
    }

    #[test]
    fn identities_that_have_not_fetched_for_a_while_take_no_room() {
        let (shares, start) = (shares(10), Instant::now());
        let take = |n: u32, at| shares.take(Some(&caller(&n.to_string())), at).unwrap();
        let taken: Vec<_> = (0..1000).map(|n| take(n, start)).collect();
        assert_eq!(shares.lock().shares.len(), 1000);
        drop(taken);
        // Forgotten at once, whoever comes anew could start anew.
        assert_eq!(shares.lock().shares.len(), 1000);
        for n in 1000..3000 {
            take(n, start + Duration::from_mins(1) * n);
        }
        assert!(shares.lock().shares.len() <= 2 * LEAST_SWEPT, "{}", shares.lock().shares.len());
    }

    #[test]
    fn starts_are_gained_with_time_and_not_by_ending() {
        let limits = FetchLimits { per_caller: 4, starts_per_caller: 2, ..FetchLimits::default() };
        let (shares, start) = (Arc::new(Shares::new(&limits)), Instant::now());
        let starts = |at| (0..10).filter(|_| shares.take(Some(&caller("a")), at).is_ok()).count();
        assert_eq!(starts(start), 4);
        assert_eq!(shares.take(Some(&caller("a")), start).err(), Some(UsedUp::Starts));
        assert_eq!(starts(start + Duration::from_secs(1)), 2);
        assert_eq!(starts(start + Duration::from_secs(100)), 4);
    }

    /// The table is looked through once it has 64 shares; that must cost nobody its share and give nobody another.
    #[test]
    fn looking_for_shares_that_are_whole_touches_no_other() {
        let limits = FetchLimits { per_caller: 2, starts_per_caller: 1, ..FetchLimits::default() };
        let (shares, start) = (Arc::new(Shares::new(&limits)), Instant::now());
        let take = |name: &str, at| shares.take(Some(&caller(name)), at);
        let busy: Vec<_> = (0..2).map(|_| take("busy", start).unwrap()).collect();
        let used_up_at = start + Duration::from_secs(100);
        for _ in 0..2 {
            take("used up", used_up_at).unwrap();
        }
        for n in 0..200 {
            take(&format!("whole {n}"), start).unwrap();
        }
        // A second later some are whole and taken off, whenever one more comes.
        let later = used_up_at + Duration::from_millis(900);
        for n in 200..1000 {
            take(&format!("whole {n}"), later).unwrap();
        }
        assert!(!shares.lock().shares.contains_key(&caller("whole 0")), "it was looked through");
        assert_eq!(take("busy", later).err(), Some(UsedUp::AtOnce), "its fetches are under way");
        assert_eq!(take("used up", later).err(), Some(UsedUp::Starts), "it has gained nine tenths of a start");
        assert!(take("used up", used_up_at + Duration::from_secs(1)).is_ok(), "and now a whole one");
        drop(busy);
        assert!(take("busy", later).is_ok());
        assert_eq!(shares.lock().shares[&caller("busy")].fetches, 0, "the one taken has been given back as well");
    }

    #[tokio::test(start_paused = true)]
    async fn one_identity_has_half_of_the_places_in_flight_at_most() {
        let limits = FetchLimits { in_flight: 3, ..FetchLimits::default() };
        let shares = Arc::new(Shares::new(&limits));
        let taken: Vec<_> = (0..3).map(|_| shares.take(Some(&caller("a")), Instant::now()).unwrap().unwrap()).collect();
        let (first, _second) = (taken[0].turn().await, taken[1].turn().await);
        let mut third = std::pin::pin!(taken[2].turn());
        assert!(futures_util::poll!(&mut third).is_pending());
        drop(first);
        assert!(third.await.is_some());
    }
}
