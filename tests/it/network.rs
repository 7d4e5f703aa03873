//! The network half of the upstream's faults: slow, cut, refused, swallowed, unnamed, and bad TLS, on real sockets.
//!
//! How often the gateway asks again is not asserted here, except where once is the rule.

use std::{future::pending, sync::Arc, time::Duration};

use glacier_gateway::{
    app::AppSettings,
    clock::Clock,
    describe::{CacheStatus, DescribeError, DescribeSettings, Describer},
    emulator::{EmulatedCredentials, EmulatedJob, Emulator, Fault, Settings, Tier},
    freshness::FreshnessSettings,
    glacier::{CredentialsHolder, Endpoint, GlacierClient, GlacierSettings},
    metrics::DescribeMetrics,
    proto::{self, v1::DescribeJobResponse},
};
use tokio::{net::TcpListener, time::Instant};
use tokio_rustls::rustls::ServerConfig;
use tonic::{Code, Response};

use crate::support::{
    fake::{Bench, key, running},
    gateway::{Gateway, PATIENCE, Refusal, VAULT, cache_status, question},
    process::Served,
    relay::Relay,
    tls::{Authority, TlsFront},
};

const MOMENT: Duration = Duration::from_millis(200);
/// Fetches with all their attempts, pauses and a busy machine stay below this; the limits that they would run into if
/// ours failed, the attempt's three seconds and the fetch's eight, do not.
const SOON: Duration = Duration::from_millis(2500);

fn finished() -> EmulatedJob {
    EmulatedJob::archive(Tier::Standard).already_completed(Duration::from_hours(1))
}

/// What is known is stale at once, a failure does not keep the next caller from asking, and all wait for the fetch's end.
fn nothing_stays_fresh(settings: &mut AppSettings) {
    settings.describe.stale_after = Duration::from_hours(1);
    settings.freshness = FreshnessSettings {
        in_progress: Duration::from_nanos(1),
        cooldown: Duration::ZERO,
        ..FreshnessSettings::default()
    };
}

/// A gateway that reaches its Glacier through a relay.
async fn relayed(change: impl FnOnce(&mut AppSettings)) -> (Gateway, Relay) {
    let mut relay = None;
    let gateway = Gateway::start_with(|settings| {
        nothing_stays_fresh(settings);
        relay = Some(Relay::insert(&mut settings.glacier));
        change(settings);
    })
    .await;
    (gateway, relay.unwrap())
}

fn check_unavailable(refusal: &Refusal) {
    assert_eq!((refusal.code, refusal.reason()), (Code::Unavailable, "GLACIER_UNAVAILABLE"), "{refusal:?}");
    assert_eq!(refusal.retry_delay(), Some(Duration::from_secs(1)));
}

fn check_stale(answer: &Response<DescribeJobResponse>, job: &str) {
    let status = cache_status(answer.metadata());
    assert!(status.starts_with("hit; ttl=-") && status.ends_with("detail=stale-if-error"), "{status}");
    assert_eq!(answer.get_ref().job.as_ref().unwrap().job_id(), job);
}

/// U4, U5.
#[tokio::test]
async fn headers_that_never_come_and_bodies_that_drip_cost_an_attempt_and_what_is_known_is_given() {
    for fault in [Fault::never(), Fault::drip(1, Duration::from_secs(1))] {
        let gateway = Gateway::start_with(|settings| {
            nothing_stays_fresh(settings);
            settings.glacier.attempt_timeout = MOMENT;
        })
        .await;
        let (known, unknown) = (gateway.add(EmulatedJob::archive(Tier::Bulk)), gateway.add(finished()));
        gateway.ask(&known).await.unwrap();
        gateway.emulator.faults().always(fault);
        let asked_at = Instant::now();
        check_unavailable(&gateway.refusal(&unknown).await);
        assert!((MOMENT..SOON).contains(&asked_at.elapsed()), "{:?}", asked_at.elapsed());
        check_stale(&gateway.ask(&known).await.unwrap(), &known);
        gateway.emulator.faults().clear();
        gateway.ask(&unknown).await.unwrap();
    }
}

/// U4, U5.
#[tokio::test]
async fn a_caller_whose_deadline_passes_while_glacier_is_slow_hears_it_then() {
    for fault in [Fault::never(), Fault::drip(1, Duration::from_secs(1))] {
        let gateway = Gateway::start_with(nothing_stays_fresh).await;
        let job = gateway.add(finished());
        gateway.emulator.faults().always(fault);
        let asked_at = Instant::now();
        let refusal = Refusal::of(gateway.ask_with_timeout(&job, "200m").await);
        assert_eq!((refusal.code, refusal.reason()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
        assert!((MOMENT..SOON).contains(&asked_at.elapsed()), "{:?}", asked_at.elapsed());
    }
}

/// U6, U7.
#[tokio::test]
async fn a_body_that_is_reset_or_ends_early_is_asked_for_again_and_never_believed() {
    let gateway = Gateway::start_with(nothing_stays_fresh).await;
    for bytes in [0, 1, 40] {
        for fault in [Fault::pass().reset_after(bytes), Fault::cut(bytes)] {
            let job = gateway.add(finished());
            gateway.emulator.faults().next(fault);
            let mut answer = gateway.ask(&job).await;
            if answer.is_err() {
                // With a single attempt it is the caller who asks again.
                check_unavailable(&Refusal::of(answer));
                answer = gateway.ask(&job).await;
            }
            assert_eq!(answer.unwrap().get_ref().job.as_ref().unwrap().job_id(), job);
            assert_eq!(gateway.emulator.requests_for(&job), 2);
        }
    }
}

/// U6, U7.
#[tokio::test]
async fn bodies_that_never_come_whole_are_unavailable_and_what_is_known_is_given() {
    let gateway = Gateway::start_with(nothing_stays_fresh).await;
    let (known, unknown) = (gateway.add(EmulatedJob::archive(Tier::Bulk)), gateway.add(finished()));
    gateway.ask(&known).await.unwrap();
    for fault in [Fault::pass().reset_after(10), Fault::cut(10)] {
        gateway.emulator.faults().always(fault);
        check_unavailable(&gateway.refusal(&unknown).await);
        check_stale(&gateway.ask(&known).await.unwrap(), &known);
    }
}

/// U9.
#[tokio::test]
async fn while_the_link_is_cut_what_is_known_is_given_and_once_it_is_restored_all_is_well() {
    let (gateway, mut relay) = relayed(|_| {}).await;
    let (known, unknown) = (gateway.add(EmulatedJob::archive(Tier::Bulk)), gateway.add(finished()));
    gateway.ask(&known).await.unwrap();
    for _ in 0..2 {
        relay.cut().await;
        let asked_at = Instant::now();
        check_unavailable(&gateway.refusal("another").await);
        check_stale(&gateway.ask(&known).await.unwrap(), &known);
        assert!(asked_at.elapsed() < SOON, "{:?}", asked_at.elapsed());
        relay.restore().await;
        gateway.ask(&unknown).await.unwrap();
        assert_eq!(cache_status(gateway.ask(&known).await.unwrap().metadata()), "fwd=stale; stored");
    }
}

/// U9, U6.
#[tokio::test]
async fn a_link_that_is_cut_under_a_waiting_fetch_is_unavailable_and_the_next_call_is_well() {
    let (gateway, mut relay) = relayed(|_| {}).await;
    let job = gateway.add(finished());
    let hold = gateway.emulator.faults().hold();
    let (mut client, request) = (gateway.client.clone(), question(&job));
    let waiting = tokio::spawn(async move { client.describe_job(request).await });
    gateway.emulator.wait_for_requests(1).await;
    relay.cut().await;
    check_unavailable(&Refusal::of(tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap()));
    hold.release();
    relay.restore().await;
    gateway.ask(&job).await.unwrap();
}

/// U10.
#[tokio::test]
async fn connections_that_are_swallowed_cost_the_connect_timeout_and_what_is_known_is_given() {
    let (gateway, mut relay) = relayed(|settings| settings.glacier.connect_timeout = MOMENT).await;
    let (known, unknown) = (gateway.add(EmulatedJob::archive(Tier::Bulk)), gateway.add(finished()));
    gateway.ask(&known).await.unwrap();
    relay.swallow().await;
    let asked_at = Instant::now();
    let (stale, refusal) = tokio::join!(gateway.ask(&known), gateway.refusal(&unknown));
    assert!((MOMENT..SOON).contains(&asked_at.elapsed()), "{:?}", asked_at.elapsed());
    check_unavailable(&refusal);
    check_stale(&stale.unwrap(), &known);
    relay.restore().await;
    gateway.ask(&unknown).await.unwrap();
}

/// U10, with a connection that comes about and says nothing.
#[tokio::test]
async fn a_tls_handshake_that_is_never_answered_costs_the_connect_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", silent.local_addr().unwrap());
    let gateway = Gateway::start_with(|settings| {
        settings.glacier.endpoint = Endpoint::resolve("us-east-1", false, Some(&url)).unwrap();
        settings.glacier.connect_timeout = MOMENT;
    })
    .await;
    let asked_at = Instant::now();
    check_unavailable(&gateway.refusal("job").await);
    assert!((MOMENT..SOON).contains(&asked_at.elapsed()), "{:?}", asked_at.elapsed());
}

/// U11.
#[test]
fn a_name_that_does_not_resolve_is_unavailable_and_never_blocks_calls_for_what_is_known() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        ask_beside_unresolved_names().await;
        let gateway = Gateway::start_with(|settings| settings.glacier = nowhere()).await;
        check_unavailable(&gateway.refusal("job").await);
    });
    // Look-ups that nobody waits for any more may run on for as long as the system's resolver likes.
    runtime.shutdown_background();
}

fn nowhere() -> GlacierSettings {
    let endpoint = Endpoint::resolve("us-east-1", false, Some("http://does-not-exist.invalid")).unwrap();
    GlacierSettings { connect_timeout: MOMENT, ..GlacierSettings::new(endpoint) }
}

/// What is known came from elsewhere: two use cases share a cache.
async fn ask_beside_unresolved_names() {
    let settings = DescribeSettings::default();
    let answer = |key, _| async move { Ok(running(&key, proto::v1::Tier::Standard)) };
    let bench = Bench::with_clock(Clock::system(), &settings, answer);
    bench.ask(&key("known")).await.result.unwrap();
    let known = EmulatedCredentials::default();
    let credentials = CredentialsHolder::fixed(&known.access_key_id, &known.secret_access_key, None);
    let glacier = GlacierClient::new(nowhere(), credentials, bench.clock.clone()).unwrap();
    let describer = Describer::new(
        Arc::new(glacier),
        bench.cache.clone(),
        bench.clock.clone(),
        &settings,
        &DescribeMetrics::default(),
    );

    // As many as may be on their way at once, and as many again waiting.
    let misses: Vec<_> = (0..2 * settings.limits.in_flight)
        .map(|i| {
            let (describer, key) = (describer.clone(), key(&format!("miss-{i}")));
            tokio::spawn(async move { describer.describe(&key, None, None, Instant::now() + PATIENCE, pending).await })
        })
        .collect();
    while !misses.iter().any(tokio::task::JoinHandle::is_finished) {
        tokio::task::yield_now().await;
        let asked_at = Instant::now();
        let reply = describer.describe(&key("known"), None, None, asked_at + PATIENCE, pending).await;
        assert!(matches!(reply.status, CacheStatus::Hit { .. }), "{:?}", reply.status);
        assert!(asked_at.elapsed() < MOMENT, "{:?}", asked_at.elapsed());
    }
    for miss in misses {
        let reply = tokio::time::timeout(PATIENCE, miss).await.expect("an answer in time").unwrap();
        assert!(matches!(reply.result, Err(DescribeError::Upstream(_))), "{:?}", reply.result);
    }
}

/// Over TLS, before a Glacier that has the job.
struct Https {
    front: TlsFront,
    glacier: Emulator,
    job: String,
}

impl Https {
    async fn start(config: ServerConfig) -> Self {
        let glacier = Emulator::start(0, Settings::default()).await.unwrap();
        glacier.store().create_vault(VAULT);
        let job = glacier.store().add(VAULT, finished());
        Self { front: TlsFront::start(config, glacier.address()).await, glacier, job }
    }

    /// A gateway, in a process of its own, that trusts this authority and no other.
    async fn gateway(&self, trusted: &Authority) -> Served {
        serve(self.front.port, trusted).await
    }
}

async fn serve(port: u16, trusted: &Authority) -> Served {
    let url = format!("https://localhost:{port}");
    Served::start_in(&["--region", "us-east-1", "--endpoint-url", &url], |command| {
        command.env("SSL_CERT_FILE", trusted.file());
    })
    .await
}

async fn check_tls_refusal(gateway: &Served, job: &str) {
    let mut client = gateway.client().await;
    let outcome = tokio::time::timeout(PATIENCE, client.describe_job(question(job))).await;
    check_unavailable(&Refusal::of(outcome.expect("an answer in time")));
}

async fn check_tls_event(gateway: &mut Served) {
    let failure = gateway.wait_for("the fetch from glacier failed").await;
    assert_eq!((&failure["kind"], &failure["sent"]), (&"tls_failed".into(), &false.into()), "{failure}");
}

/// The control of all rows of U12: the same authority, host, gateway and Glacier, and nothing wrong.
#[tokio::test]
async fn a_certificate_of_a_trusted_authority_for_the_right_host_serves() {
    let authority = Authority::new("an authority");
    let https = Https::start(authority.issue("localhost")).await;
    let gateway = https.gateway(&authority).await;
    let mut client = gateway.client().await;
    let answer = tokio::time::timeout(PATIENCE, client.describe_job(question(&https.job))).await.unwrap().unwrap();
    assert_eq!(answer.get_ref().job.as_ref().unwrap().job_id(), https.job);
    assert_eq!((https.front.connection_count(), https.glacier.request_count()), (1, 1));
}

/// U12.
#[tokio::test]
async fn a_certificate_that_expired_or_names_another_host_or_comes_from_a_stranger_is_refused_once() {
    let (authority, stranger) = (Authority::new("an authority"), Authority::new("a stranger"));
    let configs = [
        ("certificate expired", authority.issue_expired("localhost")),
        ("not valid for name", authority.issue("glacier.us-east-1.amazonaws.com")),
        ("UnknownIssuer", stranger.issue("localhost")),
    ];
    for (why, config) in configs {
        let https = Https::start(config).await;
        let mut gateway = https.gateway(&authority).await;
        check_tls_refusal(&gateway, &https.job).await;
        // The verifier's own line comes first.
        gateway.wait_where(why, |m| m.starts_with("failed to verify TLS certificate") && m.contains(why)).await;
        check_tls_event(&mut gateway).await;
        assert_eq!((https.front.connection_count(), https.glacier.request_count()), (1, 0), "{why}");
    }
}

/// U12.
#[tokio::test]
async fn plaintext_where_tls_was_expected_is_refused_once() {
    let glacier = Emulator::start(0, Settings::default()).await.unwrap();
    let mut gateway = serve(glacier.address().port(), &Authority::new("an authority")).await;
    check_tls_refusal(&gateway, "job").await;
    check_tls_event(&mut gateway).await;
    assert_eq!((glacier.connection_count(), glacier.request_count()), (1, 0));
}
