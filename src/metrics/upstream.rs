//! Requests to Glacier.

use std::time::Duration;

use prometheus_client::{metrics::counter::Counter, registry::Registry};

use super::{
    histogram::{Histogram, Tick},
    reading::Reading,
    series::{Series, Word as _, vocabulary},
};

/// In milliseconds, up to the longest that an attempt may be given.
const BOUNDS: [u64; 12] = [5, 10, 25, 50, 100, 250, 500, 1000, 2000, 3000, 5000, 10_000];

vocabulary! {
    /// How a request to Glacier ended: well, or as one of the kinds of failure.
    pub enum UpstreamCode {
        /// With a description.
        Ok = "ok",
        /// Glacier refused a parameter.
        InvalidParameter = "invalid_parameter",
        /// No such job.
        JobNotFound = "job_not_found",
        /// No such vault.
        VaultNotFound = "vault_not_found",
        /// The gateway's role may not ask this.
        AccessDenied = "access_denied",
        /// The account asks too often.
        Throttled = "throttled",
        /// Glacier is down or unreachable.
        Unavailable = "unavailable",
        /// No answer in time.
        TimedOut = "timed_out",
        /// TLS failed.
        TlsFailed = "tls_failed",
        /// There was nothing to sign with.
        CredentialsUnavailable = "credentials_unavailable",
        /// This replica had enough to do.
        Overloaded = "overloaded",
        /// The session token has expired.
        CredentialsExpired = "credentials_expired",
        /// The signature's date is too far from Glacier's clock.
        ClockSkewed = "clock_skewed",
        /// Glacier rejects credentials or signature.
        CredentialsRejected = "credentials_rejected",
        /// The account has no Glacier storage.
        ClosedToAccount = "closed_to_account",
        /// Not an answer of Glacier's.
        Malformed = "malformed",
        /// About another job or vault.
        WrongJob = "wrong_job",
        /// A bug.
        Panicked = "panicked",
        /// A refusal that is not documented.
        Unexpected = "unexpected",
    }
}

vocabulary! {
    /// Which request of a fetch.
    pub enum Attempt {
        /// The first.
        First = "first",
        /// One that follows a failure.
        Retry = "retry",
    }
}

/// What becomes of requests to Glacier. Cheap to clone.
#[derive(Debug, Clone)]
pub struct UpstreamMetrics {
    /// By [`UpstreamCode`], and therein by [`Attempt`].
    requests: Vec<[Counter; Attempt::ALL.len()]>,
    seconds: Histogram,
    tokens: Reading,
}

impl UpstreamMetrics {
    pub(super) fn in_registry(registry: &mut Registry) -> Self {
        let tokens = Reading::in_registry(
            registry,
            "upstream_retry_tokens",
            "What is left for retries of failed requests to Glacier; at zero nothing is retried",
        );
        let metrics = Self { tokens, ..Self::default() };
        let requests = UpstreamCode::ALL.iter().zip(&metrics.requests).flat_map(|(code, of)| {
            let attempts = Attempt::ALL.iter().zip(of);
            attempts.map(|(attempt, count)| ([("code", code.name()), ("attempt", attempt.name())], count.clone()))
        });
        let help = "Requests to Glacier, by how they ended and whether they repeat a failed one";
        registry.register("upstream_requests", help, Series(requests.collect()));
        let help = "How long requests to Glacier took, to the end of the answer";
        registry.register("upstream_request_duration_seconds", help, metrics.seconds.clone());
        metrics
    }

    /// A request has ended.
    pub fn requested(&self, code: UpstreamCode, attempt: Attempt, took: Duration) {
        self.requests[code.index()][attempt.index()].inc();
        self.seconds.observe(took);
    }

    /// How many retry tokens are left is read so.
    pub fn read_tokens(&self, read: impl Fn() -> u64 + Send + Sync + 'static) {
        self.tokens.from(read);
    }
}

impl Default for UpstreamMetrics {
    fn default() -> Self {
        Self {
            requests: UpstreamCode::ALL.iter().map(|_| [Counter::default(), Counter::default()]).collect(),
            seconds: Histogram::new(Tick::Nanosecond, &BOUNDS.map(Duration::from_millis)),
            tokens: Reading::default(),
        }
    }
}
