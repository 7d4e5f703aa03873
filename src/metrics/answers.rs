//! How answers come about: from memory or from fetches, and how old they are.

use std::time::Duration;

use prometheus_client::{metrics::counter::Counter, registry::Registry};

use super::{
    admission::AdmissionMetrics,
    histogram::{Histogram, Tick},
    series::{Counters, counter, vocabulary},
};

/// From an answer that has just come to one that will never change again: seconds, minutes, hours, two days.
const AGE_BOUNDS: [u64; 14] = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 3600, 21_600, 86_400, 172_800];

vocabulary! {
    /// How the cache came by an outcome: the words of labels and logs. `cache-status` (RFC 9211) says the same to callers.
    pub enum CacheOutcome {
        /// From memory, fresh.
        Hit = "hit",
        /// Glacier was asked: nothing usable was known.
        Miss = "miss",
        /// Glacier was asked: what was known is no longer fresh.
        Stale = "stale",
        /// Glacier was asked: what was known is older than the caller's `max_age`.
        Request = "request",
        /// Somebody else's question to Glacier was joined.
        Collapsed = "collapsed",
        /// From memory, no longer fresh, because Glacier failed.
        StaleIfError = "stale_if_error",
        /// From memory, no longer fresh, because Glacier is slow.
        StaleWhileRevalidate = "stale_while_revalidate",
        /// From memory, no longer fresh, because the caller's deadline came first.
        StaleAtDeadline = "stale_at_deadline",
        /// From memory, no longer fresh, because this replica ends.
        StaleWhileDraining = "stale_while_draining",
        /// From memory, no longer fresh, because too many callers wait already.
        StaleIfOverloaded = "stale_if_overloaded",
        /// An error that is only a moment old: too early to ask again.
        Cooldown = "cooldown",
        /// Glacier was not asked: it throttles, and the request's turn would have come too late.
        HeldBack = "held_back",
        /// Glacier was not asked: this replica had enough to do.
        Overloaded = "overloaded",
        /// Glacier was not asked: the caller that would have started the fetch had its share.
        OverShare = "over_share",
        /// Glacier was not asked: there were no credentials, or the time was over before the request's turn came.
        NotSent = "not_sent",
    }
}

vocabulary! {
    /// How a refresh ended that nobody waited for.
    enum Refresh {
        /// Something was learnt.
        Succeeded = "succeeded",
        /// Nothing was.
        Failed = "failed",
    }
}

/// What the use case does. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DescribeMetrics {
    outcomes: Counters<CacheOutcome>,
    age: Histogram,
    refreshes: Counters<Refresh>,
    unrecognized: Counter,
    contradicted: Counter,
    admission: AdmissionMetrics,
}

impl DescribeMetrics {
    pub(super) fn in_registry(registry: &mut Registry) -> Self {
        let outcomes = Counters::in_registry(
            registry,
            "cache_requests",
            "Questions about jobs that were answered, well or badly, by how the cache came by the outcome",
            "outcome",
        );
        let age = new_age();
        registry.register("answer_age_seconds", "How old descriptions were when they were given", age.clone());
        let refreshes = Counters::in_registry(
            registry,
            "refreshes",
            "Fetches for answers that were asked for often and about to expire, for which nobody waited, by how they ended",
            "result",
        );
        Self {
            outcomes,
            age,
            refreshes,
            unrecognized: counter(
                registry,
                "unrecognized_values",
                "Values in Glacier's job descriptions that the schema could not hold; they were passed on as text",
            ),
            contradicted: counter(
                registry,
                "contradictions",
                "Answers of Glacier's that contradicted what it had said before, and were not believed yet",
            ),
            admission: AdmissionMetrics::in_registry(registry),
        }
    }

    /// Somebody got an outcome; `age` is that of a description.
    pub fn answered(&self, outcome: CacheOutcome, age: Option<Duration>) {
        self.outcomes.of(outcome).inc();
        if let Some(age) = age {
            self.age.observe(age);
        }
    }

    /// A fetch that nobody waited for has ended.
    pub fn refreshed(&self, succeeded: bool) {
        self.refreshes.of(if succeeded { Refresh::Succeeded } else { Refresh::Failed }).inc();
    }

    /// A description held this many values that the schema could not.
    pub fn unrecognized(&self, values: usize) {
        self.unrecognized.inc_by(u64::try_from(values).unwrap_or(u64::MAX));
    }

    /// An answer contradicted what is known, and was not believed.
    pub fn contradicted(&self) {
        self.contradicted.inc();
    }

    /// Where admission to Glacier is reported.
    pub fn admission(&self) -> &AdmissionMetrics {
        &self.admission
    }
}

fn new_age() -> Histogram {
    Histogram::new(Tick::Millisecond, &AGE_BOUNDS.map(Duration::from_secs))
}

impl Default for DescribeMetrics {
    fn default() -> Self {
        Self {
            outcomes: Counters::default(),
            age: new_age(),
            refreshes: Counters::default(),
            unrecognized: Counter::default(),
            contradicted: Counter::default(),
            admission: AdmissionMetrics::default(),
        }
    }
}
