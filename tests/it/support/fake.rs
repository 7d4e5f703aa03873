//! An upstream in memory, for tests that pause the clock: no sockets, no real time.

use std::{
    future::{Future, pending},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use glacier_gateway::{
    cache::{CacheSettings, JobCache},
    clock::Clock,
    describe::{Asker, DescribeSettings, Describer, Reply},
    freshness::FreshnessSettings,
    job::{Identity, JobKey},
    metrics::DescribeMetrics,
    proto::v1::{DescribeJobResponse, GlacierJobDescription, StatusCode, Tier},
    upstream::{Described, Effort, Fetch, JobSource, UpstreamError, UpstreamErrorKind, admission::Place},
};
use prost::Message as _;
use tokio::time::Instant;

/// 2026-01-01, when the tests' wall clock starts.
pub(crate) const EPOCH: Duration = Duration::from_hours(490_896);

/// A source whose answers are made by a function of (key, call number, fetch's end).
pub(crate) struct FakeSource<F> {
    answer: F,
    clock: Clock,
    calls: Arc<AtomicUsize>,
}

impl<F, A> JobSource for FakeSource<F>
where
    F: Fn(JobKey, usize) -> A + Send + Sync + 'static,
    A: Future<Output = Result<GlacierJobDescription, UpstreamError>> + Send + 'static,
{
    fn describe_job<'a>(&'a self, key: JobKey, place: &'a Place<'a>, effort: Effort) -> Fetch<'a> {
        Box::pin(async move {
            let turn = place.turn(effort.until).await?;
            let call = self.calls.fetch_add(1, Ordering::SeqCst);
            let (asked_at, answer) = (self.clock.now(), (self.answer)(key, call));
            let Ok(answer) = tokio::time::timeout_at(effort.until, answer).await else {
                return Err(error(UpstreamErrorKind::TimedOut));
            };
            turn.answered(answer.as_ref().is_err_and(|error| error.kind == UpstreamErrorKind::Throttled));
            let job = answer.map_err(|error| UpstreamError { asked_at: Some(asked_at.instant), ..error })?;
            Ok(Described { job, asked_at, request_id: None })
        })
    }

    fn identity(&self) -> Identity {
        Identity::default()
    }
}

/// A use case before a fake upstream.
pub(crate) struct Bench {
    pub(crate) describer: Describer,
    pub(crate) cache: JobCache,
    pub(crate) clock: Clock,
    pub(crate) calls: Arc<AtomicUsize>,
}

impl Bench {
    /// Answers are made by `answer` from the key and the number of the call, beginning with 0.
    pub(crate) fn new<F, A>(answer: F) -> Self
    where
        F: Fn(JobKey, usize) -> A + Send + Sync + 'static,
        A: Future<Output = Result<GlacierJobDescription, UpstreamError>> + Send + 'static,
    {
        Self::with_settings(&DescribeSettings::default(), answer)
    }

    pub(crate) fn with_settings<F, A>(settings: &DescribeSettings, answer: F) -> Self
    where
        F: Fn(JobKey, usize) -> A + Send + Sync + 'static,
        A: Future<Output = Result<GlacierJobDescription, UpstreamError>> + Send + 'static,
    {
        Self::with_clock(paused_clock(), settings, answer)
    }

    pub(crate) fn with_clock<F, A>(clock: Clock, settings: &DescribeSettings, answer: F) -> Self
    where
        F: Fn(JobKey, usize) -> A + Send + Sync + 'static,
        A: Future<Output = Result<GlacierJobDescription, UpstreamError>> + Send + 'static,
    {
        let calls = Arc::new(AtomicUsize::new(0));
        let source = FakeSource { answer, clock: clock.clone(), calls: Arc::clone(&calls) };
        Self::over(Arc::new(source), clock, calls, settings)
    }

    /// A use case before another source, which counts its `calls`.
    pub(crate) fn over(
        source: Arc<dyn JobSource>,
        clock: Clock,
        calls: Arc<AtomicUsize>,
        settings: &DescribeSettings,
    ) -> Self {
        let freshness = FreshnessSettings { jitter: 0.0, ..FreshnessSettings::default() };
        let cache = JobCache::new(&CacheSettings::default(), freshness, clock.clone());
        let describer = Describer::new(source, cache.clone(), clock.clone(), settings, &DescribeMetrics::default());
        Self { describer, cache, clock, calls }
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// A call whose caller waits ten seconds and accepts what policy accepts.
    pub(crate) async fn ask(&self, key: &JobKey) -> Reply {
        self.describer.describe(key, None, None, Instant::now() + Duration::from_secs(10), pending).await
    }

    /// A call whose caller waits ten seconds and accepts an answer of at most `max_age`.
    pub(crate) async fn ask_within(&self, key: &JobKey, max_age: Duration) -> Reply {
        self.describer.describe(key, None, Some(max_age), Instant::now() + Duration::from_secs(10), pending).await
    }

    /// A call that runs by itself, whose caller waits `patience`.
    pub(crate) fn spawn_ask(&self, key: &JobKey, patience: Duration) -> tokio::task::JoinHandle<Reply> {
        self.spawn_ask_as(None, key, patience)
    }

    /// The same by a caller of this identity.
    pub(crate) fn spawn_ask_as(
        &self,
        asker: Asker<'_>,
        key: &JobKey,
        patience: Duration,
    ) -> tokio::task::JoinHandle<Reply> {
        let (describer, key, asker) = (self.describer.clone(), key.clone(), asker.cloned());
        tokio::spawn(
            async move { describer.describe(&key, asker.as_ref(), None, Instant::now() + patience, pending).await },
        )
    }
}

/// A wall clock that goes with tokio's paused clock.
pub(crate) fn paused_clock() -> Clock {
    let start = Instant::now();
    Clock::with_wall(move || SystemTime::UNIX_EPOCH + EPOCH + start.elapsed())
}

pub(crate) fn key(job: &str) -> JobKey {
    JobKey::parse("-", "vault", job).unwrap()
}

pub(crate) fn error(kind: UpstreamErrorKind) -> UpstreamError {
    UpstreamError::new(kind, true, "scripted")
}

/// A job in progress, created an hour before the tests' time starts.
pub(crate) fn running(key: &JobKey, tier: Tier) -> GlacierJobDescription {
    GlacierJobDescription {
        job_id: Some(key.job_id().to_owned()),
        completed: Some(false),
        creation_date: Some((SystemTime::UNIX_EPOCH + EPOCH - Duration::from_hours(1)).into()),
        status_code: StatusCode::InProgress.into(),
        tier: tier.into(),
        ..GlacierJobDescription::default()
    }
}

/// A job that succeeded this long after the tests' time started (negative: before).
pub(crate) fn succeeded(key: &JobKey, completion: SystemTime) -> GlacierJobDescription {
    GlacierJobDescription {
        completed: Some(true),
        completion_date: Some(completion.into()),
        status_code: StatusCode::Succeeded.into(),
        ..running(key, Tier::Standard)
    }
}

/// The decoded answer of a reply that must be one.
pub(crate) fn answer(reply: &Reply) -> DescribeJobResponse {
    DescribeJobResponse::decode(reply.result.as_ref().unwrap().message.message()).unwrap()
}

/// The job in the answer of a reply that must be one.
pub(crate) fn job(reply: &Reply) -> GlacierJobDescription {
    answer(reply).job.unwrap()
}
