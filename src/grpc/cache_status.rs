//! `cache-status` (RFC 9211) and `age` (RFC 9111) as response headers.

use std::time::Duration;

use http::{HeaderName, HeaderValue, header};

use crate::describe::{CacheStatus, Forwarded, NotForwarded, StaleBecause};

/// The header's name.
pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// The header's name.
pub(super) const AGE: HeaderName = header::AGE;
/// The name under which this cache speaks in `cache-status`.
const CACHE_NAME: &str = "glacier-gateway";
/// What precedes the seconds of a hit.
const HIT: &[u8] = b"glacier-gateway; hit; ttl=";

/// The value of `cache-status`. Hits are by far the most, and are written without the formatting machinery.
pub(super) fn cache_status(status: CacheStatus) -> HeaderValue {
    match status {
        CacheStatus::Hit { ttl } => {
            let mut digits = itoa::Buffer::new();
            let digits = digits.format(ttl.as_secs()).as_bytes();
            let mut text = [0; HIT.len() + U64_DIGITS];
            text[..HIT.len()].copy_from_slice(HIT);
            text[HIT.len()..][..digits.len()].copy_from_slice(digits);
            value(&text[..HIT.len() + digits.len()])
        }
        CacheStatus::Forwarded { .. }
        | CacheStatus::Stale { .. }
        | CacheStatus::Cooldown
        | CacheStatus::NotForwarded(_) => value(render(status).as_bytes()),
    }
}

/// Most digits of a `u64`.
const U64_DIGITS: usize = 20;

/// The value of `age`: whole seconds.
pub(super) fn age(age: Duration) -> HeaderValue {
    value(itoa::Buffer::new().format(age.as_secs()).as_bytes())
}

/// Only digits and our own words go in, so this cannot fail; an empty header would be harmless.
fn value(text: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn render(status: CacheStatus) -> String {
    match status {
        CacheStatus::Hit { ttl } => format!("{CACHE_NAME}; hit; ttl={}", ttl.as_secs()),
        CacheStatus::Forwarded { reason, collapsed, stored } => {
            let reason = match reason {
                Forwarded::Miss => "miss",
                Forwarded::Stale => "stale",
                Forwarded::Request => "request",
            };
            let collapsed = if collapsed { "; collapsed" } else { "" };
            let stored = if stored { "; stored" } else { "" };
            format!("{CACHE_NAME}; fwd={reason}{collapsed}{stored}")
        }
        CacheStatus::Stale { since, because } => {
            let because = match because {
                StaleBecause::Error => "stale-if-error",
                StaleBecause::Slow => "stale-while-revalidate",
                StaleBecause::Deadline => "stale-at-deadline",
                StaleBecause::Draining => "stale-while-draining",
                StaleBecause::Overloaded => "stale-if-overloaded",
            };
            format!("{CACHE_NAME}; hit; ttl=-{}; detail={because}", since.as_secs())
        }
        CacheStatus::Cooldown => format!("{CACHE_NAME}; hit; detail=cooldown"),
        CacheStatus::NotForwarded(because) => {
            // Neither `hit` nor `fwd`: nothing stored was given, and nothing was forwarded.
            let because = match because {
                NotForwarded::HeldBack => "held-back",
                NotForwarded::Overloaded => "overloaded",
                NotForwarded::OverShare => "over-share",
                NotForwarded::NotSent => "not-sent",
            };
            format!("{CACHE_NAME}; detail={because}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_its_words() {
        let seconds = Duration::from_secs;
        let forwarded = |reason, collapsed, stored| CacheStatus::Forwarded { reason, collapsed, stored };
        let cases = [
            (CacheStatus::Hit { ttl: Duration::from_millis(25_900) }, "hit; ttl=25"),
            (forwarded(Forwarded::Miss, false, true), "fwd=miss; stored"),
            (forwarded(Forwarded::Miss, true, true), "fwd=miss; collapsed; stored"),
            (forwarded(Forwarded::Stale, false, false), "fwd=stale"),
            (forwarded(Forwarded::Request, false, true), "fwd=request; stored"),
            (
                CacheStatus::Stale { since: seconds(40), because: StaleBecause::Error },
                "hit; ttl=-40; detail=stale-if-error",
            ),
            (
                CacheStatus::Stale { since: seconds(2), because: StaleBecause::Slow },
                "hit; ttl=-2; detail=stale-while-revalidate",
            ),
            (
                CacheStatus::Stale { since: seconds(1), because: StaleBecause::Deadline },
                "hit; ttl=-1; detail=stale-at-deadline",
            ),
            (CacheStatus::Cooldown, "hit; detail=cooldown"),
            (CacheStatus::NotForwarded(NotForwarded::HeldBack), "detail=held-back"),
            (CacheStatus::NotForwarded(NotForwarded::Overloaded), "detail=overloaded"),
            (CacheStatus::NotForwarded(NotForwarded::OverShare), "detail=over-share"),
            (CacheStatus::NotForwarded(NotForwarded::NotSent), "detail=not-sent"),
            (CacheStatus::Hit { ttl: Duration::MAX }, "hit; ttl=18446744073709551615"),
        ];
        for (status, words) in cases {
            assert_eq!(cache_status(status), format!("glacier-gateway; {words}"));
            assert_eq!(render(status), format!("glacier-gateway; {words}"));
        }
    }
}
