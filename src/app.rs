//! The composition root: bind, wire, run. The only file that names every layer.

use std::{convert::Infallible, future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    admin,
    cache::{CacheSettings, JobCache},
    clock::Clock,
    describe::{DescribeSettings, Describer},
    freshness::FreshnessSettings,
    glacier::{CredentialsHolder, GlacierClient, GlacierSettings, Refused, Standing},
    grpc::{DescriptorError, Face, GrpcSettings},
    lifecycle::{Lifecycle, Phase},
    metrics::Metrics,
    network::NetworkSetupError,
    policy::{PolicyLoadError, PolicySettings, PolicySource},
    server::{
        self, Drained, ServerSettings, Tls,
        tls::{TlsError, TlsSettings},
    },
    traces::{TraceSettings, Tracer, TracesError},
};

/// The settings of every layer.
#[derive(Debug, Clone)]
pub struct AppSettings {
    /// Where callers connect.
    pub listen: SocketAddr,
    /// Where operators read metrics and probe, if anywhere.
    pub admin_listen: Option<SocketAddr>,
    /// Where probes that know no TLS ask for health, if anywhere.
    pub health_listen: Option<SocketAddr>,
    /// TLS with callers; without it, plaintext.
    pub tls: Option<TlsSettings>,
    /// The edge to Glacier.
    pub glacier: GlacierSettings,
    /// The use case.
    pub describe: DescribeSettings,
    /// How long things are believed.
    pub freshness: FreshnessSettings,
    /// The store.
    pub cache: CacheSettings,
    /// The gRPC face.
    pub grpc: GrpcSettings,
    /// The file that says who may ask about what; everybody about everything without one.
    pub policy: Option<PolicySettings>,
    /// Where spans go; none are recorded without it.
    pub traces: Option<TraceSettings>,
    /// The accept loop.
    pub server: ServerSettings,
}

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}; --listen chooses another address")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        error: io::Error,
    },
    /// The same of the address for metrics and probes.
    #[error(
        "cannot listen on {address} for metrics and probes: {error}; --admin-listen chooses another address, or off"
    )]
    BindAdmin {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        error: io::Error,
    },
    /// The same of the address for health probes.
    #[error("cannot listen on {address} for health probes: {error}; --health-listen chooses another address, or off")]
    BindHealth {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        error: io::Error,
    },
    /// The certificate, its key or the client authorities cannot be used.
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    /// The edge to Glacier cannot be built.
    #[error(transparent)]
    Glacier(#[from] NetworkSetupError),
    /// There is no policy.
    #[error("--policy: {0}")]
    Policy(#[from] PolicyLoadError),
    /// Spans cannot be exported.
    #[error(transparent)]
    Traces(#[from] TracesError),
    /// The gRPC face cannot be built.
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
}

/// A gateway that listens and does not serve yet.
#[derive(Debug)]
pub struct App {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
    admin: Option<AdminPort>,
    health: Option<HealthPort>,
    face: Face,
    credentials: CredentialsHolder,
    describer: Describer,
    /// What Glacier says about the credentials.
    standing: watch::Receiver<Standing>,
    lifecycle: Lifecycle,
    server: ServerSettings,
    metrics: Metrics,
    tracer: Tracer,
}

#[derive(Debug)]
struct AdminPort {
    listener: TcpListener,
    address: SocketAddr,
    pages: admin::Pages,
}

impl AdminPort {
    async fn bind(address: SocketAddr, pages: admin::Pages) -> Result<Self, StartError> {
        let bind_error = |error| StartError::BindAdmin { address, error };
        let listener = TcpListener::bind(address).await.map_err(bind_error)?;
        let address = listener.local_addr().map_err(bind_error)?;
        Ok(Self { listener, address, pages })
    }
}

#[derive(Debug)]
struct HealthPort {
    listener: TcpListener,
    address: SocketAddr,
    face: Face,
    server: ServerSettings,
}

impl HealthPort {
    async fn bind(address: SocketAddr, face: Face, settings: &ServerSettings) -> Result<Self, StartError> {
        let bind_error = |error| StartError::BindHealth { address, error };
        let listener = TcpListener::bind(address).await.map_err(bind_error)?;
        let address = listener.local_addr().map_err(bind_error)?;
        let max_connections = settings.max_connections.min(MAX_PROBES);
        let mut server = ServerSettings { max_connections, ..settings.clone() };
        // Whoever only holds a connection here does not keep probes out for long.
        server.connection.max_age = server.connection.max_age.min(PROBE_AGE);
        Ok(Self { listener, address, face, server })
    }
}

/// Most connections at once to the port for health probes. A kubelet and some balancers need a few, and descriptors are
/// wanted elsewhere.
const MAX_PROBES: usize = 128;
/// Age at which a connection to that port is told to go away. A probe takes milliseconds.
const PROBE_AGE: Duration = Duration::from_mins(1);

/// How often to ask again what Glacier has refused for the sake of the credentials. Each time costs a load of credentials and
/// two requests.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// How long Glacier may take to answer that.
const REFUSED_PATIENCE: Duration = Duration::from_secs(8);
/// How long to wait before credentials are asked for again while none could be had at the start.
const CREDENTIALS_PAUSE: Duration = Duration::from_secs(2);

impl App {
    /// Binds the ports first, so that a taken one is the first thing to fail, then wires the layers.
    pub async fn bind(settings: AppSettings, credentials: CredentialsHolder, clock: Clock) -> Result<Self, StartError> {
        Self::bind_reporting_to(Metrics::new(), settings, credentials, clock).await
    }

    /// The same, with metrics to which the log reports already. Of one gateway only.
    pub async fn bind_reporting_to(
        metrics: Metrics,
        settings: AppSettings,
        credentials: CredentialsHolder,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let bind_error = |error| StartError::Bind { address: settings.listen, error };
        let listener = TcpListener::bind(settings.listen).await.map_err(bind_error)?;
        let address = listener.local_addr().map_err(bind_error)?;

        let lifecycle = Lifecycle::new();
        let phase = lifecycle.watch();
        metrics.read_readiness(move || phase.is_ready());
        let admin = match settings.admin_listen {
            Some(address) => {
                Some(AdminPort::bind(address, admin::Pages::new(metrics.clone(), lifecycle.watch())).await?)
            }
            None => None,
        };
        let health = match settings.health_listen {
            Some(address) => {
                let face = Face::health_only(&lifecycle.watch(), &settings.grpc, metrics.calls());
                Some(HealthPort::bind(address, face, &settings.server).await?)
            }
            None => None,
        };
        let tls = match &settings.tls {
            Some(tls) => {
                let (metrics, reloads) = (metrics.tls().clone(), metrics.tls_reloads().clone());
                Some(Tls::load(tls, clock.clone(), metrics, reloads).await?)
            }
            None => None,
        };
        credentials.report_to(metrics.credentials());
        let glacier =
            GlacierClient::new(settings.glacier, credentials.clone(), clock.clone())?.reporting_to(metrics.upstream());
        let cache = JobCache::reporting_to(metrics.cache().clone(), &settings.cache, settings.freshness, clock.clone());
        let (entries, weight) = (cache.clone(), cache.clone());
        metrics.read_cache(move || entries.entry_count(), move || weight.settle(), settings.cache.capacity_bytes);
        let standing = glacier.standing();
        let describer = Describer::new(Arc::new(glacier), cache, clock, &settings.describe, metrics.describe());
        let policy = match settings.policy {
            Some(policy) => {
                let (reloads, metrics) = (metrics.policy_reloads().clone(), metrics.policy().clone());
                Some(PolicySource::follow(policy, reloads, metrics).await?)
            }
            None => None,
        };
        let tracer = Tracer::start(settings.traces, metrics.traces())?;
        let (phase, calls) = (lifecycle.watch(), metrics.calls());
        let face = Face::new(describer.clone(), policy, &phase, &settings.grpc, calls, tracer.clone())?;
        let server = settings.server;
        Ok(Self {
            listener,
            address,
            tls,
            admin,
            health,
            face,
            credentials,
            describer,
            standing,
            lifecycle,
            server,
            metrics,
            tracer,
        })
    }

    /// The address that is listened on, with the port that a `:0` became.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same for metrics and probes, if they are offered.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|admin| admin.address)
    }

    /// The same for health probes, if they have a port of their own.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health.as_ref().map(|health| health.address)
    }

    /// Serves until `shutdown` resolves, then drains, and then delivers the last spans.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Drained {
        let Self {
            listener,
            address: _,
            tls,
            admin,
            health,
            face,
            credentials,
            describer,
            standing,
            lifecycle,
            server,
            metrics,
            tracer,
        } = self;
        // In tasks of their own, so that they cannot hold up calls; they answer to the end, and end here.
        let _admin = admin
            .map(|AdminPort { listener, address: _, pages }| tokio::spawn(admin::run(listener, pages)))
            .map(AbortOnDropHandle::new);
        let _health = health
            .map(|HealthPort { listener, address: _, face, server }| {
                tokio::spawn(async move {
                    server::run_until_dropped(listener, move |caller| face.for_caller(&caller), &server).await
                })
            })
            .map(AbortOnDropHandle::new);
        let serve_caller = move |caller| face.for_caller(&caller);
        let serve = server::run(listener, tls, serve_caller, &lifecycle, &server, metrics.connections(), shutdown);
        tokio::pin!(serve);
        let drained = tokio::select! {
            drained = &mut serve => drained,
            // Boxed: it holds a whole fetch.
            () = Box::pin(become_ready(&credentials, &describer, standing, &lifecycle)) => serve.await,
        };
        tracer.finish().await;
        drained
    }
}

/// Ready means: credentials have been resolved once, and Glacier has not refused each of their requests. Glacier's own
/// health is no condition.
async fn become_ready(
    credentials: &CredentialsHolder,
    describer: &Describer,
    mut standing: watch::Receiver<Standing>,
    lifecycle: &Lifecycle,
) {
    while let Err(error) = credentials.resolve_once().await {
        // The holder has logged it.
        let tried = credentials.trouble();
        lifecycle.start_again(&format!("no AWS credentials: {}", tried.as_deref().unwrap_or(&error.to_string())));
        tokio::time::sleep(CREDENTIALS_PAUSE).await;
    }
    lifecycle.advance(Phase::Serving);
    tracing::info!("ready");
    loop {
        let refused = refusal(&mut standing).await;
        if !refused.accepted_before {
            lifecycle.start_again(&format!("glacier has accepted no request yet and refuses with {}", refused.code));
            tracing::warn!(code = refused.code, "not ready: glacier has accepted no request yet");
        }
        tokio::select! {
            () = acceptance(&mut standing) => {}
            never = ask_again(describer, &refused) => match never {},
        }
        if !refused.accepted_before {
            lifecycle.advance(Phase::Serving);
            tracing::info!("ready");
        }
    }
}

/// Resolves while Glacier refuses the credentials.
async fn refusal(standing: &mut watch::Receiver<Standing>) -> Refused {
    loop {
        if let Standing::Refused(refused) = &*standing.borrow_and_update() {
            return refused.clone();
        }
        // The client that judges lives as long as whoever waits here.
        let _news = standing.changed().await;
    }
}

/// Resolves while it does not.
async fn acceptance(standing: &mut watch::Receiver<Standing>) {
    let _accepted = standing.wait_for(|now| !matches!(now, Standing::Refused(_))).await;
}

/// Asks what was refused, again and again: callers may have stopped.
async fn ask_again(describer: &Describer, refused: &Refused) -> Infallible {
    loop {
        tokio::time::sleep(REFUSED_PAUSE).await;
        // Whatever comes of it, the client has taken note. Nothing that is known will do.
        let (key, deadline) = (&refused.key, Instant::now() + REFUSED_PATIENCE);
        let _reply = describer.describe(key, None, Some(Duration::ZERO), deadline, std::future::pending).await;
    }
}
