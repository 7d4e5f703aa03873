//! One fetch per key, whoever comes and goes (tests/FAULTS.md, K), with the clock paused.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use glacier_gateway::{
    cache::{Description, Finding, Observation, Rejected},
    caller::Caller,
    clock::Moment,
    describe::{CacheStatus, DescribeError, DescribeSettings, FetchLimits, Forwarded},
    grpc::{Face, GrpcSettings},
    lifecycle::Lifecycle,
    metrics::CallMetrics,
    proto::v1::{StatusCode, Tier},
    traces::Tracer,
    upstream::UpstreamErrorKind,
};
use http::Request;
use http_body_util::Full;
use tokio::{sync::Semaphore, time::Instant};
use tower::Service as _;

use crate::support::fake::{Bench, answer, error, job, key, running, succeeded};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// An upstream that takes 200 ms for a job in progress.
fn slow() -> Bench {
    Bench::new(|key, _| async move {
        tokio::time::sleep(200 * MS).await;
        Ok(running(&key, Tier::Standard))
    })
}

/// K1.
#[tokio::test(start_paused = true)]
async fn ten_thousand_callers_of_one_cold_key_cost_one_call() {
    let bench = slow();
    let callers: Vec<_> = (0..10_000).map(|_| bench.spawn_ask(&key("cold"), 5 * SECOND)).collect();
    let mut started = 0;
    for caller in callers {
        let reply = caller.await.unwrap();
        assert!(reply.result.is_ok());
        match reply.status {
            CacheStatus::Forwarded { reason: Forwarded::Miss, collapsed: false, stored: true } => started += 1,
            CacheStatus::Forwarded { reason: Forwarded::Miss, collapsed: true, stored: true } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((bench.calls(), started), (1, 1));
}

/// Every call has one, and it is moved on its way to hyper.
#[tokio::test]
async fn the_future_of_a_call_is_less_than_a_kibibyte() {
    let (bench, lifecycle) = (slow(), Lifecycle::new());
    let (describer, phase) = (bench.describer.clone(), lifecycle.watch());
    let (settings, metrics) = (GrpcSettings::default(), CallMetrics::default());
    let face = Face::new(describer, None, &phase, &settings, &metrics, Tracer::default()).unwrap();
    let caller = Caller { address: SocketAddr::from(([192, 0, 2, 1], 1)), identity: None };
    let call = face.for_caller(&caller).call(Request::new(Full::<Bytes>::default()));
    assert!(size_of_val(&call) < 1024, "{} bytes", size_of_val(&call));
}

/// K1, the memory: a waiter is its future and a place in the channel's list, nothing on the heap that grows.
#[tokio::test(start_paused = true)]
async fn a_waiter_is_a_future_of_less_than_two_kibibytes() {
    let bench = slow();
    let key = key("cold");
    let waiter = bench.describer.describe(&key, None, None, Instant::now(), std::future::pending);
    assert!(size_of_val(&waiter) < 2048, "{}", size_of_val(&waiter));
}

/// K2.
#[tokio::test(start_paused = true)]
async fn the_fetch_goes_on_when_its_first_caller_cancels() {
    let bench = slow();
    let first = bench.spawn_ask(&key("job"), 5 * SECOND);
    tokio::time::sleep(50 * MS).await;
    let others: Vec<_> = (0..10).map(|_| bench.spawn_ask(&key("job"), 5 * SECOND)).collect();
    tokio::time::sleep(50 * MS).await;
    first.abort();
    for other in others {
        assert!(other.await.unwrap().result.is_ok());
    }
    assert_eq!(bench.calls(), 1);
}

/// K3.
#[tokio::test(start_paused = true)]
async fn an_impatient_first_caller_neither_waits_nor_spoils_the_fetch() {
    let bench = slow();
    let start = Instant::now();
    let first = bench.spawn_ask(&key("job"), 5 * MS);
    tokio::time::sleep(MS).await;
    let others: Vec<_> = (0..10).map(|_| bench.spawn_ask(&key("job"), 5 * SECOND)).collect();
    assert_eq!(first.await.unwrap().result, Err(DescribeError::DeadlineExceeded));
    assert!(start.elapsed() <= 6 * MS, "{:?}", start.elapsed());
    for other in others {
        assert!(other.await.unwrap().result.is_ok());
    }
    assert_eq!(bench.calls(), 1);
}

/// K4. moka's own coalescing panics here.
#[tokio::test(start_paused = true)]
async fn three_hundred_impatient_callers_in_a_row_fill_the_cache() {
    let bench = slow();
    let mut hits = 0;
    for _ in 0..300 {
        let reply = bench.spawn_ask(&key("job"), 5 * MS).await.unwrap();
        match reply.result {
            Ok(_) => hits += 1,
            Err(error) => assert_eq!(error, DescribeError::DeadlineExceeded),
        }
    }
    // 200 ms of 5 ms each go by before the answer is there.
    assert!((259..=261).contains(&hits), "{hits}");
    assert_eq!(bench.calls(), 1);
}

/// K5.
#[tokio::test(start_paused = true)]
async fn a_fetch_that_all_callers_left_ends_and_its_result_is_kept() {
    let bench = slow();
    let callers: Vec<_> = (0..100).map(|_| bench.spawn_ask(&key("job"), 5 * SECOND)).collect();
    tokio::time::sleep(50 * MS).await;
    callers.iter().for_each(tokio::task::JoinHandle::abort);
    tokio::time::sleep(200 * MS).await;
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert_eq!(tasks, 0, "nothing is left running");
    let reply = bench.ask(&key("job")).await;
    assert!(matches!(reply.status, CacheStatus::Hit { .. }), "{:?}", reply.status);
    assert_eq!(bench.calls(), 1);
}

/// K5, with a Glacier that never answers.
#[tokio::test(start_paused = true)]
async fn a_fetch_that_all_callers_left_and_glacier_never_answers_ends_with_its_budget() {
    let bench = Bench::new(|_, _| std::future::pending());
    let caller = bench.spawn_ask(&key("job"), 5 * SECOND);
    tokio::time::sleep(50 * MS).await;
    caller.abort();
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    tokio::time::sleep(7 * SECOND).await;
    assert_eq!(alive(), 1, "it goes on");
    tokio::time::sleep(SECOND).await;
    assert_eq!(alive(), 0, "nothing is left running");
    let again = bench.spawn_ask(&key("job"), SECOND).await.unwrap();
    assert!(again.result.is_err());
    // The failure stands for a second.
    assert_eq!(bench.calls(), 1);
    tokio::time::sleep(SECOND).await;
    bench.spawn_ask(&key("job"), SECOND).await.unwrap().result.unwrap_err();
    assert_eq!(bench.calls(), 2);
}

/// K6.
#[tokio::test(start_paused = true)]
async fn a_failed_fetch_tells_all_its_waiters_and_no_herd_follows() {
    let bench = Bench::new(|_, _| async move {
        tokio::time::sleep(200 * MS).await;
        Err(error(UpstreamErrorKind::Unavailable))
    });
    let callers: Vec<_> = (0..1000).map(|_| bench.spawn_ask(&key("job"), 5 * SECOND)).collect();
    let mut seen = Vec::new();
    for caller in callers {
        let Err(DescribeError::Upstream(error)) = caller.await.unwrap().result else { panic!("expected an error") };
        seen.push(error);
    }
    assert!(seen.iter().all(|error| Arc::ptr_eq(error, &seen[0])), "all get the same error");
    // They all come again at once: the cooldown answers.
    for _ in 0..1000 {
        let reply = bench.ask(&key("job")).await;
        assert_eq!(reply.status, CacheStatus::Cooldown);
        assert_eq!(reply.result, Err(DescribeError::Upstream(Arc::clone(&seen[0]))));
    }
    assert_eq!(bench.calls(), 1);
    tokio::time::sleep(SECOND).await;
    bench.ask(&key("job")).await.result.unwrap_err();
    assert_eq!(bench.calls(), 2);
}

/// K7.
#[tokio::test(start_paused = true)]
async fn a_fetch_that_panics_leaves_the_key_usable() {
    let bench = Bench::new(|key, call| async move {
        tokio::time::sleep(200 * MS).await;
        assert!(call > 0, "the scripted panic");
        Ok(running(&key, Tier::Standard))
    });
    let callers: Vec<_> = (0..10).map(|_| bench.spawn_ask(&key("job"), 5 * SECOND)).collect();
    for caller in callers {
        let Err(DescribeError::Upstream(error)) = caller.await.unwrap().result else { panic!("expected an error") };
        assert_eq!(error.kind, UpstreamErrorKind::Panicked);
    }
    // A bug that always panics costs one fetch per cooldown, too.
    assert_eq!(bench.ask(&key("job")).await.status, CacheStatus::Cooldown);
    tokio::time::sleep(SECOND).await;
    assert!(bench.ask(&key("job")).await.result.is_ok());
    assert_eq!(bench.calls(), 2);
}

/// K8.
#[tokio::test(start_paused = true)]
async fn a_slow_old_answer_does_not_replace_a_newer_one() {
    let bench = slow();
    let key = key("job");
    let old = bench.clock.now();
    tokio::time::sleep(10 * SECOND).await;
    let new = bench.clock.now();
    let observe = |asked: Moment, job| {
        let now = bench.clock.now();
        let finding = Finding::Described(Description::new(job, now.wall));
        bench.cache.observe(&key, Observation { finding, asked_at: asked }).1
    };
    assert_eq!(observe(new, running(&key, Tier::Bulk)), None);
    assert_eq!(observe(old, running(&key, Tier::Expedited)), Some(Rejected::Older));
    assert_eq!(job(&bench.ask(&key).await).tier(), Tier::Bulk);
    assert_eq!(bench.calls(), 0);
}

/// K8, the other half; the answer is not hidden either: whoever insists hears that Glacier makes no sense.
#[tokio::test(start_paused = true)]
async fn a_completed_job_is_not_in_progress_again() {
    let start = crate::support::fake::paused_clock().now().wall;
    let bench = Bench::new(move |key, call| async move {
        Ok(if call == 0 { succeeded(&key, start) } else { running(&key, Tier::Standard) })
    });
    let key = key("job");
    assert_eq!(job(&bench.ask(&key).await).status_code(), StatusCode::Succeeded);
    tokio::time::sleep(25 * 3600 * SECOND).await;
    let reply = bench.ask(&key).await;
    assert_eq!(job(&reply).status_code(), StatusCode::Succeeded, "stale, inside its window");
    assert_eq!(bench.calls(), 3, "asked once more at once, in case that it was a slip");
    let Err(DescribeError::Upstream(error)) = bench.ask_within(&key, SECOND).await.result else {
        panic!("the completed description is older than this caller accepts");
    };
    assert_eq!(error.kind, UpstreamErrorKind::Contradictory);
    assert_eq!(bench.calls(), 3);
}

/// K12.
#[tokio::test(start_paused = true)]
async fn a_caller_who_always_wants_news_costs_one_call_per_floor_interval() {
    let bench = Bench::new(|key, _| async move { Ok(running(&key, Tier::Standard)) });
    let key = key("job");
    let start = Instant::now();
    while start.elapsed() < 10 * SECOND {
        let reply = bench.ask_within(&key, Duration::ZERO).await;
        assert!(reply.result.unwrap().age <= SECOND);
        tokio::time::sleep(10 * MS).await;
    }
    assert!((9..=10).contains(&bench.calls()), "{}", bench.calls());
}

/// U4: a fetch outlives a short caller but not its own budget.
#[tokio::test(start_paused = true)]
async fn a_fetch_without_an_answer_ends_with_its_budget() {
    let bench = Bench::new(|_, _| std::future::pending());
    let start = Instant::now();
    let Err(DescribeError::Upstream(error)) = bench.ask(&key("job")).await.result else { panic!("expected an error") };
    assert_eq!(error.kind, UpstreamErrorKind::TimedOut);
    assert_eq!(start.elapsed(), 8 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn different_keys_do_not_wait_for_each_other() {
    let bench = slow();
    let start = Instant::now();
    let callers: Vec<_> = (0..50).map(|n| bench.spawn_ask(&key(&format!("job-{n}")), 5 * SECOND)).collect();
    for caller in callers {
        assert!(caller.await.unwrap().result.is_ok());
    }
    assert_eq!((bench.calls(), start.elapsed().as_millis() / 10), (50, 20));
}

/// D15 in small: what waits too long or finds the queue full is shed; what is known is always given.
#[tokio::test(start_paused = true)]
async fn more_fetches_than_places_are_shed_and_hits_are_not() {
    let limits = FetchLimits { in_flight: 2, waiting: 3, max_wait: SECOND, ..FetchLimits::default() };
    let settings = DescribeSettings { limits, ..DescribeSettings::default() };
    let gate = Arc::new(Semaphore::new(1));
    let bench = Bench::with_settings(&settings, {
        let gate = Arc::clone(&gate);
        move |key, _| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                Ok(running(&key, Tier::Standard))
            }
        }
    });
    bench.ask(&key("known")).await.result.unwrap();
    let callers: Vec<_> = (0..8).map(|n| bench.spawn_ask(&key(&format!("job-{n}")), 5 * SECOND)).collect();
    tokio::time::sleep(MS).await;
    let refused_at_once = callers.iter().filter(|caller| caller.is_finished()).count();
    assert_eq!(refused_at_once, 3, "2 in flight, 3 waiting");
    assert!(bench.ask(&key("known")).await.result.is_ok());
    tokio::time::sleep(SECOND).await;
    assert_eq!(callers.iter().filter(|caller| caller.is_finished()).count(), 6, "the 3 that waited were shed");
    gate.add_permits(2);
    let mut shed = 0;
    for caller in callers {
        match caller.await.unwrap().result {
            Ok(_) => {}
            Err(DescribeError::Upstream(error)) if error.kind == UpstreamErrorKind::Overloaded => shed += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(shed, 6);
}

#[tokio::test(start_paused = true)]
async fn an_answer_says_when_it_was_given_and_when_the_job_may_be_forgotten() {
    let completion = crate::support::fake::paused_clock().now().wall - 3600 * SECOND;
    let bench = Bench::new(move |key, _| async move { Ok(succeeded(&key, completion)) });
    let response = answer(&bench.ask(&key("job")).await);
    assert_eq!(response.observe_time, Some(bench.clock.now().wall.into()));
    assert_eq!(response.expire_time, Some((completion + 24 * 3600 * SECOND).into()));
}
