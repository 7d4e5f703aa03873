//! A whole gateway in front of an emulated Glacier: real sockets, real HTTP, real signatures, on loopback.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;

use glacier_gateway::{
    app::{App, AppSettings},
    cache::CacheSettings,
    clock::Clock,
    describe::DescribeSettings,
    emulator::{EmulatedJob, Emulator, Settings},
    freshness::FreshnessSettings,
    glacier::{CredentialsHolder, Endpoint, GlacierSettings},
    grpc::GrpcSettings,
    proto::v1::{DescribeJobRequest, DescribeJobResponse, job_service_client::JobServiceClient},
    server::{Drained, ServerSettings},
};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::{net::TcpStream, sync::oneshot, task::JoinHandle};
use tonic::{Code, Request, Response, Status, body::Body, metadata::MetadataMap, transport::Channel};
use tonic_types::{ErrorDetails, StatusExt as _};

pub(crate) const VAULT: &str = "vault";
/// Long enough for anything on loopback, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway, its emulated Glacier, and a connection to it.
pub(crate) struct Gateway {
    pub(crate) emulator: Emulator,
    pub(crate) address: SocketAddr,
    /// For metrics and probes, if the settings ask for them.
    pub(crate) admin_address: Option<SocketAddr>,
    /// For health probes, if the settings ask for it.
    pub(crate) health_address: Option<SocketAddr>,
    pub(crate) client: JobServiceClient<Channel>,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<Drained>,
}

impl Gateway {
    /// Defaults everywhere, except that draining takes no lame duck.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut AppSettings)) -> Self {
        let settings = Settings::default();
        let known = &settings.credentials[0];
        let credentials = CredentialsHolder::fixed(&known.access_key_id, &known.secret_access_key, None);
        Self::start_as(settings, credentials, change).await
    }

    pub(crate) async fn start_as(
        emulated: Settings,
        credentials: CredentialsHolder,
        change: impl FnOnce(&mut AppSettings),
    ) -> Self {
        Self::start_at(Clock::system(), emulated, credentials, change).await
    }

    pub(crate) async fn start_at(
        clock: Clock,
        emulated: Settings,
        credentials: CredentialsHolder,
        change: impl FnOnce(&mut AppSettings),
    ) -> Self {
        let emulator = Emulator::start(0, emulated).await.unwrap();
        emulator.store().create_vault(VAULT);
        let mut settings = settings_for(&emulator.endpoint());
        change(&mut settings);
        let speaks_tls = settings.tls.is_some();
        let app = App::bind(settings, credentials, clock).await.unwrap();
        let (address, admin_address, health_address) = (app.address(), app.admin_address(), app.health_address());
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(app.run(async move {
            // Dropping the gateway stops it, too.
            let _ = stopped.await;
        }));
        let target = Channel::from_shared(format!("http://{address}")).unwrap();
        // Nobody speaks plaintext with a gateway that does not.
        let channel = if speaks_tls { target.connect_lazy() } else { target.connect().await.unwrap() };
        let client = JobServiceClient::new(channel);
        Self { emulator, address, admin_address, health_address, client, stop: Some(stop), served }
    }

    /// Adds a job to the vault; returns its id.
    pub(crate) fn add(&self, job: EmulatedJob) -> String {
        self.emulator.store().add(VAULT, job)
    }

    /// Asks about a job in the vault.
    pub(crate) async fn ask(&self, job_id: &str) -> Result<Response<DescribeJobResponse>, Status> {
        self.call(Request::new(question(job_id))).await
    }

    pub(crate) async fn call(
        &self,
        request: Request<DescribeJobRequest>,
    ) -> Result<Response<DescribeJobResponse>, Status> {
        tokio::time::timeout(PATIENCE, self.client.clone().describe_job(request)).await.expect("an answer in time")
    }

    /// The error that asking about a job gives.
    pub(crate) async fn refusal(&self, job_id: &str) -> Refusal {
        Refusal::of(self.ask(job_id).await)
    }

    /// A new connection to the gateway.
    pub(crate) async fn channel(&self) -> Channel {
        channel(self.address).await
    }

    /// A client without tonic's channel: it sends again what a closing connection did not take, and leaves
    /// `grpc-timeout` to the gateway.
    pub(crate) fn resending_client(&self) -> JobServiceClient<legacy::Client<HttpConnector, Body>> {
        let mut connector = HttpConnector::new();
        // Else the kernel holds back small frames for 40 ms.
        connector.set_nodelay(true);
        let client = legacy::Client::builder(TokioExecutor::new()).http2_only(true).build(connector);
        JobServiceClient::with_origin(client, format!("http://{}", self.address).parse().unwrap())
    }

    /// Asks with a `grpc-timeout` that only the gateway reads: tonic's own channel would end the call itself.
    pub(crate) async fn ask_with_timeout(
        &self,
        job_id: &str,
        timeout: &str,
    ) -> Result<Response<DescribeJobResponse>, Status> {
        let mut request = Request::new(question(job_id));
        request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
        let mut client = self.resending_client();
        tokio::time::timeout(PATIENCE, client.describe_job(request)).await.expect("an answer in time")
    }

    /// A client of exactly one connection: when that ends, so do its calls.
    pub(crate) async fn one_connection(&self) -> JobServiceClient<OneConnection> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        JobServiceClient::with_origin(OneConnection(sender), format!("http://{}", self.address).parse().unwrap())
    }

    /// What `DescribeJob` answers to a body made by hand.
    pub(crate) async fn raw<B>(&self, headers: &[(&'static str, &str)], body: B) -> http::Response<Incoming>
    where
        B: http_body::Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
    {
        self.raw_as("POST", headers, body).await
    }

    pub(crate) async fn raw_as<B>(
        &self,
        method: &str,
        headers: &[(&'static str, &str)],
        body: B,
    ) -> http::Response<Incoming>
    where
        B: http_body::Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
    {
        self.raw_to("glacier.jobs.v1.JobService/DescribeJob", method, headers, body).await
    }

    pub(crate) async fn raw_to<B>(
        &self,
        path: &str,
        method: &str,
        headers: &[(&'static str, &str)],
        body: B,
    ) -> http::Response<Incoming>
    where
        B: http_body::Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
    {
        let client = legacy::Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        let uri = format!("http://{}/{path}", self.address);
        let mut request = http::Request::builder().method(method).uri(uri).body(body).unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        tokio::time::timeout(PATIENCE, client.request(request)).await.expect("an answer in time").unwrap()
    }

    /// Orders the gateway to stop; [`Gateway::stopped`] waits for it.
    pub(crate) fn order_stop(&mut self) {
        drop(self.stop.take());
    }

    pub(crate) async fn stopped(self) -> Drained {
        tokio::time::timeout(PATIENCE, self.served).await.expect("the drain ends in time").unwrap()
    }
}

fn settings_for(endpoint: &str) -> AppSettings {
    AppSettings {
        listen: "127.0.0.1:0".parse().unwrap(),
        admin_listen: None,
        health_listen: None,
        tls: None,
        glacier: GlacierSettings::new(Endpoint::resolve("us-east-1", false, Some(endpoint)).unwrap()),
        describe: DescribeSettings::default(),
        freshness: FreshnessSettings::default(),
        cache: CacheSettings::default(),
        grpc: GrpcSettings::default(),
        policy: None,
        traces: None,
        server: ServerSettings { lame_duck: Duration::ZERO, ..ServerSettings::default() },
    }
}

pub(crate) async fn channel(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// See [`Gateway::one_connection`].
#[derive(Clone)]
pub(crate) struct OneConnection(http2::SendRequest<Body>);

impl tower::Service<http::Request<Body>> for OneConnection {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

pub(crate) fn question(job_id: &str) -> DescribeJobRequest {
    DescribeJobRequest { vault_name: VAULT.to_owned(), job_id: job_id.to_owned(), ..DescribeJobRequest::default() }
}

/// One header of an answer.
pub(crate) fn header<'a>(metadata: &'a MetadataMap, name: &str) -> &'a str {
    metadata.get(name).unwrap_or_else(|| panic!("no {name} in {metadata:?}")).to_str().unwrap()
}

/// The rest of `cache-status` after the cache's name.
pub(crate) fn cache_status(metadata: &MetadataMap) -> &str {
    header(metadata, "cache-status").strip_prefix("glacier-gateway; ").unwrap()
}

/// An error status and its decoded details.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) status: Status,
    pub(crate) details: ErrorDetails,
}

impl Refusal {
    pub(crate) fn of<T: std::fmt::Debug>(outcome: Result<T, Status>) -> Self {
        let status = outcome.expect_err("an error was expected");
        Self { code: status.code(), details: status.get_error_details(), status }
    }

    pub(crate) fn reason(&self) -> &str {
        let info = self.details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {self:?}"));
        assert_eq!(info.domain, "glacier-gateway");
        &info.reason
    }

    pub(crate) fn metadata(&self) -> &HashMap<String, String> {
        &self.details.error_info().unwrap().metadata
    }

    /// The retry delay, which `RetryInfo` and the trailer must agree on.
    pub(crate) fn retry_delay(&self) -> Option<Duration> {
        let delay = self.details.retry_info().and_then(|info| info.retry_delay);
        let pushback = self.status.metadata().get("grpc-retry-pushback-ms").map(|ms| ms.to_str().unwrap().to_owned());
        assert_eq!(pushback, delay.map(|delay| delay.as_millis().to_string()));
        delay
    }
}
