//! The error table of the API, row by row, over the wire.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future},
};
use glacier_gateway::{
    emulator::{EmulatedCredentials, EmulatedJob, Fault, Settings, Tier},
    glacier::CredentialsHolder,
    proto::v1::DescribeJobRequest,
};
use tokio::net::TcpListener;
use tonic::{Code, Request};

use crate::support::{
    gateway::{Gateway, PATIENCE, Refusal, VAULT, cache_status, header, question},
    page::Page,
    process::Served,
};

const SECOND: Duration = Duration::from_secs(1);

fn finished() -> EmulatedJob {
    EmulatedJob::archive(Tier::Standard).already_completed(Duration::from_hours(1))
}

/// A job that completed more than a day ago, with nothing of the five minutes for which that is usually believed.
async fn asked_about_every_time() -> (Gateway, String) {
    let gateway = Gateway::start_with(|s| s.freshness.completed_recheck = Duration::from_nanos(1)).await;
    let day = Duration::from_hours(24);
    let job = gateway.add(finished().already_completed(day).remembered(2 * day));
    (gateway, job)
}

/// What a caller hears when Glacier answers with this.
async fn refusal_for(fault: Fault) -> Refusal {
    refusal_of(&Gateway::start().await, fault).await
}

async fn refusal_of(gateway: &Gateway, fault: Fault) -> Refusal {
    let job = gateway.add(finished());
    gateway.emulator.faults().always(fault);
    gateway.refusal(&job).await
}

/// Every error, whatever it is, is short and has a request id.
fn check(refusal: &Refusal, code: Code, reason: &str) {
    assert_eq!((refusal.code, refusal.reason()), (code, reason), "{refusal:?}");
    assert!(refusal.status.message().len() <= 1024);
    assert!(!header(refusal.status.metadata(), "x-request-id").is_empty());
}

#[tokio::test]
async fn malformed_fields_are_invalid_argument_with_a_violation_each() {
    let gateway = Gateway::start().await;
    let request = DescribeJobRequest {
        account_id: "12345".to_owned(),
        vault_name: "..".to_owned(),
        job_id: String::new(),
        max_age: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
    };
    let refusal = Refusal::of(gateway.call(Request::new(request)).await);
    check(&refusal, Code::InvalidArgument, "INVALID_REQUEST");
    let violations = &refusal.details.bad_request().unwrap().field_violations;
    let fields: Vec<_> = violations.iter().map(|v| v.field.as_str()).collect();
    assert_eq!(fields, ["account_id", "vault_name", "job_id", "max_age"]);
    assert!(violations.iter().all(|v| v.description.contains("must be")), "{violations:?}");
    assert_eq!(refusal.retry_delay(), None);
    assert_eq!(gateway.emulator.request_count(), 0, "glacier is not asked");
}

/// U24.
#[tokio::test]
async fn a_parameter_that_glacier_refuses_is_invalid_argument() {
    for code in ["InvalidParameterValueException", "MissingParameterValueException", "BadRequest"] {
        let refusal = refusal_for(Fault::error(400, code)).await;
        check(&refusal, Code::InvalidArgument, "GLACIER_INVALID_PARAMETER");
        assert_eq!(refusal.metadata()["glacier_code"], code);
        assert_eq!(refusal.retry_delay(), None);
    }
}

#[tokio::test]
async fn a_vault_that_does_not_exist_is_not_found() {
    let gateway = Gateway::start().await;
    let request = DescribeJobRequest { vault_name: "elsewhere".to_owned(), ..question("job") };
    let refusal = Refusal::of(gateway.call(Request::new(request)).await);
    check(&refusal, Code::NotFound, "VAULT_NOT_FOUND");
    let resource = refusal.details.resource_info().unwrap();
    assert_eq!(
        (resource.resource_type.as_str(), resource.resource_name.as_str()),
        ("glacier.amazonaws.com/Vault", "-/elsewhere")
    );
    assert!(!refusal.metadata()["aws_request_id"].is_empty());
}

/// U22.
#[tokio::test]
async fn a_job_never_seen_here_is_not_found() {
    let gateway = Gateway::start().await;
    let refusal = gateway.refusal("unknown").await;
    check(&refusal, Code::NotFound, "JOB_NOT_FOUND");
    let resource = refusal.details.resource_info().unwrap();
    assert_eq!(
        (resource.resource_type.as_str(), resource.resource_name.as_str()),
        ("glacier.amazonaws.com/Job", "-/vault/unknown")
    );
    assert_eq!(refusal.metadata()["glacier_code"], "ResourceNotFoundException");
    assert_eq!(refusal.retry_delay(), None);
}

/// U22, the tombstone.
#[tokio::test]
async fn a_job_seen_complete_and_then_gone_has_expired() {
    let (gateway, job) = asked_about_every_time().await;
    let described = gateway.ask(&job).await.unwrap().into_inner().job.unwrap();
    assert!(gateway.emulator.store().forget(&job));
    let refusal = gateway.refusal(&job).await;
    check(&refusal, Code::NotFound, "JOB_EXPIRED");
    assert_eq!(refusal.metadata()["completion_date"], described.completion_date.unwrap().to_string());
    assert!(refusal.details.resource_info().is_some());
}

/// U30.
#[tokio::test]
async fn a_contradiction_is_unavailable_and_says_when_glacier_is_asked_again() {
    let gateway = Gateway::start_with(|settings| {
        settings.freshness.max_age_floor = Duration::ZERO;
        settings.admin_listen = Some("127.0.0.1:0".parse().unwrap());
    })
    .await;
    let job = gateway.add(EmulatedJob::archive(Tier::Standard));
    gateway.ask(&job).await.unwrap();
    assert!(gateway.emulator.store().forget(&job));
    let insisting = DescribeJobRequest { max_age: Some(prost_types::Duration::default()), ..question(&job) };
    let refusal = Refusal::of(gateway.call(Request::new(insisting)).await);
    check(&refusal, Code::Unavailable, "GLACIER_CONTRADICTORY");
    assert_eq!(refusal.metadata()["glacier_code"], "ResourceNotFoundException");
    let wait = refusal.retry_delay().unwrap();
    assert!((5 * SECOND..=10 * SECOND).contains(&wait), "{wait:?}");
    assert!(gateway.ask(&job).await.is_ok(), "everybody else");
    let page = Page::get(gateway.admin_address.unwrap(), "/metrics").await;
    assert!(page.body.contains("\nglacier_gateway_contradictions_total 2\n"), "it was confirmed once: {}", page.body);
}

/// U23.
#[tokio::test]
async fn a_role_that_glacier_refuses_is_permission_denied_even_if_something_is_known() {
    let (gateway, job) = asked_about_every_time().await;
    gateway.ask(&job).await.unwrap();
    gateway.emulator.faults().always(Fault::error(403, "AccessDeniedException"));
    let refusal = gateway.refusal(&job).await;
    check(&refusal, Code::PermissionDenied, "GLACIER_ACCESS_DENIED");
    let refusal = gateway.refusal(&job).await;
    check(&refusal, Code::PermissionDenied, "GLACIER_ACCESS_DENIED");
    assert!(cache_status(refusal.status.metadata()).starts_with("hit; ttl="), "believed for five seconds");
}

/// U3.
#[tokio::test]
async fn throttling_is_resource_exhausted_with_retry_hints() {
    // Retries wait for seconds, and are not what this is about. And each case has a gateway of its own: one that has been
    // throttled holds back by itself.
    let gateway = async || Gateway::start_with(|settings| settings.glacier.retry.max_attempts = 1).await;
    let refusal = refusal_of(&gateway().await, Fault::throttled()).await;
    check(&refusal, Code::ResourceExhausted, "GLACIER_THROTTLED");
    assert_eq!(refusal.metadata()["glacier_code"], "ThrottlingException");
    assert_eq!(refusal.retry_delay(), Some(5 * SECOND));

    let refusal = refusal_of(&gateway().await, Fault::respond(429, &[], "")).await;
    check(&refusal, Code::ResourceExhausted, "GLACIER_THROTTLED");

    let wish = Fault::throttled().with_header("x-amz-retry-after", "1700");
    let refusal = refusal_of(&gateway().await, wish).await;
    assert_eq!(refusal.retry_delay(), Some(Duration::from_millis(1700)));
}

/// U2, U17.
#[tokio::test]
async fn a_glacier_that_is_down_is_unavailable_with_retry_hints() {
    let faults = [
        Fault::error(500, "ServiceUnavailableException"),
        Fault::error(408, "RequestTimeoutException"),
        Fault::html(502),
        Fault::html(503),
        Fault::html(504),
        Fault::respond(500, &[], ""),
        Fault::close(),
        Fault::reset(),
        Fault::cut(10),
    ];
    for fault in faults {
        let shown = format!("{fault:?}");
        let refusal = refusal_for(fault).await;
        assert_eq!((refusal.code, refusal.reason()), (Code::Unavailable, "GLACIER_UNAVAILABLE"), "{shown}");
        assert_eq!(refusal.retry_delay(), Some(SECOND));
    }
}

/// U4, U5.
#[tokio::test]
async fn a_glacier_that_is_slow_is_unavailable() {
    for fault in [Fault::never(), Fault::drip(1, SECOND)] {
        let gateway = Gateway::start_with(|s| s.glacier.attempt_timeout = Duration::from_millis(200)).await;
        let job = gateway.add(finished());
        gateway.emulator.faults().always(fault);
        check(&gateway.refusal(&job).await, Code::Unavailable, "GLACIER_UNAVAILABLE");
    }
}

/// U9.
#[tokio::test]
async fn a_refused_connection_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let gateway = Gateway::start_with(|settings| {
        let endpoint = glacier_gateway::glacier::Endpoint::resolve("us-east-1", false, Some(&nobody)).unwrap();
        settings.glacier = glacier_gateway::glacier::GlacierSettings::new(endpoint);
    })
    .await;
    check(&gateway.refusal("job").await, Code::Unavailable, "GLACIER_UNAVAILABLE");
}

/// C6.
#[tokio::test]
async fn without_credentials_it_is_unavailable_and_nothing_is_sent() {
    #[derive(Debug)]
    struct Nobody;
    impl ProvideCredentials for Nobody {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("nobody here")))
        }
    }

    let credentials = CredentialsHolder::new(SharedCredentialsProvider::new(Nobody));
    let gateway = Gateway::start_as(Settings::default(), credentials, |_| {}).await;
    let refusal = gateway.refusal("job").await;
    check(&refusal, Code::Unavailable, "GATEWAY_CREDENTIALS_UNAVAILABLE");
    assert_eq!(refusal.retry_delay(), Some(SECOND));
    assert_eq!(gateway.emulator.request_count(), 0);
}

/// C6: whether Glacier rejects the gateway, or only credentials that have expired, is not known as long as there are no others.
#[tokio::test]
async fn while_expired_credentials_cannot_be_replaced_it_is_unavailable_and_what_is_known_is_given() {
    let known = Settings::default().credentials.remove(0);
    let given = Arc::new(AtomicBool::new(false));
    let provider = Once { given: Arc::clone(&given), known };
    let credentials = CredentialsHolder::new(SharedCredentialsProvider::new(provider));
    let gateway = Gateway::start_as(Settings::default(), credentials, |settings| {
        settings.freshness.in_progress = Duration::from_nanos(1);
    })
    .await;
    let (job, another) = (gateway.add(EmulatedJob::archive(Tier::Bulk)), gateway.add(finished()));
    gateway.ask(&job).await.unwrap();
    gateway.emulator.faults().always(Fault::error(403, "ExpiredTokenException"));
    let stale = gateway.ask(&job).await.unwrap();
    assert!(cache_status(stale.metadata()).ends_with("detail=stale-if-error"), "{stale:?}");
    let refusal = gateway.refusal(&another).await;
    check(&refusal, Code::Unavailable, "GATEWAY_CREDENTIALS_UNAVAILABLE");
    assert_eq!(refusal.retry_delay(), Some(SECOND));
    // And when others can be had, all is well.
    gateway.emulator.faults().clear();
    given.store(false, Ordering::SeqCst);
    let third = gateway.add(finished());
    tokio::time::timeout(PATIENCE, async {
        while gateway.ask(&third).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("it recovers");
}

/// A provider that gives its credentials once.
#[derive(Debug)]
struct Once {
    given: Arc<AtomicBool>,
    known: EmulatedCredentials,
}

impl ProvideCredentials for Once {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let EmulatedCredentials { access_key_id, secret_access_key, .. } = &self.known;
        future::ProvideCredentials::ready(if self.given.swap(true, Ordering::SeqCst) {
            Err(CredentialsError::provider_error("down"))
        } else {
            Ok(Credentials::new(access_key_id, secret_access_key, None, None, "test"))
        })
    }
}

/// C7.
#[tokio::test]
async fn while_the_provider_hangs_a_caller_leaves_at_its_deadline() {
    #[derive(Debug)]
    struct Hanging;
    impl ProvideCredentials for Hanging {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::new(std::future::pending())
        }
    }

    let credentials = CredentialsHolder::new(SharedCredentialsProvider::new(Hanging));
    let gateway = Gateway::start_as(Settings::default(), credentials, |_| {}).await;
    // A load takes five seconds at most, and whoever waited for its end would hear that it failed.
    for _ in 0..3 {
        let refusal = Refusal::of(gateway.ask_with_timeout("job", "50m").await);
        check(&refusal, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    }
    assert_eq!(gateway.emulator.request_count(), 0);
}

/// C2, C8.
#[tokio::test]
async fn rejected_credentials_are_internal_and_never_unauthenticated() {
    let known = Settings::default().credentials.remove(0);
    let wrong_secret = CredentialsHolder::fixed(&known.access_key_id, "wrong", Some("a-session-token".to_owned()));
    let gateway = Gateway::start_as(Settings::default(), wrong_secret, |_| {}).await;
    let refusal = gateway.refusal("job").await;
    check(&refusal, Code::Internal, "GATEWAY_CREDENTIALS_REJECTED");
    assert!(!format!("{refusal:?}").contains("a-session-token"), "Glacier's message echoes it, ours must not");

    for code in ["UnrecognizedClientException", "MissingAuthenticationTokenException", "ExpiredTokenException"] {
        check(&refusal_for(Fault::error(403, code)).await, Code::Internal, "GATEWAY_CREDENTIALS_REJECTED");
    }
}

/// U25.
#[tokio::test]
async fn an_account_that_glacier_is_closed_to_is_failed_precondition() {
    let refusal = refusal_for(Fault::error(400, "NoLongerSupportedException")).await;
    check(&refusal, Code::FailedPrecondition, "GLACIER_CLOSED_TO_ACCOUNT");
}

/// U13, U14, U15, U16.
#[tokio::test]
async fn an_answer_that_is_not_one_is_internal() {
    let faults = [
        Fault::garbage("{\"JobId\":"),
        Fault::garbage("[]"),
        Fault::garbage(vec![0xff, 0xfe]),
        Fault::garbage("{}"),
        Fault::garbage("[".repeat(100_000)),
        Fault::garbage("{\"JobId\":1e999}"),
        Fault::html(200),
        Fault::endless(),
        Fault::garbage(vec![b' '; 1024 * 1024 + 1]),
    ];
    for fault in faults {
        check(&refusal_for(fault).await, Code::Internal, "GLACIER_MALFORMED_RESPONSE");
    }
}

/// U18.
#[tokio::test]
async fn a_redirect_is_internal_and_never_followed() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", elsewhere.local_addr().unwrap());
    check(&refusal_for(Fault::redirect(&url)).await, Code::Internal, "GLACIER_MALFORMED_RESPONSE");
    let nobody = tokio::time::timeout(Duration::from_millis(50), elsewhere.accept()).await;
    assert!(nobody.is_err(), "somebody followed the redirect");
}

/// U26.
#[tokio::test]
async fn a_description_of_another_job_or_vault_is_internal_and_never_kept() {
    let gateway = Gateway::start_with(|settings| settings.freshness.cooldown = Duration::ZERO).await;
    let other_job = gateway.add(finished().with_id("theirs").answering_to("mine"));
    let arn = "arn:aws:glacier:us-east-1:123456789012:vaults/other";
    let other_vault = gateway.add(finished().with("VaultARN", arn));
    let nobodys = gateway.add(finished().without("JobId"));
    for job in [&other_job, &other_vault, &nobodys] {
        for _ in 0..2 {
            check(&gateway.refusal(job).await, Code::Internal, "GLACIER_WRONG_JOB");
        }
    }
    assert_eq!(gateway.emulator.request_count(), 6);
}

/// U26.
#[tokio::test]
async fn a_description_of_another_account_is_internal_and_never_kept() {
    let gateway = Gateway::start_with(|settings| settings.freshness.cooldown = Duration::ZERO).await;
    let arn = format!("arn:aws:glacier:us-east-1:999999999999:vaults/{VAULT}");
    let job = gateway.add(finished().with("VaultARN", arn));
    let of = |account_id: &str| DescribeJobRequest { account_id: account_id.to_owned(), ..question(&job) };
    for _ in 0..2 {
        let refusal = Refusal::of(gateway.call(Request::new(of("123456789012"))).await);
        check(&refusal, Code::Internal, "GLACIER_WRONG_JOB");
    }
    assert_eq!(gateway.emulator.request_count(), 2);
}

#[tokio::test]
async fn an_error_that_glacier_is_not_known_to_give_is_internal() {
    let refusal = refusal_for(Fault::error(400, "PolicyEnforcedException")).await;
    check(&refusal, Code::Internal, "GLACIER_UNEXPECTED_ERROR");
    assert_eq!(refusal.metadata()["glacier_code"], "PolicyEnforcedException");
}

/// K3 over the wire.
#[tokio::test]
async fn a_deadline_that_passes_is_deadline_exceeded_and_the_fetch_goes_on() {
    let gateway = Gateway::start().await;
    let job = gateway.add(finished());
    let hold = gateway.emulator.faults().hold();
    let refusal = Refusal::of(gateway.ask_with_timeout(&job, "50m").await);
    check(&refusal, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    hold.release();
    gateway.ask(&job).await.unwrap();
    assert_eq!(gateway.emulator.request_count(), 1);
}

#[tokio::test]
async fn more_fetches_than_allowed_are_unavailable_with_retry_hints() {
    let gateway = Gateway::start_with(|settings| {
        settings.describe.limits.in_flight = 1;
        settings.describe.limits.waiting = 0;
    })
    .await;
    let (first, second) = (gateway.add(finished()), gateway.add(finished()));
    let hold = gateway.emulator.faults().hold();
    let waiting = gateway.ask(&first);
    tokio::pin!(waiting);
    tokio::select! {
        _ = &mut waiting => panic!("the answer is held"),
        () = gateway.emulator.wait_for_requests(1) => {}
    }
    let refusal = gateway.refusal(&second).await;
    check(&refusal, Code::Unavailable, "GATEWAY_OVERLOADED");
    assert_eq!(refusal.retry_delay(), Some(SECOND));
    hold.release();
    waiting.await.unwrap();
}

/// P2.
#[tokio::test]
async fn a_replica_that_shuts_down_answers_those_who_wait() {
    let mut gateway = Gateway::start_with(|settings| settings.server.drain = Duration::from_millis(400)).await;
    let job = gateway.add(finished());
    gateway.emulator.faults().always(Fault::never());
    let client = gateway.client.clone();
    let waiting = tokio::spawn(async move { client.clone().describe_job(question(&job)).await });
    gateway.emulator.wait_for_requests(1).await;
    gateway.order_stop();
    let outcome = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    let refusal = Refusal::of(outcome);
    check(&refusal, Code::Unavailable, "GATEWAY_DRAINING");
    assert_eq!(refusal.retry_delay(), None);
    gateway.stopped().await;
}

/// A credential set that the emulator knows and that has expired.
#[tokio::test]
async fn an_expired_token_is_internal() {
    let expired = Settings::default().credentials.remove(0);
    let EmulatedCredentials { access_key_id, .. } = &expired;
    let gateway = Gateway::start().await;
    gateway.emulator.expire_credentials(access_key_id);
    let refusal = gateway.refusal("job").await;
    check(&refusal, Code::Internal, "GATEWAY_CREDENTIALS_REJECTED");
    assert_eq!(refusal.metadata()["glacier_code"], "ExpiredTokenException");
}

/// What Glacier says is in the operator's log, and nowhere else.
#[tokio::test]
async fn what_glacier_says_reaches_the_operator_and_not_the_caller() {
    let upstream = Gateway::start().await;
    let arguments = ["--region", "us-east-1", "--endpoint-url", &upstream.emulator.endpoint(), "--max-attempts", "1"];
    let mut served = Served::start(&arguments).await;
    let mut client = served.client().await;
    for (status, code, kind, words) in [
        (
            400,
            "InvalidParameterValueException",
            "invalid_parameter",
            "Invalid vault name: arn:aws:glacier:us-east-1:1:vaults/v",
        ),
        (403, "AccessDeniedException", "access_denied", "not authorized: an explicit deny in a service control policy"),
        (403, "OptInRequired", "closed_to_account", "The AWS Access Id needs a subscription for the service"),
    ] {
        upstream.emulator.faults().next(Fault::error_saying(status, code, &format!("{words}\n\u{1b}[31m")));
        let refusal = Refusal::of(client.describe_job(question(&format!("job-{kind}"))).await);
        let failure = served.wait_for("the fetch from glacier failed").await;
        assert_eq!((&failure["kind"], &failure["code"]), (&kind.into(), &code.into()));
        assert_eq!(failure["glacier_message"], format!("{words}\\n\\u{{1b}}[31m"));
        let told = format!("{refusal:?} {}", Page::get(&served.admin_address, "/metrics").await.body);
        assert!(!told.contains(words) && !told.contains(&words[..12]), "{told}");
    }
}

/// P8. `next_event` looks for what is marked in every line.
#[tokio::test]
async fn nothing_of_a_message_that_may_hold_a_secret_is_told_to_anybody() {
    let upstream = Gateway::start().await;
    let endpoint = upstream.emulator.endpoint();
    let arguments = ["--region", "us-east-1", "--endpoint-url", &endpoint, "--max-attempts", "1", "--log", "trace"];
    let mut served = Served::start_in(&arguments, |command| {
        command.env("AWS_SESSION_TOKEN", "marked+session/token=that+is/long");
    })
    .await;
    let mut client = served.client().await;
    for (number, (code, words)) in [
        ("InvalidSignatureException", "The Canonical String should have been 'GET x-amz-security-token:marked'"),
        ("ExpiredTokenException", "marked"),
        ("AccessDeniedException", "cannot read marked+session/token=that+is/long"),
        ("BrandNewException", "AWS4-HMAC-SHA256 Credential=marked"),
    ]
    .into_iter()
    .enumerate()
    {
        // Those of the credentials are asked again once.
        upstream.emulator.faults().always(Fault::error_saying(403, code, words));
        let refusal = Refusal::of(client.describe_job(question(&format!("job-{number}"))).await);
        assert!(!format!("{refusal:?}").contains("marked"), "{refusal:?}");
        let failure = served.wait_for("the fetch from glacier failed").await;
        assert_eq!((&failure["code"], failure.get("glacier_message")), (&code.into(), None));
    }
}

/// What is not there may be in another region, so the error names the one that was asked.
#[tokio::test]
async fn not_found_names_the_region_that_was_asked() {
    let gateway = Gateway::start().await;
    let region = "us-east-1";
    let no_job = gateway.refusal("no-such-job").await;
    assert_eq!((no_job.reason(), no_job.metadata()["region"].as_str()), ("JOB_NOT_FOUND", region));
    let elsewhere = DescribeJobRequest { vault_name: "elsewhere".to_owned(), ..question("job") };
    let no_vault = Refusal::of(gateway.call(Request::new(elsewhere)).await);
    assert_eq!((no_vault.reason(), no_vault.metadata()["region"].as_str()), ("VAULT_NOT_FOUND", region));
    for refusal in [no_job, no_vault] {
        assert!(refusal.status.message().contains(&format!("in region {region:?}")), "{refusal:?}");
    }
}
