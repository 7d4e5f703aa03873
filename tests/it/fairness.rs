//! One noisy caller, and everybody else (tests/FAULTS.md, D16); with the clock paused.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use glacier_gateway::{
    caller::CallerIdentity,
    describe::{
        CacheStatus, DescribeError, DescribeSettings, FetchLimits, Forwarded, NotForwarded, Reply, StaleBecause,
    },
    job::JobKey,
    proto::v1::Tier,
    upstream::{UpstreamError, UpstreamErrorKind},
};
use tokio::time::Instant;

use crate::support::fake::{Bench, error, key, running};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn caller(name: &str) -> Arc<CallerIdentity> {
    Arc::new(CallerIdentity::Spiffe(format!("spiffe://test/{name}")))
}

fn limited(limits: FetchLimits) -> DescribeSettings {
    DescribeSettings { limits, ..DescribeSettings::default() }
}

/// An upstream that is done at once with jobs named `quick…`, and takes this long for the others.
fn slow_but_for_quick(limits: FetchLimits, takes: Duration) -> Bench {
    Bench::with_settings(&limited(limits), move |key, _| async move {
        if !key.job_id().starts_with("quick") {
            tokio::time::sleep(takes).await;
        }
        Ok(running(&key, Tier::Standard))
    })
}

fn is_over_share(reply: &Reply) -> bool {
    matches!(&reply.result, Err(DescribeError::Upstream(error)) if error.kind == UpstreamErrorKind::OverShare)
}

/// D16: random keys, short deadlines, a slow Glacier, for half a minute.
#[tokio::test(start_paused = true)]
async fn a_noisy_caller_harms_nobody_else() {
    let (noisy_now, noisy_most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, most) = (Arc::clone(&noisy_now), Arc::clone(&noisy_most));
    let bench = Bench::with_settings(&DescribeSettings::default(), move |key, _| {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        async move {
            match key.job_id().strip_prefix("noise") {
                Some(_) => {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(3 * SECOND).await;
                    now.fetch_sub(1, Ordering::SeqCst);
                }
                None => tokio::time::sleep(SECOND / 5).await,
            }
            Ok(running(&key, Tier::Standard))
        }
    });
    let (noisy, other) = (caller("noisy"), caller("other"));
    bench.spawn_ask_as(Some(&other), &key("known"), 5 * SECOND).await.unwrap().result.unwrap();

    let (mut floods, mut others) = (Vec::new(), Vec::new());
    for tick in 0..3000 {
        for n in 0..5 {
            floods.push(bench.spawn_ask_as(Some(&noisy), &key(&format!("noise-{tick}-{n}")), 5 * MS));
        }
        if tick % 50 == 0 {
            let before = Instant::now();
            let own = bench.spawn_ask_as(Some(&other), &key(&format!("own-{tick}")), 5 * SECOND);
            others.push(tokio::spawn(async move { (own.await.unwrap(), before.elapsed()) }));
            // Hits are for everybody, the noisy one too.
            for asker in [&noisy, &other] {
                let hit = bench.spawn_ask_as(Some(asker), &key("known"), 5 * SECOND);
                others.push(tokio::spawn(async move { (hit.await.unwrap(), before.elapsed()) }));
            }
        }
        tokio::time::sleep(10 * MS).await;
    }
    for other in others {
        let (reply, took) = other.await.unwrap();
        assert!(reply.result.is_ok(), "{reply:?}");
        assert!(took <= SECOND / 4, "{took:?}");
    }
    let mut refused = 0;
    for call in floods {
        refused += usize::from(is_over_share(&call.await.unwrap()));
    }
    assert!(refused > 5_000, "the flood was no flood: {refused} refused");
    assert_eq!(noisy_most.load(Ordering::SeqCst), 32, "half of the places in flight");
}

/// D16 where Glacier is fast: few fetches at once are many in a second, and what throttles the account throttles everybody.
#[tokio::test(start_paused = true)]
async fn a_fast_noisy_caller_does_not_get_the_account_throttled() {
    let asked = Arc::new(Mutex::new(std::collections::VecDeque::new()));
    let bench = Bench::with_settings(&DescribeSettings::default(), move |key, _| {
        let asked = Arc::clone(&asked);
        async move {
            tokio::time::sleep(20 * MS).await;
            let in_a_second = {
                let mut asked = asked.lock().unwrap();
                asked.push_back(Instant::now());
                while asked.front().is_some_and(|at| at.elapsed() > SECOND) {
                    asked.pop_front();
                }
                asked.len()
            };
            // The account's limit: above one caller's burst, below what 32 fetches of 20 ms each are in a second.
            if in_a_second > 400 {
                return Err(UpstreamError::new(UpstreamErrorKind::Throttled, true, "too many"));
            }
            Ok(running(&key, Tier::Standard))
        }
    });
    let (noisy, other) = (caller("noisy"), caller("other"));
    let (mut floods, mut others) = (Vec::new(), Vec::new());
    for tick in 0..1000 {
        for n in 0..16 {
            floods.push(bench.spawn_ask_as(Some(&noisy), &key(&format!("noise-{tick}-{n}")), SECOND));
        }
        if tick % 50 == 0 {
            others.push(bench.spawn_ask_as(Some(&other), &key(&format!("own-{tick}")), 5 * SECOND));
        }
        tokio::time::sleep(10 * MS).await;
    }
    for other in others {
        let reply = other.await.unwrap();
        assert!(reply.result.is_ok(), "{reply:?}");
    }
    let mut served = 0;
    for call in floods {
        let reply = call.await.unwrap();
        assert!(reply.result.is_ok() || is_over_share(&reply), "{reply:?}");
        served += usize::from(reply.result.is_ok());
    }
    // The share is worth something all the same: its burst, and 50 in each of the ten seconds.
    assert!((700..=780).contains(&served), "{served}");
}

#[tokio::test(start_paused = true)]
async fn cancelling_gives_nothing_of_the_share_back() {
    let limits = FetchLimits { per_caller: 2, ..FetchLimits::default() };
    let (bench, noisy) = (slow_but_for_quick(limits, 3 * SECOND), caller("noisy"));
    for n in 0..2 {
        let asked = bench.spawn_ask_as(Some(&noisy), &key(&format!("job-{n}")), 10 * SECOND);
        tokio::time::sleep(MS).await;
        asked.abort();
    }
    let refused = bench.spawn_ask_as(Some(&noisy), &key("quick"), SECOND).await.unwrap();
    assert!(is_over_share(&refused), "{refused:?}");
    assert_eq!(refused.status, CacheStatus::NotForwarded(NotForwarded::OverShare));
    // Others, with or without a name, are no part of that.
    for other in [Some(&caller("other")), None] {
        assert!(bench.spawn_ask_as(other, &key("job-9"), 10 * SECOND).await.unwrap().result.is_ok());
    }
    // By now the two have ended.
    assert!(bench.spawn_ask_as(Some(&noisy), &key("quick"), SECOND).await.unwrap().result.is_ok());
}

#[tokio::test(start_paused = true)]
async fn joining_and_hits_cost_nothing() {
    let limits = FetchLimits { per_caller: 1, ..FetchLimits::default() };
    let (bench, busy, other) = (slow_but_for_quick(limits, SECOND), caller("busy"), caller("other"));
    bench.spawn_ask_as(Some(&busy), &key("quick"), SECOND).await.unwrap().result.unwrap();
    let own = bench.spawn_ask_as(Some(&busy), &key("own"), 5 * SECOND);
    let others = bench.spawn_ask_as(Some(&other), &key("others"), 5 * SECOND);
    tokio::time::sleep(MS).await;
    let joined = bench.spawn_ask_as(Some(&busy), &key("others"), 5 * SECOND);
    let hit = bench.spawn_ask_as(Some(&busy), &key("quick"), 5 * SECOND);
    for asked in [own, others, joined, hit] {
        assert!(asked.await.unwrap().result.is_ok());
    }
    assert_eq!(bench.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn beyond_the_share_what_is_known_is_given_and_nothing_is_refreshed_early() {
    let limits = FetchLimits { per_caller: 1, ..FetchLimits::default() };
    let (bench, noisy, other) = (slow_but_for_quick(limits, 7 * SECOND), caller("noisy"), caller("other"));
    let start = Instant::now();
    bench.spawn_ask_as(Some(&noisy), &key("quick"), SECOND).await.unwrap().result.unwrap();
    tokio::time::sleep(24 * SECOND).await;
    let _held = bench.spawn_ask_as(Some(&noisy), &key("job"), 10 * SECOND);
    while start.elapsed() < 29 * SECOND {
        tokio::time::sleep(10 * MS).await;
        let hit = bench.spawn_ask_as(Some(&noisy), &key("quick"), SECOND).await.unwrap();
        assert!(matches!(hit.status, CacheStatus::Hit { .. }), "{:?}", hit.status);
    }
    assert_eq!(bench.calls(), 2, "no refresh on a share that is used up");
    tokio::time::sleep_until(start + 30 * SECOND + 500 * MS).await;
    let stale = bench.spawn_ask_as(Some(&noisy), &key("quick"), SECOND).await.unwrap();
    assert!(matches!(stale.status, CacheStatus::Stale { because: StaleBecause::Error, .. }), "{:?}", stale.status);
    assert!(stale.result.is_ok());
    assert_eq!(bench.calls(), 2);
    // Somebody else's question is their own.
    let asked = bench.spawn_ask_as(Some(&other), &key("quick"), SECOND).await.unwrap();
    let stored = CacheStatus::Forwarded { reason: Forwarded::Stale, collapsed: false, stored: true };
    assert_eq!((asked.status, bench.calls()), (stored, 3));
}

/// The control of the test above: another caller's hits in those seconds do start a refresh.
#[tokio::test(start_paused = true)]
async fn within_the_share_hits_refresh_early() {
    let limits = FetchLimits { per_caller: 1, ..FetchLimits::default() };
    let (bench, honest) = (slow_but_for_quick(limits, 7 * SECOND), caller("honest"));
    bench.spawn_ask_as(Some(&honest), &key("quick"), SECOND).await.unwrap().result.unwrap();
    tokio::time::sleep(24 * SECOND).await;
    for _ in 0..500 {
        tokio::time::sleep(10 * MS).await;
        bench.spawn_ask_as(Some(&honest), &key("quick"), SECOND).await.unwrap().result.unwrap();
    }
    assert_eq!(bench.calls(), 2);
}

/// A noisy caller's fetch waits behind its own others; who joined it asks anew, and does not pay for the noise.
#[tokio::test(start_paused = true)]
async fn who_joined_a_fetch_that_got_no_turn_asks_anew() {
    let limits = FetchLimits { in_flight: 2, ..FetchLimits::default() };
    let (bench, noisy, other) = (slow_but_for_quick(limits, 5 * SECOND), caller("noisy"), caller("other"));
    let _in_flight = bench.spawn_ask_as(Some(&noisy), &key("job"), 10 * SECOND);
    tokio::time::sleep(MS).await;
    let waits = bench.spawn_ask_as(Some(&noisy), &key("quick"), 10 * SECOND);
    tokio::time::sleep(MS).await;
    let start = Instant::now();
    let joins = bench.spawn_ask_as(Some(&other), &key("quick"), 10 * SECOND).await.unwrap();
    assert!(joins.result.is_ok(), "{joins:?}");
    assert!(start.elapsed() <= SECOND + 10 * MS, "{:?}", start.elapsed());
    // The starter's own refusal came at the same moment.
    let starter = waits.await.unwrap();
    assert!(is_over_share(&starter), "{starter:?}");
}

/// Whoever started it asks again at once, and may be first each time.
#[tokio::test(start_paused = true)]
async fn who_joined_a_fetch_that_gets_no_turn_again_and_again_waits_for_an_answer() {
    let limits = FetchLimits { in_flight: 2, ..FetchLimits::default() };
    let (bench, noisy, other) = (slow_but_for_quick(limits, 5 * SECOND), caller("noisy"), caller("other"));
    let _in_flight = bench.spawn_ask_as(Some(&noisy), &key("job"), 10 * SECOND);
    tokio::time::sleep(MS).await;
    let asking_again = async {
        loop {
            bench.spawn_ask_as(Some(&noisy), &key("quick"), 10 * SECOND).await.unwrap();
        }
    };
    let joins = async {
        tokio::time::sleep(MS).await;
        bench.spawn_ask_as(Some(&other), &key("quick"), 10 * SECOND).await.unwrap()
    };
    let reply = tokio::select! {
        biased;
        reply = joins => reply,
        _ = asking_again => unreachable!("it never ends"),
    };
    assert!(reply.result.is_ok(), "{reply:?}");
}

/// `fwd` only where something was forwarded.
#[tokio::test(start_paused = true)]
async fn who_is_out_of_time_hears_whether_anything_was_sent() {
    let limits = FetchLimits { in_flight: 1, ..FetchLimits::default() };
    let bench = slow_but_for_quick(limits, 20 * SECOND);
    let sent = bench.spawn_ask(&key("sent"), SECOND / 2);
    tokio::time::sleep(MS).await;
    let [waits, joins] = [(); 2].map(|()| bench.spawn_ask(&key("waits"), SECOND / 2));
    let out_of_time = Err(DescribeError::DeadlineExceeded);
    let reply = sent.await.unwrap();
    let forwarded = CacheStatus::Forwarded { reason: Forwarded::Miss, collapsed: false, stored: false };
    assert_eq!((&reply.result, reply.status), (&out_of_time, forwarded));
    for reply in [waits.await.unwrap(), joins.await.unwrap()] {
        assert_eq!(
            (reply.result, reply.status),
            (out_of_time.clone(), CacheStatus::NotForwarded(NotForwarded::NotSent))
        );
    }
}

/// The same without credentials, unless the fetch had sent a request before.
#[tokio::test(start_paused = true)]
async fn who_is_refused_for_credentials_hears_whether_anything_was_sent() {
    let bench = Bench::new(|key, _| async move {
        let sent = key.job_id() == "sent";
        Err(UpstreamError::new(UpstreamErrorKind::CredentialsUnavailable, sent, "scripted"))
    });
    let forwarded = CacheStatus::Forwarded { reason: Forwarded::Miss, collapsed: false, stored: false };
    assert_eq!(bench.ask(&key("sent")).await.status, forwarded);
    assert_eq!(bench.ask(&key("not-sent")).await.status, CacheStatus::NotForwarded(NotForwarded::NotSent));
}

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// D21: naming another account each time costs a caller nothing, so no account has lines of its own.
#[tokio::test(start_paused = true)]
async fn a_caller_of_many_accounts_fills_no_log_with_failed_fetches() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let bench = Bench::new(|_, _| async { Err(error(UpstreamErrorKind::AccessDenied)) });
    for account in 0..1000 {
        let key = JobKey::parse(&format!("{account:012}"), "vault", "job").unwrap();
        bench.ask(&key).await.result.unwrap_err();
    }
    bench.spawn_ask_as(Some(&caller("quiet")), &key("quiet"), SECOND).await.unwrap().result.unwrap_err();
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| line.contains("the fetch from glacier failed")).collect();
    assert_eq!(lines.len(), 101, "a hundred at once, and one of another caller's");
    assert!(lines[100].contains("quiet"), "{}", lines[100]);
}
