//! What an answer means that is not a description.
//!
//! Pure. Glacier's *code* decides: throttling arrives as 400, an unavailable service as 500. The HTTP status counts only
//! where there is no code that we know, which is how middleboxes answer. Messages are read to tell two pairs of errors
//! apart, and go to the operator's log unless they may hold a secret: the message of a signature error can echo the session
//! token.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

use crate::{
    glacier::response::Answer,
    upstream::{GlacierMessage, UpstreamError, UpstreamErrorKind as Kind},
};

/// Where the code is, if not in the body.
pub(super) const CODE_HEADER: &str = "x-amzn-errortype";
/// Members of the body that may hold the code, in the order in which AWS's SDKs look.
const CODE_MEMBERS: [&str; 2] = ["code", "__type"];
/// Members of the body that may hold the message.
const MESSAGE_MEMBERS: [&str; 3] = ["message", "Message", "errorMessage"];
/// Glacier's name for a request, and S3's, which some of its front ends use.
const REQUEST_ID_HEADERS: [&str; 2] = ["x-amzn-requestid", "x-amz-request-id"];
/// How long to wait, in milliseconds.
const RETRY_AFTER_HEADER: &str = "x-amz-retry-after";
/// Longest code or request id that is believed: ten times the real ones.
const TOKEN_MAX: usize = 128;

/// How a 404 about a vault begins; every other 404 with a code is about a job.
const VAULT_NOT_FOUND: &str = "Vault not found";
/// How a signature error begins whose cause is the clock.
const SKEWED: [&str; 2] = ["Signature expired", "Signature not yet current"];

/// What a message says that may quote a signature, what was signed, or credentials.
const SMELLS: [&str; 9] = [
    "canonical",
    "signature",
    "string-to-sign",
    "string to sign",
    "security-token",
    "security token",
    "credential",
    "aws4-",
    "authorization header",
];

/// Names the failure that `answer` (neither 2xx nor 3xx) stands for.
pub(super) fn classify(answer: &Answer<'_>) -> UpstreamError {
    let body: Map<String, Value> = serde_json::from_slice(answer.body).unwrap_or_default();
    let code = code_of(answer.headers, &body);
    let message = message_of(&body);
    let kind = code.as_deref().and_then(|code| kind_of_code(code, message));
    let kind = kind.unwrap_or_else(|| kind_of_status(answer.status));
    let detail = match &code {
        Some(code) => format!("glacier answered {} with {code}", answer.status.as_u16()),
        None => format!("answer {} without an error code", answer.status.as_u16()),
    };
    UpstreamError {
        glacier_code: code,
        retry_after: retry_after(answer.headers),
        message: may_be_logged(kind, message).then(|| GlacierMessage::new(message)).flatten(),
        ..failure(answer, kind, detail)
    }
}

/// Whether Glacier's words about this kind of error hold no secret: they are not about the signature or the credentials, by
/// their code or by any word of theirs.
fn may_be_logged(kind: Kind, message: &str) -> bool {
    let about_credentials = matches!(
        kind,
        Kind::CredentialsExpired | Kind::ClockSkewed | Kind::CredentialsRejected | Kind::CredentialsUnavailable
    );
    let message = message.to_ascii_lowercase();
    !about_credentials && !SMELLS.iter().any(|smell| message.contains(smell))
}

/// An error about an answer that did arrive.
pub(super) fn failure(answer: &Answer<'_>, kind: Kind, detail: impl Into<String>) -> UpstreamError {
    UpstreamError {
        http_status: Some(answer.status.as_u16()),
        request_id: request_id(answer.headers),
        ..UpstreamError::new(kind, true, detail)
    }
}

/// Glacier's name for the request, if it is harmless to repeat: opaque, in practice base64url.
pub(super) fn request_id(headers: &HeaderMap) -> Option<String> {
    let is_harmless = |b: u8| b.is_ascii_alphanumeric() || b"._=+/-".contains(&b);
    REQUEST_ID_HEADERS.iter().find_map(|name| token(headers.get(*name)?.to_str().ok()?, is_harmless))
}

/// What a wish to wait is cut to: callers are told of it, and one of ages, from a middlebox say, would end their retries.
const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(1);

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let millis = headers.get(RETRY_AFTER_HEADER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_millis(millis).min(LONGEST_RETRY_AFTER))
}

/// The first place that holds something like a code decides.
fn code_of(headers: &HeaderMap, body: &Map<String, Value>) -> Option<String> {
    let header = headers.get(CODE_HEADER).and_then(|value| value.to_str().ok());
    let members = CODE_MEMBERS.iter().map(|name| body.get(*name).and_then(Value::as_str));
    std::iter::once(header).chain(members).flatten().find_map(bare_code)
}

/// `com.amazonaws.glacier#ThrottlingException:http://…` is `ThrottlingException`.
fn bare_code(text: &str) -> Option<String> {
    // The suffix first: a URL may hold a `#`.
    let without_suffix = text.split_once(':').map_or(text, |(code, _url)| code);
    let bare = without_suffix.rsplit_once('#').map_or(without_suffix, |(_namespace, code)| code);
    token(bare.trim(), |b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn token(text: &str, is_harmless: impl Fn(u8) -> bool) -> Option<String> {
    ((1..=TOKEN_MAX).contains(&text.len()) && text.bytes().all(is_harmless)).then(|| text.to_owned())
}

fn message_of(body: &Map<String, Value>) -> &str {
    MESSAGE_MEMBERS.iter().find_map(|name| body.get(*name)?.as_str()).unwrap_or_default().trim_start()
}

/// The meaning of a code that we know. AWS writes most codes with the suffix `Exception`, some front ends without.
fn kind_of_code(code: &str, message: &str) -> Option<Kind> {
    let kind = match code.strip_suffix("Exception").unwrap_or(code) {
        // Glacier tells the two apart by the message only. The wording of the vault's is checked because a job that is
        // reported as a missing vault would send the caller to create one; the other way round misleads less.
        "ResourceNotFound" if message.starts_with(VAULT_NOT_FOUND) => Kind::VaultNotFound,
        "ResourceNotFound" => Kind::JobNotFound,
        "InvalidParameterValue" | "MissingParameterValue" | "BadRequest" | "Validation" | "ValidationError" => {
            Kind::InvalidParameter
        }
        "AccessDenied" | "NotAuthorized" | "UnauthorizedOperation" | "UnauthorizedAccess" | "AuthorizationError" => {
            Kind::AccessDenied
        }
        // All that AWS's SDKs take for throttling, but for LimitExceeded, which Glacier means otherwise.
        "Throttling"
        | "Throttled"
        | "RequestThrottled"
        | "EC2Throttled"
        | "TooManyRequests"
        | "RequestLimitExceeded"
        | "BandwidthLimitExceeded"
        | "ProvisionedThroughputExceeded"
        | "PriorRequestNotComplete"
        | "TransactionInProgress"
        | "SlowDown" => Kind::Throttled,
        "RequestTimeout"
        | "RequestAborted"
        | "ServiceUnavailable"
        | "InsufficientCapacity"
        | "InternalFailure"
        | "InternalServer"
        | "InternalServerError"
        | "InternalError" => Kind::Unavailable,
        "ExpiredToken" | "TokenRefreshRequired" => Kind::CredentialsExpired,
        "InvalidSignature" | "SignatureDoesNotMatch" if SKEWED.iter().any(|begin| message.starts_with(begin)) => {
            Kind::ClockSkewed
        }
        "RequestExpired" | "RequestTimeTooSkewed" => Kind::ClockSkewed,
        "InvalidSignature"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClient"
        | "MissingAuthenticationToken"
        | "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "InvalidToken"
        | "AuthFailure"
        | "IncompleteSignature" => Kind::CredentialsRejected,
        "NoLongerSupported" | "OptInRequired" | "SubscriptionRequired" => Kind::ClosedToAccount,
        "PolicyEnforced" | "LimitExceeded" | "Serialization" => Kind::Unexpected,
        _ => return None,
    };
    Some(kind)
}

fn kind_of_status(status: StatusCode) -> Kind {
    match status.as_u16() {
        408 | 500..=599 => Kind::Unavailable,
        429 => Kind::Throttled,
        _ => Kind::Unexpected,
    }
}

#[cfg(test)]
mod tests;
