//! An OpenTelemetry collector's side of OTLP over gRPC, on loopback: it remembers what it is sent.

use std::{
    collections::BTreeMap,
    future::pending,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tonic::{Request, Response, Status, codec::CompressionEncoding, metadata::MetadataMap};

/// A span, with its ids in hexadecimal.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty for the first of a trace.
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) kind: SpanKind,
    pub(crate) state: String,
    pub(crate) failed: bool,
    pub(crate) attributes: BTreeMap<String, String>,
    /// Nanoseconds since 1970.
    pub(crate) began: u64,
    pub(crate) ended: u64,
}

impl Seen {
    fn new(span: Span) -> Self {
        Self {
            trace: hex::encode(&span.trace_id),
            id: hex::encode(&span.span_id),
            parent: hex::encode(&span.parent_span_id),
            kind: span.kind(),
            failed: span.status.is_some_and(|status| status.code() == StatusCode::Error),
            name: span.name,
            state: span.trace_state,
            attributes: plain(span.attributes),
            began: span.start_time_unix_nano,
            ended: span.end_time_unix_nano,
        }
    }

    /// An attribute; empty if it is absent.
    pub(crate) fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

fn plain(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value| match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{other:?}"),
    };
    attributes.into_iter().map(|kv| (kv.key, text(kv.value.and_then(|value| value.value)))).collect()
}

/// What a collector has been sent.
#[derive(Debug, Default)]
struct Received {
    spans: Vec<Seen>,
    resource: BTreeMap<String, String>,
    headers: MetadataMap,
}

/// The collector. Dropping it takes it down.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Received>>,
    /// How many exports have begun.
    exports: watch::Receiver<usize>,
    server: JoinHandle<()>,
}

#[derive(Clone)]
struct Service {
    received: Arc<Mutex<Received>>,
    exports: Arc<watch::Sender<usize>>,
    answers: bool,
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        {
            let mut received = self.received.lock().unwrap();
            received.headers = request.metadata().clone();
            for of_resource in request.into_inner().resource_spans {
                received.resource = plain(of_resource.resource.unwrap().attributes);
                let spans = of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans);
                received.spans.extend(spans.map(Seen::new));
            }
        }
        self.exports.send_modify(|exports| *exports += 1);
        if !self.answers {
            pending::<()>().await;
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    pub(crate) async fn start() -> Self {
        Self::start_that(true).await
    }

    /// One that takes exports and answers none.
    pub(crate) async fn start_silent() -> Self {
        Self::start_that(false).await
    }

    async fn start_that(answers: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::<Mutex<Received>>::default();
        let (tell, exports) = watch::channel(0);
        let service = Service { received: Arc::clone(&received), exports: Arc::new(tell), answers };
        let service = TraceServiceServer::new(service).accept_compressed(CompressionEncoding::Gzip);
        let server = tokio::spawn(async move {
            // Aborted, all of them, with this task.
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = TowerToHyperService::new(service.clone());
                connections
                    .spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, received, exports, server }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until this many exports have begun.
    pub(crate) async fn wait_for_exports(&self, count: usize) {
        let mut exports = self.exports.clone();
        let seen = exports.wait_for(|exports| *exports >= count);
        tokio::time::timeout(super::gateway::PATIENCE, seen).await.expect("an export in time").unwrap();
    }

    /// All spans so far, in the order in which they began.
    pub(crate) fn spans(&self) -> Vec<Seen> {
        let mut spans = self.received.lock().unwrap().spans.clone();
        spans.sort_by_key(|span| span.began);
        spans
    }

    /// What the last ones are said to come from.
    pub(crate) fn resource(&self) -> BTreeMap<String, String> {
        self.received.lock().unwrap().resource.clone()
    }

    /// What came along with the last ones.
    pub(crate) fn headers(&self) -> MetadataMap {
        self.received.lock().unwrap().headers.clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}
