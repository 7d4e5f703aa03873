//! What `/metrics` tells: each number moves when its thing happens, and no caller chooses a series.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use glacier_gateway::{
    app::AppSettings,
    clock::Clock,
    emulator::{EmulatedJob, Fault, Settings, Tier},
    glacier::CredentialsHolder,
    metrics::{CacheOutcome, CallCode, Exposition, Metrics, UpstreamCode},
    proto,
};
use prost_reflect::DescriptorPool;
use tonic::{Code, Request, client::Grpc};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::support::{
    gateway::{Gateway, PATIENCE, VAULT, question},
    page::Page,
    process::Served,
};

const DESCRIBE: &str = r#"grpc_type="unary",grpc_service="glacier.jobs.v1.JobService",grpc_method="DescribeJob""#;
const UNKNOWN: &str = r#"grpc_type="unknown",grpc_service="unknown",grpc_method="unknown""#;

async fn start_with(change: impl FnOnce(&mut AppSettings)) -> Gateway {
    Gateway::start_with(|settings| {
        settings.admin_listen = Some("127.0.0.1:0".parse().unwrap());
        change(settings);
    })
    .await
}

async fn start() -> Gateway {
    start_with(|_| {}).await
}

/// One scrape.
struct Scrape(Page);

impl Scrape {
    async fn of(gateway: &Gateway) -> Self {
        Self::at(gateway.admin_address.unwrap()).await
    }

    async fn at(admin: impl tokio::net::ToSocketAddrs) -> Self {
        let page = Page::get(admin, "/metrics").await;
        assert_eq!(page.status, 200);
        Self(page)
    }

    fn value(&self, series: &str) -> f64 {
        let rest = self.0.body.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        rest.unwrap_or_else(|| panic!("{series} is missing in {}", self.0.body)).parse().unwrap()
    }

    fn is(&self, series: &str, value: u32) {
        let found = self.value(series);
        assert!((found - f64::from(value)).abs() < 1e-9, "{series} is {found}, not {value}");
    }

    fn handled(&self, code: CallCode, calls: u32) {
        self.is(&format!("grpc_server_handled_total{{{DESCRIBE},grpc_code=\"{}\"}}", code.name()), calls);
    }

    fn cache(&self, outcome: CacheOutcome) -> f64 {
        self.value(&format!("glacier_gateway_cache_requests_total{{outcome=\"{}\"}}", outcome.name()))
    }

    fn requests(&self, code: UpstreamCode, attempt: &str) -> f64 {
        let code = code.name();
        self.value(&format!("glacier_gateway_upstream_requests_total{{code=\"{code}\",attempt=\"{attempt}\"}}"))
    }
}

/// Scrapes until it `is_so`; `wanted` says what in words.
async fn until(gateway: &Gateway, wanted: &str, is_so: impl Fn(&Scrape) -> bool) -> Scrape {
    let seen = async {
        loop {
            let scrape = Scrape::of(gateway).await;
            if is_so(&scrape) {
                break scrape;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("{wanted}: not in time"))
}

fn close(found: f64, expected: f64) -> bool {
    (found - expected).abs() < 1e-9
}

/// A method that is added without its series fails here.
#[tokio::test]
async fn every_method_that_is_served_has_its_series_from_the_start() {
    let scrape = Scrape::of(&start().await).await;
    let mut methods = Vec::new();
    let sets: [&[u8]; 4] = [
        proto::DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    for set in sets {
        for service in DescriptorPool::decode(set).unwrap().services() {
            for method in service.methods() {
                let kind = match (method.is_client_streaming(), method.is_server_streaming()) {
                    (false, false) => "unary",
                    (false, true) => "server_stream",
                    (true, false) => "client_stream",
                    (true, true) => "bidi_stream",
                };
                let (service, method) = (service.full_name(), method.name());
                methods.push(format!(r#"grpc_type="{kind}",grpc_service="{service}",grpc_method="{method}""#));
            }
        }
    }
    assert!(methods.len() >= 5, "{methods:?}");
    methods.push(UNKNOWN.to_owned());
    for method in methods {
        scrape.is(&format!("grpc_server_started_total{{{method}}}"), 0);
        scrape.is(&format!("grpc_server_handling_seconds_count{{{method}}}"), 0);
        scrape.is(&format!("grpc_server_handling_seconds_bucket{{le=\"0.00001\",{method}}}"), 0);
        for code in CallCode::ALL {
            scrape.is(&format!("grpc_server_handled_total{{{method},grpc_code=\"{}\"}}", code.name()), 0);
        }
    }
    assert!(CacheOutcome::ALL.iter().all(|outcome| close(scrape.cache(*outcome), 0.0)));
    assert!(UpstreamCode::ALL.iter().all(|code| close(scrape.requests(*code, "retry"), 0.0)));
}

#[tokio::test]
async fn a_miss_and_then_hits_are_told_apart_and_one_request_reached_glacier() {
    let gateway = start().await;
    let job = gateway.add(EmulatedJob::archive(Tier::Bulk));
    for _ in 0..3 {
        gateway.ask(&job).await.unwrap();
    }
    let scrape = Scrape::of(&gateway).await;
    assert!(close(scrape.cache(CacheOutcome::Miss), 1.0) && close(scrape.cache(CacheOutcome::Hit), 2.0));
    scrape.handled(CallCode::Ok, 3);
    scrape.is(&format!("grpc_server_started_total{{{DESCRIBE}}}"), 3);
    scrape.is(&format!("grpc_server_handling_seconds_count{{{DESCRIBE}}}"), 3);
    assert!(scrape.value(&format!("grpc_server_handling_seconds_sum{{{DESCRIBE}}}")) > 0.0);
    scrape.is("glacier_gateway_answer_age_seconds_count", 3);
    assert!(close(scrape.requests(UpstreamCode::Ok, "first"), 1.0));
    scrape.is("glacier_gateway_upstream_request_duration_seconds_count", 1);
    scrape.is("glacier_gateway_cache_entries", 1);
    let weight = scrape.value("glacier_gateway_cache_weight_bytes");
    assert!(weight > 0.0 && weight < scrape.value("glacier_gateway_cache_capacity_bytes"), "{weight}");
    for name in [VAULT, &job, "123456789012"] {
        assert!(!scrape.0.body.contains(&format!("\"{name}\"")), "callers choose no series: {name}");
    }
}

#[tokio::test]
async fn joined_questions_are_counted_as_collapsed() {
    let gateway = start().await;
    let job = gateway.add(EmulatedJob::archive(Tier::Bulk));
    let hold = gateway.emulator.faults().hold();
    let (client, started) = (gateway.client.clone(), format!("grpc_server_started_total{{{DESCRIBE}}}"));
    let asking: Vec<_> = (0..20)
        .map(|_| {
            let (mut client, job) = (client.clone(), job.clone());
            tokio::spawn(async move { client.describe_job(question(&job)).await })
        })
        .collect();
    let all_ask = |scrape: &Scrape| {
        close(scrape.value(&started), 20.0) && close(scrape.value("glacier_gateway_upstream_in_flight"), 1.0)
    };
    let scrape = until(&gateway, "20 calls started, and one fetch", all_ask).await;
    scrape.handled(CallCode::Ok, 0);
    drop(hold);
    for asked in asking {
        asked.await.unwrap().unwrap();
    }
    let scrape = Scrape::of(&gateway).await;
    let (miss, collapsed) = (scrape.cache(CacheOutcome::Miss), scrape.cache(CacheOutcome::Collapsed));
    // The last to start may have come when the answer was there.
    assert!(close(miss, 1.0) && collapsed >= 1.0, "{miss} {collapsed}");
    assert!(close(miss + collapsed + scrape.cache(CacheOutcome::Hit), 20.0));
    scrape.is("glacier_gateway_upstream_in_flight", 0);
}

#[tokio::test]
async fn what_is_given_or_refused_while_glacier_fails_is_told_apart() {
    let gateway = start_with(|settings| {
        settings.glacier.retry.max_attempts = 1;
        settings.freshness.in_progress = Duration::from_millis(1);
        settings.freshness.cooldown = Duration::from_hours(1);
        settings.describe.stale_after = Duration::from_hours(1);
    })
    .await;
    let job = gateway.add(EmulatedJob::archive(Tier::Bulk));
    gateway.ask(&job).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    gateway.ask(&job).await.unwrap();
    assert!(close(Scrape::of(&gateway).await.cache(CacheOutcome::Stale), 1.0));

    tokio::time::sleep(Duration::from_millis(10)).await;
    gateway.emulator.faults().always(Fault::never());
    gateway.ask_with_timeout(&job, "300m").await.unwrap();
    assert!(close(Scrape::of(&gateway).await.cache(CacheOutcome::StaleAtDeadline), 1.0));

    gateway.emulator.faults().always(Fault::error(503, "ServiceUnavailableException"));
    // The fetch before may not have ended; then this one is collapsed into it, and stale all the same.
    gateway.ask(&job).await.unwrap();
    let other = gateway.refusal("other").await;
    assert_eq!(other.code, Code::Unavailable);
    gateway.refusal("other").await;
    let scrape = Scrape::of(&gateway).await;
    assert!(close(scrape.cache(CacheOutcome::StaleIfError), 1.0));
    assert!(close(scrape.cache(CacheOutcome::Miss), 2.0) && close(scrape.cache(CacheOutcome::Cooldown), 1.0));
    assert!(scrape.requests(UpstreamCode::Unavailable, "first") >= 1.0);
    scrape.handled(CallCode::Unavailable, 2);
    // Errors have no age.
    scrape.is("glacier_gateway_answer_age_seconds_count", 4);
}

#[tokio::test]
async fn an_answer_too_old_for_its_caller_is_counted_as_a_request() {
    let gateway = start_with(|settings| settings.freshness.max_age_floor = Duration::from_millis(1)).await;
    let job = gateway.add(EmulatedJob::archive(Tier::Bulk));
    gateway.ask(&job).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let mut insisting = question(&job);
    insisting.max_age = Some(prost_types::Duration { seconds: 0, nanos: 5_000_000 });
    // Whether or not the new one arrives young enough.
    let _ = gateway.call(Request::new(insisting)).await;
    assert!(close(Scrape::of(&gateway).await.cache(CacheOutcome::Request), 1.0));
}

#[tokio::test]
async fn calls_that_are_refused_time_out_or_are_left_are_counted() {
    let gateway = start().await;
    gateway.refusal("not/a/job").await;
    let _hold = gateway.emulator.faults().hold();
    assert_eq!(gateway.ask_with_timeout("job", "50m").await.unwrap_err().code(), Code::DeadlineExceeded);
    let left = {
        let mut client = gateway.client.clone();
        tokio::spawn(async move { client.describe_job(question("job")).await })
    };
    let started = format!("grpc_server_started_total{{{DESCRIBE}}}");
    until(&gateway, "the third call", |scrape| close(scrape.value(&started), 3.0)).await;
    left.abort();
    let canceled = format!("grpc_server_handled_total{{{DESCRIBE},grpc_code=\"Canceled\"}}");
    let scrape = until(&gateway, "a cancelled call", |scrape| close(scrape.value(&canceled), 1.0)).await;
    scrape.handled(CallCode::InvalidArgument, 1);
    scrape.handled(CallCode::DeadlineExceeded, 1);
    scrape.is(&format!("grpc_server_handling_seconds_count{{{DESCRIBE}}}"), 3);
}

#[tokio::test]
async fn a_call_of_no_method_is_counted_without_its_name() {
    let gateway = start().await;
    for path in ["/chosen.by.the.Caller/AtWill", "/glacier.jobs.v1.JobService/DeleteEverything"] {
        let mut client = Grpc::new(gateway.channel().await);
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckRequest>::default();
        let path = path.parse().unwrap();
        let request = Request::new(HealthCheckRequest::default());
        assert_eq!(client.unary(request, path, codec).await.unwrap_err().code(), Code::Unimplemented);
    }
    let scrape = Scrape::of(&gateway).await;
    scrape.is(&format!("grpc_server_started_total{{{UNKNOWN}}}"), 2);
    scrape.is(&format!("grpc_server_handled_total{{{UNKNOWN},grpc_code=\"Unimplemented\"}}"), 2);
    assert!(!scrape.0.body.contains("AtWill") && !scrape.0.body.contains("DeleteEverything"));
}

#[tokio::test]
async fn a_watch_is_handled_when_it_ends() {
    let gateway = start().await;
    let watch = r#"grpc_type="server_stream",grpc_service="grpc.health.v1.Health",grpc_method="Watch""#;
    let mut client = HealthClient::new(gateway.channel().await);
    let stream = client.watch(HealthCheckRequest::default()).await.unwrap();
    let scrape = Scrape::of(&gateway).await;
    scrape.is(&format!("grpc_server_started_total{{{watch}}}"), 1);
    scrape.is(&format!("grpc_server_handling_seconds_count{{{watch}}}"), 0);
    drop(stream);
    let canceled = format!("grpc_server_handled_total{{{watch},grpc_code=\"Canceled\"}}");
    until(&gateway, "the watch is over", |scrape| close(scrape.value(&canceled), 1.0)).await;
}

#[tokio::test]
async fn fetches_in_flight_waiting_and_shed_are_counted() {
    let gateway = start_with(|settings| {
        let limits = &mut settings.describe.limits;
        (limits.in_flight, limits.waiting, limits.max_wait) = (1, 1, Duration::from_hours(1));
    })
    .await;
    let hold = gateway.emulator.faults().hold();
    let ask = |job: &'static str| {
        let mut client = gateway.client.clone();
        tokio::spawn(async move { client.describe_job(question(job)).await })
    };
    let in_flight = "glacier_gateway_upstream_in_flight";
    let first = ask("first");
    until(&gateway, "one in flight", |scrape| close(scrape.value(in_flight), 1.0)).await;
    let second = ask("second");
    let waiting = "glacier_gateway_upstream_waiting";
    until(&gateway, "one waiting", |scrape| close(scrape.value(waiting), 1.0)).await;
    assert_eq!(gateway.refusal("third").await.reason(), "GATEWAY_OVERLOADED");
    let scrape = Scrape::of(&gateway).await;
    scrape.is("glacier_gateway_upstream_shed_total", 1);
    scrape.handled(CallCode::Unavailable, 1);
    drop(hold);
    for asked in [first, second] {
        assert_eq!(asked.await.unwrap().unwrap_err().code(), Code::NotFound);
    }
    let scrape = Scrape::of(&gateway).await;
    scrape.is(in_flight, 0);
    scrape.is(waiting, 0);
    assert!(close(scrape.requests(UpstreamCode::JobNotFound, "first"), 2.0));
}

#[tokio::test]
async fn fetches_held_back_by_throttling_are_counted() {
    let gateway = start_with(|settings| {
        settings.glacier.retry.max_attempts = 1;
        settings.describe.limits.max_wait = Duration::from_millis(10);
    })
    .await;
    Scrape::of(&gateway).await.is("glacier_gateway_upstream_rate_limit", 0);
    gateway.emulator.faults().always(Fault::throttled());
    for n in 0..40 {
        assert_eq!(gateway.refusal(&format!("job-{n}")).await.code, Code::ResourceExhausted);
    }
    let scrape = Scrape::of(&gateway).await;
    let (held_back, throttled) =
        (scrape.value("glacier_gateway_upstream_held_back_total"), scrape.requests(UpstreamCode::Throttled, "first"));
    assert!(throttled >= 2.0 && held_back >= 1.0 && close(held_back + throttled, 40.0), "{held_back} {throttled}");
    assert!(
        close(scrape.cache(CacheOutcome::HeldBack), held_back) && close(scrape.cache(CacheOutcome::Miss), throttled)
    );
    scrape.is("glacier_gateway_upstream_rate_limit", 1);
    scrape.handled(CallCode::ResourceExhausted, 40);
}

#[tokio::test]
async fn retries_are_told_from_first_requests_and_their_tokens_are_shown() {
    let gateway = start_with(|settings| settings.glacier.retry.max_attempts = 2).await;
    let tokens = "glacier_gateway_upstream_retry_tokens";
    Scrape::of(&gateway).await.is(tokens, 500);
    gateway.emulator.faults().times(2, Fault::error(503, "ServiceUnavailableException"));
    gateway.refusal("job").await;
    let scrape = Scrape::of(&gateway).await;
    assert!(close(scrape.requests(UpstreamCode::Unavailable, "first"), 1.0));
    assert!(close(scrape.requests(UpstreamCode::Unavailable, "retry"), 1.0));
    scrape.is(tokens, 486);
}

#[tokio::test]
async fn refreshes_that_nobody_waits_for_are_counted() {
    let gateway = start_with(|settings| settings.freshness.in_progress = Duration::from_millis(200)).await;
    let job = gateway.add(EmulatedJob::archive(Tier::Bulk));
    let refreshed = r#"glacier_gateway_refreshes_total{result="succeeded"}"#;
    let seen = async {
        while Scrape::of(&gateway).await.value(refreshed) < 1.0 {
            for _ in 0..10 {
                gateway.ask(&job).await.unwrap();
            }
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("a refresh in time");
}

#[tokio::test]
async fn connections_are_counted_while_they_are_open_and_refusals_for_ever() {
    let gateway = start_with(|settings| settings.server.max_connections = 2).await;
    let open = "glacier_gateway_connections";
    let second = gateway.one_connection().await;
    let scrape = until(&gateway, "two connections", |scrape| close(scrape.value(open), 2.0)).await;
    scrape.is("glacier_gateway_connections_accepted_total", 2);
    let _third = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    let refused = r#"glacier_gateway_connections_refused_total{reason="full"}"#;
    until(&gateway, "a refused connection", |scrape| close(scrape.value(refused), 1.0)).await;
    drop(second);
    let scrape = until(&gateway, "one connection", |scrape| close(scrape.value(open), 1.0)).await;
    scrape.is("glacier_gateway_connections_accepted_total", 2);
}

#[tokio::test]
async fn entries_that_leave_the_store_are_counted_by_why() {
    let gateway = start_with(|settings| {
        settings.cache.capacity_bytes = 16 * 1024;
        settings.freshness.not_found = Duration::from_millis(1);
    })
    .await;
    gateway.refusal("nowhere").await;
    let evicted = |cause| format!("glacier_gateway_cache_evictions_total{{cause=\"{cause}\"}}");
    until(&gateway, "it expires", |scrape| scrape.value(&evicted("expired")) >= 1.0).await;
    for _ in 0..50 {
        let job = gateway.add(EmulatedJob::archive(Tier::Bulk));
        gateway.ask(&job).await.unwrap();
    }
    let scrape = Scrape::of(&gateway).await;
    assert!(scrape.value(&evicted("capacity")) >= 1.0);
    assert!(scrape.value("glacier_gateway_cache_weight_bytes") <= 16.0 * 1024.0);
}

#[tokio::test]
async fn a_handler_that_panics_is_counted_as_internal() {
    let broken = Arc::new(AtomicBool::new(false));
    let clock = {
        let (broken, system) = (Arc::clone(&broken), Clock::system());
        Clock::with_wall(move || {
            assert!(!broken.load(Ordering::SeqCst), "on purpose");
            system.now().wall
        })
    };
    let settings = Settings::default();
    let known = &settings.credentials[0];
    let credentials = CredentialsHolder::fixed(&known.access_key_id, &known.secret_access_key, None);
    let change = |settings: &mut AppSettings| settings.admin_listen = Some("127.0.0.1:0".parse().unwrap());
    let gateway = Gateway::start_at(clock, settings, credentials, change).await;
    let [job, other] = [(); 2].map(|()| gateway.add(EmulatedJob::archive(Tier::Bulk)));
    gateway.ask(&job).await.unwrap();
    broken.store(true, Ordering::SeqCst);
    // What is not known is asked for, and the clock is read for that.
    assert_eq!(gateway.refusal(&other).await.reason(), "GATEWAY_INTERNAL");
    broken.store(false, Ordering::SeqCst);
    gateway.ask(&job).await.unwrap();
    let scrape = Scrape::of(&gateway).await;
    scrape.handled(CallCode::Internal, 1);
    scrape.handled(CallCode::Ok, 2);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_process_is_described_as_every_client_library_does() {
    let scrape = Scrape::of(&start().await).await;
    assert!(scrape.value("process_resident_memory_bytes") > 1024.0 * 1024.0);
    assert!(scrape.value("process_virtual_memory_bytes") >= scrape.value("process_resident_memory_bytes"));
    assert!(scrape.value("process_open_fds") >= 3.0);
    assert!(scrape.value("process_open_fds") <= scrape.value("process_max_fds"));
    assert!(scrape.value("process_threads") >= 1.0);
    assert!(scrape.value("process_cpu_seconds_total") >= 0.0);
    let now = Clock::system().now().wall.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let started = scrape.value("process_start_time_seconds");
    // The kernel's idea of when it booted is in whole seconds.
    assert!((now - 3600.0..now + 5.0).contains(&started), "{started} at {now}");
}

/// P7: stderr is a pipe that nobody reads.
#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_no_call_and_what_it_loses_is_counted() {
    let upstream = Gateway::start().await;
    let job = upstream.add(EmulatedJob::archive(Tier::Bulk));
    let endpoint = upstream.emulator.endpoint();
    // Of hits, all lines that the operator asks for are logged.
    let arguments = ["--region", "us-east-1", "--endpoint-url", &endpoint, "--lame-duck", "0s", "--log-hits", "1"];
    let served = Served::start(&arguments).await;
    let client = served.client().await;
    let (mut calls, dropped) = (0, "glacier_gateway_log_events_dropped_total");
    let ask = async |calls: u32| {
        let asked = (0..calls).map(|_| {
            let (mut client, question) = (client.clone(), question(&job));
            tokio::spawn(async move { client.describe_job(question).await })
        });
        for asked in asked.collect::<Vec<_>>() {
            let answer = tokio::time::timeout(PATIENCE, asked).await.expect("an answer in time").unwrap();
            assert!(answer.is_ok(), "{answer:?}");
        }
    };
    let lost = async {
        while Scrape::at(&served.admin_address).await.value(dropped) < 1.0 {
            ask(500).await;
            calls += 500;
        }
    };
    tokio::time::timeout(3 * PATIENCE, lost).await.expect("the pipe and the queue are full at last");
    let before = Scrape::at(&served.admin_address).await.value(dropped);
    ask(100).await;
    let scrape = Scrape::at(&served.admin_address).await;
    scrape.handled(CallCode::Ok, calls + 100);
    // A shorter line than the first that was lost may still have found room.
    let lost = scrape.value(dropped) - before;
    assert!((90.0..=100.0).contains(&lost), "{lost} of those 100 were lost");
    served.signal("TERM").await;
    assert_eq!(served.exit_code().await, Some(0), "nor does it hold up the end");
}

/// The names that the page for operators explains are those that there are.
#[test]
fn the_operators_page_explains_every_metric_and_no_other() {
    let metrics = Metrics::new();
    metrics.credentials().loaded("environment", Some(UNIX_EPOCH));
    metrics.tls().serving_until(UNIX_EPOCH, Some(UNIX_EPOCH));
    let told = metrics.encode(Exposition::Classic).unwrap();
    let families = told.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let exposed: BTreeSet<_> = families.collect();
    assert!(exposed.len() > 30, "{exposed:?}");

    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/README.md")).unwrap();
    let (_, rest) = page.split_once("\n## Metrics\n").expect("a section on metrics");
    let section = rest.split("\n## ").next().unwrap();
    let explained: BTreeSet<_> =
        section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |")).map(|(name, _)| name).collect();
    assert_eq!(explained, exposed);
}
