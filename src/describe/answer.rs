//! What the use case says: an answer or an error, and how the cache came by it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::{
    cache::{End, Promise},
    metrics::CacheOutcome,
    proto::LengthPrefixed,
    upstream::{UpstreamError, UpstreamErrorKind},
};

/// The outcome of one call of the use case.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The answer or the error.
    pub result: Result<Answer, DescribeError>,
    /// How the cache came by it.
    pub status: CacheStatus,
    /// With an error: how long Glacier is not asked about this job again, if that is known.
    pub retry_in: Option<Duration>,
}

/// A description, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The `DescribeJobResponse`.
    pub message: LengthPrefixed,
    /// How long ago Glacier gave it.
    pub age: Duration,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DescribeError {
    /// Glacier said so, or could not be asked.
    #[error("{0}")]
    Upstream(Arc<UpstreamError>),
    /// Glacier knows the job no more, this replica saw it complete, and the time for which Glacier promises to remember it is
    /// over.
    #[error("the job completed and Glacier has forgotten it")]
    Expired {
        /// When it completed.
        completion: SystemTime,
        /// Glacier's answer.
        error: Arc<UpstreamError>,
    },
    /// The caller's deadline passed first.
    #[error("the deadline passed before Glacier answered")]
    DeadlineExceeded,
    /// The caller was asked to wait no longer, for this reason, and there was nothing to give.
    #[error("told to stop waiting before Glacier answered")]
    Interrupted(Interruption),
    /// A bug: the fetch ended without an outcome.
    #[error("the fetch panicked")]
    FetchPanicked,
}

/// Why a caller is not to wait, or not any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruption {
    /// The process is about to end.
    Draining,
    /// Too many callers wait already.
    Overloaded,
}

impl From<Interruption> for StaleBecause {
    fn from(interruption: Interruption) -> Self {
        match interruption {
            Interruption::Draining => Self::Draining,
            Interruption::Overloaded => Self::Overloaded,
        }
    }
}

impl DescribeError {
    pub(super) fn absent(error: &Arc<UpstreamError>, end: Option<End>, now: Instant) -> Self {
        let promise = end.and_then(|end| end.promise).filter(|promise| promise.until <= now);
        match (error.kind, promise) {
            (UpstreamErrorKind::JobNotFound, Some(Promise { completion, until: _ })) => {
                Self::Expired { completion, error: Arc::clone(error) }
            }
            _ => Self::Upstream(Arc::clone(error)),
        }
    }
}

impl Reply {
    pub(super) fn error(error: DescribeError, status: CacheStatus) -> Self {
        Self { result: Err(error), status, retry_in: None }
    }
}

/// How the cache came by an outcome: RFC 9211 in types, for the `cache-status` header and the tests.
/// [`CacheStatus::outcome`] has the word for it in logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheStatus {
    /// From memory, fresh.
    Hit {
        /// What is left of its freshness.
        ttl: Duration,
    },
    /// Glacier was asked.
    Forwarded {
        /// Why memory did not do.
        reason: Forwarded,
        /// Whether somebody else's fetch was joined.
        collapsed: bool,
        /// Whether something was learnt.
        stored: bool,
    },
    /// From memory, no longer fresh, because Glacier gave nothing better in time.
    Stale {
        /// How long it has not been fresh.
        since: Duration,
        /// What went wrong.
        because: StaleBecause,
    },
    /// A fetch failed a moment ago; its error is given without asking again.
    Cooldown,
    /// Memory did not do, and Glacier was not asked.
    NotForwarded(NotForwarded),
}

/// Why memory did not do: RFC 9211's `fwd` values that occur here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// Nothing usable was known.
    Miss,
    /// What was known is no longer fresh.
    Stale,
    /// What was known is fresh by policy and older than the caller's `max_age`.
    Request,
}

/// Why Glacier was not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotForwarded {
    /// Glacier throttles, and the request's turn would have come too late.
    HeldBack,
    /// This replica has enough to do.
    Overloaded,
    /// The caller that started the fetch has its share.
    OverShare,
    /// There was nothing to sign the request with, or no time before its turn.
    NotSent,
}

/// Why something stale was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaleBecause {
    /// The fetch failed.
    Error,
    /// The fetch takes long, and goes on.
    Slow,
    /// The caller's deadline came before the end of the fetch.
    Deadline,
    /// The process is about to end.
    Draining,
    /// Too many callers wait already.
    Overloaded,
}

impl CacheStatus {
    /// The one word for it.
    pub fn outcome(self) -> CacheOutcome {
        match self {
            Self::Hit { .. } => CacheOutcome::Hit,
            Self::Forwarded { collapsed: true, .. } => CacheOutcome::Collapsed,
            Self::Forwarded { reason, collapsed: false, .. } => match reason {
                Forwarded::Miss => CacheOutcome::Miss,
                Forwarded::Stale => CacheOutcome::Stale,
                Forwarded::Request => CacheOutcome::Request,
            },
            Self::Stale { because, .. } => match because {
                StaleBecause::Error => CacheOutcome::StaleIfError,
                StaleBecause::Slow => CacheOutcome::StaleWhileRevalidate,
                StaleBecause::Deadline => CacheOutcome::StaleAtDeadline,
                StaleBecause::Draining => CacheOutcome::StaleWhileDraining,
                StaleBecause::Overloaded => CacheOutcome::StaleIfOverloaded,
            },
            Self::Cooldown => CacheOutcome::Cooldown,
            Self::NotForwarded(because) => match because {
                NotForwarded::HeldBack => CacheOutcome::HeldBack,
                NotForwarded::Overloaded => CacheOutcome::Overloaded,
                NotForwarded::OverShare => CacheOutcome::OverShare,
                NotForwarded::NotSent => CacheOutcome::NotSent,
            },
        }
    }

    /// A fetch ended in this error, and there is nothing stale to give.
    pub(super) fn failed(reason: Forwarded, collapsed: bool, error: &UpstreamError) -> Self {
        match error.kind {
            // A fetch that was sent and whose next request was held back was forwarded.
            UpstreamErrorKind::HeldBack if !error.sent => Self::NotForwarded(NotForwarded::HeldBack),
            UpstreamErrorKind::Overloaded => Self::NotForwarded(NotForwarded::Overloaded),
            UpstreamErrorKind::OverShare => Self::NotForwarded(NotForwarded::OverShare),
            UpstreamErrorKind::CredentialsUnavailable if !error.sent => Self::NotForwarded(NotForwarded::NotSent),
            _ => Self::unstored(reason, collapsed),
        }
    }

    pub(super) fn unstored(reason: Forwarded, collapsed: bool) -> Self {
        Self::Forwarded { reason, collapsed, stored: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_an_outcome_has_its_word() {
        let forwarded = |reason, collapsed| CacheStatus::Forwarded { reason, collapsed, stored: true };
        let stale = |because| CacheStatus::Stale { since: Duration::ZERO, because };
        let ways = [
            CacheStatus::Hit { ttl: Duration::ZERO },
            forwarded(Forwarded::Miss, false),
            forwarded(Forwarded::Stale, false),
            forwarded(Forwarded::Request, false),
            forwarded(Forwarded::Request, true),
            stale(StaleBecause::Error),
            stale(StaleBecause::Slow),
            stale(StaleBecause::Deadline),
            stale(StaleBecause::Draining),
            stale(StaleBecause::Overloaded),
            CacheStatus::Cooldown,
            CacheStatus::NotForwarded(NotForwarded::HeldBack),
            CacheStatus::NotForwarded(NotForwarded::Overloaded),
            CacheStatus::NotForwarded(NotForwarded::OverShare),
            CacheStatus::NotForwarded(NotForwarded::NotSent),
        ];
        assert_eq!(ways.map(CacheStatus::outcome), CacheOutcome::ALL);
    }
}
