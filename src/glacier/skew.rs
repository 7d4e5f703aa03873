//! How far Glacier's clock is from ours, and what is done about it.
//!
//! Each answer says what Glacier's clock shows, and two things use that.
//!
//! - Glacier refuses signatures whose date is more than five minutes from its own clock. When one has been refused and the two
//!   clocks really disagree, signatures are dated by Glacier's from then on.
//! - The dates in a description are Glacier's, so how long ago a job completed is judged by Glacier's clock, too. With ours,
//!   one that is 20 minutes behind would take a completed job for one of the future.
//!
//! Ages and deadlines use neither: they come from the monotonic clock.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime},
};

use http::{HeaderMap, header};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use crate::clock::Moment;

/// Less than this is not worth a correction: signatures are accepted within five minutes, of which transit and the
/// rounding of dates take a little. AWS's SDKs draw the same line.
const TOLERANCE: Duration = Duration::from_mins(4);
/// A smaller change of the offset that dates answers is not followed. `Date` has whole seconds and transit takes its time, so
/// what is measured jitters by a second or two, and the dates of answers are not to go backwards by that.
const DATE_TOLERANCE: Duration = Duration::from_secs(5);
/// An exchange that took longer says nothing about the moment at which the date was written. As in AWS's SDKs.
const LONGEST_ROUND_TRIP: Duration = Duration::from_mins(15);

/// How far Glacier's clock is ahead of ours; negative if it is behind. In milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Offset(i64);

impl Offset {
    /// What Glacier's clock shows when ours shows `wall`.
    pub(super) fn apply(self, wall: SystemTime) -> SystemTime {
        let distance = Duration::from_millis(self.0.unsigned_abs());
        let corrected = if self.0 < 0 { wall.checked_sub(distance) } else { wall.checked_add(distance) };
        corrected.unwrap_or(wall)
    }

    /// Whether a signature dated with `self` is too far from a clock with the offset `measured`.
    pub(super) fn disagrees_with(self, measured: Self) -> bool {
        self.distance(measured) > TOLERANCE
    }

    fn distance(self, other: Self) -> Duration {
        Duration::from_millis(self.0.abs_diff(other.0))
    }

    /// In milliseconds, for logs.
    pub(super) fn as_millis(self) -> i64 {
        self.0
    }
}

/// The offset that an answer tells: its `Date` is taken to be that of the middle between sending the request and
/// receiving the head of the answer. `None` if there is no date, if a cache on the way may have kept the answer (`Age`),
/// or if the exchange took too long.
pub(super) fn measure(headers: &HeaderMap, sent: Moment, received: Moment) -> Option<Offset> {
    let round_trip = received.instant.saturating_duration_since(sent.instant);
    if headers.contains_key(header::AGE) || round_trip > LONGEST_ROUND_TRIP {
        return None;
    }
    let date = OffsetDateTime::parse(headers.get(header::DATE)?.to_str().ok()?, &Rfc2822).ok()?;
    // Not the middle of two wall clock readings: the clock may have been set meanwhile.
    let middle = OffsetDateTime::from(sent.wall.checked_add(round_trip / 2)?);
    i64::try_from((date - middle).whole_milliseconds()).ok().map(Offset)
}

/// The offset in use, shared by all fetches.
#[derive(Debug, Default)]
pub(super) struct ClockOffset(AtomicI64);

impl ClockOffset {
    /// The offset to sign with.
    pub(super) fn current(&self) -> Offset {
        // A single value that guards nothing else.
        Offset(self.0.load(Ordering::Relaxed))
    }

    /// The offset to date an answer with that told this one, or none. It is followed unless it is about the one in use.
    pub(super) fn follow(&self, measured: Option<Offset>) -> Offset {
        let current = self.current();
        match measured {
            Some(measured) if current.distance(measured) > DATE_TOLERANCE => {
                self.0.store(measured.0, Ordering::Relaxed);
                measured
            }
            Some(_) | None => current,
        }
    }

    /// From now on this one. `true` if it is another.
    pub(super) fn keep(&self, offset: Offset) -> bool {
        Offset(self.0.swap(offset.0, Ordering::Relaxed)).disagrees_with(offset)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::*;

    /// Tue, 20 Mar 2012 17:03:43 GMT.
    fn noon() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_332_263_023)
    }

    /// An exchange that began when our clock showed [`noon`].
    fn measured(headers: &[(&'static str, &'static str)], took: Duration) -> Option<Offset> {
        let headers = headers.iter().map(|(k, v)| (k.parse().unwrap(), HeaderValue::from_static(v))).collect();
        let sent = Moment { instant: Instant::now(), wall: noon() };
        measure(&headers, sent, Moment { instant: sent.instant + took, wall: SystemTime::UNIX_EPOCH })
    }

    #[test]
    fn the_offset_is_the_date_less_the_middle_of_the_exchange() {
        for (date, took, expected) in [
            ("Tue, 20 Mar 2012 17:03:43 GMT", 0, 0),
            ("Tue, 20 Mar 2012 17:13:43 GMT", 0, 600_000),
            ("Tue, 20 Mar 2012 16:03:43 GMT", 0, -3_600_000),
            ("Tue, 20 Mar 2012 17:03:43 GMT", 2_000, -1_000),
            ("Tue, 20 Mar 2012 17:13:43 GMT", 900_000, 150_000),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0, -1_332_263_023_000),
        ] {
            let offset = measured(&[("date", date)], Duration::from_millis(took));
            assert_eq!(offset, Some(Offset(expected)), "{date} {took}");
        }
    }

    #[test]
    fn a_date_that_says_nothing_about_now_is_ignored() {
        let date = ("date", "Tue, 20 Mar 2012 17:13:43 GMT");
        assert_eq!(measured(&[], Duration::ZERO), None);
        assert_eq!(measured(&[date, ("age", "0")], Duration::ZERO), None, "a cache answered");
        assert_eq!(measured(&[date], LONGEST_ROUND_TRIP + Duration::from_nanos(1)), None);
        for unreadable in ["", "soon", "20120320T170343Z", "Tue, 20 Mar 2012 25:03:43 GMT", "1332263023"] {
            assert_eq!(measured(&[("date", unreadable)], Duration::ZERO), None, "{unreadable}");
        }
    }

    #[test]
    fn clocks_disagree_above_four_minutes_from_what_was_signed_with() {
        for (used, told, disagree) in [
            (0, 240_000, false),
            (0, 240_001, true),
            (0, -240_000, false),
            (0, -240_001, true),
            (600_000, 600_000, false),
            (600_000, 0, true),
            (i64::MIN, i64::MAX, true),
        ] {
            assert_eq!(Offset(used).disagrees_with(Offset(told)), disagree, "{used} {told}");
        }
    }

    #[test]
    fn what_is_kept_is_used_until_something_else_is_kept() {
        let shared = ClockOffset::default();
        assert_eq!(shared.current(), Offset::default());
        assert!(shared.keep(Offset(600_000)));
        assert!(!shared.keep(Offset(600_100)), "a hundred others measured about the same");
        assert_eq!(shared.current(), Offset(600_100));
    }

    #[test]
    fn answers_are_dated_by_the_offset_last_measured_which_does_not_jitter() {
        let dates = ClockOffset::default();
        let follow = |millis: i64| dates.follow(Some(Offset(millis)));
        assert_eq!(follow(-5_000), Offset(0), "within the tolerance of a clock that is right");
        assert_eq!(follow(1_200_000), Offset(1_200_000), "20 minutes behind");
        assert_eq!(follow(1_199_000), Offset(1_200_000), "the same, measured a little later");
        assert_eq!(dates.follow(None), Offset(1_200_000), "an answer without a date");
        assert_eq!(follow(0), Offset(0), "our clock was set right");
    }

    proptest! {
        #[test]
        fn a_measured_offset_turns_our_time_into_the_servers(seconds in -1_000_000_000_i64..1_000_000_000) {
            let offset = Offset(seconds * 1000);
            let there = OffsetDateTime::from(offset.apply(noon()));
            prop_assert_eq!(there - OffsetDateTime::from(noon()), time::Duration::seconds(seconds));
        }

        #[test]
        fn no_offset_and_no_date_is_a_panic(millis: i64, date in "\\PC{0,40}") {
            let _ = Offset(millis).apply(SystemTime::UNIX_EPOCH);
            if let Ok(value) = HeaderValue::from_str(&date) {
                let now = Moment { instant: Instant::now(), wall: noon() };
                let _ = measure(&HeaderMap::from_iter([(header::DATE, value)]), now, now);
            }
        }
    }
}
