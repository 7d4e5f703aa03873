//! The store under pressure, many keys falling due, and floods of keys that do not exist (tests/FAULTS.md, K9 to K11).

use std::{sync::Arc, time::Duration};

use glacier_gateway::{
    cache::{CacheSettings, Description, Finding, JobCache, Observation},
    describe::{CacheStatus, DescribeError, DescribeSettings, FetchLimits},
    emulator::{EmulatedJob, Tier as EmulatedTier},
    freshness::FreshnessSettings,
    job::JobKey,
    proto::v1::{GlacierJobDescription, Tier},
    upstream::UpstreamErrorKind,
};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};

use crate::support::{
    fake::{Bench, error, key, paused_clock, running},
    gateway::{Gateway, PATIENCE, Refusal, question},
};

const SECOND: Duration = Duration::from_secs(1);

fn learn(cache: &JobCache, key: &JobKey) {
    let now = paused_clock().now();
    let finding = Finding::Described(Description::new(running(key, Tier::Standard), now.wall));
    cache.observe(key, Observation { finding, asked_at: now });
}

/// K9. How long look-ups take meanwhile is for a benchmark to say.
#[tokio::test]
async fn ten_times_more_keys_than_fit_stay_within_the_limit_and_leave_the_hot_ones() {
    let capacity_bytes = 1024 * 1024;
    let cache = JobCache::new(&CacheSettings { capacity_bytes }, FreshnessSettings::default(), paused_clock());
    let hot: Vec<_> = (0..20).map(|n| key(&format!("hot-{n}"))).collect();
    for hot in &hot {
        learn(&cache, hot);
        // The store admits by how often a key has been asked for.
        for _ in 0..20 {
            cache.get(hot);
        }
    }
    let typical = cache.settle() / 20;
    let ten_times = 10 * capacity_bytes / typical;
    let mut most = 0;
    for n in 0..ten_times {
        learn(&cache, &key(&format!("random-{:032x}", fastrand::u128(..))));
        if n % 10 == 0 {
            for hot in &hot {
                cache.get(hot);
            }
        }
        if n % 500 == 0 {
            most = most.max(cache.settle());
        }
    }
    assert!(most <= capacity_bytes * 105 / 100, "{most} of {capacity_bytes}");
    assert!(most >= capacity_bytes / 2, "the limit was never neared: {most}");
    let left = hot.iter().filter(|hot| cache.get(hot).is_some()).count();
    assert_eq!(left, hot.len(), "hot keys that are still there");
}

/// K10.
#[tokio::test(start_paused = true)]
async fn entries_made_together_do_not_fall_due_together() {
    const ENTRIES: usize = 10_000;
    let clock = paused_clock();
    let cache = JobCache::new(&CacheSettings::default(), FreshnessSettings::default(), clock.clone());
    let mut due = [0_usize; 40];
    for n in 0..ENTRIES {
        let key = key(&format!("job-{n}"));
        learn(&cache, &key);
        let fresh = cache.get(&key).unwrap().learnt.as_ref().unwrap().lifetime.fresh;
        due[usize::try_from(fresh.as_secs()).unwrap()] += 1;
    }
    // 30 s, give or take a tenth: six seconds, 27 to 33.
    let seconds: Vec<_> = due.iter().filter(|count| **count > 0).collect();
    assert_eq!(due[27..33].iter().sum::<usize>(), ENTRIES);
    let peak = **seconds.iter().max().unwrap();
    assert!(peak <= 2 * ENTRIES / seconds.len(), "{due:?}");
}

/// K11.
#[tokio::test(start_paused = true)]
async fn a_flood_of_unknown_jobs_stays_within_the_limiter_and_harms_no_hit() {
    let places = Arc::new(Semaphore::new(64));
    let watch = Arc::clone(&places);
    let bench = Bench::new(move |key, _| {
        // More than the limiter's 64 at once would find no permit here.
        let place = Arc::clone(&watch).try_acquire_owned();
        async move {
            let _place = place.expect("at most 64 fetches at once");
            if key.job_id() == "known" {
                return Ok(running(&key, Tier::Standard));
            }
            tokio::time::sleep(SECOND / 10).await;
            Err(error(UpstreamErrorKind::JobNotFound))
        }
    });
    bench.ask(&key("known")).await.result.unwrap();
    let flood: Vec<_> = (0..5000).map(|n| bench.spawn_ask(&key(&format!("unknown-{n}")), 5 * SECOND)).collect();
    for _ in 0..50 {
        tokio::time::sleep(SECOND / 50).await;
        let hit = bench.ask(&key("known")).await;
        assert!(matches!(hit.status, CacheStatus::Hit { .. }), "{:?}", hit.status);
    }
    let (mut absent, mut shed) = (0, 0);
    for caller in flood {
        match caller.await.unwrap().result {
            Err(DescribeError::Upstream(error)) if error.kind == UpstreamErrorKind::JobNotFound => absent += 1,
            Err(DescribeError::Upstream(error)) if error.kind == UpstreamErrorKind::Overloaded => shed += 1,
            other => panic!("{other:?}"),
        }
    }
    // 64 at once, a tenth of a second each, for the second that anybody waits.
    assert!((64 * 9..=64 * 12).contains(&absent), "{absent}");
    assert_eq!((absent + shed, bench.calls()), (5000, absent + 1));
    assert!(shed >= 5000 - 64 - 1024, "those beyond the queue were refused: {shed}");
}

/// What found no place here says nothing about Glacier, neither that it throttles the account nor that it does not.
#[tokio::test(start_paused = true)]
async fn what_is_shed_here_does_not_hide_that_glacier_throttles() {
    let limits = FetchLimits { in_flight: 1, waiting: 0, ..FetchLimits::default() };
    let settings = DescribeSettings { limits, ..DescribeSettings::default() };
    let bench = Bench::with_settings(&settings, |key, _| async move {
        if key.job_id() == "slow" {
            tokio::time::sleep(5 * SECOND).await;
        }
        Err::<GlacierJobDescription, _>(error(UpstreamErrorKind::Throttled))
    });
    let slow = bench.spawn_ask(&key("slow"), 10 * SECOND);
    tokio::task::yield_now().await;
    for n in 0..1000 {
        bench.ask(&key(&format!("shed-{n}"))).await.result.unwrap_err();
    }
    assert_eq!(bench.calls(), 1, "the others found no place");
    slow.await.unwrap().result.unwrap_err();
    let (before, start) = (bench.calls(), Instant::now());
    for n in 0..200 {
        bench.ask(&key(&format!("throttled-{n}"))).await.result.unwrap_err();
    }
    let (calls, seconds) = (bench.calls() - before, usize::try_from(start.elapsed().as_secs()).unwrap());
    assert!(calls <= seconds + 3, "{calls} in {seconds} s were sent to a Glacier that throttles");
}

/// The limits can be set, and are kept.
#[tokio::test(start_paused = true)]
async fn the_flood_is_as_wide_as_the_settings_say() {
    let limits = FetchLimits { in_flight: 3, waiting: 0, max_wait: SECOND, ..FetchLimits::default() };
    let settings = DescribeSettings { limits, ..DescribeSettings::default() };
    let bench = Bench::with_settings(&settings, |_, _| async move {
        tokio::time::sleep(SECOND).await;
        Err(error(UpstreamErrorKind::JobNotFound))
    });
    let flood: Vec<_> = (0..100).map(|n| bench.spawn_ask(&key(&format!("unknown-{n}")), 5 * SECOND)).collect();
    for caller in flood {
        caller.await.unwrap().result.unwrap_err();
    }
    assert_eq!(bench.calls(), 3);
}

/// D15: five times as many new questions as Glacier can take (64 at a time, 100 ms each: 640 a second).
#[tokio::test(start_paused = true)]
async fn under_five_times_the_load_the_work_goes_on_refusals_are_prompt_and_hits_are_given() {
    let bench = Arc::new(Bench::new(|key, _| async move {
        tokio::time::sleep(SECOND / 10).await;
        Ok(running(&key, Tier::Bulk))
    }));
    let known = key("known");
    bench.ask(&known).await.result.unwrap();
    let mut asking = JoinSet::new();
    for tick in 0..500_u32 {
        for n in 0..32 {
            let bench = Arc::clone(&bench);
            asking.spawn(async move {
                let asked = Instant::now();
                let reply = bench.ask(&key(&format!("new-{tick}-{n}"))).await;
                (asked, asked.elapsed(), Instant::now(), reply.result.is_ok())
            });
        }
        if tick % 10 == 0 {
            let asked = Instant::now();
            assert!(matches!(bench.ask(&known).await.status, CacheStatus::Hit { .. }));
            assert_eq!(asked.elapsed(), Duration::ZERO);
        }
        tokio::time::sleep(SECOND * 32 / 3200).await;
    }
    let start = Instant::now() - 5 * SECOND;
    let (mut served, mut refused, mut late) = (0, 0, 0);
    while let Some(ended) = asking.join_next().await {
        let (asked, took, at, is_ok) = ended.unwrap();
        // Once it has lasted for two seconds, and before the questions end.
        let is_steady = |at: Instant| at >= start + 2 * SECOND && at < start + 5 * SECOND;
        if is_ok && is_steady(at) {
            served += 1;
        } else if !is_ok && is_steady(asked) {
            refused += 1;
            late += usize::from(took >= Duration::from_millis(10));
        }
    }
    assert!(served >= 3 * 640 * 9 / 10, "{served} served in three seconds");
    assert!(refused > 3 * 2000, "{refused} refused");
    assert!(late * 100 <= refused, "{late} of {refused} were refused late");
}

/// D15 over sockets: in each round five times as many new questions come as Glacier takes, and it answers none of them
/// until all others are refused.
#[tokio::test]
async fn under_five_times_the_load_every_place_is_used_and_nobody_waits_to_be_refused() {
    const PLACES: usize = 8;
    const ROUNDS: usize = 20;
    let gateway = Gateway::start_with(|settings| {
        (settings.describe.limits.in_flight, settings.describe.limits.waiting) = (PLACES, 0);
    })
    .await;
    let known = gateway.add(EmulatedJob::archive(EmulatedTier::Bulk));
    gateway.ask(&known).await.unwrap();
    let mut served = 0;
    for _ in 0..ROUNDS {
        let hold = gateway.emulator.faults().hold();
        let mut asking = JoinSet::new();
        for _ in 0..5 * PLACES {
            let (mut client, new) = (gateway.client.clone(), gateway.add(EmulatedJob::archive(EmulatedTier::Bulk)));
            asking.spawn(async move { client.describe_job(question(&new)).await });
        }
        for _ in 0..4 * PLACES {
            let ended = tokio::time::timeout(PATIENCE, asking.join_next()).await.expect("refused without Glacier");
            let refusal = Refusal::of(ended.unwrap().unwrap());
            assert_eq!(refusal.reason(), "GATEWAY_OVERLOADED");
            assert!(refusal.retry_delay().is_some(), "it says when to come again");
        }
        gateway.ask(&known).await.unwrap();
        drop(hold);
        while let Some(ended) = tokio::time::timeout(PATIENCE, asking.join_next()).await.expect("answered in time") {
            served += usize::from(ended.unwrap().is_ok());
        }
    }
    // A place may still be taken for a moment after its caller was answered.
    assert!(served >= ROUNDS * PLACES * 9 / 10, "{served} served");
}
