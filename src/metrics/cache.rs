//! The store: how much it holds, and what it had to let go.

use prometheus_client::registry::Registry;

use super::{
    reading::Reading,
    series::{Counters, vocabulary},
};

vocabulary! {
    /// Why the store let an entry go.
    pub enum Eviction {
        /// It could not matter any more.
        Expired = "expired",
        /// There was no place for it.
        Capacity = "capacity",
    }
}

/// What leaves the store. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct CacheMetrics {
    evictions: Counters<Eviction>,
}

impl CacheMetrics {
    pub(super) fn in_registry(registry: &mut Registry) -> Self {
        Self {
            evictions: Counters::in_registry(
                registry,
                "cache_evictions",
                "Entries that left the store: expired, or for want of capacity (some of them before they were let in)",
                "cause",
            ),
        }
    }

    /// An entry has left the store.
    pub fn evicted(&self, cause: Eviction) {
        self.evictions.of(cause).inc();
    }
}

/// Apart from [`CacheMetrics`]: these hold the store, and the store holds those.
#[derive(Debug, Clone)]
pub(super) struct CacheReadings {
    pub(super) entries: Reading,
    pub(super) weight: Reading,
    pub(super) capacity: Reading,
}

impl CacheReadings {
    pub(super) fn in_registry(registry: &mut Registry) -> Self {
        Self {
            weight: Reading::in_registry(
                registry,
                "cache_weight_bytes",
                "Memory that the store's entries take, overhead included",
            ),
            entries: Reading::in_registry(registry, "cache_entries", "Jobs about which something is known"),
            capacity: Reading::in_registry(
                registry,
                "cache_capacity_bytes",
                "Memory that the store's entries may take",
            ),
        }
    }
}
