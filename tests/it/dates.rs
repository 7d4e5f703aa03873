//! How long answers live where the gateway's clock is wrong, over sockets.

use std::time::{Duration, SystemTime};

use glacier_gateway::{
    clock::Clock,
    emulator::{EmulatedJob, Settings, Tier},
    glacier::CredentialsHolder,
};

use crate::support::gateway::{Gateway, cache_status};

const HOUR: i64 = 3600;

/// A gateway whose clock is off by so many seconds.
async fn gateway_off_by(seconds: i64) -> Gateway {
    let clock = Clock::with_wall(move || {
        let (now, off) = (Clock::system().now().wall, Duration::from_secs(seconds.unsigned_abs()));
        if seconds < 0 { now - off } else { now + off }
    });
    let settings = Settings::default();
    let known = &settings.credentials[0];
    let credentials = CredentialsHolder::fixed(&known.access_key_id, &known.secret_access_key, None);
    Gateway::start_at(clock, settings, credentials, |_| {}).await
}

/// U31.
#[tokio::test]
async fn a_completed_job_lives_as_long_whatever_our_clock_says() {
    for off in [0, -1200, 840, 24 * HOUR, -24 * HOUR] {
        let gateway = gateway_off_by(off).await;
        let job = gateway.add(EmulatedJob::archive(Tier::Standard).already_completed(Duration::from_hours(1)));
        let asked = Clock::system().now().wall;
        let answer = gateway.ask(&job).await.unwrap().into_inner();
        let hit = gateway.ask(&job).await.unwrap();
        let ttl: i64 = cache_status(hit.metadata()).strip_prefix("hit; ttl=").expect("a hit").parse().unwrap();
        let expected = 23 * HOUR;
        assert!((expected - 10..=expected + 10).contains(&ttl), "{ttl} s with a clock that is {off} s off");
        let observed = SystemTime::try_from(answer.observe_time.unwrap()).unwrap();
        let (earliest, latest) = (asked - Duration::from_secs(6), asked + Duration::from_secs(16));
        assert!((earliest..latest).contains(&observed), "dated by Glacier's clock: {observed:?} at {asked:?}, {off}");
    }
}

/// U31.
#[tokio::test]
async fn a_running_job_is_no_doubtful_one_whatever_our_clock_says() {
    for off in [-24 * HOUR, 24 * HOUR] {
        let gateway = gateway_off_by(off).await;
        let job = gateway.add(EmulatedJob::archive(Tier::Standard));
        gateway.ask(&job).await.unwrap();
        let hit = gateway.ask(&job).await.unwrap();
        let ttl: u64 = cache_status(hit.metadata()).strip_prefix("hit; ttl=").expect("a hit").parse().unwrap();
        assert!(ttl > 15, "30 s, not the 10 s of what contradicts itself: {ttl}, {off}");
    }
}
