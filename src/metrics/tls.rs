//! TLS with callers, and files that are read again when they change.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{
        MetricType,
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::{Registry, Unit},
};

/// Handshakes that fail, and until when the certificate serves.
#[derive(Debug, Clone, Default)]
pub struct TlsMetrics {
    expiry: Expiry,
    handshakes_failed: Counter,
}

impl TlsMetrics {
    pub(super) fn in_registry(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "tls_handshakes_failed",
            "Connections refused by TLS: no usable handshake in time, no HTTP/2, no acceptable client certificate",
            metrics.handshakes_failed.clone(),
        );
        registry.register_collector(Box::new(metrics.expiry.clone()));
        metrics
    }

    /// The certificate that serves now ends then.
    pub fn serving_until(&self, expiry: SystemTime) {
        *self.expiry.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(expiry);
    }

    /// A connection did not get through its handshake.
    pub fn handshake_failed(&self) {
        self.handshakes_failed.inc();
    }
}

/// When the certificate ends: a value of its own, because without TLS there is none, and zero would be an alarm.
#[derive(Debug, Clone, Default)]
struct Expiry(Arc<Mutex<Option<SystemTime>>>);

impl Collector for Expiry {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(expiry) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) else { return Ok(()) };
        let at = expiry.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        ConstGauge::new(at).encode(encoder.encode_descriptor(
            "tls_certificate_expiry_timestamp",
            "When the certificate that is shown to callers ends; absent without TLS.",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?)
    }
}

/// How attempts to take over changed files end, for one thing that is made of files.
#[derive(Debug, Clone, Default)]
pub struct ReloadMetrics {
    loaded: Counter,
    refused: Counter,
    pending: Gauge,
}

impl ReloadMetrics {
    /// The new content serves.
    pub fn loaded(&self) {
        self.loaded.inc();
    }

    /// Whether what was read last is something else than what serves.
    pub fn pending(&self, is_pending: bool) {
        self.pending.set(is_pending.into());
    }

    /// The new content is of no use; the old one stays.
    pub fn refused(&self) {
        self.refused.inc();
    }
}

/// The reloads of everything that is made of files.
#[derive(Debug, Clone, Default)]
pub(super) struct Reloads {
    pub(super) tls: ReloadMetrics,
    pub(super) policy: ReloadMetrics,
}

impl Reloads {
    pub(super) fn in_registry(registry: &mut Registry) -> Self {
        let family = Family::<[(&str, &str); 2], Counter>::default();
        let pending = Family::<[(&str, &str); 1], Gauge>::default();
        let of = |what| {
            let ended = |result| family.get_or_create_owned(&[("what", what), ("result", result)]);
            ReloadMetrics {
                loaded: ended("loaded"),
                refused: ended("refused"),
                pending: pending.get_or_create_owned(&[("what", what)]),
            }
        };
        let reloads = Self { tls: of("tls"), policy: of("policy") };
        registry.register(
            "reloads",
            "Files that changed while the gateway ran: loaded, or refused where the new content is unusable",
            family,
        );
        registry.register(
            "reload_pending",
            "1 while what the files hold is not what serves: unusable, unreadable or still changing",
            pending,
        );
        reloads
    }
}
