//! `grpc.health.v1.Health` over the phases of the process.
//!
//! The messages and the server glue are tonic-health's; the service is ours, because tonic-health's own marks `""` as
//! serving before anything is ready and ends a `Watch` on an unknown service with `NOT_FOUND`, where the protocol wants
//! `SERVICE_UNKNOWN` and an open stream.

use std::pin::Pin;

use tokio_stream::{Stream, StreamExt as _, wrappers::WatchStream};
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};

use super::job_service::SERVICE_NAME;
use crate::lifecycle::{Phase, PhaseWatch};

/// The health service.
pub(super) fn service(phase: PhaseWatch) -> HealthServer<PhaseHealth> {
    HealthServer::new(PhaseHealth { phase })
}

/// Answers health questions from the process's phase.
#[derive(Debug)]
pub(super) struct PhaseHealth {
    phase: PhaseWatch,
}

/// What is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// Should callers come here?
    Readiness,
    /// Is the process alive at all?
    Liveness,
    /// A name that is not served here.
    Unknown,
}

impl Subject {
    fn named(name: &str) -> Self {
        match name {
            "" | "readiness" | SERVICE_NAME => Self::Readiness,
            "liveness" => Self::Liveness,
            _ => Self::Unknown,
        }
    }

    fn status(self, phase: Phase) -> ServingStatus {
        match (self, phase) {
            (Self::Readiness, Phase::Serving) | (Self::Liveness, _) => ServingStatus::Serving,
            (Self::Readiness, _) => ServingStatus::NotServing,
            (Self::Unknown, _) => ServingStatus::ServiceUnknown,
        }
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// The answer to a check in this phase.
pub(super) fn check(request: &HealthCheckRequest, phase: Phase) -> Result<HealthCheckResponse, Status> {
    match Subject::named(&request.service) {
        Subject::Unknown => {
            Err(Status::not_found("unknown service; known are \"\", liveness, readiness and the job service"))
        }
        subject => Ok(response(subject.status(phase))),
    }
}

#[tonic::async_trait]
impl Health for PhaseHealth {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        check(request.get_ref(), self.phase.current()).map(Response::new)
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let subject = Subject::named(&request.get_ref().service);
        let mut last = None;
        let changes = WatchStream::new(self.phase.receiver())
            // A stream left open would hold its connection until the drain is over. The last phase is told even if it came so
            // soon after the one before that nobody saw that one.
            .take_while(|phase| *phase < Phase::Closing)
            .chain(tokio_stream::once(Phase::Closing))
            .filter_map(move |phase| {
                let status = subject.status(phase);
                (last.replace(status) != Some(status)).then(|| Ok(response(status)))
            });
        Ok(Response::new(Box::pin(changes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_follows_the_phase_and_liveness_does_not() {
        for name in ["", "readiness", "glacier.jobs.v1.JobService"] {
            let statuses = [Phase::Starting, Phase::Serving, Phase::LameDuck, Phase::Closing, Phase::LastAnswers]
                .map(|phase| Subject::named(name).status(phase) == ServingStatus::Serving);
            assert_eq!(statuses, [false, true, false, false, false], "{name}");
        }
        assert_eq!(Subject::named("liveness").status(Phase::Starting), ServingStatus::Serving);
        assert_eq!(Subject::named("liveness").status(Phase::LastAnswers), ServingStatus::Serving);
    }
}
