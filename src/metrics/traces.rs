//! Spans, on their way to a collector.

use prometheus_client::registry::Registry;

use super::series::{Counters, vocabulary};

vocabulary! {
    /// What became of a span that was recorded.
    pub enum SpanFate {
        /// The collector has taken it.
        Exported = "exported",
        /// The collector did not take it, or could not be reached in time.
        Failed = "failed",
        /// Too many were waiting.
        Dropped = "dropped",
    }
}

/// What becomes of spans. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct TraceMetrics {
    spans: Counters<SpanFate>,
}

impl TraceMetrics {
    pub(super) fn in_registry(registry: &mut Registry) -> Self {
        let help = "Spans that were recorded, by what became of them";
        Self { spans: Counters::in_registry(registry, "trace_spans", help, "result") }
    }

    /// This has become of so many.
    pub fn spans(&self, fate: SpanFate, count: usize) {
        self.spans.of(fate).inc_by(count as u64);
    }

    /// Of how many it has, so far.
    pub fn spans_so_far(&self, fate: SpanFate) -> u64 {
        self.spans.of(fate).get()
    }
}
