//! `cache-status` (RFC 9211) and `age` (RFC 9111) as response metadata.

use std::time::Duration;

use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

use crate::describe::{CacheStatus, Forwarded, StaleBecause};

/// The header's name.
pub(super) const CACHE_STATUS: &str = "cache-status";
/// The header's name.
pub(super) const AGE: &str = "age";
/// The name under which this cache speaks in `cache-status`.
const CACHE_NAME: &str = "glacier-gateway";

/// Adds `cache-status`.
pub(super) fn add_cache_status(metadata: &mut MetadataMap, status: CacheStatus) {
    add(metadata, CACHE_STATUS, &render(status));
}

/// Adds `age`, in whole seconds.
pub(super) fn add_age(metadata: &mut MetadataMap, age: Duration) {
    add(metadata, AGE, &age.as_secs().to_string());
}

fn add(metadata: &mut MetadataMap, name: &'static str, value: &str) {
    // Only digits and our own words go in, so the conversion cannot fail; leaving a header out would be harmless.
    if let Ok(value) = MetadataValue::<Ascii>::try_from(value) {
        metadata.insert(name, value);
    }
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
                StaleBecause::Deadline => "stale-at-deadline",
                StaleBecause::Draining => "stale-while-draining",
            };
            format!("{CACHE_NAME}; hit; ttl=-{}; detail={because}", since.as_secs())
        }
        CacheStatus::Cooldown => format!("{CACHE_NAME}; hit; detail=cooldown"),
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
                CacheStatus::Stale { since: seconds(1), because: StaleBecause::Deadline },
                "hit; ttl=-1; detail=stale-at-deadline",
            ),
            (CacheStatus::Cooldown, "hit; detail=cooldown"),
        ];
        for (status, words) in cases {
            assert_eq!(render(status), format!("glacier-gateway; {words}"));
        }
    }
}
