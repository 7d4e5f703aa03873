//! What went wrong on the way to Glacier and back, when there was no answer to read.
//!
//! The HTTP client's errors are a chain of causes from several crates; what matters here is *which* failure it was,
//! whether the request may have been sent, and a description in our own words: the chain's texts hold the URL. Most
//! causes are recognized by type. Some have no public type and are recognized by their text.

use std::{cell::Cell, error::Error, future::Future, io, time::Duration};

use crate::{
    glacier::failure::{Cause, Failure},
    upstream::{UpstreamError, UpstreamErrorKind as Kind},
};

/// How the HTTP client words a connection that was closed before the answer was complete.
const INCOMPLETE: &str = "connection closed before message completed";
/// How it begins when what came back does not follow HTTP.
const NOT_HTTP: [&str; 2] = ["invalid HTTP", "message head is too large"];
/// How its resolver words a name that does not resolve.
const DNS: &str = "dns error";
/// How it begins when the proxy gives no tunnel.
const TUNNEL: &str = "tunnel error: ";
/// How it words a proxy that asks who we are.
const PROXY_AUTHORIZATION: &str = "proxy authorization required";
/// How it words a proxy that could not be reached, which has a cause of its own.
const PROXY_UNREACHED: &str = "failed to create underlying connection";
/// How the TLS library words the peer's refusal, which TLS 1.3 may deliver after the handshake.
const TLS_ALERT: &str = "received fatal alert";

/// Which part of an exchange failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Connecting, sending, waiting for the headers.
    Head {
        /// Whether the connection had carried another exchange before.
        used_before: bool,
    },
    /// Reading the body.
    Body,
}

/// Names the failure `error` that happened in `phase`.
pub(super) fn classify(error: &reqwest::Error, phase: Phase, connect_timeout: Duration) -> Failure {
    if error.is_connect() {
        return classify_connect(error, connect_timeout).into();
    }
    let (kind, detail) = if has_text(error, |text| NOT_HTTP.iter().any(|begin| text.starts_with(begin))) {
        (Kind::Malformed, "the answer is not HTTP")
    } else if has_text(error, |text| text.contains(TLS_ALERT)) {
        (Kind::TlsFailed, "tls refused by the peer")
    } else {
        return lost_connection(error, phase);
    };
    UpstreamError::new(kind, true, detail).into()
}

/// Nothing was sent: the connection did not come about.
fn classify_connect(error: &reqwest::Error, connect_timeout: Duration) -> UpstreamError {
    let io_kind = io_kind(error);
    let unavailable = |detail: &str| UpstreamError::new(Kind::Unavailable, false, detail);
    if let Some(refusal) = causes(error).find_map(|cause| Some(cause.to_string().strip_prefix(TUNNEL)?.to_owned())) {
        match refusal.as_str() {
            PROXY_UNREACHED => {}
            PROXY_AUTHORIZATION => return unavailable("the proxy wants another user name and password"),
            _ => return unavailable("the proxy refused the tunnel"),
        }
    }
    if error.is_dns() || has_text(error, |text| text.starts_with(DNS)) {
        return unavailable("dns lookup failed");
    }
    // rustls reports every handshake failure, certificates included, as invalid data.
    if io_kind == Some(io::ErrorKind::InvalidData) {
        return UpstreamError::new(Kind::TlsFailed, false, "tls handshake failed");
    }
    if error.is_timeout() {
        let detail = format!("connect timed out after {connect_timeout:?}");
        return UpstreamError::new(Kind::TimedOut, false, detail);
    }
    match io_kind {
        Some(io::ErrorKind::ConnectionRefused) => unavailable("connection refused"),
        Some(io::ErrorKind::ConnectionReset) => unavailable("connection reset while connecting"),
        Some(io::ErrorKind::UnexpectedEof) => unavailable("connection closed while connecting"),
        Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => unavailable("host unreachable"),
        // `io::ErrorKind` is open.
        Some(_) | None => unavailable("connect failed"),
    }
}

fn lost_connection(error: &reqwest::Error, phase: Phase) -> Failure {
    let ended_early = matches!(io_kind(error), Some(io::ErrorKind::UnexpectedEof))
        || has_text(error, |text| text.contains(INCOMPLETE) || text.contains("end of file before message length"));
    let reset = matches!(
        io_kind(error),
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe)
    );
    let detail = match phase {
        _ if reset => "connection reset",
        Phase::Head { .. } if ended_early => "connection closed before an answer",
        Phase::Body if ended_early => "body ended early",
        Phase::Head { .. } => "request failed",
        Phase::Body => "reading the body failed",
    };
    // Whether part of a head had come already cannot be seen from here; a GET may be sent again either way.
    let while_idle = (reset || ended_early) && phase == Phase::Head { used_before: true };
    let cause = if while_idle { Cause::ClosedWhileIdle } else { Cause::Transient };
    Failure::new(UpstreamError::new(Kind::Unavailable, true, detail), cause)
}

tokio::task_local! {
    /// Whether the request under way in this task has made a connection for itself.
    static CONNECTED: Cell<bool>;
}

/// Runs `exchange` and says whether it had a connection that was used before. The HTTP client does not tell, so it is
/// concluded: the client connects inside the request's own task and uses what it made; a connection that is finished for
/// later use, because another became free first, is finished in a task of its own. Needs [`note_connection`].
pub(super) async fn noting_reuse<T>(exchange: impl Future<Output = T>) -> (T, bool) {
    let noted = async {
        let outcome = exchange.await;
        (outcome, !CONNECTED.with(Cell::get))
    };
    CONNECTED.scope(Cell::new(false), noted).await
}

/// Wraps the making of a connection, for [`noting_reuse`].
pub(super) async fn note_connection<C, E>(connecting: impl Future<Output = Result<C, E>>) -> Result<C, E> {
    let connection = connecting.await?;
    // Outside of a request's own task nobody wants to know.
    let _ = CONNECTED.try_with(|connected| connected.set(true));
    Ok(connection)
}

/// The innermost kind that says something: wrappers are of kind `Other`.
fn io_kind(error: &reqwest::Error) -> Option<io::ErrorKind> {
    causes(error)
        .filter_map(|cause| Some(cause.downcast_ref::<io::Error>()?.kind()))
        .filter(|kind| *kind != io::ErrorKind::Other)
        .last()
}

fn has_text(error: &reqwest::Error, wanted: impl Fn(&str) -> bool) -> bool {
    causes(error).any(|cause| wanted(&cause.to_string()))
}

/// The causes of `error`, without itself: its own text holds the URL. An [`io::Error`] that wraps another error hides
/// it from `source`, so it is looked into.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |cause| cause_of(*cause))
}

fn cause_of<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>() {
        Some(io) => io.get_ref().map(|inner| inner as &'e (dyn Error + 'static)),
        None => error.source(),
    }
}
