//! The emulator over HTTP/1.1, by hand: what is written to the socket and what is read from it is spelled out here.

mod faults;

use std::{
    panic::AssertUnwindSafe,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, Request, StatusCode, request::Parts};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{dates::signature_date, signature::tests::Signer, *};
use crate::clock::Clock;

/// Long enough for a loaded machine; nobody waits for it when all is well.
const LIMIT: Duration = Duration::from_secs(20);
const VAULT: &str = DEFAULT_VAULT;

async fn emulator() -> Emulator {
    Emulator::start(0, Settings::default()).await.unwrap()
}

fn describe_path(job_id: &str) -> String {
    format!("/-/vaults/{VAULT}/jobs/{job_id}")
}

/// A request as the gateway would make it.
fn signed_by(emulator: &Emulator, credentials: &EmulatedCredentials, path: &str) -> Parts {
    let request = Request::builder().uri(path).header("host", emulator.address().to_string());
    let date = signature_date(emulator.clock().wall().into());
    Signer { credentials, region: "us-east-1", date: &date }.sign(request)
}

fn signed(emulator: &Emulator, path: &str) -> Parts {
    signed_by(emulator, &EmulatedCredentials::default(), path)
}

fn wire(request: &Parts) -> String {
    let mut text = format!("{} {} HTTP/1.1\r\n", request.method, request.uri);
    for (name, value) in &request.headers {
        text.extend([name.as_str(), ": ", value.to_str().unwrap(), "\r\n"]);
    }
    text + "\r\n"
}

#[derive(Debug, PartialEq)]
struct Heard {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
    /// The connection ended before the body was complete.
    cut: bool,
}

impl Heard {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Status and error code.
    fn error(&self) -> (u16, String) {
        (self.status.as_u16(), self.json()["code"].as_str().unwrap().to_owned())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

struct Line(TcpStream);

impl Line {
    async fn to(emulator: &Emulator) -> Self {
        Self(TcpStream::connect(emulator.address()).await.unwrap())
    }

    async fn send(&mut self, request: &Parts) {
        self.0.write_all(wire(request).as_bytes()).await.unwrap();
    }

    /// `None`: the connection ended without an answer.
    async fn head(&mut self) -> Option<(StatusCode, HeaderMap)> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match timeout(LIMIT, self.0.read_u8()).await.expect("an answer in time") {
                Ok(byte) => head.push(byte),
                Err(_) => return None,
            }
        }
        let head = String::from_utf8(head).unwrap();
        let (status, fields) = head.split_once("\r\n").unwrap();
        let pairs = fields.lines().filter(|line| !line.is_empty()).map(|line| line.split_once(": ").unwrap());
        let pairs = pairs.map(|(name, value)| (HeaderName::try_from(name).unwrap(), value.parse().unwrap()));
        Some((status.split(' ').nth(1).unwrap().parse().unwrap(), pairs.collect()))
    }

    async fn hear(&mut self) -> Option<Heard> {
        let (status, headers) = self.head().await?;
        let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
        let mut body = Vec::new();
        while body.len() < length {
            let mut portion = vec![0; length - body.len()];
            match timeout(LIMIT, self.0.read(&mut portion)).await.expect("a body in time") {
                Ok(0) | Err(_) => return Some(Heard { status, headers, body, cut: true }),
                Ok(read) => body.extend_from_slice(&portion[..read]),
            }
        }
        Some(Heard { status, headers, body, cut: false })
    }

    async fn ask(&mut self, request: &Parts) -> Option<Heard> {
        self.send(request).await;
        self.hear().await
    }

    /// How the connection ends when nothing more is sent.
    async fn end(&mut self) -> Result<usize, io::ErrorKind> {
        let mut rest = Vec::new();
        let ended = timeout(LIMIT, self.0.read_to_end(&mut rest)).await.expect("an end in time");
        ended.map_err(|error| error.kind())
    }
}

async fn ask(emulator: &Emulator, request: &Parts) -> Heard {
    Line::to(emulator).await.ask(request).await.expect("an answer")
}

async fn get(emulator: &Emulator, path: &str) -> Heard {
    ask(emulator, &signed(emulator, path)).await
}

#[tokio::test]
async fn a_job_is_described_as_the_store_holds_it() {
    let emulator = emulator().await;
    let id = emulator.store().add(VAULT, EmulatedJob::archive(Tier::Standard));
    let path = describe_path(&id);
    let heard = get(&emulator, &path).await;
    assert_eq!((heard.status, heard.header("content-type")), (StatusCode::OK, Some("application/json")));
    assert_eq!(Some(heard.json()), emulator.store().describe(VAULT, &id));
    assert!(heard.header("date").unwrap().ends_with(" GMT"));
    assert_eq!(heard.header("x-amzn-errortype"), None);

    let own = get(&emulator, &path.replacen("/-/", "/123456789012/", 1)).await;
    assert_eq!(own.body, heard.body);
    assert_ne!(own.header("x-amzn-requestid"), heard.header("x-amzn-requestid"));

    let seen = emulator.requests();
    assert_eq!((seen.len(), emulator.request_count(), emulator.requests_for(&id)), (2, 2, 2));
    assert_eq!((seen[0].path.as_str(), seen[0].job_id.as_deref()), (path.as_str(), Some(id.as_str())));
    assert!(seen[0].headers.contains_key("authorization") && seen[0].arrived <= seen[1].arrived);
    emulator.stop().await;
}

#[tokio::test]
async fn any_document_travels_unchanged_over_a_connection_that_is_kept() {
    let emulator = emulator().await;
    let mut line = Line::to(&emulator).await;
    for document in [json!({"é": "\u{0}", "n": [1.5, -1, null, u64::MAX]}), json!(null), json!({})] {
        let id = emulator.store().add(VAULT, EmulatedJob::from_document(document.clone()));
        let heard = line.ask(&signed(&emulator, &describe_path(&id))).await.unwrap();
        assert_eq!(heard.json(), document);
    }
    assert_eq!(emulator.connection_count(), 1);
}

#[tokio::test]
async fn missing_jobs_and_vaults_are_told_apart_by_the_message_only() {
    let emulator = emulator().await;
    emulator.store().create_vault(VAULT);
    let job = get(&emulator, &describe_path("-nobody")).await;
    let vault = get(&emulator, "/-/vaults/nowhere/jobs/x").await;
    let not_found = |message: &str| json!({"code": "ResourceNotFoundException", "message": message, "type": "Client"});
    assert_eq!((job.status, vault.status), (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND));
    assert_eq!(job.json(), not_found("The job ID was not found: -nobody"));
    let arn = "arn:aws:glacier:us-east-1:123456789012:vaults/nowhere";
    assert_eq!(vault.json(), not_found(&format!("Vault not found for ARN: {arn}")));
    assert_eq!(get(&emulator, "/-/vaults/nowhere/jobs").await.json(), vault.json());
}

#[tokio::test]
async fn a_listing_is_paged_in_order_and_filtered() {
    let emulator = emulator().await;
    let store = emulator.store();
    let mut ids: Vec<_> = (0..120).map(|_| store.add(VAULT, EmulatedJob::inventory())).collect();
    let old = store.add(VAULT, EmulatedJob::select().already_completed(Duration::from_mins(1)));
    ids.insert(0, old.clone());
    let failed = store.add(VAULT, EmulatedJob::archive(Tier::Bulk).failing("lost").lasting(Duration::ZERO));
    ids.push(failed.clone());

    let (mut listed, mut sizes, mut marker) = (Vec::new(), Vec::new(), String::new());
    loop {
        let page = get(&emulator, &format!("/-/vaults/{VAULT}/jobs{marker}")).await.json();
        let jobs = page["JobList"].as_array().unwrap();
        sizes.push(jobs.len());
        listed.extend(jobs.iter().map(|job| job["JobId"].as_str().unwrap().to_owned()));
        let Some(next) = page["Marker"].as_str() else { break };
        marker = format!("?marker={next}");
    }
    assert_eq!((sizes, listed), (vec![50, 50, 22], ids.clone()));

    let query = async |query: &str| {
        let page = get(&emulator, &format!("/-/vaults/{VAULT}/jobs?{query}")).await.json();
        let jobs: Vec<_> = page["JobList"].as_array().unwrap().iter().map(|job| job["JobId"].clone()).collect();
        (jobs, page["Marker"].is_null())
    };
    assert_eq!(query("completed=true").await, (vec![json!(old), json!(failed)], true));
    assert_eq!(query("statuscode=Failed&limit=1").await, (vec![json!(failed)], true));
    assert_eq!(query("completed=true&limit=1").await, (vec![json!(old)], false));
    assert_eq!(query("completed=false&statuscode=Succeeded").await, (vec![], true));
    let wrong = get(&emulator, &format!("/-/vaults/{VAULT}/jobs?limit=51")).await;
    assert_eq!(wrong.error(), (400, "InvalidParameterValueException".to_owned()));
}

#[tokio::test]
async fn requests_that_the_real_one_refuses_are_refused() {
    let emulator = emulator().await;
    let path = describe_path("x");
    let refusal = async |change: &dyn Fn(&mut Parts)| {
        let mut request = signed(&emulator, &path);
        change(&mut request);
        ask(&emulator, &request).await.error()
    };
    let is = |status: u16, code: &str| (status, code.to_owned());
    let drop_header = |name: &'static str| move |request: &mut Parts| drop(request.headers.remove(name));
    assert_eq!(refusal(&drop_header("x-amz-glacier-version")).await, is(400, "MissingParameterValueException"));
    assert_eq!(refusal(&drop_header("authorization")).await, is(403, "MissingAuthenticationTokenException"));
    let post = |request: &mut Parts| request.method = http::Method::POST;
    assert_eq!(refusal(&post).await, is(403, "InvalidSignatureException"));

    let stranger = EmulatedCredentials::new("AKIANOBODY", "x");
    let answer = ask(&emulator, &signed_by(&emulator, &stranger, &path)).await;
    assert_eq!(answer.error(), is(403, "UnrecognizedClientException"));
    assert_eq!(get(&emulator, "/999999999999/vaults/v/jobs/x").await.error(), is(403, "AccessDeniedException"));
    assert_eq!(get(&emulator, "/-/policies").await.error(), is(404, "UnknownOperationException"));
}

#[tokio::test]
async fn credentials_expire_and_are_replaced_while_it_runs() {
    let emulator = emulator().await;
    let id = emulator.store().add_of("210987654321", VAULT, EmulatedJob::select());
    let path = describe_path(&id);
    emulator.expire_credentials("AKIAIOSFODNN7EXAMPLE");
    assert_eq!(get(&emulator, &path).await.error(), (403, "ExpiredTokenException".to_owned()));

    let temporary = EmulatedCredentials::new("ASIAOTHER", "s").with_session_token("t").of_account("210987654321");
    emulator.replace_credentials(vec![temporary.clone()]);
    let heard = ask(&emulator, &signed_by(&emulator, &temporary, &path)).await;
    assert_eq!(heard.json()["VaultARN"], "arn:aws:glacier:us-east-1:210987654321:vaults/examplevault");
    assert_eq!(get(&emulator, &path).await.error(), (403, "UnrecognizedClientException".to_owned()));
    let wrong = EmulatedCredentials { secret_access_key: "wrong".to_owned(), ..temporary };
    let heard = ask(&emulator, &signed_by(&emulator, &wrong, &path)).await;
    assert_eq!(heard.error(), (403, "InvalidSignatureException".to_owned()));
    assert!(heard.json()["message"].as_str().unwrap().contains("x-amz-security-token:t\n"));
}

#[tokio::test]
async fn a_server_whose_clock_is_off_says_so_in_date_and_refuses_signatures() {
    let wall = || SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let settings = Settings { clock: EmulatedClock::new(Clock::with_wall(wall)), ..Settings::default() };
    let emulator = Emulator::start(0, settings).await.unwrap();
    emulator.clock().set_server_offset(time::Duration::minutes(10));
    let late = get(&emulator, &describe_path("x")).await;
    assert_eq!(late.error(), (403, "InvalidSignatureException".to_owned()));
    assert!(late.json()["message"].as_str().unwrap().starts_with("Signature expired: 20231114T221320Z "));
    assert_eq!(late.header("date"), Some("Tue, 14 Nov 2023 22:23:20 GMT"));
    emulator.clock().set_server_offset(time::Duration::minutes(-10));
    let early = get(&emulator, &describe_path("x")).await;
    assert!(early.json()["message"].as_str().unwrap().starts_with("Signature not yet current: "));
}

#[tokio::test]
async fn the_port_is_free_after_a_stop_and_soon_after_a_drop() {
    let first = emulator().await;
    let port = first.address().port();
    let mut line = Line::to(&first).await;
    line.ask(&signed(&first, "/")).await.unwrap();
    first.stop().await;
    assert_eq!(line.end().await, Ok(0));
    let second = Emulator::start(port, Settings::default()).await.unwrap();
    assert_eq!(second.endpoint(), format!("http://127.0.0.1:{port}"));
    let mut line = Line::to(&second).await;
    line.ask(&signed(&second, "/")).await.unwrap();
    drop(second);
    assert_eq!(line.end().await, Ok(0));
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
}

#[tokio::test]
async fn a_panic_in_the_emulator_comes_out_of_stop() {
    static BROKEN: AtomicBool = AtomicBool::new(false);
    let wall = || {
        assert!(!BROKEN.load(Ordering::SeqCst), "the clock broke");
        SystemTime::UNIX_EPOCH
    };
    let settings = Settings { clock: EmulatedClock::new(Clock::with_wall(wall)), ..Settings::default() };
    let emulator = Emulator::start(0, settings).await.unwrap();
    let request = signed(&emulator, &describe_path("x"));
    BROKEN.store(true, Ordering::SeqCst);
    assert_eq!(Line::to(&emulator).await.ask(&request).await, None);
    let panic = AssertUnwindSafe(emulator.stop()).catch_unwind().await.unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"the clock broke"));
}
