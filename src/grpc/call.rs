//! The envelope that every call shares: request id, deadline, panics, and one report ([`event`]).
//!
//! It sees the HTTP side of a call, so it covers what never reaches a handler (unknown methods, wrong content types) and
//! what never gets an answer (a caller who goes away).

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::Either};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body as HttpBody;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status, body::Body, codegen::StdError, service::Routes};
use tower::Service as _;

use super::{
    answer_body::AnswerBody,
    job_service::{DESCRIBE_JOB, JobService, SERVICE_NAME},
    status::{self, CallError},
    timeout,
};
use crate::{
    caller::Caller,
    describe::Asker,
    job::InvalidField,
    metrics::{CacheOutcome, Method},
    traces::CallSpan,
};

mod event;
mod limited;
mod request_id;

pub(super) use event::{About, Reporter};
use limited::Limited;

const GRPC_TIMEOUT: &str = "grpc-timeout";
const GRPC_CONTENT_TYPE: &[u8] = b"application/grpc";
const DETAILS: &str = "grpc-status-details-bin";

/// What the job service is told of a call.
#[derive(Debug)]
pub(super) struct CallContext<'c> {
    pub(super) received: Instant,
    /// The caller's `grpc-timeout`.
    pub(super) timeout: Option<Duration>,
    /// The caller's verified name.
    pub(super) asker: Asker<'c>,
    pub(super) span: &'c CallSpan,
    /// To be told what the call is about.
    pub(super) about: &'c OnceLock<About>,
}

/// An answer, and how the cache came by it if it was asked.
pub(super) struct Handled {
    pub(super) response: Response<AnswerBody>,
    pub(super) outcome: Option<CacheOutcome>,
}

impl From<Status> for Handled {
    fn from(status: Status) -> Self {
        Self { response: status.into_http(), outcome: None }
    }
}

/// The services inside the envelope, for one caller.
#[derive(Clone)]
pub(super) struct Envelope {
    /// Without it, there is none here.
    jobs: Option<JobService>,
    /// All other services.
    routes: Routes,
    caller: Arc<Caller>,
    reporter: Arc<Reporter>,
    max_call_duration: Duration,
}

impl Envelope {
    pub(super) fn new(
        jobs: Option<JobService>,
        routes: Routes,
        caller: &Caller,
        reporter: Arc<Reporter>,
        max_call_duration: Duration,
    ) -> Self {
        Self { jobs, routes, caller: Arc::new(caller.clone()), reporter, max_call_duration }
    }

    /// Answers a call. What can be done at once is done here, so that the future holds no more than what it waits for.
    pub(super) fn answer<B>(
        self: Arc<Self>,
        request: Request<B>,
    ) -> impl Future<Output = Response<AnswerBody>> + Send + 'static + use<B>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        let received = Instant::now();
        let is_ours = is_method_of_ours(request.uri().path());
        let event = self.reporter.started(&request, received, is_ours, &self.caller);
        let work = self.work(request, received, is_ours);
        async move {
            let span = event.span();
            let handling = self.handle(work, span, event.about());
            let handling = if span.is_recorded() {
                // Boxed, so that all others do not carry it about.
                Either::Left(span.clone().carry(Box::pin(handling)))
            } else {
                Either::Right(handling)
            };
            let handling = AssertUnwindSafe(handling).catch_unwind();
            let Handled { response, outcome } = handling.await.unwrap_or_else(|_| panicked());
            event.finish(response, outcome)
        }
    }

    /// What a call asks for.
    fn work<B>(&self, request: Request<B>, received: Instant, is_ours: bool) -> Work<B> {
        let timeout = match screen(&request) {
            Ok(timeout) => timeout,
            Err(refused) => return Work::Refused(refused),
        };
        match &self.jobs {
            Some(_) if request.uri().path() == DESCRIBE_JOB => {
                Work::DescribeJob { body: request.into_body(), received, timeout }
            }
            Some(_) if is_ours => {
                let what = "the only method is DescribeJob".to_owned();
                Work::Refused(Box::new(status::of(CallError::Unimplemented(what)).into()))
            }
            Some(_) | None => Work::Elsewhere(Box::new((request, received, timeout))),
        }
    }

    async fn handle<B>(&self, work: Work<B>, span: &CallSpan, about: &OnceLock<About>) -> Handled
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        // Not by pairs: they would stay in the future beside their parts.
        match work {
            Work::DescribeJob { body, received, timeout } => match &self.jobs {
                Some(jobs) => {
                    let asker = self.caller.identity.as_ref();
                    let context = CallContext { received, timeout, asker, span, about };
                    match jobs.deadline(&context) {
                        Some(deadline) => {
                            jobs.describe_job(body, &context, deadline).await.unwrap_or_else(Handled::from)
                        }
                        None => status::of(CallError::NoTime).into(),
                    }
                }
                None => status::of(CallError::Unimplemented("no such service or method".to_owned())).into(),
            },
            Work::Elsewhere(call) => {
                let (request, received, timeout) = *call;
                Box::pin(self.handle_elsewhere(request, received, timeout)).await
            }
            Work::Refused(refused) => *refused,
        }
    }
}

/// What is to be done for a call.
enum Work<B> {
    DescribeJob { body: B, received: Instant, timeout: Option<Duration> },
    Elsewhere(Box<(Request<B>, Instant, Option<Duration>)>),
    Refused(Box<Handled>),
}

impl Envelope {
    /// The other services' calls: answered, or their streams begun, within the time that any call has.
    async fn handle_elsewhere<B>(&self, request: Request<B>, received: Instant, timeout: Option<Duration>) -> Handled
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        let method = Method::of_path(request.uri().path());
        let limit = timeout.map_or(self.max_call_duration, |timeout| timeout.min(self.max_call_duration));
        let Ok(Ok(response)) = timeout_at(received + limit, self.routes.clone().call(request)).await else {
            return status::of(CallError::NoTime).into();
        };
        let end = match method {
            // Lasts as long as its caller likes.
            Method::HealthWatch => timeout.map(|timeout| received + timeout),
            // What comes meanwhile is kept in memory.
            Method::Reflection | Method::ReflectionAlpha => Some(received + limit),
            // Their answers are complete.
            Method::HealthCheck | Method::DescribeJob | Method::Unknown => None,
        };
        let response = with_details(response).map(|body| match end {
            Some(end) => AnswerBody::from(Body::new(Limited::new(body, end))),
            None => AnswerBody::from(body),
        });
        Handled { response, outcome: None }
    }
}

/// Whether a path is a method of the job service: `/service/method`.
fn is_method_of_ours(path: &str) -> bool {
    let rest = path.strip_prefix('/').and_then(|path| path.strip_prefix(SERVICE_NAME));
    rest.is_some_and(|rest| rest.starts_with('/'))
}

/// The panic itself is logged by the panic hook, with its place.
fn panicked() -> Handled {
    status::of(CallError::Panicked).into()
}

/// The caller's timeout, or why this call reaches no handler.
fn screen<B>(request: &Request<B>) -> Result<Option<Duration>, Box<Handled>> {
    let content_type = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    // What is not a gRPC call gets an HTTP answer ("gRPC over HTTP2" asks for 415).
    match (request.method(), content_type) {
        (&http::Method::POST, Some(value)) if is_grpc(value) => {}
        (&http::Method::POST, _) => return Err(Box::new(http_answer(StatusCode::UNSUPPORTED_MEDIA_TYPE))),
        _ => return Err(Box::new(http_answer(StatusCode::METHOD_NOT_ALLOWED))),
    }
    let timeout = request.headers().get(GRPC_TIMEOUT).map(|value| timeout::parse(value.as_bytes())).transpose();
    timeout.map_err(|error| {
        let field = InvalidField { field: GRPC_TIMEOUT, description: error.to_string() };
        Box::new(status::of(CallError::Invalid(vec![field])).into())
    })
}

/// `application/grpc`, `application/grpc+proto`, perhaps with parameters; not `application/grpc-web`.
fn is_grpc(content_type: &[u8]) -> bool {
    let rest = content_type.strip_prefix(GRPC_CONTENT_TYPE);
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b';')) || rest.starts_with(b"+proto"))
}

/// tonic's answer to calls of nobody carries no details, so they get ours; the standard services keep the statuses that
/// their protocols define.
fn with_details(response: Response<Body>) -> Response<Body> {
    let headers = response.headers();
    match Status::from_header_map(headers) {
        Some(bare) if bare.code() == Code::Unimplemented && !headers.contains_key(DETAILS) => {
            status::of(CallError::Unimplemented(match bare.message() {
                "" => "no such service or method".to_owned(),
                words => words.to_owned(),
            }))
            .into_http()
        }
        Some(_) | None => response,
    }
}

fn http_answer(status: StatusCode) -> Handled {
    let mut response = Response::new(AnswerBody::from(Body::empty()));
    *response.status_mut() = status;
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    Handled { response, outcome: None }
}

#[cfg(test)]
mod tests {
    use std::mem::size_of_val;

    use http_body_util::Full;

    use super::*;
    use crate::{metrics::CallMetrics, traces::Tracer};

    /// It is moved several times before it is first polled, and a hit needs little of it.
    #[test]
    fn the_future_of_a_call_is_small() {
        let reporter = Arc::new(Reporter::new(CallMetrics::default(), 0, Tracer::default()));
        let caller = Caller::anonymous(([127, 0, 0, 1], 1).into());
        let envelope = Arc::new(Envelope::new(None, Routes::default(), &caller, reporter, Duration::from_secs(1)));
        let answering = envelope.answer(Request::new(Full::<Bytes>::default()));
        assert!(size_of_val(&answering) < 1536, "{} bytes", size_of_val(&answering));
    }
}
