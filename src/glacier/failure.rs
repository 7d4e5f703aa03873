//! How one attempt failed: what the caller will hear, and what decides whether another attempt makes sense.

use crate::{
    glacier::skew::Offset,
    upstream::{UpstreamError, UpstreamErrorKind as Kind},
};

/// A failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// What the caller hears if this attempt was the last.
    pub(super) error: UpstreamError,
    /// What it means for another attempt.
    pub(super) cause: Cause,
    /// How far Glacier's clock was ahead of ours, if the answer tells.
    pub(super) offset: Option<Offset>,
}

/// What a failure means for another attempt. Finer than [`Kind`] where callers need not tell apart what retries must.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Cause {
    /// Down, slow, or lost on the way: the next attempt may well succeed.
    Transient,
    /// The server closed a connection that had been used before, and gave no answer: it had grown tired of waiting just
    /// as we wrote. Says nothing about its health. (The client's pool replaces a connection by itself only if it had not
    /// begun to write, so the two together are one extra request.)
    ClosedWhileIdle,
    /// Asked too often.
    Throttled,
    /// An answer that makes no sense, perhaps of something between us and Glacier.
    Garbage,
    /// The session token has expired, or credentials or signature are rejected.
    Credentials,
    /// The signature's date is too far from Glacier's clock.
    Skewed,
    /// Another attempt would end in the same way.
    Permanent,
}

impl Failure {
    /// A failure whose cause its kind does not tell.
    pub(super) fn new(error: UpstreamError, cause: Cause) -> Self {
        Self { error, cause, offset: None }
    }
}

/// The ordinary case: the kind tells the cause.
impl From<UpstreamError> for Failure {
    fn from(error: UpstreamError) -> Self {
        let cause = match error.kind {
            Kind::Unavailable | Kind::TimedOut => Cause::Transient,
            Kind::Throttled => Cause::Throttled,
            Kind::Malformed => Cause::Garbage,
            Kind::CredentialsExpired | Kind::CredentialsRejected => Cause::Credentials,
            Kind::ClockSkewed => Cause::Skewed,
            Kind::InvalidParameter
            | Kind::JobNotFound
            | Kind::VaultNotFound
            | Kind::AccessDenied
            | Kind::TlsFailed
            | Kind::CredentialsUnavailable
            | Kind::Overloaded
            | Kind::OverShare
            | Kind::ClosedToAccount
            | Kind::WrongJob
            | Kind::Contradictory
            | Kind::Panicked
            | Kind::Unexpected => Cause::Permanent,
        };
        Self::new(error, cause)
    }
}
