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
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body::Body as HttpBody;
use prost::Message as _;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status, body::Body, codegen::StdError, service::Routes};
use tonic_health::pb::HealthCheckRequest;
use tower::Service as _;

use super::{
    Face, SMALL_REQUEST,
    answer_body::AnswerBody,
    encoding::{Encoding, GRPC_ACCEPT_ENCODING, GRPC_ENCODING},
    health,
    job_service::{DESCRIBE_JOB, GRPC, JobService, SERVICE_NAME},
    message,
    open_calls::{Held, OpenCalls, OpenOnConnection, Token},
    status::{self, CallError},
    timeout,
};
use crate::{
    caller::Caller,
    describe::Asker,
    job::InvalidField,
    lifecycle::PhaseWatch,
    metrics::{CacheOutcome, Method},
    proto::LengthPrefixed,
    traces::CallSpan,
};

mod event;
mod held;
mod limited;
mod request_id;

pub(super) use event::{About, Reporter};
use held::HoldingBody;
use limited::Limited;

static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
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
pub(super) struct Envelope {
    /// Without it, there is none here.
    jobs: Option<JobService>,
    /// The streams of the other services.
    routes: Routes,
    phase: PhaseWatch,
    open: Arc<OpenCalls>,
    open_here: OpenOnConnection,
    caller: Arc<Caller>,
    reporter: Arc<Reporter>,
    max_call_duration: Duration,
}

impl Envelope {
    pub(super) fn new(face: &Face, caller: &Caller) -> Self {
        Self {
            jobs: face.jobs.clone(),
            routes: face.routes.clone(),
            phase: face.phase.clone(),
            open: Arc::clone(&face.open),
            open_here: OpenOnConnection::default(),
            caller: Arc::new(caller.clone()),
            reporter: Arc::clone(&face.reporter),
            max_call_duration: face.max_call_duration,
        }
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

    /// What a call asks for. Its headers, of which there may be many, go no further.
    fn work<B>(&self, request: Request<B>, received: Instant, is_ours: bool) -> Work<B> {
        let (timeout, encoding) = match screen(&request) {
            Ok(screened) => screened,
            Err(refused) => return Work::Refused(refused),
        };
        let refused = |error| Work::Refused(Box::new(status::of(error).into()));
        let Some(call) = self.open.begin() else { return refused(CallError::TooManyCalls) };
        if self.jobs.is_some() && request.uri().path() == DESCRIBE_JOB {
            return Work::DescribeJob { body: request.into_body(), encoding, received, timeout, call };
        }
        let method = Method::of_path(request.uri().path());
        let end = received + timeout.map_or(self.max_call_duration, |timeout| timeout.min(self.max_call_duration));
        let (held, ends) = match method {
            Method::HealthCheck => return Work::HealthCheck(Box::new((request.into_body(), encoding, end, call))),
            // Lasts as long as its caller likes.
            Method::HealthWatch => {
                (self.open.begin_watch(call, &self.open_here), timeout.map(|timeout| received + timeout))
            }
            // What comes meanwhile is kept in memory.
            Method::Reflection | Method::ReflectionAlpha => {
                (self.open.begin_reflection(call, &self.open_here), Some(end))
            }
            Method::DescribeJob | Method::Unknown => {
                let what = if self.jobs.is_some() && is_ours {
                    "the only method is DescribeJob"
                } else {
                    "no such service or method"
                };
                return refused(CallError::Unimplemented(what.to_owned()));
            }
        };
        match held {
            Ok(held) => Work::Stream(Box::new(Stream { request: bare(request, method), encoding, end, ends, held })),
            Err(error) => refused(error),
        }
    }

    async fn handle<B>(&self, work: Work<B>, span: &CallSpan, about: &OnceLock<About>) -> Handled
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        let encoding = work.encoding();
        // Not by pairs: they would stay in the future beside their parts.
        let mut handled = match work {
            Work::DescribeJob { body, encoding, received, timeout, call } => match &self.jobs {
                Some(jobs) => {
                    let asker = self.caller.identity.as_ref();
                    let context = CallContext { received, timeout, asker, span, about };
                    match jobs.deadline(&context) {
                        Some(deadline) => jobs
                            .describe_job(body, encoding, &context, call, deadline)
                            .await
                            .unwrap_or_else(Handled::from),
                        None => status::of(CallError::NoTime).into(),
                    }
                }
                None => status::of(CallError::Unimplemented("no such service or method".to_owned())).into(),
            },
            Work::HealthCheck(check) => {
                let (body, encoding, end, call) = *check;
                Box::pin(self.check_health(body, encoding, end, call)).await
            }
            Work::Stream(stream) => Box::pin(self.begin_stream(*stream)).await,
            Work::Refused(refused) => *refused,
        };
        encoding.disclose(handled.response.headers_mut());
        handled
    }
}

/// What is to be done for a call.
enum Work<B> {
    DescribeJob {
        body: B,
        encoding: Encoding,
        received: Instant,
        timeout: Option<Duration>,
        call: Token,
    },
    /// The request, until when it is waited for, and the call.
    HealthCheck(Box<(B, Encoding, Instant, Token)>),
    Stream(Box<Stream<B>>),
    Refused(Box<Handled>),
}

impl<B> Work<B> {
    fn encoding(&self) -> Encoding {
        match self {
            Self::DescribeJob { encoding, .. } => *encoding,
            Self::HealthCheck(check) => check.1,
            Self::Stream(stream) => stream.encoding,
            Self::Refused(_) => Encoding::Identity,
        }
    }
}

/// A stream of another service that is to begin.
struct Stream<B> {
    request: Request<B>,
    encoding: Encoding,
    /// When it must have begun.
    end: Instant,
    /// When it must have ended, if at any time.
    ends: Option<Instant>,
    held: Held,
}

impl Envelope {
    /// Answers `Health/Check`. One whose request is complete waits for nothing, however many others do.
    async fn check_health<B>(&self, body: B, encoding: Encoding, end: Instant, call: Token) -> Handled
    where
        B: HttpBody<Data = Bytes>,
    {
        let message = tokio::select! {
            biased;
            message = message::receive_if_any(body, encoding, SMALL_REQUEST) => message,
            error = self.open.check_is_unfinished(&self.open_here, end) => Err(error),
        };
        // No message at all counts as an empty one.
        let request = message.map(Option::unwrap_or_default).and_then(|message| {
            HealthCheckRequest::decode(message).map_err(|error| CallError::NoRequest(error.to_string()))
        });
        let answer = request.map_err(status::of).and_then(|request| health::check(&request, self.phase.current()));
        match answer {
            Ok(answer) => {
                let mut response = Response::new(AnswerBody::ready(LengthPrefixed::of(&answer), call));
                response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
                Handled { response, outcome: None }
            }
            Err(status) => status.into(),
        }
    }

    /// Begins a stream within the time that any call has.
    async fn begin_stream<B>(&self, stream: Stream<B>) -> Handled
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        let Stream { request, encoding: _, end, ends, mut held } = stream;
        let begun = tokio::select! {
            biased;
            begun = timeout_at(end, self.routes.clone().call(request)) => begun,
            () = held.lost() => return status::of(CallError::TooManyCalls).into(),
        };
        let Ok(Ok(response)) = begun else { return status::of(CallError::NoTime).into() };
        let response = with_details(response).map(|body| {
            let body = Body::new(HoldingBody::new(body, held));
            AnswerBody::from(match ends {
                Some(end) => Body::new(Limited::new(body, end)),
                None => body,
            })
        });
        Handled { response, outcome: None }
    }
}

/// The request with what tonic reads of it and no more: the rest may be a thousand header fields, which would stay in memory
/// for as long as the stream.
fn bare<B>(request: Request<B>, method: Method) -> Request<B> {
    let (mut parts, body) = request.into_parts();
    let mut bare = Request::new(body);
    *bare.method_mut() = http::Method::POST;
    *bare.uri_mut() = http::Uri::from_static(method.name());
    *bare.headers_mut() = [&GRPC_ENCODING, &GRPC_ACCEPT_ENCODING]
        .into_iter()
        .filter_map(|name| parts.headers.remove(name).map(|value| (name.clone(), value)))
        .collect::<HeaderMap>();
    bare
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

/// The caller's timeout and encoding, or why this call reaches no handler.
fn screen<B>(request: &Request<B>) -> Result<(Option<Duration>, Encoding), Box<Handled>> {
    let content_type = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    // What is not a gRPC call gets an HTTP answer ("gRPC over HTTP2" asks for 415).
    match (request.method(), content_type) {
        (&http::Method::POST, Some(value)) if is_grpc(value) => {}
        (&http::Method::POST, _) => return Err(Box::new(http_answer(StatusCode::UNSUPPORTED_MEDIA_TYPE))),
        _ => return Err(Box::new(http_answer(StatusCode::METHOD_NOT_ALLOWED))),
    }
    let timeout = request.headers().get(&GRPC_TIMEOUT).map(|value| timeout::parse(value.as_bytes())).transpose();
    let refused = |error| Box::new(status::of(error).into());
    let timeout = timeout.map_err(|error| {
        let field = InvalidField { field: GRPC_TIMEOUT.as_str(), description: error.to_string() };
        refused(CallError::Invalid(vec![field]))
    })?;
    Ok((timeout, Encoding::of(request.headers()).map_err(refused)?))
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
        Some(_) if headers.contains_key(DETAILS) => response,
        // By tonic's limits for a message and for what it decompresses to.
        Some(bare) if matches!(bare.code(), Code::OutOfRange | Code::ResourceExhausted) => {
            status::of(CallError::TooLarge).into_http()
        }
        Some(bare) if bare.code() == Code::Unimplemented => {
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

    use super::{super::GrpcSettings, *};
    use crate::{lifecycle::Lifecycle, metrics::CallMetrics};

    /// It is moved several times before it is first polled, and a hit needs little of it.
    #[test]
    fn the_future_of_a_call_is_small() {
        let caller = Caller::anonymous(([127, 0, 0, 1], 1).into());
        let phase = Lifecycle::new().watch();
        let face = Face::health_only(&phase, &GrpcSettings::default(), &CallMetrics::default());
        let envelope = Arc::new(Envelope::new(&face, &caller));
        let answering = envelope.answer(Request::new(Full::<Bytes>::default()));
        assert!(size_of_val(&answering) < 1536, "{} bytes", size_of_val(&answering));
    }
}
