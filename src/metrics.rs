//! What is counted, and how it is told: the one room that knows Prometheus.
//!
//! Rooms report through handles of their own ([`CredentialMetrics`], [`DecodingMetrics`]): methods that say what happened,
//! in plain values. What becomes of that is decided here. A default handle belongs to no registry; it costs what a real
//! one costs and is read by nobody. All series but those of the credentials exist from the start, so that the first
//! event is a change.
//!
//! No label names an account, a vault or a job: callers choose those, and each would be a series for ever.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{MetricType, counter::Counter, family::Family, gauge::ConstGauge, info::Info},
    registry::{Registry, Unit},
};

mod tls;

pub use tls::{ReloadMetrics, TlsMetrics};

/// What every name begins with.
const PREFIX: &str = "glacier_gateway";

/// All metrics of one gateway. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    credentials: CredentialMetrics,
    decoding: DecodingMetrics,
    tls: TlsMetrics,
    reloads: tls::Reloads,
}

impl Metrics {
    /// The media type of [`Metrics::encode`].
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// Metrics of a gateway at which nothing has happened yet.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register("build", "The gateway's version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let credentials = CredentialMetrics::in_registry(&mut registry);
        let decoding = DecodingMetrics::in_registry(&mut registry);
        let (tls, reloads) = (TlsMetrics::in_registry(&mut registry), tls::Reloads::in_registry(&mut registry));
        Self { registry: Arc::new(registry), credentials, decoding, tls, reloads }
    }

    /// Where loads of credentials are reported.
    pub fn credentials(&self) -> &CredentialMetrics {
        &self.credentials
    }

    /// Where decoded descriptions are reported.
    pub fn decoding(&self) -> &DecodingMetrics {
        &self.decoding
    }

    /// Where TLS with callers is reported.
    pub fn tls(&self) -> &TlsMetrics {
        &self.tls
    }

    /// Where reloads of certificates are reported.
    pub fn tls_reloads(&self) -> &ReloadMetrics {
        &self.reloads.tls
    }

    /// Where reloads of the policy are reported.
    pub fn policy_reloads(&self) -> &ReloadMetrics {
        &self.reloads.policy
    }

    /// Everything, in the text format of `OpenMetrics`.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut told = String::new();
        text::encode(&mut told, &self.registry)?;
        Ok(told)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Whose credentials serve, until when, and how loads of them end.
#[derive(Debug, Clone, Default)]
pub struct CredentialMetrics {
    serving: Serving,
    loaded: Counter,
    kept_old: Counter,
    failed: Counter,
}

impl CredentialMetrics {
    fn in_registry(registry: &mut Registry) -> Self {
        let loads = Family::<[(&str, &str); 1], Counter>::default();
        let ended = |result| loads.get_or_create_owned(&[("result", result)]);
        let metrics = Self {
            serving: Serving::default(),
            loaded: ended("loaded"),
            kept_old: ended("kept_old"),
            failed: ended("failed"),
        };
        registry.register(
            "credentials_loads",
            "Loads of AWS credentials: loaded, failed, or kept_old where the old ones last longer than the loaded ones",
            loads,
        );
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
        self.loaded.inc();
    }

    /// A load gave credentials that end sooner than those that serve, which stay.
    pub fn kept_old(&self) {
        self.kept_old.inc();
    }

    /// A load gave none; what serves, stays.
    pub fn failed(&self) {
        self.failed.inc();
    }
}

/// What descriptions held that the schema does not.
#[derive(Debug, Clone, Default)]
pub struct DecodingMetrics {
    unrecognized: Counter,
}

impl DecodingMetrics {
    fn in_registry(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "unrecognized_values",
            "Values in Glacier's job descriptions that the schema could not hold; they were passed on as text",
            metrics.unrecognized.clone(),
        );
        metrics
    }

    /// A description held this many values that the schema could not.
    pub fn unrecognized(&self, values: usize) {
        self.unrecognized.inc_by(u64::try_from(values).unwrap_or(u64::MAX));
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn series(metrics: &Metrics) -> Vec<String> {
        let told = metrics.encode().unwrap_or_default();
        assert!(told.ends_with("# EOF\n"), "{told}");
        told.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn what_has_not_happened_is_zero_and_credentials_are_absent() {
        let told = series(&Metrics::new());
        let version = env!("CARGO_PKG_VERSION");
        let mut expected = vec![
            format!("glacier_gateway_build_info{{version=\"{version}\"}} 1"),
            "glacier_gateway_credentials_loads_total{result=\"failed\"} 0".to_owned(),
            "glacier_gateway_credentials_loads_total{result=\"kept_old\"} 0".to_owned(),
            "glacier_gateway_credentials_loads_total{result=\"loaded\"} 0".to_owned(),
            "glacier_gateway_unrecognized_values_total 0".to_owned(),
            "glacier_gateway_reloads_total{what=\"policy\",result=\"loaded\"} 0".to_owned(),
            "glacier_gateway_reloads_total{what=\"policy\",result=\"refused\"} 0".to_owned(),
            "glacier_gateway_reloads_total{what=\"tls\",result=\"loaded\"} 0".to_owned(),
            "glacier_gateway_reloads_total{what=\"tls\",result=\"refused\"} 0".to_owned(),
            "glacier_gateway_tls_handshakes_failed_total 0".to_owned(),
        ];
        let mut sorted = told;
        sorted.sort();
        expected.sort();
        assert_eq!(sorted, expected);
    }

    #[test]
    fn only_the_provider_that_serves_is_named() {
        let metrics = Metrics::new();
        let credentials = metrics.credentials();
        credentials.loaded("container", Some(UNIX_EPOCH + Duration::from_hours(500_000)));
        credentials.kept_old();
        let told = series(&metrics);
        let has = |told: &[String], line: &str| told.iter().any(|l| l == line);
        assert!(has(&told, "glacier_gateway_credentials_info{provider=\"container\"} 1"), "{told:?}");
        let expiry = "glacier_gateway_credentials_expiry_timestamp_seconds{provider=\"container\"} 1800000000.0";
        assert!(has(&told, expiry), "{told:?}");

        credentials.loaded("environment", None);
        let told = series(&metrics);
        assert!(has(&told, "glacier_gateway_credentials_info{provider=\"environment\"} 1"), "{told:?}");
        assert!(!told.iter().any(|line| line.contains("expiry") || line.contains("container")), "{told:?}");
        assert!(has(&told, "glacier_gateway_credentials_loads_total{result=\"loaded\"} 2"), "{told:?}");
        assert!(has(&told, "glacier_gateway_credentials_loads_total{result=\"kept_old\"} 1"), "{told:?}");
    }
}
