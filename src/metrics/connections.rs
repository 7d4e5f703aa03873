//! Connections of callers.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use super::series::{Counters, Present, counter, gauge, vocabulary};

vocabulary! {
    /// Why a connection was closed before it was served.
    pub enum RefusedConnection {
        /// As many as allowed were open.
        Full = "full",
        /// Its caller, known by its certificate, had as many as one may.
        CallerOverShare = "caller_over_share",
    }
}

/// What becomes of connections. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ConnectionMetrics {
    open: Gauge,
    accepted: Counter,
    refused: Counters<RefusedConnection>,
}

impl ConnectionMetrics {
    pub(super) fn in_registry(registry: &mut Registry) -> Self {
        Self {
            open: gauge(registry, "connections", "Connections of callers that are open"),
            accepted: counter(registry, "connections_accepted", "Connections of callers that were accepted"),
            refused: Counters::in_registry(
                registry,
                "connections_refused",
                "Connections closed without being served, by whose limit was reached",
                "reason",
            ),
        }
    }

    /// A connection is served from now on.
    pub fn accepted(&self) -> Present {
        self.accepted.inc();
        Present::on(&self.open)
    }

    /// A connection was closed, for want of place.
    pub fn refused(&self, why: RefusedConnection) {
        self.refused.of(why).inc();
    }
}
