//! How one attempt failed: what the caller will hear, and what decides whether another attempt makes sense.

use aws_credential_types::Credentials;

use crate::{
    glacier::skew::Offset,
    upstream::{GlacierMessage, UpstreamError, UpstreamErrorKind as Kind},
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

    /// Without Glacier's message if that holds the beginning of a secret that the request was signed with. Of one that the
    /// end of the message cuts, less than that may be left.
    pub(super) fn without_secrets(mut self, credentials: &Credentials) -> Self {
        /// As many characters of a secret give nothing away, and AWS's are longer: a shorter one is a word of a test's.
        const BEGINNING: usize = 16;
        let holds = |message: &GlacierMessage, secret: &str| {
            secret.get(..BEGINNING).is_some_and(|beginning| message.for_log().contains(beginning))
        };
        let secrets = [Some(credentials.secret_access_key()), credentials.session_token()];
        self.error.message =
            self.error.message.filter(|message| !secrets.into_iter().flatten().any(|secret| holds(message, secret)));
        self
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
            | Kind::HeldBack
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

#[cfg(test)]
mod tests {
    use super::*;

    /// P8
    #[test]
    fn a_message_that_holds_a_secret_of_the_requests_is_dropped() {
        let (secret, token) = ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "IQoJb3JpZ2luX2VjEXAMPLE/token+of+many=");
        let credentials = Credentials::new("AKID", secret, Some(token.to_owned()), None, "test");
        let left = |text: &str| {
            let message = GlacierMessage::new(text);
            let error = UpstreamError { message, ..UpstreamError::new(Kind::Unexpected, true, "refused") };
            Failure::from(error).without_secrets(&credentials).error.message.is_some()
        };
        for text in [token, secret, &format!("what is {token}?"), &format!("{}{token}", "x".repeat(480))] {
            assert!(!left(text), "{text}");
        }
        assert!(left("Rate exceeded"));
    }

    #[test]
    fn the_short_keys_of_an_emulator_hide_no_message() {
        let message = GlacierMessage::new("no such test vault");
        let error = UpstreamError { message, ..UpstreamError::new(Kind::Unexpected, true, "refused") };
        let credentials = Credentials::new("test", "test", Some(String::new()), None, "test");
        assert!(Failure::from(error).without_secrets(&credentials).error.message.is_some());
    }
}
