//! gRPC calls, under the names that dashboards of gRPC services query (those of go-grpc-prometheus).

use std::{sync::Arc, time::Duration};

use prometheus_client::{metrics::counter::Counter, registry::Registry};

use super::{
    histogram::{Histogram, Tick},
    series::{Counters, Series, Word as _, vocabulary},
};

/// The latency buckets of gRFC A66, in microseconds; without its 0, which no call takes.
const BOUNDS: [u64; 40] = [
    10,
    50,
    100,
    300,
    600,
    800,
    1000,
    2000,
    3000,
    4000,
    5000,
    6000,
    8000,
    10_000,
    13_000,
    16_000,
    20_000,
    25_000,
    30_000,
    40_000,
    50_000,
    65_000,
    80_000,
    100_000,
    130_000,
    160_000,
    200_000,
    250_000,
    300_000,
    400_000,
    500_000,
    650_000,
    800_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
];

vocabulary! {
    /// The methods that are served. Whatever else is called is one: callers choose no series.
    pub enum Method {
        /// `glacier.jobs.v1.JobService/DescribeJob`.
        DescribeJob = "/glacier.jobs.v1.JobService/DescribeJob",
        /// `grpc.health.v1.Health/Check`.
        HealthCheck = "/grpc.health.v1.Health/Check",
        /// `grpc.health.v1.Health/Watch`.
        HealthWatch = "/grpc.health.v1.Health/Watch",
        /// Server reflection.
        Reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        /// Server reflection, its older name.
        ReflectionAlpha = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        /// Any other path.
        Unknown = "/unknown/unknown",
    }
}

vocabulary! {
    /// gRPC's status codes in Go's spelling, which dashboards query.
    pub enum CallCode {
        /// 0.
        Ok = "OK",
        /// 1. Also of calls whose caller went away before the answer.
        Canceled = "Canceled",
        /// 2.
        Unknown = "Unknown",
        /// 3.
        InvalidArgument = "InvalidArgument",
        /// 4.
        DeadlineExceeded = "DeadlineExceeded",
        /// 5.
        NotFound = "NotFound",
        /// 6.
        AlreadyExists = "AlreadyExists",
        /// 7.
        PermissionDenied = "PermissionDenied",
        /// 8.
        ResourceExhausted = "ResourceExhausted",
        /// 9.
        FailedPrecondition = "FailedPrecondition",
        /// 10.
        Aborted = "Aborted",
        /// 11.
        OutOfRange = "OutOfRange",
        /// 12.
        Unimplemented = "Unimplemented",
        /// 13.
        Internal = "Internal",
        /// 14.
        Unavailable = "Unavailable",
        /// 15.
        DataLoss = "DataLoss",
        /// 16.
        Unauthenticated = "Unauthenticated",
    }
}

vocabulary! {
    /// What limits open calls.
    pub enum OpenLimit {
        /// Calls of all kinds in the process.
        All = "all",
        /// Those that wait for Glacier.
        Waiting = "waiting",
        /// Those whose request is not complete: the oldest was ended.
        Unfinished = "unfinished",
        /// Reflection, and health checks whose request is not complete: the oldest was ended.
        Others = "others",
        /// Calls of such a kind on one connection.
        Connection = "connection",
    }
}

impl Method {
    /// The method that a request's path names.
    pub fn of_path(path: &str) -> Self {
        let named = Self::ALL.iter().find(|method| method.name() == path);
        named.copied().unwrap_or(Self::Unknown)
    }

    /// Whether its calls last as long as their streams.
    pub const fn is_streaming(self) -> bool {
        match self {
            Self::HealthWatch | Self::Reflection | Self::ReflectionAlpha => true,
            Self::DescribeJob | Self::HealthCheck | Self::Unknown => false,
        }
    }

    fn labels(self) -> [(&'static str, &'static str); 3] {
        let kind = match self {
            Self::DescribeJob | Self::HealthCheck => "unary",
            Self::HealthWatch => "server_stream",
            Self::Reflection | Self::ReflectionAlpha => "bidi_stream",
            Self::Unknown => "unknown",
        };
        let (service, method) = self.name().trim_start_matches('/').split_once('/').unwrap_or_default();
        [("grpc_type", kind), ("grpc_service", service), ("grpc_method", method)]
    }
}

/// What becomes of calls. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CallMetrics {
    /// By [`Method`].
    methods: Arc<[MethodMetrics]>,
    refused: Counters<OpenLimit>,
}

#[derive(Debug)]
struct MethodMetrics {
    started: Counter,
    /// By [`CallCode`].
    handled: Vec<Counter>,
    seconds: Histogram,
}

impl CallMetrics {
    /// What has no name of go-grpc-prometheus gets one with our `prefix`.
    pub(super) fn in_registry(registry: &mut Registry, prefix: &str) -> Self {
        let metrics = Self { refused: Self::refused_in(registry.sub_registry_with_prefix(prefix)), ..Self::default() };
        let methods = || Method::ALL.iter().zip(metrics.methods.iter());
        let started = methods().map(|(method, of)| (method.labels(), of.started.clone()));
        registry.register("grpc_server_started", "Calls that came in", Series(started.collect()));
        let handled = methods().flat_map(|(method, of)| {
            let [kind, service, name] = method.labels();
            let codes = CallCode::ALL.iter().zip(&of.handled);
            codes.map(move |(code, count)| ([kind, service, name, ("grpc_code", code.name())], count.clone()))
        });
        registry.register("grpc_server_handled", "Calls that ended, however they did", Series(handled.collect()));
        let seconds = methods().map(|(method, of)| (method.labels(), of.seconds.clone()));
        registry.register("grpc_server_handling_seconds", "How long calls took", Series(seconds.collect()));
        metrics
    }

    fn refused_in(ours: &mut Registry) -> Counters<OpenLimit> {
        let help = "Calls ended because as many as allowed were open, by the limit";
        Counters::in_registry(ours, "open_calls_refused", help, "limit")
    }

    /// As many calls as allowed were open.
    pub fn refused(&self, limit: OpenLimit) {
        self.refused.of(limit).inc();
    }

    /// A call has come in.
    pub fn started(&self, method: Method) {
        self.methods[method.index()].started.inc();
    }

    /// A call has ended: answered, refused, or left by its caller.
    pub fn handled(&self, method: Method, code: CallCode, took: Duration) {
        let method = &self.methods[method.index()];
        method.handled[code.index()].inc();
        method.seconds.observe(took);
    }
}

impl Default for CallMetrics {
    fn default() -> Self {
        let bounds = BOUNDS.map(Duration::from_micros);
        let of_method = |_: &Method| MethodMetrics {
            started: Counter::default(),
            handled: CallCode::ALL.iter().map(|_| Counter::default()).collect(),
            seconds: Histogram::new(Tick::Nanosecond, &bounds),
        };
        Self { methods: Method::ALL.iter().map(of_method).collect(), refused: Counters::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_paths_of_methods_are_known() {
        for method in Method::ALL.iter().filter(|method| **method != Method::Unknown) {
            assert_eq!(Method::of_path(method.name()), *method);
        }
        for path in
            ["", "/", "/glacier.jobs.v1.JobService/", "/glacier.jobs.v1.JobService/DescribeJob/", "/unknown/unknown"]
        {
            assert_eq!(Method::of_path(path), Method::Unknown, "{path}");
        }
    }

    #[test]
    fn the_buckets_rise() {
        assert!(BOUNDS.is_sorted_by(|a, b| a < b));
    }
}
