//! Random schedules of calls, cancels, answers and clock moves over a paused clock ("Properties" in tests/FAULTS.md).
//!
//! The model is a Glacier whose jobs complete and are forgotten at known times, and which fails, dawdles, hangs and contradicts
//! itself at random. What every caller hears is compared with what that Glacier knew and said, by its own clock.

use std::{
    collections::{HashMap, HashSet},
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use glacier_gateway::{
    cache::{CacheSettings, JobCache},
    clock::{Clock, Moment},
    describe::{DescribeError, DescribeSettings, Describer, Reply},
    freshness::FreshnessSettings,
    job::{Identity, JobKey},
    metrics::DescribeMetrics,
    proto::v1::{DescribeJobResponse, Tier},
    upstream::{Described, Effort, Fetch, JobSource, UpstreamErrorKind, admission::Place},
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
    /// No answer ever comes.
    Hanging,
    /// Whatever is true of the job, this is said.
    Saying(Stage),
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
        2 => Just(Mood::Hanging),
        1 => prop_oneof![Just(Stage::InProgress), Just(Stage::Final), Just(Stage::Gone)].prop_map(Mood::Saying),
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
    /// What Glacier said, in the order in which it was asked.
    said: Mutex<Vec<Said>>,
    fates: HashMap<String, Fate>,
    now: Mutex<(Duration, Mood)>,
    /// Per key: fetches under way, and when the last one began.
    fetches: Mutex<HashMap<String, (usize, Option<Instant>)>>,
    /// The moods that there have been.
    moods: Mutex<HashSet<Mood>>,
    /// What the fetches did wrong. A fetch cannot fail the test itself: its panics are caught.
    violations: Mutex<Vec<String>>,
}

/// What Glacier said about one job.
#[derive(Debug, Clone)]
struct Said {
    key: JobKey,
    asked: Moment,
    stage: Stage,
    /// Whether it was what Glacier knew.
    is_true: bool,
}

impl Model {
    fn completion(&self, key: &JobKey) -> SystemTime {
        SystemTime::UNIX_EPOCH + EPOCH + self.fates[key.job_id()].completes
    }

    /// This moment, dated by Glacier's clock.
    fn now(&self) -> Moment {
        let instant = Instant::now();
        Moment { instant, wall: SystemTime::UNIX_EPOCH + EPOCH + self.start.elapsed() }
    }

    /// What is true of a job.
    fn stage(&self, key: &JobKey) -> Stage {
        self.stage_at(key, Instant::now())
    }

    /// What was true of it then.
    fn stage_at(&self, key: &JobKey, then: Instant) -> Stage {
        let (fate, age) = (self.fates[key.job_id()], then.duration_since(self.start));
        if age < fate.completes {
            Stage::InProgress
        } else if age < fate.forgotten {
            Stage::Final
        } else {
            Stage::Gone
        }
    }

    /// Whether Glacier denied, until `now`, so often and for so long that a job is in one of these stages that it may be
    /// believed.
    fn was_denied_convincingly(&self, key: &JobKey, stages: &[Stage], now: Instant) -> bool {
        let said = self.said.lock().unwrap();
        let of_this = said.iter().filter(|said| said.key == *key && said.asked.instant <= now);
        let mut run: Vec<Instant> = Vec::new();
        for said in of_this {
            if stages.contains(&said.stage) {
                run.clear();
            } else {
                run.push(said.asked.instant);
            }
            if run.len() >= 3 && run[run.len() - 1] - run[0] >= Duration::from_secs(30) {
                return true;
            }
        }
        false
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

impl UnderWay {
    fn begins(model: &Arc<Model>, key: &JobKey) -> Self {
        let mut fetches = model.fetches.lock().unwrap();
        let (under_way, began) = fetches.entry(key.job_id().to_owned()).or_default();
        *under_way += 1;
        let pause = began.replace(Instant::now()).map(|began| began.elapsed());
        let mut violations = model.violations.lock().unwrap();
        if *under_way > 1 {
            violations.push(format!("{under_way} fetches at once of {key:?}"));
        }
        // What contradicts an earlier answer is asked again at once.
        let contradicts = model.moods.lock().unwrap().iter().any(|mood| matches!(mood, Mood::Saying(_)));
        if !contradicts && pause.is_some_and(|pause| pause < Duration::from_secs(1)) {
            violations.push(format!("a fetch of {key:?} only {pause:?} after the last"));
        }
        Self(Arc::clone(model), key.job_id().to_owned())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut fetches = self.0.fetches.lock().unwrap();
        fetches.get_mut(&self.1).unwrap().0 -= 1;
    }
}

impl JobSource for Source {
    fn describe_job<'a>(&'a self, key: JobKey, place: &'a Place<'a>, effort: Effort) -> Fetch<'a> {
        Box::pin(async move {
            let turn = place.turn(effort.until).await?;
            let model = &self.0;
            let _under_way = UnderWay::begins(model, &key);
            let (latency, mood) = *model.now.lock().unwrap();
            let asked = model.now();
            // Glacier may look at the job at any time between question and answer. At once is the worst.
            let stage = match mood {
                Mood::Saying(stage) => stage,
                _ => model.stage(&key),
            };
            let is_true = stage == model.stage(&key);
            let answer = async {
                if mood == Mood::Hanging {
                    pending::<()>().await;
                }
                tokio::time::sleep(latency).await;
            };
            if tokio::time::timeout_at(effort.until, answer).await.is_err() {
                return Err(error(UpstreamErrorKind::TimedOut));
            }
            turn.answered(mood == Mood::Failing(UpstreamErrorKind::Throttled));
            match mood {
                Mood::Well | Mood::Hanging | Mood::Saying(_) => {}
                Mood::Failing(kind) => return Err(error(kind)),
                Mood::Panicking => std::panic::resume_unwind(Box::new("scripted")),
            }
            let job = match stage {
                Stage::InProgress => Ok(running(&key, Tier::Standard)),
                Stage::Final => Ok(succeeded(&key, model.completion(&key))),
                Stage::Gone => Err(error(UpstreamErrorKind::JobNotFound)),
            };
            model.said.lock().unwrap().push(Said { key, asked, stage, is_true });
            Ok(Described { job: job?, asked_at: asked, request_id: None })
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
    came: Instant,
    at: Instant,
    reply: Reply,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Stage {
    InProgress,
    Final,
    Gone,
}

/// What callers have heard of one job so far.
#[derive(Debug, Default)]
struct Told {
    /// Of the last description: when Glacier was asked for it, what it said, and when it was given.
    described: Option<(Instant, Stage, Instant)>,
}

fn check(model: &Model, heard: &Heard, told: &mut Told) {
    let Heard { key, max_age, patience, came, at, reply } = heard;
    let waited = *at - *came;
    assert!(waited <= (*patience).min(MAX_CALL) + Duration::from_millis(50), "answered in time, not after {waited:?}");
    check_wait(model, heard, told);
    let stage = match &reply.result {
        Ok(answer) => {
            let response = DescribeJobResponse::decode(answer.message.message()).unwrap();
            let (job, claimed) = (response.job.unwrap(), SystemTime::try_from(response.observe_time.unwrap()).unwrap());
            assert_eq!(job.job_id(), key.job_id(), "the job that was asked for");
            let stage = if job.completed() { Stage::Final } else { Stage::InProgress };
            let asked = *at - answer.age;
            let said = model.said.lock().unwrap();
            let is_this = |said: &&Said| {
                (&said.key, said.asked, said.stage) == (key, Moment { instant: asked, wall: claimed }, stage)
            };
            let said = said.iter().find(is_this).unwrap_or_else(|| panic!("{stage:?} as of {:?} ago", answer.age));
            let promised = max_age.map(|max_age| max_age.max(Duration::from_secs(1)));
            if said.is_true && stage == Stage::InProgress {
                // Truth by Glacier's clock: since when the answer has been wrong.
                let wrong_for = at.saturating_duration_since(model.start + model.fates[key.job_id()].completes);
                assert!(wrong_for <= answer.age, "an age of {:?}, wrong for {wrong_for:?}", answer.age);
                assert!(promised.is_none_or(|promised| wrong_for <= promised), "{wrong_for:?} for {max_age:?}");
            }
            assert!(promised.is_none_or(|promised| answer.age <= promised), "{:?} for {max_age:?}", answer.age);
            stage
        }
        Err(DescribeError::Expired { completion, .. }) => {
            assert_eq!(*completion, model.completion(key));
            assert!(model.start.elapsed() >= model.fates[key.job_id()].completes + DAY, "expired too early");
            Stage::Gone
        }
        Err(DescribeError::Upstream(error)) if error.kind == UpstreamErrorKind::JobNotFound => Stage::Gone,
        Err(error) => {
            check_error(model, heard, error, told);
            return;
        }
    };
    if let Some((asked, before, _)) = told.described {
        let (backwards, promised_until) = match before {
            // As long as it is kept: what is too old to be given cannot be erased either.
            Stage::InProgress => (false, asked + Duration::from_mins(10)),
            Stage::Final | Stage::Gone => {
                let promised_until = model.start + model.fates[key.job_id()].completes + DAY;
                // An end is remembered for a day more.
                let is_remembered = *at < promised_until.max(asked) + DAY;
                (stage == Stage::InProgress && is_remembered, promised_until)
            }
        };
        // Where the gateway may have been refused meanwhile, what it knew is not given any more and does not count.
        let refused = model.moods.lock().unwrap().contains(&Mood::Failing(UpstreamErrorKind::AccessDenied));
        let broken = backwards || stage == Stage::Gone && *at < promised_until && !refused;
        // What is said instead of an end need not be the same each time.
        let stages: &[Stage] =
            if before == Stage::InProgress { &[Stage::InProgress, Stage::Final] } else { &[Stage::Final] };
        let is_allowed = !broken || model.was_denied_convincingly(key, stages, *at);
        assert!(is_allowed, "{key:?} went from {before:?} to {stage:?}");
    }
    match &reply.result {
        Ok(answer) => told.described = Some((*at - answer.age, stage, *at)),
        Err(_) => told.described = None,
    }
}

const DAY: Duration = Duration::from_hours(24);

/// U28: who accepts any age, and could be given something stale, does not wait for Glacier.
fn check_wait(model: &Model, heard: &Heard, told: &Told) {
    let (Some((asked, _, given)), None) = (told.described, heard.max_age) else { return };
    if !may_have_lost_what_it_knew(model, heard) && given <= heard.came && heard.at - asked < Duration::from_mins(10) {
        let waited = heard.at - heard.came;
        assert!(waited <= Duration::from_millis(550), "waited {waited:?} with something stale at hand");
    }
}

/// Whether what was known may not be given any more: Glacier has refused the gateway, or has said that there is no such job,
/// convincingly or after the time for which it promises to remember it. Perhaps nobody heard it.
fn may_have_lost_what_it_knew(model: &Model, heard: &Heard) -> bool {
    let refused = model.moods.lock().unwrap().contains(&Mood::Failing(UpstreamErrorKind::AccessDenied));
    let promised_until = model.start + model.fates[heard.key.job_id()].completes + DAY;
    let is_end = |said: &Said| {
        said.key == heard.key && said.stage == Stage::Gone && (promised_until..=heard.at).contains(&said.asked.instant)
    };
    let ended = model.said.lock().unwrap().iter().any(is_end);
    refused || ended || model.was_denied_convincingly(&heard.key, &[Stage::Final], heard.at)
}

/// An error is one that there was a reason for.
fn check_error(model: &Model, heard: &Heard, error: &DescribeError, told: &Told) {
    let limit = heard.patience.min(MAX_CALL);
    match error {
        DescribeError::DeadlineExceeded => assert!(heard.at - heard.came >= limit, "gave up too early"),
        DescribeError::Upstream(error) => {
            let moods = model.moods.lock().unwrap();
            let explained = match error.kind {
                UpstreamErrorKind::Panicked => moods.contains(&Mood::Panicking),
                // Slow answers are as good as none.
                UpstreamErrorKind::TimedOut => true,
                UpstreamErrorKind::Contradictory => moods.iter().any(|mood| matches!(mood, Mood::Saying(_))),
                UpstreamErrorKind::HeldBack => moods.contains(&Mood::Failing(UpstreamErrorKind::Throttled)),
                kind => moods.contains(&Mood::Failing(kind)),
            };
            assert!(explained, "{error} without a cause");
        }
        DescribeError::Expired { .. } | DescribeError::Interrupted(_) | DescribeError::FetchPanicked => {
            panic!("{error} is not to be heard here")
        }
    }
    // Where failures may hide behind something stale, whoever accepts any age and has heard an answer a moment ago hears one
    // now.
    if may_have_lost_what_it_knew(model, heard) {
        return;
    }
    if let (Some((asked, ..)), None) = (told.described, heard.max_age) {
        let hidden = match error {
            DescribeError::Upstream(error) => matches!(
                error.kind,
                UpstreamErrorKind::Unavailable
                    | UpstreamErrorKind::TimedOut
                    | UpstreamErrorKind::Throttled
                    | UpstreamErrorKind::HeldBack
                    | UpstreamErrorKind::Contradictory
            ),
            _ => true,
        };
        let age = heard.at - asked;
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
        said: Mutex::default(),
        fates: names.iter().cloned().zip(fates).collect(),
        now: Mutex::new((Duration::from_millis(50), Mood::Well)),
        fetches: Mutex::default(),
        moods: Mutex::default(),
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
                    let came = Instant::now();
                    let deadline = came + patience.min(MAX_CALL);
                    let reply = describer.describe(&key, None, max_age, deadline, pending).await;
                    heard.lock().unwrap().push(Heard { key, max_age, patience, came, at: Instant::now(), reply });
                }));
                tokio::task::yield_now().await;
            }
            Step::Cancel => callers.pop().into_iter().for_each(|caller| caller.abort()),
            Step::Wait(duration) => tokio::time::sleep(duration).await,
            Step::ClockJump(seconds) => clock_is_off.store(seconds, Ordering::SeqCst),
            Step::Glacier { latency, mood } => {
                model.moods.lock().unwrap().insert(mood);
                *model.now.lock().unwrap() = (latency, mood);
            }
        }
    }
    for caller in callers {
        caller.await.expect("a caller's own assertion failed, or it panicked");
    }
    let mut told: HashMap<JobKey, Told> = HashMap::new();
    for heard in heard.lock().unwrap().iter() {
        check(&model, heard, told.entry(heard.key.clone()).or_default());
    }
    let violations = std::mem::take(&mut *model.violations.lock().unwrap());
    assert!(violations.is_empty(), "{violations:#?}");
    trouble_ends(&model, &describer, &names).await;
}

/// Once Glacier is well, nothing that was wrong with it before matters any more: a minute and a half later everybody hears the
/// truth.
async fn trouble_ends(model: &Model, describer: &Describer, names: &[String]) {
    *model.now.lock().unwrap() = (Duration::from_millis(50), Mood::Well);
    let ask = async |name: &str| {
        let deadline = Instant::now() + MAX_CALL;
        describer.describe(&key(name), None, Some(Duration::from_secs(1)), deadline, pending).await
    };
    // As often as contradictory answers are asked for again.
    for _ in 0..9 {
        for name in names {
            let _not_yet = ask(name).await;
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    for name in names {
        let reply = ask(name).await.result;
        let stage = match &reply {
            Ok(answer) => {
                let job = DescribeJobResponse::decode(answer.message.message()).unwrap().job.unwrap();
                if job.completed() { Stage::Final } else { Stage::InProgress }
            }
            Err(DescribeError::Expired { .. }) => Stage::Gone,
            Err(DescribeError::Upstream(error)) if error.kind == UpstreamErrorKind::JobNotFound => Stage::Gone,
            Err(error) => panic!("{error} of {name}, though Glacier has long been well"),
        };
        // What was true when Glacier was asked may not be any more.
        let (now, key) = (Instant::now(), key(name));
        let truth = [model.stage_at(&key, now), model.stage_at(&key, now - Duration::from_secs(1))];
        assert!(truth.contains(&stage), "{name}: {reply:?}, not {truth:?}");
    }
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
