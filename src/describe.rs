//! The use case: what do we know about this job, is it fresh enough, and who is already asking?
//!
//! Fresh knowledge answers at once. Otherwise the caller joins, or starts, *the one fetch* for the job and waits for it
//! under its own deadline. A fetch is a detached task with a budget of its own ([`flights`]): no caller can cancel it,
//! shorten it or be charged for it. What it learns is stored before anybody hears of it.

use std::{fmt, pin::pin, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use crate::{
    cache::{Given, JobCache, Knowledge, Learnt},
    clock::Clock,
    freshness::Usability,
    job::JobKey,
    metrics::DescribeMetrics,
    upstream::{JobSource, UpstreamError, UpstreamErrorKind},
};

mod answer;
mod flights;

pub use crate::upstream::admission::{Asker, FetchLimits};
pub use answer::{Answer, CacheStatus, DescribeError, Forwarded, Interruption, NotForwarded, Reply, StaleBecause};
use flights::{Flights, Joined, Purpose};

/// Settings of the use case.
#[derive(Debug, Clone)]
pub struct DescribeSettings {
    /// How long one fetch may take, all attempts included. Callers' deadlines neither shorten nor lengthen it.
    pub fetch_budget: Duration,
    /// How long a caller waits for Glacier who could be given something stale.
    pub stale_after: Duration,
    /// How many fetches there may be at once.
    pub limits: FetchLimits,
}

impl Default for DescribeSettings {
    fn default() -> Self {
        // Below the 10 s that a caller may wait, so that a waiter hears why Glacier did not answer.
        // A healthy Glacier answers in a tenth of `stale_after`.
        Self {
            fetch_budget: Duration::from_secs(8),
            stale_after: Duration::from_millis(500),
            limits: FetchLimits::default(),
        }
    }
}

/// Answers what is known about jobs. Cheap to clone.
#[derive(Clone)]
pub struct Describer {
    cache: JobCache,
    flights: Arc<Flights>,
    stale_after: Duration,
    metrics: DescribeMetrics,
}

impl fmt::Debug for Describer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Describer").field("cache", &self.cache).finish_non_exhaustive()
    }
}

impl Describer {
    /// A use case that asks `source`, remembers in `cache`, and reports to `metrics`.
    pub fn new(
        source: Arc<dyn JobSource>,
        cache: JobCache,
        clock: Clock,
        settings: &DescribeSettings,
        metrics: &DescribeMetrics,
    ) -> Self {
        let flights = Arc::new(Flights::new(source, cache.clone(), clock, settings, metrics.clone()));
        Self { cache, flights, stale_after: settings.stale_after, metrics: metrics.clone() }
    }

    /// Describes a job to a caller who waits until `deadline`, or until `stop` returns, and accepts an answer of at most
    /// `max_age`; `None` leaves that to policy, and values below the floor are raised to it. A fetch that this starts counts
    /// against the `asker`'s share.
    pub async fn describe(
        &self,
        key: &JobKey,
        asker: Asker<'_>,
        max_age: Option<Duration>,
        deadline: Instant,
        stop: impl AsyncFnOnce() -> Interruption,
    ) -> Reply {
        let reply = self.answer(key, asker, max_age, deadline, stop).await;
        self.metrics.answered(reply.status.outcome(), reply.result.as_ref().ok().map(|answer| answer.age));
        reply
    }

    async fn answer(
        &self,
        key: &JobKey,
        asker: Asker<'_>,
        max_age: Option<Duration>,
        deadline: Instant,
        stop: impl AsyncFnOnce() -> Interruption,
    ) -> Reply {
        let max_age = max_age.map(|age| age.max(self.cache.settings().max_age_floor));
        // What is known about `-` belongs to the account that it stood for at the time.
        let key = &key.under(self.flights.identity());
        let reason = match self.look_up(key, max_age) {
            LookUp::Fresh { reply, refresh } => {
                if fastrand::f64() < refresh {
                    self.refresh_in_background(key, asker);
                }
                return reply;
            }
            LookUp::Settled(reply) => return reply,
            LookUp::Ask(reason) => reason,
        };
        // Boxed, so that a hit does not carry about the room that waiting takes.
        Box::pin(self.answer_in_time(key, asker, max_age, deadline, stop, reason)).await
    }

    /// The answer that somebody has to wait for, or what there is when the time is over.
    async fn answer_in_time(
        &self,
        key: &JobKey,
        asker: Asker<'_>,
        max_age: Option<Duration>,
        deadline: Instant,
        stop: impl AsyncFnOnce() -> Interruption,
        reason: Forwarded,
    ) -> Reply {
        let waiting = async {
            let mut was_too_old = false;
            loop {
                match self.ask(key, asker, max_age, reason).await {
                    Ok(reply) => return reply,
                    // What it joined was asked for too early. What was asked for after that took too long.
                    Err(NotForThisCaller::TooOld) if was_too_old => return too_old(reason),
                    Err(NotForThisCaller::TooOld) => was_too_old = true,
                    // What it joined never got its turn, because of who had started it; who may start it again first.
                    Err(NotForThisCaller::NoTurn) => {}
                }
            }
        };
        let without = |error| {
            let sent = self.flights.has_sent(key);
            let not_sent = CacheStatus::NotForwarded(NotForwarded::NotSent);
            Reply::error(error, if sent { CacheStatus::unstored(reason, false) } else { not_sent })
        };
        tokio::select! {
            biased;
            reply = waiting => reply,
            stale = self.time_is_over(key, max_age, deadline, reason) => {
                stale.unwrap_or_else(|| without(DescribeError::DeadlineExceeded))
            }
            interruption = stop() => {
                let stale = self.stale(key, max_age, interruption.into());
                stale.unwrap_or_else(|| without(DescribeError::Interrupted(interruption)))
            }
        }
    }

    /// Joins or starts the fetch and waits for its outcome.
    async fn ask(
        &self,
        key: &JobKey,
        asker: Asker<'_>,
        max_age: Option<Duration>,
        reason: Forwarded,
    ) -> Result<Reply, NotForThisCaller> {
        // Knowledge may have arrived since we looked; looking again under the flights' lock makes "at most one fetch per
        // key" exact.
        let settled = || match self.look_up(key, max_age) {
            LookUp::Fresh { reply, .. } | LookUp::Settled(reply) => Some(reply),
            LookUp::Ask(_) => None,
        };
        let (mut flight, collapsed) = match self.flights.join_or_start(key, asker, Purpose::Answer, settled) {
            Joined::Settled(reply) => return Ok(reply),
            Joined::Started(flight) => (flight, false),
            Joined::Already(flight) => (flight, true),
            Joined::OverShare(error) => {
                let status = CacheStatus::failed(reason, false, &error);
                return Ok(self.instead_of(key, max_age, Arc::new(error), status));
            }
        };
        match flight.landed().await {
            // That was the share of whoever started it.
            Some(Err(error)) if collapsed && error.kind == UpstreamErrorKind::OverShare => {
                Err(NotForThisCaller::NoTurn)
            }
            Some(Ok(knowledge)) => forwarded(&knowledge, max_age, reason, collapsed),
            Some(Err(error)) => {
                let status = CacheStatus::failed(reason, collapsed, &error);
                Ok(self.instead_of(key, max_age, error, status))
            }
            None => Ok(Reply::error(DescribeError::FetchPanicked, CacheStatus::unstored(reason, collapsed))),
        }
    }

    /// What the store alone can say.
    fn look_up(&self, key: &JobKey, max_age: Option<Duration>) -> LookUp {
        let Some(knowledge) = self.cache.get(key) else { return LookUp::Ask(Forwarded::Miss) };
        let now = Instant::now();
        let usability = knowledge.learnt.as_ref().map(|l| l.lifetime.judge(l.age(now), max_age));
        let reason = match (usability, &knowledge.learnt) {
            (Some(Usability::Fresh { ttl }), Some(learnt)) => {
                let refresh = Self::refresh_probability(&knowledge, now);
                return LookUp::Fresh { reply: reply(&knowledge, learnt, now, CacheStatus::Hit { ttl }), refresh };
            }
            (Some(Usability::TooOldForCaller), _) => Forwarded::Request,
            (Some(Usability::Stale { .. }), _) => Forwarded::Stale,
            (Some(Usability::Fresh { .. } | Usability::Unusable) | None, _) => Forwarded::Miss,
        };
        match knowledge.cooling(now) {
            Some(failure) => {
                let error = Arc::clone(&failure.error);
                LookUp::Settled(stale_or_error(&knowledge, now, max_age, error, CacheStatus::Cooldown))
            }
            None => LookUp::Ask(reason),
        }
    }

    /// How likely a hit on this should start a refresh. What cannot change, or is not a description, is not refreshed early;
    /// nor is anything just after a failure.
    fn refresh_probability(knowledge: &Knowledge, now: Instant) -> f64 {
        let Some(learnt) = &knowledge.learnt else { return 0.0 };
        if learnt.may_change() && knowledge.cooling(now).is_none() {
            learnt.lifetime.refresh_probability(learnt.age(now))
        } else {
            0.0
        }
    }

    /// Starts a fetch that nobody waits for, unless one is under way or has just ended, or the asker has enough of them. While
    /// Glacier throttles, turns are for those who wait.
    fn refresh_in_background(&self, key: &JobKey, asker: Asker<'_>) {
        if self.flights.is_limited() {
            return;
        }
        let is_due = || {
            let now = Instant::now();
            self.cache.get(key).is_some_and(|knowledge| Self::refresh_probability(&knowledge, now) > 0.0)
        };
        let _nobody_waits = self.flights.join_or_start(key, asker, Purpose::Refresh, || (!is_due()).then_some(()));
    }

    /// The fetch failed: something stale, or the error.
    fn instead_of(
        &self,
        key: &JobKey,
        max_age: Option<Duration>,
        error: Arc<UpstreamError>,
        status: CacheStatus,
    ) -> Reply {
        match self.cache.get(key) {
            Some(knowledge) => stale_or_error(&knowledge, Instant::now(), max_age, error, status),
            None => Reply::error(DescribeError::Upstream(error), status),
        }
    }

    /// Resolves with something stale once that is better than waiting, or at the deadline if there is nothing to give.
    ///
    /// It is better after a while (RFC 5861's "stale-while-revalidate"), and just before the deadline: the caller has a timer
    /// of its own, which started first, so an answer at our deadline would come too late.
    async fn time_is_over(
        &self,
        key: &JobKey,
        max_age: Option<Duration>,
        deadline: Instant,
        reason: Forwarded,
    ) -> Option<Reply> {
        let now = Instant::now();
        let last = deadline - HEAD_START.min(deadline.saturating_duration_since(now) / 10);
        // Where nothing stale was known, or nothing that this caller accepts, none will be after a while.
        let slow = (reason == Forwarded::Stale).then_some(now + self.stale_after).filter(|slow| *slow < last);
        // One timer for all: each costs a system call.
        let mut timer = pin!(sleep_until(slow.unwrap_or(last)));
        if slow.is_some() {
            timer.as_mut().await;
            if let Some(stale) = self.stale(key, max_age, StaleBecause::Slow) {
                return Some(stale);
            }
            timer.as_mut().reset(last);
        }
        timer.as_mut().await;
        let stale = self.stale(key, max_age, StaleBecause::Deadline);
        if stale.is_none() {
            timer.as_mut().reset(deadline);
            timer.await;
        }
        stale
    }

    fn stale(&self, key: &JobKey, max_age: Option<Duration>, because: StaleBecause) -> Option<Reply> {
        self.cache.get(key).and_then(|known| stale(&known, Instant::now(), max_age, because))
    }
}

/// How long before the deadline something stale is given, at most: time for it to arrive.
const HEAD_START: Duration = Duration::from_millis(100);

/// Why what a fetch brought is nothing for a caller who waited for it.
enum NotForThisCaller {
    /// It was asked for longer ago than the caller accepts.
    TooOld,
    /// The caller joined it, and it was not begun because of the share of whoever started it.
    NoTurn,
}

/// The answer that a fetch brought. Its age counts from when Glacier was asked, which may have been before this caller came.
fn forwarded(
    knowledge: &Knowledge,
    max_age: Option<Duration>,
    reason: Forwarded,
    collapsed: bool,
) -> Result<Reply, NotForThisCaller> {
    let (now, status) = (Instant::now(), CacheStatus::Forwarded { reason, collapsed, stored: true });
    match &knowledge.learnt {
        Some(learnt) if max_age.is_some_and(|limit| learnt.age(now) > limit) => Err(NotForThisCaller::TooOld),
        Some(learnt) => Ok(reply(knowledge, learnt, now, status)),
        // A fetch that landed well has stored something; this is unreachable, and says so without a panic.
        None => Ok(Reply::error(DescribeError::FetchPanicked, status)),
    }
}

/// Glacier takes longer to answer than the caller lets answers age.
fn too_old(reason: Forwarded) -> Reply {
    let detail = "glacier takes longer to answer than the caller's max_age";
    let error = UpstreamError::new(UpstreamErrorKind::TimedOut, true, detail);
    Reply::error(DescribeError::Upstream(Arc::new(error)), CacheStatus::unstored(reason, false))
}

enum LookUp {
    /// Fresh; `refresh` is the probability with which the hit should start a refresh.
    Fresh {
        reply: Reply,
        refresh: f64,
    },
    /// Not fresh, but nobody is to be asked at the moment.
    Settled(Reply),
    Ask(Forwarded),
}

/// Gives what was learnt, whatever kind of knowledge it is.
fn reply(knowledge: &Knowledge, learnt: &Learnt, now: Instant, status: CacheStatus) -> Reply {
    let age = learnt.age(now);
    let result = match &learnt.given {
        Given::Description { message, is_final: _ } => Ok(Answer { message: message.clone(), age }),
        Given::Absence(error) => Err(DescribeError::absent(error, knowledge.end, now)),
        Given::Denial(error) => Err(DescribeError::Upstream(Arc::clone(error))),
    };
    Reply { result, status, retry_in: None }
}

/// Something stale in place of an error, where policy and the caller allow it.
fn stale_or_error(
    knowledge: &Knowledge,
    now: Instant,
    max_age: Option<Duration>,
    error: Arc<UpstreamError>,
    status: CacheStatus,
) -> Reply {
    if error.kind.may_hide_behind_stale()
        && let Some(reply) = stale(knowledge, now, max_age, StaleBecause::Error)
    {
        return reply;
    }
    let retry_in = knowledge.cooling(now).map(|failure| failure.over_at() - now);
    Reply { retry_in, ..Reply::error(DescribeError::Upstream(error), status) }
}

fn stale(knowledge: &Knowledge, now: Instant, max_age: Option<Duration>, because: StaleBecause) -> Option<Reply> {
    let learnt = knowledge.learnt.as_ref()?;
    let status = match learnt.lifetime.judge(learnt.age(now), max_age) {
        Usability::Stale { since } => CacheStatus::Stale { since, because },
        // What was learnt became fresh while this caller waited for something else.
        Usability::Fresh { ttl } => CacheStatus::Hit { ttl },
        Usability::TooOldForCaller | Usability::Unusable => return None,
    };
    Some(reply(knowledge, learnt, now, status))
}
