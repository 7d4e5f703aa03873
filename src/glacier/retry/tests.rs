//! The decision as a table, the bucket, and the bound on requests that the two give together.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::upstream::{UpstreamError, UpstreamErrorKind as Kind};

const PLENTY: Duration = Duration::from_mins(1);
const SECOND: Duration = Duration::from_secs(1);
static TEN_MINUTES: LazyLock<Option<Offset>> = LazyLock::new(|| dated(Cause::Skewed, 600).offset);

fn failure(cause: Cause) -> Failure {
    Failure::new(UpstreamError::new(Kind::Unavailable, true, "scripted"), cause)
}

fn waiting(cause: Cause, wish: Duration) -> Failure {
    let mut failure = failure(cause);
    failure.error.retry_after = Some(wish);
    failure
}

/// A failure whose answer says that Glacier's clock is `seconds` ahead.
fn dated(cause: Cause, seconds: i64) -> Failure {
    use http::{HeaderMap, header};
    use tokio::time::Instant;

    use crate::clock::Moment;

    let epoch = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_332_263_023);
    let date = time::OffsetDateTime::from(epoch) + time::Duration::seconds(seconds);
    let date = date.format(&time::format_description::well_known::Rfc2822).unwrap().parse().unwrap();
    let now = Moment { instant: Instant::now(), wall: epoch };
    let offset = crate::glacier::skew::measure(&HeaderMap::from_iter([(header::DATE, date)]), now, now);
    Failure { offset: Some(offset.unwrap()), ..failure(cause) }
}

fn first() -> Progress {
    Progress { requests: 1, ..Progress::default() }
}

/// The verdict with default settings, a full bucket, and the longest jitter.
fn verdict(failure: &Failure, progress: Progress, left: Duration) -> Verdict {
    decide(&RetrySettings::default(), failure, &progress, Offset::default(), 500, left, 1.0)
}

fn repeat(wait: Duration, cost: u32) -> Verdict {
    Verdict::Repeat { wait, cost }
}

#[test]
fn what_may_differ_next_time_is_repeated_and_what_may_not_is_given_up() {
    for (cause, expected) in [
        (Cause::Transient, repeat(DEFAULT_TRANSIENT_BASE, 14)),
        (Cause::Throttled, repeat(DEFAULT_THROTTLING_BASE, 5)),
        (Cause::Garbage, repeat(DEFAULT_TRANSIENT_BASE, 14)),
        (Cause::ClosedWhileIdle, Verdict::Resend),
        (Cause::Credentials, Verdict::Refresh),
        (Cause::Skewed, Verdict::GiveUp),
        (Cause::Permanent, Verdict::GiveUp),
    ] {
        assert_eq!(verdict(&failure(cause), first(), PLENTY), expected, "{cause:?}");
    }
}

#[test]
fn every_kind_of_failure_has_the_cause_that_its_row_asks_for() {
    for (kind, cause) in [
        (Kind::Unavailable, Cause::Transient),
        (Kind::Throttled, Cause::Throttled),
        (Kind::Malformed, Cause::Garbage),
        (Kind::CredentialsExpired, Cause::Credentials),
        (Kind::CredentialsRejected, Cause::Credentials),
        (Kind::ClockSkewed, Cause::Skewed),
        (Kind::InvalidParameter, Cause::Permanent),
        (Kind::JobNotFound, Cause::Permanent),
        (Kind::VaultNotFound, Cause::Permanent),
        (Kind::AccessDenied, Cause::Permanent),
        (Kind::TlsFailed, Cause::Permanent),
        (Kind::CredentialsUnavailable, Cause::Permanent),
        (Kind::Overloaded, Cause::Permanent),
        (Kind::ClosedToAccount, Cause::Permanent),
        (Kind::WrongJob, Cause::Permanent),
        (Kind::Unexpected, Cause::Permanent),
    ] {
        assert_eq!(Failure::from(UpstreamError::new(kind, true, "")).cause, cause, "{kind:?}");
    }
}

#[test]
fn the_wait_doubles_with_each_attempt_up_to_the_cap_and_is_jittered_in_full() {
    let settings = RetrySettings { max_attempts: 100, ..RetrySettings::default() };
    let wait = |cause, requests, random| {
        let progress = Progress { requests, ..Progress::default() };
        match decide(&settings, &failure(cause), &progress, Offset::default(), 500, PLENTY, random) {
            Verdict::Repeat { wait, .. } => wait.as_millis(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!([1, 2, 3, 4].map(|n| wait(Cause::Transient, n, 1.0)), [50, 100, 200, 400]);
    assert_eq!([1, 2, 3, 4].map(|n| wait(Cause::Throttled, n, 1.0)), [1_000, 2_000, 4_000, 8_000]);
    assert_eq!([6, 50].map(|n| wait(Cause::Throttled, n, 1.0)), [20_000, 20_000]);
    assert_eq!([0.0, 0.25, 0.5].map(|random| wait(Cause::Throttled, 1, random)), [0, 250, 500]);
}

#[test]
fn no_more_attempts_than_allowed_and_corrections_are_not_counted() {
    let transient = failure(Cause::Transient);
    let after = |requests, corrections| {
        let progress = Progress { requests, resent: corrections == 1, ..Progress::default() };
        verdict(&transient, progress, PLENTY)
    };
    assert_eq!(after(2, 0), repeat(Duration::from_millis(100), 14));
    assert_eq!(after(3, 0), Verdict::GiveUp);
    assert_eq!(after(3, 1), repeat(Duration::from_millis(100), 14));
    assert_eq!(after(4, 1), Verdict::GiveUp);
    let never = RetrySettings { max_attempts: 1, ..RetrySettings::default() };
    let alone = |cause| decide(&never, &failure(cause), &first(), Offset::default(), 500, PLENTY, 0.0);
    assert_eq!(alone(Cause::Transient), Verdict::GiveUp);
    assert_eq!(alone(Cause::ClosedWhileIdle), Verdict::Resend);
}

#[test]
fn a_wait_must_leave_time_for_an_attempt() {
    let throttled = failure(Cause::Throttled);
    assert_eq!(verdict(&throttled, first(), SECOND + MINIMAL_ATTEMPT), repeat(SECOND, 5));
    let barely_not = |needed: Duration| needed.saturating_sub(Duration::from_nanos(1));
    assert_eq!(verdict(&throttled, first(), barely_not(SECOND + MINIMAL_ATTEMPT)), Verdict::GiveUp);
    for cause in [Cause::ClosedWhileIdle, Cause::Credentials] {
        assert_ne!(verdict(&failure(cause), first(), MINIMAL_ATTEMPT), Verdict::GiveUp);
        assert_eq!(verdict(&failure(cause), first(), barely_not(MINIMAL_ATTEMPT)), Verdict::GiveUp);
    }
}

#[test]
fn a_retry_needs_its_tokens() {
    for (cause, cost) in [(Cause::Transient, 14), (Cause::Garbage, 14), (Cause::Throttled, 5)] {
        let with = |tokens| {
            decide(&RetrySettings::default(), &failure(cause), &first(), Offset::default(), tokens, PLENTY, 0.0)
        };
        assert_eq!(with(cost), repeat(Duration::ZERO, cost), "{cause:?}");
        assert_eq!(with(cost - 1), Verdict::GiveUp, "{cause:?}");
    }
    for cause in [Cause::ClosedWhileIdle, Cause::Credentials] {
        let broke = decide(&RetrySettings::default(), &failure(cause), &first(), Offset::default(), 0, PLENTY, 0.0);
        assert_ne!(broke, Verdict::GiveUp, "{cause:?} is free");
    }
}

#[test]
fn glaciers_wish_is_honoured_between_our_own_wait_and_five_seconds_more() {
    for (wish_ms, waits_ms) in [(0, 1_000), (999, 1_000), (1_700, 1_700), (6_000, 6_000), (6_001, 6_000)] {
        let wish = Duration::from_millis(wish_ms);
        let expected = repeat(Duration::from_millis(waits_ms), 5);
        assert_eq!(verdict(&waiting(Cause::Throttled, wish), first(), PLENTY), expected, "{wish_ms}");
    }
    let long = waiting(Cause::Transient, Duration::MAX);
    assert_eq!(verdict(&long, first(), PLENTY), repeat(Duration::from_millis(5_050), 14));
    assert_eq!(verdict(&long, first(), Duration::from_secs(5)), Verdict::GiveUp, "it does not fit");
}

/// U13, U16.
#[test]
fn garbage_is_asked_about_once_more_only() {
    let mut progress = first();
    progress.follow(repeat(Duration::ZERO, 14), Cause::Garbage);
    progress.requests += 1;
    assert_eq!(verdict(&failure(Cause::Garbage), progress, PLENTY), Verdict::GiveUp);
    assert_ne!(verdict(&failure(Cause::Transient), progress, PLENTY), Verdict::GiveUp, "other trouble is not");
    let mut other = first();
    other.follow(repeat(Duration::ZERO, 14), Cause::Transient);
    assert!(!other.garbage_repeated);
}

/// U8.
#[test]
fn a_closed_connection_is_replaced_once_and_is_ordinary_trouble_after_that() {
    let closed = failure(Cause::ClosedWhileIdle);
    let mut progress = first();
    progress.follow(verdict(&closed, progress, PLENTY), closed.cause);
    progress.requests += 1;
    assert_eq!((progress.attempts(), progress.resent), (1, true));
    assert_eq!(verdict(&closed, progress, PLENTY), repeat(DEFAULT_TRANSIENT_BASE, 14));
}

/// C1, C2.
#[test]
fn the_clock_is_corrected_once_and_only_if_it_is_really_off() {
    for cause in [Cause::Skewed, Cause::Credentials] {
        let off = dated(cause, 600);
        let Verdict::CorrectClock(offset) = verdict(&off, first(), PLENTY) else { panic!("{cause:?}") };
        assert_eq!(offset.as_millis(), 600_000);
        assert!(matches!(verdict(&dated(cause, -241), first(), PLENTY), Verdict::CorrectClock(_)));

        let mut corrected = first();
        corrected.follow(Verdict::CorrectClock(offset), cause);
        assert!(!matches!(verdict(&off, corrected, PLENTY), Verdict::CorrectClock(_)), "once");
        let signed_right = decide(&RetrySettings::default(), &off, &first(), offset, 500, PLENTY, 0.0);
        assert!(!matches!(signed_right, Verdict::CorrectClock(_)), "the signature had Glacier's date");
        assert_eq!(verdict(&off, first(), Duration::ZERO), Verdict::GiveUp, "no time");
    }
    assert_eq!(verdict(&dated(Cause::Skewed, 240), first(), PLENTY), Verdict::GiveUp);
    for cause in [Cause::Transient, Cause::Throttled, Cause::Garbage, Cause::Permanent] {
        assert_eq!(
            verdict(&dated(cause, 600), first(), PLENTY),
            verdict(&failure(cause), first(), PLENTY),
            "{cause:?} is not about the clock"
        );
    }
}

/// C8.
#[test]
fn credentials_are_refreshed_once() {
    let rejected = dated(Cause::Credentials, 240);
    assert_eq!(verdict(&rejected, first(), PLENTY), Verdict::Refresh, "the clocks agree");
    let mut progress = first();
    progress.follow(Verdict::Refresh, rejected.cause);
    assert_eq!((progress.refreshed, progress.attempts()), (true, 0));
    assert_eq!(verdict(&rejected, progress, PLENTY), Verdict::GiveUp);
}

#[test]
fn the_bucket_gives_all_or_nothing_and_never_holds_more_than_it_can() {
    let bucket = Bucket::new(20);
    assert!(bucket.take(14));
    assert!(!bucket.take(7));
    assert_eq!(bucket.tokens(), 6);
    bucket.reward(&first());
    assert_eq!(bucket.tokens(), 7, "a first attempt that succeeded");
    bucket.reward(&Progress { requests: 2, resent: true, ..Progress::default() });
    assert_eq!(bucket.tokens(), 7, "one that succeeded after a correction");
    bucket.reward(&Progress { requests: 2, paid: Some(14), ..Progress::default() });
    assert_eq!(bucket.tokens(), 20, "a retry gets its own back, up to the capacity");
}

/// U2, by arithmetic: the sockets' turn is in `tests/it/upstream.rs`.
#[test]
fn a_thousand_misses_of_a_dead_glacier_cost_thirty_five_retries() {
    let bucket = Bucket::new(DEFAULT_TOKENS);
    let requests: u32 = (0..1000).map(|_| fetch(&bucket, |_| Some(Cause::Transient), 0.5).requests).sum();
    assert_eq!(requests, 1035);
}

/// A fetch whose n-th request fails as `outcome` says, as `GlacierClient` runs it, without the waits.
fn fetch(bucket: &Bucket, outcome: impl Fn(u32) -> Option<Cause>, random: f64) -> Progress {
    let mut progress = Progress::default();
    loop {
        progress.requests += 1;
        // Three corrections, once each.
        assert!(progress.requests <= DEFAULT_MAX_ATTEMPTS + 3, "it does not end: {progress:?}");
        let Some(cause) = outcome(progress.requests) else {
            bucket.reward(&progress);
            return progress;
        };
        let settings = RetrySettings::default();
        let failure = Failure { offset: *TEN_MINUTES, ..failure(cause) };
        let verdict = decide(&settings, &failure, &progress, Offset::default(), bucket.tokens(), PLENTY, random);
        match verdict {
            Verdict::GiveUp => return progress,
            Verdict::Repeat { cost, .. } if !bucket.take(cost) => return progress,
            Verdict::Repeat { .. } | Verdict::Resend | Verdict::Refresh | Verdict::CorrectClock(_) => {
                progress.follow(verdict, cause);
            }
        }
    }
}

fn any_outcome() -> impl Strategy<Value = Option<Cause>> {
    prop_oneof![
        4 => Just(None),
        8 => Just(Some(Cause::Transient)),
        2 => Just(Some(Cause::Garbage)),
        1 => Just(Some(Cause::Throttled)),
        1 => Just(Some(Cause::ClosedWhileIdle)),
        1 => Just(Some(Cause::Credentials)),
        1 => Just(Some(Cause::Skewed)),
        1 => Just(Some(Cause::Permanent)),
    ]
}

proptest! {
    /// The bound of the whole: what is not a first request or a correction was paid for, and tokens are earned by
    /// successes only.
    #[test]
    fn repetitions_are_bounded_by_tokens_and_successes(
        fetches in prop::collection::vec(prop::collection::vec(any_outcome(), 5), 1..60), random in 0.0..1.0,
    ) {
        let bucket = Bucket::new(DEFAULT_TOKENS);
        let (mut repetitions, mut successes) = (0, 0);
        for script in &fetches {
            // The script repeats its last outcome.
            let at = |n: u32| script[(n as usize - 1).min(script.len() - 1)];
            let ended = fetch(&bucket, at, random);
            let attempts = ended.attempts();
            prop_assert!(attempts <= DEFAULT_MAX_ATTEMPTS && ended.requests <= attempts + 3, "{ended:?}");
            repetitions += attempts - 1;
            successes += u32::from(at(ended.requests).is_none());
            prop_assert!(bucket.tokens() <= DEFAULT_TOKENS);
        }
        let cheapest = THROTTLING_COST;
        prop_assert!(repetitions * cheapest <= DEFAULT_TOKENS + successes * TRANSIENT_COST, "{repetitions} {successes}");
    }

    /// While nothing succeeds and nothing is throttled: upstream calls ≤ fetches + tokens / 14.
    #[test]
    fn an_outage_costs_a_call_per_fetch_and_the_bucket(fetches in 1_u32..150, tokens in 0_u32..1_000) {
        let bucket = Bucket::new(tokens);
        let requests: u32 = (0..fetches).map(|_| fetch(&bucket, |_| Some(Cause::Transient), 0.0).requests).sum();
        prop_assert!(requests <= fetches + tokens / TRANSIENT_COST);
    }

    #[test]
    fn no_input_makes_it_wait_beyond_the_budget_or_panic(
        requests in 0_u32..=u32::MAX, base_ms: u64, wish_ms: Option<u64>, left_ms: u64, random: f64,
    ) {
        let base = Duration::from_millis(base_ms);
        let settings = RetrySettings { max_attempts: u32::MAX, transient_base: base, ..RetrySettings::default() };
        let mut failure = failure(Cause::Transient);
        failure.error.retry_after = wish_ms.map(Duration::from_millis);
        let progress = Progress { requests, ..Progress::default() };
        let left = Duration::from_millis(left_ms);
        match decide(&settings, &failure, &progress, Offset::default(), 500, left, random) {
            Verdict::Repeat { wait, .. } => {
                prop_assert!(wait + MINIMAL_ATTEMPT <= left);
                prop_assert!(wait <= DEFAULT_MAX_BACKOFF + RETRY_AFTER_SLACK);
            }
            other => prop_assert_eq!(other, Verdict::GiveUp),
        }
    }
}
