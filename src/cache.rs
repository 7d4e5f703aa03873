//! What we know about jobs: the store, and the one door through which knowledge enters it.
//!
//! moka stores, weighs and evicts. Whether something is fresh is decided elsewhere ([`crate::freshness`]) from the value
//! itself: moka's clock cannot be paused and its expiry is only the hard end of life. This is the only file that imports
//! moka.
//!
//! Whoever learns something about a job brings it to [`JobCache::observe`], which holds the rule that knowledge never goes
//! backwards: an older observation never replaces a newer one, and a completed job is never in progress again.

use std::{fmt, sync::Arc, time::Duration};

use foldhash::quality::RandomState;
use moka::{
    Expiry,
    notification::RemovalCause,
    ops::compute::{CompResult, Op},
    sync::Cache,
};

use crate::{
    clock::Clock,
    freshness::FreshnessSettings,
    job::JobKey,
    metrics::{CacheMetrics, Eviction},
};

mod knowledge;

pub use knowledge::{Description, End, Failure, Finding, Given, Knowledge, Learnt, Observation, Rejected};

/// Limits of the store.
#[derive(Debug, Clone)]
pub struct CacheSettings {
    /// Most bytes that keys, values and the store's own overhead may take together.
    pub capacity_bytes: u64,
}

impl Default for CacheSettings {
    fn default() -> Self {
        // About 100,000 jobs of typical size.
        Self { capacity_bytes: 128 * 1024 * 1024 }
    }
}

/// What moka, the key's and the value's allocations cost beyond their contents, per entry, in bytes. Estimated from the
/// sizes of moka's structures; erring upwards keeps the limit honest.
const ENTRY_OVERHEAD: usize = 600;

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct JobCache {
    entries: Cache<JobKey, Entry, RandomState>,
    settings: Arc<FreshnessSettings>,
    clock: Clock,
}

#[derive(Clone)]
struct Entry {
    knowledge: Arc<Knowledge>,
    /// Counted from the moment at which it was stored.
    keep_for: Duration,
}

impl JobCache {
    /// An empty store that reports to nobody.
    pub fn new(limits: &CacheSettings, settings: FreshnessSettings, clock: Clock) -> Self {
        Self::reporting_to(CacheMetrics::default(), limits, settings, clock)
    }

    /// An empty store that reports to `metrics` what it lets go.
    pub fn reporting_to(
        metrics: CacheMetrics,
        limits: &CacheSettings,
        settings: FreshnessSettings,
        clock: Clock,
    ) -> Self {
        let weigh = |key: &JobKey, entry: &Entry| {
            let bytes = key.as_str().len() + entry.knowledge.heap_size() + ENTRY_OVERHEAD;
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let let_go = move |_, _, cause| match cause {
            RemovalCause::Expired => metrics.evicted(Eviction::Expired),
            RemovalCause::Size => metrics.evicted(Eviction::Capacity),
            // What is replaced stays known, and nobody removes.
            RemovalCause::Replaced | RemovalCause::Explicit => {}
        };
        let entries = Cache::builder()
            .max_capacity(limits.capacity_bytes)
            .weigher(weigh)
            .expire_after(HardEnd)
            .eviction_listener(let_go)
            .build_with_hasher(RandomState::default());
        Self { entries, settings: Arc::new(settings), clock }
    }

    /// The policy that this store applies.
    pub fn settings(&self) -> &FreshnessSettings {
        &self.settings
    }

    /// What is known about a job.
    pub fn get(&self, key: &JobKey) -> Option<Arc<Knowledge>> {
        self.entries.get(key).map(|entry| entry.knowledge)
    }

    /// Takes in what Glacier said. Returns what is known afterwards, and why the observation was rejected if it was.
    pub fn observe(&self, key: &JobKey, observation: Observation) -> (Arc<Knowledge>, Option<Rejected>) {
        let mut rejected = None;
        let known = self.update(key, |before| {
            before.after(observation, fastrand::f64(), &self.settings).map_err(|why| rejected = Some(why)).ok()
        });
        (known, rejected)
    }

    /// Takes in that asking failed. Returns what is known afterwards.
    pub fn observe_failure(&self, key: &JobKey, failure: Failure) -> Arc<Knowledge> {
        self.update(key, |before| Some(before.after_failure(failure)))
    }

    /// Carries out what the store has put off (evictions among it) and returns its weight in bytes. For measuring: the
    /// store does this by itself, in passing.
    pub fn settle(&self) -> u64 {
        self.entries.run_pending_tasks();
        self.entries.weighted_size()
    }

    /// How many entries there are, once the store has settled.
    pub fn entry_count(&self) -> u64 {
        self.entries.run_pending_tasks();
        self.entries.entry_count()
    }

    /// Changes one key's knowledge atomically, or leaves it if `change` gives none.
    fn update(&self, key: &JobKey, change: impl FnOnce(&Knowledge) -> Option<Knowledge>) -> Arc<Knowledge> {
        let result = self.entries.entry_by_ref(key).and_compute_with(|entry| {
            let before = entry.map(|e| e.into_value().knowledge).unwrap_or_default();
            match change(&before) {
                Some(after) => {
                    let keep_for = after.worth_keeping(self.clock.now().instant, &self.settings);
                    Op::Put(Entry { knowledge: Arc::new(after), keep_for })
                }
                None => Op::Nop,
            }
        });
        match result {
            CompResult::Inserted(entry) | CompResult::ReplacedWith(entry) | CompResult::Unchanged(entry) => {
                entry.into_value().knowledge
            }
            CompResult::StillNone(_) | CompResult::Removed(_) => Arc::default(),
        }
    }
}

impl fmt::Debug for JobCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobCache").field("entries", &self.entries.entry_count()).finish_non_exhaustive()
    }
}

/// The hard end of life. Both hooks give the same: moka's default for an update keeps the *old* remaining time.
struct HardEnd;

impl Expiry<JobKey, Entry> for HardEnd {
    fn expire_after_create(&self, _: &JobKey, entry: &Entry, _: std::time::Instant) -> Option<Duration> {
        Some(entry.keep_for)
    }

    fn expire_after_update(
        &self,
        _: &JobKey,
        entry: &Entry,
        _: std::time::Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.keep_for)
    }
}
