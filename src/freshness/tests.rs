use super::*;

const NOW: u64 = 1_900_000_000;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn running(tier: Tier) -> JobFacts {
    JobFacts {
        status: StatusCode::InProgress,
        completed: Some(false),
        tier,
        creation: Some(at(NOW - 600)),
        completion: None,
        unrecognized: false,
    }
}

fn ended(ago: u64) -> JobFacts {
    JobFacts {
        status: StatusCode::Succeeded,
        completed: Some(true),
        creation: Some(at(NOW - ago - 600)),
        completion: Some(at(NOW - ago)),
        ..running(Tier::Standard)
    }
}

fn life(facts: JobFacts, random: f64) -> (u64, u64) {
    let lifetime = Lifetime::of_description(&facts, at(NOW), random, &FreshnessSettings::default());
    (lifetime.fresh.as_secs(), lifetime.usable.as_secs())
}

const HOUR: u64 = 3600;

#[test]
fn a_running_job_is_fresh_for_as_long_as_its_tier_is_slow() {
    assert_eq!(life(running(Tier::Expedited), 0.5), (10, 610));
    for tier in [Tier::Standard, Tier::Bulk, Tier::Unspecified] {
        assert_eq!(life(running(tier), 0.5), (30, 630));
    }
}

#[test]
fn jitter_spreads_by_a_tenth_either_way() {
    assert_eq!(life(running(Tier::Standard), 0.0), (27, 627));
    assert_eq!(life(running(Tier::Standard), 0.999_999), (32, 632));
}

#[test]
fn a_final_job_is_fresh_until_glacier_may_forget_it_then_five_minutes_at_a_time() {
    assert_eq!(life(ended(0), 0.9), (24 * HOUR, 48 * HOUR));
    assert_eq!(life(ended(23 * HOUR), 0.1), (HOUR, 25 * HOUR));
    assert_eq!(life(ended(24 * HOUR), 0.1), (300, 24 * HOUR));
    assert_eq!(life(ended(30 * HOUR), 0.1), (300, 18 * HOUR));
    assert_eq!(life(ended(50 * HOUR), 0.1), (300, 300));
}

#[test]
fn a_completion_slightly_ahead_of_our_clock_is_believed() {
    let facts = JobFacts { completion: Some(at(NOW + 60)), ..ended(0) };
    assert_eq!(life(facts, 0.5), (24 * HOUR + 60, 48 * HOUR + 60));
}

/// U20, U21
#[test]
fn contradictions_and_gaps_are_doubtful() {
    let cases = [
        ("unrecognized value", JobFacts { unrecognized: true, ..ended(5) }),
        ("unrecognized value, running", JobFacts { unrecognized: true, ..running(Tier::Bulk) }),
        ("completed but in progress", JobFacts { status: StatusCode::InProgress, ..ended(5) }),
        ("succeeded but not completed", JobFacts { completed: Some(false), ..ended(5) }),
        ("running with a completion date", JobFacts { completion: Some(at(NOW - 1)), ..running(Tier::Bulk) }),
        ("no status", JobFacts { status: StatusCode::Unspecified, ..ended(5) }),
        ("no completed flag", JobFacts { completed: None, ..ended(5) }),
        ("no completed flag, running", JobFacts { completed: None, ..running(Tier::Bulk) }),
        ("no completion date", JobFacts { completion: None, ..ended(5) }),
        ("no creation date", JobFacts { creation: None, ..ended(5) }),
        ("completed in 1970", JobFacts { completion: Some(at(0)), ..ended(5) }),
        ("created in 1970", JobFacts { creation: Some(at(0)), ..ended(5) }),
        ("completed in 2100", JobFacts { completion: Some(at(4_102_444_800)), ..ended(5) }),
        ("created in 2011", JobFacts { creation: Some(at(1_325_375_999)), ..running(Tier::Bulk) }),
        ("created in 2100", JobFacts { creation: Some(at(4_102_444_800)), ..running(Tier::Bulk) }),
        ("completed before created", JobFacts { creation: Some(at(NOW - 4)), ..ended(5) }),
        ("completed 16 min ahead", JobFacts { completion: Some(at(NOW + 960)), ..ended(5) }),
    ];
    for (what, facts) in cases {
        assert_eq!(state(&facts, at(NOW)), JobState::Doubtful, "{what}");
        assert_eq!(life(facts, 0.0), (10, 610), "{what}");
    }
}

#[test]
fn a_failed_job_is_final_too() {
    let facts = JobFacts { status: StatusCode::Failed, ..ended(5) };
    assert_eq!(state(&facts, at(NOW)), JobState::Final { completion: at(NOW - 5) });
    assert!(says_ended(&facts));
}

#[test]
fn the_edges_of_plausible_dates_are_inside() {
    let first = JobFacts { creation: Some(at(1_325_376_000)), ..running(Tier::Bulk) };
    assert_eq!(state(&first, at(NOW)), JobState::InProgress);
    let instant = JobFacts { creation: Some(at(NOW - 5)), ..ended(5) };
    assert!(matches!(state(&instant, at(NOW)), JobState::Final { .. }));
    let ahead = JobFacts { completion: Some(at(NOW + 900)), ..ended(5) };
    assert!(matches!(state(&ahead, at(NOW)), JobState::Final { .. }));
}

#[test]
fn an_end_is_known_even_where_the_rest_is_doubtful() {
    let odd = JobFacts { unrecognized: true, ..ended(5) };
    assert_eq!((state(&odd, at(NOW)), completion(&odd, at(NOW))), (JobState::Doubtful, Some(at(NOW - 5))));
    assert!(has_ended(&odd) && has_ended(&JobFacts { completed: None, ..ended(5) }));
    assert!(has_ended(&JobFacts { status: StatusCode::Unspecified, ..ended(5) }));
    for contrary in [
        JobFacts { status: StatusCode::InProgress, ..ended(5) },
        JobFacts { completed: Some(false), ..ended(5) },
        JobFacts { completed: None, status: StatusCode::Unspecified, ..ended(5) },
        running(Tier::Bulk),
    ] {
        assert!(!has_ended(&contrary), "{contrary:?}");
        assert_eq!(completion(&contrary, at(NOW)), None);
    }
    assert_eq!(completion(&JobFacts { completion: Some(at(0)), ..ended(5) }, at(NOW)), None);
}

#[test]
fn either_word_of_an_end_counts_as_ended() {
    assert!(!says_ended(&running(Tier::Bulk)));
    assert!(says_ended(&JobFacts { completed: Some(true), ..running(Tier::Bulk) }));
    assert!(says_ended(&JobFacts { status: StatusCode::Succeeded, ..running(Tier::Bulk) }));
}

/// U22, U23
#[test]
fn negative_knowledge_is_never_stale_but_usable() {
    let settings = FreshnessSettings::default();
    for lifetime in [Lifetime::of_absence(&settings), Lifetime::of_denial(&settings)] {
        assert_eq!(lifetime, Lifetime { fresh: Duration::from_secs(5), usable: Duration::from_secs(5) });
        assert_eq!(lifetime.judge(Duration::from_secs(5), None), Usability::Unusable);
    }
}

#[test]
fn judging_goes_from_fresh_over_stale_to_unusable() {
    let seconds = Duration::from_secs;
    let lifetime = Lifetime { fresh: seconds(10), usable: seconds(20) };
    assert_eq!(lifetime.judge(seconds(0), None), Usability::Fresh { ttl: seconds(10) });
    assert_eq!(lifetime.judge(seconds(9), None), Usability::Fresh { ttl: seconds(1) });
    assert_eq!(lifetime.judge(seconds(10), None), Usability::Stale { since: seconds(0) });
    assert_eq!(lifetime.judge(seconds(19), None), Usability::Stale { since: seconds(9) });
    assert_eq!(lifetime.judge(seconds(20), None), Usability::Unusable);
}

#[test]
fn a_callers_max_age_shortens_and_never_lengthens() {
    let seconds = Duration::from_secs;
    let lifetime = Lifetime { fresh: seconds(10), usable: seconds(20) };
    assert_eq!(lifetime.judge(seconds(4), Some(seconds(4))), Usability::Fresh { ttl: seconds(6) });
    assert_eq!(lifetime.judge(seconds(5), Some(seconds(4))), Usability::TooOldForCaller);
    assert_eq!(lifetime.judge(seconds(12), Some(seconds(15))), Usability::Stale { since: seconds(2) });
    assert_eq!(lifetime.judge(seconds(16), Some(seconds(15))), Usability::TooOldForCaller);
    assert_eq!(lifetime.judge(seconds(20), Some(seconds(15))), Usability::Unusable);
    assert_eq!(lifetime.judge(seconds(20), Some(seconds(99))), Usability::Unusable);
}

#[test]
fn early_refresh_becomes_certain_over_the_last_fifth() {
    let lifetime = Lifetime { fresh: Duration::from_secs(100), usable: Duration::from_secs(100) };
    for (age, expected) in [(0, 0.0), (79, 0.0), (80, 0.0), (85, 0.25), (90, 0.5), (100, 1.0), (200, 1.0)] {
        let probability = lifetime.refresh_probability(Duration::from_secs(age));
        assert!((probability - expected).abs() < 1e-9, "{age}: {probability}");
    }
    let none = Lifetime { fresh: Duration::ZERO, usable: Duration::ZERO };
    assert!(none.refresh_probability(Duration::from_secs(1)).abs() < 1e-9);
}
