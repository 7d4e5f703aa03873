//! How much may be asked of one upstream: by everybody at once, by one caller, and in a second.
//!
//! A fetch needs a [`Share`] of its caller, then a [`Place`] in flight, for which it waits in a bounded queue, and then for each
//! request that it sends, retries too, a [`Turn`]. Turns are free until Glacier throttles; from then on they come at the rate
//! that it accepts ([`rate`]), and callers take them in turns ([`mod@line`]). Who could not have one in time is held back at once:
//! nothing is sent, and nothing follows from it for anybody else.
//!
//! Only fetches that have a place wait for turns, so no more of them than there are places. Policy is in pure values, with time
//! as an argument; this file has the locks and the waiting around them. Answers from memory never come here.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore, SemaphorePermit},
    time::{Instant, sleep_until, timeout_at},
};

use self::{
    line::{For, Line, Ticket},
    queue::Queue,
    rate::RateLimit,
    shares::Shares,
};
use crate::{
    metrics::{AdmissionMetrics, Present},
    upstream::{UpstreamError, UpstreamErrorKind},
};

mod line;
mod queue;
mod rate;
mod shares;

pub use shares::{Asker, Share, UsedUp};

/// Limits on fetches.
#[derive(Debug, Clone)]
pub struct FetchLimits {
    /// Fetches talking to Glacier at once.
    pub in_flight: usize,
    /// Fetches waiting for one of those places.
    pub waiting: usize,
    /// How long a fetch waits for its place and its first request's turn, and a retry for its turn.
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

/// Why nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// The queue is as long as it may be.
    #[error("too many fetches are waiting")]
    QueueFull,
    /// The longest wait is over.
    #[error("no fetch ended in time to make place")]
    NoPlace,
    /// The caller's share is used up.
    #[error(transparent)]
    UsedUp(#[from] UsedUp),
    /// The caller's own fetches took too long.
    #[error("no fetch of the caller that started this one ended in time to make place")]
    NoPlaceOfItsOwn,
    /// Glacier throttles, and the turn would not come in time.
    #[error("held back: glacier throttles this account")]
    HeldBack {
        /// When it would have come.
        turn_in: Duration,
    },
}

impl From<NotAdmitted> for UpstreamError {
    fn from(why: NotAdmitted) -> Self {
        let (kind, retry_after) = match why {
            NotAdmitted::QueueFull | NotAdmitted::NoPlace => (UpstreamErrorKind::Overloaded, None),
            NotAdmitted::UsedUp(_) | NotAdmitted::NoPlaceOfItsOwn => (UpstreamErrorKind::OverShare, None),
            NotAdmitted::HeldBack { turn_in } => (UpstreamErrorKind::HeldBack, Some(turn_in)),
        };
        Self { retry_after, ..Self::new(kind, false, why.to_string()) }
    }
}

/// Admits fetches to one upstream.
#[derive(Debug)]
pub struct Admission {
    shares: Arc<Shares>,
    places: Semaphore,
    queue: Mutex<Queue>,
    /// Most that may wait in it.
    most_waiting: usize,
    max_wait: Duration,
    turns: Arc<Mutex<Turns>>,
    metrics: AdmissionMetrics,
}

impl Admission {
    /// Admits as many as `limits` say, and reports to `metrics`.
    pub fn new(limits: &FetchLimits, metrics: AdmissionMetrics) -> Self {
        let turns = Arc::new(Mutex::new(Turns { limit: RateLimit::new(Instant::now()), line: Line::default() }));
        let read = Arc::clone(&turns);
        metrics.read_rate_limit(move || lock(&read).limit.rate(Instant::now()));
        Self {
            shares: Arc::new(Shares::new(limits)),
            places: Semaphore::new(limits.in_flight),
            queue: Mutex::new(Queue::new(limits.max_wait)),
            most_waiting: limits.waiting,
            max_wait: limits.max_wait,
            turns,
            metrics,
        }
    }

    /// A part of the asker's share, for one fetch that starts now; nothing for one without an identity.
    pub fn share(&self, asker: Asker<'_>) -> Result<Option<Share>, NotAdmitted> {
        let taken = self.shares.take(asker, Instant::now());
        taken.map_err(|used_up| self.refused(used_up.into()))
    }

    /// A place among the fetches in flight, for a fetch that counts against this share. Until it is its starter's own turn,
    /// it waits where it is in nobody's way.
    pub async fn enter<'a>(&'a self, share: Option<&'a Share>) -> Result<Place<'a>, NotAdmitted> {
        let until = Instant::now() + self.max_wait;
        let permits = self.permits(share, until).await.map_err(|why| self.refused(why))?;
        Ok(Place {
            admission: self,
            caller: share.map(|share| Arc::clone(share.asker())),
            first_turn_by: until,
            has_asked: AtomicBool::new(false),
            sent: None,
            _permits: permits,
            _counted: self.metrics.in_flight(),
        })
    }

    async fn permits<'a>(&'a self, share: Option<&'a Share>, until: Instant) -> Result<Permits<'a>, NotAdmitted> {
        let own = match share {
            Some(share) => {
                Some(timeout_at(until, share.turn()).await.ok().flatten().ok_or(NotAdmitted::NoPlaceOfItsOwn)?)
            }
            None => None,
        };
        if let Ok(place) = self.places.try_acquire() {
            return Ok(Permits { _place: place, _own: own });
        }
        let mut in_queue = self.join_queue().ok_or(NotAdmitted::QueueFull)?;
        // The outer error is the time running out; the inner one a closed semaphore, and ours never closes.
        let place = timeout_at(until, self.places.acquire()).await.ok().and_then(Result::ok);
        let place = place.ok_or(NotAdmitted::NoPlace)?;
        in_queue.has_place = true;
        Ok(Permits { _place: place, _own: own })
    }

    /// Requests a second that are allowed, if they are limited.
    pub fn rate_limit(&self) -> Option<f64> {
        lock(&self.turns).limit.rate(Instant::now())
    }

    fn join_queue(&self) -> Option<InQueue<'_>> {
        let joins = lock(&self.queue).joins(Instant::now(), self.most_waiting);
        joins.then(|| InQueue { admission: self, has_place: false, _counted: self.metrics.waiting() })
    }

    fn refused(&self, why: NotAdmitted) -> NotAdmitted {
        match why {
            NotAdmitted::QueueFull | NotAdmitted::NoPlace => self.metrics.shed(),
            NotAdmitted::UsedUp(_) | NotAdmitted::NoPlaceOfItsOwn => self.metrics.over_share(),
            NotAdmitted::HeldBack { .. } => self.metrics.held_back(),
        }
        why
    }
}

/// Each of these values is whole between any two statements, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a place consists of.
#[derive(Debug)]
struct Permits<'a> {
    _place: SemaphorePermit<'a>,
    /// The starter's own part of the places, given back with the place.
    _own: Option<SemaphorePermit<'a>>,
}

/// One that waits for a place, until it is dropped.
struct InQueue<'a> {
    admission: &'a Admission,
    has_place: bool,
    _counted: Present,
}

impl Drop for InQueue<'_> {
    fn drop(&mut self) {
        lock(&self.admission.queue).leaves(self.has_place);
    }
}

/// A place in flight, held until it is dropped.
#[derive(Debug)]
pub struct Place<'a> {
    admission: &'a Admission,
    caller: For,
    /// Until when the first request waits for its turn: the fetch has waited for its place already.
    first_turn_by: Instant,
    has_asked: AtomicBool,
    /// Where to note that a request is sent.
    sent: Option<&'a AtomicBool>,
    _permits: Permits<'a>,
    _counted: Present,
}

impl<'a> Place<'a> {
    /// Notes in `sent` once a request is sent.
    #[must_use]
    pub fn noting(self, sent: &'a AtomicBool) -> Self {
        Self { sent: Some(sent), ..self }
    }

    /// The turn to send one request, at the latest at `until`.
    pub async fn turn(&self, until: Instant) -> Result<Turn<'_>, NotAdmitted> {
        let is_retry = self.has_asked.swap(true, Ordering::Relaxed);
        let by = if is_retry { Instant::now() + self.admission.max_wait } else { self.first_turn_by };
        let come = self.come(by.min(until)).await;
        let turns = &*self.admission.turns;
        if let (Ok(_), Some(sent)) = (&come, self.sent) {
            sent.store(true, Ordering::Relaxed);
        }
        come.map(|sent_at| Turn { turns, sent_at })
            .map_err(|turn_in| self.admission.refused(NotAdmitted::HeldBack { turn_in }))
    }

    /// When the turn came, or in what time it would have come.
    async fn come(&self, by: Instant) -> Result<Instant, Duration> {
        let (now, wake) = (Instant::now(), Arc::new(Notify::new()));
        let ticket = match lock(&self.admission.turns).ask(now, by, &self.caller, &wake) {
            Asked::Now => return Ok(now),
            Asked::TooLate(turn_in) => return Err(turn_in),
            Asked::Wait(ticket) => ticket,
        };
        let in_line = InLine { turns: &self.admission.turns, ticket };
        let _counted = self.admission.metrics.waiting();
        loop {
            let now = Instant::now();
            let turn_in = match lock(in_line.turns).wait(now, ticket) {
                None => return Ok(now),
                Some(turn_in) if now >= by => return Err(turn_in),
                Some(turn_in) => turn_in,
            };
            tokio::select! {
                () = wake.notified() => {}
                () = sleep_until(by.min(now + turn_in)) => {}
            }
        }
    }
}

/// The turn to send one request.
#[derive(Debug)]
#[must_use = "Glacier's answer is to be reported"]
pub struct Turn<'a> {
    turns: &'a Mutex<Turns>,
    sent_at: Instant,
}

impl Turn<'_> {
    /// Glacier answered: by throttling, or in any other way. A request that got no answer says nothing.
    pub fn answered(self, throttled: bool) {
        lock(self.turns).answered(Instant::now(), self.sent_at, throttled);
    }
}

/// The rate, and who waits for it.
#[derive(Debug)]
struct Turns {
    limit: RateLimit,
    line: Line,
}

/// What becomes of the wish to send a request.
enum Asked {
    Now,
    Wait(Ticket),
    /// The turn would come in this time.
    TooLate(Duration),
}

impl Turns {
    fn ask(&mut self, now: Instant, by: Instant, caller: &For, wake: &Arc<Notify>) -> Asked {
        self.let_go(now);
        if self.line.is_empty() && self.limit.take(now) {
            match self.limit.rate(now) {
                Some(_) => self.line.passes(caller),
                None => self.line.forget(),
            }
            return Asked::Now;
        }
        let turn_in = self.limit.wait(now, self.line.before(caller));
        if now + turn_in > by { Asked::TooLate(turn_in) } else { Asked::Wait(self.line.join(caller, Arc::clone(wake))) }
    }

    /// How long the turn of this one is still to come; `None` once it has.
    fn wait(&mut self, now: Instant, ticket: Ticket) -> Option<Duration> {
        self.let_go(now);
        self.line.place(ticket).map(|ahead| self.limit.wait(now, ahead))
    }

    fn answered(&mut self, now: Instant, sent_at: Instant, throttled: bool) {
        self.limit.answered(now, sent_at, throttled);
        self.let_go(now);
        // Its turn may come at another time now.
        self.line.wake_first();
    }

    /// Lets all go whose turn has come, and tells the next one that it is the first.
    fn let_go(&mut self, now: Instant) {
        let mut gone = false;
        while !self.line.is_empty() && self.limit.take(now) {
            self.line.let_go();
            gone = true;
        }
        if gone {
            self.line.wake_first();
        }
    }
}

/// One that waits for its turn, until it is dropped.
struct InLine<'a> {
    turns: &'a Mutex<Turns>,
    ticket: Ticket,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        let mut turns = lock(self.turns);
        turns.line.leave(self.ticket);
        turns.line.wake_first();
    }
}

#[cfg(test)]
mod tests;
