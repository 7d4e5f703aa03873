//! The gateway, the Glacier behind it, and the connections to it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use glacier_gateway::{
    app::{App, AppSettings},
    cache::CacheSettings,
    clock::Clock,
    describe::DescribeSettings,
    emulator::{Emulator, Settings},
    freshness::FreshnessSettings,
    glacier::{CredentialsHolder, Endpoint, GlacierSettings},
    grpc::GrpcSettings,
    proto::v1::{DescribeJobRequest, job_service_client::JobServiceClient},
    server::{Drained, ServerSettings},
};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{sync::oneshot, task::JoinHandle};
use tonic::body::Body;

use crate::{jobs::Jobs, tally::Tally};

/// How many jobs there are at any time.
pub(crate) const JOBS: usize = 300;
/// Connections to the gateway that stay open throughout.
const CONNECTIONS: usize = 8;

/// The smallest `max_age` that counts.
pub(crate) const FLOOR: Duration = Duration::from_secs(1);
/// How long an answer about a job in progress is fresh, with jitter at its worst: defaults, divided by twenty or so.
pub(crate) const FRESH_AT_MOST: Duration = Duration::from_millis(2_200);
/// How much longer such an answer may stand in for one that Glacier does not give.
pub(crate) const STALE: Duration = Duration::from_secs(10);
/// The longest that an answer of Glacier's may be on its way: it says what was true when the request arrived.
pub(crate) const ATTEMPT: Duration = Duration::from_secs(3);

/// No channel of tonic's: it would act on `grpc-timeout` itself.
pub(crate) type Client = JobServiceClient<legacy::Client<HttpConnector, Body>>;

/// All that the soak runs on.
pub(crate) struct World {
    pub(crate) emulator: Emulator,
    pub(crate) jobs: Jobs,
    pub(crate) tally: Arc<Tally>,
    pub(crate) clock: Clock,
    clients: Vec<Client>,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Drained>,
}

impl World {
    pub(crate) async fn start(tally: Arc<Tally>) -> Arc<Self> {
        let clock = Clock::system();
        let emulated = Settings::default();
        let known = &emulated.credentials[0];
        let credentials = CredentialsHolder::fixed(&known.access_key_id, &known.secret_access_key, None);
        let emulator = Emulator::start(0, emulated).await.unwrap();
        let app = App::bind(settings(&emulator.endpoint()), credentials, clock.clone()).await.unwrap();
        let address = app.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(app.run(async move {
            let _ = stopped.await;
        }));
        let jobs = Jobs::begin(&emulator, &clock, &tally);
        let clients: Vec<_> = (0..CONNECTIONS).map(|_| client(address)).collect();
        for client in &clients {
            // Opens the connection and needs no Glacier.
            client.clone().describe_job(DescribeJobRequest::default()).await.expect_err("no job was named");
        }
        Arc::new(Self { emulator, jobs, tally, clock, clients, address, stop, served })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// One of the lasting connections; now and then, a new one.
    pub(crate) fn client(&self) -> Client {
        if fastrand::u8(..) == 0 { client(self.address) } else { self.clients[fastrand::usize(..CONNECTIONS)].clone() }
    }

    pub(crate) async fn stop(self: Arc<Self>) -> Drained {
        let Self { stop, served, clients, emulator, .. } = Arc::into_inner(self).expect("nobody else is left");
        drop((stop, clients));
        let drained = served.await.expect("the gateway does not panic");
        // Panics if a request made the emulator panic.
        emulator.stop().await;
        drained
    }
}

fn client(address: SocketAddr) -> Client {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = legacy::Client::builder(TokioExecutor::new()).http2_only(true).build(connector);
    JobServiceClient::with_origin(client, format!("http://{address}").parse().unwrap())
}

/// The defaults with the times of freshness shortened, so that two minutes see what else takes an hour.
fn settings(endpoint: &str) -> AppSettings {
    let glacier = GlacierSettings {
        attempt_timeout: ATTEMPT,
        // So that calm is reached soon.
        idle_timeout: Duration::from_secs(1),
        ..GlacierSettings::new(Endpoint::resolve("us-east-1", false, Some(endpoint)).unwrap())
    };
    let freshness = FreshnessSettings {
        in_progress: Duration::from_secs(2),
        expedited: Duration::from_millis(1_500),
        jitter: 0.1,
        doubtful: Duration::from_millis(1_500),
        stale_in_progress: STALE,
        not_found: Duration::from_secs(2),
        denied: Duration::from_secs(1),
        cooldown: Duration::from_secs(1),
        max_age_floor: FLOOR,
        ..FreshnessSettings::default()
    };
    AppSettings {
        listen: "127.0.0.1:0".parse().unwrap(),
        admin_listen: None,
        health_listen: None,
        tls: None,
        glacier,
        describe: DescribeSettings::default(),
        freshness,
        cache: CacheSettings::default(),
        grpc: GrpcSettings::default(),
        policy: None,
        traces: None,
        server: ServerSettings { lame_duck: Duration::ZERO, ..ServerSettings::default() },
    }
}
