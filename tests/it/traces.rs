//! Spans, as a collector gets them from the whole process.

use std::{collections::BTreeMap, time::Duration};

use glacier_gateway::{
    emulator::{EmulatedJob, Fault, Tier},
    proto::v1::DescribeJobResponse,
};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::support::{
    collector::{Collector, Seen},
    gateway::{Gateway, PATIENCE, VAULT, channel, question},
    page::Page,
    process::{Served, command},
    relay::Relay,
    tls::{Authority, TlsFront},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const CALL: &str = "glacier.jobs.v1.JobService/DescribeJob";
const REQUEST: &str = "GET /{accountId}/vaults/{vaultName}/jobs/{jobId}";
/// Nothing is sent before the end, so that what arrives was sent by the end.
const NOT_BEFORE_THE_END: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "3600000");

/// A gateway that reports to a collector, and its upstream.
struct Traced {
    upstream: Gateway,
    served: Served,
}

impl Traced {
    async fn start(collector: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Self {
        let upstream = Gateway::start().await;
        let endpoint = upstream.emulator.endpoint();
        let fixed = ["--region", "us-east-1", "--endpoint-url", &endpoint];
        let quick = if arguments.contains(&"--lame-duck") { &[][..] } else { &["--lame-duck", "0s"] };
        let arguments = [&fixed, quick, arguments].concat();
        let served = Served::start_in(&arguments, |command| {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector).envs(environment.iter().copied());
        })
        .await;
        Self { upstream, served }
    }

    async fn ask(&self, job: &str) -> Result<Response<DescribeJobResponse>, Status> {
        self.ask_with(job, &[]).await
    }

    async fn ask_with(
        &self,
        job: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Response<DescribeJobResponse>, Status> {
        let mut request = Request::new(question(job));
        for (name, value) in headers {
            request.metadata_mut().append(*name, value.parse().unwrap());
        }
        let mut client = self.served.client().await;
        tokio::time::timeout(PATIENCE, client.describe_job(request)).await.expect("an answer in time")
    }

    fn add_completed(&self) -> String {
        self.upstream.add(EmulatedJob::archive(Tier::Standard).already_completed(Duration::from_hours(1)))
    }

    /// Tells it to end, which it must do well.
    async fn end(self) {
        self.served.signal("TERM").await;
        assert_eq!(self.served.exit_code().await, Some(0));
    }

    async fn metric(&self, series: &str) -> u64 {
        let page = Page::get(&self.served.admin_address, "/metrics").await;
        let value = page.body.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{series} is missing in {}", page.body)).parse().unwrap()
    }

    /// Waits until a counter has come so far.
    async fn wait_for_metric(&self, series: &str, least: u64) {
        let reached = async {
            while self.metric(series).await < least {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{series} is not {least} in time"));
    }
}

/// The spans of this kind.
fn of_kind(spans: &[Seen], kind: SpanKind) -> Vec<&Seen> {
    spans.iter().filter(|span| span.kind == kind).collect()
}

#[tokio::test]
async fn a_call_is_a_part_of_its_callers_trace_and_its_request_a_part_of_the_call() {
    let collector = Collector::start().await;
    // At this level, whatever happens, no secret is logged: each line is looked at.
    let environment = [
        NOT_BEFORE_THE_END,
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20marked"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod"),
    ];
    let mut traced = Traced::start(&collector.url(), &environment, &["--log", "trace"]).await;
    let job = traced.add_completed();
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let headers = [("traceparent", parent.as_str()), ("tracestate", "vendor=value"), ("baggage", "user=someone")];
    traced.ask_with(&job, &headers).await.unwrap();
    let logged = traced.served.wait_for("call").await;
    assert_eq!(logged["trace_id"], TRACE);

    // None of it travels on, and no signature is touched by it.
    let asked = traced.upstream.emulator.requests();
    assert_eq!(asked.len(), 1);
    for name in ["traceparent", "tracestate", "baggage"] {
        assert!(!asked[0].headers.contains_key(name), "{:?}", asked[0].headers);
    }
    let glacier = traced.upstream.emulator.address();
    let gateway = traced.served.address.clone();
    traced.served.signal("TERM").await;
    traced.served.wait_for("stopped").await;
    assert_eq!(traced.served.exit_code().await, Some(0));

    let spans = collector.spans();
    let [call, request] = &spans[..] else { panic!("{spans:#?}") };
    assert_eq!((call.trace.as_str(), call.parent.as_str(), call.state.as_str()), (TRACE, CALLER, "vendor=value"));
    assert_eq!((call.name.as_str(), call.kind, call.failed), (CALL, SpanKind::Server, false));
    let (host, port) = gateway.rsplit_once(':').unwrap();
    let mut attributes = call.attributes.clone();
    assert_ne!(attributes.remove("client.port").unwrap(), port);
    let key = format!("-/{VAULT}/{job}");
    let expected = [
        ("client.address", "127.0.0.1"),
        ("glacier_gateway.cache", "miss"),
        ("glacier_gateway.job", &key),
        ("rpc.method", CALL),
        ("rpc.status_code", "OK"),
        ("rpc.system.name", "grpc"),
        ("server.address", host),
        ("server.port", port),
    ];
    assert_eq!(attributes, owned(&expected));

    assert_eq!((request.trace.as_str(), &request.parent), (TRACE, &call.id));
    assert_eq!((request.name.as_str(), request.kind, request.failed), (REQUEST, SpanKind::Client, false));
    assert!(call.began <= request.began && request.began < request.ended && request.ended <= call.ended);
    let mut attributes = request.attributes.clone();
    assert!(attributes.remove("aws.request_id").is_some_and(|id| !id.is_empty()));
    let (url, port) = (format!("http://{glacier}/-/vaults/{VAULT}/jobs/{job}"), glacier.port().to_string());
    let expected = [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("server.address", "127.0.0.1"),
        ("server.port", &port),
        ("url.full", &url),
        ("url.template", "/{accountId}/vaults/{vaultName}/jobs/{jobId}"),
    ];
    assert_eq!(attributes, owned(&expected));

    assert_eq!(collector.headers().get("authorization").unwrap(), "Bearer marked");
    let resource = collector.resource();
    assert_eq!((&*resource["service.name"], &*resource["deployment.environment.name"]), ("glacier-gateway", "prod"));
}

fn owned(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn who_does_not_record_is_not_recorded_and_who_says_nothing_legal_begins_a_trace() {
    let collector = Collector::start().await;
    let mut traced = Traced::start(&collector.url(), &[NOT_BEFORE_THE_END], &["--log-hits", "1"]).await;
    let job = traced.add_completed();
    let unsampled = format!("00-{TRACE}-{CALLER}-00");
    traced.ask_with(&job, &[("traceparent", &unsampled)]).await.unwrap();
    assert!(traced.served.wait_for("call").await.get("trace_id").is_none());
    traced.ask(&job).await.unwrap();
    let logged = traced.served.wait_for("call").await;
    let (upper, twice) = (format!("00-{}-{CALLER}-01", TRACE.to_uppercase()), format!("00-{TRACE}-{CALLER}-01"));
    traced.ask_with(&job, &[("traceparent", &upper)]).await.unwrap();
    traced.ask_with(&job, &[("traceparent", &twice), ("traceparent", &twice)]).await.unwrap();
    // Probes are noise.
    let mut health = HealthClient::new(channel(traced.served.address.parse().unwrap()).await);
    health.check(HealthCheckRequest::default()).await.unwrap();
    traced.end().await;

    // The first call fetched, so no request was recorded for anybody.
    let spans = collector.spans();
    assert_eq!(spans.len(), 3, "{spans:#?}");
    assert_eq!(logged["trace_id"].as_str(), Some(&*spans[0].trace));
    for span in &spans {
        assert_eq!((span.name.as_str(), span.parent.as_str()), (CALL, ""));
        assert_eq!(span.attribute("glacier_gateway.cache"), "hit");
        assert!(span.trace != TRACE && span.trace.len() == 32, "{span:?}");
    }
}

#[tokio::test]
async fn each_attempt_of_a_fetch_is_a_span_below_the_same_call() {
    let collector = Collector::start().await;
    let traced = Traced::start(&collector.url(), &[NOT_BEFORE_THE_END], &[]).await;
    let job = traced.add_completed();
    traced.upstream.emulator.faults().next(Fault::error(500, "ServiceUnavailableException"));
    traced.ask(&job).await.unwrap();
    assert_eq!(traced.ask("unknown").await.unwrap_err().code(), Code::NotFound);
    traced.upstream.emulator.faults().always(Fault::close());
    assert_eq!(traced.ask("unreachable").await.unwrap_err().code(), Code::Unavailable);
    traced.end().await;

    let spans = collector.spans();
    let calls = of_kind(&spans, SpanKind::Server);
    let names = ["http.response.status_code", "error.type", "http.request.resend_count"];
    let requests_of = |call: &Seen| -> Vec<_> {
        let below = spans.iter().filter(|span| span.parent == call.id);
        below.map(|span| names.map(|name| span.attribute(name))).collect()
    };
    assert_eq!(requests_of(calls[0]), [["500", "unavailable", ""], ["200", "", "1"]]);
    assert!(!calls[0].failed, "the caller got its answer");
    assert_eq!(requests_of(calls[1]), [["404", "job_not_found", ""]]);
    assert!(!calls[1].failed, "not the server's fault");
    assert_eq!(calls[1].attribute("rpc.status_code"), "NOT_FOUND");
    let unreachable = requests_of(calls[2]);
    assert!(unreachable.len() > 1 && unreachable.iter().all(|a| a[..2] == ["", "unavailable"]), "{unreachable:?}");
    assert!(calls[2].failed);
    assert_eq!(["rpc.status_code", "error.type"].map(|name| calls[2].attribute(name)), ["UNAVAILABLE"; 2]);
    for request in of_kind(&spans, SpanKind::Client) {
        assert_eq!(request.failed, request.attributes.contains_key("error.type"), "{request:?}");
    }
}

#[tokio::test]
async fn of_callers_who_share_a_fetch_one_has_its_request_below_it() {
    let collector = Collector::start().await;
    let traced = Traced::start(&collector.url(), &[NOT_BEFORE_THE_END], &[]).await;
    let job = traced.add_completed();
    let held = traced.upstream.emulator.faults().hold();
    let release = async {
        traced.upstream.emulator.wait_for_requests(1).await;
        let series = r#"grpc_server_started_total{grpc_type="unary",grpc_service="glacier.jobs.v1.JobService",grpc_method="DescribeJob"}"#;
        traced.wait_for_metric(series, 10).await;
        held.release();
    };
    let asking = futures_util::future::join_all((0..10).map(|_| traced.ask(&job)));
    let (answers, ()) = tokio::join!(asking, release);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    traced.end().await;

    let spans = collector.spans();
    let (calls, requests) = (of_kind(&spans, SpanKind::Server), of_kind(&spans, SpanKind::Client));
    assert_eq!((calls.len(), requests.len()), (10, 1), "{spans:#?}");
    for call in calls {
        let cache = call.attribute("glacier_gateway.cache");
        let expected: &[_] = if call.id == requests[0].parent { &["miss"] } else { &["collapsed", "hit"] };
        assert!(expected.contains(&cache), "{cache}");
    }
}

#[tokio::test]
async fn who_goes_away_has_a_span_too() {
    let collector = Collector::start().await;
    let traced = Traced::start(&collector.url(), &[NOT_BEFORE_THE_END], &[]).await;
    let job = traced.add_completed();
    let held = traced.upstream.emulator.faults().hold();
    tokio::select! {
        answer = traced.ask(&job) => panic!("{answer:?}"),
        () = async { traced.upstream.emulator.wait_for_requests(1).await; } => {}
    }
    let canceled = r#"grpc_server_handled_total{grpc_type="unary",grpc_service="glacier.jobs.v1.JobService",grpc_method="DescribeJob",grpc_code="Canceled"}"#;
    traced.wait_for_metric(canceled, 1).await;
    held.release();
    let answered = r#"glacier_gateway_upstream_requests_total{code="ok",attempt="first"}"#;
    traced.wait_for_metric(answered, 1).await;
    traced.end().await;
    let spans = collector.spans();
    let [call, request] = &spans[..] else { panic!("{spans:#?}") };
    assert_eq!((call.attribute("rpc.status_code"), call.failed), ("CANCELLED", false));
    // The fetch went on without it.
    assert_eq!((&request.parent, request.attribute("http.response.status_code")), (&call.id, "200"));
    assert!(request.ended > call.ended);
}

#[tokio::test]
async fn a_collector_that_never_answers_holds_up_neither_calls_nor_the_end() {
    let collector = Collector::start_silent().await;
    // One span is under way, one waits, and there is no place for more.
    let queue = [("OTEL_BSP_MAX_QUEUE_SIZE", "1"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "3600000")];
    let mut traced = Traced::start(&collector.url(), &queue, &[]).await;
    let job = traced.add_completed();
    traced.ask(&job).await.unwrap();
    collector.wait_for_exports(1).await;
    for _ in 0..20 {
        traced.ask(&job).await.unwrap();
    }
    let fates =
        ["exported", "failed", "dropped"].map(|f| format!("glacier_gateway_trace_spans_total{{result=\"{f}\"}}"));
    // Twenty-one calls and a request: one is with the collector, at most one waits.
    traced.wait_for_metric(&fates[2], 20).await;
    assert_eq!((traced.metric(&fates[0]).await, traced.metric(&fates[1]).await), (0, 0));
    traced.served.signal("TERM").await;
    traced.served.wait_for("the last spans may not have been delivered").await;
    traced.served.wait_for("stopped").await;
    assert_eq!(traced.served.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_second_signal_does_not_wait_for_the_collector() {
    for lame_duck in ["0s", "1h"] {
        let collector = Collector::start_silent().await;
        let environment = [("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "3600000")];
        let mut traced = Traced::start(&collector.url(), &environment, &["--lame-duck", lame_duck]).await;
        let job = traced.add_completed();
        traced.ask(&job).await.unwrap();
        // It has the first spans, and is to have the last.
        collector.wait_for_exports(1).await;
        traced.ask(&job).await.unwrap();
        traced.served.signal("TERM").await;
        let next = if lame_duck == "0s" { "draining" } else { "told to stop; not ready any more, still accepting" };
        traced.served.wait_for(next).await;
        let at_once = Instant::now();
        traced.served.signal("TERM").await;
        let last = traced.served.wait_where("the last words", |words| !words.contains("drain")).await;
        assert_eq!(last["message"], "a second signal: exiting at once");
        assert_eq!(traced.served.exit_code().await, Some(143));
        // The SDK by itself would wait for 5 s.
        assert!(at_once.elapsed() < Duration::from_secs(4), "{:?}", at_once.elapsed());
    }
}

#[tokio::test]
async fn an_outage_of_the_collector_is_told_once_and_its_end_too() {
    let collector = Collector::start().await;
    let mut relay = Relay::before(collector.address);
    relay.cut().await;
    let batches = [("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")];
    let mut traced = Traced::start(&format!("http://{}", relay.address()), &batches, &[]).await;
    let job = traced.add_completed();
    traced.ask(&job).await.unwrap();
    traced.served.wait_for("spans cannot be delivered").await;
    traced.ask(&job).await.unwrap();
    traced.wait_for_metric(r#"glacier_gateway_trace_spans_total{result="failed"}"#, 3).await;

    relay.restore().await;
    traced.ask(&job).await.unwrap();
    collector.wait_for_exports(1).await;
    let next = traced.served.wait_where("the end", |words| words.starts_with("spans ")).await;
    assert_eq!(next["message"], "spans are delivered again");
    traced.wait_for_metric(r#"glacier_gateway_trace_spans_total{result="exported"}"#, 1).await;
}

#[tokio::test]
async fn a_collector_behind_tls_must_show_a_certificate_of_the_authority_that_is_named() {
    let (collector, authority) = (Collector::start().await, Authority::new("of the collector"));
    let mut config = authority.issue("localhost");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let front = TlsFront::start(config, collector.address).await;
    let url = format!("https://localhost:{}", front.port);
    let trusted = authority.file().to_str().unwrap();
    let certificate = ("OTEL_EXPORTER_OTLP_CERTIFICATE", trusted);
    let environment = [NOT_BEFORE_THE_END, certificate, ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")];
    let traced = Traced::start(&url, &environment, &[]).await;
    let job = traced.add_completed();
    traced.ask(&job).await.unwrap();
    traced.end().await;
    assert_eq!(collector.spans().len(), 2);
    assert_eq!(collector.headers().get("grpc-encoding").unwrap(), "gzip");

    let other = Authority::new("of somebody else");
    let environment = [("OTEL_EXPORTER_OTLP_CERTIFICATE", other.file().to_str().unwrap())];
    let mut traced =
        Traced::start(&url, &[&environment[..], &[("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")]].concat(), &[]).await;
    let job = traced.add_completed();
    traced.ask(&job).await.unwrap();
    traced.served.wait_for("spans cannot be delivered").await;
    assert_eq!(collector.spans().len(), 2);
}

#[tokio::test]
async fn nothing_is_exported_unless_the_environment_asks_for_it() {
    let collector = Collector::start().await;
    for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none"), ("OTEL_TRACES_SAMPLER", "always_off")]
    {
        let traced = Traced::start(&collector.url(), &[off, NOT_BEFORE_THE_END], &[]).await;
        let job = traced.add_completed();
        traced.ask_with(&job, &[("traceparent", &format!("00-{TRACE}-{CALLER}-01"))]).await.unwrap();
        traced.end().await;
        assert!(collector.spans().is_empty(), "{off:?}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_otel_variables_is_told_with_all_else_and_exits_with_2() {
    let mut serve = command(&["serve", "--listen", "x", "--region", "us-east-1", "--check-config"]);
    serve.envs([
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://user:marked@collector"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "marked"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
    ]);
    let output = tokio::time::timeout(PATIENCE, serve.output()).await.unwrap().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    for problem in [
        "--listen: must be",
        "OTEL_EXPORTER_OTLP_ENDPOINT: must be http://HOST:PORT",
        "OTEL_EXPORTER_OTLP_PROTOCOL: must be grpc",
        "OTEL_EXPORTER_OTLP_HEADERS: number 1",
        "OTEL_TRACES_SAMPLER: must be always_on or always_off or",
    ] {
        assert!(told.contains(problem), "{problem} is missing in {told}");
    }
    assert!(!told.contains("marked"), "{told}");
}
