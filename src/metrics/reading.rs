//! Gauges whose value lives elsewhere and is read when it is asked for, so that keeping them costs nothing.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder},
    metrics::MetricType,
    registry::Registry,
};

type Read = Box<dyn Fn() -> u64 + Send + Sync>;

/// A gauge of which somebody says later how it is read; until then it is zero. Clones share that.
#[derive(Clone, Default)]
pub(super) struct Reading(Arc<OnceLock<Read>>);

impl Reading {
    pub(super) fn in_registry(registry: &mut Registry, name: &str, help: &str) -> Self {
        let reading = Self::default();
        registry.register(name, help, reading.clone());
        reading
    }

    /// Reads the value so from now on; the first to say so is right. What `read` holds lives as long as the metrics do.
    pub(super) fn from(&self, read: impl Fn() -> u64 + Send + Sync + 'static) {
        let _kept_first = self.0.set(Box::new(read));
    }

    fn value(&self) -> u64 {
        self.0.get().map_or(0, |read| read())
    }
}

impl EncodeMetric for Reading {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_gauge(&self.value())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reading")
    }
}
