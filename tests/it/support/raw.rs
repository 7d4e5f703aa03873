//! A connection of which every call is made by hand: what is sent of it, and how much of its answer is taken.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use h2::{
    SendStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use http::{HeaderValue, Response};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::gateway::{PATIENCE, Refusal, question};

pub(crate) const DESCRIBE_JOB: &str = "/glacier.jobs.v1.JobService/DescribeJob";
pub(crate) const CHECK: &str = "/grpc.health.v1.Health/Check";
pub(crate) const WATCH: &str = "/grpc.health.v1.Health/Watch";
pub(crate) const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// Closed when this is dropped.
pub(crate) struct RawConnection {
    client: SendRequest<Bytes>,
    _driven: AbortOnDropHandle<()>,
}

/// A call, reset when this is dropped.
pub(crate) struct RawCall {
    answer: ResponseFuture,
    pub(crate) body: SendStream<Bytes>,
}

impl RawConnection {
    /// It grants each answer this many bytes, until more is granted by hand.
    pub(crate) async fn open(address: SocketAddr, window: u32) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (client, connection) = Builder::new().initial_window_size(window).handshake(stream).await.unwrap();
        let driven = tokio::spawn(async move {
            let _ = connection.await;
        });
        Self { client, _driven: AbortOnDropHandle::new(driven) }
    }

    /// Begins a call: its headers, and what there is of its request.
    async fn begin(&mut self, path: &str, sent: Option<Bytes>, is_all: bool) -> RawCall {
        let mut request = http::Request::post(format!("http://gateway{path}")).body(()).unwrap();
        let headers = request.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        let client = self.client.clone();
        let mut ready = tokio::time::timeout(PATIENCE, client.ready()).await.expect("room for a call").unwrap();
        let ends_here = sent.is_none() && is_all;
        let (answer, mut body) = ready.send_request(request, ends_here).unwrap();
        if let Some(sent) = sent {
            body.send_data(sent, is_all).unwrap();
        }
        RawCall { answer, body }
    }

    /// A call of which only the headers are sent.
    pub(crate) async fn unfinished(&mut self, path: &str) -> RawCall {
        self.begin(path, None, false).await
    }

    /// A call with this whole message.
    pub(crate) async fn whole(&mut self, path: &str, message: &impl prost::Message) -> RawCall {
        self.begin(path, Some(prefixed(message)), true).await
    }

    /// A whole question about a job.
    pub(crate) async fn ask(&mut self, job: &str) -> RawCall {
        self.whole(DESCRIBE_JOB, &question(job)).await
    }
}

impl RawCall {
    /// The head of the answer, of which nothing more is taken.
    pub(crate) async fn answer(&mut self) -> Response<h2::RecvStream> {
        tokio::time::timeout(PATIENCE, &mut self.answer).await.expect("an answer in time").unwrap()
    }

    /// Whether the answer is nothing but a status. It begins, at least.
    pub(crate) async fn is_refused(&mut self) -> bool {
        self.answer().await.headers().contains_key("grpc-status")
    }

    /// The refusal, which has no message.
    pub(crate) async fn refusal(mut self) -> Refusal {
        let mut answer = self.answer().await;
        if let Some(status) = Status::from_header_map(answer.headers()) {
            return Refusal::of(Err::<Infallible, _>(status));
        }
        while answer.body_mut().data().await.is_some() {}
        let trailers = answer.body_mut().trailers().await.unwrap().unwrap();
        Refusal::of(Err::<Infallible, _>(Status::from_header_map(&trailers).unwrap()))
    }
}

/// A message as gRPC sends it.
fn prefixed(message: &impl prost::Message) -> Bytes {
    let message = message.encode_to_vec();
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), &message].concat().into()
}
