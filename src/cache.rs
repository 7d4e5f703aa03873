//! What we know about jobs: the store, and the one door through which knowledge enters it.
//!
//! moka stores, weighs and evicts. Whether something is fresh is decided elsewhere ([`crate::freshness`]) from the value
//! itself: moka's clock cannot be paused and its expiry is only the hard end of life. This is the only file that imports
//! moka.
//!
//! Whoever learns something about a job brings it to [`JobCache::observe`], which holds the rule that knowledge never goes
//! backwards and never gets stuck: an older observation never replaces a newer one, and what contradicts the end of a job, or
//! what Glacier promises to remember, has to be said again and again before it is believed.

use std::{fmt, sync::Arc, time::Duration};

use foldhash::quality::RandomState;
use moka::{
    Entry, Expiry,
    notification::RemovalCause,
    ops::compute::{CompResult, Op},
    sync::Cache,
};
use tokio::time::Instant;

use crate::{
    clock::Clock,
    freshness::FreshnessSettings,
    job::JobKey,
    metrics::{CacheMetrics, Eviction},
    upstream::UpstreamError,
};

mod knowledge;
mod name;

use name::{Name, Namer};

use knowledge::Judgement;
pub use knowledge::{Description, End, Failure, Finding, Given, Knowledge, Learnt, Observation, Promise, Rejected};

/// Limits of the store.
#[derive(Debug, Clone)]
pub struct CacheSettings {
    /// Most bytes that keys, values and the store's own overhead may take together.
    pub capacity_bytes: u64,
}

impl Default for CacheSettings {
    fn default() -> Self {
        // About 120,000 jobs of typical size.
        Self { capacity_bytes: 128 * 1024 * 1024 }
    }
}

/// What an entry takes beside its message, in bytes: the name, the knowledge, and what moka keeps of it. Measured with a
/// million jobs (`benches/README.md`) and rounded up, which keeps the limit honest.
const ENTRY_OVERHEAD: usize = 500;

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct JobCache {
    entries: Cache<Name, Knowledge, RandomState>,
    namer: Namer,
    settings: Arc<FreshnessSettings>,
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
        let weigh =
            |_: &Name, knowledge: &Knowledge| u32::try_from(knowledge.heap_size() + ENTRY_OVERHEAD).unwrap_or(u32::MAX);
        let let_go = move |_, _, cause| match cause {
            RemovalCause::Expired => metrics.evicted(Eviction::Expired),
            RemovalCause::Size => metrics.evicted(Eviction::Capacity),
            // What is replaced stays known, and nobody removes.
            RemovalCause::Replaced | RemovalCause::Explicit => {}
        };
        let settings = Arc::new(settings);
        let hard_end = HardEnd { clock };
        let entries = Cache::builder()
            .max_capacity(limits.capacity_bytes)
            .weigher(weigh)
            .expire_after(hard_end)
            .eviction_listener(let_go)
            .build_with_hasher(RandomState::default());
        Self { entries, namer: Namer::default(), settings }
    }

    /// The policy that this store applies.
    pub fn settings(&self) -> &FreshnessSettings {
        &self.settings
    }

    /// What is known about a job.
    pub fn get(&self, key: &JobKey) -> Option<Knowledge> {
        self.entries.get(&self.namer.name(key))
    }

    /// Takes in what Glacier said. Returns what is known afterwards, and why the observation was rejected if it was.
    pub fn observe(&self, key: &JobKey, observation: Observation) -> (Knowledge, Option<Rejected>) {
        let mut rejected = None;
        let known = self.update(key, |before| match before.after(observation, fastrand::f64(), &self.settings) {
            Judgement::Believed(after) => Some(after),
            Judgement::Doubted(after) => {
                rejected = Some(Rejected::Contradictory { first: after.is_contradicted_once() });
                Some(after)
            }
            Judgement::Older => {
                rejected = Some(Rejected::Older);
                None
            }
        });
        (known, rejected)
    }

    /// Takes in that asking failed, at `at`. Returns what is known afterwards.
    pub fn observe_failure(&self, key: &JobKey, error: Arc<UpstreamError>, at: Instant) -> Knowledge {
        self.update(key, |before| Some(before.after_failure(error, at, &self.settings)))
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

    /// Changes one job's knowledge atomically, or leaves it if `change` gives none.
    fn update(&self, key: &JobKey, change: impl FnOnce(&Knowledge) -> Option<Knowledge>) -> Knowledge {
        let result = self.entries.entry(self.namer.name(key)).and_compute_with(|entry| {
            let before = entry.map(Entry::into_value).unwrap_or_default();
            change(&before).map_or(Op::Nop, Op::Put)
        });
        match result {
            CompResult::Inserted(entry) | CompResult::ReplacedWith(entry) | CompResult::Unchanged(entry) => {
                entry.into_value()
            }
            CompResult::StillNone(_) | CompResult::Removed(_) => Knowledge::default(),
        }
    }
}

impl fmt::Debug for JobCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobCache").field("entries", &self.entries.entry_count()).finish_non_exhaustive()
    }
}

/// The hard end of life. Both hooks give the same: moka's default for an update keeps the *old* remaining time.
struct HardEnd {
    clock: Clock,
}

impl HardEnd {
    fn of(&self, knowledge: &Knowledge) -> Duration {
        knowledge.worth_keeping(self.clock.now().instant)
    }
}

impl Expiry<Name, Knowledge> for HardEnd {
    fn expire_after_create(&self, _: &Name, knowledge: &Knowledge, _: std::time::Instant) -> Option<Duration> {
        Some(self.of(knowledge))
    }

    fn expire_after_update(
        &self,
        _: &Name,
        knowledge: &Knowledge,
        _: std::time::Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(self.of(knowledge))
    }
}
