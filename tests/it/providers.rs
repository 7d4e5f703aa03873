//! Where credentials come from: AWS's chain in the running binary, against fake endpoints on loopback.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, SystemTime},
};

use glacier_gateway::{
    clock::Clock,
    emulator::{EmulatedCredentials, EmulatedJob, Emulator, Settings, Tier},
    proto::v1::DescribeJobResponse,
};
use http::Response;
use prost_types::Timestamp;
use serde_json::json;
use tokio::{process::Command, time::Instant};
use tonic::{Code, Status};

use crate::support::{
    endpoint::{Asked, Endpoint},
    file::TemporaryFile,
    gateway::{PATIENCE, Refusal, VAULT, cache_status, question},
    page::Page,
    process::Served,
};

const KEY: &str = "ASIAISSUEDEXAMPLE";
const SECRET: &str = "marked-issued-secret";
const TOKEN: &str = "marked-issued-token";
/// The gateway and AWS's crates as loud as they get.
const LOUD: &str = "trace,aws_config=trace,aws_runtime=trace,aws_smithy_runtime=trace,aws_sdk_sts=trace,hyper=trace";
const LOADED: &str = "credentials loaded";

/// A Glacier that knows the issued credentials only.
async fn glacier() -> Emulator {
    let issued = EmulatedCredentials::new(KEY, SECRET).with_session_token(TOKEN);
    let emulator = Emulator::start(0, Settings { credentials: vec![issued], ..Settings::default() }).await.unwrap();
    emulator.store().create_vault(VAULT);
    emulator
}

/// The gateway before that Glacier, without credentials but those that `change` gives it.
async fn gateway(glacier: &Emulator, change: impl FnOnce(&mut Command)) -> Served {
    let endpoint = glacier.endpoint();
    Served::start_in(&["--region", "us-east-1", "--endpoint-url", &endpoint, "--log", LOUD], |command| {
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        change(command);
    })
    .await
}

async fn ask(gateway: &Served, job: &str) -> Result<tonic::Response<DescribeJobResponse>, Status> {
    let mut client = gateway.client().await;
    tokio::time::timeout(PATIENCE, client.describe_job(question(job))).await.expect("an answer in time")
}

fn running() -> EmulatedJob {
    EmulatedJob::archive(Tier::Bulk)
}

/// A call succeeds, Glacier saw the issued token, and the log and the metrics say whose it was and until when.
async fn check(glacier: &Emulator, mut gateway: Served, provider: &str, expires: &str) {
    let loaded = gateway.wait_for(LOADED).await;
    assert_eq!((&loaded["provider"], &loaded["expires"]), (&provider.into(), &expires.into()));
    assert_eq!(loaded.as_object().unwrap().len(), 3, "nothing else is told: {loaded}");
    let job = glacier.store().add(VAULT, running());
    ask(&gateway, &job).await.unwrap();
    let seen = glacier.requests();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].headers["x-amz-security-token"], TOKEN);
    let authorization = seen[0].headers["authorization"].to_str().unwrap();
    assert!(authorization.contains(KEY) && authorization.contains("x-amz-security-token"), "{authorization}");

    let told = Page::get(&gateway.admin_address, "/metrics").await;
    assert!(told.has(&format!("glacier_gateway_credentials_info{{provider=\"{provider}\"}} 1")), "{told:?}");
    let end = expires.parse::<Timestamp>().ok().map(|at| {
        format!("glacier_gateway_credentials_expiry_timestamp_seconds{{provider=\"{provider}\"}} {}.0", at.seconds)
    });
    match end {
        Some(line) => assert!(told.has(&line), "{line} is missing in {told:?}"),
        None => assert!(!told.body.contains("expiry"), "{told:?}"),
    }
    assert!(!told.body.contains("marked") && !told.body.contains(KEY), "{told:?}");
}

/// In whole seconds, as providers give it.
fn in_an_hour() -> String {
    after(Duration::from_hours(1)).to_string()
}

/// `span` from now, rounded down to a whole second.
fn after(span: Duration) -> Timestamp {
    Timestamp { nanos: 0, ..Timestamp::from(Clock::system().now().wall + span) }
}

/// As the container and instance metadata endpoints give credentials.
fn issued(expires: &str) -> String {
    json!({
        "Code": "Success",
        "Type": "AWS-HMAC",
        "LastUpdated": "2026-01-01T00:00:00Z",
        "AccessKeyId": KEY,
        "SecretAccessKey": SECRET,
        "Token": TOKEN,
        "Expiration": expires,
    })
    .to_string()
}

fn refused(status: u16) -> Response<String> {
    Response::builder().status(status).body(String::new()).unwrap()
}

#[tokio::test]
async fn keys_in_the_environment_serve_for_ever() {
    let glacier = glacier().await;
    let gateway = gateway(&glacier, |command| {
        command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET).env("AWS_SESSION_TOKEN", TOKEN);
    })
    .await;
    check(&glacier, gateway, "environment", "never").await;
}

#[tokio::test]
async fn a_named_profile_of_a_shared_file_serves() {
    let glacier = glacier().await;
    let credentials = TemporaryFile::new(&format!(
        "[default]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = other\n\n[archive]\naws_access_key_id = {KEY}\n\
         aws_secret_access_key = {SECRET}\naws_session_token = {TOKEN}\n"
    ));
    let config = TemporaryFile::new("[profile archive]\nregion = eu-west-1\n");
    let gateway = gateway(&glacier, |command| {
        command
            .env("AWS_SHARED_CREDENTIALS_FILE", credentials.path())
            .env("AWS_CONFIG_FILE", config.path())
            .env("AWS_PROFILE", "archive");
    })
    .await;
    check(&glacier, gateway, "profile", "never").await;
}

#[tokio::test]
async fn a_web_identity_is_exchanged_at_sts() {
    const ROLE: &str = "arn:aws:iam::123456789012:role/archive-reader";
    let glacier = glacier().await;
    let expires = in_an_hour();
    let answer = format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{KEY}</AccessKeyId>\
         <SecretAccessKey>{SECRET}</SecretAccessKey><SessionToken>{TOKEN}</SessionToken>\
         <Expiration>{expires}</Expiration></Credentials><AssumedRoleUser>\
         <Arn>arn:aws:sts::123456789012:assumed-role/archive-reader/pod</Arn><AssumedRoleId>AROA:pod</AssumedRoleId>\
         </AssumedRoleUser></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    );
    let sts =
        Endpoint::start(move |_| Response::builder().header("content-type", "text/xml").body(answer.clone()).unwrap())
            .await;
    let token = TemporaryFile::new("marked.pods.jwt");
    let gateway = gateway(&glacier, |command| {
        command
            .env("AWS_WEB_IDENTITY_TOKEN_FILE", token.path())
            .env("AWS_ROLE_ARN", ROLE)
            .env("AWS_ROLE_SESSION_NAME", "pod")
            .env("AWS_ENDPOINT_URL_STS", sts.url(""));
    })
    .await;
    check(&glacier, gateway, "web identity", &expires).await;
    let asked = sts.asked();
    assert_eq!(asked.len(), 1);
    for part in ["Action=AssumeRoleWithWebIdentity", "WebIdentityToken=marked.pods.jwt", "role%2Farchive-reader"] {
        assert!(asked[0].body.contains(part), "{part} is missing in {}", asked[0].body);
    }
}

/// The container endpoint as EKS Pod Identity has it: only who shows the pod's token is answered.
async fn container(expires: &str) -> Endpoint {
    let answer = issued(expires);
    Endpoint::start(move |asked: &Asked| match (asked.line().as_str(), asked.header("authorization")) {
        ("GET /v1/credentials", Some("marked-pods-token")) => Response::new(answer.clone()),
        _ => refused(401),
    })
    .await
}

/// A gateway that gets its credentials there.
async fn gateway_in_container(glacier: &Emulator, container: &Endpoint, token: &TemporaryFile) -> Served {
    gateway(glacier, |command| {
        command
            .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.url("/v1/credentials"))
            .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.path());
    })
    .await
}

#[tokio::test]
async fn a_container_endpoint_gives_credentials_for_the_pods_token() {
    let glacier = glacier().await;
    let (expires, token) = (in_an_hour(), TemporaryFile::new("marked-pods-token"));
    let container = container(&expires).await;
    let gateway = gateway_in_container(&glacier, &container, &token).await;
    check(&glacier, gateway, "container", &expires).await;
    assert_eq!(container.asked().len(), 1);
}

#[tokio::test]
async fn instance_metadata_gives_credentials_for_a_session_of_version_2() {
    let glacier = glacier().await;
    let expires = in_an_hour();
    let answer = issued(&expires);
    let metadata = Endpoint::start(move |asked: &Asked| {
        let in_session = asked.header("x-aws-ec2-metadata-token") == Some("marked-session");
        match asked.line().as_str() {
            "PUT /latest/api/token" => {
                let ttl = asked.header("x-aws-ec2-metadata-token-ttl-seconds").unwrap();
                let response = Response::builder().header("x-aws-ec2-metadata-token-ttl-seconds", ttl);
                response.body("marked-session".to_owned()).unwrap()
            }
            "GET /latest/meta-data/iam/security-credentials/" if in_session => {
                Response::new("archive-reader".to_owned())
            }
            "GET /latest/meta-data/iam/security-credentials/archive-reader" if in_session => {
                Response::new(answer.clone())
            }
            _ => refused(401),
        }
    })
    .await;
    let gateway = gateway(&glacier, |command| {
        command.env_remove("AWS_EC2_METADATA_DISABLED").env("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url(""));
    })
    .await;
    check(&glacier, gateway, "instance metadata", &expires).await;
}

/// C5, C6.
#[tokio::test]
async fn when_the_provider_goes_down_credentials_serve_until_they_really_expire_and_then_only_what_is_known() {
    let glacier = glacier().await;
    let token = TemporaryFile::new("marked-pods-token");
    let expires = after(Duration::from_secs(3));
    let container = container(&expires.to_string()).await;
    let mut gateway = gateway_in_container(&glacier, &container, &token).await;
    gateway.wait_for(LOADED).await;
    let known = glacier.store().add(VAULT, running());
    ask(&gateway, &known).await.unwrap();
    container.stop().await;

    let expires = SystemTime::try_from(expires).unwrap();
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    let refusal = tokio::time::timeout(PATIENCE, async {
        loop {
            pace.tick().await;
            let job = glacier.store().add(VAULT, running());
            if let outcome @ Err(_) = ask(&gateway, &job).await {
                break Refusal::of(outcome);
            }
        }
    });
    let refusal = refusal.await.expect("they expire");
    assert!(Clock::system().now().wall >= expires, "they served until their end");
    assert_eq!((refusal.code, refusal.reason()), (Code::Unavailable, "GATEWAY_CREDENTIALS_UNAVAILABLE"));

    // Longer than a failed load takes and than its outcome stands.
    let sent = glacier.request_count();
    for miss in 0..60 {
        pace.tick().await;
        let asked_at = Instant::now();
        let refusal = Refusal::of(ask(&gateway, &format!("another-{miss}")).await);
        // A load that fails takes seconds. Under a paused clock, a unit test says that nobody waits at all.
        assert!(asked_at.elapsed() < Duration::from_millis(500), "nobody waits: {:?}", asked_at.elapsed());
        assert_eq!((refusal.code, refusal.reason()), (Code::Unavailable, "GATEWAY_CREDENTIALS_UNAVAILABLE"));
    }
    let hit = ask(&gateway, &known).await.unwrap();
    assert!(cache_status(hit.metadata()).starts_with("hit; ttl="), "{hit:?}");
    assert_eq!(glacier.request_count(), sent, "nothing was sent");
    let kept = gateway.wait_for("credentials not renewed; keeping the old ones").await;
    assert_eq!(
        (&kept["provider"], &kept["expires"]),
        (&"container".into(), &Timestamp::from(expires).to_string().into())
    );
}

/// C5, C6, the way back.
#[tokio::test]
async fn a_provider_that_comes_back_is_used_without_a_restart() {
    let glacier = glacier().await;
    let (short, long) = (after(Duration::from_secs(2)).to_string(), in_an_hour());
    let (token, loads) = (TemporaryFile::new("marked-pods-token"), AtomicUsize::new(0));
    let (first, renewed) = (issued(&short), issued(&long));
    let container = Endpoint::start(move |_| match loads.fetch_add(1, Ordering::SeqCst) {
        0 => Response::new(first.clone()),
        // Not one of the statuses that the chain itself tries again.
        1 | 2 => refused(400),
        _ => Response::new(renewed.clone()),
    })
    .await;
    let mut gateway = gateway_in_container(&glacier, &container, &token).await;
    assert_eq!(gateway.wait_for(LOADED).await["expires"], short);

    let mut pace = tokio::time::interval(Duration::from_millis(50));
    let recovery = async {
        let (mut served, mut refused) = (0, 0);
        loop {
            pace.tick().await;
            let job = glacier.store().add(VAULT, running());
            match ask(&gateway, &job).await {
                Ok(_) if refused > 0 => break served,
                Ok(_) => served += 1,
                outcome @ Err(_) => {
                    refused += 1;
                    assert_eq!(Refusal::of(outcome).reason(), "GATEWAY_CREDENTIALS_UNAVAILABLE");
                }
            }
        }
    };
    let served = tokio::time::timeout(PATIENCE, recovery).await.expect("it recovers");
    assert!(served > 0, "the first credentials served");
    let about_credentials = |message: &str| message.starts_with("credentials ");
    let kept = gateway.wait_where("a failed load", about_credentials).await;
    assert_eq!(kept["message"], "credentials not renewed; keeping the old ones");
    assert!(kept["tried"].as_str().unwrap().ends_with("container: AWS_CONTAINER_CREDENTIALS_FULL_URI: answered 400"));
    let loaded = gateway.wait_where("a load", about_credentials).await;
    assert_eq!(
        (&loaded["message"], &loaded["expires"]),
        (&LOADED.into(), &long.into()),
        "the same failure is logged once"
    );
    assert_eq!(container.asked().len(), 4);
}
