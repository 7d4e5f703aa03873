//! The way to AWS: one proxy and one set of authorities for Glacier and STS, and neither for the endpoints that hand out
//! credentials. The gateway is a process of its own, the proxy gives real tunnels.

use std::time::Duration;

use glacier_gateway::{
    clock::Clock,
    emulator::{EmulatedCredentials, EmulatedJob, Emulator, Settings, Tier},
    proto::v1::DescribeJobResponse,
};
use http::Response;
use prost_types::Timestamp;
use serde_json::json;
use tokio::process::Command;
use tonic::{Code, Status};

use crate::support::{
    endpoint::{Asked, Endpoint},
    file::TemporaryFile,
    gateway::{PATIENCE, Refusal, VAULT, question},
    process::{Served, run},
    proxy::Proxy,
    tls::{Authority, TlsFront},
};

const KEY: &str = "ASIAISSUEDEXAMPLE";
const SECRET: &str = "marked-issued-secret";
const TOKEN: &str = "marked-issued-token";
/// Names that only the proxy knows.
const GLACIER: &str = "glacier.test";
const STS: &str = "sts.test";

async fn glacier() -> Emulator {
    let issued = EmulatedCredentials::new(KEY, SECRET).with_session_token(TOKEN);
    let emulator = Emulator::start(0, Settings { credentials: vec![issued], ..Settings::default() }).await.unwrap();
    emulator.store().create_vault(VAULT);
    emulator
}

/// The gateway before `endpoint`, without credentials but those that `change` gives it.
async fn gateway(endpoint: &str, change: impl FnOnce(&mut Command)) -> Served {
    let flags = ["--region", "us-east-1", "--endpoint-url", endpoint, "--max-attempts", "1", "--log", "trace"];
    Served::start_in(&flags, |command| {
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        change(command);
    })
    .await
}

fn with_keys(command: &mut Command) -> &mut Command {
    command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET).env("AWS_SESSION_TOKEN", TOKEN)
}

async fn ask(gateway: &Served, job: &str) -> Result<tonic::Response<DescribeJobResponse>, Status> {
    let mut client = gateway.client().await;
    tokio::time::timeout(PATIENCE, client.describe_job(question(job))).await.expect("an answer in time")
}

fn running() -> EmulatedJob {
    EmulatedJob::archive(Tier::Bulk)
}

fn in_an_hour() -> String {
    Timestamp { nanos: 0, ..Timestamp::from(Clock::system().now().wall + Duration::from_hours(1)) }.to_string()
}

async fn sts() -> Endpoint {
    let answer = format!(
        "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{KEY}</AccessKeyId>\
         <SecretAccessKey>{SECRET}</SecretAccessKey><SessionToken>{TOKEN}</SessionToken><Expiration>{}</Expiration>\
         </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>",
        in_an_hour()
    );
    Endpoint::start(move |_| Response::builder().header("content-type", "text/xml").body(answer.clone()).unwrap()).await
}

/// Glacier and STS behind TLS with certificates of one authority, and a proxy that leads to both.
struct Private {
    glacier: Emulator,
    sts: Endpoint,
    proxy: Proxy,
    token: TemporaryFile,
    _fronts: [TlsFront; 2],
}

impl Private {
    async fn start(authority: &Authority) -> Self {
        let (glacier, sts) = (glacier().await, sts().await);
        let fronts = [
            TlsFront::start(authority.issue(GLACIER), glacier.address()).await,
            TlsFront::start(authority.issue(STS), sts.address).await,
        ];
        let proxy = Proxy::start([("glacier.test:443", fronts[0].port), ("sts.test:443", fronts[1].port)]).await;
        Self { glacier, sts, proxy, token: TemporaryFile::new("marked.pods.jwt"), _fronts: fronts }
    }

    /// A gateway that has its credentials from STS.
    async fn gateway(&self, change: impl FnOnce(&mut Command)) -> Served {
        gateway(&format!("https://{GLACIER}"), |command| {
            command
                .env("AWS_WEB_IDENTITY_TOKEN_FILE", self.token.path())
                .env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/archive-reader")
                .env("AWS_ENDPOINT_URL_STS", format!("https://{STS}"));
            change(command);
        })
        .await
    }

    fn proxy_url(&self) -> String {
        format!("http://me:marked%2Fpassword@{}", self.proxy.address)
    }
}

/// `me:marked/password`
const BASIC: &str = "proxy-authorization: Basic bWU6bWFya2VkL3Bhc3N3b3Jk";

#[tokio::test]
async fn one_proxy_carries_glacier_and_sts_and_one_bundle_vouches_for_both() {
    let (authority, stranger) = (Authority::new("an authority"), Authority::new("a stranger"));
    for variable in ["HTTPS_PROXY", "https_proxy"] {
        let private = Private::start(&authority).await;
        let gateway = private
            .gateway(|command| {
                command
                    .env(variable, private.proxy_url())
                    .env("AWS_CA_BUNDLE", authority.file())
                    // The bundle comes before it.
                    .env("SSL_CERT_FILE", stranger.file());
            })
            .await;
        assert_eq!(gateway.listening["proxy"], format!("http://{}", private.proxy.address));
        assert_eq!(gateway.listening["roots"], "AWS_CA_BUNDLE");
        let job = private.glacier.store().add(VAULT, running());
        ask(&gateway, &job).await.unwrap();
        assert_eq!((private.glacier.request_count(), private.sts.asked().len()), (1, 1));
        let mut lines = private.proxy.lines();
        lines.sort();
        assert_eq!(lines, ["CONNECT glacier.test:443 HTTP/1.1", "CONNECT sts.test:443 HTTP/1.1"]);
        for head in private.proxy.heads() {
            assert!(head.to_ascii_lowercase().contains(&BASIC.to_ascii_lowercase()), "{head}");
            assert!(!head.contains("pods.jwt") && !head.contains(TOKEN), "{head}");
        }
    }
}

#[tokio::test]
async fn an_authority_that_the_bundle_lacks_vouches_for_nobody() {
    let (authority, stranger) = (Authority::new("an authority"), Authority::new("a stranger"));
    let private = Private::start(&authority).await;
    let untrusting = |command: &mut Command| {
        command
            .env("HTTPS_PROXY", private.proxy_url())
            .env("AWS_CA_BUNDLE", stranger.file())
            .env("SSL_CERT_FILE", authority.file());
    };
    let of_sts = private.gateway(untrusting).await;
    assert_eq!(Refusal::of(ask(&of_sts, "job").await).reason(), "GATEWAY_CREDENTIALS_UNAVAILABLE");
    let mut of_glacier = gateway(&format!("https://{GLACIER}"), |command| {
        untrusting(with_keys(command));
    })
    .await;
    assert_eq!(Refusal::of(ask(&of_glacier, "job").await).reason(), "GLACIER_UNAVAILABLE");
    assert_eq!(of_glacier.wait_for("the fetch from glacier failed").await["kind"], "tls_failed");
    assert_eq!((private.glacier.request_count(), private.sts.asked().len()), (0, 0));
}

/// C13. Whatever proxies are named: who hands out credentials is asked without them, and so is a Glacier on loopback.
#[tokio::test]
async fn the_endpoints_that_hand_out_credentials_are_never_asked_through_a_proxy() {
    let answer = json!({
        "Code": "Success", "AccessKeyId": KEY, "SecretAccessKey": SECRET, "Token": TOKEN, "Expiration": in_an_hour(),
    })
    .to_string();
    let handed_out = Endpoint::start(move |asked: &Asked| match asked.line().as_str() {
        "PUT /latest/api/token" => Response::builder()
            .header("x-aws-ec2-metadata-token-ttl-seconds", "60")
            .body("marked-session".to_owned())
            .unwrap(),
        "GET /latest/meta-data/iam/security-credentials/" => Response::new("archive-reader".to_owned()),
        _ => Response::new(answer.clone()),
    })
    .await;
    let (proxy, glacier) = (Proxy::start([]).await, glacier().await);
    let token = TemporaryFile::new("marked-pods-token");
    let everything = |command: &mut Command| {
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
            command.env(name, format!("http://{}", proxy.address));
        }
    };
    let container = gateway(&glacier.endpoint(), |command| {
        everything(command);
        command
            .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", handed_out.url("/v1/credentials"))
            .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.path());
    })
    .await;
    let instance = gateway(&glacier.endpoint(), |command| {
        everything(command);
        command.env_remove("AWS_EC2_METADATA_DISABLED").env("AWS_EC2_METADATA_SERVICE_ENDPOINT", handed_out.url(""));
    })
    .await;
    for (gateway, provider) in [(container, "container"), (instance, "instance metadata")] {
        let mut gateway = gateway;
        assert_eq!(gateway.wait_for("credentials loaded").await["provider"], provider);
        ask(&gateway, &glacier.store().add(VAULT, running())).await.unwrap();
    }
    assert_eq!(proxy.heads(), [""; 0]);
    let asked = handed_out.asked();
    assert!(asked.iter().any(|asked| asked.header("authorization") == Some("marked-pods-token")));
    assert!(asked.iter().any(|asked| asked.header("x-aws-ec2-metadata-token") == Some("marked-session")));
}

#[tokio::test]
async fn a_proxy_that_refuses_is_told_apart_from_glacier_and_lets_go_again() {
    let authority = Authority::new("an authority");
    let private = Private::start(&authority).await;
    let mut gateway = gateway(&format!("https://{GLACIER}"), |command| {
        with_keys(command).env("HTTPS_PROXY", private.proxy_url()).env("AWS_CA_BUNDLE", authority.file());
    })
    .await;
    for (number, (refusal, detail)) in [
        ("407 Proxy Authentication Required", "the proxy wants another user name and password"),
        ("403 Forbidden", "the proxy refused the tunnel"),
        ("502 Bad Gateway", "the proxy refused the tunnel"),
    ]
    .into_iter()
    .enumerate()
    {
        private.proxy.refuse(Some(refusal));
        let refused = Refusal::of(ask(&gateway, &format!("job-{number}")).await);
        assert_eq!((refused.code, refused.reason()), (Code::Unavailable, "GLACIER_UNAVAILABLE"));
        let failure = gateway.wait_for("the fetch from glacier failed").await;
        assert_eq!((&failure["detail"], &failure["sent"]), (&detail.into(), &false.into()), "{failure}");
    }
    private.proxy.refuse(None);
    ask(&gateway, &private.glacier.store().add(VAULT, running())).await.unwrap();
}

#[tokio::test]
async fn no_proxy_excepts_names_and_everything_below_them() {
    let proxy = Proxy::start([]).await;
    for (variable, exceptions, through_proxy) in [
        ("NO_PROXY", "", true),
        ("NO_PROXY", "other.test,10.0.0.0/8,lacier.test", true),
        ("NO_PROXY", "glacier.test", false),
        ("no_proxy", "other.test, .test", false),
        ("NO_PROXY", "*.test:443", false),
        ("NO_PROXY", "*", false),
    ] {
        let gateway = gateway(&format!("https://{GLACIER}"), |command| {
            with_keys(command).env("HTTPS_PROXY", format!("http://{}", proxy.address)).env(variable, exceptions);
        })
        .await;
        let before = proxy.heads().len();
        // Nobody has the name, but the proxy would have been asked first.
        ask(&gateway, "job").await.unwrap_err();
        assert_eq!(proxy.heads().len() > before, through_proxy, "{exceptions}");
    }
}

#[tokio::test]
async fn a_proxy_or_bundle_that_is_none_is_a_problem_of_the_configuration() {
    let check = ["serve", "--check-config", "--region", "us-east-1"];
    let (code, _, problems) = run_in(&check, |command| {
        command.env("HTTPS_PROXY", "socks5://me:marked@proxy.test").env("AWS_CA_BUNDLE", "/nowhere.pem");
    })
    .await;
    assert_eq!(code, 2);
    assert!(problems.contains("\n  HTTPS_PROXY: ") && problems.contains("\n  AWS_CA_BUNDLE: "), "{problems}");
    assert!(!problems.contains("marked"), "{problems}");
    assert_eq!(run(&check).await.0, 0);
}

async fn run_in(arguments: &[&str], change: impl FnOnce(&mut Command)) -> (i32, String, String) {
    let mut command = crate::support::process::command(arguments);
    change(&mut command);
    let ended = tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (ended.status.code().unwrap(), text(ended.stdout), text(ended.stderr))
}
