//! A small HTTP server on loopback that stands for a credentials endpoint: a function answers, requests are remembered.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) parts: Parts,
    pub(crate) body: String,
}

impl Asked {
    /// `GET /path`.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.parts.method, self.parts.uri.path())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.parts.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// The endpoint. Dropping it takes it down: connections are cut and new ones refused.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    server: JoinHandle<()>,
}

impl Endpoint {
    pub(crate) async fn start(answer: impl Fn(&Asked) -> Response<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (log, answer) = (Arc::clone(&asked), Arc::new(answer));
        let server = tokio::spawn(async move {
            // Aborted, all of them, with this task.
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let asked = Asked { parts, body: String::from_utf8(body.to_vec()).unwrap() };
                        let response = answer(&asked).map(|body| Full::new(Bytes::from(body)));
                        log.lock().unwrap().push(asked);
                        Ok::<_, Infallible>(response)
                    }
                });
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, asked, server }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Takes it down. When this returns, connections are refused.
    pub(crate) async fn stop(mut self) {
        self.server.abort();
        let ended = (&mut self.server).await;
        assert!(ended.unwrap_err().is_cancelled(), "the endpoint panicked");
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.server.abort();
    }
}
