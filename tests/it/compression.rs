//! D22. Compressed requests: every client library has gzip as a one-line default, and every bomb looks like one of theirs.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use glacier_gateway::{
    emulator::{EmulatedJob, Tier},
    proto::v1::{DescribeJobRequest, DescribeJobResponse},
};
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use tonic::{Code, Status, codec::CompressionEncoding};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::support::gateway::{Gateway, Refusal, question};

const DESCRIBE: &str = "glacier.jobs.v1.JobService/DescribeJob";
const CHECK: &str = "grpc.health.v1.Health/Check";
const WATCH: &str = "grpc.health.v1.Health/Watch";
/// The default of `--max-request-size`.
const LIMIT: usize = 16 * 1024;

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn flagged(flag: u8, message: &[u8]) -> Full<Bytes> {
    let length = u32::try_from(message.len()).unwrap();
    Full::new([&[flag], &length.to_be_bytes()[..], message].concat().into())
}

async fn call(
    gateway: &Gateway,
    path: &str,
    encoding: Option<&str>,
    body: Full<Bytes>,
) -> http::Response<hyper::body::Incoming> {
    let headers: Vec<_> = [("content-type", "application/grpc")]
        .into_iter()
        .chain(encoding.map(|value| ("grpc-encoding", value)))
        .collect();
    gateway.raw_to(path, "POST", &headers, body).await
}

fn refusal<B>(response: &http::Response<B>) -> Refusal {
    Refusal::of(Err::<(), _>(Status::from_header_map(response.headers()).expect("an error")))
}

/// D22.
#[tokio::test]
async fn a_client_that_compresses_gets_its_answers() {
    let gateway = Gateway::start().await;
    let job = gateway.add(EmulatedJob::archive(Tier::Bulk));
    let mut client = gateway.client.clone().send_compressed(CompressionEncoding::Gzip);
    let compressed = client.describe_job(question(&job)).await.unwrap();
    let plain = gateway.ask(&job).await.unwrap();
    assert_eq!(compressed.get_ref(), plain.get_ref());
    assert_eq!(gateway.emulator.request_count(), 1, "one key, however its name comes");
    let fields = Refusal::of(client.describe_job(question("")).await);
    assert_eq!((fields.code, fields.reason()), (Code::InvalidArgument, "INVALID_REQUEST"));

    let mut health = HealthClient::new(gateway.channel().await).send_compressed(CompressionEncoding::Gzip);
    health.check(HealthCheckRequest { service: "liveness".to_owned() }).await.unwrap();
    let mut news = health.watch(HealthCheckRequest { service: "liveness".to_owned() }).await.unwrap().into_inner();
    assert!(news.message().await.unwrap().is_some());
    let unknown = health.check(HealthCheckRequest { service: "other".to_owned() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

/// D22: reflection, whose messages are a stream.
#[tokio::test]
async fn reflection_answers_those_who_compress() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest,
    };
    let gateway = Gateway::start().await;
    let mut client = ServerReflectionClient::new(gateway.channel().await).send_compressed(CompressionEncoding::Gzip);
    let list = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let requests = tokio_stream::iter([request.clone(), request]);
    let mut answers = client.server_reflection_info(requests).await.unwrap().into_inner();
    for _ in 0..2 {
        assert!(answers.message().await.unwrap().is_some());
    }
    assert!(answers.message().await.unwrap().is_none());
}

/// D22: a caller that names an encoding may still send a message as it is, and one that compresses is told what it may use.
#[tokio::test]
async fn a_header_does_not_oblige_and_an_answer_says_what_is_accepted() {
    let gateway = Gateway::start().await;
    let job = gateway.add(EmulatedJob::archive(Tier::Bulk));
    let message = question(&job).encode_to_vec();
    for (encoding, body, disclosed) in [
        (None, flagged(0, &message), None),
        (Some("identity"), flagged(0, &message), None),
        (Some("gzip"), flagged(0, &message), Some("identity,gzip")),
        (Some("gzip"), flagged(1, &gzip(&message)), Some("identity,gzip")),
    ] {
        let response = call(&gateway, DESCRIBE, encoding, body).await;
        let accepted = response.headers().get("grpc-accept-encoding").map(|value| value.to_str().unwrap());
        assert_eq!(accepted, disclosed, "{encoding:?}");
        assert!(!response.headers().contains_key("grpc-encoding"), "the answer is not compressed");
        let answer = response.into_body().collect().await.unwrap();
        assert_eq!(answer.trailers().unwrap()["grpc-status"], "0");
        let answer = DescribeJobResponse::decode(&answer.to_bytes()[5..]).unwrap();
        assert_eq!(answer.job.unwrap().job_id.as_ref(), Some(&job));
    }
}

/// D22: what counts is the decompressed size.
#[tokio::test]
async fn a_bomb_is_refused_at_the_size_limit_and_a_message_of_that_size_is_read() {
    let gateway = Gateway::start().await;
    // A field's tag and two bytes of its length come before its content. A job's name that long is a malformed field.
    let of_size = |size: usize| {
        let message =
            DescribeJobRequest { job_id: "j".repeat(size - 3), ..DescribeJobRequest::default() }.encode_to_vec();
        assert_eq!(message.len(), size);
        message
    };
    let read = refusal(&call(&gateway, DESCRIBE, Some("gzip"), flagged(1, &gzip(&of_size(LIMIT)))).await);
    assert_eq!((read.code, read.reason()), (Code::InvalidArgument, "INVALID_REQUEST"));
    for bomb in [gzip(&of_size(LIMIT + 1)), gzip(&vec![0; 10 << 20])] {
        assert!(bomb.len() < LIMIT, "its compressed size is no reason");
        let response = call(&gateway, DESCRIBE, Some("gzip"), flagged(1, &bomb)).await;
        let refused = refusal(&response);
        assert_eq!((refused.code, refused.reason()), (Code::ResourceExhausted, "REQUEST_TOO_LARGE"));
        assert_eq!(response.headers()["grpc-accept-encoding"], "identity,gzip");
    }
    assert_eq!(gateway.emulator.request_count(), 0);
}

/// D22: the standard services have a limit of their own, of 4 KiB.
#[tokio::test]
async fn a_bomb_for_the_standard_services_is_refused_as_well() {
    let gateway = Gateway::start().await;
    for path in [CHECK, WATCH] {
        for (flag, message) in [(1, gzip(&vec![0; 2 << 20])), (0, vec![0; 4097])] {
            let encoding = (flag == 1).then_some("gzip");
            assert!(flag == 0 || message.len() <= 4096, "{}", message.len());
            let refused = refusal(&call(&gateway, path, encoding, flagged(flag, &message)).await);
            assert_eq!((refused.code, refused.reason()), (Code::ResourceExhausted, "REQUEST_TOO_LARGE"), "{path}");
        }
    }
}

/// D22: on every path, before anybody reads the message.
#[tokio::test]
async fn an_unknown_encoding_is_unimplemented_and_says_what_is_accepted() {
    let gateway = Gateway::start().await;
    for path in [DESCRIBE, CHECK, WATCH, "grpc.reflection.v1.ServerReflection/ServerReflectionInfo"] {
        for encoding in ["deflate", "zstd", "x"] {
            let response = call(&gateway, path, Some(encoding), flagged(1, b"anything")).await;
            let refused = refusal(&response);
            assert_eq!((refused.code, refused.reason()), (Code::Unimplemented, "UNIMPLEMENTED"), "{path}");
            // gRPC's document on compression wants both: in the words and in the header.
            assert!(refused.status.message().contains("supported are identity and gzip"), "{:?}", refused.status);
            assert_eq!(response.headers()["grpc-accept-encoding"], "identity,gzip", "{path}");
        }
    }
}

/// D22: gRPC's document on compression, the last of its test cases.
#[tokio::test]
async fn a_message_flagged_as_compressed_without_an_encoding_is_internal() {
    let gateway = Gateway::start().await;
    let message = gzip(&question("job").encode_to_vec());
    for encoding in [None, Some("identity")] {
        let refused = refusal(&call(&gateway, DESCRIBE, encoding, flagged(1, &message)).await);
        assert_eq!((refused.code, refused.reason()), (Code::Internal, "INVALID_REQUEST"));
        assert!(refused.status.message().contains("flagged as compressed"), "{:?}", refused.status);
        let refused = call(&gateway, CHECK, encoding, flagged(1, &message)).await;
        assert_eq!(Status::from_header_map(refused.headers()).unwrap().code(), Code::Internal);
    }
}

/// D22: what says gzip and is not.
#[tokio::test]
async fn a_message_that_is_not_valid_gzip_is_the_callers_fault() {
    let gateway = Gateway::start().await;
    let whole = gzip(&question("job").encode_to_vec());
    for wrong in [&b"plain"[..], &whole[..whole.len() / 2], &[]] {
        let refused = refusal(&call(&gateway, DESCRIBE, Some("gzip"), flagged(1, wrong)).await);
        assert_eq!((refused.code, refused.reason()), (Code::InvalidArgument, "INVALID_REQUEST"), "{wrong:?}");
    }
}
