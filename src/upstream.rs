//! The port to Glacier: what the use case asks of an upstream, and how an upstream may fail.
//!
//! `glacier` implements it over REST; the tests implement it in memory. Nothing here knows HTTP or gRPC. [`admission`] limits how
//! much an upstream is asked.

use std::{fmt, future::Future, pin::Pin, time::Duration};

use tokio::time::Instant;

use crate::{
    clock::Moment,
    job::{Identity, JobKey},
    metrics::UpstreamCode,
    proto::v1::GlacierJobDescription,
    upstream::admission::Place,
};

pub mod admission;

/// Something that can be asked about one job.
pub trait JobSource: Send + Sync + 'static {
    /// Asks once on behalf of everybody and answers before the effort's end, whatever happens. Each request waits for a turn of
    /// the `place` that this fetch has, and what Glacier answers is reported to it.
    fn describe_job<'a>(&'a self, key: JobKey, place: &'a Place<'a>, effort: Effort) -> Fetch<'a>;

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
/// Of what came from the wire it holds the error code and the request id, both checked for length and alphabet, and
/// Glacier's message, which goes nowhere but to the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct UpstreamError {
    /// What it means here.
    pub kind: UpstreamErrorKind,
    /// Our own words about the cause, for logs: never upstream text.
    pub detail: String,
    /// Whether the request may have reached Glacier.
    pub sent: bool,
    /// When the last request was sent, if the source says so: what Glacier refuses is dated like what it describes.
    pub asked_at: Option<Instant>,
    /// How long Glacier asked us to wait (`x-amz-retry-after`), or when a request that was held back would have been sent.
    pub retry_after: Option<Duration>,
    /// HTTP status of the answer, if there was one.
    pub http_status: Option<u16>,
    /// Glacier's error code, such as `ThrottlingException`.
    pub glacier_code: Option<String>,
    /// `x-amzn-RequestId`.
    pub request_id: Option<String>,
    /// Glacier's own words, if they are harmless in a log.
    pub message: Option<GlacierMessage>,
    /// The region that was asked, if one was.
    pub region: Option<String>,
}

/// What Glacier said about an error: for the operator's log, never for callers. So it has no `Display`, and its `Debug` says
/// nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct GlacierMessage(String);

/// Longest message that is logged, in characters.
const MESSAGE_MAX: usize = 500;

impl GlacierMessage {
    /// `text` with whatever is not printable escaped, so that it cannot forge lines or hide, and cut to 500 characters.
    /// `None` if it says nothing.
    pub fn new(text: &str) -> Option<Self> {
        let mut shown = String::new();
        let mut left = MESSAGE_MAX;
        for c in text.trim().chars() {
            // Formatters and readers cope with these three.
            let plain = matches!(c, '"' | '\'' | '\\').then_some(c);
            let escaped: String = plain.map_or_else(|| c.escape_debug().collect(), String::from);
            match left.checked_sub(escaped.chars().count()) {
                Some(rest) => left = rest,
                None => break,
            }
            shown.push_str(&escaped);
        }
        (!shown.is_empty()).then_some(Self(shown))
    }

    /// The words, for a field of a log event.
    pub fn for_log(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for GlacierMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GlacierMessage({} bytes)", self.0.len())
    }
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
    /// Glacier throttles, and this replica would have sent the request too late.
    HeldBack,
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
    /// Glacier does not serve the account (`NoLongerSupportedException`, `OptInRequired`, `SubscriptionRequiredException`).
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
            Self::Contradictory => "contradictory",
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
            asked_at: None,
            retry_after: None,
            http_status: None,
            glacier_code: None,
            request_id: None,
            message: None,
            region: None,
        }
    }

    /// Bytes that this takes, texts included.
    pub fn memory(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::capacity);
        let texts = text(&self.glacier_code) + text(&self.request_id) + text(&self.region);
        let message = self.message.as_ref().map_or(0, |message| message.0.capacity());
        size_of::<Self>() + self.detail.capacity() + texts + message
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
            // None of them reaches Glacier, so none is counted as a request to it.
            UpstreamErrorKind::HeldBack | UpstreamErrorKind::Overloaded | UpstreamErrorKind::OverShare => {
                Self::Overloaded
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(text: &str) -> Option<String> {
        GlacierMessage::new(text).map(|message| message.for_log().to_owned())
    }

    #[test]
    fn a_message_is_logged_on_one_line_without_what_cannot_be_seen() {
        let plain = "Invalid vault name: arn:aws:glacier:us-east-1:012345678901:vaults/\"f\u{f6}to's\\\"";
        assert_eq!(logged(plain).as_deref(), Some(plain));
        assert_eq!(
            logged(" a\r\nb\tc\u{1b}[31m\u{202e}\u{0}\n").as_deref(),
            Some("a\\r\\nb\\tc\\u{1b}[31m\\u{202e}\\0")
        );
        for nothing in ["", " \r\n"] {
            assert_eq!(logged(nothing), None);
        }
    }

    #[test]
    fn a_message_is_cut_at_500_characters_and_never_inside_an_escape() {
        for text in ["\u{e4}".repeat(500), "\u{e4}".repeat(501), "x".repeat(100_000)] {
            assert_eq!(logged(&text).unwrap().chars().count(), 500);
        }
        assert_eq!(logged(&"\u{1}".repeat(1000)).unwrap(), "\\u{1}".repeat(100));
        assert_eq!(logged(&format!("{}\u{1}x", "y".repeat(498))).unwrap(), "y".repeat(498));
    }

    #[test]
    fn the_log_and_the_metrics_have_the_same_words() {
        for kind in [
            UpstreamErrorKind::InvalidParameter,
            UpstreamErrorKind::JobNotFound,
            UpstreamErrorKind::VaultNotFound,
            UpstreamErrorKind::AccessDenied,
            UpstreamErrorKind::Throttled,
            UpstreamErrorKind::Unavailable,
            UpstreamErrorKind::TlsFailed,
            UpstreamErrorKind::CredentialsUnavailable,
            UpstreamErrorKind::Overloaded,
            UpstreamErrorKind::CredentialsExpired,
            UpstreamErrorKind::ClockSkewed,
            UpstreamErrorKind::CredentialsRejected,
            UpstreamErrorKind::ClosedToAccount,
            UpstreamErrorKind::Malformed,
            UpstreamErrorKind::WrongJob,
            UpstreamErrorKind::Panicked,
            UpstreamErrorKind::Unexpected,
        ] {
            assert_eq!(kind.name(), UpstreamCode::from(kind).name());
        }
    }

    /// P8
    #[test]
    fn what_glacier_said_is_in_no_text_of_the_error_itself() {
        let message = GlacierMessage::new("marked");
        let error = UpstreamError { message, ..UpstreamError::new(UpstreamErrorKind::AccessDenied, true, "denied") };
        assert!(!format!("{error} {error:?} {error:#?}").contains("marked"));
        let without = UpstreamError { message: None, ..error.clone() };
        assert!(error.memory() >= without.memory() + "marked".len());
    }
}
