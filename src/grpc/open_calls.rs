//! How many calls may be open at once, in the process and on one connection.
//!
//! A call is open until the last byte of its answer is written. What exceeds a limit is refused at once, with hints when to
//! come again. Nobody is kept out for long by calls that only sit there: an unfinished request sits in a lobby, of which
//! the oldest leaves for the next, and calls that wait for Glacier leave room for those that memory answers.

use std::sync::Arc;

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

/// Counted until it is dropped; of nothing, by default.
#[derive(Debug, Default)]
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

    /// A call has come; `None`: it is one too many ([`CallError::TooManyCalls`]).
    pub(super) fn begin(&self) -> Option<Token> {
        self.take(&self.all, self.limits.all, OpenLimit::All)
    }

    /// The same of a call of the job service that has to wait for Glacier. What is ready at once, as a hit is, does not ask.
    pub(super) fn begin_to_wait(&self) -> Option<Token> {
        self.take(&self.waiting, self.limits.waiting, OpenLimit::Waiting)
    }

    fn take(&self, tally: &Tally, most: usize, limit: OpenLimit) -> Option<Token> {
        let token = tally.take(most);
        if token.is_none() {
            self.metrics.refused(limit);
        }
        token
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

    fn too_many_here(&self) -> CallError<'static> {
        self.metrics.refused(OpenLimit::Connection);
        CallError::TooManyOnConnection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_calls(all: usize, waiting: usize) -> OpenCalls {
        OpenCalls::new(OpenCallLimits { all, waiting, ..OpenCallLimits::default() }, CallMetrics::default())
    }

    #[test]
    fn a_call_that_ends_makes_room_for_another() {
        let open = open_calls(2, 1);
        let calls = [open.begin(), open.begin()];
        assert!(calls.iter().all(Option::is_some));
        for _ in 0..3 {
            assert!(open.begin().is_none());
        }
        drop(calls);
        assert!([open.begin(), open.begin()].iter().all(Option::is_some));
    }

    #[test]
    fn a_call_that_waits_no_more_makes_room_for_another() {
        let open = open_calls(10, 1);
        let waiting = open.begin_to_wait();
        assert!(waiting.is_some() && open.begin_to_wait().is_none());
        drop(waiting);
        assert!(open.begin_to_wait().is_some());
    }
}
