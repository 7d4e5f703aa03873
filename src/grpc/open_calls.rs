//! How many calls may be open at once, in the process and on one connection.
//!
//! A call is open until the last byte of its answer is written. What exceeds a limit is refused at once, with hints when to
//! come again. Nobody is kept out for long by calls that only sit there: an unfinished request sits in a lobby, of which
//! the oldest leaves for the next, and calls that wait for Glacier leave room for those that memory answers.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
};

use tokio::time::{Instant, sleep_until};

use super::status::CallError;
use crate::{
    lobby::{Entered, Lobby, Seat},
    metrics::{CallMetrics, OpenLimit},
};

/// How many calls may be open.
#[derive(Debug, Clone)]
pub struct OpenCallLimits {
    /// Calls of all kinds, answers that are not taken included.
    pub all: usize,
    /// Calls of the job service that wait for Glacier: 10,000 callers may wait for one cold key.
    pub waiting: usize,
    /// Calls of the job service whose request is not complete; each may hold the largest request.
    pub unfinished: usize,
    /// Reflection streams, and `Health/Check` calls whose request is not complete. One that is complete waits for nothing.
    pub others: usize,
    /// The same on one connection.
    pub others_per_connection: usize,
    /// `Health/Watch` streams on one connection: gRPC's client-side health checks hold one.
    pub watches_per_connection: usize,
}

impl Default for OpenCallLimits {
    fn default() -> Self {
        Self {
            all: 16_384,
            waiting: 10_240,
            unfinished: 2048,
            others: 64,
            others_per_connection: 8,
            watches_per_connection: 4,
        }
    }
}

/// Counts the tokens that there are of it.
#[derive(Debug, Default)]
struct Tally(Arc<()>);

/// Counted until it is dropped.
#[derive(Debug)]
pub struct Token {
    _of: Arc<()>,
}

impl Tally {
    fn take(&self, most: usize) -> Option<Token> {
        let token = Token { _of: Arc::clone(&self.0) };
        // The tally itself is one.
        (Arc::strong_count(&self.0) - 1 <= most).then_some(token)
    }
}

/// The open calls of one port.
#[derive(Debug)]
pub(super) struct OpenCalls {
    limits: OpenCallLimits,
    all: Tally,
    waiting: Tally,
    unfinished: Arc<Lobby>,
    others: Arc<Lobby>,
    metrics: CallMetrics,
}

/// The open calls of one connection that count apart.
#[derive(Debug, Default)]
pub(super) struct OpenOnConnection {
    others: Tally,
    watches: Tally,
}

/// What an open stream holds; it resolves when another one gets its seat.
#[derive(Debug)]
pub(super) struct Held {
    _tokens: [Token; 2],
    seat: Option<Seat>,
}

impl Held {
    /// Resolves if the stream has to end for another one.
    pub(super) async fn lost(&mut self) {
        match &mut self.seat {
            Some(seat) => seat.await,
            None => std::future::pending().await,
        }
    }

    /// The seat, if it can be lost.
    pub(super) fn seat(&mut self) -> Option<&mut Seat> {
        self.seat.as_mut()
    }
}

impl OpenCalls {
    pub(super) fn new(limits: OpenCallLimits, metrics: CallMetrics) -> Self {
        let (unfinished, others) = (Lobby::new(limits.unfinished), Lobby::new(limits.others));
        Self { limits, all: Tally::default(), waiting: Tally::default(), unfinished, others, metrics }
    }

    /// A call has come.
    pub(super) fn begin(&self) -> Result<Token, CallError<'static>> {
        self.all.take(self.limits.all).ok_or_else(|| self.too_many(OpenLimit::All))
    }

    /// Does what may have to wait for Glacier. What is ready at once, as a hit is, is never refused and costs nothing here.
    pub(super) async fn wait<T>(
        &self,
        // By reference: a future that is handed over is in the other one twice.
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, CallError<'static>> {
        let mut token = None;
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending if token.is_none() => {
                token = self.waiting.take(self.limits.waiting);
                match token {
                    Some(_) => Poll::Pending,
                    None => Poll::Ready(Err(self.too_many(OpenLimit::Waiting))),
                }
            }
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// A request to the job service is not complete. Resolves if it must not be waited for any longer.
    pub(super) async fn is_unfinished(&self) -> CallError<'static> {
        self.enter(&self.unfinished, OpenLimit::Unfinished).await;
        CallError::TooManyCalls
    }

    /// The same of a `Health/Check`, which is waited for until `end`.
    pub(super) async fn check_is_unfinished(&self, of: &OpenOnConnection, end: Instant) -> CallError<'static> {
        let Some(_token) = of.others.take(self.limits.others_per_connection) else { return self.too_many_here() };
        tokio::select! {
            () = sleep_until(end) => CallError::NoTime,
            () = self.enter(&self.others, OpenLimit::Others) => CallError::TooManyCalls,
        }
    }

    /// A reflection stream has come.
    pub(super) fn begin_reflection(&self, call: Token, of: &OpenOnConnection) -> Result<Held, CallError<'static>> {
        let token = of.others.take(self.limits.others_per_connection).ok_or_else(|| self.too_many_here())?;
        Ok(Held { _tokens: [call, token], seat: Some(self.enter(&self.others, OpenLimit::Others)) })
    }

    /// A `Health/Watch` has come.
    pub(super) fn begin_watch(&self, call: Token, of: &OpenOnConnection) -> Result<Held, CallError<'static>> {
        let token = of.watches.take(self.limits.watches_per_connection).ok_or_else(|| self.too_many_here())?;
        Ok(Held { _tokens: [call, token], seat: None })
    }

    fn enter(&self, lobby: &Arc<Lobby>, limit: OpenLimit) -> Seat {
        let (seat, entered) = lobby.enter();
        if entered == Entered::InPlaceOfTheOldest {
            self.metrics.refused(limit);
        }
        seat
    }

    fn too_many(&self, limit: OpenLimit) -> CallError<'static> {
        self.metrics.refused(limit);
        CallError::TooManyCalls
    }

    fn too_many_here(&self) -> CallError<'static> {
        self.metrics.refused(OpenLimit::Connection);
        CallError::TooManyOnConnection
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        pin::pin,
    };

    use futures_util::FutureExt as _;

    use super::*;

    fn open_calls(all: usize, waiting: usize) -> OpenCalls {
        OpenCalls::new(OpenCallLimits { all, waiting, ..OpenCallLimits::default() }, CallMetrics::default())
    }

    #[test]
    fn a_call_that_ends_makes_room_for_another() {
        let open = open_calls(2, 1);
        let calls = [open.begin(), open.begin()];
        assert!(calls.iter().all(Result::is_ok));
        for _ in 0..3 {
            assert!(matches!(open.begin(), Err(CallError::TooManyCalls)));
        }
        drop(calls);
        assert!(open.begin().is_ok() && open.begin().is_ok());
    }

    #[test]
    fn when_too_many_wait_one_more_is_refused_and_what_is_ready_is_not() {
        let open = open_calls(10, 1);
        let mut never = Box::pin(pending::<()>());
        let mut waiting = Box::pin(open.wait(never.as_mut()));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(waiting.as_mut().now_or_never().is_none(), "it counts once");
        assert!(matches!(open.wait(pin!(pending::<()>())).now_or_never(), Some(Err(CallError::TooManyCalls))));
        assert!(matches!(open.wait(pin!(ready(1))).now_or_never(), Some(Ok(1))));
        drop(waiting);
        assert!(open.wait(pin!(pending::<()>())).now_or_never().is_none());
    }
}
