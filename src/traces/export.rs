//! The way of spans to the collector: a bounded queue, the SDK's batches in a thread of their own, OTLP over gRPC.
//!
//! The SDK counts nothing that it tells, so the queue is bounded and counted here. Its settings are all given here, too:
//! those that it reads from the environment by itself have been checked before, so that they say the same.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{
    Compression, ExporterBuildError, SpanExporter as OtlpExporter, WithExportConfig as _, WithTonicConfig as _,
    tonic_types::{
        metadata::MetadataMap,
        transport::{Certificate, ClientTlsConfig},
    },
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor,
    },
};

use super::{SERVICE_NAME, TraceSettings, TracesError, names};
use crate::metrics::{SpanFate, TraceMetrics};

/// How long the end of the process waits for the last spans to be delivered. It comes after the drain, and before
/// Kubernetes loses patience.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// A provider of spans that are all exported.
pub(super) fn provider(settings: TraceSettings, metrics: &TraceMetrics) -> Result<SdkTracerProvider, TracesError> {
    let waiting = Arc::<AtomicUsize>::default();
    let resource = resource(&settings);
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(settings.queue)
        .with_max_export_batch_size(settings.batch)
        .with_scheduled_delay(settings.delay)
        .build();
    let limit = settings.queue;
    let exporter = Told {
        inner: exporter(settings).map_err(|error| TracesError(error.to_string()))?,
        waiting: Arc::clone(&waiting),
        metrics: metrics.clone(),
        fails: AtomicBool::new(false),
    };
    let inner = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
    let queue = Queue { inner, waiting, limit, metrics: metrics.clone() };
    // What is to be recorded has been decided already.
    let builder = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOn).with_resource(resource);
    Ok(builder.with_span_processor(queue).build())
}

fn exporter(settings: TraceSettings) -> Result<OtlpExporter, ExporterBuildError> {
    let is_https = settings.endpoint.starts_with("https:");
    let mut builder = OtlpExporter::builder()
        .with_tonic()
        .with_endpoint(settings.endpoint)
        .with_timeout(settings.timeout)
        .with_metadata(MetadataMap::from_headers(settings.headers));
    if settings.gzip {
        builder = builder.with_compression(Compression::Gzip);
    }
    if is_https {
        let tls = ClientTlsConfig::new();
        builder = builder.with_tls_config(match settings.authorities {
            Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
            None => tls.with_enabled_roots(),
        });
    }
    builder.build()
}

/// Our name first, so that the environment's replaces it.
fn resource(settings: &TraceSettings) -> Resource {
    let given = settings.resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    Resource::builder()
        .with_service_name(SERVICE_NAME)
        .with_attribute(KeyValue::new(names::SERVICE_VERSION, env!("CARGO_PKG_VERSION")))
        .with_attributes(given)
        .build()
}

/// Sends what waits, and ends the export; logs if that does not work in time.
pub(super) async fn finish(provider: &SdkTracerProvider) {
    let provider = provider.clone();
    // It blocks.
    let finished = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(LAST_SPANS)).await;
    if !finished.is_ok_and(|finished| finished.is_ok()) {
        tracing::warn!(waited_ms = LAST_SPANS.as_millis(), "the last spans may not have been delivered");
    }
}

/// Ends the export without sending anything more, and without waiting.
pub(super) fn abandon(provider: &SdkTracerProvider) {
    // It fails if it has ended, and always reports that it took too long.
    let _ended = provider.shutdown_with_timeout(Duration::ZERO);
}

/// Spans that wait for the thread that exports. No call ever waits for it.
#[derive(Debug)]
struct Queue {
    inner: BatchSpanProcessor,
    /// As many as the inner queue holds, or more: they are counted before they enter and after they have left.
    waiting: Arc<AtomicUsize>,
    /// As many as the inner queue can hold.
    limit: usize,
    metrics: TraceMetrics,
}

impl SpanProcessor for Queue {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) < self.limit {
            self.inner.on_end(span);
        } else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.metrics.spans(SpanFate::Dropped, 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Exports, counts, and logs when it begins to fail and when it works again: not every batch of an outage.
#[derive(Debug)]
struct Told {
    inner: OtlpExporter,
    waiting: Arc<AtomicUsize>,
    metrics: TraceMetrics,
    fails: AtomicBool,
}

impl SpanExporter for Told {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
        let outcome = self.inner.export(batch).await;
        let fate = if outcome.is_ok() { SpanFate::Exported } else { SpanFate::Failed };
        self.metrics.spans(fate, spans);
        match (self.fails.swap(outcome.is_err(), Ordering::Relaxed), &outcome) {
            // Codes and causes of our own side: what the collector says is not among them.
            (false, Err(error)) => tracing::warn!(%error, "spans cannot be delivered"),
            (true, Ok(())) => tracing::info!("spans are delivered again"),
            (true, Err(_)) | (false, Ok(())) => {}
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
