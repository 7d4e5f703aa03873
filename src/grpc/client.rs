//! A client of our own services, for the commands `describe` and `healthcheck`, the demo and the tests.

use std::{collections::BTreeMap, error::Error, fmt, iter, time::Duration};

use http::uri::InvalidUri;
use tonic::{
    Request, Status,
    metadata::MetadataMap,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_types::StatusExt as _;

use super::cache_status::{AGE, CACHE_STATUS};
use crate::proto::v1::{DescribeJobRequest, DescribeJobResponse, job_service_client::JobServiceClient};

/// Calls `JobService`. Connects when first used, and again when a connection is lost.
#[derive(Debug, Clone)]
pub struct Client {
    inner: JobServiceClient<Channel>,
}

/// A target that is not one.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Not a URI.
    #[error("not a URI: {0}")]
    Uri(#[from] InvalidUri),
    /// A URI that cannot be dialled.
    #[error("must be {0}://HOST:PORT")]
    OtherScheme(&'static str),
    /// Certificates or keys that make no TLS.
    #[error("tls: {0}")]
    Tls(String),
}

/// What a client goes by in TLS: contents of files, as PEM.
#[derive(Clone)]
pub struct ClientTls {
    /// Who may issue the gateway's certificate.
    pub authorities: Vec<u8>,
    /// The client's own certificate and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// It may hold a key.
impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls")
    }
}

/// A good answer.
#[derive(Debug, Clone)]
pub struct Described {
    /// The message.
    pub response: DescribeJobResponse,
    /// `cache-status` of the response.
    pub cache_status: Option<String>,
    /// `age` of the response, in seconds.
    pub age: Option<String>,
}

/// An error status with its details decoded.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// The status code's name, such as `NOT_FOUND`.
    pub code: String,
    /// The status message.
    pub message: String,
    /// `ErrorInfo.reason`, where there is one.
    pub reason: Option<String>,
    /// `ErrorInfo.metadata`.
    pub metadata: BTreeMap<String, String>,
    /// `BadRequest` field violations: field and description.
    pub violations: Vec<(String, String)>,
    /// `RetryInfo.retry_delay`.
    pub retry_delay: Option<Duration>,
    /// `ResourceInfo`: the kind of resource and its name.
    pub resource: Option<(String, String)>,
    /// `x-request-id`, for those who look into the gateway's log.
    pub request_id: Option<String>,
    /// `cache-status`.
    pub cache_status: Option<String>,
}

impl Client {
    /// A client of the gateway at `target`, `http://HOST:PORT`. Every connection attempt ends within `connect_timeout`.
    pub fn new(target: &str, connect_timeout: Duration) -> Result<Self, TargetError> {
        Ok(Self::of(&endpoint(target, "http", connect_timeout)?))
    }

    /// The same over TLS, `https://HOST:PORT`; HOST must be among the names of the gateway's certificate.
    pub fn over_tls(target: &str, connect_timeout: Duration, tls: ClientTls) -> Result<Self, TargetError> {
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(tls.authorities));
        if let Some((certificate, key)) = tls.identity {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        let endpoint = endpoint(target, "https", connect_timeout)?.tls_config(config);
        Ok(Self::of(&endpoint.map_err(|error| TargetError::Tls(with_causes(&error)))?))
    }

    fn of(endpoint: &Endpoint) -> Self {
        Self { inner: JobServiceClient::new(endpoint.connect_lazy()) }
    }

    /// Calls `DescribeJob` and waits at most `timeout`.
    pub async fn describe_job(&mut self, request: DescribeJobRequest, timeout: Duration) -> Result<Described, Refusal> {
        let mut request = Request::new(request);
        request.set_timeout(timeout);
        let response = self.inner.describe_job(request).await.map_err(|status| Refusal::from(&status))?;
        let metadata = response.metadata();
        let (cache_status, age) = (text(metadata, CACHE_STATUS.as_str()), text(metadata, AGE.as_str()));
        Ok(Described { response: response.into_inner(), cache_status, age })
    }
}

fn endpoint(target: &str, scheme: &'static str, connect_timeout: Duration) -> Result<Endpoint, TargetError> {
    let uri: http::Uri = target.parse()?;
    if uri.scheme_str() != Some(scheme) || uri.host().is_none() {
        return Err(TargetError::OtherScheme(scheme));
    }
    Ok(Endpoint::from(uri).connect_timeout(connect_timeout))
}

/// An error's text says little without what caused it.
fn with_causes(error: &dyn Error) -> String {
    iter::successors(Some(error), |error| (*error).source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// What `grpc.health.v1` said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// `SERVING`.
    Serving,
    /// Any other status, by its name in the protocol.
    Otherwise(&'static str),
}

/// A health check that got no answer.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// The address is none.
    #[error("must be HOST:PORT")]
    Address,
    /// Nobody accepts connections there, or what does speaks another protocol.
    #[error("cannot connect: {0}")]
    Connection(String),
    /// An error in place of an answer, such as `NOT_FOUND` for a name that is not known.
    #[error(transparent)]
    Refused(Box<Refusal>),
}

/// Asks the gateway at `address` (`HOST:PORT`, plaintext) about `service`. Connecting ends within `connect_timeout`; the
/// answer may take as long as the caller lets it.
pub async fn health(address: &str, service: &str, connect_timeout: Duration) -> Result<Health, HealthError> {
    let uri: http::Uri = format!("http://{address}").parse().map_err(|_| HealthError::Address)?;
    if uri.port().is_none() || uri.path() != "/" {
        return Err(HealthError::Address);
    }
    let channel = Endpoint::from(uri).connect_timeout(connect_timeout).connect().await;
    let channel = channel.map_err(|error| HealthError::Connection(innermost(&error)))?;
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = HealthClient::new(channel).check(request).await;
    let answer = answer.map_err(|status| HealthError::Refused(Box::new(Refusal::from(&status))))?;
    Ok(match answer.get_ref().status() {
        ServingStatus::Serving => Health::Serving,
        other @ (ServingStatus::Unknown | ServingStatus::NotServing | ServingStatus::ServiceUnknown) => {
            Health::Otherwise(other.as_str_name())
        }
    })
}

/// The cause below tonic's "transport error", which is what tells a reader something.
fn innermost(error: &dyn Error) -> String {
    iter::successors(Some(error), |error| (*error).source()).last().map(ToString::to_string).unwrap_or_default()
}

impl From<&Status> for Refusal {
    fn from(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        let violations = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
        Self {
            code: upper_snake(&format!("{:?}", status.code())),
            // A status of the client's own making says in its causes what happened to the connection.
            message: status.source().map_or_else(|| status.message().to_owned(), with_causes),
            reason: info.map(|info| info.reason.clone()),
            metadata: info.map(|info| info.metadata.clone().into_iter().collect()).unwrap_or_default(),
            violations: violations.into_iter().map(|v| (v.field, v.description)).collect(),
            retry_delay: details.retry_info().and_then(|retry| retry.retry_delay),
            resource: details.resource_info().map(|r| (r.resource_type.clone(), r.resource_name.clone())),
            request_id: text(status.metadata(), "x-request-id"),
            cache_status: text(status.metadata(), CACHE_STATUS.as_str()),
        }
    }
}

fn text(metadata: &MetadataMap, name: &str) -> Option<String> {
    metadata.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// `NotFound` as the gRPC specification writes it: `NOT_FOUND`.
fn upper_snake(camel: &str) -> String {
    let mut name = String::with_capacity(camel.len() + 4);
    for (index, letter) in camel.char_indices() {
        if index > 0 && letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_names_are_those_of_the_specification() {
        for (camel, upper) in [("Ok", "OK"), ("NotFound", "NOT_FOUND"), ("DeadlineExceeded", "DEADLINE_EXCEEDED")] {
            assert_eq!(upper_snake(camel), upper);
        }
    }

    #[test]
    fn only_http_targets_are_dialled() {
        let wait = Duration::from_secs(1);
        for target in ["localhost:50051", "https://localhost", "/x", "http://", "not a uri"] {
            assert!(Client::new(target, wait).is_err(), "{target}");
        }
    }
}
