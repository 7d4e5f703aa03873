//! The listener, its connections, and the path of one request through the emulator.

use std::{
    convert::Infallible,
    future::pending,
    panic::resume_unwind,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Collected, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::{JoinError, JoinSet},
    time::{Instant, sleep},
};

use super::{
    body::{AnswerBody, Ending, Endings},
    clock::EmulatedClock,
    dates::http_date,
    fault::Answer,
    faults::Faults,
    glacier::{self, Premises, Reply, Route},
    job::identifier,
    requests::{RequestLog, SeenRequest, detached},
    signature::EmulatedCredentials,
    store::Store,
};

/// The longest request body that is read; DescribeJob and ListJobs have none.
const BODY_MAX: usize = 64 * 1024;
/// How long to wait for descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// The request ids of Glacier are opaque and about this long.
const REQUEST_ID_LENGTH: usize = 52;

/// All that the connections share.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) region: String,
    pub(crate) account_id: String,
    pub(crate) clock: EmulatedClock,
    pub(crate) credentials: Mutex<Vec<EmulatedCredentials>>,
    pub(crate) store: Store,
    pub(crate) faults: Faults,
    pub(crate) requests: RequestLog,
    pub(crate) connections: AtomicUsize,
}

/// Accepts until it is told to stop, then ends every connection. Panics with the first panic of a connection.
pub(crate) async fn serve(listener: TcpListener, world: Arc<World>, mut stop: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    let mut panic = None;
    loop {
        tokio::select! {
            biased;
            _ = &mut stop => break,
            Some(ended) = connections.join_next() => note_panic(&mut panic, ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    world.connections.fetch_add(1, Ordering::SeqCst);
                    connections.spawn(converse(stream, Arc::clone(&world)));
                },
                // The peer has left already, or descriptors are scarce: the loop must live on, but not spin.
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    drop(listener);
    connections.abort_all();
    while let Some(ended) = connections.join_next().await {
        note_panic(&mut panic, ended);
    }
    if let Some(panic) = panic {
        resume_unwind(panic.into_panic());
    }
}

fn note_panic(first: &mut Option<JoinError>, ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        first.get_or_insert(error);
    }
}

/// One connection, until the peer closes it or a fault does.
async fn converse(stream: TcpStream, world: Arc<World>) {
    // Small portions must go out one by one. If it cannot be set, they still go out.
    let _ = stream.set_nodelay(true);
    let (endings, mut ends) = mpsc::unbounded_channel();
    let service = service_fn(move |request| respond(Arc::clone(&world), request, endings.clone()));
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    loop {
        tokio::select! {
            biased;
            // An error here is a peer that misbehaved or left. That is its business.
            _ = &mut connection => return,
            Some(ending) = ends.recv() => match ending {
                Ending::Closed => return,
                Ending::Reset => {
                    let stream = connection.into_parts().io.into_inner();
                    let _ = stream.set_zero_linger();
                    return;
                },
                Ending::AfterAnswer => std::pin::Pin::new(&mut connection).graceful_shutdown(),
            },
        }
    }
}

async fn respond(
    world: Arc<World>,
    request: Request<Incoming>,
    endings: Endings,
) -> Result<Response<AnswerBody>, Infallible> {
    let arrived = Instant::now();
    let (request, body) = request.into_parts();
    let body = Limited::new(body, BODY_MAX).collect().await.map_or_else(|_| Bytes::new(), Collected::to_bytes);
    let job_id = Route::of(request.uri.path()).and_then(|route| route.job_id);
    let fault = world.faults.take(job_id.as_deref());
    // Made before anyone is told that the request is here: what a test does then no longer changes this answer.
    let reply = match &fault.answer {
        Answer::Ordinary => Some(world.answer(&request, &body)),
        Answer::Instead(reply) => Some(reply.clone()),
        Answer::Never | Answer::Close { .. } => None,
    };
    world.requests.record(SeenRequest {
        method: request.method,
        path: request.uri.path().to_owned(),
        query: request.uri.query().map(str::to_owned),
        headers: detached(&request.headers),
        arrived,
        job_id,
    });
    if let Some(gate) = &fault.gate {
        gate.opened().await;
    }
    world.faults.released().await;
    if let Some(delay) = fault.delay {
        sleep(delay).await;
    }
    let Some(mut reply) = reply else {
        if let Answer::Close { reset } = fault.answer {
            let _ = endings.send(if reset { Ending::Reset } else { Ending::Closed });
        }
        return pending().await;
    };
    reply.headers.extend(fault.delivery.promise(reply.body.len()));
    world.stamp(&mut reply);
    let body = AnswerBody::new(reply.body, fault.delivery, fault.close_after, endings);
    let mut response = Response::new(body);
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    Ok(response)
}

impl World {
    fn answer(&self, request: &http::request::Parts, body: &[u8]) -> Reply {
        let credentials = self.credentials.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let premises = Premises {
            store: &self.store,
            credentials: &credentials,
            region: &self.region,
            account_id: &self.account_id,
            now: self.clock.server_time(),
        };
        glacier::answer(&premises, request, body).unwrap_or_else(|error| error.reply())
    }

    /// Adds what every answer of Glacier has, unless a fault has set it.
    fn stamp(&self, reply: &mut Reply) {
        let stamps = [
            (header::DATE, http_date(self.clock.server_time())),
            (header::HeaderName::from_static("x-amzn-requestid"), identifier(REQUEST_ID_LENGTH)),
        ];
        for (name, value) in stamps {
            if let Ok(value) = HeaderValue::try_from(value) {
                reply.headers.entry(name).or_insert(value);
            }
        }
    }
}
