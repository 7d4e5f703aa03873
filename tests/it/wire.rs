//! Answers frame by frame, as "gRPC over HTTP2" has them: an error without a message is one block of headers that ends the
//! stream ("Trailers-Only"); all else is headers, messages, and one block of trailers with the status.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use glacier_gateway::emulator::{EmulatedJob, Tier};
use h2::client;
use http::{HeaderMap, Request, StatusCode};
use tokio::net::TcpStream;
use tonic_health::pb::HealthCheckRequest;

use crate::support::gateway::{Gateway, PATIENCE, question};

const DESCRIBE: &str = "glacier.jobs.v1.JobService/DescribeJob";
const CHECK: &str = "grpc.health.v1.Health/Check";
const WATCH: &str = "grpc.health.v1.Health/Watch";
const REFLECTION: [&str; 2] = [
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
/// A message by its prefix, and no protobuf.
const NONSENSE: &[u8] = b"\0\0\0\0\x02\xff\xff";

/// A call made by hand.
struct Call<'c> {
    method: &'c str,
    path: &'c str,
    headers: &'c [(&'c str, &'c str)],
    body: Bytes,
}

impl<'c> Call<'c> {
    fn new(path: &'c str, body: impl Into<Bytes>) -> Self {
        Self { method: "POST", path, headers: &[], body: body.into() }
    }

    fn with(self, headers: &'c [(&'c str, &'c str)]) -> Self {
        Self { headers, ..self }
    }

    async fn send(self, address: SocketAddr) -> Answer {
        let stream = TcpStream::connect(address).await.unwrap();
        let (client, connection) = client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let uri = format!("http://gateway/{}", self.path);
        let mut request = Request::builder().method(self.method).uri(uri).body(()).unwrap();
        let usual = [("content-type", "application/grpc"), ("te", "trailers")];
        for (name, value) in usual.iter().chain(self.headers) {
            let name: http::HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let answer = async {
            let mut client = client.ready().await.unwrap();
            let (response, mut body) = client.send_request(request, self.body.is_empty()).unwrap();
            if !self.body.is_empty() {
                body.send_data(self.body, true).unwrap();
            }
            let (head, mut body) = response.await.unwrap().into_parts();
            let ends_with_head = body.is_end_stream();
            let mut data = BytesMut::new();
            while let Some(piece) = body.data().await {
                data.extend_from_slice(&piece.unwrap());
            }
            let trailers = body.trailers().await.unwrap();
            Answer { status: head.status, headers: head.headers, ends_with_head, data: data.freeze(), trailers }
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await.expect("an answer in time");
        connection.abort();
        answer
    }
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    /// Whether the first block of headers ended the stream.
    ends_with_head: bool,
    data: Bytes,
    trailers: Option<HeaderMap>,
}

impl Answer {
    /// It is an error, and nothing but headers.
    #[track_caller]
    fn is_trailers_only(&self, code: &str) {
        assert_eq!(self.headers.get("grpc-status").expect("a status at once"), code, "{self:?}");
        assert_eq!(
            (self.status, &self.headers["content-type"]),
            (StatusCode::OK, &"application/grpc".parse().unwrap())
        );
        assert!(self.ends_with_head && self.data.is_empty() && self.trailers.is_none(), "{self:?}");
        assert!(!self.headers.contains_key("content-length"), "{self:?}");
    }

    /// There are messages, and then the status.
    #[track_caller]
    fn has_messages_and_then(&self, code: &str) {
        assert!(!self.headers.contains_key("grpc-status"), "a status before the end: {self:?}");
        assert_eq!(
            (self.status, &self.headers["content-type"]),
            (StatusCode::OK, &"application/grpc".parse().unwrap())
        );
        assert!(!self.ends_with_head && !self.data.is_empty(), "{self:?}");
        assert_eq!(self.trailers.as_ref().expect("trailers")["grpc-status"], code, "{self:?}");
    }

    /// No gRPC at all, and nothing but headers.
    #[track_caller]
    fn is_http(&self, status: StatusCode) {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.ends_with_head && self.data.is_empty() && self.trailers.is_none(), "{self:?}");
        assert!(!self.headers.contains_key("grpc-status"), "{self:?}");
    }
}

fn framed(message: &impl prost::Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), &message].concat()
}

/// Issue 14, point 11: with a reflection that is switched off, and with a deadline, an error had an empty piece of data after
/// it, and grpcurl called it "server closed the stream without sending trailers".
#[tokio::test]
async fn an_error_without_a_message_ends_with_its_headers_whatever_the_call() {
    let gateway = Gateway::start_with(|settings| {
        settings.grpc.reflection = false;
        settings.health_listen = Some("127.0.0.1:0".parse().unwrap());
    })
    .await;
    let about_unknown = framed(&HealthCheckRequest { service: "other".to_owned() });
    let second: &[(&str, &str)] = &[("grpc-timeout", "1S")];
    for address in [gateway.address, gateway.health_address.unwrap()] {
        for path in REFLECTION {
            for headers in [&[], second] {
                Call::new(path, framed(&())).with(headers).send(address).await.is_trailers_only("12");
            }
        }
        for headers in [&[], second] {
            // tonic's words for a message that is none, and ours.
            for (path, malformed) in [(WATCH, "13"), (CHECK, "3")] {
                Call::new(path, NONSENSE).with(headers).send(address).await.is_trailers_only(malformed);
                let packed: &[(&str, &str)] = &[&[("grpc-encoding", "gzip")], headers].concat();
                Call::new(path, &b"\x01\0\0\0\0"[..]).with(packed).send(address).await.is_trailers_only(malformed);
                let unknown: &[(&str, &str)] = &[&[("grpc-encoding", "deflate")], headers].concat();
                Call::new(path, &b"\x01\0\0\0\0"[..]).with(unknown).send(address).await.is_trailers_only("12");
            }
            Call::new(WATCH, "").with(headers).send(address).await.is_trailers_only("13");
            Call::new(CHECK, about_unknown.clone()).with(headers).send(address).await.is_trailers_only("5");
            for path in ["glacier.jobs.v1.JobService/Other", "no.Service/Other", "other", ""] {
                Call::new(path, "").with(headers).send(address).await.is_trailers_only("12");
            }
        }
        let call = Call::new(WATCH, framed(&())).with(&[("grpc-timeout", "soon")]);
        call.send(address).await.is_trailers_only("3");
    }
    for (body, headers, code) in [
        (framed(&question("")), &[][..], "3"),
        (NONSENSE.to_vec(), &[], "3"),
        (Vec::new(), &[], "3"),
        (b"\x01\0\0\0\0".to_vec(), &[("grpc-encoding", "gzip")], "3"),
        (b"\x01\0\0\0\0".to_vec(), &[("grpc-encoding", "deflate")], "12"),
        (b"\x01\0\0\0\0".to_vec(), &[], "13"),
        (b"\0\0\xff\0\0".to_vec(), &[], "8"),
        (framed(&question("none")), &[], "5"),
        (framed(&question("none")), &[("grpc-timeout", "0S")], "4"),
        (framed(&question("none")), &[("grpc-timeout", "")], "3"),
    ] {
        Call::new(DESCRIBE, body).with(headers).send(gateway.address).await.is_trailers_only(code);
    }
}

#[tokio::test]
async fn an_answer_with_a_message_ends_with_trailers_and_has_no_status_before() {
    let gateway = Gateway::start().await;
    let job = gateway.add(EmulatedJob::archive(Tier::Bulk));
    let second: &[(&str, &str)] = &[("grpc-timeout", "1S")];
    for headers in [&[], second] {
        let call = |path, body| Call::new(path, body).with(headers).send(gateway.address);
        call(DESCRIBE, framed(&question(&job))).await.has_messages_and_then("0");
        call(CHECK, framed(&HealthCheckRequest { service: "liveness".to_owned() })).await.has_messages_and_then("0");
        // No message at all counts as an empty one.
        call(CHECK, Vec::new()).await.has_messages_and_then("0");
        for path in REFLECTION {
            // List the services, then end.
            call(path, b"\0\0\0\0\x02\x3a\0".to_vec()).await.has_messages_and_then("0");
        }
    }
    // A watch ends when its time is over.
    let soon: &[(&str, &str)] = &[("grpc-timeout", "50m")];
    Call::new(WATCH, framed(&())).with(soon).send(gateway.address).await.has_messages_and_then("4");
}

/// What is no gRPC call gets an answer of HTTP's, which no proxy or browser takes for a success.
#[tokio::test]
async fn what_is_no_grpc_call_gets_an_answer_of_https_own() {
    let gateway = Gateway::start().await;
    for path in [DESCRIBE, WATCH, CHECK, REFLECTION[0], "other"] {
        for method in ["GET", "HEAD", "PUT", "OPTIONS"] {
            let answer = Call { method, ..Call::new(path, "") }.send(gateway.address).await;
            answer.is_http(StatusCode::METHOD_NOT_ALLOWED);
            // RFC 9110, section 15.5.6.
            assert_eq!(answer.headers["allow"], "POST");
        }
        for wrong in ["", "text/plain", "application/grpc-web", "application/grpcx"] {
            let answer = Call::new(path, "").with(&[("content-type", wrong)]).send(gateway.address).await;
            answer.is_http(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
    }
}
