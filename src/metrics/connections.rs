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
        /// It was the oldest of those whose handshake was not complete, and there were too many of them.
        Stranger = "stranger",
    }
}

/// What becomes of connections. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ConnectionMetrics {
    open: Gauge,
    strangers: Gauge,
    accepted: Counter,
    refused: Counters<RefusedConnection>,
}

impl ConnectionMetrics {
    pub(super) fn in_registry(registry: &mut Registry) -> Self {
        Self {
            open: gauge(
                registry,
                "connections",
                "Connections of callers that are open and whose handshake is complete",
            ),
            strangers: gauge(
                registry,
                "connections_strangers",
                "Connections whose TLS handshake or HTTP/2 preface is not complete",
            ),
            accepted: counter(
                registry,
                "connections_accepted",
                "Connections of callers whose handshake was completed and that were served",
            ),
            refused: Counters::in_registry(
                registry,
                "connections_refused",
                "Connections closed without being served, by whose limit was reached",
                "reason",
            ),
        }
    }

    /// A connection has come, and says who it is from now on.
    pub fn stranger(&self) -> Present {
        Present::on(&self.strangers)
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
