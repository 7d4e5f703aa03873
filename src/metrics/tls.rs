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

/// Handshakes that fail, and until when certificates serve.
#[derive(Debug, Clone, Default)]
pub struct TlsMetrics {
    certificate: Expiry,
    client_ca: Expiry,
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
        registry.register_collector(Box::new(Told {
            name: "tls_certificate_expiry_timestamp",
            help: "When the first of the certificates that are shown to callers ends, intermediate ones included; absent without \
                   TLS.",
            expiry: metrics.certificate.clone(),
        }));
        registry.register_collector(Box::new(Told {
            name: "tls_client_ca_expiry_timestamp",
            help: "When the first of the authorities of callers' certificates ends; absent without any.",
            expiry: metrics.client_ca.clone(),
        }));
        metrics
    }

    /// What serves now ends then: the first of our certificates, and the first of callers' authorities, if there are any.
    pub fn serving_until(&self, certificate: SystemTime, client_ca: Option<SystemTime>) {
        self.certificate.set(Some(certificate));
        self.client_ca.set(client_ca);
    }

    /// A connection did not get through its handshake.
    pub fn handshake_failed(&self) {
        self.handshakes_failed.inc();
    }
}

/// When certificates end: a value of its own, because without TLS there is none, and zero would be an alarm.
#[derive(Debug, Clone, Default)]
struct Expiry(Arc<Mutex<Option<SystemTime>>>);

impl Expiry {
    fn set(&self, at: Option<SystemTime>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }
}

/// A gauge that is there as long as it has a value.
#[derive(Debug)]
struct Told {
    name: &'static str,
    help: &'static str,
    expiry: Expiry,
}

impl Collector for Told {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self { name, help, expiry: Expiry(at) } = self;
        let Some(at) = *at.lock().unwrap_or_else(PoisonError::into_inner) else { return Ok(()) };
        let at = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        ConstGauge::new(at).encode(encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?)
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
