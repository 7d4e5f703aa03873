//! Health, reflection and the end: what balancers, probes and `grpcurl` see, and that stopping is bounded.

use std::time::Duration;

use glacier_gateway::{
    emulator::{EmulatedJob, Settings, Tier},
    glacier::CredentialsHolder,
    server::Drained,
};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_stream::StreamExt as _;
use tonic::{Code, Streaming, body::Body};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::{
    v1::{self, server_reflection_request::MessageRequest, server_reflection_response::MessageResponse},
    v1alpha,
};

use crate::support::gateway::{Gateway, PATIENCE, Refusal, question};

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

async fn watch(gateway: &Gateway, service: &str) -> Streaming<HealthCheckResponse> {
    HealthClient::new(gateway.channel().await).watch(about(service)).await.unwrap().into_inner()
}

async fn next(stream: &mut Streaming<HealthCheckResponse>) -> Option<ServingStatus> {
    let message = tokio::time::timeout(PATIENCE, stream.next()).await.expect("news in time")?;
    Some(message.unwrap().status())
}

/// Waits until the gateway is ready, as a balancer would.
async fn ready(gateway: &Gateway) {
    let mut health = watch(gateway, "").await;
    while next(&mut health).await != Some(ServingStatus::Serving) {}
}

#[tokio::test]
async fn health_is_told_for_all_our_names_and_no_other() {
    let gateway = Gateway::start().await;
    ready(&gateway).await;
    let mut health = HealthClient::new(gateway.channel().await);
    for name in ["", "glacier.jobs.v1.JobService", "readiness", "liveness"] {
        let status = health.check(about(name)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{name}");
    }
    assert_eq!(health.check(about("other")).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn watching_an_unknown_service_says_so_and_stays_open() {
    let gateway = Gateway::start().await;
    let mut unknown = watch(&gateway, "other").await;
    assert_eq!(next(&mut unknown).await, Some(ServingStatus::ServiceUnknown));
    let more = tokio::time::timeout(Duration::from_millis(100), unknown.next()).await;
    assert!(more.is_err(), "the stream goes on: {more:?}");
}

/// Readiness waits for credentials; liveness does not, and neither asks Glacier.
#[tokio::test]
async fn without_credentials_it_is_alive_and_not_ready() {
    use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};

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
    let mut health = HealthClient::new(gateway.channel().await);
    let mut status = async |name| health.check(about(name)).await.unwrap().into_inner().status();
    assert_eq!(status("readiness").await, ServingStatus::NotServing);
    assert_eq!(status("").await, ServingStatus::NotServing);
    assert_eq!(status("liveness").await, ServingStatus::Serving);
    assert_eq!(gateway.emulator.request_count(), 0);
}

#[tokio::test]
async fn reflection_of_both_versions_lists_the_services_and_knows_the_error_details() {
    let gateway = Gateway::start().await;
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(gateway.channel().await);
    let symbols =
        ["google.rpc.ErrorInfo", "google.rpc.BadRequest", "grpc.health.v1.Health", "glacier.jobs.v1.JobService"];
    let questions = std::iter::once(MessageRequest::ListServices(String::new()))
        .chain(symbols.map(|symbol| MessageRequest::FileContainingSymbol(symbol.to_owned())))
        .map(|question| v1::ServerReflectionRequest { host: String::new(), message_request: Some(question) });
    let answers = client.server_reflection_info(tokio_stream::iter(questions.collect::<Vec<_>>())).await.unwrap();
    let answers: Vec<_> = answers.into_inner().map(|a| a.unwrap().message_response.unwrap()).collect().await;
    let (list, files) = answers.split_first().unwrap();
    let MessageResponse::ListServicesResponse(list) = list else { panic!("{list:?}") };
    let services: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(services.contains(&"glacier.jobs.v1.JobService") && services.contains(&"grpc.health.v1.Health"));
    assert_eq!(files.len(), symbols.len());
    for file in files {
        assert!(matches!(file, MessageResponse::FileDescriptorResponse(_)), "{file:?}");
    }

    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(gateway.channel().await);
    let question = v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
    let question = v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let mut answers = client.server_reflection_info(tokio_stream::once(question)).await.unwrap().into_inner();
    let answer = answers.next().await.unwrap().unwrap().message_response.unwrap();
    assert!(format!("{answer:?}").contains("glacier.jobs.v1.JobService"));
}

#[tokio::test]
async fn reflection_can_be_switched_off() {
    let gateway = Gateway::start_with(|settings| settings.grpc.reflection = false).await;
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(gateway.channel().await);
    let question = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let status = client.server_reflection_info(tokio_stream::once(question)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

/// With no lame duck the next phase comes at once, and must not be the only one that watchers see.
#[tokio::test]
async fn watchers_are_told_even_if_there_is_no_lame_duck() {
    let mut gateway = Gateway::start().await;
    ready(&gateway).await;
    let mut health = watch(&gateway, "").await;
    assert_eq!(next(&mut health).await, Some(ServingStatus::Serving));
    gateway.order_stop();
    assert_eq!(next(&mut health).await, Some(ServingStatus::NotServing));
    assert_eq!(next(&mut health).await, None);
}

#[tokio::test]
async fn the_order_to_stop_is_told_at_once_and_connections_are_still_accepted() {
    let mut gateway = Gateway::start_with(|settings| settings.server.lame_duck = Duration::from_secs(2)).await;
    let job = gateway.add(EmulatedJob::archive(Tier::Bulk));
    ready(&gateway).await;
    let mut health = watch(&gateway, "").await;
    assert_eq!(next(&mut health).await, Some(ServingStatus::Serving));
    gateway.order_stop();
    assert_eq!(next(&mut health).await, Some(ServingStatus::NotServing));
    // The lame duck still serves, on a new connection too.
    let mut late = gateway.client.clone();
    late.describe_job(question(&job)).await.unwrap();
    drop(gateway.channel().await);
    // Then the stream ends instead of holding its connection open.
    assert_eq!(next(&mut health).await, None);
    assert_eq!(gateway.stopped().await, Drained::Completely);
}

/// P1 in small: a call that is under way when the order comes is answered.
#[tokio::test]
async fn a_call_under_way_is_finished_before_the_end() {
    let mut gateway = Gateway::start().await;
    let job = gateway.add(EmulatedJob::archive(Tier::Bulk));
    let hold = gateway.emulator.faults().hold();
    let mut client = gateway.client.clone();
    let caller = tokio::spawn(async move { client.describe_job(question(&job)).await });
    gateway.emulator.wait_for_requests(1).await;
    let mut health = watch(&gateway, "").await;
    gateway.order_stop();
    while next(&mut health).await.is_some() {}
    // The drain has begun.
    hold.release();
    caller.await.unwrap().unwrap();
    assert_eq!(gateway.stopped().await, Drained::Completely);
}

/// P3.
#[tokio::test]
async fn silent_connections_and_open_streams_do_not_hold_up_the_end() {
    let mut gateway = Gateway::start_with(|settings| settings.server.drain = Duration::from_secs(2)).await;
    let mut silent = TcpStream::connect(gateway.address).await.unwrap();
    let _health = watch(&gateway, "").await;
    let _unknown = watch(&gateway, "other").await;
    let mut reflection = v1::server_reflection_client::ServerReflectionClient::new(gateway.channel().await);
    let _open = reflection.server_reflection_info(tokio_stream::pending()).await.unwrap();
    gateway.order_stop();
    // Only the reflection stream, which its client keeps open, has to be closed.
    assert_eq!(gateway.stopped().await, Drained::Closed(1));
    let mut rest = Vec::new();
    let _ended = tokio::time::timeout(PATIENCE, silent.read_to_end(&mut rest)).await.expect("closed");
}

/// P1: a connection that comes as the last one may carry calls; only GOAWAY tells its client that they were not taken.
#[tokio::test]
async fn a_connection_that_comes_as_the_drain_begins_is_told_to_go_away() {
    let mut gateway = Gateway::start().await;
    let mut late = TcpStream::connect(gateway.address).await.unwrap();
    let job = gateway.add(EmulatedJob::archive(Tier::Bulk));
    // An answer on another connection: by now this one has been accepted.
    gateway.ask(&job).await.unwrap();
    let mut health = watch(&gateway, "").await;
    gateway.order_stop();
    while next(&mut health).await.is_some() {}
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    late.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..]].concat()).await.unwrap();
    let goaway = 7;
    let told = async {
        let mut head = [0; 9];
        while head[3] != goaway {
            late.read_exact(&mut head).await.expect("not closed before it is told");
            let payload = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            late.read_exact(&mut vec![0; usize::try_from(payload).unwrap()]).await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("told in time");
    drop(late);
    assert_eq!(gateway.stopped().await, Drained::Completely);
}

/// D10 in small.
#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let gateway = Gateway::start_with(|s| s.server.connection.handshake_timeout = Duration::from_millis(50)).await;
    let mut silent = TcpStream::connect(gateway.address).await.unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, silent.read_to_end(&mut rest)).await.expect("closed");
    assert_eq!(ended.unwrap(), 0);
}

/// D13.
#[tokio::test]
async fn a_connection_above_the_cap_is_closed_and_the_others_are_unharmed() {
    let gateway = Gateway::start_with(|settings| settings.server.max_connections = 1).await;
    let job = gateway.add(EmulatedJob::archive(Tier::Bulk));
    gateway.ask(&job).await.unwrap();
    let mut second = TcpStream::connect(gateway.address).await.unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, second.read_to_end(&mut rest)).await.expect("closed");
    assert_eq!(ended.unwrap(), 0);
    gateway.ask(&job).await.unwrap();
}

/// gRFC A9: an idle connection is ended by a GOAWAY at its age.
#[tokio::test]
async fn an_old_connection_is_told_to_go_away() {
    let gateway = Gateway::start_with(|s| s.server.connection.max_age = Duration::from_millis(50)).await;
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    let _open: http2::SendRequest<Body> = sender;
    tokio::time::timeout(PATIENCE, connection).await.expect("ended by the gateway").unwrap();
}

/// gRFC A9, with a client that sends again what a connection told to go away never took.
#[tokio::test]
async fn callers_do_not_notice_that_connections_age() {
    let gateway = Gateway::start_with(|s| s.server.connection.max_age = Duration::from_millis(20)).await;
    let job = gateway.add(EmulatedJob::archive(Tier::Bulk));
    let mut client = gateway.resending_client();
    for _ in 0..500 {
        client.describe_job(question(&job)).await.unwrap();
    }
    assert_eq!(gateway.emulator.request_count(), 1);
}

/// D2, for the service that anybody may ask.
#[tokio::test]
async fn health_takes_no_larger_messages_than_the_rest() {
    let gateway = Gateway::start().await;
    let mut health = HealthClient::new(gateway.channel().await);
    let large = "x".repeat(17 * 1024);
    let refusal = Refusal::of(health.check(about(&large)).await);
    assert_eq!((refusal.code, refusal.reason()), (Code::ResourceExhausted, "REQUEST_TOO_LARGE"));
    let status = health.watch(about(&large)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
}
