//! The gRPC face: turns calls into questions to [`crate::describe`] and outcomes into messages or statuses.
//!
//! [`Face::for_caller`] gives the service for one connection: our job service, and tonic's routes for the standard ones
//! (health, reflection), inside the envelope that every call shares ([`call`]).

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response};
use http_body::Body as HttpBody;
use tonic::{codec::CompressionEncoding::Gzip, codegen::StdError, service::Routes};
use tower::{Service, service_fn};

use crate::{
    caller::Caller, describe::Describer, lifecycle::PhaseWatch, metrics::CallMetrics, policy::PolicySource, proto,
    traces::Tracer,
};

mod answer_body;
mod cache_status;
mod call;
pub mod client;
mod encoding;
mod health;
mod job_service;
mod message;
mod open_calls;
mod question;
mod status;
mod timeout;

pub use answer_body::{AnswerBody, AnswerData};
use call::Envelope;
use job_service::JobService;
use open_calls::OpenCalls;
pub use open_calls::{OpenCallLimits, Token};

/// Settings of the gRPC face.
#[derive(Debug, Clone)]
pub struct GrpcSettings {
    /// The longest that one call may take, whatever the caller's `grpc-timeout` says.
    pub max_call_duration: Duration,
    /// Whether server reflection is offered.
    pub reflection: bool,
    /// Largest request message, in bytes. An honest one has a few hundred.
    pub max_request_bytes: usize,
    /// Of this many successful calls that were answered from memory, fresh, or by a fetch that was under way, one is logged;
    /// 0 means none. All others are logged, unless one caller has very many with one code.
    /// [`DEFAULT_LOG_HITS`].
    pub log_hits: u32,
    /// How many calls may be open.
    pub open_calls: OpenCallLimits,
}

/// At 50,000 hits a second, 50 lines; metrics tell of all. A line per hit would cost more than the hit.
pub const DEFAULT_LOG_HITS: u32 = 1000;

impl Default for GrpcSettings {
    fn default() -> Self {
        Self {
            max_call_duration: Duration::from_secs(10),
            reflection: true,
            max_request_bytes: 16 * 1024,
            log_hits: DEFAULT_LOG_HITS,
            open_calls: OpenCallLimits::default(),
        }
    }
}

/// Largest request to the standard services, in bytes: the name of a service, or of something in a proto file.
const SMALL_REQUEST: usize = 4096;

/// The reflection service could not be built from the embedded descriptors.
#[derive(Debug, thiserror::Error)]
#[error("the embedded descriptor sets are unusable: {0}")]
pub struct DescriptorError(#[from] tonic_reflection::server::Error);

/// All services, before there is a connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Face {
    jobs: Option<JobService>,
    /// The streams: watching health, and reflection.
    routes: Routes,
    phase: PhaseWatch,
    open: Arc<OpenCalls>,
    reporter: Arc<call::Reporter>,
    max_call_duration: Duration,
}

impl Face {
    /// Wires the services. With a policy, the job service answers only who it allows; health and reflection say nothing
    /// about jobs and are not subject to it.
    pub fn new(
        describer: Describer,
        policy: Option<PolicySource>,
        phase: &PhaseWatch,
        settings: &GrpcSettings,
        metrics: &CallMetrics,
        tracer: Tracer,
    ) -> Result<Self, DescriptorError> {
        let open = Arc::new(OpenCalls::new(settings.open_calls.clone(), metrics.clone()));
        let jobs = JobService::new(describer, policy, phase.clone(), Arc::clone(&open), settings);
        let mut routes = Routes::new(
            health::service(phase.clone()).accept_compressed(Gzip).max_decoding_message_size(SMALL_REQUEST),
        );
        if settings.reflection {
            routes = routes
                .add_service(reflected().build_v1()?.accept_compressed(Gzip).max_decoding_message_size(SMALL_REQUEST))
                .add_service(
                    reflected().build_v1alpha()?.accept_compressed(Gzip).max_decoding_message_size(SMALL_REQUEST),
                );
        }
        // Without `prepare` axum builds the router anew for every connection.
        let reporter = Arc::new(call::Reporter::new(metrics.clone(), settings.log_hits, tracer));
        let max_call_duration = settings.max_call_duration;
        let (jobs, routes, phase) = (Some(jobs), routes.prepare(), phase.clone());
        Ok(Self { jobs, routes, phase, open, reporter, max_call_duration })
    }

    /// Nothing but the health service, for a port where probes that know no TLS ask.
    pub fn health_only(phase: &PhaseWatch, settings: &GrpcSettings, metrics: &CallMetrics) -> Self {
        let health = health::service(phase.clone()).accept_compressed(Gzip).max_decoding_message_size(SMALL_REQUEST);
        let reporter = Arc::new(call::Reporter::new(metrics.clone(), settings.log_hits, Tracer::default()));
        let max_call_duration = settings.max_call_duration;
        let (routes, phase) = (Routes::new(health).prepare(), phase.clone());
        let open = Arc::new(OpenCalls::new(settings.open_calls.clone(), metrics.clone()));
        Self { jobs: None, routes, phase, open, reporter, max_call_duration }
    }

    /// The service for one connection. Its futures have a type of their own, so that nobody has to box them.
    pub fn for_caller<B>(
        &self,
        caller: &Caller,
    ) -> impl Service<Request<B>, Response = Response<AnswerBody>, Error = Infallible, Future: Send + 'static>
    + Clone
    + Send
    + 'static
    + use<B>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        let envelope = Arc::new(Envelope::new(self, caller));
        service_fn(move |request| Arc::clone(&envelope).answer(request).map(Ok))
    }
}

/// Everything that `grpcurl` needs to decode answers, health answers and error details without a proto file.
fn reflected() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}
