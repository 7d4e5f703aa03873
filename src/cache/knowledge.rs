//! What is known about one job: the last thing Glacier said, and whether asking failed since.
//!
//! A value, not a response: descriptions, "not there" and refusals are cases of the same [`Observation`], and the rule
//! that knowledge never goes backwards is the pure function [`Knowledge::after`].

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::{
    clock::Moment,
    freshness::{self, FreshnessSettings, JobState, Lifetime},
    job::{GUARANTEED_LIFE_AFTER_COMPLETION, JobFacts},
    proto::{
        LengthPrefixed,
        v1::{DescribeJobResponse, GlacierJobDescription},
    },
    upstream::UpstreamError,
};

/// How long "it was here and it is gone" is remembered, so that a late caller still hears `JOB_EXPIRED`.
const END_REMEMBERED: Duration = Duration::from_hours(24);

/// A description, ready to be given, with what policy has to know of it.
#[derive(Debug, Clone)]
pub struct Description {
    /// The `DescribeJobResponse`.
    pub message: LengthPrefixed,
    /// What policy needs of it.
    pub facts: JobFacts,
    /// The facts, judged when they were observed.
    pub state: JobState,
}

impl Description {
    /// Encodes the answer once, for all who will get it.
    pub fn new(job: GlacierJobDescription, observed: SystemTime) -> Self {
        let facts = JobFacts::of(&job);
        let state = freshness::state(&facts, observed);
        let completion = freshness::completion(&facts, observed);
        let expire_time = completion.map(|date| (date + GUARANTEED_LIFE_AFTER_COMPLETION).into());
        let response = DescribeJobResponse { job: Some(job), observe_time: Some(observed.into()), expire_time };
        Self { message: LengthPrefixed::of(&response), facts, state }
    }
}

/// What Glacier said.
#[derive(Debug, Clone)]
pub enum Finding {
    /// A description.
    Described(Description),
    /// No such job, or no such vault.
    Absent(Arc<UpstreamError>),
    /// The gateway's role may not ask.
    Denied(Arc<UpstreamError>),
}

/// What Glacier said, and when.
#[derive(Debug, Clone)]
pub struct Observation {
    /// What it said.
    pub finding: Finding,
    /// When it was asked; orders observations.
    pub asked_at: Instant,
    /// When it answered; ages count from here.
    pub observed_at: Moment,
}

/// What is kept of an observation: what is given, and for how long. There may be a million of these, so what policy had to
/// know of a description, and has used, is not among it.
#[derive(Debug, Clone)]
pub struct Learnt {
    /// What is given.
    pub given: Given,
    asked_at: Instant,
    observed_at: Instant,
    /// How long that is good for.
    pub lifetime: Lifetime,
}

/// What callers are given.
#[derive(Debug, Clone)]
pub enum Given {
    /// A description.
    Description {
        /// See [`Description::message`].
        message: LengthPrefixed,
        /// Whether nothing in it will change again.
        is_final: bool,
    },
    /// No such job, or no such vault.
    Absence(Arc<UpstreamError>),
    /// The gateway's role may not ask.
    Denial(Arc<UpstreamError>),
}

impl From<Finding> for Given {
    fn from(finding: Finding) -> Self {
        match finding {
            Finding::Described(Description { message, facts: _, state }) => {
                let is_final = match state {
                    JobState::Final { completion: _ } => true,
                    JobState::InProgress | JobState::Doubtful => false,
                };
                Self::Description { message, is_final }
            }
            Finding::Absent(error) => Self::Absence(error),
            Finding::Denied(error) => Self::Denial(error),
        }
    }
}

impl Learnt {
    /// The age at `now`.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.observed_at)
    }

    /// Whether it may be something else the next time, short of an error.
    pub fn may_change(&self) -> bool {
        match self.given {
            Given::Description { message: _, is_final } => !is_final,
            Given::Absence(_) | Given::Denial(_) => false,
        }
    }
}

/// A fetch that brought nothing.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Why.
    pub error: Arc<UpstreamError>,
    /// When the fetch ended.
    pub at: Instant,
}

/// All that is known about one job.
#[derive(Debug, Clone, Default)]
pub struct Knowledge {
    /// The last thing that Glacier said.
    pub learnt: Option<Learnt>,
    /// The last failure, if nothing was learnt since.
    pub failure: Option<Failure>,
    /// That the job has ended, once we have seen that it has; outlives the description.
    pub end: Option<End>,
}

/// The end of a job, seen here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// `CompletionDate`, if Glacier gave a possible one.
    pub completion: Option<SystemTime>,
}

/// Why an observation was not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// We know something newer.
    Older,
    /// It says of a job which we saw complete that it has not.
    Backwards,
}

impl Knowledge {
    /// What is known once `observation` is taken in; or why it is not.
    pub fn after(&self, observation: Observation, random: f64, settings: &FreshnessSettings) -> Result<Self, Rejected> {
        if self.learnt.as_ref().is_some_and(|known| known.asked_at > observation.asked_at) {
            return Err(Rejected::Older);
        }
        let (lifetime, end) = match &observation.finding {
            Finding::Described(description) => {
                if self.end.is_some() && !freshness::says_ended(&description.facts) {
                    return Err(Rejected::Backwards);
                }
                let observed = observation.observed_at.wall;
                let lifetime = Lifetime::of_description(&description.facts, observed, random, settings);
                let completion = freshness::completion(&description.facts, observed);
                let end = freshness::has_ended(&description.facts).then_some(End { completion });
                (lifetime, end.or(self.end))
            }
            Finding::Absent(_) => (Lifetime::of_absence(settings), self.end),
            Finding::Denied(_) => (Lifetime::of_denial(settings), self.end),
        };
        let Observation { finding, asked_at, observed_at } = observation;
        let learnt = Learnt { given: finding.into(), asked_at, observed_at: observed_at.instant, lifetime };
        Ok(Self { learnt: Some(learnt), failure: None, end })
    }

    /// What is known once a fetch has failed: the same, and that it failed.
    #[must_use]
    pub fn after_failure(&self, failure: Failure) -> Self {
        Self { failure: Some(failure), ..self.clone() }
    }

    /// The failure that still holds back another fetch at `now`.
    pub fn cooling(&self, now: Instant, settings: &FreshnessSettings) -> Option<&Failure> {
        self.failure.as_ref().filter(|f| now.saturating_duration_since(f.at) < settings.cooldown)
    }

    /// How long from `now` any of this can still matter: the hard end of life in the store.
    pub fn worth_keeping(&self, now: Instant, settings: &FreshnessSettings) -> Duration {
        let learnt = self.learnt.as_ref().map_or(Duration::ZERO, |l| l.lifetime.usable.saturating_sub(l.age(now)));
        let failure = if self.failure.is_some() { settings.cooldown } else { Duration::ZERO };
        let end = if self.end.is_some() { END_REMEMBERED } else { Duration::ZERO };
        learnt.max(failure).max(end)
    }

    /// Bytes that this holds on the heap, roughly.
    pub fn heap_size(&self) -> usize {
        let learnt = match self.learnt.as_ref().map(|l| &l.given) {
            Some(Given::Description { message, is_final: _ }) => message.as_bytes().len(),
            Some(Given::Absence(error) | Given::Denial(error)) => error.memory(),
            None => 0,
        };
        learnt + self.failure.as_ref().map_or(0, |failure| failure.error.memory())
    }
}

#[cfg(test)]
mod tests;
