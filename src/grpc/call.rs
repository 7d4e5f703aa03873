//! The envelope that every call shares: request id, deadline, panics, and one report ([`event`]).
//!
//! It sees the HTTP side of a call, so it covers what never reaches a handler (unknown methods, wrong content types) and
//! what never gets an answer (a caller who goes away).

use std::{
    convert::Infallible,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};
use tower::Service;

use super::{
    job_service::SERVICE_NAME,
    status::{self, CallError},
    timeout,
};
use crate::{
    caller::{Caller, CallerIdentity},
    job::InvalidField,
};

mod event;

pub(super) use event::{Note, Reporter};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_MAX: usize = 64;
const GRPC_TIMEOUT: &str = "grpc-timeout";
const GRPC_CONTENT_TYPE: &[u8] = b"application/grpc";
const DETAILS: &str = "grpc-status-details-bin";

/// What handlers find in the request's extensions: when the call came, how long its caller waits, who that is, and where
/// to note how the answer came about.
#[derive(Debug, Clone)]
pub(super) struct CallContext {
    pub(super) received: Instant,
    /// The caller's `grpc-timeout`.
    pub(super) timeout: Option<Duration>,
    /// For the call's report.
    pub(super) note: Note,
    /// The caller's verified name.
    pub(super) identity: Option<Arc<CallerIdentity>>,
}

/// A service inside the envelope.
#[derive(Debug, Clone)]
pub struct Enveloped<S> {
    inner: S,
    caller: Arc<str>,
    identity: Option<Arc<CallerIdentity>>,
    reporter: Arc<Reporter>,
}

impl<S> Enveloped<S> {
    /// Puts `inner` into the envelope of this caller's calls.
    pub(super) fn new(inner: S, caller: &Caller, reporter: Arc<Reporter>) -> Self {
        // For the log.
        let name = match &caller.identity {
            Some(identity) => format!("{identity} {}", caller.address),
            None => caller.address.to_string(),
        };
        Self { inner, caller: name.into(), identity: caller.identity.clone(), reporter }
    }
}

impl<S, B> Service<Request<B>> for Enveloped<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let received = Instant::now();
        let request_id = request_id(request.headers());
        let is_ours = is_method_of_ours(request.uri().path());
        let event = self.reporter.started(&request, received, is_ours, request_id.clone(), &self.caller);
        let answer = match screen(&request) {
            Err(refused) => Answering::Refused(refused),
            Ok(timeout) => {
                let (identity, note) = (self.identity.clone(), event.note());
                request.extensions_mut().insert(CallContext { received, timeout, note, identity });
                // A handler may panic while it builds its future, too.
                let called = std::panic::catch_unwind(AssertUnwindSafe(|| self.inner.call(request)));
                called.map_or_else(|_| Answering::Refused(Box::new(panicked())), Answering::Called)
            }
        };
        Box::pin(async move {
            let mut response = match answer {
                Answering::Refused(response) => *response,
                Answering::Called(future) => match AssertUnwindSafe(future).catch_unwind().await {
                    Ok(Ok(response)) => response,
                    Err(_) => panicked(),
                },
            };
            response = with_details(response, is_ours);
            response.headers_mut().insert(REQUEST_ID, request_id);
            Ok(event.finish(response))
        })
    }
}

/// Whether a path is a method of the job service: `/service/method`.
fn is_method_of_ours(path: &str) -> bool {
    let rest = path.strip_prefix('/').and_then(|path| path.strip_prefix(SERVICE_NAME));
    rest.is_some_and(|rest| rest.starts_with('/'))
}

enum Answering<F> {
    Refused(Box<Response<Body>>),
    Called(F),
}

/// The panic itself is logged by the panic hook, with its place.
fn panicked() -> Response<Body> {
    status::of(CallError::Panicked).into_http()
}

/// The caller's id if it is one that we can repeat safely, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let legal = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        (1..=REQUEST_ID_MAX).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    headers.get(REQUEST_ID).filter(legal).cloned().unwrap_or_else(|| {
        let random = format!("{:032x}", fastrand::u128(..));
        HeaderValue::try_from(random).unwrap_or_else(|_| HeaderValue::from_static("-"))
    })
}

/// The caller's timeout, or why this call reaches no handler.
fn screen<B>(request: &Request<B>) -> Result<Option<Duration>, Box<Response<Body>>> {
    let content_type = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    // What is not a gRPC call gets an HTTP answer ("gRPC over HTTP2" asks for 415).
    match (request.method(), content_type) {
        (&Method::POST, Some(value)) if is_grpc(value) => {}
        (&Method::POST, _) => return Err(Box::new(http_answer(StatusCode::UNSUPPORTED_MEDIA_TYPE))),
        _ => return Err(Box::new(http_answer(StatusCode::METHOD_NOT_ALLOWED))),
    }
    let timeout = request.headers().get(GRPC_TIMEOUT).map(|value| timeout::parse(value.as_bytes())).transpose();
    timeout.map_err(|error| {
        let field = InvalidField { field: GRPC_TIMEOUT, description: error.to_string() };
        Box::new(status::of(CallError::Invalid(vec![field])).into_http())
    })
}

/// `application/grpc`, `application/grpc+proto`, perhaps with parameters; not `application/grpc-web`.
fn is_grpc(content_type: &[u8]) -> bool {
    let rest = content_type.strip_prefix(GRPC_CONTENT_TYPE);
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b';')) || rest.starts_with(b"+proto"))
}

/// Errors of tonic's own making carry no details. Those of calls to us, or to nobody, get ours; the standard services keep
/// the statuses that their protocols define.
fn with_details(response: Response<Body>, is_ours: bool) -> Response<Body> {
    let headers = response.headers();
    match Status::from_header_map(headers) {
        Some(bare) if bare.code() != Code::Ok && !headers.contains_key(DETAILS) => {
            let error = match bare.code() {
                Code::Unimplemented => CallError::Unimplemented(match bare.message() {
                    "" => "no such service or method".to_owned(),
                    words => words.to_owned(),
                }),
                Code::OutOfRange if is_ours => CallError::NoRequest("the message is too large".to_owned()),
                Code::Internal if is_ours => CallError::NoRequest("there is no complete request message".to_owned()),
                _ => return response,
            };
            status::of(error).into_http()
        }
        Some(_) | None => response,
    }
}

fn http_answer(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
