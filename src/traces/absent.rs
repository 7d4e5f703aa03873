//! What there is instead of spans in a binary that was built without them: types of which there are no values.

use std::{future::Ready, net::SocketAddr, sync::Arc};

use http::Request;

use super::{Sampler, TraceSettings, TracesError, traceparent::Traceparent};
use crate::{
    job::JobKey,
    metrics::{CacheOutcome, CallCode, TraceMetrics, UpstreamCode},
    upstream::{Described, UpstreamError},
};

#[derive(Debug)]
pub(super) enum Recorder {}

impl Recorder {
    #[expect(clippy::unnecessary_wraps, reason = "the other one can fail")]
    pub(super) fn start(_: TraceSettings, _: &TraceMetrics) -> Result<Option<Self>, TracesError> {
        Ok(None)
    }

    pub(super) fn sampler(&self) -> Sampler {
        match *self {}
    }

    pub(super) fn heeds_callers(&self) -> bool {
        match *self {}
    }

    pub(super) fn finish(&self) -> Ready<()> {
        match *self {}
    }
}

#[derive(Debug)]
pub(super) enum Call {}

impl Call {
    pub(super) fn begin<B>(
        recorder: &Arc<Recorder>,
        _: Option<Traceparent>,
        _: &Request<B>,
        _: SocketAddr,
    ) -> Arc<Self> {
        match **recorder {}
    }

    pub(super) fn trace_id(&self) -> &'static str {
        match *self {}
    }

    pub(super) fn about(&self, _: &JobKey) {
        match *self {}
    }

    pub(super) fn end(&self, _: CallCode, _: Option<CacheOutcome>) {
        match *self {}
    }

    pub(super) fn request(&self, _: &str, _: u32) -> Sending {
        match *self {}
    }
}

#[derive(Debug)]
pub(super) enum Sending {}

impl Sending {
    pub(super) fn end(&self, _: UpstreamCode, _: Result<&Described, &UpstreamError>) {
        match *self {}
    }
}
