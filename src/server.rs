//! Our accept loop: accepts connections, bounds them, and drains them in time.
//!
//! tonic's own transport server is not used: it waits without limit for connections that never end, spins on accept
//! errors, has no timeout for the HTTP/2 preface, and removes hyper's stream limits unless told otherwise. hyper serves
//! each connection, under a guard for what h2 does not bound; what it serves is given as a function from the caller to a
//! service.
//!
//! The end of [`run`]: not ready at once, then a lame duck period in which connections are still accepted, then GOAWAY to
//! all, then a bounded drain, then whatever is left is closed.
//!
//! With [`Tls`], a connection is first made into a TLS connection, in its own task and in bounded time; what is served then
//! knows who calls. Until that and the HTTP/2 preface are complete it takes none of the places for connections ([`places`]).

use std::{convert::Infallible, error::Error, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;

use crate::{
    caller::Caller,
    lifecycle::{Lifecycle, Phase, PhaseWatch},
    lobby::Seat,
    metrics::ConnectionMetrics,
};

mod connection;
mod descriptors;
mod executor;
mod frames;
mod guard;
pub(crate) mod listener;
mod places;
mod preface;
pub mod tls;
mod turn;
mod untaken;

use connection::ConnectionError;
pub use connection::ConnectionSettings;
use places::Places;
pub use tls::Tls;

/// Settings of the server.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Most connections at once; one more is closed as soon as it is accepted. Fewer if descriptors are few. Those whose
    /// handshake is not complete are beside them: as many, but 128 to 1,024, of which the oldest is closed for one more.
    pub max_connections: usize,
    /// Most of them that one verified identity may have; one more is closed after its handshake. Half by default. Callers
    /// without an identity are not told apart.
    pub max_connections_per_caller: Option<usize>,
    /// Limits of one connection.
    pub connection: ConnectionSettings,
    /// How long connections are still accepted after the order to stop.
    pub lame_duck: Duration,
    /// How long calls may then still run.
    pub drain: Duration,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_connections_per_caller: None,
            connection: ConnectionSettings::default(),
            // Balancers poll health every few seconds.
            lame_duck: Duration::from_secs(5),
            // Above the longest call, 10 s.
            drain: Duration::from_secs(12),
        }
    }
}

/// What a connection serves.
pub trait Serve:
    Service<Request<Incoming>, Response = Response<Self::Body>, Error = Infallible, Future: Send + 'static>
    + Clone
    + Send
    + 'static
{
    /// The bodies of its answers.
    type Body: HttpBody<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin + Send + 'static;
}

impl<S, B> Serve for S
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + 'static,
    B: HttpBody<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin + Send + 'static,
{
    type Body = B;
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every connection ended by itself.
    Completely,
    /// This many connections had to be closed.
    Closed(usize),
}

/// Before the drain is over, calls that still wait are answered. This leaves time for the answers to be written.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Serves connections from `listener` until `shutdown` resolves, then drains. Returns within lame duck and drain.
pub async fn run<S: Serve>(
    listener: TcpListener,
    tls: Option<Tls>,
    serve: impl Fn(Caller) -> S + Send + Sync + 'static,
    lifecycle: &Lifecycle,
    settings: &ServerSettings,
    metrics: &ConnectionMetrics,
    shutdown: impl Future<Output = ()>,
) -> Drained {
    let connections = Connections::new(tls, serve, lifecycle, settings, metrics.clone());
    tokio::select! {
        never = connections.accept(&listener) => match never {},
        () = shutdown => {}
    }
    lifecycle.advance(Phase::LameDuck);
    tracing::info!(lame_duck_ms = settings.lame_duck.as_millis(), "told to stop; not ready any more, still accepting");
    let _elapsed = timeout(settings.lame_duck, connections.accept(&listener)).await;
    drop(listener);
    lifecycle.advance(Phase::Closing);
    connections.drain(lifecycle, settings.drain).await
}

/// Serves connections from `listener`, in plaintext and with the same limits, for as long as it is polled; dropping it
/// closes every connection.
pub async fn run_until_dropped<S: Serve>(
    listener: TcpListener,
    serve: impl Fn(Caller) -> S + Send + Sync + 'static,
    settings: &ServerSettings,
) -> Infallible {
    // A life of its own: nobody tells these connections to go away before the end.
    let lifecycle = Lifecycle::new();
    let connections = Connections::new(None, serve, &lifecycle, settings, ConnectionMetrics::default());
    let _closed_at_the_end = connections.close.clone().drop_guard();
    connections.accept(&listener).await
}

struct Connections<F> {
    tls: Option<Tls>,
    serve: Arc<F>,
    tracker: TaskTracker,
    /// Cancelled when the time for draining is over.
    close: CancellationToken,
    places: Arc<Places>,
    phase: PhaseWatch,
    settings: ConnectionSettings,
    metrics: ConnectionMetrics,
}

impl<S: Serve, F: Fn(Caller) -> S + Send + Sync + 'static> Connections<F> {
    fn new(
        tls: Option<Tls>,
        serve: F,
        lifecycle: &Lifecycle,
        settings: &ServerSettings,
        metrics: ConnectionMetrics,
    ) -> Self {
        let room = descriptors::room_for(settings.max_connections);
        Self {
            tls,
            serve: Arc::new(serve),
            tracker: TaskTracker::new(),
            close: CancellationToken::new(),
            places: Arc::new(Places::new(room, settings.max_connections_per_caller, metrics.clone())),
            phase: lifecycle.watch(),
            settings: settings.connection.clone(),
            metrics,
        }
    }

    async fn accept(&self, listener: &TcpListener) -> Infallible {
        loop {
            let (stream, peer) = listener::accept(listener).await;
            self.places.ready().await;
            let Some(seat) = self.places.enter(peer) else { continue };
            let connection = self.converse(stream, peer, seat);
            let close = self.close.clone();
            self.tracker.spawn(async move {
                tokio::select! {
                    () = close.cancelled() => {}
                    ended = connection => if let Err(error) = ended {
                        tracing::debug!(%peer, %error, "a connection ended badly");
                    }
                }
            });
        }
    }

    /// One connection from its first byte to its end.
    fn converse(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        seat: Seat,
    ) -> impl Future<Output = Result<(), ConnectionError>> + Send + use<S, F> {
        let tls = self.tls.clone();
        let admission = Admission {
            serve: Arc::clone(&self.serve),
            places: Arc::clone(&self.places),
            phase: self.phase.clone(),
            settings: self.settings.clone(),
            metrics: self.metrics.clone(),
        };
        async move {
            let (limit, stranger) = (admission.settings.handshake_timeout, admission.metrics.stranger());
            match tls {
                None => {
                    let greeting = async { Ok(preface::expect(stream, limit).await?) };
                    let greeted = connection::greet(greeting, seat, &admission.phase).await?;
                    drop(stranger);
                    let Some(stream) = greeted else { return Ok(()) };
                    admission.admit(stream, Caller::anonymous(address)).await
                }
                Some(tls) => {
                    let greeting = async {
                        // Why it was refused, if it was, is said and counted there.
                        let Some((stream, identity)) = tls.accept(stream, address).await else { return Ok(None) };
                        Ok(Some((preface::expect(stream, limit).await?, identity)))
                    };
                    let greeted = connection::greet(greeting, seat, &admission.phase).await?;
                    drop(stranger);
                    let Some((stream, identity)) = greeted.flatten() else { return Ok(()) };
                    admission.admit(stream, Caller { address, identity }).await
                }
            }
        }
    }

    async fn drain(self, lifecycle: &Lifecycle, limit: Duration) -> Drained {
        self.tracker.close();
        tracing::info!(connections = self.tracker.len(), limit_ms = limit.as_millis(), "draining");
        let last_answers = limit.saturating_sub(LAST_ANSWERS.min(limit / 4));
        if timeout(last_answers, self.tracker.wait()).await.is_err() {
            lifecycle.advance(Phase::LastAnswers);
            if timeout(limit.saturating_sub(last_answers), self.tracker.wait()).await.is_err() {
                let left = self.tracker.len();
                tracing::warn!(connections = left, "the time for draining is over; closing what is left");
                self.close.cancel();
                self.tracker.wait().await;
                return Drained::Closed(left);
            }
        }
        lifecycle.advance(Phase::LastAnswers);
        Drained::Completely
    }
}

/// What becomes of a connection once its handshake is complete.
struct Admission<F> {
    serve: Arc<F>,
    places: Arc<Places>,
    phase: PhaseWatch,
    settings: ConnectionSettings,
    metrics: ConnectionMetrics,
}

impl<S: Serve, F: Fn(Caller) -> S> Admission<F> {
    /// Serves the connection to its end, if there is a place for it.
    async fn admit(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        caller: Caller,
    ) -> Result<(), ConnectionError> {
        let Self { serve, places, phase, settings, metrics } = self;
        // Why not is logged and counted there.
        let Some(_place) = places.take(caller.address) else { return Ok(()) };
        let Ok(_share) = places.share(caller.identity.as_ref(), caller.address) else { return Ok(()) };
        let _counted = metrics.accepted();
        connection::serve(stream, serve(caller), settings, phase).await
    }
}
