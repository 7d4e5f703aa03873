//! Spans for those who follow a call through several services: one for each call to `DescribeJob`, and below it one for
//! each request to Glacier that the call brought about, sent to an OpenTelemetry collector.
//!
//! ```text
//! traceparent ─▶ sampling ─▶ recording ─▶ export ─▶ (OTLP over gRPC)
//!                   └─▶ nothing: no span, nothing allocated
//! ```
//!
//! Whether a call is recorded is decided here, before the SDK hears of it ([`sampling`]). A [`CallSpan`] that records
//! nothing is a null pointer. A fetch runs in a task of its own, so the span of the call that started it travels with that
//! task ([`CallSpan::carry`], [`current`]); to the requests' signatures, and to Glacier, it does not travel.
//!
//! Without the cargo feature `traces` nothing can be recorded, and [`BUILT_IN`] says so to whoever reads the settings.

use std::{fmt, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderMap, Request};

use crate::{
    job::JobKey,
    metrics::{CacheOutcome, CallCode, TraceMetrics, UpstreamCode},
    upstream::{Described, UpstreamError},
};

#[cfg(not(feature = "traces"))]
mod absent;
#[cfg(feature = "traces")]
mod export;
#[cfg(feature = "traces")]
mod names;
#[cfg(feature = "traces")]
mod recording;
mod sampling;
mod traceparent;

#[cfg(not(feature = "traces"))]
use absent as recording;
use recording::{Call, Recorder, Sending};
pub use sampling::Sampler;
use traceparent::Traceparent;

/// Whether this binary can record spans at all.
pub const BUILT_IN: bool = cfg!(feature = "traces");

/// The defaults of the OpenTelemetry specification ("OpenTelemetry Environment Variable Specification", "Batch Span
/// Processor"; "OpenTelemetry Protocol Exporter").
pub const DEFAULT_QUEUE: usize = 2048;
/// See [`DEFAULT_QUEUE`].
pub const DEFAULT_BATCH: usize = 512;
/// See [`DEFAULT_QUEUE`].
pub const DEFAULT_DELAY: Duration = Duration::from_secs(5);
/// See [`DEFAULT_QUEUE`].
pub const DEFAULT_EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// See [`DEFAULT_QUEUE`].
pub const DEFAULT_ENDPOINT: &str = "http://localhost:4317";
/// `service.name`, unless the environment gives another.
pub const SERVICE_NAME: &str = "glacier-gateway";

/// Where spans go, and which.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceSettings {
    /// The collector: `http://HOST:PORT` or `https://HOST:PORT`, without credentials.
    pub endpoint: String,
    /// With https, who may have issued the collector's certificate, as PEM; the system's authorities without it.
    pub authorities: Option<Vec<u8>>,
    /// Sent along with every export. The values are secrets, and marked as such, so that nothing shows them.
    pub headers: HeaderMap,
    /// Whether exports are compressed.
    pub gzip: bool,
    /// The most time for one export, repetitions included. [`DEFAULT_EXPORT_TIMEOUT`].
    pub timeout: Duration,
    /// What the spans are said to come from, beside our own `service.name` and `service.version`.
    pub resource: Vec<(String, String)>,
    /// Which calls are recorded.
    pub sampler: Sampler,
    /// Whether callers' `traceparent` counts.
    pub heeds_callers: bool,
    /// How many spans may wait; more are dropped, and counted. [`DEFAULT_QUEUE`].
    pub queue: usize,
    /// How many are sent at once. [`DEFAULT_BATCH`].
    pub batch: usize,
    /// How long they wait for others, at most. [`DEFAULT_DELAY`].
    pub delay: Duration,
}

impl TraceSettings {
    /// The defaults, to this collector.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            authorities: None,
            headers: HeaderMap::new(),
            gzip: false,
            timeout: DEFAULT_EXPORT_TIMEOUT,
            resource: Vec::new(),
            sampler: Sampler::default(),
            heeds_callers: true,
            queue: DEFAULT_QUEUE,
            batch: DEFAULT_BATCH,
            delay: DEFAULT_DELAY,
        }
    }
}

/// Spans cannot be exported: as a rule, with https, no certificate authorities are installed.
#[derive(Debug, thiserror::Error)]
#[error("spans cannot be exported: {0}")]
pub struct TracesError(String);

/// Begins spans. Cheap to clone; the default records nothing.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<Arc<Recorder>>);

impl Tracer {
    /// A tracer that exports as `settings` say, from a thread of its own, and reports to `metrics`; without settings, or
    /// where it is not [`BUILT_IN`], one that records nothing. To be called inside the runtime, whose timers and
    /// connections the export uses.
    pub fn start(settings: Option<TraceSettings>, metrics: &TraceMetrics) -> Result<Self, TracesError> {
        let recorder = settings.map(|settings| Recorder::start(settings, metrics)).transpose()?;
        Ok(Self(recorder.flatten().map(Arc::new)))
    }

    /// The span of a call to `DescribeJob` that has just come in from `peer`, if it is to be recorded.
    pub fn call<B>(&self, request: &Request<B>, peer: SocketAddr) -> CallSpan {
        let Some(recorder) = &self.0 else { return CallSpan::default() };
        let parent = recorder.heeds_callers().then(|| Traceparent::of(request.headers())).flatten();
        if !recorder.sampler().samples(parent.as_ref(), fastrand::f64) {
            return CallSpan::default();
        }
        CallSpan(Some(Call::begin(recorder, parent, request, peer)))
    }

    /// Sends what has not been sent, for three seconds at most; nothing is recorded from then on.
    pub async fn finish(&self) {
        if let Some(recorder) = &self.0 {
            recorder.finish().await;
        }
    }
}

/// The span of a call, or nothing. Cheap to clone; whoever was given the call ends it.
#[derive(Debug, Clone, Default)]
pub struct CallSpan(Option<Arc<Call>>);

tokio::task_local! {
    /// The call that this task works for.
    static CURRENT: CallSpan;
}

/// The span of the call that this task works for.
pub fn current() -> CallSpan {
    CURRENT.try_with(Clone::clone).unwrap_or_default()
}

impl CallSpan {
    /// Whether anything is recorded.
    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// Does `work` for this call: [`current`] is this span meanwhile.
    pub fn carry<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, work)
    }

    /// The trace's id as 32 hexadecimal digits, for logs.
    pub fn trace_id(&self) -> Option<impl fmt::Display> {
        self.0.as_ref().map(|call| call.trace_id())
    }

    /// The job that the call asks about.
    pub fn about(&self, key: &JobKey) {
        if let Some(call) = &self.0 {
            call.about(key);
        }
    }

    /// The call has ended with this status, and its outcome came by the cache like this, if that was asked.
    pub fn end(&self, code: CallCode, outcome: Option<CacheOutcome>) {
        if let Some(call) = &self.0 {
            call.end(code, outcome);
        }
    }

    /// A request to `url` is about to be sent; `number` counts those of the fetch from 1.
    pub fn request(&self, url: &str, number: u32) -> RequestSpan {
        RequestSpan(self.0.as_ref().map(|call| Box::new(call.request(url, number))))
    }
}

/// The span of a request to Glacier, or nothing. It ends when it is dropped, at the latest.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct RequestSpan(Option<Box<Sending>>);

impl RequestSpan {
    /// The request has ended like this.
    pub fn end(self, code: UpstreamCode, outcome: Result<&Described, &UpstreamError>) {
        if let Some(sending) = self.0 {
            sending.end(code, outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_recorded_is_a_null_pointer() {
        assert_eq!(size_of::<CallSpan>(), size_of::<usize>());
        assert_eq!(size_of::<RequestSpan>(), size_of::<usize>());
        assert!(!current().is_recorded());
    }

    #[test]
    fn settings_show_no_headers_values() {
        let mut settings = TraceSettings::new("http://localhost:4317");
        let mut value = http::HeaderValue::from_static("marked-secret");
        value.set_sensitive(true);
        settings.headers.insert("authorization", value);
        let shown = format!("{settings:?}");
        assert!(shown.contains("authorization") && !shown.contains("marked"), "{shown}");
    }
}
