//! The log and the bugs that it tells of.

use prometheus_client::{metrics::counter::Counter, registry::Registry};

use super::series::counter;

/// What the log could not tell, and panics. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct LogMetrics {
    dropped: Counter,
    panics: Counter,
}

impl LogMetrics {
    pub(super) fn in_registry(registry: &mut Registry) -> Self {
        Self {
            dropped: counter(
                registry,
                "log_events_dropped",
                "Log events that were not written: stderr does not take them, or not as fast as they come",
            ),
            panics: counter(registry, "panics", "Panics, each of which is a bug; the log has its place"),
        }
    }

    /// This many events will not be written.
    pub fn dropped(&self, events: u64) {
        self.dropped.inc_by(events);
    }

    /// How many were not, so far.
    pub fn dropped_so_far(&self) -> u64 {
        self.dropped.get()
    }

    /// Something panicked.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// How often something did, so far.
    pub fn panics_so_far(&self) -> u64 {
        self.panics.get()
    }
}
