//! The cache of credentials, over a scripted provider and a paused clock.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::UNIX_EPOCH,
};

use aws_credential_types::provider::{error::CredentialsError, future};
use tokio::time::{advance, sleep, timeout};

use super::*;
use crate::metrics::{Exposition, Metrics};

/// What the scripted provider does on one load.
#[derive(Debug, Clone)]
enum Step {
    Give(Credentials),
    GiveAfter(Duration, Credentials),
    Fail,
    Hang,
    Panic,
}

/// Does what its script says, the last step for ever.
#[derive(Debug)]
struct Script {
    steps: Vec<Step>,
    loads: AtomicUsize,
}

#[derive(Debug, Clone)]
struct Provider(Arc<Script>);

impl ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let load = self.0.loads.fetch_add(1, Ordering::SeqCst);
        let step = self.0.steps[load.min(self.0.steps.len() - 1)].clone();
        future::ProvideCredentials::new(async move {
            match step {
                Step::Give(credentials) => Ok(credentials),
                Step::GiveAfter(delay, credentials) => {
                    sleep(delay).await;
                    Ok(credentials)
                }
                Step::Fail => Err(CredentialsError::provider_error("marked-secret-of-the-provider")),
                Step::Hang => std::future::pending().await,
                Step::Panic => panic!("scripted"),
            }
        })
    }
}

impl Provider {
    fn new(steps: impl Into<Vec<Step>>) -> (Self, CredentialsHolder) {
        let provider = Self(Arc::new(Script { steps: steps.into(), loads: AtomicUsize::new(0) }));
        let holder = CredentialsHolder::new(SharedCredentialsProvider::new(provider.clone()));
        (provider, holder)
    }

    fn loads(&self) -> usize {
        self.0.loads.load(Ordering::SeqCst)
    }
}

/// The wall clock of these tests counts seconds from an arbitrary start.
fn wall(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

fn credentials(name: &str, expiry: Option<SystemTime>) -> Credentials {
    Credentials::new(name, "marked-secret", Some("marked-token".to_owned()), expiry, "test")
}

/// Lets detached tasks run.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

async fn key_at(holder: &CredentialsHolder, seconds: u64) -> Result<String, CredentialsUnavailable> {
    holder.current(wall(seconds)).await.map(|c| c.access_key_id().to_owned())
}

#[tokio::test(start_paused = true)]
async fn credentials_without_expiry_are_loaded_once() {
    let (provider, holder) = Provider::new([Step::Give(credentials("A", None))]);
    for day in 0..10 {
        assert_eq!(key_at(&holder, day * 86_400).await.unwrap(), "A");
        // A load in the background would run now.
        advance(Duration::from_hours(24)).await;
        settle().await;
    }
    assert_eq!(provider.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_crowd_without_credentials_waits_for_one_load() {
    let (provider, holder) = Provider::new([Step::GiveAfter(Duration::from_secs(2), credentials("A", None))]);
    let crowd: Vec<_> = (0..100)
        .map(|_| {
            let holder = holder.clone();
            tokio::spawn(async move { key_at(&holder, 0).await })
        })
        .collect();
    for caller in crowd {
        assert_eq!(caller.await.unwrap().unwrap(), "A");
    }
    assert_eq!(provider.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn near_expiry_they_are_renewed_in_the_background_while_the_old_ones_serve() {
    let (provider, holder) = Provider::new([
        Step::Give(credentials("old", Some(wall(3600)))),
        Step::GiveAfter(Duration::from_secs(2), credentials("new", Some(wall(7200)))),
    ]);
    assert_eq!(key_at(&holder, 0).await.unwrap(), "old");
    advance(Duration::from_mins(55)).await;
    assert_eq!(key_at(&holder, 3299).await.unwrap(), "old");
    settle().await;
    assert_eq!(provider.loads(), 1, "not before the last five minutes");

    assert_eq!(key_at(&holder, 3300).await.unwrap(), "old", "nobody waits for the renewal");
    sleep(Duration::from_secs(3)).await;
    assert_eq!(key_at(&holder, 3303).await.unwrap(), "new");
    assert_eq!(provider.loads(), 2);
}

/// C5
#[tokio::test(start_paused = true)]
async fn a_provider_that_gives_expired_credentials_does_not_spoil_valid_ones() {
    let old = Step::Give(credentials("old", Some(wall(400))));
    let (provider, holder) = Provider::new([old, Step::Give(credentials("expired", Some(wall(50))))]);
    assert_eq!(key_at(&holder, 0).await.unwrap(), "old");
    advance(REFRESH_PAUSE).await;
    assert_eq!(key_at(&holder, 110).await.unwrap(), "old");
    settle().await;
    assert_eq!(provider.0.loads.load(Ordering::SeqCst), 2);
    assert_eq!(key_at(&holder, 399).await.unwrap(), "old");
    // What Glacier has refused is replaced all the same.
    let refused = holder.current(wall(399)).await.unwrap();
    assert_eq!(holder.force_refresh_after(&refused).await.unwrap().access_key_id(), "expired");
}

/// C5
#[tokio::test(start_paused = true)]
async fn while_the_provider_is_down_valid_credentials_serve_until_they_really_expire() {
    let (provider, holder) = Provider::new([Step::Give(credentials("A", Some(wall(3600)))), Step::Fail]);
    assert_eq!(key_at(&holder, 0).await.unwrap(), "A");
    for second in 3300..3600 {
        advance(Duration::from_secs(1)).await;
        settle().await;
        assert_eq!(key_at(&holder, second).await.unwrap(), "A");
    }
    assert!((20..=32).contains(&provider.loads()), "about one try in ten seconds: {}", provider.loads());
    assert_eq!(key_at(&holder, 3600).await, Err(CredentialsUnavailable::ProviderFailed));
}

/// C6
#[tokio::test(start_paused = true)]
async fn without_credentials_a_dead_provider_is_asked_once_a_second_and_callers_fail_at_once() {
    let (provider, holder) = Provider::new([Step::Fail]);
    let start = Instant::now();
    for _ in 0..1000 {
        assert_eq!(key_at(&holder, 0).await, Err(CredentialsUnavailable::ProviderFailed));
    }
    assert!(start.elapsed() < Duration::from_millis(100));
    assert_eq!(provider.loads(), 1);
    advance(OUTCOME_STANDS).await;
    assert!(key_at(&holder, 1).await.is_err());
    settle().await;
    assert_eq!(provider.loads(), 2);
}

/// C6
#[tokio::test(start_paused = true)]
async fn after_a_failure_nobody_waits_for_the_next_load_but_all_profit_from_it() {
    let slow = Step::GiveAfter(Duration::from_secs(3), credentials("new", None));
    let (provider, holder) = Provider::new([Step::Give(credentials("old", Some(wall(300)))), Step::Fail, slow]);
    assert_eq!(key_at(&holder, 0).await.unwrap(), "old");
    advance(REFRESH_PAUSE).await;
    assert_eq!(key_at(&holder, 299).await.unwrap(), "old", "the background renewal fails");
    settle().await;
    advance(OUTCOME_STANDS).await;

    let start = Instant::now();
    for _ in 0..100 {
        assert_eq!(key_at(&holder, 300).await, Err(CredentialsUnavailable::ProviderFailed));
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    sleep(Duration::from_secs(3)).await;
    settle().await;
    assert_eq!(key_at(&holder, 303).await.unwrap(), "new");
    assert_eq!(provider.loads(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_rare_caller_waits_for_credentials_instead_of_hearing_old_news() {
    let slow = Step::GiveAfter(Duration::from_secs(3), credentials("A", None));
    let (_, holder) = Provider::new([Step::Fail, slow]);
    assert_eq!(key_at(&holder, 0).await, Err(CredentialsUnavailable::ProviderFailed));
    advance(FAILURE_LASTS).await;
    assert_eq!(key_at(&holder, 20).await.unwrap(), "A");
}

/// C7
#[tokio::test(start_paused = true)]
async fn a_provider_that_hangs_is_given_up_after_five_seconds() {
    let (provider, holder) = Provider::new([Step::Hang, Step::Give(credentials("A", None))]);
    let start = Instant::now();
    assert_eq!(key_at(&holder, 0).await, Err(CredentialsUnavailable::TimedOut));
    assert_eq!(start.elapsed(), LOAD_TIMEOUT);
    advance(OUTCOME_STANDS).await;
    assert_eq!(key_at(&holder, 6).await, Err(CredentialsUnavailable::TimedOut), "nobody waits again");
    settle().await;
    assert_eq!(key_at(&holder, 6).await.unwrap(), "A");
    assert_eq!(provider.loads(), 2);
}

/// C7
#[tokio::test(start_paused = true)]
async fn callers_that_leave_cancel_nothing_and_pile_nothing_up() {
    let (provider, holder) = Provider::new([Step::GiveAfter(Duration::from_secs(3), credentials("A", None))]);
    for _ in 0..50 {
        assert!(timeout(Duration::from_millis(10), key_at(&holder, 0)).await.is_err());
    }
    sleep(Duration::from_secs(3)).await;
    assert_eq!(key_at(&holder, 3).await.unwrap(), "A");
    assert_eq!(provider.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_panics_has_failed_and_is_asked_again() {
    let (_, holder) = Provider::new([Step::Panic, Step::Give(credentials("A", None))]);
    assert_eq!(key_at(&holder, 0).await, Err(CredentialsUnavailable::ProviderFailed));
    advance(OUTCOME_STANDS).await;
    assert!(key_at(&holder, 1).await.is_err());
    settle().await;
    assert_eq!(key_at(&holder, 1).await.unwrap(), "A");
}

/// C3: a clock that is set back makes them valid again.
#[tokio::test(start_paused = true)]
async fn expired_credentials_from_the_provider_are_never_used_nor_asked_for_in_a_loop() {
    let (provider, holder) = Provider::new([Step::Give(credentials("A", Some(wall(10))))]);
    for _ in 0..100 {
        assert_eq!(key_at(&holder, 10).await, Err(CredentialsUnavailable::Expired));
    }
    assert_eq!(provider.loads(), 1);
    assert_eq!(key_at(&holder, 9).await.unwrap(), "A", "the clock was set back");
}

#[tokio::test(start_paused = true)]
async fn a_provider_of_short_lived_credentials_is_not_hammered() {
    let (provider, holder) = Provider::new([Step::Give(credentials("A", Some(wall(200))))]);
    for second in 0..100 {
        assert_eq!(key_at(&holder, second).await.unwrap(), "A");
        advance(Duration::from_secs(1)).await;
        settle().await;
    }
    assert!(provider.loads() <= 11, "{}", provider.loads());
}

/// C4
#[tokio::test(start_paused = true)]
async fn a_hundred_rejections_of_one_token_cost_one_refresh() {
    let (provider, holder) = Provider::new([
        Step::Give(credentials("old", None)),
        Step::GiveAfter(Duration::from_millis(50), credentials("new", None)),
    ]);
    let rejected = holder.current(wall(0)).await.unwrap();
    let crowd: Vec<_> = (0..100u64)
        .map(|i| {
            let (holder, rejected) = (holder.clone(), rejected.clone());
            tokio::spawn(async move {
                sleep(Duration::from_millis(i)).await;
                holder.force_refresh_after(&rejected).await.unwrap().access_key_id().to_owned()
            })
        })
        .collect();
    for caller in crowd {
        assert_eq!(caller.await.unwrap(), "new");
    }
    assert_eq!(provider.loads(), 2);
}

/// C8
#[tokio::test(start_paused = true)]
async fn a_provider_that_insists_on_rejected_credentials_is_asked_once_a_second() {
    let (provider, holder) = Provider::new([Step::Give(credentials("A", None))]);
    let rejected = holder.current(wall(0)).await.unwrap();
    for _ in 0..100 {
        assert_eq!(holder.force_refresh_after(&rejected).await.unwrap().access_key_id(), "A");
    }
    assert_eq!(provider.loads(), 2);
}

/// C8
#[tokio::test(start_paused = true)]
async fn what_replaces_rejected_credentials_serves_although_it_ends_sooner() {
    let (provider, holder) = Provider::new([
        Step::Give(credentials("refused", Some(wall(9_000)))),
        Step::Give(credentials("new", Some(wall(3_600)))),
    ]);
    let rejected = holder.current(wall(0)).await.unwrap();
    assert_eq!(holder.force_refresh_after(&rejected).await.unwrap().access_key_id(), "new");
    assert_eq!(key_at(&holder, 1).await.unwrap(), "new", "and not only for whoever asked");
    assert_eq!(provider.loads(), 2);
}

/// C8, with a provider that is down just then.
#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_stands_for_a_second_and_not_for_longer() {
    let (provider, holder) =
        Provider::new([Step::Give(credentials("old", None)), Step::Fail, Step::Give(credentials("new", None))]);
    let rejected = holder.current(wall(0)).await.unwrap();
    for _ in 0..100 {
        let refused = holder.force_refresh_after(&rejected).await;
        assert_eq!(refused.map(|_| ()), Err(CredentialsUnavailable::ProviderFailed));
    }
    assert_eq!(provider.loads(), 2, "a crowd costs one load");
    advance(OUTCOME_STANDS).await;
    assert_eq!(holder.force_refresh_after(&rejected).await.unwrap().access_key_id(), "new");
    assert_eq!(provider.loads(), 3);
}

/// C11
#[tokio::test(start_paused = true)]
async fn a_failure_is_logged_once_when_its_cause_changes_and_each_five_minutes() {
    let mut state = State::default();
    let failed = |tried: &str| Failed { why: CredentialsUnavailable::NotConfigured, tried: tried.to_owned() };
    let mut log = |tried: &str| {
        let before = state.logged.clone();
        state.log(failed(tried), Instant::now());
        state.logged != before
    };
    assert!(log("a"));
    for _ in 0..149 {
        advance(Duration::from_secs(2)).await;
        assert!(!log("a"), "the same again");
    }
    assert!(log("b"), "another cause");
    assert!(log("a"), "and back");
    advance(LOGGED_AGAIN).await;
    assert!(log("a"), "it lasts");
}

/// C11
#[tokio::test(start_paused = true)]
async fn why_there_are_none_can_be_asked_until_a_load_succeeds() {
    let (_, holder) = Provider::new([Step::Fail, Step::Give(credentials("A", None))]);
    assert_eq!(holder.trouble(), None);
    assert!(holder.resolve_once().await.is_err());
    assert_eq!(holder.trouble().as_deref(), Some("the credentials provider failed"));
    advance(OUTCOME_STANDS).await;
    assert_eq!(holder.resolve_once().await, Ok(()));
    assert_eq!(holder.trouble(), None);
    assert_eq!(holder.describe().as_deref(), Some("fixed, expires never"));
}

#[tokio::test(start_paused = true)]
async fn readiness_needs_one_successful_load() {
    let (provider, holder) = Provider::new([Step::Fail, Step::Give(credentials("A", Some(wall(0)))), Step::Fail]);
    assert_eq!(holder.resolve_once().await, Err(CredentialsUnavailable::ProviderFailed));
    advance(OUTCOME_STANDS).await;
    assert_eq!(holder.resolve_once().await, Ok(()));
    assert_eq!(holder.resolve_once().await, Ok(()));
    assert_eq!(provider.loads(), 2);
}

/// P8
#[tokio::test(start_paused = true)]
async fn nothing_printable_holds_a_secret_or_a_providers_words() {
    let holder = CredentialsHolder::fixed("AKID", "marked-secret", Some("marked-token".to_owned()));
    let given = holder.current(wall(0)).await.unwrap();
    let (_, failing) = Provider::new([Step::Fail]);
    let error = failing.current(wall(0)).await.unwrap_err();
    for printed in [format!("{holder:?}"), format!("{given:?}"), format!("{error:?} {error}")] {
        assert!(!printed.contains("marked"), "{printed}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_load_is_reported_by_how_it_ended_and_the_expiry_is_that_of_what_serves() {
    let old = credentials("old", Some(wall(400)));
    let worse = Step::Give(credentials("worse", Some(wall(50))));
    let renewed = Step::Give(credentials("new", Some(wall(9_000))));
    let (_, holder) = Provider::new([Step::Give(old), worse, Step::Fail, renewed]);
    holder.resolve_once().await.unwrap();
    // As at a start with credentials that somebody has loaded before: they are known, but that load is nobody's.
    let metrics = Metrics::new();
    holder.report_to(metrics.credentials());

    let expected = [("0", "0", "0", 400), ("0", "1", "0", 400), ("0", "1", "1", 400), ("1", "1", "1", 9_000)];
    for (loaded, kept_old, failed, expiry) in expected {
        let told = metrics.encode(Exposition::Classic).unwrap();
        let has = |series: &str, value: &str| {
            let line = format!("glacier_gateway_credentials_{series} {value}");
            assert!(told.lines().any(|l| l == line), "{line} is missing in {told}");
        };
        has("loads_total{result=\"loaded\"}", loaded);
        has("loads_total{result=\"kept_old\"}", kept_old);
        has("loads_total{result=\"failed\"}", failed);
        has("info{provider=\"fixed\"}", "1");
        has("expiry_timestamp_seconds{provider=\"fixed\"}", &format!("{}.0", 1_000_000 + expiry));
        advance(REFRESH_PAUSE).await;
        key_at(&holder, 110).await.unwrap();
        settle().await;
    }
}
