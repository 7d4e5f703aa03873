//! The body of a stream that ends at a time, if it has not ended by itself.

use std::{
    future::Future as _,
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Status, body::Body};

use super::super::status::{self, CallError};

/// A stream until its time is over.
pub(super) struct Limited {
    inner: Body,
    /// `None` once it has ended.
    time: Option<Pin<Box<Sleep>>>,
}

impl Limited {
    /// Lets `inner` go on until `end`, and ends it then with `DEADLINE_EXCEEDED`.
    pub(super) fn new(inner: Body, end: Instant) -> Self {
        Self { inner, time: Some(Box::pin(sleep_until(end))) }
    }
}

impl HttpBody for Limited {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(time) = &mut self.time else { return Poll::Ready(None) };
        if time.as_mut().poll(cx).is_pending() {
            return Pin::new(&mut self.inner).poll_frame(cx);
        }
        // Whatever it still holds is let go of.
        self.time = None;
        drop(mem::replace(&mut self.inner, Body::empty()));
        let mut trailers = HeaderMap::new();
        let told = status::of(CallError::NoTime).add_header(&mut trailers).map(|()| Frame::trailers(trailers));
        Poll::Ready(Some(told))
    }

    /// What has ended before it began is an answer whose status is in the headers: it must not go on with an empty piece.
    fn is_end_stream(&self) -> bool {
        self.time.is_none() || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.inner.size_hint() {
            whole if self.is_end_stream() || whole.exact() == Some(0) => whole,
            // It may be cut off.
            whole => {
                let mut hint = SizeHint::new();
                whole.upper().into_iter().for_each(|upper| hint.set_upper(upper));
                hint
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::{BodyExt as _, StreamBody};
    use tokio_stream::StreamExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_goes_on_until_its_time_is_over_and_ends_with_a_status() {
        let second = Duration::from_secs(1);
        let ticks =
            tokio_stream::iter(0..).throttle(second).map(|_| Ok::<_, Status>(Frame::data(Bytes::from_static(b"x"))));
        let start = Instant::now();
        let limited = Limited::new(Body::new(StreamBody::new(ticks)), start + 5 * second / 2);
        let all = limited.collect().await.unwrap();
        assert_eq!(start.elapsed(), 5 * second / 2);
        assert_eq!(all.trailers().unwrap()["grpc-status"], "4");
        assert_eq!(all.to_bytes().len(), 3, "at 0, 1 and 2 seconds");
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_ended_before_it_began_says_so_and_so_does_what_was_ended() {
        let second = Duration::from_secs(1);
        let limited = |inner| Limited::new(inner, Instant::now() + second);
        let empty = limited(Body::empty());
        assert!(empty.is_end_stream());
        assert_eq!(empty.size_hint().exact(), Some(0));

        let whole = limited(Body::new(http_body_util::Full::new(Bytes::from_static(b"four"))));
        assert!(!whole.is_end_stream());
        let hint = whole.size_hint();
        assert_eq!((hint.lower(), hint.upper()), (0, Some(4)), "it may be cut off");

        let mut silent = limited(Body::new(StreamBody::new(tokio_stream::pending::<Result<Frame<Bytes>, Status>>())));
        assert!(!silent.is_end_stream());
        assert!(silent.frame().await.unwrap().unwrap().is_trailers());
        assert!(silent.is_end_stream());
    }
}
