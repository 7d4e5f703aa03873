//! The body of a stream that holds what bounds the number of streams, and ends when it has to give that up.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Status, body::Body};

use super::super::{
    open_calls::Held,
    status::{self, CallError},
};

/// A stream until its seat is lost.
pub(super) struct HoldingBody {
    /// `None` once it has ended.
    open: Option<(Body, Held)>,
}

impl HoldingBody {
    pub(super) fn new(inner: Body, held: Held) -> Self {
        Self { open: Some((inner, held)) }
    }
}

impl HttpBody for HoldingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some((inner, held)) = &mut self.open else { return Poll::Ready(None) };
        if held.seat().is_none_or(|seat| Pin::new(seat).poll(cx).is_pending()) {
            return Pin::new(inner).poll_frame(cx);
        }
        // Whatever it still holds is let go of.
        self.open = None;
        let mut trailers = HeaderMap::new();
        let told = status::of(CallError::TooManyCalls).add_header(&mut trailers).map(|()| Frame::trailers(trailers));
        Poll::Ready(Some(told))
    }

    fn is_end_stream(&self) -> bool {
        self.open.as_ref().is_none_or(|(inner, _)| inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.open.as_ref().map_or_else(SizeHint::default, |(inner, _)| inner.size_hint())
    }
}
