//! For those who operate the gateway, plain HTTP/1.1 on a port of its own: metrics and probes.
//!
//! Everything is bounded, so that nobody can wear the gateway out from here: connections, the time of each, one request
//! per connection. Readiness and liveness mean what `grpc.health.v1` means by them.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinSet, spawn_blocking},
    time::timeout,
};

use crate::{
    lifecycle::PhaseWatch,
    metrics::{Exposition, Metrics},
    server::listener,
};

/// Most connections at once; one more is closed. A scraper or two and some probes need a few.
const MAX_CONNECTIONS: usize = 64;
/// How long the head of a request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may take in all, for peers that do not read.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// What `/` shows.
const INDEX: &str = "/metrics  what was counted, for Prometheus\n\
                     /livez    200: the process runs\n\
                     /readyz   200 while calls are welcome, else 503 and why\n";
const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

/// What the pages tell of. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pages {
    metrics: Metrics,
    phase: PhaseWatch,
}

impl Pages {
    /// Pages about these.
    pub fn new(metrics: Metrics, phase: PhaseWatch) -> Self {
        Self { metrics, phase }
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<String> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
            refusal.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match request.uri().path() {
            "/" => plain(StatusCode::OK, INDEX),
            "/livez" => plain(StatusCode::OK, "alive\n"),
            "/readyz" => match self.phase.why_not_ready() {
                None => plain(StatusCode::OK, "ready\n"),
                Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, &format!("not ready: {why}\n")),
            },
            "/metrics" => self.told(request.headers()),
            _ => plain(StatusCode::NOT_FOUND, "no such page; / lists them\n"),
        }
    }

    fn told(&self, headers: &HeaderMap) -> Response<String> {
        let accept: Vec<_> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        let exposition = Exposition::for_accept(&accept.join(","));
        match self.metrics.encode(exposition) {
            Ok(told) => page(StatusCode::OK, exposition.content_type(), told),
            Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be told\n"),
        }
    }
}

fn plain(status: StatusCode, text: &str) -> Response<String> {
    page(status, PLAIN_TEXT, text.to_owned())
}

fn page(status: StatusCode, content_type: &'static str, text: String) -> Response<String> {
    let mut response = Response::new(text);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Serves the pages for as long as it is polled; dropping it closes every connection.
pub async fn run(listener: TcpListener, pages: Pages) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_ended) = connections.join_next() => {}
            (stream, peer) = listener::accept(&listener) => {
                if connections.len() < MAX_CONNECTIONS {
                    connections.spawn(converse(stream, peer, pages.clone()));
                } else {
                    tracing::debug!(%peer, "as many admin connections as allowed; one more is closed");
                }
            }
        }
    }
}

/// One request and its answer.
async fn converse(stream: TcpStream, peer: SocketAddr, pages: Pages) {
    let service = service_fn(move |request: Request<Incoming>| {
        let pages = pages.clone();
        // Telling the metrics looks at each descriptor and settles the store: not on a thread that answers calls.
        async move { spawn_blocking(move || pages.answer(&request)).await }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).keep_alive(false);
    match timeout(CONNECTION_TIMEOUT, http.serve_connection(TokioIo::new(stream), service)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%peer, %error, "an admin connection ended badly"),
        Err(_elapsed) => tracing::debug!(%peer, "an admin connection took too long"),
    }
}
