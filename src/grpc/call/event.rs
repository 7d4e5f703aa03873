//! One report per call: counted always, logged unless it is one of many that were answered from memory, fresh, or by
//! joining another's fetch, or one of many with the same caller and code.
//!
//! A [`CallEvent`] that is dropped before it was reported is reported then, so that a call whose caller went away has a report
//! as well. Nothing is formatted, and no text allocated, before it is clear that the event is logged.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, Request, Response, StatusCode, uri::PathAndQuery};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};
use tonic_types::StatusExt as _;
use tracing::{Level, level_filters::LevelFilter};

use super::{
    super::answer_body::AnswerBody,
    request_id::{REQUEST_ID, RequestId},
};
use crate::{
    caller::Caller,
    job::JobKey,
    metrics::{CacheOutcome, CallCode, CallMetrics, Method},
    telemetry::LineBudget,
    traces::{CallSpan, Tracer},
};

const GRPC_STATUS: &str = "grpc-status";
/// Longest path that is logged; those of real methods have some forty characters.
const LOGGED_METHOD: usize = 100;

/// Where calls are reported. One per gateway.
#[derive(Debug)]
pub(crate) struct Reporter {
    metrics: CallMetrics,
    /// Of this many answers from memory, fresh, or by joining another's fetch one is logged; 0 means none.
    log_hits: u32,
    hits: AtomicU64,
    /// For all others.
    budget: LineBudget,
    tracer: Tracer,
}

/// What a call is about, once that is known.
#[derive(Debug)]
pub(in super::super) struct About {
    pub(in super::super) key: JobKey,
    /// By which of its names the policy allowed its caller, if there is a policy and it did.
    pub(in super::super) allowed_as: Option<usize>,
}

impl Reporter {
    pub(crate) fn new(metrics: CallMetrics, log_hits: u32, tracer: Tracer) -> Self {
        Self { metrics, log_hits, hits: AtomicU64::new(0), budget: LineBudget::default(), tracer }
    }

    /// A call has come.
    pub(super) fn started<B>(
        self: &Arc<Self>,
        request: &Request<B>,
        received: Instant,
        is_ours: bool,
        caller: &Arc<Caller>,
    ) -> CallEvent {
        let method = Method::of_path(request.uri().path());
        self.metrics.started(method);
        let unknown_path = match method {
            Method::Unknown => request.uri().path_and_query().cloned(),
            Method::DescribeJob
            | Method::HealthCheck
            | Method::HealthWatch
            | Method::Reflection
            | Method::ReflectionAlpha => None,
        };
        let span = match method {
            Method::DescribeJob => self.tracer.call(request, caller.address),
            // Probes and tools: nobody looks for them in a trace.
            Method::HealthCheck
            | Method::HealthWatch
            | Method::Reflection
            | Method::ReflectionAlpha
            | Method::Unknown => CallSpan::default(),
        };
        CallEvent {
            reporter: Arc::clone(self),
            received,
            method,
            unknown_path,
            is_ours,
            request_id: RequestId::of(request.headers()),
            caller: Arc::clone(caller),
            about: OnceLock::new(),
            outcome: None,
            is_reported: false,
            span,
        }
    }

    /// Of how many such calls this one is logged; `None` if it is not.
    fn logged_one_in(&self, caller: &Caller, code: CallCode, outcome: Option<CacheOutcome>) -> Option<u64> {
        // Thousands may wait for one fetch; who started it by having to wait is logged, and so is each whom it does not help,
        // but nobody may fill the log.
        if code != CallCode::Ok || !matches!(outcome, Some(CacheOutcome::Hit | CacheOutcome::Collapsed)) {
            return self.budget.one_in((caller.source(), code.name()), Instant::now());
        }
        match u64::from(self.log_hits) {
            0 => None,
            1 => Some(1),
            // The first is logged, so that trying the gateway out shows how a call looks.
            many => self.hits.fetch_add(1, Ordering::Relaxed).is_multiple_of(many).then_some(many),
        }
    }
}

/// A call until it is reported.
#[derive(Debug)]
pub(super) struct CallEvent {
    reporter: Arc<Reporter>,
    received: Instant,
    method: Method,
    /// If the method is unknown.
    unknown_path: Option<PathAndQuery>,
    is_ours: bool,
    request_id: RequestId,
    caller: Arc<Caller>,
    /// Kept here, so that it is known even if the caller goes away.
    about: OnceLock<About>,
    /// How the cache came by the outcome, if it was asked.
    outcome: Option<CacheOutcome>,
    is_reported: bool,
    span: CallSpan,
}

impl CallEvent {
    /// The call's span, for what is done for it.
    pub(super) fn span(&self) -> &CallSpan {
        &self.span
    }

    /// Where to note what the call is about.
    pub(super) fn about(&self) -> &OnceLock<About> {
        &self.about
    }

    /// Gives the answer the call's id, and reports the call as answered with this; a stream not before it ends.
    pub(super) fn finish(
        mut self,
        mut response: Response<AnswerBody>,
        outcome: Option<CacheOutcome>,
    ) -> Response<AnswerBody> {
        self.outcome = outcome;
        response.headers_mut().insert(REQUEST_ID, self.request_id.header());
        let (code, http_status) = match (response.status(), code_in(response.headers())) {
            (StatusCode::OK, None) if self.method.is_streaming() => {
                return response.map(|inner| AnswerBody::from(Body::new(Reported { inner, event: Some(self) })));
            }
            (StatusCode::OK, code) => (code.unwrap_or(CallCode::Ok), None),
            // Not a gRPC call.
            (other, _) => (CallCode::Unimplemented, Some(other)),
        };
        self.report(code, Some(response.headers()), http_status);
        response
    }

    /// `status_in` is where the status is, if the caller gets one; `http_status` is for those who get none of gRPC's.
    fn report(&mut self, code: CallCode, status_in: Option<&HeaderMap>, http_status: Option<StatusCode>) {
        self.is_reported = true;
        self.reporter.metrics.handled(self.method, code, self.received.elapsed());
        self.span.end(code, self.outcome);
        let level = if self.is_ours { Level::INFO } else { Level::DEBUG };
        if level <= LevelFilter::current()
            && let Some(one_in) = self.reporter.logged_one_in(&self.caller, code, self.outcome)
        {
            self.log(code, status_in, http_status, one_in);
        }
    }

    fn log(&self, code: CallCode, status_in: Option<&HeaderMap>, http_status: Option<StatusCode>, one_in: u64) {
        let duration_ms = millis(self.received);
        // Told only where it is not 1.
        let one_in = (one_in > 1).then_some(one_in);
        let about = self.about.get();
        let caller = tracing::field::display(self.caller.shown(about.and_then(|about| about.allowed_as)));
        // Told only of errors: of successes there are many.
        let is_error = code != CallCode::Ok;
        let reason = status_in.filter(|_| is_error).and_then(reason_in);
        let key = about.filter(|_| is_error).map(|about| &about.key);
        let (account, vault, job) = (key.map(JobKey::account_id), key.map(JobKey::vault_name), key.map(JobKey::job_id));
        let http_status = http_status.map(|status| status.as_u16());
        let (code, cache) = (code.name(), self.outcome.map(CacheOutcome::name));
        // Read by the macros only if somebody listens.
        let (method, request_id) = (tracing::field::display(Path(self)), tracing::field::display(&self.request_id));
        let trace_id = self.span.trace_id().map(tracing::field::display);
        if self.is_ours {
            tracing::info!(
                method,
                code,
                reason,
                http_status,
                cache,
                account,
                vault,
                job,
                duration_ms,
                request_id,
                trace_id,
                caller,
                one_in,
                "call"
            );
        } else {
            tracing::debug!(method, code, reason, http_status, cache, duration_ms, request_id, caller, one_in, "call");
        }
    }
}

impl Drop for CallEvent {
    fn drop(&mut self) {
        if !self.is_reported {
            self.report(CallCode::Canceled, None, None);
        }
    }
}

struct Path<'a>(&'a CallEvent);

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.unknown_path {
            // A path may hold anything of UTF-8, control characters of terminals too.
            Some(path) => path.path().chars().take(LOGGED_METHOD).try_for_each(|c| match c {
                '!'..='~' => fmt::Write::write_char(f, c),
                _ => write!(f, "{}", c.escape_default()),
            }),
            None => f.write_str(self.0.method.name()),
        }
    }
}

/// The body of a stream, which ends its call: with its trailers, or by being dropped before them.
struct Reported {
    inner: AnswerBody,
    event: Option<CallEvent>,
}

impl HttpBody for Reported {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        // Nothing is copied: it is another service's.
        let frame = frame.map(|frame| frame.map(|f| f.map_data(|mut data| data.copy_to_bytes(data.remaining()))));
        let trailers = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::trailers_ref);
        let code = match &frame {
            Some(Ok(_)) => trailers.map(|trailers| code_in(trailers).unwrap_or(CallCode::Unknown)),
            Some(Err(status)) => Some(call_code(status.code())),
            None => Some(CallCode::Ok),
        };
        if let Some(code) = code
            && let Some(mut event) = self.event.take()
        {
            event.report(code, trailers, None);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The status that headers or trailers hold, if they hold one.
fn code_in(headers: &HeaderMap) -> Option<CallCode> {
    headers.get(GRPC_STATUS).map(|status| call_code(Code::from_bytes(status.as_bytes())))
}

/// `ErrorInfo.reason` of the status that headers or trailers hold.
fn reason_in(headers: &HeaderMap) -> Option<String> {
    Status::from_header_map(headers)?.get_details_error_info().map(|info| info.reason)
}

/// Milliseconds to three places: a log is no stopwatch.
fn millis(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 1e6).round() / 1e3
}

fn call_code(code: Code) -> CallCode {
    match code {
        Code::Ok => CallCode::Ok,
        Code::Cancelled => CallCode::Canceled,
        Code::Unknown => CallCode::Unknown,
        Code::InvalidArgument => CallCode::InvalidArgument,
        Code::DeadlineExceeded => CallCode::DeadlineExceeded,
        Code::NotFound => CallCode::NotFound,
        Code::AlreadyExists => CallCode::AlreadyExists,
        Code::PermissionDenied => CallCode::PermissionDenied,
        Code::ResourceExhausted => CallCode::ResourceExhausted,
        Code::FailedPrecondition => CallCode::FailedPrecondition,
        Code::Aborted => CallCode::Aborted,
        Code::OutOfRange => CallCode::OutOfRange,
        Code::Unimplemented => CallCode::Unimplemented,
        Code::Internal => CallCode::Internal,
        Code::Unavailable => CallCode::Unavailable,
        Code::DataLoss => CallCode::DataLoss,
        Code::Unauthenticated => CallCode::Unauthenticated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(ip: [u8; 4]) -> Caller {
        Caller::anonymous((ip, 1).into())
    }

    #[test]
    fn a_path_in_the_log_moves_no_terminal() {
        let request = Request::post("/glacier.jobs.v1.JobService/\u{9b}2J\u{202e}").body(()).unwrap();
        let reporter = Arc::new(Reporter::new(CallMetrics::default(), 1, Tracer::default()));
        let event = reporter.started(&request, Instant::now(), true, &Arc::new(caller([127, 0, 0, 1])));
        assert_eq!(Path(&event).to_string(), "/glacier.jobs.v1.JobService/\\u{9b}2J\\u{202e}");
    }

    #[test]
    fn of_answers_that_glacier_was_not_asked_for_one_in_so_many_is_logged_and_of_all_else_every_one() {
        let logged = |log_hits, code, outcome| {
            let reporter = Reporter::new(CallMetrics::default(), log_hits, Tracer::default());
            (0..10).map(|_| reporter.logged_one_in(&caller([127, 0, 0, 1]), code, outcome)).collect::<Vec<_>>()
        };
        let [all, none] = [vec![Some(1); 10], vec![None; 10]];
        for outcome in CacheOutcome::ALL.iter().copied() {
            let costs_nothing = matches!(outcome, CacheOutcome::Hit | CacheOutcome::Collapsed);
            let outcome = Some(outcome);
            assert_eq!(logged(1, CallCode::Ok, outcome), all);
            let sampled: Vec<_> = (0..10).map(|n| (n == 0 || n == 5).then_some(5)).collect();
            assert_eq!(logged(5, CallCode::Ok, outcome), if costs_nothing { sampled } else { all.clone() });
            assert_eq!(logged(0, CallCode::Ok, outcome), if costs_nothing { none.clone() } else { all.clone() });
            assert_eq!(logged(0, CallCode::NotFound, outcome), all, "an error");
        }
        assert_eq!(logged(0, CallCode::Ok, None), all);
    }

    /// D21.
    #[test]
    fn one_callers_flood_of_one_code_is_sampled_and_takes_no_line_of_another_caller_or_code() {
        let reporter = Reporter::new(CallMetrics::default(), 1, Tracer::default());
        let logged = |ip, code, outcome| reporter.logged_one_in(&caller(ip), code, outcome);
        let (loud, quiet) = ([127, 0, 0, 1], [127, 0, 0, 2]);
        for flood in [(CallCode::PermissionDenied, None), (CallCode::Ok, Some(CacheOutcome::StaleIfError))] {
            let lines = (0..10_000).filter_map(|_| logged(loud, flood.0, flood.1)).count();
            assert!((100..1000).contains(&lines), "{lines} lines");
        }
        for _ in 0..50 {
            assert_eq!(logged(quiet, CallCode::PermissionDenied, None), Some(1));
            assert_eq!(logged(loud, CallCode::NotFound, None), Some(1));
        }
        let hits = (0..10_000).filter_map(|_| logged(loud, CallCode::Ok, Some(CacheOutcome::Hit))).count();
        assert_eq!(hits, 10_000, "of these the operator asked for all");
    }
}
