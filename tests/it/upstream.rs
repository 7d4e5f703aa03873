//! What becomes of one fetch when Glacier, the way to it, the clock or the credentials fail it, over sockets.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider, future},
};
use futures_util::{StreamExt as _, future::join_all, stream};
use glacier_gateway::{
    clock::Clock,
    emulator::{EmulatedCredentials, EmulatedJob, Fault, Settings, Tier},
    glacier::CredentialsHolder,
};
use tokio::{net::TcpListener, time::Instant};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::support::gateway::{Gateway, Refusal, cache_status};

fn finished() -> EmulatedJob {
    EmulatedJob::archive(Tier::Standard).already_completed(Duration::from_hours(1))
}

/// How many requests one answer takes if the first meets this fault.
async fn requests_until_ok_after(fault: Fault) -> usize {
    let gateway = Gateway::start().await;
    let job = gateway.add(finished());
    gateway.emulator.faults().next(fault);
    gateway.ask(&job).await.unwrap();
    gateway.emulator.request_count()
}

/// What the caller hears if every request meets this fault, and how many there were.
async fn refused_by(fault: Fault) -> (Refusal, usize) {
    let gateway = Gateway::start().await;
    let job = gateway.add(finished());
    gateway.emulator.faults().always(fault);
    (gateway.refusal(&job).await, gateway.emulator.request_count())
}

fn check(refusal: &Refusal, code: Code, reason: &str) {
    assert_eq!((refusal.code, refusal.reason()), (code, reason), "{refusal:?}");
}

/// U1.
#[tokio::test]
async fn one_server_error_is_not_noticed_by_the_caller() {
    for fault in [Fault::error(500, "ServiceUnavailableException"), Fault::respond(503, &[], "")] {
        assert_eq!(requests_until_ok_after(fault).await, 2);
    }
}

/// U2.
#[tokio::test]
async fn an_outage_costs_one_request_for_each_miss_and_a_few_retries_in_all() {
    let gateway = Gateway::start().await;
    gateway.emulator.faults().always(Fault::respond(503, &[], ""));
    let first = gateway.refusal("job-0").await;
    check(&first, Code::Unavailable, "GLACIER_UNAVAILABLE");
    assert_eq!(gateway.emulator.request_count(), 3, "while there are tokens, three attempts");
    let jobs: Vec<_> = (1..1000).map(|n| format!("job-{n}")).collect();
    let refusals: Vec<_> = stream::iter(&jobs).map(|job| gateway.refusal(job)).buffer_unordered(32).collect().await;
    for refusal in refusals {
        check(&refusal, Code::Unavailable, "GLACIER_UNAVAILABLE");
    }
    let requests = gateway.emulator.request_count();
    assert!((1000..=1036).contains(&requests), "{requests}");
}

/// U3: it fits.
#[tokio::test]
async fn throttling_that_passes_within_the_budget_is_waited_for() {
    for fault in [Fault::throttled(), Fault::respond(429, &[], "")] {
        let gateway = Gateway::start_with(|settings| {
            settings.glacier.retry.throttling_base = Duration::from_millis(20);
        })
        .await;
        let job = gateway.add(finished());
        gateway.emulator.faults().next(fault.with_header("x-amz-retry-after", "300"));
        gateway.ask(&job).await.unwrap();
        let arrived: Vec<_> = gateway.emulator.requests().iter().map(|request| request.arrived).collect();
        let [first, second] = arrived[..] else { panic!("{arrived:?}") };
        let waited = second - first;
        assert!((Duration::from_millis(300)..Duration::from_secs(5)).contains(&waited), "{waited:?}");
    }
}

/// U3: it does not fit.
#[tokio::test]
async fn throttling_that_outlasts_the_budget_is_said_at_once() {
    let gateway = Gateway::start_with(|settings| settings.describe.fetch_budget = Duration::from_secs(2)).await;
    let job = gateway.add(finished());
    gateway.emulator.faults().always(Fault::throttled().with_header("x-amz-retry-after", "2500"));
    let start = Instant::now();
    let refusal = gateway.refusal(&job).await;
    check(&refusal, Code::ResourceExhausted, "GLACIER_THROTTLED");
    assert_eq!(refusal.retry_delay(), Some(Duration::from_millis(2500)));
    assert!(start.elapsed() < Duration::from_secs(1), "nobody waits for nothing");
    assert_eq!(gateway.emulator.request_count(), 1);
}

/// U6.
#[tokio::test]
async fn a_reset_in_the_middle_of_the_body_is_not_noticed_by_the_caller() {
    assert_eq!(requests_until_ok_after(Fault::pass().reset_after(10)).await, 2);
}

/// U7.
#[tokio::test]
async fn a_body_shorter_than_promised_is_asked_for_again() {
    assert_eq!(requests_until_ok_after(Fault::cut(10)).await, 2);
    let (refusal, requests) = refused_by(Fault::cut(10)).await;
    check(&refusal, Code::Unavailable, "GLACIER_UNAVAILABLE");
    assert_eq!(requests, 3);
}

/// A gateway that repeats nothing, with one idle connection to Glacier that has been used.
async fn warm_without_retries() -> Gateway {
    let gateway = Gateway::start_with(|settings| {
        settings.glacier.retry.max_attempts = 1;
        settings.glacier.retry.tokens = 0;
    })
    .await;
    let job = gateway.add(finished());
    gateway.ask(&job).await.unwrap();
    assert_eq!((gateway.emulator.request_count(), gateway.emulator.connection_count()), (1, 1));
    gateway
}

/// U8: neither an attempt nor a token.
#[tokio::test]
async fn a_pooled_connection_that_closes_as_we_write_is_replaced_at_no_charge() {
    for fault in [Fault::close(), Fault::reset()] {
        let gateway = warm_without_retries().await;
        let job = gateway.add(finished());
        gateway.emulator.faults().next(fault);
        gateway.ask(&job).await.unwrap();
        assert_eq!(gateway.emulator.requests_for(&job), 2, "one extra request, ours or the pool's");
        assert_eq!(gateway.emulator.connection_count(), 2);
    }
}

/// U8: once.
#[tokio::test]
async fn a_server_that_closes_a_new_connection_too_is_not_asked_a_third_time_for_free() {
    let gateway = warm_without_retries().await;
    let job = gateway.add(finished());
    gateway.emulator.faults().always(Fault::close());
    check(&gateway.refusal(&job).await, Code::Unavailable, "GLACIER_UNAVAILABLE");
    assert_eq!(gateway.emulator.requests_for(&job), 2);
    // The pool is empty now, so this one begins on a connection of its own.
    let other = gateway.add(finished());
    check(&gateway.refusal(&other).await, Code::Unavailable, "GLACIER_UNAVAILABLE");
    assert_eq!(gateway.emulator.requests_for(&other), 1, "a new connection that closes is trouble");
}

/// U8, as it happens: the close races with the next request.
#[tokio::test]
async fn a_server_that_closes_after_each_answer_is_not_noticed_by_callers() {
    let gateway = warm_without_retries().await;
    gateway.emulator.faults().always(Fault::close_idle());
    for _ in 0..200 {
        let job = gateway.add(finished());
        gateway.ask(&job).await.unwrap();
        assert!(gateway.emulator.requests_for(&job) <= 2);
    }
}

/// U13, U16.
#[tokio::test]
async fn an_answer_that_makes_no_sense_is_asked_for_once_more() {
    for fault in [Fault::garbage("{\"JobId\":"), Fault::garbage(vec![0xff, 0xfe]), Fault::html(200)] {
        assert_eq!(requests_until_ok_after(fault.clone()).await, 2);
        let (refusal, requests) = refused_by(fault).await;
        check(&refusal, Code::Internal, "GLACIER_MALFORMED_RESPONSE");
        assert_eq!(requests, 2);
    }
}

/// A refusal is one, however little of its body arrives.
#[tokio::test]
async fn an_error_named_by_its_header_needs_no_body() {
    let gateway = Gateway::start().await;
    let fault = Fault::error(403, "AccessDeniedException").with_error_header("AccessDeniedException").cut_after(3);
    gateway.emulator.faults().always(fault);
    assert_eq!(gateway.refusal("job").await.reason(), "GLACIER_ACCESS_DENIED");
    assert_eq!(gateway.emulator.request_count(), 1);
}

/// U14.
#[tokio::test]
async fn an_answer_that_is_too_large_is_not_asked_for_again() {
    for fault in [Fault::endless(), Fault::garbage(vec![b' '; 1024 * 1024 + 1])] {
        let (refusal, requests) = refused_by(fault).await;
        check(&refusal, Code::Internal, "GLACIER_MALFORMED_RESPONSE");
        assert_eq!(requests, 1);
    }
}

/// U17.
#[tokio::test]
async fn a_middleboxs_error_page_is_not_noticed_by_the_caller() {
    for status in [502, 503, 504] {
        assert_eq!(requests_until_ok_after(Fault::html(status)).await, 2);
    }
}

/// U18.
#[tokio::test]
async fn a_redirect_is_neither_followed_nor_repeated() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", elsewhere.local_addr().unwrap());
    let (refusal, requests) = refused_by(Fault::redirect(&url)).await;
    check(&refusal, Code::Internal, "GLACIER_MALFORMED_RESPONSE");
    assert_eq!(requests, 1);
    let nobody = tokio::time::timeout(Duration::from_millis(50), elsewhere.accept()).await;
    assert!(nobody.is_err(), "somebody followed the redirect");
}

/// U22, U23, U24, U25: what Glacier means is not asked twice.
#[tokio::test]
async fn a_refusal_that_glacier_means_is_not_repeated() {
    for (status, code) in [
        (404, "ResourceNotFoundException"),
        (403, "AccessDeniedException"),
        (400, "InvalidParameterValueException"),
        (400, "NoLongerSupportedException"),
        (400, "PolicyEnforcedException"),
    ] {
        assert_eq!(refused_by(Fault::error(status, code)).await.1, 1, "{code}");
    }
}

/// C1.
#[tokio::test]
async fn a_clock_ten_minutes_off_is_corrected_once_and_stays_corrected() {
    for minutes in [10, -10] {
        let gateway = Gateway::start().await;
        gateway.emulator.clock().set_server_offset(time::Duration::minutes(minutes));
        let (first, second, third) = (gateway.add(finished()), gateway.add(finished()), gateway.add(finished()));
        gateway.ask(&first).await.unwrap();
        assert_eq!(gateway.emulator.requests_for(&first), 2, "one corrected retry");
        gateway.ask(&second).await.unwrap();
        assert_eq!(gateway.emulator.requests_for(&second), 1, "the offset is kept");
        gateway.emulator.clock().set_server_offset(time::Duration::ZERO);
        gateway.ask(&third).await.unwrap();
        assert_eq!(gateway.emulator.requests_for(&third), 2, "and given up when the clock is right again");
    }
}

/// C3: each jump costs one corrected request, and no caller notices.
#[tokio::test]
async fn after_a_jump_of_the_wall_clock_requests_are_signed_with_the_right_time() {
    let is_off = Arc::new(AtomicI64::new(0));
    let seconds = Arc::clone(&is_off);
    let clock = Clock::with_wall(move || {
        let (truth, seconds) = (Clock::system().now().wall, seconds.load(Ordering::SeqCst));
        let off = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 { truth - off } else { truth + off }
    });
    let settings = Settings::default();
    let known = &settings.credentials[0];
    let credentials = CredentialsHolder::fixed(&known.access_key_id, &known.secret_access_key, None);
    let gateway = Gateway::start_at(clock, settings, credentials, |_| {}).await;
    gateway.ask(&gateway.add(finished())).await.unwrap();
    for jump in [-3600, 3600, 0] {
        is_off.store(jump, Ordering::SeqCst);
        for requests in [2, 1] {
            let job = gateway.add(finished());
            gateway.ask(&job).await.unwrap();
            assert_eq!(gateway.emulator.requests_for(&job), requests, "at {jump} s");
        }
    }
}

/// C1: the same when the error does not say that it is about the date.
#[tokio::test]
async fn a_refused_signature_whose_date_disagrees_is_dated_anew() {
    let gateway = Gateway::start().await;
    let job = gateway.add(finished());
    let clock = gateway.emulator.clock();
    clock.set_server_offset(time::Duration::minutes(10));
    gateway.emulator.faults().next(Fault::error_saying(403, "InvalidSignatureException", "it does not match"));
    gateway.ask(&job).await.unwrap();
    assert_eq!(gateway.emulator.requests_for(&job), 2);
}

/// C1: an offset that is wrong must not make credentials look expired, or no request would ever measure it again.
#[tokio::test]
async fn a_date_that_is_nonsense_is_believed_for_one_fetch_only() {
    let known = temporary("KNOWN");
    let emulated = Settings { credentials: vec![known.clone()], ..Settings::default() };
    let gateway = Gateway::start_as(emulated, Rotating::new(&[known]).holder(), |_| {}).await;
    let (first, second) = (gateway.add(finished()), gateway.add(finished()));
    let nonsense = Fault::error(403, "RequestTimeTooSkewed").with_header("date", "Fri, 01 Jan 2100 00:00:00 GMT");
    gateway.emulator.faults().next(nonsense);
    check(&gateway.refusal(&first).await, Code::Internal, "GATEWAY_CREDENTIALS_REJECTED");
    assert_eq!(gateway.emulator.requests_for(&first), 2);
    gateway.ask(&second).await.unwrap();
    assert_eq!(gateway.emulator.requests_for(&second), 2);
}

/// C2.
#[tokio::test]
async fn a_signature_refused_by_a_clock_that_agrees_is_not_sent_again() {
    let known = Settings::default().credentials.remove(0);
    let wrong_secret = CredentialsHolder::fixed(&known.access_key_id, "wrong", None);
    let gateway = Gateway::start_as(Settings::default(), wrong_secret, |_| {}).await;
    gateway.emulator.clock().set_server_offset(time::Duration::seconds(230));
    let job = gateway.add(finished());
    check(&gateway.refusal(&job).await, Code::Internal, "GATEWAY_CREDENTIALS_REJECTED");
    assert_eq!(gateway.emulator.request_count(), 1);

    let expired = Fault::error_saying(403, "InvalidSignatureException", "Signature expired: 20120320T170343Z is now …");
    let (refusal, requests) = refused_by(expired).await;
    check(&refusal, Code::Internal, "GATEWAY_CREDENTIALS_REJECTED");
    assert_eq!(requests, 1, "it says that it is about the date, and is not");
}

/// Gives the credentials of its list one after the other, the last for ever.
#[derive(Debug, Clone)]
struct Rotating {
    list: Arc<Mutex<Vec<EmulatedCredentials>>>,
    loads: Arc<AtomicUsize>,
}

impl Rotating {
    fn new(list: &[EmulatedCredentials]) -> Self {
        Self { list: Arc::new(Mutex::new(list.to_vec())), loads: Arc::default() }
    }

    fn holder(&self) -> CredentialsHolder {
        CredentialsHolder::new(SharedCredentialsProvider::new(self.clone()))
    }

    fn loads(&self) -> usize {
        self.loads.load(Ordering::SeqCst)
    }
}

impl ProvideCredentials for Rotating {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let mut list = self.list.lock().unwrap();
        let given = if list.len() > 1 { list.remove(0) } else { list[0].clone() };
        let EmulatedCredentials { access_key_id, secret_access_key, session_token, .. } = given;
        let in_an_hour = Clock::system().now().wall + Duration::from_hours(1);
        let given = Credentials::new(access_key_id, secret_access_key, session_token, Some(in_an_hour), "test");
        future::ProvideCredentials::ready(Ok(given))
    }
}

fn temporary(name: &str) -> EmulatedCredentials {
    EmulatedCredentials::new(format!("ASIA{name}"), format!("secret-{name}"))
        .with_session_token(format!("token-{name}"))
}

/// C4.
#[tokio::test]
async fn a_token_that_expires_under_a_hundred_callers_costs_one_refresh_and_one_retry_each() {
    const CALLERS: usize = 100;
    let (old, new) = (temporary("OLD"), temporary("NEW"));
    let provider = Rotating::new(&[old.clone(), new.clone()]);
    let emulated = Settings { credentials: vec![old.clone(), new], ..Settings::default() };
    let gateway =
        Gateway::start_as(emulated, provider.holder(), |settings| settings.describe.limits.in_flight = CALLERS).await;
    let jobs: Vec<_> = (0..CALLERS).map(|_| gateway.add(finished())).collect();
    gateway.emulator.expire_credentials(&old.access_key_id);
    let hold = gateway.emulator.faults().hold();
    let release = async {
        gateway.emulator.wait_for_requests(CALLERS).await;
        hold.release();
    };
    let (answers, ()) = tokio::join!(join_all(jobs.iter().map(|job| gateway.ask(job))), release);
    for answer in answers {
        answer.unwrap();
    }
    assert_eq!(provider.loads(), 2, "the first load and one refresh");
    assert!(jobs.iter().all(|job| gateway.emulator.requests_for(job) == 2));
}

/// C8.
#[tokio::test]
async fn rejected_credentials_cost_one_retry_at_most_and_hits_are_still_answered() {
    let (good, next) = (temporary("GOOD"), temporary("NEXT"));
    let provider = Rotating::new(&[good.clone(), next, temporary("LAST")]);
    let emulated = Settings { credentials: vec![good], ..Settings::default() };
    let gateway = Gateway::start_as(emulated, provider.holder(), |_| {}).await;
    let (known, unknown) = (gateway.add(finished()), gateway.add(finished()));
    gateway.ask(&known).await.unwrap();
    gateway.emulator.replace_credentials(Vec::new());

    check(&gateway.refusal(&unknown).await, Code::Internal, "GATEWAY_CREDENTIALS_REJECTED");
    assert_eq!(gateway.emulator.requests_for(&unknown), 2, "one retry with the refreshed ones");
    assert_eq!(provider.loads(), 2);
    let hit = gateway.ask(&known).await.unwrap();
    assert!(cache_status(hit.metadata()).starts_with("hit; "));
    let about = HealthCheckRequest { service: "readiness".to_owned() };
    let readiness = HealthClient::new(gateway.channel().await).check(about).await.unwrap().into_inner();
    assert_eq!(readiness.status(), ServingStatus::Serving, "readiness is not about this");
}

/// C8: a provider that has nothing else to give.
#[tokio::test]
async fn rejected_credentials_are_not_tried_again_if_the_provider_insists_on_them() {
    let provider = Rotating::new(&[temporary("ONLY")]);
    let gateway = Gateway::start_as(Settings::default(), provider.holder(), |_| {}).await;
    for _ in 0..20 {
        let job = gateway.add(finished());
        check(&gateway.refusal(&job).await, Code::Internal, "GATEWAY_CREDENTIALS_REJECTED");
        assert_eq!(gateway.emulator.requests_for(&job), 1);
    }
}
