//! What the policy denies.

use prometheus_client::{metrics::counter::Counter, registry::Registry};

use super::series::counter;

/// Questions that the policy denies. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct PolicyMetrics {
    denied: Counter,
}

impl PolicyMetrics {
    pub(super) fn in_registry(registry: &mut Registry) -> Self {
        Self { denied: counter(registry, "policy_denied", "Questions that the policy did not allow their callers") }
    }

    /// A caller asked what it may not.
    pub fn denied(&self) {
        self.denied.inc();
    }
}
