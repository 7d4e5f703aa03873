//! Connections of callers.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use super::series::{Present, counter, gauge};

/// What becomes of connections. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ConnectionMetrics {
    open: Gauge,
    accepted: Counter,
    refused: Counter,
}

impl ConnectionMetrics {
    pub(super) fn in_registry(registry: &mut Registry) -> Self {
        Self {
            open: gauge(registry, "connections", "Connections of callers that are open"),
            accepted: counter(registry, "connections_accepted", "Connections of callers that were accepted"),
            refused: counter(
                registry,
                "connections_refused",
                "Connections closed at once: as many as allowed were open",
            ),
        }
    }

    /// A connection is served from now on.
    pub fn accepted(&self) -> Present {
        self.accepted.inc();
        Present::on(&self.open)
    }

    /// A connection was closed at once, for want of place.
    pub fn refused(&self) {
        self.refused.inc();
    }
}
