//! Spans that are recorded: what they hold, and how they end.

use std::{
    fmt, mem,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::{HeaderMap, Request, Uri, uri::Scheme};
use opentelemetry::{
    Context, InstrumentationScope, KeyValue,
    trace::{
        Span as _, SpanContext, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceState, Tracer as _,
        TracerProvider as _,
    },
};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span};

use super::{Sampler, TraceSettings, TracesError, export, names, traceparent::Traceparent};
use crate::{
    job::JobKey,
    metrics::{CacheOutcome, CallCode, TraceMetrics, UpstreamCode},
    upstream::{Described, UpstreamError},
};

const TRACESTATE: &str = "tracestate";
/// More of it need not be kept (W3C Trace Context §3.3.1.5).
const TRACESTATE_MAX: usize = 512;
const OK: i64 = 200;

/// Begins spans and exports them.
#[derive(Debug)]
pub(super) struct Recorder {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
    sampler: Sampler,
    heeds_callers: bool,
}

impl Recorder {
    pub(super) fn start(settings: TraceSettings, metrics: &TraceMetrics) -> Result<Option<Self>, TracesError> {
        let (sampler, heeds_callers) = (settings.sampler, settings.heeds_callers);
        let provider = export::provider(settings, metrics)?;
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .with_schema_url(names::SCHEMA);
        let tracer = provider.tracer_with_scope(scope.build());
        Ok(Some(Self { tracer, provider, sampler, heeds_callers }))
    }

    pub(super) fn sampler(&self) -> Sampler {
        self.sampler
    }

    pub(super) fn heeds_callers(&self) -> bool {
        self.heeds_callers
    }

    pub(super) async fn finish(&self) {
        export::finish(&self.provider).await;
    }

    fn begin(
        &self,
        name: &'static str,
        kind: SpanKind,
        parent: Option<SpanContext>,
        attributes: Vec<KeyValue>,
    ) -> Span {
        let builder = self.tracer.span_builder(name).with_kind(kind).with_attributes(attributes);
        let context = Context::new();
        let context = match parent {
            Some(parent) => context.with_remote_span_context(parent),
            None => context,
        };
        self.tracer.build_with_context(builder, &context)
    }
}

impl Drop for Recorder {
    /// The SDK would wait for its collector if nobody had told it not to.
    fn drop(&mut self) {
        export::abandon(&self.provider);
    }
}

/// The span of a call.
#[derive(Debug)]
pub(super) struct Call {
    recorder: Arc<Recorder>,
    context: SpanContext,
    span: Mutex<Span>,
}

impl Call {
    pub(super) fn begin<B>(
        recorder: &Arc<Recorder>,
        parent: Option<Traceparent>,
        request: &Request<B>,
        peer: SocketAddr,
    ) -> Arc<Self> {
        let mut attributes = vec![
            KeyValue::new(names::RPC_SYSTEM, names::GRPC),
            KeyValue::new(names::RPC_METHOD, names::DESCRIBE_JOB),
            KeyValue::new(names::CLIENT_ADDRESS, peer.ip().to_canonical().to_string()),
            KeyValue::new(names::CLIENT_PORT, i64::from(peer.port())),
        ];
        attributes.extend(server(request.uri()));
        let parent = parent.map(|parent| {
            let flags = TraceFlags::default().with_sampled(parent.sampled);
            SpanContext::new(parent.trace_id.into(), parent.span_id.into(), flags, true, trace_state(request.headers()))
        });
        let span = recorder.begin(names::DESCRIBE_JOB, SpanKind::Server, parent, attributes);
        let context = span.span_context().clone();
        Arc::new(Self { recorder: Arc::clone(recorder), context, span: Mutex::new(span) })
    }

    pub(super) fn trace_id(&self) -> impl fmt::Display + use<> {
        self.context.trace_id()
    }

    pub(super) fn about(&self, key: &JobKey) {
        self.span().set_attribute(KeyValue::new(names::JOB, key.as_str().to_owned()));
    }

    pub(super) fn end(&self, code: CallCode, outcome: Option<CacheOutcome>) {
        let (mut span, status) = (self.span(), names::status(code));
        span.set_attribute(KeyValue::new(names::RPC_STATUS, status));
        if let Some(outcome) = outcome {
            span.set_attribute(KeyValue::new(names::CACHE, outcome.name()));
        }
        if names::is_servers_error(code) {
            fail(&mut span, status);
        }
        span.end();
    }

    pub(super) fn request(&self, url: &str, number: u32) -> Sending {
        let mut attributes = vec![
            KeyValue::new(names::HTTP_METHOD, names::GET),
            KeyValue::new(names::URL, url.to_owned()),
            KeyValue::new(names::URL_TEMPLATE, names::JOB_TEMPLATE),
        ];
        // Ours are all legal.
        attributes.extend(url.parse().iter().flat_map(server));
        if number > 1 {
            attributes.push(KeyValue::new(names::HTTP_RESENDS, i64::from(number) - 1));
        }
        let span = self.recorder.begin(names::GET_JOB, SpanKind::Client, Some(self.context.clone()), attributes);
        Sending { span, ended: false }
    }

    fn span(&self) -> MutexGuard<'_, Span> {
        // It is whole between any two statements, so a panic elsewhere does not spoil it.
        self.span.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The span of a request to Glacier.
#[derive(Debug)]
pub(super) struct Sending {
    span: Span,
    ended: bool,
}

impl Sending {
    pub(super) fn end(mut self, code: UpstreamCode, outcome: Result<&Described, &UpstreamError>) {
        self.ended = true;
        let (http_status, request_id) = match outcome {
            Ok(described) => (Some(OK), &described.request_id),
            Err(error) => (error.http_status.map(i64::from), &error.request_id),
        };
        let status = http_status.map(|status| KeyValue::new(names::HTTP_STATUS, status));
        let request_id = request_id.clone().map(|id| KeyValue::new(names::AWS_REQUEST_ID, id));
        self.span.set_attributes(status.into_iter().chain(request_id));
        if outcome.is_err() {
            fail(&mut self.span, code.name());
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !mem::replace(&mut self.ended, true) {
            fail(&mut self.span, names::ABANDONED);
        }
        self.span.end();
    }
}

/// The kind of error says all; what more there is to say is in the log.
fn fail(span: &mut Span, kind: &'static str) {
    span.set_attribute(KeyValue::new(names::ERROR, kind));
    span.set_status(Status::error(""));
}

/// The server's name and port, as its caller knows them.
fn server(uri: &Uri) -> impl Iterator<Item = KeyValue> {
    let of_scheme = || match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => Some(443),
        Some(scheme) if *scheme == Scheme::HTTP => Some(80),
        Some(_) | None => None,
    };
    let port = uri.port_u16().or_else(of_scheme);
    let host = uri.host().map(|host| KeyValue::new(names::SERVER_ADDRESS, host.to_owned()));
    host.into_iter().chain(port.map(|port| KeyValue::new(names::SERVER_PORT, i64::from(port))))
}

/// What the caller's own tracing wants to find beside its ids; none if it is malformed or long.
fn trace_state(headers: &HeaderMap) -> TraceState {
    let mut values = headers.get_all(TRACESTATE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return TraceState::default() };
    let legal = value.to_str().ok().filter(|text| text.len() <= TRACESTATE_MAX);
    legal.and_then(|text| text.parse().ok()).unwrap_or_default()
}
