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
/// In seconds.
const DAY: u64 = 24 * 3600;
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

/// Why an observation is not believed.
#[derive(Debug, PartialEq, Eq)]
enum Unbelieved {
    Older,
    Doubted,
}

impl Knowledge {
    /// Takes in something asked for at this second, without jitter.
    fn judged(&self, finding: Finding, asked: u64) -> Judgement {
        self.after(Observation { finding, asked_at: at(asked) }, 0.5, &FreshnessSettings::default())
    }

    /// The same; what is known if it is believed.
    fn told(&self, finding: Finding, asked: u64) -> Result<Self, Unbelieved> {
        match self.judged(finding, asked) {
            Judgement::Believed(known) => Ok(known),
            Judgement::Doubted(_) => Err(Unbelieved::Doubted),
            Judgement::Older => Err(Unbelieved::Older),
        }
    }

    /// The same; what is known afterwards, believed or not.
    fn hearing(&self, finding: Finding, asked: u64) -> Self {
        match self.judged(finding, asked) {
            Judgement::Believed(known) | Judgement::Doubted(known) => known,
            Judgement::Older => self.clone(),
        }
    }

    fn failing(&self, kind: Kind, seconds: u64) -> Self {
        self.after_failure(error(kind), at(seconds).instant, &FreshnessSettings::default())
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
        self.worth_keeping(at(seconds).instant)
    }
}

/// What is known of a job described so at second 0.
fn knowing(job: GlacierJobDescription) -> Knowledge {
    Knowledge::default().told(described(job), 0).unwrap()
}

/// K8.
#[test]
fn of_two_observations_the_one_asked_for_later_stands_whichever_arrives_last() {
    let known = Knowledge::default().told(described(running(Tier::Bulk)), 10).unwrap();
    let late = known.told(described(running(Tier::Expedited)), 9);
    assert_eq!(late.map(|k| k.tier()), Err(Unbelieved::Older));
    let newer = known.told(described(running(Tier::Expedited)), 11);
    assert_eq!(newer.map(|k| k.tier()), Ok(Some(Tier::Expedited)));
}

/// Nothing says which of the two Glacier saw last.
#[test]
fn of_two_observations_asked_for_at_the_same_instant_the_one_that_arrives_last_stands() {
    let known = knowing(running(Tier::Bulk));
    let other = known.told(described(running(Tier::Expedited)), 0);
    assert_eq!(other.map(|k| k.tier()), Ok(Some(Tier::Expedited)));
    let completed = knowing(succeeded()).told(described(running(Tier::Bulk)), 0);
    assert_eq!(completed.map(|k| k.tier()), Err(Unbelieved::Doubted), "but never backwards");
}

/// K8.
#[test]
fn a_job_seen_complete_is_not_in_progress_again_even_if_it_was_gone_in_between() {
    let completed = knowing(succeeded());
    let promise = Some(Promise { completion: at(0).wall, until: at(DAY).instant });
    let promised = |known: Knowledge| known.end.map(|end| end.promise);
    assert_eq!(promised(completed.clone()), Some(promise));
    let gone = completed.told(absent(), DAY).unwrap();
    for (known, now) in [(&completed, 2), (&gone, DAY + 2)] {
        let again = known.told(described(running(Tier::Standard)), now);
        assert_eq!(again.map(promised), Err(Unbelieved::Doubted));
        let same = known.told(described(succeeded()), now);
        assert_eq!(same.map(promised), Ok(Some(promise)));
        let contradiction = GlacierJobDescription { completed: Some(true), ..running(Tier::Standard) };
        let doubtful = known.told(described(contradiction), now);
        assert_eq!(doubtful.map(promised), Ok(Some(promise)), "it does not deny the end");
        let dateless = GlacierJobDescription { completion_date: None, ..succeeded() };
        assert_eq!(known.told(described(dateless), now).map(promised), Ok(Some(promise)), "the date is known");
    }
    let alive = knowing(running(Tier::Standard)).told(described(running(Tier::Standard)), 1);
    assert_eq!(alive.map(promised), Ok(None));
}

/// K8, U22: Glacier promises a day, and may remember for longer.
#[test]
fn a_job_that_glacier_describes_long_after_its_day_has_ended_all_the_same() {
    let known = Knowledge::default().told(described(succeeded()), 3 * DAY).unwrap();
    let again = known.told(described(running(Tier::Bulk)), 3 * DAY + 1);
    assert_eq!(again.err(), Some(Unbelieved::Doubted));
    let gone = known.told(absent(), 3 * DAY + 300).unwrap();
    assert!(gone.end.and_then(|end| end.promise).is_some_and(|promise| promise.until <= at(3 * DAY).instant));
    assert_eq!(gone.told(described(running(Tier::Bulk)), 4 * DAY - 1).err(), Some(Unbelieved::Doubted));
    assert!(gone.told(described(running(Tier::Bulk)), 4 * DAY).is_ok(), "a day after it was last seen");
}

/// U29.
#[test]
fn what_contradicts_the_end_of_a_job_is_believed_when_said_three_times_over_half_a_minute() {
    let again = || described(running(Tier::Bulk));
    let completed = knowing(succeeded());
    for (asked, believed) in [
        (vec![100, 100, 129], false),
        (vec![100, 100, 130], true),
        (vec![100, 130], false),
        (vec![100, 101, 102, 103, 104], false),
        (vec![100, 101, 102, 130], true),
        (vec![100, 8_000, 8_000], true),
    ] {
        let (last, before) = asked.split_last().unwrap();
        let known = before.iter().fold(completed.clone(), |known, second| known.hearing(again(), *second));
        assert_eq!(known.tier(), Some(Tier::Standard), "{asked:?}");
        let outcome = known.told(again(), *last);
        assert_eq!(outcome.is_ok(), believed, "{asked:?}");
        if let Ok(known) = outcome {
            assert_eq!((known.tier(), known.end), (Some(Tier::Bulk), None), "all is as if it had never ended");
        }
    }
}

/// U29, U30.
#[test]
fn one_answer_that_agrees_makes_contradictions_count_anew() {
    let known = knowing(succeeded()).hearing(absent(), 100).hearing(absent(), 120);
    let known = known.hearing(described(succeeded()), 125).hearing(absent(), 140).hearing(absent(), 160);
    assert!(known.told(absent(), 169).is_err());
    assert!(known.told(absent(), 170).is_ok());
}

/// U29: each poll would renew it, and nobody would ever hear anything else.
#[test]
fn the_end_of_a_job_that_is_gone_is_forgotten_a_day_after_its_time_however_often_somebody_asks() {
    let mut known = knowing(succeeded());
    for hour in 24..48 {
        known = known.told(absent(), hour * 3600).unwrap();
        assert!(known.told(described(running(Tier::Bulk)), hour * 3600 + 1).is_err(), "{hour}");
    }
    assert!(known.told(described(running(Tier::Bulk)), 2 * DAY).is_ok());
}

/// U30.
#[test]
fn what_glacier_promises_to_remember_is_not_erased_by_a_404() {
    let ends_without_date = GlacierJobDescription { completion_date: None, ..succeeded() };
    for (job, asked, believed) in [
        (running(Tier::Bulk), DAY - 1, false),
        (running(Tier::Bulk), DAY, true),
        (succeeded(), DAY - 1, false),
        (succeeded(), DAY, true),
        // Nobody knows since when.
        (ends_without_date, 1, true),
    ] {
        assert_eq!(knowing(job.clone()).told(absent(), asked).is_ok(), believed, "{job:?} {asked}");
    }
    let vault = || Finding::Absent(error(Kind::VaultNotFound));
    assert!(knowing(running(Tier::Bulk)).told(vault(), 1).is_err(), "a vault with jobs does not vanish either");
    let gone = Knowledge::default().told(absent(), 0).unwrap();
    assert!(gone.told(absent(), 1).is_ok(), "what was never there");
    assert!(gone.told(described(running(Tier::Bulk)), 2).is_ok(), "and what is there after all");
}

/// U30: who breaks the promise once has not forgotten the job because its time was over.
#[test]
fn a_job_that_is_gone_too_early_has_not_expired() {
    let gone = [10, 20, 40].iter().fold(knowing(succeeded()), |known, second| known.hearing(absent(), *second));
    assert!(matches!(gone.learnt.as_ref().map(|learnt| &learnt.given), Some(Given::Absence(_))));
    assert_eq!(gone.end.map(|end| end.promise), Some(None));
    assert!(gone.told(absent(), 41).is_ok(), "nothing is doubted any more");
    assert!(gone.told(described(running(Tier::Bulk)), 42).is_err(), "but it has ended");
}

/// U31: the date of the question, by Glacier's clock, says how long ago a job completed.
#[test]
fn the_promise_counts_from_the_completion_by_the_clock_that_dates_the_question() {
    let asked_at = Moment { instant: at(0).instant, wall: at(3600).wall };
    let finding = Finding::Described(Description::new(succeeded(), asked_at.wall));
    let judged = Knowledge::default().after(Observation { finding, asked_at }, 0.5, &FreshnessSettings::default());
    let Judgement::Believed(known) = judged else { panic!("{judged:?}") };
    assert_eq!(known.end.unwrap().promise.unwrap().until, at(DAY - 3600).instant);
    assert_eq!(known.learnt.unwrap().lifetime.fresh, 23 * HOUR);
}

#[test]
fn a_failure_takes_nothing_away_and_the_next_answer_forgets_it() {
    let known = knowing(succeeded()).failing(Kind::Unavailable, 1);
    assert_eq!((known.tier(), known.end.is_some(), known.failure().is_some()), (Some(Tier::Standard), true, true));
    for finding in [described(succeeded()), Finding::Denied(error(Kind::AccessDenied))] {
        assert!(known.told(finding, 2).unwrap().failure().is_none());
    }
    let doubted = known.hearing(absent(), 2).failing(Kind::Contradictory, 2);
    assert!(!doubted.is_contradicted_once() || doubted.failure().is_some());
    assert!(doubted.hearing(absent(), 2).told(absent(), 32).is_ok(), "a failure does not make it count anew");
}

#[test]
fn a_failure_holds_back_the_next_fetch_until_its_cooldown_is_over() {
    let known = Knowledge::default().failing(Kind::Unavailable, 1);
    let over = at(1).instant + FreshnessSettings::default().cooldown;
    let cools = |known: &Knowledge, now| known.cooling(now).map(|failure| failure.error.kind);
    assert_eq!(cools(&known, at(1).instant), Some(Kind::Unavailable));
    assert_eq!(cools(&known, over - Duration::from_nanos(1)), Some(Kind::Unavailable));
    assert_eq!(cools(&known, over), None);
    assert_eq!(cools(&known, over + SECOND), None);
    assert_eq!(cools(&Knowledge::default(), at(1).instant), None, "nothing has failed");
}

/// U28.
#[test]
fn the_cooldown_after_timeouts_doubles_up_to_half_a_minute_and_an_answer_resets_it() {
    let cooldown = |known: &Knowledge, now| (known.failure().unwrap().over_at() - at(now).instant).as_secs();
    let mut known = knowing(running(Tier::Bulk));
    for (failures, expected) in [1, 2, 4, 8, 16, 30, 30, 30].into_iter().enumerate() {
        assert_eq!(known.is_hanging(at(40).instant), failures > 0);
        known = known.failing(Kind::TimedOut, 40);
        assert_eq!(cooldown(&known, 40), expected, "after {failures} more");
    }
    assert_eq!(cooldown(&known.failing(Kind::Unavailable, 50), 50), 1, "another failure has its own");
    assert_eq!(cooldown(&known.failing(Kind::Contradictory, 50), 50), 10);
    let reset = known.told(described(running(Tier::Bulk)), 60).unwrap();
    assert!(!reset.is_hanging(at(60).instant));
    assert_eq!(cooldown(&reset.failing(Kind::TimedOut, 61), 61), 1);
    let for_ever = (0..100).fold(Knowledge::default(), |known, _| known.failing(Kind::TimedOut, 1));
    assert_eq!(cooldown(&for_ever, 1), 30);
    let patient = FreshnessSettings { cooldown: 60 * SECOND, ..FreshnessSettings::default() };
    let longer = for_ever.after_failure(error(Kind::TimedOut), at(1).instant, &patient);
    assert_eq!(cooldown(&longer, 1), 60, "never less than after other failures");
}

/// U28: or the back-off of a job of which nothing else is known would never grow.
#[test]
fn a_back_off_is_remembered_until_the_next_fetch_can_have_ended() {
    let (mut known, mut now) = (Knowledge::default(), 0);
    for cooldown in [1, 2, 4, 8, 16, 30, 30] {
        known = known.failing(Kind::TimedOut, now);
        assert_eq!(known.failure().unwrap().over_at(), at(now + cooldown).instant);
        let budget = 8;
        now += cooldown + budget;
        assert!(known.is_hanging(at(now).instant) && known.kept_for(now) > Duration::ZERO);
    }
}

/// U28: an hour later it is a single slip again, and worth a second attempt.
#[test]
fn timeouts_of_long_ago_do_not_count() {
    let hanging = (0..5).fold(knowing(succeeded()), |known, _| known.failing(Kind::TimedOut, 40));
    assert!(hanging.is_hanging(at(85).instant));
    assert!(!hanging.is_hanging(at(86).instant), "16 s and half a minute");
    let again = hanging.failing(Kind::TimedOut, 3600);
    assert_eq!(again.failure().unwrap().over_at(), at(3601).instant);
}

/// U28: a Glacier that answers does not hang, whatever it answers.
#[test]
fn timeouts_are_in_a_row_if_nothing_was_answered_in_between() {
    let hanging = || (0..3).fold(knowing(running(Tier::Bulk)), |known, _| known.failing(Kind::TimedOut, 40));
    let next =
        |known: Knowledge| (known.failing(Kind::TimedOut, 42).failure().unwrap().over_at() - at(42).instant).as_secs();
    for answer in [Kind::Unavailable, Kind::Throttled, Kind::Contradictory, Kind::Malformed] {
        let answered = hanging().failing(answer, 41);
        assert!(!answered.is_hanging(at(41).instant), "{answer:?}");
        assert_eq!(next(answered), 1, "{answer:?}");
    }
    let unsent = Arc::new(UpstreamError::new(Kind::CredentialsUnavailable, false, "scripted"));
    let unsent = hanging().after_failure(unsent, at(41).instant, &FreshnessSettings::default());
    assert!(unsent.is_hanging(at(41).instant), "nobody has asked");
    assert_eq!(next(unsent), 8);
}

/// K14: Glacier may have looked at the job as soon as it was asked.
#[test]
fn an_age_counts_from_the_question() {
    let learnt = Knowledge::default().told(described(running(Tier::Bulk)), 10).unwrap().learnt.unwrap();
    assert_eq!(learnt.age(at(22).instant), 12 * SECOND);
    assert_eq!(learnt.age(at(9).instant), Duration::ZERO);
}

#[test]
fn knowledge_is_kept_as_long_as_any_of_it_can_matter() {
    assert_eq!(Knowledge::default().kept_for(0), Duration::ZERO);
    let job = knowing(running(Tier::Standard));
    assert_eq!([0, 30, 630, 1_000].map(|now| job.kept_for(now).as_secs()), [630, 600, 0, 0]);
    assert_eq!(Knowledge::default().told(absent(), 0).unwrap().kept_for(2), 3 * SECOND);
    // As long again as it holds fetches back: so long it is known how long that was.
    let cooldown = FreshnessSettings::default().cooldown;
    assert_eq!(Knowledge::default().failing(Kind::Unavailable, 0).kept_for(0), 2 * cooldown);
    assert_eq!(job.failing(Kind::Unavailable, 30).kept_for(30), 600 * SECOND);
    assert_eq!(job.failing(Kind::Unavailable, 630).kept_for(630), 2 * cooldown);
    let ended = knowing(succeeded());
    assert_eq!(ended.kept_for(0), 48 * HOUR);
    let gone = ended.told(absent(), DAY).unwrap();
    assert_eq!(gone.kept_for(DAY), END_REMEMBERED, "a late caller hears that it has expired");
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
    let told = Arc::new(told);
    let gone = known.told(Finding::Absent(Arc::clone(&told)), DAY).unwrap();
    assert_eq!(gone.heap_size(), error);
    let failed = known.after_failure(told, at(1).instant, &FreshnessSettings::default());
    assert_eq!(failed.heap_size(), message.len() + size_of::<Trouble>() + error);
}

/// There may be a million of them: 16 bytes more are 16 MB.
#[test]
fn what_is_kept_of_a_job_is_small() {
    assert!(size_of::<Knowledge>() <= 128, "{} bytes", size_of::<Knowledge>());
}
