//! What is counted, and how it is told: the one room that knows Prometheus.
//!
//! Rooms report through handles of their own ([`CallMetrics`], [`DescribeMetrics`] and so on): methods that say what happened,
//! in plain values and in closed vocabularies ([`CacheOutcome`], [`CallCode`]), whose words the log uses, too. What becomes
//! of that is decided here. A handle holds its counters, so reporting looks nothing up. A default handle belongs to no
//! registry; it costs what a real one costs and is read by nobody. All series but those of the credentials exist from the
//! start, so that the first event is a change.
//!
//! No label names an account, a vault or a job: callers choose those, and each would be a series for ever.

use std::{fmt, sync::Arc};

use prometheus_client::{encoding::text, metrics::info::Info, registry::Registry};

mod admission;
mod answers;
mod cache;
mod calls;
mod connections;
mod credentials;
mod exposition;
mod histogram;
mod logs;
mod policy;
mod process;
mod reading;
mod series;
mod tls;
mod traces;
mod upstream;

use cache::CacheReadings;
use reading::Reading;
pub use {
    admission::AdmissionMetrics,
    answers::{CacheOutcome, DescribeMetrics},
    cache::{CacheMetrics, Eviction},
    calls::{CallCode, CallMetrics, Method, OpenLimit},
    connections::{ConnectionMetrics, RefusedConnection},
    credentials::CredentialMetrics,
    exposition::Exposition,
    logs::LogMetrics,
    policy::PolicyMetrics,
    series::Present,
    tls::{ReloadMetrics, TlsMetrics},
    traces::{SpanFate, TraceMetrics},
    upstream::{Attempt, UpstreamCode, UpstreamMetrics},
};

/// What our own names begin with.
const PREFIX: &str = "glacier_gateway";

/// All metrics of one gateway. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    ready: Reading,
    calls: CallMetrics,
    describe: DescribeMetrics,
    cache: CacheMetrics,
    cache_readings: CacheReadings,
    upstream: UpstreamMetrics,
    credentials: CredentialMetrics,
    connections: ConnectionMetrics,
    logs: LogMetrics,
    policy: PolicyMetrics,
    tls: TlsMetrics,
    reloads: tls::Reloads,
    traces: TraceMetrics,
}

impl Metrics {
    /// Metrics of a gateway at which nothing has happened yet.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(process::Process));
        let calls = CallMetrics::in_registry(&mut registry, PREFIX);
        let ours = registry.sub_registry_with_prefix(PREFIX);
        ours.register("build", "The gateway's version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let ready =
            Reading::in_registry(ours, "ready", "1 while calls are welcome, as the probes for readiness are told");
        let describe = DescribeMetrics::in_registry(ours);
        let (cache, cache_readings) = (CacheMetrics::in_registry(ours), CacheReadings::in_registry(ours));
        let upstream = UpstreamMetrics::in_registry(ours);
        let credentials = CredentialMetrics::in_registry(ours);
        let connections = ConnectionMetrics::in_registry(ours);
        let (logs, policy) = (LogMetrics::in_registry(ours), PolicyMetrics::in_registry(ours));
        let (tls, reloads) = (TlsMetrics::in_registry(ours), tls::Reloads::in_registry(ours));
        let traces = TraceMetrics::in_registry(ours);
        Self {
            registry: Arc::new(registry),
            ready,
            calls,
            describe,
            cache,
            cache_readings,
            upstream,
            credentials,
            connections,
            logs,
            policy,
            tls,
            reloads,
            traces,
        }
    }

    /// Whether calls are welcome is read so.
    pub fn read_readiness(&self, is_ready: impl Fn() -> bool + Send + Sync + 'static) {
        self.ready.from(move || u64::from(is_ready()));
    }

    /// Where calls are reported.
    pub fn calls(&self) -> &CallMetrics {
        &self.calls
    }

    /// Where answers and fetches are reported.
    pub fn describe(&self) -> &DescribeMetrics {
        &self.describe
    }

    /// Where evictions are reported.
    pub fn cache(&self) -> &CacheMetrics {
        &self.cache
    }

    /// How many entries there are, what they weigh and what they may weigh, in bytes, is read so.
    pub fn read_cache(
        &self,
        entries: impl Fn() -> u64 + Send + Sync + 'static,
        weight: impl Fn() -> u64 + Send + Sync + 'static,
        capacity: u64,
    ) {
        self.cache_readings.entries.from(entries);
        self.cache_readings.weight.from(weight);
        self.cache_readings.capacity.from(move || capacity);
    }

    /// Where requests to Glacier are reported.
    pub fn upstream(&self) -> &UpstreamMetrics {
        &self.upstream
    }

    /// Where loads of credentials are reported.
    pub fn credentials(&self) -> &CredentialMetrics {
        &self.credentials
    }

    /// Where connections are reported.
    pub fn connections(&self) -> &ConnectionMetrics {
        &self.connections
    }

    /// Where TLS with callers is reported.
    pub fn tls(&self) -> &TlsMetrics {
        &self.tls
    }

    /// Where reloads of certificates are reported.
    pub fn tls_reloads(&self) -> &ReloadMetrics {
        &self.reloads.tls
    }

    /// Where denials of the policy are reported.
    pub fn policy(&self) -> &PolicyMetrics {
        &self.policy
    }

    /// Where reloads of the policy are reported.
    pub fn policy_reloads(&self) -> &ReloadMetrics {
        &self.reloads.policy
    }

    /// Where the export of spans is reported.
    pub fn traces(&self) -> &TraceMetrics {
        &self.traces
    }

    /// Where the log reports what it could not write, and panics.
    pub fn logs(&self) -> &LogMetrics {
        &self.logs
    }

    /// Everything, as text.
    pub fn encode(&self, exposition: Exposition) -> Result<String, fmt::Error> {
        let mut told = String::new();
        text::encode(&mut told, &self.registry)?;
        match exposition {
            Exposition::OpenMetrics => Ok(told),
            Exposition::Classic => exposition::classic(&told),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn series(metrics: &Metrics) -> Vec<String> {
        let told = metrics.encode(Exposition::OpenMetrics).unwrap_or_default();
        assert!(told.ends_with("# EOF\n"), "{told}");
        told.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn what_has_not_happened_is_zero_and_credentials_are_absent() {
        let told = series(&Metrics::new());
        assert!(!told.iter().any(|line| line.contains("provider=")), "{told:?}");
        let is_of_the_process = |line: &str| line.starts_with("process_") || line.contains("build_info");
        for line in told.iter().filter(|line| !is_of_the_process(line)) {
            assert!(line.ends_with(" 0") || line.ends_with("_sum 0.0") || line.ends_with("} 0.0"), "{line}");
        }
        let version = env!("CARGO_PKG_VERSION");
        assert!(told.contains(&format!("glacier_gateway_build_info{{version=\"{version}\"}} 1")), "{told:?}");
        for code in CallCode::ALL {
            let (name, code) = ("grpc_server_handled_total", code.name());
            let method = "grpc_type=\"unary\",grpc_service=\"glacier.jobs.v1.JobService\",grpc_method=\"DescribeJob\"";
            // The crate writes the labels of a series in the order in which they were given.
            let line = format!("{name}{{{method},grpc_code=\"{code}\"}} 0");
            assert!(told.contains(&line), "{line}");
        }
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
