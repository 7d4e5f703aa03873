//! AWS's credential chain as an operator meets it: files that come late, mistakes, refusals, and what the gateway says of them.
//! Always the running binary, with real files, processes and endpoints.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration};

use glacier_gateway::{
    app::AppSettings,
    emulator::{EmulatedCredentials, EmulatedJob, Emulator, Settings, Tier},
    glacier::CredentialsHolder,
};
use http::Response;
use tokio::process::Command;
use tonic::Code;

use crate::support::{
    endpoint::{Asked, Endpoint},
    gateway::{Gateway, PATIENCE, Refusal, VAULT, question},
    page::Page,
    process::{Served, command},
};

const KEY: &str = "AKIACHAINEXAMPLE1";
const SECRET: &str = "marked-chain-secret";

/// A home directory, gone with the test.
struct Home(PathBuf);

impl Home {
    fn new() -> Self {
        let home =
            std::env::temp_dir().join(format!("glacier-gateway-chain-{}-{}", std::process::id(), fastrand::u64(..)));
        fs::create_dir_all(home.join(".aws/sso/cache")).unwrap();
        Self(home)
    }

    /// Writes a file beside its place and puts it there in one step.
    fn write(&self, path: &str, content: &str) -> String {
        let (path, beside) = (self.0.join(path), self.0.join("beside"));
        fs::write(&beside, content).unwrap();
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o700)).unwrap();
        fs::rename(beside, &path).unwrap();
        path.display().to_string()
    }

    fn keys(&self, secret: &str) {
        let keys = format!("[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {secret}\n");
        self.write(".aws/credentials", &keys);
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn bare(command: &mut Command, home: &Home) {
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY").env("HOME", &home.0);
}

async fn glacier() -> Emulator {
    let credentials = vec![EmulatedCredentials::new(KEY, SECRET)];
    let emulator = Emulator::start(0, Settings { credentials, ..Settings::default() }).await.unwrap();
    emulator.store().create_vault(VAULT);
    emulator
}

async fn serve(glacier: &Emulator, home: &Home, set: &[(&str, &str)]) -> Served {
    let endpoint = glacier.endpoint();
    Served::start_in(&["--region", "us-east-1", "--endpoint-url", &endpoint, "--lame-duck", "0s"], |command| {
        bare(command, home);
        command.envs(set.iter().copied());
    })
    .await
}

async fn ask(gateway: &Served, glacier: &Emulator) -> Result<(), Refusal> {
    let job = glacier.store().add(VAULT, EmulatedJob::archive(Tier::Bulk));
    let outcome = tokio::time::timeout(PATIENCE, gateway.client().await.describe_job(question(&job))).await;
    match outcome.expect("an answer in time") {
        Ok(_) => Ok(()),
        refused => Err(Refusal::of(refused)),
    }
}

/// What `--check-config` says, and with `--live`.
async fn check(home: &Home, set: &[(&str, &str)], live: bool) -> (i32, String) {
    let arguments = ["serve", "--region", "us-east-1", "--check-config", "--live"];
    let mut command = command(if live { &arguments } else { &arguments[..4] });
    bare(&mut command, home);
    let ended = command.envs(set.iter().copied()).output();
    let ended = tokio::time::timeout(PATIENCE, ended).await.expect("it ends").unwrap();
    let told = String::from_utf8([ended.stdout, ended.stderr].concat()).unwrap();
    assert!(!told.contains("marked"), "a secret is told: {told}");
    (ended.status.code().unwrap(), told)
}

/// C10
#[tokio::test]
async fn a_credentials_file_that_comes_after_the_start_makes_the_gateway_ready_without_a_restart() {
    let (glacier, home) = (glacier().await, Home::new());
    let mut gateway = serve(&glacier, &home, &[]).await;
    let warned = gateway.wait_for("no AWS credentials; trying again").await;
    let tried = warned["tried"].as_str().unwrap();
    let path = home.0.join(".aws/credentials (not there)").display().to_string();
    assert!(
        tried.starts_with("environment: AWS_ACCESS_KEY_ID is not set; profile: ") && tried.contains(&path),
        "{tried}"
    );
    let page = Page::get(&gateway.admin_address, "/readyz").await;
    assert_eq!((page.status, page.body), (503, format!("not ready: no AWS credentials: {tried}\n")));

    home.keys(SECRET);
    Page::wait_for(gateway.admin_address.as_str(), "/readyz", 200).await;
    ask(&gateway, &glacier).await.unwrap();
}

/// C10
#[tokio::test]
async fn a_rotated_credentials_file_is_read_when_glacier_refuses_the_old_keys() {
    let (glacier, home) = (glacier().await, Home::new());
    home.keys(SECRET);
    let gateway = serve(&glacier, &home, &[]).await;
    ask(&gateway, &glacier).await.unwrap();
    for round in 0..2 {
        let secret = format!("marked-rotated-{round}");
        glacier.replace_credentials(vec![EmulatedCredentials::new(KEY, &secret)]);
        home.keys(&secret);
        ask(&gateway, &glacier).await.unwrap();
    }
}

/// C10
#[tokio::test]
async fn a_profile_that_is_repaired_is_used_without_a_restart() {
    let (glacier, home) = (glacier().await, Home::new());
    home.write(".aws/config", "[profile archive]\ncredential_process = exit 3\n");
    let mut gateway = serve(&glacier, &home, &[("AWS_PROFILE", "archive")]).await;
    let warned = gateway.wait_for("no AWS credentials; trying again").await;
    let tried = warned["tried"].as_str().unwrap();
    assert!(tried.ends_with("credential_process ended with exit status: 3; what it wrote is not logged"), "{tried}");
    let give = home.write(
        "give",
        &format!(
            "#!/bin/sh\necho '{{\"Version\": 1, \"AccessKeyId\": \"{KEY}\", \"SecretAccessKey\": \"{SECRET}\"}}'\n"
        ),
    );
    home.write(".aws/config", &format!("[profile archive]\ncredential_process = {give} --password marked\n"));
    assert_eq!(gateway.wait_for("credentials loaded").await["provider"], "process");
    ask(&gateway, &glacier).await.unwrap();
}

/// C11: 43,000 lines a day, once.
#[tokio::test]
async fn a_failure_that_lasts_is_logged_once() {
    let (glacier, home) = (glacier().await, Home::new());
    let mut gateway = serve(&glacier, &home, &[]).await;
    gateway.wait_for("no AWS credentials; trying again").await;
    let failed = async {
        while Page::get(&gateway.admin_address, "/metrics")
            .await
            .has("glacier_gateway_credentials_loads_total{result=\"failed\"} 1")
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, failed).await.expect("it is tried again");
    home.keys(SECRET);
    let next = gateway.wait_where("anything of credentials", |message| message.contains("credentials")).await;
    assert_eq!(next["message"], "credentials loaded", "the second failure was not logged");
}

/// C11
#[tokio::test]
async fn each_provider_that_fails_says_why_and_nothing_secret() {
    let home = Home::new();
    let refuse = |status: u16, body: &'static str| {
        Endpoint::start(move |_: &Asked| Response::builder().status(status).body(body.to_owned()).unwrap())
    };
    let denied = refuse(
        403,
        "<ErrorResponse><Error><Code>AccessDenied</Code><Message>Not authorized to perform \
        sts:AssumeRoleWithWebIdentity</Message></Error></ErrorResponse>",
    )
    .await;
    let echo = refuse(
        403,
        "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code><Message>x-amz-security-token:marked\
        </Message></Error></ErrorResponse>",
    )
    .await;
    let unauthorized = refuse(401, "marked").await;
    let nonsense = refuse(200, "{\"AccessKeyId\": \"marked\", \"SecretAccessKey\": \"marked\"}").await;
    let nobody = unused_url();
    let token = home.write("token", "marked.jwt");
    let noisy = home.write("noisy", "#!/bin/sh\necho marked >&2\nexit 7\n");
    let other = home.write("other", "#!/bin/sh\necho '{\"Version\": 1, \"SecretAccessKey\": \"marked\"}'\n");
    // As `aws sso login` leaves it: the name is the SHA-1 of the session's.
    home.write(
        ".aws/sso/cache/5fb89f1b3c0ea80c8fa3b0c1c1f1b2b8d5e7a1f0.json",
        "{\"accessToken\": \"marked\", \"expiresAt\": \"2020-01-01T00:00:00Z\"}",
    );
    home.write(
        ".aws/config",
        &format!(
            "[profile noisy]\ncredential_process = {noisy}\n\
         [profile other]\ncredential_process = {other}\n\
         [profile role]\nrole_arn = arn:aws:iam::123456789012:role/r\nsource_profile = base\n\
         [profile base]\naws_access_key_id = AKIABASE\naws_secret_access_key = marked\n\
         [profile sso]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = Reader\n\
         [sso-session corp]\nsso_region = us-east-1\nsso_start_url = https://corp.awsapps.com/start\n"
        ),
    );
    let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()), ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r")];
    let (denied, echo) = (denied.url(""), echo.url(""));
    let (unauthorized, nonsense) = (unauthorized.url("/v1"), nonsense.url("/v1"));
    let cases: Vec<(Vec<(&str, &str)>, &str)> = vec![
        (vec![("AWS_PROFILE", "noisy")], "credential_process ended with exit status: 7; what it wrote is not logged"),
        (vec![("AWS_PROFILE", "other")], "credential_process: AccessKeyId is missing in what it gave"),
        (
            vec![("AWS_PROFILE", "role"), ("AWS_ENDPOINT_URL_STS", &echo)],
            "sts refused with 403 SignatureDoesNotMatch\n",
        ),
        (vec![("AWS_PROFILE", "sso")], "failed to load the cached SSO token; run aws sso login"),
        (
            vec![web[0], web[1], ("AWS_ENDPOINT_URL_STS", &denied)],
            "sts refused with 403 AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity",
        ),
        (vec![web[0], web[1], ("AWS_ENDPOINT_URL_STS", &nobody)], "Connection refused"),
        (
            vec![("AWS_CONTAINER_CREDENTIALS_FULL_URI", &unauthorized)],
            "container: AWS_CONTAINER_CREDENTIALS_FULL_URI: answered 401",
        ),
        (vec![("AWS_CONTAINER_CREDENTIALS_FULL_URI", &nonsense)], " is missing in what it gave"),
        (
            vec![("AWS_EC2_METADATA_DISABLED", "false"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &nobody)],
            "instance metadata: the instance's role: ",
        ),
    ];
    for (set, why) in cases {
        let (code, told) = check(&home, &set, false).await;
        assert_eq!(code, 0, "nobody is asked: {told}");
        assert!(told.starts_with("AWS credentials: would come from "), "{told}");
        let (code, told) = check(&home, &set, true).await;
        assert_eq!(code, 1, "{told}");
        assert!(
            told.contains(why) && told.contains("environment: AWS_ACCESS_KEY_ID is not set; "),
            "{why:?} is not in {told}"
        );
    }
}

/// Where nobody listens.
fn unused_url() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// C11
#[tokio::test]
async fn the_check_refuses_what_is_set_up_wrongly_and_asks_only_if_told_to() {
    let home = Home::new();
    for (set, problem) in [
        (
            &[("AWS_ACCESS_KEY_ID", KEY)][..],
            "\n  AWS credentials: environment: AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not\n",
        ),
        (&[("AWS_PROFILE", "typo")], "\n  AWS credentials: profile: AWS_PROFILE names \"typo\", which is not in "),
        (&[("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere"), ("AWS_ROLE_ARN", "r")], "cannot read /nowhere: No such file"),
        (&[], "\n  AWS credentials: instance metadata: disabled by AWS_EC2_METADATA_DISABLED\n"),
    ] {
        let (code, told) = check(&home, set, false).await;
        assert_eq!(code, 2, "{told}");
        assert!(told.contains(problem), "{told}");
    }
    let keys = [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", SECRET)];
    let (code, told) = check(&home, &keys, false).await;
    assert_eq!((code, told.as_str()), (0, "AWS credentials: would come from environment: AWS_ACCESS_KEY_ID\n"));
    let (code, told) = check(&home, &keys, true).await;
    assert_eq!((code, told.as_str()), (0, "AWS credentials: environment, expires never\n"));
}

/// C12
#[tokio::test]
async fn a_key_with_a_line_break_at_its_end_serves_and_one_in_quotes_is_refused_by_name() {
    let (glacier, home) = (glacier().await, Home::new());
    let (key, secret) = (format!("{KEY}\n"), format!("{SECRET}\r\n"));
    let gateway = serve(&glacier, &home, &[("AWS_ACCESS_KEY_ID", &key), ("AWS_SECRET_ACCESS_KEY", &secret)]).await;
    Page::wait_for(gateway.admin_address.as_str(), "/readyz", 200).await;
    ask(&gateway, &glacier).await.unwrap();

    let (asked, key) = (glacier.request_count(), format!("\"{KEY}\""));
    let mut gateway = serve(&glacier, &home, &[("AWS_ACCESS_KEY_ID", &key), ("AWS_SECRET_ACCESS_KEY", SECRET)]).await;
    let warned = gateway.wait_for("no AWS credentials; trying again").await;
    assert_eq!(warned["tried"], "environment: AWS_ACCESS_KEY_ID has quotes around it");
    assert_eq!(Page::get(&gateway.admin_address, "/readyz").await.status, 503);
    let refusal = ask(&gateway, &glacier).await.unwrap_err();
    assert_eq!((refusal.code, refusal.reason()), (Code::Unavailable, "GATEWAY_CREDENTIALS_UNAVAILABLE"));
    assert_eq!(glacier.request_count(), asked, "nothing was signed with it");
}

const REFUSED: &str = "glacier_gateway_credentials_refused";

fn with_admin(settings: &mut AppSettings) {
    settings.admin_listen = Some("127.0.0.1:0".parse().unwrap());
}

/// C14
#[tokio::test]
async fn a_replica_that_glacier_has_only_ever_refused_is_not_ready_until_glacier_accepts_it() {
    let settings = Settings::default();
    let known = settings.credentials.clone();
    let wrong = CredentialsHolder::fixed(&known[0].access_key_id, "wrong", None);
    let gateway = Gateway::start_as(settings, wrong, with_admin).await;
    let admin = gateway.admin_address.unwrap();
    Page::wait_for(admin, "/readyz", 200).await;
    assert!(Page::get(admin, "/metrics").await.has(&format!("{REFUSED} 0")));
    let job = gateway.add(EmulatedJob::archive(Tier::Bulk));
    let refusal = gateway.refusal(&job).await;
    assert_eq!((refusal.code, refusal.reason()), (Code::Internal, "GATEWAY_CREDENTIALS_REJECTED"));
    Page::wait_for(admin, "/readyz", 503).await;
    let page = Page::get(admin, "/readyz").await;
    let why = "not ready: glacier has accepted no request yet and refuses with InvalidSignatureException\n";
    assert_eq!(page.body, why);
    assert!(Page::get(admin, "/metrics").await.has(&format!("{REFUSED} 1")));

    // Nobody calls what is not ready: it asks by itself.
    gateway.emulator.replace_credentials(vec![EmulatedCredentials::new(&known[0].access_key_id, "wrong")]);
    Page::wait_for(admin, "/readyz", 200).await;
    assert!(Page::get(admin, "/metrics").await.has(&format!("{REFUSED} 0")));
    gateway.ask(&job).await.unwrap();
}

/// C14
#[tokio::test]
async fn once_accepted_a_replica_stays_ready_when_glacier_refuses_and_answers_what_it_knows() {
    let settings = Settings::default();
    let known = settings.credentials.clone();
    let ours = CredentialsHolder::fixed(&known[0].access_key_id, &known[0].secret_access_key, None);
    let gateway = Gateway::start_as(settings, ours, with_admin).await;
    let admin = gateway.admin_address.unwrap();
    let job = gateway.add(EmulatedJob::archive(Tier::Bulk));
    gateway.ask(&job).await.unwrap();
    gateway.emulator.replace_credentials(vec![]);
    let refusal = gateway.refusal("another").await;
    assert_eq!((refusal.code, refusal.reason()), (Code::Internal, "GATEWAY_CREDENTIALS_REJECTED"));
    assert!(Page::get(admin, "/metrics").await.has(&format!("{REFUSED} 1")));
    assert_eq!(Page::get(admin, "/readyz").await.status, 200);
    gateway.ask(&job).await.unwrap();
    gateway.emulator.replace_credentials(known);
    let third = gateway.add(EmulatedJob::archive(Tier::Bulk));
    gateway.ask(&third).await.unwrap();
    assert!(Page::get(admin, "/metrics").await.has(&format!("{REFUSED} 0")));
}
