//! How many requests a second Glacier gets once it has throttled.
//!
//! This is the client-side rate limiter of the AWS SDKs' *adaptive* retry mode: botocore's `retries/adaptive.py`,
//! `throttling.py` and `bucket.py`; `client_rate_limiter.rs` in smithy-rs. A token bucket gives one token to each request.
//! A throttling answer cuts its rate to [`BETA`] of what was sent; from there the rate follows CUBIC (RFC 9438): fast back to
//! where it was, slowly past it, then fast again. It is off until Glacier throttles. Only what Glacier answers moves the rate,
//! never what was held back.
//!
//! It departs from the SDKs in five points:
//! - One cut for all requests that were under way together. Their answers say one thing, and 64 cuts in a row would stop
//!   everybody.
//! - It turns off again, half a minute after the last throttling answer. An SDK is limited for as long as it lives.
//! - The rate is not capped at twice what is sent. Few callers just after a cut would slow the recovery for many.
//! - The half second that has just begun counts for what is sent, or a burst after quiet times would be measured as quiet.
//! - It never falls below one request a second, where the SDKs allow half of that: a caller waits for a second at most.
//!
//! Time is an argument everywhere.

use std::time::Duration;

use tokio::time::Instant;

/// What is left of the rate after a cut. As in AWS's SDKs.
const BETA: f64 = 0.7;
/// How fast the rate grows, in requests per second to the fourth. As in AWS's SDKs.
const SCALE: f64 = 0.4;
/// How much the last half second counts against all before it. As in AWS's SDKs.
const SMOOTHING: f64 = 0.8;
/// Requests are counted in half seconds, as in AWS's SDKs; this many of them are a second.
const BUCKETS_PER_SECOND: f64 = 2.0;
/// Requests a second that are always allowed.
const LEAST_RATE: f64 = 1.0;
/// How long after the last throttling answer the limit ends. Whatever the rate was cut to, it is above a thousand a second by
/// then if requests were sent; and if none were, nothing is known of Glacier any more.
const LASTS: Duration = Duration::from_secs(30);
/// A token is whole if this little is missing: what it takes to gain is less than a timer can tell.
const TOLERANCE: f64 = 1e-6;

/// The limit on requests a second, and what it follows from.
#[derive(Debug)]
pub(super) struct RateLimit {
    sent: SendRate,
    /// Present from the first throttling answer until some time after the last.
    brake: Option<Brake>,
}

#[derive(Debug)]
struct Brake {
    /// Requests a second when Glacier last throttled.
    top: f64,
    throttled_at: Instant,
    /// Requests a second that are allowed. A second's worth can be saved up, and one request at least.
    rate: f64,
    /// What was saved up at `filled_at`.
    tokens: f64,
    filled_at: Instant,
}

impl RateLimit {
    pub(super) fn new(now: Instant) -> Self {
        Self { sent: SendRate::new(now), brake: None }
    }

    /// Requests a second that are allowed, if they are limited.
    pub(super) fn rate(&self, now: Instant) -> Option<f64> {
        self.brake(now).map(|brake| brake.rate)
    }

    fn brake(&self, now: Instant) -> Option<&Brake> {
        self.brake.as_ref().filter(|brake| now.saturating_duration_since(brake.throttled_at) < LASTS)
    }

    /// Whether one more request may be sent at `now`; it is counted if so.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.end(now);
        if let Some(brake) = &mut self.brake {
            brake.fill(now);
            if brake.tokens < 1.0 - TOLERANCE {
                return false;
            }
            brake.tokens = (brake.tokens - 1.0).max(0.0);
        }
        self.sent.count(now);
        true
    }

    /// How long it takes from `now` until a request may be sent before which `ahead` others are.
    pub(super) fn wait(&self, now: Instant, ahead: usize) -> Duration {
        let Some(brake) = self.brake(now) else { return Duration::ZERO };
        let wanted = f64::from(u32::try_from(ahead).unwrap_or(u32::MAX)) + 1.0;
        Duration::from_secs_f64((wanted - brake.tokens_at(now)).max(0.0) / brake.rate)
    }

    /// Glacier answered at `now` what was sent at `sent_at`: by throttling, or in any other way. What was sent before the last
    /// cut says nothing about the rate since.
    pub(super) fn answered(&mut self, now: Instant, sent_at: Instant, throttled: bool) {
        self.end(now);
        match &mut self.brake {
            Some(brake) if sent_at < brake.throttled_at => {}
            Some(brake) if throttled => brake.cut(now, self.sent.rate().min(brake.rate)),
            Some(brake) => brake.grow(now),
            None if throttled => self.brake = Some(Brake::new(now, self.sent.rate())),
            None => {}
        }
    }

    fn end(&mut self, now: Instant) {
        if self.brake(now).is_none() {
            self.brake = None;
        }
    }
}

impl Brake {
    /// The first request need not wait. A second's worth at once would only be throttled again.
    fn new(now: Instant, sending: f64) -> Self {
        let mut brake = Self { top: 0.0, throttled_at: now, rate: LEAST_RATE, tokens: 1.0, filled_at: now };
        brake.cut(now, sending);
        brake
    }

    fn cut(&mut self, now: Instant, sending: f64) {
        self.top = sending.max(LEAST_RATE);
        self.throttled_at = now;
        self.set_rate(now, BETA * self.top);
    }

    fn grow(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.throttled_at).as_secs_f64();
        self.set_rate(now, SCALE * (since - self.seconds_to_top()).powi(3) + self.top);
    }

    /// How long after a cut the rate is where it was. CUBIC's K.
    fn seconds_to_top(&self) -> f64 {
        (self.top * (1.0 - BETA) / SCALE).cbrt()
    }

    fn set_rate(&mut self, now: Instant, rate: f64) {
        // What was gained so far was gained at the old rate.
        self.fill(now);
        self.rate = rate.max(LEAST_RATE);
        self.tokens = self.tokens.min(self.rate);
    }

    fn fill(&mut self, now: Instant) {
        // Whoever read the clock first may come second; nothing is gained twice for it.
        (self.tokens, self.filled_at) = (self.tokens_at(now), now.max(self.filled_at));
    }

    fn tokens_at(&self, now: Instant) -> f64 {
        let gained = self.rate * now.saturating_duration_since(self.filled_at).as_secs_f64();
        (self.tokens + gained).min(self.rate)
    }
}

/// Requests a second lately.
#[derive(Debug)]
struct SendRate {
    began: Instant,
    /// In seconds since then: where the half second begins that is being counted.
    bucket: f64,
    count: u32,
    /// Over the half seconds before.
    smoothed: f64,
}

impl SendRate {
    fn new(began: Instant) -> Self {
        Self { began, bucket: 0.0, count: 0, smoothed: 0.0 }
    }

    fn count(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.began).as_secs_f64();
        let bucket = (since * BUCKETS_PER_SECOND).floor() / BUCKETS_PER_SECOND;
        self.count = self.count.saturating_add(1);
        if bucket > self.bucket {
            let rate = f64::from(self.count) / (bucket - self.bucket);
            self.smoothed = rate * SMOOTHING + self.smoothed * (1.0 - SMOOTHING);
            (self.bucket, self.count) = (bucket, 0);
        }
    }

    fn rate(&self) -> f64 {
        self.smoothed.max(f64::from(self.count) * BUCKETS_PER_SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-6 * b.abs().max(1.0)
    }

    /// A limit that was cut at `now` while this many requests a second were sent.
    fn cut_at(now: Instant, sending: f64) -> RateLimit {
        RateLimit { sent: SendRate::new(now), brake: Some(Brake::new(now, sending)) }
    }

    /// Sends whatever is allowed for so long, in milliseconds; `glacier` says at once whether it throttles.
    fn send(limit: &mut RateLimit, from: Instant, millis: u64, mut glacier: impl FnMut(Instant) -> bool) -> u32 {
        let mut sent = 0;
        for at in (0..millis).map(|ms| from + Duration::from_millis(ms)) {
            while limit.take(at) {
                sent += 1;
                let throttled = glacier(at);
                limit.answered(at, at, throttled);
                if limit.rate(at).is_none() {
                    return sent;
                }
            }
        }
        sent
    }

    /// botocore, `test_starting_params` and `test_error_response_decreases_rate_by_beta`; smithy-rs, `should_match_beta_decrease`.
    #[test]
    fn a_cut_and_the_way_back_to_the_top_are_those_of_aws() {
        let now = Instant::now();
        for (sending, rate, seconds) in [(10.0, 7.0, 1.957_433_820_584_431_7), (8.0, 5.6, 1.817_120_592_832_139_7)] {
            let limit = cut_at(now, sending);
            assert!(close(limit.rate(now).unwrap(), rate));
            assert!(close(limit.brake.unwrap().seconds_to_top(), seconds));
        }
    }

    /// smithy-rs and aws-sdk-go-v2, `test_calculated_rate_with_successes`.
    #[test]
    fn the_rate_grows_as_that_of_aws() {
        let start = Instant::now();
        let mut limit = cut_at(start, 10.0);
        let published = [
            7.0,
            9.648_936_009_66,
            10.000_030_849_917_364,
            10.453_284_520_772_092,
            13.408_697_022_224_185,
            21.266_268_354_273_64,
            36.425_998_516_920_465,
        ];
        for (after, rate) in (0..).zip(published) {
            let now = start + after * SECOND;
            limit.answered(now, now, false);
            assert!(close(limit.rate(now).unwrap(), rate), "{after}: {:?}", limit.rate(now));
        }
    }

    /// smithy-rs and aws-sdk-go-v2, `test_client_sending_rates`: one request each 200 ms, throttled at 2.0 s and at 3.2 s. Before the
    /// first, no rate is kept here.
    #[test]
    fn what_is_sent_is_measured_and_limited_as_by_aws() {
        let start = Instant::now();
        let mut limit = RateLimit::new(start);
        let published = [
            (0.0, None),
            (0.0, None),
            (4.8, None),
            (4.8, None),
            (4.16, None),
            (4.16, None),
            (4.16, None),
            (5.632, None),
            (5.632, None),
            (4.3264, Some(3.028_48)),
            (4.3264, Some(3.486_639_173_470_26)),
            (4.3264, Some(3.821_874_416_040_255)),
            (5.665_28, Some(4.053_385_727_709_987)),
            (5.665_28, Some(4.200_373_108_479_454)),
            (4.333_056, Some(4.282_036_558_348_658)),
            (4.333_056, Some(2.997_425_590_844_06)),
            (4.333_056, Some(3.452_226_394_386_346_3)),
        ];
        for (n, (smoothed, rate)) in (1..).zip(published) {
            let now = start + n * SECOND / 5;
            // The SDKs' test sends without asking for tokens.
            limit.sent.count(now);
            limit.answered(now, now, n == 10 || n == 16);
            assert!(close(limit.sent.smoothed, smoothed), "{n}: {:?}", limit.sent);
            match (limit.rate(now), rate) {
                (None, None) => {}
                (Some(is), Some(rate)) => assert!(close(is, rate), "{n}: {is}"),
                different => panic!("{n}: {different:?}"),
            }
        }
    }

    #[test]
    fn nothing_is_limited_until_glacier_throttles() {
        let start = Instant::now();
        let mut limit = RateLimit::new(start);
        for ms in 0..10_000 {
            let now = start + Duration::from_millis(ms);
            assert!(limit.take(now) && limit.take(now));
            limit.answered(now, now, false);
        }
        assert_eq!((limit.rate(start), limit.wait(start, 1000)), (None, Duration::ZERO));
    }

    #[test]
    fn one_request_a_second_is_always_allowed() {
        let start = Instant::now();
        let mut limit = cut_at(start, 1000.0);
        let sent = send(&mut limit, start, 60_000, |_| true);
        assert!(close(limit.rate(start + 60 * SECOND).unwrap(), 1.0), "{limit:?}");
        assert!((60..=90).contains(&sent), "{sent}");
        // Throttled in the very first moment of its life, it is not at zero either.
        assert!(close(cut_at(start, 0.0).rate(start).unwrap(), 1.0));
    }

    #[test]
    fn it_lets_go_when_glacier_accepts_again() {
        for sending in [1.0, 20.0, 200.0] {
            let start = Instant::now();
            let mut limit = cut_at(start, sending);
            send(&mut limit, start, 20_000, |_| true);
            let recovered = start + 20 * SECOND;
            let sent = send(&mut limit, recovered, 11_000, |_| false);
            assert!(limit.rate(recovered + 11 * SECOND).is_some_and(|rate| rate > 200.0), "11 s later: {limit:?}");
            assert!(sent > 500, "{sent}");
            send(&mut limit, recovered + 11 * SECOND, 9_000, |_| false);
            assert!(limit.rate(recovered + 20 * SECOND).is_some_and(|rate| rate > 1000.0), "20 s later: {limit:?}");
            send(&mut limit, recovered + 20 * SECOND, 11_000, |_| false);
            assert_eq!(limit.rate(recovered + LASTS), None, "and then there is no limit any more");
        }
    }

    /// Only an answer lets it grow: time that passes while nothing is sent is no sign of recovery. After half a minute of it,
    /// nothing is known.
    #[test]
    fn silence_is_no_recovery_and_in_the_end_no_limit() {
        let start = Instant::now();
        let mut limit = cut_at(start, 10.0);
        let later = start + LASTS.saturating_sub(SECOND);
        assert!(close(limit.rate(later).unwrap(), 7.0));
        assert_eq!((0..100).filter(|_| limit.take(later)).count(), 7, "a second's worth was saved up");
        let much_later = start + LASTS;
        assert_eq!((limit.rate(much_later), limit.wait(much_later, 1000)), (None, Duration::ZERO));
        assert_eq!((0..100).filter(|_| limit.take(much_later)).count(), 100);
    }

    /// The clock is read before the lock is had.
    #[test]
    fn a_moment_that_comes_late_gains_nothing_twice() {
        let start = Instant::now();
        let mut limit = cut_at(start, 10.0);
        assert!(limit.take(start));
        let later = start + SECOND / 10;
        for _ in 0..100 {
            assert!(!limit.take(later) && !limit.take(start));
        }
        assert!(limit.take(start + SECOND / 7));
    }

    #[test]
    fn requests_that_were_under_way_together_cut_once() {
        let start = Instant::now();
        let mut limit = RateLimit::new(start);
        for _ in 0..64 {
            assert!(limit.take(start));
        }
        let answered = start + SECOND / 20;
        for _ in 0..64 {
            limit.answered(answered, start, true);
        }
        assert!(close(limit.rate(answered).unwrap(), BETA * 128.0), "64 in half a second: {limit:?}");
        // Nor does what was sent before say that Glacier accepts again.
        let later = answered + 20 * SECOND;
        limit.answered(later, start, false);
        assert!(close(limit.rate(later).unwrap(), BETA * 128.0), "{limit:?}");
    }

    #[test]
    fn the_wait_is_what_the_tokens_take() {
        let start = Instant::now();
        let mut limit = cut_at(start, 10.0);
        assert_eq!(limit.wait(start, 0), Duration::ZERO, "the first need not wait");
        assert!(limit.take(start));
        assert!(!limit.take(start));
        for ahead in [0, 1, 6] {
            let wait = limit.wait(start, ahead);
            let seconds = f64::from(u32::try_from(ahead).unwrap() + 1) / 7.0;
            assert!(close(wait.as_secs_f64(), seconds), "{ahead}: {wait:?}");
        }
        assert!(limit.take(start + limit.wait(start, 0)));
    }

    /// A Glacier that accepts so many a second, with as many saved up: it gets little more, and most of what it would accept is used.
    #[test]
    fn a_limit_is_found_and_kept() {
        for accepts in [10.0, 50.0] {
            let start = Instant::now();
            let mut limit = RateLimit::new(start);
            let (mut theirs, mut filled) = (accepts, start);
            let mut accepted = 0;
            let mut glacier = |at: Instant| {
                theirs = f64::min(theirs + accepts * at.saturating_duration_since(filled).as_secs_f64(), accepts);
                filled = at;
                let accepted_now = theirs >= 1.0;
                if accepted_now {
                    theirs -= 1.0;
                    accepted += 1;
                }
                !accepted_now
            };
            // 200 a second until it throttles.
            let mut at = start;
            while limit.rate(at).is_none() {
                at += SECOND / 200;
                limit.take(at);
                let throttled = glacier(at);
                limit.answered(at, at, throttled);
            }
            send(&mut limit, at, 5000, &mut glacier);
            let sent = send(&mut limit, at + 5 * SECOND, 60_000, &mut glacier);
            assert!(f64::from(sent) <= 1.1 * 60.0 * accepts, "{sent} sent");
            assert!(f64::from(accepted) >= 0.8 * 60.0 * accepts, "{accepted} accepted");
        }
    }
}
