//! Who may ask about what: callers with names before a policy.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use bytes::Buf as _;
use glacier_gateway::{
    caller::{Caller, CallerIdentity},
    describe::{DescribeSettings, FetchLimits},
    emulator::{self, EmulatedJob},
    grpc::{
        AnswerData, Face, GrpcSettings,
        client::{Client, ClientTls},
    },
    lifecycle::Lifecycle,
    metrics::CallMetrics,
    policy::{Policy, PolicySettings, PolicySource},
    proto::v1::{DescribeJobRequest, DescribeJobResponse, Tier, job_service_client::JobServiceClient},
    server::tls::TlsSettings,
    traces::Tracer,
};
use http_body::Frame;
use http_body_util::BodyExt as _;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::ServiceExt as _;

use crate::support::{
    fake::{Bench, running},
    file::{MountedSecret, TemporaryFile},
    gateway::{Gateway, PATIENCE, Refusal, question},
    page::Page,
    process::run,
    tls::{Authority, uri},
};

const POLICY: &str = r#"
[[allow]]
callers = ["spiffe://prod.example/ns/restore/sa/*", "*.restore.svc.cluster.local"]
accounts = ["-", "123456789012"]
vaults = ["vault", "logs-*"]
"#;

/// The gRPC face with a policy, before a fake upstream.
struct Guarded {
    face: Face,
    bench: Bench,
    _lifecycle: Lifecycle,
}

impl Guarded {
    fn new() -> Self {
        let bench = Bench::new(|key, _| async move { Ok(running(&key, Tier::Standard)) });
        Self::over(bench)
    }

    fn over(bench: Bench) -> Self {
        let policy = PolicySource::fixed(Policy::parse(POLICY).unwrap());
        let lifecycle = Lifecycle::new();
        let settings = GrpcSettings::default();
        let face = Face::new(
            bench.describer.clone(),
            Some(policy),
            &lifecycle.watch(),
            &settings,
            &CallMetrics::default(),
            Tracer::default(),
        )
        .unwrap();
        Self { face, bench, _lifecycle: lifecycle }
    }

    async fn ask(
        &self,
        identity: Option<&CallerIdentity>,
        request: DescribeJobRequest,
    ) -> Result<Response<DescribeJobResponse>, Status> {
        let mut request = Request::new(request);
        // So that answers can be compared whole.
        request.metadata_mut().insert("x-request-id", "same".parse().unwrap());
        let address = SocketAddr::from(([192, 0, 2, 1], 1));
        let caller = Caller { address, identity: identity.map(|identity| identity.clone().into()) };
        // The client wants `Bytes`, which is not what goes to a socket.
        let bytes = |frame: Frame<AnswerData>| frame.map_data(|mut data| data.copy_to_bytes(data.remaining()));
        let service = self.face.for_caller(&caller).map_response(|answer| answer.map(|body| body.map_frame(bytes)));
        JobServiceClient::new(service).describe_job(request).await
    }
}

fn spiffe(path: &str) -> CallerIdentity {
    CallerIdentity::Spiffe(format!("spiffe://prod.example/{path}"))
}

fn allowed() -> CallerIdentity {
    spiffe("ns/restore/sa/worker")
}

fn denied() -> CallerIdentity {
    spiffe("ns/billing/sa/worker")
}

/// Everything that a caller sees of an error.
fn seen(status: &Status) -> (Code, String, Vec<u8>, BTreeMap<String, Vec<u8>>) {
    let headers = status.metadata().clone().into_headers();
    let headers = headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    (status.code(), status.message().to_owned(), status.details().to_vec(), headers)
}

#[tokio::test(start_paused = true)]
async fn a_denied_caller_cannot_tell_a_cached_job_from_an_uncached_one() {
    let guarded = Guarded::new();
    guarded.ask(Some(&allowed()), question("known")).await.unwrap();
    let before = tokio::time::Instant::now();
    for stranger in [Some(&denied()), None] {
        let known = guarded.ask(stranger, question("known")).await.unwrap_err();
        let unknown = guarded.ask(stranger, question("unknown")).await.unwrap_err();
        assert_eq!(seen(&known), seen(&unknown));
        let headers = known.metadata();
        assert!(!headers.contains_key("age") && !headers.contains_key("cache-status"), "{headers:?}");
        assert_eq!(Refusal::of::<()>(Err(known)).reason(), "CALLER_NOT_ALLOWED");
    }
    assert_eq!(guarded.bench.calls(), 1, "glacier was asked for the allowed caller only");
    assert_eq!(before.elapsed(), Duration::ZERO, "and nobody waited for anything");
}

#[tokio::test(start_paused = true)]
async fn a_caller_may_ask_what_a_rule_says_and_nothing_else() {
    let guarded = Guarded::new();
    let pod = CallerIdentity::Dns(vec!["pod".to_owned(), "pod.restore.svc.cluster.local".to_owned()]);
    for (caller, account, vault, expected) in [
        (&allowed(), "", "vault", Code::Ok),
        (&allowed(), "-", "vault", Code::Ok),
        (&allowed(), "123456789012", "logs-2026", Code::Ok),
        (&pod, "", "vault", Code::Ok),
        (&allowed(), "210987654321", "vault", Code::PermissionDenied),
        (&allowed(), "", "photos", Code::PermissionDenied),
        (&denied(), "", "vault", Code::PermissionDenied),
        (&spiffe("ns/restore/sa/worker/more"), "", "vault", Code::PermissionDenied),
        (&CallerIdentity::Dns(vec!["*.restore.svc.cluster.local".to_owned()]), "", "vault", Code::PermissionDenied),
    ] {
        let request =
            DescribeJobRequest { account_id: account.to_owned(), vault_name: vault.to_owned(), ..question("job") };
        let code = guarded.ask(Some(caller), request).await.map_or_else(|status| status.code(), |_| Code::Ok);
        assert_eq!(code, expected, "{caller} {account:?} {vault}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_refusal_names_the_caller_and_the_question_and_nothing_of_the_policy() {
    let guarded = Guarded::new();
    let refusal = Refusal::of(guarded.ask(Some(&denied()), question("job")).await);
    let message =
        "\"spiffe://prod.example/ns/billing/sa/worker\" may not ask about jobs of vault \"vault\" in account \"-\"";
    assert_eq!((refusal.code, refusal.status.message()), (Code::PermissionDenied, message));
    assert_eq!(refusal.retry_delay(), None);
    let anonymous = Refusal::of(guarded.ask(None, question("job")).await);
    assert!(anonymous.status.message().starts_with("a caller without a verified name may not"), "{anonymous:?}");
    let long = spiffe(&"\u{0}".repeat(1800));
    let vault_name = "v".repeat(255);
    let refusal = Refusal::of(guarded.ask(Some(&long), DescribeJobRequest { vault_name, ..question("job") }).await);
    assert_eq!(refusal.reason(), "CALLER_NOT_ALLOWED");
    assert!(refusal.status.message().len() <= 1024, "{}", refusal.status.message().len());
}

#[tokio::test(start_paused = true)]
async fn a_malformed_request_is_told_so_before_the_policy_is_asked() {
    let refusal = Refusal::of(Guarded::new().ask(Some(&denied()), question("a/b")).await);
    assert_eq!((refusal.code, refusal.reason()), (Code::InvalidArgument, "INVALID_REQUEST"));
}

/// D16 as a caller sees it.
#[tokio::test(start_paused = true)]
async fn a_caller_with_too_many_fetches_is_told_when_to_come_again() {
    let limits = FetchLimits { per_caller: 1, ..FetchLimits::default() };
    let settings = DescribeSettings { limits, ..DescribeSettings::default() };
    let bench = Bench::with_settings(&settings, |key, _| async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        Ok(running(&key, Tier::Standard))
    });
    let guarded = Guarded::over(bench);
    let caller = allowed();
    let ask = |job| guarded.ask(Some(&caller), question(job));
    let (first, second) = tokio::join!(ask("first"), ask("second"));
    assert!(first.is_ok());
    let refusal = Refusal::of(second);
    assert_eq!((refusal.code, refusal.reason()), (Code::ResourceExhausted, "CALLER_OVER_SHARE"));
    assert_eq!(refusal.retry_delay(), Some(Duration::from_secs(1)));
}

/// Over a socket, where nobody has a name.
#[tokio::test]
async fn health_and_reflection_are_not_subject_to_the_policy() {
    let file = TemporaryFile::new(POLICY);
    let gateway =
        Gateway::start_with(|settings| settings.policy = Some(PolicySettings::new(file.path().to_owned()))).await;
    assert_eq!(gateway.refusal("job").await.reason(), "CALLER_NOT_ALLOWED");
    assert_eq!(gateway.emulator.request_count(), 0);
    let mut health = HealthClient::new(gateway.channel().await);
    health.check(HealthCheckRequest { service: String::new() }).await.unwrap();
    let mut reflection = reflection_client(&gateway).await;
    assert!(list_services(&mut reflection).await.is_ok());
}

type Reflection = tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient<tonic::transport::Channel>;

async fn reflection_client(gateway: &Gateway) -> Reflection {
    Reflection::new(gateway.channel().await)
}

async fn list_services(client: &mut Reflection) -> Result<(), Status> {
    use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_request::MessageRequest};
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let request = ServerReflectionRequest { host: String::new(), message_request };
    let mut answers = client.server_reflection_info(tokio_stream::once(request)).await?.into_inner();
    answers.message().await.map(|_| ())
}

/// The whole way: a certificate's name, the policy's file, and the file's change.
#[tokio::test]
async fn callers_over_mutual_tls_may_what_the_file_says_now() {
    let (servers, callers) = (Authority::new("servers"), Authority::new("callers"));
    let pair = servers.pair("localhost", |_| {});
    let caller = callers.pair("pod.restore.svc", |params| {
        params.subject_alt_names.push(uri("spiffe://prod.example/ns/restore/sa/worker"));
    });
    let mounted = MountedSecret::new(&[("crt", &pair.certificate), ("key", &pair.key), ("ca", callers.certificate())]);
    let rule =
        |caller: &str| format!("[[allow]]\ncallers = [\"{caller}\"]\naccounts = [\"-\"]\nvaults = [\"vault\"]\n");
    // The SPIFFE ID is the name, so the DNS name beside it is none.
    let mut policy = MountedSecret::new(&[("policy.toml", &rule("*.restore.svc"))]);
    let mut settings = PolicySettings::new(policy.path("policy.toml"));
    settings.reload_interval = Duration::from_millis(20);
    settings.settle = Duration::from_millis(20);
    let gateway = Gateway::start_with(|app| {
        app.tls = Some(TlsSettings::new(mounted.path("crt"), mounted.path("key"), Some(mounted.path("ca"))));
        app.policy = Some(settings);
        app.admin_listen = Some("127.0.0.1:0".parse().unwrap());
    })
    .await;
    let job = gateway.add(EmulatedJob::archive(emulator::Tier::Standard));
    let tls = ClientTls {
        authorities: servers.certificate().into(),
        identity: Some((caller.certificate.into(), caller.key.into())),
    };
    let target = format!("https://localhost:{}", gateway.address.port());
    let mut client = Client::over_tls(&target, PATIENCE, tls).unwrap();
    let reloaded = async |result: &str, times: u32| {
        let line = format!("glacier_gateway_reloads_total{{what=\"policy\",result=\"{result}\"}} {times}");
        Page::wait_for_line(gateway.admin_address.unwrap(), "/metrics", &line).await;
    };

    let refusal = client.describe_job(question(&job), PATIENCE).await.unwrap_err();
    assert_eq!(refusal.reason.as_deref(), Some("CALLER_NOT_ALLOWED"));
    assert!(refusal.message.contains("spiffe://prod.example/ns/restore/sa/worker"), "{refusal}");
    assert_eq!(gateway.emulator.request_count(), 0);

    policy.replace(&[("policy.toml", &rule("spiffe://prod.example/ns/restore/sa/*"))]);
    reloaded("loaded", 1).await;
    client.describe_job(question(&job), PATIENCE).await.unwrap();

    // What is no policy leaves the one before in place, on the same connection as on others.
    policy.replace(&[("policy.toml", "[[allow]]\ncallers = [")]);
    reloaded("refused", 1).await;
    client.describe_job(question(&job), PATIENCE).await.unwrap();

    policy.replace(&[("policy.toml", "")]);
    reloaded("refused", 2).await;
    client.describe_job(question(&job), PATIENCE).await.unwrap();

    policy.replace(&[("policy.toml", "allow = []")]);
    reloaded("loaded", 2).await;
    assert_eq!(client.describe_job(question(&job), PATIENCE).await.unwrap_err().code, "PERMISSION_DENIED");
    let denied = "glacier_gateway_policy_denied_total 2";
    Page::wait_for_line(gateway.admin_address.unwrap(), "/metrics", denied).await;
}

#[tokio::test]
async fn every_problem_of_a_policy_is_told_at_the_start() {
    let file = TemporaryFile::new("[[allow]]\ncallers = [\"*\"]\naccounts = [\"1\"]\nvaults = [\"v\"]\n");
    let path = file.path().to_str().unwrap();
    let (code, _, stderr) = run(&["serve", "--region", "eu-west-1", "--check-config", "--policy", path]).await;
    assert_eq!(code, 2);
    for (line, what) in [(2, "caller \"*\""), (3, "account \"1\"")] {
        assert!(stderr.contains(&format!("--policy: {path}: line {line}: rule 1: {what}")), "{stderr}");
    }
    assert!(stderr.contains("--tls-client-ca"), "nobody would have a name: {stderr}");
    let (code, _, stderr) = run(&["serve", "--region", "eu-west-1", "--policy", "/nowhere/policy.toml"]).await;
    assert_eq!(code, 2);
    assert!(stderr.contains("cannot read /nowhere/policy.toml:"), "{stderr}");
}
