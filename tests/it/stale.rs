//! What is given while Glacier fails, what never is, and for how long things are believed; with the clock paused.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use glacier_gateway::{
    clock::Clock,
    describe::{CacheStatus, DescribeError, DescribeSettings, Forwarded, Interruption, Reply, StaleBecause},
    job::JobKey,
    proto::v1::{GlacierJobDescription, StatusCode, Tier},
    upstream::{UpstreamError, UpstreamErrorKind},
};

use crate::support::fake::{Bench, error, job, key, paused_clock, running, succeeded};

const SECOND: Duration = Duration::from_secs(1);

/// What the upstream says from now on.
#[derive(Clone)]
struct Script(Arc<Mutex<Says>>);

type Says = Box<dyn Fn(&JobKey) -> Result<GlacierJobDescription, UpstreamError> + Send>;

impl Script {
    fn bench() -> (Self, Bench) {
        let script = Self(Arc::new(Mutex::new(Box::new(|key| Ok(running(key, Tier::Standard))))));
        let says = script.clone();
        let bench = Bench::new(move |key, _| {
            let answer = (says.0.lock().unwrap())(&key);
            async move { answer }
        });
        (script, bench)
    }

    fn says(&self, answer: impl Fn(&JobKey) -> Result<GlacierJobDescription, UpstreamError> + Send + 'static) {
        *self.0.lock().unwrap() = Box::new(answer);
    }

    fn fails(&self, kind: UpstreamErrorKind) {
        self.says(move |_| Err(error(kind)));
    }
}

fn kind(reply: &Reply) -> UpstreamErrorKind {
    match &reply.result {
        Err(DescribeError::Upstream(error)) => error.kind,
        other => panic!("expected an upstream error, not {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_miss_becomes_hits_and_then_a_refresh() {
    let (_, bench) = Script::bench();
    let status = async |bench: &Bench| bench.ask(&key("job")).await.status;
    let miss = CacheStatus::Forwarded { reason: Forwarded::Miss, collapsed: false, stored: true };
    assert_eq!(status(&bench).await, miss);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(status(&bench).await, CacheStatus::Hit { ttl: 20 * SECOND });
    tokio::time::sleep(20 * SECOND).await;
    let refreshed = CacheStatus::Forwarded { reason: Forwarded::Stale, collapsed: false, stored: true };
    assert_eq!(status(&bench).await, refreshed);
    assert_eq!(bench.calls(), 2);
}

/// U2, U3, U4, U9, C6.
#[tokio::test(start_paused = true)]
async fn what_is_known_is_given_while_glacier_cannot_be_asked() {
    use UpstreamErrorKind::{CredentialsUnavailable, Overloaded, Throttled, TimedOut, TlsFailed, Unavailable};
    for failure in [Unavailable, TimedOut, Throttled, TlsFailed, CredentialsUnavailable, Overloaded] {
        let (script, bench) = Script::bench();
        bench.ask(&key("job")).await.result.unwrap();
        script.fails(failure);
        tokio::time::sleep(70 * SECOND).await;
        let reply = bench.ask(&key("job")).await;
        assert_eq!(
            reply.status,
            CacheStatus::Stale { since: 40 * SECOND, because: StaleBecause::Error },
            "{failure:?}"
        );
        assert_eq!(reply.result.unwrap().age, 70 * SECOND);
        assert!(matches!(bench.ask(&key("job")).await.status, CacheStatus::Stale { .. }));
        // During the cooldown nobody asks; a fetch that this replica had no place for begins none.
        assert_eq!(bench.calls(), if failure == Overloaded { 3 } else { 2 });
    }
}

/// U13, U22, U23, U24, U25, U26, C8: an answer of Glacier's, or nonsense, is not hidden.
#[tokio::test(start_paused = true)]
async fn no_answer_of_glaciers_hides_behind_something_stale() {
    use UpstreamErrorKind as Kind;
    let kinds = [
        Kind::AccessDenied,
        Kind::InvalidParameter,
        Kind::ClosedToAccount,
        Kind::Malformed,
        Kind::WrongJob,
        Kind::CredentialsRejected,
        Kind::CredentialsExpired,
        Kind::ClockSkewed,
        Kind::Unexpected,
    ];
    for failure in kinds {
        let (script, bench) = Script::bench();
        bench.ask(&key("job")).await.result.unwrap();
        script.fails(failure);
        tokio::time::sleep(70 * SECOND).await;
        assert_eq!(kind(&bench.ask(&key("job")).await), failure);
    }
}

/// K13.
#[tokio::test(start_paused = true)]
async fn past_the_stale_window_the_error_is_told_until_the_first_success() {
    let (script, bench) = Script::bench();
    bench.ask(&key("job")).await.result.unwrap();
    script.fails(UpstreamErrorKind::Unavailable);
    tokio::time::sleep(629 * SECOND).await;
    assert!(matches!(bench.ask(&key("job")).await.status, CacheStatus::Stale { .. }));
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(kind(&bench.ask(&key("job")).await), UpstreamErrorKind::Unavailable);
    script.says(|key| Ok(running(key, Tier::Standard)));
    tokio::time::sleep(SECOND).await;
    assert!(bench.ask(&key("job")).await.result.is_ok());
}

#[tokio::test(start_paused = true)]
async fn max_age_is_kept_even_while_glacier_is_down() {
    let (script, bench) = Script::bench();
    bench.ask(&key("job")).await.result.unwrap();
    script.fails(UpstreamErrorKind::Unavailable);
    tokio::time::sleep(15 * SECOND).await;
    // Fresh by policy, too old for this caller.
    let reply = bench.ask_within(&key("job"), 10 * SECOND).await;
    assert_eq!(kind(&reply), UpstreamErrorKind::Unavailable);
    assert_eq!(reply.status, CacheStatus::Forwarded { reason: Forwarded::Request, collapsed: false, stored: false });
    // In the cooldown too.
    assert_eq!(kind(&bench.ask_within(&key("job"), 10 * SECOND).await), UpstreamErrorKind::Unavailable);
    assert!(bench.ask_within(&key("job"), 20 * SECOND).await.result.is_ok());
    tokio::time::sleep(45 * SECOND).await;
    assert!(bench.ask_within(&key("job"), 61 * SECOND).await.result.is_ok(), "stale, and young enough");
    assert!(bench.ask_within(&key("job"), 59 * SECOND).await.result.is_err());
}

/// U22.
#[tokio::test(start_paused = true)]
async fn a_job_that_is_not_there_is_asked_about_every_five_seconds() {
    let (script, bench) = Script::bench();
    script.fails(UpstreamErrorKind::JobNotFound);
    for _ in 0..100 {
        assert_eq!(kind(&bench.ask(&key("job")).await), UpstreamErrorKind::JobNotFound);
        tokio::time::sleep(SECOND / 10).await;
    }
    assert_eq!(bench.calls(), 2);
}

/// U22: a tombstone if we saw it complete.
#[tokio::test(start_paused = true)]
async fn a_job_seen_complete_and_then_gone_has_expired() {
    let completion = paused_clock().now().wall;
    let (script, bench) = Script::bench();
    script.says(move |key| Ok(succeeded(key, completion)));
    bench.ask(&key("job")).await.result.unwrap();
    script.fails(UpstreamErrorKind::JobNotFound);
    tokio::time::sleep(86_399 * SECOND).await;
    assert!(matches!(bench.ask(&key("job")).await.status, CacheStatus::Hit { .. }));
    assert_eq!(bench.calls(), 1, "nothing is asked about what cannot change");
    tokio::time::sleep(2 * SECOND).await;
    for _ in 0..3 {
        match bench.ask(&key("job")).await.result {
            Err(DescribeError::Expired { completion: told, .. }) => assert_eq!(told, completion),
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(6 * SECOND).await;
    }
    assert_eq!(bench.calls(), 4);
}

/// U22: another vault's absence says nothing about the job.
#[tokio::test(start_paused = true)]
async fn a_vanished_vault_is_not_an_expired_job() {
    let completion = paused_clock().now().wall;
    let (script, bench) = Script::bench();
    script.says(move |key| Ok(succeeded(key, completion)));
    bench.ask(&key("job")).await.result.unwrap();
    script.fails(UpstreamErrorKind::VaultNotFound);
    tokio::time::sleep(86_400 * SECOND).await;
    assert_eq!(kind(&bench.ask_within(&key("job"), SECOND).await), UpstreamErrorKind::VaultNotFound);
}

/// U23.
#[tokio::test(start_paused = true)]
async fn a_denial_is_believed_for_five_seconds_and_then_lifted() {
    let (script, bench) = Script::bench();
    script.fails(UpstreamErrorKind::AccessDenied);
    assert_eq!(kind(&bench.ask(&key("job")).await), UpstreamErrorKind::AccessDenied);
    script.says(|key| Ok(running(key, Tier::Standard)));
    tokio::time::sleep(4 * SECOND).await;
    assert_eq!(kind(&bench.ask(&key("job")).await), UpstreamErrorKind::AccessDenied);
    tokio::time::sleep(SECOND).await;
    assert!(bench.ask(&key("job")).await.result.is_ok());
    assert_eq!(bench.calls(), 2);
}

/// U20, U21.
#[tokio::test(start_paused = true)]
async fn a_description_that_is_not_understood_is_asked_about_every_ten_seconds() {
    let completion = paused_clock().now().wall;
    let (script, bench) = Script::bench();
    script.says(move |key| {
        let mut job = succeeded(key, completion);
        job.set_status_code(StatusCode::Unspecified);
        job.unrecognized_values.insert("StatusCode".to_owned(), "Paused".to_owned());
        Ok(job)
    });
    let first = bench.ask(&key("job")).await;
    assert_eq!(job(&first).unrecognized_values["StatusCode"], "Paused");
    assert!(matches!(bench.ask(&key("job")).await.status, CacheStatus::Hit { .. }));
    tokio::time::sleep(10 * SECOND).await;
    bench.ask(&key("job")).await.result.unwrap();
    assert_eq!(bench.calls(), 2);
}

/// U4 with something known: at the caller's deadline it is better than nothing.
#[tokio::test(start_paused = true)]
async fn at_the_deadline_something_stale_is_given() {
    let bench = Bench::new(|key, call| async move {
        if call > 0 {
            std::future::pending::<()>().await;
        }
        Ok(running(&key, Tier::Standard))
    });
    bench.ask(&key("job")).await.result.unwrap();
    tokio::time::sleep(31 * SECOND).await;
    let reply = bench.spawn_ask(&key("job"), Duration::from_millis(400)).await.unwrap();
    // A tenth before the deadline, at most 100 ms: the caller's own timer is about to end.
    let since = Duration::from_millis(1360);
    assert_eq!(reply.status, CacheStatus::Stale { since, because: StaleBecause::Deadline });
}

/// C3: ages come from the monotonic clock, so a wall clock that jumps changes no freshness.
#[tokio::test(start_paused = true)]
async fn a_jump_of_the_wall_clock_changes_no_freshness() {
    for jump in [-3600, 3600] {
        let offset = Arc::new(AtomicI64::new(0));
        let (steady, shift) = (paused_clock(), Arc::clone(&offset));
        let clock = Clock::with_wall(move || {
            let (wall, shift) = (steady.now().wall, shift.load(Ordering::SeqCst));
            let distance = Duration::from_secs(shift.unsigned_abs());
            if shift < 0 { wall - distance } else { wall + distance }
        });
        let completion = clock.now().wall;
        let bench = Bench::with_clock(clock, &DescribeSettings::default(), move |key, _| async move {
            Ok(if key.job_id() == "done" { succeeded(&key, completion) } else { running(&key, Tier::Standard) })
        });
        bench.ask(&key("job")).await.result.unwrap();
        bench.ask(&key("done")).await.result.unwrap();
        offset.store(jump, Ordering::SeqCst);
        tokio::time::sleep(10 * SECOND).await;
        assert_eq!(bench.ask(&key("job")).await.status, CacheStatus::Hit { ttl: 20 * SECOND }, "{jump}");
        let ttl = 86_390 * SECOND;
        assert_eq!(bench.ask(&key("done")).await.status, CacheStatus::Hit { ttl }, "{jump}");
    }
}

/// Probabilistic early refresh: callers of a busy key never wait for Glacier.
#[tokio::test(start_paused = true)]
async fn a_busy_key_is_refreshed_before_it_expires() {
    let (_, bench) = Script::bench();
    bench.ask(&key("job")).await.result.unwrap();
    for _ in 0..6000 {
        tokio::time::sleep(SECOND / 20).await;
        let reply = bench.ask(&key("job")).await;
        assert!(matches!(reply.status, CacheStatus::Hit { .. }), "{:?}", reply.status);
    }
    // 300 s at 24 to 30 s each.
    assert!((10..=13).contains(&bench.calls()), "{}", bench.calls());
}

#[tokio::test(start_paused = true)]
async fn an_idle_key_and_a_final_one_are_not_refreshed() {
    let completion = paused_clock().now().wall;
    let (script, bench) = Script::bench();
    bench.ask(&key("idle")).await.result.unwrap();
    script.says(move |key| Ok(succeeded(key, completion)));
    bench.ask(&key("done")).await.result.unwrap();
    for _ in 0..86_000 {
        tokio::time::sleep(SECOND).await;
        bench.ask(&key("done")).await.result.unwrap();
    }
    assert_eq!(bench.calls(), 2);
}

/// While Glacier fails, an early refresh is tried once per cooldown at most, and the hits go on.
#[tokio::test(start_paused = true)]
async fn a_failing_early_refresh_harms_no_hit_and_cools_down() {
    let (script, bench) = Script::bench();
    bench.ask(&key("job")).await.result.unwrap();
    script.fails(UpstreamErrorKind::Unavailable);
    tokio::time::sleep(24 * SECOND).await;
    for _ in 0..590 {
        tokio::time::sleep(SECOND / 100).await;
        let reply = bench.ask(&key("job")).await;
        assert!(matches!(reply.status, CacheStatus::Hit { .. }), "{:?}", reply.status);
    }
    assert!((2..=7).contains(&bench.calls()), "{}", bench.calls());
}

/// A throttled account is asked once a second at most; what is known is given, and who knows nothing hears why.
#[tokio::test(start_paused = true)]
async fn a_throttled_account_is_not_hammered() {
    let (script, bench) = Script::bench();
    bench.ask(&key("known")).await.result.unwrap();
    script.fails(UpstreamErrorKind::Throttled);
    tokio::time::sleep(31 * SECOND).await;
    let start = tokio::time::Instant::now();
    for n in 0..60 {
        let together: Vec<_> = (0..20).map(|m| bench.spawn_ask(&key(&format!("job-{n}-{m}")), 10 * SECOND)).collect();
        for reply in together {
            let reply = reply.await.unwrap();
            assert!(matches!(kind(&reply), UpstreamErrorKind::Throttled | UpstreamErrorKind::HeldBack));
        }
    }
    let (calls, seconds) = (bench.calls(), usize::try_from(start.elapsed().as_secs()).unwrap());
    // The first twenty come before Glacier has said a word of it.
    assert!(calls <= 20 + seconds + 5, "{calls} in {seconds} s");
    assert!(matches!(bench.ask(&key("known")).await.status, CacheStatus::Stale { .. }));
    // Its request still waits for its turn.
    tokio::time::sleep(2 * SECOND).await;
    // Seconds after the last word of it, all is well.
    script.says(|key| Ok(running(key, Tier::Standard)));
    for n in 0..20 {
        bench.ask(&key(&format!("job-{n}"))).await.result.unwrap();
    }
    assert!(start.elapsed() <= Duration::from_secs(u64::try_from(seconds).unwrap()) + 10 * SECOND);
    tokio::time::sleep(30 * SECOND).await;
    let together: Vec<_> = (0..60).map(|n| bench.spawn_ask(&key(&format!("late-{n}")), 10 * SECOND)).collect();
    for reply in together {
        reply.await.unwrap().result.unwrap();
    }
}

/// K8 and U20 together: a value that is not understood makes no completed job run again, and is remembered as an end.
#[tokio::test(start_paused = true)]
async fn a_completed_job_with_an_unknown_tier_stays_completed_and_can_expire() {
    let completion = paused_clock().now().wall;
    let (script, bench) = Script::bench();
    script.says(move |key| {
        let mut job = succeeded(key, completion);
        job.unrecognized_values.insert("Tier".to_owned(), "Instant".to_owned());
        Ok(job)
    });
    let first = bench.ask(&key("job")).await;
    let expire_time = Some((completion + Duration::from_hours(24)).into());
    assert_eq!(crate::support::fake::answer(&first).expire_time, expire_time);
    script.says(|key| Ok(running(key, Tier::Standard)));
    tokio::time::sleep(11 * SECOND).await;
    assert_eq!(job(&bench.ask(&key("job")).await).status_code(), StatusCode::Succeeded);
    script.fails(UpstreamErrorKind::JobNotFound);
    tokio::time::sleep(86_400 * SECOND).await;
    let expired = bench.ask(&key("job")).await.result;
    assert!(
        matches!(expired, Err(DescribeError::Expired { completion: date, .. }) if date == completion),
        "{expired:?}"
    );
}

/// The process is about to end: who waits gets what there is.
#[tokio::test(start_paused = true)]
async fn when_told_to_stop_waiting_something_stale_is_given_or_the_truth() {
    let bench = Bench::new(|key, call| async move {
        if call > 0 {
            std::future::pending::<()>().await;
        }
        Ok(running(&key, Tier::Standard))
    });
    bench.ask(&key("known")).await.result.unwrap();
    tokio::time::sleep(31 * SECOND).await;
    let stopped = async |name: &str| {
        let deadline = tokio::time::Instant::now() + 9 * SECOND;
        bench
            .describer
            .describe(&key(name), None, None, deadline, async || {
                tokio::time::sleep(SECOND / 4).await;
                Interruption::Draining
            })
            .await
    };
    let reply = stopped("known").await;
    assert_eq!(reply.status, CacheStatus::Stale { since: 5 * SECOND / 4, because: StaleBecause::Draining });
    assert_eq!(stopped("unknown").await.result, Err(DescribeError::Interrupted(Interruption::Draining)));
}
