//! The port to Glacier: what the use case asks of an upstream, and how an upstream may fail.
//!
//! `glacier` implements it over REST; the tests implement it in memory. Nothing here knows HTTP or gRPC.

use std::{fmt, future::Future, pin::Pin, time::Duration};

use tokio::time::Instant;

use crate::{
    clock::Moment,
    job::{Identity, JobKey},
    metrics::UpstreamCode,
    proto::v1::GlacierJobDescription,
};

/// Something that can be asked about one job.
pub trait JobSource: Send + Sync + 'static {
    /// Asks once on behalf of everybody and answers before the effort's end, whatever happens.
    fn describe_job(&self, key: JobKey, effort: Effort) -> Fetch<'_>;

    /// Whose account `-` stands for now. Cheap: every call asks.
    fn identity(&self) -> Identity;
}

/// What one fetch may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// When it has to be over.
    pub until: Instant,
    /// Whether failed attempts may be repeated. Not while Glacier hangs: one attempt is enough to find out whether it still
    /// does. What corrects an attempt (fresh credentials, a corrected clock) is no repetition.
    pub repeats: bool,
}

/// What [`JobSource::describe_job`] returns.
pub type Fetch<'a> = Pin<Box<dyn Future<Output = Result<Described, UpstreamError>> + Send + 'a>>;

/// Glacier's description of the job that was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Described {
    /// The description, every member of it.
    pub job: GlacierJobDescription,
    /// When the request that brought this answer was sent; its date is by Glacier's clock. Ages count from here: Glacier may
    /// have looked at the job at once, however long the answer took. It also orders answers: of two, the one asked for
    /// later is newer.
    pub asked_at: Moment,
    /// `x-amzn-RequestId`.
    pub request_id: Option<String>,
}

/// Why Glacier gave no description.
///
/// Holds nothing that came from the wire except the error code and the request id, both checked for length and alphabet:
/// upstream messages can echo a session token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct UpstreamError {
    /// What it means here.
    pub kind: UpstreamErrorKind,
    /// Our own words about the cause, for logs: never upstream text.
    pub detail: String,
    /// Whether the request may have reached Glacier.
    pub sent: bool,
    /// How long Glacier asked us to wait (`x-amz-retry-after`).
    pub retry_after: Option<Duration>,
    /// HTTP status of the answer, if there was one.
    pub http_status: Option<u16>,
    /// Glacier's error code, such as `ThrottlingException`.
    pub glacier_code: Option<String>,
    /// `x-amzn-RequestId`.
    pub request_id: Option<String>,
}

/// The kinds of upstream failure that callers or policy must tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamErrorKind {
    /// Glacier refused a parameter.
    InvalidParameter,
    /// The job does not exist, or not any more: Glacier does not say which.
    JobNotFound,
    /// The vault does not exist.
    VaultNotFound,
    /// The gateway's role may not ask this.
    AccessDenied,
    /// The account asks too often.
    Throttled,
    /// Glacier is down or unreachable; another attempt may succeed.
    Unavailable,
    /// Glacier gave no answer in time; another attempt may succeed.
    TimedOut,
    /// Glacier's answer contradicts what it said before, and is not believed yet.
    Contradictory,
    /// TLS with Glacier failed; another attempt would fail likewise.
    TlsFailed,
    /// There are no valid credentials to sign with; nothing was sent.
    CredentialsUnavailable,
    /// This replica has as many requests to Glacier under way and waiting as it allows itself; nothing was sent.
    Overloaded,
    /// One caller has as many requests under way and waiting as it may have; nothing was sent.
    OverShare,
    /// The session token has expired; fresh credentials may help.
    CredentialsExpired,
    /// The signature's date is too far from Glacier's clock.
    ClockSkewed,
    /// Glacier rejects the credentials or the signature.
    CredentialsRejected,
    /// The account has no Glacier storage and cannot get any (`NoLongerSupportedException`).
    ClosedToAccount,
    /// What came back is not an answer of Glacier's: garbage, a redirect, or above the size limit.
    Malformed,
    /// The description is about another job or vault.
    WrongJob,
    /// A bug: the code that asks panicked.
    Panicked,
    /// A permanent refusal that DescribeJob is not documented to give.
    Unexpected,
}

impl UpstreamErrorKind {
    /// In lower case with underscores, for logs; the word of the metrics where they have one.
    pub fn name(self) -> &'static str {
        match self {
            Self::OverShare => "over_share",
            kind => UpstreamCode::from(kind).name(),
        }
    }
}

impl UpstreamError {
    /// An error without an HTTP answer.
    pub fn new(kind: UpstreamErrorKind, sent: bool, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            sent,
            retry_after: None,
            http_status: None,
            glacier_code: None,
            request_id: None,
        }
    }

    /// Bytes that this takes, texts included.
    pub fn memory(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::capacity);
        size_of::<Self>() + self.detail.capacity() + text(&self.glacier_code) + text(&self.request_id)
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.detail)
    }
}

impl From<UpstreamErrorKind> for UpstreamCode {
    fn from(kind: UpstreamErrorKind) -> Self {
        match kind {
            UpstreamErrorKind::InvalidParameter => Self::InvalidParameter,
            UpstreamErrorKind::JobNotFound => Self::JobNotFound,
            UpstreamErrorKind::VaultNotFound => Self::VaultNotFound,
            UpstreamErrorKind::AccessDenied => Self::AccessDenied,
            UpstreamErrorKind::Throttled => Self::Throttled,
            UpstreamErrorKind::Unavailable => Self::Unavailable,
            UpstreamErrorKind::TimedOut => Self::TimedOut,
            // The request itself was answered.
            UpstreamErrorKind::Contradictory => Self::Ok,
            UpstreamErrorKind::TlsFailed => Self::TlsFailed,
            UpstreamErrorKind::CredentialsUnavailable => Self::CredentialsUnavailable,
            // Neither reaches Glacier, so neither is counted as a request to it.
            UpstreamErrorKind::Overloaded | UpstreamErrorKind::OverShare => Self::Overloaded,
            UpstreamErrorKind::CredentialsExpired => Self::CredentialsExpired,
            UpstreamErrorKind::ClockSkewed => Self::ClockSkewed,
            UpstreamErrorKind::CredentialsRejected => Self::CredentialsRejected,
            UpstreamErrorKind::ClosedToAccount => Self::ClosedToAccount,
            UpstreamErrorKind::Malformed => Self::Malformed,
            UpstreamErrorKind::WrongJob => Self::WrongJob,
            UpstreamErrorKind::Panicked => Self::Panicked,
            UpstreamErrorKind::Unexpected => Self::Unexpected,
        }
    }
}
