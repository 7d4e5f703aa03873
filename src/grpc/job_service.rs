//! `glacier.jobs.v1.JobService`: a call becomes a job key, a demand and a deadline; the outcome becomes bytes or a status.
//!
//! Written by hand instead of generated, for one reason: its answers are bytes that are ready, not messages to encode.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body::Body as HttpBody;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use super::{
    GrpcSettings,
    answer_body::AnswerBody,
    cache_status::{AGE, CACHE_STATUS, age, cache_status},
    call::{About, CallContext, Handled},
    encoding::Encoding,
    message,
    open_calls::{OpenCalls, Token},
    question::Question,
    status::{self, CallError},
};
use crate::{
    describe::{Asker, Describer, Interruption, Reply},
    job::JobKey,
    lifecycle::{Phase, PhaseWatch},
    policy::PolicySource,
};

/// The service's full name.
pub(super) const SERVICE_NAME: &str = "glacier.jobs.v1.JobService";
/// Its only method's path.
pub(super) const DESCRIBE_JOB: &str = "/glacier.jobs.v1.JobService/DescribeJob";

pub(super) const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
/// Room for these, `cache-status` and the request's id.
const HEADERS: usize = 4;

/// The policy does not allow it.
#[derive(Debug, Clone, Copy)]
struct Denied;

/// The service. Cheap to clone.
#[derive(Clone)]
pub(super) struct JobService {
    describer: Describer,
    policy: Option<PolicySource>,
    phase: PhaseWatch,
    open: Arc<OpenCalls>,
    max_call_duration: Duration,
    max_request_bytes: usize,
}

impl fmt::Debug for JobService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobService").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl JobService {
    pub(super) fn new(
        describer: Describer,
        policy: Option<PolicySource>,
        phase: PhaseWatch,
        open: Arc<OpenCalls>,
        settings: &GrpcSettings,
    ) -> Self {
        Self {
            describer,
            policy,
            phase,
            open,
            max_call_duration: settings.max_call_duration,
            max_request_bytes: settings.max_request_bytes,
        }
    }

    /// Receives the request, asks the use case and answers, all before the deadline: a caller who never finishes sending is
    /// not waited for, and neither is one while the process ends.
    ///
    /// The steps of a call: receive, validate, ask the policy, describe. The cache is asked last, so nobody whom the policy
    /// denies can learn from anything here what is in it.
    pub(super) async fn describe_job<B>(
        &self,
        body: B,
        encoding: Encoding,
        call: &CallContext<'_>,
        open: Token,
        deadline: Instant,
    ) -> Result<Handled, Status>
    where
        B: HttpBody<Data = Bytes>,
    {
        let message = self.receive(body, encoding, deadline).await.map_err(status::of)?;
        let Question { key, max_age } = Question::read(&message).map_err(status::of)?;
        call.span.about(&key);
        let asker = call.asker;
        let permission = self.permission(asker, &key);
        let allowed_as = permission.unwrap_or_default();
        let About { key, .. } = call.about.get_or_init(|| About { key, allowed_as });
        if permission.is_err() {
            return Err(status::of(CallError::NotAllowed { key, caller: asker.map(AsRef::as_ref) }));
        }
        // Called only by who has to wait, and there until the wait is over.
        let stop = async || match self.open.begin_to_wait() {
            Some(_waiting) => {
                self.stop().await;
                Interruption::Draining
            }
            None => Interruption::Overloaded,
        };
        let reply = self.describer.describe(key, asker, max_age, deadline, stop).await;
        Ok(respond(key, reply, open))
    }

    /// The request's message, unless it takes too long to come.
    async fn receive<B>(&self, body: B, encoding: Encoding, deadline: Instant) -> Result<Bytes, CallError<'static>>
    where
        B: HttpBody<Data = Bytes>,
    {
        tokio::select! {
            // As a rule it is there already, and then nothing else here costs anything.
            biased;
            message = message::receive(body, encoding, self.max_request_bytes) => message,
            // Boxed once it is polled, so that a hit does not carry it about.
            error = async { Box::pin(self.time_is_over(deadline)).await } => Err(error),
        }
    }

    /// Resolves with the reason why a request cannot be waited for any longer.
    async fn time_is_over(&self, deadline: Instant) -> CallError<'static> {
        tokio::select! {
            () = sleep_until(deadline) => CallError::NoTime,
            () = self.stop() => CallError::Draining,
            error = self.open.is_unfinished() => error,
        }
    }

    /// Resolves when calls that still wait are to be answered with what there is. Costs nothing until it is polled.
    async fn stop(&self) {
        self.phase.reached(Phase::LastAnswers).await;
    }

    /// By which of the asker's names the policy allows this; without a policy everything is allowed.
    fn permission(&self, asker: Asker<'_>, key: &JobKey) -> Result<Option<usize>, Denied> {
        let Some(policy) = &self.policy else { return Ok(None) };
        policy.name_allowed(asker.map(AsRef::as_ref), key.account_id(), key.vault_name()).map(Some).ok_or(Denied)
    }

    /// The earlier of the caller's deadline and our own limit; `None` if the caller leaves no time at all.
    pub(super) fn deadline(&self, call: &CallContext<'_>) -> Option<Instant> {
        match call.timeout {
            Some(Duration::ZERO) => None,
            timeout => Some(call.received + timeout.map_or(self.max_call_duration, |t| t.min(self.max_call_duration))),
        }
    }
}

fn respond(key: &JobKey, reply: Reply, open: Token) -> Handled {
    let mut response = match reply.result {
        Ok(answer) => {
            let mut response = Response::new(AnswerBody::ready(answer.message, open));
            let headers = response.headers_mut();
            headers.reserve(HEADERS);
            headers.insert(header::CONTENT_TYPE, GRPC);
            headers.insert(AGE, age(answer.age));
            response
        }
        Err(error) => status::of(CallError::Describe { key, error, retry_in: reply.retry_in }).into_http(),
    };
    response.headers_mut().insert(CACHE_STATUS, cache_status(reply.status));
    Handled { response, outcome: Some(reply.status.outcome()) }
}
