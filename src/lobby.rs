//! A lobby: where strangers wait for a short while until they have shown that they are in earnest.
//!
//! It has few seats. When all are taken, the one who has waited longest leaves for the next. Whoever is in earnest needs a
//! seat for milliseconds, so nobody can keep the others out by sitting still: for that, all seats would have to be taken
//! anew within those milliseconds, again and again.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use tokio::{sync::oneshot, time::Instant};

/// A lobby. Shared by those who may enter.
#[derive(Debug)]
pub struct Lobby {
    seats: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    entered: u64,
    /// By the order of entering: since when, and what tells a seat that it is lost by being dropped.
    taken: BTreeMap<u64, (Instant, oneshot::Sender<()>)>,
}

/// A seat until this is dropped, or until it is lost, which is when this resolves.
#[derive(Debug)]
#[must_use = "the seat is free again once this is dropped"]
pub struct Seat {
    lobby: Arc<Lobby>,
    number: u64,
    is_lost: oneshot::Receiver<()>,
}

/// Whether somebody had to leave for a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// There was a seat.
    Freely,
    /// The one who had waited longest lost its seat.
    InPlaceOfTheOldest,
}

impl Lobby {
    /// A lobby with this many seats; at least one.
    pub fn new(seats: usize) -> Arc<Self> {
        Arc::new(Self { seats: seats.max(1), waiting: Mutex::default() })
    }

    /// A seat, always.
    pub fn enter(self: &Arc<Self>) -> (Seat, Entered) {
        let (kept, is_lost) = oneshot::channel();
        let mut waiting = self.waiting();
        let entered = if waiting.taken.len() < self.seats {
            Entered::Freely
        } else {
            waiting.taken.pop_first();
            Entered::InPlaceOfTheOldest
        };
        let number = waiting.entered;
        waiting.entered += 1;
        waiting.taken.insert(number, (Instant::now(), kept));
        (Seat { lobby: Arc::clone(self), number, is_lost }, entered)
    }

    /// Since when the one who would have to leave for the next has waited; `None` if there is a seat.
    pub fn full_since(&self) -> Option<Instant> {
        let waiting = self.waiting();
        let oldest = waiting.taken.first_key_value().map(|(_, (since, _))| *since);
        oldest.filter(|_| waiting.taken.len() >= self.seats)
    }

    /// It is whole between any two statements, so a panic elsewhere does not spoil it.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Future for Seat {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Nothing is ever sent: the sender is dropped.
        Pin::new(&mut self.is_lost).poll(cx).map(|_dropped| ())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.lobby.waiting().taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn is_lost(seat: &mut Seat) -> bool {
        seat.now_or_never().is_some()
    }

    #[test]
    fn when_it_is_full_the_one_who_has_waited_longest_leaves() {
        let lobby = Lobby::new(2);
        let [(mut a, _), (mut b, _)] = [lobby.enter(), lobby.enter()];
        assert!(!is_lost(&mut a) && !is_lost(&mut b));
        let (mut c, entered) = lobby.enter();
        assert_eq!(entered, Entered::InPlaceOfTheOldest);
        assert!(is_lost(&mut a) && !is_lost(&mut b) && !is_lost(&mut c));
        // Leaving a lost seat takes nobody else's.
        drop(a);
        let (_d, entered) = lobby.enter();
        assert_eq!(entered, Entered::InPlaceOfTheOldest);
        assert!(is_lost(&mut b) && !is_lost(&mut c));
    }

    #[test]
    fn a_seat_that_is_left_is_free_again() {
        let lobby = Lobby::new(1);
        for _ in 0..3 {
            let (seat, entered) = lobby.enter();
            assert_eq!(entered, Entered::Freely);
            drop(seat);
        }
        assert!(lobby.waiting().taken.is_empty());
    }
}
