//! `glacier.jobs.v1.JobService`: a call becomes a job key, a demand and a deadline; the outcome becomes bytes or a status.
//!
//! Written by hand instead of generated, for one reason: its answers are bytes that are ready, not messages to encode.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::Body as HttpBody;
use tokio::time::{Instant, sleep_until};
use tonic::{Request, Response, Status, body::Body, server::NamedService};
use tower::{Service, service_fn};

use super::{
    GrpcSettings,
    cache_status::{add_age, add_cache_status},
    call::{CallContext, Note},
    codec::ReadyCodec,
    status::{self, CallError},
};
use crate::{
    describe::{Asker, Describer, Reply},
    job::{InvalidField, JobKey},
    lifecycle::{Phase, PhaseWatch},
    policy::PolicySource,
    proto::v1::DescribeJobRequest,
};

/// The service's full name.
pub(super) const SERVICE_NAME: &str = "glacier.jobs.v1.JobService";
const DESCRIBE_JOB: &str = "/glacier.jobs.v1.JobService/DescribeJob";

/// The service. Cheap to clone.
#[derive(Clone)]
pub(super) struct JobService {
    describer: Describer,
    policy: Option<PolicySource>,
    phase: PhaseWatch,
    max_call_duration: Duration,
    max_request_bytes: usize,
}

impl JobService {
    pub(super) fn new(
        describer: Describer,
        policy: Option<PolicySource>,
        phase: PhaseWatch,
        settings: &GrpcSettings,
    ) -> Self {
        Self {
            describer,
            policy,
            phase,
            max_call_duration: settings.max_call_duration,
            max_request_bytes: settings.max_request_bytes,
        }
    }

    /// Receives the request, asks the use case and answers, all before the deadline: a caller who never finishes sending is
    /// not waited for, and neither is one while the process ends.
    async fn call_describe_job<B>(self, mut request: http::Request<B>) -> http::Response<Body>
    where
        B: HttpBody + Send + 'static,
        B::Error: Into<tonic::codegen::StdError> + Send + 'static,
    {
        let context = request.extensions_mut().remove::<CallContext>();
        let Some(deadline) = self.deadline(context.as_ref()) else {
            return status::of(CallError::NoTime).into_http();
        };
        let (identity, note) = context.map(|context| (context.identity, context.note)).unwrap_or_default();
        let mut grpc = tonic::server::Grpc::new(ReadyCodec).max_decoding_message_size(self.max_request_bytes);
        let stop = self.phase.reached(Phase::LastAnswers);
        let method = service_fn(move |request: Request<DescribeJobRequest>| {
            let (service, identity, note) = (self.clone(), identity.clone(), note.clone());
            async move { service.describe_job(request, identity.as_ref(), deadline, &note).await }
        });
        tokio::select! {
            // The use case knows more about a deadline that passes than we do here, so it goes first.
            biased;
            response = grpc.unary(method, request) => response,
            () = sleep_until(deadline) => status::of(CallError::NoTime).into_http(),
            () = stop => status::of(CallError::Draining).into_http(),
        }
    }

    /// The steps of a call whose request is decoded: validate, ask the policy, describe. The cache is asked last, so nobody
    /// whom the policy denies can learn from anything here what is in it.
    async fn describe_job(
        &self,
        request: Request<DescribeJobRequest>,
        asker: Asker<'_>,
        deadline: Instant,
        note: &Note,
    ) -> Result<Response<Bytes>, Status> {
        let (key, max_age) = validate(request.get_ref()).map_err(|fields| status::of(CallError::Invalid(fields)))?;
        if !self.allows(asker, &key) {
            return Err(status::of(CallError::NotAllowed { key: &key, caller: asker.map(AsRef::as_ref) }));
        }
        let stop = self.phase.reached(Phase::LastAnswers);
        let reply = self.describer.describe(&key, asker, max_age, deadline, stop).await;
        note.set(reply.status.outcome());
        respond(&key, reply)
    }

    /// Whether the policy allows this; without a policy everything is allowed.
    fn allows(&self, asker: Asker<'_>, key: &JobKey) -> bool {
        self.policy
            .as_ref()
            .is_none_or(|policy| policy.current().allows(asker.map(AsRef::as_ref), key.account_id(), key.vault_name()))
    }

    /// The earlier of the caller's deadline and our own limit; `None` if the caller leaves no time at all.
    fn deadline(&self, context: Option<&CallContext>) -> Option<Instant> {
        let (received, timeout) = context.map_or_else(|| (Instant::now(), None), |call| (call.received, call.timeout));
        match timeout {
            Some(Duration::ZERO) => None,
            timeout => Some(received + timeout.map_or(self.max_call_duration, |t| t.min(self.max_call_duration))),
        }
    }
}

/// The request's parts as types that cannot be wrong, or every field that is.
fn validate(request: &DescribeJobRequest) -> Result<(JobKey, Option<Duration>), Vec<InvalidField>> {
    let key = JobKey::parse(&request.account_id, &request.vault_name, &request.job_id);
    let max_age = request
        .max_age
        .map(Duration::try_from)
        .transpose()
        .map_err(|_| InvalidField { field: "max_age", description: "must be zero or a positive duration".to_owned() });
    match (key, max_age) {
        (Ok(key), Ok(max_age)) => Ok((key, max_age)),
        (key, max_age) => {
            let mut fields = key.err().unwrap_or_default();
            fields.extend(max_age.err());
            Err(fields)
        }
    }
}

fn respond(key: &JobKey, reply: Reply) -> Result<Response<Bytes>, Status> {
    match reply.result {
        Ok(answer) => {
            let mut response = Response::new(answer.response);
            add_cache_status(response.metadata_mut(), reply.status);
            add_age(response.metadata_mut(), answer.age);
            Ok(response)
        }
        Err(error) => {
            let mut status = status::of(CallError::Describe { key, error });
            add_cache_status(status.metadata_mut(), reply.status);
            Err(status)
        }
    }
}

impl NamedService for JobService {
    const NAME: &'static str = SERVICE_NAME;
}

impl<B> Service<http::Request<B>> for JobService
where
    B: HttpBody + Send + 'static,
    B::Error: Into<tonic::codegen::StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            if request.uri().path() == DESCRIBE_JOB {
                return Ok(service.call_describe_job(request).await);
            }
            let what = "the only method is DescribeJob".to_owned();
            Ok(status::of(CallError::Unimplemented(what)).into_http())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(account: &str, vault: &str, job: &str, seconds: Option<i64>) -> DescribeJobRequest {
        DescribeJobRequest {
            account_id: account.into(),
            vault_name: vault.into(),
            job_id: job.into(),
            max_age: seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        }
    }

    #[test]
    fn every_bad_field_is_named() {
        let fields = validate(&request("1", "..", "", Some(-1))).unwrap_err();
        assert_eq!(
            fields.iter().map(|f| f.field).collect::<Vec<_>>(),
            ["account_id", "vault_name", "job_id", "max_age"]
        );
        let fields = validate(&request("", "v", "j", Some(-1))).unwrap_err();
        assert_eq!(fields.iter().map(|f| f.field).collect::<Vec<_>>(), ["max_age"]);
    }

    #[test]
    fn an_absent_max_age_is_not_a_zero_one() {
        assert_eq!(validate(&request("", "v", "j", None)).unwrap().1, None);
        assert_eq!(validate(&request("", "v", "j", Some(0))).unwrap().1, Some(Duration::ZERO));
    }
}
