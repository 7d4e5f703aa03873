//! The names of spans and attributes, as OpenTelemetry's semantic conventions have them, and what those say about errors.
//!
//! - RPC, gRPC: <https://github.com/open-telemetry/semantic-conventions/blob/v1.45.0/docs/rpc/grpc.md>, the first stable
//!   version: a full `rpc.method`, and `rpc.status_code`, which its candidates called `rpc.response.status_code`.
//! - HTTP: <https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-client-span>, stable.
//! - AWS: <https://opentelemetry.io/docs/specs/semconv/registry/attributes/aws/>.

use crate::metrics::CallCode;

/// The version of the conventions, as exported data names it.
pub(super) const SCHEMA: &str = "https://opentelemetry.io/schemas/1.45.0";

/// `{rpc.method}`: the name of a span of a call.
pub(super) const DESCRIBE_JOB: &str = "glacier.jobs.v1.JobService/DescribeJob";
/// `{method} {url.template}`: the name of a span of a request.
pub(super) const GET_JOB: &str = "GET /{accountId}/vaults/{vaultName}/jobs/{jobId}";

pub(super) const RPC_SYSTEM: &str = "rpc.system.name";
pub(super) const RPC_METHOD: &str = "rpc.method";
pub(super) const RPC_STATUS: &str = "rpc.status_code";
pub(super) const HTTP_METHOD: &str = "http.request.method";
pub(super) const HTTP_STATUS: &str = "http.response.status_code";
pub(super) const HTTP_RESENDS: &str = "http.request.resend_count";
pub(super) const URL: &str = "url.full";
pub(super) const URL_TEMPLATE: &str = "url.template";
pub(super) const SERVER_ADDRESS: &str = "server.address";
pub(super) const SERVER_PORT: &str = "server.port";
pub(super) const CLIENT_ADDRESS: &str = "client.address";
pub(super) const CLIENT_PORT: &str = "client.port";
pub(super) const ERROR: &str = "error.type";
pub(super) const AWS_REQUEST_ID: &str = "aws.request_id";
pub(super) const SERVICE_VERSION: &str = "service.version";

/// Ours: how the cache came by the outcome; the words of `glacier_gateway_cache_requests_total`.
pub(super) const CACHE: &str = "glacier_gateway.cache";
/// Ours: the job asked about, `account/vault/job`.
pub(super) const JOB: &str = "glacier_gateway.job";

/// [`RPC_SYSTEM`].
pub(super) const GRPC: &str = "grpc";
/// [`HTTP_METHOD`].
pub(super) const GET: &str = "GET";
/// [`URL_TEMPLATE`].
pub(super) const JOB_TEMPLATE: &str = "/{accountId}/vaults/{vaultName}/jobs/{jobId}";
/// [`ERROR`] of what nobody waited for to the end.
pub(super) const ABANDONED: &str = "abandoned";

/// gRPC's own spelling of a status, which differs from that of dashboards.
pub(super) const fn status(code: CallCode) -> &'static str {
    match code {
        CallCode::Ok => "OK",
        CallCode::Canceled => "CANCELLED",
        CallCode::Unknown => "UNKNOWN",
        CallCode::InvalidArgument => "INVALID_ARGUMENT",
        CallCode::DeadlineExceeded => "DEADLINE_EXCEEDED",
        CallCode::NotFound => "NOT_FOUND",
        CallCode::AlreadyExists => "ALREADY_EXISTS",
        CallCode::PermissionDenied => "PERMISSION_DENIED",
        CallCode::ResourceExhausted => "RESOURCE_EXHAUSTED",
        CallCode::FailedPrecondition => "FAILED_PRECONDITION",
        CallCode::Aborted => "ABORTED",
        CallCode::OutOfRange => "OUT_OF_RANGE",
        CallCode::Unimplemented => "UNIMPLEMENTED",
        CallCode::Internal => "INTERNAL",
        CallCode::Unavailable => "UNAVAILABLE",
        CallCode::DataLoss => "DATA_LOSS",
        CallCode::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Whether a server's span with this status is one of an error: the server's, not the caller's.
pub(super) const fn is_servers_error(code: CallCode) -> bool {
    match code {
        CallCode::Unknown
        | CallCode::DeadlineExceeded
        | CallCode::Unimplemented
        | CallCode::Internal
        | CallCode::Unavailable
        | CallCode::DataLoss => true,
        CallCode::Ok
        | CallCode::Canceled
        | CallCode::InvalidArgument
        | CallCode::NotFound
        | CallCode::AlreadyExists
        | CallCode::PermissionDenied
        | CallCode::ResourceExhausted
        | CallCode::FailedPrecondition
        | CallCode::Aborted
        | CallCode::OutOfRange
        | CallCode::Unauthenticated => false,
    }
}
