//! Random schedules of calls, cancels, answers and clock moves over a paused clock ("Properties" in faults.md).
//!
//! The model is a Glacier whose jobs complete and are forgotten at known times, and which fails and dawdles at random.
//! What every caller hears is compared with what that Glacier knew.

use std::{
    collections::{HashMap, HashSet},
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use glacier_gateway::{
    cache::{CacheSettings, JobCache},
    clock::Clock,
    describe::{DescribeError, DescribeSettings, Describer, Reply},
    freshness::FreshnessSettings,
    job::{Identity, JobKey},
    metrics::DescribeMetrics,
    proto::v1::{DescribeJobResponse, Tier},
    upstream::{Described, Fetch, JobSource, UpstreamErrorKind},
};
use proptest::prelude::*;
use prost::Message as _;
use tokio::{task::JoinHandle, time::Instant};

use crate::support::fake::{EPOCH, error, key, running, succeeded};

const KEYS: usize = 3;
const MAX_CALL: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
enum Step {
    /// Somebody asks.
    Call { key: usize, patience: Duration, max_age: Option<Duration> },
    /// The latest caller goes away.
    Cancel,
    /// Time goes by.
    Wait(Duration),
    /// The gateway's wall clock is set anew: from now on it is off by this many seconds.
    ClockJump(i64),
    /// From now on Glacier takes this long, and fails or panics or not.
    Glacier { latency: Duration, mood: Mood },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Mood {
    Well,
    Failing(UpstreamErrorKind),
    Panicking,
}

/// When the job of one key completes and is forgotten, counted from the start.
#[derive(Debug, Clone, Copy)]
struct Fate {
    completes: Duration,
    forgotten: Duration,
}

fn duration(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

fn step() -> impl Strategy<Value = Step> {
    let max_age = prop::option::of(duration(0..40_000));
    let call = (0..KEYS, duration(1..15_000), max_age).prop_map(|(key, patience, max_age)| Step::Call {
        key,
        patience,
        max_age,
    });
    let wait = prop_oneof![
        8 => duration(0..3_000),
        4 => duration(3_000..60_000),
        1 => duration(3_600_000..40_000_000),
    ];
    let mood = prop_oneof![
        6 => Just(Mood::Well),
        2 => Just(Mood::Failing(UpstreamErrorKind::Unavailable)),
        1 => Just(Mood::Failing(UpstreamErrorKind::Throttled)),
        1 => Just(Mood::Failing(UpstreamErrorKind::Malformed)),
        1 => Just(Mood::Failing(UpstreamErrorKind::AccessDenied)),
        1 => Just(Mood::Panicking),
    ];
    let glacier = (duration(0..9_000), mood).prop_map(|(latency, mood)| Step::Glacier { latency, mood });
    // An hour either way (C3), and by as little as NTP moves it.
    let jump = prop_oneof![Just(-3600), Just(3600), Just(0), -5..5_i64].prop_map(Step::ClockJump);
    prop_oneof![8 => call, 1 => Just(Step::Cancel), 4 => wait.prop_map(Step::Wait), 2 => glacier, 1 => jump]
}

fn fate() -> impl Strategy<Value = Fate> {
    (duration(0..120_000), duration(86_400_000..90_000_000))
        .prop_map(|(completes, after)| Fate { completes, forgotten: completes + after })
}

/// The emulated truth, and what was asked of it.
struct Model {
    start: Instant,
    /// The gateway's clock, which may be wrong.
    clock: Clock,
    /// By how many seconds it is.
    clock_is_off: Arc<AtomicI64>,
    /// Whether it ever was behind.
    was_behind: AtomicBool,
    /// Per key: when each description was observed, by the gateway's clock and in truth.
    observed: Mutex<Vec<(JobKey, SystemTime, Instant)>>,
    fates: HashMap<String, Fate>,
    now: Mutex<(Duration, Mood)>,
    /// Per key: fetches under way, and when the last one ended.
    fetches: Mutex<HashMap<String, (usize, Option<Instant>)>>,
    /// The moods that there have been.
    moods: Mutex<HashSet<Mood>>,
    /// Per key: when the last description that a caller heard was observed.
    answered: Mutex<HashMap<String, Instant>>,
    /// What the fetches did wrong. A fetch cannot fail the test itself: its panics are caught.
    violations: Mutex<Vec<String>>,
}

impl Model {
    fn completion(&self, key: &JobKey) -> SystemTime {
        SystemTime::UNIX_EPOCH + EPOCH + self.fates[key.job_id()].completes
    }
}

/// What a clock shows that is off by so many seconds.
fn wall(start: Instant, is_off: &AtomicI64) -> SystemTime {
    let truth = SystemTime::UNIX_EPOCH + EPOCH + start.elapsed();
    let seconds = is_off.load(Ordering::SeqCst);
    let off = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { truth - off } else { truth + off }
}

struct Source(Arc<Model>);

/// Notes the end of a fetch, by a panic too.
struct UnderWay(Arc<Model>, String);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut fetches = self.0.fetches.lock().unwrap();
        let (under_way, ended) = fetches.get_mut(&self.1).unwrap();
        *under_way -= 1;
        *ended = Some(Instant::now());
    }
}

impl JobSource for Source {
    fn describe_job(&self, key: JobKey, until: Instant) -> Fetch<'_> {
        let model = Arc::clone(&self.0);
        let (latency, mood) = *model.now.lock().unwrap();
        {
            let mut fetches = model.fetches.lock().unwrap();
            let (under_way, ended) = fetches.entry(key.job_id().to_owned()).or_default();
            *under_way += 1;
            let pause = ended.map(|ended| ended.elapsed());
            let mut violations = model.violations.lock().unwrap();
            if *under_way > 1 {
                violations.push(format!("{under_way} fetches at once of {key:?}"));
            }
            if pause.is_some_and(|pause| pause < Duration::from_secs(1)) {
                violations.push(format!("a fetch of {key:?} only {pause:?} after the last"));
            }
        }
        let under_way = UnderWay(Arc::clone(&model), key.job_id().to_owned());
        Box::pin(async move {
            let _under_way = under_way;
            let asked_at = Instant::now();
            if tokio::time::timeout_at(until, tokio::time::sleep(latency)).await.is_err() {
                return Err(error(UpstreamErrorKind::Unavailable));
            }
            match mood {
                Mood::Well => {}
                Mood::Failing(kind) => return Err(error(kind)),
                Mood::Panicking => std::panic::resume_unwind(Box::new("scripted")),
            }
            let fate = model.fates[key.job_id()];
            let age = model.start.elapsed();
            let job = if age < fate.completes {
                running(&key, Tier::Standard)
            } else if age < fate.forgotten {
                succeeded(&key, model.completion(&key))
            } else {
                return Err(error(UpstreamErrorKind::JobNotFound));
            };
            let observed_at = model.clock.now();
            model.observed.lock().unwrap().push((key, observed_at.wall, observed_at.instant));
            Ok(Described { job, asked_at, observed_at, request_id: None })
        })
    }

    fn identity(&self) -> Identity {
        Identity::default()
    }
}

/// What one caller heard.
struct Heard {
    key: JobKey,
    max_age: Option<Duration>,
    patience: Duration,
    waited: Duration,
    at: Instant,
    reply: Reply,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    InProgress,
    Final,
    Gone,
}

fn check(model: &Model, heard: &Heard) -> Option<Stage> {
    let Heard { key, max_age, patience, waited, at, reply } = heard;
    assert!(*waited <= (*patience).min(MAX_CALL) + Duration::from_millis(50), "answered in time, not after {waited:?}");
    let answer = match &reply.result {
        Ok(answer) => answer,
        Err(DescribeError::Expired { completion, .. }) => {
            // A clock that is behind has taken the completion for one in the future, which is none.
            let is_behind = model.was_behind.load(Ordering::SeqCst);
            assert!(*completion == Some(model.completion(key)) || is_behind && completion.is_none(), "{completion:?}");
            return Some(Stage::Gone);
        }
        Err(DescribeError::Upstream(error)) if error.kind == UpstreamErrorKind::JobNotFound => {
            return Some(Stage::Gone);
        }
        Err(error) => {
            check_error(model, heard, error);
            return None;
        }
    };
    let response = DescribeJobResponse::decode(answer.message.message()).unwrap();
    let job = response.job.unwrap();
    let claimed = SystemTime::try_from(response.observe_time.unwrap()).unwrap();
    assert_eq!(job.job_id(), key.job_id(), "the job that was asked for");
    // Truth knows nothing of what was done to the clock.
    let observed = *at - answer.age;
    let observations = model.observed.lock().unwrap();
    let is_this =
        |(of, wall, instant): &&(JobKey, SystemTime, Instant)| of == key && *wall == claimed && *instant == observed;
    assert!(observations.iter().any(|o| is_this(&o)), "an answer of {claimed:?}, {:?} ago", answer.age);
    if let Some(max_age) = max_age {
        assert!(answer.age <= (*max_age).max(Duration::from_secs(1)), "{:?} for {max_age:?}", answer.age);
    }
    let completion = model.completion(key);
    model.answered.lock().unwrap().insert(key.job_id().to_owned(), observed);
    let observed_in_truth = SystemTime::UNIX_EPOCH + EPOCH + observed.duration_since(model.start);
    assert_eq!(job.completed(), observed_in_truth >= completion, "what Glacier knew when it was observed");
    Some(if job.completed() { Stage::Final } else { Stage::InProgress })
}

/// An error is one that there was a reason for.
fn check_error(model: &Model, heard: &Heard, error: &DescribeError) {
    let limit = heard.patience.min(MAX_CALL);
    match error {
        DescribeError::DeadlineExceeded => assert!(heard.waited >= limit, "gave up after {:?}", heard.waited),
        DescribeError::Upstream(error) => {
            let moods = model.moods.lock().unwrap();
            let explained = match error.kind {
                UpstreamErrorKind::Panicked => moods.contains(&Mood::Panicking),
                // Slow answers end as unavailable, too.
                UpstreamErrorKind::Unavailable => true,
                kind => moods.contains(&Mood::Failing(kind)),
            };
            assert!(explained, "{error} without a cause");
        }
        DescribeError::Expired { .. } | DescribeError::Interrupted | DescribeError::FetchPanicked => {
            panic!("{error} is not to be heard here")
        }
    }
    // Where failures may hide behind something stale, whoever accepts any age and has heard an answer a moment ago hears one
    // now; unless Glacier may have refused the gateway meanwhile, which ends what was known.
    if model.moods.lock().unwrap().contains(&Mood::Failing(UpstreamErrorKind::AccessDenied)) {
        return;
    }
    if let (Some(last), None) = (model.answered.lock().unwrap().get(heard.key.job_id()), heard.max_age) {
        let hidden = match error {
            DescribeError::Upstream(error) => {
                matches!(error.kind, UpstreamErrorKind::Unavailable | UpstreamErrorKind::Throttled)
            }
            _ => true,
        };
        let age = heard.at.duration_since(*last);
        assert!(!hidden || age >= Duration::from_mins(10), "{error}, though there is an answer of {age:?}");
    }
}

async fn play(fates: Vec<Fate>, steps: Vec<Step>) {
    let (start, clock_is_off) = (Instant::now(), Arc::new(AtomicI64::new(0)));
    let clock = Clock::with_wall({
        let clock_is_off = Arc::clone(&clock_is_off);
        move || wall(start, &clock_is_off)
    });
    let names: Vec<_> = (0..KEYS).map(|n| format!("job-{n}")).collect();
    let model = Arc::new(Model {
        start,
        clock: clock.clone(),
        clock_is_off,
        was_behind: AtomicBool::new(false),
        observed: Mutex::default(),
        fates: names.iter().cloned().zip(fates).collect(),
        now: Mutex::new((Duration::from_millis(50), Mood::Well)),
        fetches: Mutex::default(),
        moods: Mutex::default(),
        answered: Mutex::default(),
        violations: Mutex::default(),
    });
    let cache = JobCache::new(&CacheSettings::default(), FreshnessSettings::default(), clock.clone());
    let settings = DescribeSettings::default();
    let describer = Describer::new(
        Arc::new(Source(Arc::clone(&model))),
        cache,
        clock.clone(),
        &settings,
        &DescribeMetrics::default(),
    );
    // In the order in which the answers were given.
    let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
    let mut callers: Vec<JoinHandle<()>> = Vec::new();
    for step in steps {
        match step {
            Step::Call { key: n, patience, max_age } => {
                let (describer, heard, key) = (describer.clone(), Arc::clone(&heard), key(&names[n]));
                callers.push(tokio::spawn(async move {
                    let start = Instant::now();
                    let deadline = start + patience.min(MAX_CALL);
                    let reply = describer.describe(&key, None, max_age, deadline, pending).await;
                    let (waited, at) = (start.elapsed(), Instant::now());
                    heard.lock().unwrap().push(Heard { key, max_age, patience, waited, at, reply });
                }));
                tokio::task::yield_now().await;
            }
            Step::Cancel => callers.pop().into_iter().for_each(|caller| caller.abort()),
            Step::Wait(duration) => tokio::time::sleep(duration).await,
            Step::ClockJump(seconds) => {
                model.clock_is_off.store(seconds, Ordering::SeqCst);
                model.was_behind.fetch_or(seconds < 0, Ordering::SeqCst);
            }
            Step::Glacier { latency, mood } => {
                model.moods.lock().unwrap().insert(mood);
                *model.now.lock().unwrap() = (latency, mood);
            }
        }
    }
    for caller in callers {
        caller.await.expect("a caller's own assertion failed, or it panicked");
    }
    let mut reached: HashMap<String, Stage> = HashMap::new();
    for heard in heard.lock().unwrap().iter() {
        let Some(stage) = check(&model, heard) else { continue };
        if let Some(before) = reached.get(heard.key.job_id()) {
            assert!(stage >= *before, "{:?} went from {before:?} back to {stage:?}", heard.key);
        }
        reached.insert(heard.key.job_id().to_owned(), stage);
    }
    let violations = model.violations.lock().unwrap();
    assert!(violations.is_empty(), "{violations:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_schedule_keeps_the_promises(
        fates in prop::collection::vec(fate(), KEYS),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(play(fates, steps));
    }
}
