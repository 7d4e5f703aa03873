//! Answers are as new as they say, and Glacier's contradictions are neither believed at once nor disbelieved for ever; with the
//! clock paused.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use glacier_gateway::{
    describe::{
        CacheStatus, DescribeError, DescribeSettings, FetchLimits, Forwarded, Interruption, Reply, StaleBecause,
    },
    job::{Identity, JobKey},
    proto::v1::{GlacierJobDescription, StatusCode, Tier},
    upstream::{Effort, Fetch, JobSource, UpstreamError, UpstreamErrorKind, admission::Place},
};
use tokio::time::Instant;

use crate::support::fake::{Bench, error, job, key, paused_clock, running, succeeded};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

type Answer = Result<GlacierJobDescription, UpstreamError>;

/// An upstream whose answers are in this list, the last of them for ever.
fn scripted(answers: Vec<fn(&JobKey) -> Answer>) -> Bench {
    Bench::new(move |key, call| {
        let answer = answers[call.min(answers.len() - 1)](&key);
        async move { answer }
    })
}

#[expect(clippy::unnecessary_wraps, reason = "one of several answers")]
fn in_progress(key: &JobKey) -> Answer {
    Ok(running(key, Tier::Bulk))
}

/// Completed when the tests' time started.
#[expect(clippy::unnecessary_wraps, reason = "one of several answers")]
fn completed(key: &JobKey) -> Answer {
    Ok(succeeded(key, std::time::SystemTime::UNIX_EPOCH + crate::support::fake::EPOCH))
}

/// The same with a tier that nobody knows.
fn completed_oddly(key: &JobKey) -> Answer {
    completed(key).map(|mut job| {
        job.unrecognized_values.insert("Tier".to_owned(), "Instant".to_owned());
        job
    })
}

fn gone(_: &JobKey) -> Answer {
    Err(error(UpstreamErrorKind::JobNotFound))
}

fn kind(reply: &Reply) -> Option<UpstreamErrorKind> {
    match &reply.result {
        Err(DescribeError::Upstream(error)) => Some(error.kind),
        _ => None,
    }
}

/// An upstream that looks at a job at once, and takes as long as `takes` says for the answer, given the number of the call. The
/// job completes after a second.
fn dawdling(takes: impl Fn(usize) -> Duration + Send + Sync + 'static) -> Bench {
    let start = Instant::now();
    Bench::new(move |key, call| {
        let job = if start.elapsed() < SECOND { in_progress(&key) } else { completed(&key) };
        let takes = takes(call);
        async move {
            tokio::time::sleep(takes).await;
            job
        }
    })
}

/// K14.
#[tokio::test(start_paused = true)]
async fn a_caller_gets_no_answer_that_was_asked_for_before_its_max_age_allows() {
    let bench = dawdling(|call| if call == 0 { 2600 * MS } else { 50 * MS });
    let patient = bench.spawn_ask(&key("job"), 5 * SECOND);
    tokio::time::sleep(2500 * MS).await;
    let reply = bench.ask_within(&key("job"), SECOND).await;
    assert_eq!(job(&reply).status_code(), StatusCode::Succeeded, "what has been true since 1.5 s");
    assert_eq!(reply.result.unwrap().age, 50 * MS);
    assert_eq!(bench.calls(), 2, "it waited for the fetch under way, and for the next");
    let reply = patient.await.unwrap();
    assert_eq!(job(&reply).status_code(), StatusCode::InProgress, "no max_age was broken here,");
    assert_eq!(reply.result.unwrap().age, 2600 * MS, "and the answer says how old it is");
}

/// K14.
#[tokio::test(start_paused = true)]
async fn a_caller_joins_a_fetch_that_was_sent_late_enough() {
    let bench = dawdling(|_| 600 * MS);
    let first = bench.spawn_ask(&key("job"), 5 * SECOND);
    tokio::time::sleep(300 * MS).await;
    let reply = bench.ask_within(&key("job"), SECOND).await;
    assert_eq!(reply.status, CacheStatus::Forwarded { reason: Forwarded::Miss, collapsed: true, stored: true });
    assert_eq!(reply.result.unwrap().age, 600 * MS);
    first.await.unwrap().result.unwrap();
    assert_eq!(bench.calls(), 1);
}

/// K14.
#[tokio::test(start_paused = true)]
async fn an_answer_exactly_as_old_as_the_caller_accepts_is_given() {
    let bench = dawdling(|_| SECOND);
    let reply = bench.ask_within(&key("job"), SECOND).await;
    assert_eq!(reply.status, CacheStatus::Forwarded { reason: Forwarded::Miss, collapsed: false, stored: true });
    assert_eq!((reply.result.unwrap().age, bench.calls()), (SECOND, 1));
}

/// K14: what was young enough when the caller came is not when it is given up waiting.
#[tokio::test(start_paused = true)]
async fn something_stale_that_became_too_old_meanwhile_is_not_given() {
    let bench = || async {
        let bench = Bench::new(|key, call| async move {
            if call > 0 {
                std::future::pending::<()>().await;
            }
            in_progress(&key)
        });
        bench.ask(&key("job")).await.result.unwrap();
        tokio::time::sleep(40 * SECOND).await;
        bench
    };
    let max_age = Some(40_200 * MS);
    let slow = bench().await;
    assert_eq!(kind(&slow.ask_within(&key("job"), 40_200 * MS).await), Some(UpstreamErrorKind::TimedOut));
    let short = bench().await;
    let deadline = Instant::now() + 2 * SECOND;
    let reply = short.describer.describe(&key("job"), None, max_age, deadline, std::future::pending).await;
    assert_eq!(reply.result, Err(DescribeError::DeadlineExceeded));
    assert_eq!(Instant::now(), deadline, "and no sooner");
    let draining = bench().await;
    let deadline = Instant::now() + 9 * SECOND;
    let stop = async || {
        tokio::time::sleep(300 * MS).await;
        Interruption::Draining
    };
    let reply = draining.describer.describe(&key("job"), None, max_age, deadline, stop).await;
    assert_eq!(reply.result, Err(DescribeError::Interrupted(Interruption::Draining)));
}

/// K14: no answer of a Glacier that takes two seconds is known to be true for a second.
#[tokio::test(start_paused = true)]
async fn where_glacier_takes_longer_than_max_age_the_caller_hears_that() {
    let bench = dawdling(|_| 2 * SECOND);
    let reply = bench.ask_within(&key("job"), SECOND).await;
    assert_eq!((kind(&reply), bench.calls()), (Some(UpstreamErrorKind::TimedOut), 2));
    assert!(bench.ask_within(&key("job"), 3 * SECOND).await.result.is_ok(), "whoever accepts that gets it");
    assert_eq!(bench.calls(), 2);
}

/// K14: what Glacier refuses is dated by its request like what it describes, not by when the fetch began to wait for its turn.
#[tokio::test(start_paused = true)]
async fn the_age_of_a_refusal_does_not_count_the_wait_for_its_turn() {
    for refusal in [UpstreamErrorKind::JobNotFound, UpstreamErrorKind::AccessDenied] {
        let limits = FetchLimits { in_flight: 1, ..FetchLimits::default() };
        let settings = DescribeSettings { limits, ..DescribeSettings::default() };
        let bench = Bench::with_settings(&settings, move |key, _| async move {
            if key.job_id() == "other" {
                tokio::time::sleep(900 * MS).await;
                return in_progress(&key);
            }
            tokio::time::sleep(200 * MS).await;
            Err(error(refusal))
        });
        let other = bench.spawn_ask(&key("other"), 5 * SECOND);
        tokio::task::yield_now().await;
        let reply = bench.ask_within(&key("job"), SECOND).await;
        assert_eq!((kind(&reply), bench.calls()), (Some(refusal), 2));
        other.await.unwrap().result.unwrap();
    }
}

/// U28.
#[tokio::test(start_paused = true)]
async fn while_glacier_hangs_something_stale_is_given_soon_and_it_is_asked_less_and_less() {
    let attempts: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let noted = Arc::clone(&attempts);
    let bench = Bench::new(move |key, call| {
        noted.lock().unwrap().push(Instant::now());
        async move {
            if (1..8).contains(&call) {
                std::future::pending::<()>().await;
            }
            in_progress(&key)
        }
    });
    bench.ask(&key("job")).await.result.unwrap();
    tokio::time::sleep(60 * SECOND).await;
    let mut slow = 0;
    loop {
        let asked = Instant::now();
        let reply = bench.ask(&key("job")).await;
        assert!(asked.elapsed() <= 500 * MS, "{:?}", asked.elapsed());
        match reply.status {
            CacheStatus::Stale { because: StaleBecause::Slow, .. } => slow += 1,
            // In the time for which it is not asked.
            CacheStatus::Stale { because: StaleBecause::Error, .. } => {}
            // It hangs no more.
            CacheStatus::Forwarded { reason: Forwarded::Stale, collapsed: false, stored: true } => break,
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(100 * MS).await;
    }
    assert!(slow > 50, "{slow}");
    // The budget of a fetch, 8 s, and 1, 2, 4, 8, 16, 30 s, and as long as it takes until somebody asks.
    let attempts = attempts.lock().unwrap().clone();
    let pauses: Vec<_> = attempts[1..].windows(2).map(|pair| (pair[1] - pair[0]).as_secs() - 8).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
    let reply = bench.ask(&key("job")).await;
    assert!(matches!(reply.status, CacheStatus::Hit { .. }), "{:?}", reply.status);
}

/// Fails as its script says, and notes whether it might have repeated its requests.
struct Failing {
    script: Mutex<Vec<UpstreamErrorKind>>,
    repeats: Arc<Mutex<Vec<bool>>>,
}

impl JobSource for Failing {
    fn describe_job<'a>(&'a self, _: JobKey, _: &'a Place<'a>, effort: Effort) -> Fetch<'a> {
        self.repeats.lock().unwrap().push(effort.repeats);
        let kind = self.script.lock().unwrap().remove(0);
        Box::pin(async move { Err(error(kind)) })
    }

    fn identity(&self) -> Identity {
        Identity::default()
    }
}

/// U28.
#[tokio::test(start_paused = true)]
async fn while_glacier_hangs_a_fetch_only_finds_out_whether_it_still_does() {
    use UpstreamErrorKind::{TimedOut, Unavailable};
    let repeats: Arc<Mutex<Vec<bool>>> = Arc::default();
    let script = Mutex::new(vec![Unavailable, TimedOut, TimedOut, Unavailable, Unavailable]);
    let source = Failing { script, repeats: Arc::clone(&repeats) };
    let bench = Bench::over(Arc::new(source), paused_clock(), Arc::default(), &DescribeSettings::default());
    for _ in 0..5 {
        let reply = bench.ask(&key("job")).await;
        tokio::time::sleep(reply.retry_in.unwrap()).await;
    }
    assert_eq!(*repeats.lock().unwrap(), [true, true, false, false, true]);
}

/// U28: whoever has nothing else to hear, hears when to come again.
#[tokio::test(start_paused = true)]
async fn while_nothing_is_asked_the_error_says_for_how_long() {
    let bench = Bench::new(|_, _| std::future::pending::<Answer>());
    for expected in [1, 2, 4] {
        assert_eq!(kind(&bench.ask(&key("job")).await), Some(UpstreamErrorKind::TimedOut));
        let reply = bench.ask(&key("job")).await;
        assert_eq!((reply.status, reply.retry_in), (CacheStatus::Cooldown, Some(expected * SECOND)));
        tokio::time::sleep(expected * SECOND).await;
    }
}

/// RFC 5861's stale-while-revalidate: the fetch goes on, and its answer is kept.
#[tokio::test(start_paused = true)]
async fn a_slow_answer_is_there_for_the_next_caller() {
    let bench = Bench::new(|key, call| async move {
        if call > 0 {
            tokio::time::sleep(2 * SECOND).await;
        }
        in_progress(&key)
    });
    bench.ask(&key("job")).await.result.unwrap();
    tokio::time::sleep(40 * SECOND).await;
    let reply = bench.ask(&key("job")).await;
    let since = 10 * SECOND + 500 * MS;
    assert_eq!(reply.status, CacheStatus::Stale { since, because: StaleBecause::Slow });
    tokio::time::sleep(1600 * MS).await;
    assert_eq!(bench.ask(&key("job")).await.status, CacheStatus::Hit { ttl: 27_900 * MS });
    // Whoever accepts nothing stale waits.
    let reply = bench.ask_within(&key("job"), SECOND).await;
    assert_eq!(kind(&reply), Some(UpstreamErrorKind::TimedOut), "2 s are more than 1 s");
}

#[tokio::test(start_paused = true)]
async fn how_long_one_waits_before_something_stale_is_given_can_be_set() {
    let settings = DescribeSettings { stale_after: 3 * SECOND, ..DescribeSettings::default() };
    let bench = Bench::with_settings(&settings, |key, call| async move {
        if call > 0 {
            std::future::pending::<()>().await;
        }
        in_progress(&key)
    });
    bench.ask(&key("job")).await.result.unwrap();
    tokio::time::sleep(40 * SECOND).await;
    let asked = Instant::now();
    bench.ask(&key("job")).await.result.unwrap();
    assert_eq!(asked.elapsed(), 3 * SECOND);
}

/// U29.
#[tokio::test(start_paused = true)]
async fn one_wrong_completion_is_corrected_within_a_minute_however_often_somebody_asks() {
    let bench = scripted(vec![completed_oddly, in_progress]);
    assert_eq!(job(&bench.ask(&key("job")).await).status_code(), StatusCode::Succeeded);
    tokio::time::sleep(10 * SECOND).await;
    let contradicted_at = Instant::now();
    let mut contradictory = 0;
    loop {
        let (reply, insisting) = (bench.ask(&key("job")).await, bench.ask_within(&key("job"), SECOND).await);
        if job(&reply).status_code() == StatusCode::InProgress {
            assert!(insisting.result.is_ok());
            break;
        }
        assert_eq!(kind(&insisting), Some(UpstreamErrorKind::Contradictory));
        contradictory += 1;
        tokio::time::sleep(SECOND).await;
    }
    assert_eq!((contradicted_at.elapsed(), contradictory), (30 * SECOND, 30));
    assert_eq!(bench.calls(), 1 + 2 + 3, "one confirmation, and then one every ten seconds");
}

/// U30.
#[tokio::test(start_paused = true)]
async fn one_404_erases_nothing_that_glacier_promises_to_remember() {
    for known in [in_progress, completed as fn(&JobKey) -> Answer] {
        let bench = scripted(vec![known, gone, known]);
        let before = job(&bench.ask(&key("job")).await);
        tokio::time::sleep(60 * SECOND).await;
        let reply = bench.ask_within(&key("job"), SECOND).await;
        assert_eq!((job(&reply), bench.calls()), (before, 3), "it was a slip, as the next answer shows");
    }
}

/// U30.
#[tokio::test(start_paused = true)]
async fn a_404_that_is_repeated_is_told_to_who_insists_and_in_the_end_to_everybody() {
    let bench = scripted(vec![completed, gone]);
    bench.ask(&key("job")).await.result.unwrap();
    tokio::time::sleep(60 * SECOND).await;
    let insist = async || bench.ask_within(&key("job"), SECOND).await;
    for _ in 0..3 {
        let reply = insist().await;
        assert_eq!(kind(&reply), Some(UpstreamErrorKind::Contradictory));
        assert_eq!(reply.retry_in, Some(10 * SECOND));
        assert!(matches!(bench.ask(&key("job")).await.status, CacheStatus::Hit { .. }), "everybody else");
        tokio::time::sleep(10 * SECOND).await;
    }
    assert_eq!(kind(&insist().await), Some(UpstreamErrorKind::JobNotFound), "not expired: its day is not over");
    assert_eq!(kind(&bench.ask(&key("job")).await), Some(UpstreamErrorKind::JobNotFound));
}

/// U30, U22.
#[tokio::test(start_paused = true)]
async fn a_job_expires_no_sooner_than_glacier_may_forget_it() {
    let bench = scripted(vec![completed, gone]);
    bench.ask(&key("job")).await.result.unwrap();
    tokio::time::sleep(86_399 * SECOND).await;
    assert_eq!(kind(&bench.ask_within(&key("job"), SECOND).await), Some(UpstreamErrorKind::Contradictory));
    tokio::time::sleep(10 * SECOND).await;
    let completion = paused_clock().now().wall - bench.clock.now().instant.elapsed();
    let reply = bench.ask(&key("job")).await;
    let Err(DescribeError::Expired { completion: told, .. }) = reply.result else { panic!("{reply:?}") };
    assert_eq!(told, completion);
}

/// U22: Glacier promises a day, and may remember for longer.
#[tokio::test(start_paused = true)]
async fn a_job_that_glacier_forgets_days_after_its_completion_has_expired_at_once() {
    let completion = paused_clock().now().wall - 3 * 86_400 * SECOND;
    let bench = Bench::new(move |key, call| {
        let created = Some((completion - SECOND).into());
        let job = GlacierJobDescription { creation_date: created, ..succeeded(&key, completion) };
        let answer = if call == 0 { Ok(job) } else { gone(&key) };
        async move { answer }
    });
    assert_eq!(job(&bench.ask(&key("job")).await).status_code(), StatusCode::Succeeded);
    tokio::time::sleep(301 * SECOND).await;
    let reply = bench.ask(&key("job")).await;
    assert!(matches!(reply.result, Err(DescribeError::Expired { .. })), "{reply:?}");
    assert_eq!(bench.calls(), 2, "nothing to confirm");
}
