//! How many connections there may be, and how many of them may be one caller's.
//!
//! A new connection is a stranger's until its handshake is complete, and waits in a lobby: strangers take no place, and
//! keep no other stranger out (tests/FAULTS.md, D20). Then it takes a place, which counts against the caller's identity, too, so
//! that no one identity holds every place (D16). Callers without an identity are not told apart, and whoever has another set
//! of names in its certificate is another identity.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};

use crate::{
    caller::CallerIdentity,
    lobby::{Entered, Lobby, Seat},
    metrics::{ConnectionMetrics, RefusedConnection},
};

use super::descriptors::Room;

/// A flood of connections must not become a flood of warnings.
const WARNING_PAUSE: Duration = Duration::from_secs(1);

/// For how long a stranger has its seat in any case. At most 51,200 are turned away in a second then.
const LEAST_STAY: Duration = Duration::from_millis(20);

/// The places of one listener.
pub(super) struct Places {
    strangers: Arc<Lobby>,
    free: Arc<Semaphore>,
    most_per_caller: usize,
    /// Only identities that have a connection are in it.
    shares: Mutex<HashMap<Arc<CallerIdentity>, usize>>,
    crowded: Mutex<Refusals>,
    full: Mutex<Refusals>,
    over_share: Mutex<Refusals>,
    metrics: ConnectionMetrics,
}

/// What the last warning told, and when.
#[derive(Default)]
struct Refusals {
    count: u64,
    warned_at: Option<Instant>,
}

/// One connection of an identity, until this is dropped.
pub(super) struct Share {
    places: Arc<Places>,
    caller: Arc<CallerIdentity>,
}

/// The caller has as many connections as one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OverShare;

impl Places {
    /// One identity may have `most_per_caller` of the served connections; by default half, so that the other half is for
    /// others, whatever one caller does.
    pub(super) fn new(room: Room, most_per_caller: Option<usize>, metrics: ConnectionMetrics) -> Self {
        Self {
            strangers: Lobby::new(room.strangers),
            free: Arc::new(Semaphore::new(room.served)),
            most_per_caller: most_per_caller.unwrap_or(room.served.div_ceil(2)),
            shares: Mutex::default(),
            crowded: Mutex::default(),
            full: Mutex::default(),
            over_share: Mutex::default(),
            metrics,
        }
    }

    /// Resolves when a new connection may enter. While there are seats, that is at once; else when the oldest stranger has had
    /// time to be read: what it sent may be there already, when many come in one piece.
    pub(super) async fn ready(&self) {
        if let Some(since) = self.strangers.full_since() {
            sleep_until(since + LEAST_STAY).await;
        }
    }

    /// A seat for a new connection, while there are places: nobody shakes hands in vain. If the oldest stranger has to leave
    /// for it, that is counted and warned of.
    pub(super) fn enter(&self, peer: SocketAddr) -> Option<Seat> {
        if self.free.available_permits() == 0 {
            self.refuse(peer);
            return None;
        }
        let (seat, entered) = self.strangers.enter();
        if entered == Entered::InPlaceOfTheOldest {
            self.metrics.refused(RefusedConnection::Stranger);
            if let Some(refused) = lock(&self.crowded).warning(Instant::now()) {
                tracing::warn!(
                    %peer, refused,
                    "many connections are open whose handshake is not complete; for each new one, the oldest is closed"
                );
            }
        }
        Some(seat)
    }

    /// A place for a connection whose handshake is complete; if there is none, that is counted and warned of.
    pub(super) fn take(&self, peer: SocketAddr) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.free).try_acquire_owned().ok();
        if place.is_none() {
            self.refuse(peer);
        }
        place
    }

    fn refuse(&self, peer: SocketAddr) {
        self.metrics.refused(RefusedConnection::Full);
        if let Some(refused) = lock(&self.full).warning(Instant::now()) {
            tracing::warn!(%peer, refused, "as many connections as allowed; more are closed");
        }
    }

    /// One more connection of this caller, if it has an identity; if that has as many as it may, it is counted and warned of.
    pub(super) fn share(
        self: &Arc<Self>,
        caller: Option<&Arc<CallerIdentity>>,
        peer: SocketAddr,
    ) -> Result<Option<Share>, OverShare> {
        let Some(caller) = caller else { return Ok(None) };
        let mut shares = lock(&self.shares);
        let held = shares.entry(Arc::clone(caller)).or_default();
        if *held < self.most_per_caller {
            *held += 1;
            return Ok(Some(Share { places: Arc::clone(self), caller: Arc::clone(caller) }));
        }
        drop(shares);
        self.metrics.refused(RefusedConnection::CallerOverShare);
        if let Some(refused) = lock(&self.over_share).warning(Instant::now()) {
            let most = self.most_per_caller;
            tracing::warn!(%caller, %peer, refused, most, "a caller has as many connections as one may; more are closed");
        }
        Err(OverShare)
    }
}

impl Refusals {
    /// Counts one more; how many there have been in all, if it is time to say so.
    fn warning(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        let is_time = self.warned_at.is_none_or(|at| now.saturating_duration_since(at) >= WARNING_PAUSE);
        is_time.then(|| {
            self.warned_at = Some(now);
            self.count
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut shares = lock(&self.places.shares);
        if let Some(held) = shares.get_mut(&self.caller) {
            *held -= 1;
            if *held == 0 {
                shares.remove(&self.caller);
            }
        }
    }
}

/// What the locks guard is whole between any two statements, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(most: usize, most_per_caller: Option<usize>) -> Arc<Places> {
        Arc::new(Places::new(Room { served: most, strangers: 2 }, most_per_caller, ConnectionMetrics::default()))
    }

    fn peer() -> SocketAddr {
        ([127, 0, 0, 1], 1).into()
    }

    fn share(places: &Arc<Places>, caller: &str) -> Option<Share> {
        let caller = Arc::new(CallerIdentity::Spiffe(format!("spiffe://test/{caller}")));
        places.share(Some(&caller), peer()).ok().map(|share| share.expect("it has an identity"))
    }

    #[tokio::test]
    async fn unless_told_otherwise_one_identity_has_half_of_the_places() {
        for (most, half) in [(1, 1), (4, 2), (5, 3)] {
            let places = places(most, None);
            let taken: Vec<_> = (0..10).map_while(|_| share(&places, "a")).collect();
            assert_eq!(taken.len(), half, "of {most}");
            assert!(share(&places, "b").is_some());
        }
    }

    #[tokio::test]
    async fn callers_without_an_identity_are_not_told_apart() {
        let places = places(2, Some(1));
        for _ in 0..10 {
            assert!(matches!(places.share(None, peer()), Ok(None)));
        }
    }

    #[tokio::test]
    async fn whoever_closes_a_connection_may_have_another_and_whoever_has_none_takes_no_room() {
        let places = places(100, Some(1));
        let only = share(&places, "a");
        assert!(only.is_some() && share(&places, "a").is_none());
        drop(only);
        let again = share(&places, "a");
        assert!(again.is_some());
        drop(again);
        assert!(lock(&places.shares).is_empty());
    }

    #[tokio::test]
    async fn a_place_is_free_again_when_its_connection_ends() {
        let places = places(1, None);
        let place = places.take(peer());
        assert!(place.is_some() && places.take(peer()).is_none());
        drop(place);
        assert!(places.take(peer()).is_some());
    }

    /// D20.
    #[tokio::test]
    async fn strangers_take_no_place_and_come_in_as_long_as_there_is_one() {
        let places = places(1, None);
        let strangers: Vec<_> = (0..10).map(|_| places.enter(peer())).collect();
        assert!(strangers.iter().all(Option::is_some));
        let place = places.take(peer());
        assert!(place.is_some() && places.enter(peer()).is_none());
        drop(place);
        assert!(places.enter(peer()).is_some());
    }

    /// D20: who comes in a crowd is not closed before what it sent could be read.
    #[tokio::test(start_paused = true)]
    async fn a_stranger_has_its_seat_for_a_moment_in_any_case() {
        let (places, start) = (places(1, None), Instant::now());
        let [first, _second] = [(); 2].map(|()| places.enter(peer()));
        places.ready().await;
        assert_eq!(start.elapsed(), LEAST_STAY);
        places.ready().await;
        assert_eq!(start.elapsed(), LEAST_STAY, "it had its time");
        drop(first);
        let _third = (places.ready().await, places.enter(peer()));
        assert_eq!(start.elapsed(), LEAST_STAY, "there was a seat");
    }

    #[test]
    fn a_flood_of_refusals_is_warned_of_once_a_second() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        assert_eq!(refusals.warning(start), Some(1));
        for _ in 0..1000 {
            assert_eq!(refusals.warning(start + WARNING_PAUSE / 2), None);
        }
        assert_eq!(refusals.warning(start + WARNING_PAUSE), Some(1002));
    }
}
