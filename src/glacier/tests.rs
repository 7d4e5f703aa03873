//! The client against a scripted server on a real socket. Real time, hence short times.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tracing_subscriber::{Layer as _, filter::Targets, layer::SubscriberExt as _};

use super::*;
use crate::{
    metrics::AdmissionMetrics,
    network::Proxy,
    upstream::admission::{Admission, FetchLimits},
};

/// One thing the server does after it has read a request's head.
#[derive(Debug, Clone)]
enum Step {
    Send(Vec<u8>),
    /// This byte again and again until the client closes.
    SendForEver(u8),
    Wait(Duration),
    Close,
}

/// Plays its script for every request on every connection.
struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
}

impl Server {
    async fn start(script: Vec<Step>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            requests: Arc::default(),
            connections: Arc::default(),
            sent: Arc::default(),
        };
        let (requests, connections, sent) = (server.requests.clone(), server.connections.clone(), server.sent.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, script.clone(), requests.clone(), sent.clone()));
            }
        });
        server
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    script: Vec<Step>,
    requests: Arc<Mutex<Vec<String>>>,
    sent: Arc<AtomicUsize>,
) -> Option<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        requests.lock().unwrap().push(String::from_utf8(head).unwrap());
        for step in &script {
            match step {
                Step::Send(bytes) => stream.write_all(bytes).await.ok()?,
                Step::SendForEver(byte) => loop {
                    stream.write_all(&[*byte; 4096]).await.ok()?;
                    sent.fetch_add(4096, Ordering::SeqCst);
                },
                Step::Wait(time) => sleep(*time).await,
                Step::Close => return None,
            }
        }
    }
}

const BODY: &str = r#"{"Action":"InventoryRetrieval","JobId":"j","StatusCode":"InProgress","Completed":false}"#;

fn http_answer(status: &str, headers: &str, body: &str) -> Step {
    let text = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len());
    Step::Send(text.into_bytes())
}

fn text(text: &str) -> Step {
    Step::Send(text.as_bytes().to_vec())
}

fn client_of(url: &str, change: impl FnOnce(&mut GlacierSettings)) -> GlacierClient {
    let mut settings = GlacierSettings::new(Endpoint::resolve("us-east-1", false, Some(url)).unwrap());
    // What these tests look at is one attempt.
    settings.retry.max_attempts = 1;
    change(&mut settings);
    client_resolving_with(Resolver::of_the_system(), settings)
}

fn client_resolving_with(resolver: Resolver, settings: GlacierSettings) -> GlacierClient {
    let credentials = CredentialsHolder::fixed("AKID", "SECRET", Some("TOKEN".to_owned()));
    let clock = Clock::with_wall(|| SystemTime::UNIX_EPOCH);
    GlacierClient::resolving_with(resolver, settings, credentials, clock).unwrap()
}

async fn ask(client: &GlacierClient) -> Result<Described, UpstreamError> {
    ask_until(client, Instant::now() + Duration::from_secs(8)).await
}

async fn ask_until(client: &GlacierClient, until: Instant) -> Result<Described, UpstreamError> {
    ask_through(&Admission::new(&FetchLimits::default(), AdmissionMetrics::default()), client, until).await
}

async fn ask_through(
    admission: &Admission,
    client: &GlacierClient,
    until: Instant,
) -> Result<Described, UpstreamError> {
    let place = admission.enter(None).await.unwrap();
    client.describe_job(JobKey::parse("-", "v", "j").unwrap(), &place, Effort { until, repeats: true }).await
}

/// What a script makes of one question, with an attempt timeout of 300 ms.
async fn outcome_of(script: Vec<Step>) -> Result<Described, UpstreamError> {
    let server = Server::start(script).await;
    ask(&client_of(&server.url, |s| s.attempt_timeout = Duration::from_millis(300))).await
}

async fn failure_of(script: Vec<Step>) -> (Kind, bool, String) {
    let error = outcome_of(script).await.unwrap_err();
    (error.kind, error.sent, error.detail)
}

#[tokio::test]
async fn a_description_comes_back_over_a_socket_and_the_connection_is_used_again() {
    let server = Server::start(vec![http_answer("200 OK", "x-amzn-RequestId: Rq-1\r\n", BODY)]).await;
    let client = client_of(&server.url, |_| {});
    let before = Instant::now();
    for _ in 0..3 {
        let described = ask(&client).await.unwrap();
        assert_eq!(described.job.job_id.as_deref(), Some("j"));
        assert_eq!(described.request_id.as_deref(), Some("Rq-1"));
        assert_eq!(described.asked_at.wall, SystemTime::UNIX_EPOCH);
        assert!((before..Instant::now()).contains(&described.asked_at.instant));
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    let request = &server.requests()[0];
    let host = server.url.strip_prefix("http://").unwrap();
    assert!(request.starts_with("GET /-/vaults/v/jobs/j HTTP/1.1\r\n"), "{request}");
    for line in [
        format!("host: {host}\r\n"),
        "x-amz-glacier-version: 2012-06-01\r\n".to_owned(),
        "x-amz-date: 19700101T000000Z\r\n".to_owned(),
        "x-amz-security-token: TOKEN\r\n".to_owned(),
        "Credential=AKID/19700101/us-east-1/glacier/aws4_request".to_owned(),
        concat!("user-agent: glacier-gateway/", env!("CARGO_PKG_VERSION"), "\r\n").to_owned(),
    ] {
        assert!(request.contains(&line), "{line} in {request}");
    }
    assert!(!request.contains("accept-encoding") && !request.contains("x-amz-content-sha256"), "{request}");
    assert_eq!(request.matches("host:").count(), 1, "{request}");
}

#[tokio::test]
async fn an_errors_body_is_read_to_its_end_so_the_connection_is_used_again() {
    let body = r#"{"code":"ThrottlingException","message":"Rate exceeded"}"#;
    let server = Server::start(vec![http_answer("400 Bad Request", "x-amz-retry-after: 700\r\n", body)]).await;
    let client = client_of(&server.url, |_| {});
    for _ in 0..3 {
        let error = ask(&client).await.unwrap_err();
        assert_eq!((error.kind, error.retry_after), (Kind::Throttled, Some(Duration::from_millis(700))));
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

/// U3: once Glacier throttles, retries need a turn like any request, and without one the fetch has the answer that it got.
#[tokio::test]
async fn a_retry_whose_turn_does_not_come_ends_with_the_throttling_answer() {
    let body = r#"{"code":"ThrottlingException","message":"Rate exceeded"}"#;
    let server = Server::start(vec![http_answer("400 Bad Request", "", body)]).await;
    let client = client_of(&server.url, |settings| {
        (settings.retry.max_attempts, settings.retry.throttling_base) = (3, Duration::from_millis(1));
    });
    let limits = FetchLimits { max_wait: Duration::from_millis(10), ..FetchLimits::default() };
    let admission = Admission::new(&limits, AdmissionMetrics::default());
    let until = Instant::now() + Duration::from_secs(8);
    let throttled = ask_through(&admission, &client, until).await.unwrap_err();
    assert_eq!((throttled.kind, throttled.sent, throttled.http_status), (Kind::Throttled, true, Some(400)));
    assert_eq!(server.requests().len(), 2, "the second had the turn that is left after a cut, the third had none");
    assert_eq!(client.bucket.tokens(), 500 - 5, "only the retry that was sent is paid for");
    let held_back = ask_through(&admission, &client, until).await.unwrap_err();
    assert_eq!((held_back.kind, held_back.sent), (Kind::HeldBack, false));
    assert!(held_back.retry_after.is_some());
    assert_eq!(server.requests().len(), 2);
}

/// What an answer other than throttling says lifts the limit again, and silence says nothing.
#[tokio::test]
async fn every_answer_counts_for_the_rate_and_no_answer_does_not() {
    let error = |code: &str| format!(r#"{{"code":"{code}","message":"m"}}"#);
    let throttles = Server::start(vec![http_answer("400 Bad Request", "", &error("ThrottlingException"))]).await;
    let answers =
        [http_answer("200 OK", "", BODY), http_answer("404 Not Found", "", &error("ResourceNotFoundException"))];
    for (lifts, script) in answers.map(|answer| (true, answer)).into_iter().chain([(false, Step::Close)]) {
        let limits = FetchLimits { max_wait: Duration::ZERO, ..FetchLimits::default() };
        let admission = Admission::new(&limits, AdmissionMetrics::default());
        let until = Instant::now() + Duration::from_secs(30);
        ask_through(&admission, &client_of(&throttles.url, |_| {}), until).await.unwrap_err();
        let server = Server::start(vec![script]).await;
        let client = client_of(&server.url, |_| {});
        let limit = admission.rate_limit().expect("it is throttled");
        let _outcome = ask_through(&admission, &client, until).await;
        assert_eq!(server.requests().len(), 1);
        assert_eq!(admission.rate_limit().is_none_or(|rate| rate > limit), lifts);
    }
}

/// U4
#[tokio::test]
async fn headers_that_never_come_are_given_up_at_the_attempt_timeout() {
    let start = Instant::now();
    let failure = failure_of(vec![Step::Wait(Duration::from_mins(1))]).await;
    assert_eq!(failure, (Kind::TimedOut, true, "no answer within 300ms".to_owned()));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_attempt_ends_when_the_fetch_ends() {
    let server = Server::start(vec![Step::Wait(Duration::from_mins(1))]).await;
    let client = client_of(&server.url, |_| {});
    let start = Instant::now();
    let error = ask_until(&client, start + Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(error.kind, Kind::TimedOut);
    assert!(start.elapsed() < Duration::from_secs(2));
    let error = ask_until(&client, start).await.unwrap_err();
    assert_eq!((error.kind, error.sent), (Kind::TimedOut, false), "no time left: nothing is sent");
    assert_eq!(server.requests().len(), 1);
}

/// U5
#[tokio::test]
async fn a_body_that_drips_is_given_up_at_the_attempt_timeout() {
    let mut script = vec![text("HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n")];
    for _ in 0..90 {
        script.extend([text(" "), Step::Wait(Duration::from_millis(50))]);
    }
    let start = Instant::now();
    assert_eq!(failure_of(script).await, (Kind::TimedOut, true, "no answer within 300ms".to_owned()));
    assert!(start.elapsed() < Duration::from_secs(2));
}

/// U7
#[tokio::test]
async fn a_body_shorter_than_promised_is_no_answer() {
    let early = (Kind::Unavailable, true, "body ended early".to_owned());
    let script = vec![text("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"), text(BODY), Step::Close];
    assert_eq!(failure_of(script).await, early);
    let script = vec![text("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n57\r\n"), text(BODY), Step::Close];
    assert_eq!(failure_of(script).await, early);
}

/// U8
#[tokio::test]
async fn a_connection_closed_without_an_answer_is_recognized() {
    let failure = failure_of(vec![Step::Close]).await;
    assert_eq!(failure, (Kind::Unavailable, true, "connection closed before an answer".to_owned()));
}

#[tokio::test]
async fn what_is_not_http_is_malformed() {
    let failure = failure_of(vec![text("SSH-2.0-OpenSSH_9.9\r\n\r\n")]).await;
    assert_eq!(failure, (Kind::Malformed, true, "the answer is not HTTP".to_owned()));
}

/// U14
#[tokio::test]
async fn an_endless_body_is_read_up_to_the_limit_only() {
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
    let server = Server::start(vec![text(head), Step::SendForEver(b' ')]).await;
    let client = client_of(&server.url, |s| s.body_limit = 100_000);
    let error = ask(&client).await.unwrap_err();
    assert_eq!((error.kind, error.http_status), (Kind::Malformed, Some(200)));
    assert_eq!(error.detail, "the answer is larger than 100000 bytes");
    // The socket buffers of both ends hold some more, but not what three seconds would bring.
    sleep(Duration::from_millis(100)).await;
    let sent = server.sent.load(Ordering::SeqCst);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(server.sent.load(Ordering::SeqCst), sent, "nobody reads any more");
}

/// U14
#[tokio::test]
async fn a_body_that_announces_itself_as_too_large_is_not_read_at_all() {
    let script = vec![text("HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n"), Step::Wait(Duration::from_mins(1))];
    assert_eq!(failure_of(script).await.0, Kind::Malformed);
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_accepted() {
    let server = Server::start(vec![http_answer("200 OK", "", BODY)]).await;
    assert!(ask(&client_of(&server.url, |s| s.body_limit = BODY.len())).await.is_ok());
    assert!(ask(&client_of(&server.url, |s| s.body_limit = BODY.len() - 1)).await.is_err());
}

/// U17
#[tokio::test]
async fn an_endless_error_page_is_still_an_error_of_its_status() {
    let script = vec![text("HTTP/1.1 503 Busy\r\nConnection: close\r\n\r\n"), Step::SendForEver(b'x')];
    let error = outcome_of(script).await.unwrap_err();
    assert_eq!((error.kind, error.http_status), (Kind::Unavailable, Some(503)));
}

/// U18
#[tokio::test]
async fn a_redirect_is_not_followed() {
    let other = Server::start(vec![http_answer("200 OK", "", BODY)]).await;
    let location = format!("Location: {}/-/vaults/v/jobs/j\r\n", other.url);
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let (kind, ..) = failure_of(vec![http_answer(status, &location, "")]).await;
        assert_eq!(kind, Kind::Malformed);
    }
    assert_eq!(other.connections.load(Ordering::SeqCst), 0);
}

/// U9
#[tokio::test]
async fn a_refused_connection_sent_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = ask(&client_of(&url, |_| {})).await.unwrap_err();
    assert_eq!((error.kind, error.sent, error.detail.as_str()), (Kind::Unavailable, false, "connection refused"));
}

#[tokio::test]
async fn a_fetch_whose_last_request_sent_nothing_may_have_reached_glacier_before() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        // Nobody listens any more when the answer is out.
        drop(listener);
        let busy = vec![http_answer("503 Busy", "Connection: close\r\n", ""), Step::Close];
        serve(stream, busy, Arc::default(), Arc::default()).await;
    });
    let error = ask(&client_of(&url, |s| s.retry.max_attempts = 2)).await.unwrap_err();
    assert_eq!((error.kind, error.sent, error.http_status), (Kind::Unavailable, true, None));
    assert_eq!(error.detail, "connection refused, in request 2 of the fetch");
}

/// K14: what Glacier refuses is dated by the request that it answered, not by the first of the fetch.
#[tokio::test]
async fn an_error_says_when_its_last_request_was_sent() {
    let pause = Duration::from_millis(50);
    let server = Server::start(vec![Step::Wait(pause), http_answer("503 Service Unavailable", "", "")]).await;
    for attempts in [1, 2] {
        let client = client_of(&server.url, |settings| settings.retry.max_attempts = attempts);
        let began = Instant::now();
        let sent_at = ask(&client).await.unwrap_err().asked_at.unwrap();
        assert!(sent_at - began >= pause * (attempts - 1) && sent_at.elapsed() >= pause, "{attempts}");
    }
    assert_eq!(server.requests().len(), 3);
}

/// U28.
#[tokio::test]
async fn an_effort_without_repetitions_is_one_request() {
    let server = Server::start(vec![http_answer("503 Service Unavailable", "", "")]).await;
    let admission = Admission::new(&FetchLimits::default(), AdmissionMetrics::default());
    let place = admission.enter(None).await.unwrap();
    for (repeats, requests) in [(false, 1), (true, 3)] {
        let client = client_of(&server.url, |settings| settings.retry.max_attempts = 2);
        let effort = Effort { until: Instant::now() + Duration::from_secs(8), repeats };
        client.describe_job(JobKey::parse("-", "v", "j").unwrap(), &place, effort).await.unwrap_err();
        assert_eq!(server.requests().len(), requests, "{repeats}");
    }
}

/// While there is only one subscriber, tracing asks that of whichever thread comes by a line first whether anybody wants it; the
/// thread of another test has none, and then nobody hears of it any more. With a second one it asks all.
fn another_subscriber() -> tracing::Dispatch {
    tracing::Dispatch::new(tracing_subscriber::registry())
}

/// One event per retry, for whoever turns debug on; the failure of the whole is somebody else's to log.
#[tokio::test]
async fn each_retry_is_logged_at_debug() {
    let log = Log::default();
    let writer = log.clone();
    let _other = another_subscriber();
    let ours = Targets::new().with_target("glacier_gateway", tracing::Level::DEBUG);
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
    let subscriber = tracing_subscriber::registry().with(layer.with_filter(ours));
    let guard = tracing::subscriber::set_default(subscriber);
    let server = Server::start(vec![http_answer("503 Busy", "", "")]).await;
    ask(&client_of(&server.url, |s| s.retry.max_attempts = 3)).await.unwrap_err();
    drop(guard);
    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    let retries: Vec<_> = log.lines().filter(|line| line.contains("asking glacier again")).collect();
    assert_eq!((retries.len(), server.requests().len()), (2, 3), "{log}");
    for (line, request) in retries.iter().zip(["request=1", "request=2"]) {
        let parts = ["DEBUG", request, "kind=\"unavailable\"", "how=\"repeat\"", "wait_ms="];
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
    assert!(!log.contains("WARN") && !log.contains("Signature="), "{log}");
}

/// U11
#[tokio::test]
async fn a_name_that_does_not_resolve_is_unavailable() {
    let client = client_of("http://no-such-host.invalid", |s| s.connect_timeout = Duration::from_secs(3));
    let error = ask(&client).await.unwrap_err();
    assert_eq!((error.kind, error.sent), (Kind::Unavailable, false), "{error}");
    // A machine without a network may take its time to say so.
    assert!(["dns lookup failed", "connect timed out after 3s"].contains(&error.detail.as_str()), "{error}");
}

/// U11. With a look-up per connection, two of the sixty would hold both of this runtime's blocking threads for as long as
/// the name server is silent.
#[test]
fn a_name_server_that_is_silent_holds_one_thread_and_its_late_answer_is_used() {
    let (answer, answers) = std::sync::mpsc::channel();
    let (asked, answers) = (Arc::new(AtomicUsize::new(0)), Mutex::new(answers));
    let resolver = Resolver::with(Arc::new({
        let asked = Arc::clone(&asked);
        move |_name| {
            asked.fetch_add(1, Ordering::SeqCst);
            answers.lock().unwrap().recv().map_err(std::io::Error::other)
        }
    }));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(2).build().unwrap();
    runtime.block_on(async {
        let server = Server::start(vec![http_answer("200 OK", "", BODY)]).await;
        let url = server.url.replace("127.0.0.1", "glacier.test");
        let mut settings = GlacierSettings::new(Endpoint::resolve("us-east-1", false, Some(&url)).unwrap());
        settings.connect_timeout = Duration::from_millis(200);
        settings.retry.max_attempts = 1;
        let client = client_resolving_with(resolver, settings);
        let fetches: Vec<_> = (0..60)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { ask(&client).await })
            })
            .collect();
        let mut outcomes = Vec::new();
        for fetch in fetches {
            outcomes.push(fetch.await.unwrap().unwrap_err());
        }
        tokio::task::spawn_blocking(|| {}).await.unwrap();
        for error in outcomes {
            let expected = (Kind::TimedOut, false, "connect timed out after 200ms");
            assert_eq!((error.kind, error.sent, error.detail.as_str()), expected);
        }
        answer.send(vec!["127.0.0.1:0".parse().unwrap()]).unwrap();
        ask(&client).await.unwrap();
    });
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// Variables of the environment belong to a process, so another one plays the test that would fail with a proxy.
#[test]
fn a_proxy_in_the_environment_is_ignored() {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "glacier::tests::a_description_comes_back_over_a_socket_and_the_connection_is_used_again"]);
    child.env_remove("NO_PROXY").env_remove("no_proxy");
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        child.env(name, "http://127.0.0.1:1");
    }
    let output = child.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
}

/// U6
#[tokio::test]
async fn a_reset_in_the_middle_of_the_body_is_recognized() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read_u8().await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{").await;
            // Unread bytes of the request turn the close into a reset.
            sleep(Duration::from_millis(50)).await;
        }
    });
    let error = ask(&client_of(&url, |_| {})).await.unwrap_err();
    assert_eq!((error.kind, error.sent, error.http_status), (Kind::Unavailable, true, Some(200)));
    assert_eq!(error.detail, "connection reset");
}

/// U12
#[tokio::test]
async fn a_peer_that_speaks_no_tls_is_a_tls_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            let _ = stream.read(&mut [0; 1024]).await;
        }
    });
    let error = ask(&client_of(&url, |_| {})).await.unwrap_err();
    assert_eq!((error.kind, error.sent, error.detail.as_str()), (Kind::TlsFailed, false, "tls handshake failed"));
}

/// U10
#[tokio::test]
async fn a_handshake_that_hangs_ends_at_the_connect_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let error = ask(&client_of(&url, |s| s.connect_timeout = Duration::from_millis(200))).await.unwrap_err();
    assert_eq!((error.kind, error.sent), (Kind::TimedOut, false));
    assert_eq!(error.detail, "connect timed out after 200ms");
}

/// C6
#[tokio::test]
async fn without_credentials_nothing_is_sent() {
    let server = Server::start(vec![http_answer("200 OK", "", BODY)]).await;
    let settings = GlacierSettings::new(Endpoint::resolve("us-east-1", false, Some(&server.url)).unwrap());
    let broken = CredentialsHolder::fixed("AKID", "SECRET", Some("TO\nKEN".to_owned()));
    let client = GlacierClient::new(settings, broken, Clock::system()).unwrap();
    let error = ask(&client).await.unwrap_err();
    assert_eq!((error.kind, error.sent), (Kind::CredentialsUnavailable, false));
    assert_eq!(server.connections.load(Ordering::SeqCst), 0);
}

/// C13. Nothing that travels in clear is seen by a proxy, whatever the host is called.
#[tokio::test]
async fn plain_http_never_goes_through_a_proxy() {
    let (server, proxy) = (
        Server::start(vec![http_answer("200 OK", "", "")]).await,
        Server::start(vec![http_answer("200 OK", "", "")]).await,
    );
    let network = NetworkSettings { proxy: Proxy::parse(&proxy.url, []).unwrap(), ..NetworkSettings::default() };
    let resolver = Resolver::with(Arc::new(|_| Ok(vec![([127, 0, 0, 1], 0).into()])));
    let client = network.client(resolver, DEFAULT_CONNECT_TIMEOUT, |client| client).unwrap();
    let port = server.url.rsplit_once(':').unwrap().1;
    client.get(format!("http://credentials.example:{port}/")).send().await.unwrap();
    assert_eq!((server.requests().len(), proxy.connections.load(Ordering::SeqCst)), (1, 0));
    // The control: what is encrypted does.
    client.get(format!("https://credentials.example:{port}/")).send().await.unwrap_err();
    assert_eq!((server.requests().len(), proxy.connections.load(Ordering::SeqCst)), (1, 1));
}

/// P8
#[tokio::test]
async fn no_secret_is_logged_even_at_trace_level() {
    let log = Log::default();
    let writer = log.clone();
    let _other = another_subscriber();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let server = Server::start(vec![http_answer("200 OK", "", BODY)]).await;
    let mut settings = GlacierSettings::new(Endpoint::resolve("us-east-1", false, Some(&server.url)).unwrap());
    settings.attempt_timeout = Duration::from_secs(3);
    let credentials = CredentialsHolder::fixed("AKID", "marked-secret", Some("marked-token".to_owned()));
    let client = GlacierClient::new(settings, credentials, Clock::system()).unwrap();
    ask(&client).await.unwrap();
    drop(guard);
    let request = &server.requests()[0];
    let signature = request.split_once("Signature=").unwrap().1.split_once('\r').unwrap().0;
    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    // Release builds hold nothing below debug.
    assert_eq!(log.contains("TRACE"), cfg!(debug_assertions), "{log}");
    assert!(!log.contains("marked") && !log.contains(signature), "{log}");
    assert!(!format!("{client:?}").contains("marked"));
}

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
