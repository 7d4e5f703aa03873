//! What every call gets, and what clumsy callers get: metadata, deadlines, wrong methods, oversized messages, panics.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use glacier_gateway::{
    clock::Clock,
    emulator::{EmulatedJob, Fault, Settings, Tier},
    glacier::CredentialsHolder,
    proto::v1::{DescribeJobRequest, DescribeJobResponse},
};
use http::uri::PathAndQuery;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::support::gateway::{Gateway, PATIENCE, Refusal, cache_status, header, question};

fn finished() -> EmulatedJob {
    EmulatedJob::archive(Tier::Standard).already_completed(Duration::from_hours(1))
}

fn running() -> EmulatedJob {
    EmulatedJob::archive(Tier::Bulk)
}

#[tokio::test]
async fn a_miss_then_a_hit_say_so_and_how_old_they_are() {
    let gateway = Gateway::start().await;
    let job = gateway.add(running());
    let miss = gateway.ask(&job).await.unwrap();
    assert_eq!((cache_status(miss.metadata()), header(miss.metadata(), "age")), ("fwd=miss; stored", "0"));
    let hit = gateway.ask(&job).await.unwrap();
    let ttl: u64 = cache_status(hit.metadata()).strip_prefix("hit; ttl=").unwrap().parse().unwrap();
    assert!((25..=33).contains(&ttl), "30 s, give or take a tenth: {ttl}");
    assert_eq!(hit.get_ref(), miss.get_ref());
    assert_eq!(gateway.emulator.request_count(), 1);
}

#[tokio::test]
async fn an_answer_says_when_it_was_observed() {
    let gateway = Gateway::start().await;
    let job = gateway.add(finished());
    let before = Clock::system().now().wall;
    let response = gateway.ask(&job).await.unwrap().into_inner();
    let observed = SystemTime::try_from(response.observe_time.unwrap()).unwrap();
    assert!(before <= observed && observed <= Clock::system().now().wall);
    let completion = SystemTime::try_from(response.job.unwrap().completion_date.unwrap()).unwrap();
    assert_eq!(response.expire_time, Some((completion + Duration::from_hours(24)).into()));

    let job = gateway.add(running());
    assert_eq!(gateway.ask(&job).await.unwrap().into_inner().expire_time, None);
}

/// U2 over the wire: 40 seconds past its freshness is a matter of settings here.
#[tokio::test]
async fn something_stale_says_so() {
    let gateway = Gateway::start_with(|settings| settings.freshness.in_progress = Duration::from_nanos(1)).await;
    let job = gateway.add(running());
    let fresh = gateway.ask(&job).await.unwrap();
    gateway.emulator.faults().always(Fault::html(503));
    let stale = gateway.ask(&job).await.unwrap();
    assert_eq!(cache_status(stale.metadata()), "hit; ttl=-0; detail=stale-if-error");
    assert_eq!(stale.get_ref(), fresh.get_ref());
}

/// K1 over the wire: a collapsed miss.
#[tokio::test]
async fn callers_who_come_together_share_one_fetch() {
    let gateway = Gateway::start().await;
    let job = gateway.add(running());
    let hold = gateway.emulator.faults().hold();
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let (mut client, question) = (gateway.client.clone(), question(&job));
            tokio::spawn(async move { client.describe_job(question).await })
        })
        .collect();
    gateway.emulator.wait_for_requests(1).await;
    hold.release();
    let mut statuses = Vec::new();
    for caller in callers {
        let answer = caller.await.unwrap().unwrap();
        statuses.push(cache_status(answer.metadata()).to_owned());
    }
    assert_eq!(statuses.iter().filter(|status| *status == "fwd=miss; stored").count(), 1, "{statuses:?}");
    // Whoever was slow to arrive found it in memory.
    let others = statuses.iter().filter(|s| *s == "fwd=miss; collapsed; stored" || s.starts_with("hit; ttl="));
    assert_eq!(others.count(), 19, "{statuses:?}");
    assert_eq!(gateway.emulator.request_count(), 1);
}

#[tokio::test]
async fn a_request_id_is_repeated_if_it_is_a_decent_one() {
    let gateway = Gateway::start().await;
    let job = gateway.add(finished());
    let longest = "x".repeat(64);
    for id in ["a", "A.b_c-9", longest.as_str()] {
        let mut request = Request::new(question(&job));
        request.metadata_mut().insert("x-request-id", id.parse().unwrap());
        let answer = gateway.call(request).await.unwrap();
        assert_eq!(header(answer.metadata(), "x-request-id"), id);
        // On errors too.
        let mut request = Request::new(question("no/job"));
        request.metadata_mut().insert("x-request-id", id.parse().unwrap());
        let refusal = Refusal::of(gateway.call(request).await);
        assert_eq!(header(refusal.status.metadata(), "x-request-id"), id);
    }
    let too_long = "x".repeat(65);
    let mut seen = Vec::new();
    for id in ["", "a b", "a;b", "ä", too_long.as_str()] {
        let mut request = Request::new(question(&job));
        let value = tonic::metadata::MetadataValue::try_from(id.as_bytes()).unwrap();
        request.metadata_mut().insert("x-request-id", value);
        let answer = gateway.call(request).await.unwrap();
        let given = header(answer.metadata(), "x-request-id").to_owned();
        assert!(given != id && given.len() == 32, "{given}");
        assert!(!seen.contains(&given), "every call has its own");
        seen.push(given);
    }
}

/// D4.
#[tokio::test]
async fn a_malformed_timeout_is_refused_and_none_at_all_is_exceeded() {
    let gateway = Gateway::start().await;
    let job = gateway.add(finished());
    for (timeout, code, reason) in [
        ("-1S", Code::InvalidArgument, "INVALID_REQUEST"),
        ("123456789S", Code::InvalidArgument, "INVALID_REQUEST"),
        ("5x", Code::InvalidArgument, "INVALID_REQUEST"),
        ("0n", Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
    ] {
        let refusal = Refusal::of(gateway.ask_with_timeout(&job, timeout).await);
        assert_eq!((refusal.code, refusal.reason()), (code, reason), "{timeout}");
    }
    assert_eq!(gateway.emulator.request_count(), 0);
    gateway.ask_with_timeout(&job, "99999999H").await.unwrap();
}

/// The caller sets no deadline; ours ends the call.
#[tokio::test]
async fn no_call_takes_longer_than_the_gateways_own_limit() {
    let gateway = Gateway::start_with(|settings| settings.grpc.max_call_duration = Duration::from_millis(50)).await;
    let job = gateway.add(finished());
    gateway.emulator.faults().always(Fault::never());
    let refusal = gateway.refusal(&job).await;
    assert_eq!((refusal.code, refusal.reason()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
}

/// D2.
#[tokio::test]
async fn an_oversized_message_is_refused_and_the_connection_lives() {
    let gateway = Gateway::start().await;
    let job = gateway.add(finished());
    let mut connection = gateway.one_connection().await;
    let request = DescribeJobRequest { job_id: "j".repeat(5 * 1024 * 1024), ..question("") };
    let refusal = Refusal::of(connection.describe_job(request).await);
    assert_eq!((refusal.code, refusal.reason()), (Code::ResourceExhausted, "REQUEST_TOO_LARGE"));
    connection.describe_job(question(&job)).await.unwrap();
    assert_eq!(gateway.emulator.request_count(), 1);
}

/// D1.
#[tokio::test]
async fn oversized_metadata_is_refused_and_the_connection_lives() {
    let gateway = Gateway::start().await;
    let job = gateway.add(finished());
    let mut connection = gateway.one_connection().await;
    let mut request = Request::new(question(&job));
    request.metadata_mut().insert("x-large", "x".repeat(17 * 1024).parse().unwrap());
    let status = connection.describe_job(request).await.unwrap_err();
    // h2 answers 431, which gRPC clients read as INTERNAL or UNKNOWN, or resets the stream.
    assert!(matches!(status.code(), Code::Internal | Code::Unknown), "{status:?}");
    connection.describe_job(question(&job)).await.unwrap();
    assert_eq!(gateway.emulator.request_count(), 1);
}

#[tokio::test]
async fn a_message_that_is_none_of_ours_is_the_callers_fault() {
    let gateway = Gateway::start().await;
    // Field 2, length-delimited, five bytes announced, one there; a whole message, but no request; and no message at all.
    for frame in [&[0, 0, 0, 0, 3, 0x12, 5, b'v'][..], &[0, 0, 0, 0, 2, 0xff, 0xff], &[]] {
        let body = Full::new(Bytes::copy_from_slice(frame));
        let response = gateway.raw(&[("content-type", "application/grpc")], body).await;
        let status = Status::from_header_map(response.headers()).unwrap();
        let refusal = Refusal::of(Err::<(), _>(status));
        assert_eq!((refusal.code, refusal.reason()), (Code::InvalidArgument, "INVALID_REQUEST"), "{frame:?}");
    }
}

/// The deadline covers the receiving of the request as well.
#[tokio::test]
async fn a_caller_who_never_finishes_sending_is_answered_at_the_deadline() {
    let gateway = Gateway::start().await;
    let headers = [("content-type", "application/grpc"), ("grpc-timeout", "50m")];
    let never = StreamBody::new(tokio_stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>());
    let response = gateway.raw(&headers, never).await;
    let refusal = Refusal::of(Err::<(), _>(Status::from_header_map(response.headers()).unwrap()));
    assert_eq!((refusal.code, refusal.reason()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
}

/// Nor are those kept who do not finish asking the standard services, nor conversations that never end.
#[tokio::test]
async fn calls_of_the_standard_services_end_in_time_as_well() {
    let gateway = Gateway::start_with(|settings| settings.grpc.max_call_duration = Duration::from_millis(50)).await;
    let headers = [("content-type", "application/grpc")];
    let never = || StreamBody::new(tokio_stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>());
    for path in ["Check", "Watch"].map(|method| format!("grpc.health.v1.Health/{method}")) {
        let response = gateway.raw_to(&path, "POST", &headers, never()).await;
        assert_eq!(Status::from_header_map(response.headers()).unwrap().code(), Code::DeadlineExceeded, "{path}");
    }
    for version in ["v1", "v1alpha"] {
        let path = format!("grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let response = gateway.raw_to(&path, "POST", &headers, never()).await;
        let answered = tokio::time::timeout(PATIENCE, response.into_body().collect()).await.unwrap().unwrap();
        let status = Status::from_header_map(answered.trailers().unwrap()).unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{path}");
    }
}

/// D3.
#[tokio::test]
async fn unknown_methods_and_services_are_unimplemented() {
    let gateway = Gateway::start().await;
    for path in ["/glacier.jobs.v1.JobService/InitiateJob", "/glacier.jobs.v1.Other/DescribeJob", "/x"] {
        let mut grpc = tonic::client::Grpc::new(gateway.channel().await);
        grpc.ready().await.unwrap();
        let codec: ProstCodec<DescribeJobRequest, DescribeJobResponse> = ProstCodec::default();
        let outcome = grpc.unary(Request::new(question("job")), PathAndQuery::from_static(path), codec).await;
        let refusal = Refusal::of(outcome);
        assert_eq!((refusal.code, refusal.reason()), (Code::Unimplemented, "UNIMPLEMENTED"), "{path}");
        assert!(refusal.status.metadata().contains_key("x-request-id"));
    }
}

/// D3.
#[tokio::test]
async fn what_is_not_a_grpc_call_gets_an_http_answer() {
    let gateway = Gateway::start().await;
    let status = async |method: &str, content_type: &str| {
        let headers = [("content-type", content_type)];
        gateway.raw_as(method, &headers, Empty::<Bytes>::new()).await.status().as_u16()
    };
    assert_eq!(status("GET", "application/grpc").await, 405);
    for not_grpc in ["application/json", "application/grpc-web", "application/grpcx", ""] {
        assert_eq!(status("POST", not_grpc).await, 415, "{not_grpc}");
    }
    for grpc in ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"] {
        assert_eq!(status("POST", grpc).await, 200, "{grpc}");
    }
}

/// D3.
#[tokio::test]
async fn http_1_is_turned_away() {
    let gateway = Gateway::start().await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    // Closed with or without a reset: some of what was sent may not have been read.
    assert!(closed.is_err() || answer.is_empty(), "{answer:?}");
}

/// D17, and the row of the error table: a bug is INTERNAL, and the connection lives on.
#[tokio::test]
async fn a_panic_is_internal_and_the_connection_lives() {
    // Of the readings of the wall clock from now on, this many succeed.
    let left = Arc::new(AtomicU64::new(u64::MAX));
    let readings = Arc::clone(&left);
    let clock = Clock::with_wall(move || {
        if readings.fetch_sub(1, Ordering::SeqCst) == 0 {
            std::panic::resume_unwind(Box::new("scripted"));
        }
        Clock::system().now().wall
    });
    let settings = Settings::default();
    let known = &settings.credentials[0];
    let credentials = CredentialsHolder::fixed(&known.access_key_id, &known.secret_access_key, None);
    let gateway = Gateway::start_at(clock, settings, credentials, |_| {}).await;
    let mut connection = gateway.one_connection().await;
    // In the handler first, then at one place after the other in the fetch.
    let mut panics = 0;
    loop {
        let job = gateway.add(finished());
        left.store(panics, Ordering::SeqCst);
        let answer = connection.describe_job(question(&job)).await;
        if left.load(Ordering::SeqCst) < 1000 {
            answer.unwrap();
            break;
        }
        let refusal = Refusal::of(answer);
        assert_eq!((refusal.code, refusal.reason()), (Code::Internal, "GATEWAY_INTERNAL"), "at reading {panics}");
        panics += 1;
    }
    assert!(panics > 3, "{panics}");
}
