//! How long is what we know true? Pure functions of facts, times and a random number; nothing here waits or stores.
//!
//! Two ends matter for every piece of knowledge. Until the end of `fresh` it is given without asking Glacier. From there
//! until the end of `usable` it is given only when Glacier fails ("stale-if-error", RFC 5861). A caller's `max_age` can
//! shorten both and lengthen neither.

use std::time::{Duration, SystemTime};

use crate::{
    job::{GUARANTEED_LIFE_AFTER_COMPLETION, JobFacts},
    proto::v1::{StatusCode, Tier},
};

/// How long each state is believed.
#[derive(Debug, Clone)]
pub struct FreshnessSettings {
    /// In progress, Standard, Bulk or of unknown tier.
    pub in_progress: Duration,
    /// In progress, Expedited: such a job takes minutes, not hours.
    pub expedited: Duration,
    /// How much the two above are spread, as a fraction either way, so that entries made together do not fall due together.
    pub jitter: f64,
    /// A description with a value that we do not understand, or that contradicts itself.
    pub doubtful: Duration,
    /// Completed, and past the 24 h for which Glacier promises to remember: this long at a time.
    pub completed_recheck: Duration,
    /// How long an in-progress or doubtful description stays usable after it was fresh.
    pub stale_in_progress: Duration,
    /// How long after completion a completed description stays usable.
    pub stale_completed: Duration,
    /// No such job, or no such vault.
    pub not_found: Duration,
    /// Glacier refused the gateway's role.
    pub denied: Duration,
    /// After a failed fetch, how long no other is started for the same job.
    pub cooldown: Duration,
    /// The smallest `max_age` that a caller can demand; smaller ones are raised to it.
    pub max_age_floor: Duration,
}

impl Default for FreshnessSettings {
    fn default() -> Self {
        Self {
            in_progress: Duration::from_secs(30),
            expedited: Duration::from_secs(10),
            jitter: 0.1,
            doubtful: Duration::from_secs(10),
            completed_recheck: Duration::from_mins(5),
            stale_in_progress: Duration::from_mins(10),
            stale_completed: Duration::from_hours(48),
            // Whether a brand-new job can be unknown for a moment is not documented, so "not found" lives seconds.
            not_found: Duration::from_secs(5),
            denied: Duration::from_secs(5),
            cooldown: Duration::from_secs(1),
            max_age_floor: Duration::from_secs(1),
        }
    }
}

/// What a description says about the job, as far as we trust it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// Running.
    InProgress,
    /// Ended at this time, and nothing in the description will change again.
    Final {
        /// `CompletionDate`.
        completion: SystemTime,
    },
    /// It holds a value that we do not understand, lacks one that it must have, or contradicts itself.
    Doubtful,
}

/// 2012-01-01, counted from 1970: the vault API is of 2012, so no job is older.
const FIRST_POSSIBLE_JOB: Duration = Duration::from_hours(24 * 15_340);
/// How far Glacier's clock may be ahead of ours before a date counts as a contradiction. Signatures fail at 5 min already.
const CLOCK_TOLERANCE: Duration = Duration::from_mins(15);

/// Judges a description that Glacier gave at `observed`.
pub fn state(facts: &JobFacts, observed: SystemTime) -> JobState {
    let possible = |date| is_possible(date, observed);
    let Some(creation) = facts.creation.filter(|c| !facts.unrecognized && possible(*c)) else {
        return JobState::Doubtful;
    };
    match (facts.completed, facts.status, facts.completion) {
        (Some(false), StatusCode::InProgress, None) => JobState::InProgress,
        (Some(true), StatusCode::Succeeded | StatusCode::Failed, Some(completion))
            if possible(completion) && creation <= completion =>
        {
            JobState::Final { completion }
        }
        _ => JobState::Doubtful,
    }
}

fn is_possible(date: SystemTime, observed: SystemTime) -> bool {
    date >= SystemTime::UNIX_EPOCH + FIRST_POSSIBLE_JOB && date <= observed + CLOCK_TOLERANCE
}

/// Whether a description says that the job has ended, and does not say the contrary as well. Knowledge of an end is kept
/// even where the rest is doubtful: an unknown tier makes no completed job run again.
pub fn has_ended(facts: &JobFacts) -> bool {
    match (facts.completed, facts.status) {
        (Some(true), StatusCode::Succeeded | StatusCode::Failed | StatusCode::Unspecified)
        | (None, StatusCode::Succeeded | StatusCode::Failed) => true,
        (Some(true), StatusCode::InProgress)
        | (None, StatusCode::InProgress | StatusCode::Unspecified)
        | (Some(false), _) => false,
    }
}

/// When the job ended, if it has and its date is a possible one.
pub fn completion(facts: &JobFacts, observed: SystemTime) -> Option<SystemTime> {
    facts.completion.filter(|date| has_ended(facts) && is_possible(*date, observed))
}

/// Whether any part of a description claims an end.
pub fn says_ended(facts: &JobFacts) -> bool {
    facts.completed == Some(true) || matches!(facts.status, StatusCode::Succeeded | StatusCode::Failed)
}

/// The part of its freshness after which something is refreshed early.
const REFRESH_FROM: f64 = 0.8;

/// How long something observed stays fresh and usable, both counted from the observation. `fresh <= usable`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// Given without asking.
    pub fresh: Duration,
    /// Given when asking fails.
    pub usable: Duration,
}

impl Lifetime {
    fn never_stale(fresh: Duration) -> Self {
        Self { fresh, usable: fresh }
    }

    /// The lifetime of a description observed at `observed`. `random` is uniform in [0, 1).
    pub fn of_description(facts: &JobFacts, observed: SystemTime, random: f64, settings: &FreshnessSettings) -> Self {
        match state(facts, observed) {
            JobState::InProgress => {
                let base = match facts.tier {
                    Tier::Expedited => settings.expedited,
                    Tier::Standard | Tier::Bulk | Tier::Unspecified => settings.in_progress,
                };
                let fresh = base.mul_f64(1.0 + settings.jitter * (2.0 * random - 1.0));
                Self { fresh, usable: fresh + settings.stale_in_progress }
            }
            JobState::Final { completion } => {
                let left = |span: Duration| (completion + span).duration_since(observed).unwrap_or_default();
                let promised = left(GUARANTEED_LIFE_AFTER_COMPLETION);
                let fresh = if promised.is_zero() { settings.completed_recheck } else { promised };
                Self { fresh, usable: left(settings.stale_completed).max(fresh) }
            }
            JobState::Doubtful => {
                Self { fresh: settings.doubtful, usable: settings.doubtful + settings.stale_in_progress }
            }
        }
    }

    /// The lifetime of "no such job" or "no such vault".
    pub fn of_absence(settings: &FreshnessSettings) -> Self {
        Self::never_stale(settings.not_found)
    }

    /// The lifetime of "the gateway's role may not ask this".
    pub fn of_denial(settings: &FreshnessSettings) -> Self {
        Self::never_stale(settings.denied)
    }

    /// How likely a hit at this age should start a refresh behind the caller's back: zero until 80 % of the freshness are
    /// gone, one when all is. A key that is asked for often is refreshed early, once; one that is not costs nothing.
    pub fn refresh_probability(self, age: Duration) -> f64 {
        if self.fresh.is_zero() {
            return 0.0;
        }
        let spent = age.as_secs_f64() / self.fresh.as_secs_f64();
        ((spent - REFRESH_FROM) / (1.0 - REFRESH_FROM)).clamp(0.0, 1.0)
    }

    /// What may be done with something of this lifetime at this age, for a caller who accepts at most `max_age`.
    pub fn judge(self, age: Duration, max_age: Option<Duration>) -> Usability {
        if max_age.is_some_and(|limit| age > limit) {
            return if age < self.usable { Usability::TooOldForCaller } else { Usability::Unusable };
        }
        match age.checked_sub(self.fresh) {
            None => Usability::Fresh { ttl: self.fresh.saturating_sub(age) },
            Some(since) if age < self.usable => Usability::Stale { since },
            Some(_) => Usability::Unusable,
        }
    }
}

/// The verdict of [`Lifetime::judge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usability {
    /// Give it without asking.
    Fresh {
        /// What is left of its freshness.
        ttl: Duration,
    },
    /// Ask; give it if asking fails.
    Stale {
        /// How long it has not been fresh.
        since: Duration,
    },
    /// Good enough by policy, but this caller demands a newer one: ask, and do not give it even if asking fails.
    TooOldForCaller,
    /// Do not give it.
    Unusable,
}

#[cfg(test)]
#[path = "freshness/tests.rs"]
mod tests;
