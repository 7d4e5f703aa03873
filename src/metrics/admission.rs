//! What holds fetches up, and what was refused for it.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use super::{
    reading::Reading,
    series::{Present, counter, gauge},
};

/// What admission to Glacier does. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct AdmissionMetrics {
    in_flight: Gauge,
    waiting: Gauge,
    rate_limit: Reading,
    held_back: Counter,
    shed: Counter,
    over_share: Counter,
}

impl AdmissionMetrics {
    pub(super) fn in_registry(registry: &mut Registry) -> Self {
        Self {
            in_flight: gauge(registry, "upstream_in_flight", "Fetches under way that may talk to Glacier"),
            waiting: gauge(
                registry,
                "upstream_waiting",
                "Fetches that wait for a place among those in flight, or in flight for their turn under the rate limit",
            ),
            rate_limit: Reading::in_registry(
                registry,
                "upstream_rate_limit",
                "Requests to Glacier allowed in a second since it throttled, in whole ones; 0: not limited",
            ),
            held_back: counter(
                registry,
                "upstream_held_back",
                "Requests, retries too, that were not sent because Glacier throttles and their turn would have come too late",
            ),
            shed: counter(
                registry,
                "upstream_shed",
                "Fetches refused because as many as allowed were in flight and waiting, or no place came free in time; not those \
                 that were refused for their caller's share",
            ),
            over_share: counter(
                registry,
                "caller_over_share",
                "Fetches refused because their caller, known by its certificate, had as many under way, or had started as many \
                 in the last seconds, as one caller may",
            ),
        }
    }

    /// A fetch may talk to Glacier from now on.
    pub fn in_flight(&self) -> Present {
        Present::on(&self.in_flight)
    }

    /// A fetch waits for its place or its turn from now on.
    pub fn waiting(&self) -> Present {
        Present::on(&self.waiting)
    }

    /// How many requests a second are allowed is read so; `None` means any number.
    pub fn read_rate_limit(&self, read: impl Fn() -> Option<f64> + Send + Sync + 'static) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it grows for half a minute from 1"
        )]
        self.rate_limit.from(move || read().map_or(0, |rate| rate as u64));
    }

    /// A request's turn would have come too late.
    pub fn held_back(&self) {
        self.held_back.inc();
    }

    /// A fetch found no place.
    pub fn shed(&self) {
        self.shed.inc();
    }

    /// A fetch was more than its caller's share.
    pub fn over_share(&self) {
        self.over_share.inc();
    }
}
