//! Jobs whose fate is known, and whether an answer about one is true.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use glacier_gateway::{
    clock::Clock,
    emulator::{EmulatedJob, Emulator, Tier},
    proto::v1::{DescribeJobResponse, GlacierJobDescription, StatusCode},
};
use tokio::time::{Instant, sleep};

use crate::{
    tally::Tally,
    world::{ATTEMPT, FLOOR, JOBS, World},
};

pub(crate) const VAULT: &str = "soaked";
/// How long a job is still asked about after Glacier has forgotten it.
const MOURNING: Duration = Duration::from_secs(6);
/// Glacier's dates have milliseconds, and the emulator reckons with floating point.
const ROUNDING: Duration = Duration::from_millis(2);
/// Requests for one fetch: three attempts, and a free one for a pooled connection that the server had closed.
const ATTEMPTS: usize = 4;

/// How far a job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    InProgress,
    Final,
    Gone,
}

/// What the gateway has said about a job: from here there is no way back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard {
    stage: Option<Stage>,
    observed: SystemTime,
}

/// A job of known fate.
pub(crate) struct Job {
    pub(crate) id: String,
    name: String,
    fails: bool,
    /// It was added between these two.
    added: (SystemTime, SystemTime),
    since: Instant,
    lasting: Duration,
    remembered: Duration,
    heard: Mutex<Heard>,
}

/// The jobs of the moment.
pub(crate) struct Jobs {
    current: Mutex<Vec<Arc<Job>>>,
    clock: Clock,
    tally: Arc<Tally>,
}

impl Jobs {
    pub(crate) fn begin(emulator: &Emulator, clock: &Clock, tally: &Arc<Tally>) -> Self {
        let add = |_| Arc::new(Job::add(emulator, clock, tally));
        Self { current: Mutex::new((0..JOBS).map(add).collect()), clock: clock.clone(), tally: Arc::clone(tally) }
    }

    /// Any of them; the first ones more often than the others.
    pub(crate) fn pick(&self) -> Arc<Job> {
        let current = self.lock();
        let most = if fastrand::bool() { current.len() } else { 20 };
        Arc::clone(&current[fastrand::usize(..most)])
    }

    /// Ends the soak's interest in every job, so that all are counted.
    pub(crate) fn retire_all(&self, emulator: &Emulator) {
        self.lock().drain(..).for_each(|job| job.retire(emulator, &self.tally));
    }

    fn replace_the_gone(&self, emulator: &Emulator) {
        let now = self.clock.now().wall;
        for job in self.lock().iter_mut().filter(|job| job.is_over(now)) {
            job.retire(emulator, &self.tally);
            *job = Arc::new(Job::add(emulator, &self.clock, &self.tally));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Job>>> {
        self.current.lock().unwrap()
    }
}

/// New jobs for those that Glacier has forgotten.
pub(crate) async fn replace_the_gone(world: Arc<World>, until: Instant) {
    while Instant::now() < until {
        world.jobs.replace_the_gone(&world.emulator);
        sleep(Duration::from_millis(100)).await;
    }
}

impl Job {
    fn add(emulator: &Emulator, clock: &Clock, tally: &Tally) -> Self {
        let (lasting, remembered) = (seconds(0..15), seconds(3..12));
        let fails = fastrand::u8(..5) == 0;
        let name = format!("soak-{:016x}", fastrand::u64(..));
        let tier = [Tier::Expedited, Tier::Standard, Tier::Bulk][fastrand::usize(..3)];
        let job = [EmulatedJob::archive(tier), EmulatedJob::inventory(), EmulatedJob::select()];
        let [archive, inventory, select] = job;
        let job = match fastrand::u8(..4) {
            0 => inventory,
            1 => select,
            _ => archive,
        };
        let job = job.with("JobDescription", name.as_str()).lasting(lasting).remembered(remembered);
        let job = if fails { job.failing("soaked") } else { job };
        let before = clock.now();
        let id = emulator.store().add(VAULT, job);
        tally.job_added();
        Self {
            id,
            name,
            fails,
            added: (before.wall, clock.now().wall),
            since: before.instant,
            lasting,
            remembered,
            heard: Mutex::new(Heard { stage: None, observed: SystemTime::UNIX_EPOCH }),
        }
    }

    /// The earliest and the latest moment at which it completes.
    fn completes(&self) -> (SystemTime, SystemTime) {
        (self.added.0 + self.lasting - ROUNDING, self.added.1 + self.lasting + ROUNDING)
    }

    fn is_over(&self, now: SystemTime) -> bool {
        now > self.completes().1 + self.remembered + MOURNING
    }

    /// Forgets the job and counts what it cost: one fetch per floor interval (which no cooldown is shorter than), times
    /// the attempts.
    fn retire(&self, emulator: &Emulator, tally: &Tally) {
        emulator.store().forget(&self.id);
        let fetches = self.since.elapsed().as_secs() / FLOOR.as_secs() + 1;
        let bound = usize::try_from(fetches).unwrap() * ATTEMPTS;
        let requests = emulator.requests_for(&self.id);
        tally.job_retired(requests, bound);
        if requests > bound {
            tally.violation(format!("{requests} upstream requests for one job in {:?}", self.since.elapsed()));
        }
    }

    pub(crate) fn heard(&self) -> Heard {
        *self.heard.lock().unwrap()
    }

    /// Checks a description that came by `now`; `before` was known when it was asked for.
    pub(crate) fn check_description(
        &self,
        response: &DescribeJobResponse,
        before: Heard,
        now: SystemTime,
    ) -> Result<(SystemTime, Stage), String> {
        let job = response.job.as_ref().ok_or("an answer without a job")?;
        let observed = response.observe_time.and_then(|t| SystemTime::try_from(t).ok()).ok_or("no observe_time")?;
        let stage = if job.completed() { Stage::Final } else { Stage::InProgress };
        let (earliest, latest) = self.completes();
        let wrong = |what: &str| Err(format!("{what}: {response:?}, completes within {earliest:?} to {latest:?}"));
        if !self.is_described_by(job) {
            return wrong("a description of another job");
        }
        if observed > now {
            return wrong("an answer from the future");
        }
        let is_true = match stage {
            Stage::InProgress => observed <= latest + ATTEMPT && job.completion_date.is_none(),
            Stage::Final | Stage::Gone => {
                let completion = job.completion_date.and_then(|t| SystemTime::try_from(t).ok());
                observed >= earliest && completion.is_some_and(|at| (earliest..=latest).contains(&at))
            }
        };
        if !is_true {
            return wrong("not what glacier knew");
        }
        if before.stage.is_some_and(|before| stage < before) || observed < before.observed {
            return wrong(&format!("back from {before:?}"));
        }
        self.note(stage, observed);
        Ok((observed, stage))
    }

    /// Checks that "no such job" is true by `now`.
    pub(crate) fn check_gone(&self, reason: &str, now: SystemTime) -> Result<(), String> {
        let forgotten = self.completes().0 + self.remembered;
        if now < forgotten {
            return Err(format!("{reason} at {now:?} about a job that is there until {forgotten:?}"));
        }
        self.note(Stage::Gone, SystemTime::UNIX_EPOCH);
        Ok(())
    }

    fn is_described_by(&self, job: &GlacierJobDescription) -> bool {
        let status = match (job.completed(), self.fails) {
            (false, _) => StatusCode::InProgress,
            (true, false) => StatusCode::Succeeded,
            (true, true) => StatusCode::Failed,
        };
        job.job_id() == self.id
            && job.job_description() == self.name
            && job.vault_arn().ends_with(":vaults/soaked")
            && job.status_code() == status
            && job.unrecognized_values.is_empty()
    }

    fn note(&self, stage: Stage, observed: SystemTime) {
        let mut heard = self.heard.lock().unwrap();
        heard.stage = heard.stage.max(Some(stage));
        heard.observed = heard.observed.max(observed);
    }
}

fn seconds(range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(fastrand::u64(range.start * 1000..range.end * 1000))
}
