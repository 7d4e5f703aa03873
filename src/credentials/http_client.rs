//! The HTTP client of AWS's credential chain, which speaks to STS and to the endpoints that hand out credentials.
//!
//! The chain asks for its own interface; behind it is the client that Glacier is asked with, with the same proxy and roots.
//! The crates' own client would be a second TLS stack, and would send the tokens of pods through `HTTP_PROXY` in clear.

use std::{error::Error, time::Duration};

use aws_smithy_runtime_api::{
    client::{
        http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
        runtime_components::RuntimeComponents,
    },
    shared::IntoShared as _,
};
use aws_smithy_types::body::SdkBody;
use reqwest::{Client, Request};
use tokio::time::timeout;

use crate::network::{NetworkSettings, NetworkSetupError, Resolver};

/// Leaves time for a second attempt in a load.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For clients of the chain that name no time of their own. A load as a whole takes no longer.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Credentials take some kilobytes.
const BODY_LIMIT: usize = 1024 * 1024;

/// Asks for credentials. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct ChainHttpClient(Client);

impl ChainHttpClient {
    pub(super) fn new(network: &NetworkSettings) -> Result<Self, NetworkSetupError> {
        let resolver = Resolver::of_the_system();
        network.client(resolver, CONNECT_TIMEOUT, |client| client).map(Self)
    }
}

impl HttpClient for ChainHttpClient {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let limit = settings.read_timeout().unwrap_or(READ_TIMEOUT);
        Connector { client: self.0.clone(), limit }.into_shared()
    }
}

#[derive(Debug)]
struct Connector {
    client: Client,
    /// For the whole exchange.
    limit: Duration,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (client, limit) = (self.client.clone(), self.limit);
        HttpConnectorFuture::new(async move {
            timeout(limit, exchange(client, request))
                .await
                .unwrap_or_else(|elapsed| Err(ConnectorError::timeout(elapsed.into())))
        })
    }
}

async fn exchange(client: Client, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
    let mut response = client.execute(owned(request)?).await.map_err(connector_error)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(connector_error)? {
        if body.len() + chunk.len() > BODY_LIMIT {
            return Err(unusable("the answer is too large"));
        }
        body.extend_from_slice(&chunk);
    }
    let mut answer = http::Response::new(SdkBody::from(body));
    *answer.status_mut() = response.status();
    *answer.headers_mut() = std::mem::take(response.headers_mut());
    HttpResponse::try_from(answer).map_err(unusable)
}

fn owned(request: HttpRequest) -> Result<Request, ConnectorError> {
    let request = request.try_into_http1x().map_err(unusable)?;
    let (parts, body) = request.into_parts();
    // No request of the chain's streams its body.
    let body = body.bytes().ok_or_else(|| unusable("the request's body is a stream"))?.to_vec();
    Request::try_from(http::Request::from_parts(parts, body)).map_err(unusable)
}

fn unusable(error: impl Into<Box<dyn Error + Send + Sync>>) -> ConnectorError {
    ConnectorError::other(error.into(), None)
}

/// Without the URL, of which the chain needs no reminder and a log has no use.
fn connector_error(error: reqwest::Error) -> ConnectorError {
    let error = error.without_url();
    if error.is_timeout() { ConnectorError::timeout(error.into()) } else { ConnectorError::io(error.into()) }
}
