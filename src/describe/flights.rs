//! Fetches under way, at most one per job.
//!
//! A fetch runs in a task of its own and tells all who wait through a watch channel. Waiters come and go without touching
//! it. moka's own coalescing is not used: there the fetch lives inside the first caller's future and dies with it.

use std::{
    collections::{HashMap, hash_map::Entry},
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use crate::{
    cache::{Description, Finding, JobCache, Knowledge, Observation, Rejected},
    clock::{Clock, Moment},
    job::{Identity, JobKey},
    metrics::DescribeMetrics,
    telemetry::LineBudget,
    traces,
    upstream::{
        Described, Effort, GlacierMessage, JobSource, UpstreamError, UpstreamErrorKind,
        admission::{Admission, Asker, Share},
    },
};

/// What a fetch brought: knowledge, already stored, or the failure.
pub(super) type Landed = Result<Knowledge, Arc<UpstreamError>>;

/// The fetches under way.
pub(super) struct Flights {
    source: Arc<dyn JobSource>,
    cache: JobCache,
    clock: Clock,
    admission: Admission,
    budget: Duration,
    metrics: DescribeMetrics,
    /// For failed fetches.
    log: LineBudget,
    under_way: Mutex<HashMap<JobKey, Flight>>,
}

/// A waiter's end of a fetch.
#[derive(Clone)]
pub(super) struct Flight {
    told: watch::Receiver<Option<Landed>>,
    /// Whether a request was sent.
    sent: Arc<AtomicBool>,
}

/// What a fetch is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Somebody waits for an answer.
    Answer,
    /// Nobody waits: what is known is to stay fresh.
    Refresh,
}

/// What became of the wish to fetch.
pub(super) enum Joined<S> {
    /// There is no need any more.
    Settled(S),
    /// A fetch was started.
    Started(Flight),
    /// Somebody had started one.
    Already(Flight),
    /// There would be one more than the asker may start.
    OverShare(UpstreamError),
}

impl Flight {
    /// Waits for the fetch to end. `None` if it panicked.
    pub(super) async fn landed(&mut self) -> Option<Landed> {
        self.told.wait_for(Option::is_some).await.ok().and_then(|landed| landed.clone())
    }
}

impl Flights {
    pub(super) fn new(
        source: Arc<dyn JobSource>,
        cache: JobCache,
        clock: Clock,
        settings: &super::DescribeSettings,
        metrics: DescribeMetrics,
    ) -> Self {
        Self {
            source,
            cache,
            clock,
            admission: Admission::new(&settings.limits, metrics.admission().clone()),
            budget: settings.fetch_budget,
            metrics,
            log: LineBudget::default(),
            under_way: Mutex::default(),
        }
    }

    /// Whose account `-` stands for now.
    pub(super) fn identity(&self) -> Identity {
        self.source.identity()
    }

    /// Whether requests are scarce, since Glacier throttles.
    pub(super) fn is_limited(&self) -> bool {
        self.admission.rate_limit().is_some()
    }

    /// Whether a fetch for `key` is under way that has sent something.
    pub(super) fn has_sent(&self, key: &JobKey) -> bool {
        self.lock().get(key).is_some_and(|flight| flight.sent.load(Ordering::Relaxed))
    }

    /// Joins the fetch for `key`, or starts it on the asker's share, unless `settled` finds that there is no need: it is
    /// asked once nobody else can start or end a fetch.
    pub(super) fn join_or_start<S>(
        self: &Arc<Self>,
        key: &JobKey,
        asker: Asker<'_>,
        purpose: Purpose,
        settled: impl FnOnce() -> Option<S>,
    ) -> Joined<S> {
        let mut under_way = self.lock();
        let vacant = match under_way.entry(key.clone()) {
            Entry::Occupied(flight) => return Joined::Already(flight.get().clone()),
            Entry::Vacant(vacant) => vacant,
        };
        if let Some(settled) = settled() {
            return Joined::Settled(settled);
        }
        let share = match self.admission.share(asker) {
            Ok(share) => share,
            Err(used_up) => return Joined::OverShare(used_up.into()),
        };
        let (tell, told) = watch::channel(None);
        let flight = Flight { told, sent: Arc::default() };
        vacant.insert(flight.clone());
        drop(under_way);
        let (landing, sent) =
            (Landing { flights: Arc::clone(self), key: key.clone(), share }, Arc::clone(&flight.sent));
        // The span of the call that this is done for goes along.
        tokio::spawn(traces::current().carry(async move {
            let landed = landing.flights.fetch(&landing.key, landing.share.as_ref(), &sent).await;
            match purpose {
                Purpose::Answer => {}
                Purpose::Refresh => landing.flights.metrics.refreshed(landed.is_ok()),
            }
            // First off the list and its share given back, then told: whoever hears of the end and asks again starts a new
            // fetch. What was learnt is in the cache already.
            drop(landing);
            tell.send_replace(Some(landed));
        }));
        Joined::Started(flight)
    }

    async fn fetch(&self, key: &JobKey, share: Option<&Share>, sent: &AtomicBool) -> Landed {
        let started = self.clock.now().instant;
        // While Glacier hangs, a fetch only finds out whether it still does.
        let repeats = !self.cache.get(key).is_some_and(|known| known.is_hanging(started));
        let effort = Effort { until: started + self.budget, repeats };
        let mut outcome = self.ask_and_learn(key, share, effort, sent).await;
        if let Err(NotLearnt::Contradictory { first: true, error }) = outcome {
            // Perhaps a slip. One more answer shows.
            outcome = match self.ask_and_learn(key, share, effort, sent).await {
                // Nor can it be asked for: what Glacier did say stands, and has its cool-down.
                Err(NotLearnt::Failed(again)) if matches!(again.kind.verdict(), Verdict::NotAsked) => {
                    Err(NotLearnt::Contradictory { first: true, error })
                }
                shown => shown,
            };
        }
        let error = match outcome {
            Ok(knowledge) => return Ok(knowledge),
            Err(NotLearnt::Failed(error) | NotLearnt::Contradictory { first: _, error }) => Arc::new(error),
        };
        let now = self.clock.now().instant;
        log_failure(&self.log, key, share, &error, now.saturating_duration_since(started));
        match error.kind.verdict() {
            // Whoever asks next may find a place.
            Verdict::NotAsked => {}
            Verdict::Absent | Verdict::Denied | Verdict::Failure => {
                self.cache.observe_failure(key, Arc::clone(&error), now);
            }
        }
        Err(error)
    }

    /// Asks Glacier once, and takes in what it says.
    async fn ask_and_learn(
        &self,
        key: &JobKey,
        share: Option<&Share>,
        effort: Effort,
        sent: &AtomicBool,
    ) -> Result<Knowledge, NotLearnt> {
        let began = self.clock.now();
        let answer = self.ask(key, share, effort, sent).await;
        let unbelievable = unbelievable(&answer);
        let observation = match answer {
            Ok(Described { job, asked_at, request_id: _ }) => {
                self.metrics.unrecognized(job.unrecognized_values.len());
                Observation { finding: Finding::Described(Description::new(job, asked_at.wall)), asked_at }
            }
            Err(error) => {
                let finding = match error.kind.verdict() {
                    Verdict::Absent => Finding::Absent,
                    Verdict::Denied => Finding::Denied,
                    Verdict::NotAsked | Verdict::Failure => return Err(NotLearnt::Failed(error)),
                };
                let elapsed = self.clock.now().instant.saturating_duration_since(began.instant);
                log_failure(&self.log, key, share, &error, elapsed);
                // Its date by Glacier's clock matters to nobody.
                let asked_at = Moment { instant: error.asked_at.unwrap_or(began.instant), ..began };
                Observation { finding: finding(Arc::new(error)), asked_at }
            }
        };
        match self.cache.observe(key, observation) {
            // Something newer is known already, so it answers better than what was fetched.
            (knowledge, None | Some(Rejected::Older)) => Ok(knowledge),
            (_, Some(Rejected::Contradictory { first })) => {
                self.metrics.contradicted();
                Err(NotLearnt::Contradictory { first, error: unbelievable })
            }
        }
    }

    /// Asks Glacier, unless this replica has enough to do or the account has had enough.
    async fn ask(
        &self,
        key: &JobKey,
        share: Option<&Share>,
        effort: Effort,
        sent: &AtomicBool,
    ) -> Result<Described, UpstreamError> {
        let asking = async {
            let place = self.admission.enter(share).await?.noting(sent);
            self.source.describe_job(key.clone(), &place, effort).await
        };
        // Whatever the source does: it ends in time, and its panics are failures like others.
        match AssertUnwindSafe(timeout_at(effort.until, asking)).catch_unwind().await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_elapsed)) => {
                let sent = sent.load(Ordering::Relaxed);
                Err(UpstreamError::new(UpstreamErrorKind::TimedOut, sent, "the fetch's budget is spent"))
            }
            Err(_panic) => Err(UpstreamError::new(UpstreamErrorKind::Panicked, true, "panicked; see the log")),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobKey, Flight>> {
        // The map is whole between any two statements, so a panic elsewhere does not spoil it.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a fetch brought nothing.
enum NotLearnt {
    /// Glacier could not be asked, or gave no answer.
    Failed(UpstreamError),
    /// Its answer contradicts what is known.
    Contradictory {
        /// For the first time.
        first: bool,
        error: UpstreamError,
    },
}

/// The error in place of an answer that contradicts what is known.
fn unbelievable(answer: &Result<Described, UpstreamError>) -> UpstreamError {
    let kind = UpstreamErrorKind::Contradictory;
    match answer {
        Ok(Described { request_id, .. }) => {
            let detail = "glacier described a completed job as not completed";
            UpstreamError { request_id: request_id.clone(), ..UpstreamError::new(kind, true, detail) }
        }
        Err(error) => {
            let detail = "glacier does not know a job that it promises to remember".to_owned();
            UpstreamError { kind, detail, ..error.clone() }
        }
    }
}

/// Takes a fetch off the list and gives its share back when it ends, by a panic too.
struct Landing {
    flights: Arc<Flights>,
    key: JobKey,
    share: Option<Share>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.flights.lock().remove(&self.key);
    }
}

/// What an upstream error is to the cache.
enum Verdict {
    /// Knowledge: it is not there.
    Absent,
    /// Knowledge: we may not ask.
    Denied,
    /// Nothing was learnt.
    Failure,
    /// This replica did not get to ask: no reason to ask later than as soon as there is place.
    NotAsked,
}

impl UpstreamErrorKind {
    fn verdict(self) -> Verdict {
        match self {
            Self::JobNotFound | Self::VaultNotFound => Verdict::Absent,
            Self::AccessDenied => Verdict::Denied,
            Self::HeldBack | Self::Overloaded | Self::OverShare => Verdict::NotAsked,
            Self::InvalidParameter
            | Self::Throttled
            | Self::Unavailable
            | Self::TimedOut
            | Self::Contradictory
            | Self::TlsFailed
            | Self::CredentialsUnavailable
            | Self::CredentialsExpired
            | Self::ClockSkewed
            | Self::CredentialsRejected
            | Self::ClosedToAccount
            | Self::Malformed
            | Self::WrongJob
            | Self::Panicked
            | Self::Unexpected => Verdict::Failure,
        }
    }

    /// Whether something stale may be given in place of this error: only where Glacier could not be asked, had no time, or is
    /// not believed yet. Any other answer of Glacier's, or one that makes no sense, is never hidden.
    pub(super) fn may_hide_behind_stale(self) -> bool {
        match self {
            Self::Throttled
            | Self::Unavailable
            | Self::TimedOut
            | Self::Contradictory
            | Self::TlsFailed
            | Self::CredentialsUnavailable
            | Self::HeldBack
            | Self::Overloaded
            | Self::OverShare => true,
            Self::InvalidParameter
            | Self::JobNotFound
            | Self::VaultNotFound
            | Self::AccessDenied
            | Self::CredentialsExpired
            | Self::ClockSkewed
            | Self::CredentialsRejected
            | Self::ClosedToAccount
            | Self::Malformed
            | Self::WrongJob
            | Self::Panicked
            | Self::Unexpected => false,
        }
    }
}

/// Once per failed fetch, here, whoever waits for it. "Not there" is an answer, not trouble.
fn log_failure(log: &LineBudget, key: &JobKey, share: Option<&Share>, error: &UpstreamError, elapsed: Duration) {
    let elapsed_ms = elapsed.as_millis();
    let UpstreamError {
        kind,
        detail,
        sent,
        asked_at: _,
        retry_after: _,
        http_status,
        glacier_code,
        request_id,
        message,
        region: _,
    } = error;
    let (kind, code, aws_request_id) = (kind.name(), glacier_code.as_deref(), request_id.as_deref());
    let glacier_message = message.as_ref().map(GlacierMessage::for_log);
    match error.kind.verdict() {
        Verdict::Absent => {
            tracing::debug!(
                job = key.as_str(),
                kind,
                code,
                glacier_message,
                aws_request_id,
                elapsed_ms,
                "glacier does not know the job"
            );
        }
        // A flood of these must not become a flood of warnings.
        Verdict::NotAsked => tracing::debug!(job = key.as_str(), kind, detail, "a fetch was not begun"),
        Verdict::Denied | Verdict::Failure => {
            // Whoever asks about jobs that Glacier refuses could fill the log; of accounts to ask about, it has as many as it likes.
            let Some(one_in) = log.one_in((kind, share.map(Share::asker)), Instant::now()) else { return };
            let one_in = (one_in > 1).then_some(one_in);
            tracing::warn!(
                job = key.as_str(),
                kind,
                detail,
                sent,
                http_status,
                code,
                glacier_message,
                aws_request_id,
                elapsed_ms,
                one_in,
                "the fetch from glacier failed"
            );
        }
    }
}
