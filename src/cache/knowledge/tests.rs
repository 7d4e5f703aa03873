//! Which of two observations stands, and how long any of it matters.

use std::sync::LazyLock;

use prost::Message as _;

use super::*;
use crate::{
    proto::{
        MESSAGE_PREFIX,
        v1::{StatusCode, Tier},
    },
    upstream::UpstreamErrorKind as Kind,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// So many seconds after the tests' time started.
fn at(seconds: u64) -> Moment {
    let since = Duration::from_secs(seconds);
    Moment { instant: *START + since, wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000) + since }
}

fn running(tier: Tier) -> GlacierJobDescription {
    GlacierJobDescription {
        completed: Some(false),
        creation_date: Some((at(0).wall - HOUR).into()),
        status_code: StatusCode::InProgress.into(),
        tier: tier.into(),
        ..GlacierJobDescription::default()
    }
}

/// A job that ended when the tests' time started.
fn succeeded() -> GlacierJobDescription {
    GlacierJobDescription {
        completed: Some(true),
        completion_date: Some(at(0).wall.into()),
        status_code: StatusCode::Succeeded.into(),
        ..running(Tier::Standard)
    }
}

fn described(job: GlacierJobDescription) -> Finding {
    Finding::Described(Description::new(job, at(0).wall))
}

fn error(kind: Kind) -> Arc<UpstreamError> {
    Arc::new(UpstreamError::new(kind, true, "scripted"))
}

fn absent() -> Finding {
    Finding::Absent(error(Kind::JobNotFound))
}

fn failed(seconds: u64) -> Failure {
    Failure { error: error(Kind::Unavailable), at: at(seconds).instant }
}

impl Knowledge {
    /// Takes in something asked for and answered at these seconds, without jitter.
    fn told(&self, finding: Finding, asked: u64, answered: u64) -> Result<Self, Rejected> {
        let observation = Observation { finding, asked_at: at(asked).instant, observed_at: at(answered) };
        self.after(observation, 0.5, &FreshnessSettings::default())
    }

    fn tier(&self) -> Option<Tier> {
        let message = self.message()?.message();
        Some(DescribeJobResponse::decode(message).unwrap().job.unwrap().tier())
    }

    fn message(&self) -> Option<&LengthPrefixed> {
        match &self.learnt.as_ref()?.given {
            Given::Description { message, is_final: _ } => Some(message),
            Given::Absence(_) | Given::Denial(_) => None,
        }
    }

    fn kept_for(&self, seconds: u64) -> Duration {
        self.worth_keeping(at(seconds).instant, &FreshnessSettings::default())
    }
}

/// What is known of a job described so at second 0.
fn knowing(job: GlacierJobDescription) -> Knowledge {
    Knowledge::default().told(described(job), 0, 0).unwrap()
}

/// K8.
#[test]
fn of_two_observations_the_one_asked_for_later_stands_whichever_arrives_last() {
    let known = Knowledge::default().told(described(running(Tier::Bulk)), 10, 11).unwrap();
    let late = known.told(described(running(Tier::Expedited)), 9, 20);
    assert_eq!(late.map(|k| k.tier()), Err(Rejected::Older));
    let newer = known.told(described(running(Tier::Expedited)), 11, 12);
    assert_eq!(newer.map(|k| k.tier()), Ok(Some(Tier::Expedited)));
}

/// Nothing says which of the two Glacier saw last; the one that arrived last lives longer.
#[test]
fn of_two_observations_asked_for_at_the_same_instant_the_one_that_arrives_last_stands() {
    let known = knowing(running(Tier::Bulk));
    let other = known.told(described(running(Tier::Expedited)), 0, 1);
    assert_eq!(other.map(|k| k.tier()), Ok(Some(Tier::Expedited)));
    let completed = knowing(succeeded()).told(described(running(Tier::Bulk)), 0, 1);
    assert_eq!(completed.map(|k| k.tier()), Err(Rejected::Backwards), "but never backwards");
}

/// K8.
#[test]
fn a_job_seen_complete_is_never_in_progress_again_even_if_it_was_gone_in_between() {
    let completed = knowing(succeeded());
    let end = Some(End { completion: Some(at(0).wall) });
    assert_eq!(completed.end, end);
    let gone = completed.told(absent(), 1, 1).unwrap();
    for known in [&completed, &gone] {
        let again = known.told(described(running(Tier::Standard)), 2, 2);
        assert_eq!(again.map(|k| k.end), Err(Rejected::Backwards));
        let same = known.told(described(succeeded()), 2, 2);
        assert_eq!(same.map(|k| k.end), Ok(end));
        let contradiction = GlacierJobDescription { completed: Some(true), ..running(Tier::Standard) };
        let doubtful = known.told(described(contradiction), 2, 2);
        assert_eq!(doubtful.map(|k| k.end), Ok(end), "it does not deny the end");
    }
    let alive = knowing(running(Tier::Standard)).told(described(running(Tier::Standard)), 1, 1);
    assert_eq!(alive.map(|k| k.end), Ok(None));
}

#[test]
fn a_failure_takes_nothing_away_and_the_next_answer_forgets_it() {
    let known = knowing(succeeded()).after_failure(failed(1));
    assert_eq!((known.tier(), known.end.is_some(), known.failure.is_some()), (Some(Tier::Standard), true, true));
    for finding in [described(succeeded()), absent(), Finding::Denied(error(Kind::AccessDenied))] {
        assert!(known.told(finding, 2, 2).unwrap().failure.is_none());
    }
}

#[test]
fn a_failure_holds_back_the_next_fetch_until_its_cooldown_is_over() {
    let settings = FreshnessSettings::default();
    let known = Knowledge::default().after_failure(failed(1));
    let over = at(1).instant + settings.cooldown;
    let cools = |known: &Knowledge, now| known.cooling(now, &settings).map(|failure| failure.error.kind);
    assert_eq!(cools(&known, at(1).instant), Some(Kind::Unavailable));
    assert_eq!(cools(&known, over - Duration::from_nanos(1)), Some(Kind::Unavailable));
    assert_eq!(cools(&known, over), None);
    assert_eq!(cools(&known, over + SECOND), None);
    assert_eq!(cools(&Knowledge::default(), at(1).instant), None, "nothing has failed");
}

#[test]
fn an_age_counts_from_the_answer() {
    let learnt = Knowledge::default().told(described(running(Tier::Bulk)), 10, 15).unwrap().learnt.unwrap();
    assert_eq!(learnt.age(at(22).instant), 7 * SECOND);
    assert_eq!(learnt.age(at(12).instant), Duration::ZERO, "it had not arrived");
}

#[test]
fn knowledge_is_kept_as_long_as_any_of_it_can_matter() {
    assert_eq!(Knowledge::default().kept_for(0), Duration::ZERO);
    let job = knowing(running(Tier::Standard));
    assert_eq!([0, 30, 630, 1_000].map(|now| job.kept_for(now).as_secs()), [630, 600, 0, 0]);
    assert_eq!(Knowledge::default().told(absent(), 0, 0).unwrap().kept_for(2), 3 * SECOND);
    let cooldown = FreshnessSettings::default().cooldown;
    assert_eq!(Knowledge::default().after_failure(failed(0)).kept_for(0), cooldown);
    assert_eq!(job.after_failure(failed(30)).kept_for(30), 600 * SECOND);
    assert_eq!(job.after_failure(failed(630)).kept_for(630), cooldown);
    let ended = knowing(succeeded());
    assert_eq!(ended.kept_for(0), 48 * HOUR);
    let gone = ended.told(absent(), 1, 1).unwrap();
    assert_eq!(gone.kept_for(1), END_REMEMBERED, "a late caller hears that it has expired");
}

#[test]
fn a_description_weighs_as_much_as_its_answer_and_an_error_with_all_its_texts() {
    let known = knowing(succeeded());
    let message = known.message().unwrap().as_bytes();
    assert!(message.len() > MESSAGE_PREFIX + 1);
    assert_eq!(known.heap_size(), message.len());
    let mut told = UpstreamError::new(Kind::JobNotFound, true, "x".repeat(100));
    told.request_id = Some("y".repeat(70));
    let error = told.memory();
    assert_eq!(error, size_of::<UpstreamError>() + 170);
    let (told, at) = (Arc::new(told), at(1).instant);
    let gone = known.told(Finding::Absent(Arc::clone(&told)), 1, 1).unwrap();
    assert_eq!(gone.heap_size(), error);
    assert_eq!(known.after_failure(Failure { error: told, at }).heap_size(), message.len() + error);
}

/// There may be a million of them: 16 bytes more are 16 MB.
#[test]
fn what_is_kept_of_a_job_is_small() {
    assert!(size_of::<Knowledge>() <= 128, "{} bytes", size_of::<Knowledge>());
}
