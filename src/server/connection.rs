//! One connection: the preface in time, hyper with every limit set, an age, and an end.

use std::{
    error::Error as _,
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
    time::Duration,
};

use http::Response;
use hyper::server::conn::http2;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep, sleep_until},
};
use tower::ServiceExt as _;

use super::{
    Serve,
    executor::{Prompt, Streams},
    frames::Ration,
    guard::{Guarded, Limits},
    preface::PrefaceError,
    untaken::{Patience, Untaken},
};
use crate::{
    lifecycle::{Phase, PhaseWatch},
    lobby::Seat,
};

/// Limits of one connection.
#[derive(Debug, Clone)]
pub struct ConnectionSettings {
    /// Calls at once. tonic's and Go's default is none at all, which is how rapid resets hurt.
    pub max_concurrent_streams: u32,
    /// Flow-control window of a stream, in bytes. Requests are small.
    pub stream_window: u32,
    /// Flow-control window of the connection, in bytes.
    pub connection_window: u32,
    /// All headers of a request together, in bytes.
    pub max_header_list: u32,
    /// Streams that we may have to reset because of the client's faults before the connection is closed.
    pub max_local_error_resets: usize,
    /// Streams that the client may have reset before we saw them. hyper's default of 20 breaks honest bursts of cancels.
    pub max_pending_accept_resets: usize,
    /// Largest number of bytes buffered for one stream's answer.
    pub max_send_buffer: usize,
    /// How long the client may be silent before it is pinged.
    pub ping_interval: Duration,
    /// How long it may take to answer a ping.
    pub ping_timeout: Duration,
    /// How long the HTTP/2 preface may take, then the first frame, and then each frame and header block once begun.
    pub handshake_timeout: Duration,
    /// How long bytes may wait to be written while the client reads none, and (up to twice as long) answers for which it
    /// grants no HTTP/2 window.
    pub write_timeout: Duration,
    /// Frames in a second that ask for nothing (PING, SETTINGS, empty DATA and the like), beside ten for each call.
    pub max_control_frames: u32,
    /// Calls in a second that the client may reset.
    pub max_resets: u32,
    /// When a connection is told to go away, so that balancers spread callers anew. Spread by a tenth either way.
    pub max_age: Duration,
    /// How long its calls may then still run.
    pub age_grace: Duration,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 200,
            stream_window: 64 * 1024,
            connection_window: 1024 * 1024,
            max_header_list: 16 * 1024,
            max_local_error_resets: 1024,
            // A busy process may see an honest client's calls and their cancelling, several times over, in one piece. Half of
            // what may be reset in a second, which is the limit for floods.
            max_pending_accept_resets: 1000,
            max_send_buffer: 64 * 1024,
            ping_interval: Duration::from_mins(1),
            ping_timeout: Duration::from_secs(20),
            handshake_timeout: Duration::from_secs(10),
            // Three times the longest call: nobody waits any more for what was to be written.
            write_timeout: Duration::from_secs(30),
            // An idle client sends a handful; a flood sends hundreds of thousands.
            max_control_frames: 1000,
            // Ten times a second all the calls that a connection may have.
            max_resets: 2000,
            max_age: Duration::from_mins(30),
            age_grace: Duration::from_secs(15),
        }
    }
}

/// gRFC A9 asks for a tenth either way, so that connections made together do not end together.
const AGE_SPREAD: f64 = 0.1;

/// A connection that came last may have sent calls already, which only a GOAWAY tells its client to send elsewhere.
const LAST_PREFACE: Duration = Duration::from_millis(500);

/// Why a connection ended badly.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error(transparent)]
    Preface(#[from] PrefaceError),
    #[error("the client has granted no window for an answer for {0:?}")]
    Untaken(Duration),
    #[error("{}", with_causes(.0))]
    Http2(#[from] hyper::Error),
}

/// hyper says "connection error"; why, its causes say.
fn with_causes(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Awaits all that comes before the first frame. `None`: the connection lost its seat, or the process ends.
pub(super) async fn greet<T>(
    greeting: impl Future<Output = Result<T, ConnectionError>>,
    seat: Seat,
    phase: &PhaseWatch,
) -> Result<Option<T>, ConnectionError> {
    let end = async {
        phase.reached(Phase::Closing).await;
        sleep(LAST_PREFACE).await;
    };
    tokio::select! {
        greeted = greeting => greeted.map(Some),
        // That was counted and warned of.
        () = seat => Ok(None),
        // It has sent no call, so nothing is lost.
        () = end => Ok(None),
    }
}

/// Serves one connection, of which the preface has come, until it ends, or until it is old and its grace is over.
pub(super) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    service: impl Serve,
    settings: ConnectionSettings,
    phase: PhaseWatch,
) -> Result<(), ConnectionError> {
    let mut streams = Streams::default();
    let guarded = TokioIo::new(Guarded::new(stream, limits(&settings)));
    let untaken = Untaken::default();
    let mut patience = Patience::new(untaken.clone(), settings.write_timeout);
    let service = service.map_response(move |answer: Response<_>| answer.map(|body| untaken.follow(body)));
    let mut connection = builder(&settings, &streams).serve_connection(guarded, TowerToHyperService::new(service));

    let spread = 1.0 + AGE_SPREAD * (2.0 * fastrand::f64() - 1.0);
    let old = Instant::now() + settings.max_age.mul_f64(spread);
    let aged = tokio::select! {
        ended = drive(&mut streams, &mut connection, &mut patience) => return ended,
        () = phase.reached(Phase::Closing) => false,
        () = sleep_until(old) => true,
    };
    Pin::new(&mut connection).graceful_shutdown();
    let last_calls = drive(&mut streams, &mut connection, &mut patience);
    if aged {
        tokio::select! {
            ended = last_calls => ended,
            () = sleep_until(Instant::now() + settings.age_grace) => Ok(()),
        }
    } else {
        // Bounded by the drain.
        last_calls.await
    }
}

/// Until the connection ends, or its client takes too long to take its answers.
async fn drive(
    streams: &mut Streams,
    connection: &mut (impl Future<Output = hyper::Result<()>> + Unpin),
    patience: &mut Patience,
) -> Result<(), ConnectionError> {
    poll_fn(|cx| match streams.poll(connection, cx) {
        Poll::Ready(ended) => Poll::Ready(ended.map_err(Into::into)),
        Poll::Pending => patience.poll(cx).map(|()| Err(ConnectionError::Untaken(patience.limit()))),
    })
    .await
}

fn limits(settings: &ConnectionSettings) -> Limits {
    Limits {
        unfinished: settings.handshake_timeout,
        unread: settings.write_timeout,
        ration: Ration { control_frames: settings.max_control_frames, resets: settings.max_resets },
    }
}

fn builder(settings: &ConnectionSettings, streams: &Streams) -> http2::Builder<Prompt> {
    let mut builder = http2::Builder::new(streams.executor());
    builder
        .timer(streams.timer())
        .auto_date_header(false)
        .max_concurrent_streams(settings.max_concurrent_streams)
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_header_list_size(settings.max_header_list)
        .max_local_error_reset_streams(settings.max_local_error_resets)
        .max_pending_accept_reset_streams(settings.max_pending_accept_resets)
        .max_send_buf_size(settings.max_send_buffer)
        .keep_alive_interval(settings.ping_interval)
        .keep_alive_timeout(settings.ping_timeout);
    builder
}
