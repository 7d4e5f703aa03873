//! Who is next when requests a second are scarce.
//!
//! First come, first served would give nearly all to the caller that asks most often. So callers take turns (start-time fair
//! queueing, one request being as long as another): each request gets a stamp, one later than its caller's last, and none
//! earlier than the last request that went. The earliest stamp goes first. A caller that asks a hundred times a second stamps
//! its next request later than the first of somebody who seldom asks.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::Notify;

use crate::caller::CallerIdentity;

/// Whom a request is for. Callers without an identity are one.
pub(super) type For = Option<Arc<CallerIdentity>>;

/// Those who wait, the next one first.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: Vec<Waiting>,
    /// The stamp of the last that went.
    reached: u64,
    /// Each caller's last stamp, as far as it is not before `reached`.
    stamps: HashMap<For, u64>,
    joined: u64,
}

#[derive(Debug)]
struct Waiting {
    stamp: u64,
    ticket: Ticket,
    caller: For,
    wake: Arc<Notify>,
}

/// Tells those who wait apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

impl Line {
    /// How many would be before this caller's next request.
    pub(super) fn before(&self, caller: &For) -> usize {
        let stamp = self.stamp(caller);
        self.waiting.partition_point(|other| other.stamp <= stamp)
    }

    /// The next request of this caller waits, and is told through `wake` when there is news for it.
    pub(super) fn join(&mut self, caller: &For, wake: Arc<Notify>) -> Ticket {
        let (stamp, place) = (self.stamp(caller), self.before(caller));
        self.stamps.insert(caller.clone(), stamp);
        self.joined += 1;
        let ticket = Ticket(self.joined);
        self.waiting.insert(place, Waiting { stamp, ticket, caller: caller.clone(), wake });
        ticket
    }

    /// How many are before this one; `None` if it waits no more.
    pub(super) fn place(&self, ticket: Ticket) -> Option<usize> {
        self.waiting.iter().position(|waiting| waiting.ticket == ticket)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The first one goes.
    pub(super) fn let_go(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let first = self.waiting.remove(0);
        self.went(first.stamp);
        first.wake.notify_one();
    }

    /// A request of this caller goes without having waited.
    pub(super) fn passes(&mut self, caller: &For) {
        let stamp = self.stamp(caller);
        self.stamps.insert(caller.clone(), stamp);
        self.went(stamp);
    }

    /// The one with this ticket waits no longer and did not go; if it still waits, its caller's later ones move up. A stamp that
    /// stayed used would put a caller further back for each request that it was refused.
    pub(super) fn leave(&mut self, ticket: Ticket) {
        let Some(place) = self.place(ticket) else { return };
        let left = self.waiting.remove(place);
        for later in self.waiting.iter_mut().filter(|other| other.caller == left.caller && other.stamp > left.stamp) {
            later.stamp -= 1;
        }
        match self.stamps.get_mut(&left.caller) {
            Some(last) if *last > self.reached => *last -= 1,
            Some(_) => drop(self.stamps.remove(&left.caller)),
            None => {}
        }
        self.waiting.sort_by_key(|waiting| (waiting.stamp, waiting.ticket));
    }

    /// There is news for the first one.
    pub(super) fn wake_first(&self) {
        if let Some(first) = self.waiting.first() {
            first.wake.notify_one();
        }
    }

    /// Nothing is scarce any more, and nobody waits: whoever asked most starts like all others.
    pub(super) fn forget(&mut self) {
        self.stamps.clear();
    }

    fn stamp(&self, caller: &For) -> u64 {
        self.stamps.get(caller).map_or(self.reached, |last| self.reached.max(last + 1))
    }

    fn went(&mut self, stamp: u64) {
        self.reached = self.reached.max(stamp);
        // Who was last served before this stamp is like one who never was.
        self.stamps.retain(|_, last| *last >= self.reached);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "as the line has it")]
    fn caller(name: &str) -> For {
        Some(Arc::new(CallerIdentity::Spiffe(format!("spiffe://test/{name}"))))
    }

    #[test]
    fn callers_take_turns_however_often_one_asks() {
        let (mut line, noisy, quiet) = (Line::default(), caller("noisy"), caller("quiet"));
        let many: Vec<_> = (0..10).map(|_| line.join(&noisy, Arc::default())).collect();
        let own: Vec<_> = (0..2).map(|_| line.join(&quiet, Arc::default())).collect();
        let places = |line: &Line, tickets: &[Ticket]| tickets.iter().map(|t| line.place(*t)).collect::<Vec<_>>();
        assert_eq!(places(&line, &own), [Some(1), Some(3)]);
        assert_eq!(places(&line, &many[..3]), [Some(0), Some(2), Some(4)]);
    }

    /// At one request a second there is room for one to wait; it must not be the same caller's each time.
    #[test]
    fn who_was_not_served_lately_goes_before_who_was() {
        let (mut line, noisy, quiet) = (Line::default(), caller("noisy"), caller("quiet"));
        for served in 0..10 {
            let next = line.join(&noisy, Arc::default());
            assert_eq!(line.before(&quiet), usize::from(served == 0), "only before anybody was served");
            line.let_go();
            assert_eq!(line.place(next), None);
        }
        // And then the noisy one is not kept out either.
        let (own, next) = (line.join(&quiet, Arc::default()), line.join(&noisy, Arc::default()));
        line.let_go();
        assert_eq!((line.place(own), line.place(next)), (None, Some(0)));
        assert_eq!(line.before(&quiet), 1);
    }

    #[test]
    fn leaving_makes_room_and_callers_are_forgotten() {
        let mut line = Line::default();
        let tickets: Vec<_> = (0..100).map(|n| line.join(&caller(&n.to_string()), Arc::default())).collect();
        for ticket in tickets {
            line.leave(ticket);
        }
        assert!(line.is_empty());
        for n in 0..1000 {
            line.passes(&caller(&n.to_string()));
            line.passes(&caller("always"));
        }
        assert!(line.stamps.len() <= 2, "{}", line.stamps.len());
    }

    #[test]
    fn who_gave_up_is_not_put_back_for_it() {
        let (mut line, noisy, quiet) = (Line::default(), caller("noisy"), caller("quiet"));
        line.passes(&noisy);
        for _ in 0..10 {
            let gives_up = line.join(&noisy, Arc::default());
            let later = line.join(&noisy, Arc::default());
            line.leave(gives_up);
            assert_eq!(line.place(later), Some(0));
            line.leave(later);
        }
        // One that was served a moment ago, and one that never was.
        let own = [(); 3].map(|()| line.join(&quiet, Arc::default()));
        line.join(&noisy, Arc::default());
        assert_eq!(own.map(|ticket| line.place(ticket)), [Some(0), Some(1), Some(3)]);
    }

    #[test]
    fn callers_without_an_identity_take_turns_as_one() {
        let (mut line, named) = (Line::default(), caller("named"));
        for _ in 0..5 {
            line.join(&None, Arc::default());
        }
        assert_eq!((line.before(&named), line.before(&None)), (1, 5));
    }
}
