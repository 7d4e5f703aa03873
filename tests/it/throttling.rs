//! A Glacier that throttles: what it gets, and how soon callers are served once it stops (tests/FAULTS.md, U3 and U27); with the
//! clock paused. What Glacier accepts and refuses is counted by Glacier.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use glacier_gateway::{
    describe::{CacheStatus, DescribeError, DescribeSettings, FetchLimits, NotForwarded, Reply},
    proto::v1::Tier,
    upstream::{UpstreamError, UpstreamErrorKind},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::support::fake::{Bench, EPOCH, error, key, running, succeeded};

const SECOND: Duration = Duration::from_secs(1);
/// What Glacier takes for an answer.
const LATENCY: Duration = Duration::from_millis(50);

/// What the account may ask.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Allows {
    Everything,
    Nothing,
    /// So many a second, and as many that were saved up.
    Rate(f64),
}

struct Account {
    allows: Allows,
    tokens: f64,
    filled: Instant,
    accepted: u32,
    throttled: u32,
}

/// A Glacier with an account's limit.
#[derive(Clone)]
struct Glacier(Arc<Mutex<Account>>);

impl Glacier {
    fn that_allows(allows: Allows) -> Self {
        let tokens = if let Allows::Rate(rate) = allows { rate } else { 0.0 };
        Self(Arc::new(Mutex::new(Account { allows, tokens, filled: Instant::now(), accepted: 0, throttled: 0 })))
    }

    fn allow(&self, allows: Allows) {
        self.0.lock().unwrap().allows = allows;
    }

    /// Whether one more request is accepted.
    fn accepts(&self) -> Result<(), UpstreamError> {
        let mut account = self.0.lock().unwrap();
        let accepts = match account.allows {
            Allows::Everything => true,
            Allows::Nothing => false,
            Allows::Rate(rate) => {
                account.tokens = (account.tokens + rate * account.filled.elapsed().as_secs_f64()).min(rate);
                account.filled = Instant::now();
                let accepts = account.tokens >= 1.0;
                account.tokens -= f64::from(u8::from(accepts));
                accepts
            }
        };
        if accepts {
            account.accepted += 1;
            Ok(())
        } else {
            account.throttled += 1;
            Err(error(UpstreamErrorKind::Throttled))
        }
    }

    fn accepted(&self) -> u32 {
        self.0.lock().unwrap().accepted
    }

    fn throttled(&self) -> u32 {
        self.0.lock().unwrap().throttled
    }

    /// A gateway before it.
    fn bench(&self) -> Bench {
        let glacier = self.clone();
        Bench::new(move |key, _| {
            let glacier = glacier.clone();
            async move {
                sleep(LATENCY).await;
                glacier.accepts()?;
                Ok(running(&key, Tier::Standard))
            }
        })
    }
}

/// Callers that ask about new jobs.
struct Demand {
    bench: Bench,
    per_second: u32,
    asked: u32,
}

impl Demand {
    fn of(per_second: u32, glacier: &Glacier) -> Self {
        Self { bench: glacier.bench(), per_second, asked: 0 }
    }

    /// Asks for this long, evenly.
    async fn asks(&mut self, seconds: u32) -> Vec<JoinHandle<Reply>> {
        let mut calls = Vec::new();
        for _ in 0..seconds * self.per_second {
            self.asked += 1;
            calls.push(self.bench.spawn_ask(&key(&format!("job-{}", self.asked)), 10 * SECOND));
            sleep(SECOND / self.per_second).await;
        }
        calls
    }
}

/// How many of these calls brought an answer, of ten.
async fn served_in_ten(calls: Vec<JoinHandle<Reply>>) -> f64 {
    let all = calls.len();
    let mut served = 0;
    for call in calls {
        served += usize::from(call.await.unwrap().result.is_ok());
    }
    10.0 * f64::from(u32::try_from(served).unwrap()) / f64::from(u32::try_from(all).unwrap())
}

fn kind(reply: &Reply) -> Option<UpstreamErrorKind> {
    match &reply.result {
        Err(DescribeError::Upstream(error)) => Some(error.kind),
        _ => None,
    }
}

/// Whether 9 of 10 callers are served from 15 s after the recovery, and go on being served.
async fn recovers(per_second: u32, warm: bool) {
    let glacier = Glacier::that_allows(Allows::Everything);
    let mut demand = Demand::of(per_second, &glacier);
    if warm {
        assert!(served_in_ten(demand.asks(60).await).await > 9.99);
    }
    glacier.allow(Allows::Nothing);
    let refused = demand.asks(20).await;
    assert!(served_in_ten(refused).await < 0.2, "it throttles everything");
    let sent = glacier.throttled();
    // The first seconds' search for a rate, then one in a second.
    assert!(sent <= 20 + 15 + per_second, "{sent} sent while it throttled");
    glacier.allow(Allows::Everything);
    demand.asks(15).await;
    for after in 15..45 {
        let served = served_in_ten(demand.asks(1).await).await;
        assert!(served >= 9.0, "{served} of 10 {after} s after the recovery at {per_second}/s");
    }
    // And nothing is left of it.
    let burst: Vec<_> = (0..60).map(|n| demand.bench.spawn_ask(&key(&format!("burst-{n}")), 10 * SECOND)).collect();
    assert!(served_in_ten(burst).await > 9.99);
}

/// U27.
#[tokio::test(start_paused = true)]
async fn callers_are_served_soon_after_a_glacier_that_throttled_from_the_start_recovers() {
    recovers(20, false).await;
    recovers(200, false).await;
}

/// U27.
#[tokio::test(start_paused = true)]
async fn callers_are_served_soon_after_a_glacier_that_began_to_throttle_recovers() {
    recovers(20, true).await;
    recovers(200, true).await;
}

/// U3: a lasting limit of the account's, below what callers want.
#[tokio::test(start_paused = true)]
async fn a_glacier_that_throttles_above_a_limit_gets_little_more_than_it_accepts() {
    for limit in [10_u32, 50] {
        let glacier = Glacier::that_allows(Allows::Rate(limit.into()));
        let mut demand = Demand::of(200, &glacier);
        demand.asks(10).await;
        let (accepted, throttled) = (glacier.accepted(), glacier.throttled());
        let calls = demand.asks(60).await;
        let (accepted, throttled) = (glacier.accepted() - accepted, glacier.throttled() - throttled);
        assert!(2 * throttled <= accepted, "at most 1.5 times as much: {throttled} throttled, {accepted} accepted");
        assert!(accepted >= 60 * limit * 7 / 10, "and what it accepts is used: {accepted} of {}", 60 * limit);
        // Nobody waits for longer than the queue lets them.
        for call in calls {
            let reply = call.await.unwrap();
            match kind(&reply) {
                None => assert!(reply.result.is_ok(), "{reply:?}"),
                Some(UpstreamErrorKind::HeldBack) => {
                    assert_eq!(reply.status, CacheStatus::NotForwarded(NotForwarded::HeldBack));
                }
                Some(other) => assert_eq!(other, UpstreamErrorKind::Throttled),
            }
        }
    }
}

/// U3 on a gateway that has sent nothing yet, or little: one throttled fetch is no reason to refuse those of the next minutes.
#[tokio::test(start_paused = true)]
async fn one_throttled_fetch_refuses_the_next_ones_for_no_longer_than_a_second() {
    for (others, before) in [(1, 0), (2, 0), (5, 60)] {
        let glacier = Glacier::that_allows(Allows::Everything);
        let mut demand = Demand::of(others, &glacier);
        demand.asks(before).await;
        glacier.allow(Allows::Nothing);
        assert_eq!(kind(&demand.bench.ask(&key("unlucky")).await), Some(UpstreamErrorKind::Throttled));
        glacier.allow(Allows::Everything);
        demand.asks(1).await;
        for after in 1..120 {
            assert!(served_in_ten(demand.asks(1).await).await > 9.99, "{others}/s, {after} s after");
        }
    }
}

/// What was held back was not sent: it says so, when to come again, and is as good as never asked.
#[tokio::test(start_paused = true)]
async fn what_is_held_back_says_so_and_leaves_no_trace() {
    let glacier = Glacier::that_allows(Allows::Nothing);
    let bench = glacier.bench();
    bench.ask(&key("known")).await.result.unwrap_err();
    glacier.allow(Allows::Everything);
    sleep(5 * SECOND).await;
    bench.ask(&key("known")).await.result.unwrap();
    glacier.allow(Allows::Nothing);
    sleep(31 * SECOND).await;
    // One cuts the rate, and one takes the turn that is left; or waits for the next.
    let first: Vec<_> = (0..200).map(|n| bench.spawn_ask(&key(&format!("first-{n}")), 10 * SECOND)).collect();
    for call in first {
        call.await.unwrap().result.unwrap_err();
    }
    let flood: Vec<_> = (0..200).map(|n| bench.spawn_ask(&key(&format!("job-{n}")), 10 * SECOND)).collect();
    sleep(SECOND / 100).await;
    let sent = bench.calls();
    let held_back = bench.ask(&key("late")).await;
    assert_eq!((kind(&held_back), bench.calls()), (Some(UpstreamErrorKind::HeldBack), sent));
    assert_eq!(held_back.status, CacheStatus::NotForwarded(NotForwarded::HeldBack));
    let Err(DescribeError::Upstream(error)) = held_back.result else { panic!("it was held back") };
    assert!(!error.sent && error.retry_after.is_some_and(|wait| wait > SECOND / 2 && wait < 5 * SECOND), "{error:?}");
    // What is known is given.
    assert!(matches!(bench.ask(&key("known")).await.status, CacheStatus::Stale { .. }));
    for call in flood {
        call.await.unwrap().result.unwrap_err();
    }
    // There is no cool-down for it: the turn that is free again is its.
    glacier.allow(Allows::Everything);
    sleep(2 * SECOND).await;
    bench.ask(&key("late")).await.result.unwrap();
}

/// U29: an answer that contradicts what is known, and whose confirmation finds no place, was sent, and is not asked for again at
/// once.
#[tokio::test(start_paused = true)]
async fn a_contradiction_whose_confirmation_is_not_admitted_is_still_one() {
    let limits = FetchLimits { in_flight: 1, waiting: 1, ..FetchLimits::default() };
    let settings = DescribeSettings { limits, ..DescribeSettings::default() };
    let bench = Bench::with_settings(&settings, |key, call| async move {
        if call == 0 {
            return Ok(succeeded(&key, SystemTime::UNIX_EPOCH + EPOCH));
        }
        // Who waits for the place meanwhile keeps it for longer than the confirmation waits.
        sleep(if call == 1 { SECOND / 10 } else { 3 * SECOND }).await;
        Ok(running(&key, Tier::Standard))
    });
    let job = key("job");
    bench.ask(&job).await.result.unwrap();
    sleep(2 * SECOND).await;
    // Who insists hears of the contradiction and asks again while the other still waits for Glacier.
    let insisting = async { [bench.ask_within(&job, SECOND).await, bench.ask_within(&job, SECOND).await] };
    let other = async {
        sleep(SECOND / 20).await;
        bench.ask(&key("other")).await
    };
    let ([reply, again], other) = tokio::join!(insisting, other);
    assert_eq!(kind(&reply), Some(UpstreamErrorKind::Contradictory), "{reply:?}");
    assert!(matches!(reply.status, CacheStatus::Forwarded { .. }), "{reply:?}");
    assert_eq!((kind(&again), again.status), (Some(UpstreamErrorKind::Contradictory), CacheStatus::Cooldown));
    other.result.unwrap();
}

/// A refresh that nobody waits for would take a turn of those who wait; the hits go on without it, and once nothing is scarce, with
/// it.
#[tokio::test(start_paused = true)]
async fn while_glacier_throttles_nothing_is_refreshed_early() {
    let throttles = Arc::new(Mutex::new(false));
    let seen = Arc::clone(&throttles);
    let bench = Bench::new(move |key, _| {
        let refused = *seen.lock().unwrap();
        async move { if refused { Err(error(UpstreamErrorKind::Throttled)) } else { Ok(running(&key, Tier::Standard)) } }
    });
    let hits = async || {
        let ttl = match bench.ask(&key("busy")).await.status {
            CacheStatus::Hit { ttl } => ttl,
            CacheStatus::Forwarded { .. } => {
                let CacheStatus::Hit { ttl } = bench.ask(&key("busy")).await.status else { panic!("it is fresh") };
                ttl
            }
            other => panic!("{other:?}"),
        };
        sleep(ttl.saturating_sub(SECOND)).await;
        let calls = bench.calls();
        for _ in 0..400 {
            assert!(matches!(bench.ask(&key("busy")).await.status, CacheStatus::Hit { .. }));
            sleep(SECOND / 1000).await;
        }
        bench.calls() - calls
    };
    assert!(hits().await > 0, "the control");
    sleep(60 * SECOND).await;
    *throttles.lock().unwrap() = true;
    bench.ask(&key("other")).await.result.unwrap_err();
    *throttles.lock().unwrap() = false;
    assert_eq!(hits().await, 0);
    sleep(60 * SECOND).await;
    assert!(hits().await > 0, "and it has let go again");
}
