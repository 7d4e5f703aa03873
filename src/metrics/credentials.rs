//! Whose AWS credentials serve, how loads of them end, and whether Glacier takes them.

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
        gauge::{ConstGauge, Gauge},
    },
    registry::{Registry, Unit},
};

use super::series::{Counters, vocabulary};

vocabulary! {
    /// How a load ended.
    enum Load {
        /// With credentials, which serve now.
        Loaded = "loaded",
        /// With credentials that end sooner than those that serve.
        KeptOld = "kept_old",
        /// With none.
        Failed = "failed",
    }
}

/// Whose credentials serve, until when, and how loads of them end.
#[derive(Debug, Clone, Default)]
pub struct CredentialMetrics {
    serving: Serving,
    loads: Counters<Load>,
    refused: Gauge,
}

impl CredentialMetrics {
    pub(super) fn in_registry(registry: &mut Registry) -> Self {
        let loads = Counters::in_registry(
            registry,
            "credentials_loads",
            "Loads of AWS credentials: loaded, failed, or kept_old where the old ones last longer than the loaded ones",
            "result",
        );
        let refused = Gauge::default();
        let help = "1 while Glacier refuses the AWS credentials that serve";
        registry.register("credentials_refused", help, refused.clone());
        let metrics = Self { serving: Serving::default(), loads, refused };
        registry.register_collector(Box::new(metrics.serving.clone()));
        metrics
    }

    /// These serve now, without a load of which we know.
    pub fn serving(&self, provider: &'static str, expiry: Option<SystemTime>) {
        self.serving.set(Credentials { provider, expiry });
    }

    /// A load gave these, and they serve now.
    pub fn loaded(&self, provider: &'static str, expiry: Option<SystemTime>) {
        self.serving(provider, expiry);
        self.loads.of(Load::Loaded).inc();
    }

    /// A load gave credentials that end sooner than those that serve, which stay.
    pub fn kept_old(&self) {
        self.loads.of(Load::KeptOld).inc();
    }

    /// Glacier refuses those that serve from now on, or does not any more.
    pub fn refused(&self, refused: bool) {
        self.refused.set(refused.into());
    }

    /// A load gave none; what serves, stays.
    pub fn failed(&self) {
        self.loads.of(Load::Failed).inc();
    }
}

#[derive(Debug, Clone, Copy)]
struct Credentials {
    provider: &'static str,
    expiry: Option<SystemTime>,
}

/// The credentials that serve: a value of its own, so that no scrape sees two providers, or none between them.
#[derive(Debug, Clone, Default)]
struct Serving(Arc<Mutex<Option<Credentials>>>);

impl Serving {
    fn set(&self, credentials: Credentials) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(credentials);
    }

    fn get(&self) -> Option<Credentials> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Serving {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(Credentials { provider, expiry }) = self.get() else { return Ok(()) };
        let labels = [("provider", provider)];
        let help = "The provider whose AWS credentials serve.";
        encoder.encode_descriptor("credentials", help, None, MetricType::Info)?.encode_info(&labels)?;
        let Some(expiry) = expiry else { return Ok(()) };
        let help = "When these credentials end; absent if they do not.";
        let mut gauge =
            encoder.encode_descriptor("credentials_expiry_timestamp", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        let at = expiry.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        ConstGauge::new(at).encode(gauge.encode_family(&labels)?)
    }
}
