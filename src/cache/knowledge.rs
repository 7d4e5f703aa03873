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
    upstream::{UpstreamError, UpstreamErrorKind},
};

/// How long the end of a job is remembered once Glacier may have forgotten the job, so that a late caller still hears
/// `JOB_EXPIRED`.
const END_REMEMBERED: Duration = Duration::from_hours(24);
/// So many answers that contradict what is known are believed,
const CONVINCING: u32 = 3;
/// if the last was asked for at least this long after the first: a replica at Glacier that lags behind the others, or a single
/// wrong answer, is over by then.
const CONVINCING_AFTER: Duration = Duration::from_secs(30);
/// How long no other answer is asked for after one that contradicts what is known. Three of these make a convincing time.
const CONTRADICTION_COOLDOWN: Duration = Duration::from_secs(10);
/// The longest time for which nothing is asked after fetches that got no answer in time.
const LONGEST_COOLDOWN: Duration = Duration::from_secs(30);

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
    /// Encodes the answer once, for all who will get it. `observed` is the date of the question, by Glacier's clock.
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

/// What Glacier said, and when it was asked.
#[derive(Debug, Clone)]
pub struct Observation {
    /// What it said.
    pub finding: Finding,
    /// When it was asked. Orders observations, and ages count from here; the date is by Glacier's clock.
    pub asked_at: Moment,
}

/// What is kept of an observation: what is given, and for how long. There may be a million of these, so what policy had to
/// know of a description, and has used, is not among it.
#[derive(Debug, Clone)]
pub struct Learnt {
    /// What is given.
    pub given: Given,
    asked_at: Instant,
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
    /// The age at `now`, counted from when it was asked for.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.asked_at)
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
    at: Instant,
    /// How long from then no other fetch is started.
    cooldown: Duration,
    /// How many fetches in a row got no answer in time, this one included. A failure of another kind
    /// ends the row if Glacier may have answered.
    timeouts: u32,
}

impl Failure {
    /// When the next fetch may be started.
    pub fn over_at(&self) -> Instant {
        self.at + self.cooldown
    }

    /// Until when it matters how long the cooldown was: so long that a fetch can end which starts when it is over.
    fn remembered_until(&self) -> Instant {
        let fetch = if self.timeouts > 0 { LONGEST_COOLDOWN } else { Duration::ZERO };
        self.over_at() + self.cooldown.max(fetch)
    }
}

/// Answers that contradict what is known, and have not convinced yet.
#[derive(Debug, Clone, Copy)]
struct Contradiction {
    first_asked_at: Instant,
    count: u32,
}

/// What stands in the way of the next answer.
#[derive(Debug, Clone, Default)]
struct Trouble {
    failure: Option<Failure>,
    contradiction: Option<Contradiction>,
}

/// All that is known about one job.
#[derive(Debug, Clone, Default)]
pub struct Knowledge {
    /// The last thing that Glacier said and that was believed.
    pub learnt: Option<Learnt>,
    /// That the job has ended, once we have seen that it has; outlives the description.
    pub end: Option<End>,
    /// Apart, since most jobs have none.
    trouble: Option<Arc<Trouble>>,
}

/// The end of a job, seen here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// What follows from `CompletionDate`, if Glacier gave a possible one.
    pub promise: Option<Promise>,
    /// This does not move while Glacier says that the job is gone, however often somebody asks.
    remembered_until: Instant,
}

/// That Glacier remembers a completed job for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    /// `CompletionDate`.
    pub completion: SystemTime,
    /// Until when Glacier remembers the job at least.
    pub until: Instant,
}

impl End {
    fn seen(completion: Option<SystemTime>, asked_at: Moment) -> Self {
        let promise = completion.map(|completion| {
            let until = match (completion + GUARANTEED_LIFE_AFTER_COMPLETION).duration_since(asked_at.wall) {
                Ok(left) => asked_at.instant + left,
                Err(over) => asked_at.instant.checked_sub(over.duration()).unwrap_or(asked_at.instant),
            };
            Promise { completion, until }
        });
        // Glacier may remember a job for longer than it promises.
        let known_until = promise.map_or(asked_at.instant, |promise| promise.until.max(asked_at.instant));
        Self { promise, remembered_until: known_until + END_REMEMBERED }
    }
}

/// What becomes of an observation.
#[derive(Debug)]
pub(super) enum Judgement {
    /// It is what is known now.
    Believed(Knowledge),
    /// It contradicts what is known. That stays, and it is noted that it was contradicted.
    Doubted(Knowledge),
    /// What is known is newer.
    Older,
}

/// Why an observation was not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// We know something newer.
    Older,
    /// It contradicts what Glacier said before: that the job has ended, or something that Glacier promises to remember.
    Contradictory {
        /// Whether it is the first to do so.
        first: bool,
    },
}

impl Knowledge {
    /// What is known once `observation` is taken in; or why it is not.
    ///
    /// A completed job does not run again, and what Glacier promises to remember does not vanish. Whoever says otherwise may
    /// be wrong once or twice, but not for ever.
    pub(super) fn after(&self, observation: Observation, random: f64, settings: &FreshnessSettings) -> Judgement {
        let Observation { finding, asked_at } = observation;
        if self.learnt.as_ref().is_some_and(|known| known.asked_at > asked_at.instant) {
            return Judgement::Older;
        }
        let mut end = self.end.filter(|end| asked_at.instant < end.remembered_until);
        if self.is_contradicted_by(&finding, end, asked_at.instant) {
            let contradiction = self.contradicted_again(asked_at.instant);
            if !contradiction.is_convincing(asked_at.instant) {
                return Judgement::Doubted(self.with_trouble(|trouble| trouble.contradiction = Some(contradiction)));
            }
            // If it is gone, it has broken its promise, so nothing says that its time was over.
            end = match &finding {
                Finding::Described(_) | Finding::Denied(_) => None,
                Finding::Absent(_) => end.map(|end| End { promise: None, ..end }),
            };
        }
        let lifetime = match &finding {
            Finding::Described(description) => {
                if freshness::has_ended(&description.facts) {
                    let seen = End::seen(freshness::completion(&description.facts, asked_at.wall), asked_at);
                    end = Some(End { promise: seen.promise.or(end.and_then(|before| before.promise)), ..seen });
                }
                Lifetime::of_description(&description.facts, asked_at.wall, random, settings)
            }
            Finding::Absent(_) => Lifetime::of_absence(settings),
            Finding::Denied(_) => Lifetime::of_denial(settings),
        };
        let learnt = Learnt { given: finding.into(), asked_at: asked_at.instant, lifetime };
        Judgement::Believed(Self { learnt: Some(learnt), end, trouble: None })
    }

    fn is_contradicted_by(&self, finding: &Finding, end: Option<End>, now: Instant) -> bool {
        match finding {
            Finding::Described(description) => end.is_some() && !freshness::says_ended(&description.facts),
            Finding::Absent(_) => match (end, &self.learnt) {
                (Some(end), _) => end.promise.is_some_and(|promise| now < promise.until),
                // A job in progress has yet to complete, and is remembered for as long after that.
                (None, Some(Learnt { given: Given::Description { .. }, asked_at, lifetime: _ })) => {
                    now < *asked_at + GUARANTEED_LIFE_AFTER_COMPLETION
                }
                (None, _) => false,
            },
            Finding::Denied(_) => false,
        }
    }

    fn contradicted_again(&self, now: Instant) -> Contradiction {
        match self.trouble.as_ref().and_then(|trouble| trouble.contradiction) {
            Some(before) => Contradiction { count: before.count.saturating_add(1), ..before },
            None => Contradiction { first_asked_at: now, count: 1 },
        }
    }

    /// Whether what is known has been contradicted once, and not been confirmed since.
    pub(super) fn is_contradicted_once(&self) -> bool {
        let contradiction = self.trouble.as_ref().and_then(|trouble| trouble.contradiction);
        contradiction.is_some_and(|contradiction| contradiction.count == 1)
    }

    /// What is known once a fetch has failed: the same, and that it failed.
    #[must_use]
    pub(super) fn after_failure(&self, error: Arc<UpstreamError>, at: Instant, settings: &FreshnessSettings) -> Self {
        let timeouts = match error.kind {
            UpstreamErrorKind::TimedOut => self.timeouts(at).saturating_add(1),
            // Glacier may have answered, however badly.
            _ if error.sent => 0,
            _ => self.timeouts(at),
        };
        let cooldown = match error.kind {
            UpstreamErrorKind::TimedOut => {
                let doubled = settings.cooldown.saturating_mul(2_u32.saturating_pow(timeouts - 1));
                doubled.min(LONGEST_COOLDOWN.max(settings.cooldown))
            }
            UpstreamErrorKind::Contradictory => CONTRADICTION_COOLDOWN,
            _ => settings.cooldown,
        };
        self.with_trouble(|trouble| trouble.failure = Some(Failure { error, at, cooldown, timeouts }))
    }

    fn with_trouble(&self, change: impl FnOnce(&mut Trouble)) -> Self {
        let mut trouble = self.trouble.as_deref().cloned().unwrap_or_default();
        change(&mut trouble);
        Self { trouble: Some(Arc::new(trouble)), ..self.clone() }
    }

    /// The last failure, if nothing was learnt since.
    pub fn failure(&self) -> Option<&Failure> {
        self.trouble.as_ref().and_then(|trouble| trouble.failure.as_ref())
    }

    /// The failure that still holds back another fetch at `now`.
    pub fn cooling(&self, now: Instant) -> Option<&Failure> {
        self.failure().filter(|failure| now < failure.over_at())
    }

    /// Whether the last fetches got no answer in time, and not long before `now`.
    pub fn is_hanging(&self, now: Instant) -> bool {
        self.timeouts(now) > 0
    }

    /// How many fetches in a row got no answer in time, not long before `now`.
    fn timeouts(&self, now: Instant) -> u32 {
        self.failure().filter(|failure| now < failure.remembered_until()).map_or(0, |failure| failure.timeouts)
    }

    /// How long from `now` any of this can still matter: the hard end of life in the store.
    pub fn worth_keeping(&self, now: Instant) -> Duration {
        let learnt = self.learnt.as_ref().map_or(Duration::ZERO, |l| l.lifetime.usable.saturating_sub(l.age(now)));
        let failure =
            self.failure().map_or(Duration::ZERO, |failure| failure.remembered_until().saturating_duration_since(now));
        let end = self.end.map_or(Duration::ZERO, |end| end.remembered_until.saturating_duration_since(now));
        learnt.max(failure).max(end)
    }

    /// Bytes that this holds on the heap, roughly.
    pub fn heap_size(&self) -> usize {
        let learnt = match self.learnt.as_ref().map(|l| &l.given) {
            Some(Given::Description { message, is_final: _ }) => message.as_bytes().len(),
            Some(Given::Absence(error) | Given::Denial(error)) => error.memory(),
            None => 0,
        };
        let trouble = self.trouble.as_ref().map_or(0, |trouble| {
            size_of::<Trouble>() + trouble.failure.as_ref().map_or(0, |failure| failure.error.memory())
        });
        learnt + trouble
    }
}

impl Contradiction {
    fn is_convincing(self, now: Instant) -> bool {
        self.count >= CONVINCING && now.saturating_duration_since(self.first_asked_at) >= CONVINCING_AFTER
    }
}

#[cfg(test)]
mod tests;
