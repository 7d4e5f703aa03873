//! Our errors as gRPC statuses: one exhaustive match.
//!
//! Messages are ours and short. Every status carries `ErrorInfo`; what a client should retry also carries `RetryInfo` and
//! the `grpc-retry-pushback-ms` trailer, because gRPC clients act on the latter only. Nothing that Glacier wrote goes in,
//! except its error code and request id.

use std::{collections::HashMap, sync::Arc, time::Duration};

use prost_types::Timestamp;
use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use super::encoding::{ACCEPTED, GRPC_ACCEPT_ENCODING};
use crate::{
    caller::CallerIdentity,
    describe::{DescribeError, Interruption},
    job::{InvalidField, JobKey},
    upstream::{UpstreamError, UpstreamErrorKind},
};

/// `ErrorInfo.domain` of every error.
pub(super) const DOMAIN: &str = "glacier-gateway";
const PUSHBACK: &str = "grpc-retry-pushback-ms";
const BUG: &str = "a bug in the gateway; its log has the details";
/// When to come again if Glacier is in trouble: past the cooldown, in which nobody would ask it.
const RETRY_TRANSIENT: Duration = Duration::from_secs(1);
/// When to come again if the account is throttled and Glacier named no time.
const RETRY_THROTTLED: Duration = Duration::from_secs(5);
/// The longest wait that a caller is told, whatever Glacier wishes: trouble seldom lasts longer, and a wish that does not
/// fit the client's integer makes gRPC clients never come again.
const RETRY_LONGEST: Duration = Duration::from_mins(1);

/// Everything that can end a call badly.
#[derive(Debug)]
pub(super) enum CallError<'a> {
    /// Request fields are malformed.
    Invalid(Vec<InvalidField>),
    /// The policy does not let this caller ask about this job's vault.
    NotAllowed { key: &'a JobKey, caller: Option<&'a CallerIdentity> },
    /// The use case gave an error about this job.
    Describe { key: &'a JobKey, error: DescribeError, retry_in: Option<Duration> },
    /// There is no request message, or it is none of ours: why not.
    NoRequest(String),
    /// The message is above the limit, or would be once decompressed.
    TooLarge,
    /// A message is flagged as compressed, and no header says how.
    CompressedWithoutEncoding,
    /// `grpc-encoding` names none that is known here.
    UnknownEncoding,
    /// No such method or service.
    Unimplemented(String),
    /// The call's time passed before its handler could answer.
    NoTime,
    /// As many calls as allowed are open in the process.
    TooManyCalls,
    /// As many calls of this kind as allowed are open on the connection.
    TooManyOnConnection,
    /// The process is about to end.
    Draining,
    /// A bug: the handler panicked.
    Panicked,
}

/// The status that a caller gets.
pub(super) fn of(error: CallError<'_>) -> Status {
    match error {
        CallError::Invalid(fields) => invalid(fields),
        CallError::NotAllowed { key, caller } => {
            // What the caller knows already; nothing of the policy, and nothing of the job.
            let who = caller.map_or_else(|| "a caller without a verified name".to_owned(), named);
            let (vault, account) = (key.vault_name(), key.account_id());
            let message = format!("{who} may not ask about jobs of vault {vault:?} in account {account:?}");
            Answer::new(Code::PermissionDenied, "CALLER_NOT_ALLOWED", message).into()
        }
        CallError::NoRequest(why) => {
            let message = format!("invalid request: {why}");
            Answer::new(Code::InvalidArgument, "INVALID_REQUEST", message).into()
        }
        CallError::TooLarge => {
            let message = "the request message is too large; the limit counts decompressed bytes";
            Answer::new(Code::ResourceExhausted, "REQUEST_TOO_LARGE", message).into()
        }
        // The code that gRPC's compression document demands.
        CallError::CompressedWithoutEncoding => {
            let message = "invalid request: a message is flagged as compressed, but grpc-encoding names no compression";
            Answer::new(Code::Internal, "INVALID_REQUEST", message).into()
        }
        CallError::UnknownEncoding => {
            let message = "this grpc-encoding is not supported; supported are identity and gzip";
            let mut status: Status = Answer::new(Code::Unimplemented, "UNIMPLEMENTED", message).into();
            let accepted = MetadataValue::from_static(ACCEPTED);
            status.metadata_mut().insert(GRPC_ACCEPT_ENCODING.as_str(), accepted);
            status
        }
        CallError::Unimplemented(what) => Answer::new(Code::Unimplemented, "UNIMPLEMENTED", what).into(),
        CallError::Describe { key, error: DescribeError::Upstream(error), retry_in } => upstream(key, &error, retry_in),
        CallError::Describe { key, error: DescribeError::Expired { completion, error }, .. } => {
            let message = "the job completed and Glacier has forgotten it";
            Answer::new(Code::NotFound, "JOB_EXPIRED", message)
                .about(&error)
                .resource("glacier.amazonaws.com/Job", key.as_str())
                .metadata("completion_date", Timestamp::from(completion).to_string())
                .into()
        }
        CallError::Describe { error: DescribeError::DeadlineExceeded, .. } | CallError::NoTime => {
            let message = "the deadline passed before there was an answer";
            Answer::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", message).into()
        }
        CallError::Describe { error: DescribeError::Interrupted(Interruption::Overloaded), .. }
        | CallError::TooManyCalls => {
            Answer::new(Code::Unavailable, "GATEWAY_OVERLOADED", "this replica has too many open calls")
                .retry_in(RETRY_TRANSIENT)
                .into()
        }
        CallError::TooManyOnConnection => {
            let message = "the connection has as many calls of this kind open as one may";
            Answer::new(Code::ResourceExhausted, "CALLER_OVER_SHARE", message).retry_in(RETRY_TRANSIENT).into()
        }
        CallError::Describe { error: DescribeError::Interrupted(Interruption::Draining), .. } | CallError::Draining => {
            let message = "this replica is shutting down; ask another";
            Answer::new(Code::Unavailable, "GATEWAY_DRAINING", message).into()
        }
        CallError::Describe { error: DescribeError::FetchPanicked, .. } | CallError::Panicked => {
            Answer::new(Code::Internal, "GATEWAY_INTERNAL", BUG).into()
        }
    }
}

impl crate::fuzzing::Door {
    /// [`of`] an upstream error.
    pub fn status(key: &JobKey, error: UpstreamError) -> Status {
        of(CallError::Describe { key, error: DescribeError::Upstream(Arc::new(error)), retry_in: None })
    }
}

/// A caller's name, escaped, and cut so that the message stays below 1 KiB.
fn named(caller: &CallerIdentity) -> String {
    const SHOWN: usize = 300;
    let name = caller.to_string();
    let head: String = name.chars().take(SHOWN).collect();
    if head.len() < name.len() { format!("{head:?}…") } else { format!("{head:?}") }
}

fn invalid(fields: Vec<InvalidField>) -> Status {
    let names: Vec<_> = fields.iter().map(|f| f.field).collect();
    let message = format!("invalid request: {}", names.join(", "));
    let violations: Vec<_> = fields.into_iter().map(|f| FieldViolation::new(f.field, f.description)).collect();
    let mut answer = Answer::new(Code::InvalidArgument, "INVALID_REQUEST", message);
    answer.details.set_bad_request(violations);
    answer.into()
}

/// `retry_in` says when Glacier is asked again at the earliest.
fn upstream(key: &JobKey, error: &UpstreamError, retry_in: Option<Duration>) -> Status {
    // Not before that, nor before Glacier wants it, nor sooner than makes sense.
    let later = |least: Duration| least.max(retry_in.unwrap_or_default());
    let unavailable = |message: &str| {
        Answer::new(Code::Unavailable, "GLACIER_UNAVAILABLE", message)
            .retry_in(later(error.retry_after.unwrap_or(RETRY_TRANSIENT)))
    };
    let answer = match error.kind {
        UpstreamErrorKind::InvalidParameter => Answer::new(
            Code::InvalidArgument,
            "GLACIER_INVALID_PARAMETER",
            "Glacier refused a parameter of the request",
        ),
        UpstreamErrorKind::VaultNotFound => Answer::new(
            Code::NotFound,
            "VAULT_NOT_FOUND",
            format!("no vault {:?} in account {:?}{}", key.vault_name(), key.account_id(), asked_in(error)),
        )
        .resource("glacier.amazonaws.com/Vault", &format!("{}/{}", key.account_id(), key.vault_name())),
        UpstreamErrorKind::JobNotFound => Answer::new(
            Code::NotFound,
            "JOB_NOT_FOUND",
            format!(
                "no such job in vault {:?}{}; Glacier forgets jobs a day after they complete",
                key.vault_name(),
                asked_in(error)
            ),
        )
        .resource("glacier.amazonaws.com/Job", key.as_str()),
        UpstreamErrorKind::AccessDenied => Answer::new(
            Code::PermissionDenied,
            "GLACIER_ACCESS_DENIED",
            "Glacier does not allow the gateway's role to describe jobs of this vault",
        ),
        UpstreamErrorKind::Throttled => {
            Answer::new(Code::ResourceExhausted, "GLACIER_THROTTLED", "Glacier throttled this request")
                .retry_in(later(error.retry_after.unwrap_or(RETRY_THROTTLED)))
        }
        UpstreamErrorKind::HeldBack => Answer::new(
            Code::ResourceExhausted,
            "GLACIER_THROTTLED",
            "held back: Glacier throttles this account, and the request was not sent",
        )
        .retry_in(later(error.retry_after.unwrap_or(RETRY_TRANSIENT))),
        UpstreamErrorKind::Unavailable => unavailable("Glacier is unavailable or cannot be reached"),
        UpstreamErrorKind::TimedOut => unavailable("Glacier gave no answer in time"),
        UpstreamErrorKind::TlsFailed => unavailable("a TLS connection to Glacier cannot be made"),
        UpstreamErrorKind::Contradictory => Answer::new(
            Code::Unavailable,
            "GLACIER_CONTRADICTORY",
            "Glacier contradicts what it said before; what is right will show within a minute",
        )
        .retry_in(later(RETRY_TRANSIENT)),
        UpstreamErrorKind::CredentialsUnavailable => Answer::new(
            Code::Unavailable,
            "GATEWAY_CREDENTIALS_UNAVAILABLE",
            "the gateway has no AWS credentials that are valid at the moment",
        )
        .retry_in(later(RETRY_TRANSIENT)),
        UpstreamErrorKind::Overloaded => Answer::new(
            Code::Unavailable,
            "GATEWAY_OVERLOADED",
            "this replica has too many requests to Glacier waiting",
        )
        .retry_in(RETRY_TRANSIENT),
        UpstreamErrorKind::OverShare => Answer::new(
            Code::ResourceExhausted,
            "CALLER_OVER_SHARE",
            "the caller has as many requests to Glacier under way and waiting as one caller may",
        )
        .retry_in(RETRY_TRANSIENT),
        UpstreamErrorKind::CredentialsExpired
        | UpstreamErrorKind::ClockSkewed
        | UpstreamErrorKind::CredentialsRejected => Answer::new(
            Code::Internal,
            "GATEWAY_CREDENTIALS_REJECTED",
            "Glacier rejects the gateway's credentials or signature",
        ),
        UpstreamErrorKind::ClosedToAccount => Answer::new(
            Code::FailedPrecondition,
            "GLACIER_CLOSED_TO_ACCOUNT",
            "Glacier does not serve the account: it has no Glacier storage, or no subscription to Glacier",
        ),
        UpstreamErrorKind::Malformed => {
            Answer::new(Code::Internal, "GLACIER_MALFORMED_RESPONSE", "Glacier's answer cannot be understood")
        }
        UpstreamErrorKind::WrongJob => Answer::new(
            Code::Internal,
            "GLACIER_WRONG_JOB",
            "Glacier did not answer about the job, vault and account that it was asked about",
        ),
        UpstreamErrorKind::Panicked => Answer::new(Code::Internal, "GATEWAY_INTERNAL", BUG),
        UpstreamErrorKind::Unexpected => Answer::new(
            Code::Internal,
            "GLACIER_UNEXPECTED_ERROR",
            "Glacier refused with an error that it is not known to give here",
        ),
    };
    answer.about(error).into()
}

/// The region that was asked: what is not there may be in another.
fn asked_in(error: &UpstreamError) -> String {
    error.region.as_ref().map_or_else(String::new, |region| format!(" in region {region:?}"))
}

/// A status in the making.
struct Answer {
    code: Code,
    reason: &'static str,
    message: String,
    metadata: HashMap<String, String>,
    details: ErrorDetails,
    pushback: Option<Duration>,
}

impl Answer {
    fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            metadata: HashMap::new(),
            details: ErrorDetails::new(),
            pushback: None,
        }
    }

    fn metadata(mut self, key: &str, value: String) -> Self {
        self.metadata.insert(key.to_owned(), value);
        self
    }

    /// What the caller may quote to AWS.
    fn about(self, error: &UpstreamError) -> Self {
        let pairs =
            [("glacier_code", &error.glacier_code), ("aws_request_id", &error.request_id), ("region", &error.region)];
        pairs.into_iter().fold(self, |answer, (key, value)| match value {
            Some(value) => answer.metadata(key, value.clone()),
            None => answer,
        })
    }

    fn resource(mut self, kind: &str, name: &str) -> Self {
        self.details.set_resource_info(kind, name, "", "");
        self
    }

    fn retry_in(mut self, delay: Duration) -> Self {
        let delay = delay.min(RETRY_LONGEST);
        self.details.set_retry_info(Some(delay));
        self.pushback = Some(delay);
        self
    }
}

impl From<Answer> for Status {
    fn from(answer: Answer) -> Self {
        let Answer { code, reason, message, metadata, mut details, pushback } = answer;
        details.set_error_info(reason, DOMAIN, metadata);
        let mut trailers = MetadataMap::new();
        if let Some(delay) = pushback {
            trailers.insert(PUSHBACK, u64::try_from(delay.as_millis()).unwrap_or(u64::MAX).into());
        }
        Self::with_error_details_and_metadata(code, message, details, trailers)
    }
}
